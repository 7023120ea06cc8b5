//! The terminal client: talk while you listen, on one loop.
//!
//! The tutorials' clients wait in `input()`, and while they wait they hear nothing. The cure is not a
//! second thread but the poll: it watches the keyboard and the socket, and says which of them has
//! something. One pass of the loop is a [`turn`](Client::turn):
//!
//! | step | where |
//! |---|---|
//! | The poll says who is ready; that is only noted | here |
//! | Keys become edits of the line that is being typed | [`keys`], [`line_editor`] |
//! | ... or, in a pipe, bytes become lines | [`lines`] |
//! | A line that is done becomes a message to send | [`outbox`], `arrivals.rs` |
//! | The connection is made, lost, made again | `link.rs`, `backoff.rs` |
//! | What has come over it becomes messages | [`session`] |
//! | ... which are shown above the typed line, or written as lines | [`screen`], [`display`] |
//! | What is to be sent and shown is written, as far as it is taken | `stdio.rs` |
//!
//! # Why nothing waits
//!
//! The socket never blocks, as everywhere. Standard input and output are not ours alone and may be
//! anything, so they are used in a way that never waits instead: `stdio.rs` tells how. A terminal is
//! opened a second time, for a descriptor of its own that can be non-blocking.
//!
//! # Why nothing grows
//!
//! What cannot go on holds up what comes before it. If the terminal or the reader of a pipe is slow,
//! the socket is not read, and TCP tells the server. If the server is slow, or not there, the input is
//! not read, and the pipe tells whoever writes it. Only a person is never held up: a keyboard is slow,
//! and its user must always be able to leave.
//!
//! # What is lost with a connection
//!
//! Nothing, as far as that can be known: [`outbox`] tells how.
//!
//! The client knows [`wire`](crate::wire) and [`text`](crate::text), and nothing of the relay.

mod acknowledged;
mod arrivals;
mod ask;
mod backoff;
mod command;
pub mod display;
mod error;
mod filter;
mod front;
mod interactive;
pub mod keys;
mod limits;
pub mod line_editor;
pub mod lines;
mod link;
pub mod outbox;
pub mod screen;
pub mod session;
mod stdio;
mod terminal;
mod wrap;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook_mio::v1_0::Signals;

use arrivals::Arrivals;
use ask::Ask;
use display::{Look, Notice};
pub use error::ClientError;
use error::reason;
use filter::Filter;
pub use filter::Streams;
use front::Front;
use interactive::Interactive;
use limits::MAX_PENDING;
use link::{Attempt, Link};
use outbox::{Cut, Outbox};
use session::Loss;
pub use terminal::give_back;

use crate::text::{Quoted, Shown};

const SOCKET: Token = Token(0);
const INPUT: Token = Token(1);
const OUTPUT: Token = Token(2);
const NOTICES: Token = Token(3);
const SIGNALS: Token = Token(4);

/// How much is read from the socket at once, in bytes.
const SCRATCH: usize = 64 * 1024;

/// How many reads from the socket there are in a turn: a flood of messages must not keep the keyboard
/// waiting.
const READS_A_TURN: usize = 8;

/// After how long a person who wants to leave is told what there is to wait for.
const LONG: Duration = Duration::from_secs(1);

/// How long a server's machine may leave what a person has said without acknowledgement, before the
/// connection counts as broken. TCP itself would try for a quarter of an hour. A program at the other
/// end of a pipe has no use for this, and may send more than a busy server reads in that time.
const PATIENCE: Duration = Duration::from_secs(60);

/// From this wait on, attempts to connect that fail are not worth a word each.
const HUSH: Duration = Duration::from_secs(15);

/// How long to stay after all that was said has arrived, for what the server may answer. It has no way
/// to refuse a message but to close the connection, and that should be told.
const LAST_WORD: Duration = Duration::from_millis(300);

/// From this length on, in bytes, a message may be too long for a server. Few have a lower limit.
const LENGTHY: usize = 1000;

/// What is to be said of messages of which nobody knows.
const MAY_BE_MISSING: &str = "may not have arrived";

/// What a client is to do.
#[derive(Debug)]
pub struct Config {
    /// The server as its user wrote it.
    pub server: String,
    /// The addresses of the server: the first that answers is taken. There has to be one at least.
    pub addrs: Vec<SocketAddr>,
    /// The name to join with.
    pub name: Vec<u8>,
    /// Whether to connect again when the connection is lost.
    pub reconnect: bool,
    /// Whether to say nothing of connections that are made.
    pub quiet: bool,
    /// Who talks and listens.
    pub user: User,
}

