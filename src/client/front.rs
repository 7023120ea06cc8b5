//! Who talks and listens, as the loop sees it: a person or a pipe.

use std::time::Instant;

use mio::Registry;
use mio::event::Event;
use unicode_segmentation::UnicodeSegmentation;

use super::ask::Ask;
use super::display::Notice;
use super::error::ClientError;
use super::filter::Filter;
use super::interactive::Interactive;
use super::outbox::Message;
use crate::text::Shown;

/// How many messages are told one by one.
const SHOWN: usize = 20;

/// Where messages come from and go to.
#[derive(Debug)]
pub(super) enum Front {
    Interactive(Box<Interactive>),
    Filter(Box<Filter>),
}

impl Front {
    pub(super) fn note_input(&mut self) {
        match self {
            Self::Interactive(front) => front.note_input(),
            Self::Filter(front) => front.note_input(),
        }
    }

    pub(super) fn note_output(&mut self, event: &Event, registry: &Registry, asked: &mut Vec<Ask>) {
        match self {
            Self::Interactive(front) => {
                if front.note_output(event).is_err() {
                    asked.push(Ask::Vanish);
                }
            }
            Self::Filter(front) => front.note_output(event, registry, asked),
        }
    }

    pub(super) fn note_notices(&mut self, event: &Event) {
        if let Self::Filter(front) = self {
            front.note_notices(event);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Interactive(front) => front.deadline(),
            Self::Filter(_) => None,
        }
    }

    /// Whether there is input to be read that no event will tell of.
    pub(super) fn has_input(&self) -> bool {
        match self {
            Self::Interactive(_) => false,
            Self::Filter(front) => front.has_input(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Interactive(front) => front.has_room(),
            Self::Filter(front) => front.has_room(),
        }
    }

    pub(super) fn is_written(&self) -> bool {
        match self {
            // A terminal is written to the end when it is given back.
            Self::Interactive(_) => true,
            Self::Filter(front) => front.is_written(),
        }
    }

    pub(super) fn message(&mut self, name: &[u8], message: &[u8]) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front.message(name, message).map_err(ClientError::Terminal),
            Self::Filter(front) => front.message(name, message).map_err(ClientError::Output),
        }
    }

    /// Tells what became of some messages.
    pub(super) fn tell<'a>(
        &mut self,
        fate: &str,
        messages: impl ExactSizeIterator<Item = &'a Message>,
    ) -> Result<(), ClientError> {
        let count = messages.len();
        let mut messages = messages.peekable();
        let Some(first) = messages.peek().map(|message| message.number()) else {
            return Ok(());
        };
        if let Self::Filter(front) = self {
            let last = messages.last().map_or(first, Message::number);
            if first == last {
                front.notice(&format!("line {first} {fate}"));
            } else {
                front.notice(&format!("lines {first} to {last} {fate}"));
            }
            return Ok(());
        }
        for message in messages.take(SHOWN) {
            let text = beginning(message.payload());
            self.notice(Notice::Trouble, &format!("{fate}: {text}"))?;
        }
        match count.saturating_sub(SHOWN) {
            0 => Ok(()),
            more => self.notice(Notice::Trouble, &format!("{fate}: {more} more")),
        }
    }

    /// Writes what is left to write at the end, without waiting for whoever does not take it.
    pub(super) fn write_rest(&mut self, registry: &Registry) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front.write_rest().map_err(ClientError::Terminal),
            Self::Filter(front) => {
                front.flush_notices(registry);
                Ok(())
            }
        }
    }

    pub(super) fn notice(&mut self, kind: Notice, text: &str) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front.notice(kind, text).map_err(ClientError::Terminal),
            Self::Filter(front) => {
                front.notice(text);
                Ok(())
            }
        }
    }
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
