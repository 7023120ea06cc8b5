//! The signals that concern a program on a terminal.

use std::fmt;
use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

/// A `Signals` has these signals as events of the poll, in place of their default actions.
pub(crate) struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Registers them.
    pub(crate) fn watch(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut signals = signal_hook_mio::v1_0::Signals::new([
            SIGWINCH, SIGTSTP, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM,
        ])?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Self(signals))
    }

    /// Those that came since the last call.
    pub(crate) fn pending(&mut self) -> Vec<i32> {
        self.0.pending().collect()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}
