//! Headers, read beside the grammar: what is one, what it announces, and that all the relay writes
//! is one.
//!
//! The bytes are the header, cut or padded to each width that a dialect has. For what is written
//! they are a length, the lowest eight of them, and a payload.
//!
//!     mkdir -p fuzz/corpus/header
//!     cargo +nightly fuzz run header fuzz/corpus/header fuzz/seeds/header

#![no_main]

use chatloop::wire::{encode_frame, header};
use chatloop_fuzz::announced;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check_read(data);
    for width in [header::WIDTH, header::WIDE] {
        let mut header = data.to_vec();
        header.resize(width, b' ');
        check_read(&header);
    }
    let bits = data
        .iter()
        .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
    check_written(bits % (header::MAX_LEN + 1));

    let mut out = b"before".to_vec();
    encode_frame(data, &mut out);
    let frame = out.strip_prefix(b"before").expect("what was there stays");
    let (header, payload) = frame.split_at(header::WIDTH);
    assert_eq!(header, canonical(data.len() as u64));
    assert_eq!(payload, data);
});

fn check_read(header: &[u8]) {
    let len = header::parse(header);
    assert_eq!(len, announced(header), "{}", header.escape_ascii());
    if let Some(len) = len.filter(|&len| len <= header::MAX_LEN) {
        check_written(len);
    }
}

/// The relay writes `len` in the one way that it has, and reads what it writes.
fn check_written(len: u64) {
    let header = header::encode(len as usize);
    assert_eq!(header, *canonical(len));
    assert_eq!(header::parse(&header), Some(len));
}

/// A header of ten bytes as the tutorials' servers format it.
fn canonical(len: u64) -> Vec<u8> {
    format!("{len:<10}").into_bytes()
}
