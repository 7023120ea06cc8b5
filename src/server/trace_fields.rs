//! The parts of a trace's records, as JSON.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::relay::{ChannelState, ConnId, ConnectionState, Ready};
use crate::text::{Json, JsonField};

/// Appends a number, without the formatter.
pub(super) fn push_number(text: &mut String, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// An identity: the slot, and the generation of the connection in it.
pub(super) struct IdText(pub(super) ConnId);

impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.0.key(), self.0.generation())
    }
}

/// The field of an identity.
pub(super) struct Id(pub(super) ConnId);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"id\":{}", IdText(self.0))
    }
}

/// The field of a name, which a connection may not have.
pub(super) struct Name<'a>(pub(super) Option<&'a [u8]>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => JsonField("name", name).fmt(f),
            None => f.write_str("\"name\":null"),
        }
    }
}

/// A time in microseconds, if there is one.
pub(super) struct Micros(pub(super) Option<Duration>);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => time.as_micros().fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// How many bytes a call offered or had room for, if it is one that moves bytes.
pub(super) struct Of(pub(super) usize);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            of => write!(f, ",\"of\":{of}"),
        }
    }
}

/// The field of readiness.
pub(super) struct Words(pub(super) Ready);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Ready::WORDS.iter().filter(|(bit, _)| self.0.any(*bit));
        let words = List::of(set.map(|(_, word)| Json(word)));
        write!(f, "\"ready\":{words}")
    }
}

/// A connection's own span of the turn buffer.
pub(super) struct Span(pub(super) ConnId, pub(super) usize, pub(super) usize);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id, from, to) = *self;
        write!(f, "{{{},\"from\":{from},\"to\":{to}}}", Id(id))
    }
}

/// A connection in the record that begins a trace.
pub(super) struct Listed<'a>(pub(super) ConnectionState<'a>);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionState {
            id,
            name,
            dialect,
            peer,
            ..
        } = self.0;
        let (id, name) = (Id(id), Name(name));
        write!(
            f,
            "{{{id},{name},\"dialect\":\"{dialect}\",\"peer\":\"{peer}\"}}"
        )
    }
}

/// A connection of which the relay remembers something.
pub(super) struct Busy<'a>(pub(super) ConnectionState<'a>);

impl fmt::Display for Busy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.0;
        write!(f, "{{{},{}", Id(state.id), Words(state.ready))?;
        if state.is_parked {
            f.write_str(",\"is_parked\":true")?;
        }
        if let Some(cursor) = state.cursor {
            let (dialect, position, pending) = (state.dialect, cursor.position, cursor.pending);
            write!(
                f,
                ",\"dialect\":\"{dialect}\",\"position\":{position},\"pending\":{pending}"
            )?;
        }
        f.write_char('}')
    }
}

/// A channel.
pub(super) struct Channel(pub(super) ChannelState);

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChannelState {
            dialect,
            members,
            base,
            end,
            ..
        } = self.0;
        write!(
            f,
            "{{\"dialect\":\"{dialect}\",\"members\":{members},\"base\":{base},\"end\":{end}}}"
        )
    }
}

/// A list, which can be shown once.
pub(super) struct List<I>(RefCell<I>);

impl<I> List<I> {
    pub(super) const fn of(items: I) -> Self {
        Self(RefCell::new(items))
    }
}

impl<I: Iterator<Item: fmt::Display>> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (index, item) in self.0.borrow_mut().by_ref().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            item.fmt(f)?;
        }
        f.write_char(']')
    }
}
