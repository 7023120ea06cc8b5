//! How fast the room goes when somebody reads slowly, or not at all: without sockets, on a clock that
//! moves when a test says so.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, Deadline, Limits, Ready, Slow, Wording};
use chatloop::wire::Dialect::{self, Ack64, Chat64, Greet10};
use common::script::{Peer, Room};
use common::{assert_bytes, frame, heard, wide_frame};

const SOFT: usize = 100_000;
const HARD: usize = 8_000_000;
const SECOND: Duration = Duration::from_secs(1);
/// After so long of taking nothing a member has stopped.
const STOPPED: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits {
        soft_limit: SOFT,
        queue_limit: HARD,
        ..Limits::default()
    }
}

fn room() -> Room {
    Room::serving(&Dialect::ALL, limits(), &Wording::default())
}

/// The socket takes so many bytes, of which there is an edge if it had been full.
fn take(room: &mut Room, peer: &Peer, bytes: usize) {
    if peer.stream.takes(bytes) {
        room.writable(peer);
    }
    room.turn();
    peer.stream.takes(0);
}

/// A talker that has so much to say at once, and what the others hear of it.
fn talk(room: &mut Room, talker: &Peer, name: &str, bytes: usize) -> Vec<u8> {
    let message = "x".repeat(1000);
    let count = bytes / 1000;
    talker.stream.says(frame(&message).repeat(count));
    room.readable(talker);
    room.turns();
    heard(name, &message).repeat(count)
}

/// Alice, bob, and a member that takes nothing more; it is as far behind as makes the room wait.
fn waiting() -> (Room, Peer, Peer, Peer, Vec<u8>) {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let said = talk(&mut room, &alice, "alice", 2 * SOFT);
    assert!(room.relay.is_waiting());
    (room, alice, bob, slow, said)
}

#[test]
fn an_endless_talker_runs_at_the_pace_of_the_slowest_reader_and_loses_nobody() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let said = talk(&mut room, &alice, "alice", 5_000_000);
    assert!(alice.stream.unread() > 4_000_000, "most of it has to wait");
    let mut slow_heard = Vec::new();
    while slow_heard.len() < said.len() {
        room.pass(SECOND / 10);
        take(&mut room, &slow, 2000);
        room.turns();
        slow_heard.extend(slow.stream.heard());
        let most = 2 * SOFT + room.relay.limits().turn_budget;
        assert!(room.relay.backlog_bytes() < most as u64);
    }
    assert_bytes(&slow_heard, &said);
    assert_bytes(&bob.stream.heard(), &said);
    assert_eq!(room.relay.members(), 3);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn the_room_waits_for_who_is_over_the_soft_limit_and_not_at_it() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(SOFT - heard("alice", "").len()));
    room.turns();
    assert_eq!(room.relay.pending_bytes(slow.id), SOFT as u64);
    assert!(!room.relay.is_waiting());
    room.say(&alice, "");
    assert!(room.relay.is_waiting());
}

#[test]
fn the_room_waits_until_half_of_the_soft_limit_is_left() {
    let (mut room, alice, bob, slow, said) = waiting();
    alice.stream.says(frame("later"));
    let unread = alice.stream.unread();
    bob.stream.says(frame("from bob"));
    room.readable(&bob);
    room.turns();
    let behind = usize::try_from(room.relay.pending_bytes(slow.id)).unwrap();
    take(&mut room, &slow, behind - SOFT / 2 - 1);
    room.turns();
    assert_eq!(alice.stream.unread(), unread, "a byte too much is left");
    assert!(room.relay.has_parked());
    take(&mut room, &slow, 1);
    room.turns();
    assert!(alice.stream.unread() < unread);
    assert_eq!(bob.stream.unread(), 0);
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert!(!room.relay.has_parked());
    let all = slow.stream.heard();
    assert_eq!(
        all.len(),
        said.len() + heard("alice", "later").len() + heard("bob", "from bob").len()
    );
    assert_bytes(&all[..2 * SOFT / 3], &said[..2 * SOFT / 3]);
}

