//! The connections that are not the relay's yet, since they use HTTP or their proxies have not stated their
//! addresses: what they are answered, and why they may end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chatloop::wire::Dialect;

use super::model::Facts;
use super::proxy::{Header, Meaning};
use super::web::{self, Answer};

/// How many connections to the listeners for metrics there are at once.
const MAX_SCRAPERS: usize = 16;

/// A connection that is not the relay's yet.
struct Visitor {
    listener: Dialect,
    /// The header that its proxy sends, and how much of that the server has read.
    header: Option<(Header, usize)>,
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

    /// What of its proxy's header was read shows that it is none.
    fn has_bad_header(&self) -> bool {
        self.header.as_ref().is_some_and(
            |(header, read)| matches!(header.meaning, Meaning::Refused { after } if *read >= after),
        )
    }

    /// Its proxy's header was not read to its end.
    fn awaits_header(&self) -> bool {
        self.header.as_ref().is_some_and(|(header, read)| {
            let is_bad = matches!(header.meaning, Meaning::Refused { .. });
            is_bad || *read < header.bytes.len()
        })
    }

    /// The address that its proxy has stated, if it has.
    fn stated(&self) -> Option<SocketAddr> {
        match self.header.as_ref()?.0.meaning {
            Meaning::Client(stated) => stated,
            Meaning::Refused { .. } => None,
        }
    }

    /// The server has read these bytes of a header, and no byte behind it.
    fn read_header(&mut self, bytes: &[u8]) {
        let (header, read) = self.header.as_mut().expect("a proxy");
        let rest = &header.bytes[*read..];
        let is_good = matches!(header.meaning, Meaning::Client(_));
        assert!(
            !is_good || rest.starts_with(bytes),
            "{} bytes were read of a header of which {} were missing",
            bytes.len(),
            rest.len()
        );
        *read += bytes.len();
    }

    /// The dialect as whose connection it was accepted, if it was.
    fn upgraded(&self) -> Option<Dialect> {
        if !web::begins_with_http(self.listener) {
            return (!self.awaits_header()).then_some(self.listener);
        }
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
    /// How many headers were accepted, and how many connections were refused for what is none.
    pub headers: u64,
    pub bad_headers: u64,
    /// How long each may take for its request, and for its answer.
    timeout: Duration,
}

impl Visitors {
    pub const fn new(timeout: Duration) -> Self {
        Self {
            each: BTreeMap::new(),
            next_number: 0,
            headers: 0,
            bad_headers: 0,
            timeout,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub fn has(&self, peer_index: usize) -> bool {
        self.each.contains_key(&peer_index)
    }

    /// A connection has come to this listener, and with this header if it is one for proxies.
    pub fn enter(
        &mut self,
        peer_index: usize,
        listener: Dialect,
        header: Option<Header>,
        now: Duration,
    ) {
        let visitor = Visitor {
            listener,
            header: header.map(|header| (header, 0)),
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
        self.each.insert(peer_index, visitor);
    }

    /// The server, which stops or not, has read this.
    pub fn read(&mut self, peer_index: usize, bytes: &[u8], is_stopping: bool) {
        let visitor = self.each.get_mut(&peer_index).expect("a visitor");
        if visitor.awaits_header() {
            return visitor.read_header(bytes);
        }
        if visitor.upgraded().is_some() {
            // It found no place.
            return;
        }
        // What comes behind a request that is answered already is discarded.
        if visitor.answer.is_none() {
            visitor.head.extend_from_slice(bytes);
            visitor.answer = web::answer(visitor.listener, &visitor.head, is_stopping);
        }
    }

    /// The server has written this.
    pub fn on_written(&mut self, peer_index: usize, bytes: &[u8]) {
        let visitor = self.each.get_mut(&peer_index).expect("a visitor");
        assert!(
            visitor.upgraded().is_none(),
            "peer {peer_index} is no visitor any more"
        );
        let rest = &visitor.answer_bytes()[visitor.written..];
        assert!(
            web::goes_on(rest, bytes),
            "peer {peer_index} was answered \"{}\" where \"{}\" was due",
            bytes.escape_ascii(),
            rest[..rest.len().min(bytes.len() + 20)].escape_ascii()
        );
        let is_whole = matches!(visitor.answer, Some(Answer::Whole(_)));
        assert!(
            is_whole || !visitor.was_tried,
            "peer {peer_index} is answered in one write or not at all"
        );
        visitor.was_tried = true;
        visitor.written += bytes.len();
    }

    /// The server has tried to write, and nothing was accepted.
    pub fn write_failed(&mut self, peer_index: usize) {
        if let Some(visitor) = self.each.get_mut(&peer_index) {
            visitor.was_tried = true;
        }
    }

    /// The server offers this to a connection that finds no place.
    pub fn refuse(&mut self, peer_index: usize, offered: &[u8]) {
        let visitor = self.each.get_mut(&peer_index).expect("a visitor");
        assert!(visitor.upgraded().is_some() && visitor.refusal.is_none());
        visitor.refusal = Some(offered.to_vec());
    }

    /// The call was interrupted, and is made again.
    pub fn refusal_was_interrupted(&mut self, peer_index: usize) {
        if let Some(visitor) = self.each.get_mut(&peer_index) {
            visitor.refusal = None;
        }
    }

    pub fn fact(&mut self, peer_index: usize, note: impl FnOnce(&mut Facts)) {
        if let Some(visitor) = self.each.get_mut(&peer_index) {
            note(&mut visitor.facts);
        }
    }

    /// A connection becomes one of the relay. Returns its dialect, the length of the response, and the address
    /// that its proxy has stated.
    pub fn upgrade(&mut self, peer_index: usize) -> Option<(Dialect, usize, Option<SocketAddr>)> {
        let visitor = self.each.get(&peer_index)?;
        let upgraded = visitor.upgraded();
        let dialect = upgraded.expect("its handshake was answered, or its header was read");
        let (len, stated) = (visitor.answer_bytes().len(), visitor.stated());
        self.headers += u64::from(visitor.header.is_some());
        self.each.remove(&peer_index);
        Some((dialect, len, stated))
    }

    /// Each connection whose header is none was closed.
    pub fn check(&self) {
        let mut each = self.each.iter();
        let bad = each.find(|(_, visitor)| visitor.has_bad_header());
        assert!(
            bad.is_none(),
            "peer {:?} has sent no header",
            bad.map(|(peer_index, _)| peer_index)
        );
    }

    /// A connection was closed. Returns whether it was refused a place.
    pub fn close(&mut self, peer_index: usize, now: Duration, is_stopping: bool) -> Option<bool> {
        let visitor = self.each.remove(&peer_index)?;
        let Facts {
            input_has_ended,
            has_failed,
            ..
        } = visitor.facts;
        let is_late = now >= visitor.since + self.timeout;
        if let Some(dialect) = visitor.upgraded() {
            let expected = web::close_frame(1013, "no place is free");
            let expected = web::is_web_socket(dialect).then_some(expected);
            assert_eq!(visitor.refusal, expected, "of peer {peer_index}");
            return Some(true);
        }
        if visitor.has_bad_header() {
            self.bad_headers += 1;
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
            "peer {peer_index} was closed, and there is no reason"
        );
        let is_refused = visitor.awaits_header() && is_late && !is_over && !has_failed;
        Some(is_refused)
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
        each.map(|(&peer_index, visitor)| (peer_index, visitor.left(), visitor.answer.is_none()))
    }

    /// When the next of them is late.
    pub fn deadline(&self) -> Option<Duration> {
        let due = |visitor: &Visitor| visitor.since + self.timeout;
        self.each.values().map(due).min()
    }
}