/// Who talks and listens.
#[derive(Debug)]
pub enum User {
    /// A person at the terminal that standard input and output are.
    Person {
        /// How things look.
        look: Look,
        /// Whether the terminal wraps lines anew when it becomes narrower.
        reflows: bool,
    },
    /// Programs or files.
    Streams(Streams),
}

/// The client: see the [module](self).
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "none depends on another")]
pub struct Client {
    poll: Poll,
    events: Events,
    signals: Option<WatchedSignals>,
    front: Front,
    link: Link,
    outbox: Outbox,
    scratch: Vec<u8>,
    server: String,
    name: Vec<u8>,
    reconnect: bool,
    quiet: bool,
    /// Whether there ever was a connection.
    was_up: bool,
    /// Whether failed attempts to connect are not worth a word any more.
    hushed: bool,
    /// Whether the user wants to leave.
    leaving: Option<Leaving>,
    /// Until when only the name is sent.
    held_until: Option<Instant>,
    arrivals: Arrivals,
    /// How many messages may or may not have arrived.
    uncertain: u64,
    /// How it is to end, as soon as this turn is over.
    ending: Option<Ending>,
}

/// A user who wants to leave, once all is said.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// When that was asked for.
    since: Instant,
    /// Since when all is said and has arrived.
    settled: Option<Instant>,
    /// Whether the user was told what there is to wait for.
    told: bool,
}

struct WatchedSignals(Signals);

impl fmt::Debug for WatchedSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

/// Whether there is another turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is.
    Running,
    /// There is not.
    Over(Ending),
}

/// How a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its user left.
    Left {
        /// How many messages were not sent.
        unsent: usize,
        /// How many messages were sent that may not have arrived.
        uncertain: u64,
    },
    /// This signal asked for it.
    Signal(i32),
}

impl Client {
    /// A client that has its streams or its terminal, but no connection yet.
    ///
    /// # Errors
    ///
    /// If the streams or the terminal cannot be used.
    pub fn new(config: Config) -> Result<Self, ClientError> {
        let poll = Poll::new().map_err(ClientError::Poll)?;
        let (front, signals) = match config.user {
            User::Person { look, reflows } => {
                // First, so that no signal can come while the terminal is taken and nobody knows.
                let signals = watch_signals(&poll).map_err(ClientError::Poll)?;
                let name = &config.name;
                let front =
                    Interactive::start(name, look, reflows, poll.registry(), [INPUT, OUTPUT])
                        .map_err(ClientError::Terminal)?;
                (Front::Interactive(Box::new(front)), Some(signals))
            }
            // In a pipeline the shell's own rules for signals are the right ones, `nohup` included.
            User::Streams(streams) => {
                let front = Filter::start(streams, poll.registry(), [INPUT, OUTPUT, NOTICES])?;
                (Front::Filter(Box::new(front)), None)
            }
        };
        let patience = signals.is_some().then_some(PATIENCE);
        let link = Link::new(config.addrs, patience, SOCKET, Instant::now());
        Ok(Self {
            poll,
            events: Events::with_capacity(16),
            signals,
            front,
            link,
            outbox: Outbox::default(),
            scratch: vec![0; SCRATCH],
            server: config.server,
            name: config.name,
            reconnect: config.reconnect,
            quiet: config.quiet,
            was_up: false,
            hushed: false,
            leaving: None,
            held_until: None,
            arrivals: Arrivals::default(),
            uncertain: 0,
            ending: None,
        })
    }

    /// Takes turns until the user leaves, or a signal ends it.
    ///
    /// # Errors
    ///
    /// Why it cannot go on. The terminal is given back before.
    pub fn run(mut self) -> Result<Ending, ClientError> {
        let ended = loop {
            match self.turn(None) {
                Ok(Turn::Running) => {}
                Ok(Turn::Over(ending)) => break Ok(ending),
                Err(error) => break Err(error),
            }
        };
        // If that fails, the terminal is gone or stuck, and there is nobody to tell.
        let _ = self.write_rest();
        ended
    }