#[test]
fn a_member_that_has_stopped_reading_holds_nobody_back_and_is_closed_at_the_queue_limit() {
    let (mut room, alice, bob, slow, mut said) = waiting();
    room.pass(STOPPED);
    room.turns();
    assert!(!room.relay.is_waiting());
    assert_eq!(alice.stream.unread(), 0);
    assert!(!slow.stream.is_closed());
    let mut turns = 0;
    while !slow.stream.is_closed() {
        said.extend(talk(&mut room, &alice, "alice", 100_000));
        assert_eq!(alice.stream.unread(), 0, "nobody waits for it again");
        turns += 1;
        assert!(turns < 1000);
    }
    assert!(said.len() > HARD);
    assert_bytes(&bob.stream.heard(), &said);
    assert_eq!(room.relay.counters().closed.slow_consumer, 1);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn nobody_waits_for_a_member_that_had_stopped_long_before_it_was_far_behind() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "somebody sits before input()");
    room.pass(30 * 60 * SECOND);
    talk(&mut room, &alice, "alice", 10 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
    assert!(!slow.stream.is_closed());
    room.pass(30 * 60 * SECOND);
    assert!(!slow.stream.is_closed(), "and it may sit there");
}

#[test]
fn a_member_that_comes_back_is_not_waited_for_while_it_reads_what_it_has_missed() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let mut said = talk(&mut room, &alice, "alice", 20_000);
    room.pass(STOPPED);
    said.extend(talk(&mut room, &alice, "alice", 10 * SOFT));
    let mut slow_heard = Vec::new();
    while slow_heard.len() < said.len() {
        take(&mut room, &slow, 5000);
        slow_heard.extend(slow.stream.heard());
        if said.len() < 15 * SOFT {
            said.extend(talk(&mut room, &alice, "alice", 1000));
        }
        assert!(!room.relay.is_waiting());
        room.pass(SECOND / 10);
    }
    assert_bytes(&slow_heard, &said);
}

#[test]
fn a_member_that_comes_back_is_waited_for_if_it_falls_further_behind() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let mut said = talk(&mut room, &alice, "alice", 20_000);
    room.pass(STOPPED);
    said.extend(talk(&mut room, &alice, "alice", 10 * SOFT));
    take(&mut room, &slow, 10);
    // Now it reads, and an endless talker comes.
    said.extend(talk(&mut room, &alice, "alice", 2 * HARD));
    assert!(room.relay.is_waiting());
    let mut slow_heard = slow.stream.heard();
    while slow_heard.len() < said.len() {
        room.pass(SECOND / 10);
        take(&mut room, &slow, 200_000);
        room.turns();
        slow_heard.extend(slow.stream.heard());
    }
    assert_bytes(&slow_heard, &said);
    assert_eq!(room.relay.members(), 2);
}

#[test]
fn a_member_that_drips_cannot_hold_the_room() {
    let (mut room, alice, bob, slow, said) = waiting();
    for _ in 0..9 {
        room.pass(SECOND);
        take(&mut room, &slow, 1000);
        assert!(room.relay.is_waiting() && !slow.stream.is_closed());
    }
    room.pass(SECOND);
    assert!(slow.stream.is_closed());
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(&bob.stream.heard(), &said);
    assert_eq!(room.relay.counters().closed.dripping, 1);
    let reason = CloseReason::Dripping { took: 9000 };
    assert_eq!(
        reason.to_string(),
        "held the room up, and took 9000 bytes meanwhile"
    );
}

#[test]
fn who_takes_much_at_long_intervals_holds_the_room_up_like_that_only_once() {
    let (mut room, alice, bob, slow, _) = waiting();
    let mut seconds = 0;
    bob.stream.heard();
    for _ in 0..10 {
        for _ in 0..50 {
            if alice.stream.unread() < 1_000_000 {
                alice.stream.says(frame("x".repeat(1000)).repeat(2000));
                room.readable(&alice);
            }
            room.pass(SECOND);
            let said = bob.stream.heard().len();
            seconds += u32::from(said > 0 && said < 200_000);
        }
        take(&mut room, &slow, 65_536);
    }
    // It was quiet for most of the first fifty, and after that awaited for five at a time.
    assert!((45..=60).contains(&seconds), "{seconds}");
}

