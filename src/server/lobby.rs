//! The lobby: connections that speak HTTP until they are WebSocket connections, or have the page; connections
//! whose proxy has not stated their address yet; and those whose TLS handshake is not complete.
//!
//! The room knows nothing of HTTP, of proxies and of handshakes. A connection of a listener for proxies waits here
//! until the header of the PROXY protocol has come, one of a listener with TLS until its handshake is complete,
//! and one of a WebSocket listener until the head of its request has come. Then it is given the page, refused, or
//! becomes a connection of the relay, under its client's address. The lobby is small and nothing waits long in
//! it, so that it cannot be used to hold memory: when it is full, the oldest goes.
//!
//! **Handshakes do not starve the room.** Each takes a private key, which is work for as long as some hundred
//! deliveries take, and after a restart all members come back at once. So a turn spends no more than
//! [`HANDSHAKE_TIME`] on that, in the order in which their connections came. The others wait unread, and not
//! against their deadline. A connection with TLS counts as one of the relay's from the beginning, and as one of its
//! address: where there is no place for it, it is refused before anything is computed for it. Whose connection a
//! proxy forwards is not known then, so it counts for its address as soon as it is the relay's.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use super::access::{Access, Denied};
use super::certificates::Certificates;
use super::http::{self, MAX_HEAD, Request};
use super::listener::{Preamble, Via};
use super::members::Cursor;
use super::page;
use super::password::{Password, Proof};
use super::proxy_header::{self, BadHeader, Progress};
use super::records::MAX_RECORD;
use super::stream::{Handshake, Stream};
use super::tls::{Failure, Session};
use super::trusted::Proxies;
use crate::relay::{Limits, PeerAddr, PerAddress, Ready, SAFE_PENDING, after};
use crate::wire::{Dialect, Sends};

/// How many connections are in the lobby at once, besides those that only ask the relay about itself.
const MAX_VISITORS: usize = 256;

/// How many connections ask the relay about itself at once: at its listeners for metrics, and again at its
/// admin socket. They have places of their own, so that no other connections keep them out; and few, so
/// that those that never read hold little.
const MAX_SCRAPERS: usize = 16;

/// How many watchers there are at once.
const MAX_WATCHERS: usize = 4;

/// How much a watcher may lag behind the trace, in bytes. Turns that do not fit are lost to it.
const MAX_WATCHER_LAG: usize = 1024 * 1024;

/// After this much time a turn begins no further step of a handshake. It is a time and no number, since one machine
/// takes a tenth of a millisecond for a step and another takes some; and it is not less, since members would come back
/// slowly to a room whose turns are long because it is large.
const HANDSHAKE_TIME: Duration = Duration::from_millis(4);

/// How many of the oldest connections are looked at to find one whose handshake can be given up.
const MAX_LOOKS: usize = 64;

/// How many reads of a head that is too long are discarded, so that its sender receives the answer.
const MAX_DISCARDED_READS: usize = 16;

/// What is served, and to whom.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// The names under which browsers may ask for the relay, besides IP addresses and `localhost`. A page of
    /// another name could be of a site that resolves its name to this machine (DNS rebinding).
    pub hosts: Vec<String>,
    /// The origins whose pages may connect, besides the relay's own.
    pub origins: Vec<String>,
    /// What clients must know, if anything.
    pub password: Option<Password>,
    /// Whether the loop can be watched at `/loop`, if the server's system is [`Traced`](super::Traced): from this
    /// machine, and under the names of `hosts` from anywhere.
    pub watch: bool,
}

/// A connection that is not the relay's yet.
#[derive(Debug)]
struct Visitor<S: Read + Write> {
    stream: Stream<S>,
    /// The other end; of a connection that a proxy forwards, its client as far as it was stated.
    peer: SocketAddr,
    dialect: Dialect,
    via: Via,
    /// What must come before the dialect, and has not come yet.
    awaits: Preamble,
    /// What has come of that header, and after it of the request.
    head: Vec<u8>,
    /// What is left of the response, once there is one, or of a part of it.
    response: Vec<u8>,
    /// What follows the response.
    then: Then,
    /// When it is closed if it is still here. Between two requests it has no deadline, and wakes no turn: it
    /// gives up its place when another one needs it.
    due: Option<Instant>,
    /// Its number in the order of arrival.
    number: u64,
    /// The address that it has a place of.
    placed_from: Option<Ipv6Addr>,
}

