//! The plan of a soak: which members send and leave and how, and which clients misbehave and how.
//! All of it follows from the seed.
//!
//! The life of a client is a list of steps. A member sends its name and stays, until the plan has
//! it leave. A misbehaving client has steps of its own, and when they are done, another client
//! follows.

use std::ops::Range;
use std::time::Duration;

use strum::VariantArray;

use super::super::plan::{Fault, Leave};
use super::super::schedule::Schedule;

/// The size of a flood, in bytes: less than a relay queues for each member by default. So no
/// member that reads is closed for it, even one that goes on reading the flood meanwhile.
const FLOOD_SIZE: usize = 1024 * 1024;

/// How long a client reads nothing that has stopped for good, in seconds: in most of these times
/// the room sends more than a relay queues by default. Whether it was closed shows only when it
/// reads again, since the end of input stands behind the unread bytes.
const STOP_SECONDS: Range<u64> = 30..90;

/// How long such a client reads after that.
const STOP_LISTEN_TIME: Duration = Duration::from_secs(1);

/// How long a client pauses, in milliseconds.
const PAUSE_MILLISECONDS: Range<u64> = 1000..4000;

/// How long a client reads a byte at a time.
const DRIP_TIME: Duration = Duration::from_secs(10);

/// How long a client waits to be closed: one that never sent a name, and one that has sent what is
/// no frame.
const UNNAMED_TIMEOUT: Duration = Duration::from_secs(30);
const BROKEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a member reads on after it closed its sending side and its last message was delivered. A
/// relay for which the end of input is a departure closes it before.
const HALF_CLOSE_LISTEN_TIME: Duration = Duration::from_secs(1);

/// How long a place is empty before the next misbehaving client, in milliseconds.
const VACANCY_MILLISECONDS: Range<u64> = 0..500;

/// What a member does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It gives its name.
    Join,
    /// It reads, and sends messages as planned, until it must leave.
    Stay,
    /// It sends so many messages.
    Send(u8),
    /// It sends messages of so many bytes in all, as fast as the server accepts them.
    Flood(usize),
    /// It sends a message, a byte at a time.
    Trickle,
    /// It sends the first half of a message.
    SendHalf,
    /// It sends bytes that are no frame of a message.
    SendBytes(&'static [u8]),
    /// It waits for so long, in this manner.
    Wait(Manner, Duration),
    /// It waits until all of its messages were delivered to a member.
    AwaitDelivery,
    /// It closes its sending side.
    HalfClose,
    /// It closes its connection.
    Close,
    /// It resets its connection.
    Reset,
}

/// How a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It reads.
    Listen,
    /// It reads, and the server should close it.
    AwaitClose,
    /// It reads nothing.
    Pause,
    /// It reads nothing, and is excused from receiving.
    Stop,
    /// It reads a byte at a time, and is excused from receiving.
    Drip,
}

impl Leave {
    /// The last steps of a member that leaves so.
    pub(super) fn steps(self) -> Vec<Step> {
        match self {
            Self::Fin => vec![Step::Send(1), Step::Close],
            // The messages to it must have arrived: closing with unread input resets the
            // connection.
            Self::HalfClose => vec![
                Step::Send(1),
                Step::HalfClose,
                Step::AwaitDelivery,
                Step::Wait(Manner::Listen, HALF_CLOSE_LISTEN_TIME),
                Step::Close,
            ],
            Self::Reset => vec![Step::Send(1), Step::Reset],
            Self::Quiet => vec![Step::AwaitDelivery, Step::Reset],
        }
    }
}

impl Fault {
    /// All steps of a client that misbehaves so.
    fn steps(self, chance: &mut fastrand::Rng) -> Vec<Step> {
        let before = Step::Send(chance.u8(..4));
        let await_close = Step::Wait(Manner::AwaitClose, BROKEN_TIMEOUT);
        let middle = match self {
            Self::Stop => {
                let stopped = Duration::from_secs(chance.u64(STOP_SECONDS));
                vec![
                    Step::Wait(Manner::Stop, stopped),
                    Step::Wait(Manner::Listen, STOP_LISTEN_TIME),
                ]
            }
            Self::Pause => {
                let pause = Duration::from_millis(chance.u64(PAUSE_MILLISECONDS));
                let pause = Step::Wait(Manner::Pause, pause);
                vec![pause, Step::Send(1), Step::AwaitDelivery]
            }
            Self::Drip => vec![Step::Wait(Manner::Drip, DRIP_TIME)],
            Self::Trickle => vec![Step::Trickle, Step::AwaitDelivery],
            Self::Flood => vec![Step::Flood(FLOOD_SIZE), Step::AwaitDelivery],
            Self::ResetInside => vec![Step::SendHalf],
            Self::FinInside => vec![Step::SendHalf, Step::HalfClose, await_close],
            Self::Nameless => {
                return vec![Step::Wait(Manner::AwaitClose, UNNAMED_TIMEOUT), Step::Reset];
            }
            Self::NoFrame => vec![Step::SendBytes(b"GET / HTTP/1.1\r\n\r\n"), await_close],
            Self::TooLong => vec![Step::SendBytes(b"9999999999"), await_close],
        };
        [vec![Step::Join, before], middle, vec![Step::Reset]].concat()
    }
}

