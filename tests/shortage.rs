//! A relay that runs out of descriptors while it runs: the limit is lowered under its feet.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use common::process::{Relay, wait_for};
use common::{assert_bytes, frame, heard};
use rlimit::Resource;

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
fn who_waits_is_accepted_when_somebody_leaves_without_a_new_attempt() {
    let (mut relay, alice, mut bob) = exhausted();
    let mut carol = relay.connect();
    carol
        .write_all(&[frame("carol"), frame("finally")].concat())
        .unwrap();
    relay.log_line("cannot accept: ");
    // The room goes on meanwhile.
    let mut alice = alice;
    alice.write_all(&frame("carol has to wait")).unwrap();
    expect(&mut bob, &heard("alice", "carol has to wait"));
    // A plain close, which a silent room does not notice; but now it matters.
    drop(alice);
    expect(&mut bob, &heard("carol", "finally"));
    relay.log_line("nobody waits to be accepted any more");
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
fn who_waits_too_long_is_turned_away_and_later_ones_are_accepted() {
    let (mut relay, mut alice, _bob) = exhausted();
    let mut carol = relay.connect();
    relay.log_line("cannot accept: ");
    match carol.read(&mut [0; 1]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // Whoever comes while it turns people away is turned away too.
    wait_until_asleep(&relay);
    set_limit(relay.pid(), 100);
    let mut dave = relay.connect();
    dave.write_all(&[frame("dave"), frame("hello")].concat())
        .unwrap();
    expect(&mut alice, &heard("dave", "hello"));
    let line = relay.log_line("nobody waits to be accepted any more");
    assert!(line.ends_with("turned away: 1"), "{line}");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    assert!(log.contains(", refused 1,"), "{log}");
}

#[test]
fn taking_the_last_descriptor_is_no_shortage() {
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
fn while_no_descriptor_helps_members_are_not_evicted_in_a_row_and_the_newcomer_is_not_forgotten() {
    let mut relay = Relay::start(&[]);
    let listeners: Vec<_> = (0..100)
        .map(|i| {
            let listener = relay.join(&format!("{i}"));
            listener.shutdown(Shutdown::Write).unwrap();
            relay.log_line("closed its sending side: ");
            listener
        })
        .collect();
    // Whoever leaves now has a descriptor over the limit.
    set_limit(relay.pid(), 5);
    let mut newcomer = relay.connect();
    newcomer.write_all(&frame("newcomer")).unwrap();
    relay.log_line("cannot accept: ");
    relay.log_line("its place was needed");
    wait_until_asleep(&relay);
    set_limit(relay.pid(), 1000);
    relay.log_line("joined: \"newcomer\"");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    let evicted = (relay.lines.join("\n") + &log)
        .matches("its place was needed")
        .count();
    assert!(
        evicted < 20,
        "{evicted} of {} were evicted",
        listeners.len()
    );
}

#[test]
fn a_shortage_is_waited_out_and_not_spun_through() {
    let (mut relay, _alice, _bob) = exhausted();
    let _carol = relay.connect();
    relay.log_line("cannot accept: ");
    // A loop that spins is hardly ever found asleep.
    for _ in 0..3 {
        wait_until_asleep(&relay);
    }
}