/// What a visit came to.
#[derive(Debug)]
pub(super) enum Visit<S: Read + Write> {
    /// It is the relay's from now on, as a connection of this dialect.
    Admitted {
        stream: Stream<S>,
        peer: SocketAddr,
        dialect: Dialect,
    },
    /// It was refused, for a reason that the log shows.
    Refused { peer: SocketAddr, reason: Refused },
    /// It asks the relay about itself, and waits for the response.
    Asked {
        /// Its index.
        index: usize,
        via: Via,
        question: Question,
    },
    /// It ended, with nothing to report.
    Ended,
}

/// What a connection asks the relay about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The resource at this path.
    Path {
        path: String,
        /// Whether another request may follow.
        persists: bool,
    },
    /// The next part of the members' table, since all before it was accepted.
    MembersFrom(Cursor),
    /// To do something, at the admin socket.
    Act { path: String, query: String },
}

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The end of the connection.
    End,
    /// The next part of the response, which begins here.
    Part(Cursor),
    /// Another request.
    Request,
    /// The records of each turn, for as long as the connection lasts.
    Turns {
        /// How many turns were lost since the last ones; `None` before the first ones.
        lost: Option<u64>,
    },
}

/// Why a connection was refused.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// The `Host` is a name that is not the relay's.
    Host(String),
    /// The `Origin` is another site's.
    Origin(String),
    /// It is no request, or none that is answered here.
    Request(&'static str),
    /// A header of the PROXY protocol is expected, and this is none.
    BadHeader(BadHeader),
    /// A header of the PROXY protocol is expected, and has not come in time.
    LateHeader,
    /// There is a header of the PROXY protocol, and none is expected.
    UnexpectedHeader,
    /// The TLS handshake has failed.
    Handshake(Failure),
    /// The TLS handshake was not complete in time.
    LateHandshake,
    /// The client that a proxy stated may not connect.
    Denied(Denied),
    /// A password is needed, and this is another or `is_missing`.
    Password { is_missing: bool },
}

/// Who is let in from the lobby, and to what.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) web: WebConfig,
    pub(super) proxies: Proxies,
    pub(super) access: Access,
}

impl Entrance {
    /// Why this client may not connect, if it may not. The time is that since 1970.
    fn refusal_of(&self, client: SocketAddr, time: Duration) -> Option<Refused> {
        self.access.denial(client.ip(), time).map(Refused::Denied)
    }
}

/// Connections that are not the relay's yet.
#[derive(Debug)]
pub(super) struct Lobby<S: Read + Write> {
    visitors: Slab<Visitor<S>>,
    /// Those with news, by index and number. Each is served once a turn: one that asks for the metrics must not be
    /// read again before it has its response.
    ready: BTreeSet<(usize, u64)>,
    /// Those with news whose handshake goes on, by number and index: the oldest comes first.
    shaking: BTreeSet<(u64, usize)>,
    /// Those with a deadline.
    due: BTreeSet<(Instant, usize)>,
    /// How many have places of the relay's.
    placed: usize,
    /// Those of them whose address is known, by number and index.
    placed_by_address: PerAddress<(u64, usize)>,
    next_number: u64,
    /// How many handshakes were completed.
    handshakes: u64,
    pub(super) entrance: Entrance,
    /// How long a header and a request may take together.
    timeout: Duration,
}

impl<S: Read + Write> Lobby<S> {
    pub(super) fn new(entrance: Entrance, limits: &Limits) -> Self {
        Self {
            visitors: Slab::new(),
            ready: BTreeSet::new(),
            shaking: BTreeSet::new(),
            due: BTreeSet::new(),
            placed: 0,
            placed_by_address: PerAddress::new(limits.max_per_ip),
            next_number: 0,
            handshakes: 0,
            entrance,
            timeout: limits.handshake_timeout,
        }
    }

