//! The connections that have not become WebSocket connections: what they are answered, and why they may end.

use std::collections::BTreeMap;
use std::time::Duration;

use chatloop::wire::Dialect;

use super::model::Facts;
use super::web::{self, Answer};

/// How many connections to the listeners for metrics there are at once.
const MAX_SCRAPERS: usize = 16;

/// A connection that speaks HTTP.
struct Visitor {
    listener: Dialect,
    /// Its number in the order of arrival.
    number: u64,
    since: Duration,
    /// What the server has read of its request.
    head: Vec<u8>,
    answer: Option<Answer>,
    /// How much of the answer was accepted.
    written: usize,
    /// The server has tried to write the answer.
    was_tried: bool,
    /// It was accepted as a WebSocket connection, and then found no place: what the server offers it last.
    refusal: Option<Vec<u8>>,
    facts: Facts,
}

impl Visitor {
    fn answer_bytes(&self) -> &[u8] {
        match &self.answer {
            None => &[],
            Some(Answer::Upgrade(_, bytes) | Answer::Whole(bytes) | Answer::AtOnce(bytes)) => bytes,
        }
    }

    fn left(&self) -> usize {
        self.answer_bytes().len() - self.written
    }

    /// The dialect as whose connection it was accepted, if it was.
    fn upgraded(&self) -> Option<Dialect> {
        match self.answer {
            Some(Answer::Upgrade(dialect, _)) if self.left() == 0 => Some(dialect),
            _ => None,
        }
    }
}

/// All of them, by the numbers of their peers.
pub struct Visitors {
    each: BTreeMap<usize, Visitor>,
    next_number: u64,
    /// How long each may take for its request, and for its answer.
    timeout: Duration,
}

impl Visitors {
    pub const fn new(timeout: Duration) -> Self {
        Self {
            each: BTreeMap::new(),
            next_number: 0,
            timeout,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub fn has(&self, who: usize) -> bool {
        self.each.contains_key(&who)
    }

    /// A connection has come to this listener.
    pub fn enter(&mut self, who: usize, listener: Dialect, now: Duration) {
        let visitor = Visitor {
            listener,
            number: self.next_number,
            since: now,
            head: Vec::new(),
            answer: None,
            written: 0,
            was_tried: false,
            refusal: None,
            facts: Facts::default(),
        };
        self.next_number += 1;
        self.each.insert(who, visitor);
    }

    /// The server, which stops or not, has read this.
    pub fn read(&mut self, who: usize, bytes: &[u8], is_stopping: bool) {
        let visitor = self.each.get_mut(&who).expect("a visitor");
        // What comes behind a request that is answered already is discarded.
        if visitor.answer.is_none() {
            visitor.head.extend_from_slice(bytes);
            visitor.answer = web::answer(visitor.listener, &visitor.head, is_stopping);
        }
    }

    /// The server has written this.
    pub fn told(&mut self, who: usize, bytes: &[u8]) {
        let visitor = self.each.get_mut(&who).expect("a visitor");
        assert!(
            visitor.upgraded().is_none(),
            "peer {who} is no visitor any more"
        );
        let rest = &visitor.answer_bytes()[visitor.written..];
        assert!(
            web::goes_on(rest, bytes),
            "peer {who} was answered \"{}\" where \"{}\" was due",
            bytes.escape_ascii(),
            rest[..rest.len().min(bytes.len() + 20)].escape_ascii()
        );
        let is_whole = matches!(visitor.answer, Some(Answer::Whole(_)));
        assert!(
            is_whole || !visitor.was_tried,
            "peer {who} is answered in one write or not at all"
        );
        visitor.was_tried = true;
        visitor.written += bytes.len();
    }

    /// The server has tried to write, and nothing was accepted.
    pub fn write_failed(&mut self, who: usize) {
        if let Some(visitor) = self.each.get_mut(&who) {
            visitor.was_tried = true;
        }
    }

    /// The server offers this to a connection that finds no place.
    pub fn refuse(&mut self, who: usize, offered: &[u8]) {
        let visitor = self.each.get_mut(&who).expect("a visitor");
        assert!(visitor.upgraded().is_some() && visitor.refusal.is_none());
        visitor.refusal = Some(offered.to_vec());
    }

    /// The call was interrupted, and is made again.
    pub fn refusal_was_interrupted(&mut self, who: usize) {
        if let Some(visitor) = self.each.get_mut(&who) {
            visitor.refusal = None;
        }
    }

    pub fn fact(&mut self, who: usize, note: impl FnOnce(&mut Facts)) {
        if let Some(visitor) = self.each.get_mut(&who) {
            note(&mut visitor.facts);
        }
    }

    /// A connection becomes one of the relay. Returns its dialect, and the length of the response.
    pub fn upgrade(&mut self, who: usize) -> Option<(Dialect, usize)> {
        let visitor = self.each.get(&who)?;
        let upgraded = visitor.upgraded();
        let dialect = upgraded.expect("its handshake was answered");
        let len = visitor.answer_bytes().len();
        self.each.remove(&who);
        Some((dialect, len))
    }

    /// A connection was closed. Returns whether it was refused a place.
    pub fn close(&mut self, who: usize, now: Duration, is_stopping: bool) -> Option<bool> {
        let visitor = self.each.remove(&who)?;
        let Facts {
            input_has_ended,
            has_failed,
            ..
        } = visitor.facts;
        let is_late = now >= visitor.since + self.timeout;
        if visitor.upgraded().is_some() {
            let expected = web::close_frame(1013, "no place is free");
            assert_eq!(visitor.refusal, Some(expected), "of peer {who}");
            return Some(true);
        }
        let is_over = match visitor.answer {
            None => input_has_ended,
            Some(Answer::Whole(_)) => visitor.left() == 0,
            Some(Answer::Upgrade(..) | Answer::AtOnce(_)) => visitor.was_tried,
        };
        let is_needed = visitor.listener == Dialect::Metrics && self.is_evicted(&visitor);
        assert!(
            is_over || has_failed || is_late || is_stopping || is_needed,
            "peer {who} was closed, and there is no reason"
        );
        Some(false)
    }

    /// Whether the place of this connection, which is the oldest one to a listener for metrics, is needed for
    /// another one.
    fn is_evicted(&self, visitor: &Visitor) -> bool {
        let others = self.each.values();
        let others = others.filter(|other| other.listener == Dialect::Metrics);
        let is_oldest = others.clone().all(|other| other.number > visitor.number);
        is_oldest && others.count() + 1 >= MAX_SCRAPERS
    }

    /// Those that are here, how much of a response each is still to receive, and whether it is read.
    pub fn pending(&self) -> impl Iterator<Item = (usize, usize, bool)> {
        let each = self.each.iter();
        each.map(|(&who, visitor)| (who, visitor.left(), visitor.answer.is_none()))
    }

    /// When the next of them is late.
    pub fn deadline(&self) -> Option<Duration> {
        let due = |visitor: &Visitor| visitor.since + self.timeout;
        self.each.values().map(due).min()
    }
}
