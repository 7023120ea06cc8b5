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
    awaited: BTreeMap<ConnId, Awaited>,
    /// When there is something to be decided about whom.
    decisions: BTreeSet<(Instant, ConnId)>,
    /// How many of them the room waits for.
    by_the_room: usize,
    /// Since when it does, if it does.
    since: Option<Instant>,
    /// How long it has waited before that, in all.
    before: Duration,
    /// How many bytes all together may say each time.
    each_time: i64,
    /// How many of these are left before the next time.
    allowance: i64,
    /// Who has had its share of that.
    had_share: Vec<ConnId>,
    /// How long those who have waited for themselves have done that, in all.
    alone_before: BTreeMap<ConnId, Duration>,
}

/// A member that is awaited.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    scope: Scope,
    since: Instant,
    /// When there is something to be decided about it.
    due: Instant,
    /// What it allows all together to say each time, in bytes.
    each_time: i64,
}

impl Waiting {
    /// This member is awaited until `due`, if it was or not.
    pub(super) fn hold(
        &mut self,
        id: ConnId,
        scope: Scope,
        (due, allowance): (Instant, u64),
        now: Instant,
    ) {
        let each_time = (allowance / u64::from(SHARES)).cast_signed();
        let before = self.awaited.get(&id).copied();
        let since = before.map_or(now, |one| one.since);
        let awaited = Awaited {
            scope,
            since,
            due,
            each_time,
        };
        self.awaited.insert(id, awaited);
        if let Some(before) = before {
            self.decisions.remove(&(before.due, id));
        }
        self.decisions.insert((due, id));
        if scope == Scope::Itself {
            return;
        }
        if before.is_none() {
            self.by_the_room += 1;
        }
        if self.since.is_none() {
            self.since = Some(now);
            (self.each_time, self.allowance) = (each_time, each_time);
        }
        // If it is more now, that is seen the next time.
        self.each_time = self.each_time.min(each_time);
    }

    /// This member is awaited no longer, if it was. Says who may go on now, if anybody.
    pub(super) fn end(&mut self, id: ConnId, now: Instant) -> Option<Scope> {
        let one = self.awaited.remove(&id)?;
        self.decisions.remove(&(one.due, id));
        if one.scope == Scope::Itself {
            let waited = now.saturating_duration_since(one.since);
            *self.alone_before.entry(id).or_default() += waited;
            return Some(Scope::Itself);
        }
        self.by_the_room -= 1;
        if self.by_the_room > 0 {
            return None;
        }
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
        Some(Scope::Room)
    }

    /// Whether the room waits for anybody.
    pub(super) const fn is_on(&self) -> bool {
        self.by_the_room > 0
    }

    /// Since when the room waits, if it does.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether anybody may still say anything before the next time.
    pub(super) const fn has_allowance(&self) -> bool {
        self.allowance > 0
    }

    /// The next time has come.
    fn renew(&mut self) {
        let by_the_room = |one: &&Awaited| one.scope == Scope::Room;
        let awaited = self.awaited.values().filter(by_the_room);
        // As the one allows for whom it is least.
        self.each_time = awaited.map(|one| one.each_time).min().unwrap_or(0);
        self.allowance = self.each_time.min(self.allowance + self.each_time);
    }

    /// Gives a member its share: how many bytes it may be read.
    pub(super) fn take_share(&mut self, id: ConnId) -> usize {
        self.had_share.push(id);
        SHARE.max(self.each_time as usize / 16)
    }

    /// Counts what was said, in bytes.
    pub(super) const fn spend(&mut self, said: usize) {
        self.allowance = self.allowance.saturating_sub_unsigned(said as u64);
    }

    /// Whether this member has to wait for itself.
    pub(super) fn is_for_itself(&self, id: ConnId) -> bool {
        let one = self.awaited.get(&id);
        one.is_some_and(|one| one.scope == Scope::Itself)
    }

    /// How long this member has waited for itself, in all.
    pub(super) fn alone(&self, id: ConnId, now: Instant) -> Duration {
        let before = self.alone_before.get(&id).copied().unwrap_or_default();
        match self.awaited.get(&id) {
            Some(one) if one.scope == Scope::Itself => {
                before + now.saturating_duration_since(one.since)
            }
            _ => before,
        }
    }