    /// Whether this peer may state its client's address.
    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        self.entrance.proxies.trusts(peer)
    }

    /// The index of the next visitor.
    pub(super) fn next_index(&self) -> usize {
        self.visitors.vacant_key()
    }

    /// How many visitors have places of the relay's: those with TLS that are no scrapers.
    pub(super) const fn placed(&self) -> usize {
        self.placed
    }

    /// How many of them are known to come from this address, if that is limited.
    pub(super) fn placed_from(&self, peer: SocketAddr) -> usize {
        self.placed_by_address.of(PeerAddr::from(peer).ip()).count()
    }

    /// How many handshakes are not complete.
    pub(super) fn shaking(&self) -> usize {
        self.visitors
            .iter()
            .filter(|(_, visitor)| visitor.awaits.tls)
            .count()
    }

    /// How many handshakes were completed.
    pub(super) const fn handshakes(&self) -> u64 {
        self.handshakes
    }

    /// Gives up a handshake whose connection has had time enough for it: the oldest one. Returns whether there was
    /// one.
    pub(super) fn give_up_handshake(&mut self, now: Instant) -> bool {
        let oldest = self.due.iter().take(MAX_LOOKS);
        let oldest = oldest.map(|&(_, index)| index).collect();
        self.give_up_first(oldest, now)
    }

    /// The same for a handshake of this address.
    pub(super) fn give_up_handshake_from(&mut self, peer: SocketAddr, now: Instant) -> bool {
        let oldest = self
            .placed_by_address
            .of(PeerAddr::from(peer).ip())
            .take(MAX_LOOKS);
        let oldest = oldest.map(|(_, index)| index).collect();
        self.give_up_first(oldest, now)
    }

    /// Gives up the first of these that takes a place, has had time enough, and has no news. Returns whether there was
    /// one.
    fn give_up_first(&mut self, visitors: Vec<usize>, now: Instant) -> bool {
        let due_now = after(now, self.timeout);
        let idle = visitors.into_iter().find(|&index| {
            let visitor = &self.visitors[index];
            let is_old = visitor.due.is_some_and(|due| due + SAFE_PENDING < due_now);
            let has_news = self.shaking.contains(&(visitor.number, index));
            visitor.kind() == Kind::Placed && is_old && !has_news
        });
        idle.map(|index| self.remove(index)).is_some()
    }

    /// Makes sure that there is a place for a visitor of this dialect that came this way: where there is none,
    /// the oldest one is closed.
    pub(super) fn make_room(&mut self, dialect: Dialect, via: Via) {
        let wanted = kind(dialect, via);
        let max = match wanted {
            Kind::Placed => return,
            Kind::Scraper | Kind::Owner => MAX_SCRAPERS,
            Kind::Other => MAX_VISITORS,
        };
        let visitors = self.visitors.iter().filter(|(_, one)| !one.is_watcher());
        let alike = visitors.filter(|(_, one)| one.kind() == wanted);
        let (count, oldest) = alike.fold((0, None), |(count, oldest), (index, one)| {
            let this = (one.number, index);
            (
                count + 1,
                Some(oldest.map_or(this, |other: (u64, usize)| other.min(this))),
            )
        });
        if count >= max
            && let Some((_, index)) = oldest
        {
            self.remove(index);
        }
    }

    /// A connection has come, and is watched under the [`next_index`](Self::next_index).
    pub(super) fn enter(
        &mut self,
        stream: Stream<S>,
        peer: SocketAddr,
        dialect: Dialect,
        via: Via,
        now: Instant,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let index = self.visitors.insert(Visitor {
            stream,
            peer,
            dialect,
            via,
            awaits: via.preamble(),
            head: Vec::new(),
            response: Vec::new(),
            then: Then::End,
            due: None,
            number,
            placed_from: None,
        });
        if kind(dialect, via) == Kind::Placed {
            self.placed += 1;
            let is_http = dialect.rules().sends.begins_with_http();
            let may_state_client = via.preamble().proxy_header || (is_http && self.trusts(peer));
            if !may_state_client {
                let ip = PeerAddr::from(peer).ip();
                self.visitors[index].placed_from = Some(ip);
                self.placed_by_address.insert(ip, (number, index));
            }
        }
        self.set_due(index, Some(after(now, self.timeout)));
        self.list(index);
    }

    /// Has this visitor be served.
    fn list(&mut self, index: usize) {
        if let Some(visitor) = self.visitors.get(index) {
            let number = visitor.number;
            if visitor.is_shaking() {
                self.shaking.insert((number, index));
            } else {
                self.ready.insert((index, number));
            }
        }
    }

    fn set_due(&mut self, index: usize, due: Option<Instant>) {
        if let Some(visitor) = self.visitors.get_mut(index) {
            if let Some(due) = visitor.due {
                self.due.remove(&(due, index));
            }
            visitor.due = due;
            self.due.extend(due.map(|due| (due, index)));
        }
    }

    fn remove(&mut self, index: usize) -> Visitor<S> {
        self.set_due(index, None);
        let visitor = self.visitors.remove(index);
        self.placed -= usize::from(visitor.kind() == Kind::Placed);
        if let Some(ip) = visitor.placed_from {
            self.placed_by_address.remove(ip, (visitor.number, index));
        }
        self.ready.remove(&(index, visitor.number));
        self.shaking.remove(&(visitor.number, index));
        visitor
    }

    /// Records the readiness that an event reports.
    pub(super) fn note(&mut self, index: usize, ready: Ready) {
        if ready.any(Ready::READABLE | Ready::WRITABLE | Ready::READ_CLOSED | Ready::HUNG_UP) {
            self.list(index);
        }
    }

    /// Whether a visitor has news.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.shaking.is_empty()
    }

    /// When the next visitor is late.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Closes the visitors that are late and have no news. Returns those of which a header or a handshake had to
    /// come. Others are nothing to report: a browser opens connections that it may never use.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Refused)> {
        let due = self.due.iter().take_while(|&&(due, _)| due <= now);
        // What has come is read first: it may be this turn that is late.
        let late = due.filter(|&&(_, index)| {
            let number = self.visitors[index].number;
            !self.ready.contains(&(index, number)) && !self.shaking.contains(&(number, index))
        });
        let late: Vec<_> = late.map(|&(_, index)| index).collect();
        let refused = |index| {
            let visitor = self.remove(index);
            let reason = match visitor.awaits {
                Preamble {
                    proxy_header: true, ..
                } => Refused::LateHeader,
                Preamble { tls: true, .. } => Refused::LateHandshake,
                _ => return None,
            };
            Some((visitor.peer, reason))
        };
        late.into_iter().filter_map(refused).collect()
    }

    /// Closes all visitors but those that ask the relay about itself.
    pub(super) fn close(&mut self) {
        let others = self.visitors.iter();
        let others = others
            .filter(|(_, visitor)| visitor.dialect != Dialect::Metrics && !visitor.is_watcher());
        let others: Vec<_> = others.map(|(index, _)| index).collect();
        for index in others {
            self.remove(index);
        }
    }

    /// How many watchers there are.
    pub(super) fn watchers(&self) -> usize {
        let watchers = self.visitors.iter().filter(|(_, one)| one.is_watcher());
        watchers.count()
    }

    /// Serves the visitors with news. `time` is that since 1970, and `clock` returns what the time is by now.
    pub(super) fn serve(
        &mut self,
        certificates: Option<&Certificates>,
        scratch: &mut [u8],
        (now, time): (Instant, Duration),
        clock: impl Fn() -> Instant,
    ) -> Vec<Visit<S>> {
        let mut visits = Vec::new();
        for (index, number) in std::mem::take(&mut self.ready) {
            if let Some(visitor) = self.visitors.get_mut(index)
                && visitor.number == number
            {
                let step = visitor.serve(&self.entrance, scratch, time);
                visits.extend(self.finish(index, step, now));
            }
        }
        if let Some(certificates) = certificates {
            let until = after(clock(), HANDSHAKE_TIME);
            let is_over = || clock() >= until;
            self.shake_hands(certificates, scratch, (now, time), is_over, &mut visits);
        }
        visits
    }

    /// Goes on with handshakes until the time for that is over.
    fn shake_hands(
        &mut self,
        certificates: &Certificates,
        scratch: &mut [u8],
        (now, time): (Instant, Duration),
        is_over: impl Fn() -> bool,
        visits: &mut Vec<Visit<S>>,
    ) {
        for _ in 0..self.shaking.len() {
            let Some((_, index)) = self.shaking.pop_first() else {
                break;
            };
            let visitor = &mut self.visitors[index];
            let (mut step, has_worked) = visitor.shake_hands(certificates, scratch);
            if has_worked {
                // How long it waited for its step is not its peer's fault.
                let due = after(now, self.timeout);
                self.set_due(index, Some(due));
            }
            let visitor = &mut self.visitors[index];
            if !visitor.awaits.tls {
                self.handshakes += 1;
                step = visitor.serve(&self.entrance, scratch, time);
            }
            visits.extend(self.finish(index, step, now));
            if has_worked && is_over() {
                break;
            }
        }
    }

    /// Sends the visitor of this index the response that it [asked](Visit::Asked) for, or a part of it. It asks
    /// for the next part, if there is one, when all of this was accepted, and not in this turn.
    pub(super) fn respond(&mut self, index: usize, response: Vec<u8>, then: Then, now: Instant) {
        if let Some(visitor) = self.visitors.get_mut(index) {
            visitor.then = then;
            let step = visitor.respond(response);
            self.finish(index, step, now);
        }
    }

    /// Sends the watchers the records of a turn that has ended. One that is new, or has lost turns, is sent what
    /// `start` returns instead: the connections that there are now.
    pub(super) fn show_turn(&mut self, records: &str, start: impl Fn() -> String, now: Instant) {
        let watchers = self.visitors.iter().filter(|(_, one)| one.is_watcher());
        let watchers: Vec<_> = watchers.map(|(index, _)| index).collect();
        for index in watchers {
            let step = self.visitors[index].show_turn(records, &start);
            self.finish(index, step, now);
        }
    }

    /// Acts on what a visitor came to.
    fn finish(&mut self, index: usize, step: Step, now: Instant) -> Option<Visit<S>> {
        match step {
            Step::Wait => {
                let visitor = self.visitors.get(index)?;
                if visitor.due.is_none() && !visitor.is_at_rest() && !visitor.is_watcher() {
                    self.set_due(index, Some(after(now, self.timeout)));
                }
                return None;
            }
            Step::WaitForTurn => {
                self.list(index);
                return None;
            }
            Step::WaitForRequest => {
                self.set_due(index, None);
                let visitor = self.visitors.get_mut(index)?;
                // It is the last one now to be closed for its place.
                visitor.number = self.next_number;
                self.next_number += 1;
                // The edge that reported the request may have reported the end of the input as well.
                self.list(index);
                return None;
            }
            Step::Ask(question) => {
                let via = self.visitors.get(index)?.via;
                return Some(Visit::Asked {
                    index,
                    via,
                    question,
                });
            }
            Step::Watch => {
                let has_place = self.watchers() < MAX_WATCHERS;
                let step = self.visitors.get_mut(index)?.begin_watching(has_place);
                return self.finish(index, step, now);
            }
            Step::End | Step::Refuse(_) | Step::Admit(_) => {}
        }
        let visitor = self.remove(index);
        Some(match step {
            Step::Refuse(reason) => Visit::Refused {
                peer: visitor.peer,
                reason,
            },
            Step::Admit(dialect) => Visit::Admitted {
                stream: visitor.stream,
                peer: visitor.peer,
                dialect,
            },
            _ => Visit::Ended,
        })
    }
}