#[test]
fn who_was_silent_for_a_while_is_not_closed_for_what_it_could_not_take() {
    // What one write offers is little: as many lines as go into one, or answers.
    let mut room = Room::serving(&Dialect::ALL, Limits::default(), &Wording::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    bob.stream.takes(0);
    while !room.relay.is_waiting() {
        room.say(&alice, "x".repeat(100));
        room.say(&bob, "me too");
    }
    let asker = room.connect_to(Ack64);
    asker.stream.takes(0);
    asker.stream.says(wide_frame("").repeat(87_500));
    room.readable(&asker);
    room.turns();
    room.pass(12 * SECOND);
    for peer in [&bob, &asker] {
        peer.stream.takes(usize::MAX);
        room.writable(peer);
        room.turn();
        assert!(peer.stream.heard().len() < 64 * 1024);
        assert!(!peer.stream.is_closed());
    }
    room.turns();
    assert_eq!(room.relay.behind(), 0);
    assert_eq!(room.relay.members(), 3);
}

#[test]
fn who_waits_for_itself_may_read_as_slowly_as_it_likes() {
    let mut room = room();
    let asker = room.connect_to(Ack64);
    asker.stream.takes(0);
    asker.stream.says(wide_frame("").repeat(87_500));
    room.readable(&asker);
    room.turns();
    for _ in 0..100 {
        room.pass(SECOND);
        take(&mut room, &asker, 500);
        assert!(!room.relay.is_waiting() && !asker.stream.is_closed());
    }
}

#[test]
fn who_waited_for_itself_and_is_gone_does_not_keep_its_place() {
    let mut room = room();
    let asker = room.connect_to(Ack64);
    asker.stream.takes(0);
    asker.stream.says(wide_frame("").repeat(87_500));
    room.readable(&asker);
    room.turns();
    asker.stream.fails(ErrorKind::ConnectionReset);
    let hung_up = Ready::READABLE | Ready::HUNG_UP;
    room.relay.note(asker.id, hung_up);
    room.turns();
    assert!(asker.stream.is_closed());
}

#[test]
fn messages_that_waited_for_their_last_byte_silence_nobody() {
    let mut room = Room::new(Limits::default());
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    let message = frame("y".repeat(1_000_000));
    let (most, last) = message.split_at(message.len() - 1);
    let large: Vec<_> = (0..5).map(|i| room.join(format!("large{i}"))).collect();
    for peer in &large {
        peer.stream.says(most);
        room.readable(peer);
        room.turns();
    }
    slow.stream.takes(0);
    alice.stream.says(frame("x".repeat(1_000_000)).repeat(2));
    room.readable(&alice);
    room.turns();
    assert!(room.relay.is_waiting());
    bob.stream.heard();
    for peer in &large {
        peer.stream.says(last);
        room.readable(peer);
    }
    room.turns();
    assert_eq!(
        bob.stream.heard().len(),
        5 * heard("large0", "").len() + 5_000_000
    );
    let carol = room.join("carol");
    carol.stream.says(frame("hello"));
    room.readable(&carol);
    room.turns();
    assert_bytes(&bob.stream.heard(), &heard("carol", "hello"));
    assert!(room.relay.is_waiting());
}

#[test]
fn who_takes_enough_has_as_much_time_again() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    // One turn makes it so far behind that to catch up takes two minutes.
    alice.stream.says(frame("x".repeat(1_000_000)));
    room.readable(&alice);
    room.turns();
    assert!(room.relay.is_waiting());
    for _ in 0..120 {
        room.pass(SECOND);
        take(&mut room, &slow, 8000);
        assert!(!slow.stream.is_closed());
    }
    assert_eq!(slow.stream.heard().len(), 120 * 8000);
}

