//! Every limit of the relay, in one place, each default with its reason.

use std::fmt;
use std::time::Duration;

use crate::wire::header;

/// The limits of a room and of each connection.
///
/// A limit that a user can meet is a flag of the command line and is named after it. The others are
/// the loop's own work budgets: they decide how a turn is cut, never what is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections there may be at once. The next one is refused.
    ///
    /// Default: unlimited, for a room in memory. A server that has descriptors to mind sets it from
    /// the process's descriptor limit.
    pub max_clients: usize,

    /// The longest username, in bytes.
    ///
    /// Default: 256. A name is kept for as long as its member is here and goes out with each of its
    /// messages, so it is to be short; 256 bytes are a long name in any script.
    pub max_name: usize,

    /// The longest message, in bytes.
    ///
    /// Default: 1 MiB. Far more than anybody types, room for a pasted file or a small picture, and
    /// an unfinished message cannot take more memory than that from us.
    pub max_message: usize,

    /// How far a member may fall behind the room, in bytes of what was said, before it is closed as
    /// a slow consumer.
    ///
    /// Default: 8 MiB. The tutorials' clients read only when their user presses Enter, so they are
    /// minutes late: this is some ninety thousand short messages, on top of what the kernel's
    /// socket buffers hold. What is behind is kept once for all who are behind, not once each.
    pub queue_limit: usize,

    /// How long a newcomer may take for its whole first frame, however it trickles.
    ///
    /// Default: 10 s. A client sends its name in the segment after the handshake, so even a bad
    /// mobile link needs a fraction of it; someone who holds a place without a name gets no more.
    pub handshake_timeout: Duration,

    /// How long a member that is leaving may take nothing of what is queued for it, before it is closed
    /// with that unsent.
    ///
    /// Default: 60 s. What it takes shows only when the kernel has room for more, which is after about a
    /// third of what its buffer holds, up to a megabyte: less time would end those on slow links.
    pub farewell_timeout: Duration,

    /// How many messages of those said last a newcomer is told.
    ///
    /// Default: 0. Clients that know of no history cannot tell what is old from what is new.
    pub history: usize,

    /// How much memory these messages may take, in bytes.
    ///
    /// Default: 1 MiB: thousands of short messages, and at most one of the longest. Dialects that hear
    /// the room in different forms share it. A newcomer is behind by as much, so it must leave room in
    /// the queue.
    pub history_bytes: usize,

    /// How much is read from one connection in one turn, in bytes. It is the size of the loop's
    /// scratch buffer too.
    ///
    /// Default: 64 KiB. An endless talker gets this much and then waits until everybody else had
    /// their turn. Larger reads would save few system calls and delay the others more.
    pub read_budget: usize,

    /// How much may be said in one turn, in bytes, before what else is ready waits for the next.
    ///
    /// Default: 256 KiB. A turn's bytes are written to each member in turn, so they should stay in
    /// the processor's second-level cache, and a member at the end of the walk should not wait for
    /// megabytes to be copied to all before it. A turn exceeds it by what one connection's read
    /// decodes to: as a rule by that read, at worst, with empty messages and the longest name, by
    /// 27 times as much.
    pub turn_budget: usize,

    /// How many connections are accepted in one turn.
    ///
    /// Default: 64. In a storm of newcomers those who talk still get their turns.
    pub accept_budget: usize,
}

/// The length of the longest address that can stand for a name: `[` to `]:65535`.
const LONGEST_ADDRESS: usize = 47;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: usize::MAX,
            max_name: 256,
            max_message: 1024 * 1024,
            queue_limit: 8 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            farewell_timeout: Duration::from_secs(60),
            history: 0,
            history_bytes: 1024 * 1024,
            read_budget: 64 * 1024,
            turn_budget: 256 * 1024,
            accept_budget: 64,
        }
    }
}

impl Limits {
    /// The most that one message can take on the wire, in bytes: two headers, name and message.
    #[must_use]
    pub fn largest_delivery(&self) -> usize {
        self.max_name
            .max(LONGEST_ADDRESS)
            .saturating_add(self.max_message)
            .saturating_add(2 * header::WIDTH)
    }