/// Which places a visitor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One of those for whom asks the relay about itself.
    Scraper,
    /// The same at the admin socket.
    Owner,
    /// One of the relay's.
    Placed,
    /// One of the lobby's.
    Other,
}

fn kind(dialect: Dialect, via: Via) -> Kind {
    match via {
        Via::AdminSocket => Kind::Owner,
        Via::Network(_) if dialect == Dialect::Metrics => Kind::Scraper,
        Via::Network(preamble) if preamble.tls => Kind::Placed,
        Via::Network(_) => Kind::Other,
    }
}

/// How a visit goes on.
#[derive(Clone, Debug)]
enum Step {
    /// More must come, or more be accepted.
    Wait,
    /// It goes on in the next turn.
    WaitForTurn,
    /// The response is accepted, and another request may come.
    WaitForRequest,
    /// It is over.
    End,
    Refuse(Refused),
    /// It waits for the response to this.
    Ask(Question),
    /// It asks for the trace.
    Watch,
    /// It becomes the relay's.
    Admit(Dialect),
}

impl<S: Read + Write> Visitor<S> {
    /// Whether it receives the trace.
    const fn is_watcher(&self) -> bool {
        matches!(self.then, Then::Turns { .. })
    }

    fn kind(&self) -> Kind {
        kind(self.dialect, self.via)
    }

