//! What a simulation is like: limits, sockets, peers and faults, all of them chosen.
//!
//! # What the plans leave out
//!
//! Where an exact answer would depend on something that the model does not know, the plan leaves the question
//! out, so that every byte can be compared:
//!
//! - Heartbeats of the server are on only where a poll returns all events, since timeouts may be put off otherwise.
//! - Where the room may be paused, the history of browsers is limited by the number of its messages and not
//!   by its bytes: a pause notice between two of them counts, and it shows only in what is delivered.
//! - A socket of a WebSocket listener has room for the answer to a handshake, as that of a kernel has.
//! - A peer sends no ping before its name.
//! - There are never so many connections that use HTTP that the oldest one is closed, except for those to
//!   the listeners for metrics.
//! - No peer asks for the metrics: the process's own figures are in them. The simulation reads them itself.

use std::net::SocketAddr;
use std::time::Duration;

use chatloop::relay::{Limits, ReplyTexts, Slow};
use chatloop::server::{Config, Endpoint, Preamble};
use chatloop::wire::Dialect;

use super::choices::Choices;
use super::faults::Fault;
use super::model::MIN_READ_RATE;
use super::web;

/// What the connections of proxies begin with.
pub const PROXIED: Preamble = Preamble {
    proxy_header: true,
    ..Preamble::NONE
};

/// Nearly all messages of a chat are short.
const USUAL_MESSAGE: usize = 40;

/// The choices that are made once, before anything happens.
pub struct Plan {
    pub config: Config,
    /// How many things happen before everybody is left in peace.
    pub steps: usize,
    /// With how many of them left the server is asked to stop, and asked again.
    pub stops: [Option<usize>; 2],
    /// How many peers there are at once, at most.
    pub peers: usize,
    /// How many descriptors there are for connections and the reserve.
    pub descriptors: usize,
    /// How many bytes fit a socket's buffers, at least and at most.
    pub window: (usize, usize),
    pub buffer: (usize, usize),
    /// How many bytes the network moves at once, at most.
    pub piece: usize,
    /// How often each kind of fault strikes, of 1,024 times.
    pub rates: Vec<u16>,
    /// How often each kind of thing happens.
    pub weights: Weights,
    /// How many things happen between two turns of a busy server, at most.
    pub pace: usize,
    /// How many events one poll fetches.
    pub batch: usize,
    /// Long messages, so that they take several of everything.
    pub longest_message: usize,
    /// Most messages are no longer than this.
    pub usual_message: usize,
    /// Everybody reads: within so much time each takes all that its socket was given.
    pub reads_within: Option<Duration>,
    /// But now and then a peer reads nothing for a while.
    pub has_pauses: bool,
}

/// How often each kind of thing happens, relative to the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    pub connect: usize,
    pub publish: usize,
    pub flood: usize,
    pub change_reading: usize,
    pub leave: usize,
    pub misbehave: usize,
    pub arrive: usize,
    pub drain: usize,
    pub wait: usize,
    pub trouble: usize,
}

impl Plan {
    /// Nothing goes wrong but what is asked for: a room for every dialect, and every limit its default.
    pub fn quiet() -> Self {
        Self {
            config: config(Dialect::ALL.map(endpoint).to_vec()),
            steps: 0,
            stops: [None; 2],
            peers: 100,
            descriptors: 1000,
            window: (65536, 65536),
            buffer: (65536, 65536),
            piece: 65536,
            rates: vec![0; Fault::ALL.len()],
            weights: Weights::default(),
            pace: 1,
            batch: 1024,
            longest_message: 1000,
            usual_message: USUAL_MESSAGE,
            reads_within: None,
            has_pauses: false,
        }
    }

    /// A plan of one of these kinds.
    pub fn chosen(choices: &mut Choices) -> Self {
        match choices.below(4) {
            2 if choices.below(4) < 3 => Self::short_of_memory(choices),
            3 => Self::in_which_everybody_reads(choices),
            _ => Self::of_small_things(choices),
        }
    }

