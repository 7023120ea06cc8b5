//! Bytes and frames: what is on the wire, without any I/O.
//!
//! A **frame** is a header of fixed width and then a payload. The header is the payload's length in
//! bytes, in ASCII decimal, padded with spaces ([`header`]). A stream cuts frames wherever it likes,
//! so the [`Decoder`] takes the bytes in whatever pieces they come and yields the same payloads
//! however they were cut. Which protocol is spoken with these frames is the [`Dialect`].
//!
//! Nothing here knows a socket, a clock or the room, so all of it is tested as plain functions.

mod decoder;
mod dialect;
pub mod header;

pub use decoder::{Decoder, FrameError};
pub use dialect::{Dialect, Farewell, Greeting, Naming, Pauses, Receives, Rules, UnknownDialect};

/// Appends `payload` to `out` as one frame: canonical header, then the bytes.
///
/// # Panics
///
/// If the payload's length has more digits than [`header::WIDTH`], that is from ten gigabytes on.
pub fn encode_frame(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header::encode(payload.len()));
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_frame_is_header_then_payload() {
        let mut out = b"before".to_vec();
        encode_frame("é!".as_bytes(), &mut out);
        assert_eq!(out, "before3         é!".as_bytes());
    }
}