    /// Whether its handshake is what comes next.
    const fn is_shaking(&self) -> bool {
        self.awaits.tls && !self.awaits.proxy_header
    }

    /// Goes on with the handshake. Returns as well whether that took cryptography.
    fn shake_hands(&mut self, certificates: &Certificates, scratch: &mut [u8]) -> (Step, bool) {
        if self.stream.session().is_none() {
            // A connection that sends nothing has no session.
            let len = scratch.len().min(MAX_RECORD);
            if let Err(step) = self.read(&mut scratch[..len]) {
                return (step, false);
            }
            // The page is there for browsers, and what else speaks HTTP knows it by this name as well.
            match certificates.session(self.dialect.rules().sends.begins_with_http()) {
                Ok(session) => self
                    .stream
                    .start_tls(session, certificates.buffers(), &self.head),
                Err(failure) => return (Step::Refuse(Refused::Handshake(failure)), false),
            }
            self.head = Vec::new();
        }
        let (handshake, has_worked) = self.stream.shake_hands();
        let step = match handshake {
            Handshake::Done => {
                self.awaits.tls = false;
                Step::WaitForTurn
            }
            Handshake::Waits => Step::Wait,
            Handshake::Ended => Step::End,
            Handshake::Failed(failure) => Step::Refuse(Refused::Handshake(failure)),
        };
        (step, has_worked)
    }

