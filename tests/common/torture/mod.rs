//! A chat session with a relay whose system calls fail, and what all members must have received in it.
//!
//! The session goes step by step: the relay sleeps while a client sends a message, then it does all
//! that there is to do, and only when all that it wrote has arrived does the next client send. So a
//! session consists of the same system calls each time, and "the seventh `recv`" means something.
//!
//! A peer that is cut off, because a call about it has failed, connects again, as a client would.

mod receiving;
pub mod traced;

use std::collections::{BTreeMap, BTreeSet};
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
use receiving::{Received, Receiver, Speech};
use traced::{Call, Failure, Hit, Route, Stall, Traced, read_all};

/// As many as are here at once.
const PLACES: &str = "4";

/// How the relay answers its `chat64` members here: like a message, so that one can be distinguished from
/// the next where there are no frames.
const ACK: &str = "[ack]";

/// The handshake of RFC 6455, 1.3, as a browser sends it.
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What a proxy sends before its client's bytes.
const PROXY_HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 4321 1234\r\n";

/// The first bytes of the frames that browsers send.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// With what a `chat64` member leaves.
const FAREWELL: &str = "Client Disconnected";

/// So many messages of this length are more than the kernel holds for a client that does not read.
const LONG: usize = 40_000;
const MANY: usize = 9;

/// How often a client that was cut off comes back before that counts as being shut out.
const RETURNS: usize = 120;

/// How often a relay may try to accept during a shortage before it waits.
const INSISTENCE: usize = 10;

/// What happens in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Members of the tutorials' dialects join, send and leave.
    Tutorials,
    /// The same with browsers, and with one of the others behind a proxy.
    Web,
}

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
    script: Script,
    relay: Traced,
    /// All connections, also those that have ended.
    peers: Vec<Peer>,
    /// The names of the members that must be present, and the indexes of their connections.
    present: BTreeMap<&'static str, usize>,
    messages: Vec<Message>,
    /// The connections of which a failed call hid the handshake, or did not accept the answer.
    stalled_visitors: BTreeSet<usize>,
    /// The peer that has sent a part of a message, and will send the rest.
    is_sending: Option<usize>,
    /// It was asked to stop.
    is_stopping: bool,
    step: &'static str,
    most_calls: usize,
}

/// A client's connection.
struct Peer {
    name: &'static str,
    /// None after it has left.
    stream: Option<TcpStream>,
    route: Route,
    /// How many bytes it has sent, and which of them were not taken yet.
    sent: usize,
    outgoing: Vec<u8>,
    receiving: Receiver,
    reads: bool,
    /// How many messages there had been when it became a member, and when it left.
    joined: Option<usize>,
    left: Option<usize>,
    /// It must be closed: there is no place for it, or it sent its farewell.
    is_to_go: bool,
    /// Its connection was ended by the other side.
    is_cut: bool,
}

/// A message that was sent.
struct Message {
    by: usize,
    text: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is for all others.
    Message,
    /// It was sent so that something happens. It may come between any two others, or not at all
    /// when the relay stops.
    Nudge,
    /// It is answered to its sender, and no other client receives it: a ping, or a Close frame.
    Control,
}

