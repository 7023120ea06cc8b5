//! What was said here and is not known to have arrived.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::{Duration, Instant};

use crate::wire::{encode_frame, header};

/// How long after a message a close still counts as an answer to it.
const RIGHT_AFTER: Duration = Duration::from_secs(1);

/// How many connections may end in the middle of a message.
const TRIES: u8 = 2;

/// For how long what has arrived is remembered, and how much of it, in bytes.
const REMEMBERED: Duration = Duration::from_secs(5);
const REMEMBERED_BYTES: u64 = 1024 * 1024;

/// How many frames to hand to the socket at once.
const FRAMES_A_WRITE: usize = 64;

/// The messages that were said and are not known to have arrived, in order.
///
/// A connection can end at any time, and `chat10` has no acknowledgements. So there are two kinds of
/// messages here, and a lost connection tells them apart:
///
/// ```text
///   sent                                   unsent
///   [message 4][message 5]                 [mes|sage 6][message 7]
///    the socket took all of them: each      the socket took none or a part:
///    may have arrived or not, and is        no server can have relayed them,
///    handed back as uncertain               so the next connection begins here
/// ```
///
/// A server that refuses a message closes the connection in the middle of it, if it is a long one. To
/// send it again would be refused again, for ever; so a message gets two tries.
///
/// TCP knows more than the protocol does: what the server's side has acknowledged has arrived on that
/// machine. Whoever can find that out says so with [`arrived`](Self::arrived). What has arrived is read
/// soon, but not if the server ends the connection: by a [reset](Cut::Reset), which says that it had not
/// read all, or because it refuses what it has read. So what has arrived of late is in doubt again then,
/// and is remembered until it is not of late any more.
#[derive(Debug, Default)]
pub struct Outbox {
    unsent: VecDeque<Message>,
    /// What `unsent` takes, in bytes.
    unsent_cost: usize,
    /// How much of the first unsent frame the socket has taken, in bytes.
    begun: usize,
    sent: VecDeque<Sent>,
    /// How many of those in `sent` have arrived: the first.
    arrived: usize,
    /// What those in `sent` take that have not arrived, in bytes.
    waiting_cost: usize,
    /// How many bytes of this connection's stream the socket has taken.
    position: u64,
    /// How many messages were ever said.
    said: u64,
    /// When the longest message of late was sent, and its length in bytes.
    longest_of_late: Option<(Instant, usize)>,
}

/// Something that was said.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    frame: Vec<u8>,
    /// The how-manieth message this is, counted from one. The name that begins a connection is none.
    number: Option<u64>,
    /// How many connections were lost in the middle of it.
    tries: u8,
}

/// How a connection ended, as far as it matters to what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server closed it.
    Closed,
    /// The server closed it, and had not read all that had arrived.
    Reset,
    /// The network failed.
    Broken,
}

/// What a lost connection leaves behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The messages of which nobody knows whether they have arrived.
    pub uncertain: Vec<Message>,
    /// The message that is given up, because this is not the first connection that did not survive
    /// it.
    pub refused: Option<Message>,
}

impl Message {
    /// What was said.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.frame[header::WIDTH..]
    }

    /// The how-manieth message this is, counted from one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.unwrap_or_default()
    }

    /// What it takes in memory, in bytes: a short message is more than its bytes.
    fn cost(&self) -> usize {
        self.frame.len() + size_of::<Sent>()
    }
}

#[derive(Debug)]
struct Sent {
    /// Where in this connection's stream the frame ends.
    end: u64,
    at: Instant,
    message: Message,
}

impl Outbox {
    /// Adds a message, of at most [`header::MAX_LEN`] bytes.
    pub fn push(&mut self, payload: &[u8]) {
        self.said += 1;
        let message = framed(payload, Some(self.said));
        self.unsent_cost += message.cost();
        self.unsent.push_back(message);
    }

    /// Begins a connection: its first frame is the name.
    pub fn begin(&mut self, name: &[u8]) {
        debug_assert!(self.begun == 0 && self.sent.is_empty(), "see `lose`");
        let name = framed(name, None);
        self.unsent_cost += name.cost();
        self.unsent.push_front(name);
        self.position = 0;
        self.longest_of_late = None;
    }

    /// Ends a connection: what is neither sent nor returned is for the next one.
    pub fn lose(&mut self, how: Cut, now: Instant) -> Remains {
        let was_begun = std::mem::take(&mut self.begun) > 0;
        let mut refused = None;
        if self.begins_with_name() {
            self.drop_first();
        } else if was_begun
            && how != Cut::Broken
            && let Some(first) = self.unsent.front_mut()
        {
            first.tries += 1;
            if first.tries == TRIES {
                refused = self.drop_first();
            }
        }
        let of_late = match how {
            Cut::Reset => REMEMBERED,
            Cut::Closed => RIGHT_AFTER,
            Cut::Broken => Duration::ZERO,
        };
        let certain = self
            .sent
            .iter()
            .take(self.arrived)
            .take_while(|sent| now.duration_since(sent.at) >= of_late)
            .count();
        let uncertain = self
            .sent
            .drain(..)
            .skip(certain)
            .map(|sent| sent.message)
            .filter(|message| message.number.is_some())
            .collect();
        self.arrived = 0;
        self.waiting_cost = 0;
        Remains { uncertain, refused }
    }

