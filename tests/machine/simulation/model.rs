//! What every peer must receive, worked out from what the server has read: the history checker.
//!
//! The model knows the protocols and the promises, and nothing of how the relay keeps them. It has no
//! turns' buffers, no shared backlog, no cursors: to each member belongs one string of bytes that are
//! due to it, and each message is appended to all of them. Whatever the server then writes to a member
//! must be the beginning of that string, to the byte.
//!
//! Two kinds of bytes come for a reason that the model sees only afterwards.
//!
//! - A *pause notice* stands before everything else of a turn. So what is written to a browser member is
//!   compared when the turn is over: there is one notice, or none, with which all of them have received
//!   what is due. [`Notices`] then checks whether it was right.
//! - A *Close frame* has the reason of the end. It is compared when the relay has counted that reason.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use chatloop::relay::{ConnId, Limits, Slow};
use chatloop::server::Config;
use chatloop::wire::Dialect;

use super::lobby::Visitors;
use super::plan::Plan;
use super::web::{self, BINARY, CLOSE, ClientStream, Item, PONG, ServerStream, TEXT};

/// How much more time a pending connection gets that is late, but has sent something.
const GRACE: Duration = Duration::from_millis(100);

/// A pending connection is not evicted before this.
const SAFE_PENDING: Duration = Duration::from_secs(2);

/// What a slow reader must accept while the room is paused for it, in bytes a second.
pub const MIN_READ_RATE: usize = 64 * 1024 / 10;

/// How much a member publishes in one round, unless one message is longer, in bytes.
const ROUND: usize = 512;

/// What a dialect's clients send and receive, as the tutorials define it.
struct Protocol {
    sends: Sends,
    is_named: bool,
    receives: Receives,
    ack: Vec<u8>,
    farewell: Vec<u8>,
    is_farewell_received: bool,
    greeting: Vec<u8>,
    /// What a new member receives behind the history.
    hello: Vec<u8>,
    /// How many of the last messages a new member receives.
    history: usize,
}

/// What a client sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// Nothing that has a meaning.
    Noise,
    /// Frames with headers of this width.
    Frames(usize),
    /// Messages of WebSocket.
    Messages,
    /// Messages of WebSocket whose bytes in a row are frames with headers of this width.
    Tunnel(usize),
    /// Messages of WebSocket that are returned.
    EchoMessages,
    /// Bytes that are returned.
    Echo,
}

