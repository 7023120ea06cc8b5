//! Whom the room waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::{Duration, Instant};

use log::info;

use super::pace::Verdict;
use super::{CloseReason, ConnId, Deadline, Ready, Relay, after, get_mut};
use crate::wire::Hears;

/// Who has to wait for a member that is far behind: see the relay's "pace, then cut".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everybody who speaks.
    Room,
    /// It alone, because all that it hears are answers to itself.
    Itself,
}

impl From<Hears> for Scope {
    fn from(hears: Hears) -> Self {
        match hears {
            Hears::Frames | Hears::Payloads | Hears::Time => Self::Room,
            Hears::Nothing => Self::Itself,
        }
    }
}

/// While the room waits, how often in `slow_timeout` each may say a little.
const SHARES: u32 = 10;

/// How much one member is read each time at least, in bytes: a line or a few. Where all together may
/// say more it is a sixteenth of that, so that whoever floods does not get all.
const SHARE: usize = 512;

/// The members that are awaited.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// And what may be said each time while the room waits for them, in bytes.
    by_the_room: BTreeMap<ConnId, i64>,
    by_themselves: BTreeSet<ConnId>,
    /// Since when the room waits, if it does.
    since: Option<Instant>,
    /// How long it has waited before that, in all.
    before: Duration,
    /// How many bytes may still be said by all together before the next time that they may.
    allowance: i64,
    /// Who has had its share of that.
    had_share: Vec<ConnId>,
}

impl Waiting {
    /// This member is awaited from now on.
    pub(super) fn begin(&mut self, id: ConnId, scope: Scope, allowance: u64, now: Instant) {
        match scope {
            Scope::Room => {
                let each_time = allowance / u64::from(SHARES);
                self.by_the_room.insert(id, each_time.cast_signed());
                if self.since.is_none() {
                    self.since = Some(now);
                    self.allowance = each_time.cast_signed();
                }
            }
            Scope::Itself => {
                self.by_themselves.insert(id);
            }
        }
    }

    /// This member is awaited no longer, if it was. Says who may go on now, if anybody.
    pub(super) fn end(&mut self, id: ConnId, now: Instant) -> Option<Scope> {
        if self.by_themselves.remove(&id) {
            return Some(Scope::Itself);
        }
        if self.by_the_room.remove(&id).is_none() || !self.by_the_room.is_empty() {
            return None;
        }
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
        Some(Scope::Room)
    }

    /// Whether the room waits for anybody.
    pub(super) fn is_on(&self) -> bool {
        !self.by_the_room.is_empty()
    }

    /// Since when the room waits, if it does.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether anybody may still say anything before the next time.
    pub(super) const fn has_allowance(&self) -> bool {
        self.allowance > 0
    }

    /// Gives a member its share: how many bytes it may be read.
    pub(super) fn share(&mut self, id: ConnId) -> usize {
        self.had_share.push(id);
        SHARE.max(self.each_time() as usize / 16)
    }

    /// How many bytes all together may say each time: as the one allows for whom it is least.
    fn each_time(&self) -> i64 {
        self.by_the_room.values().copied().min().unwrap_or(0)
    }

    /// Counts what was said, in bytes.
    pub(super) const fn spend(&mut self, said: usize) {
        self.allowance = self.allowance.saturating_sub_unsigned(said as u64);
    }

    /// Whether this member has to wait for itself.
    pub(super) fn is_for_itself(&self, id: ConnId) -> bool {
        !self.by_themselves.is_empty() && self.by_themselves.contains(&id)
    }

    /// Who is awaited.
    pub(super) fn members(&self) -> Vec<ConnId> {
        let by_the_room = self.by_the_room.keys();
        by_the_room.chain(&self.by_themselves).copied().collect()
    }

    /// Whether anybody is awaited.
    pub(super) fn is_empty(&self) -> bool {
        self.by_the_room.is_empty() && self.by_themselves.is_empty()
    }

    /// How long the room has waited in all.
    pub(super) fn total(&self, now: Instant) -> Duration {
        let this_time = self.since.map(|since| now.saturating_duration_since(since));
        self.before + this_time.unwrap_or_default()
    }
}

