//! A relay that runs out of descriptors while it runs: the limit is lowered under its feet.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use rlimit::Resource;

use crate::common::process::{Relay, wait_for};
use crate::common::socket::TestPeer;
use crate::common::{assert_bytes, delivery, frame};

/// The lowest descriptor that a process has not open: a limit of that many leaves it no other.
fn lowest_free(pid: u32) -> u64 {
    let open: Vec<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    (0..10_000).find(|fd| !open.contains(fd)).unwrap()
}

fn set_limit(pid: u32, soft: u64) {
    let pid = pid.try_into().unwrap();
    let mut hard = 0;
    rlimit::prlimit(pid, Resource::NOFILE, None, Some((&mut 0, &mut hard))).unwrap();
    rlimit::prlimit(pid, Resource::NOFILE, Some((soft, hard)), None).unwrap();
}

/// A relay with two members and no descriptor for a third.
fn exhausted() -> (Relay, TcpStream, TcpStream) {
    let mut relay = Relay::start(&[]);
    let (alice, bob) = (relay.join("alice"), relay.join("bob"));
    set_limit(relay.pid(), lowest_free(relay.pid()));
    (relay, alice, bob)
}

/// Waits until the relay waits in its poll.
fn wait_until_asleep(relay: &Relay) {
    wait_for("the relay to sleep", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", relay.pid())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    });
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_bytes(&got, expected);
}

#[test]
fn waiting_connection_is_accepted_when_a_member_leaves() {
    let (mut relay, alice, mut bob) = exhausted();
    let mut carol = relay.connect();
    carol
        .write_all(&[frame("carol"), frame("finally")].concat())
        .unwrap();
    relay.log_line("cannot accept: ");
    // The room goes on meanwhile.
    let mut alice = alice;
    alice.write_all(&frame("carol has to wait")).unwrap();
    expect(&mut bob, &delivery("alice", "carol has to wait"));
    drop(alice);
    expect(&mut bob, &delivery("carol", "finally"));
    relay.log_line("accepting again after");
    assert_eq!(
        relay
            .lines
            .iter()
            .filter(|line| line.contains("cannot accept"))
            .count(),
        1
    );
}

#[test]
fn connection_that_waits_too_long_is_refused_and_later_ones_are_accepted() {
    let (mut relay, mut alice, _bob) = exhausted();
    let mut carol = relay.connect();
    relay.log_line("cannot accept: ");
    match carol.read(&mut [0; 1]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // A connection that comes while others are refused is refused, too.
    wait_until_asleep(&relay);
    set_limit(relay.pid(), 100);
    let mut dave = relay.connect();
    dave.write_all(&[frame("dave"), frame("hello")].concat())
        .unwrap();
    expect(&mut alice, &delivery("dave", "hello"));
    let line = relay.log_line("accepting again after");
    assert!(line.ends_with("refused meanwhile: 1"), "{line}");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    assert!(log.contains(", refused 1,"), "{log}");
}

#[test]
fn last_descriptor_is_used_without_a_shortage() {
    let mut relay = Relay::start(&[]);
    let _alice = relay.join("alice");
    set_limit(relay.pid(), lowest_free(relay.pid()) + 1);
    let _bob = relay.join("bob");
    relay.signal("TERM");
    let (_, log) = relay.wait();
    let lines = relay.lines.join("\n") + &log;
    assert!(!lines.contains("cannot accept"), "{lines}");
}

#[test]
fn eviction_that_frees_no_usable_descriptor_is_not_repeated_at_once() {
    const GONE: usize = 100;
    let args = [
        "--max-message=16KiB",
        "--soft-limit=64KiB",
        "--slow-timeout=1day",
        "--drain=0s",
    ];
    let mut relay = Relay::start(&args);
    let mut slow = TestPeer::with_small_buffer(relay.addr);
    slow.send(frame("slow"));
    relay.log_line("joined: \"slow\"");
    let mut alice = relay.join("alice");
    // The relay stops reading this before its end.
    let flood = thread::spawn(move || {
        for _ in 0..10_000 {
            if alice.write_all(&frame("x".repeat(10_000))).is_err() {
                break;
            }
        }
    });
    relay.log_line("senders paused: ");
    for i in 0..GONE {
        let mut member = relay.join(&format!("{i}"));
        member.write_all(&frame("unread")).unwrap();
    }
    // The descriptors that an eviction frees are over the limit.
    set_limit(relay.pid(), 5);
    let mut waiting = relay.connect();
    waiting.write_all(&frame("waiting")).unwrap();
    relay.log_line("cannot accept: ");
    relay.log_line("evicted: relay full");
    wait_until_asleep(&relay);
    set_limit(relay.pid(), 1000);
    relay.log_line("joined: \"waiting\"");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    flood.join().unwrap();
    let evicted = (relay.lines.join("\n") + &log)
        .matches("evicted: relay full")
        .count();
    assert!(evicted < 20, "{evicted} of {GONE} were evicted");
}

#[test]
fn shortage_does_not_make_the_loop_spin() {
    let (mut relay, _alice, _bob) = exhausted();
    let _carol = relay.connect();
    relay.log_line("cannot accept: ");
    // A loop that spins is hardly ever found asleep.
    for _ in 0..3 {
        wait_until_asleep(&relay);
    }
}