impl Sends {
    /// Whether it sends messages for the room.
    const fn is_chat(self) -> bool {
        matches!(self, Self::Frames(_) | Self::Messages | Self::Tunnel(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receives {
    Frames,
    Payloads,
    Json,
    /// The same as `Frames`, in one binary frame of WebSocket.
    TunneledFrames,
    Time,
    Nothing,
}

impl Protocol {
    fn new(dialect: Dialect, config: &Config) -> Self {
        let texts = &config.texts;
        let or = |own: &Option<Vec<u8>>, text: &str| own.clone().unwrap_or_else(|| text.into());
        let silent = Self {
            sends: Sends::Noise,
            is_named: false,
            receives: Receives::Nothing,
            ack: Vec::new(),
            farewell: Vec::new(),
            is_farewell_received: false,
            greeting: Vec::new(),
            hello: Vec::new(),
            history: config.limits.history,
        };
        match dialect {
            Dialect::Chat10 => Self {
                sends: Sends::Frames(10),
                is_named: true,
                receives: Receives::Frames,
                ..silent
            },
            Dialect::Chat64 => Self {
                sends: Sends::Frames(64),
                receives: Receives::Payloads,
                ack: or(&texts.ack, "Message was Sent!"),
                farewell: or(&texts.farewell, "Client Disconnected"),
                is_farewell_received: true,
                ..silent
            },
            Dialect::Ack64 => Self {
                sends: Sends::Frames(64),
                ack: or(&texts.ack, "Msg received"),
                farewell: or(&texts.farewell, "!DISCONNECT"),
                ..silent
            },
            Dialect::Greet10 => Self {
                receives: Receives::Time,
                greeting: frame(&or(&texts.greeting, "Welcome to the server!")),
                ..silent
            },
            Dialect::Hello => Self {
                greeting: or(&texts.greeting, "welcome to the server!"),
                ..silent
            },
            Dialect::Ws => Self {
                sends: Sends::Messages,
                is_named: true,
                receives: Receives::Json,
                ack: web::server_frame(TEXT, b"{\"ack\":1}"),
                hello: web::hello(&config.limits),
                history: config.limits.timed_history,
                ..silent
            },
            Dialect::WsChat10 => Self {
                sends: Sends::Tunnel(10),
                is_named: true,
                receives: Receives::TunneledFrames,
                ..silent
            },
            Dialect::WsEcho => Self {
                sends: Sends::EchoMessages,
                ..silent
            },
            Dialect::Echo => Self {
                sends: Sends::Echo,
                ..silent
            },
            // Each of its connections ends in the lobby.
            Dialect::Metrics => silent,
        }
    }

    const fn hears_room(&self) -> bool {
        matches!(
            self.receives,
            Receives::Frames | Receives::Payloads | Receives::Json | Receives::TunneledFrames
        )
    }

    /// A message as its members receive it, if they do.
    fn encode(&self, name: &[u8], message: &[u8], time: &str) -> Vec<u8> {
        let framed = || [name, &frame(message)].concat();
        match self.receives {
            Receives::Frames => framed(),
            Receives::Payloads => message.to_vec(),
            Receives::Json => web::message_frame(time, &name[NAME_HEADER..], message),
            Receives::TunneledFrames => web::server_frame(BINARY, &framed()),
            Receives::Time | Receives::Nothing => Vec::new(),
        }
    }
}

/// How much of the frame of a name is its header.
const NAME_HEADER: usize = 10;

/// A frame as the relay writes it.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = format!("{:<10}", payload.len()).into_bytes();
    frame.extend_from_slice(payload);
    frame
}

/// The length that a header announces: digits, with spaces before and after them.
fn announced(header: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(header).ok()?.trim_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether a header of this width may begin so: padded with spaces or with digits it is one.
fn begins_a_header(bytes: &[u8], width: usize) -> bool {
    [b' ', b'0'].into_iter().any(|rest| {
        let mut header = bytes.to_vec();
        header.resize(width, rest);
        announced(&header).is_some()
    })
}

/// Declares the reasons for which connections end, with their keys in the relay's table.
macro_rules! ends {
    ($($end:ident: $key:literal,)*) => {
        /// Why a connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum End {
            $(#[doc = $key] $end,)*
        }

        impl End {
            /// Every reason, with its key.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$end, $key),)*];
        }
    };
}

ends! {
    Eof: "eof",
    TruncatedFrame: "truncated_frame",
    Farewell: "farewell",
    Io: "io",
    Protocol: "protocol",
    HandshakeTimeout: "handshake_timeout",
    SlowConsumer: "slow_consumer",
    BelowMinimumRate: "below_minimum_rate",
    MessageTimeout: "message_timeout",
    IdleTimeout: "idle_timeout",
    OutOfMemory: "out_of_memory",
    DrainTimeout: "drain_timeout",
    Greeted: "greeted",
    InputIgnored: "input_ignored",
    Evicted: "evicted",
    EvictedForAddress: "evicted_for_address",
    Shutdown: "shutdown",
}

impl End {
    /// The Close frame with which a WebSocket connection ends for this reason, if there is one. A protocol
    /// error has a code of its own.
    fn close_frame(self, protocol_code: u16) -> Option<Vec<u8>> {
        let (code, text) = match self {
            Self::Protocol => (protocol_code, "protocol error"),
            Self::HandshakeTimeout => (1008, "no name in time"),
            Self::SlowConsumer => (1013, "slow consumer"),
            Self::BelowMinimumRate => (1013, "below minimum read rate"),
            Self::MessageTimeout => (1008, "unfinished message"),
            Self::IdleTimeout => (1008, "idle"),
            Self::OutOfMemory => (1013, "memory limit"),
            Self::DrainTimeout => (1008, "output unread when leaving"),
            Self::Evicted => (1013, "evicted"),
            Self::EvictedForAddress => (1008, "evicted for its address"),
            Self::Shutdown => (1001, "at shutdown"),
            Self::Eof | Self::TruncatedFrame | Self::Farewell | Self::Io => return None,
            // No WebSocket connection ends so.
            Self::Greeted | Self::InputIgnored => unreachable!("{self:?}"),
        };
        Some(web::close_frame(code, text))
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitingName,
    /// It is a member.
    Here,
    /// It has left: what was published until the end of that turn is the last that is due to it.
    Leaving(Cause),
    /// It has sent bytes that are no frame, or too many bytes where input is ignored, and nothing that it
    /// sends counts any more.
    Lost,
}

impl Stage {
    /// Why the connection has left, if it has.
    const fn cause(self) -> Option<Cause> {
        match self {
            Self::Leaving(cause) => Some(cause),
            Self::AwaitingName | Self::Here | Self::Lost => None,
        }
    }
}

/// Why a connection has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its input ended between two frames.
    Eof,
    /// Its input ended inside a frame.
    TruncatedFrame,
    /// It sent its dialect's farewell.
    Farewell,
    /// It is only greeted.
    Greeted,
    /// The server stops.
    Shutdown,
}

impl Cause {
    /// The reason of its end, when everything was delivered.
    const fn end(self) -> End {
        match self {
            Self::Eof => End::Eof,
            Self::TruncatedFrame => End::TruncatedFrame,
            Self::Farewell => End::Farewell,
            Self::Greeted => End::Greeted,
            Self::Shutdown => End::Shutdown,
        }
    }
}

/// Bytes that are added at one end and taken at the other.
struct Tape {
    bytes: Vec<u8>,
    taken: usize,
}

impl Tape {
    fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        Self { bytes, taken: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    const fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes before the one at this place.
    fn insert(&mut self, at: usize, bytes: &[u8]) {
        let at = self.taken + at;
        self.bytes.splice(at..at, bytes.iter().copied());
    }

    fn drop_last(&mut self, count: usize) {
        self.bytes.truncate(self.bytes.len() - count);
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        // Moving what is left costs no more than what was taken did.
        if 2 * self.taken >= self.bytes.len() {
            self.bytes.drain(..mem::take(&mut self.taken));
        }
    }
}

/// As much of the bytes as there is, up to so many.
fn start_of(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

/// A connection that the server has taken on.
struct Member {
    dialect: Dialect,
    id: ConnId,
    since: Duration,
    /// Since when something has been due to it all the time.
    behind_since: Duration,
    /// When it left, and how much was due to it when that turn was over.
    left_at: Duration,
    left_due: usize,
    /// The frame that precedes its messages.
    name: Vec<u8>,
    stage: Stage,
    /// The stage before a change in this turn that the relay may not have come to: it closed the
    /// connection in this turn, perhaps for a reason from before the change.
    stage_before: Option<Stage>,
    /// It received history when it became a member.
    began_with_history: bool,
    /// It became a member, and did so in this turn.
    has_joined: bool,
    has_just_joined: bool,
    /// A call on it had failed before it left.
    was_broken: bool,
    /// Nothing more is due to it: the turn in which it left is over.
    is_final: bool,
    /// The same: its Close frame was returned, and nothing comes behind that.
    has_closed: bool,
    /// The server stops, and has dismissed it.
    is_draining: bool,
    /// Read, and not a whole frame.
    unfinished: Vec<u8>,
    /// The same of WebSocket, which may hold such a frame.
    client: ClientStream,
    /// How far it is in the frames that it has received.
    server: ServerStream,
    /// How long the response was with which its handshake was accepted.
    answer_len: usize,
    /// The status code for what it has sent that is no frame.
    protocol_code: u16,
    /// When the first byte of that was read, and when the last byte of all.
    begun: Duration,
    last_input: Duration,
    /// How much it has sent, where no member receives it.
    noise: usize,
    /// The bytes that are due to it.
    due: Tape,
    /// How much of that has become due in this turn.
    due_in_turn: usize,
    /// What it is answered in this turn: the hello, acknowledgements, and then anything else.
    answers: Vec<u8>,
    /// How much of that is anything else: pongs, echoes, its Close frame.
    other_answers: usize,
    acks_in_turn: usize,
    /// Where in what is due to it a pause notice of this turn stands, if there is one.
    notice_at: Option<usize>,
    /// Where in the history that it is still to receive a pause notice stands, if there is one.
    notice_in_past: Option<usize>,
    /// What was written to it in this turn, if that is compared when the turn is over.
    written: Vec<u8>,
    /// A write of this turn did not take everything.
    was_short: bool,
    /// It was offered this Close frame.
    close: Option<Vec<u8>>,
    /// It ends before it was a member.
    has_left_unnamed: bool,
    /// It was sent these alone, which happens only to a connection that ends in this turn.
    is_answered: bool,
    /// What it may have held on to since it last had everything: its own messages, what was published after its
    /// leave, and how many messages of its own there were.
    holds: usize,
    own_messages: usize,
    lag: LagBounds,
    facts: Facts,
}

/// What may follow from a member's lag. The model knows only bounds of that lag, so it knows what the
/// relay may do and what it must do.
#[derive(Debug, Default)]
struct LagBounds {
    /// Since when its lag may be over the soft limit.
    over_since: Option<Duration>,
    /// How long it may have been over that limit before, since it caught up last.
    paused: Duration,
    /// What it accepted when its lag was over the soft limit for certain, and when.
    accepted: VecDeque<(Duration, usize)>,
    /// Its socket accepted nothing for half of `slow_timeout` while its lag may have been over the soft
    /// limit, or it began with such a lag; and it may not have caught up since.
    may_be_stalled: bool,
    /// It began with history, and may not have caught up since.
    may_be_catching_up: bool,
    /// The room may be paused or read in rounds because of it.
    may_be_slow: bool,
}

impl LagBounds {
    /// Whether it has read below the minimum rate since some time that is at least `timeout` ago.
    fn may_be_below_minimum(&self, timeout: Duration, now: Duration) -> bool {
        let times = self.accepted.iter().map(|&(at, _)| at);
        let mut starts = times.chain([Duration::ZERO]);
        starts.any(|start| {
            let elapsed = now.saturating_sub(start);
            let later = self.accepted.iter().filter(|&&(at, _)| at > start);
            let accepted: usize = later.map(|(_, bytes)| bytes).sum();
            elapsed >= timeout && (accepted as f64) < MIN_READ_RATE as f64 * elapsed.as_secs_f64()
        })
    }
}

impl Member {
    const fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving(_))
    }

    /// Whether what is published now is for it.
    const fn receives(&self) -> bool {
        matches!(self.stage, Stage::Here | Stage::Leaving(_)) && !self.is_final && !self.has_closed
    }

    /// Whether a message that is published now counts as one for it: it is a member, even if it is about to be
    /// closed, or was one when the turn began.
    const fn is_counted(&self) -> bool {
        let is_member = matches!(self.stage, Stage::Here | Stage::Lost) && self.has_joined;
        is_member || (self.is_leaving() && self.has_joined && !self.is_final)
    }

    /// Whether it stands inside something that it sends.
    fn is_inside(&self) -> bool {
        !self.unfinished.is_empty() || self.client.is_inside()
    }

    /// How much is still due to it, with what of this turn was not compared yet.
    const fn left(&self) -> usize {
        self.due.len().saturating_sub(self.written.len())
    }

    /// These bytes are due to it from now on.
    fn owe(&mut self, bytes: &[u8], now: Duration) {
        if self.left() == 0 {
            self.behind_since = now;
        }
        self.due.extend(bytes);
    }

    /// It has sent what is no frame.
    const fn lose(&mut self, code: u16) {
        self.stage = Stage::Lost;
        self.protocol_code = code;
    }

    /// It leaves in this turn.
    fn leave(&mut self, cause: Cause, now: Duration) {
        self.stage = Stage::Leaving(cause);
        self.left_at = now;
        self.was_broken = self.facts.has_failed;
    }

    /// The most that its lag can be, in bytes: its own messages and what was published after it left count,
    /// and so does the memory that each of its own messages takes.
    const fn most_lag(&self) -> usize {
        self.left() + self.holds + 64 * (self.own_messages + 1)
    }

    /// Since when its socket has accepted nothing.
    fn silent_since(&self) -> Duration {
        self.facts.progressed.max(self.behind_since)
    }

    /// Its socket has accepted something.
    fn lag_falls(&mut self, soft_limit: usize, now: Duration) {
        let (left, most) = (self.left(), self.most_lag());
        let lag = &mut self.lag;
        if left == 0 {
            *lag = LagBounds::default();
            return;
        }
        if most <= soft_limit {
            lag.may_be_stalled = false;
            lag.may_be_catching_up = false;
            if let Some(since) = lag.over_since.take() {
                lag.paused += now.saturating_sub(since);
            }
        }
        if most <= soft_limit / 2 {
            *lag = LagBounds::default();
        }
    }

    /// Its socket has accepted something, which may have been everything.
    fn catches_up(&mut self, soft_limit: usize, now: Duration) {
        if self.left() == 0 {
            self.holds = 0;
            self.own_messages = 0;
        }
        self.lag_falls(soft_limit, now);
    }

    /// Whether this is the beginning of what it is answered although it is closed in this turn. It receives
    /// nothing else of the turn. `before`: how much was due to it when the turn began, if the turn is not over.
    fn is_answer(&self, bytes: &[u8], before: usize) -> bool {
        let Some((earlier, answers)) = bytes.split_at_checked(before) else {
            return false;
        };
        let is_all = self.due.len() == before + self.due_in_turn;
        is_all && self.due.bytes().starts_with(earlier) && self.answers.starts_with(answers)
    }

    /// Whether this is the beginning of what is due to it, with a notice at this place.
    fn is_due(&self, bytes: &[u8], notice: &[u8], at: usize) -> bool {
        let (before, after) = self.due.bytes().split_at(at);
        let mut rest = bytes;
        for part in [before, notice, after] {
            let (these, later) = rest.split_at(part.len().min(rest.len()));
            if !part.starts_with(these) {
                return false;
            }
            rest = later;
        }
        rest.is_empty()
    }

    /// A turn is over, with this much due to it.
    fn lag_rises(&mut self, limits: &Limits, now: Duration) {
        if self.due.is_empty() {
            self.lag = LagBounds::default();
            return;
        }
        if self.most_lag() <= limits.soft_limit {
            self.lag.may_be_catching_up = false;
            return;
        }
        let is_silent = now.saturating_sub(self.silent_since()) >= limits.slow_timeout / 2;
        self.lag.over_since.get_or_insert(now);
        self.lag.may_be_slow = true;
        self.lag.may_be_stalled |= is_silent || self.lag.may_be_catching_up;
    }

    /// Whether its peer is known to be gone, and its last messages were not read.
    const fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Here) && (self.facts.is_gone || self.facts.has_failed)
    }
}

/// What has happened to a connection that may be a reason for its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// A read has returned the end of the input.
    pub input_has_ended: bool,
    /// A call on it has failed, or an event has reported its end.
    pub has_failed: bool,
    /// An event has reported that the peer sends nothing more.
    pub is_gone: bool,
    /// It was the kernel's word that nothing was left to be read.
    pub is_read_dry: bool,
    /// When its socket accepted something last.
    pub progressed: Duration,
}

/// The history that a new member receives, in one dialect: the last messages, with the heartbeats and pause notices
/// that were sent between and behind them.
struct Past {
    most_messages: usize,
    /// Messages are kept.
    has_begun: bool,
    /// Each with whether it is a message. The first one is.
    kept: VecDeque<(Vec<u8>, bool)>,
    messages: usize,
    bytes: usize,
    /// How many of the last ones are of this turn.
    of_turn: usize,
}

impl Past {
    const fn new(most_messages: usize, has_begun: bool) -> Self {
        Self {
            most_messages,
            has_begun,
            kept: VecDeque::new(),
            messages: 0,
            bytes: 0,
            of_turn: 0,
        }
    }

