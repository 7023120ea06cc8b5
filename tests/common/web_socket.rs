//! WebSocket frames, written out independently of the code under test.

/// The first bytes of frames: an opcode with the bit of a final frame.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A frame as the relay sends it. The first byte is the opcode with the bit of a final frame.
pub fn server_frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(len as u8),
        len @ ..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a client sends it.
pub fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut frame = server_frame(first, payload);
    frame.truncate(frame.len() - payload.len());
    frame[1] |= 0x80;
    frame.extend_from_slice(&KEY);
    let bytes = payload.iter().zip(KEY.iter().cycle());
    frame.extend(bytes.map(|(byte, key)| byte ^ key));
    frame
}
