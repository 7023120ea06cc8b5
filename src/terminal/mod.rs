//! What a program on a terminal needs: raw mode, keys, signals, and standard streams that do not block.
//!
//! `chatloop join` and `chatloop top` have event loops of their own over it.

pub(crate) mod keyboard;
pub mod keys;
pub(crate) mod raw_mode;
pub(crate) mod signals;
pub(crate) mod stdio;

pub use raw_mode::restore_terminal;