    fn push(&mut self, bytes: Vec<u8>, is_message: bool, most_bytes: usize) {
        if !self.has_begun || (self.kept.is_empty() && !is_message) {
            return;
        }
        self.bytes += bytes.len();
        self.kept.push_back((bytes, is_message));
        self.messages += usize::from(is_message);
        self.of_turn += 1;
        while is_message
            && self.messages > 0
            && (self.messages > self.most_messages || self.bytes + 8 * self.messages > most_bytes)
        {
            self.messages -= 1;
            self.pop();
            while self.kept.front().is_some_and(|(_, is_message)| !is_message) {
                self.pop();
            }
        }
        self.of_turn = self.of_turn.min(self.kept.len());
    }

    fn pop(&mut self) {
        self.bytes -= self.kept.pop_front().map_or(0, |(bytes, _)| bytes.len());
    }

    /// How many of those that are kept were before this turn.
    fn before_turn(&self) -> usize {
        self.kept.len() - self.of_turn
    }

    /// A pause notice stood before everything else of this turn. It is empty if it is not known whether there
    /// was one: all members that would have received it were closed in this turn.
    fn insert_notice(&mut self, notice: &[u8]) {
        let at = self.before_turn();
        let is_unknown_already = |(bytes, is_message): &(Vec<u8>, bool)| {
            notice.is_empty() && bytes.is_empty() && !is_message
        };
        if at > 0 && !is_unknown_already(&self.kept[at - 1]) {
            self.kept.insert(at, (notice.to_vec(), false));
            self.bytes += notice.len();
        }
    }

    /// There was this notice at the only place where it was not known, or none at any.
    fn settle_notice(&mut self, notice: &[u8]) {
        self.bytes += notice.len();
        if notice.is_empty() {
            self.kept
                .retain(|(bytes, is_message)| *is_message || !bytes.is_empty());
        } else if let Some((bytes, _)) = self.unknown_notices().next() {
            notice.clone_into(bytes);
        }
    }

    /// The places where it is not known whether there was a notice.
    fn unknown_notices(&mut self) -> impl Iterator<Item = &mut (Vec<u8>, bool)> {
        let kept = self.kept.iter_mut();
        kept.filter(|(bytes, is_message)| bytes.is_empty() && !*is_message)
    }
}

/// The pause notices that browser members received.
#[derive(Debug, Default)]
struct Notices {
    /// There may be one in this turn: there were browser members when it began.
    may_come: bool,
    /// There may be one in the next turn: the room may have been paused in this one, even if it is not any more.
    may_follow: bool,
    /// The last one. With no member to receive one, it is not known.
    last: Option<bool>,
}

impl Notices {
    /// A turn is over in which there was this notice. When it began, the room was paused or not.
    fn check(&mut self, notice: Option<bool>, was_paused: bool, may_have_changed: bool) {
        match (notice, self.last) {
            (None, Some(last)) => assert_eq!(
                last, was_paused,
                "no browser member was notified that the room's pause has changed"
            ),
            (Some(notice), Some(last)) => assert!(
                notice != last || may_have_changed,
                "browser members were notified a second time that the room is paused: {notice}"
            ),
            (_, None) => {}
        }
        self.last = notice.or(Some(was_paused));
    }
}

/// How the connected peers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    AsTheyLike,
    /// All peers, but for a while now and then: none may be closed for having read too little.
    WithPauses,
    /// All peers: none may be closed because of what it has not read.
    Always,
}

impl Reading {
    pub fn of(plan: &Plan) -> Self {
        match plan.reads_within {
            None => Self::AsTheyLike,
            Some(_) if plan.has_pauses => Self::WithPauses,
            Some(_) => Self::Always,
        }
    }
}

/// What the server is and has read, and what follows for everybody.
pub struct Model {
    limits: Limits,
    reading: Reading,
    every: Option<Duration>,
    /// When the next tick is due, if a member receives ticks. There are two such times if the last such
    /// member left in the turn in which another one came: the relay may have stopped the clock or not.
    ticks_due: Vec<Duration>,
    protocols: Vec<Protocol>,
    /// For each dialect, whether there may be members.
    is_served: [bool; Dialect::COUNT],
    /// For each dialect, if its members receive history.
    pasts: Vec<Option<Past>>,
    past_bytes: usize,
    members: BTreeMap<usize, Member>,
    /// The connections that use HTTP.
    pub visitors: Visitors,
    notices: Notices,
    /// The interval of heartbeats, and when the next one is due.
    heartbeat_every: Option<Duration>,
    heartbeat_due: Option<Duration>,
    /// It is known what was sent of it in this turn.
    is_heartbeat_decided: bool,
    /// For each dialect, whether nothing was published, and no heartbeat, since the last time that one was due.
    is_quiet: [bool; Dialect::COUNT],
    /// What was read last. If the very next thing that happens is that its connection is closed, the
    /// server may have read it only to throw it away.
    fresh: Option<(usize, Vec<Piece>)>,
    /// What was read last from the connection that was closed first in this turn, if there is one.
    undecided: Option<(usize, Vec<Piece>)>,
    undecided_leaver: Option<usize>,
    /// Who was closed in this turn. From the first one on, what is read is thrown away.
    closed: Vec<usize>,
    new_members: Vec<(usize, Member)>,
    /// Accepted connections that were closed before they were anything.
    turned_away: u64,
    /// Who is let go, once what has come from it already is read.
    leaver: Option<usize>,
    /// It was asked to stop.
    pub is_stopping: bool,
    /// All are closed because it stops.
    pub has_stopped: bool,
    /// There was time left to deliver everything.
    pub is_stop_in_time: bool,
    pub totals: Totals,
    /// The time of the turn, and the time of day as messages carry it.
    pub now: Duration,
    pub time_text: String,
    /// Each message once for each member for which it was published, whether that received it then.
    published_deliveries: u64,
    /// Writes to connections of the relay that were accepted at least in part.
    writes: u64,
    bytes_read: u64,
    bytes_thrown_away: u64,
    sent_in_turn: u64,
    most_sent_in_turn: u64,
    /// The last poll may have left events for the next one, so that timeouts may have been put off.
    pub has_more: bool,
    /// The relay reports slow readers, and did so at the end of the turn before.
    is_paused: bool,
    was_paused: bool,
    /// How many bytes the relay has published in this turn, in the channels that have members or keep
    /// history, and whether it dismissed members in it.
    published_in_turn: u64,
    dismissed_in_turn: bool,
}

/// What a read has brought.
enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// What was counted on the way.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub accepted: u64,
    pub refused: u64,
    pub joined: u64,
    /// Messages that were published.
    pub messages: u64,
    /// Messages that became due to a member.
    pub deliveries: u64,
    /// Bytes that were compared.
    pub bytes_delivered: u64,
    pub ticks: u64,
    /// Heartbeats, and pause notices.
    pub heartbeats: u64,
    pub notices: u64,
    /// Handshakes that were accepted, and other connections that used HTTP.
    pub upgrades: u64,
    pub visits: u64,
    /// Headers of the PROXY protocol that were accepted, and connections that were refused for what is none.
    pub headers: u64,
    pub bad_headers: u64,
    /// Close frames, by their status code.
    pub closes: BTreeMap<u16, u64>,
    /// Ends, by [`End`].
    pub ends: BTreeMap<End, u64>,
}

impl Totals {
    /// Adds what another run has counted.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.joined += other.joined;
        self.messages += other.messages;
        self.deliveries += other.deliveries;
        self.bytes_delivered += other.bytes_delivered;
        self.ticks += other.ticks;
        self.heartbeats += other.heartbeats;
        self.notices += other.notices;
        self.upgrades += other.upgrades;
        self.visits += other.visits;
        self.headers += other.headers;
        self.bad_headers += other.bad_headers;
        for (code, count) in &other.closes {
            *self.closes.entry(*code).or_default() += count;
        }
        for (end, count) in &other.ends {
            *self.ends.entry(*end).or_default() += count;
        }
    }
}

/// The relay's own figures after a turn.
pub struct Claims {
    pub accepted: u64,
    pub refused: u64,
    pub joined: u64,
    pub messages: u64,
    pub deliveries: u64,
    pub writes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub bytes_discarded: u64,
    pub connections: usize,
    pub members: usize,
    pub held_bytes: u64,
    pub is_paused: bool,
    /// How many bytes the relay has for each connection.
    pub pending: BTreeMap<usize, u64>,
    /// The ends so far, for each reason.
    pub ends: Vec<(End, u64)>,
}

impl Model {
    pub fn new(config: &Config, reading: Reading) -> Self {
        let protocols: Vec<_> = Dialect::ALL
            .iter()
            .map(|&dialect| Protocol::new(dialect, config))
            .collect();
        let is_listed = |dialect| config.listeners().any(|(_, one)| one.dialect == dialect);
        // A browser may ask for a tunnel.
        let is_served = |dialect| match dialect {
            Dialect::WsChat10 => is_listed(dialect) || is_listed(Dialect::Ws),
            _ => is_listed(dialect),
        };
        let limits = &config.limits;
        let receives =
            |dialect: &Dialect| protocols[dialect.index()].hears_room() && is_served(*dialect);
        let keepers = Dialect::ALL.iter().filter(|one| receives(one)).count();
        let past = |dialect: &Dialect| {
            let most = protocols[dialect.index()].history;
            // Unless it was asked for, the history of browsers begins with the first of them.
            let has_begun = *dialect != Dialect::Ws || limits.history > 0;
            (receives(dialect) && most > 0).then(|| Past::new(most, has_begun))
        };
        let past_bytes = limits
            .history_bytes
            .min(limits.queue_limit - limits.largest_delivery());
        Self {
            pasts: Dialect::ALL.iter().map(past).collect(),
            past_bytes: past_bytes / keepers.max(1),
            visitors: Visitors::new(limits.handshake_timeout),
            notices: Notices::default(),
            heartbeat_every: config.heartbeat.map(|longest| longest / 2),
            heartbeat_due: None,
            is_heartbeat_decided: false,
            is_quiet: [false; Dialect::COUNT],
            time_text: String::new(),
            is_served: Dialect::ALL.map(is_served),
            protocols,
            limits: config.limits.clone(),
            reading,
            every: config.every,
            ticks_due: Vec::new(),
            members: BTreeMap::new(),
            fresh: None,
            undecided: None,
            undecided_leaver: None,
            closed: Vec::new(),
            new_members: Vec::new(),
            turned_away: 0,
            leaver: None,
            is_stopping: false,
            has_stopped: false,
            is_stop_in_time: false,
            totals: Totals::default(),
            now: Duration::ZERO,
            published_deliveries: 0,
            writes: 0,
            bytes_read: 0,
            bytes_thrown_away: 0,
            sent_in_turn: 0,
            most_sent_in_turn: 0,
            has_more: false,
            is_paused: false,
            was_paused: false,
            published_in_turn: 0,
            dismissed_in_turn: false,
        }
    }