    /// Waits for something to happen, no longer than `patience` if there is one, and does all that
    /// there is to do then.
    ///
    /// # Errors
    ///
    /// Why the client cannot go on.
    pub fn turn(&mut self, patience: Option<Duration>) -> Result<Turn, ClientError> {
        self.wait(patience)?;
        let mut asked = Vec::new();
        self.dispatch(&mut asked)?;
        let now = Instant::now();
        self.take_input(now, &mut asked)?;
        for ask in asked.drain(..) {
            self.grant(ask, now)?;
        }
        if self.ending.is_none() {
            self.connect(now)?;
            self.receive(now)?;
            self.send(now);
            self.tell_why_we_stay(now)?;
            let leaving = self.leaving.map(|leaving| leaving.since);
            self.arrivals
                .look(&mut self.link, &mut self.outbox, leaving, now);
        }
        self.flush(&mut asked)?;
        for ask in asked {
            self.grant(ask, now)?;
        }
        Ok(self.outcome(now))
    }

    fn wait(&mut self, patience: Option<Duration>) -> Result<(), ClientError> {
        let now = Instant::now();
        let busy = self.link.is_readable() && self.front.has_room()
            || self.front.has_input() && self.wants_input();
        let timeout = if self.ending.is_some() {
            // Only the output is still to be written.
            patience
        } else if busy {
            Some(Duration::ZERO)
        } else {
            let deadlines = [
                self.link.deadline(),
                self.front.deadline(),
                self.arrivals.deadline(),
                self.leaving
                    .and_then(|leaving| leaving.settled)
                    .map(|settled| settled + LAST_WORD),
                self.held_until,
            ];
            let next = deadlines.into_iter().flatten().min();
            let until = next.map(|at| at.saturating_duration_since(now));
            until.into_iter().chain(patience).min()
        };
        match self.poll.poll(&mut self.events, timeout) {
            // A signal, which is an event of its own.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result.map_err(ClientError::Poll),
        }
    }

    /// Notes who is ready, and obeys signals.
    fn dispatch(&mut self, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
        for event in &self.events {
            match event.token() {
                SOCKET => self.link.note(event),
                INPUT => self.front.note_input(),
                OUTPUT => self.front.note_output(event, self.poll.registry(), asked),
                NOTICES => self.front.note_notices(event),
                _ => {}
            }
        }
        if let (Some(signals), Front::Interactive(front)) = (&mut self.signals, &mut self.front) {
            let signals: Vec<_> = signals.0.pending().collect();
            for &signal in &signals {
                let done = match signal {
                    SIGWINCH => front.resize(),
                    // Whoever has continued us since did not mean to be ignored.
                    SIGTSTP if signals.contains(&SIGCONT) => Ok(()),
                    SIGTSTP => front.stop(),
                    SIGCONT => front.resume(),
                    signal => {
                        self.ending = Some(Ending::Signal(signal));
                        // SIGHUP comes with a SIGCONT, and there is no terminal to be taken again.
                        break;
                    }
                };
                unless_gone(done, asked)?;
            }
        }
        Ok(())
    }

    /// Whether what is piped in is read: not while megabytes of it wait to be sent, or to arrive.
    fn wants_input(&self) -> bool {
        self.outbox.unsent_cost() < MAX_PENDING && self.outbox.waiting_cost() < 8 * MAX_PENDING
    }

    fn take_input(&mut self, now: Instant, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
        let wanted = self.wants_input();
        let registry = self.poll.registry();
        match &mut self.front {
            Front::Interactive(front) => {
                let read = front.read(registry, now, asked);
                unless_gone(read, asked)
            }
            Front::Filter(front) if wanted => front.read(registry, &mut self.scratch, asked),
            Front::Filter(_) => Ok(()),
        }
    }

    fn grant(&mut self, ask: Ask, now: Instant) -> Result<(), ClientError> {
        match ask {
            Ask::Say(message) => {
                self.outbox.push(&message);
                let Front::Interactive(front) = &mut self.front else {
                    return Ok(());
                };
                front
                    .message(&self.name, &message)
                    .map_err(ClientError::Terminal)?;
                if !self.link.is_up() {
                    // Somebody is there who wants a connection now.
                    self.link.hurry(now);
                    self.notice(Notice::Info, "not sent yet")?;
                }
            }
            Ask::Leave if self.leaving.is_some() => self.ending = Some(self.left(now)),
            Ask::Finish if self.leaving.is_some() => {}
            Ask::Leave | Ask::Finish => {
                self.leaving = Some(Leaving {
                    since: now,
                    settled: None,
                    told: false,
                });
                self.arrivals.hurry(now);
            }
            Ask::Vanish => self.ending = Some(Ending::Signal(SIGHUP)),
        }
        Ok(())
    }

    /// How it ends for a user who leaves now.
    fn left(&mut self, now: Instant) -> Ending {
        self.ask_what_arrived(now);
        Ending::Left {
            unsent: self.outbox.unsent().len(),
            uncertain: self.uncertain + self.outbox.waiting() as u64,
        }
    }

