//! Who talks and listens, as the loop sees it: a person or a pipe.

use std::time::Instant;

use mio::event::Event;

use super::display::Notice;
use super::error::ClientError;
use super::filter::Filter;
use super::interactive::Interactive;

/// Where messages come from and go to.
#[derive(Debug)]
pub(super) enum Front {
    Interactive(Box<Interactive>),
    Filter(Box<Filter>),
}

/// What a user asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// To say this.
    Say(Vec<u8>),
    /// To leave, once all is said.
    Leave,
    /// Nothing more: the terminal is gone.
    Vanish,
}

impl Front {
    pub(super) fn note_input(&mut self) {
        match self {
            Self::Interactive(front) => front.note_input(),
            Self::Filter(front) => front.note_input(),
        }
    }

    pub(super) fn note_output(&mut self, event: &Event, asked: &mut Vec<Ask>) {
        match self {
            Self::Interactive(front) => {
                if front.note_output(event).is_err() {
                    asked.push(Ask::Vanish);
                }
            }
            Self::Filter(front) => front.note_output(event, asked),
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
