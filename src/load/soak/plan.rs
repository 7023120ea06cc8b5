//! What is done in a soak, and when: who speaks, who leaves and how, who misbehaves and how. All of
//! it follows from the seed.
//!
//! A member's life is a list of steps. What takes part in the chat as it should says its name and
//! stays, until the plan has it leave; what misbehaves has steps of its own, and when they are
//! done, others.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::super::schedule::Schedule;

/// How much a flood says, in bytes: less than a relay queues for each member by default, so that
/// nobody who reads is closed for it, even by one that goes on reading the flood meanwhile.
const FLOOD: usize = 1024 * 1024;

/// For how long one reads nothing that has stopped for good, in seconds: in most of these times the
/// room says more than a relay queues by default. Whether it was closed shows only when it reads
/// again, since the news of that stands behind what it did not read.
const STOPPED: Range<u64> = 30..90;

/// For how long one reads again that had stopped for good.
const SEEING: Duration = Duration::from_secs(1);

/// For how long one reads nothing that will go on, in milliseconds.
const PAUSED: Range<u64> = 1000..4000;

/// For how long one reads a byte at a time.
const DRIPPING: Duration = Duration::from_secs(10);

/// For how long one waits to be closed: who never gave a name, and who has sent what is no frame.
const UNNAMED: Duration = Duration::from_secs(30);
const BROKEN: Duration = Duration::from_secs(5);

/// How long a member reads on after it closed its sending side and its last message was delivered. A
/// relay for which the end of input is a departure closes it before.
const LINGERING: Duration = Duration::from_secs(1);

/// For how long a place is empty before the next one comes who misbehaves, in milliseconds.
const REST: Range<u64> = 0..500;

/// What a member does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It gives its name.
    Join,
    /// It reads, and says what the plan has it say, until it is to leave.
    Stay,
    /// It says so many messages.
    Say(u8),
    /// It says messages of so many bytes all told, as fast as the server takes them.
    Flood(usize),
    /// It says a message, a byte at a time.
    Trickle,
    /// It sends the first half of a message.
    SayHalf,
    /// It sends what is no frame of a message.
    Send(&'static [u8]),
    /// It does nothing but read for so long.
    Listen(Duration),
    /// It reads nothing for so long, and then goes on.
    Pause(Duration),
    /// It reads nothing for so long, and nobody counts on it any more.
    Stop(Duration),
    /// It reads a byte at a time for so long, and nobody counts on it any more.
    Drip(Duration),
    /// It waits until somebody has heard all that it said.
    AwaitHeard,
    /// It waits to be closed, for so long at most.
    AwaitClose(Duration),
    /// It closes its sending side.
    HalfClose,
    /// It closes its connection.
    Close,
    /// It resets its connection.
    Reset,
}

/// How a member leaves that has behaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Leave {
    /// It closes its connection, having just said something.
    Fin,
    /// It closes its sending side, and reads until the server closes the connection, or for a while.
    HalfClose,
    /// It resets its connection, having just said something.
    Reset,
    /// It resets its connection, after its last message was heard.
    Quiet,
}

impl Leave {
    pub(super) const ALL: [Self; 4] = [Self::Fin, Self::HalfClose, Self::Reset, Self::Quiet];

    /// The last steps of who leaves so.
    pub(super) fn steps(self) -> Vec<Step> {
        match self {
            Self::Fin => vec![Step::Say(1), Step::Close],
            // What is on its way must have got there: who closes with something unread resets.
            Self::HalfClose => vec![
                Step::Say(1),
                Step::HalfClose,
                Step::AwaitHeard,
                Step::Listen(LINGERING),
                Step::Close,
            ],
            Self::Reset => vec![Step::Say(1), Step::Reset],
            Self::Quiet => vec![Step::AwaitHeard, Step::Reset],
        }
    }
}

/// How a member misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Fault {
    /// It stops reading for good.
    Stop,
    /// It stops reading for some seconds, and then reads all there is.
    Pause,
    /// It reads a byte at a time.
    Drip,
    /// It says a message a byte at a time.
    Trickle,
    /// It says as much as the server takes.
    Flood,
    /// It resets its connection inside a message.
    ResetInside,
    /// It closes its sending side inside a frame.
    FinInside,
    /// It never gives a name.
    Nameless,
    /// It sends something that is no frame.
    NoFrame,
    /// It sends a header over every limit.
    TooLong,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::Stop,
        Self::Pause,
        Self::Drip,
        Self::Trickle,
        Self::Flood,
        Self::ResetInside,
        Self::FinInside,
        Self::Nameless,
        Self::NoFrame,
        Self::TooLong,
    ];

    /// All the steps of who misbehaves so.
    fn steps(self, chance: &mut fastrand::Rng) -> Vec<Step> {
        let before = Step::Say(chance.u8(..4));
        let middle = match self {
            Self::Stop => {
                let stopped = Duration::from_secs(chance.u64(STOPPED));
                vec![Step::Stop(stopped), Step::Listen(SEEING)]
            }
            Self::Pause => {
                let pause = Duration::from_millis(chance.u64(PAUSED));
                vec![Step::Pause(pause), Step::Say(1), Step::AwaitHeard]
            }
            Self::Drip => vec![Step::Drip(DRIPPING)],
            Self::Trickle => vec![Step::Trickle, Step::AwaitHeard],
            Self::Flood => vec![Step::Flood(FLOOD), Step::AwaitHeard],
            Self::ResetInside => vec![Step::SayHalf],
            Self::FinInside => vec![Step::SayHalf, Step::HalfClose, Step::AwaitClose(BROKEN)],
            Self::Nameless => return vec![Step::AwaitClose(UNNAMED), Step::Reset],
            Self::NoFrame => vec![
                Step::Send(b"GET / HTTP/1.1\r\n\r\n"),
                Step::AwaitClose(BROKEN),
            ],
            Self::TooLong => vec![Step::Send(b"9999999999"), Step::AwaitClose(BROKEN)],
        };
        let mut steps = vec![Step::Join, before];
        steps.extend(middle);
        steps.push(Step::Reset);
        steps
    }
}

