//! What every peer is to be told, worked out from what the server has read: the history checker.
//!
//! The model knows the protocols and the promises, and nothing of how the relay keeps them. It has no
//! turns' buffers, no shared backlog, no cursors: to each member belongs one string of bytes that are
//! due to it, and what is said is appended to all of them. Whatever the server then writes to a member
//! must be the beginning of that string, to the byte.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use chatloop::relay::{ConnId, Limits, Slow};
use chatloop::server::Config;
use chatloop::wire::Dialect;

use super::plan::Plan;

/// How much more time a pending connection gets that is late, but has sent something.
const GRACE: Duration = Duration::from_millis(100);

/// A pending connection is not evicted before this.
const SAFE_PENDING: Duration = Duration::from_secs(2);

/// What a slow reader must accept while the room is paused for it, in bytes a second.
pub const MIN_READ_RATE: usize = 64 * 1024 / 10;

/// How much a member publishes in one round, unless one message is longer, in bytes.
const ROUND: usize = 512;

/// What a dialect's clients send and are told, as the tutorials have it.
struct Protocol {
    /// How wide the headers are that its clients send.
    width: usize,
    is_named: bool,
    hears: Hears,
    ack: Vec<u8>,
    farewell: Vec<u8>,
    is_farewell_heard: bool,
    greeting: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hears {
    Frames,
    Payloads,
    Time,
    Nothing,
}

impl Protocol {
    fn new(dialect: Dialect, config: &Config) -> Self {
        let texts = &config.texts;
        let or = |own: &Option<Vec<u8>>, text: &str| own.clone().unwrap_or_else(|| text.into());
        let silent = Self {
            width: 0,
            is_named: false,
            hears: Hears::Nothing,
            ack: Vec::new(),
            farewell: Vec::new(),
            is_farewell_heard: false,
            greeting: Vec::new(),
        };
        match dialect {
            Dialect::Chat10 => Self {
                width: 10,
                is_named: true,
                hears: Hears::Frames,
                ..silent
            },
            Dialect::Chat64 => Self {
                width: 64,
                hears: Hears::Payloads,
                ack: or(&texts.ack, "Message was Sent!"),
                farewell: or(&texts.farewell, "Client Disconnected"),
                is_farewell_heard: true,
                ..silent
            },
            Dialect::Ack64 => Self {
                width: 64,
                ack: or(&texts.ack, "Msg received"),
                farewell: or(&texts.farewell, "!DISCONNECT"),
                ..silent
            },
            Dialect::Greet10 => Self {
                hears: Hears::Time,
                greeting: frame(&or(&texts.greeting, "Welcome to the server!")),
                ..silent
            },
            Dialect::Hello => Self {
                greeting: or(&texts.greeting, "welcome to the server!"),
                ..silent
            },
            // No plan serves the others.
            _ => silent,
        }
    }

    const fn hears_room(&self) -> bool {
        matches!(self.hears, Hears::Frames | Hears::Payloads)
    }
}

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
    /// It became a member in this turn.
    has_just_joined: bool,
    /// A call on it had failed before it left.
    was_broken: bool,
    /// Nothing more is due to it: the turn in which it left is over.
    is_final: bool,
    /// The server stops, and has dismissed it.
    is_let_go: bool,
    /// Read, and not a whole frame.
    unfinished: Vec<u8>,
    /// When the first byte of that was read, and when the last byte of all.
    begun: Duration,
    heard: Duration,
    /// How much it has sent, where nobody listens.
    noise: usize,
    /// What it is still to be told.
    due: Tape,
    /// How much of that has become due in this turn, and how many acknowledgements.
    due_in_turn: usize,
    acks_in_turn: usize,
    /// It was sent these alone, which only somebody is whose connection ends in this turn.
    is_answered: bool,
    /// What it may have held on to since it last had everything: its own words, what was said after its
    /// leave, and how many words of its own there were.
    holds: usize,
    own_words: usize,
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
        matches!(self.stage, Stage::Here | Stage::Leaving(_)) && !self.is_final
    }

    /// These bytes are due to it from now on.
    fn owe(&mut self, bytes: &[u8], now: Duration) {
        if self.due.is_empty() {
            self.behind_since = now;
        }
        self.due.extend(bytes);
    }

    /// It leaves in this turn.
    fn leave(&mut self, cause: Cause, now: Duration) {
        self.stage = Stage::Leaving(cause);
        self.left_at = now;
        self.was_broken = self.facts.has_failed;
    }

    /// The most that its lag can be, in bytes: its own words and what was published after it left count,
    /// and so does the memory that each of its own words takes.
    const fn most_lag(&self) -> usize {
        self.due.len() + self.holds + 64 * (self.own_words + 1)
    }

    /// Since when its socket has accepted nothing.
    fn silent_since(&self) -> Duration {
        self.facts.progressed.max(self.behind_since)
    }

    /// Its socket has accepted something.
    fn lag_falls(&mut self, soft_limit: usize, now: Duration) {
        let (lag, most) = (
            &mut self.lag,
            self.due.len() + self.holds + 64 * (self.own_words + 1),
        );
        if self.due.is_empty() {
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

    /// Whether its peer is known to be gone, and its last words were not read.
    const fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Here) && (self.facts.is_gone || self.facts.has_failed)
    }
}

