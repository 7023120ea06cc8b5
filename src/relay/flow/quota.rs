//! The send quota: how much a member may have the relay write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pause::PauseClock;
use super::rate::Rate;
use crate::relay::conn_id::ConnId;

/// The send quotas of all members, if there is a limit (`rate`).
///
/// A message costs its sender what it costs the relay: its bytes times the members that receive them.
/// A member over its quota is *throttled*: it is not closed and loses nothing, but it is not read from
/// until the debt has passed, and TCP makes its program wait.
#[derive(Debug)]
pub(super) struct SendQuota {
    rate: Option<Rate>,
    accounts: BTreeMap<ConnId, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// When the debt has passed.
    free_at: Option<Instant>,
    /// How long the member was throttled.
    throttled: PauseClock,
}

impl SendQuota {
    pub(super) fn new(per_second: Option<u64>) -> Self {
        Self {
            rate: per_second.map(Rate::new),
            accounts: BTreeMap::new(),
        }
    }

    /// Whether there is a limit.
    pub(super) const fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Charges a member for bytes that it has the relay write.
    pub(super) fn charge(&mut self, id: ConnId, bytes: u64, now: Instant) {
        if let Some(rate) = self.rate
            && bytes > 0
        {
            let account = self.accounts.entry(id).or_default();
            account.free_at = Some(rate.spend(account.free_at, now, bytes));
        }
    }

    /// Throttles a member that is over its quota, and returns when that ends; `None` if it may go on.
    pub(super) fn throttle(&mut self, id: ConnId, now: Instant) -> Option<Instant> {
        let account = self.accounts.get_mut(&id)?;
        let free_at = account.free_at.filter(|&free_at| free_at > now)?;
        account.throttled.start(now);
        Some(free_at)
    }

    /// When a throttled member may be read from again.
    pub(super) fn throttled_until(&self, id: ConnId) -> Option<Instant> {
        let account = self.accounts.get(&id)?;
        account.free_at.filter(|_| account.throttled.is_running())
    }

    /// The throttle of a member ends.
    pub(super) fn end_throttle(&mut self, id: ConnId, now: Instant) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.throttled.stop(now);
        }
    }

    /// How long a member has been throttled in all.
    pub(super) fn throttled_time(&self, id: ConnId, now: Instant) -> Duration {
        let account = self.accounts.get(&id);
        account.map_or(Duration::ZERO, |account| account.throttled.total(now))
    }

    /// How many members are throttled.
    pub(super) fn throttled(&self) -> usize {
        let accounts = self.accounts.values();
        accounts
            .filter(|account| account.throttled.is_running())
            .count()
    }

    /// Lifts the limit.
    pub(super) fn lift(&mut self) {
        self.rate = None;
        self.accounts.clear();
    }

    /// Forgets a connection that ended.
    pub(super) fn remove(&mut self, id: ConnId) {
        self.accounts.remove(&id);
    }

    /// The members that have an account.
    pub(super) fn members(&self) -> impl Iterator<Item = ConnId> {
        self.accounts.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_over_its_quota_is_throttled_until_the_debt_has_passed() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now() + 10 * SECOND;
        let at = |second| start + second * SECOND;
        let [talker, other] = [ConnId::new(1, 0), ConnId::new(2, 0)];
        let mut quota = SendQuota::new(Some(1000));
        quota.charge(talker, 1000, at(0));
        assert_eq!(quota.throttle(talker, at(0)), None, "the burst");
        quota.charge(talker, 3000, at(0));
        assert_eq!(quota.throttle(talker, at(0)), Some(at(3)));
        // Asking again changes nothing.
        assert_eq!(quota.throttle(talker, at(1)), Some(at(3)));
        assert_eq!(quota.throttled_until(talker), Some(at(3)));
        assert_eq!(quota.throttled_time(talker, at(2)), 2 * SECOND);
        quota.end_throttle(talker, at(3));
        assert_eq!(quota.throttle(talker, at(3)), None);
        assert_eq!(quota.throttled_until(talker), None);
        assert_eq!(quota.throttled_time(talker, at(9)), 3 * SECOND);
        quota.charge(talker, 5000, at(9));
        assert_eq!(quota.throttle(talker, at(9)), Some(at(13)));
        assert_eq!(quota.throttled_time(talker, at(10)), 4 * SECOND);
        quota.end_throttle(talker, at(13));
        assert_eq!(quota.throttled_time(talker, at(20)), 7 * SECOND);

        assert_eq!(quota.throttle(other, at(0)), None);
        assert_eq!(quota.throttled_time(other, at(20)), Duration::ZERO);
        quota.remove(talker);
        assert!(quota.accounts.is_empty());
    }

    #[test]
    fn member_that_costs_nothing_has_no_account() {
        let now = Instant::now();
        let id = ConnId::new(1, 0);
        let mut quota = SendQuota::new(Some(1000));
        quota.charge(id, 0, now);
        assert!(quota.is_limited() && quota.accounts.is_empty());
        let mut unlimited = SendQuota::new(None);
        unlimited.charge(id, 1_000_000, now);
        assert!(!unlimited.is_limited() && unlimited.accounts.is_empty());
    }

    #[test]
    fn lifted_limit_throttles_no_member() {
        let now = Instant::now();
        let id = ConnId::new(1, 0);
        let mut quota = SendQuota::new(Some(1));
        quota.charge(id, 1000, now);
        assert!(quota.throttle(id, now).is_some());
        quota.lift();
        assert_eq!(quota.throttle(id, now), None);
        assert!(!quota.is_limited());
    }
}