    /// Checks that the limits can hold together.
    ///
    /// # Errors
    ///
    /// The first contradiction found: a length that no header can announce, a queue that one
    /// message would overflow, or a budget of nothing, with which the loop would stand still.
    pub fn check(&self) -> Result<(), LimitsError> {
        for (what, bytes) in [("name", self.max_name), ("message", self.max_message)] {
            if bytes as u64 > header::MAX_LEN {
                return Err(LimitsError::NoSuchHeader { what, bytes });
            }
        }
        if self.queue_limit < self.largest_delivery() {
            return Err(LimitsError::QueueTooShort {
                queue_limit: self.queue_limit,
                needed: self.largest_delivery(),
            });
        }
        if self.history > 0 && self.queue_limit - self.largest_delivery() < self.history_bytes {
            return Err(LimitsError::TooMuchHistory {
                history_bytes: self.history_bytes,
                room: self.queue_limit - self.largest_delivery(),
            });
        }
        if self.read_budget == 0 || self.turn_budget == 0 || self.accept_budget == 0 {
            return Err(LimitsError::NoBudget);
        }
        Ok(())
    }
}

/// Why a set of [`Limits`] cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// Names or messages may be longer than any header can say.
    NoSuchHeader {
        /// Which of the two.
        what: &'static str,
        /// How long they may be.
        bytes: usize,
    },
    /// One largest message does not fit the queue, so it would close everyone who is not ready for
    /// it at once.
    QueueTooShort {
        /// The limit as it is.
        queue_limit: usize,
        /// What it must be at least.
        needed: usize,
    },
    /// The history does not fit the queue, so newcomers would be closed as too slow.
    TooMuchHistory {
        /// The memory that the history may take.
        history_bytes: usize,
        /// What the queue has room for, beside one largest message.
        room: usize,
    },
    /// A work budget is zero.
    NoBudget,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchHeader { what, bytes } => write!(
                f,
                "--max-{what} {bytes}: a header announces at most {} bytes",
                header::MAX_LEN
            ),
            Self::QueueTooShort {
                queue_limit,
                needed,
            } => write!(
                f,
                "--queue-limit of {queue_limit} bytes cannot hold one largest message: make it at \
                 least {needed}, or lower --max-message"
            ),
            Self::TooMuchHistory {
                history_bytes,
                room,
            } => write!(
                f,
                "--history-bytes of {history_bytes} (1MiB if not given) do not fit the queue of a \
                 newcomer: lower them to {room}, or raise --queue-limit"
            ),
            Self::NoBudget => f.write_str("a work budget of zero would never do any work"),
        }
    }
}

impl std::error::Error for LimitsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_queue_must_hold_one_largest_message() {
        let limits = |queue_limit| Limits {
            max_name: 60,
            max_message: 100,
            queue_limit,
            ..Limits::default()
        };
        assert_eq!(limits(180).check(), Ok(()));
        let error = limits(179).check().unwrap_err();
        assert!(error.to_string().contains("at least 180,"), "{error}");
    }

    #[test]
    fn an_address_can_stand_for_a_name_however_short_names_are() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert_eq!(longest.len(), LONGEST_ADDRESS);
        let limits = Limits {
            max_name: 1,
            max_message: 100,
            ..Limits::default()
        };
        assert_eq!(limits.largest_delivery(), 20 + LONGEST_ADDRESS + 100);
    }

    #[test]
    fn a_queue_must_hold_the_history_and_a_message_more() {
        let limits = |history, history_bytes| Limits {
            max_name: 60,
            max_message: 100,
            queue_limit: 1000,
            history,
            history_bytes,
            ..Limits::default()
        };
        assert_eq!(limits(1, 820).check(), Ok(()));
        let error = limits(1, 821).check().unwrap_err();
        assert!(error.to_string().contains("lower them to 820,"), "{error}");
        assert_eq!(limits(0, 821).check(), Ok(()), "there is none");
    }

    #[test]
    fn a_length_that_no_header_can_announce_is_no_limit() {
        let limits = Limits {
            max_message: 10_000_000_000,
            queue_limit: usize::MAX,
            ..Limits::default()
        };
        let error = limits.check().unwrap_err();
        assert!(error.to_string().starts_with("--max-message"), "{error}");
    }

    #[test]
    fn a_budget_of_nothing_is_refused() {
        let limits = Limits {
            read_budget: 0,
            ..Limits::default()
        };
        assert_eq!(limits.check(), Err(LimitsError::NoBudget));
    }
}
