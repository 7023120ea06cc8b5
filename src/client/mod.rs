//! The terminal client: it sends and receives on one event loop.
//!
//! The tutorials' clients block in `input()`, and receive nothing meanwhile. The solution is not a
//! second thread but the poll: it watches the keyboard and the socket, and reports which of them is
//! ready. One pass of the loop is a [`turn`](Client::turn):
//!
//! | step | where |
//! |---|---|
//! | The poll reports what is ready; that is only noted | here |
//! | Keys become edits of the line that is being typed | [`keys`](crate::terminal::keys), [`line_editor`] |
//! | A name is completed, and so is a command | `completion.rs`, `roster.rs` |
//! | A finished line is a command | `command.rs`, `interactive.rs` |
//! | ... or, in a pipe, bytes become lines | [`lines`] |
//! | A finished line becomes a message to send | [`outbox`], `ack_probe.rs` |
//! | The connection is made, and made again when it is lost | `link.rs`, `backoff.rs` |
//! | ... and over it TLS, if that is asked for | `link.rs`, [`client_tls`](crate::client_tls) |
//! | ... and a WebSocket, if that is asked for | `link.rs`, [`handshake`](crate::handshake) |
//! | Received bytes become messages | [`session`], `json_session.rs` |
//! | What a reconnect repeats is left out | `history.rs` |
//! | ... which are shown above the typed line, or written as lines | [`screen`], [`display`], `wrap.rs` |
//! | A message mentions the user, who may look elsewhere | `mention.rs`, `attention.rs` |
//! | What is said is logged, and what is typed is kept | `chat_log.rs`, `typed_history.rs` |
//! | Pending output is written, as far as it is accepted | `terminal/stdio.rs` |
//!
//! # Why nothing blocks
//!
//! The socket is non-blocking. Standard input and output are shared with other processes and may be any
//! file, so they are used only when they are ready: see `terminal/stdio.rs`. A terminal is opened a second time,
//! for a descriptor of its own that can be non-blocking.
//!
//! # Why nothing grows
//!
//! Backpressure works in both directions. If the terminal or the reader of a pipe is slow, the socket is
//! not read, and TCP slows the server down. If the server is slow or away, the input is not read, and
//! the pipe slows its writer down. The keyboard is always read: it is slow, and its user must be able to
//! leave.
//!
//! # What happens to messages when a connection is lost
//!
//! Each is sent over the next connection, or reported: see [`outbox`].
//!
//! The client uses [`wire`](crate::wire), [`handshake`](crate::handshake), [`client_tls`](crate::client_tls),
//! [`terminal`](crate::terminal) and [`text`](crate::text), and nothing of the relay.

mod ack_probe;
mod acknowledged;
mod attention;
mod backoff;
mod chat_log;
mod command;
mod completion;
pub mod display;
mod error;
mod filter;
mod frontend;
mod history;
pub mod incoming;
mod interactive;
mod json_session;
mod limits;
pub mod line_editor;
pub mod lines;
mod link;
mod mention;
pub mod outbox;
mod request;
mod roster;
pub mod screen;
pub mod session;
mod typed_history;
mod wrap;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP, SIGWINCH};

use ack_probe::AckProbe;
pub use chat_log::ChatLog;
use display::{Named, Notice};
pub use error::ClientError;
use error::reason;
use filter::Filter;
pub use filter::Streams;
use frontend::Frontend;
use history::History;
use incoming::Incoming;
use interactive::Interactive;
pub use interactive::TerminalOptions;
use limits::MAX_PENDING_BYTES;
use link::{Attempt, Link};
use outbox::{ConnectionEnd, Framing, Outbox, Undelivered};
use request::Request;
use session::Disconnect;
pub use typed_history::TypedHistory;

use crate::client_tls::Connector;
use crate::handshake::Target;
use crate::terminal::signals::Signals;

const SOCKET: Token = Token(0);
const INPUT: Token = Token(1);
const OUTPUT: Token = Token(2);
const NOTICES: Token = Token(3);
const SIGNALS: Token = Token(4);

/// The most bytes of one read of the socket.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The most reads of the socket in a turn: a flood of messages must not delay the keyboard.
const MAX_READS_PER_TURN: usize = 8;

/// The delay before a user who wants to leave is informed of what the client waits for.
const LEAVE_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// On a terminal, a connection fails when sent bytes are unacknowledged for this time. TCP itself would
/// try for a quarter of an hour. It does not apply in a pipe, which may send more than a busy server
/// reads in that time.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// From this wait on, failed attempts to connect are not reported one by one.
const QUIET_RETRY_WAIT: Duration = Duration::from_secs(15);

