//! More members than `select` can watch.

mod common;

use chatloop::descriptors;
use common::socket::{TestPeer, TestRelay};
use common::{frame, heard};

#[test]
fn sixteen_hundred_members_hear_each_message_once() {
    const MEMBERS: usize = 1600;
    // Both ends of each connection are in this process.
    let limit = descriptors::raise_limit().unwrap();
    if limit < 2 * MEMBERS as u64 + 100 {
        common::skip("the descriptor limit is too low (raise ulimit -Hn)");
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
    relay.until("everybody to join", |relay| relay.members() == MEMBERS);

    let speakers = [0, 1, 799, 1023, 1024, 1025, 1599];
    for (already, &speaker) in speakers.iter().enumerate() {
        members[speaker].send(frame(format!("I am {speaker}")));
        relay.until("the message to be relayed", |relay| {
            relay.counters().messages > already as u64
        });
    }
    for (i, member) in members.iter_mut().enumerate() {
        let others = speakers.iter().filter(|&&speaker| speaker != i);
        let expected: Vec<u8> = others
            .flat_map(|speaker| heard(format!("{speaker}"), format!("I am {speaker}")))
            .collect();
        relay.expect(member, &expected);
        assert!(member.pump().is_empty() && member.end.is_none());
    }
}
