//! A machine with a network and peers, as a server sees it.
//!
//! # How events come about
//!
//! The rules are those of Linux's edge-triggered epoll. A socket is put on a list when something
//! *happens* to it: it is registered and there is something to report, bytes or an end or an error arrive,
//! or a buffer that was found full has room again. A poll takes what is listed off the list and reports
//! the readiness of each socket at that moment; a socket that is not ready is not reported. Readiness that
//! was reported once and not used up is not reported again.
//!
//! # Where time passes
//!
//! All that happens, happens in `poll`, and a little within the other calls, because the network does
//! not wait for the end of a turn. While the server waits, the world moves until there is an event or
//! the deadline has come. So a server that waits for something that was reported already waits for
//! ever, and that is found out at once: whenever it goes to sleep, no socket may be left with something
//! that it has not read, or with room for something that it has not written.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use chatloop::relay::{ConnId, Ready};
use chatloop::server::{Event, Request, Source};
use chatloop::wire::Dialect;

use super::choices::Choices;
use super::faults::{Fault, FaultCounts};
use super::model::{MIN_READ_RATE, Model, Reading, causes_its_output_alone};
use super::peer::Peer;
use super::plan::Plan;
use super::proxy::Header;
use super::schedule::Action;
use super::socket::Socket;
use super::torture::Torture;
use super::trace::{Happening, Trace};
use super::web;

/// How many turns in a row may come to nothing although the server did not wait: each of those that
/// are ready may find out that it is not.
const MOST_IDLE_TURNS: usize = 20;

/// How many steps a simulation may take. The longest is one that sends the time every millisecond.
const MOST_STEPS: u64 = 1_000_000;

/// The least that fits the buffers of a socket of HTTP, so that the answer to a handshake does.
const MIN_WEB_BUFFER: usize = 300;

/// The least that may have arrived at it without having been read, so that requests are not always late.
const MIN_WEB_WINDOW: usize = 50;

/// The time of day at which everything begins, in milliseconds since 1970.
const FIRST_DAY: u64 = 1_593_590_400_000;

/// Something that has had an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Signal,
    Listener(usize),
    Socket(usize),
}

#[derive(Debug, Default)]
struct Listener {
    /// Who waits to be accepted.
    queue: VecDeque<usize>,
    is_listed: bool,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Things happen, and go wrong.
    Busy,
    /// Nothing new happens, all peers read what there is for them, and the clock runs on.
    Peace {
        /// When it has run long enough.
        until: Duration,
    },
    /// All was found well, and the server is asked to stop.
    Stopping,
}

/// The machine, the network, the peers, and what is to be true of them.
pub struct World {
    pub choices: Choices,
    pub plan: Plan,
    pub trace: Trace,
    pub faults: FaultCounts,
    pub model: Model,
    pub torture: Torture,
    /// What happens, if it is not left to chance.
    pub script: Option<VecDeque<Action>>,
    pub peers: Vec<Peer>,
    /// The connection of the peer of the same index.
    pub sockets: Vec<Socket>,
    /// The peers whose connections are not over.
    pub live: Vec<usize>,
    listeners: Vec<Listener>,
    pub is_listening: bool,
    listed: VecDeque<Listed>,
    /// Whether the last batch was as long as one may be.
    pub has_more: bool,
    requests: Vec<Request>,
    /// The sources of events of connections that are closed, the last ones.
    gone: VecDeque<Source>,
    start: Instant,
    pub now: Duration,
    /// The relay reports that messages carry the time of day, so the server sets it at the beginning of the turn.
    pub is_timed: bool,
    sets_time: bool,
    /// By how much the time of day is not what it would be, in milliseconds.
    pub day_turned_back: u64,
    /// How many connections the server has open, and whether it has its reserve.
    open: usize,
    has_reserve: bool,
    /// How many descriptors there are at the moment.
    pub descriptors: usize,
    /// The error of accepting for so long.
    pub shortage: Option<(i32, Duration)>,
    was_short: bool,
    /// A socket with input that the last poll did not report.
    unreported: Option<usize>,
    has_drawn_lots: bool,
    /// The relay reports slow readers, for which members are read in rounds or not at all.
    pub is_room_paused: bool,
    /// The relay reports members that are not read while the room is paused.
    pub has_held: bool,
    /// When accepting failed last for a shortage.
    short_at: Option<Duration>,
    /// How often that began.
    pub waits: u64,
    /// The longest that anybody was not listened to because of that.
    pub longest_held_up: Duration,
    /// When the poll that is going on is over at the latest.
    pub wakes_at: Option<Duration>,
    pub phase: Phase,
    pub steps_left: usize,
    /// All that has happened: steps of the world and turns of the server.
    pub steps: u64,
    /// Whatever shows that a turn was of use.
    progress: u64,
    progress_before: u64,
    idle_turns: usize,
    /// When a server that was asked to stop has to have stopped, and whether it was asked twice.
    pub stop_by: Option<Duration>,
    pub was_stopped_twice: bool,
    /// What is written, in one piece.
    written: Vec<u8>,
    /// What the server's trace was told last of each connection's socket.
    shown: BTreeMap<ConnId, (usize, bool, usize)>,
    /// The next poll tells once more of the connection that was closed last.
    is_event_stale: bool,
    /// The server forgets edges, so that nothing is checked.
    pub is_forgetful: bool,
    /// The simulation ends when its script does.
    pub ends_with_script: bool,
}

