//! More members than `select` can watch.

use std::thread;
use std::time::Duration;

use chatloop::descriptors;
use chatloop::relay::Limits;

use crate::common::socket::{TestPeer, TestRelay};
use crate::common::{self, delivery, frame};

const MEMBERS: usize = 1600;

/// Whether there are enough descriptors for both tests, beside the others: both ends of each connection
/// are in this process. If not, a line says so.
fn has_descriptors() -> bool {
    let limit = descriptors::raise_limit().unwrap();
    let has_enough = limit >= 4 * MEMBERS as u64 + 1000;
    if !has_enough {
        common::skip("the descriptor limit is too low (raise ulimit -Hn)");
    }
    has_enough
}

#[test]
fn sixteen_hundred_members_receive_each_message_once() {
    if !has_descriptors() {
        return;
    }
    let mut relay = TestRelay::start();
    let mut members: Vec<TestPeer> = Vec::new();
    for i in 0..MEMBERS {
        let mut member = relay.connect();
        member.send(frame(format!("{i}")));
        members.push(member);
        relay.turn();
    }
    relay.until("all to join", |relay| relay.members() == MEMBERS);

    let senders = [0, 1, 799, 1023, 1024, 1025, 1599];
    for (already, &sender) in senders.iter().enumerate() {
        members[sender].send(frame(format!("I am {sender}")));
        relay.until("the message to be relayed", |relay| {
            relay.counters().messages > already as u64
        });
    }
    for (i, member) in members.iter_mut().enumerate() {
        let others = senders.iter().filter(|&&sender| sender != i);
        let expected: Vec<u8> = others
            .flat_map(|sender| delivery(format!("{sender}"), format!("I am {sender}")))
            .collect();
        relay.expect(member, &expected);
        assert!(member.pump().is_empty() && member.end.is_none());
    }
}

#[test]
fn name_that_arrived_in_time_is_not_late_though_one_poll_cannot_return_all_events() {
    if !has_descriptors() {
        return;
    }
    let handshake_timeout = Duration::from_secs(5);
    let limits = Limits {
        handshake_timeout,
        ..Limits::default()
    };
    let mut relay = TestRelay::with_limits(limits);
    let mut peers: Vec<TestPeer> = Vec::new();
    for i in 0..MEMBERS {
        peers.push(relay.connect());
        relay.until("it to be accepted", |relay| {
            relay.counters().accepted > i as u64
        });
    }
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.send(frame(format!("{i}")));
    }
    // The relay is stopped for that long, or its machine is.
    thread::sleep(handshake_timeout);
    relay.until("all to join", |relay| {
        let counters = relay.counters();
        counters.joined + counters.closed.of("handshake_timeout") == MEMBERS as u64
    });
    assert_eq!(relay.counters().closed.of("handshake_timeout"), 0);
}
