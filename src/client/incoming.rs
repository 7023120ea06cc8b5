//! What a server sends.

use jiff::Timestamp;

/// An `Incoming` is one item of a server's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A message.
    Message(Received<'a>),
    /// The client has joined. What came before are earlier messages.
    Joined {
        /// The longest message that the server accepts, in bytes.
        max_message: usize,
    },
    /// The server has published so many more of the client's messages.
    Confirmed(u64),
    /// Whether senders are paused.
    Paused(bool),
    /// A question whether the client is alive, with the payload that the answer must have.
    Ping(&'a [u8]),
}

/// A `Received` is the message of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The name of the member.
    pub name: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    /// The time at which it was published, if the server has sent it.
    pub time: Option<Timestamp>,
}

impl<'a> Received<'a> {
    /// A message without a time.
    #[must_use]
    pub const fn new(name: &'a [u8], text: &'a [u8]) -> Self {
        Self {
            name,
            text,
            time: None,
        }
    }
}

/// A `ReceivedOwned` is a message that is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReceivedOwned {
    pub(super) name: Vec<u8>,
    pub(super) text: Vec<u8>,
    pub(super) time: Option<Timestamp>,
}

impl ReceivedOwned {
    /// Keeps a message.
    pub(super) fn new(message: &Received<'_>) -> Self {
        Self {
            name: message.name.to_vec(),
            text: message.text.to_vec(),
            time: message.time,
        }
    }

    pub(super) fn received(&self) -> Received<'_> {
        Received {
            name: &self.name,
            text: &self.text,
            time: self.time,
        }
    }
}