impl World {
    pub fn new(plan: Plan, choices: Choices) -> Self {
        let listeners = plan.config.listeners().map(|_| Listener::default());
        Self {
            choices,
            trace: Trace::default(),
            faults: FaultCounts::default(),
            model: Model::new(&plan.config, Reading::of(&plan)),
            torture: Torture::default(),
            script: None,
            peers: Vec::new(),
            sockets: Vec::new(),
            live: Vec::new(),
            listeners: listeners.collect(),
            is_listening: true,
            listed: VecDeque::new(),
            has_more: false,
            requests: Vec::new(),
            gone: VecDeque::new(),
            start: Instant::now(),
            now: Duration::from_secs(1000),
            is_timed: false,
            sets_time: false,
            day_turned_back: 0,
            open: 0,
            has_reserve: false,
            descriptors: plan.descriptors,
            shortage: None,
            was_short: false,
            unreported: None,
            has_drawn_lots: false,
            is_room_paused: false,
            has_held: false,
            short_at: None,
            waits: 0,
            longest_held_up: Duration::ZERO,
            wakes_at: None,
            phase: Phase::Busy,
            steps_left: plan.steps,
            steps: 0,
            progress: 0,
            progress_before: 0,
            idle_turns: 0,
            stop_by: None,
            was_stopped_twice: false,
            written: Vec::new(),
            shown: BTreeMap::new(),
            is_event_stale: false,
            is_forgetful: false,
            ends_with_script: false,
            plan,
        }
    }