    /// Sees to it that there is a connection.
    fn connect(&mut self, now: Instant) -> Result<(), ClientError> {
        match self.link.progress(self.poll.registry(), now) {
            None => Ok(()),
            Some(Attempt::Connected(addr)) => {
                self.outbox.begin(&self.name);
                // A server that is full takes the name and closes. What waited is not to be lost in
                // that connection.
                self.held_until = self.was_up.then_some(now + LAST_WORD);
                let notice = self.welcome(addr);
                self.was_up = true;
                self.hushed = false;
                if self.quiet {
                    return Ok(());
                }
                self.notice(Notice::Info, &notice)
            }
            Some(Attempt::Failed { addr, error, .. }) if !self.was_up => {
                Err(ClientError::Connect(self.server.clone(), addr, error))
            }
            // Said often enough.
            Some(Attempt::Failed { .. }) if self.hushed => Ok(()),
            Some(Attempt::Failed {
                error, again_in, ..
            }) => {
                self.hushed = again_in >= HUSH;
                let when = if self.hushed {
                    "every half minute".to_owned()
                } else {
                    format!("in {}", Wait(again_in))
                };
                let notice = format!(
                    "still no connection: {}; trying again {when}",
                    reason(&error)
                );
                self.notice(Notice::Trouble, &notice)
            }
        }
    }

    fn welcome(&self, addr: SocketAddr) -> String {
        let name = Named(&self.name);
        let help = match &self.front {
            Front::Interactive(_) => " (/help for help, Ctrl-D to leave)",
            Front::Filter(front) => front.welcome(),
        };
        match (self.was_up, self.outbox.unsent().len()) {
            (false, _) => format!("connected to {addr} as {name}{help}"),
            (true, 0) => format!("connected to {addr} again"),
            (true, 1) => format!("connected to {addr} again; sending the message that waited"),
            (true, waiting) => {
                format!("connected to {addr} again; sending {waiting} messages that waited")
            }
        }
    }

    /// Hears what was said, as fast as it can be shown.
    fn receive(&mut self, now: Instant) -> Result<(), ClientError> {
        for _ in 0..READS_A_TURN {
            if !self.link.is_readable() || !self.front.has_room() {
                break;
            }
            let mut written = Ok(());
            let front = &mut self.front;
            let received = self.link.receive(&mut self.scratch, |name, message| {
                if written.is_ok() {
                    written = front.message(name, message);
                }
            });
            written?;
            if let Err(loss) = received {
                return self.lose(loss, now);
            }
        }
        Ok(())
    }

    /// The connection is of no use any more.
    fn lose(&mut self, loss: Loss, now: Instant) -> Result<(), ClientError> {
        // Even if this is the first time to ask.
        self.ask_what_arrived(now);
        let is_answer =
            !matches!(loss, Loss::CutShort | Loss::NotChat(_)) && self.may_be_an_answer(now);
        let hint = if is_answer { self.hint(now) } else { None };
        let again_in = self.link.lose(now);
        self.held_until = None;
        let remains = self.outbox.lose(loss.cut(), now);
        let missing = remains.uncertain.len() + usize::from(remains.refused.is_some());
        self.uncertain += missing as u64;
        let all_is_sent = self.leaving.is_some() && !self.outbox.has_unsent();
        if all_is_sent && missing == 0 && !is_answer {
            self.ending = Some(self.left(now));
            return Ok(());
        }
        let is_final = all_is_sent || !self.reconnect || matches!(loss, Loss::NotChat(_));
        if !is_final {
            let notice = format!("{loss}; connecting again in {}", Wait(again_in));
            self.notice(Notice::Trouble, &notice)?;
            if let Some(hint) = &hint {
                self.notice(Notice::Trouble, hint)?;
            }
        }
        let given_up = "given up, since two connections ended in the middle of it";
        self.front.tell(given_up, remains.refused.iter())?;
        self.front.tell(MAY_BE_MISSING, remains.uncertain.iter())?;
        match loss {
            _ if !is_final => Ok(()),
            Loss::NotChat(_) => Err(ClientError::NotChat(self.server.clone(), loss)),
            _ => Err(ClientError::Lost { loss, hint }),
        }
    }

    /// Whether a server that closes the connection now may do so because of what it was just sent.
    fn may_be_an_answer(&self, now: Instant) -> bool {
        self.outbox.half_sent().is_some()
            || self.link.is_refused(now)
            || self.outbox.just_sent(now).is_some()
    }