/// What has happened to a connection that may be a reason for its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// A read has said that this is the end of the input.
    pub input_has_ended: bool,
    /// A call on it has failed, or an event has said that it is over.
    pub has_failed: bool,
    /// An event has said that the peer sends nothing more.
    pub is_gone: bool,
    /// It was the kernel's word that nothing was left to be read.
    pub is_read_dry: bool,
    /// When its socket accepted something last.
    pub progressed: Duration,
}

/// What a new member is told of the past, in one dialect.
#[derive(Default)]
struct Past {
    messages: VecDeque<Vec<u8>>,
}

/// How those read who are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    AsTheyLike,
    /// Everybody, but for a while now and then: nobody may be closed for having taken too little.
    WithPauses,
    /// Everybody: nobody may be closed because of what it has not taken.
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
    /// For each dialect, if its members are told of the past.
    pasts: Vec<Option<Past>>,
    past_bytes: usize,
    members: BTreeMap<usize, Member>,
    /// What was read last. If the very next thing that happens is that its connection is closed, the
    /// server may have read it only to throw it away.
    fresh: Option<(usize, Vec<Piece>)>,
    /// What was read last from who was closed first in this turn, if it is so.
    undecided: Option<(usize, Vec<Piece>)>,
    undecided_leaver: Option<usize>,
    /// Who was closed in this turn. From the first one on, what is read is thrown away.
    closed: Vec<usize>,
    newcomers: Vec<(usize, Member)>,
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
    /// The time of the turn.
    pub now: Duration,
    bytes_read: u64,
    bytes_thrown_away: u64,
    said_in_turn: u64,
    most_said_in_turn: u64,
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
    /// Messages that were said.
    pub messages: u64,
    /// Messages that became due to somebody.
    pub deliveries: u64,
    /// Bytes that were compared.
    pub bytes_told: u64,
    pub ticks: u64,
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
        self.bytes_told += other.bytes_told;
        self.ticks += other.ticks;
        for (end, count) in &other.ends {
            *self.ends.entry(*end).or_default() += count;
        }
    }
}

/// What the relay says of itself after a turn.
pub struct Claims {
    pub accepted: u64,
    pub refused: u64,
    pub joined: u64,
    pub messages: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub bytes_discarded: u64,
    pub connections: usize,
    pub members: usize,
    pub held_bytes: u64,
    pub is_paused: bool,
    /// The ends so far, for each reason.
    pub ends: Vec<(End, u64)>,
}