    /// Whether a fault strikes now, in which case it is counted.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.phase == Phase::Busy && self.choices.happens(self.plan.rate(fault));
        if strikes {
            self.strike(fault);
        }
        strikes
    }

    /// A fault has struck.
    pub fn strike(&mut self, fault: Fault) {
        self.faults.count(fault);
        self.trace.note(Happening::Strikes(fault));
    }

    /// Something has happened to a socket.
    pub fn edge(&mut self, peer_index: usize) {
        let socket = &mut self.sockets[peer_index];
        if socket.watched.is_some() && socket.is_open && !socket.is_listed {
            socket.is_listed = true;
            self.listed.push_back(Listed::Socket(peer_index));
        }
    }

    /// A peer connects to the listener of this index, unless there is none any more.
    pub fn connect(&mut self, listener: usize, is_mute: bool) -> Option<usize> {
        if !self.is_listening {
            return None;
        }
        let peer = self.peers.len();
        let (preamble, dialect) = self.plan.listener(listener);
        let header = preamble
            .proxy_header
            .then(|| Header::chosen(peer, &mut self.choices));
        self.peers
            .push(Peer::new(peer, dialect, header, is_mute, &mut self.choices));
        let Plan { window, buffer, .. } = self.plan;
        let mut window = self.choices.between(window.0, window.1);
        let mut buffer = self.choices.between(buffer.0, buffer.1);
        if web::begins_with_http(dialect) {
            buffer = buffer.max(MIN_WEB_BUFFER);
            window = window.max(MIN_WEB_WINDOW);
        }
        self.sockets.push(Socket::new(window, buffer));
        self.live.push(peer);
        self.trace.note(Happening::Connects {
            peer,
            dialect,
            preamble,
        });
        self.listeners[listener].queue.push_back(peer);
        self.list_listener(listener);
        Some(peer)
    }

    fn list_listener(&mut self, listener: usize) {
        if !self.listeners[listener].is_listed {
            self.listeners[listener].is_listed = true;
            self.listed.push_back(Listed::Listener(listener));
        }
    }

    /// A connection ends by what is no close.
    pub fn die(&mut self, peer_index: usize, errno: i32, keeps_input: bool) {
        self.trace.note(Happening::Dies {
            peer: peer_index,
            errno,
        });
        if self.sockets[peer_index].watched.is_none() {
            self.strike(Fault::DeadBeforeAccept);
        }
        self.sockets[peer_index].die(errno, keeps_input);
        self.edge(peer_index);
    }

    /// A signal comes.
    pub fn signal(&mut self, request: Request) {
        self.requests.push(request);
        if !self.listed.contains(&Listed::Signal) {
            self.listed.push_back(Listed::Signal);
        }
    }

    /// The next poll tells once more of the connection that was closed last.
    pub const fn repeat_event(&mut self) {
        self.is_event_stale = true;
    }

    /// Whether the script is over, and with it the simulation.
    pub fn is_script_over(&self) -> bool {
        self.ends_with_script && self.phase != Phase::Busy
    }

    /// Tells the server's trace what the kernel holds for each connection, where that has changed.
    pub fn show_kernel(&mut self) {
        let Some(trace) = &self.trace.of_server else {
            return;
        };
        for &peer_index in &self.live {
            let socket = &self.sockets[peer_index];
            if let Some(Source::Connection(id)) = socket.watched {
                let now = (socket.unread(), socket.has_fin_arrived(), socket.queued());
                if self.shown.insert(id, now).unwrap_or_default() != now {
                    trace.kernel(id, now.0, now.1, now.2);
                }
            }
        }
    }

    /// Whether the poll has reported everything that has happened.
    pub fn is_all_delivered(&self) -> bool {
        self.listed.is_empty()
    }

    pub fn has_listeners(&self) -> usize {
        self.listeners.len()
    }

    // What the server asks.

    pub fn instant(&self) -> Instant {
        self.start + self.now
    }

    pub fn time_of_day(&mut self) -> SystemTime {
        let millis = self.millis();
        if !mem::take(&mut self.sets_time) {
            self.model.tick(millis, self.now);
            self.progress += 1;
        }
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// The time of day, in milliseconds since 1970.
    const fn millis(&self) -> u64 {
        FIRST_DAY + self.now.as_millis() as u64 - self.day_turned_back
    }

    pub fn requests(&mut self) -> Vec<Request> {
        let requests = mem::take(&mut self.requests);
        for request in &requests {
            if let Request::Stop(_) = request {
                self.was_stopped_twice |= self.stop_by.is_some();
                self.model.is_stopping = true;
                self.stop_by = self.stop_by.or(Some(self.now + self.plan.config.drain));
            }
        }
        requests
    }

    pub fn accept(&mut self, listener: usize) -> io::Result<(usize, SocketAddr)> {
        self.model.settle();
        self.network_moves();
        let result = match self.torture.accept() {
            Some(errno) => self.fail_accept(listener, errno),
            None => self.try_accept(listener),
        };
        self.trace.note(Happening::Accepts { result });
        let peer_index = result.map_err(io::Error::from_raw_os_error)?;
        self.progress += 1;
        self.open += 1;
        self.sockets[peer_index].is_open = true;
        Ok((peer_index, self.peers[peer_index].addr))
    }

    fn try_accept(&mut self, listener: usize) -> Result<usize, i32> {
        if self.strikes(Fault::AcceptInterrupted) {
            return Err(libc::EINTR);
        }
        // Linux looks for a descriptor, and for memory, before it looks at the queue.
        if self.used_descriptors() >= self.descriptors {
            self.is_short();
            self.strike(Fault::NoDescriptor);
            return Err(libc::EMFILE);
        }
        if let Some((errno, until)) = self.shortage
            && self.now < until
        {
            self.is_short();
            self.strike(match errno {
                libc::ENFILE => Fault::FileTableFull,
                libc::ENOBUFS => Fault::NoBuffers,
                _ => Fault::NoMemory,
            });
            return Err(errno);
        }
        if self.listeners[listener].queue.is_empty() {
            return Err(libc::EAGAIN);
        }
        let errno = if self.strikes(Fault::AcceptAborted) {
            libc::ECONNABORTED
        } else if self.strikes(Fault::AcceptNetworkError) {
            let errors = [
                libc::EPROTO,
                libc::EPERM,
                libc::ENETDOWN,
                libc::EHOSTUNREACH,
            ];
            self.choices.one_of(&errors)
        } else {
            return self.listeners[listener]
                .queue
                .pop_front()
                .ok_or(libc::EAGAIN);
        };
        self.fail_accept(listener, errno)
    }

    fn is_short(&mut self) {
        self.was_short = true;
        self.short_at = Some(self.now);
    }

    /// An error of accepting, which may be the end of the connection that was to be accepted.
    fn fail_accept(&mut self, listener: usize, errno: i32) -> Result<usize, i32> {
        match errno {
            libc::EINTR | libc::EAGAIN => {}
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => self.is_short(),
            _ => {
                if let Some(peer_index) = self.listeners[listener].queue.pop_front() {
                    self.bury(peer_index);
                }
            }
        }
        if errno == libc::EAGAIN && !self.listeners[listener].queue.is_empty() {
            // Then they have come right after it.
            self.list_listener(listener);
        }
        Err(errno)
    }

    pub fn watch(&mut self, peer_index: usize, listener: usize, source: Source) -> io::Result<()> {
        self.model.settle();
        if let Some(errno) = self.torture.watch() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if self.strikes(Fault::CannotWatch) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let peer = &self.peers[peer_index];
        let (_, dialect) = self.plan.listener(listener);
        match source {
            Source::Connection(id) => {
                self.trace.note(Happening::Watches {
                    peer: peer_index,
                    id,
                });
                self.model
                    .admit(peer_index, id, peer.addr, dialect, self.now);
            }
            Source::Bus(_) => unreachable!("this machine connects to nothing"),
            Source::Visitor(index) => {
                self.trace.note(Happening::Visits {
                    peer: peer_index,
                    index,
                });
                let header = peer.header.clone();
                self.model
                    .visitors
                    .enter(peer_index, dialect, header, self.now);
            }
        }
        self.sockets[peer_index].watched = Some(source);
        self.edge(peer_index);
        Ok(())
    }

    pub fn random(&mut self) -> u64 {
        // It draws lots for the first connection to close, and by then has been notified of all input.
        let drain = self.plan.config.drain;
        let is_early = |by| self.now + drain < by + drain / 2;
        if self.stop_by.is_some_and(is_early) && !mem::replace(&mut self.has_drawn_lots, true) {
            assert_eq!(
                self.unreported, None,
                "it had sent something before any member was drained"
            );
        }
        self.choices.below(1 << 62) as u64
    }

    /// The server is about to drain a member.
    pub fn clear_notsent_lowat(&mut self, peer_index: usize) {
        self.trace.note(Happening::Drains { peer: peer_index });
        self.model.drain_member(peer_index);
        if self.sockets[peer_index].clear_notsent_lowat() {
            self.edge(peer_index);
        }
    }

    pub fn close_listener(&mut self, listener: usize) {
        if mem::replace(&mut self.is_listening, false) {
            self.trace.note(Happening::StopsListening);
        }
        while let Some(peer_index) = self.listeners[listener].queue.pop_front() {
            self.bury(peer_index);
        }
    }

    pub fn open_reserve(&mut self) -> bool {
        let is_free = self.open < self.descriptors;
        let fails = self.torture.reserve() || self.strikes(Fault::NoReserve);
        self.has_reserve = is_free && !fails;
        if !self.has_reserve {
            self.is_short();
        }
        self.trace.note(Happening::Reserve {
            is_there: self.has_reserve,
        });
        self.has_reserve
    }

    pub fn close_reserve(&mut self) {
        self.trace.note(Happening::Reserve { is_there: false });
        self.has_reserve = false;
    }

    pub fn read(&mut self, peer_index: usize, buf: &mut [u8]) -> io::Result<usize> {
        self.network_moves();
        let result = self.try_read(peer_index, buf);
        self.sockets[peer_index].held_up = Duration::ZERO;
        let noted = result.as_ref().copied().map_err(errno);
        self.trace.note(Happening::Reads {
            peer: peer_index,
            most: buf.len(),
            result: noted,
        });
        match &result {
            Ok(0) => self.model.input_ends(peer_index),
            Ok(bytes) => {
                self.progress += 1;
                self.model.read(peer_index, &buf[..*bytes]);
            }
            Err(error) if is_fatal(error) => {
                self.model.fact(peer_index, |facts| facts.has_failed = true);
            }
            Err(_) => {}
        }
        let is_read_dry = self.sockets[peer_index].is_read_dry;
        self.model
            .fact(peer_index, |facts| facts.is_read_dry = is_read_dry);
        result
    }

    fn try_read(&mut self, peer_index: usize, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(errno) = self.torture.read() {
            return Err(self.fail(peer_index, errno, true));
        }
        if self.strikes(Fault::ReadInterrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        let socket = &self.sockets[peer_index];
        let is_open = !socket.is_dead() && !socket.has_fin_arrived();
        if is_open && socket.has_input() && self.strikes(Fault::ReadWouldBlock) {
            return Err(self.fail(peer_index, libc::EAGAIN, true));
        }
        self.sockets[peer_index].read(buf)
    }

    pub fn write(&mut self, peer_index: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // What was read last may have been read only to be thrown away, and then comes a Close frame.
        let close = match slices {
            [frame]
                if web::is_own_close(frame)
                    && web::is_web_socket(self.peers[peer_index].dialect) =>
            {
                Some(frame)
            }
            _ => None,
        };
        match close {
            Some(frame) => self.model.offer_close(peer_index, frame),
            None => self.model.settle(),
        }
        self.network_moves();
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let was_given = self.sockets[peer_index].can_drain();
        let result = self.try_write(peer_index, slices, offered);
        if !was_given {
            self.sockets[peer_index].given_at = self.now;
        }
        let noted = result.as_ref().copied().map_err(errno);
        self.trace.note(Happening::Writes {
            peer: peer_index,
            most: offered,
            result: noted,
        });
        match &result {
            Ok(taken) => {
                self.progress += 1;
                self.written.clear();
                for slice in slices {
                    let rest = *taken - self.written.len();
                    self.written
                        .extend_from_slice(&slice[..slice.len().min(rest)]);
                }
                if close.is_some() {
                    self.model.took_close(peer_index, *taken);
                } else {
                    self.model
                        .on_written(peer_index, &self.written, offered, self.now);
                }
            }
            Err(error) => {
                if is_fatal(error) {
                    self.model.fact(peer_index, |facts| facts.has_failed = true);
                }
                match (close, error.kind()) {
                    (Some(_), ErrorKind::Interrupted) => {
                        self.model.close_was_interrupted(peer_index);
                    }
                    (None, ErrorKind::Interrupted) | (Some(_), _) => {}
                    (None, _) => self.model.write_failed(peer_index),
                }
            }
        }
        result
    }

    fn try_write(
        &mut self,
        peer_index: usize,
        slices: &[IoSlice<'_>],
        offered: usize,
    ) -> io::Result<usize> {
        if let Some(errno) = self.torture.write() {
            return Err(self.fail(peer_index, errno, false));
        }
        if self.strikes(Fault::WriteInterrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        let most = if offered > 0 && self.strikes(Fault::WriteWouldBlock) {
            0
        } else if offered > 1 && self.strikes(Fault::LoneByteWritten) {
            1
        } else if offered > 1 && self.strikes(Fault::ShortWrite) {
            self.choices.between(1, offered - 1)
        } else {
            offered
        };
        self.sockets[peer_index].write(slices, most)
    }

    /// Has a call on a connection fail, and whatever that means for the connection.
    fn fail(&mut self, peer_index: usize, errno: i32, is_read: bool) -> io::Error {
        match errno {
            libc::EINTR => {}
            libc::EAGAIN => {
                // What was not there a moment ago comes right after it. But the server has every right
                // to think that there was nothing.
                if is_read {
                    self.sockets[peer_index].is_read_dry = true;
                } else {
                    self.sockets[peer_index].find_full();
                }
                self.edge(peer_index);
            }
            _ => {
                // The error was reported, so what is left of the connection is its end. A read that fails
                // has found nothing before the error.
                self.sockets[peer_index].die(errno, !is_read);
                self.sockets[peer_index].is_read_dry |= is_read;
                self.sockets[peer_index].report_error();
                self.edge(peer_index);
            }
        }
        io::Error::from_raw_os_error(errno)
    }

    /// The server lets go of a connection.
    pub fn close(&mut self, peer_index: usize) {
        self.trace
            .note(Happening::ClosesConnection { peer: peer_index });
        self.progress += 1;
        self.open -= 1;
        self.model.close(peer_index);
        self.gone.extend(self.sockets[peer_index].watched);
        if self.gone.len() > 30 {
            self.gone.pop_front();
        }
        self.bury(peer_index);
    }

    /// Nothing can happen to a connection any more.
    fn bury(&mut self, peer_index: usize) {
        self.sockets[peer_index].is_open = false;
        self.live.retain(|&peer| peer != peer_index);
    }

    // The poll.

    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
        self.model.begin_turn();
        self.was_short = false;
        self.steps += 1;
        assert!(self.steps < MOST_STEPS, "the server never stops");
        self.check_for_spinning(timeout);
        if self.torture.poll() {
            self.begin_turn();
            return Err(ErrorKind::Interrupted.into());
        }
        if self.strikes(Fault::PollInterrupted) {
            self.progress += 1;
            self.begin_turn();
            return Err(ErrorKind::Interrupted.into());
        }
        let deadline = timeout.map(|timeout| self.now.saturating_add(timeout));
        self.wakes_at = deadline;
        for _ in 0..self.choices.below(self.plan.pace + 1) {
            if self.phase == Phase::Busy {
                self.step();
            }
        }
        let events = loop {
            let events = self.collect();
            let is_due = deadline.is_some_and(|deadline| self.now >= deadline);
            if !events.is_empty() || is_due || !self.sleep(deadline) {
                break events;
            }
        };
        self.begin_turn();
        let count = events.len();
        self.trace.note(Happening::Polls {
            timeout,
            events: count,
        });
        let events = self.with_nonsense(events);
        for event in &events {
            match event {
                Event::Connection(id, ready) => self.trace.note(Happening::event(*id, *ready)),
                Event::Visitor(index, ready) => {
                    self.trace.note(Happening::visitor_event(*index, *ready));
                }
                _ => {}
            }
        }
        self.progress += events.len() as u64;
        Ok(events)
    }

    /// The poll has returned.
    fn begin_turn(&mut self) {
        self.model.now = self.now;
        self.model.time_text = web::time_text(self.millis());
        self.sets_time = self.is_timed;
        let is_unreported = |peer_index: &&usize| {
            let socket = &self.sockets[**peer_index];
            socket.is_listed && socket.has_news()
        };
        self.unreported = self.live.iter().find(is_unreported).copied();
    }

    /// A server that does not wait has to have something to do.
    fn check_for_spinning(&mut self, timeout: Option<Duration>) {
        let is_idle = timeout == Some(Duration::ZERO) && self.progress == self.progress_before;
        self.idle_turns = if is_idle { self.idle_turns + 1 } else { 0 };
        self.progress_before = self.progress;
        assert!(self.idle_turns < MOST_IDLE_TURNS, "the server spins");
    }

    /// Takes what has had an edge off the list, up to a batch, with its readiness.
    fn collect(&mut self) -> Vec<Event> {
        let mut most = self.plan.batch;
        if self.listed.len() > 1 && self.strikes(Fault::SmallBatch) {
            most = self.choices.between(1, self.listed.len() - 1);
        }
        let mut events = Vec::new();
        while events.len() < most
            && let Some(listed) = self.listed.pop_front()
        {
            match listed {
                Listed::Signal => events.push(Event::Signal),
                Listed::Listener(index) => {
                    self.listeners[index].is_listed = false;
                    if !self.listeners[index].queue.is_empty() {
                        events.push(Event::Incoming(index));
                    }
                }
                Listed::Socket(peer_index) => {
                    let socket = &mut self.sockets[peer_index];
                    socket.is_listed = false;
                    let ready = socket.poll();
                    if let (true, Some(source)) =
                        (socket.is_open && ready != Ready::default(), socket.watched)
                    {
                        if socket.has_input() && socket.has_fin_arrived() {
                            self.faults.count(Fault::FinWithData);
                        }
                        if ready.any(Ready::HUNG_UP) {
                            self.model.fact(peer_index, |facts| facts.has_failed = true);
                        }
                        if ready.any(Ready::READ_CLOSED | Ready::HUNG_UP) {
                            self.model.fact(peer_index, |facts| facts.is_gone = true);
                        }
                        events.push(event_of(source, ready));
                    }
                }
            }
        }
        self.has_more = events.len() == most;
        events
    }

    /// Waits: the world moves on. Returns whether to look again; if not, the poll is over.
    fn sleep(&mut self, deadline: Option<Duration>) -> bool {
        self.check_sleeper(deadline);
        let begun = self.now;
        let looks_again = self.sleep_unchecked(deadline);
        self.check_held_up(begun, deadline);
        looks_again
    }

    /// Waits, whatever there was to be done.
    fn sleep_unchecked(&mut self, deadline: Option<Duration>) -> bool {
        if self.phase != Phase::Busy && self.network_settles() {
            return true;
        }
        match self.phase {
            Phase::Busy => {
                if self.strikes(Fault::EarlyReturn) {
                    self.progress += 1;
                    return false;
                }
                self.step();
                true
            }
            Phase::Peace { until } => {
                match deadline.filter(|&deadline| deadline <= until || self.peer_rests()) {
                    Some(deadline) => self.now = self.now.max(deadline),
                    None => self.end_peace(),
                }
                true
            }
            Phase::Stopping => {
                let deadline = deadline.expect("a server that stops has a deadline");
                self.now = self.now.max(deadline);
                true
            }
        }
    }

    /// Whether a member has sent more than its quota, which may take any time to be worked off.
    fn peer_rests(&self) -> bool {
        let is_unread = |peer_index: &usize| {
            let socket = &self.sockets[*peer_index];
            socket.is_open && (socket.has_news() || socket.on_the_way() > 0)
        };
        let is_behind = self.model.pending().any(|(_, _, due, _)| due > 0);
        let is_unreported = self.live.iter().any(is_unread);
        let is_kept_out = self.listeners.iter().any(|one| !one.queue.is_empty());
        let limits = &self.plan.config.limits;
        let is_slowed = limits.rate.is_some() && (is_behind || is_unreported);
        let has_visitors = !self.model.visitors.is_empty();
        is_slowed
            || has_visitors
            || (limits.accept_rate.is_some() && is_kept_out && self.open < self.descriptors)
    }

    /// Nothing more happens: everybody must have everything.
    fn end_peace(&mut self) {
        for (peer_index, _, due, _) in self.model.pending() {
            assert_eq!(
                due, 0,
                "bytes due to peer {peer_index} that will never be delivered"
            );
        }
        assert!(self.model.visitors.is_empty(), "a visitor stays for ever");
        // With every descriptor in use and none in reserve, no connection can even be refused.
        let is_choked = self.open >= self.descriptors;
        for &peer_index in &self.live {
            let socket = &self.sockets[peer_index];
            if socket.watched.is_none() {
                assert!(is_choked, "peer {peer_index} waits to be let in for ever");
            } else {
                let left = socket.on_the_way();
                assert_eq!(
                    left, 0,
                    "bytes of peer {peer_index} that the server will never read"
                );
            }
        }
        self.phase = Phase::Stopping;
        self.signal(Request::Stop("SIGTERM"));
    }

    /// A server that sleeps must have done everything: an edge is reported once.
    fn check_sleeper(&self, deadline: Option<Duration>) {
        if self.is_forgetful {
            return;
        }
        for (peer_index, _, due, facts) in self.model.pending() {
            let socket = &self.sockets[peer_index];
            assert!(
                !socket.has_news() || socket.is_listed || self.may_wait(peer_index, deadline),
                "the server sleeps on reported readiness: peer {peer_index} has sent something"
            );
            assert!(
                due == 0 || facts.has_failed || socket.will_report_room() || socket.is_listed,
                "the server sleeps on reported readiness: there is room for {due} bytes due to peer {peer_index}"
            );
        }
        self.model.visitors.check();
        for (peer_index, due, is_read) in self.model.visitors.pending() {
            let socket = &self.sockets[peer_index];
            assert!(
                !is_read || !socket.has_news() || socket.is_listed,
                "the server sleeps on reported readiness: visitor {peer_index} has sent something"
            );
            assert!(
                due == 0 || socket.will_report_room() || socket.is_listed,
                "the server sleeps on reported readiness: there is room for an answer to peer {peer_index}"
            );
        }
        if let Some((due, what)) = self.model.deadline(self.now) {
            let is_awake = deadline.is_some_and(|deadline| deadline <= due);
            assert!(
                is_awake,
                "the server sleeps until {deadline:?}, and at {due:?} {what}"
            );
        }
        // What was due and is done, or was due to a connection that is gone, has left no timeout behind.
        let accepting = self.short_at.map(|at| at + Duration::from_millis(100));
        assert!(
            deadline.is_none()
                || self.model.may_have_timeout()
                || self.plan.config.limits.accept_rate.is_some()
                || deadline <= accepting,
            "the server has a timeout at {deadline:?}, and nothing is due"
        );
        let waits = self
            .listeners
            .iter()
            .any(|one| !one.queue.is_empty() && !one.is_listed);
        assert!(
            !waits || deadline.is_some(),
            "the server sleeps, and a connection waits to be accepted"
        );
    }

    /// Whether there is a reason not to read from a member: the room is paused or the member is throttled,
    /// and a timeout ends that; or the member does not read the replies to what it sends, and only that
    /// ends it.
    fn may_wait(&self, peer_index: usize, deadline: Option<Duration>) -> bool {
        let is_slowed = self.has_held || self.plan.config.limits.rate.is_some();
        match self.peers[peer_index].dialect {
            _ if !self.model.is_joined(peer_index) => false,
            Dialect::Greet10 | Dialect::Hello => false,
            _ if self.model.may_be_self_paused(peer_index) => true,
            _ => is_slowed && deadline.is_some(),
        }
    }

    /// While there are slow readers each member is read in its turn.
    fn check_held_up(&mut self, begun: Duration, deadline: Option<Duration>) {
        if !self.is_room_paused || self.plan.config.limits.rate.is_some() {
            return;
        }
        // A server that is woken late is not to blame for that.
        let slept = deadline.map_or(self.now, |deadline| deadline.min(self.now));
        let slept = slept.saturating_sub(begun);
        let most = self.longest_wait();
        for &peer_index in &self.live {
            let is_excused = self.model.visitors.has(peer_index)
                || (causes_its_output_alone(self.peers[peer_index].dialect)
                    && self.model.due(peer_index) > 0);
            let socket = &mut self.sockets[peer_index];
            if !socket.has_news() || socket.is_listed || is_excused || socket.watched.is_none() {
                continue;
            }
            socket.held_up += slept;
            assert!(
                socket.held_up <= most,
                "peer {peer_index} has sent something and was not read for {:?}, where {most:?} are allowed",
                socket.held_up
            );
            self.longest_held_up = self.longest_held_up.max(socket.held_up);
        }
    }

    /// How long a member may have to wait to be read while there are slow readers. Each turn may take a
    /// slow reader over the limit by what one turn publishes, which it accepts at the minimum read rate
    /// at least, or is closed; and in each turn one member at least is read, in the order in which they
    /// became ready.
    fn longest_wait(&self) -> Duration {
        let limits = &self.plan.config.limits;
        let in_a_turn = limits.turn_budget + 1024 + 4 * limits.largest_delivery();
        let to_read = Duration::from_secs((in_a_turn / MIN_READ_RATE) as u64 + 1);
        let turns = self.plan.peers as u32 + 2;
        (to_read + 2 * limits.slow_timeout) * turns
    }

    /// Events that no kernel would have to send, and that a loop has to bear.
    fn with_nonsense(&mut self, mut events: Vec<Event>) -> Vec<Event> {
        if self.phase != Phase::Busy {
            return events;
        }
        if mem::take(&mut self.is_event_stale)
            && let Some(&source) = self.gone.back()
        {
            events.insert(0, event_of(source, Ready::READABLE | Ready::WRITABLE));
        }
        if !self.live.is_empty() {
            let peer_index = self.choices.one_of(&self.live);
            let socket = &self.sockets[peer_index];
            let (has_news, lacks_room) = (socket.has_news(), socket.will_report_room());
            if let Some(source) = socket.watched {
                if !has_news && self.strikes(Fault::SpuriousReadable) {
                    let urgent = Ready::READABLE | Ready::URGENT;
                    let ready = self.choices.one_of(&[Ready::READABLE, urgent]);
                    events.push(event_of(source, ready));
                }
                if lacks_room && self.strikes(Fault::SpuriousWritable) {
                    events.push(event_of(source, Ready::WRITABLE));
                }
            }
        }
        if let Some(&event) = events.first()
            && self.strikes(Fault::DuplicateEvent)
        {
            events.push(event);
        }
        let listener = self.choices.below(self.listeners.len());
        if self.is_listening
            && self.listeners[listener].queue.is_empty()
            && self.strikes(Fault::SpuriousIncoming)
        {
            events.push(Event::Incoming(listener));
        }
        if !self.gone.is_empty() {
            let id = self.gone[self.choices.below(self.gone.len())];
            let is_taken = self.live.iter().any(|&peer_index| {
                self.sockets[peer_index]
                    .watched
                    .is_some_and(|other| slot(other) == slot(id))
            });
            let fault = if is_taken {
                Fault::StaleEventOfSlot
            } else {
                Fault::StaleEvent
            };
            if self.strikes(fault) {
                let all = Ready::READABLE | Ready::WRITABLE | Ready::READ_CLOSED | Ready::HUNG_UP;
                let ready = self
                    .choices
                    .one_of(&[all, Ready::READABLE, Ready::WRITABLE]);
                events.insert(0, event_of(id, ready));
            }
        }
        if events.len() > 1 && self.strikes(Fault::Reordered) {
            for index in (1..events.len()).rev() {
                events.swap(index, self.choices.below(index + 1));
            }
        }
        events
    }

    /// Whether a connection could be evicted in this turn.
    pub fn was_short(&self) -> bool {
        self.was_short
    }

    /// How many descriptors the server has in use.
    pub fn used_descriptors(&self) -> usize {
        self.open + usize::from(self.has_reserve)
    }
}

fn event_of(source: Source, ready: Ready) -> Event {
    match source {
        Source::Connection(id) => Event::Connection(id, ready),
        Source::Visitor(index) => Event::Visitor(index, ready),
        Source::Bus(index) => Event::Bus(index, ready),
    }
}

/// The slot of a connection, without its generation, and whether it is one of the relay.
fn slot(source: Source) -> (usize, bool) {
    match source {
        Source::Connection(id) => (usize::from(id) & (usize::MAX >> (usize::BITS / 2)), true),
        Source::Visitor(index) | Source::Bus(index) => (index, false),
    }
}

fn is_fatal(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn errno(error: &io::Error) -> i32 {
    match error.kind() {
        ErrorKind::WouldBlock => libc::EAGAIN,
        ErrorKind::Interrupted => libc::EINTR,
        _ => error.raw_os_error().unwrap_or(0),
    }
}
