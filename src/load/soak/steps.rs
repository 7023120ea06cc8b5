//! What the guests of a soak do, step by step.

use std::time::Duration;

use super::checker::Member;
use super::guest::{Guest, Reading, State};
use super::party::Party;
use super::plan::Step;

/// How often to look whether somebody was heard, in nanoseconds.
const LOOK: u64 = 20_000_000;

/// How often a byte is sent by who trickles, and how many before the rest of the message.
const TRICKLE: u64 = 2_000_000;
const TRICKLED: u64 = 100;

/// How often a byte is read by who drips.
const DRIP: u64 = 5_000_000;

/// How much of a flood is said at a time, in bytes.
const WAVE: usize = 64 * 1024;

/// What came of a step.
enum Headway {
    /// It is done.
    Done,
    /// It goes on at this time, or with the next event.
    Until(u64),
    /// It goes on with the next event.
    Blocked,
    /// The connection ends with it.
    Over,
}

impl Headway {
    /// That of a step which takes from one time to another, now.
    const fn of_time(until: u64, now: u64) -> Self {
        if now >= until {
            Self::Done
        } else {
            Self::Until(until)
        }
    }
}

impl Party {
    /// Has a guest go on with its steps, as far as it can now.
    pub(super) fn advance(&mut self, index: usize) {
        while self.guests[index].state == State::Here {
            match self.step(index) {
                Headway::Done => {
                    let guest = &mut self.guests[index];
                    guest.steps.pop_front();
                    guest.began = None;
                }
                Headway::Until(at) => return self.wake(index, at),
                Headway::Blocked => return,
                Headway::Over => {
                    self.depart(index);
                    self.prepare(index);
                    return;
                }
            }
        }
    }

    /// Does what a guest has to do now.
    fn step(&mut self, index: usize) -> Headway {
        let now = self.now();
        let guest = &mut self.guests[index];
        let Some(&step) = guest.steps.front() else {
            return Headway::Over;
        };
        let begins = guest.began.is_none();
        let since = *guest.began.get_or_insert(now);
        let ends = |time: Duration| Headway::of_time(since + time.as_nanos() as u64, now);
        match (step, guest.member) {
            (Step::Join, _) => {
                guest.member = Some(self.checker.join(&mut guest.out));
                guest.flush();
                Headway::Done
            }
            (Step::Say(count), Some(member)) => {
                (0..count).for_each(|_| self.checker.say(member, &mut guest.out));
                guest.flush();
                Headway::Done
            }
            (Step::Flood(left), Some(member)) => self.flood(index, member, left, now),
            (Step::Trickle, Some(member)) => {
                if begins {
                    let mut frame = Vec::new();
                    self.checker.say(member, &mut frame);
                    guest.slow = frame.into();
                }
                guest.trickle(since, now)
            }
            (Step::SayHalf, Some(member)) => {
                self.checker.say_half(member, &mut guest.out);
                guest.is_broken = true;
                guest.flush();
                Headway::Done
            }
            (Step::Send(bytes), _) => {
                guest.out.extend_from_slice(bytes);
                guest.is_broken = true;
                guest.may_be_closed = true;
                guest.flush();
                Headway::Done
            }
            (Step::Listen(time), _) => ends(time),
            (Step::Pause(time), _) => self.read_nothing(index, ends(time)),
            (Step::Stop(time), Some(member)) => {
                self.checker.excuse(member);
                self.read_nothing(index, ends(time))
            }
            (Step::Drip(time), Some(member)) => self.drip(index, member, now, ends(time)),
            (Step::AwaitHeard, Some(member)) => {
                // However long that takes: what waits for its turn in a server is not lost.
                if self.checker.is_heard(member) {
                    guest.in_order = true;
                    Headway::Done
                } else {
                    Headway::Until(now + LOOK)
                }
            }
            (Step::AwaitClose(time), _) => {
                guest.may_be_closed = true;
                ends(time)
            }
            (Step::HalfClose, _) => {
                // However long it takes, all that it said has to be sent before that.
                guest.in_order = !guest.is_broken;
                if !guest.out.is_empty() {
                    return Headway::Blocked;
                }
                guest.half_close();
                guest.may_be_closed = true;
                Headway::Done
            }
            (Step::Close, _) => {
                guest.end_in_order();
                Headway::Over
            }
            (Step::Reset, _) => Headway::Over,
            // Those without a name have nothing to say.
            (Step::Stay, _) | (_, None) => Headway::Blocked,
        }
    }

    /// Says a part of a flood of which so much is left, if the part before it was taken.
    fn flood(&mut self, index: usize, member: Member, left: usize, now: u64) -> Headway {
        let guest = &mut self.guests[index];
        if !guest.out.is_empty() {
            return Headway::Blocked;
        }
        if left == 0 {
            return Headway::Done;
        }
        while guest.out.len() < left.min(WAVE) {
            self.checker.say(member, &mut guest.out);
        }
        guest.steps[0] = Step::Flood(left.saturating_sub(guest.out.len()));
        guest.flush();
        // Others have their turn before the next part.
        Headway::Until(now)
    }

    /// Reads nothing, and when that is done, all there is.
    fn read_nothing(&mut self, index: usize, headway: Headway) -> Headway {
        let guest = &mut self.guests[index];
        guest.may_be_closed = true;
        guest.reading = Reading::Nothing;
        if matches!(headway, Headway::Done) {
            guest.reading = Reading::All;
            // There was an event for what has come meanwhile, and will be no other.
            self.again.push((index, true));
        }
        headway
    }

    /// Reads a byte.
    fn drip(&mut self, index: usize, member: Member, now: u64, headway: Headway) -> Headway {
        let guest = &mut self.guests[index];
        guest.may_be_closed = true;
        guest.reading = Reading::ByteByByte;
        self.checker.excuse(member);
        self.read(index, 1);
        if self.guests[index].member != Some(member) {
            // That was the end of it.
            return Headway::Blocked;
        }
        match headway {
            Headway::Until(end) => Headway::Until(end.min(now + DRIP)),
            other => other,
        }
    }
}

impl Guest {
    /// Sends a byte of what is to be sent slowly, and the rest when that has gone on for long
    /// enough.
    fn trickle(&mut self, since: u64, now: u64) -> Headway {
        let count = if now > since + TRICKLED * TRICKLE {
            self.slow.len()
        } else {
            1
        };
        self.out.extend(self.slow.drain(..count));
        self.flush();
        if self.slow.is_empty() {
            Headway::Done
        } else {
            Headway::Until(now + TRICKLE)
        }
    }
}