    fn serve(&mut self, entrance: &Entrance, scratch: &mut [u8], time: Duration) -> Step {
        if self.is_watcher() {
            return self.serve_watcher(scratch);
        }
        if !self.response.is_empty() {
            return self.write_response();
        }
        if let Then::Part(cursor) = self.then {
            return Step::Ask(Question::MembersFrom(cursor));
        }
        if self.awaits.proxy_header
            && let Err(step) = self.read_header(scratch)
        {
            return step;
        }
        // Of a connection without such a header, this was known when it was accepted.
        if self.via.preamble().proxy_header
            && let Some(refused) = entrance.refusal_of(self.peer, time)
        {
            return Step::Refuse(refused);
        }
        if self.awaits.tls {
            return Step::WaitForTurn;
        }
        let name = || self.stream.session().and_then(Session::client_name);
        if let Some(denied) = entrance.access.certificate_denial(name, time) {
            return Step::Refuse(Refused::Denied(denied));
        }
        if self.dialect.rules().sends.begins_with_http() {
            self.read_request(entrance, scratch, time)
        } else {
            Step::Admit(self.dialect)
        }
    }

    /// Appends at most as many bytes as `scratch` has room for to the head.
    fn read(&mut self, scratch: &mut [u8]) -> Result<(), Step> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(Step::End),
                Ok(read) => {
                    self.head.extend_from_slice(&scratch[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Step::Wait),
                Err(_) => return Err(Step::End),
            }
        }
    }

    /// Reads a header of the PROXY protocol to its end, and no byte that follows it.
    fn read_header(&mut self, scratch: &mut [u8]) -> Result<(), Step> {
        loop {
            match proxy_header::next(&self.head) {
                Ok(Progress::Missing(missing)) => {
                    let len = missing.min(scratch.len());
                    self.read(&mut scratch[..len])?;
                }
                Ok(Progress::Complete(source)) => {
                    self.peer = source.unwrap_or(self.peer);
                    self.awaits.proxy_header = false;
                    self.head.clear();
                    return Ok(());
                }
                Err(bad) => return Err(Step::Refuse(Refused::BadHeader(bad))),
            }
        }
    }

    /// Reads the head of a request, and answers the request.
    fn read_request(&mut self, entrance: &Entrance, scratch: &mut [u8], time: Duration) -> Step {
        loop {
            let seen = self.head.len();
            if let Err(step) = self.read(scratch) {
                return step;
            }
            if proxy_header::is_at_start_of(&self.head) {
                return self.refuse("400 Bad Request", Refused::UnexpectedHeader);
            }
            match http::head_len(&self.head, seen) {
                Some(len) if len > MAX_HEAD => return self.refuse_large(scratch),
                // A client waits for the answer before it sends a frame (RFC 6455, 4.1).
                Some(len) if len < self.head.len() => {
                    return self.refuse("400 Bad Request", Refused::Request("bytes behind it"));
                }
                Some(_) => return self.answer(entrance, time),
                None if self.head.len() > MAX_HEAD => return self.refuse_large(scratch),
                None => {}
            }
        }
    }

    /// Answers the request, whose head is complete.
    fn answer(&mut self, entrance: &Entrance, time: Duration) -> Step {
        let Ok(request) = http::parse(&self.head) else {
            return self.refuse(
                "400 Bad Request",
                Refused::Request("no request in HTTP/1.1"),
            );
        };
        let forwarded_for = request.forwarded_for.iter().map(String::as_str);
        self.peer = entrance.proxies.client_of(self.peer, forwarded_for);
        if self.via != Via::AdminSocket
            && let Some(refused) = entrance.refusal_of(self.peer, time)
        {
            return self.refuse("403 Forbidden", refused);
        }
        let is_scraper = self.dialect == Dialect::Metrics;
        // The metrics are asked for under any name, and a page of another site cannot read the response.
        if !is_scraper && let Some(refused) = entrance.web.refusal(&request) {
            return self.refuse("403 Forbidden", refused);
        }
        if !is_scraper && let Some(refused) = entrance.web.password_refusal(&request) {
            let realm = (
                "WWW-Authenticate",
                "Basic realm=\"chatloop\", charset=\"UTF-8\"",
            );
            let response = http::response("401 Unauthorized", &[realm], b"a password is needed\n");
            let _ = write_once(&mut self.stream, &response);
            return Step::Refuse(refused);
        }
        if request.method == "POST" && self.via == Via::AdminSocket {
            let (path, query) = (request.path, request.query);
            return Step::Ask(Question::Act { path, query });
        }
        if request.method != "GET" {
            let allow = ("Allow", "GET");
            return self.respond(http::response("405 Method Not Allowed", &[allow], b""));
        }
        if is_scraper {
            return Step::Ask(Question::Path {
                path: request.path,
                persists: request.persists,
            });
        }
        if request.upgrade.is_some() {
            return self.upgrade(&request);
        }
        let has_page = self.dialect.rules().sends == Sends::Messages;
        let response = match request.path.as_str() {
            "/" if has_page => page::response(&request),
            "/loop" | "/loop/trace" if has_page && entrance.web.watch => {
                if !entrance.web.may_watch(&request, self.peer) {
                    let reason = Refused::Request("the loop is shown to this machine only");
                    return self.refuse("403 Forbidden", reason);
                }
                if request.path == "/loop/trace" {
                    return Step::Watch;
                }
                page::viewer(&request)
            }
            "/favicon.ico" => http::response("204 No Content", &[], b""),
            _ => http::response("404 Not Found", &[], b"there is nothing here\n"),
        };
        self.respond(response)
    }

    /// Answers a WebSocket handshake (RFC 6455, 4.2.2).
    fn upgrade(&mut self, request: &Request) -> Step {
        let Some(upgrade) = &request.upgrade else {
            return Step::End;
        };
        if !upgrade.is_version_13 {
            let version = ("Sec-WebSocket-Version", "13");
            return self.respond(http::response("426 Upgrade Required", &[version], b""));
        }
        let Some(key) = &upgrade.key else {
            let reason = Refused::Request("a handshake without a key");
            return self.refuse("400 Bad Request", reason);
        };
        let chosen = upgrade.protocols.iter().find_map(|offered| {
            let dialect = match (offered.as_str(), self.dialect) {
                ("chatloop.json", Dialect::Ws) => Dialect::Ws,
                ("chat10", Dialect::Ws | Dialect::WsChat10) => Dialect::WsChat10,
                _ => return None,
            };
            Some((offered.as_str(), dialect))
        });
        let response = http::switching_protocols(key, chosen.map(|(name, _)| name));
        match write_once(&mut self.stream, &response) {
            // The socket is new, and so is its buffer: it accepts a few hundred bytes.
            Ok(sent) if sent == response.len() => {
                Step::Admit(chosen.map_or(self.dialect, |(_, dialect)| dialect))
            }
            _ => Step::End,
        }
    }

    fn refuse_large(&mut self, scratch: &mut [u8]) -> Step {
        // A socket that is closed with unread bytes sends a reset, and its peer may not see the answer.
        for _ in 0..MAX_DISCARDED_READS {
            match self.stream.read(scratch) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        let reason = Refused::Request("a head of more than 8 KiB");
        self.refuse("431 Request Header Fields Too Large", reason)
    }

    fn refuse(&mut self, status: &str, reason: Refused) -> Step {
        let response = http::response(status, &[], b"");
        // If it is not accepted at once, the peer has to do without.
        let _ = write_once(&mut self.stream, &response);
        Step::Refuse(reason)
    }

    /// Whether nothing of a request has come, and nothing of a response is left.
    const fn is_at_rest(&self) -> bool {
        self.head.is_empty() && self.response.is_empty()
    }

    fn respond(&mut self, response: Vec<u8>) -> Step {
        self.response = response;
        self.write_response()
    }

    /// Makes it a watcher if it `has_place`.
    fn begin_watching(&mut self, has_place: bool) -> Step {
        if !has_place {
            let body = b"there are as many watchers as there may be\n";
            return self.respond(http::response("503 Service Unavailable", &[], body));
        }
        self.then = Then::Turns { lost: None };
        self.due = None;
        // Proxies must pass each turn on as it comes.
        let fields = [
            ("Content-Type", "application/x-ndjson"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
        ];
        let head = http::head_of_parts("200 OK", &fields);
        self.respond(head.into_bytes())
    }

    /// Serves a watcher, which has nothing more to say: it may have left, or have room for more.
    fn serve_watcher(&mut self, scratch: &mut [u8]) -> Step {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Step::End,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Step::End,
            }
        }
        self.write_response()
    }

    /// Sends a watcher the records of a turn, unless it lags too far behind: then the turn is lost to it.
    fn show_turn(&mut self, records: &str, start: impl Fn() -> String) -> Step {
        let Then::Turns { lost } = self.then else {
            return Step::Wait;
        };
        let text = match lost {
            Some(0) => records.to_owned(),
            Some(lost) if records.is_empty() => {
                format!("{{\"kind\":\"lost\",\"turns\":{lost}}}\n{}", start())
            }
            Some(lost) => format!("{{\"kind\":\"lost\",\"turns\":{}}}\n{}", lost + 1, start()),
            None => start(),
        };
        if self.response.len() + text.len() > MAX_WATCHER_LAG {
            let lost = lost.unwrap_or(0) + u64::from(!records.is_empty());
            self.then = Then::Turns { lost: Some(lost) };
        } else {
            self.then = Then::Turns { lost: Some(0) };
            self.response.extend_from_slice(text.as_bytes());
        }
        self.write_response()
    }

    fn write_response(&mut self) -> Step {
        if self.response.is_empty() && self.is_watcher() {
            return Step::Wait;
        }
        loop {
            match write_once(&mut self.stream, &self.response) {
                Ok(sent) => {
                    self.response.drain(..sent);
                    if self.response.is_empty() {
                        return match self.then {
                            Then::End => Step::End,
                            Then::Part(_) => Step::WaitForTurn,
                            Then::Turns { .. } => Step::Wait,
                            Then::Request => {
                                self.then = Then::End;
                                self.head = Vec::new();
                                Step::WaitForRequest
                            }
                        };
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(_) => return Step::End,
            }
        }
    }
}

/// Writes what the socket accepts at once. An interrupted call is made again.
pub(super) fn write_once(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}

impl WebConfig {
    /// Why a request is refused for where it comes from, if it is.
    fn refusal(&self, request: &Request) -> Option<Refused> {
        let host = request.host.as_deref().unwrap_or_default();
        if !self.is_own(host) {
            return Some(Refused::Host(host.to_owned()));
        }
        let origin = request.origin.as_deref()?;
        let is_same = origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        let is_allowed =
            |allowed: &String| allowed == "any" || allowed.eq_ignore_ascii_case(origin);
        if is_same || self.origins.iter().any(is_allowed) {
            None
        } else {
            Some(Refused::Origin(origin.to_owned()))
        }
    }

    /// Whether this request may watch the loop: it comes from this machine, or asks for a name that was given.
    fn may_watch(&self, request: &Request, peer: SocketAddr) -> bool {
        let host = request.host.as_deref().unwrap_or_default();
        let name = http::host_without_port(host);
        peer.ip().to_canonical().is_loopback()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Why a request is refused for its password, if it is.
    fn password_refusal(&self, request: &Request) -> Option<Refused> {
        let password = self.password.as_ref()?;
        let proof = password.shown_in(request.authorization.as_deref());
        let is_missing = proof == Proof::Missing;
        (proof != Proof::Right).then_some(Refused::Password { is_missing })
    }

    /// Whether this `Host` can only be the relay: an IP address, `localhost`, or a name that was given.
    fn is_own(&self, host: &str) -> bool {
        let name = http::host_without_port(host);
        let ip = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || ip.parse::<std::net::IpAddr>().is_ok()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}