/// Has the session with a relay of which some calls fail. One that makes more than so many spins.
pub fn session(
    script: Script,
    shim: &Path,
    failure: Option<&Failure>,
    most_calls: usize,
) -> Session {
    let listen = match script {
        Script::Tutorials => "--listen chat10://127.0.0.1:0 --listen chat64://127.0.0.1:0",
        Script::Web => {
            "--listen proxy+chat10://127.0.0.1:0 --trust-proxy 127.0.0.1 \
             --listen ws://127.0.0.1:0 --history 0"
        }
    };
    let own = ["--ack", ACK, "--max-clients", PLACES];
    let args: Vec<_> = listen.split(' ').chain(own).collect();
    let mut room = Room {
        script,
        relay: Traced::start(shim, &args, failure),
        peers: Vec::new(),
        present: BTreeMap::new(),
        messages: Vec::new(),
        stalled_visitors: BTreeSet::new(),
        is_sending: None,
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
        let played = match self.script {
            Script::Tutorials => self.play_tutorials(),
            Script::Web => self.play_web(),
        };
        match played {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    fn play_web(&mut self) -> Step<Infallible> {
        self.settle(|_| true)?;
        self.step = "alice joins, and the browsers wanda, walter and willy";
        for name in ["alice", "wanda", "walter", "willy"] {
            self.come(name)?;
        }
        self.step = "the browser wendy comes, for which there is no place";
        self.be_refused("wendy")?;
        self.step = "wanda sends";
        self.send_message("wanda", 10)?;
        self.step = "walter sends in three segments";
        self.send_in_segments("walter")?;
        self.step = "alice sends";
        self.send_message("alice", 200)?;
        self.step = "wanda pings";
        self.ping("wanda")?;
        self.step = "walter does not read, and pings";
        self.peer("walter").reads = false;
        for _ in 0..MANY {
            self.send_message("alice", LONG)?;
        }
        self.ping("walter")?;
        self.step = "walter reads";
        self.peer("walter").reads = true;
        self.settle(Self::all_have_received_all)?;
        self.step = "wanda closes";
        self.send_farewell("wanda")?;
        self.step = "walter is reset";
        self.leave("walter", Shutdown::Both)?;
        self.step = "alice sends to the remaining members";
        self.send_message("alice", 10)?;
        self.step = "wanda connects again and sends";
        self.come("wanda")?;
        self.send_message("wanda", 10)?;
        self.step = "SIGUSR1";
        self.signal(Signal::USR1)?;
        self.step = "SIGTERM";
        self.return_all()?;
        self.is_stopping = true;
        self.signal(Signal::TERM)?;
        self.settle(|_| false)?;
        unreachable!("it goes on until the relay ends");
    }

    fn play_tutorials(&mut self) -> Step<Infallible> {
        self.settle(|_| true)?;
        self.step = "alice, bob and carol join, and dora of chat64";
        for name in ["alice", "bob", "carol", "dora"] {
            self.come(name)?;
        }
        self.step = "eve connects, without a place for her";
        self.be_refused("eve")?;
        self.step = "alice sends";
        self.send_message("alice", 10)?;
        self.step = "bob sends in three segments";
        self.send_in_segments("bob")?;
        self.step = "dora sends";
        self.send_message("dora", 10)?;
        self.step = "carol does not read";
        self.peer("carol").reads = false;
        for _ in 0..MANY {
            self.send_message("alice", LONG)?;
        }
        self.step = "carol reads";
        self.peer("carol").reads = true;
        self.settle(Self::all_have_received_all)?;
        self.step = "carol leaves";
        self.leave("carol", Shutdown::Write)?;
        self.step = "bob is reset";
        self.leave("bob", Shutdown::Both)?;
        self.step = "alice sends to the remaining members";
        self.send_message("alice", 10)?;
        self.step = "dave joins and sends";
        self.come("dave")?;
        self.send_message("dave", 10)?;
        self.step = "dora sends its farewell";
        self.send_farewell("dora")?;
        self.step = "SIGUSR1";
        self.signal(Signal::USR1)?;
        self.step = "dave does not read";
        self.peer("dave").reads = false;
        for _ in 0..MANY {
            self.send_message("alice", LONG)?;
        }
        self.step = "SIGTERM, and dave reads";
        self.return_all()?;
        self.is_stopping = true;
        self.signal(Signal::TERM)?;
        self.peer("dave").reads = true;
        self.settle(|_| false)?;
        unreachable!("it goes on until the relay ends");
    }

    /// A client joins, and must be a member from now on.
    fn come(&mut self, name: &'static str) -> Step {
        self.join(name)?;
        self.return_all()
    }

    /// Connects those again that were cut off, until all are members.
    fn return_all(&mut self) -> Step {
        for _ in 0..RETURNS {
            let mut present = self.present.iter();
            let Some((name, _)) = present.find(|&(_, &index)| self.peers[index].is_cut) else {
                return Ok(());
            };
            self.join(name)?;
        }
        fault("a client is shut out")
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
        let speech = speech_of(name);
        if speech == Speech::Web && !self.peers[index].is_cut {
            self.peers[index].send(HANDSHAKE);
            self.settle(|room| {
                let peer = &room.peers[index];
                peer.is_cut || peer.receiving.is_upgraded()
            })?;
        }
        if speech == Speech::Frames && self.script == Script::Web {
            self.peers[index].send(PROXY_HEADER);
        }
        if speech != Speech::Bare && !self.peers[index].is_cut {
            self.peers[index].send_message(name.as_bytes());
            self.settle(|_| true)?;
        }
        let peer = &mut self.peers[index];
        peer.joined = (!peer.is_cut).then_some(self.messages.len());
        Ok(())
    }

    /// Makes a connection for a client.
    fn connect(&mut self, name: &'static str) -> usize {
        // Those for proxies are the last.
        let has_frames = speech_of(name) == Speech::Frames;
        let listener = usize::from(has_frames == (self.script == Script::Web));
        let (stream, route) = self.relay.connect(self.relay.ports[listener]);
        self.peers.push(Peer {
            name,
            stream: Some(stream),
            route,
            sent: 0,
            outgoing: Vec::new(),
            receiving: Receiver::default(),
            reads: true,
            joined: None,
            left: None,
            is_to_go: false,
            is_cut: false,
        });
        self.peers.len() - 1
    }

    /// A client connects, and there is no place for it.
    fn be_refused(&mut self, name: &'static str) -> Step {
        let index = self.connect(name);
        self.peers[index].is_to_go = true;
        if speech_of(name) == Speech::Web {
            self.peers[index].send(HANDSHAKE);
        }
        self.settle(|room| room.peers[index].is_cut)?;
        self.return_all()
    }

    /// A client sends a message, and all receive it.
    fn send_message(&mut self, name: &'static str, len: usize) -> Step {
        self.send_cut(name, len, &[])
    }

    /// The same in segments, the first of which ends in the header.
    fn send_in_segments(&mut self, name: &'static str) -> Step {
        self.send_cut(name, 50, &[3, 27])
    }

    fn send_cut(&mut self, name: &'static str, len: usize, cuts: &[usize]) -> Step {
        for _ in 0..RETURNS {
            self.return_all()?;
            let index = self.present[name];
            let message = self.messages.len();
            let text = format!("[{message} {name} {}]", "x".repeat(len));
            let bytes = self.peers[index].encode(text.as_bytes());
            let mut start = 0;
            for &cut in cuts {
                self.is_sending = Some(index);
                self.peers[index].send(&bytes[start..cut]);
                self.settle(|_| true)?;
                start = cut;
            }
            self.is_sending = None;
            self.peers[index].send(&bytes[start..]);
            self.note_sent(index, text.into_bytes(), Kind::Message);
            self.settle(|room| room.peers[index].is_cut || room.all_have_received(message))?;
            if self.was_sent(message)? {
                return self.return_all();
            }
        }
        fault("a message is never delivered")
    }

    /// A browser pings, and is answered in its place.
    fn ping(&mut self, name: &'static str) -> Step {
        for _ in 0..RETURNS {
            self.return_all()?;
            let index = self.present[name];
            let message = self.messages.len();
            let text = format!("[pong {message}]");
            self.peers[index].send(&masked(PING, text.as_bytes()));
            self.note_sent(index, text.into_bytes(), Kind::Control);
            self.settle(|room| room.peers[index].is_cut || room.all_have_received(message))?;
            if self.was_sent(message)? {
                return self.return_all();
            }
        }
        fault("a client is never answered")
    }

    /// A client sends its farewell, and is closed when that was acknowledged.
    fn send_farewell(&mut self, name: &'static str) -> Step {
        self.return_all()?;
        let index = self.present.remove(name).unwrap();
        let message = self.messages.len();
        if speech_of(name) == Speech::Web {
            self.note_sent(index, b"[close 1000]".to_vec(), Kind::Control);
            self.peers[index].send(&masked(CLOSE, &1000_u16.to_be_bytes()));
        } else {
            self.note_sent(index, FAREWELL.into(), Kind::Message);
            self.peers[index].send_message(FAREWELL.as_bytes());
        }
        let peer = &mut self.peers[index];
        peer.is_to_go = true;
        peer.left = Some(self.messages.len());
        self.settle(|room| room.peers[index].is_cut)?;
        self.was_sent(message)?;
        self.return_all()
    }

    fn note_sent(&mut self, by: usize, text: Vec<u8>, kind: Kind) {
        self.messages.push(Message { by, text, kind });
    }

    /// Whether the last message was received. Of a client that was cut off it may have been received, and
    /// then by all, or by no client.
    fn was_sent(&mut self, message: usize) -> Step<bool> {
        let Message { by, text, .. } = &self.messages[message];
        let is_cut = self.is_hit(&self.peers[*by]);
        if is_cut && !self.peers.iter().any(|peer| peer.receiving.has(text)) {
            self.messages.remove(message);
            return Ok(false);
        }
        self.settle(|room| room.all_have_received(message))?;
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

    /// Has the relay do what there is to do until it is so; nudges the peers that it waits for in vain.
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
                self.receive(index)?;
            }
            if self.relay.has_ended() {
                return Err(Stop::Ended);
            }
            if self.is_quiet() && is_so(self) {
                return Ok(());
            }
            let is_forsaken = self.is_done_but_for_stalls() && self.nudge();
            let is_over = self.is_stopping || self.has_stalled_visitor();
            self.relay.go_on(is_forsaken && is_over);
        }
    }

    /// Sends what was not taken yet, and reads what has come.
    fn receive(&mut self, index: usize) -> Step {
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
        peer.is_cut = read_all(stream, &mut peer.receiving.bytes);
        if let Err(what) = peer.receiving.parse(speech_of(peer.name)) {
            return fault(format!("{} {what}", peer.name));
        }
        let peer = &self.peers[index];
        // While there are no descriptors, new members may be turned away.
        let is_turned_away = peer.joined.is_none() && self.relay.is_hit(Hit::Accept);
        let is_ended = self.is_stopping || self.relay.has_ended();
        // Of a handshake nothing follows that could make up for an event.
        let is_stalled = self.stalled_visitors.contains(&index) || self.is_stalled(peer.route);
        let is_late = peer.is_visiting() && is_stalled;
        let may_be_cut =
            self.is_hit(peer) || is_turned_away || peer.is_to_go || is_ended || is_late;
        if peer.is_cut && !may_be_cut {
            return fault(format!("{} is cut off, and had no part in it", peer.name));
        }
        Ok(())
    }

    /// Whether a call about it has failed.
    fn is_hit(&self, peer: &Peer) -> bool {
        let traffic = self.relay.traffic(peer.route);
        traffic.is_some_and(|traffic| traffic.is_hit)
    }

    /// Whether the relay has read all that was sent and has acknowledged it, and all has come that it has
    /// written.
    fn is_quiet(&self) -> bool {
        (0..self.peers.len()).all(|index| self.is_peer_quiet(index))
    }

    /// The same for all but those of which the relay was notified that they are not ready. What it can do without
    /// another event it must do without: an event for one may hide what it has forgotten of another.
    fn is_done_but_for_stalls(&self) -> bool {
        let is_stalled = |index: usize| self.is_stalled(self.peers[index].route);
        (0..self.peers.len()).all(|index| is_stalled(index) || self.is_peer_quiet(index))
    }

    fn is_peer_quiet(&self, index: usize) -> bool {
        let peer = &self.peers[index];
        let Some(traffic) = self.relay.traffic(peer.route) else {
            return true;
        };
        if peer.stream.is_none() || peer.is_cut {
            return true;
        }
        let goes_on = self.is_sending == Some(index) && self.is_stalled(peer.route);
        let is_read = traffic.read == peer.sent || goes_on;
        let has_come = traffic.written == peer.receiving.bytes.len() || !peer.reads;
        is_read && has_come && !traffic.is_closed && self.is_acknowledged(index)
    }

    /// Whether a peer that reads has an acknowledgement for each of its messages, if its dialect has them.
    fn is_acknowledged(&self, index: usize) -> bool {
        let peer = &self.peers[index];
        if !peer.reads || speech_of(peer.name) == Speech::Frames {
            return true;
        }
        let is_own = |message: &&Message| message.by == index && message.kind != Kind::Control;
        let sent = self.messages.iter().filter(is_own).count();
        let received = peer.receiving.messages.iter();
        let acks = received.filter(|received| received.text == ACK.as_bytes());
        acks.count() >= sent
    }

    /// Whether the relay was notified that a handshake has not come or that its answer was not accepted. That takes
    /// until a timeout, after which its peer comes back.
    fn has_stalled_visitor(&self) -> bool {
        let mut stalled = self.stalled_visitors.iter();
        stalled.any(|&index| self.peers[index].is_visiting() && !self.peers[index].is_cut)
    }

    fn is_stalled(&self, route: Route) -> bool {
        self.relay.stalls.contains(&Stall::Connection(route))
    }

    /// A socket of which the relay was notified once that it is not ready, though it is, comes up with
    /// its next event. This sees to it that there is one. Returns whether a client remains for which
    /// there cannot be one.
    fn nudge(&mut self) -> bool {
        for stall in mem::take(&mut self.relay.stalls) {
            let route = match stall {
                // It is closed.
                Stall::Listener(_) if self.is_stopping => continue,
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
            if self.peers[index].is_visiting() {
                // It has nothing to send.
                self.stalled_visitors.insert(index);
            } else if self.is_sending == Some(index) || self.peers[index].stream.is_none() {
                // The next segment will do; or there is no client that could act.
                self.relay.stalls.push(stall);
            } else {
                let text = format!("[nudge {}]", self.messages.len());
                self.peers[index].send_message(text.as_bytes());
                self.note_sent(index, text.into_bytes(), Kind::Nudge);
            }
        }
        !self.relay.stalls.is_empty() || self.has_stalled_visitor()
    }

    fn all_have_received(&self, message: usize) -> bool {
        let Message { by, text, kind } = &self.messages[message];
        self.peers.iter().enumerate().all(|(index, peer)| {
            let is_here = peer.span(message + 1).contains(&message) && !peer.is_cut;
            let is_for_it = match kind {
                Kind::Message => index != *by,
                Kind::Nudge => false,
                Kind::Control => index == *by,
            };
            let is_to_receive = is_here && peer.reads && is_for_it;
            !is_to_receive || peer.receiving.has(text)
        })
    }

    fn all_have_received_all(&self) -> bool {
        (0..self.messages.len()).all(|message| self.all_have_received(message))
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
        // A Close frame is written once, and whatever comes of that the connection ends.
        let mut calls = self.relay.calls.iter();
        let is_refused = calls.any(|call| call.has_failed && call.errno == libc::EAGAIN);
        for (index, peer) in self.peers.iter().enumerate() {
            let (received, expected) = self.compare(index)?;
            let is_all = received == expected && peer.receiving.is_whole();
            let is_browser = speech_of(peer.name) == Speech::Web && peer.joined.is_some();
            let has_stayed = is_browser && peer.left.is_none() && !self.is_hit(peer);
            if has_stayed && !is_refused && !peer.receiving.has(b"[close 1001]") {
                return Err(format!("{} has no Close frame", peer.name));
            }
            if !is_all && peer.joined.is_some() && !self.is_hit(peer) {
                let name = peer.name;
                return Err(format!(
                    "{name} has received {received} of {expected} messages"
                ));
            }
        }
        Ok(())
    }

    /// Checks that a relay ended for a reason, with the exit code for that and one line, and that
    /// until then no client has received what was not sent.
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

    /// Checks that a client has received what was sent, up to some point. Returns how many
    /// messages it has received, and of how many.
    fn compare(&self, index: usize) -> Result<(usize, usize), String> {
        let peer = &self.peers[index];
        let speech = speech_of(peer.name);
        let unnamed = |text: &str| Received {
            name: Vec::new(),
            text: text.into(),
        };
        let as_received = |message: &Message| {
            let by = &self.peers[message.by];
            let text = message.text.clone();
            Some(match (message.kind, message.by == index, speech) {
                (Kind::Control, true, _) => Received {
                    name: Vec::new(),
                    text,
                },
                (Kind::Control, false, _) | (_, true, Speech::Frames) => return None,
                (_, true, Speech::Bare | Speech::Web) => unnamed(ACK),
                (_, false, Speech::Bare) => Received {
                    name: Vec::new(),
                    text,
                },
                (_, false, Speech::Frames | Speech::Web) => Received {
                    name: by.shown_as(),
                    text,
                },
            })
        };
        let messages = |is_nudge| {
            let sent = &self.messages[peer.span(self.messages.len())];
            let sent = sent
                .iter()
                .filter(move |one| (one.kind == Kind::Nudge) == is_nudge);
            sent.filter_map(as_received).collect::<Vec<_>>()
        };
        let (mut expected, mut others) = (messages(false), messages(true));
        if speech == Speech::Web {
            match peer.joined {
                Some(_) => expected.insert(0, unnamed("[hello]")),
                None => others.push(unnamed("[hello]")),
            }
            // It may have been asked to nudge before it was known to be a member.
            let own_nudges = self.messages.iter().enumerate().filter(|(at, one)| {
                let is_early = !peer.span(self.messages.len()).contains(at);
                one.kind == Kind::Nudge && one.by == index && is_early
            });
            others.extend(own_nudges.map(|_| unnamed(ACK)));
            // The relay stops, has no place, or closes for another reason.
            let closes = [1001, 1013, 1008].map(|code| unnamed(&format!("[close {code}]")));
            others.extend(closes);
        }
        let received = peer.receiving.compare(&expected, others);
        let received = received.map_err(|what| format!("{} {what}", peer.name))?;
        Ok((received, expected.len()))
    }
}

impl Peer {
    /// Whether its handshake was not answered.
    fn is_visiting(&self) -> bool {
        speech_of(self.name) == Speech::Web && !self.receiving.is_upgraded()
    }

    /// Which of so many messages it receives.
    fn span(&self, messages: usize) -> Range<usize> {
        let end = self.left.unwrap_or(messages).min(messages);
        self.joined.unwrap_or(end).min(end)..end
    }

    /// Its name as other members receive it.
    fn shown_as(&self) -> Vec<u8> {
        match speech_of(self.name) {
            Speech::Frames | Speech::Web => self.name.into(),
            Speech::Bare => format!("127.0.0.1:{}", self.route.from).into_bytes(),
        }
    }

    fn encode(&self, payload: &[u8]) -> Vec<u8> {
        match speech_of(self.name) {
            Speech::Frames => frame(payload),
            Speech::Bare => wide_frame(payload),
            Speech::Web => masked(TEXT, payload),
        }
    }

    fn send_message(&mut self, payload: &[u8]) {
        self.send(&self.encode(payload));
    }

    /// Sends this after what was not taken before.
    fn send(&mut self, bytes: &[u8]) {
        self.sent += bytes.len();
        self.outgoing.extend_from_slice(bytes);
        let Some(stream) = self.stream.as_mut().filter(|_| !self.outgoing.is_empty()) else {
            return;
        };
        match stream.write(&self.outgoing) {
            Ok(sent) => drop(self.outgoing.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The error shows when it is read.
            Err(_) => self.outgoing.clear(),
        }
    }
}

/// How a client of this name sends.
fn speech_of(name: &str) -> Speech {
    match name {
        "dora" => Speech::Bare,
        _ if name.starts_with('w') => Speech::Web,
        _ => Speech::Frames,
    }
}

/// A frame of a browser, whose payload is short.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    assert!(payload.len() < 126, "a short payload");
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&KEY);
    let bytes = payload.iter().zip(KEY.iter().cycle());
    frame.extend(bytes.map(|(byte, key)| byte ^ key));
    frame
}

fn fault<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Fault(what.into()))
}
