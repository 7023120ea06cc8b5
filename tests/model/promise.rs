//! What each receiver must get of each sender.

use crate::engine::{Boot, Number};

/// What a relay made of messages from the bus.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard {
    Delivered(Boot, Number),
    /// So many were counted as missing.
    Missing(Boot, Number),
}

/// What one boot has said.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Sender {
    pub(crate) said: Number,
    /// What was sent to the engine at least once is before this number.
    pub(crate) sent: Number,
    /// The numbers, as bits, of what was trimmed, or lost when its relay had it no more.
    gone: u32,
}

impl Sender {
    pub(crate) fn lose(&mut self, number: Number) {
        self.gone |= 1 << number;
    }

    pub(crate) fn are_gone(&self, from: Number, to: Number) -> bool {
        (from..to).all(|number| self.gone & 1 << number != 0)
    }
}

/// What is due of one sender at one receiver.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Due {
    /// The number of the next message. None before the first one of a boot that began before the receiver.
    pub(crate) next: Option<Number>,
    /// What was said from this number on was said after the receiver had begun.
    pub(crate) first: Number,
}

impl Due {
    /// Compares what came with what is due.
    pub(crate) fn hear(
        &mut self,
        heard: Heard,
        sender: &Sender,
        is_living: bool,
    ) -> Result<(), String> {
        let error = |due| Err(format!("{heard:?}, but {due:?} is due"));
        match heard {
            Heard::Delivered(_, number) => {
                let is_due = match self.next {
                    Some(next) => next == number,
                    None => sender.are_gone(self.first, number),
                };
                if !is_due {
                    return error(*self);
                }
                self.next = Some(number + 1);
            }
            Heard::Missing(_, count) => {
                let next = self.next.unwrap_or(self.first);
                if is_living && !sender.are_gone(next, next + count) {
                    return Err(format!(
                        "{heard:?} after {next}, but it is not gone: {sender:?}"
                    ));
                }
                self.next = Some(next + count);
            }
        }
        Ok(())
    }

    pub(crate) fn has_come(self, number: Number) -> bool {
        self.next.is_some_and(|next| number < next)
    }

    /// Whether all that was said has come, or is counted at the sender's next word.
    pub(crate) fn is_complete(self, sender: &Sender) -> bool {
        let next = self.next.unwrap_or(self.first);
        sender.are_gone(next, sender.said)
    }
}
