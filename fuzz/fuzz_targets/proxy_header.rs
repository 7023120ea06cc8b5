//! Headers of the PROXY protocol, cut anywhere: what is read of one is what is read of it byte by byte, not a
//! byte more, and what another implementation reads there.
//!
//! The first four bytes are the sizes of the pieces, in turn; the rest is the stream.
//!
//!     mkdir -p fuzz/corpus/proxy_header
//!     cargo +nightly fuzz run proxy_header fuzz/corpus/proxy_header fuzz/seeds/proxy_header

#![no_main]

use std::net::SocketAddr;

use ::proxy_header::{ParseConfig, Protocol, ProxyHeader};
use libfuzzer_sys::fuzz_target;
use ours::{BadHeader, Progress, is_at_start_of, next};

#[path = "../../src/server/proxy_header.rs"]
#[warn(clippy::option_option)]
mod ours;

/// The longest header of version 1, and of version 2.
const MAX_LINE: usize = 107;
const MAX_BINARY: usize = 4096;

/// How many bytes of a header of version 2 are before its addresses.
const BINARY_START: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((sizes, stream)) = data.split_first_chunk::<4>() else {
        return;
    };
    let reading = read(stream, &[usize::MAX]);
    assert_eq!(read(stream, &sizes.map(usize::from)), reading, "{sizes:?}");
    assert_eq!(read(stream, &[1]), reading, "byte by byte");
    compare(stream, reading);
});

/// What is read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A header of this length, with this source.
    Header(usize, Option<SocketAddr>),
    /// The stream ends inside a header.
    Incomplete,
    Bad(BadHeader),
}

/// Reads a header as the lobby does, from pieces of these sizes, in turn.
fn read(stream: &[u8], sizes: &[usize]) -> Reading {
    let mut sizes = sizes.iter().cycle();
    let (mut len, mut least) = (0, 0);
    loop {
        match next(&stream[..len]) {
            Ok(Progress::Missing(missing)) => {
                assert!(missing > 0, "a read of nothing");
                least = len + missing;
                assert!(least <= MAX_BINARY, "{least} bytes are too many");
                if len == stream.len() {
                    return Reading::Incomplete;
                }
                let size = sizes.next().map_or(1, |&size| size.max(1));
                len += size.min(missing).min(stream.len() - len);
            }
            Ok(Progress::Complete(source)) => {
                assert_eq!(len, least, "more was missing, or less");
                return Reading::Header(len, source);
            }
            Err(error) => return Reading::Bad(error),
        }
    }
}

/// Both readers must agree but where they are known to differ.
fn compare(stream: &[u8], ours: Reading) {
    let theirs = ProxyHeader::parse(stream, ParseConfig::default());
    let show = || format!("ours {ours:?}\ntheirs {theirs:?}");
    let is_line = stream.starts_with(b"PROXY");
    match (ours, &theirs) {
        (Reading::Header(len, source), Ok((theirs, their_len))) => {
            assert!(is_at_start_of(stream));
            assert_eq!(len, *their_len, "{}", show());
            let address = theirs.proxied_address();
            let address = address.filter(|address| address.protocol == Protocol::Stream);
            assert_eq!(source, address.map(|address| address.source), "{}", show());
        }
        (Reading::Header(len, source), Err(_)) => {
            // It refuses addresses that are missing where they mean nothing, and transports that are
            // unspecified in part.
            let announced = u16::from_be_bytes([stream[14], stream[15]]);
            assert_eq!(len, BINARY_START + usize::from(announced), "{}", show());
            assert!(!is_line && source.is_none(), "{}", show());
        }
        (Reading::Incomplete, theirs) => assert!(theirs.is_err(), "{}", show()),
        (Reading::Bad(BadHeader::TooLong), Ok((_, len))) => {
            let max = if is_line { MAX_LINE } else { MAX_BINARY };
            assert!(*len > max, "{}", show());
        }
        (Reading::Bad(_), Ok((_, len))) => {
            // It takes any byte for the first blank, anything behind UNKNOWN, and a port with a plus sign.
            let header = &stream[..*len];
            let is_unknown = header[6..].starts_with(b"UNKNOWN");
            let is_lax = header[5] != b' ' || is_unknown || header.contains(&b'+');
            assert!(is_line && is_lax, "{}", show());
        }
        (Reading::Bad(_), Err(_)) => {}
    }
}