    /// A turn begins, so the one before is over.
    pub fn begin_turn(&mut self) {
        self.settle();
        self.is_heartbeat_decided = false;
        for past in self.pasts.iter_mut().flatten() {
            past.of_turn = 0;
        }
        let is_browser = |one: &Member| one.dialect == Dialect::Ws && one.stage == Stage::Here;
        self.notices.may_come = self.members.values().any(is_browser);
        for (&peer_index, member) in &mut self.members {
            member.notice_at = is_browser(member).then_some(member.due.len());
            member.was_short = false;
            member.answers.clear();
            member.other_answers = 0;
            assert!(
                !member.is_answered,
                "peer {peer_index} got answers out of their place"
            );
            member.due_in_turn = 0;
            member.acks_in_turn = 0;
            if member.is_leaving() && !mem::replace(&mut member.is_final, true) {
                member.left_due = member.due.len();
            }
            member.stage_before = None;
            member.has_just_joined = false;
            if member.due.is_empty() {
                member.holds = 0;
                member.own_messages = 0;
            }
        }
        self.sent_in_turn = 0;
        self.published_in_turn = 0;
        self.dismissed_in_turn = false;
    }

    /// The server has accepted a connection and watches it from now on.
    pub fn admit(
        &mut self,
        peer_index: usize,
        id: ConnId,
        addr: SocketAddr,
        dialect: Dialect,
        now: Duration,
    ) {
        self.settle();
        self.totals.accepted += 1;
        let upgraded = self.visitors.upgrade(peer_index);
        self.totals.headers = self.visitors.headers;
        self.totals.upgrades += u64::from(upgraded.is_some_and(|(_, len, _)| len > 0));
        let (dialect, answer_len, stated) = upgraded.unwrap_or((dialect, 0, None));
        let addr = stated.unwrap_or(addr);
        let protocol = &self.protocols[dialect.index()];
        let member = Member {
            dialect,
            id,
            since: now,
            behind_since: now,
            left_at: now,
            left_due: 0,
            stage_before: None,
            began_with_history: false,
            has_joined: false,
            has_just_joined: false,
            was_broken: false,
            name: frame(addr.to_string().as_bytes()),
            stage: Stage::AwaitingName,
            is_final: false,
            has_closed: false,
            is_draining: false,
            unfinished: Vec::new(),
            client: ClientStream::default(),
            server: ServerStream::default(),
            answer_len,
            protocol_code: 0,
            begun: now,
            last_input: now,
            noise: 0,
            due: Tape::new(&protocol.greeting),
            due_in_turn: 0,
            answers: Vec::new(),
            other_answers: 0,
            acks_in_turn: 0,
            notice_at: None,
            notice_in_past: None,
            written: Vec::new(),
            was_short: false,
            close: None,
            has_left_unnamed: false,
            is_answered: false,
            holds: 0,
            own_messages: 0,
            lag: LagBounds::default(),
            facts: Facts {
                progressed: now,
                ..Facts::default()
            },
        };
        self.new_members.push((peer_index, member));
    }

    /// Adds the members that were admitted in this turn. That is done last, because until then it may be
    /// open what was published before they came.
    fn add_new_members(&mut self) {
        for (peer_index, member) in mem::take(&mut self.new_members) {
            let is_named = self.protocols[member.dialect.index()].is_named;
            self.members.insert(peer_index, member);
            if !is_named {
                self.join(peer_index);
            }
            if let Some(member) = self.members.get_mut(&peer_index) {
                member.lag_rises(&self.limits, self.now);
            }
        }
    }

