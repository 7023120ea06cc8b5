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

use chatloop::relay::{ConnId, Limits};
use chatloop::server::Config;
use chatloop::wire::Dialect;

use super::plan::Plan;

/// What a newcomer gets that is late with its name, and has sent something.
const PUT_OFF: Duration = Duration::from_millis(100);

/// How long somebody without a name keeps its place though that is needed, to a second.
const SAFE_WITHOUT_NAME: Duration = Duration::from_secs(1);

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
        let wording = &config.wording;
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
                ack: or(&wording.ack, "Message was Sent!"),
                farewell: or(&wording.farewell, "Client Disconnected"),
                is_farewell_heard: true,
                ..silent
            },
            Dialect::Ack64 => Self {
                width: 64,
                ack: or(&wording.ack, "Msg received"),
                farewell: or(&wording.farewell, "!DISCONNECT"),
                ..silent
            },
            Dialect::Greet10 => Self {
                hears: Hears::Time,
                greeting: frame(&or(&wording.greeting, "Welcome to the server!")),
                ..silent
            },
            Dialect::Hello => Self {
                greeting: or(&wording.greeting, "welcome to the server!"),
                ..silent
            },
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

/// Why a connection may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Eof,
    TruncatedFrame,
    Protocol,
    HandshakeTimeout,
    SlowConsumer,
    Dripping,
    MessageTimeout,
    IdleTimeout,
    OutOfMemory,
    Farewell,
    FarewellTimeout,
    Greeted,
    Unheard,
    Evicted,
    Io,
    Shutdown,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitingName,
    Here,
    /// It has said goodbye or was greeted, and this is all that it is told.
    Leaving,
    /// It has sent what is no frame, and nothing that it sends counts any more.
    Lost,
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
    /// The frame that precedes its messages.
    name: Vec<u8>,
    stage: Stage,
    /// Nothing more is due to it: the turn in which it took its leave is over.
    is_final: bool,
    /// The server stops, and has said so.
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
    facts: Facts,
}

impl Member {
    /// Whether it was about to leave before this turn's end. Who is let go in a turn may have had to go
    /// already for another reason.
    fn is_leaving(&self) -> bool {
        self.stage == Stage::Leaving && (self.is_final || !self.is_let_go)
    }
}