    fn drop_first(&mut self) -> Option<Message> {
        let first = self.unsent.pop_front()?;
        self.unsent_cost -= first.cost();
        Some(first)
    }

    /// Hands the socket as much as it takes; if that is asked for, of the name only.
    ///
    /// # Errors
    ///
    /// Whatever `stream` reports, but for "would block", which is no error here.
    pub fn write_to(
        &mut self,
        stream: &mut impl Write,
        name_only: bool,
        now: Instant,
    ) -> io::Result<()> {
        while self.begins_with_name() || !name_only && self.has_unsent() {
            let most = if name_only { 1 } else { FRAMES_A_WRITE };
            let mut slices = [IoSlice::new(&[]); FRAMES_A_WRITE];
            let mut skip = self.begun;
            let mut count = 0;
            for (slice, message) in slices[..most].iter_mut().zip(&self.unsent) {
                *slice = IoSlice::new(&message.frame[skip..]);
                skip = 0;
                count += 1;
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => self.advance(taken, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes that the socket has taken this many bytes more.
    fn advance(&mut self, taken: usize, now: Instant) {
        self.position += taken as u64;
        self.begun += taken;
        let mut end = self.position - self.begun as u64;
        while let Some(message) = self.unsent.pop_front() {
            let len = message.frame.len();
            if len > self.begun {
                self.unsent.push_front(message);
                break;
            }
            self.begun -= len;
            self.unsent_cost -= message.cost();
            self.waiting_cost += message.cost();
            end += len as u64;
            if message.number.is_some() {
                self.remember_longest(message.payload().len(), now);
            }
            self.sent.push_back(Sent {
                end,
                at: now,
                message,
            });
        }
    }

    fn remember_longest(&mut self, len: usize, now: Instant) {
        let longer_of_late = self
            .longest_of_late
            .is_some_and(|(at, longest)| now.duration_since(at) < RIGHT_AFTER && longest > len);
        if !longer_of_late {
            self.longest_of_late = Some((now, len));
        }
    }

    /// Notes that all but the last `unacknowledged` bytes of this connection's stream have arrived.
    pub fn arrived(&mut self, unacknowledged: u64, now: Instant) {
        let arrived = self.position.saturating_sub(unacknowledged);
        self.arrived_while(|sent| sent.end <= arrived, now);
    }

    /// Takes what was sent before this as arrived, for want of better knowledge.
    pub fn assume_arrived(&mut self, before: Instant, now: Instant) {
        self.arrived_while(|sent| sent.at < before, now);
    }

    fn arrived_while(&mut self, has_arrived: impl Fn(&Sent) -> bool, now: Instant) {
        while let Some(sent) = self.sent.get(self.arrived)
            && has_arrived(sent)
        {
            self.arrived += 1;
            self.waiting_cost -= sent.message.cost();
        }
        // What has arrived is forgotten when it is old, or much.
        let end = self
            .arrived
            .checked_sub(1)
            .map_or(0, |last| self.sent[last].end);
        let old = self.sent.iter().take(self.arrived).take_while(|sent| {
            now.duration_since(sent.at) > REMEMBERED || end - sent.end > REMEMBERED_BYTES
        });
        let old = old.count();
        self.sent.drain(..old);
        self.arrived -= old;
    }

    /// Whether there is something that the socket has not taken.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The messages that the socket has not taken, or not whole.
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

    /// What is unsent takes so much memory, in bytes.
    #[must_use]
    pub const fn unsent_cost(&self) -> usize {
        self.unsent_cost
    }

    /// What was sent and is not known to have arrived takes so much memory, in bytes.
    #[must_use]
    pub const fn waiting_cost(&self) -> usize {
        self.waiting_cost
    }

    /// Whether there is something that was sent and is not known to have arrived.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.sent.len() > self.arrived
    }

    /// How many messages were sent and are not known to have arrived.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = self.sent.range(self.arrived..);
        waiting.filter(|sent| sent.message.number.is_some()).count()
    }

    /// The length in bytes of the message that the socket has taken a part of, if there is one.
    #[must_use]
    pub fn half_sent(&self) -> Option<usize> {
        let first = self.unsent.front()?;
        (self.begun > 0 && first.number.is_some()).then(|| first.payload().len())
    }

    /// The length in bytes of the longest message that was sent just now, if there is one: a server
    /// that closes the connection may be doing so because of it.
    #[must_use]
    pub fn just_sent(&self, now: Instant) -> Option<usize> {
        let (at, len) = self.longest_of_late?;
        (now.duration_since(at) < RIGHT_AFTER).then_some(len)
    }
}

fn framed(payload: &[u8], number: Option<u64>) -> Message {
    let mut frame = Vec::with_capacity(header::WIDTH + payload.len());
    encode_frame(payload, &mut frame);
    Message {
        frame,
        number,
        tries: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A socket that takes so many bytes and then no more.
    struct Room {
        left: usize,
        taken: Vec<u8>,
    }

    impl Room {
        fn new(left: usize) -> Self {
            Self {
                left,
                taken: Vec::new(),
            }
        }
    }

    impl Write for Room {
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

    fn payloads(messages: &[Message]) -> Vec<&[u8]> {
        messages.iter().map(Message::payload).collect()
    }

    #[test]
    fn the_name_goes_first_and_is_no_message() {
        let mut outbox = Outbox::default();
        outbox.push(b"said before there was a connection");
        outbox.begin(b"alice");
        assert_eq!(outbox.unsent().len(), 1);
        let mut socket = Room::new(15);
        outbox.write_to(&mut socket, false, Instant::now()).unwrap();
        assert_eq!(socket.taken, b"5         alice");
        assert_eq!(outbox.unsent().len(), 1);
        assert_eq!(
            outbox.lose(Cut::Closed, Instant::now() + RIGHT_AFTER),
            Remains::default(),
            "only the name was sent"
        );
    }

    #[test]
    fn a_lost_connection_tells_what_is_uncertain_and_keeps_the_rest_in_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin(b"a");
        for message in ["one", "two", "three", "four"] {
            outbox.push(message.as_bytes());
        }
        // The name, two messages, and all but the last byte of the third.
        let mut socket = Room::new(11 + 13 + 13 + 14);
        outbox.write_to(&mut socket, false, now).unwrap();
        let Remains { uncertain, refused } = outbox.lose(Cut::Closed, Instant::now() + RIGHT_AFTER);
        assert_eq!(refused, None);
        assert_eq!(payloads(&uncertain), [b"one", b"two"]);
        assert_eq!(uncertain[1].number(), 2);
        assert_eq!(outbox.unsent().len(), 2);

        outbox.begin(b"a");
        let mut socket = Room::new(1000);
        outbox.write_to(&mut socket, false, now).unwrap();
        assert_eq!(socket.taken, b"1         a5         three4         four");
        assert!(!outbox.has_unsent());
        assert_eq!(outbox.unsent_cost(), 0);
    }

    #[test]
    fn what_was_acknowledged_is_certain() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin(b"a");
        outbox.push(b"one");
        outbox.push(b"two");
        outbox.write_to(&mut Room::new(1000), false, now).unwrap();
        outbox.arrived(1, now);
        assert!(outbox.is_waiting());
        assert_eq!(
            payloads(
                &outbox
                    .lose(Cut::Closed, Instant::now() + RIGHT_AFTER)
                    .uncertain
            ),
            [b"two"]
        );

        outbox.begin(b"a");
        outbox.push(b"three");
        outbox.write_to(&mut Room::new(1000), false, now).unwrap();
        outbox.arrived(0, now);
        assert!(!outbox.is_waiting());
        assert_eq!(
            outbox.lose(Cut::Closed, Instant::now() + RIGHT_AFTER),
            Remains::default()
        );
    }

    #[test]
    fn a_message_that_two_connections_do_not_survive_is_given_up() {
        let mut outbox = Outbox::default();
        outbox.push(b"refused");
        outbox.push(b"next");
        let mut refused = Vec::new();
        // Into the name, into the message, into the name again, into the message again.
        for room in [5, 15, 5, 27] {
            outbox.begin(b"a");
            outbox
                .write_to(&mut Room::new(room), false, Instant::now())
                .unwrap();
            let remains = outbox.lose(Cut::Closed, Instant::now() + RIGHT_AFTER);
            assert!(remains.uncertain.is_empty());
            refused.push(remains.refused.map(|message| message.number()));
        }
        assert_eq!(refused, [None, None, None, Some(1)]);
    }

    #[test]
    fn a_network_that_fails_is_no_refusal() {
        let mut outbox = Outbox::default();
        outbox.push(b"a long message");
        for _ in 0..5 {
            outbox.begin(b"a");
            outbox
                .write_to(&mut Room::new(20), false, Instant::now())
                .unwrap();
            assert_eq!(outbox.lose(Cut::Broken, Instant::now()), Remains::default());
        }
        assert_eq!(outbox.unsent().len(), 1);
    }

    #[test]
    fn what_arrived_right_before_the_server_closed_may_have_been_refused() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        for (how, after, uncertain) in [
            (Cut::Closed, Duration::ZERO, &[&b"one"[..]][..]),
            (Cut::Closed, RIGHT_AFTER, &[]),
            (Cut::Broken, Duration::ZERO, &[]),
        ] {
            outbox.begin(b"a");
            outbox.push(b"one");
            outbox.write_to(&mut Room::new(1000), false, now).unwrap();
            outbox.arrived(0, now);
            assert_eq!(
                payloads(&outbox.lose(how, now + after).uncertain),
                uncertain
            );
        }
    }

    #[test]
    fn a_reset_says_that_what_arrived_of_late_was_not_read() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin(b"a");
        outbox.push(b"old");
        outbox.write_to(&mut Room::new(1000), false, start).unwrap();
        let later = start + REMEMBERED + Duration::from_millis(1);
        outbox.push(b"new");
        outbox.write_to(&mut Room::new(1000), false, later).unwrap();
        outbox.arrived(0, later);
        assert!(!outbox.is_waiting());
        assert_eq!(
            payloads(&outbox.lose(Cut::Reset, later).uncertain),
            [b"new"]
        );

        outbox.begin(b"a");
        for byte in [b'x', b'y', b'z'] {
            outbox.push(&vec![byte; REMEMBERED_BYTES as usize / 2]);
        }
        outbox
            .write_to(&mut Room::new(10_000_000), false, later)
            .unwrap();
        outbox.arrived(0, later);
        let uncertain = outbox.lose(Cut::Reset, later).uncertain;
        assert_eq!(uncertain.len(), 2);
        assert_eq!((outbox.unsent_cost(), outbox.waiting_cost()), (0, 0));
    }