    /// A room in which long messages come in pieces to many lagging members, and little memory for all of
    /// them.
    fn short_of_memory(choices: &mut Choices) -> Self {
        let mut plan = Self::of_small_things(choices);
        let limits = &mut plan.config.limits;
        limits.max_clients = usize::MAX;
        limits.max_per_ip = None;
        limits.max_message = choices.between(20_000, 100_000);
        limits.history_bytes = choices.one_of(&[0, 5000]);
        limits.read_budget = choices.one_of(&[5000, 65_536]);
        limits.turn_budget = choices.one_of(&[1000, 262_144]);
        limits.queue_limit = limits.largest_delivery() + limits.history_bytes;
        limits.queue_limit *= choices.one_of(&[1, 4, 10]);
        if limits.slow == Slow::Pace {
            limits.timed_history = 0;
        }
        limits.soft_limit = limits.queue_limit / choices.one_of(&[2, 8]);
        limits.max_memory = limits.least_memory() + choices.one_of(&[0, 1000, 200_000]);
        let max_message = limits.max_message;
        plan.steps = choices.between(200, 800);
        plan.peers = choices.one_of(&[8, 40]);
        plan.descriptors = 1000;
        plan.window = (4096, 65_536);
        plan.buffer = (4096, 65_536);
        plan.piece = choices.one_of(&[5000, 50_000]);
        plan.weights.connect += 4;
        plan.longest_message = max_message;
        plan.usual_message = choices.one_of(&[USUAL_MESSAGE, max_message]);
        plan
    }

    /// A plan in which most things are chosen to be small, since that is where the edges are.
    fn of_small_things(choices: &mut Choices) -> Self {
        let all = Dialect::ALL;
        let mut listen: Vec<_> = all.map(endpoint).to_vec();
        // Some rooms are for one dialect alone, some for few, and some have two listeners of the same.
        match choices.below(12) {
            0 => listen.truncate(1),
            1 => listen = vec![endpoint(choices.one_of(&all))],
            2 => listen.push(endpoint(choices.one_of(&all))),
            3 => listen = [Dialect::Ws, Dialect::Chat10].map(endpoint).to_vec(),
            4 => {
                listen = [
                    Dialect::Ws,
                    Dialect::WsChat10,
                    Dialect::WsEcho,
                    Dialect::Echo,
                ]
                .map(endpoint)
                .to_vec();
            }
            5..8 => listen.truncate(TUTORIALS),
            _ => {}
        }
        let mut config = config(listen);
        let is_large = choices.below(12) == 0;
        let max_message = if is_large {
            choices.between(60_000, 200_000)
        } else {
            choices.one_of(&[0, 1, 20, 100, 400, 2000])
        };
        if choices.below(4) == 0 {
            let count = choices.between(1, 3);
            config.listen_with = (0..count)
                .map(|_| (PROXIED, endpoint(choices.one_of(&all))))
                .collect();
            // Some peers are proxies that are not trusted.
            config.trusted_proxies = vec!["198.51.100.0/24".parse().expect("a network")];
        }
        let has_browsers = config
            .listeners()
            .map(|(_, one)| one)
            .any(|one| one.dialect == Dialect::Ws);
        config.limits = chosen_limits(choices, max_message, has_browsers);
        config.texts = chosen_texts(choices);
        config.every = match choices.below(4) {
            // To work off what was sent too fast may take days, and they are not counted.
            _ if config.limits.rate.is_some() => None,
            0 => None,
            1 => Some(Duration::from_millis(choices.between(20, 500) as u64)),
            _ => Some(Duration::from_secs(3)),
        };
        config.drain = Duration::from_millis(choices.one_of(&[0, 10, 1000, 5000, 60_000]));
        let mut rates = chosen_rates(choices);
        let batch = choices.one_of(&[1, 2, 8, 1024, 1024]);
        config.heartbeat = chosen_heartbeat(choices, batch, &mut rates);
        let mut weight = |most: usize| choices.below(most + 1);
        let weights = Weights {
            connect: 1 + weight(6),
            publish: 1 + weight(20),
            flood: weight(2),
            change_reading: weight(4),
            leave: weight(3),
            misbehave: weight(2),
            arrive: 4 + weight(30),
            drain: 4 + weight(30),
            wait: 1 + weight(6),
            trouble: 1 + weight(3),
        };
        let steps = choices.between(50, if is_large { 400 } else { 1500 });
        let asked_to_stop = match choices.below(6) {
            0 => [Some(choices.below(steps)), None],
            1 => {
                let first = choices.below(steps);
                [
                    Some(first),
                    Some(first.saturating_sub(choices.between(1, 4))),
                ]
            }
            _ => [None; 2],
        };
        Self {
            steps,
            stops: asked_to_stop,
            peers: choices.one_of(&[2, 3, 5, 8, 12, 40]),
            descriptors: choices.one_of(&[2, 3, 6, 20, 1000, 1000, 1000]),
            window: chosen_sizes(choices, is_large),
            buffer: chosen_sizes(choices, is_large),
            piece: choices
                .one_of(&[1, 7, 11, 100, 5000, 200_000])
                .max(max_message / 40),
            rates,
            weights,
            pace: choices.one_of(&[1, 3, 10, 40]),
            batch,
            longest_message: max_message,
            usual_message: USUAL_MESSAGE,
            reads_within: None,
            has_pauses: false,
            config,
        }
    }

