//! Bytes and frames: what is on the wire, without any I/O.
//!
//! A **frame** is a header of fixed width and then a payload. The header is the payload's length in
//! bytes, in ASCII decimal, padded with spaces ([`header`]). A stream cuts frames wherever it likes,
//! so the [`Decoder`] takes the bytes in whatever pieces they come and yields the same payloads
//! however they were cut. The protocol of these frames is the [`Dialect`].
//!
//! Nothing here knows a socket, a clock or the room, so all of it is tested as plain functions.

mod decoder;
mod dialect;
mod frame;
pub mod header;
mod json;
pub mod websocket;

pub use decoder::{Decoder, FrameError};
pub use dialect::{
    Dialect, Farewell, Greeting, Naming, Pauses, Receives, Rules, Sends, UnknownDialect,
};
pub use frame::encode_frame;
pub use json::TimeText;
