//! The outgoing messages.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::{Duration, Instant};

use crate::wire::websocket::{self, Opcode};
use crate::wire::{encode_frame, header};

/// A close within this time after a message counts as an answer to it.
const ANSWER_WINDOW: Duration = Duration::from_secs(1);

/// How many connections may end inside a message before it is given up.
const MAX_ATTEMPTS: u8 = 2;

/// Acknowledged messages are kept for this long, and up to this many bytes.
const RETENTION: Duration = Duration::from_secs(5);
const MAX_RETAINED_BYTES: u64 = 1024 * 1024;

/// The most frames of one write.
const MAX_FRAMES_PER_WRITE: usize = 64;

/// The most bytes of unsent answers to pings.
const MAX_CONTROL_BYTES: usize = 4096;

/// A `Framing` is how messages become frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// With a decimal header.
    #[default]
    Chat10,
    /// As masked WebSocket messages, which the server confirms one by one.
    WebSocket,
}

/// An `Outbox` holds the messages that are not known to be delivered, in order.
///
/// A connection can end at any time, and `chat10` has no acknowledgements. So an outbox has two kinds of
/// messages, which differ when a connection is lost:
///
/// ```text
///   sent                                   unsent
///   [message 4][message 5]                 [mes|sage 6][message 7]
///    the socket accepted them whole:        the socket accepted none or a part:
///    each may be delivered or not, and      no server can have relayed them,
///    is reported as uncertain               so the next connection begins here
/// ```
///
/// A server that refuses a long message closes the connection inside it. It would refuse the message
/// again on each further connection, so a message has two attempts.
///
/// TCP has acknowledgements: bytes that the peer's kernel has acknowledged have reached that machine. The
/// caller reports them with [`acknowledge`](Self::acknowledge). The server reads such bytes soon, unless
/// it ends the connection: by a [reset](ConnectionEnd::Reset), which means that it had not read all, or
/// because it refuses what it has read. So messages that were acknowledged shortly before the end are
/// uncertain as well, and are kept for that time.
///
/// Over WebSocket the server itself [confirms](Self::confirm) each message, and what the kernel of its
/// machine acknowledges means nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    framing: Framing,
    /// WebSocket control frames that the socket has not accepted.
    control: Vec<u8>,
    unsent: VecDeque<Message>,
    /// The memory of `unsent`, in bytes.
    unsent_bytes: usize,
    /// The bytes of the first unsent frame that the socket has accepted.
    partly_sent: usize,
    sent: VecDeque<Sent>,
    /// How many messages at the front of `sent` are acknowledged.
    acknowledged: usize,
    /// The memory of the other messages in `sent`, in bytes.
    unacknowledged_bytes: usize,
    /// The bytes of this connection's stream that the socket has accepted.
    position: u64,
    /// The number of the last message.
    last_number: u64,
    /// The longest message of the last [`ANSWER_WINDOW`]: when it was sent, and its length in bytes.
    longest_recent: Option<(Instant, usize)>,
}

/// A `Message` is one frame of the outbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    frame: Vec<u8>,
    /// Where the payload begins.
    start: usize,
    /// What the payload is masked with.
    key: [u8; 4],
    /// The number of the message, from one. The name that begins a connection has none.
    number: Option<u64>,
    /// How many connections were lost inside it.
    attempts: u8,
}

/// A `ConnectionEnd` is the effect of the end of a connection on the messages that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The server closed it.
    Closed,
    /// The server closed it before it had read everything that had arrived.
    Reset,
    /// The network failed.
    Broken,
}

/// An `Undelivered` lists the messages that a lost connection has put in doubt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// The messages that may be delivered or not.
    pub uncertain: Vec<Message>,
    /// The message that is given up, because two connections have ended inside it.
    pub refused: Option<Message>,
}

impl Message {
    /// The text of the message.
    #[must_use]
    pub fn payload(&self) -> Cow<'_, [u8]> {
        let payload = &self.frame[self.start..];
        if self.key == [0; 4] {
            return payload.into();
        }
        let mut payload = payload.to_vec();
        websocket::mask(&mut payload, self.key, 0);
        payload.into()
    }

    /// The length of the text, in bytes.
    fn payload_len(&self) -> usize {
        self.frame.len() - self.start
    }

    /// Masks the message with another key: each frame has a key of its own.
    fn mask_again(&mut self) {
        *self = Self {
            attempts: self.attempts,
            ..masked(&self.payload(), self.number)
        };
    }

    /// The number of the message, from one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.unwrap_or_default()
    }

    /// The memory of the message, in bytes: more than its length.
    fn memory(&self) -> usize {
        self.frame.len() + size_of::<Sent>()
    }
}

