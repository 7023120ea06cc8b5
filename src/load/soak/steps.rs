//! The steps of a soak's clients.

use std::time::Duration;

use super::super::pool::ClientPool;
use super::clients::SoakClients;
use super::plan::{Manner, Step};

/// How often it is checked whether messages were delivered.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The interval between the bytes of a trickle, and for how long they are sent before the rest of
/// the message.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(2);
const TRICKLE_TIME: Duration = Duration::from_millis(200);

/// The interval between the bytes that a dripping client reads.
const DRIP_INTERVAL: Duration = Duration::from_millis(5);

/// The size of the parts of a flood, in bytes.
const FLOOD_CHUNK: usize = 64 * 1024;

/// The result of a step.
enum StepResult {
    /// It is done.
    Done,
    /// It goes on at this time, or with the next event.
    Until(Duration),
    /// It goes on with the next event.
    Blocked,
    /// The connection ends with it.
    Over,
}

impl SoakClients {
    /// Goes on with the steps of a client, as far as possible now.
    pub(super) fn follow_steps(&mut self, pool: &mut ClientPool, index: usize) {
        while pool.is_connected(index) {
            match self.step(pool, index) {
                StepResult::Done => {
                    let client = &mut self.clients[index];
                    client.steps.pop_front();
                    client.began = None;
                }
                StepResult::Until(at) => return pool.schedule(index, at),
                StepResult::Blocked => return,
                StepResult::Over => {
                    self.close(pool, index);
                    self.prepare(pool, index);
                }
            }
        }
    }

    /// Does the current step of a client.
    fn step(&mut self, pool: &mut ClientPool, index: usize) -> StepResult {
        let now = pool.now();
        let client = &mut self.clients[index];
        let Some(&step) = client.steps.front() else {
            return StepResult::Over;
        };
        let begins = client.began.is_none();
        let since = *client.began.get_or_insert(now);
        match (step, client.member) {
            (Step::Join, _) => {
                client.member = Some(self.checker.join(pool.output(index)));
            }
            (Step::Send(count), Some(member)) => {
                (0..count).for_each(|_| self.checker.queue(member, pool.output(index)));
            }
            (Step::Flood(left), Some(member)) => {
                let output = pool.output(index);
                if !output.is_empty() {
                    return StepResult::Blocked;
                }
                while output.len() < left.min(FLOOD_CHUNK) {
                    self.checker.queue(member, output);
                }
                client.steps[0] = Step::Flood(left.saturating_sub(output.len()));
                pool.send(index);
                if left > 0 {
                    // Others have their turn before the next part.
                    return StepResult::Until(now);
                }
            }
            (Step::Trickle, Some(member)) => {
                if begins {
                    let mut message = Vec::new();
                    self.checker.queue(member, &mut message);
                    client.slow = message.into();
                }
                // A byte, and the rest when that has gone on for long enough.
                let is_slow = now <= since + TRICKLE_TIME;
                let count = if is_slow { 1 } else { client.slow.len() };
                pool.output(index).extend(client.slow.drain(..count));
                if !client.slow.is_empty() {
                    pool.send(index);
                    return StepResult::Until(now + TRICKLE_INTERVAL);
                }
            }
            (Step::SendHalf, Some(member)) => {
                self.checker.queue_half(member, pool.output(index));
                client.is_broken = true;
            }
            (Step::SendBytes(bytes), _) => {
                pool.output(index).extend_from_slice(bytes);
                client.is_broken = true;
                client.may_be_closed = true;
            }
            (Step::Wait(manner, time), _) => {
                return self.wait(pool, index, manner, (now, since + time));
            }
            (Step::AwaitDelivery, Some(member)) => {
                // However long that takes: messages that wait for their turn in a server are not
                // lost.
                if !self.checker.is_delivered(member) {
                    return StepResult::Until(now + CHECK_INTERVAL);
                }
                client.in_order = true;
            }
            (Step::HalfClose, _) => {
                // However long it takes, all of its messages must be sent before that.
                client.in_order = !client.is_broken;
                if !pool.output(index).is_empty() {
                    return StepResult::Blocked;
                }
                pool.half_close(index);
                client.may_be_closed = true;
            }
            (Step::Close, _) => {
                pool.end_in_order(index);
                return StepResult::Over;
            }
            (Step::Reset, _) => return StepResult::Over,
            // Clients without a name cannot send messages.
            (Step::Stay, _) | (_, None) => return StepResult::Blocked,
        }
        pool.send(index);
        StepResult::Done
    }

    /// Waits until some time, and reads meanwhile as its manner of waiting requires.
    fn wait(
        &mut self,
        pool: &mut ClientPool,
        index: usize,
        manner: Manner,
        (now, until): (Duration, Duration),
    ) -> StepResult {
        let client = &mut self.clients[index];
        let member = client.member;
        client.may_be_closed |= manner != Manner::Listen;
        if let (Manner::Stop | Manner::Drip, Some(member)) = (manner, member) {
            self.checker.excuse(member);
        }
        let is_over = now >= until;
        let reads = matches!(manner, Manner::Listen | Manner::AwaitClose);
        pool.hold(index, !reads && !is_over);
        let mut next = until;
        if manner == Manner::Drip {
            pool.read(self, index, 1);
            if self.clients[index].member != member {
                // That was the end of it.
                return StepResult::Blocked;
            }
            next = until.min(now + DRIP_INTERVAL);
        }
        if is_over {
            StepResult::Done
        } else {
            StepResult::Until(next)
        }
    }
}
