//! A live view of relays: what they are doing, which members are slow, and how busy their loops are.
//!
//! It is an event loop of its own, over connections to the relays, the keyboard and the terminal. It wakes up for
//! each sample of each relay, for their responses, and for keys. One pass is a turn:
//!
//! | step | where |
//! |---|---|
//! | The poll reports what is ready; that is only noted | here |
//! | Each relay that is due is asked for its figures | `source.rs`, `response.rs` |
//! | ... in Prometheus' text format, and for its members in JSON | `exposition.rs`, `members.rs` |
//! | Two samples make rates | `figures.rs`, `histogram.rs`, `model.rs` |
//! | Keys change what is to be seen | `controls.rs` |
//! | If there is something new, the screen is drawn into cells | `view.rs`, `members_view.rs`, `pen.rs` |
//! | ... and those that have changed are painted | `painter.rs`, `screen.rs` |
//! | Where standard output is no terminal, a sample is a line | `lines.rs` |
//! | Both have figures in the same words | `wording.rs` |
//!
//! **Why it does not wake itself.** A terminal is reported as writable each time that it has shown some output. A
//! loop that paints because it was woken, however little, is woken by that again and never rests. So the terminal
//! is watched for output only while it has not accepted some (`terminal/stdio.rs`), and painted only when a
//! sample, a key or a new size gives a reason.

mod controls;
mod error;
mod exposition;
mod figures;
mod histogram;
mod lines;
mod members;
mod members_view;
mod model;
mod painter;
mod pen;
mod response;
mod screen;
mod source;
mod view;
mod wording;

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP, SIGWINCH};

use crate::terminal::signals::Signals;
use crate::terminal::stdio::Sink;
use crate::text::Shown;
pub use error::{SampleError, TopError};
pub use members::{Member, MembersTable};
use model::RelayModel;
use screen::Screen;
use source::Source;
pub use source::Target;

const INPUT: Token = Token(usize::MAX - 1);
const OUTPUT: Token = Token(usize::MAX - 2);
const SIGNALS: Token = Token(usize::MAX - 3);

/// While this much output is pending for a slow reader, in bytes, no lines are added.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// A `Config` is what to show, and how.
#[derive(Debug)]
pub struct Config {
    /// The relays, each as the user wrote it, and where it answers.
    pub relays: Vec<(String, Target)>,
    /// The time between two samples.
    pub interval: Duration,
    /// After how many samples of each relay to end, those without rates not counted.
    pub count: Option<u64>,
    /// Where to show them.
    pub output: Output,
}

/// An `Output` is where samples are shown.
#[derive(Debug)]
pub enum Output {
    /// On the terminal of standard input and output.
    Screen {
        /// Whether colours are wanted.
        has_colors: bool,
    },
    /// As lines.
    Lines {
        /// Where to.
        output: OwnedFd,
        /// Whether each is an object in JSON.
        is_json: bool,
    },
}

/// An `Ending` is how the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user left, all samples were taken, or the reader of the output is gone.
    Done,
    /// This signal ended it.
    Signal(i32),
}

/// Where samples are shown, once there is one.
#[derive(Debug)]
enum Front {
    /// Nowhere: no relay has answered yet.
    None,
    Screen(Box<Screen>, Signals),
    Lines(Sink),
}

/// A `Top` shows samples of relays: see the [module](self).
#[derive(Debug)]
pub struct Top {
    poll: Poll,
    events: Events,
    sources: Vec<Source>,
    relays: Vec<RelayModel>,
    /// How many samples each relay had, those without rates not counted.
    samples: Vec<u64>,
    /// The first failure of each relay that has never answered.
    failures: Vec<Option<SampleError>>,
    count: Option<u64>,
    output: Output,
    front: Front,
    ending: Option<Ending>,
}

impl Top {
    /// Begins to sample these relays.
    ///
    /// # Errors
    ///
    /// If the system has no event queue.
    pub fn new(config: Config) -> Result<Self, TopError> {
        let now = Instant::now();
        let (names, targets): (Vec<_>, Vec<_>) = config.relays.into_iter().unzip();
        let sources = targets.into_iter().enumerate();
        let shown = |name: String| Shown::plain(name.as_bytes()).to_string();
        Ok(Self {
            poll: Poll::new().map_err(TopError::Poll)?,
            events: Events::with_capacity(64),
            sources: sources
                .map(|(index, target)| Source::new(target, Token(index), config.interval, now))
                .collect(),
            samples: vec![0; names.len()],
            failures: names.iter().map(|_| None).collect(),
            relays: names.into_iter().map(shown).map(RelayModel::new).collect(),
            count: config.count,
            output: config.output,
            front: Front::None,
            ending: None,
        })
    }

    /// Shows samples until the user leaves, a signal ends it, or all samples were taken.
    ///
    /// # Errors
    ///
    /// The error that ends the program. The terminal is restored before.
    pub fn run(mut self) -> Result<Ending, TopError> {
        loop {
            self.turn()?;
            if let Some(ending) = self.ending
                && self.is_written()
            {
                return Ok(ending);
            }
        }
    }

    fn turn(&mut self) -> Result<(), TopError> {
        self.wait()?;
        self.dispatch()?;
        let now = Instant::now();
        if self.ending.is_none() {
            self.sample(now)?;
            self.read(now)?;
        }
        self.flush()
    }

    fn wait(&mut self) -> Result<(), TopError> {
        let now = Instant::now();
        let key = match &self.front {
            Front::Screen(screen, _) => screen.deadline(),
            Front::None | Front::Lines(_) => None,
        };
        let samples = self.sources.iter().map(Source::deadline);
        let next = samples.chain(key).min().filter(|_| self.ending.is_none());
        let timeout = next.map(|next| next.saturating_duration_since(now));
        match self.poll.poll(&mut self.events, timeout) {
            // A signal, which is also an event.
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result.map_err(TopError::Poll),
        }
    }

