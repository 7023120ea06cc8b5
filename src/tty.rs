//! What the environment has about the terminal, for the commands that paint on one.

use std::env;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::fs::fstat;

/// The terminal of standard input and output, if they are one.
pub(crate) struct Tty {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    /// Whether they are one and the same.
    one: bool,
    /// The terminal's kind; empty if it is not known.
    term: String,
}

impl Tty {
    pub(crate) fn found() -> Self {
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            one: is_same_device(&io::stdin(), &io::stdout()),
            term: env::var("TERM").unwrap_or_default(),
        }
    }

    /// Whether lines can be typed and painted.
    pub(crate) fn is_screen(&self) -> bool {
        self.stdin && self.stdout && self.one && !matches!(self.term.as_str(), "" | "dumb")
    }

    /// Whether colours are wanted: see no-color.org.
    pub(crate) fn has_colors() -> bool {
        env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Whether the terminal has the 256 colours of xterm.
    pub(crate) fn has_256_colors(&self) -> bool {
        self.term.contains("256color") || self.term.contains("direct")
    }

    /// Whether it wraps lines anew when it becomes narrower. Most do. Xterm says who it is, but not
    /// when tmux is in between, which does.
    pub(crate) fn reflows(&self) -> bool {
        let cuts = ["linux", "st", "st-", "rxvt", "screen", "vt"];
        env::var_os("TMUX").is_some()
            || env::var_os("XTERM_VERSION").is_none()
                && !cuts
                    .iter()
                    .any(|kind| self.term == *kind || kind.len() > 2 && self.term.starts_with(kind))
    }
}

fn is_same_device(one: &dyn AsFd, other: &dyn AsFd) -> bool {
    let device = |stream: &dyn AsFd| fstat(stream.as_fd()).map(|stat| stat.st_rdev);
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}
