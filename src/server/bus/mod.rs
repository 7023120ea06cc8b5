//! The bus in the loop: two connections to the engine, what waits to be published here, and what the operator is
//! told of it.
//!
//! One connection writes and one reads, since the reading one is blocked in the engine most of the time. Both are
//! served once a turn: before the room is served, so that what other relays' members said is delivered in the
//! same turn as what is said here; and after it, so that one entry takes all that was said in the turn.

mod config;
mod figures;
mod lines;
mod link;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::system::System;
use crate::bus::{Failure, Found, Frames, Presence, Reader, Request, Terms, Value, Writer};
use crate::relay::{Ready, Relay, after};
use lines::BusLog;
use link::{Change, Link, Trouble};

pub use config::{BusConfig, Login};
pub(super) use figures::BusFigures;

/// An entry has at most this many bytes of messages, unless it is one message that is longer.
const MAX_ENTRY: usize = 64 * 1024;

/// A reply with entries has about this many bytes at the most.
const MAX_REPLY: usize = 8 * 1024 * 1024;

/// How many entries a reply may have.
const PAGE: usize = 64;

/// How long the engine waits for the next entry, before the relay asks again.
const BLOCK: Duration = Duration::from_secs(10);

/// How long the relay waits with accepting until it has the history.
const HISTORY_WAIT: Duration = Duration::from_secs(2);

/// What a reply that is due to the reading connection belongs to.
#[derive(Debug)]
enum Asked {
    SetEpoch,
    Epoch,
    Presence(Request),
    Entries,
}

/// Messages of another relay that are not published yet.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// How much of them was published.
    published: usize,
    said_at: Duration,
}

/// The bus, as the loop has it.
#[derive(Debug)]
pub(super) struct Bus<T> {
    config: BusConfig,
    terms: Terms,
    writing: Link<T>,
    reading: Link<T>,
    writer: Writer,
    reader: Reader,
    presence: Presence,
    asked: VecDeque<Asked>,
    /// Requests of the reader that are not sent yet.
    held: Vec<Request>,
    found: Vec<Found>,
    waiting: VecDeque<Waiting>,
    /// The next entry's messages.
    batch: Vec<u8>,
    /// The epoch of the stream, once it is known.
    epoch: Option<Vec<u8>>,
    random: u64,
    started: Instant,
    /// Until when accepting waits for the history.
    history_until: Option<Instant>,
    /// Since when it is up, or not.
    since: Instant,
    is_up: bool,
    /// That it is not up was logged.
    has_logged_trouble: bool,
    figures: BusFigures,
    log: BusLog,
}

impl<T: Read + Write> Bus<T> {
    /// A bus for this relay, which is to be connected in the first turn.
    pub(super) fn new<S: System<Stream = T>>(
        config: BusConfig,
        relay: &mut Relay<Stream<T>>,
        system: &mut S,
        now: Instant,
    ) -> Self {
        relay.join_bus(config.queue);
        let limits = relay.limits();
        let history = limits.history;
        let max_bytes = (limits.max_name + limits.max_message + 20).max(MAX_ENTRY);
        let page = (MAX_REPLY / max_bytes).clamp(1, PAGE);
        let random = system.random();
        Self {
            terms: Terms {
                key: format!("chatloop:{{{}}}", config.room).into_bytes(),
                node: config.node.clone().into_bytes(),
                keep: config.keep,
                page,
                block: BLOCK,
                patience: Duration::from_millis(100),
                expiry: 3 * BLOCK,
            },
            writing: Link::new(0, &config, max_bytes, Duration::ZERO, now),
            reading: Link::new(1, &config, max_bytes, BLOCK, now),
            writer: Writer::new(random, config.replicas),
            reader: Reader::new(random, history as u64, page),
            presence: Presence::new(config.node.clone().into_bytes()),
            asked: VecDeque::new(),
            held: Vec::new(),
            found: Vec::new(),
            waiting: VecDeque::new(),
            batch: Vec::new(),
            epoch: None,
            random,
            started: now,
            history_until: (history > 0).then(|| after(now, HISTORY_WAIT)),
            since: now,
            is_up: false,
            has_logged_trouble: false,
            figures: BusFigures::default(),
            log: BusLog::default(),
            config,
        }
    }