/// How long senders must be paused before that is reported: most pauses are over by then.
const PAUSE_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// How long to stay connected after all messages are delivered. A server can refuse a message only by
/// closing the connection, and that must be reported.
const ANSWER_WAIT: Duration = Duration::from_millis(300);

/// How long the messages that waited go on waiting after a connection is made again. Other members have lost
/// theirs at the same time, and their waits have doubled in the same way, so that they need about as long as this
/// client was away. The wait ends when a message of one of them arrives.
const MIN_REJOIN_WAIT: Duration = Duration::from_secs(1);
const MAX_REJOIN_WAIT: Duration = Duration::from_secs(5);

/// From this length on, a message may be too long for a server. Few servers have a lower limit.
const SUSPECT_BYTES: usize = 1000;

/// The status code of a server that refuses a message or a name for its length (RFC 6455, 7.4.1).
const TOO_LONG: u16 = 1009;

/// The status of messages that may be delivered or not.
const UNCERTAIN: &str = "may not have arrived";

/// A `Config` is the configuration of a client.
#[derive(Debug)]
pub struct Config {
    /// The server as the user wrote it, for messages.
    pub server: String,
    /// The addresses of the server, at least one. The first that answers is used.
    pub addrs: Vec<SocketAddr>,
    /// The WebSocket to open there. Without one the server speaks `chat10`.
    pub web_socket: Option<Target>,
    /// TLS around either of them, if there is any.
    pub tls: Option<Connector>,
    /// The name to join with.
    pub name: Vec<u8>,
    /// Whether to connect again when the connection is lost.
    pub reconnect: bool,
    /// Whether to try again when the first connection fails.
    pub wait: bool,
    /// Whether established connections are not reported.
    pub quiet: bool,
    /// How the user sends and receives.
    pub interface: Interface,
}

/// An `Interface` is how the user sends and receives.
#[derive(Debug)]
pub enum Interface {
    /// The terminal of standard input and output.
    Terminal(TerminalOptions),
    /// Pipes or files.
    Streams(Streams),
}

/// A `Client` is a member of a chat: see the [module](self).
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "none depends on another")]
pub struct Client {
    poll: Poll,
    events: Events,
    signals: Option<Signals>,
    front: Frontend,
    link: Link,
    outbox: Outbox,
    /// The position in the server's history; `chat10` has none.
    history: History,
    /// The longest message that the server accepts, in bytes, once that is known.
    max_message: Option<usize>,
    /// The time since which senders are paused.
    paused_since: Option<Instant>,
    /// Whether a pause is reported, and its end is to be.
    pause_is_shown: bool,
    scratch: Vec<u8>,
    server: String,
    name: Vec<u8>,
    /// The name before this one, until the server has accepted this one.
    former_name: Option<Vec<u8>>,
    reconnect: bool,
    wait: bool,
    quiet: bool,
    /// Whether a connection was ever established.
    was_connected: bool,
    /// The time at which the last connection was lost.
    lost_at: Instant,
    /// Whether failed attempts to connect are no longer reported.
    retries_are_quiet: bool,
    /// Set when the user has asked to leave.
    leaving: Option<Leaving>,
    /// The time before which only the name is sent, unless a message arrives.
    held_until: Option<Instant>,
    /// Whether the user was notified of messages that are held back until then.
    hold_is_shown: bool,
    ack_probe: AckProbe,
    /// The number of messages that may be delivered or not.
    uncertain: u64,
    /// The number of messages that are longer than the server accepts.
    too_long: usize,
    /// How the client ends, at the end of this turn.
    ending: Option<Ending>,
}

/// A `Leaving` is the state of a client whose user has asked to leave.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// The time of the request.
    since: Instant,
    /// The time since which all messages are delivered.
    settled: Option<Instant>,
    /// Whether the user was informed of what the client waits for.
    is_explained: bool,
}

/// A `Turn` is whether there is another turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The client runs.
    Running,
    /// The client has ended.
    Over(Ending),
}

/// An `Ending` is how a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user left.
    Left {
        /// The number of messages that were not sent.
        unsent: usize,
        /// The number of sent messages that may not have arrived.
        uncertain: u64,
    },
    /// This signal ended it.
    Signal(i32),
}

