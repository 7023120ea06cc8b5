//! Members that stop reading, on sockets of their own size.

use std::time::{Duration, Instant};

use chatloop::relay::{Limits, Slow};

use crate::common::socket::{TestPeer, TestRelay};
use crate::common::{PATIENCE, assert_bytes, delivery, frame};

/// A relay that considers a member stalled soon.
fn impatient() -> TestRelay {
    TestRelay::with_limits(Limits {
        slow_timeout: Duration::from_millis(100),
        ..Limits::default()
    })
}

/// A member whose kernel buffers are small.
#[track_caller]
fn join_slow(relay: &mut TestRelay, name: &str) -> TestPeer {
    let mut peer = TestPeer::with_small_buffer(relay.addr);
    let members = relay.members();
    peer.send(frame(name));
    relay.until("a member to join", |relay| relay.members() > members);
    peer
}

/// Alice says this many messages of 10 kB, and bob receives each. Returns what was sent.
fn talk(relay: &mut TestRelay, alice: &mut TestPeer, bob: &mut TestPeer, messages: u32) -> Vec<u8> {
    let mut sent = Vec::new();
    for i in 0..messages {
        let message = format!("{i:>10000}");
        alice.send(frame(&message));
        let received = delivery("alice", &message);
        relay.expect(bob, &received);
        sent.extend(received);
    }
    sent
}

#[test]
fn member_that_stopped_reading_for_a_while_receives_everything_once() {
    let mut relay = impatient();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut slow = join_slow(&mut relay, "slow");
    let mut sent = Vec::new();
    while relay.server.relay().backlog_bytes() < 2_000_000 {
        sent.extend(talk(&mut relay, &mut alice, &mut bob, 1));
    }
    relay.expect(&mut slow, &sent);
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
}

#[test]
fn ten_stalled_members_share_one_copy_and_all_catch_up() {
    let mut relay = impatient();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut stopped: Vec<_> = (0..10)
        .map(|i| join_slow(&mut relay, &format!("{i}")))
        .collect();
    let mut sent = Vec::new();
    while relay.server.relay().lagging() < 10 || relay.server.relay().backlog_bytes() < 2_000_000 {
        sent.extend(talk(&mut relay, &mut alice, &mut bob, 1));
    }
    let held = relay.server.relay().backlog_bytes();
    assert!(held <= sent.len() as u64, "one copy, not ten: {held}");
    for peer in &mut stopped {
        relay.expect(peer, &sent);
    }
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
}

