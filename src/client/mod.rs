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
//! | A line that is done becomes a message to send | [`outbox`] |
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
mod backoff;
mod command;
pub mod display;
mod error;
mod filter;
mod front;
mod interactive;
pub mod keys;
pub mod line_editor;
pub mod lines;
mod link;
pub mod outbox;
pub mod screen;
pub mod session;
mod stdio;
mod terminal;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook_mio::v1_0::Signals;
use unicode_segmentation::UnicodeSegmentation;

use display::{Look, Notice};
pub use error::ClientError;
use error::reason;
use filter::Filter;
pub use filter::Streams;
use front::{Ask, Front};
use interactive::Interactive;
use link::{Attempt, Link};
use outbox::{Outbox, Remains};
use session::Loss;
pub use terminal::give_back;

use crate::text::Shown;

const SOCKET: Token = Token(0);
const INPUT: Token = Token(1);
const OUTPUT: Token = Token(2);
const SIGNALS: Token = Token(3);

/// How many bytes may wait for a slow server, and how many for a slow terminal or pipe, before no
/// more is read.
const ROOM: usize = 1024 * 1024;

/// How much is read from the socket at once, in bytes.
const SCRATCH: usize = 64 * 1024;

/// How many reads from the socket there are in a turn: a flood of messages must not keep the keyboard
/// waiting.
const READS_A_TURN: usize = 8;

/// When to ask for the first time whether what was sent has arrived. The time doubles from there.
const FIRST_CHECK: Duration = Duration::from_millis(200);
const LONGEST_CHECK: Duration = Duration::from_secs(5);
/// The same for somebody who waits for the answer to leave.
const FIRST_CHECK_TO_LEAVE: Duration = Duration::from_millis(2);
const LONGEST_CHECK_TO_LEAVE: Duration = Duration::from_millis(200);

/// After how long what was sent counts as arrived on systems that do not tell.
const SURELY_ARRIVED: Duration = Duration::from_secs(60);
/// The same for somebody who waits for the answer to leave.
const LIKELY_ARRIVED: Duration = Duration::from_secs(1);

/// How long a server's machine may leave what a person has said without acknowledgement, before the
/// connection counts as broken. TCP itself would try for a quarter of an hour. A program at the other
/// end of a pipe has no use for this, and may send more than a busy server reads in that time.
const PATIENCE: Duration = Duration::from_secs(60);

/// From this wait on, attempts to connect that fail are not worth a word each.
const HUSH: Duration = Duration::from_secs(15);

/// How long to stay after all that was said has arrived, for what the server may answer. It has no way
/// to refuse a message but to close the connection, and that should be told.
const LAST_WORD: Duration = Duration::from_millis(300);