    /// A room in which many send without end and all read, some of them slowly: however fast
    /// the others send, none is cut off.
    fn in_which_everybody_reads(choices: &mut Choices) -> Self {
        let mut plan = Self::quiet();
        let limits = &mut plan.config.limits;
        limits.max_name = choices.one_of(&[0, 16, 256]);
        limits.max_message = choices.one_of(&[0, 20, 400, 2000, 8000]);
        limits.history = choices.one_of(&[0, 0, 3, 50]);
        limits.history_bytes = choices.one_of(&[0, 1000, 5000]);
        limits.read_budget = choices.one_of(&[13, 1000, 65_536, 65_536]);
        limits.turn_budget = choices.one_of(&[1000, 262_144]);
        limits.queue_limit = choices.between(16_000, 90_000);
        limits.soft_limit = limits.queue_limit / choices.one_of(&[2, 8]);
        limits.slow_timeout = millis(choices, &[10_000, 30_000]);
        limits.timed_history = choices.one_of(&[0, 1, 3]);
        make_room_for_history(limits);
        let max_message = limits.max_message;
        // Who takes all that its socket holds as often as this takes more than it has to, even if many a
        // write is short.
        let least = choices.one_of(&[3000, 8000, 20_000, 70_000, 140_000]);
        // Who pauses reads fast before and after that.
        plan.has_pauses = choices.below(3) == 0;
        let is_slow = !plan.has_pauses && choices.below(2) == 0;
        let times = if is_slow { 2 } else { 16 };
        let often_enough = Duration::from_secs(1) * least as u32 / (times * MIN_READ_RATE as u32);
        plan.reads_within = Some(often_enough.min(limits.slow_timeout / 10));
        plan.buffer = (least, if is_slow { least } else { 2 * least });
        plan.window = choices.one_of(&[(500, 2000), (5000, 20_000), (70_000, 70_000)]);
        if is_slow {
            // Then the others can publish more in a turn than it takes in all the time that it has.
            plan.window = (70_000, 70_000);
        }
        plan.config.texts = chosen_texts(choices);
        plan.steps = choices.between(500, 4000);
        plan.peers = choices.one_of(&[3, 5, 8, 12]);
        plan.piece = choices.one_of(&[100, 5000, 200_000]);
        plan.rates = chosen_rates(choices);
        if is_slow {
            for fault in [
                Fault::WriteWouldBlock,
                Fault::ShortWrite,
                Fault::LoneByteWritten,
            ] {
                let rate = &mut plan.rates[fault as usize];
                *rate = (*rate).min(16);
            }
        }
        if plan.has_pauses {
            // The little room that such an event finds makes a reader that has stopped one that accepts
            // next to nothing.
            plan.rates[Fault::SpuriousWritable as usize] = 0;
        }
        let mut weight = |most: usize| choices.below(most + 1);
        plan.weights = Weights {
            connect: 1 + weight(3),
            publish: 10 + weight(20),
            flood: 1 + weight(4),
            change_reading: usize::from(plan.has_pauses),
            leave: weight(1),
            misbehave: weight(1),
            arrive: 10 + weight(30),
            drain: if is_slow { 0 } else { 1 + weight(10) },
            wait: 1 + weight(if is_slow { 20 } else { 6 }),
            trouble: weight(1),
        };
        plan.pace = choices.one_of(&[1, 3, 10]);
        plan.batch = choices.one_of(&[2, 8, 1024, 1024]);
        plan.config.heartbeat = chosen_heartbeat(choices, plan.batch, &mut plan.rates);
        if choices.below(2) == 0 {
            plan.config.listen.truncate(TUTORIALS);
        }
        plan.longest_message = max_message;
        plan.usual_message = choices.one_of(&[USUAL_MESSAGE, 400, max_message]);
        plan
    }

