//! The requests of a user.

/// A `Request` is one action that the user asks the client for.
#[derive(Debug)]
pub(super) enum Request {
    /// Send this message.
    Send(Vec<u8>),
    /// Connect now, or send the held messages now.
    Hurry,
    /// Connect again.
    Reconnect,
    /// Join again, under this name.
    Rename(Vec<u8>),
    /// Leave when all messages are delivered. The second request leaves at once.
    Leave,
    /// Leave when all messages are delivered: the input has ended.
    Finish,
    /// End now: the terminal is gone.
    HangUp,
}