/// Something that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The member at this place sends a message.
    Send(usize),
    /// The member at this place leaves, and another one joins.
    Leave(usize, Leave),
}

/// A `Timetable` holds the events of a soak and their times.
#[derive(Debug)]
pub(super) struct Timetable {
    members: usize,
    sends: Schedule,
    leaves: Option<Schedule>,
    senders: fastrand::Rng,
    leavers: fastrand::Rng,
}

impl Timetable {
    /// For this many members, with so many messages and so many leaves a second, from one time
    /// until before another.
    pub(super) fn new(
        seed: u64,
        members: usize,
        (rate, churn): (f64, f64),
        (start, end): (Duration, Duration),
    ) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        Self {
            members,
            sends: Schedule::new(start, rate, Some(end)),
            leaves: (churn > 0.0).then(|| Schedule::new(start, churn, Some(end))),
            senders: chance.fork(),
            leavers: chance.fork(),
        }
    }

    /// When the next thing falls due; `None` if that was all.
    pub(super) fn next(&self) -> Option<Duration> {
        let leaves = self.leaves.as_ref().and_then(Schedule::next);
        self.sends.next().into_iter().chain(leaves).min()
    }

    /// Takes something that is due, if anything is.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Event> {
        if self.sends.take_due(now).is_some() {
            return Some(Event::Send(self.senders.usize(..self.members)));
        }
        self.leaves.as_mut()?.take_due(now)?;
        let place = self.leavers.usize(..self.members);
        let how = Leave::VARIANTS[self.leavers.usize(..Leave::VARIANTS.len())];
        Some(Event::Leave(place, how))
    }
}

/// The misbehaving clients of one place, one after the other.
#[derive(Debug)]
pub(super) struct FaultSequence {
    chance: fastrand::Rng,
    /// The faults that come before any fault comes again.
    left: Vec<Fault>,
}

impl FaultSequence {
    /// Of as many places as there are faults, each begins with another one.
    pub(super) fn new(seed: u64, place: usize) -> Self {
        let place_seed = seed ^ (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chance = fastrand::Rng::with_seed(place_seed);
        let mut left = Fault::VARIANTS.to_vec();
        let first = left.remove(place % Fault::VARIANTS.len());
        chance.shuffle(&mut left);
        left.push(first);
        Self { chance, left }
    }

    /// How long the place is empty, and what the next one does that has it.
    pub(super) fn next(&mut self) -> (Duration, Fault, Vec<Step>) {
        let fault = self.left.pop().unwrap_or_else(|| {
            self.left = Fault::VARIANTS.to_vec();
            self.chance.shuffle(&mut self.left);
            self.left.swap_remove(0)
        });
        let rest = Duration::from_millis(self.chance.u64(VACANCY_MILLISECONDS));
        (rest, fault, fault.steps(&mut self.chance))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn events(seed: u64) -> Vec<Event> {
        let mut timetable = Timetable::new(seed, 20, (100.0, 5.0), (SECOND, 11 * SECOND));
        assert_eq!(timetable.take_due(Duration::from_nanos(999_999_999)), None);
        let mut events = Vec::new();
        while let Some(at) = timetable.next() {
            while let Some(event) = timetable.take_due(at) {
                events.push(event);
            }
        }
        events
    }

    fn lives(seed: u64, place: usize) -> Vec<(Duration, Fault, Vec<Step>)> {
        let mut fault_sequences = FaultSequence::new(seed, place);
        (0..30).map(|_| fault_sequences.next()).collect()
    }

    #[test]
    fn same_seed_gives_the_same_plan_and_another_does_not() {
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
        assert_eq!(lives(7, 3), lives(7, 3));
        assert_ne!(lives(7, 3), lives(8, 3));
        assert_ne!(lives(7, 3), lives(7, 13));
    }

    #[test]
    fn timetable_has_the_requested_messages_and_leaves_of_every_kind() {
        let events = events(7);
        let leaves: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Leave(_, how) => Some(*how),
                Event::Send(_) => None,
            })
            .collect();
        assert_eq!((events.len() - leaves.len(), leaves.len()), (1000, 50));
        let ways: BTreeSet<_> = leaves.into_iter().collect();
        assert_eq!(ways, Leave::VARIANTS.iter().copied().collect());
        let places = events.iter().map(|event| match event {
            Event::Send(place) | Event::Leave(place, _) => *place,
        });
        let places: BTreeSet<_> = places.collect();
        assert_eq!(places, (0..20).collect());
    }

    #[test]
    fn timetable_without_churn_has_no_leaves() {
        let timetable = Timetable::new(7, 20, (1.0, 0.0), (Duration::ZERO, SECOND));
        assert!(timetable.leaves.is_none());
        assert_eq!(timetable.next(), Some(Duration::ZERO));
    }

    #[test]
    fn every_fault_comes_before_any_comes_again_and_first_at_another_client() {
        let first: BTreeSet<_> = (0..10).map(|place| lives(7, place)[0].1).collect();
        assert_eq!(first, Fault::VARIANTS.iter().copied().collect());
        for round in lives(7, 3).chunks(10) {
            let faults: BTreeSet<_> = round.iter().map(|(_, fault, _)| *fault).collect();
            assert_eq!(faults, Fault::VARIANTS.iter().copied().collect());
        }
    }
}
