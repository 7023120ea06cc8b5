//! The server's history, of which a client that connects again has most.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use super::incoming::{Received, ReceivedOwned};
use super::outbox::Message;

/// The most own messages that are remembered: a server has fewer in its history.
const MAX_OWN: usize = 4096;

/// The most bytes that are held back of a history. What comes after them is shown at once, even if it was
/// shown before.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// A `History` finds what is new in the history that a server sends.
///
/// A server sends its last messages when a member joins, and after them that it has joined. A client that
/// connects again has received most of them. The new ones are those after the latest message that it
/// received, without its own: a server sends these to a member only in its history.
#[derive(Debug, Default)]
pub(super) struct History {
    hasher: RandomState,
    /// Whether the client has joined before.
    is_rejoining: bool,
    /// Whether what is received is history.
    is_past: bool,
    /// The hash of the latest message that was received.
    latest: Option<u64>,
    /// The own messages that the server may have published after that, in order.
    own: VecDeque<Own>,
    /// The history so far, when the client connects again.
    held: Vec<ReceivedOwned>,
    held_bytes: usize,
}

/// An own message.
#[derive(Debug)]
struct Own {
    /// The hash of its name and text: the name can have been another one.
    hash: u64,
    /// Whether it is reported as uncertain.
    is_uncertain: bool,
}

/// An `Update` is what is new in a history that has come whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Update {
    /// The messages that were not received before.
    pub(super) messages: Vec<ReceivedOwned>,
    /// Own messages that were uncertain, and have arrived.
    pub(super) arrived: Vec<ReceivedOwned>,
    /// Whether there may have been more messages than the server remembers.
    pub(super) has_gap: bool,
}

