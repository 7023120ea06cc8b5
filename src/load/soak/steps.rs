//! The steps of a soak's clients.

use std::time::Duration;

use super::checker::Member;
use super::client::{Reading, SoakClient, State};
use super::plan::Step;
use super::pool::SoakPool;

/// How often it is checked whether messages were delivered, in nanoseconds.
const CHECK_INTERVAL_NS: u64 = 20_000_000;

/// The interval between the bytes of a trickle, in nanoseconds, and how many are sent before the
/// rest of the message.
const TRICKLE_INTERVAL_NS: u64 = 2_000_000;
const TRICKLED_BYTES: u64 = 100;

/// The interval between the bytes that a dripping client reads, in nanoseconds.
const DRIP_INTERVAL_NS: u64 = 5_000_000;

/// The size of the parts of a flood, in bytes.
const FLOOD_CHUNK: usize = 64 * 1024;

/// The result of a step.
enum StepResult {
    /// It is done.
    Done,
    /// It goes on at this time, or with the next event.
    Until(u64),
    /// It goes on with the next event.
    Blocked,
    /// The connection ends with it.
    Over,
}

impl StepResult {
    /// That of a step which takes from one time to another, now.
    const fn of_time(until: u64, now: u64) -> Self {
        if now >= until {
            Self::Done
        } else {
            Self::Until(until)
        }
    }
}

impl SoakPool {
    /// Goes on with the steps of a client, as far as possible now.
    pub(super) fn advance(&mut self, index: usize) {
        while self.clients[index].state == State::Here {
            match self.step(index) {
                StepResult::Done => {
                    let client = &mut self.clients[index];
                    client.steps.pop_front();
                    client.began = None;
                }
                StepResult::Until(at) => return self.wake(index, at),
                StepResult::Blocked => return,
                StepResult::Over => {
                    self.close(index);
                    self.prepare(index);
                    return;
                }
            }
        }
    }

    /// Does the current step of a client.
    fn step(&mut self, index: usize) -> StepResult {
        let now = self.now();
        let client = &mut self.clients[index];
        let Some(&step) = client.steps.front() else {
            return StepResult::Over;
        };
        let begins = client.began.is_none();
        let since = *client.began.get_or_insert(now);
        let ends = |time: Duration| StepResult::of_time(since + time.as_nanos() as u64, now);
        match (step, client.member) {
            (Step::Join, _) => {
                client.member = Some(self.checker.join(&mut client.out));
                client.flush();
                StepResult::Done
            }
            (Step::Say(count), Some(member)) => {
                (0..count).for_each(|_| self.checker.queue(member, &mut client.out));
                client.flush();
                StepResult::Done
            }
            (Step::Flood(left), Some(member)) => self.flood(index, member, left, now),
            (Step::Trickle, Some(member)) => {
                if begins {
                    let mut frame = Vec::new();
                    self.checker.queue(member, &mut frame);
                    client.slow = frame.into();
                }
                client.trickle(since, now)
            }
            (Step::SayHalf, Some(member)) => {
                self.checker.queue_half(member, &mut client.out);
                client.is_broken = true;
                client.flush();
                StepResult::Done
            }
            (Step::Send(bytes), _) => {
                client.out.extend_from_slice(bytes);
                client.is_broken = true;
                client.may_be_closed = true;
                client.flush();
                StepResult::Done
            }
            (Step::Listen(time), _) => ends(time),
            (Step::Pause(time), _) => self.read_nothing(index, ends(time)),
            (Step::Stop(time), Some(member)) => {
                self.checker.excuse(member);
                self.read_nothing(index, ends(time))
            }
            (Step::Drip(time), Some(member)) => self.drip(index, member, now, ends(time)),
            (Step::AwaitHeard, Some(member)) => {
                // However long that takes: messages that wait for their turn in a server are not
                // lost.
                if self.checker.is_delivered(member) {
                    client.in_order = true;
                    StepResult::Done
                } else {
                    StepResult::Until(now + CHECK_INTERVAL_NS)
                }
            }
            (Step::AwaitClose(time), _) => {
                client.may_be_closed = true;
                ends(time)
            }
            (Step::HalfClose, _) => {
                // However long it takes, all of its messages must be sent before that.
                client.in_order = !client.is_broken;
                if !client.out.is_empty() {
                    return StepResult::Blocked;
                }
                client.half_close();
                client.may_be_closed = true;
                StepResult::Done
            }
            (Step::Close, _) => {
                client.end_in_order();
                StepResult::Over
            }
            (Step::Reset, _) => StepResult::Over,
            // Clients without a name cannot send messages.
            (Step::Stay, _) | (_, None) => StepResult::Blocked,
        }
    }

    /// Says a part of a flood of which so much is left, if the part before it was taken.
    fn flood(&mut self, index: usize, member: Member, left: usize, now: u64) -> StepResult {
        let client = &mut self.clients[index];
        if !client.out.is_empty() {
            return StepResult::Blocked;
        }
        if left == 0 {
            return StepResult::Done;
        }
        while client.out.len() < left.min(FLOOD_CHUNK) {
            self.checker.queue(member, &mut client.out);
        }
        client.steps[0] = Step::Flood(left.saturating_sub(client.out.len()));
        client.flush();
        // Others have their turn before the next part.
        StepResult::Until(now)
    }

    /// Reads nothing, and when that is done, all there is.
    fn read_nothing(&mut self, index: usize, result: StepResult) -> StepResult {
        let client = &mut self.clients[index];
        client.may_be_closed = true;
        client.reading = Reading::Nothing;
        if matches!(result, StepResult::Done) {
            client.reading = Reading::All;
            // There was an event for the bytes that have arrived meanwhile, and will be no other.
            self.again.push((index, true));
        }
        result
    }

    /// Reads a byte.
    fn drip(&mut self, index: usize, member: Member, now: u64, result: StepResult) -> StepResult {
        let client = &mut self.clients[index];
        client.may_be_closed = true;
        client.reading = Reading::ByteByByte;
        self.checker.excuse(member);
        self.read(index, 1);
        if self.clients[index].member != Some(member) {
            // That was the end of it.
            return StepResult::Blocked;
        }
        match result {
            StepResult::Until(end) => StepResult::Until(end.min(now + DRIP_INTERVAL_NS)),
            other => other,
        }
    }
}

impl SoakClient {
    /// Sends a byte of what is to be sent slowly, and the rest when that has gone on for long
    /// enough.
    fn trickle(&mut self, since: u64, now: u64) -> StepResult {
        let count = if now > since + TRICKLED_BYTES * TRICKLE_INTERVAL_NS {
            self.slow.len()
        } else {
            1
        };
        self.out.extend(self.slow.drain(..count));
        self.flush();
        if self.slow.is_empty() {
            StepResult::Done
        } else {
            StepResult::Until(now + TRICKLE_INTERVAL_NS)
        }
    }
}