/// Something that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Who has this place says something.
    Say(usize),
    /// Who has this place leaves, and another one comes.
    Leave(usize, Leave),
}

/// What falls due when, from some time on.
#[derive(Debug)]
pub(super) struct Course {
    members: usize,
    says: Schedule,
    leaves: Option<Schedule>,
    speakers: fastrand::Rng,
    leavers: fastrand::Rng,
}

impl Course {
    /// For this many members, with so many messages and so many leaves a second, from one time
    /// until before another.
    pub(super) fn new(
        seed: u64,
        members: usize,
        (rate, churn): (f64, f64),
        (start, end): (u64, u64),
    ) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        Self {
            members,
            says: Schedule::new(start, rate, Some(end)),
            leaves: (churn > 0.0).then(|| Schedule::new(start, churn, Some(end))),
            speakers: chance.fork(),
            leavers: chance.fork(),
        }
    }

    /// When the next thing falls due; `None` if that was all.
    pub(super) fn next(&self) -> Option<u64> {
        let leaves = self.leaves.as_ref().and_then(Schedule::next);
        self.says.next().into_iter().chain(leaves).min()
    }

    /// Takes something that is due, if anything is.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Event> {
        if self.says.take_due(now).is_some() {
            return Some(Event::Say(self.speakers.usize(..self.members)));
        }
        self.leaves.as_mut()?.take_due(now)?;
        let place = self.leavers.usize(..self.members);
        let how = Leave::ALL[self.leavers.usize(..Leave::ALL.len())];
        Some(Event::Leave(place, how))
    }
}

/// What those do, one after the other, who have one place among those who misbehave.
#[derive(Debug)]
pub(super) struct Mischief {
    chance: fastrand::Rng,
    /// What is to be done before anything is done again.
    left: Vec<Fault>,
}

impl Mischief {
    /// Of as many places as there are faults, each begins with another one.
    pub(super) fn new(seed: u64, place: usize) -> Self {
        let place_seed = seed ^ (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chance = fastrand::Rng::with_seed(place_seed);
        let mut left = Fault::ALL.to_vec();
        let first = left.remove(place % Fault::ALL.len());
        chance.shuffle(&mut left);
        left.push(first);
        Self { chance, left }
    }

    /// How long the place is empty, and what the next one does that has it.
    pub(super) fn next(&mut self) -> (Duration, Fault, Vec<Step>) {
        let fault = self.left.pop().unwrap_or_else(|| {
            self.left = Fault::ALL.to_vec();
            self.chance.shuffle(&mut self.left);
            self.left.swap_remove(0)
        });
        let rest = Duration::from_millis(self.chance.u64(REST));
        (rest, fault, fault.steps(&mut self.chance))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn events(seed: u64) -> Vec<Event> {
        let mut course = Course::new(seed, 20, (100.0, 5.0), (SECOND, 11 * SECOND));
        assert_eq!(course.take_due(SECOND - 1), None);
        let mut events = Vec::new();
        while let Some(at) = course.next() {
            while let Some(event) = course.take_due(at) {
                events.push(event);
            }
        }
        events
    }

    fn lives(seed: u64, place: usize) -> Vec<(Duration, Fault, Vec<Step>)> {
        let mut mischief = Mischief::new(seed, place);
        (0..30).map(|_| mischief.next()).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_not() {
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
        assert_eq!(lives(7, 3), lives(7, 3));
        assert_ne!(lives(7, 3), lives(8, 3));
        assert_ne!(lives(7, 3), lives(7, 13));
    }

    #[test]
    fn as_much_is_said_and_as_many_leave_as_was_asked_for_in_every_way() {
        let events = events(7);
        let leaves: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Leave(_, how) => Some(*how),
                Event::Say(_) => None,
            })
            .collect();
        assert_eq!((events.len() - leaves.len(), leaves.len()), (1000, 50));
        let ways: BTreeSet<_> = leaves.into_iter().collect();
        assert_eq!(ways, BTreeSet::from(Leave::ALL));
        let places = events.iter().map(|event| match event {
            Event::Say(place) | Event::Leave(place, _) => *place,
        });
        let places: BTreeSet<_> = places.collect();
        assert_eq!(places, (0..20).collect());
    }

    #[test]
    fn nobody_leaves_where_nobody_is_to() {
        let course = Course::new(7, 20, (1.0, 0.0), (0, SECOND));
        assert!(course.leaves.is_none());
        assert_eq!(course.next(), Some(0));
    }

    #[test]
    fn every_fault_comes_before_any_comes_again_and_first_each_at_another_place() {
        let first: BTreeSet<_> = (0..10).map(|place| lives(7, place)[0].1).collect();
        assert_eq!(first, BTreeSet::from(Fault::ALL));
        for round in lives(7, 3).chunks(10) {
            let faults: BTreeSet<_> = round.iter().map(|(_, fault, _)| *fault).collect();
            assert_eq!(faults, BTreeSet::from(Fault::ALL));
        }
    }
}