    /// Records what an event reports about one of the connections.
    pub(super) fn note(&mut self, index: usize, ready: Ready) {
        match index {
            0 => self.writing.note(ready),
            _ => self.reading.note(ready),
        }
    }

    /// Whether no connection may be accepted yet: a member that comes now would miss the history.
    pub(super) const fn holds_accept(&self) -> bool {
        self.history_until.is_some()
    }

    /// Whether messages wait that the engine has not acknowledged, and it would take them.
    pub(super) fn is_busy(&self, lag: u64) -> bool {
        self.is_up && (lag > 0 || self.writer.in_flight() > 0)
    }

    /// Whether there is work that needs no event.
    pub(super) fn has_ready(&self, relay: &Relay<Stream<T>>) -> bool {
        let may_publish = !self.waiting.is_empty() && relay.bus_due().is_none();
        let may_send = self.writer.may_push() && relay.bus_lag() > 0;
        may_publish || may_send || self.writing.has_ready() || self.reading.has_ready()
    }

    /// When there is something to do at the latest.
    pub(super) fn next_timeout(&self, relay: &Relay<Stream<T>>) -> Option<Instant> {
        let round = relay.bus_due().filter(|_| !self.waiting.is_empty());
        let links = [self.writing.next_timeout(), self.reading.next_timeout()];
        let others = [round, self.history_until];
        links.into_iter().chain(others).flatten().min()
    }

    /// What the metrics and the operator's questions are answered from.
    pub(super) fn figures(&self, relay: &Relay<Stream<T>>, now: Instant) -> BusFigures {
        BusFigures {
            is_up: self.is_up,
            since: now.saturating_duration_since(self.since),
            lag: relay.bus_lag(),
            in_flight: self.writer.in_flight(),
            under_replicated: self.writer.under_replicated(),
            members: self
                .presence
                .others()
                .map(|(node, members)| (node.into(), members))
                .collect(),
            ..self.figures.clone()
        }
    }