#[derive(Debug)]
struct Sent {
    /// The position in the connection's stream at which the frame ends.
    end: u64,
    at: Instant,
    message: Message,
}

impl Outbox {
    /// Creates an outbox whose frames are these.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            ..Self::default()
        }
    }

    fn framed(&self, payload: &[u8], number: Option<u64>) -> Message {
        match self.framing {
            Framing::Chat10 => framed(payload, number),
            Framing::WebSocket => masked(payload, number),
        }
    }

    /// Whether the server confirms messages.
    #[must_use]
    pub fn is_confirmed_by_server(&self) -> bool {
        self.framing == Framing::WebSocket
    }

    /// Adds a message, of at most [`header::MAX_LEN`] bytes.
    pub fn push(&mut self, payload: &[u8]) {
        self.last_number += 1;
        let message = self.framed(payload, Some(self.last_number));
        self.unsent_bytes += message.memory();
        self.unsent.push_back(message);
    }

    /// Begins a connection: its first frame is the name.
    pub fn begin_connection(&mut self, name: &[u8]) {
        debug_assert!(
            self.partly_sent == 0 && self.sent.is_empty(),
            "see `end_connection`"
        );
        let name = self.framed(name, None);
        self.unsent_bytes += name.memory();
        self.unsent.push_front(name);
        self.position = 0;
        self.longest_recent = None;
    }

    /// Ends a connection. Unsent messages are kept for the next one.
    pub fn end_connection(&mut self, how: ConnectionEnd, now: Instant) -> Undelivered {
        let is_inside_message = std::mem::take(&mut self.partly_sent) > 0;
        self.control.clear();
        let mut refused = None;
        if self.begins_with_name() {
            self.drop_first();
        } else if is_inside_message
            && how != ConnectionEnd::Broken
            && let Some(first) = self.unsent.front_mut()
        {
            first.attempts += 1;
            if first.attempts == MAX_ATTEMPTS {
                refused = self.drop_first();
            }
        }
        if is_inside_message
            && self.framing == Framing::WebSocket
            && let Some(first) = self.unsent.front_mut()
        {
            first.mask_again();
        }
        let doubt = match how {
            ConnectionEnd::Reset => RETENTION,
            ConnectionEnd::Closed => ANSWER_WINDOW,
            ConnectionEnd::Broken => Duration::ZERO,
        };
        let certain = self
            .sent
            .iter()
            .take(self.acknowledged)
            .take_while(|sent| now.duration_since(sent.at) >= doubt)
            .count();
        let uncertain = self
            .sent
            .drain(..)
            .skip(certain)
            .map(|sent| sent.message)
            .filter(|message| message.number.is_some())
            .collect();
        self.acknowledged = 0;
        self.unacknowledged_bytes = 0;
        Undelivered { uncertain, refused }
    }

    fn drop_first(&mut self) -> Option<Message> {
        let first = self.unsent.pop_front()?;
        self.unsent_bytes -= first.memory();
        Some(first)
    }

    /// Writes as much as the socket accepts, or only the name if `name_only` is set.
    ///
    /// # Errors
    ///
    /// The error of `stream`, except "would block", which is none here.
    pub fn write_to(
        &mut self,
        stream: &mut impl Write,
        name_only: bool,
        now: Instant,
    ) -> io::Result<()> {
        loop {
            // A control frame stands between two other frames.
            let is_between = self.partly_sent == 0;
            if is_between && !self.control.is_empty() {
                match stream.write(&self.control) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => drop(self.control.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            if !self.begins_with_name() && (name_only || !self.has_unsent()) {
                break;
            }
            let frames = if name_only || !self.control.is_empty() {
                1
            } else {
                MAX_FRAMES_PER_WRITE
            };
            let mut slices = [IoSlice::new(&[]); MAX_FRAMES_PER_WRITE];
            let mut skip = self.partly_sent;
            let mut count = 0;
            for (slice, message) in slices[..frames].iter_mut().zip(&self.unsent) {
                *slice = IoSlice::new(&message.frame[skip..]);
                skip = 0;
                count += 1;
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes that the socket has accepted this many more bytes.
    fn advance(&mut self, written: usize, now: Instant) {
        self.position += written as u64;
        self.partly_sent += written;
        let mut end = self.position - self.partly_sent as u64;
        while let Some(message) = self.unsent.pop_front() {
            let len = message.frame.len();
            if len > self.partly_sent {
                self.unsent.push_front(message);
                break;
            }
            self.partly_sent -= len;
            self.unsent_bytes -= message.memory();
            self.unacknowledged_bytes += message.memory();
            end += len as u64;
            // A server that confirms messages gives its reason when it refuses one.
            if message.number.is_some() && self.framing == Framing::Chat10 {
                self.remember_longest(message.payload_len(), now);
            }
            self.sent.push_back(Sent {
                end,
                at: now,
                message,
            });
        }
    }

    fn remember_longest(&mut self, len: usize, now: Instant) {
        let is_shorter = self
            .longest_recent
            .is_some_and(|(at, longest)| now.duration_since(at) < ANSWER_WINDOW && longest > len);
        if !is_shorter {
            self.longest_recent = Some((now, len));
        }
    }

    /// Notes that all but the last `unacknowledged` bytes of the connection's stream are acknowledged.
    pub fn acknowledge(&mut self, unacknowledged: u64, now: Instant) {
        let acknowledged = self.position.saturating_sub(unacknowledged);
        self.acknowledge_while(|sent| sent.end <= acknowledged, now);
    }

    /// Notes that the server has confirmed the name.
    pub fn confirm_name(&mut self) {
        if let Some(sent) = self.sent.front()
            && sent.message.number.is_none()
        {
            self.unacknowledged_bytes -= sent.message.memory();
            self.sent.pop_front();
        }
    }

    /// Notes that the server has confirmed the oldest message that was sent, and returns it.
    pub fn confirm(&mut self) -> Option<Message> {
        self.confirm_name();
        let message = self.sent.pop_front()?.message;
        self.unacknowledged_bytes -= message.memory();
        Some(message)
    }

    /// Removes the unsent messages of more than `max` bytes, which the server would refuse.
    pub fn remove_longer(&mut self, max: usize) -> Vec<Message> {
        let skip = usize::from(self.partly_sent > 0);
        let is_longer = |message: &Message| message.number.is_some() && message.payload_len() > max;
        if !self.unsent.iter().skip(skip).any(is_longer) {
            return Vec::new();
        }
        let rest = self.unsent.split_off(skip.min(self.unsent.len()));
        let (longer, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_longer);
        self.unsent.extend(rest);
        for message in &longer {
            self.unsent_bytes -= message.memory();
        }
        longer
    }

    /// Answers a ping. Of pings that come faster than their answers are accepted, some have none
    /// (RFC 6455, 5.5.3).
    pub fn answer_ping(&mut self, payload: &[u8]) {
        if self.control.len() < MAX_CONTROL_BYTES {
            let key = fastrand::u32(..).to_ne_bytes();
            websocket::encode_masked(Opcode::Pong, payload, key, &mut self.control);
        }
    }

    /// Ends a WebSocket, after the message that is partly sent.
    pub fn close(&mut self, code: u16) {
        let key = fastrand::u32(..).to_ne_bytes();
        websocket::encode_masked(Opcode::Close, &code.to_be_bytes(), key, &mut self.control);
    }

    /// Takes the messages that were sent before this time as acknowledged, on systems that do not
    /// report it.
    pub fn assume_acknowledged(&mut self, before: Instant, now: Instant) {
        self.acknowledge_while(|sent| sent.at < before, now);
    }

    fn acknowledge_while(&mut self, is_acknowledged: impl Fn(&Sent) -> bool, now: Instant) {
        while let Some(sent) = self.sent.get(self.acknowledged)
            && is_acknowledged(sent)
        {
            self.acknowledged += 1;
            self.unacknowledged_bytes -= sent.message.memory();
        }
        // Acknowledged messages are dropped by age and by size.
        let end = self
            .acknowledged
            .checked_sub(1)
            .map_or(0, |last| self.sent[last].end);
        let old = self.sent.iter().take(self.acknowledged).take_while(|sent| {
            now.duration_since(sent.at) > RETENTION || end - sent.end > MAX_RETAINED_BYTES
        });
        let old = old.count();
        self.sent.drain(..old);
        self.acknowledged -= old;
    }

    /// Whether there are messages, or a name, that the socket has not accepted.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The messages that the socket has not accepted, or not whole.
    #[must_use]
    pub fn unsent(&self) -> impl ExactSizeIterator<Item = &Message> {
        let name = usize::from(self.begins_with_name());
        self.unsent.range(name..)
    }

    fn begins_with_name(&self) -> bool {
        self.unsent
            .front()
            .is_some_and(|first| first.number.is_none())
    }

    /// The memory of the unsent messages, in bytes.
    #[must_use]
    pub const fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// The memory of the messages that are sent and not acknowledged, in bytes.
    #[must_use]
    pub const fn unacknowledged_bytes(&self) -> usize {
        self.unacknowledged_bytes
    }

    /// Whether anything is sent and not acknowledged.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.sent.len() > self.acknowledged
    }

    /// The number of messages that are sent and not acknowledged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = self.sent.range(self.acknowledged..);
        waiting.filter(|sent| sent.message.number.is_some()).count()
    }

    /// The length in bytes of the message of which the socket has accepted a part, if there is one.
    #[must_use]
    pub fn partly_sent_len(&self) -> Option<usize> {
        let first = self.unsent.front()?;
        (self.partly_sent > 0 && first.number.is_some()).then(|| first.payload_len())
    }

    /// The length in bytes of the longest message of the last second, if there is one: a server that
    /// closes the connection may do so because of it.
    #[must_use]
    pub fn recently_sent(&self, now: Instant) -> Option<usize> {
        let (at, len) = self.longest_recent?;
        (now.duration_since(at) < ANSWER_WINDOW).then_some(len)
    }
}

fn framed(payload: &[u8], number: Option<u64>) -> Message {
    let mut frame = Vec::with_capacity(header::WIDTH + payload.len());
    encode_frame(payload, &mut frame);
    Message {
        frame,
        start: header::WIDTH,
        key: [0; 4],
        number,
        attempts: 0,
    }
}

fn masked(payload: &[u8], number: Option<u64>) -> Message {
    let opcode = match str::from_utf8(payload) {
        Ok(_) => Opcode::Text,
        Err(_) => Opcode::Binary,
    };
    let key = fastrand::u32(..).to_ne_bytes();
    let mut frame = Vec::with_capacity(websocket::MAX_HEADER + payload.len());
    websocket::encode_masked(opcode, payload, key, &mut frame);
    Message {
        start: frame.len() - payload.len(),
        frame,
        key,
        number,
        attempts: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A socket that accepts this many bytes and then no more.
    struct LimitedSocket {
        left: usize,
        taken: Vec<u8>,
    }

    impl LimitedSocket {
        fn new(left: usize) -> Self {
            Self {
                left,
                taken: Vec::new(),
            }
        }
    }

    impl Write for LimitedSocket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.left);
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.left -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes to a connection that accepts `room` bytes, and returns these.
    fn write(outbox: &mut Outbox, room: usize, now: Instant) -> Vec<u8> {
        let mut socket = LimitedSocket::new(room);
        outbox.write_to(&mut socket, false, now).unwrap();
        socket.taken
    }

    fn payloads(messages: &[Message]) -> Vec<Vec<u8>> {
        let payloads = messages.iter().map(Message::payload);
        payloads.map(Cow::into_owned).collect()
    }

    #[test]
    fn name_is_sent_first_and_is_not_counted_as_a_message() {
        let mut outbox = Outbox::default();
        outbox.push(b"pushed before the first connection");
        outbox.begin_connection(b"alice");
        assert_eq!(outbox.unsent().len(), 1);
        let written = write(&mut outbox, 15, Instant::now());
        assert_eq!(written, b"5         alice");
        assert_eq!(outbox.unsent().len(), 1);
        assert_eq!(
            outbox.end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW),
            Undelivered::default(),
            "only the name was sent"
        );
    }

    #[test]
    fn lost_connection_returns_sent_messages_and_keeps_unsent_ones_in_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin_connection(b"a");
        for message in ["one", "two", "three", "four"] {
            outbox.push(message.as_bytes());
        }
        // The name, two messages, and all but the last byte of the third.
        write(&mut outbox, 11 + 13 + 13 + 14, now);
        let Undelivered { uncertain, refused } =
            outbox.end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW);
        assert_eq!(refused, None);
        assert_eq!(payloads(&uncertain), [b"one", b"two"]);
        assert_eq!(uncertain[1].number(), 2);
        assert_eq!(outbox.unsent().len(), 2);

        outbox.begin_connection(b"a");
        let written = write(&mut outbox, 1000, now);
        assert_eq!(written, b"1         a5         three4         four");
        assert!(!outbox.has_unsent());
        assert_eq!(outbox.unsent_bytes(), 0);
    }

    #[test]
    fn acknowledged_message_is_not_uncertain() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin_connection(b"a");
        outbox.push(b"one");
        outbox.push(b"two");
        write(&mut outbox, 1000, now);
        outbox.acknowledge(1, now);
        assert!(outbox.is_waiting());
        assert_eq!(
            payloads(
                &outbox
                    .end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW)
                    .uncertain
            ),
            [b"two"]
        );

        outbox.begin_connection(b"a");
        outbox.push(b"three");
        write(&mut outbox, 1000, now);
        outbox.acknowledge(0, now);
        assert!(!outbox.is_waiting());
        assert_eq!(
            outbox.end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW),
            Undelivered::default()
        );
    }

    #[test]
    fn message_is_given_up_when_two_connections_end_inside_it() {
        let mut outbox = Outbox::default();
        outbox.push(b"refused");
        outbox.push(b"next");
        let mut refused = Vec::new();
        // Into the name, into the message, into the name again, into the message again.
        for room in [5, 15, 5, 27] {
            outbox.begin_connection(b"a");
            write(&mut outbox, room, Instant::now());
            let remains =
                outbox.end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW);
            assert!(remains.uncertain.is_empty());
            refused.push(remains.refused.map(|message| message.number()));
        }
        assert_eq!(refused, [None, None, None, Some(1)]);
    }

    #[test]
    fn network_failure_inside_a_message_is_not_counted_as_an_attempt() {
        let mut outbox = Outbox::default();
        outbox.push(b"a long message");
        for _ in 0..5 {
            outbox.begin_connection(b"a");
            write(&mut outbox, 20, Instant::now());
            assert_eq!(
                outbox.end_connection(ConnectionEnd::Broken, Instant::now()),
                Undelivered::default()
            );
        }
        assert_eq!(outbox.unsent().len(), 1);
    }

    #[test]
    fn message_acknowledged_shortly_before_a_close_is_uncertain() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        for (how, after, uncertain) in [
            (ConnectionEnd::Closed, Duration::ZERO, &[&b"one"[..]][..]),
            (ConnectionEnd::Closed, ANSWER_WINDOW, &[]),
            (ConnectionEnd::Broken, Duration::ZERO, &[]),
        ] {
            outbox.begin_connection(b"a");
            outbox.push(b"one");
            write(&mut outbox, 1000, now);
            outbox.acknowledge(0, now);
            assert_eq!(
                payloads(&outbox.end_connection(how, now + after).uncertain),
                uncertain
            );
        }
    }

    #[test]
    fn reset_makes_recently_acknowledged_messages_uncertain() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin_connection(b"a");
        outbox.push(b"old");
        write(&mut outbox, 1000, start);
        let later = start + RETENTION + Duration::from_millis(1);
        outbox.push(b"new");
        write(&mut outbox, 1000, later);
        outbox.acknowledge(0, later);
        assert!(!outbox.is_waiting());
        assert_eq!(
            payloads(&outbox.end_connection(ConnectionEnd::Reset, later).uncertain),
            [b"new"]
        );

        outbox.begin_connection(b"a");
        for byte in [b'x', b'y', b'z'] {
            outbox.push(&vec![byte; MAX_RETAINED_BYTES as usize / 2]);
        }
        write(&mut outbox, 10_000_000, later);
        outbox.acknowledge(0, later);
        let uncertain = outbox.end_connection(ConnectionEnd::Reset, later).uncertain;
        assert_eq!(uncertain.len(), 2);
        assert_eq!(
            (outbox.unsent_bytes(), outbox.unacknowledged_bytes()),
            (0, 0)
        );
    }

    #[test]
    fn name_is_sent_alone_when_asked_for() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.push(b"later");
        outbox.begin_connection(b"a");
        let mut socket = LimitedSocket::new(1000);
        outbox.write_to(&mut socket, true, now).unwrap();
        outbox.write_to(&mut socket, true, now).unwrap();
        assert_eq!(socket.taken, b"1         a");
        outbox.write_to(&mut socket, false, now).unwrap();
        assert_eq!(socket.taken, b"1         a5         later");
    }

    #[test]
    fn old_message_counts_as_acknowledged_where_the_system_does_not_report_it() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin_connection(b"a");
        outbox.push(b"old");
        write(&mut outbox, 1000, start);
        let later = start + Duration::from_secs(60);
        outbox.push(b"new");
        write(&mut outbox, 1000, later);
        outbox.assume_acknowledged(later, later);
        assert_eq!(
            payloads(
                &outbox
                    .end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW)
                    .uncertain
            ),
            [b"new"]
        );
    }

    #[test]
    fn longest_recent_message_is_the_likely_cause_of_a_close() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut outbox = Outbox::default();
        let mut say = |len: usize, now| {
            outbox.push(&vec![b'x'; len]);
            write(&mut outbox, 10_000, now);
            outbox.recently_sent(now)
        };
        assert_eq!(say(2000, at(0)), Some(2000));
        assert_eq!(say(5, at(900)), Some(2000));
        assert_eq!(say(7, at(1000)), Some(7));
        assert_eq!(outbox.recently_sent(at(2000)), None);
    }

    /// The messages of a WebSocket client's stream, and the pongs.
    fn decode(mut stream: Vec<u8>) -> Vec<Vec<u8>> {
        let mut decoder = websocket::WebSocketDecoder::default();
        let mut input = &mut stream[..];
        let mut items = Vec::new();
        while let Some(item) = decoder.decode(&mut input, 1000).unwrap() {
            items.push(match item {
                websocket::Item::Message { payload, .. } => payload.to_vec(),
                websocket::Item::Close(code, _) => [b"close ", code].concat(),
                item => format!("{item:?}").into_bytes(),
            });
        }
        items
    }

    #[test]
    fn message_over_web_socket_is_kept_until_the_server_confirms_it() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Framing::WebSocket);
        outbox.begin_connection(b"a");
        for text in [&b"one"[..], b"two", b"\xff"] {
            outbox.push(text);
        }
        let stream = write(&mut outbox, 1000, now);
        assert_eq!(stream[0], 0x81);
        assert_eq!(stream[stream.len() - 7], 0x82, "bytes that are not UTF-8");
        assert_eq!(decode(stream), [&b"a"[..], b"one", b"two", b"\xff"]);
        outbox.confirm_name();
        assert!(outbox.is_waiting());
        assert_eq!(&*outbox.confirm().unwrap().payload(), b"one");
        assert_eq!(outbox.waiting(), 2);
        // However long it was, and whatever the kernel knows.
        let later = now + 2 * RETENTION;
        let uncertain = outbox
            .end_connection(ConnectionEnd::Closed, later)
            .uncertain;
        assert_eq!(payloads(&uncertain), [&b"two"[..], b"\xff"]);
        assert!(outbox.confirm().is_none());
        assert_eq!(
            (outbox.unsent_bytes(), outbox.unacknowledged_bytes()),
            (0, 0)
        );
    }

    #[test]
    fn control_frames_stand_between_messages_and_are_sent_before_the_name_is_confirmed() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Framing::WebSocket);
        outbox.begin_connection(b"a");
        outbox.push(b"one");
        outbox.push(b"two");
        let mut socket = LimitedSocket::new(1000);
        outbox.write_to(&mut socket, true, now).unwrap();
        outbox.answer_ping(b"1");
        outbox.write_to(&mut socket, true, now).unwrap();
        assert_eq!(decode(socket.taken.clone()).len(), 2);
        // Inside "one", and then inside the pong.
        for room in [3, 10] {
            socket.left = room;
            outbox.write_to(&mut socket, false, now).unwrap();
            outbox.answer_ping(b"2");
        }
        outbox.close(1000);
        socket.left = 1000;
        outbox.write_to(&mut socket, false, now).unwrap();
        let items = decode(socket.taken);
        let expected = [
            "a",
            "Pong",
            "one",
            "Pong",
            "Pong",
            "close \u{3}\u{e8}",
            "two",
        ];
        assert_eq!(items.len(), expected.len());
        for (item, expected) in items.iter().zip(expected) {
            assert_eq!(
                item[..item.len().min(5)],
                expected.as_bytes()[..item.len().min(5)]
            );
        }
    }

    #[test]
    fn pings_that_are_faster_than_the_socket_do_not_grow_memory() {
        let mut outbox = Outbox::new(Framing::WebSocket);
        for _ in 0..100_000 {
            outbox.answer_ping(&[0; 125]);
        }
        assert!(outbox.control.len() < 2 * MAX_CONTROL_BYTES);
    }

    #[test]
    fn message_that_is_too_long_for_the_server_is_removed_unless_it_is_partly_sent() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Framing::WebSocket);
        outbox.begin_connection(&[b'n'; 9]);
        for len in [5, 3, 4, 0, 6] {
            outbox.push(&vec![b'x'; len]);
        }
        let longer = outbox.remove_longer(4);
        let numbers: Vec<_> = longer.iter().map(Message::number).collect();
        assert_eq!(numbers, [1, 5]);
        let first = write(&mut outbox, 16, now);
        assert_eq!(outbox.remove_longer(2).len(), 1);
        assert_eq!(outbox.unsent().len(), 2);
        assert!(outbox.remove_longer(0).is_empty());
        let stream = [first, write(&mut outbox, 1000, now)].concat();
        assert_eq!(decode(stream), [&[b'n'; 9][..], b"xxx", b""]);
        assert_eq!(outbox.unsent_bytes(), 0);
    }

    #[test]
    fn partly_sent_message_has_another_mask_over_the_next_connection() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Framing::WebSocket);
        outbox.push(b"a message");
        outbox.begin_connection(b"a");
        let first = write(&mut outbox, 7 + 10, now);
        outbox.end_connection(ConnectionEnd::Broken, now);
        outbox.begin_connection(b"a");
        let second = write(&mut outbox, 1000, now);
        assert_ne!(first[9..13], second[9..13]);
        assert_eq!(decode(second), [&b"a"[..], b"a message"]);
    }

    proptest! {
        #[test]
        fn each_message_is_sent_once_over_any_number_of_connections(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..200),
            connections in prop::collection::vec((0..2000_usize, 0..2000_u64), 0..10),
        ) {
            let now = Instant::now();
            let mut outbox = Outbox::default();
            for message in &messages {
                outbox.push(message);
            }
            // The whole frames that the connections delivered, and the messages that were given up.
            let (mut whole, mut refused) = (Vec::new(), Vec::new());
            for (room, unacknowledged) in connections.into_iter().chain([(usize::MAX, 0)]) {
                outbox.begin_connection(b"name");
                let written = write(&mut outbox, room, now);
                outbox.acknowledge(unacknowledged, now);
                let mut rest = &written[..];
                let mut first = true;
                let mut decoder = crate::wire::Decoder::new();
                while let Some(payload) = decoder.decode(&mut rest, 10, 100).unwrap() {
                    if !first {
                        whole.push(payload.to_vec());
                    }
                    first = false;
                }
                let remains = outbox.end_connection(ConnectionEnd::Closed, Instant::now() + ANSWER_WINDOW);
                for message in remains.uncertain {
                    let index = message.number() as usize - 1;
                    prop_assert_eq!(message.payload(), &messages[index][..]);
                    prop_assert!(whole.iter().any(|payload| *payload == *message.payload()));
                }
                refused.extend(remains.refused.map(|message| message.number() as usize - 1));
            }
            let expected: Vec<_> = messages
                .into_iter()
                .enumerate()
                .filter(|(index, _)| !refused.contains(index))
                .map(|(_, message)| message)
                .collect();
            prop_assert_eq!(whole, expected);
        }
    }
}
