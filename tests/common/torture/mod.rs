//! A chat session with a relay whose system calls fail, and what everybody must have heard in it.
//!
//! The session goes step by step: the relay sleeps while somebody says something, then it does all
//! that there is to do, and only when all that it wrote has come does the next one speak. So a
//! session consists of the same system calls each time, and "the seventh `recv`" means something.
//!
//! Who is cut off, because a call that was about it has failed, comes back, as a client would.

mod hearing;
pub mod traced;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{ErrorKind, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;

use super::{PATIENCE, frame, wide_frame};
use hearing::{Heard, Hearing};
use traced::{Call, Failure, Hit, Route, Stall, Traced, read_all};

/// As many as are here at once.
const PLACES: &str = "4";

/// How the relay answers its `chat64` members here: like a message, so that one can be told from
/// the next where there are no frames.
const ACK: &str = "[ack]";

/// With what a `chat64` member leaves.
const FAREWELL: &str = "Client Disconnected";

/// So many messages of this length are more than the kernel holds for somebody who does not read.
const LONG: usize = 40_000;
const MANY: usize = 9;

/// How often somebody who was cut off comes back before that counts as being shut out.
const RETURNS: usize = 120;

/// How often a relay may try to accept during a shortage before it waits.
const INSISTENCE: usize = 10;

/// What came of a session.
pub struct Session {
    pub calls: Vec<Call>,
    pub log: String,
    /// What must not have happened.
    pub fault: Option<String>,
}

/// Why the session did not go on.
enum Stop {
    /// The relay has ended.
    Ended,
    /// Something happened that must not.
    Fault(String),
}

type Step<T = ()> = Result<T, Stop>;

struct Room {
    relay: Traced,
    /// Everybody's connections, also those that are no more.
    peers: Vec<Peer>,
    /// Who is to be here, and the index of their connections.
    present: BTreeMap<&'static str, usize>,
    messages: Vec<Message>,
    /// Who has said part of a message, and will go on.
    is_speaking: Option<usize>,
    /// It was asked to stop.
    is_stopping: bool,
    step: &'static str,
    most_calls: usize,
}

/// A connection of somebody's.
struct Peer {
    name: &'static str,
    /// None after it has left.
    stream: Option<TcpStream>,
    route: Route,
    /// How many bytes it has said, and which of them were not taken yet.
    said: usize,
    outgoing: Vec<u8>,
    hearing: Hearing,
    reads: bool,
    /// How many messages there had been when it became a member, and when it left.
    joined: Option<usize>,
    left: Option<usize>,
    /// It is to be closed: there is no place for it, or it said goodbye.
    is_to_go: bool,
    /// Its connection was ended by the other side.
    is_cut: bool,
}

/// A message that was said.
struct Message {
    by: usize,
    text: Vec<u8>,
    /// It was said so that something happens. It may come between any two others, or not at all
    /// when the relay stops.
    is_nudge: bool,
}

/// Has the session with a relay of which some calls fail. One that makes more than so many spins.
pub fn session(shim: &Path, failure: Option<&Failure>, most_calls: usize) -> Session {
    let listen = "--listen chat10://127.0.0.1:0 --listen chat64://127.0.0.1:0";
    let own = ["--ack", ACK, "--max-clients", PLACES];
    let args: Vec<_> = listen.split(' ').chain(own).collect();
    let mut room = Room {
        relay: Traced::start(shim, &args, failure),
        peers: Vec::new(),
        present: BTreeMap::new(),
        messages: Vec::new(),
        is_speaking: None,
        is_stopping: false,
        step: "start",
        most_calls,
    };
    let checked = match room.play() {
        Stop::Ended if room.is_stopping && !room.relay.is_hit(Hit::Poll) => room.check(),
        Stop::Ended => room.check_early_end(failure),
        Stop::Fault(fault) => Err(fault),
    };
    let log = room.relay.log();
    let checked = if log.contains("internal error") {
        Err(log.clone())
    } else {
        checked
    };
    Session {
        fault: checked.err().map(|fault| format!("{}: {fault}", room.step)),
        log,
        calls: mem::take(&mut room.relay.calls),
    }
}

impl Room {
    /// Plays the script, which goes on until the relay ends.
    fn play(&mut self) -> Stop {
        match self.script() {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    fn script(&mut self) -> Step<Infallible> {
        self.settle(|_| true)?;
        self.step = "alice, bob and carol join, and dora, who speaks chat64";
        for name in ["alice", "bob", "carol", "dora"] {
            self.come(name)?;
        }
        self.step = "eve comes, for whom there is no place";
        self.be_refused("eve")?;
        self.step = "alice speaks";
        self.say("alice", 10)?;
        self.step = "bob speaks in three segments";
        self.say_in_segments("bob")?;
        self.step = "dora speaks";
        self.say("dora", 10)?;
        self.step = "carol does not read";
        self.peer("carol").reads = false;
        for _ in 0..MANY {
            self.say("alice", LONG)?;
        }
        self.step = "carol reads";
        self.peer("carol").reads = true;
        self.settle(Self::all_have_heard_all)?;
        self.step = "carol leaves";
        self.leave("carol", Shutdown::Write)?;
        self.step = "bob is reset";
        self.leave("bob", Shutdown::Both)?;
        self.step = "alice speaks to those who are left";
        self.say("alice", 10)?;
        self.step = "dave joins and speaks";
        self.come("dave")?;
        self.say("dave", 10)?;
        self.step = "dora says goodbye";
        self.say_goodbye("dora")?;
        self.step = "SIGUSR1";
        self.signal(Signal::USR1)?;
        self.step = "dave does not read";
        self.peer("dave").reads = false;
        for _ in 0..MANY {
            self.say("alice", LONG)?;
        }
        self.step = "SIGTERM, and dave reads";
        self.return_all()?;
        self.is_stopping = true;
        self.signal(Signal::TERM)?;
        self.peer("dave").reads = true;
        self.settle(|_| false)?;
        unreachable!("it goes on until the relay ends");
    }

    /// Somebody joins, and is to be here from now on.
    fn come(&mut self, name: &'static str) -> Step {
        self.join(name)?;
        self.return_all()
    }

    /// Has those come back who were cut off, until all are here.
    fn return_all(&mut self) -> Step {
        for _ in 0..RETURNS {
            let mut present = self.present.iter();
            let Some((name, _)) = present.find(|&(_, &index)| self.peers[index].is_cut) else {
                return Ok(());
            };
            self.join(name)?;
        }
        fault("somebody is shut out")
    }

    /// One attempt to join.
    fn join(&mut self, name: &'static str) -> Step {
        let index = self.connect(name);
        self.present.insert(name, index);
        self.settle(|room| {
            let peer = &room.peers[index];
            let traffic = room.relay.traffic(peer.route);
            peer.is_cut || traffic.is_some_and(|traffic| traffic.is_let_in)
        })?;
        if self.peers[index].is_framed() && !self.peers[index].is_cut {
            self.peers[index].say(name.as_bytes());
            self.settle(|_| true)?;
        }
        let peer = &mut self.peers[index];
        peer.joined = (!peer.is_cut).then_some(self.messages.len());
        Ok(())
    }

    /// Makes a connection of somebody's.
    fn connect(&mut self, name: &'static str) -> usize {
        let listener = usize::from(!is_framed(name));
        let (stream, route) = self.relay.connect(self.relay.ports[listener]);
        self.peers.push(Peer {
            name,
            stream: Some(stream),
            route,
            said: 0,
            outgoing: Vec::new(),
            hearing: Hearing::default(),
            reads: true,
            joined: None,
            left: None,
            is_to_go: false,
            is_cut: false,
        });
        self.peers.len() - 1
    }

    /// Somebody comes, and there is no place.
    fn be_refused(&mut self, name: &'static str) -> Step {
        let index = self.connect(name);
        self.peers[index].is_to_go = true;
        self.settle(|room| room.peers[index].is_cut)?;
        self.return_all()
    }

    /// Somebody says something, and all hear it.
    fn say(&mut self, name: &'static str, len: usize) -> Step {
        self.say_cut(name, len, &[])
    }

    /// The same in segments, the first of which ends in the header.
    fn say_in_segments(&mut self, name: &'static str) -> Step {
        self.say_cut(name, 50, &[3, 27])
    }

    fn say_cut(&mut self, name: &'static str, len: usize, cuts: &[usize]) -> Step {
        for _ in 0..RETURNS {
            self.return_all()?;
            let index = self.present[name];
            let message = self.messages.len();
            let text = format!("[{message} {name} {}]", "x".repeat(len));
            let bytes = self.peers[index].encode(text.as_bytes());
            let mut start = 0;
            for &cut in cuts {
                self.is_speaking = Some(index);
                self.peers[index].send(&bytes[start..cut]);
                self.settle(|_| true)?;
                start = cut;
            }
            self.is_speaking = None;
            self.peers[index].send(&bytes[start..]);
            self.note_said(index, text.into_bytes(), false);
            self.settle(|room| room.peers[index].is_cut || room.all_have_heard(message))?;
            if self.was_said(message)? {
                return self.return_all();
            }
        }
        fault("somebody is never heard")
    }

    /// Somebody says goodbye, and is closed when that was acknowledged.
    fn say_goodbye(&mut self, name: &'static str) -> Step {
        self.return_all()?;
        let index = self.present.remove(name).unwrap();
        let message = self.messages.len();
        self.note_said(index, FAREWELL.into(), false);
        let peer = &mut self.peers[index];
        peer.say(FAREWELL.as_bytes());
        peer.is_to_go = true;
        peer.left = Some(self.messages.len());
        self.settle(|room| room.peers[index].is_cut)?;
        self.was_said(message)?;
        self.return_all()
    }

    fn note_said(&mut self, by: usize, text: Vec<u8>, is_nudge: bool) {
        self.messages.push(Message { by, text, is_nudge });
    }

    /// Whether the last message was heard. Of somebody who was cut off it may have been heard, and
    /// then by all, or by nobody.
    fn was_said(&mut self, message: usize) -> Step<bool> {
        let Message { by, text, .. } = &self.messages[message];
        let is_cut = self.is_hit(&self.peers[*by]);
        if is_cut && !self.peers.iter().any(|peer| peer.hearing.has(text)) {
            self.messages.remove(message);
            return Ok(false);
        }
        self.settle(|room| room.all_have_heard(message))?;
        Ok(true)
    }

    /// A peer ends its input, or resets its connection. In both cases the relay closes it.
    fn leave(&mut self, name: &'static str, how: Shutdown) -> Step {
        self.return_all()?;
        let index = self.present.remove(name).unwrap();
        let peer = &mut self.peers[index];
        peer.left = Some(self.messages.len());
        let stream = peer.stream.take().unwrap();
        if how == Shutdown::Both {
            let at_once = Some(Duration::ZERO);
            SockRef::from(&stream).set_linger(at_once).unwrap();
        }
        drop(stream);
        let route = peer.route;
        self.settle(|room| {
            let traffic = room.relay.traffic(route).unwrap();
            traffic.is_closed || room.is_stalled(route)
        })?;
        self.return_all()
    }

    fn signal(&mut self, signal: Signal) -> Step {
        let seen = self.relay.signals_seen;
        self.relay.signal(signal);
        self.settle(|room| room.relay.signals_seen > seen)
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        &mut self.peers[self.present[name]]
    }

    /// Has the relay do what there is to do until it is so; nudges whom it waits for in vain.
    fn settle(&mut self, is_so: impl Fn(&Self) -> bool) -> Step {
        let start = Instant::now();
        loop {
            self.relay.watch();
            let calls = &self.relay.calls;
            if calls.len() > self.most_calls {
                return fault(format!("it spins: {} calls", calls.len()));
            }
            if self.relay.shortages > INSISTENCE {
                return fault("it spins through a shortage");
            }
            if start.elapsed() > PATIENCE {
                let last = calls[calls.len().saturating_sub(8)..].iter();
                let last: Vec<_> = last.map(ToString::to_string).collect();
                return fault(format!("it hangs after {}", last.join(", ")));
            }
            if !self.relay.is_still() {
                continue;
            }
            for index in 0..self.peers.len() {
                self.hear(index)?;
            }
            if self.relay.has_ended() {
                return Err(Stop::Ended);
            }
            if self.is_quiet() && is_so(self) {
                return Ok(());
            }
            let is_forsaken = self.nudge();
            self.relay.go_on(is_forsaken && self.is_stopping);
        }
    }

    /// Sends what was not taken yet, and reads what has come.
    fn hear(&mut self, index: usize) -> Step {
        let peer = &mut self.peers[index];
        peer.send(&[]);
        let traffic = self.relay.traffic(peer.route);
        let is_over = self.relay.has_ended() || traffic.is_some_and(|traffic| traffic.is_closed);
        if peer.is_cut || !peer.reads && !is_over {
            return Ok(());
        }
        let Some(stream) = &mut peer.stream else {
            return Ok(());
        };
        peer.is_cut = read_all(stream, &mut peer.hearing.bytes);
        if let Err(what) = peer.hearing.parse(is_framed(peer.name)) {
            return fault(format!("{} {what}", peer.name));
        }
        let peer = &self.peers[index];
        // While there are no descriptors, newcomers may be turned away.
        let is_turned_away = peer.joined.is_none() && self.relay.is_hit(Hit::Accept);
        let is_ended = self.is_stopping || self.relay.has_ended();
        let may_be_cut = self.is_hit(peer) || is_turned_away || peer.is_to_go || is_ended;
        if peer.is_cut && !may_be_cut {
            return fault(format!("{} is cut off, who had no part in it", peer.name));
        }
        Ok(())
    }

    /// Whether a call about it has failed.
    fn is_hit(&self, peer: &Peer) -> bool {
        let traffic = self.relay.traffic(peer.route);
        traffic.is_some_and(|traffic| traffic.is_hit)
    }

    /// Whether the relay has read all that was said, and all has come that it has written.
    fn is_quiet(&self) -> bool {
        self.peers.iter().enumerate().all(|(index, peer)| {
            let Some(traffic) = self.relay.traffic(peer.route) else {
                return true;
            };
            if peer.stream.is_none() || peer.is_cut {
                return true;
            }
            let goes_on = self.is_speaking == Some(index) && self.is_stalled(peer.route);
            let is_read = traffic.read == peer.said || goes_on;
            let has_come = traffic.written == peer.hearing.bytes.len() || !peer.reads;
            is_read && has_come && !traffic.is_closed
        })
    }

    fn is_stalled(&self, route: Route) -> bool {
        self.relay.stalls.contains(&Stall::Connection(route))
    }

    /// A socket of which the relay was told once that it is not ready, though it is, comes up with
    /// its next event. This sees to it that there is one. Says whether somebody remains for whom
    /// there cannot be one.
    fn nudge(&mut self) -> bool {
        for stall in mem::take(&mut self.relay.stalls) {
            let route = match stall {
                Stall::Listener(port) => {
                    self.relay.connect(port);
                    continue;
                }
                Stall::Connection(route) => route,
            };
            let index = self.peers.iter().position(|peer| peer.route == route);
            let Some(index) = index else {
                continue;
            };
            if self.is_speaking == Some(index) || self.peers[index].stream.is_none() {
                // The next segment will do; or there is nobody who could do anything.
                self.relay.stalls.push(stall);
            } else {
                let text = format!("[nudge {}]", self.messages.len());
                self.peers[index].say(text.as_bytes());
                self.note_said(index, text.into_bytes(), true);
            }
        }
        !self.relay.stalls.is_empty()
    }

    fn all_have_heard(&self, message: usize) -> bool {
        let Message { by, text, is_nudge } = &self.messages[message];
        self.peers.iter().enumerate().all(|(index, peer)| {
            let is_here = peer.span(message + 1).contains(&message) && !peer.is_cut;
            let is_to_hear = is_here && peer.reads && index != *by && !is_nudge;
            !is_to_hear || peer.hearing.has(text)
        })
    }

    fn all_have_heard_all(&self) -> bool {
        (0..self.messages.len()).all(|message| self.all_have_heard(message))
    }

    /// Checks a session that came to its end.
    fn check(&mut self) -> Result<(), String> {
        let (end, log) = (self.relay.wait(), self.relay.log());
        if end.code() != Some(0) {
            return Err(format!("it ends with {end}"));
        }
        for line in [
            "listens on",
            "SIGUSR1: ",
            "SIGTERM: stopping",
            "stopped after",
        ] {
            if log.matches(line).count() != 1 && !self.relay.is_hit(Hit::Log) {
                return Err(format!("the log does not have {line:?} once"));
            }
        }
        if log.contains("chatloop: ") {
            return Err("it complains and goes on".to_owned());
        }
        for (index, peer) in self.peers.iter().enumerate() {
            let (heard, expected) = self.compare(index)?;
            let is_all = heard == expected && peer.hearing.is_whole();
            if !is_all && peer.joined.is_some() && !self.is_hit(peer) {
                let name = peer.name;
                return Err(format!("{name} has heard {heard} of {expected} messages"));
            }
        }
        Ok(())
    }

    /// Checks that a relay ended for a reason, with the exit code for that and one line, and that
    /// until then nobody has heard what was not said.
    fn check_early_end(&mut self, failure: Option<&Failure>) -> Result<(), String> {
        let (end, log) = (self.relay.wait(), self.relay.log());
        let has_called = |function| {
            let mut calls = self.relay.calls.iter();
            calls.any(|call| call.function == function)
        };
        let has_started = has_called("epoll_wait");
        let expected = match failure.map(|failure| failure.function) {
            Some("epoll_wait") => 1,
            Some("socket" | "fcntl" | "setsockopt" | "bind" | "listen") if !has_started => 3,
            // Registering a listener is a part of listening.
            Some("epoll_ctl") if !has_called("sigaction") => 3,
            Some(_) if !has_started => 1,
            _ => return Err(format!("it ends with {end}")),
        };
        if end.code() != Some(expected) {
            return Err(format!("it ends with {end}, and not with {expected}"));
        }
        let complaints = log.lines().filter(|line| line.starts_with("chatloop: "));
        if complaints.count() != 1 || !has_started && log.lines().count() != 1 {
            return Err(format!("not one line, but {log:?}"));
        }
        (0..self.peers.len()).try_for_each(|index| self.compare(index).map(|_| ()))
    }

    /// Checks that what somebody has heard is what was said, up to some point. Says how many
    /// messages it has heard, and of how many.
    fn compare(&self, index: usize) -> Result<(usize, usize), String> {
        let peer = &self.peers[index];
        let as_heard = |message: &Message| {
            let by = &self.peers[message.by];
            let (name, text) = match (message.by == index, peer.is_framed()) {
                (true, true) => return None,
                (true, false) => (Vec::new(), ACK.into()),
                (false, true) => (by.shown_as(), message.text.clone()),
                (false, false) => (Vec::new(), message.text.clone()),
            };
            Some(Heard { name, text })
        };
        let messages = |is_nudge| {
            let said = &self.messages[peer.span(self.messages.len())];
            let said = said.iter().filter(move |one| one.is_nudge == is_nudge);
            said.filter_map(as_heard).collect::<Vec<_>>()
        };
        let expected = messages(false);
        let heard = peer.hearing.compare(&expected, messages(true));
        let heard = heard.map_err(|what| format!("{} {what}", peer.name))?;
        Ok((heard, expected.len()))
    }
}

impl Peer {
    fn is_framed(&self) -> bool {
        is_framed(self.name)
    }

    /// Which of so many messages it hears.
    fn span(&self, messages: usize) -> Range<usize> {
        let end = self.left.unwrap_or(messages).min(messages);
        self.joined.unwrap_or(end).min(end)..end
    }

    /// Its name as others are told it.
    fn shown_as(&self) -> Vec<u8> {
        if self.is_framed() {
            self.name.into()
        } else {
            format!("127.0.0.1:{}", self.route.from).into_bytes()
        }
    }

    fn encode(&self, payload: &[u8]) -> Vec<u8> {
        if self.is_framed() {
            frame(payload)
        } else {
            wide_frame(payload)
        }
    }

    fn say(&mut self, payload: &[u8]) {
        self.send(&self.encode(payload));
    }

    /// Sends this after what was not taken before.
    fn send(&mut self, bytes: &[u8]) {
        self.said += bytes.len();
        self.outgoing.extend_from_slice(bytes);
        let Some(stream) = self.stream.as_mut().filter(|_| !self.outgoing.is_empty()) else {
            return;
        };
        match stream.write(&self.outgoing) {
            Ok(sent) => drop(self.outgoing.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Reading will tell.
            Err(_) => self.outgoing.clear(),
        }
    }
}

/// Whether somebody of this name hears frames, or bare payloads.
fn is_framed(name: &str) -> bool {
    name != "dora"
}

fn fault<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Fault(what.into()))
}