    /// Serves both connections, and publishes what other relays' members said. Must be called before the room is
    /// served.
    pub(super) fn serve<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        relay: &mut Relay<Stream<T>>,
        scratch: &mut [u8],
        now: Instant,
    ) {
        if self.history_until.is_some_and(|until| until <= now) {
            self.history_until = None;
            self.log.history_is_late();
        }
        self.serve_writing(system, relay, scratch, now);
        self.serve_reading(system, relay, scratch, now);
        self.take_found(relay, now);
        self.publish(relay, now);
        self.ask_entries(relay.members().total(), now);
        self.follow_state(relay, now);
    }

    fn serve_writing<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        relay: &Relay<Stream<T>>,
        scratch: &mut [u8],
        now: Instant,
    ) {
        let (link, writer) = (&mut self.writing, &mut self.writer);
        let changes = [
            link.check(system, now),
            link.read(system, scratch, now, |reply| writer.on_reply(reply)),
            link.connect_if_due(system, &self.config, now),
        ];
        if link.is_up() && writer.awaited() == 0 {
            link.expect_nothing();
        }
        for change in changes.into_iter().flatten() {
            match change {
                Change::Connected => self.writer.on_connected(),
                Change::Lost(trouble) => self.on_writing_lost(&trouble, relay, now),
            }
        }
    }

    fn on_writing_lost(&mut self, trouble: &Trouble, relay: &Relay<Stream<T>>, now: Instant) {
        self.writer.on_disconnected();
        self.on_lost(self.writing.peer(), trouble, relay, now);
    }

    fn serve_reading<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        relay: &Relay<Stream<T>>,
        scratch: &mut [u8],
        now: Instant,
    ) {
        let mut replies = Vec::new();
        let link = &mut self.reading;
        let read = link.read(system, scratch, now, |reply| {
            replies.push(reply);
            Ok(())
        });
        for reply in replies {
            if let Err(failure) = self.on_reply(reply, now) {
                let lost = self.reading.lose(Trouble::Failure(failure), system, now);
                self.on_reading_change(&lost, relay, now);
                break;
            }
        }
        let link = &mut self.reading;
        let changes = [
            read,
            link.check(system, now),
            link.connect_if_due(system, &self.config, now),
        ];
        for change in changes.into_iter().flatten() {
            self.on_reading_change(&change, relay, now);
        }
    }

    fn on_reading_change(&mut self, change: &Change, relay: &Relay<Stream<T>>, now: Instant) {
        match change {
            Change::Connected => {
                self.asked.clear();
                self.ask(&Request::SetEpoch(self.random), Asked::SetEpoch, now);
                self.ask(&Request::Epoch, Asked::Epoch, now);
                self.presence.on_connected();
                let uptime = now.saturating_duration_since(self.started);
                self.reader.on_connected(uptime);
            }
            Change::Lost(trouble) => {
                self.asked.clear();
                self.held.clear();
                self.presence.on_disconnected();
                self.reader.on_disconnected();
                self.on_lost(self.reading.peer(), trouble, relay, now);
            }
        }
    }

    fn ask(&mut self, request: &Request, asked: Asked, now: Instant) {
        request.encode(&self.terms, self.reading.requests(now));
        self.asked.push_back(asked);
    }

    /// A reply to the reading connection.
    fn on_reply(&mut self, reply: Value, now: Instant) -> Result<(), Failure> {
        match self.asked.pop_front().ok_or(Failure::Unexpected)? {
            Asked::Entries => {
                let uptime = now.saturating_duration_since(self.started);
                // The engine's time is cut to milliseconds. What was said in the first one is not from before.
                self.reader.set_uptime(uptime + Duration::from_millis(1));
                self.reader.on_reply(reply, &mut self.found)
            }
            Asked::Presence(request) => {
                if let Some(next) = self.presence.on_reply(&request, reply)? {
                    self.ask(&next, Asked::Presence(next.clone()), now);
                }
                Ok(())
            }
            Asked::SetEpoch => match reply {
                Value::Error(text) => Err(Failure::Refused(text)),
                _ => Ok(()),
            },
            Asked::Epoch => {
                let Value::Bytes(epoch) = reply else {
                    return Err(Failure::Unexpected);
                };
                if self.epoch.as_ref().is_some_and(|known| *known != epoch) {
                    self.figures.replaced += 1;
                    self.log.replaced();
                }
                self.epoch = Some(epoch);
                Ok(())
            }
        }
    }

    /// Deals with what was found in the stream.
    fn take_found(&mut self, relay: &mut Relay<Stream<T>>, now: Instant) {
        for found in std::mem::take(&mut self.found) {
            match found {
                // Members that came before it would receive it as if it were said now.
                Found::Messages {
                    is_history: true, ..
                } if self.history_until.is_none() => {}
                Found::Messages { ms, bytes, .. } => self.waiting.push_back(Waiting {
                    bytes,
                    published: 0,
                    said_at: Duration::from_millis(ms),
                }),
                Found::Missing { node, messages } => {
                    self.figures.count_missing(&node, messages);
                    self.log.missing(&node, messages);
                }
                Found::Unreadable(id) => {
                    self.figures.unreadable += 1;
                    self.log.unreadable(id, now);
                }
                Found::HistoryRead => {
                    if self.history_until.take().is_some() {
                        let messages = self.publish_all(relay, now);
                        self.log.history(messages);
                    }
                }
            }
        }
    }

    /// Publishes everything that waits: the history. Returns how many messages that are.
    fn publish_all(&mut self, relay: &mut Relay<Stream<T>>, now: Instant) -> u64 {
        let before = self.figures.received;
        self.publish_up_to(usize::MAX, relay, now);
        self.figures.received - before
    }

    /// Publishes what waits, as far as the room takes it now.
    fn publish(&mut self, relay: &mut Relay<Stream<T>>, now: Instant) {
        if !self.waiting.is_empty() {
            let budget = relay.bus_budget(now);
            self.publish_up_to(budget, relay, now);
        }
    }

    fn publish_up_to(&mut self, mut budget: usize, relay: &mut Relay<Stream<T>>, now: Instant) {
        while let Some(waiting) = self.waiting.front_mut() {
            let mut frames = Frames::new(&waiting.bytes[waiting.published..]);
            while budget > 0
                && let Some((name, message)) = frames.next()
            {
                budget = budget.saturating_sub(name.len() + message.len() + 1);
                match relay.publish_from_bus(name, message, waiting.said_at) {
                    Ok(()) => self.figures.received += 1,
                    Err(error) => {
                        self.figures.unreadable += 1;
                        self.log.too_long(&error, now);
                    }
                }
            }
            waiting.published = waiting.bytes.len() - frames.rest().len();
            if !frames.rest().is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Asks for the next entries, once all that were found are published: the stream can wait, and memory cannot.
    /// Before that it is said that this relay is there, if that is due: while the engine waits for the next entry,
    /// it answers nothing else.
    fn ask_entries(&mut self, members: usize, now: Instant) {
        self.held.extend(self.reader.take_requests());
        if self.reading.is_up() && self.asked.is_empty() {
            self.reading.expect_nothing();
        }
        if self.held.is_empty() || !self.waiting.is_empty() || !self.reading.is_connected() {
            return;
        }
        let uptime = now.saturating_duration_since(self.started);
        let boot = self.writer.boot();
        let will_wait = |request: &Request| matches!(request, Request::After(_));
        if !self.held.iter().any(will_wait) {
            return self.ask_held(now);
        }
        for request in self.presence.requests(boot, members, uptime) {
            self.ask(&request, Asked::Presence(request.clone()), now);
        }
        let is_presence = |asked: &Asked| matches!(asked, Asked::Presence(_));
        if !self.asked.iter().any(is_presence) {
            self.ask_held(now);
        }
    }

    fn ask_held(&mut self, now: Instant) {
        for request in std::mem::take(&mut self.held) {
            self.ask(&request, Asked::Entries, now);
        }
    }

    /// Sends what members said. Must be called when the turn was delivered.
    pub(super) fn send<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        relay: &mut Relay<Stream<T>>,
        now: Instant,
    ) {
        let given_up = relay.give_up_for_bus();
        if given_up > 0 {
            self.figures.given_up += given_up;
            self.log.given_up(self.figures.given_up, now);
        }
        self.writer.give_up(given_up);
        while self.writer.may_push() {
            self.batch.clear();
            let count = relay.take_for_bus(MAX_ENTRY, &mut self.batch);
            if count == 0 {
                break;
            }
            self.writer.push(&self.batch, count);
            self.figures.sent += 1;
        }
        self.batch.shrink_to(MAX_ENTRY);
        let requests = self.writer.take_requests();
        if !requests.is_empty() {
            let out = self.writing.requests(now);
            for request in requests {
                request.encode(&self.terms, out);
            }
        }
        if let Some(Change::Lost(trouble)) = self.writing.flush(system, now) {
            self.on_writing_lost(&trouble, relay, now);
        }
        if let Some(lost) = self.reading.flush(system, now) {
            self.on_reading_change(&lost, relay, now);
        }
    }

    /// One of the connections was lost, or could not be made.
    fn on_lost(
        &mut self,
        peer: SocketAddr,
        trouble: &Trouble,
        relay: &Relay<Stream<T>>,
        now: Instant,
    ) {
        if self.is_up {
            self.is_up = false;
            self.since = now;
        }
        if !std::mem::replace(&mut self.has_logged_trouble, true) {
            self.log.down(peer, trouble, relay.bus_lag());
        }
    }

    /// Notices that both connections can be used.
    fn follow_state(&mut self, relay: &Relay<Stream<T>>, now: Instant) {
        if self.is_up || !self.writing.is_up() || !self.reading.is_up() {
            return;
        }
        self.is_up = true;
        let lasted = now.saturating_duration_since(self.since);
        let was_down = std::mem::take(&mut self.has_logged_trouble).then_some(lasted);
        self.since = now;
        let peer = self.writing.peer();
        self.log.up(peer, &self.config, was_down, relay.bus_lag());
    }
}
