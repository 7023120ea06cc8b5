//! The history: the messages that a new member receives of those published before it joined.

use std::collections::VecDeque;

use crate::relay::limits::Limits;
use crate::wire::Dialect;

/// The positions at which the last messages of a channel begin in its stream.
///
/// The bytes are the backlog's, which keeps them from the first of these positions on. So history and
/// the pending output of a slow member are the same copy, and a new member starts as a lagging one.
#[derive(Debug)]
pub(in crate::relay) struct History {
    max_messages: usize,
    /// How much memory the messages may take, in bytes.
    max_bytes: u64,
    /// Whether messages are kept yet. A history for browsers that was not asked for begins with the first of
    /// them: until then nothing is encoded for a channel without members.
    has_begun: bool,
    starts: VecDeque<u64>,
}

impl History {
    /// An empty history for a dialect that gets `1 / sharers` of the memory that the limits allow.
    pub(in crate::relay) fn new(limits: &Limits, dialect: Dialect, sharers: usize) -> Self {
        let is_timed = dialect.rules().receives.is_timed();
        // A history that was not asked for must fit any queue.
        let room = limits.queue_limit.saturating_sub(limits.largest_delivery());
        let max_bytes = limits.history_bytes.min(room);
        Self {
            max_messages: if is_timed {
                limits.timed_history
            } else {
                limits.history
            },
            max_bytes: (max_bytes / sharers.max(1)) as u64,
            has_begun: !is_timed || limits.history > 0,
            starts: VecDeque::new(),
        }
    }

    /// A history that keeps nothing.
    pub(in crate::relay) const fn off() -> Self {
        Self {
            max_messages: 0,
            max_bytes: 0,
            has_begun: false,
            starts: VecDeque::new(),
        }
    }

    /// Whether messages are kept.
    pub(in crate::relay) const fn is_on(&self) -> bool {
        self.max_messages > 0 && self.has_begun
    }

    /// A member has joined: messages are kept from now on.
    pub(in crate::relay) const fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Adds the message that begins and ends at these positions of the stream. The oldest messages are
    /// dropped as far as a limit demands it, this one included if it is too long by itself.
    pub(in crate::relay) fn push(&mut self, start: u64, end: u64) {
        self.starts.push_back(start);
        while let Some(&first) = self.starts.front()
            && (self.starts.len() > self.max_messages || self.cost(first, end) > self.max_bytes)
        {
            self.starts.pop_front();
        }
    }

    /// The memory of the messages from `first` on, in bytes: a short one takes more than its bytes.
    fn cost(&self, first: u64, end: u64) -> u64 {
        end - first + (self.starts.len() * size_of::<u64>()) as u64
    }

    /// Where the first message begins, if there is one.
    pub(in crate::relay) fn start(&self) -> Option<u64> {
        self.starts.front().copied()
    }

    /// How many messages there are.
    pub(in crate::relay) fn len(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(messages: usize, bytes: usize) -> History {
        let limits = Limits {
            history: messages,
            history_bytes: bytes,
            ..Limits::default()
        };
        History::new(&limits, Dialect::Chat10, 1)
    }

    #[test]
    fn last_messages_are_kept() {
        let mut history = history(3, 1000);
        for start in [0, 10, 20, 30, 40] {
            history.push(start, start + 10);
        }
        assert_eq!((history.start(), history.len()), (Some(20), 3));
    }

    #[test]
    fn memory_limit_holds_however_short_the_messages_are() {
        let mut history = history(1000, 100);
        // Each is ten bytes long, and its position takes eight more.
        for start in (0..100).step_by(10) {
            history.push(start, start + 10);
        }
        assert_eq!((history.start(), history.len()), (Some(50), 5));
        for _ in 0..1000 {
            history.push(100, 100);
        }
        assert_eq!((history.start(), history.len()), (Some(100), 12));
        history.push(100, 193);
        assert_eq!(
            (history.start(), history.len()),
            (None, 0),
            "too long by itself"
        );
    }

    #[test]
    fn memory_is_shared_between_channels() {
        let limits = Limits {
            history: 9,
            history_bytes: 100,
            ..Limits::default()
        };
        let mut history = History::new(&limits, Dialect::Chat10, 2);
        history.push(0, 43);
        assert_eq!(history.len(), 0);
        history.push(43, 85);
        assert_eq!(history.len(), 1);
    }
}