#[test]
fn member_that_never_reads_again_is_closed_at_the_queue_limit() {
    let mut relay = TestRelay::with_limits(Limits {
        max_message: 16_000,
        queue_limit: 100_000,
        slow: Slow::Cut,
        ..Limits::default()
    });
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut stopped = join_slow(&mut relay, "stopped");
    let mut sent = Vec::new();
    while relay.counters().closed.of("slow_consumer") == 0 {
        sent.extend(talk(&mut relay, &mut alice, &mut bob, 1));
        assert!(
            sent.len() < 100_000_000,
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
    let got = &stopped.received;
    assert!(!got.is_empty() && got.len() < sent.len());
    assert_bytes(got, &sent[..got.len()]);
}

#[test]
fn flood_beside_a_slow_reader_with_small_buffers_closes_no_member() {
    const QUEUE_LIMIT: usize = 3 * 1024 * 1024;
    const SAID: usize = 3 * QUEUE_LIMIT;
    let mut relay = TestRelay::with_limits(Limits {
        queue_limit: QUEUE_LIMIT,
        ..Limits::default()
    });
    let mut talker = relay.join("talker");
    let mut ordinary: Vec<_> = (0..5).map(|i| relay.join(format!("{i}"))).collect();
    // It reads, but far slower than the talker talks.
    let mut slow = join_slow(&mut relay, "slow");
    let mut slow_received = Vec::new();
    let message: Vec<u8> = (0..10_000).map(|i| b'a' + (i % 26) as u8).collect();
    let count = SAID / message.len();
    let stream = frame(&message).repeat(count);
    let expected = delivery("talker", &message).repeat(count);
    let mut sent = 0;
    let start = Instant::now();
    while slow_received.len() < expected.len() {
        sent += talker.send_some(&stream[sent..]);
        relay.turn_at_once();
        for one in &mut ordinary {
            one.pump();
        }
        slow.read_some(100_000, &mut slow_received);
        assert!(slow.end.is_none(), "it reads, and must not be cut");
        assert!(relay.server.relay().backlog_bytes() < QUEUE_LIMIT as u64);
        assert!(
            start.elapsed() < PATIENCE,
            "received {}",
            slow_received.len()
        );
    }
    assert_bytes(&slow_received, &expected);
    for one in &mut ordinary {
        relay.expect(one, &expected);
    }
    assert_eq!(relay.members(), 7);
    assert_eq!(relay.counters().messages, count as u64);
}

#[test]
fn flood_is_not_stopped_by_a_member_that_does_not_read() {
    const SAID: usize = 24 * 1024 * 1024;
    let mut relay = impatient();
    let (mut talker, mut bob) = (relay.join("talker"), relay.join("bob"));
    let mut stopped = join_slow(&mut relay, "stopped");
    let message = "x".repeat(10_000);
    let count = SAID / message.len();
    let stream = frame(&message).repeat(count);
    let expected = delivery("talker", &message).repeat(count);
    let mut sent = 0;
    let start = Instant::now();
    while bob.pump().len() < expected.len() {
        sent += talker.send_some(&stream[sent..]);
        relay.turn_at_once();
        assert!(
            start.elapsed() < PATIENCE,
            "received {}",
            bob.received.len()
        );
    }
    assert_bytes(&bob.received, &expected);
    assert_eq!(relay.counters().closed.of("slow_consumer"), 1);
    relay.until("the end of the stopped member's stream", |_| {
        stopped.pump();
        stopped.end.is_some()
    });
    assert_bytes(&stopped.received, &expected[..stopped.received.len()]);
}

/// The sockets have the system's own buffers, which hold megabytes. Each reader takes a few kilobytes
/// whenever time allows, as the tutorials' clients do.
#[test]
fn ordinary_slow_readers_with_default_buffers_keep_their_places_beside_an_endless_flood() {
    const READ: usize = 12 * 1024 * 1024;
    let mut relay = TestRelay::start();
    let (mut talker, mut fast) = (relay.join("talker"), relay.join("fast"));
    let mut slow: Vec<_> = [1024, 2048, 4096]
        .map(|step| (relay.join(format!("{step}")), step, Vec::new()))
        .into();
    let message = |i: usize| format!("{i:>10000}");
    let (mut unsent, mut messages) = (Vec::new(), 0);
    let (mut was_paused, mut most_held) = (false, 0);
    let start = Instant::now();
    while slow.iter().any(|(_, _, received)| received.len() < READ) {
        loop {
            if unsent.is_empty() {
                unsent = frame(message(messages));
                messages += 1;
            }
            let sent = talker.send_some(&unsent);
            if sent == 0 {
                break;
            }
            unsent.drain(..sent);
        }
        relay.turn_at_once();
        fast.pump();
        for (peer, step, received) in &mut slow {
            peer.read_some(*step, received);
            assert!(peer.end.is_none(), "a reader of {step} bytes was closed");
        }
        was_paused |= relay.server.relay().is_paused();
        most_held = most_held.max(relay.server.relay().held_bytes());
        assert!(start.elapsed() < PATIENCE, "{messages} messages");
    }
    assert!(was_paused, "the readers were slow");
    // The soft limit, a turn's budget, and the message that is being received.
    assert!(most_held < 2 * 1024 * 1024, "{most_held} bytes were held");
    assert_eq!(relay.members(), 5);
    assert_eq!(relay.counters().closed.total(), 0);
    let len = delivery("talker", message(0)).len();
    for stream in slow
        .iter()
        .map(|(_, _, received)| received)
        .chain([&fast.received])
    {
        for (i, bytes) in stream.chunks(len).enumerate() {
            assert_bytes(bytes, &delivery("talker", message(i))[..bytes.len()]);
        }
    }
}