    #[test]
    fn only_the_name_can_be_sent_at_first() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.push(b"later");
        outbox.begin(b"a");
        let mut socket = Room::new(1000);
        outbox.write_to(&mut socket, true, now).unwrap();
        outbox.write_to(&mut socket, true, now).unwrap();
        assert_eq!(socket.taken, b"1         a");
        outbox.write_to(&mut socket, false, now).unwrap();
        assert_eq!(socket.taken, b"1         a5         later");
    }

    #[test]
    fn where_nobody_tells_age_decides() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        outbox.begin(b"a");
        outbox.push(b"old");
        outbox.write_to(&mut Room::new(1000), false, start).unwrap();
        let later = start + Duration::from_secs(60);
        outbox.push(b"new");
        outbox.write_to(&mut Room::new(1000), false, later).unwrap();
        outbox.assume_arrived(later, later);
        assert_eq!(
            payloads(
                &outbox
                    .lose(Cut::Closed, Instant::now() + RIGHT_AFTER)
                    .uncertain
            ),
            [b"new"]
        );
    }

    #[test]
    fn the_longest_message_of_late_is_the_suspect() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut outbox = Outbox::default();
        let mut say = |len: usize, now| {
            outbox.push(&vec![b'x'; len]);
            outbox.write_to(&mut Room::new(10_000), false, now).unwrap();
            outbox.just_sent(now)
        };
        assert_eq!(say(2000, at(0)), Some(2000));
        assert_eq!(say(5, at(900)), Some(2000));
        assert_eq!(say(7, at(1000)), Some(7));
        assert_eq!(outbox.just_sent(at(2000)), None);
    }

    proptest! {
        #[test]
        fn over_any_number_of_lost_connections_each_message_is_sent_or_uncertain(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..200),
            connections in prop::collection::vec((0..2000_usize, 0..2000_u64), 0..10),
        ) {
            let now = Instant::now();
            let mut outbox = Outbox::default();
            for message in &messages {
                outbox.push(message);
            }
            // What whole frames the connections brought across, and what was given up.
            let (mut whole, mut refused) = (Vec::new(), Vec::new());
            for (room, unacknowledged) in connections.into_iter().chain([(usize::MAX, 0)]) {
                outbox.begin(b"name");
                let mut socket = Room::new(room);
                outbox.write_to(&mut socket, false, now).unwrap();
                outbox.arrived(unacknowledged, now);
                let mut rest = &socket.taken[..];
                let mut first = true;
                let mut decoder = crate::wire::Decoder::new();
                while let Some(payload) = decoder.decode(&mut rest, 10, 100).unwrap() {
                    if !first {
                        whole.push(payload.to_vec());
                    }
                    first = false;
                }
                let remains = outbox.lose(Cut::Closed, Instant::now() + RIGHT_AFTER);
                for message in remains.uncertain {
                    let index = message.number() as usize - 1;
                    prop_assert_eq!(message.payload(), &messages[index][..]);
                    prop_assert!(whole.iter().any(|payload| payload == message.payload()));
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