    /// What connections of the listener of this index begin with, and their dialect.
    pub fn listener(&self, index: usize) -> (Preamble, Dialect) {
        let (preamble, endpoint) = self.config.listeners().nth(index).expect("a listener");
        (preamble, endpoint.dialect)
    }

    /// How often this strikes, of 1,024 times.
    pub fn rate(&self, fault: Fault) -> u16 {
        self.rates[fault as usize]
    }
}

/// How many of the dialects are those of the tutorials, which come first.
const TUTORIALS: usize = 5;

/// The defaults, with the host and the origin that some requests have.
fn config(listen: Vec<Endpoint>) -> Config {
    let mut config = Config::new(listen);
    config.web.hosts = vec![web::ALLOWED_HOST.to_owned()];
    config.web.origins = vec![web::ALLOWED_ORIGIN.to_owned()];
    config
}

/// The interval of heartbeats, if every poll returns all events.
fn chosen_heartbeat(choices: &mut Choices, batch: usize, rates: &mut [u16]) -> Option<Duration> {
    const UNLIMITED: usize = 1024;
    let millis = choices.one_of(&[0, 1000, 10_000, 45_000]);
    if batch < UNLIMITED || millis == 0 {
        return None;
    }
    rates[Fault::SmallBatch as usize] = 0;
    Some(Duration::from_millis(millis))
}

/// Raises the limits such that the messages that are kept for browsers always fit the memory for them.
fn make_room_for_history(limits: &mut Limits) {
    // Chat10, chat64 and both for browsers.
    const KEEPERS: usize = 4;
    // One that is named after its address may have a longer name than another.
    let longest = web::longest_message_frame(limits.max_name.max(64), limits.max_message) + 8;
    limits.history_bytes = limits
        .history_bytes
        .max(KEEPERS * limits.timed_history * longest);
    let needed = limits.largest_delivery() + limits.history_bytes;
    limits.queue_limit = limits.queue_limit.max(needed);
}

/// A listener for this dialect. Its address is not used.
fn endpoint(dialect: Dialect) -> Endpoint {
    Endpoint {
        dialect,
        addr: SocketAddr::from(([192, 0, 2, 1], 1234)),
    }
}

fn chosen_rates(choices: &mut Choices) -> Vec<u16> {
    Fault::ALL
        .iter()
        .map(|_| choices.one_of(&[0, 0, 0, 2, 16, 64, 300]))
        .collect()
}

