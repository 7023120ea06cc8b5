//! What a connection, and all of them together, may take: without sockets, on a clock that moves when
//! a test says so.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, Deadline, Limits, Ready, Slow, Wording};
use chatloop::wire::Dialect::{self, Ack64, Chat64, Greet10};
use common::script::{Peer, Room};
use common::{assert_bytes, frame, heard, wide_frame};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_message_must_be_whole_in_time_however_it_trickles() {
    let mut room = Room::serving(&Dialect::ALL, Limits::default(), &Wording::default());
    let (alice, slow, old) = (
        room.join("alice"),
        room.join("slow"),
        room.connect_to(Chat64),
    );
    let mut trickle = frame("x".repeat(1000)).into_iter();
    old.stream.says(&wide_frame("x".repeat(70))[..9]);
    room.readable(&old);
    room.turns();
    for _ in 0..59 {
        slow.stream.says([trickle.next().unwrap()]);
        room.readable(&slow);
        room.pass(SECOND);
        assert!(!slow.stream.is_closed() && !old.stream.is_closed());
    }
    room.pass(2 * SECOND);
    assert!(slow.stream.is_closed() && old.stream.is_closed());
    assert!(!alice.stream.is_closed());
    assert_eq!(room.relay.counters().closed.message_timeout, 2);
    assert_eq!(
        CloseReason::MessageTimeout.to_string(),
        "did not finish a message in time"
    );
}

#[test]
fn only_an_unfinished_message_has_a_deadline_and_only_one() {
    let mut room = Room::new(Limits::default());
    let (alice, nameless) = (room.join("alice"), room.connect());
    let message = frame("hello");
    let mut say = |peer: &Peer, bytes: &[u8]| {
        peer.stream.says(bytes);
        room.readable(peer);
        room.turns();
        let due = room.deadlines.iter();
        let of_messages = |one: &&_| matches!(one, (_, Deadline::Message { .. }));
        due.filter(of_messages).count()
    };
    assert_eq!(say(&alice, &message), 0);
    assert_eq!(say(&nameless, &message[..12]), 0);
    assert_eq!(say(&alice, &message[..3]), 1);
    assert_eq!(say(&alice, &message[3..12]), 1);
    assert_eq!(say(&alice, &message[12..]), 1);
}

