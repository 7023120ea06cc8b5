//! Why a connection to the engine is of no use any more.

use std::fmt;

use super::resp::{NoReply, Value};

/// `Failure` is why a connection to the engine is closed and made anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The engine has refused a command, for this reason.
    Refused(Vec<u8>),
    /// A reply is not of the form that its command has.
    Unexpected,
}

impl Failure {
    /// The failure that this reply is, if it has not the form that was expected.
    pub(super) fn of(reply: Value) -> Self {
        match reply {
            Value::Error(text) => Self::Refused(text),
            _ => Self::Unexpected,
        }
    }
}

impl From<NoReply> for Failure {
    fn from(_: NoReply) -> Self {
        Self::Unexpected
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "it refuses: {}", text.escape_ascii()),
            Self::Unexpected => f.write_str("it does not answer as Redis does"),
        }
    }
}

/// The engine's time in milliseconds, as `TIME` replies it.
pub(super) fn engine_time(reply: &Value) -> Option<u64> {
    let [seconds, micros] = reply.array()? else {
        return None;
    };
    let number = |value: &Value| {
        std::str::from_utf8(value.bytes()?)
            .ok()?
            .parse::<u64>()
            .ok()
    };
    let seconds = number(seconds)?.checked_mul(1000)?;
    seconds.checked_add(number(micros)? / 1000)
}
