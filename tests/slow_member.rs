//! Members that stop reading, on sockets of their own size.

mod common;

use chatloop::relay::Limits;
use common::socket::{TestPeer, TestRelay};
use common::{assert_bytes, frame, heard};

/// A member whose kernel buffers are small.
#[track_caller]
fn join_slow(relay: &mut TestRelay, name: &str) -> TestPeer {
    let mut peer = TestPeer::with_small_buffer(relay.addr);
    let members = relay.members();
    peer.send(frame(name));
    relay.until("a member to join", |relay| relay.members() > members);
    peer
}

/// Alice says this many messages of 10 kB, and bob hears each. Returns what was said.
fn talk(relay: &mut TestRelay, alice: &mut TestPeer, bob: &mut TestPeer, messages: u32) -> Vec<u8> {
    let mut said = Vec::new();
    for i in 0..messages {
        let message = format!("{i:>10000}");
        alice.send(frame(&message));
        let heard = heard("alice", &message);
        relay.expect(bob, &heard);
        said.extend(heard);
    }
    said
}

#[test]
fn a_member_that_read_nothing_for_a_while_then_hears_everything_once() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut slow = join_slow(&mut relay, "slow");
    let mut said = Vec::new();
    while relay.server.relay().backlog_bytes() < 2_000_000 {
        said.extend(talk(&mut relay, &mut alice, &mut bob, 1));
    }
    relay.expect(&mut slow, &said);
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
}

#[test]
fn ten_members_that_stopped_reading_share_one_copy_and_all_catch_up() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut stopped: Vec<_> = (0..10)
        .map(|i| join_slow(&mut relay, &format!("{i}")))
        .collect();
    let mut said = Vec::new();
    while relay.server.relay().behind() < 10 || relay.server.relay().backlog_bytes() < 2_000_000 {
        said.extend(talk(&mut relay, &mut alice, &mut bob, 1));
    }
    let held = relay.server.relay().backlog_bytes();
    assert!(held <= said.len() as u64, "one copy, not ten: {held}");
    for peer in &mut stopped {
        relay.expect(peer, &said);
    }
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
}

#[test]
fn a_member_that_never_reads_again_is_closed_and_nobody_else_notices() {
    let mut relay = TestRelay::with_limits(Limits {
        max_message: 16_000,
        queue_limit: 100_000,
        ..Limits::default()
    });
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut stopped = join_slow(&mut relay, "stopped");
    let mut said = Vec::new();
    while relay.counters().closed.slow_consumer == 0 {
        said.extend(talk(&mut relay, &mut alice, &mut bob, 1));
        assert!(
            said.len() < 100_000_000,
            "the kernel's buffers cannot hold that much"
        );
    }
    assert_eq!(relay.members(), 2);
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
    talk(&mut relay, &mut alice, &mut bob, 10);

    relay.until("the end of the stopped member's stream", |_| {
        stopped.pump();
        stopped.end.is_some()
    });
    let got = &stopped.heard;
    assert!(!got.is_empty() && got.len() < said.len());
    assert_bytes(got, &said[..got.len()]);
}
