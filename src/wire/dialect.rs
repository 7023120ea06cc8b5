//! Which of the tutorials' protocols a listener speaks.

use std::fmt;
use std::str::FromStr;

/// A protocol that a listener speaks: what its frames look like and what a newcomer says first.
///
/// A dialect is the listener's, not something a connection negotiates: nothing in the tutorials'
/// protocols would say which of them it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Ten-byte headers. A newcomer's first frame is its username, every later one a message; a
    /// message reaches the others as frame(username) frame(message).
    Chat10,
}

impl Dialect {
    /// Every dialect, in the order in which help texts list them.
    pub const ALL: [Self; 1] = [Self::Chat10];

    /// The name by which a listener's address asks for it, as in `chat10://127.0.0.1:1234`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat10 => "chat10",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.name() == name)
            .ok_or(UnknownDialect)
    }
}

/// A dialect that nobody here speaks; its message lists those that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDialect;

impl fmt::Display for UnknownDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown dialect; the known ones:")?;
        for dialect in Dialect::ALL {
            write!(f, " {dialect}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownDialect {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_by_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.name().parse(), Ok(dialect));
        }
    }

    #[test]
    fn an_unknown_dialect_lists_the_known_ones() {
        let error = "irc".parse::<Dialect>().unwrap_err();
        assert_eq!(error.to_string(), "unknown dialect; the known ones: chat10");
    }
}
