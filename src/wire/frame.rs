//! The encoding of one frame.

use super::header;

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
    fn encoded_frame_is_header_then_payload() {
        let mut out = b"before".to_vec();
        encode_frame("é!".as_bytes(), &mut out);
        assert_eq!(out, "before3         é!".as_bytes());
    }
}