impl Client {
    /// Creates a client that has its streams or its terminal, but no connection yet.
    ///
    /// # Errors
    ///
    /// If the streams or the terminal cannot be used.
    pub fn new(config: Config) -> Result<Self, ClientError> {
        let poll = Poll::new().map_err(ClientError::Poll)?;
        let (front, signals) = match config.interface {
            Interface::Terminal(options) => {
                // First, so that no signal can end the process while the terminal is in raw mode.
                let signals =
                    Signals::watch(poll.registry(), SIGNALS).map_err(ClientError::Poll)?;
                let name = &config.name;
                let front = Interactive::start(name, options, poll.registry(), [INPUT, OUTPUT])
                    .map_err(ClientError::Terminal)?;
                (Frontend::Interactive(Box::new(front)), Some(signals))
            }
            // In a pipeline the default actions of signals are right, and those that `nohup` sets.
            Interface::Streams(streams) => {
                let front = Filter::start(streams, poll.registry(), [INPUT, OUTPUT, NOTICES])?;
                (Frontend::Filter(Box::new(front)), None)
            }
        };
        let ack_timeout = signals.is_some().then_some(ACK_TIMEOUT);
        let framing = match &config.web_socket {
            None => Framing::Chat10,
            Some(_) => Framing::WebSocket,
        };
        let (addrs, target, tls) = (config.addrs, config.web_socket, config.tls);
        let now = Instant::now();
        let link = Link::new(addrs, target, tls, ack_timeout, SOCKET, now);
        Ok(Self {
            poll,
            events: Events::with_capacity(16),
            signals,
            front,
            link,
            outbox: Outbox::new(framing),
            history: History::default(),
            max_message: None,
            paused_since: None,
            pause_is_shown: false,
            scratch: vec![0; SCRATCH_BYTES],
            server: config.server,
            name: config.name,
            former_name: None,
            reconnect: config.reconnect,
            wait: config.wait,
            quiet: config.quiet,
            was_connected: false,
            lost_at: now,
            retries_are_quiet: false,
            leaving: None,
            held_until: None,
            hold_is_shown: false,
            ack_probe: AckProbe::default(),
            uncertain: 0,
            too_long: 0,
            ending: None,
        })
    }

    /// Takes turns until the user leaves, or a signal ends it.
    ///
    /// # Errors
    ///
    /// The error that ends the client. The terminal is restored before.
    pub fn run(mut self) -> Result<Ending, ClientError> {
        let ended = loop {
            match self.turn(None) {
                Ok(Turn::Running) => {}
                Ok(Turn::Over(ending)) => break Ok(ending),
                Err(error) => break Err(error),
            }
        };
        // If that fails, the terminal is gone or stuck, and there is no place to report it.
        let _ = self.write_remaining();
        ended
    }