#[test]
fn each_message_has_its_own_time() {
    let mut room = Room::new(Limits::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let hello = frame("hello");
    // Each ends, and the next begins, in the same read, after 59 of 60 seconds.
    alice.stream.says(&hello[..3]);
    room.readable(&alice);
    room.turns();
    for _ in 0..5 {
        room.pass(59 * SECOND);
        alice.stream.says([&hello[3..], &hello[..3]].concat());
        room.readable(&alice);
        room.turns();
    }
    assert_bytes(&bob.stream.heard(), &heard("alice", "hello").repeat(5));
    room.pass(60 * SECOND);
    assert!(alice.stream.is_closed());
}

#[test]
fn the_time_in_which_a_member_is_not_read_from_does_not_count() {
    let limits = Limits {
        soft_limit: 10_000,
        slow_timeout: 400 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    let carol = room.join("carol");
    let message = frame("unfinished");
    for peer in [&bob, &carol] {
        peer.stream.says(&message[..15]);
        room.readable(peer);
    }
    room.turns();
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(20_000));
    assert!(room.relay.is_waiting());
    room.pass(100 * SECOND);
    assert!(!bob.stream.is_closed() && !carol.stream.is_closed());
    // The room goes on, and all of a minute is left.
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    room.pass(59 * SECOND);
    assert!(!bob.stream.is_closed() && !carol.stream.is_closed());
    bob.stream.says(&message[15..]);
    room.readable(&bob);
    room.turns();
    room.pass(2 * SECOND);
    assert!(carol.stream.is_closed());
    room.pass(100 * SECOND);
    assert!(!bob.stream.is_closed());
    assert_eq!(room.relay.counters().messages, 2);
}

#[test]
fn nor_does_the_time_in_which_it_waits_for_itself() {
    let limits = Limits {
        slow_timeout: 30 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let asker = room.connect_to(Ack64);
    let message = wide_frame("x".repeat(3000));
    asker.stream.takes(0);
    let questions = wide_frame("").repeat(87_500);
    asker
        .stream
        .says([&questions[..], &message[..1000]].concat());
    room.readable(&asker);
    room.turns();
    asker.stream.says(&message[1000..2000]);
    room.readable(&asker);
    room.turns();
    assert_eq!(asker.stream.unread(), 1000, "it is not read from");
    for _ in 0..2 {
        room.pass(100 * SECOND);
        assert!(!asker.stream.is_closed());
        // It reads its answers, and then has a minute for the rest of its message.
        asker.stream.takes(usize::MAX);
        room.writable(&asker);
        room.turns();
        assert_eq!(asker.stream.unread(), 0);
        room.pass(58 * SECOND);
        assert!(!asker.stream.is_closed());
        asker
            .stream
            .says([&message[2000..], &questions[..], &message[..2000]].concat());
        asker.stream.takes(0);
        room.readable(&asker);
        room.turns();
    }
}

#[test]
fn nor_does_the_time_in_which_it_rests_for_what_it_has_said() {
    // A message of 1020 bytes to one other takes a hundred seconds to be worked off, and one is free.
    let limits = Limits {
        rate: Some(10),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let (first, second) = (frame("x".repeat(985)), frame("unfinished"));
    alice.stream.says([&first[..], &second[..15]].concat());
    room.readable(&alice);
    room.turns();
    bob.stream.heard();
    room.readable(&alice);
    room.turns();
    room.pass(99 * SECOND);
    assert!(room.relay.is_pending(Deadline::Rested(alice.id)));
    // It is read from again, and all of a minute is left.
    room.pass(59 * SECOND);
    assert!(!room.relay.is_pending(Deadline::Rested(alice.id)));
    assert!(!alice.stream.is_closed());
    alice.stream.says(&second[15..]);
    room.readable(&alice);
    room.turns();
    assert_bytes(&bob.stream.heard(), &heard("alice", "unfinished"));

    alice.stream.says(&second[..15]);
    room.readable(&alice);
    room.turns();
    room.pass(70 * SECOND);
    assert!(alice.stream.is_closed());
}

#[test]
fn who_leaves_need_not_finish_its_message() {
    let limits = Limits {
        farewell_timeout: 1000 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, leaver) = (room.join("alice"), room.join("leaver"));
    leaver.stream.takes(0);
    room.say(&alice, "before it left");
    leaver.stream.says(&frame("unfinished")[..15]);
    room.readable(&leaver);
    room.turns();
    room.relay.dismiss(leaver.id, &mut room.scratch);
    room.turns();
    room.pass(100 * SECOND);
    assert!(!leaver.stream.is_closed());
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.heard(), &heard("alice", "before it left"));
    assert_eq!(room.relay.counters().closed.shutdown, 1);
}

#[test]
fn who_sends_nothing_for_too_long_is_closed_if_that_is_limited() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let told = room.connect_to(Greet10);
    room.turns();
    for _ in 0..3 {
        room.pass(60 * SECOND);
        room.say(&alice, "still here");
        // An event that brings nothing is no sign of life.
        room.readable(&bob);
    }
    assert!(!alice.stream.is_closed() && bob.stream.is_closed());
    assert!(
        !told.stream.is_closed(),
        "it has nothing that it could send"
    );
    room.pass(99 * SECOND);
    assert!(!alice.stream.is_closed());
    assert!(room.relay.is_pending(Deadline::Idle(alice.id)));
    room.pass(SECOND);
    assert!(alice.stream.is_closed());
    assert!(!room.relay.is_pending(Deadline::Idle(alice.id)));
    assert_eq!(room.relay.counters().closed.idle_timeout, 2);
}

#[test]
fn who_can_say_nothing_more_is_not_closed_for_saying_nothing() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let alice = room.join("alice");
    let (leaver, dismissed) = (room.connect_to(Chat64), room.join("dismissed"));
    let listener = room.join("listener");
    for peer in [&leaver, &dismissed] {
        peer.stream.takes(0);
    }
    listener.stream.closes();
    room.read_closed(&listener);
    room.say(&alice, "x".repeat(50_000));
    leaver.stream.says(wide_frame("Client Disconnected"));
    room.readable(&leaver);
    room.turns();
    room.relay.dismiss(dismissed.id, &mut room.scratch);
    for _ in 0..200 {
        room.pass(SECOND);
        for peer in [&leaver, &dismissed] {
            peer.stream.takes(200);
            room.writable(peer);
        }
        room.say(&alice, "");
        for peer in [&leaver, &dismissed, &listener] {
            assert!(!peer.stream.is_closed());
        }
    }
}