impl<S> Relay<S> {
    /// Whether the room waits for a member that reads and is far behind.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_on()
    }

    /// Decides about those whom the room waits for.
    pub(super) fn expire_awaited(&mut self) {
        self.awaited_due = None;
        for id in self.waiting.members() {
            let Some(connection) = get_mut(&mut self.connections, id) else {
                continue;
            };
            let channel = &self.channels[connection.dialect];
            if let Some(member) = &mut connection.behind {
                let behind = member.queue.cost(&channel.backlog);
                let verdict = member.pace.expire(behind, &channel.pace_limits, self.now);
                self.obey(id, verdict, behind);
            }
        }
    }

    /// Each may say a little more while the room waits.
    pub(super) fn share_again(&mut self) {
        let each_time = self.waiting.each_time();
        self.waiting.allowance = each_time.min(self.waiting.allowance + each_time);
        self.relist_parked();
        if let Some(since) = self.waiting.since() {
            self.next_share(since);
        }
    }

    fn next_share(&mut self, since: Instant) {
        let due = after(self.now, self.limits.slow_timeout / SHARES);
        self.deadlines.push((due, Deadline::Share(since)));
    }

    /// Those who are not read from are to be read from again.
    fn relist_parked(&mut self) {
        for id in mem::take(&mut self.waiting.had_share) {
            if let Some(connection) = get_mut(&mut self.connections, id) {
                connection.ready.remove(Ready::HAD_SHARE);
            }
        }
        self.ready.unpark();
    }

    /// Does what was decided about a member that is this far behind.
    pub(super) fn obey(&mut self, id: ConnId, verdict: Verdict, behind: u64) {
        match verdict {
            Verdict::Await { due, allowance } => {
                let Some(connection) = get_mut(&mut self.connections, id) else {
                    return;
                };
                let scope = Scope::from(connection.dialect.rules().hears);
                let begins = scope == Scope::Room && !self.waiting.is_on();
                if begins && self.waiting_line.is_due(self.now) {
                    let who = connection.who();
                    info!("waiting for {who}, {behind} bytes behind (limit: --soft-limit)");
                }
                self.waiting.begin(id, scope, allowance, self.now);
                if begins {
                    self.next_share(self.now);
                }
                if self.awaited_due.is_none_or(|earlier| due < earlier) {
                    self.awaited_due = Some(due);
                    self.deadlines.push((due, Deadline::Awaited));
                }
            }
            Verdict::LetBe => self.stop_waiting(id),
            Verdict::TooFar => self.mark(id, CloseReason::SlowConsumer { behind }),
            Verdict::Drips(took) => self.mark(id, CloseReason::Dripping { took }),
        }
    }

    /// Nobody waits for this member any more. Whoever was not read from on its account is again.
    pub(super) fn stop_waiting(&mut self, id: ConnId) {
        if self.waiting.is_empty() {
            return;
        }
        let may_go_on = self.waiting.end(id, self.now);
        if self.waiting.is_empty() {
            self.awaited_due = None;
        }
        match may_go_on {
            Some(Scope::Room) => self.relist_parked(),
            Some(Scope::Itself) => {
                if let Some(connection) = get_mut(&mut self.connections, id) {
                    self.ready.wake(connection, id);
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_waits_as_long_as_it_does_for_anybody_and_that_time_counts_once() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let [first, second] = [ConnId::new(1, 0), ConnId::new(2, 0)];
        let mut waiting = Waiting::default();
        waiting.begin(first, Scope::Room, 10, at(1));
        waiting.begin(second, Scope::Room, 10, at(3));
        assert_eq!(waiting.end(first, at(5)), None);
        assert!(waiting.is_on());
        assert_eq!(waiting.end(first, at(5)), None, "it is awaited no longer");
        assert_eq!(waiting.total(at(6)), Duration::from_secs(5));
        assert_eq!(waiting.end(second, at(7)), Some(Scope::Room));
        assert!(!waiting.is_on() && waiting.is_empty());
        assert_eq!(waiting.total(at(9)), Duration::from_secs(6));
        waiting.begin(first, Scope::Room, 10, at(10));
        assert_eq!(waiting.total(at(11)), Duration::from_secs(7));
    }

    #[test]
    fn what_all_may_say_is_used_up_with_its_last_byte() {
        let mut waiting = Waiting::default();
        waiting.begin(ConnId::new(1, 0), Scope::Room, 100, Instant::now());
        waiting.spend(9);
        assert!(waiting.has_allowance());
        waiting.spend(1);
        assert!(!waiting.has_allowance());
    }

    #[test]
    fn who_waits_for_itself_holds_up_nobody_else() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let [asker, other] = [ConnId::new(1, 0), ConnId::new(2, 0)];
        let mut waiting = Waiting::default();
        waiting.begin(asker, Scope::Itself, 10, now);
        assert!(waiting.is_for_itself(asker) && !waiting.is_for_itself(other));
        assert!(!waiting.is_on() && !waiting.is_empty());
        assert_eq!(waiting.members(), [asker]);
        assert_eq!(waiting.total(later), Duration::ZERO);
        assert_eq!(waiting.end(asker, later), Some(Scope::Itself));
        assert!(waiting.is_empty());
        assert_eq!(waiting.end(asker, later), None);
    }
}