    /// Waits for events, no longer than `timeout` if it is set, and handles them.
    ///
    /// # Errors
    ///
    /// The error that ends the client.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<Turn, ClientError> {
        self.wait(timeout)?;
        let mut requests = Vec::new();
        self.dispatch(&mut requests)?;
        let now = Instant::now();
        self.take_input(now, &mut requests)?;
        for request in requests.drain(..) {
            self.handle(request, now)?;
        }
        if self.ending.is_none() {
            self.connect(now)?;
            self.receive(now)?;
            self.end_hold(now)?;
            self.send(now);
            self.explain_wait(now)?;
            self.explain_pause(now)?;
            let leaving = self.leaving.map(|leaving| leaving.since);
            self.ack_probe
                .run(&mut self.link, &mut self.outbox, leaving, now);
        }
        self.flush(&mut requests)?;
        for request in requests {
            self.handle(request, now)?;
        }
        Ok(self.finish_turn(now))
    }

    fn wait(&mut self, max_wait: Option<Duration>) -> Result<(), ClientError> {
        let now = Instant::now();
        let busy = self.link.is_readable() && self.front.has_room()
            || self.front.has_input() && self.wants_input();
        let timeout = if self.ending.is_some() {
            // Only pending output is left, and the end of a WebSocket.
            let wait = self.link.close_deadline(now);
            let wait = wait.map(|at| at.saturating_duration_since(now));
            wait.into_iter().chain(max_wait).min()
        } else if busy {
            Some(Duration::ZERO)
        } else {
            let deadlines = [
                self.link.deadline(),
                self.front.deadline(),
                self.ack_probe.deadline(),
                self.leaving
                    .and_then(|leaving| leaving.settled)
                    .map(|settled| settled + ANSWER_WAIT),
                self.held_until,
                self.paused_since
                    .filter(|_| !self.pause_is_shown)
                    .map(|since| since + PAUSE_NOTICE_DELAY),
            ];
            let next = deadlines.into_iter().flatten().min();
            let wait = next.map(|at| at.saturating_duration_since(now));
            wait.into_iter().chain(max_wait).min()
        };
        match self.poll.poll(&mut self.events, timeout) {
            // A signal, which is also an event.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result.map_err(ClientError::Poll),
        }
    }

    /// Notes what is ready, and handles signals.
    fn dispatch(&mut self, requests: &mut Vec<Request>) -> Result<(), ClientError> {
        for event in &self.events {
            match event.token() {
                SOCKET => self.link.note(event),
                INPUT => self.front.note_input(),
                OUTPUT => self
                    .front
                    .note_output(event, self.poll.registry(), requests),
                NOTICES => self.front.note_notices(event),
                _ => {}
            }
        }
        if let (Some(signals), Frontend::Interactive(front)) = (&mut self.signals, &mut self.front)
        {
            let signals = signals.pending();
            for &signal in &signals {
                let done = match signal {
                    SIGWINCH => front.resize(),
                    // The process was continued since.
                    SIGTSTP if signals.contains(&SIGCONT) => Ok(()),
                    SIGTSTP => front.stop(),
                    SIGCONT => front.resume(),
                    signal => {
                        self.ending = Some(Ending::Signal(signal));
                        // SIGHUP comes with a SIGCONT, but the terminal is gone.
                        break;
                    }
                };
                hang_up_if_gone(done, requests)?;
            }
        }
        Ok(())
    }

    /// Whether piped input is read: not while megabytes of it are unsent or unacknowledged.
    fn wants_input(&self) -> bool {
        self.outbox.unsent_bytes() < MAX_PENDING_BYTES
            && self.outbox.unacknowledged_bytes() < 8 * MAX_PENDING_BYTES
    }

    fn take_input(&mut self, now: Instant, requests: &mut Vec<Request>) -> Result<(), ClientError> {
        let wanted = self.wants_input();
        let registry = self.poll.registry();
        match &mut self.front {
            Frontend::Interactive(front) => {
                let read = front.read(registry, now, requests);
                hang_up_if_gone(read, requests)
            }
            Frontend::Filter(front) if wanted => front.read(registry, &mut self.scratch, requests),
            Frontend::Filter(_) => Ok(()),
        }
    }

    fn handle(&mut self, request: Request, now: Instant) -> Result<(), ClientError> {
        match request {
            Request::Send(message) => {
                self.outbox.push(&message);
                if self.max_message.is_some_and(|max| message.len() > max) {
                    return self.remove_too_long();
                }
                let Frontend::Interactive(front) = &mut self.front else {
                    return Ok(());
                };
                front.own_message(&message).map_err(ClientError::Terminal)?;
                if !self.link.is_connected() {
                    // The user waits for the connection.
                    self.link.retry_now(now);
                    self.notice(Notice::Info, "not sent yet")?;
                }
            }
            Request::Hurry => {
                self.link.retry_now(now);
                self.held_until = self.held_until.map(|_| now);
            }
            Request::Reconnect => self.rejoin("connecting again", now)?,
            Request::Rename(name) => {
                let notice = format!("joining again as {}", Named(&name));
                self.rejoin(&notice, now)?;
                self.former_name = Some(self.rename(name)?);
            }
            Request::Leave if self.leaving.is_some() => self.ending = Some(self.left(now)),
            Request::Finish if self.leaving.is_some() => {}
            Request::Leave | Request::Finish => {
                self.leaving = Some(Leaving {
                    since: now,
                    settled: None,
                    is_explained: false,
                });
                self.ack_probe.hurry(now);
            }
            Request::HangUp => self.ending = Some(Ending::Signal(SIGHUP)),
        }
        Ok(())
    }

    /// Ends the connection, if there is one, and makes another one at once.
    fn rejoin(&mut self, notice: &str, now: Instant) -> Result<(), ClientError> {
        // What has arrived would be lost, and the server would be reset for it.
        self.receive(now)?;
        self.notice(Notice::Info, notice)?;
        self.update_acknowledged(now);
        // The server is not waited for.
        self.link.finish(&mut self.outbox, &mut self.scratch, now);
        self.link.restart(now);
        let undelivered = self.end_connection(ConnectionEnd::Broken, now);
        self.front.report(UNCERTAIN, undelivered.uncertain.iter())
    }

    /// The ending of a client that leaves now.
    fn left(&mut self, now: Instant) -> Ending {
        self.update_acknowledged(now);
        Ending::Left {
            unsent: self.outbox.unsent().len() + self.too_long,
            uncertain: self.uncertain + self.outbox.waiting() as u64,
        }
    }

    /// Makes a connection if there is none, and reports the result.
    fn connect(&mut self, now: Instant) -> Result<(), ClientError> {
        match self.link.progress(self.poll.registry(), now) {
            None => Ok(()),
            Some(Attempt::Connected(addr)) => {
                self.hold(now);
                let notice = self.welcome(addr, now);
                self.outbox.begin_connection(&self.name);
                self.history.begin();
                self.was_connected = true;
                self.retries_are_quiet = false;
                if self.quiet {
                    return Ok(());
                }
                self.notice(Notice::Info, &notice)
            }
            // It would not be trusted the next time, so that there is nothing to wait for.
            Some(Attempt::Untrusted(refusal)) => Err(ClientError::Untrusted {
                server: self.server.clone(),
                refusal: Box::new(refusal),
                was_connected: self.was_connected,
            }),
            Some(Attempt::Refused { error, .. }) if !self.was_connected => {
                let error = Disconnect::Handshake(error);
                Err(ClientError::NotChat(self.server.clone(), error))
            }
            Some(Attempt::Failed { addr, error, .. }) if !self.was_connected && !self.wait => {
                Err(ClientError::Connect(self.server.clone(), addr, error))
            }
            // A proxy may answer anything while the server behind it is away.
            Some(Attempt::Refused { error, again_in }) => {
                self.report_failure(&error.to_string(), again_in)
            }
            Some(Attempt::Failed {
                error, again_in, ..
            }) => self.report_failure(&reason(&error), again_in),
        }
    }

    /// Reports that a lost connection could not be made again, unless that was reported often enough.
    fn report_failure(&mut self, reason: &str, again_in: Duration) -> Result<(), ClientError> {
        if self.retries_are_quiet {
            return Ok(());
        }
        self.retries_are_quiet = again_in >= QUIET_RETRY_WAIT;
        let when = if self.retries_are_quiet {
            "every half minute".to_owned()
        } else {
            format!("in {}", Wait(again_in))
        };
        let still = if self.was_connected { "still " } else { "" };
        let notice = format!("{still}no connection: {reason}; trying again {when}");
        self.notice(Notice::Warning, &notice)
    }

    /// Holds messages back over a connection that was made again.
    fn hold(&mut self, now: Instant) {
        let waits = self.outbox.has_unsent();
        let hold = if waits {
            let away = now.duration_since(self.lost_at);
            away.clamp(MIN_REJOIN_WAIT, MAX_REJOIN_WAIT)
        } else {
            // A full server accepts the name and closes the connection. Messages must not be lost with it.
            ANSWER_WAIT
        };
        self.held_until = self.was_connected.then_some(now + hold);
        self.hold_is_shown = self.was_connected && waits && !self.quiet;
    }

    /// Ends the hold when its time is over, or a message of another member has arrived.
    fn end_hold(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.held_until.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.held_until = None;
        if self.link.is_connected() && std::mem::take(&mut self.hold_is_shown) {
            return self.notice(Notice::Info, "sending the messages that waited");
        }
        Ok(())
    }

    fn welcome(&self, addr: SocketAddr, now: Instant) -> String {
        let name = Named(&self.name);
        let scheme = self.link.scheme();
        let help = match &self.front {
            Frontend::Interactive(_) => " (/help for help, Ctrl-D to leave)",
            Frontend::Filter(front) => front.welcome(),
        };
        if !self.was_connected {
            return format!("connected to {scheme}{addr} as {name}{help}");
        }
        let what = match self.outbox.unsent().len() {
            0 => return format!("connected to {scheme}{addr} again"),
            1 => "the message that waited".to_owned(),
            waiting => format!("the {waiting} messages that waited"),
        };
        let hold = self.held_until.unwrap_or(now).duration_since(now);
        format!(
            "connected to {scheme}{addr} again; sending {what} in {}, when others may be back",
            Wait(hold)
        )
    }

    /// Receives messages, as fast as they can be shown.
    fn receive(&mut self, now: Instant) -> Result<(), ClientError> {
        for _ in 0..MAX_READS_PER_TURN {
            if !self.link.is_readable() || !self.front.has_room() {
                break;
            }
            let mut handled = Ok(());
            let mut intake = Intake {
                front: &mut self.front,
                outbox: &mut self.outbox,
                history: &mut self.history,
                max_message: &mut self.max_message,
                paused_since: &mut self.paused_since,
                name: &self.name,
                uncertain: &mut self.uncertain,
                held_until: &mut self.held_until,
                now,
            };
            let received = self.link.receive(&mut self.scratch, |item| {
                if handled.is_ok() {
                    handled = intake.take(item);
                }
            });
            handled?;
            self.remove_too_long()?;
            if let Err(disconnect) = received {
                return self.lose(disconnect, now);
            }
        }
        Ok(())
    }

    /// Takes another name. Returns the one before it.
    fn rename(&mut self, name: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        if let Frontend::Interactive(front) = &mut self.front {
            front.rename(&name).map_err(ClientError::Terminal)?;
        }
        Ok(std::mem::replace(&mut self.name, name))
    }

    /// Reports the end of the connection and the messages that it puts in doubt.
    fn lose(&mut self, disconnect: Disconnect, now: Instant) -> Result<(), ClientError> {
        // Always, because the probe may not have run yet.
        self.update_acknowledged(now);
        let is_answer = !matches!(disconnect, Disconnect::CutShort | Disconnect::NotChat(_))
            && self.may_be_an_answer(now);
        let hint = if is_answer {
            self.hint(&disconnect, now)
        } else {
            None
        };
        if let Disconnect::ClosedFor { code, .. } = disconnect {
            self.link.answer_close(&mut self.outbox, code, now);
        }
        // A server that has never accepted the name will not do so the next time.
        let is_refusal = !self.history.has_joined() && disconnect.is_refusal();
        let again_in = self.link.disconnect(now);
        let has_joined = self.max_message.is_some();
        let former_name = self
            .former_name
            .take_if(|_| has_joined || disconnect.is_refusal());
        let undelivered = self.end_connection(disconnect.connection_end(), now);
        let missing = undelivered.uncertain.len() + usize::from(undelivered.refused.is_some());
        let all_is_sent = self.leaving.is_some() && !self.outbox.has_unsent();
        if all_is_sent && missing == 0 && !is_answer {
            self.ending = Some(self.left(now));
            return Ok(());
        }
        let is_final = all_is_sent
            || !self.reconnect
            || is_refusal
            || matches!(disconnect, Disconnect::NotChat(_));
        if !is_final {
            let notice = match former_name.filter(|_| !has_joined) {
                Some(former) => {
                    self.link.retry_now(now);
                    let notice = format!("{disconnect}; joining again as {}", Named(&former));
                    self.rename(former)?;
                    notice
                }
                None => format!("{disconnect}; connecting again in {}", Wait(again_in)),
            };
            self.notice(Notice::Warning, &notice)?;
            if let Some(hint) = &hint {
                self.notice(Notice::Warning, hint)?;
            }
        }
        let given_up = "given up, since two connections ended in the middle of it";
        self.front.report(given_up, undelivered.refused.iter())?;
        self.front.report(UNCERTAIN, undelivered.uncertain.iter())?;
        match disconnect {
            _ if !is_final => Ok(()),
            Disconnect::NotChat(_) => Err(ClientError::NotChat(self.server.clone(), disconnect)),
            _ => Err(ClientError::Disconnected { disconnect, hint }),
        }
    }

    /// Forgets what belongs to a connection that has ended. Returns the messages that it puts in doubt.
    fn end_connection(&mut self, how: ConnectionEnd, now: Instant) -> Undelivered {
        self.lost_at = now;
        self.held_until = None;
        self.hold_is_shown = false;
        self.max_message = None;
        self.paused_since = None;
        self.pause_is_shown = false;
        let undelivered = self.outbox.end_connection(how, now);
        self.uncertain += undelivered.uncertain.len() as u64;
        self.uncertain += u64::from(undelivered.refused.is_some());
        for message in &undelivered.uncertain {
            self.history.note_uncertain(&self.name, message);
        }
        undelivered
    }

    /// Whether a server that closes the connection now may do so because of a recent message.
    fn may_be_an_answer(&self, now: Instant) -> bool {
        self.outbox.partly_sent_len().is_some()
            || self.link.is_refused(now)
            || self.outbox.recently_sent(now).is_some()
    }

    /// A likely cause for the server to close the connection. `chat10` has no error messages.
    fn hint(&self, disconnect: &Disconnect, now: Instant) -> Option<String> {
        if let Disconnect::ClosedFor { code, .. } = disconnect {
            let is_name = *code == TOO_LONG && self.max_message.is_none();
            return is_name.then(|| "the name is longer than it accepts".to_owned());
        }
        if let Some(len) = self.outbox.partly_sent_len() {
            return Some(format!(
                "that was in the middle of a message of {len} bytes: is it over the server's limit?"
            ));
        }
        let suspect = self
            .outbox
            .recently_sent(now)
            .filter(|&len| len >= SUSPECT_BYTES);
        match (self.link.is_refused(now), suspect) {
            (true, None) => Some(
                "that was right after joining: is the server full, the name too long for it, are there \
                 too many from your address, or does the port have another dialect?"
                    .to_owned(),
            ),
            (true, Some(len)) => Some(format!(
                "that was right after joining and a message of {len} bytes: is the server full, one of \
                 them too long for it, are there too many from your address, or does the port have \
                 another dialect?"
            )),
            (false, Some(len)) => Some(format!(
                "that was right after a message of {len} bytes: is it over the server's limit?"
            )),
            (false, None) => None,
        }
    }

    /// Sends what the socket accepts.
    fn send(&mut self, now: Instant) {
        let before = self.outbox.unacknowledged_bytes();
        // A WebSocket server first sends the limit of a message.
        let awaits_limit = self.outbox.is_confirmed_by_server() && self.max_message.is_none();
        let name_only = awaits_limit || self.held_until.is_some();
        self.link.send(&mut self.outbox, name_only, now);
        if self.outbox.unacknowledged_bytes() > before {
            self.ack_probe.note_sent();
        }
    }

    fn update_acknowledged(&mut self, now: Instant) {
        let leaving = self.leaving.map(|leaving| leaving.since);
        ack_probe::update(&mut self.link, &mut self.outbox, leaving, now);
    }

    /// Informs a user who wants to leave of what the client waits for, if it takes long.
    fn explain_wait(&mut self, now: Instant) -> Result<(), ClientError> {
        let is_terminal = matches!(self.front, Frontend::Interactive(_));
        if let Some(leaving) = &mut self.leaving
            && now.duration_since(leaving.since) >= LEAVE_NOTICE_DELAY
            && is_terminal
            && !std::mem::replace(&mut leaving.is_explained, true)
        {
            let notice =
                "waiting until all messages are delivered; Ctrl-D once more leaves at once";
            self.notice(Notice::Warning, notice)?;
        }
        Ok(())
    }

    /// Reports a pause that lasts, and its end.
    fn explain_pause(&mut self, now: Instant) -> Result<(), ClientError> {
        let lasts = |since| now.duration_since(since) >= PAUSE_NOTICE_DELAY;
        let notice = match (self.paused_since, self.pause_is_shown) {
            (Some(since), false) if lasts(since) => "paused: senders wait for a slow reader",
            (None, true) => "no longer paused",
            _ => return Ok(()),
        };
        self.pause_is_shown = self.paused_since.is_some();
        if self.quiet {
            return Ok(());
        }
        self.notice(Notice::Info, notice)
    }

    /// Removes the unsent messages that are longer than the server accepts, and reports them.
    fn remove_too_long(&mut self) -> Result<(), ClientError> {
        let Some(max) = self.max_message else {
            return Ok(());
        };
        let status = format!("not sent, since the server accepts {max} bytes at most");
        for message in self.outbox.remove_longer(max) {
            self.too_long += 1;
            self.front.report(&status, [&message].into_iter())?;
        }
        Ok(())
    }

    fn flush(&mut self, requests: &mut Vec<Request>) -> Result<(), ClientError> {
        match &mut self.front {
            Frontend::Interactive(front) => {
                let flushed = front.flush(self.poll.registry());
                hang_up_if_gone(flushed, requests)
            }
            Frontend::Filter(front) => front.flush(self.poll.registry(), requests),
        }
    }

    /// Whether the client ends with this turn.
    fn finish_turn(&mut self, now: Instant) -> Turn {
        if self.ending.is_none() && self.is_settled(now) {
            self.ending = Some(self.left(now));
        }
        match self.ending {
            // Received messages are written first, unless a signal ends the client.
            Some(Ending::Left { .. }) if !self.front.is_written() => Turn::Running,
            Some(ending) => {
                let is_over = self.link.finish(&mut self.outbox, &mut self.scratch, now);
                match ending {
                    Ending::Left { .. } if !is_over => Turn::Running,
                    _ => Turn::Over(ending),
                }
            }
            None => Turn::Running,
        }
    }

    /// Whether the user wants to leave, and all messages are delivered and not refused.
    fn is_settled(&mut self, now: Instant) -> bool {
        let Some(leaving) = &mut self.leaving else {
            return false;
        };
        // A client in a pipe connects even if its input is empty.
        let joined = self.was_connected || matches!(self.front, Frontend::Interactive(_));
        if !joined || self.outbox.has_unsent() || self.outbox.is_waiting() {
            leaving.settled = None;
            return false;
        }
        let settled = *leaving.settled.get_or_insert(now);
        self.outbox.recently_sent(now).is_none() || now.duration_since(settled) >= ANSWER_WAIT
    }

    fn notice(&mut self, kind: Notice, text: &str) -> Result<(), ClientError> {
        self.front.notice(kind, text)
    }

    /// Reports undelivered messages and writes all pending output, for which it waits.
    fn write_remaining(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        self.update_acknowledged(now);
        // The client closes the connection, so the server has refused nothing.
        let undelivered = self.outbox.end_connection(ConnectionEnd::Broken, now);
        self.front.report(UNCERTAIN, undelivered.uncertain.iter())?;
        self.front.report("not sent", self.outbox.unsent())?;
        self.front.write_remaining(self.poll.registry())?;
        let mut requests = Vec::new();
        // What was received before an error is written. A reader that is gone asks to end.
        while !self.front.is_written() && requests.is_empty() {
            self.flush(&mut requests)?;
            if !self.front.is_written() && requests.is_empty() {
                self.poll
                    .poll(&mut self.events, None)
                    .map_err(ClientError::Poll)?;
                self.dispatch(&mut requests)?;
            }
        }
        Ok(())
    }
}