impl History {
    /// Notes that there is a connection: the history comes first.
    pub(super) fn begin(&mut self) {
        self.is_past = true;
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Whether a message is shown now. Otherwise it is held back.
    pub(super) fn take(&mut self, message: &Received<'_>) -> bool {
        let is_held = self.is_past && self.is_rejoining && self.held_bytes < MAX_HELD_BYTES;
        if is_held {
            self.held_bytes += message.name.len() + message.text.len() + size_of::<ReceivedOwned>();
            self.held.push(ReceivedOwned::new(message));
        } else {
            self.latest = Some(self.hash(message));
            self.own.clear();
        }
        !is_held
    }

    /// Whether what is received is history.
    pub(super) const fn is_past(&self) -> bool {
        self.is_past
    }

    /// Whether the client has joined a server that confirms it.
    pub(super) const fn has_joined(&self) -> bool {
        self.is_rejoining
    }

    /// Notes that the server has published an own message.
    pub(super) fn note_confirmed(&mut self, name: &[u8], message: &Message) {
        self.note_own(name, message, false);
    }

    /// Notes that the server may have published an own message before the connection was lost.
    pub(super) fn note_uncertain(&mut self, name: &[u8], message: &Message) {
        self.note_own(name, message, true);
    }

    fn note_own(&mut self, name: &[u8], message: &Message, is_uncertain: bool) {
        if self.own.len() == MAX_OWN {
            self.own.pop_front();
        }
        self.own.push_back(Own {
            hash: self.hasher.hash_one((name, &*message.payload())),
            is_uncertain,
        });
    }

    /// Ends the history: the client has joined. Returns what is new.
    pub(super) fn end(&mut self) -> Update {
        self.is_past = false;
        if !std::mem::replace(&mut self.is_rejoining, true) {
            return Update::default();
        }
        let held = std::mem::take(&mut self.held);
        let hashes: Vec<_> = held.iter().map(|one| self.hash(&one.received())).collect();
        let known = self.latest.and_then(|latest| {
            let mut hashes = hashes.iter();
            hashes.rposition(|&hash| hash == latest)
        });
        let mut update = Update {
            has_gap: self.latest.is_some() && known.is_none(),
            ..Update::default()
        };
        for message in held.into_iter().skip(known.map_or(0, |at| at + 1)) {
            match self.take_own(&message) {
                None => update.messages.push(message),
                Some(own) if own.is_uncertain => update.arrived.push(message),
                Some(_) => {}
            }
        }
        self.latest = hashes.last().copied().or(self.latest);
        self.own.clear();
        update
    }

    /// Removes the own message that this is, and those that were sent before it.
    fn take_own(&mut self, message: &ReceivedOwned) -> Option<Own> {
        let hash = self.hasher.hash_one((&message.name[..], &message.text[..]));
        let at = self.own.iter().position(|own| own.hash == hash)?;
        self.own.drain(..=at).next_back()
    }

    fn hash(&self, message: &Received<'_>) -> u64 {
        self.hasher
            .hash_one((message.time, message.name, message.text))
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{ConnectionEnd, Framing, Outbox};
    use super::*;
    use jiff::Timestamp;
    use std::time::Instant;

    fn message(at: i64, name: &'static str, text: &'static str) -> Received<'static> {
        Received {
            time: Some(Timestamp::from_second(at).unwrap()),
            ..Received::new(name.as_bytes(), text.as_bytes())
        }
    }

    /// Own messages that were sent.
    fn own(texts: &[&str]) -> Vec<Message> {
        let mut outbox = Outbox::new(Framing::WebSocket);
        outbox.begin_connection(b"me");
        for text in texts {
            outbox.push(text.as_bytes());
        }
        let now = Instant::now();
        outbox.write_to(&mut Vec::new(), false, now).unwrap();
        outbox.end_connection(ConnectionEnd::Broken, now).uncertain
    }

    fn rejoin(
        history: &mut History,
        messages: &[Received<'_>],
    ) -> (Vec<String>, Vec<String>, bool) {
        history.begin();
        for message in messages {
            assert!(!history.take(message));
        }
        let update = history.end();
        let texts = |messages: Vec<ReceivedOwned>| {
            let texts = messages.into_iter().map(|one| one.text);
            texts.map(|text| String::from_utf8(text).unwrap()).collect()
        };
        (
            texts(update.messages),
            texts(update.arrived),
            update.has_gap,
        )
    }

    /// A client that has joined and received these messages.
    fn joined(messages: &[Received<'_>]) -> History {
        let mut history = History::default();
        history.begin();
        for message in messages {
            assert!(history.take(message) && history.is_past());
        }
        assert_eq!(history.end(), Update::default());
        assert!(!history.is_past());
        history
    }

    #[test]
    fn first_history_is_shown_as_it_comes_and_later_ones_from_the_latest_message_on() {
        let old = [message(1, "bob", "one"), message(2, "bob", "one")];
        let mut history = joined(&old);
        let new = [message(2, "eve", "one"), message(3, "bob", "two")];
        let all = [old, new].concat();
        let none: Vec<String> = Vec::new();
        let news = (
            vec!["one".to_owned(), "two".to_owned()],
            none.clone(),
            false,
        );
        assert_eq!(rejoin(&mut history, &all), news);
        assert_eq!(
            rejoin(&mut history, &all),
            (none.clone(), none.clone(), false)
        );
        let other = [message(9, "bob", "after a gap")];
        let gap = (vec!["after a gap".to_owned()], none.clone(), true);
        assert_eq!(rejoin(&mut history, &other), gap);
        assert_eq!(rejoin(&mut history, &[]), (none.clone(), none, true));
    }

    #[test]
    fn own_messages_in_a_history_are_not_new_and_uncertain_ones_have_arrived() {
        let bob = message(1, "bob", "one");
        let mut history = joined(&[bob]);
        let sent = own(&["a", "b", "c", "d"]);
        history.note_confirmed(b"me", &sent[0]);
        history.note_confirmed(b"me", &sent[1]);
        history.note_uncertain(b"me", &sent[2]);
        history.note_uncertain(b"me", &sent[3]);
        let all = [
            bob,
            message(2, "me", "a"),
            message(2, "eve", "b"),
            message(3, "me", "b"),
            message(4, "me", "c"),
            message(5, "me", "c"),
        ];
        let (messages, arrived, has_gap) = rejoin(&mut history, &all);
        assert_eq!(
            (messages, arrived),
            (vec!["b".to_owned(), "c".to_owned()], vec!["c".to_owned()])
        );
        assert!(!has_gap);
    }

    #[test]
    fn history_without_end_is_not_held_back_for_ever() {
        let mut history = joined(&[]);
        history.begin();
        let long = vec![b'x'; MAX_HELD_BYTES];
        let long = Received::new(b"bob", &long);
        assert!(!history.take(&long));
        assert!(history.take(&message(1, "eve", "more")));
        assert_eq!(history.end().messages.len(), 1);
    }
}
