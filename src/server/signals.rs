//! Signals as events of the loop.

use std::fmt;
use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals as SignalSource;

/// What a signal requests of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stop. The name is the signal's.
    Stop(&'static str),
    /// Stop, because the terminal was closed. Unlike [`Stop`](Self::Stop), a second one changes nothing:
    /// the kernel sends the signal, and the shell does so as well.
    HangUp,
    /// Log the members' table.
    Table,
    /// Reload the configuration. There is none.
    Reload,
}

/// The signals that the server takes as requests.
///
/// A signal handler may do next to nothing, so it writes a byte to a pipe that the poll watches (the
/// self-pipe trick), and the signal is dealt with in the turn like anything else.
pub(super) struct Signals {
    source: SignalSource,
    /// Whether the process has a terminal that can be closed.
    has_terminal: bool,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Installs the handlers, for the whole process, and has `registry` watch for them.
    pub(super) fn install(
        registry: &Registry,
        token: Token,
        has_terminal: bool,
    ) -> io::Result<Self> {
        let mut source = SignalSource::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        registry.register(&mut source, token, Interest::READABLE)?;
        Ok(Self {
            source,
            has_terminal,
        })
    }

    /// The requests since the last call.
    pub(super) fn pending(&mut self) -> impl Iterator<Item = Request> {
        let has_terminal = self.has_terminal;
        self.source.pending().map(move |signal| match signal {
            SIGTERM => Request::Stop("SIGTERM"),
            SIGINT => Request::Stop("SIGINT"),
            SIGUSR1 => Request::Table,
            SIGHUP if has_terminal => Request::HangUp,
            _ => Request::Reload,
        })
    }
}