impl Model {
    pub fn new(config: &Config, reading: Reading) -> Self {
        let protocols: Vec<_> = Dialect::ALL
            .iter()
            .map(|&dialect| Protocol::new(dialect, config))
            .collect();
        let is_served = |dialect| config.listen.iter().any(|one| one.dialect == dialect);
        let keeps = |dialect: &Dialect| {
            config.limits.history > 0
                && protocols[dialect.index()].hears_room()
                && is_served(*dialect)
        };
        let keepers = Dialect::ALL.iter().filter(|one| keeps(one)).count();
        Self {
            pasts: Dialect::ALL
                .iter()
                .map(|one| keeps(one).then(Past::default))
                .collect(),
            past_bytes: config.limits.history_bytes / keepers.max(1),
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
            newcomers: Vec::new(),
            turned_away: 0,
            leaver: None,
            is_stopping: false,
            has_stopped: false,
            is_stop_in_time: false,
            totals: Totals::default(),
            now: Duration::ZERO,
            bytes_read: 0,
            bytes_thrown_away: 0,
            said_in_turn: 0,
            most_said_in_turn: 0,
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
        for (&who, member) in &mut self.members {
            assert!(
                !member.is_answered,
                "peer {who} got answers out of their place"
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
                member.own_words = 0;
            }
        }
        self.said_in_turn = 0;
        self.published_in_turn = 0;
        self.dismissed_in_turn = false;
    }

    /// The server has accepted a connection and watches it from now on.
    pub fn admit(
        &mut self,
        who: usize,
        id: ConnId,
        addr: SocketAddr,
        dialect: Dialect,
        now: Duration,
    ) {
        self.settle();
        self.totals.accepted += 1;
        let protocol = &self.protocols[dialect.index()];
        let member = Member {
            dialect,
            id,
            since: now,
            behind_since: now,
            left_at: now,
            left_due: 0,
            stage_before: None,
            has_just_joined: false,
            was_broken: false,
            name: frame(addr.to_string().as_bytes()),
            stage: Stage::AwaitingName,
            is_final: false,
            is_let_go: false,
            unfinished: Vec::new(),
            begun: now,
            heard: now,
            noise: 0,
            due: Tape::new(&protocol.greeting),
            due_in_turn: 0,
            acks_in_turn: 0,
            is_answered: false,
            holds: 0,
            own_words: 0,
            lag: LagBounds::default(),
            facts: Facts {
                progressed: now,
                ..Facts::default()
            },
        };
        self.newcomers.push((who, member));
    }

    /// Takes in those who were admitted in this turn. That is done last, because until then it may be
    /// open what was said before they came.
    fn take_in_newcomers(&mut self) {
        for (who, member) in mem::take(&mut self.newcomers) {
            let is_named = self.protocols[member.dialect.index()].is_named;
            self.members.insert(who, member);
            if !is_named {
                self.join(who);
            }
            if let Some(member) = self.members.get_mut(&who) {
                member.lag_rises(&self.limits, self.now);
            }
        }
    }

    /// A connection has become a member.
    fn join(&mut self, who: usize) {
        let member = self.members.get_mut(&who).expect("it is here");
        if member.dialect == Dialect::Hello {
            member.stage = Stage::Leaving(Cause::Greeted);
            member.is_final = true;
            return;
        }
        member.stage = Stage::Here;
        member.has_just_joined = true;
        self.totals.joined += 1;
        if let Some(past) = &self.pasts[member.dialect.index()] {
            member.lag.may_be_catching_up = !past.messages.is_empty();
            for message in &past.messages {
                member.owe(message, self.now);
                self.totals.deliveries += 1;
            }
        }
    }

    /// A read has brought this.
    pub fn read(&mut self, who: usize, bytes: &[u8]) {
        let is_newcomer = self.newcomers.iter().any(|(peer, _)| *peer == who);
        if !is_newcomer && !self.members.contains_key(&who) {
            return;
        }
        self.bytes_read += bytes.len() as u64;
        if is_newcomer {
            // It was accepted in this turn, and is closed in it.
            self.bytes_thrown_away += bytes.len() as u64;
            return;
        }
        if !self.closed.is_empty() {
            self.bytes_thrown_away += bytes.len() as u64;
            return;
        }
        self.note_piece(who, Piece::Bytes(bytes.to_vec()));
    }

    fn note_piece(&mut self, who: usize, piece: Piece) {
        match &mut self.fresh {
            Some((last, pieces)) if *last == who => pieces.push(piece),
            None if self.leaver == Some(who) => self.fresh = Some((who, vec![piece])),
            _ => {
                self.settle();
                self.fresh = Some((who, vec![piece]));
            }
        }
    }

    /// What was read last was not read in order to be thrown away.
    pub fn settle(&mut self) {
        if let Some((who, pieces)) = self.fresh.take() {
            for piece in pieces {
                self.take_in_piece(who, &piece);
            }
        }
        if let Some(member) = self
            .leaver
            .take()
            .and_then(|who| self.members.get_mut(&who))
        {
            // Some leave in any case.
            member.is_let_go = !member.is_leaving();
            if member.stage == Stage::Here && !member.facts.has_failed {
                member.stage_before = Some(member.stage);
                member.leave(Cause::Shutdown, self.now);
            }
        }
    }

    fn take_in_piece(&mut self, who: usize, piece: &Piece) {
        match piece {
            Piece::Bytes(bytes) => self.take_in(who, bytes),
            Piece::End => {
                let now = self.now;
                let member = self.members.get_mut(&who).expect("it is here");
                if member.stage == Stage::Here {
                    member.leave(
                        if member.unfinished.is_empty() {
                            Cause::Eof
                        } else {
                            Cause::TruncatedFrame
                        },
                        now,
                    );
                }
            }
        }
    }

    /// The server lets go of a member, which is told what is said until the end of the turn.
    pub fn let_go(&mut self, who: usize) {
        self.settle();
        self.leaver = Some(who);
        self.dismissed_in_turn = true;
    }

    /// A connection has sent this, and the server means it.
    fn take_in(&mut self, who: usize, bytes: &[u8]) {
        let member = self.members.get_mut(&who).expect("it is here");
        member.heard = self.now;
        let width = self.protocols[member.dialect.index()].width;
        if width == 0 {
            member.noise += bytes.len();
            let is_over = member.noise > self.limits.max_message;
            if member.stage == Stage::Here && is_over && !member.facts.has_failed {
                member.stage = Stage::Lost;
            }
            return;
        }
        let mut unfinished = mem::take(&mut member.unfinished);
        unfinished.extend_from_slice(bytes);
        let mut rest = &unfinished[..];
        loop {
            let member = self.members.get_mut(&who).expect("it is here");
            let max = match member.stage {
                Stage::AwaitingName => self.limits.max_name,
                Stage::Here => self.limits.max_message,
                Stage::Leaving(_) | Stage::Lost => return,
            };
            let Some((header, after)) = rest.split_at_checked(width) else {
                if !begins_a_header(rest, width) {
                    member.stage = Stage::Lost;
                    return;
                }
                break;
            };
            let Some(len) = announced(header).filter(|&len| len <= max as u64) else {
                member.stage = Stage::Lost;
                return;
            };
            let Some((payload, after)) = after.split_at_checked(len as usize) else {
                break;
            };
            if member.stage == Stage::AwaitingName {
                member.name = frame(payload);
                self.join(who);
            } else {
                self.say(who, payload);
            }
            rest = after;
        }
        let is_another = rest.len() < unfinished.len() || unfinished.len() == bytes.len();
        let unfinished = rest.to_vec();
        let member = self.members.get_mut(&who).expect("it is here");
        member.unfinished = unfinished;
        if is_another {
            member.begun = self.now;
        }
    }

    /// A member says something.
    fn say(&mut self, who: usize, message: &[u8]) {
        let speaker = self.members.get_mut(&who).expect("it is here");
        let protocol = &self.protocols[speaker.dialect.index()];
        speaker.owe(&protocol.ack, self.now);
        speaker.due_in_turn += protocol.ack.len();
        speaker.acks_in_turn += 1;
        speaker.own_words += 1;
        if !protocol.farewell.is_empty() && protocol.farewell == message {
            speaker.leave(Cause::Farewell, self.now);
            if !protocol.is_farewell_heard {
                return;
            }
        }
        let is_member = !speaker.has_just_joined;
        let speaker_dialect = speaker.dialect;
        self.totals.messages += 1;
        let framed = [&speaker.name[..], &frame(message)].concat();
        let mut has_members = [false; Dialect::COUNT];
        has_members[speaker_dialect.index()] = is_member;
        for (&whom, member) in &self.members {
            // A member that has left in this turn is counted until the turn is over.
            let is_counted = whom != who && member.receives();
            has_members[member.dialect.index()] |= is_counted;
        }
        let as_heard = |protocol: &Protocol| match protocol.hears {
            Hears::Frames => framed.clone(),
            Hears::Payloads => message.to_vec(),
            Hears::Time | Hears::Nothing => Vec::new(),
        };
        let pasts = self.pasts.iter_mut().zip(has_members);
        for (protocol, (past, has_members)) in self.protocols.iter().zip(pasts) {
            let words = as_heard(protocol);
            self.said_in_turn += words.len() as u64;
            if has_members || past.is_some() {
                self.published_in_turn += words.len() as u64;
            }
            let Some(past) = past else {
                continue;
            };
            past.messages.push_back(words);
            let mut bytes: usize = past.messages.iter().map(Vec::len).sum();
            while past.messages.len() > self.limits.history
                || bytes + 8 * past.messages.len() > self.past_bytes
            {
                bytes -= past.messages.pop_front().map_or(0, |first| first.len());
            }
        }
        for (&whom, member) in &mut self.members {
            let protocol = &self.protocols[member.dialect.index()];
            let words = match protocol.hears {
                Hears::Frames => &framed[..],
                Hears::Payloads => message,
                Hears::Time | Hears::Nothing => continue,
            };
            if whom != who && member.receives() {
                member.owe(words, self.now);
                member.due_in_turn += words.len();
                self.totals.deliveries += 1;
            } else {
                member.holds += words.len();
            }
        }
    }

    /// The server has looked at the time of day: it is about to tell it.
    pub fn tick(&mut self, millis: u64, now: Duration) {
        self.settle();
        let every = self.every.expect("the time is told");
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
        let told = frame(format!("The time is {}.{fraction}", millis / 1000).as_bytes());
        self.said_in_turn += told.len() as u64;
        self.published_in_turn += told.len() as u64;
        for member in self.members.values_mut() {
            if member.dialect != Dialect::Greet10 {
                continue;
            }
            if member.receives() {
                member.owe(&told, now);
                member.due_in_turn += told.len();
                self.totals.deliveries += 1;
            } else {
                member.holds += told.len();
            }
        }
    }

    /// The kernel has taken these bytes for a peer.
    pub fn told(&mut self, who: usize, bytes: &[u8], now: Duration) {
        self.settle();
        self.totals.bytes_told += bytes.len() as u64;
        let Some(member) = self.members.get_mut(&who) else {
            panic!("peer {who} was written to before it was anybody");
        };
        let soft_limit = self.limits.soft_limit;
        if !bytes.is_empty() {
            member.facts.progressed = now;
            if member.due.len() > soft_limit {
                member.lag.accepted.push_back((now, bytes.len()));
            }
        }
        if member.due.bytes().starts_with(bytes) {
            member.due.advance(bytes.len());
            member.due_in_turn = member.due_in_turn.min(member.due.len());
            if member.due.is_empty() {
                member.holds = 0;
                member.own_words = 0;
            }
            member.lag_falls(soft_limit, now);
            return;
        }
        // Who is closed in this turn is answered for what it has said in it, and hears no more.
        let ack = &self.protocols[member.dialect.index()].ack;
        let answers = ack.repeat(member.acks_in_turn);
        let is_answer = member.due.len() == member.due_in_turn && answers.starts_with(bytes);
        assert!(
            is_answer && !member.is_answered,
            "peer {who} was told \"{}\" where \"{}\" was due",
            bytes.escape_ascii(),
            start_of(member.due.bytes(), bytes.len() + 20).escape_ascii(),
        );
        member.is_answered = true;
    }

    /// A read has said that the input is over.
    pub fn input_ends(&mut self, who: usize) {
        self.fact(who, |facts| facts.input_has_ended = true);
        if self.closed.is_empty() && self.members.contains_key(&who) {
            self.note_piece(who, Piece::End);
        }
    }

    /// Notes something about a connection, if it is one.
    pub fn fact(&mut self, who: usize, note: impl FnOnce(&mut Facts)) {
        if let Some(member) = self.members.get_mut(&who) {
            note(&mut member.facts);
        }
    }

    /// How many bytes are due to a peer.
    pub fn due(&self, who: usize) -> usize {
        self.members.get(&who).map_or(0, |member| member.due.len())
    }

    /// Whether a peer is a member that may say something.
    pub fn is_talking(&self, who: usize) -> bool {
        let member = self.members.get(&who);
        member.is_some_and(|member| member.stage == Stage::Here)
    }

    /// Whether a peer is a member, or on its way to be one.
    pub fn is_here(&self, who: usize) -> bool {
        self.members.contains_key(&who)
    }

    /// The connections that are here, and how much is due to each.
    pub fn pending(&self) -> impl Iterator<Item = (usize, ConnId, usize, Facts)> {
        let members = self.members.iter();
        members.map(|(&who, member)| (who, member.id, member.due.len(), member.facts))
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
        of_members.chain(tick).min()
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
                let has_frames = self.protocols[member.dialect.index()].width > 0;
                let is_idle = limits.idle_timeout.is_some() && has_frames;
                let is_slow = self.pauses_room(member) && member.most_lag() > limits.soft_limit;
                let is_behind = is_slow && !member.due.is_empty();
                is_idle || is_behind || !member.unfinished.is_empty()
            }
            Stage::Lost => false,
        };
        self.is_stopping
            || limits.rate.is_some()
            || !self.ticks_due.is_empty()
            || self.members.values().any(has_timer)
    }

    /// Whether a member that receives only replies to itself may be paused because it does not read them.
    pub fn may_be_self_paused(&self, who: usize) -> bool {
        let member = &self.members[&who];
        let is_over = !member.due.is_empty() && member.most_lag() > self.limits.soft_limit;
        member.dialect == Dialect::Ack64 && self.limits.slow == Slow::Pace && is_over
    }

    /// The server has closed a connection.
    pub fn close(&mut self, who: usize) {
        if let Some(index) = self.newcomers.iter().position(|(peer, _)| *peer == who) {
            // One that is only greeted, and with nothing.
            let (_, member) = self.newcomers.remove(index);
            self.members.insert(who, member);
            self.join(who);
        } else if !self.members.contains_key(&who) {
            self.turned_away += 1;
            return;
        }
        if let Some(fresh) = self.fresh.take_if(|(last, _)| *last == who) {
            self.undecided = Some(fresh);
            self.undecided_leaver = self.leaver.take();
        }
        self.settle();
        self.closed.push(who);
    }

    /// Whether there were as many connections in this turn as there may be.
    pub fn is_crowded(&self) -> bool {
        self.members.len() + self.newcomers.len() >= self.limits.max_clients
    }

    /// Holds what the relay says of itself against what has happened.
    pub fn end_turn(&mut self, claims: &Claims, now: Duration, is_full: bool) {
        self.settle();
        self.decide(claims.bytes_in);
        for who in &self.closed {
            let member = self.members.get_mut(who).expect("it was here");
            // After that there is nothing to be compared any more.
            member.is_answered = false;
        }
        for member in self.members.values_mut() {
            member.lag_rises(&self.limits, now);
        }
        self.was_paused = mem::replace(&mut self.is_paused, claims.is_paused);
        self.match_ends(claims, now, is_full);
        let stays = |(who, member): (&usize, &Member)| {
            let receives = member.dialect == Dialect::Greet10 && member.stage == Stage::Here;
            receives && !self.closed.contains(who)
        };
        let were_gone = !self.members.iter().any(stays);
        self.take_in_newcomers();
        for who in mem::take(&mut self.closed) {
            self.members.remove(&who);
        }
        self.follow_ticks(were_gone, now);
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
        assert_eq!(claims.bytes_out, totals.bytes_told, "bytes out");
        assert_eq!(
            claims.bytes_discarded, self.bytes_thrown_away,
            "bytes discarded"
        );
        assert_eq!(claims.connections, self.members.len(), "connections");
        assert_eq!(claims.members, members.filter(is_member).count(), "members");
        self.most_said_in_turn = self.most_said_in_turn.max(self.said_in_turn);
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
        let longest = limits.largest_delivery() + limits.max_message;
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
        for (who, member) in &self.members {
            let is_waited_for = member.stage == Stage::Here
                && self.pauses_room(member)
                && !member.lag.may_be_stalled
                && !member.facts.has_failed;
            assert!(
                is_paused || !is_waited_for || member.due.len() <= soft_limit,
                "the room goes on, and peer {who} that reads is {} bytes behind",
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

    /// The most that may be held for those who are behind, in bytes.
    fn most_held(&self) -> u64 {
        const CHUNK: u64 = 64 * 1024;
        let hearing = self
            .protocols
            .iter()
            .filter(|one| one.hears != Hears::Nothing);
        let past = if self.limits.history > 0 {
            self.limits.history_bytes as u64
        } else {
            0
        };
        let each = self.limits.queue_limit as u64 + 2 * self.most_said_in_turn + CHUNK + past;
        hearing.count() as u64 * each
    }

    /// Whether the room may have been paused in this turn. The slow reader may be one of the connections
    /// that were closed in it.
    fn may_have_been_paused(&self) -> bool {
        let may_be_slow = |member: &Member| member.lag.may_be_slow && self.pauses_room(member);
        self.is_paused || self.was_paused || self.members.values().any(may_be_slow)
    }

    /// How much of what was read last from who was closed first was thrown away, the relay's count of
    /// bytes tells.
    fn decide(&mut self, bytes_in: u64) {
        let mut thrown_away = self.bytes_read - self.bytes_thrown_away - bytes_in;
        self.bytes_thrown_away += thrown_away;
        if let Some((who, mut pieces)) = self.undecided.take() {
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
                self.take_in_piece(who, &piece);
            }
            if let Some(end) = end {
                // Perhaps that was the end of what was thrown away, and no reason for anything.
                let stage = self.members[&who].stage;
                self.take_in_piece(who, &end);
                let member = self.members.get_mut(&who).expect("it is here");
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
        // A first and a last one for each dialect that hears anything.
        const CHUNKS: usize = 3 * 2 * 64 * 1024;
        // The turn, which may be in the backlogs besides.
        let turn = self.said_in_turn as usize;
        let of_its_own =
            |one: &Member| 2 * one.unfinished.len() + 200 * (one.own_words + one.acks_in_turn + 2);
        // One copy for all who are behind, as far as the one is that is furthest.
        let shared = |dialect: &Dialect| {
            let members = self.members.values().filter(|one| one.dialect == *dialect);
            members
                .map(|one| one.due.len() + one.holds)
                .max()
                .unwrap_or(0)
        };
        let own: usize = self.members.values().map(of_its_own).sum();
        let past = if self.limits.history > 0 {
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
            .map(|who| {
                let is_possible = |end: &End| self.may_end(&self.members[who], *end, now, is_full);
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
             but the relay says {reasons:?}",
            self.closed
        );
    }

    /// Whether there is this reason for a connection to end.
    fn may_end(&self, member: &Member, end: End, now: Duration, is_full: bool) -> bool {
        let is_reason = |stage| self.is_reason(member, stage, end, now, is_full);
        is_reason(member.stage) || member.stage_before.is_some_and(is_reason)
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
                let is_cut = !member.unfinished.is_empty() && input_has_ended;
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
                    Dialect::Chat10 | Dialect::Chat64 => !member.lag.may_be_stalled,
                    Dialect::Ack64 => true,
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
                is_here && !member.unfinished.is_empty() && is_late
            }
            End::IdleTimeout => {
                let has_frames = self.protocols[member.dialect.index()].width > 0;
                let is_late = |timeout| now >= member.heard + timeout;
                is_here && has_frames && limits.idle_timeout.is_some_and(is_late)
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
                let is_throttled = limits.rate.is_some() || member.dialect == Dialect::Ack64;
                let is_held_back = is_throttled || self.may_have_been_paused();
                let has_left = is_here && (member.facts.is_gone || has_failed) && is_held_back;
                let is_late = is_unnamed && now >= member.since + SAFE_PENDING;
                // A peer that is gone needs its place less than a pending connection does, and one that
                // has been there longer needs it least.
                let comes_first = |(who, other): (&usize, &Member)| {
                    let is_older = other.id < member.id || is_late;
                    other.is_gone() && is_older && !self.closed.contains(who)
                };
                let is_first =
                    is_for_address || !self.is_paused || !self.members.iter().any(comes_first);
                is_needed && is_first && (has_left || is_late)
            }
            End::Shutdown => {
                let is_dismissed = member.is_let_go && (is_done || is_unnamed);
                is_dismissed || (self.has_stopped && (is_done || !self.is_stop_in_time))
            }
        }
    }
}

/// Whether each of `possible` can have one of `reasons` to itself: a matching, by augmenting paths.
fn is_match(possible: &[Vec<End>], reasons: &[End]) -> bool {
    let mut owners = vec![None; reasons.len()];
    (0..possible.len()).all(|who| {
        let mut seen = vec![false; reasons.len()];
        finds_reason(who, possible, reasons, &mut owners, &mut seen)
    })
}

/// Finds a reason for one of them, for which others may have to take another one.
fn finds_reason(
    who: usize,
    possible: &[Vec<End>],
    reasons: &[End],
    owners: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for (index, reason) in reasons.iter().enumerate() {
        if !possible[who].contains(reason) || mem::replace(&mut seen[index], true) {
            continue;
        }
        let is_free = match owners[index] {
            None => true,
            Some(owner) => finds_reason(owner, possible, reasons, owners, seen),
        };
        if is_free {
            owners[index] = Some(who);
            return true;
        }
    }
    false
}