    /// A connection has become a member.
    fn join(&mut self, peer_index: usize) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        if member.dialect == Dialect::Hello {
            member.stage = Stage::Leaving(Cause::Greeted);
            member.is_final = true;
            return;
        }
        member.stage = Stage::Here;
        member.has_joined = true;
        member.has_just_joined = true;
        self.totals.joined += 1;
        if let Some(past) = &mut self.pasts[member.dialect.index()] {
            member.lag.may_be_catching_up = !past.kept.is_empty();
            member.began_with_history = !past.kept.is_empty();
            // A pause notice of this turn is a part of the past, unless the past begins behind it.
            let may_receive = member.dialect == Dialect::Ws && self.notices.may_come;
            let before_turn = past.before_turn();
            for (index, (bytes, is_message)) in past.kept.iter().enumerate() {
                if bytes.is_empty() && !is_message {
                    member.notice_in_past = Some(member.due.len());
                }
                member.owe(bytes, self.now);
                member.due_in_turn += bytes.len();
                self.totals.deliveries += u64::from(*is_message);
                if may_receive && index + 1 == before_turn {
                    member.notice_at = Some(member.due.len());
                }
            }
            past.has_begun = true;
        }
        let hello = &self.protocols[member.dialect.index()].hello;
        member.owe(hello, self.now);
        member.due_in_turn += hello.len();
        member.answers.extend_from_slice(hello);
    }

    /// A read has brought this.
    pub fn read(&mut self, peer_index: usize, bytes: &[u8]) {
        if self.visitors.has(peer_index) {
            self.settle();
            return self.visitors.read(peer_index, bytes, self.is_stopping);
        }
        let is_new = self.new_members.iter().any(|(peer, _)| *peer == peer_index);
        if !is_new && !self.members.contains_key(&peer_index) {
            return;
        }
        self.bytes_read += bytes.len() as u64;
        if is_new {
            // It was accepted in this turn, and is closed in it.
            self.bytes_thrown_away += bytes.len() as u64;
            return;
        }
        if !self.closed.is_empty() {
            self.bytes_thrown_away += bytes.len() as u64;
            return;
        }
        self.note_piece(peer_index, Piece::Bytes(bytes.to_vec()));
    }

    fn note_piece(&mut self, peer_index: usize, piece: Piece) {
        match &mut self.fresh {
            Some((last, pieces)) if *last == peer_index => pieces.push(piece),
            None if self.leaver == Some(peer_index) => self.fresh = Some((peer_index, vec![piece])),
            _ => {
                self.settle();
                self.fresh = Some((peer_index, vec![piece]));
            }
        }
    }

    /// What was read last was not read in order to be thrown away.
    pub fn settle(&mut self) {
        if let Some((peer_index, pieces)) = self.fresh.take() {
            for piece in pieces {
                self.take_in_piece(peer_index, &piece);
            }
        }
        if let Some(member) = self
            .leaver
            .take()
            .and_then(|peer_index| self.members.get_mut(&peer_index))
        {
            // Some leave in any case.
            member.is_draining = !member.is_leaving();
            if member.stage == Stage::Here && !member.facts.has_failed {
                member.stage_before = Some(member.stage);
                member.leave(Cause::Shutdown, self.now);
            }
        }
    }

    fn take_in_piece(&mut self, peer_index: usize, piece: &Piece) {
        match piece {
            Piece::Bytes(bytes) => self.take_in(peer_index, bytes),
            Piece::End => {
                let now = self.now;
                let member = self.members.get_mut(&peer_index).expect("it is here");
                if member.stage == Stage::Here {
                    member.leave(
                        if member.is_inside() {
                            Cause::TruncatedFrame
                        } else {
                            Cause::Eof
                        },
                        now,
                    );
                }
            }
        }
    }

    /// The server drains a member, which receives what is published until the end of the turn.
    pub fn drain_member(&mut self, peer_index: usize) {
        self.settle();
        self.decide_heartbeat();
        self.leaver = Some(peer_index);
        self.dismissed_in_turn = true;
    }

    /// A connection has sent this, and the server means it.
    fn take_in(&mut self, peer_index: usize, bytes: &[u8]) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.last_input = self.now;
        let was_inside = member.is_inside();
        let has_completed = match self.protocols[member.dialect.index()].sends {
            Sends::Noise => return self.take_in_noise(peer_index, bytes.len()),
            Sends::Echo => {
                if member.stage == Stage::Here {
                    self.reply(peer_index, bytes);
                }
                return;
            }
            Sends::Frames(width) => self.take_in_frames(peer_index, bytes, width),
            Sends::Messages | Sends::Tunnel(_) | Sends::EchoMessages => {
                self.take_in_web_socket(peer_index, bytes)
            }
        };
        if has_completed || !was_inside {
            let member = self.members.get_mut(&peer_index).expect("it is here");
            member.begun = self.now;
        }
    }

    fn take_in_noise(&mut self, peer_index: usize, len: usize) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.noise += len;
        let is_over = member.noise > self.limits.max_message;
        if member.stage == Stage::Here && is_over && !member.facts.has_failed {
            member.stage = Stage::Lost;
        }
    }

    /// Returns whether a frame was completed.
    fn take_in_frames(&mut self, peer_index: usize, bytes: &[u8], width: usize) -> bool {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        let mut unfinished = mem::take(&mut member.unfinished);
        unfinished.extend_from_slice(bytes);
        let mut rest = &unfinished[..];
        loop {
            let member = self.members.get_mut(&peer_index).expect("it is here");
            let max = match member.stage {
                Stage::AwaitingName => self.limits.max_name,
                Stage::Here => self.limits.max_message,
                Stage::Leaving(_) | Stage::Lost => return true,
            };
            let Some((header, after)) = rest.split_at_checked(width) else {
                if !begins_a_header(rest, width) {
                    member.lose(1002);
                    return true;
                }
                break;
            };
            let Some(len) = announced(header) else {
                member.lose(1002);
                return true;
            };
            if len > max as u64 {
                member.lose(1009);
                return true;
            }
            let Some((payload, after)) = after.split_at_checked(len as usize) else {
                break;
            };
            self.take_in_payload(peer_index, payload);
            rest = after;
        }
        let has_completed = rest.len() < unfinished.len();
        let unfinished = rest.to_vec();
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.unfinished = unfinished;
        has_completed
    }

    /// A name or a message has come.
    fn take_in_payload(&mut self, peer_index: usize, payload: &[u8]) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        if member.stage == Stage::AwaitingName {
            member.name = frame(payload);
            self.join(peer_index);
        } else {
            self.publish(peer_index, payload);
        }
    }

    /// Returns whether it stood between two messages after something of this: a control frame inside a message
    /// does not count.
    fn take_in_web_socket(&mut self, peer_index: usize, bytes: &[u8]) -> bool {
        let mut has_completed = false;
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.client.extend(bytes);
        loop {
            let member = self.members.get_mut(&peer_index).expect("it is here");
            let sends = self.protocols[member.dialect.index()].sends;
            let max = match member.stage {
                Stage::AwaitingName if sends == Sends::Messages => self.limits.max_name,
                Stage::AwaitingName | Stage::Here => self.limits.max_message,
                Stage::Leaving(_) | Stage::Lost => return has_completed,
            };
            let item = match member.client.next(web::max_message(member.dialect, max)) {
                Ok(None) => return has_completed,
                Ok(Some(item)) => item,
                Err(code) => {
                    member.lose(code);
                    return has_completed;
                }
            };
            match (item, sends) {
                (Item::Message { payload, .. }, Sends::Tunnel(width)) => {
                    has_completed |= self.take_in_frames(peer_index, &payload, width);
                }
                (Item::Message { is_text, payload }, Sends::EchoMessages) => {
                    let first = if is_text { TEXT } else { BINARY };
                    self.reply(peer_index, &web::server_frame(first, &payload));
                }
                (Item::Message { payload, .. }, _) => self.take_in_payload(peer_index, &payload),
                (Item::Ping(payload), _) => {
                    if sends != Sends::EchoMessages {
                        self.drop_earlier_pongs(peer_index);
                    }
                    self.reply(peer_index, &web::server_frame(PONG, &payload));
                }
                (Item::Pong, _) => {}
                (Item::Close(code), _) => self.take_in_close(peer_index, &code),
            }
            let member = self.members.get_mut(&peer_index).expect("it is here");
            has_completed |= member.unfinished.is_empty() && !member.client.is_inside_message();
        }
    }

    /// A client closes: its Close frame is returned, and nothing comes behind that.
    fn take_in_close(&mut self, peer_index: usize, code: &[u8]) {
        let frame = web::server_frame(CLOSE, code);
        let member = self.members.get_mut(&peer_index).expect("it is here");
        if member.stage == Stage::AwaitingName {
            // It ends in this turn.
            member.answers.extend_from_slice(&frame);
            member.has_left_unnamed = true;
        } else {
            self.reply(peer_index, &frame);
        }
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.leave(Cause::Farewell, self.now);
        member.has_closed = true;
    }

    /// A member that has not read what was due before the turn is answered the last of its pings in the turn
    /// only.
    fn drop_earlier_pongs(&mut self, peer_index: usize) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        if member.due.len() > member.due_in_turn + member.written.len() {
            let pongs = mem::take(&mut member.other_answers);
            member.due.drop_last(pongs);
            member.due_in_turn -= pongs;
            member.answers.truncate(member.answers.len() - pongs);
        }
    }

    /// A member is answered with this, behind its acknowledgements of this turn.
    fn reply(&mut self, peer_index: usize, bytes: &[u8]) {
        let member = self.members.get_mut(&peer_index).expect("it is here");
        member.owe(bytes, self.now);
        member.due_in_turn += bytes.len();
        member.answers.extend_from_slice(bytes);
        member.other_answers += bytes.len();
        member.own_messages += 1;
    }

    /// A member publishes a message.
    fn publish(&mut self, peer_index: usize, message: &[u8]) {
        let sender = self.members.get_mut(&peer_index).expect("it is here");
        let protocol = &self.protocols[sender.dialect.index()];
        // Acknowledgements stand before whatever else it is answered in this turn.
        sender.owe(&[], self.now);
        let at = sender.due.len() - sender.other_answers;
        sender.due.insert(at, &protocol.ack);
        let at = sender.answers.len() - sender.other_answers;
        let ack = protocol.ack.iter().copied();
        sender.answers.splice(at..at, ack);
        sender.due_in_turn += protocol.ack.len();
        sender.acks_in_turn += 1;
        sender.own_messages += 1;
        if !protocol.farewell.is_empty() && protocol.farewell == message {
            sender.leave(Cause::Farewell, self.now);
            if !protocol.is_farewell_received {
                return;
            }
        }
        let sender_dialect = sender.dialect;
        self.totals.messages += 1;
        let name = sender.name.clone();
        let mut has_members = [false; Dialect::COUNT];
        has_members[sender_dialect.index()] = true;
        for (&receiver, member) in &self.members {
            // A member that has left in this turn is counted until the turn is over.
            let is_counted = receiver != peer_index && member.receives();
            has_members[member.dialect.index()] |= is_counted;
        }
        // How the message reads, in each dialect in which a member may receive it.
        let mut encodings = [const { Vec::new() }; Dialect::COUNT];
        for dialect in Dialect::ALL {
            let index = dialect.index();
            let protocol = &self.protocols[index];
            if !self.is_served[index] || !protocol.hears_room() {
                continue;
            }
            let words = protocol.encode(&name, message, &self.time_text);
            self.sent_in_turn += words.len() as u64;
            let is_kept = self.pasts[index].as_ref().is_some_and(|one| one.has_begun);
            if has_members[index] || is_kept {
                self.published_in_turn += words.len() as u64;
                self.is_quiet[index] = false;
            }
            if let Some(past) = &mut self.pasts[index] {
                past.push(words.clone(), true, self.past_bytes);
            }
            encodings[index] = words;
        }
        for (&receiver, member) in &mut self.members {
            let index = member.dialect.index();
            if !self.protocols[index].hears_room() {
                continue;
            }
            let words = &encodings[index];
            self.published_deliveries += u64::from(receiver != peer_index && member.is_counted());
            if receiver != peer_index && member.receives() {
                member.owe(words, self.now);
                member.due_in_turn += words.len();
                self.totals.deliveries += 1;
            } else {
                member.holds += words.len();
            }
        }
    }

    /// Decides whether heartbeats are due in this turn. They stand behind everything that its input has caused,
    /// and before what members cause that leave because the server stops.
    fn decide_heartbeat(&mut self) {
        let Some(every) = self.heartbeat_every else {
            return;
        };
        if mem::replace(&mut self.is_heartbeat_decided, true) {
            return;
        }
        let tunnels = [Dialect::Ws, Dialect::WsChat10];
        let is_member = |member: &Member| matches!(member.stage, Stage::Here | Stage::Lost);
        let has_members = tunnels.map(|dialect| {
            let mut members = self.members.values();
            members.any(|one| one.dialect == dialect && is_member(one) && one.has_joined)
        });
        if !has_members.contains(&true) {
            self.heartbeat_due = None;
            return;
        }
        let due = *self.heartbeat_due.get_or_insert(self.now + every);
        if due > self.now {
            return;
        }
        // In step, unless a whole step was missed.
        let in_step = Some(due + every).filter(|&next| next > self.now);
        self.heartbeat_due = Some(in_step.unwrap_or(self.now + every));
        for (dialect, has_members) in tunnels.into_iter().zip(has_members) {
            // A heartbeat is a sign of life, too.
            let was_quiet = self.is_quiet[dialect.index()];
            self.is_quiet[dialect.index()] = !was_quiet;
            if was_quiet && has_members {
                self.heartbeat(dialect);
            }
        }
    }

    /// All members of a dialect receive a heartbeat: a pong for which there was no ping.
    fn heartbeat(&mut self, dialect: Dialect) {
        let heartbeat = web::server_frame(PONG, b"");
        self.totals.heartbeats += 1;
        if let Some(past) = &mut self.pasts[dialect.index()] {
            past.push(heartbeat.clone(), false, self.past_bytes);
        }
        for member in self.members.values_mut() {
            if member.dialect != dialect {
                continue;
            }
            if member.receives() {
                member.owe(&heartbeat, self.now);
                member.due_in_turn += heartbeat.len();
            } else {
                member.holds += heartbeat.len();
            }
        }
    }

    /// The server has looked at the time of day: it is about to send it.
    pub fn tick(&mut self, millis: u64, now: Duration) {
        self.settle();
        let every = self.every.expect("the time is sent");
        self.ticks_due.retain(|&due| due <= now);
        assert!(
            !self.ticks_due.is_empty(),
            "a tick is early, or for no member"
        );
        for due in &mut self.ticks_due {
            // In step, unless a whole step was missed.
            let in_step = Some(*due + every).filter(|&next| next > now);
            *due = in_step.unwrap_or(now + every);
        }
        self.totals.ticks += 1;
        let fraction = format!("{:03}", millis % 1000);
        let fraction = match fraction.trim_end_matches('0') {
            "" => "0",
            some => some,
        };
        let tick = frame(format!("The time is {}.{fraction}", millis / 1000).as_bytes());
        self.sent_in_turn += tick.len() as u64;
        self.published_in_turn += tick.len() as u64;
        for member in self.members.values_mut() {
            if member.dialect != Dialect::Greet10 {
                continue;
            }
            if member.receives() {
                member.owe(&tick, now);
                member.due_in_turn += tick.len();
                self.totals.deliveries += 1;
            } else {
                member.holds += tick.len();
            }
        }
    }

    /// The kernel has taken these bytes for a peer, of so many.
    pub fn on_written(&mut self, peer_index: usize, bytes: &[u8], offered: usize, now: Duration) {
        self.settle();
        if self.visitors.has(peer_index) {
            return self.visitors.on_written(peer_index, bytes);
        }
        self.totals.bytes_delivered += bytes.len() as u64;
        self.writes += u64::from(!bytes.is_empty());
        let Some(member) = self.members.get_mut(&peer_index) else {
            panic!("peer {peer_index} was written to before it was anybody");
        };
        let soft_limit = self.limits.soft_limit;
        member.was_short |= bytes.len() < offered;
        if !bytes.is_empty() {
            member.facts.progressed = now;
            if member.left() > soft_limit {
                member.lag.accepted.push_back((now, bytes.len()));
            }
        }
        if web::is_web_socket(member.dialect) {
            member.server.receive(bytes);
        }
        if let Some(at) = member.notice_at {
            member.written.extend_from_slice(bytes);
            if member.written.len() <= at {
                member.catches_up(soft_limit, now);
            }
            return;
        }
        if bytes.len() > member.due.len() {
            // Perhaps there is a heartbeat that is not known to be due yet.
            self.decide_heartbeat();
        }
        let member = self.members.get_mut(&peer_index).expect("it is here");
        if member.due.bytes().starts_with(bytes) {
            member.due.advance(bytes.len());
            member.due_in_turn = member.due_in_turn.min(member.due.len());
            return member.catches_up(soft_limit, now);
        }
        assert!(
            member.is_answer(bytes, 0) && !member.is_answered,
            "peer {peer_index} received \"{}\" where \"{}\" was due",
            bytes.escape_ascii(),
            start_of(member.due.bytes(), bytes.len() + 20).escape_ascii(),
        );
        member.is_answered = true;
    }

    /// A write has found no room, or has failed.
    pub fn write_failed(&mut self, peer_index: usize) {
        self.settle();
        self.visitors.write_failed(peer_index);
        if let Some(member) = self.members.get_mut(&peer_index) {
            member.was_short = true;
        }
    }

    /// The server ends a WebSocket connection with this frame. The kernel may take it or not.
    pub fn offer_close(&mut self, peer_index: usize, frame: &[u8]) {
        if self.visitors.has(peer_index) {
            return self.visitors.refuse(peer_index, frame);
        }
        let member = self.members.get_mut(&peer_index).expect("it is here");
        assert!(member.close.is_none(), "peer {peer_index} was offered two");
        assert!(
            web::is_web_socket(member.dialect) && member.server.is_between_frames(),
            "peer {peer_index} is offered a Close frame inside a frame"
        );
        member.close = Some(frame.to_vec());
        let code = u16::from_be_bytes([frame[2], frame[3]]);
        *self.totals.closes.entry(code).or_default() += 1;
    }

    /// The call was interrupted, and is made again.
    pub fn close_was_interrupted(&mut self, peer_index: usize) {
        self.visitors.refusal_was_interrupted(peer_index);
        if let Some(member) = self.members.get_mut(&peer_index) {
            member.close = None;
        }
    }

    /// So much of it was taken.
    pub fn took_close(&mut self, peer_index: usize, taken: usize) {
        if let Some(member) = self.members.get_mut(&peer_index) {
            let close = member.close.as_deref().unwrap_or_default();
            member.server.receive(&close[..taken]);
            self.totals.bytes_delivered += taken as u64;
            self.writes += u64::from(taken > 0);
        }
    }

    /// A browser member that has just joined shows whether there are pause notices in the history of which that
    /// was not known: nothing of it was written yet. Returns whether it is known now.
    pub fn settle_past_notices(&mut self, claims: &Claims) -> bool {
        self.settle();
        let closed = &self.closed;
        let mut joined = self.members.iter();
        let joined = joined
            .find(|(peer_index, one)| one.notice_in_past.is_some() && !closed.contains(peer_index));
        let (Some((peer_index, member)), Some(past)) =
            (joined, &mut self.pasts[Dialect::Ws.index()])
        else {
            return true;
        };
        let more = claims.pending[peer_index] as usize - member.due.len();
        let frames = [Vec::new(), web::pause_frame(true), web::pause_frame(false)];
        let notice = frames.into_iter().find(|frame| frame.len() == more);
        let is_one = past.unknown_notices().count() == 1;
        let Some(notice) = notice.filter(|notice| is_one || notice.is_empty()) else {
            return false;
        };
        past.settle_notice(&notice);
        for member in self.members.values_mut() {
            if let Some(at) = member.notice_in_past.take() {
                member.due.insert(at, &notice);
                member.due_in_turn += notice.len();
            }
        }
        true
    }

    /// Compares what was written in this turn to those that may have received a pause notice.
    fn compare_with_notice(&mut self, claims: &Claims) {
        let frames = [None, Some(true), Some(false)]
            .map(|notice| (notice, notice.map_or(Vec::new(), web::pause_frame)));
        let closed = mem::take(&mut self.closed);
        let of_turn = |one: &&(&usize, &Member)| one.1.notice_at.is_some();
        let members: Vec<_> = self.members.iter().collect();
        let fits = |frame: &[u8], is_witness: bool| {
            members.iter().filter(of_turn).all(|(peer_index, member)| {
                let is_closed = closed.contains(peer_index);
                let (written, at) = (&member.written[..], member.notice_at.unwrap_or(0));
                let pending = claims.pending.get(peer_index).copied().unwrap_or(0);
                let all = member.due.len() + frame.len();
                let left = all.checked_sub(written.len());
                let is_left = left == Some(pending as usize) || member.facts.has_failed;
                let is_due = member.is_due(written, frame, at);
                // One that joined in this turn is answered without its history.
                let before = if member.has_just_joined { 0 } else { at };
                let is_answer = member.is_answer(written, before);
                if is_closed {
                    !is_witness || is_due || is_answer
                } else {
                    is_due && is_left
                }
            })
        };
        let possible = frames.iter().filter(|(_, frame)| fits(frame, true));
        let possible: Vec<_> = possible.collect();
        let Some((notice, frame)) = possible.first() else {
            let written: Vec<_> = members
                .iter()
                .filter(of_turn)
                .map(|(peer_index, member)| {
                    let (written, due) = (&member.written, member.due.bytes());
                    format!(
                        "peer {peer_index} received \"{}\" where \"{}\" was due, {:?} of {} left",
                        written.escape_ascii(),
                        start_of(due, written.len() + 20).escape_ascii(),
                        claims.pending.get(peer_index),
                        due.len()
                    )
                })
                .collect();
            panic!("with or without a pause notice: {}", written.join("; "));
        };
        // With no witness that is left, any of them may be true.
        let (notice, is_known) = (*notice, possible.len() == 1);
        let frame = frame.clone();
        for (peer_index, member) in &mut self.members {
            let Some(at) = member.notice_at.take() else {
                continue;
            };
            let written = mem::take(&mut member.written);
            if closed.contains(peer_index) && !member.is_due(&written, &frame, at) {
                member.is_answered = true;
                continue;
            }
            if member.due.is_empty() {
                member.behind_since = self.now;
            }
            member.due.insert(at, &frame);
            member.due_in_turn += frame.len();
            member.due.advance(written.len());
            member.due_in_turn = member.due_in_turn.min(member.due.len());
            if written.len() > at {
                member.catches_up(self.limits.soft_limit, self.now);
            }
        }
        self.closed = closed;
        self.totals.notices += u64::from(notice.is_some());
        if let Some(past) = &mut self.pasts[Dialect::Ws.index()] {
            match notice {
                _ if !is_known && self.notices.may_come => past.insert_notice(b""),
                Some(_) => past.insert_notice(&frame),
                None => {}
            }
        }
        let may_have_changed = self.notices.may_follow || self.may_have_been_paused();
        if self.notices.may_come && is_known {
            let was_paused = self.is_paused;
            self.notices.check(notice, was_paused, may_have_changed);
        } else {
            self.notices.last = None;
        }
        self.notices.may_come = false;
    }

    /// A read has returned the end of the input.
    pub fn input_ends(&mut self, peer_index: usize) {
        self.fact(peer_index, |facts| facts.input_has_ended = true);
        if self.visitors.has(peer_index) {
            return;
        }
        if self.closed.is_empty() && self.members.contains_key(&peer_index) {
            self.note_piece(peer_index, Piece::End);
        }
    }

    /// Notes something about a connection, if it is one.
    pub fn fact(&mut self, peer_index: usize, note: impl FnOnce(&mut Facts)) {
        if self.visitors.has(peer_index) {
            self.visitors.fact(peer_index, note);
        } else if let Some(member) = self.members.get_mut(&peer_index) {
            note(&mut member.facts);
        }
    }

    /// How long the response was with which a peer's handshake was accepted; 0 if it was not, or had none.
    pub fn answer_len(&self, peer_index: usize) -> usize {
        self.members
            .get(&peer_index)
            .map_or(0, |member| member.answer_len)
    }

    /// Whether messages are kept for new members.
    pub fn keeps_history(&self) -> bool {
        self.pasts.iter().flatten().any(|past| past.has_begun)
    }

    /// How many bytes are due to a peer.
    pub fn due(&self, peer_index: usize) -> usize {
        self.members
            .get(&peer_index)
            .map_or(0, |member| member.due.len())
    }

    /// Whether a peer is a member that may publish.
    pub fn is_joined(&self, peer_index: usize) -> bool {
        let member = self.members.get(&peer_index);
        member.is_some_and(|member| member.stage == Stage::Here)
    }

    /// Whether a peer is a member, or on its way to be one.
    pub fn is_here(&self, peer_index: usize) -> bool {
        self.members.contains_key(&peer_index)
    }

    /// The connections that are here, and how much is due to each.
    pub fn pending(&self) -> impl Iterator<Item = (usize, ConnId, usize, Facts)> {
        let members = self.members.iter();
        members.map(|(&peer_index, member)| (peer_index, member.id, member.due.len(), member.facts))
    }

    /// Whether a member receives ticks, when this turn is over.
    fn has_tick_members(&self) -> bool {
        let mut members = self.members.values();
        members.any(|one| one.dialect == Dialect::Greet10 && one.stage == Stage::Here)
    }

    /// Follows whether a member receives ticks, when a turn is over. `were_gone`: at some moment of the
    /// turn there may have been none.
    fn follow_ticks(&mut self, were_gone: bool, now: Duration) {
        let Some(every) = self.every else {
            return;
        };
        if !self.has_tick_members() {
            self.ticks_due.clear();
        } else if self.ticks_due.is_empty() || were_gone {
            self.ticks_due.push(now + every);
        }
    }

    /// When the server must have looked at its clock again, whatever happens, and what for.
    pub fn deadline(&self, now: Duration) -> Option<(Duration, &'static str)> {
        let limits = &self.limits;
        let is_running = !self.is_stopping;
        let of_members = self
            .members
            .values()
            .filter_map(|member| match member.stage {
                Stage::AwaitingName if is_running => {
                    // If it has sent something that was not read yet, it gets a little more.
                    let due = (member.since + limits.handshake_timeout).max(now + GRACE);
                    Some((due, "a name is due"))
                }
                Stage::Leaving(_) if !member.due.is_empty() => {
                    // It may have accepted something since it was looked at, or be looked at late.
                    let late = now.saturating_sub(limits.farewell_timeout);
                    let due = member.facts.progressed.max(late) + 2 * limits.farewell_timeout;
                    Some((due, "a draining connection must be closed"))
                }
                Stage::Here if self.pauses_room(member) && !member.lag.may_be_stalled => {
                    // The room is paused for it, and that ends when it stalls.
                    let is_over = member.due.len() > limits.soft_limit && !member.facts.has_failed;
                    let due = member.silent_since() + limits.slow_timeout / 2;
                    is_over.then_some((due, "a slow reader is stalled"))
                }
                _ => None,
            });
        let tick = self.ticks_due.iter().max().copied();
        let tick = tick.filter(|_| is_running);
        let tick = tick.map(|due| (due.max(now), "a tick is due"));
        let heartbeat = self
            .heartbeat_due
            .map(|due| (due.max(now), "a heartbeat is due"));
        let visit = self.visitors.deadline();
        let visit = visit.map(|due| (due.max(now), "a request is due"));
        of_members.chain(tick).chain(heartbeat).chain(visit).min()
    }

    /// Whether the room waits for this member when it is a slow reader.
    fn pauses_room(&self, member: &Member) -> bool {
        let hears_room = self.protocols[member.dialect.index()].hears_room();
        hears_room && self.limits.slow == Slow::Pace
    }

    /// Whether something may be due of the members, so that the server may have a timeout.
    pub fn may_have_timeout(&self) -> bool {
        let limits = &self.limits;
        let has_timer = |member: &Member| match member.stage {
            Stage::AwaitingName => true,
            Stage::Leaving(_) => !member.due.is_empty(),
            Stage::Here => {
                let is_chat = self.protocols[member.dialect.index()].sends.is_chat();
                let is_idle = limits.idle_timeout.is_some() && is_chat;
                let is_slow = self.pauses_room(member) && member.most_lag() > limits.soft_limit;
                let is_behind = is_slow && !member.due.is_empty();
                is_idle || is_behind || member.is_inside()
            }
            Stage::Lost => false,
        };
        self.is_stopping
            || limits.rate.is_some()
            || !self.ticks_due.is_empty()
            || self.heartbeat_due.is_some()
            || !self.visitors.is_empty()
            || self.members.values().any(has_timer)
    }

    /// Whether a member that receives only replies to itself may be paused because it does not read them.
    pub fn may_be_self_paused(&self, peer_index: usize) -> bool {
        let member = &self.members[&peer_index];
        let is_over = !member.due.is_empty() && member.most_lag() > self.limits.soft_limit;
        causes_its_output_alone(member.dialect) && self.limits.slow == Slow::Pace && is_over
    }

    /// The server has closed a connection.
    pub fn close(&mut self, peer_index: usize) {
        if let Some(was_refused) = self.visitors.close(peer_index, self.now, self.is_stopping) {
            self.settle();
            self.turned_away += u64::from(was_refused);
            self.totals.visits += 1;
            self.totals.bad_headers = self.visitors.bad_headers;
            return;
        }
        if let Some(index) = self
            .new_members
            .iter()
            .position(|(peer, _)| *peer == peer_index)
        {
            // One that is only greeted, and with nothing.
            let (_, member) = self.new_members.remove(index);
            self.members.insert(peer_index, member);
            self.join(peer_index);
        } else if !self.members.contains_key(&peer_index) {
            self.turned_away += 1;
            return;
        }
        if let Some(fresh) = self.fresh.take_if(|(last, _)| *last == peer_index) {
            self.undecided = Some(fresh);
            self.undecided_leaver = self.leaver.take();
        }
        self.settle();
        self.closed.push(peer_index);
    }

    /// Whether there were as many connections in this turn as there may be.
    pub fn is_crowded(&self) -> bool {
        self.members.len() + self.new_members.len() >= self.limits.max_clients
    }

    /// Compares the relay's own figures with what has happened.
    pub fn end_turn(&mut self, claims: &Claims, now: Duration, is_full: bool) {
        self.settle();
        self.decide(claims.bytes_in);
        self.decide_heartbeat();
        self.compare_with_notice(claims);
        for member in self.members.values_mut() {
            member.lag_rises(&self.limits, now);
        }
        self.was_paused = mem::replace(&mut self.is_paused, claims.is_paused);
        self.notices.may_follow = self.may_have_been_paused();
        self.match_ends(claims, now, is_full);
        let stays = |(peer_index, member): (&usize, &Member)| {
            let receives = member.dialect == Dialect::Greet10 && member.stage == Stage::Here;
            receives && !self.closed.contains(peer_index)
        };
        let were_gone = !self.members.iter().any(stays);
        self.add_new_members();
        for peer_index in mem::take(&mut self.closed) {
            self.members.remove(&peer_index);
        }
        self.follow_ticks(were_gone, now);
        let is_pinged = |one: &Member| {
            let receives = matches!(one.dialect, Dialect::Ws | Dialect::WsChat10);
            receives && one.stage == Stage::Here
        };
        if !self.members.values().any(is_pinged) {
            self.heartbeat_due = None;
        }
        if !self.is_stopping {
            self.totals.refused += mem::take(&mut self.turned_away);
            assert_eq!(claims.refused, self.totals.refused, "refused");
        }
        let totals = &self.totals;
        let members = self.members.values();
        let is_member = |one: &&Member| one.stage == Stage::Here;
        assert_eq!(claims.accepted, totals.accepted, "accepted");
        assert_eq!(claims.joined, totals.joined, "joined");
        assert_eq!(claims.messages, totals.messages, "messages");
        assert_eq!(claims.deliveries, self.published_deliveries, "deliveries");
        assert_eq!(claims.writes, self.writes, "writes");
        assert_eq!(claims.bytes_out, totals.bytes_delivered, "bytes out");
        assert_eq!(
            claims.bytes_discarded, self.bytes_thrown_away,
            "bytes discarded"
        );
        assert_eq!(claims.connections, self.members.len(), "connections");
        assert_eq!(claims.members, members.filter(is_member).count(), "members");
        self.most_sent_in_turn = self.most_sent_in_turn.max(self.sent_in_turn);
        let most = self.most_held();
        assert!(
            claims.held_bytes <= most,
            "{} bytes held, {most} allowed",
            claims.held_bytes
        );
        self.check_published();
        self.check_pause(claims.is_paused, now);
    }

    /// What is published in a turn is bounded, whatever one read decodes to.
    fn check_published(&self) {
        let limits = &self.limits;
        let mut longest = limits.largest_delivery() + limits.max_message;
        if self.is_served[Dialect::WsChat10.index()] {
            longest += limits.largest_delivery() + 14;
        }
        if self.is_served[Dialect::Ws.index()] {
            longest += web::longest_message_frame(limits.max_name.max(64), limits.max_message);
        }
        let has_wide_headers =
            self.is_served[Dialect::Chat64.index()] || self.is_served[Dialect::Ack64.index()];
        if self.is_served[Dialect::Ws.index()] && has_wide_headers {
            // A text that needs escapes may take eight times as many bytes for browsers. A read is small enough
            // for that unless messages are expected to be long, as behind wide headers.
            longest += limits.turn_budget / 2;
        }
        let mut most = limits.turn_budget + ROUND + 2 * longest + 64;
        if self.dismissed_in_turn {
            // A member that is dismissed is read whatever was published before in the turn.
            most += limits.turn_budget + longest;
        }
        assert!(
            self.published_in_turn <= most as u64,
            "{} bytes were published in one turn, and {most} are allowed",
            self.published_in_turn
        );
    }

    /// The room is paused if a member that reads is over the soft limit, and only then.
    fn check_pause(&self, is_paused: bool, now: Duration) {
        let (soft_limit, timeout) = (self.limits.soft_limit, self.limits.slow_timeout);
        for (peer_index, member) in &self.members {
            let is_waited_for = member.stage == Stage::Here
                && self.pauses_room(member)
                && !member.lag.may_be_stalled
                && !member.facts.has_failed;
            assert!(
                is_paused || !is_waited_for || member.due.len() <= soft_limit,
                "the room goes on, and peer {peer_index} that reads is {} bytes behind",
                member.due.len()
            );
        }
        let may_be_waited_for = |member: &Member| {
            let is_stalled = member.due.len() > soft_limit
                && now.saturating_sub(member.silent_since()) >= timeout / 2;
            let is_slow = member.lag.may_be_slow && (!is_stalled || self.has_more);
            let is_there = member.stage == Stage::Here || member.is_leaving();
            is_there && self.pauses_room(member) && is_slow
        };
        assert!(
            !is_paused || self.members.values().any(may_be_waited_for),
            "the room is paused, and no slow reader is there"
        );
    }

    /// The most that may be held for lagging members, in bytes.
    fn most_held(&self) -> u64 {
        const CHUNK: u64 = 64 * 1024;
        let served = self.protocols.iter().zip(self.is_served);
        let receiving =
            served.filter(|(one, is_served)| one.receives != Receives::Nothing && *is_served);
        let past = if self.pasts.iter().any(Option::is_some) {
            self.limits.history_bytes as u64
        } else {
            0
        };
        let each = self.limits.queue_limit as u64 + 2 * self.most_sent_in_turn + CHUNK + past;
        receiving.count() as u64 * each
    }

    /// Whether the room may have been paused in this turn. The slow reader may be one of the connections
    /// that were closed in it.
    fn may_have_been_paused(&self) -> bool {
        let may_be_slow = |member: &Member| member.lag.may_be_slow && self.pauses_room(member);
        self.is_paused || self.was_paused || self.members.values().any(may_be_slow)
    }

    /// How much of what was read last from the connection closed first was thrown away, the relay's count of
    /// bytes shows.
    fn decide(&mut self, bytes_in: u64) {
        let mut thrown_away = self.bytes_read - self.bytes_thrown_away - bytes_in;
        self.bytes_thrown_away += thrown_away;
        if let Some((peer_index, mut pieces)) = self.undecided.take() {
            while thrown_away > 0
                && let Some(last) = pieces.pop()
            {
                if let Piece::Bytes(bytes) = last {
                    thrown_away = thrown_away.wrapping_sub(bytes.len() as u64);
                }
            }
            let has_end = matches!(pieces.last(), Some(Piece::End));
            let end = if has_end { pieces.pop() } else { None };
            for piece in pieces {
                self.take_in_piece(peer_index, &piece);
            }
            if let Some(end) = end {
                // Perhaps that was the end of what was thrown away, and no reason for anything.
                let stage = self.members[&peer_index].stage;
                self.take_in_piece(peer_index, &end);
                let member = self.members.get_mut(&peer_index).expect("it is here");
                member.stage_before = Some(stage);
            }
            self.leaver = self.undecided_leaver.take();
            self.settle();
        }
        assert_eq!(
            thrown_away, 0,
            "bytes were read, and neither counted nor thrown away"
        );
    }

    /// The most that all connections together can hold now, in bytes: in chunks and buffers that are
    /// not full.
    fn may_be_held(&self) -> usize {
        // A first and a last one for each dialect that receives anything.
        const CHUNKS: usize = 5 * 2 * 64 * 1024;
        // The turn, which may be in the backlogs besides: all of it is history for a moment.
        let turn = self.sent_in_turn as usize * if self.keeps_history() { 2 } else { 1 };
        let of_its_own = |one: &Member| {
            let partial = one.unfinished.len() + one.client.len() + one.left();
            2 * partial + 200 * (one.own_messages + one.acks_in_turn + 2)
        };
        // One copy for all lagging members, as far back as the last of them.
        let shared = |dialect: &Dialect| {
            let members = self.members.values().filter(|one| one.dialect == *dialect);
            members
                .map(|one| one.due.len() + one.holds)
                .max()
                .unwrap_or(0)
        };
        let own: usize = self.members.values().map(of_its_own).sum();
        let past = if self.pasts.iter().any(Option::is_some) {
            self.limits.history_bytes
        } else {
            0
        };
        own + Dialect::ALL.iter().map(shared).sum::<usize>() + past + turn + CHUNKS
    }

    /// Finds for each end that the relay has counted a connection that this can have happened to.
    fn match_ends(&mut self, claims: &Claims, now: Duration, is_full: bool) {
        let mut reasons = Vec::new();
        for &(end, count) in &claims.ends {
            let before = self.totals.ends.insert(end, count).unwrap_or(0);
            reasons.extend((before..count).map(|_| end));
        }
        let possible: Vec<Vec<End>> = self
            .closed
            .iter()
            .map(|peer_index| {
                let is_possible =
                    |end: &End| self.may_end(&self.members[peer_index], *end, now, is_full);
                claims
                    .ends
                    .iter()
                    .map(|&(end, _)| end)
                    .filter(is_possible)
                    .collect()
            })
            .collect();
        assert!(
            reasons.len() == possible.len() && is_match(&possible, &reasons),
            "peers {:?} were closed, for which there can be these reasons: {possible:?}; \
             but the relay reports {reasons:?}",
            self.closed
        );
    }

    /// Whether there is this reason for a connection to end.
    fn may_end(&self, member: &Member, end: End, now: Duration, is_full: bool) -> bool {
        let is_reason = |stage| self.is_reason(member, stage, end, now, is_full);
        let is_reason = is_reason(member.stage) || member.stage_before.is_some_and(is_reason);
        is_reason && Self::is_closed_right(member, end)
    }

    /// Whether a connection that ends for this reason was offered the Close frame for it, if it can have one.
    fn is_closed_right(member: &Member, end: End) -> bool {
        if !web::is_web_socket(member.dialect) {
            return true;
        }
        if member.has_left_unnamed && end == End::Farewell {
            let is_excused = member.was_short || member.facts.has_failed;
            return member.is_answered || is_excused;
        }
        let expected = end.close_frame(member.protocol_code);
        // Where output was given up there is none, even if that ended between two frames.
        let has_lost_history = member.has_just_joined && member.began_with_history;
        let has_lost_output =
            member.was_short || has_lost_history || member.due.len() > member.due_in_turn;
        let may_lack =
            member.facts.has_failed || has_lost_output || !member.server.is_between_frames();
        match &member.close {
            Some(frame) => expected.as_ref() == Some(frame),
            None => expected.is_none() || may_lack,
        }
    }

    /// Whether there is this reason for a connection of this stage to end.
    fn is_reason(
        &self,
        member: &Member,
        stage: Stage,
        end: End,
        now: Duration,
        is_full: bool,
    ) -> bool {
        let Facts {
            input_has_ended,
            has_failed,
            is_gone: _,
            is_read_dry,
            progressed,
        } = member.facts;
        let limits = &self.limits;
        let cause = stage.cause();
        let is_unnamed = stage == Stage::AwaitingName;
        let is_here = stage == Stage::Here;
        // Nothing more is due to it, or nothing that can be delivered.
        let is_done = member.due.is_empty() || has_failed;
        if cause.is_some_and(|cause| cause.end() == end) && is_done && end != End::Shutdown {
            return is_read_dry || end == End::Farewell || end == End::Greeted;
        }
        match end {
            End::Eof | End::TruncatedFrame => {
                let is_cut = member.is_inside() && input_has_ended;
                let is_over = has_failed || (is_unnamed && input_has_ended);
                let is_end = is_cut == (end == End::TruncatedFrame);
                (is_here || is_unnamed) && is_over && is_read_dry && is_end
            }
            End::Farewell | End::Greeted => false,
            End::Io => {
                let was_broken = cause.is_none() || member.was_broken;
                has_failed && was_broken && is_read_dry
            }
            End::Protocol => stage == Stage::Lost && member.noise == 0,
            End::HandshakeTimeout => is_unnamed && now >= member.since + limits.handshake_timeout,
            End::SlowConsumer => {
                let is_waited_for = match member.dialect {
                    _ if limits.slow == Slow::Cut => false,
                    dialect if causes_its_output_alone(dialect) => true,
                    _ if self.pauses_room(member) => !member.lag.may_be_stalled,
                    _ => false,
                };
                // A member that begins with history is not waited for, even if it reads.
                let is_awaited = !member.lag.may_be_catching_up;
                let is_honest = self.reading == Reading::Always && is_awaited;
                let may_be_cut = !is_waited_for;
                // The lag with which a member has left is no reason.
                let most = limits.queue_limit.max(member.left_due);
                member.most_lag() > most && may_be_cut && !is_honest
            }
            End::BelowMinimumRate => {
                let lag = &member.lag;
                let paused = lag
                    .over_since
                    .map_or(Duration::ZERO, |since| now.saturating_sub(since));
                self.pauses_room(member)
                    && self.reading == Reading::AsTheyLike
                    && lag.may_be_slow
                    && lag.paused + paused >= limits.slow_timeout
                    && lag.may_be_below_minimum(limits.slow_timeout, now)
            }
            End::MessageTimeout => {
                let is_late = now >= member.begun + limits.message_timeout;
                is_here && member.is_inside() && is_late
            }
            End::IdleTimeout => {
                let is_chat = self.protocols[member.dialect.index()].sends.is_chat();
                let is_late = |timeout| now >= member.last_input + timeout;
                is_here && is_chat && limits.idle_timeout.is_some_and(is_late)
            }
            End::OutOfMemory => {
                self.reading != Reading::Always && self.may_be_held() > limits.max_memory
            }
            End::DrainTimeout => {
                let waited = now >= progressed.max(member.left_at) + limits.farewell_timeout;
                cause.is_some() && member.is_final && !member.due.is_empty() && waited
            }
            End::InputIgnored => {
                let is_closed = stage == Stage::Lost || (is_here && has_failed);
                is_closed && member.noise > limits.max_message
            }
            End::Evicted | End::EvictedForAddress => {
                let is_for_address = end == End::EvictedForAddress;
                let is_needed = if is_for_address {
                    limits.max_per_ip.is_some()
                } else {
                    is_full
                };
                // Its input is held back: otherwise it is about to be read.
                let is_throttled = limits.rate.is_some() || causes_its_output_alone(member.dialect);
                let is_held_back = is_throttled || self.may_have_been_paused();
                let has_left = is_here && (member.facts.is_gone || has_failed) && is_held_back;
                let is_late = is_unnamed && now >= member.since + SAFE_PENDING;
                // A peer that is gone needs its place less than a pending connection does, and one that
                // has been there longer needs it least.
                let comes_first = |(peer_index, other): (&usize, &Member)| {
                    let is_older = other.id < member.id || is_late;
                    other.is_gone() && is_older && !self.closed.contains(peer_index)
                };
                let is_first =
                    is_for_address || !self.is_paused || !self.members.iter().any(comes_first);
                is_needed && is_first && (has_left || is_late)
            }
            End::Shutdown => {
                let is_dismissed = member.is_draining && (is_done || is_unnamed);
                is_dismissed || (self.has_stopped && (is_done || !self.is_stop_in_time))
            }
        }
    }
}

/// Whether a member of this dialect receives only what it causes itself, and is paused alone for that.
pub const fn causes_its_output_alone(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Ack64 | Dialect::WsEcho | Dialect::Echo)
}

/// Whether each of `possible` can have one of `reasons` to itself: a matching, by augmenting paths.
fn is_match(possible: &[Vec<End>], reasons: &[End]) -> bool {
    let mut owners = vec![None; reasons.len()];
    (0..possible.len()).all(|peer_index| {
        let mut seen = vec![false; reasons.len()];
        finds_reason(peer_index, possible, reasons, &mut owners, &mut seen)
    })
}

/// Finds a reason for one of them, for which others may have to take another one.
fn finds_reason(
    peer_index: usize,
    possible: &[Vec<End>],
    reasons: &[End],
    owners: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for (index, reason) in reasons.iter().enumerate() {
        if !possible[peer_index].contains(reason) || mem::replace(&mut seen[index], true) {
            continue;
        }
        let is_free = match owners[index] {
            None => true,
            Some(owner) => finds_reason(owner, possible, reasons, owners, seen),
        };
        if is_free {
            owners[index] = Some(peer_index);
            return true;
        }
    }
    false
}