#[test]
fn who_has_run_out_of_time_hears_nothing_more_though_it_could_be_written_to() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, idle) = (room.join("alice"), room.join("idle"));
    idle.stream.takes(0);
    room.now += 50 * SECOND;
    room.say(&alice, "queued");
    idle.stream.takes(usize::MAX);
    room.writable(&idle);
    let now = room.now + 50 * SECOND;
    room.relay.expire(Deadline::Idle(idle.id), now);
    room.turn();
    assert!(idle.stream.is_closed() && !alice.stream.is_closed());
    assert_bytes(&idle.stream.heard(), b"");
    assert!(room.relay.is_flushed());
}

#[test]
fn who_says_more_than_its_rate_is_read_later_and_loses_nothing() {
    // A message of 94 bytes to two others is 188.
    let limits = Limits {
        rate: Some(1880),
        read_budget: 1000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, carol) = (
        room.join("alice12345"),
        room.join("bob"),
        room.join("carol"),
    );
    let message = "x".repeat(64);
    alice.stream.says(frame(&message).repeat(1000));
    room.readable(&alice);
    room.turns();
    let one = heard("alice12345", &message);
    let said = bob.stream.heard().len() / one.len();
    assert!((10..30).contains(&said), "a second's worth: {said}");
    room.say(&carol, "others are not affected");
    assert_bytes(
        &bob.stream.heard(),
        &heard("carol", "others are not affected"),
    );
    room.pass(10 * SECOND);
    let more = bob.stream.heard().len() / one.len();
    assert!((90..=120).contains(&more), "ten seconds' worth: {more}");
    room.pass(100 * SECOND);
    assert_eq!(alice.stream.unread(), 0);
    let rest = one.repeat(1000 - said - more);
    assert_bytes(&bob.stream.heard(), &rest);
    assert_eq!(room.relay.members(), 3);
}

#[test]
fn who_is_gone_does_not_rest_for_what_it_has_said() {
    for is_told in [true, false] {
        let limits = Limits {
            rate: Some(10),
            ..Limits::default()
        };
        let mut room = Room::new(limits);
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        room.say(&alice, "x".repeat(3000));
        alice.stream.says(frame("more"));
        room.readable(&alice);
        room.turns();
        bob.stream.heard();
        assert!(alice.stream.unread() > 0, "it rests for five minutes");
        alice.stream.fails(ErrorKind::ConnectionReset);
        if is_told {
            room.relay.note(alice.id, Ready::READABLE | Ready::HUNG_UP);
        } else {
            alice.stream.breaks(ErrorKind::BrokenPipe);
            room.say(&bob, "are you there?");
        }
        room.turns();
        assert!(alice.stream.is_closed());
        assert_bytes(&bob.stream.heard(), &heard("alice", "more"));
        assert_eq!(room.relay.members(), 1);
    }
}

