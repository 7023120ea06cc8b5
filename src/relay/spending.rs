//! What members cost the others, and who has to rest for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ConnId;
use super::rate::Rate;

/// What each member has had the relay write lately, if that is limited.
///
/// A message costs its sender what it costs the relay: its bytes times those who hear them. Who spends
/// more than the rate is not closed, and loses nothing: it is not read from until that is worked off,
/// and TCP has its program wait.
#[derive(Debug)]
pub(super) struct Spending {
    rate: Option<Rate>,
    accounts: BTreeMap<ConnId, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// When all is worked off.
    free_at: Option<Instant>,
    /// Since when it rests, if it does.
    resting: Option<Instant>,
    /// How long it has rested before that, in all.
    rested: Duration,
}

impl Spending {
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

    /// A member has caused this many bytes to be written.
    pub(super) fn spend(&mut self, id: ConnId, bytes: u64, now: Instant) {
        if let Some(rate) = self.rate
            && bytes > 0
        {
            let account = self.accounts.entry(id).or_default();
            account.free_at = Some(rate.spend(account.free_at, now, bytes));
        }
    }

    /// Until when a member has to rest, if it has to; it begins now.
    pub(super) fn rest(&mut self, id: ConnId, now: Instant) -> Option<Instant> {
        let account = self.accounts.get_mut(&id)?;
        let free_at = account.free_at.filter(|&free_at| free_at > now)?;
        account.resting.get_or_insert(now);
        Some(free_at)
    }

    /// Until when a member rests, if it does.
    pub(super) fn rests_until(&self, id: ConnId) -> Option<Instant> {
        let account = self.accounts.get(&id)?;
        account.free_at.filter(|_| account.resting.is_some())
    }

    /// A member has rested.
    pub(super) fn rested(&mut self, id: ConnId, now: Instant) {
        if let Some(account) = self.accounts.get_mut(&id)
            && let Some(since) = account.resting.take()
        {
            account.rested += now.saturating_duration_since(since);
        }
    }

    /// How long a member has rested in all.
    pub(super) fn rested_in_all(&self, id: ConnId, now: Instant) -> Duration {
        self.accounts.get(&id).map_or(Duration::ZERO, |account| {
            let resting = account.resting;
            let this_time = resting.map(|since| now.saturating_duration_since(since));
            account.rested + this_time.unwrap_or_default()
        })
    }

    /// From now on nobody pays for anything.
    pub(super) fn stop(&mut self) {
        self.rate = None;
        self.accounts.clear();
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, id: ConnId) {
        self.accounts.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_spent_too_much_rests_until_it_is_worked_off_and_all_its_rests_are_counted() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now() + 10 * SECOND;
        let at = |second| start + second * SECOND;
        let [talker, other] = [ConnId::new(1, 0), ConnId::new(2, 0)];
        let mut spending = Spending::new(Some(1000));
        spending.spend(talker, 1000, at(0));
        assert_eq!(
            spending.rest(talker, at(0)),
            None,
            "a second's worth is free"
        );
        spending.spend(talker, 3000, at(0));
        assert_eq!(spending.rest(talker, at(0)), Some(at(3)));
        // It is asked again, which changes nothing.
        assert_eq!(spending.rest(talker, at(1)), Some(at(3)));
        assert_eq!(spending.rested_in_all(talker, at(2)), 2 * SECOND);
        spending.rested(talker, at(3));
        assert_eq!(spending.rest(talker, at(3)), None);
        assert_eq!(spending.rested_in_all(talker, at(9)), 3 * SECOND);
        spending.spend(talker, 5000, at(9));
        assert_eq!(spending.rest(talker, at(9)), Some(at(13)));
        assert_eq!(spending.rested_in_all(talker, at(10)), 4 * SECOND);
        spending.rested(talker, at(13));
        assert_eq!(spending.rested_in_all(talker, at(20)), 7 * SECOND);

        assert_eq!(spending.rest(other, at(0)), None);
        assert_eq!(spending.rested_in_all(other, at(20)), Duration::ZERO);
        spending.forget(talker);
        assert!(spending.accounts.is_empty());
    }

    #[test]
    fn who_costs_nothing_has_no_account() {
        let now = Instant::now();
        let id = ConnId::new(1, 0);
        let mut spending = Spending::new(Some(1000));
        spending.spend(id, 0, now);
        assert!(spending.is_limited() && spending.accounts.is_empty());
        let mut unlimited = Spending::new(None);
        unlimited.spend(id, 1_000_000, now);
        assert!(!unlimited.is_limited() && unlimited.accounts.is_empty());
    }
}
