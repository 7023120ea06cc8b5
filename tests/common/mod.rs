//! What the tests share: scripted streams for the relay without sockets, a server driven turn by
//! turn with its peers in one thread, the real program as a child process, on a terminal or
//! with system calls that fail, and servers for it to connect to.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each level of the tests is a crate of its own and uses a part"
)]

pub mod chat_room;
pub mod chat_server;
#[cfg(feature = "cli")]
pub mod engine;
#[cfg(feature = "cli")]
pub mod http;
#[cfg(feature = "cli")]
pub mod load;
#[cfg(feature = "cli")]
pub mod process;
pub mod python;
pub mod script;
pub mod shim;
pub mod socket;
#[cfg(feature = "cli")]
pub mod terminal;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(all(feature = "cli", target_os = "linux", target_env = "gnu"))]
pub mod torture;
#[cfg(feature = "cli")]
pub mod web_server;
pub mod web_socket;

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

/// How long a test waits for something that must happen before it fails. Nothing is timed by it:
/// what passes, passes as soon as it happens.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Prints why a test is not run on this machine. Not with `eprintln`, which the test runner captures.
pub fn skip(reason: &str) {
    let line = format!("skipped: {reason}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs a function for all cases at a time: they mostly wait.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    let run = &run;
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || run(case));
        }
    });
}

/// One frame, written out independently of the code under test.
pub fn frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = format!("{:<10}", payload.len()).into_bytes();
    frame.extend_from_slice(payload);
    frame
}

/// One frame with the 64-byte header that `chat64` and `ack64` clients send.
pub fn wide_frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = format!("{:<64}", payload.len()).into_bytes();
    frame.extend_from_slice(payload);
    frame
}

/// A message as the others receive it: the name's frame, then the message's.
pub fn delivery(name: impl AsRef<[u8]>, message: impl AsRef<[u8]>) -> Vec<u8> {
    [frame(name), frame(message)].concat()
}

/// Takes a stream of frames apart. Panics if it is not whole frames.
pub fn parse_frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(10);
        let len: usize = std::str::from_utf8(header)
            .unwrap()
            .trim_end()
            .parse()
            .unwrap();
        let (payload, rest) = rest.split_at(len);
        payloads.push(payload);
        bytes = rest;
    }
    payloads
}

/// Shows bytes in a failed comparison so that a reader can find the difference.
#[track_caller]
pub fn assert_bytes(actual: &[u8], expected: &[u8]) {
    if actual != expected {
        let same = actual
            .iter()
            .zip(expected)
            .take_while(|(a, e)| a == e)
            .count();
        let show = |bytes: &[u8]| {
            let end = bytes.len().min(same + 60);
            bytes[same.saturating_sub(20).min(end)..end]
                .escape_ascii()
                .to_string()
        };
        panic!(
            "{} bytes, expected {}; they differ at {same}:\n  actual   …{}…\n  expected …{}…",
            actual.len(),
            expected.len(),
            show(actual),
            show(expected)
        );
    }
}