#[test]
fn who_is_gone_does_not_rest_though_the_room_waited_when_it_went() {
    let limits = Limits {
        rate: Some(10),
        soft_limit: 10_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(3000));
    alice.stream.says(frame("more"));
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.unread() > 0, "it rests for minutes");
    room.say(&bob, "x".repeat(20_000));
    room.turns();
    assert!(room.relay.is_waiting());
    alice.stream.fails(ErrorKind::ConnectionReset);
    let hung_up = Ready::READABLE | Ready::HUNG_UP;
    room.relay.note(alice.id, hung_up);
    room.turns();
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert!(!room.relay.is_waiting() && alice.stream.is_closed());
    let all = slow.stream.heard();
    assert!(all.ends_with(&heard("alice", "more")));
}

#[test]
fn of_two_who_speak_in_one_turn_each_pays_for_its_own_words() {
    let limits = Limits {
        rate: Some(1000),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, carol) = (room.join("alice"), room.join("bob"), room.join("carol"));
    // Each is heard by two others, which is half a second's worth and one and a half.
    for (peer, len) in [(&alice, 225), (&bob, 725)] {
        peer.stream.says(frame("x".repeat(len)));
        room.readable(peer);
    }
    room.turn();
    for peer in [&alice, &bob] {
        peer.stream.says(frame("more"));
        room.readable(peer);
    }
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    assert!(bob.stream.unread() > 0);
    room.pass(SECOND / 2);
    assert_eq!(bob.stream.unread(), 0);
    let said = [
        heard("alice", "x".repeat(225)),
        heard("bob", "x".repeat(725)),
        heard("alice", "more"),
        heard("bob", "more"),
    ];
    assert_bytes(&carol.stream.heard(), &said.concat());
}