/// How many messages that may be lost are shown one by one.
const UNCERTAIN_SHOWN: usize = 20;

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
    /// Whether there ever was a connection.
    was_up: bool,
    /// Whether failed attempts to connect are not worth a word any more.
    hushed: bool,
    /// Whether the user wants to leave, and since when.
    leaving: Option<Instant>,
    /// Since when all is said and has arrived, for a user who wants to leave.
    settled: Option<Instant>,
    /// When to ask whether what was sent has arrived, and how long to wait after that.
    check: Option<(Instant, Duration)>,
    /// How many messages may or may not have arrived.
    uncertain: u64,
    /// How it is to end, as soon as this turn is over.
    ending: Option<Ending>,
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
        let tokens = [INPUT, OUTPUT];
        let (front, signals) = match config.user {
            User::Person { look, reflows } => {
                // First, so that no signal can come while the terminal is taken and nobody knows.
                let signals = watch_signals(&poll).map_err(ClientError::Poll)?;
                let name = &config.name;
                let front = Interactive::start(name, look, reflows, poll.registry(), tokens)
                    .map_err(ClientError::Terminal)?;
                (Front::Interactive(Box::new(front)), Some(signals))
            }
            // In a pipeline the shell's own rules for signals are the right ones, `nohup` included.
            User::Streams(streams) => {
                let front = Filter::start(streams, poll.registry(), tokens)?;
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
            was_up: false,
            hushed: false,
            leaving: None,
            settled: None,
            check: None,
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
        loop {
            match self.turn(None) {
                Ok(Turn::Running) => {}
                Ok(Turn::Over(ending)) => {
                    self.write_rest()?;
                    return Ok(ending);
                }
                Err(error) => {
                    // That this fails as well is not what the user has to know first.
                    let _ = self.write_rest();
                    return Err(error);
                }
            }
        }
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
            self.link.send(&mut self.outbox, now);
            self.check(now);
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
                self.check.map(|(at, _)| at),
                self.settled.map(|since| since + LAST_WORD),
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
                OUTPUT => self.front.note_output(event, asked),
                _ => {}
            }
        }
        let Some(signals) = &mut self.signals else {
            return Ok(());
        };
        let Front::Interactive(front) = &mut self.front else {
            return Ok(());
        };
        for signal in signals.0.pending() {
            match signal {
                SIGWINCH => front.resize(),
                SIGTSTP => front.stop(),
                SIGCONT => front.resume(),
                signal => {
                    self.ending = Some(Ending::Signal(signal));
                    Ok(())
                }
            }
            .map_err(ClientError::Terminal)?;
        }
        Ok(())
    }

    /// Whether what is typed or piped in is read: not while megabytes of it wait to be sent.
    fn wants_input(&self) -> bool {
        self.outbox.unsent_bytes() < ROOM
    }

    fn take_input(&mut self, now: Instant, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
        let wanted = self.wants_input();
        let registry = self.poll.registry();
        match &mut self.front {
            Front::Interactive(front) => front
                .read(registry, now, asked)
                .map_err(ClientError::Terminal),
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
                    self.notice(Notice::Info, "not sent yet")?;
                }
            }
            Ask::Leave => return self.leave(now),
            Ask::Vanish => self.ending = Some(Ending::Signal(SIGHUP)),
        }
        Ok(())
    }

    /// Leaves once all is said; the second time, at once.
    fn leave(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.leaving.is_some() {
            self.ending = Some(self.left());
            return Ok(());
        }
        self.leaving = Some(now);
        self.check = Some((now, FIRST_CHECK_TO_LEAVE));
        if let (unsent @ 1.., Front::Interactive(_)) = (self.outbox.unsent(), &self.front) {
            let them = if unsent == 1 {
                "one message is"
            } else {
                "some messages are"
            };
            let notice = format!(
                "{them} not sent yet, and you leave after that; \
                                  Ctrl-D once more leaves at once"
            );
            self.notice(Notice::Trouble, &notice)?;
        }
        Ok(())
    }

    fn left(&self) -> Ending {
        Ending::Left {
            unsent: self.outbox.unsent(),
            // A person has been told, and can ask the others.
            uncertain: match self.front {
                Front::Interactive(_) => 0,
                Front::Filter(_) => self.uncertain,
            },
        }
    }

    /// Sees to it that there is a connection.
    fn connect(&mut self, now: Instant) -> Result<(), ClientError> {
        match self.link.progress(self.poll.registry(), now) {
            None => Ok(()),
            Some(Attempt::Connected(addr)) => {
                self.outbox.begin(&self.name);
                let notice = self.welcome(addr);
                self.was_up = true;
                self.hushed = false;
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
        let name = Shown::plain(&self.name);
        let help = match self.front {
            Front::Interactive(_) => " (/help for help, Ctrl-D to leave)",
            Front::Filter(_) => "",
        };
        match (self.was_up, self.outbox.unsent()) {
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
        if let Loss::NotChat(_) = loss {
            return Err(ClientError::NotChat(self.server.clone(), loss));
        }
        // What was acknowledged has arrived, even if this is the first time to ask.
        if let Some(unacknowledged) = self.link.unacknowledged() {
            self.outbox.arrived(unacknowledged);
        }
        let hint = match loss {
            Loss::CutShort => None,
            _ => self.hint(now),
        };
        let remains = self.outbox.lose();
        let missing = remains.uncertain.len() + usize::from(remains.refused.is_some());
        self.uncertain += missing as u64;
        self.check = None;
        let again_in = self.link.lose(now);
        let all_is_sent = self.leaving.is_some() && !self.outbox.has_unsent();
        if all_is_sent && missing == 0 && hint.is_none() {
            self.ending = Some(self.left());
            return Ok(());
        }
        if all_is_sent || !self.reconnect {
            self.tell(&remains)?;
            return Err(ClientError::Lost {
                loss,
                hint,
                unsent: self.outbox.unsent(),
            });
        }
        let notice = format!("{loss}; connecting again in {}", Wait(again_in));
        self.notice(Notice::Trouble, &notice)?;
        if let Some(hint) = hint {
            self.notice(Notice::Trouble, &hint)?;
        }
        self.tell(&remains)
    }

    /// Why a server may have closed the connection. `chat10` has no words for it.
    fn hint(&self, now: Instant) -> Option<String> {
        match (self.link.is_refused(now), self.outbox.just_sent(now)) {
            (true, None) => Some(
                "that was right after joining: is the server full, or the name too long for it?"
                    .to_owned(),
            ),
            (true, Some(len)) => Some(format!(
                "that was right after joining and a message of {len} bytes: is the server full, or \
                 one of them too long for it?"
            )),
            (false, Some(len)) => Some(format!(
                "that was right after a message of {len} bytes: is it over the server's limit?"
            )),
            (false, None) => None,
        }
    }

    /// Tells what a lost connection has left in doubt.
    fn tell(&mut self, remains: &Remains) -> Result<(), ClientError> {
        let messages = &remains.uncertain[..];
        if let Some(message) = &remains.refused {
            let which = match &self.front {
                Front::Interactive(_) => beginning(message.payload()),
                Front::Filter(_) => format!("line {}", message.number()),
            };
            let notice =
                format!("given up, since two connections ended in the middle of it: {which}");
            self.notice(Notice::Trouble, &notice)?;
        }
        match &self.front {
            Front::Interactive(_) => {
                for message in messages.iter().take(UNCERTAIN_SHOWN) {
                    let text = beginning(message.payload());
                    self.notice(Notice::Trouble, &format!("may not have arrived: {text}"))?;
                }
                if let more @ 1.. = messages.len().saturating_sub(UNCERTAIN_SHOWN) {
                    let notice = format!("may not have arrived: {more} more");
                    self.notice(Notice::Trouble, &notice)?;
                }
                Ok(())
            }
            Front::Filter(_) => match messages {
                [] => Ok(()),
                [one] => self.notice(
                    Notice::Trouble,
                    &format!("line {} may not have arrived", one.number()),
                ),
                [first, .., last] => self.notice(
                    Notice::Trouble,
                    &format!(
                        "lines {} to {} may not have arrived",
                        first.number(),
                        last.number()
                    ),
                ),
            },
        }
    }

    /// Finds out whether what was sent has arrived, now and then.
    fn check(&mut self, now: Instant) {
        if !self.outbox.has_unacknowledged() {
            self.check = None;
            return;
        }
        let (first, longest) = match self.leaving {
            Some(_) => (FIRST_CHECK_TO_LEAVE, LONGEST_CHECK_TO_LEAVE),
            None => (FIRST_CHECK, LONGEST_CHECK),
        };
        let Some((at, wait)) = self.check else {
            self.check = Some((now + first, first));
            return;
        };
        if at > now {
            return;
        }
        match (self.link.unacknowledged(), self.leaving) {
            (Some(unacknowledged), _) => self.outbox.arrived(unacknowledged),
            (None, Some(since)) if now.duration_since(since) >= LIKELY_ARRIVED => {
                self.outbox.assume_arrived(now + LIKELY_ARRIVED);
            }
            (None, _) => {
                if let Some(before) = now.checked_sub(SURELY_ARRIVED) {
                    self.outbox.assume_arrived(before);
                }
            }
        }
        let wait = (wait * 2).min(longest);
        self.check = self
            .outbox
            .has_unacknowledged()
            .then_some((now + wait, wait));
    }

    fn flush(&mut self, asked: &mut Vec<Ask>) -> Result<(), ClientError> {
        match &mut self.front {
            Front::Interactive(front) => match front.flush(self.poll.registry()) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    asked.push(Ask::Vanish);
                    Ok(())
                }
                result => result.map_err(ClientError::Terminal),
            },
            Front::Filter(front) => front.flush(self.poll.registry(), asked),
        }
    }

    /// Whether it is over.
    fn outcome(&mut self, now: Instant) -> Turn {
        if self.ending.is_none() && self.leaving.is_some() && self.is_settled(now) {
            self.ending = Some(self.left());
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

    /// Whether all is said, has arrived, and has not been refused.
    fn is_settled(&mut self, now: Instant) -> bool {
        // A filter that has nothing to say has joined nevertheless, or failed to.
        let joined = self.was_up || matches!(self.front, Front::Interactive(_));
        if !joined || self.outbox.has_unsent() || self.outbox.has_unacknowledged() {
            self.settled = None;
            return false;
        }
        let since = *self.settled.get_or_insert(now);
        self.outbox.just_sent(now).is_none() || now.duration_since(since) >= LAST_WORD
    }

    fn notice(&mut self, kind: Notice, text: &str) -> Result<(), ClientError> {
        self.front.notice(kind, text)
    }

    /// Leaves a terminal in order, and tells what was being typed when the end came.
    fn write_rest(&mut self) -> Result<(), ClientError> {
        let Front::Interactive(front) = &mut self.front else {
            return Ok(());
        };
        let draft = front.draft();
        if !draft.is_empty() {
            let notice = format!("not sent: {}", Shown::plain(draft.as_bytes()));
            front
                .notice(Notice::Trouble, &notice)
                .map_err(ClientError::Terminal)?;
        }
        match front.write_rest() {
            // The terminal is gone, and that is why we are here.
            Err(_) if self.ending == Some(Ending::Signal(SIGHUP)) => Ok(()),
            result => result.map_err(ClientError::Terminal),
        }
    }
}

/// Has the poll watch for the signals that concern somebody who holds a terminal.
fn watch_signals(poll: &Poll) -> io::Result<WatchedSignals> {
    let mut signals = Signals::new([SIGWINCH, SIGTSTP, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)?;
    Ok(WatchedSignals(signals))
}

/// Enough of a message for its author to know it again.
fn beginning(message: &[u8]) -> String {
    const ENOUGH: usize = 60;
    let text = Shown::plain(message).to_string();
    match text.grapheme_indices(true).nth(ENOUGH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
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