    /// Notes what is ready, and handles signals. Sources are tried in each turn.
    fn dispatch(&mut self) -> Result<(), TopError> {
        for event in &self.events {
            let is_gone = match (event.token(), &mut self.front) {
                (INPUT, Front::Screen(screen, _)) => {
                    screen.note_input();
                    false
                }
                (OUTPUT, Front::Screen(screen, _)) => screen.note_output(event).is_err(),
                (OUTPUT, Front::Lines(sink)) => sink.note(event).is_err(),
                _ => false,
            };
            if is_gone {
                self.ending = Some(Ending::Done);
            }
        }
        if let Front::Screen(screen, signals) = &mut self.front {
            let signals = signals.pending();
            for &signal in &signals {
                let handled = match signal {
                    SIGWINCH => {
                        screen.redraw();
                        Ok(())
                    }
                    // The process was continued since.
                    SIGTSTP if signals.contains(&SIGCONT) => Ok(()),
                    SIGTSTP => screen.stop(),
                    SIGCONT => screen.resume(),
                    signal => {
                        self.ending = Some(Ending::Signal(signal));
                        // SIGHUP comes with a SIGCONT, but the terminal is gone.
                        break;
                    }
                };
                handled.map_err(TopError::Terminal)?;
            }
        }
        Ok(())
    }

    /// Takes the samples that have come.
    fn sample(&mut self, now: Instant) -> Result<(), TopError> {
        for index in 0..self.sources.len() {
            let Some(result) = self.sources[index].progress(self.poll.registry(), now) else {
                continue;
            };
            let is_first = matches!(self.front, Front::None);
            let result = match result {
                Err(error) if is_first => {
                    let text = error.to_string();
                    self.failures[index] = Some(error);
                    Err(text)
                }
                result => result.map_err(|error| error.to_string()),
            };
            let has_answered = result.is_ok();
            self.relays[index].update(result, now);
            if is_first && has_answered {
                self.start()?;
            }
            self.show(index);
        }
        let is_first = matches!(self.front, Front::None);
        if is_first && self.failures.iter().all(Option::is_some) {
            let failure = self.failures.iter_mut().find_map(Option::take);
            let name = self.relays.first().map(|relay| relay.name.clone());
            if let (Some(name), Some(failure)) = (name, failure) {
                return Err(TopError::NoAnswer(name, failure));
            }
        }
        Ok(())
    }

    /// A relay has answered: there is something to show.
    fn start(&mut self) -> Result<(), TopError> {
        let registry = self.poll.registry();
        self.front = match &self.output {
            Output::Screen { has_colors } => {
                // First, so that no signal can end the process while the terminal is in raw mode.
                let signals = Signals::watch(registry, SIGNALS).map_err(TopError::Poll)?;
                let screen = Screen::start(*has_colors, registry, [INPUT, OUTPUT]);
                Front::Screen(Box::new(screen.map_err(TopError::Terminal)?), signals)
            }
            // In a pipeline the default actions of signals are right, and those that `nohup` sets.
            Output::Lines { output, .. } => {
                Front::Lines(Sink::new(output, registry, OUTPUT).map_err(TopError::Output)?)
            }
        };
        Ok(())
    }

    /// Shows a sample of the relay of this index.
    fn show(&mut self, index: usize) {
        let relay = &self.relays[index];
        let is_complete = relay.rates.is_some() || relay.failure.is_some();
        match &mut self.front {
            Front::None => return,
            Front::Screen(screen, _) => screen.invalidate(),
            Front::Lines(sink) if is_complete && sink.pending() < MAX_PENDING_BYTES => {
                let is_json = matches!(self.output, Output::Lines { is_json: true, .. });
                let line = if is_json {
                    Some(lines::json(relay, SystemTime::now()))
                } else {
                    lines::plain(relay)
                };
                let line = line.unwrap_or_default();
                sink.buffer().extend_from_slice(line.as_bytes());
            }
            Front::Lines(_) => {}
        }
        self.samples[index] += u64::from(is_complete);
        let is_last = |count| self.samples.iter().all(|samples| *samples >= count);
        if self.count.is_some_and(is_last) {
            self.ending = Some(Ending::Done);
        }
    }

    fn read(&mut self, now: Instant) -> Result<(), TopError> {
        let Front::Screen(screen, _) = &mut self.front else {
            return Ok(());
        };
        match screen.read(self.poll.registry(), self.relays.len(), now) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => self.ending = Some(Ending::Done),
            Ok(None) => self.ending = Some(Ending::Signal(SIGHUP)),
            Err(error) => return Err(TopError::Terminal(error)),
        }
        Ok(())
    }

    /// Paints, or writes lines, as far as that is accepted.
    fn flush(&mut self) -> Result<(), TopError> {
        let registry = self.poll.registry();
        match &mut self.front {
            Front::None => Ok(()),
            Front::Screen(screen, _) => match screen.paint(registry, &self.relays) {
                // The terminal is gone.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.ending = Some(Ending::Signal(SIGHUP));
                    Ok(())
                }
                painted => painted.map_err(TopError::Terminal),
            },
            Front::Lines(sink) => match sink.flush(registry) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    sink.take_pending();
                    self.ending = Some(Ending::Done);
                    Ok(())
                }
                written => written.map_err(TopError::Output),
            },
        }
    }

    fn is_written(&self) -> bool {
        match &self.front {
            Front::Lines(sink) => sink.pending() == 0,
            // The terminal is restored, and shows something else.
            Front::None | Front::Screen(..) => true,
        }
    }
}