fn chosen_sizes(choices: &mut Choices, is_large: bool) -> (usize, usize) {
    if is_large {
        return (4096, choices.one_of(&[4096, 65_536, 300_000]));
    }
    let least = choices.one_of(&[1, 5, 60, 3000, 70_000]);
    (least, choices.between(least, 4 * least + 200))
}

fn chosen_limits(choices: &mut Choices, max_message: usize, has_browsers: bool) -> Limits {
    let history = choices.one_of(&[0, 0, 1, 3, 50]);
    let mut limits = Limits {
        max_clients: choices.one_of(&[1, 2, 5, 10, usize::MAX, usize::MAX]),
        max_name: choices.one_of(&[0, 1, 16, 256]),
        max_message,
        handshake_timeout: Duration::from_millis(choices.one_of(&[50, 1000, 10_000])),
        farewell_timeout: Duration::from_millis(choices.one_of(&[50, 1000, 60_000])),
        history,
        history_bytes: choices.one_of(&[0, 100, 1000, 5000]),
        read_budget: choices
            .one_of(&[1, 3, 13, 64, 1000, 65_536])
            .max(max_message / 40),
        turn_budget: choices.one_of(&[1, 50, 1000, 262_144]),
        accept_budget: choices.one_of(&[1, 2, 64]),
        ..Limits::default()
    };
    limits.message_timeout = millis(choices, &[50, 5000, 60_000]);
    limits.rate = match choices.below(6) {
        0 => Some(choices.one_of(&[1000, 100_000])),
        _ => None,
    };
    // A member over its quota is looked at ten times a second if it may not be idle, and
    // that is not counted for days.
    limits.idle_timeout = match choices.below(6) {
        0 if limits.rate.is_none() => Some(millis(choices, &[50, 5000, 60_000])),
        _ => None,
    };
    limits.max_per_ip = match choices.below(6) {
        0 => Some(choices.between(1, 4)),
        _ => None,
    };
    limits.accept_rate = match choices.below(6) {
        0 => Some(choices.one_of(&[1, 10, 1000])),
        _ => None,
    };
    limits.slow = choices.one_of(&[Slow::Pace, Slow::Cut]);
    limits.timed_history = choices.one_of(&[0, 1, 3, 50]);
    let past = if history > 0 { limits.history_bytes } else { 0 };
    let more = choices.one_of(&[0, 1, 500, 5000, 1_000_000]);
    limits.queue_limit = limits.largest_delivery() + past + more;
    if has_browsers && limits.slow == Slow::Pace {
        limits.timed_history = limits.timed_history.min(3);
        make_room_for_history(&mut limits);
    }
    limits.slow_timeout = millis(choices, &[50, 5000, 1_000_000]);
    limits.soft_limit = choices.one_of(&[0, 1, 100, limits.queue_limit - 1]);
    limits.soft_limit = limits.soft_limit.min(limits.queue_limit - 1);
    if choices.below(4) == 0 {
        // For little more than that: see `short_of_memory`. What is behind, and what is history, is held in chunks, of which each dialect has its own that receives what others send.
        const CHUNKS: usize = 5 * 2 * 64 * 1024;
        limits.max_memory = limits.least_memory() + CHUNKS + choices.one_of(&[0, 1000, 200_000]);
    }
    limits
}

fn millis(choices: &mut Choices, all: &[u64]) -> Duration {
    Duration::from_millis(choices.one_of(all))
}

fn chosen_texts(choices: &mut Choices) -> ReplyTexts {
    // Some are empty, and some are longer than a buffer.
    let mut words = |all: &[&[u8]]| {
        let chosen = choices.below(3 * all.len());
        all.get(chosen).map(|words| words.to_vec())
    };
    ReplyTexts {
        greeting: words(&[b"", b"hi", &[b'g'; 700]]),
        ack: words(&[b"", b"k", &[b'a'; 300]]),
        farewell: words(&[b"", b"bye"]),
    }
}