/// What has happened to a connection that may be a reason for its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// A read has said that this is the end of the input.
    pub input_has_ended: bool,
    /// What ended was a frame too.
    is_truncated: bool,
    /// A call on it has failed, or an event has said that it is over.
    pub has_failed: bool,
    /// Something was written to it after its input had ended.
    told_since_end: bool,
    /// It was the kernel's word that nothing was left to be read.
    pub is_read_dry: bool,
    /// When a write last moved something.
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
    /// When the time is to be told next, if somebody hears it.
    tick_due: Duration,
    protocols: Vec<Protocol>,
    /// For each dialect, if its members are told of the past.
    pasts: Vec<Option<Past>>,
    past_bytes: usize,
    members: BTreeMap<usize, Member>,
    /// What was read last. If the very next thing that happens is that its connection is closed, the
    /// server may have read it only to throw it away.
    fresh: Option<(usize, Vec<Vec<u8>>)>,
    /// What was read last from who was closed first in this turn, if it is so.
    undecided: Option<(usize, Vec<Vec<u8>>)>,
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
    pub connections: usize,
    pub members: usize,
    pub held_bytes: u64,
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
            tick_due: Duration::MAX,
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
            member.is_final = member.stage == Stage::Leaving;
            if member.due.is_empty() {
                member.holds = 0;
                member.own_words = 0;
                member.behind_since = self.now;
            }
        }
        self.said_in_turn = 0;
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
        if let (Some(every), Dialect::Greet10, false) = (self.every, dialect, self.has_audience()) {
            self.tick_due = now + every;
        }
        let protocol = &self.protocols[dialect.index()];
        let member = Member {
            dialect,
            id,
            since: now,
            behind_since: now,
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
        }
    }

    /// A connection has become a member.
    fn join(&mut self, who: usize) {
        let member = self.members.get_mut(&who).expect("it is here");
        if member.dialect == Dialect::Hello {
            member.stage = Stage::Leaving;
            member.is_final = true;
            return;
        }
        member.stage = Stage::Here;
        self.totals.joined += 1;
        if let Some(past) = &self.pasts[member.dialect.index()] {
            for message in &past.messages {
                member.due.extend(message);
                self.totals.deliveries += 1;
            }
        }
    }

    /// A read has brought this.
    pub fn read(&mut self, who: usize, bytes: &[u8]) {
        if !self.members.contains_key(&who) {
            return;
        }
        self.bytes_read += bytes.len() as u64;
        if !self.closed.is_empty() {
            self.bytes_thrown_away += bytes.len() as u64;
            return;
        }
        match &mut self.fresh {
            Some((last, pieces)) if *last == who => pieces.push(bytes.to_vec()),
            None if self.leaver == Some(who) => self.fresh = Some((who, vec![bytes.to_vec()])),
            _ => {
                self.settle();
                self.fresh = Some((who, vec![bytes.to_vec()]));
            }
        }
    }

    /// What was read last was not read in order to be thrown away.
    pub fn settle(&mut self) {
        if let Some((who, pieces)) = self.fresh.take() {
            for piece in pieces {
                self.take_in(who, &piece);
            }
        }
        if let Some(member) = self
            .leaver
            .take()
            .and_then(|who| self.members.get_mut(&who))
        {
            // Some are about to leave in any case.
            let is_last_ack = member.dialect == Dialect::Ack64 && member.facts.input_has_ended;
            member.is_let_go = member.stage != Stage::Leaving && !is_last_ack;
            if member.is_let_go && member.stage == Stage::Here {
                member.stage = Stage::Leaving;
            }
        }
    }

    /// The server lets go of a member, which is told what is said until the end of the turn.
    pub fn let_go(&mut self, who: usize) {
        self.settle();
        self.leaver = Some(who);
    }

    /// A connection has sent this, and the server means it.
    fn take_in(&mut self, who: usize, bytes: &[u8]) {
        let member = self.members.get_mut(&who).expect("it is here");
        member.heard = self.now;
        let width = self.protocols[member.dialect.index()].width;
        if width == 0 {
            member.noise += bytes.len();
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
                Stage::Leaving | Stage::Lost => return,
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
        speaker.due.extend(&protocol.ack);
        speaker.due_in_turn += protocol.ack.len();
        speaker.acks_in_turn += 1;
        speaker.own_words += 1;
        if !protocol.farewell.is_empty() && protocol.farewell == message {
            speaker.stage = Stage::Leaving;
            if !protocol.is_farewell_heard {
                return;
            }
        }
        self.totals.messages += 1;
        let framed = [&speaker.name[..], &frame(message)].concat();
        let as_heard = |protocol: &Protocol| match protocol.hears {
            Hears::Frames => framed.clone(),
            Hears::Payloads => message.to_vec(),
            Hears::Time | Hears::Nothing => Vec::new(),
        };
        for (protocol, past) in self.protocols.iter().zip(&mut self.pasts) {
            let words = as_heard(protocol);
            self.said_in_turn += words.len() as u64;
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
            let hears = matches!(member.stage, Stage::Here | Stage::Leaving) && !member.is_final;
            if whom != who && hears {
                member.due.extend(words);
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
        assert!(now >= self.tick_due, "the time is told before it is due");
        // In step, unless a whole step was missed.
        let in_step = Some(self.tick_due + every).filter(|&next| next > now);
        self.tick_due = in_step.unwrap_or(now + every);
        self.totals.ticks += 1;
        let fraction = format!("{:03}", millis % 1000);
        let fraction = match fraction.trim_end_matches('0') {
            "" => "0",
            some => some,
        };
        let told = frame(format!("The time is {}.{fraction}", millis / 1000).as_bytes());
        self.said_in_turn += told.len() as u64;
        for member in self.members.values_mut() {
            if member.dialect == Dialect::Greet10 && member.stage == Stage::Here {
                member.due.extend(&told);
                member.due_in_turn += told.len();
                self.totals.deliveries += 1;
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
        let facts = &mut member.facts;
        facts.progressed = now;
        facts.told_since_end |= facts.input_has_ended;
        if member.due.bytes().starts_with(bytes) {
            member.due.advance(bytes.len());
            member.due_in_turn = member.due_in_turn.min(member.due.len());
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

    /// Whether somebody hears the time.
    fn has_audience(&self) -> bool {
        let members = self.members.iter();
        let mut here = members
            .filter(|(who, _)| !self.closed.contains(who))
            .map(|(_, one)| one);
        let mut newcomers = self.newcomers.iter().map(|(_, one)| one);
        let hears = |member: &Member| member.dialect == Dialect::Greet10;
        here.any(hears) || newcomers.any(hears)
    }

    /// When the server has to have looked at its clock again, whatever happens, and what for.
    pub fn deadline(&self, now: Duration) -> Option<(Duration, &'static str)> {
        let limits = &self.limits;
        let is_running = !self.is_stopping;
        let of_members = self
            .members
            .values()
            .filter_map(|member| match member.stage {
                Stage::AwaitingName if is_running => {
                    // If it has sent something that is still to be read, it gets a little more.
                    let due = (member.since + limits.handshake_timeout).max(now + PUT_OFF);
                    Some((due, "a name is due"))
                }
                Stage::Leaving if !member.due.is_empty() => {
                    // It may have taken something since it was looked at, or be looked at late.
                    let late = now.saturating_sub(limits.farewell_timeout);
                    let due = member.facts.progressed.max(late) + 2 * limits.farewell_timeout;
                    Some((due, "somebody who leaves is to be gone"))
                }
                _ => None,
            });
        let tick = (self.tick_due.max(now), "the time is to be told");
        let of_audience =
            (is_running && self.every.is_some() && self.has_audience()).then_some(tick);
        of_members.chain(of_audience).min()
    }

    /// The server has closed a connection.
    pub fn close(&mut self, who: usize) {
        if !self.members.contains_key(&who) {
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
            let is_cut = !member.unfinished.is_empty() && !member.is_leaving();
            member.facts.is_truncated = member.facts.input_has_ended && is_cut;
        }
        self.match_ends(claims, now, is_full);
        self.take_in_newcomers();
        for who in mem::take(&mut self.closed) {
            self.members.remove(&who);
        }
        if !self.is_stopping {
            self.totals.refused += mem::take(&mut self.turned_away);
            assert_eq!(claims.refused, self.totals.refused, "refused");
        }
        let totals = &self.totals;
        let members = self.members.values();
        let is_member =
            |one: &&Member| one.stage != Stage::AwaitingName && one.dialect != Dialect::Hello;
        assert_eq!(claims.accepted, totals.accepted, "accepted");
        assert_eq!(claims.joined, totals.joined, "joined");
        assert_eq!(claims.messages, totals.messages, "messages");
        assert_eq!(claims.bytes_out, totals.bytes_told, "bytes out");
        assert_eq!(claims.connections, self.members.len(), "connections");
        assert_eq!(claims.members, members.filter(is_member).count(), "members");
        self.most_said_in_turn = self.most_said_in_turn.max(self.said_in_turn);
        let most = self.most_held();
        assert!(
            claims.held_bytes <= most,
            "{} bytes held, {most} allowed",
            claims.held_bytes
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

    /// How much of what was read last from who was closed first was thrown away, the relay's count of
    /// bytes tells.
    fn decide(&mut self, bytes_in: u64) {
        let mut thrown_away = self.bytes_read - self.bytes_thrown_away - bytes_in;
        self.bytes_thrown_away += thrown_away;
        if let Some((who, mut pieces)) = self.undecided.take() {
            while thrown_away > 0
                && let Some(last) = pieces.pop()
            {
                thrown_away = thrown_away.wrapping_sub(last.len() as u64);
            }
            for piece in pieces {
                self.take_in(who, &piece);
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
        own + Dialect::ALL.iter().map(shared).sum::<usize>() + past + CHUNKS
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
                let is_possible = |end: &End| self.can_be(&self.members[who], *end, now, is_full);
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
    fn can_be(&self, member: &Member, end: End, now: Duration, is_full: bool) -> bool {
        let Facts {
            input_has_ended,
            is_truncated,
            has_failed,
            told_since_end,
            is_read_dry,
            progressed,
        } = member.facts;
        let limits = &self.limits;
        let is_over = input_has_ended || has_failed;
        let is_hello = member.dialect == Dialect::Hello;
        let is_leaving = member.is_leaving();
        let is_unnamed = member.stage == Stage::AwaitingName;
        let is_ack64 = member.dialect == Dialect::Ack64;
        match end {
            End::SlowConsumer | End::OutOfMemory if self.reading == Reading::Always => false,
            End::Dripping if self.reading != Reading::AsTheyLike => false,
            End::Eof => {
                let has_all = is_ack64 && member.due.is_empty();
                let says_all = is_unnamed || has_all || has_failed;
                is_over && says_all && is_read_dry && !is_truncated && !is_leaving
            }
            End::TruncatedFrame => is_truncated && is_read_dry,
            End::Protocol => member.stage == Stage::Lost,
            End::HandshakeTimeout => is_unnamed && now >= member.since + limits.handshake_timeout,
            End::SlowConsumer => {
                let own = member.holds + 64 * (member.own_words + 1);
                member.due.len() + own > limits.queue_limit
            }
            End::Dripping => {
                !member.due.is_empty() && now >= member.behind_since + limits.slow_timeout
            }
            End::MessageTimeout => {
                let is_late = now >= member.begun + limits.message_timeout;
                !is_unnamed && !is_leaving && !member.unfinished.is_empty() && is_late
            }
            End::IdleTimeout => {
                let is_late = |timeout| now >= member.heard + timeout;
                !is_leaving && limits.idle_timeout.is_some_and(is_late)
            }
            End::OutOfMemory => self.may_be_held() > limits.max_memory,
            End::Farewell => {
                let has_all = member.due.is_empty() || is_over;
                is_leaving && !is_hello && !member.is_let_go && has_all
            }
            End::Greeted => is_hello && (member.due.is_empty() || is_over),
            End::FarewellTimeout => {
                let is_last = is_leaving || (is_ack64 && input_has_ended);
                let waited = now >= progressed + limits.farewell_timeout;
                is_last && (!member.due.is_empty() || has_failed) && waited
            }
            End::Unheard => member.noise > limits.max_message,
            End::Evicted => {
                let is_late = is_unnamed && now >= member.since + SAFE_WITHOUT_NAME;
                let is_needed = is_full || limits.max_per_ip.is_some();
                is_needed && (is_late || (input_has_ended && !told_since_end))
            }
            End::Io => has_failed && is_read_dry,
            End::Shutdown => {
                let has_all = member.due.is_empty() || has_failed;
                let is_let_go = member.is_let_go && (has_all || is_over || is_unnamed);
                is_let_go || (self.has_stopped && (has_all || !self.is_stop_in_time))
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