    /// This member is no longer here.
    pub(super) fn forget(&mut self, id: ConnId) {
        self.alone_before.remove(&id);
    }

    /// When there is something to be decided next.
    fn next_decision(&self) -> Option<Instant> {
        self.decisions.first().map(|&(due, _)| due)
    }

    /// Takes one of those about whom there is something to be decided.
    fn take_decision(&mut self, now: Instant) -> Option<ConnId> {
        let &(due, id) = self.decisions.first()?;
        if due > now {
            return None;
        }
        self.decisions.pop_first();
        Some(id)
    }

    /// Whether nobody is awaited.
    pub(super) fn is_empty(&self) -> bool {
        self.awaited.is_empty()
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

    /// Decides about those who are awaited and whose time has come.
    pub(super) fn expire_awaited(&mut self) {
        if self.awaited_due.is_some_and(|due| due > self.now) {
            // That one is still to come, and this one was for somebody who is awaited no longer.
            return;
        }
        self.awaited_due = None;
        while let Some(id) = self.waiting.take_decision(self.now) {
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
        self.set_awaited_due();
    }

    /// Has it be looked at who is awaited when something is to be decided.
    fn set_awaited_due(&mut self) {
        if let Some(due) = self.waiting.next_decision()
            && self.awaited_due.is_none_or(|earlier| due < earlier)
        {
            self.awaited_due = Some(due);
            self.deadlines.push((due, Deadline::Awaited));
        }
    }

    /// Each may say a little more while the room waits.
    pub(super) fn share_again(&mut self) {
        self.waiting.renew();
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
                    self.has_told_waiting = true;
                }
                self.waiting.hold(id, scope, (due, allowance), self.now);
                if begins {
                    self.next_share(self.now);
                }
                self.set_awaited_due();
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
        let waited = self.waiting.since();
        let may_go_on = self.waiting.end(id, self.now);
        if self.waiting.is_empty() {
            self.awaited_due = None;
        }
        match may_go_on {
            Some(Scope::Room) => {
                if mem::take(&mut self.has_told_waiting) {
                    let waited = waited.map(|since| self.now.saturating_duration_since(since));
                    let seconds = waited.unwrap_or_default().as_secs_f64();
                    info!("the room goes on after {seconds:.1} s");
                }
                self.relist_parked();
            }
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
        waiting.hold(first, Scope::Room, (at(9), 10), at(1));
        waiting.hold(second, Scope::Room, (at(9), 10), at(3));
        assert_eq!(waiting.alone(first, at(5)), Duration::ZERO);
        assert_eq!(waiting.end(first, at(5)), None);
        assert!(waiting.is_on());
        assert_eq!(waiting.end(first, at(5)), None, "it is awaited no longer");
        assert_eq!(waiting.total(at(6)), Duration::from_secs(5));
        assert_eq!(waiting.end(second, at(7)), Some(Scope::Room));
        assert!(!waiting.is_on() && waiting.is_empty());
        assert_eq!(waiting.total(at(9)), Duration::from_secs(6));
        waiting.hold(first, Scope::Room, (at(19), 10), at(10));
        assert_eq!(waiting.total(at(11)), Duration::from_secs(7));
    }

    #[test]
    fn what_all_may_say_is_used_up_with_its_last_byte() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        waiting.hold(ConnId::new(1, 0), Scope::Room, (now, 100), now);
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
        waiting.hold(asker, Scope::Itself, (later, 10), now);
        assert!(waiting.is_for_itself(asker) && !waiting.is_for_itself(other));
        assert!(!waiting.is_on() && !waiting.is_empty());
        assert_eq!(waiting.total(later), Duration::ZERO);
        assert_eq!(waiting.end(asker, later), Some(Scope::Itself));
        assert!(waiting.is_empty());
        assert_eq!(waiting.end(asker, later), None);
        let again = later + Duration::from_secs(1);
        waiting.hold(asker, Scope::Itself, (again, 10), later);
        assert_eq!(waiting.alone(asker, again), Duration::from_secs(2));
        waiting.end(asker, again);
        waiting.forget(asker);
        assert_eq!(waiting.alone(asker, again), Duration::ZERO);
    }
}