/// An `Intake` handles what arrives. It borrows the parts of a [`Client`] that it needs.
struct Intake<'a> {
    front: &'a mut Frontend,
    outbox: &'a mut Outbox,
    history: &'a mut History,
    max_message: &'a mut Option<usize>,
    paused_since: &'a mut Option<Instant>,
    name: &'a [u8],
    uncertain: &'a mut u64,
    held_until: &'a mut Option<Instant>,
    now: Instant,
}

impl Intake<'_> {
    fn take(&mut self, item: Incoming<'_>) -> Result<(), ClientError> {
        match item {
            Incoming::Message(message) => {
                let is_past = self.is_past();
                if !is_past {
                    *self.held_until = None;
                }
                if self.history.take(&message) {
                    self.front.message(&message, is_past)?;
                }
            }
            Incoming::Joined { max_message } => {
                *self.max_message = Some(max_message);
                self.outbox.confirm_name();
                self.end_history()?;
            }
            Incoming::Confirmed(count) => {
                let confirmed = (0..count).map_while(|_| self.outbox.confirm());
                confirmed.for_each(|message| self.history.note_confirmed(self.name, &message));
            }
            Incoming::Paused(true) => {
                self.paused_since.get_or_insert(self.now);
            }
            Incoming::Paused(false) => *self.paused_since = None,
            Incoming::Ping(payload) => self.outbox.answer_ping(payload),
        }
        Ok(())
    }

    /// Whether what arrives is history. `chat10` does not distinguish it.
    fn is_past(&self) -> bool {
        self.outbox.is_confirmed_by_server() && self.history.is_past()
    }

    /// All of the history has come: shows what is new in it.
    fn end_history(&mut self) -> Result<(), ClientError> {
        let update = self.history.end();
        if update.has_gap {
            let notice = "messages that were sent meanwhile may be missing";
            self.front.notice(Notice::Warning, notice)?;
        }
        for message in &update.messages {
            self.front.message(&message.received(), false)?;
        }
        for message in &update.arrived {
            *self.uncertain = self.uncertain.saturating_sub(1);
            self.front.report_arrived(&message.text)?;
        }
        self.front.end_history()
    }
}

/// Turns the error of a terminal that is gone into a request to end.
fn hang_up_if_gone(result: io::Result<()>, requests: &mut Vec<Request>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            requests.push(Request::HangUp);
            Ok(())
        }
        result => result.map_err(ClientError::Terminal),
    }
}

/// A `Wait` formats a wait.
struct Wait(Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 9.5 {
            write!(f, "{seconds:.1}s")
        } else {
            write!(f, "{seconds:.0}s")
        }
    }
}
