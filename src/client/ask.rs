//! What a user asks the client to do.

/// What a user asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// To say this.
    Say(Vec<u8>),
    /// To leave, once all is said; asked for twice, at once.
    Leave,
    /// The same, but nothing more: there is no more to be said.
    Finish,
    /// Nothing more: the terminal is gone.
    Vanish,
}
