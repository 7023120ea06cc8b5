//! The user interface, as the loop sees it: a terminal or a pipe.

use std::time::Instant;

use mio::Registry;
use mio::event::Event;
use unicode_segmentation::UnicodeSegmentation;

use super::display::Notice;
use super::error::ClientError;
use super::filter::Filter;
use super::incoming::Received;
use super::interactive::Interactive;
use super::outbox::Message;
use super::request::Request;
use crate::text::Shown;

/// The most messages that are reported one by one.
const MAX_REPORTED: usize = 20;

/// A `Frontend` is where messages are entered and shown.
#[derive(Debug)]
pub(super) enum Frontend {
    Interactive(Box<Interactive>),
    Filter(Box<Filter>),
}

impl Frontend {
    pub(super) fn note_input(&mut self) {
        match self {
            Self::Interactive(front) => front.note_input(),
            Self::Filter(front) => front.note_input(),
        }
    }

    pub(super) fn note_output(
        &mut self,
        event: &Event,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) {
        match self {
            Self::Interactive(front) => {
                if front.note_output(event).is_err() {
                    requests.push(Request::HangUp);
                }
            }
            Self::Filter(front) => front.note_output(event, registry, requests),
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

    /// Whether there is input to read that no further event will report.
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
            // A terminal gets its pending output when it is restored.
            Self::Interactive(_) => true,
            Self::Filter(front) => front.is_written(),
        }
    }

    /// Shows a message. `is_past` is set if it was sent before the client joined.
    pub(super) fn message(
        &mut self,
        message: &Received<'_>,
        is_past: bool,
    ) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front
                .message(message, is_past)
                .map_err(ClientError::Terminal),
            Self::Filter(front) => front.message(message, is_past).map_err(ClientError::Output),
        }
    }

    /// Notes that the server's history ends here.
    pub(super) fn end_history(&mut self) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front.end_history().map_err(ClientError::Terminal),
            Self::Filter(_) => Ok(()),
        }
    }

    /// Reports that a message has arrived that was reported as uncertain.
    pub(super) fn report_arrived(&mut self, text: &[u8]) -> Result<(), ClientError> {
        self.notice(Notice::Info, &format!("has arrived: {}", excerpt(text)))
    }

    /// Reports messages that were not delivered, or may not be.
    pub(super) fn report<'a>(
        &mut self,
        status: &str,
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
                front.notice(&format!("line {first} {status}"));
            } else {
                front.notice(&format!("lines {first} to {last} {status}"));
            }
            return Ok(());
        }
        for message in messages.take(MAX_REPORTED) {
            let text = excerpt(&message.payload());
            self.notice(Notice::Warning, &format!("{status}: {text}"))?;
        }
        match count.saturating_sub(MAX_REPORTED) {
            0 => Ok(()),
            more => self.notice(Notice::Warning, &format!("{status}: {more} more")),
        }
    }

    /// Writes the pending output at the end, without waiting for a reader.
    pub(super) fn write_remaining(&mut self, registry: &Registry) -> Result<(), ClientError> {
        match self {
            Self::Interactive(front) => front.write_remaining().map_err(ClientError::Terminal),
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

/// The beginning of a message, enough to recognize it.
fn excerpt(message: &[u8]) -> String {
    const MAX_GRAPHEMES: usize = 60;
    let text = Shown::plain(message).to_string();
    match text.grapheme_indices(true).nth(MAX_GRAPHEMES) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