    /// Why a server may have closed the connection. `chat10` has no words for it.
    fn hint(&self, now: Instant) -> Option<String> {
        if let Some(len) = self.outbox.half_sent() {
            return Some(format!(
                "that was in the middle of a message of {len} bytes: is it over the server's limit?"
            ));
        }
        let lengthy = self.outbox.just_sent(now).filter(|&len| len >= LENGTHY);
        match (self.link.is_refused(now), lengthy) {
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

    /// Sends what there is to send.
    fn send(&mut self, now: Instant) {
        if self.held_until.is_some_and(|at| at <= now) || self.link.has_heard() {
            self.held_until = None;
        }
        let before = self.outbox.waiting_cost();
        let name_only = self.held_until.is_some();
        self.link.send(&mut self.outbox, name_only, now);
        if self.outbox.waiting_cost() > before {
            self.arrivals.sent();
        }
    }

    fn ask_what_arrived(&mut self, now: Instant) {
        let leaving = self.leaving.map(|leaving| leaving.since);
        arrivals::ask(&mut self.link, &mut self.outbox, leaving, now);
    }

    /// Tells a person who wants to leave what there is to wait for, if it takes long.
    fn tell_why_we_stay(&mut self, now: Instant) -> Result<(), ClientError> {
        let is_person = matches!(self.front, Front::Interactive(_));
        if let Some(leaving) = &mut self.leaving
            && now.duration_since(leaving.since) >= LONG
            && is_person
            && !std::mem::replace(&mut leaving.told, true)
        {
            let notice =
                "waiting until all that you said has arrived; Ctrl-D once more leaves at once";
            self.notice(Notice::Trouble, notice)?;
        }
        Ok(())
    }

    fn flush(&mut self, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
        match &mut self.front {
            Front::Interactive(front) => {
                let flushed = front.flush(self.poll.registry());
                unless_gone(flushed, asked)
            }
            Front::Filter(front) => front.flush(self.poll.registry(), asked),
        }
    }

    /// Whether it is over.
    fn outcome(&mut self, now: Instant) -> Turn {
        if self.ending.is_none() && self.is_settled(now) {
            self.ending = Some(self.left(now));
        }
        match self.ending {
            // What was heard is written in any case, unless somebody is in a hurry.
            Some(Ending::Left { .. }) if !self.front.is_written() => Turn::Running,
            Some(ending) => {
                self.link.finish();
                Turn::Over(ending)
            }
            None => Turn::Running,
        }
    }

    /// Whether the user wants to leave, and all is said, has arrived, and has not been refused.
    fn is_settled(&mut self, now: Instant) -> bool {
        let Some(leaving) = &mut self.leaving else {
            return false;
        };
        // A filter that has nothing to say has joined nevertheless, or failed to.
        let joined = self.was_up || matches!(self.front, Front::Interactive(_));
        if !joined || self.outbox.has_unsent() || self.outbox.is_waiting() {
            leaving.settled = None;
            return false;
        }
        let settled = *leaving.settled.get_or_insert(now);
        self.outbox.just_sent(now).is_none() || now.duration_since(settled) >= LAST_WORD
    }

    fn notice(&mut self, kind: Notice, text: &str) -> Result<(), ClientError> {
        self.front.notice(kind, text)
    }

    /// Tells what was not said in the end, and leaves a terminal in order.
    fn write_rest(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        self.ask_what_arrived(now);
        // We close it ourselves: the server has nothing against what has arrived.
        let remains = self.outbox.lose(Cut::Broken, now);
        self.front.tell(MAY_BE_MISSING, remains.uncertain.iter())?;
        self.front.tell("not sent", self.outbox.unsent())?;
        self.front.write_rest(self.poll.registry())
    }
}

/// What a terminal reports that is gone is no error of ours, but the end.
fn unless_gone(result: io::Result<()>, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            asked.push(Ask::Vanish);
            Ok(())
        }
        result => result.map_err(ClientError::Terminal),
    }
}

/// Has the poll watch for the signals that concern somebody who holds a terminal.
fn watch_signals(poll: &Poll) -> io::Result<WatchedSignals> {
    let mut signals = Signals::new([SIGWINCH, SIGTSTP, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)?;
    Ok(WatchedSignals(signals))
}

/// A name in a sentence: between quotes if it would not look like one word.
struct Named<'a>(&'a [u8]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Shown::plain(self.0).to_string();
        if shown.is_empty() || shown.contains(char::is_whitespace) {
            return Quoted(self.0).fmt(f);
        }
        f.write_str(&shown)
    }
}

/// A wait, as one says it.
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