#[test]
fn who_holds_most_is_closed_when_memory_is_short() {
    const BUDGET: usize = 2_000_000;
    let limits = Limits {
        max_memory: BUDGET,
        queue_limit: 900_000,
        soft_limit: 600_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let unfinished = frame("x".repeat(1_000_000));
    let members: Vec<_> = (0..6).map(|i| room.join(format!("{i}"))).collect();
    for (index, member) in members.iter().enumerate() {
        let sent = if index == 3 { 900_000 } else { 100_000 };
        member.stream.says(&unfinished[..sent]);
        room.readable(member);
        room.turns();
    }
    assert_eq!(room.relay.members(), 6);
    let more = room.join("more");
    more.stream.says(&unfinished[..500_000]);
    room.readable(&more);
    while room.relay.has_ready() {
        room.turn();
        assert!(room.relay.held_bytes() <= BUDGET);
    }
    let closed: Vec<_> = members.iter().map(|one| one.stream.is_closed()).collect();
    assert_eq!(closed, [false, false, false, true, false, false]);
    assert!(!more.stream.is_closed());
    assert_eq!(room.relay.counters().closed.out_of_memory, 1);
    for member in &members {
        member.stream.closes();
        room.read_closed(member);
    }
    more.stream.closes();
    room.read_closed(&more);
    room.turns();
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn no_more_are_closed_for_memory_than_it_takes() {
    let limits = Limits {
        max_memory: 1_000_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, far, near) = (room.join("alice"), room.join("far"), room.join("near"));
    far.stream.takes(0);
    room.say(&alice, "x".repeat(900_000));
    room.turns();
    near.stream.takes(0);
    room.say(&alice, "x".repeat(150_000));
    room.turns();
    assert!(far.stream.is_closed() && !near.stream.is_closed());
    assert_eq!(room.relay.counters().closed.out_of_memory, 1);
}

#[test]
fn if_those_of_one_kind_do_not_hold_enough_the_others_go_too() {
    let limits = Limits {
        max_memory: 20_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, deaf) = (room.join("alice"), room.join("bob"), room.join("deaf"));
    deaf.stream.takes(0);
    // In one turn, so that it is twice what there may be at once.
    alice.stream.says(&frame("x".repeat(100_000))[..60_000]);
    bob.stream.says(frame("x".repeat(30_000)));
    for peer in [&alice, &bob] {
        room.readable(peer);
    }
    room.turns();
    assert!(room.relay.held_bytes() <= 20_000);
    assert!(deaf.stream.is_closed() && !bob.stream.is_closed());
}

#[test]
fn who_holds_nothing_is_not_closed_however_short_memory_is() {
    let limits = Limits {
        history: 10,
        max_memory: 1000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "one message of history, in a chunk");
    assert!(room.relay.held_bytes() > 1000);
    room.say(&bob, "still here");
    assert_eq!(room.relay.members(), 2);
    assert_eq!(room.relay.counters().closed.out_of_memory, 0);
}

#[test]
fn what_many_have_not_read_is_counted_once() {
    let limits = Limits {
        max_memory: 2_500_000,
        queue_limit: 1_200_000,
        soft_limit: 600_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let deaf: Vec<_> = (0..100).map(|i| room.join(format!("{i}"))).collect();
    for one in &deaf {
        one.stream.takes(0);
    }
    room.pass(SECOND);
    for _ in 0..10 {
        room.say(&alice, "x".repeat(50_000));
    }
    let held = room.relay.held_bytes();
    assert!((500_000..700_000).contains(&held), "{held}");
    assert_eq!(room.relay.members(), 101);
    for one in &deaf {
        one.stream.takes(usize::MAX);
        room.writable(one);
    }
    room.turns();
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn what_it_takes_to_remember_where_somebodys_own_words_were_counts_and_is_given_back() {
    let mut room = Room::serving(&Dialect::ALL, Limits::default(), &Wording::default());
    let (talker, deaf) = (room.connect_to(Chat64), room.connect_to(Chat64));
    deaf.stream.takes(0);
    for _ in 0..1000 {
        for peer in [&talker, &deaf] {
            peer.stream.says(wide_frame("."));
            room.readable(peer);
            room.turns();
        }
    }
    // What was said is 2000 bytes, in one chunk.
    let remembering = room.relay.held_bytes() - 65_536;
    assert!((24_000..80_000).contains(&remembering), "{remembering}");
    deaf.stream.takes(usize::MAX);
    room.writable(&deaf);
    room.turns();
    let one = [b".", &b"Message was Sent!"[..]].concat();
    assert_bytes(&deaf.stream.heard(), &one.repeat(1000));
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn a_place_is_made_by_who_has_given_no_name_for_long() {
    let limits = Limits {
        max_clients: 3,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let (first, second) = (room.connect(), room.connect());
    assert!(room.relay.is_full());
    assert!(
        !room.relay.make_room(&mut room.scratch),
        "they came just now"
    );
    room.pass(3 * SECOND);
    assert!(room.relay.make_room(&mut room.scratch));
    assert!(first.stream.is_closed() && !second.stream.is_closed());
    assert!(!alice.stream.is_closed());
    second.stream.says(frame("second"));
    room.readable(&second);
    room.turns();
    assert!(!room.relay.make_room(&mut room.scratch), "both are members");
    assert_eq!(room.relay.counters().closed.evicted, 1);
}

#[test]
fn nobody_is_looked_at_while_it_rests() {
    // What it has said takes a day to be worked off.
    let limits = Limits {
        rate: Some(1),
        read_budget: 100,
        message_timeout: SECOND,
        idle_timeout: Some(SECOND),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, _bob) = (room.join("alice"), room.join("bob"));
    // A message of a day's bytes, and a part of another.
    alice.stream.says(frame("x".repeat(86_400)));
    room.readable(&alice);
    room.turns();
    alice.stream.says(&frame("unfinished")[..15]);
    room.readable(&alice);
    room.turns();
    for _ in 0..20 {
        room.pass(SECOND);
    }
    let day = 24 * 60 * 60 * SECOND;
    let (next, deadline) = *room.deadlines.first().unwrap();
    assert!(next > room.now + day / 2, "{deadline:?}");
    assert!(!alice.stream.is_closed());
}

#[test]
fn the_first_message_has_its_time_though_the_name_came_in_two_pieces() {
    let mut room = Room::new(Limits::default());
    let slow = room.connect();
    let name = frame("slow");
    slow.stream.says(&name[..3]);
    room.readable(&slow);
    room.turns();
    slow.stream
        .says([&name[3..], &frame("x".repeat(1000))[..500]].concat());
    room.readable(&slow);
    room.turns();
    room.pass(60 * SECOND);
    assert!(slow.stream.is_closed());
    assert_eq!(room.relay.counters().closed.message_timeout, 1);
}

#[test]
fn a_newcomer_does_not_pay_for_what_others_have_said() {
    let limits = Limits {
        rate: Some(100_000),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let carol = room.connect();
    alice.stream.says(frame("x".repeat(3000)));
    carol.stream.says(frame("carol"));
    room.readable(&alice);
    room.readable(&carol);
    room.turn();
    bob.stream.heard();
    room.say(&carol, "hello");
    assert_bytes(&bob.stream.heard(), &heard("carol", "hello"));
}

#[test]
fn those_who_hold_nothing_of_their_own_are_not_closed_for_what_others_hold() {
    let limits = Limits {
        max_memory: 5_000_000,
        queue_limit: 1_000_000,
        soft_limit: 900_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let deaf: Vec<_> = (0..50).map(|i| room.join(format!("{i}"))).collect();
    for one in &deaf {
        one.stream.takes(0);
    }
    room.say(&alice, "x".repeat(200_000));
    let unfinished = frame("x".repeat(1_000_000));
    for i in 0..60 {
        let stranger = room.join(format!("stranger {i}"));
        stranger.stream.says(&unfinished[..130_000]);
        room.readable(&stranger);
        room.turns();
        assert!(room.relay.held_bytes() <= 5_000_000);
    }
    assert!(room.relay.counters().closed.out_of_memory > 0);
    assert!(deaf.iter().all(|one| !one.stream.is_closed()));
}

#[test]
fn nobody_rests_when_the_relay_stops() {
    let limits = Limits {
        rate: Some(100),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.says(frame("x".repeat(1000)).repeat(50));
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.unread() > 0);
    room.relay.end_rests();
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(
        &bob.stream.heard(),
        &heard("alice", "x".repeat(1000)).repeat(50),
    );
}

#[test]
fn an_address_has_room_for_as_many_as_are_allowed_and_again_when_one_goes() {
    let limits = Limits {
        max_per_ip: Some(2),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    // The scripts' address, and another.
    let (here, elsewhere) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let is_crowded = |room: &Room, ip: [u8; 4]| room.relay.is_crowded((ip, 9).into());
    let alice = room.join("alice");
    assert!(!is_crowded(&room, here));
    let _nameless = room.connect();
    assert!(is_crowded(&room, here) && !is_crowded(&room, elsewhere));
    alice.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&alice);
    room.turns();
    assert!(!is_crowded(&room, here));
}

#[test]
fn an_address_has_room_for_another_if_one_of_it_may_be_gone_or_gave_no_name_for_long() {
    let limits = Limits {
        max_per_ip: Some(3),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (here, elsewhere) = (([192, 0, 2, 1], 9).into(), ([192, 0, 2, 2], 9).into());
    let (alice, gone, nameless) = (room.join("alice"), room.join("gone"), room.connect());
    let makes_room = |room: &mut Room, peer| room.relay.make_room_from(peer, &mut room.scratch);
    assert!(!makes_room(&mut room, here), "they came just now");
    gone.stream.closes();
    room.read_closed(&gone);
    room.turns();
    assert!(!makes_room(&mut room, elsewhere), "they are others'");
    assert!(makes_room(&mut room, here));
    assert!(gone.stream.is_closed());
    room.pass(3 * SECOND);
    assert!(!makes_room(&mut room, elsewhere));
    assert!(makes_room(&mut room, here));
    assert!(nameless.stream.is_closed());
    assert!(!makes_room(&mut room, here) && !alice.stream.is_closed());
    assert_eq!(room.relay.counters().closed.evicted, 2);
}