#[test]
fn the_time_begins_anew_when_it_has_drained() {
    let (mut room, alice, _bob, slow, _) = waiting();
    for _ in 0..5 {
        for _ in 0..8 {
            room.pass(SECOND);
            take(&mut room, &slow, 1);
        }
        // It drains, after eight of ten seconds, and others go on until it is far behind again.
        take(&mut room, &slow, 2 * SOFT);
        talk(&mut room, &alice, "alice", 2 * SOFT);
        assert!(room.relay.is_waiting());
    }
    assert!(!slow.stream.is_closed());
}

#[test]
fn nobody_is_waited_for_without_a_deadline() {
    let (mut room, alice, _bob, slow, _) = waiting();
    take(&mut room, &slow, usize::MAX);
    room.turns();
    assert!(!room.relay.is_waiting());
    room.pass(SECOND);
    // The first deadline has lost its reason and is forgotten. This is another time.
    talk(&mut room, &alice, "alice", 2 * SOFT);
    assert!(room.relay.is_waiting());
    room.pass(STOPPED);
    assert!(!room.relay.is_waiting());
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn a_deadline_that_is_looked_at_late_is_met_all_the_same() {
    let (mut room, alice, _bob, slow, _) = waiting();
    room.relay.expire(Deadline::Awaited, room.now + 2 * STOPPED);
    room.turns();
    assert!(!room.relay.is_waiting() && !slow.stream.is_closed());
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn who_is_waited_for_again_and_again_does_not_pile_up_deadlines() {
    let (mut room, alice, _bob, slow, _) = waiting();
    for _ in 0..2000 {
        room.pass(SECOND / 100);
        take(&mut room, &slow, SOFT);
        talk(&mut room, &alice, "alice", SOFT);
        assert!(room.relay.is_waiting());
    }
    let due = room.deadlines.iter();
    let awaited = due.filter(|&&(_, deadline)| deadline == Deadline::Awaited);
    // One of each time that was over before its deadline.
    assert!(awaited.count() <= 501);
    assert_eq!(room.relay.members(), 3);
}

#[test]
fn newcomers_get_in_while_the_room_waits_and_speak_when_it_goes_on() {
    let (mut room, _alice, bob, slow, said) = waiting();
    let newcomer = room.connect();
    newcomer
        .stream
        .says([frame("newcomer"), frame("hello").repeat(1000)].concat());
    room.readable(&newcomer);
    room.turns();
    assert_eq!(room.relay.members(), 4);
    assert!(
        newcomer.stream.unread() > 14_000,
        "its name, and little more"
    );
    let heard_before = bob.stream.heard();
    take(&mut room, &slow, 2 * SOFT);
    room.turns();
    assert_eq!(newcomer.stream.unread(), 0);
    let all = [heard_before, bob.stream.heard()].concat();
    assert_eq!(
        all.len(),
        said.len() + 1000 * heard("newcomer", "hello").len()
    );
}

#[test]
fn of_two_that_are_waited_for_each_has_its_own_time() {
    let mut room = room();
    let alice = room.join("alice");
    let (late, early) = (room.join("late"), room.join("early"));
    early.stream.takes(0);
    talk(&mut room, &alice, "alice", SOFT / 2);
    room.pass(2 * SECOND);
    late.stream.takes(0);
    // Of one message, so that both are far behind at once.
    room.say(&alice, "x".repeat(2 * SOFT));
    room.turns();
    room.pass(SECOND);
    late.stream.takes(usize::MAX);
    room.writable(&late);
    room.turns();
    assert!(room.relay.is_waiting());
    assert!(room.relay.is_pending(Deadline::Awaited));
    // That is a minute after the first of them took something.
    room.pass(STOPPED.checked_sub(3 * SECOND).unwrap());
    assert!(
        !room.relay.is_waiting(),
        "it has taken nothing since it was behind"
    );
    assert!(!room.relay.is_pending(Deadline::Awaited));
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn who_drips_is_closed_in_time_even_if_another_one_may_be_silent_for_longer() {
    let (mut room, alice, _bob, quiet, _) = waiting();
    let drip = room.join("drip");
    // In ten seconds of silence one may miss a lot, and is given fifty more.
    room.pass(10 * SECOND);
    drip.stream.takes(0);
    while room.relay.pending_bytes(drip.id) <= SOFT as u64 {
        talk(&mut room, &alice, "alice", 10_000);
        room.pass(SECOND);
        take(&mut room, &drip, 1);
    }
    for _ in 0..9 {
        room.pass(SECOND);
        take(&mut room, &drip, 1000);
        assert!(!drip.stream.is_closed());
    }
    room.pass(SECOND);
    assert!(drip.stream.is_closed());
    assert!(room.relay.is_waiting() && !quiet.stream.is_closed());
}

#[test]
fn who_says_nothing_that_anybody_hears_is_read_from_while_the_room_waits() {
    let (mut room, _alice, _bob, slow, _) = waiting();
    let (told, leaver) = (room.connect_to(Greet10), room.connect_to(Chat64));
    leaver.stream.takes(0);
    leaver.stream.says(wide_frame("Client Disconnected"));
    room.readable(&leaver);
    take(&mut room, &slow, usize::MAX);
    room.turns();
    slow.stream.takes(0);
    let bob = room.join("another bob");
    talk(&mut room, &bob, "another bob", 2 * SOFT);
    assert!(room.relay.is_waiting());
    for peer in [&told, &leaver] {
        // More than its share, if it had one.
        peer.stream.says("nobody listens ".repeat(1000));
        room.readable(peer);
    }
    room.turns();
    assert_eq!((told.stream.unread(), leaver.stream.unread()), (0, 0));
}

#[test]
fn the_last_words_of_who_leaves_meanwhile_are_heard_when_the_room_goes_on() {
    let (mut room, _alice, bob, slow, _) = waiting();
    let leaver = room.join("leaver");
    let words = "goodbye ".repeat(200);
    leaver.stream.says(frame(&words)).closes();
    room.read_closed(&leaver);
    room.turns();
    assert!(leaver.stream.unread() > 0);
    bob.stream.heard();
    take(&mut room, &slow, usize::MAX);
    slow.stream.takes(usize::MAX);
    room.turns();
    let end = heard("leaver", words);
    let all = bob.stream.heard();
    assert!(all.windows(end.len()).any(|window| window == end));
}

#[test]
fn a_chat_goes_on_while_the_room_waits() {
    let (mut room, _alice, bob, slow, _) = waiting();
    let carol = room.join("carol");
    bob.stream.heard();
    carol.stream.says(frame("hello"));
    room.readable(&carol);
    room.turns();
    assert_bytes(&bob.stream.heard(), &heard("carol", "hello"));
    // A second line has to wait for a second.
    carol.stream.says(frame("again"));
    room.readable(&carol);
    room.turns();
    assert_bytes(&bob.stream.heard(), b"");
    room.pass(SECOND);
    let all = bob.stream.heard();
    let again = heard("carol", "again");
    assert!(all.windows(again.len()).any(|window| window == again));
    assert!(room.relay.is_waiting() && !slow.stream.is_closed());
}

#[test]
fn all_together_say_no_more_while_the_room_waits_than_the_slowest_takes() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let slow = [room.join("slow"), room.join("as slow")];
    let talkers: Vec<_> = (0..100).map(|i| room.join(format!("{i:03}"))).collect();
    for peer in &slow {
        peer.stream.takes(0);
    }
    alice.stream.says(frame("x".repeat(1_000_000)));
    room.readable(&alice);
    room.turns();
    assert!(room.relay.is_waiting());
    bob.stream.heard();
    for talker in &talkers {
        // Ten bytes that become 23.
        talker.stream.says(frame("").repeat(10_000));
        room.readable(talker);
    }
    room.turns();
    let mut said = bob.stream.heard().len();
    for _ in 0..60 {
        // Not when all may say a little more.
        room.pass(SECOND / 2);
        for peer in &slow {
            take(&mut room, peer, 7400);
        }
        room.pass(SECOND / 2);
        said += bob.stream.heard().len();
    }
    // A tenth of 64 KiB each second, the first time one for free, and what the last read has brought.
    let allowed = 61 * 6553 + 2000;
    assert!(said <= allowed, "{said}");
    assert!(said > allowed - 10_000, "{said}");
    // And each had its share of that.
    let unread = talkers.iter().map(|talker| talker.stream.unread());
    let (least, most) = (unread.clone().min().unwrap(), unread.max().unwrap());
    assert!(most - least <= 1024, "{least} to {most}");
    assert!(room.relay.is_waiting() && !slow[0].stream.is_closed());
}

#[test]
fn the_room_goes_on_when_the_one_it_waits_for_is_gone() {
    for end in 0..3 {
        let (mut room, alice, bob, slow, said) = waiting();
        match end {
            0 => {
                slow.stream.breaks(ErrorKind::BrokenPipe);
                room.writable(&slow);
            }
            1 => room.relay.dismiss(slow.id, &mut room.scratch),
            _ => {
                take(&mut room, &slow, usize::MAX);
            }
        }
        room.turns();
        if end == 1 {
            // It is let go, but what is queued for it is still to be taken.
            assert!(room.relay.is_waiting());
            take(&mut room, &slow, usize::MAX);
            room.turns();
        }
        assert!(!room.relay.is_waiting());
        assert_eq!(alice.stream.unread(), 0);
        assert_bytes(&bob.stream.heard(), &said);
    }
}

#[test]
fn with_the_cut_policy_nobody_waits() {
    let limits = Limits {
        slow: Slow::Cut,
        ..limits()
    };
    let mut room = Room::new(limits);
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    talk(&mut room, &alice, "alice", 2 * HARD);
    assert_eq!(alice.stream.unread(), 0);
    assert!(slow.stream.is_closed());
    assert_eq!(room.relay.counters().closed.slow_consumer, 1);
}

#[test]
fn who_does_not_read_its_own_answers_waits_alone() {
    let wording = Wording {
        ack: Some(vec![b'k'; 10_000]),
        ..Wording::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits(), &wording);
    let (asker, alice, bob) = (room.connect_to(Ack64), room.join("alice"), room.join("bob"));
    asker.stream.takes(0);
    for _ in 0..100 {
        asker.stream.says(wide_frame("").repeat(10));
        room.readable(&asker);
        room.turn();
    }
    room.turns();
    assert!(asker.stream.unread() > 0, "it is not read from");
    assert!(!room.relay.is_waiting());
    bob.stream.heard();
    room.say(&alice, "nobody else notices");
    assert_bytes(&bob.stream.heard(), &heard("alice", "nobody else notices"));
    let mut answers = 0;
    while answers < 10_000_000 {
        take(&mut room, &asker, 100_000);
        room.turns();
        room.pass(SECOND / 10);
        answers += asker.stream.heard().len();
    }
    assert_eq!((answers, asker.stream.unread()), (10_000_000, 0));
    assert_eq!(room.relay.members(), 3);
}

#[test]
fn answers_that_are_not_read_keep_everybody_waiting_where_they_are_part_of_the_room() {
    let mut room = room();
    let (asker, alice) = (room.connect_to(Chat64), room.join("alice"));
    asker.stream.takes(0);
    talk(&mut room, &alice, "alice", 2 * SOFT);
    assert!(room.relay.is_waiting());
    take(&mut room, &asker, usize::MAX);
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn nobody_waits_for_those_who_are_told_the_time() {
    let wording = Wording {
        greeting: Some(vec![b'g'; 2 * SOFT]),
        ..Wording::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits(), &wording);
    let alice = room.join("alice");
    let told = room.connect_to(Greet10);
    told.stream.takes(0);
    room.turns();
    for _ in 0..10_000 {
        room.relay.tell_time(std::time::SystemTime::UNIX_EPOCH);
        room.turn();
    }
    assert!(!room.relay.is_waiting());
    talk(&mut room, &alice, "alice", 2 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn who_is_too_slow_to_be_told_the_time_does_not_keep_the_room_waiting_for_another() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let told = room.connect_to(Greet10);
    room.turns();
    told.stream.takes(0);
    while room.relay.pending_bytes(told.id) <= SOFT as u64 {
        room.relay.tell_time(std::time::SystemTime::UNIX_EPOCH);
        room.turn();
    }
    // As in a loop, a deadline for which there is no reason is dropped when it comes to the front.
    let relay = &room.relay;
    room.deadlines
        .retain(|&(_, deadline)| relay.is_pending(deadline));
    room.pass(SECOND);
    slow.stream.takes(0);
    talk(&mut room, &alice, "alice", 2 * SOFT);
    assert!(room.relay.is_waiting());
    room.pass(STOPPED);
    assert!(!room.relay.is_waiting(), "it has stopped reading");
}

#[test]
fn who_is_too_slow_to_be_told_the_time_is_closed_over_the_queue_limit() {
    let limits = Limits {
        max_message: 1000,
        soft_limit: 1000,
        queue_limit: 10_000,
        ..limits()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let told = room.connect_to(Greet10);
    room.turns();
    // It is far behind so soon after it took something last that it may still read.
    told.stream.takes(0);
    for _ in 0..1000 {
        room.relay.tell_time(std::time::SystemTime::UNIX_EPOCH);
        room.turn();
        room.pass(SECOND / 10);
    }
    assert!(told.stream.is_closed());
}

#[test]
fn nobody_waits_for_a_newcomer_that_is_told_the_history() {
    let limits = Limits {
        history: 10_000,
        history_bytes: 10 * SOFT,
        ..limits()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let mut said = talk(&mut room, &alice, "alice", 5 * SOFT);
    let newcomer = room.connect();
    newcomer.stream.takes(1000);
    newcomer.stream.says(frame("newcomer"));
    room.readable(&newcomer);
    room.turns();
    newcomer.stream.takes(0);
    said.extend(talk(&mut room, &alice, "alice", 1000));
    assert!(!room.relay.is_waiting());
    assert_eq!(alice.stream.unread(), 0);
    take(&mut room, &newcomer, usize::MAX);
    room.turns();
    assert_bytes(&newcomer.stream.heard(), &said);
}

#[test]
fn a_member_that_is_quiet_for_a_minute_has_a_queue_that_lasts_a_minute() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    // Its kernel tells of what it has read in large steps.
    let said = talk(&mut room, &alice, "alice", 40_000_000);
    let mut slow_heard = Vec::new();
    let (mut before, mut idle) = (0, 0);
    for _ in 0..8 {
        for _ in 0..59 {
            room.pass(SECOND);
            let now = bob.stream.heard().len();
            idle += usize::from(now == 0);
            before += now;
        }
        assert!(!slow.stream.is_closed(), "it reads");
        take(&mut room, &slow, 400_000);
        slow_heard.extend(slow.stream.heard());
    }
    assert!(before > 2_000_000, "{before} were said");
    assert!(idle < 8 * 8, "the room stood still for {idle} seconds");
    assert_bytes(&slow_heard, &said[..slow_heard.len()]);
    // Then it stops, and nobody waits.
    room.pass(STOPPED);
    assert!(slow.stream.is_closed());
    room.pass(SECOND);
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn who_comes_in_while_the_room_waits_is_read_its_name_and_not_a_byte_more() {
    let (mut room, _alice, bob, _slow, _) = waiting();
    let newcomers: Vec<_> = (0..50).map(|_| room.connect()).collect();
    bob.stream.heard();
    for newcomer in &newcomers {
        newcomer
            .stream
            .says([frame("n".repeat(118)), frame("").repeat(1000)].concat());
        room.readable(newcomer);
    }
    room.turns();
    assert_eq!(room.relay.members(), 53);
    // All that they have said by then was said within the allowance.
    assert!(bob.stream.heard().len() < 20_000);
}
