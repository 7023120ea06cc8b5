//! What one connection may take, and all of them together: without sockets, on a clock that moves when
//! a test moves it.

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, Limits, Ready, ReplyTexts, RoomEvent, Slow};
use chatloop::wire::Dialect::{Ack64, Chat64, Greet10};

use crate::common::script::{Peer, Room, TUTORIALS};
use crate::common::{assert_bytes, delivery, frame, parse_frames, wide_frame};

const SECOND: Duration = Duration::from_secs(1);

fn closed(room: &Room, key: &str) -> u64 {
    room.relay.counters().closed.of(key)
}

/// Why a member left, and how much of its input was discarded unread.
fn departure_of(events: &[RoomEvent], of: &Peer) -> Option<(CloseReason, u64)> {
    events.iter().find_map(|event| match event {
        RoomEvent::Left {
            peer,
            reason,
            unread,
            ..
        } if peer.id == of.id => Some((reason.clone(), *unread)),
        _ => None,
    })
}

/// Handles the timeouts that are due, `time` after the last turn, in a turn of their own.
fn late_look(room: &mut Room, time: Duration) {
    room.now += time;
    room.relay.handle_timeout(room.now);
    room.turn();
}

/// For how long members were throttled.
fn throttles(events: &[RoomEvent]) -> Vec<Duration> {
    let waits = events.iter().filter_map(|event| match event {
        RoomEvent::Throttled { wait, .. } => Some(*wait),
        _ => None,
    });
    waits.collect()
}

// ---- Timers.

#[test]
fn message_that_trickles_must_be_complete_in_time() {
    let mut room = Room::serving(&TUTORIALS, Limits::default(), &ReplyTexts::default());
    let (alice, slow, old) = (
        room.join("alice"),
        room.join("slow"),
        room.connect_to(Chat64),
    );
    let mut trickle = frame("x".repeat(1000)).into_iter();
    old.stream.sends(&wide_frame("x".repeat(70))[..9]);
    room.readable(&old);
    room.turns();
    for _ in 0..59 {
        slow.stream.sends([trickle.next().unwrap()]);
        room.readable(&slow);
        room.pass(SECOND);
        assert!(!slow.stream.is_closed() && !old.stream.is_closed());
    }
    room.pass(2 * SECOND);
    assert!(slow.stream.is_closed() && old.stream.is_closed());
    assert!(!alice.stream.is_closed());
    assert_eq!(closed(&room, "message_timeout"), 2);
}

#[test]
fn message_timeout_runs_from_the_first_byte_of_a_message_to_its_last() {
    let mut room = Room::new(Limits::default());
    let alice = room.join("alice");
    let message = frame("hello");
    let mut send = |bytes: &[u8]| {
        alice.stream.sends(bytes);
        room.readable(&alice);
        room.turns();
        let now = room.now;
        room.pass(SECOND);
        room.relay.next_timeout().map(|due| due - now)
    };
    assert_eq!(send(&message), None);
    assert_eq!(send(&message[..3]), Some(60 * SECOND));
    assert_eq!(send(&message[3..12]), Some(59 * SECOND));
    assert_eq!(send(&message[12..]), None);
}

#[test]
fn message_timeout_begins_anew_with_each_message() {
    let mut room = Room::new(Limits::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let hello = frame("hello");
    // Each ends, and the next begins, in the same read, after 59 of 60 seconds.
    alice.stream.sends(&hello[..3]);
    room.readable(&alice);
    room.turns();
    for _ in 0..5 {
        room.pass(59 * SECOND);
        alice.stream.sends([&hello[3..], &hello[..3]].concat());
        room.readable(&alice);
        room.turns();
    }
    assert_bytes(
        &bob.stream.received(),
        &delivery("alice", "hello").repeat(5),
    );
    room.pass(60 * SECOND);
    assert!(alice.stream.is_closed());
}

#[test]
fn message_timeout_excludes_paused_time() {
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
        peer.stream.sends(&message[..15]);
        room.readable(peer);
    }
    room.turns();
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(20_000));
    assert!(room.relay.is_paused());
    room.pass(100 * SECOND);
    assert!(!bob.stream.is_closed() && !carol.stream.is_closed());
    // The room goes on, and all of a minute is left.
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    room.pass(59 * SECOND);
    assert!(!bob.stream.is_closed() && !carol.stream.is_closed());
    bob.stream.sends(&message[15..]);
    room.readable(&bob);
    room.turns();
    room.pass(2 * SECOND);
    assert!(carol.stream.is_closed());
    room.pass(100 * SECOND);
    assert!(!bob.stream.is_closed());
    assert_eq!(room.relay.counters().messages, 2);
}

#[test]
fn message_timeout_excludes_self_paused_time() {
    let limits = Limits {
        slow_timeout: 30 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let asker = room.connect_to(Ack64);
    let message = wide_frame("x".repeat(3000));
    asker.stream.takes(0);
    let questions = wide_frame("").repeat(87_500);
    asker
        .stream
        .sends([&questions[..], &message[..1000]].concat());
    room.readable(&asker);
    room.turns();
    asker.stream.sends(&message[1000..2000]);
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
            .sends([&message[2000..], &questions[..], &message[..2000]].concat());
        asker.stream.takes(0);
        room.readable(&asker);
        room.turns();
    }
}

#[test]
fn message_timeout_excludes_throttled_time() {
    // A message of 1010 bytes to one other member takes 101 seconds, of which the first is the burst.
    let limits = Limits {
        rate: Some(10),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let (first, second) = (frame("x".repeat(985)), frame("unfinished"));
    alice.stream.sends([&first[..], &second[..15]].concat());
    room.readable(&alice);
    room.turns();
    bob.stream.received();
    room.readable(&alice);
    room.turns();
    assert_eq!(throttles(&room.take_events()), [100 * SECOND]);
    // It is read again after a hundred seconds, and all of a minute is left.
    room.pass(159 * SECOND);
    assert!(!alice.stream.is_closed());
    alice.stream.sends(&second[15..]);
    room.readable(&alice);
    room.turns();
    assert_bytes(&bob.stream.received(), &delivery("alice", "unfinished"));

    alice.stream.sends(&second[..15]);
    room.readable(&alice);
    room.turns();
    room.pass(70 * SECOND);
    assert!(alice.stream.is_closed());
}

#[test]
fn draining_member_has_no_message_timeout() {
    let limits = Limits {
        farewell_timeout: 1000 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, leaver) = (room.join("alice"), room.join("leaver"));
    leaver.stream.takes(0);
    room.say(&alice, "before it left");
    leaver.stream.sends(&frame("unfinished")[..15]);
    room.readable(&leaver);
    room.turns();
    room.relay.dismiss(leaver.id, &mut room.scratch, room.now);
    room.finish_turn();
    room.turns();
    room.pass(100 * SECOND);
    assert!(!leaver.stream.is_closed());
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert_bytes(
        &leaver.stream.received(),
        &delivery("alice", "before it left"),
    );
    assert_eq!(closed(&room, "shutdown"), 1);
}

#[test]
fn member_that_sends_nothing_for_the_idle_timeout_is_closed() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let listener = room.connect_to(Greet10);
    room.turns();
    for _ in 0..3 {
        room.pass(60 * SECOND);
        room.say(&alice, "still here");
        // An event without input is no sign of life.
        room.readable(&bob);
    }
    assert!(!alice.stream.is_closed() && bob.stream.is_closed());
    assert!(
        !listener.stream.is_closed(),
        "its input would have no meaning"
    );
    room.pass(99 * SECOND);
    assert!(!alice.stream.is_closed());
    room.pass(SECOND);
    assert!(alice.stream.is_closed());
    assert_eq!(room.relay.next_timeout(), None);
    assert_eq!(closed(&room, "idle_timeout"), 2);
}

#[test]
fn input_that_was_not_read_in_a_pause_is_a_sign_of_life() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        slow_timeout: 1000 * SECOND,
        soft_limit: 10_000,
        max_name: 3_000_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (alice, idle, slow) = (room.join("alice"), room.join("idle"), room.join("slow"));
    let bob = room.join("b".repeat(3_000_000));
    room.turns();
    // An `ack64` member that does not read its acknowledgements pauses itself.
    let asker = room.connect_to(Ack64);
    asker.stream.takes(0);
    asker.stream.sends(wide_frame("").repeat(10_000));
    room.readable(&asker);
    room.turns();
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(20_000));
    room.turns();
    assert!(room.relay.is_paused() && asker.stream.unread() > 0);
    // An empty message under a long name makes a round after which there is none for minutes.
    bob.stream.sends(frame(""));
    room.readable(&bob);
    room.pass(SECOND);
    assert_eq!(bob.stream.unread(), 0);
    alice.stream.sends(frame("still here"));
    slow.stream.sends(frame("still here"));
    room.readable(&alice);
    room.readable(&slow);
    room.pass(400 * SECOND);
    assert!(alice.stream.unread() > 0);
    for peer in [&alice, &asker, &slow] {
        assert!(!peer.stream.is_closed());
    }
    assert!(idle.stream.is_closed(), "it has sent nothing");
    // When they are read again, all of the idle timeout is left.
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    room.pass(99 * SECOND);
    assert!(!alice.stream.is_closed() && !slow.stream.is_closed());
    room.pass(SECOND);
    assert!(alice.stream.is_closed() && slow.stream.is_closed());
}

#[test]
fn member_that_is_not_read_for_long_seldom_wakes_the_relay() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        soft_limit: 10_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let asker = room.connect_to(Ack64);
    let unfinished = &wide_frame("unfinished")[..70];
    asker.stream.takes(0);
    asker
        .stream
        .sends([&wide_frame("").repeat(1000), unfinished].concat());
    room.readable(&asker);
    room.turns();
    asker.stream.sends(wide_frame(""));
    room.readable(&asker);
    room.turns();
    assert!(asker.stream.unread() > 0, "it is paused itself");
    let until = room.now + 10_000 * SECOND;
    let mut timeouts = 0;
    while let Some(at) = room.relay.next_timeout().filter(|&at| at <= until) {
        room.now = at;
        room.relay.handle_timeout(at);
        room.turn();
        room.turns();
        timeouts += 1;
        assert!(timeouts < 1000, "{:?} are left", until - at);
    }
    assert!(!asker.stream.is_closed());
    // One in each idle timeout, and one in each message timeout.
    assert!((200..=300).contains(&timeouts), "{timeouts}");
}

#[test]
fn draining_member_has_no_idle_timeout() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let alice = room.join("alice");
    let (leaver, dismissed) = (room.connect_to(Chat64), room.join("dismissed"));
    let ended = room.join("ended");
    let all = [&leaver, &dismissed, &ended];
    for peer in all {
        peer.stream.takes(0);
    }
    room.say(&alice, "x".repeat(50_000));
    leaver.stream.sends(wide_frame("Client Disconnected"));
    room.readable(&leaver);
    ended.stream.closes();
    room.read_closed(&ended);
    room.relay
        .dismiss(dismissed.id, &mut room.scratch, room.now);
    room.finish_turn();
    room.turns();
    assert_eq!(room.relay.members().total(), 1);
    for _ in 0..200 {
        room.pass(SECOND);
        for peer in all {
            peer.stream.takes(200);
            room.writable(peer);
        }
        room.say(&alice, "");
        assert!(all.iter().all(|peer| !peer.stream.is_closed()));
    }
}

#[test]
fn member_closed_by_a_timer_receives_nothing_more_in_that_turn() {
    let limits = Limits {
        idle_timeout: Some(100 * SECOND),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, idle) = (room.join("alice"), room.join("idle"));
    idle.stream.takes(0);
    room.now += 50 * SECOND;
    room.say(&alice, "pending");
    idle.stream.takes(usize::MAX);
    room.writable(&idle);
    late_look(&mut room, 50 * SECOND);
    assert!(idle.stream.is_closed() && !alice.stream.is_closed());
    assert_bytes(&idle.stream.received(), b"");
    assert_eq!((room.relay.lagging(), room.relay.backlog_bytes()), (0, 0));
}

// ---- The send quota.

#[test]
fn member_over_its_rate_is_read_later_and_loses_nothing() {
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
    alice.stream.sends(frame(&message).repeat(1000));
    room.readable(&alice);
    room.turns();
    let one = delivery("alice12345", &message);
    let sent = bob.stream.received().len() / one.len();
    assert!((10..30).contains(&sent), "one second: {sent}");
    room.say(&carol, "as if nothing had happened");
    let expected = delivery("carol", "as if nothing had happened");
    assert_bytes(&bob.stream.received(), &expected);
    room.pass(10 * SECOND);
    let more = bob.stream.received().len() / one.len();
    assert!((90..=120).contains(&more), "ten seconds: {more}");
    room.pass(100 * SECOND);
    assert_eq!(alice.stream.unread(), 0);
    let rest = one.repeat(1000 - sent - more);
    assert_bytes(&bob.stream.received(), &rest);
    assert_eq!(room.relay.members().total(), 3);
}

#[test]
fn throttle_ends_when_the_peer_is_gone() {
    for is_reported in [true, false] {
        let limits = Limits {
            rate: Some(10),
            ..Limits::default()
        };
        let mut room = Room::new(limits);
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        room.say(&alice, "x".repeat(3000));
        alice.stream.sends(frame("more"));
        room.readable(&alice);
        room.turns();
        bob.stream.received();
        assert!(alice.stream.unread() > 0, "it is throttled for minutes");
        alice.stream.fails(ErrorKind::ConnectionReset);
        if is_reported {
            room.relay.note(alice.id, Ready::READABLE | Ready::HUNG_UP);
        } else {
            alice.stream.breaks(ErrorKind::BrokenPipe);
            room.say(&bob, "are you there?");
        }
        room.turns();
        assert!(alice.stream.is_closed());
        assert_bytes(&bob.stream.received(), &delivery("alice", "more"));
        assert_eq!(room.relay.members().total(), 1);
    }
}

#[test]
fn throttle_ends_when_the_peer_goes_during_a_pause() {
    let limits = Limits {
        rate: Some(10),
        soft_limit: 10_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(3000));
    alice.stream.sends(frame("more"));
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.unread() > 0, "it is throttled for minutes");
    room.say(&bob, "x".repeat(20_000));
    room.turns();
    assert!(room.relay.is_paused());
    alice.stream.fails(ErrorKind::ConnectionReset);
    let hung_up = Ready::READABLE | Ready::HUNG_UP;
    room.relay.note(alice.id, hung_up);
    room.turns();
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert!(!room.relay.is_paused() && alice.stream.is_closed());
    let all = slow.stream.received();
    assert!(all.ends_with(&delivery("alice", "more")));
}

#[test]
fn members_that_send_in_one_turn_are_charged_separately() {
    let limits = Limits {
        rate: Some(1000),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, carol) = (room.join("alice"), room.join("bob"), room.join("carol"));
    // Two others receive each, which costs half a second and one and a half.
    for (peer, len) in [(&alice, 225), (&bob, 725)] {
        peer.stream.sends(frame("x".repeat(len)));
        room.readable(peer);
    }
    room.turn();
    for peer in [&alice, &bob] {
        peer.stream.sends(frame("more"));
        room.readable(peer);
    }
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    assert!(bob.stream.unread() > 0);
    room.pass(SECOND / 2);
    assert_eq!(bob.stream.unread(), 0);
    let sent = [
        delivery("alice", "x".repeat(225)),
        delivery("bob", "x".repeat(725)),
        delivery("alice", "more"),
        delivery("bob", "more"),
    ];
    assert_bytes(&carol.stream.received(), &sent.concat());
}

// ---- Memory.

#[test]
fn connection_that_holds_most_is_closed_over_the_memory_limit() {
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
        member.stream.sends(&unfinished[..sent]);
        room.readable(member);
        room.turns();
    }
    assert_eq!(room.relay.members().total(), 6);
    let more = room.join("more");
    more.stream.sends(&unfinished[..500_000]);
    room.readable(&more);
    while room.relay.has_ready() {
        room.turn();
        assert!(room.relay.held_bytes() <= BUDGET);
    }
    let is_closed: Vec<_> = members.iter().map(|one| one.stream.is_closed()).collect();
    assert_eq!(is_closed, [false, false, false, true, false, false]);
    assert!(!more.stream.is_closed());
    assert_eq!(closed(&room, "out_of_memory"), 1);
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
fn memory_limit_closes_no_more_connections_than_it_takes() {
    let limits = Limits {
        max_memory: 1_200_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, far, near) = (room.join("alice"), room.join("far"), room.join("near"));
    far.stream.takes(0);
    for _ in 0..9 {
        room.say(&alice, "x".repeat(100_000));
        room.turns();
    }
    near.stream.takes(0);
    assert!(!far.stream.is_closed());
    room.say(&alice, "x".repeat(150_000));
    room.turns();
    assert!(far.stream.is_closed() && !near.stream.is_closed());
    assert_eq!(closed(&room, "out_of_memory"), 1);
}

#[test]
fn memory_limit_closes_a_stalled_member_before_a_slow_reader_that_lags_by_more() {
    let limits = Limits {
        max_memory: 600_000,
        soft_limit: 100_000,
        slow_timeout: 10 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let alice = room.join("a".repeat(256));
    let (stalled, slow) = (room.connect_to(Chat64), room.join("slow"));
    stalled.stream.takes(0);
    room.say(&alice, "x".repeat(110_000));
    room.turns();
    room.pass(5 * SECOND);
    assert!(!room.relay.is_paused());
    slow.stream.takes(0);
    // 276 bytes each to the one, and none to the other.
    alice.stream.sends(frame("").repeat(900));
    room.readable(&alice);
    room.turn();
    assert!(stalled.stream.is_closed() && !slow.stream.is_closed());
    assert!(room.relay.pending_bytes(slow.id) > 200_000);
    assert_eq!(closed(&room, "out_of_memory"), 1);
}

/// Members flood the room with empty messages, each of which is published with a long name, while
/// others read at once or slowly.
fn flood_of_empty_messages(name: &str) {
    let limits = Limits {
        max_name: name.len(),
        max_message: 100_000,
        soft_limit: 200_000,
        queue_limit: 1_000_000,
        ..Limits::default()
    };
    let max_memory = limits.least_memory();
    let limits = Limits {
        max_memory,
        ..limits
    };
    assert_eq!(limits.check(), Ok(()));
    let turn_budget = limits.turn_budget;
    let one = delivery(name, "").len();
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (reader, old_reader) = (room.join("reader"), room.connect_to(Chat64));
    let slow = room.join("slow");
    let mut flooders: Vec<_> = (0..3).map(|_| room.join(name)).collect();
    // One sends its name and the flood at once.
    flooders.push(room.connect());
    flooders[3].stream.sends(frame(name));
    slow.stream.takes(0);
    for flooder in &flooders {
        flooder.stream.sends(frame("").repeat(2000));
        room.readable(flooder);
    }
    let (mut received, mut slow_received) = (0, 0);
    while slow_received < 4 * 2000 * one {
        room.relay.serve_ready(&mut room.scratch, room.now);
        assert!(room.relay.held_bytes() <= max_memory, "before the fan-out");
        room.finish_turn();
        assert!(room.relay.held_bytes() <= max_memory);
        let published = reader.stream.received().len();
        assert!(published <= turn_budget + one, "{published} in one turn");
        received += published;
        room.pass(Duration::from_millis(1));
        received += reader.stream.received().len();
        if slow.stream.takes(100_000) {
            room.writable(&slow);
        }
        slow_received += slow.stream.received().len();
    }
    assert_eq!(received, 4 * 2000 * one);
    assert_eq!(slow_received, received);
    assert_eq!(room.relay.members().total(), 7);
    assert_eq!(room.relay.counters().closed.total(), 0);
    assert_bytes(&old_reader.stream.received(), b"");
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn flood_of_empty_messages_under_a_long_name_stays_within_the_turn_and_memory_budgets() {
    flood_of_empty_messages(&"n".repeat(256));
}

#[test]
fn flood_of_empty_messages_under_the_longest_name_stays_within_the_turn_and_memory_budgets() {
    flood_of_empty_messages(&"n".repeat(32 * 1024));
}

#[test]
fn dismissed_member_that_floods_publishes_no_more_than_one_turn() {
    let name = "n".repeat(32 * 1024);
    let limits = Limits {
        max_name: name.len(),
        ..Limits::default()
    };
    let turn_budget = limits.turn_budget;
    let mut room = Room::new(limits);
    let (reader, flooder) = (room.join("reader"), room.join(&name));
    flooder.stream.sends(frame("").repeat(10_000));
    room.readable(&flooder);
    room.relay.dismiss(flooder.id, &mut room.scratch, room.now);
    room.finish_turn();
    room.turns();
    let published = reader.stream.received().len();
    assert!(
        published <= turn_budget + delivery(&name, "").len(),
        "{published}"
    );
    assert!(flooder.stream.is_closed() && !reader.stream.is_closed());
}

#[test]
fn memory_limit_closes_holders_of_the_other_kind_if_one_kind_is_not_enough() {
    let limits = Limits {
        max_memory: 20_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, stopped) = (room.join("alice"), room.join("bob"), room.join("stopped"));
    stopped.stream.takes(0);
    // In one turn, so that each kind alone is over the limit.
    alice.stream.sends(&frame("x".repeat(100_000))[..60_000]);
    bob.stream.sends(frame("x".repeat(30_000)));
    for peer in [&alice, &bob] {
        room.readable(peer);
    }
    room.turns();
    assert!(room.relay.held_bytes() <= 20_000);
    assert!(stopped.stream.is_closed() && !bob.stream.is_closed());
    assert!(alice.stream.is_closed());
}

#[test]
fn first_history_outlives_the_turn_in_which_its_only_reader_is_closed_for_its_memory() {
    let limits = Limits {
        history: 1,
        max_memory: 100_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    // All of them are published in one turn, the first one with any.
    let messages = [frame("x".repeat(20_000)).repeat(3), frame("the last")].concat();
    alice.stream.sends(messages);
    room.readable(&alice);
    room.turn();
    assert!(slow.stream.is_closed());
    assert_eq!(closed(&room, "out_of_memory"), 1);
    let bob = room.join("bob");
    room.turns();
    assert_bytes(&bob.stream.received(), &delivery("alice", "the last"));
}

#[test]
fn memory_limit_closes_no_member_that_holds_nothing() {
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
    assert_eq!(room.relay.members().total(), 2);
    assert_eq!(closed(&room, "out_of_memory"), 0);
}

#[test]
fn backlog_of_many_lagging_members_counts_once() {
    let limits = Limits {
        max_memory: 2_500_000,
        queue_limit: 1_200_000,
        soft_limit: 600_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let stopped: Vec<_> = (0..100).map(|i| room.join(format!("{i}"))).collect();
    for one in &stopped {
        one.stream.takes(0);
    }
    room.pass(SECOND);
    for _ in 0..10 {
        room.say(&alice, "x".repeat(50_000));
    }
    let held = room.relay.held_bytes();
    assert!((500_000..700_000).contains(&held), "{held}");
    assert_eq!(room.relay.members().total(), 101);
    for one in &stopped {
        one.stream.takes(usize::MAX);
        room.writable(one);
    }
    room.turns();
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn memory_of_own_spans_and_replies_counts_and_is_returned() {
    let mut room = Room::serving(&TUTORIALS, Limits::default(), &ReplyTexts::default());
    let (talker, stopped) = (room.connect_to(Chat64), room.connect_to(Chat64));
    stopped.stream.takes(0);
    for _ in 0..1000 {
        for peer in [&talker, &stopped] {
            peer.stream.sends(wide_frame("."));
            room.readable(peer);
            room.turns();
        }
    }
    // The messages are 2000 bytes, in one chunk.
    let of_spans = room.relay.held_bytes() - 65_536;
    assert!((24_000..80_000).contains(&of_spans), "{of_spans}");
    stopped.stream.takes(usize::MAX);
    room.writable(&stopped);
    room.turns();
    let one = [b".", &b"Message was Sent!"[..]].concat();
    assert_bytes(&stopped.stream.received(), &one.repeat(1000));
    assert_eq!(room.relay.held_bytes(), 0);
}

#[test]
fn throttled_member_wakes_the_relay_for_nothing_else() {
    // Its first message takes a day.
    let limits = Limits {
        rate: Some(1),
        read_budget: 100,
        message_timeout: SECOND,
        idle_timeout: Some(SECOND),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, _bob) = (room.join("alice"), room.join("bob"));
    alice.stream.sends(frame("x".repeat(86_400)));
    room.readable(&alice);
    room.turns();
    alice.stream.sends(&frame("unfinished")[..15]);
    room.readable(&alice);
    room.turns();
    for _ in 0..20 {
        room.pass(SECOND);
    }
    let day = 24 * 60 * 60 * SECOND;
    let next = room.relay.next_timeout().unwrap();
    assert!(next > room.now + day / 2, "{:?}", next - room.now);
    assert!(!alice.stream.is_closed());
}

#[test]
fn first_message_has_a_timeout_though_the_name_came_in_two_pieces() {
    let mut room = Room::new(Limits::default());
    let slow = room.connect();
    let name = frame("slow");
    slow.stream.sends(&name[..3]);
    room.readable(&slow);
    room.turns();
    slow.stream
        .sends([&name[3..], &frame("x".repeat(1000))[..500]].concat());
    room.readable(&slow);
    room.turns();
    room.pass(60 * SECOND);
    assert!(slow.stream.is_closed());
    assert_eq!(closed(&room, "message_timeout"), 1);
}

#[test]
fn new_member_is_not_charged_for_messages_of_others() {
    let limits = Limits {
        rate: Some(100_000),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let carol = room.connect();
    alice.stream.sends(frame("x".repeat(3000)));
    carol.stream.sends(frame("carol"));
    room.readable(&alice);
    room.readable(&carol);
    room.turn();
    bob.stream.received();
    room.say(&carol, "hello");
    assert_bytes(&bob.stream.received(), &delivery("carol", "hello"));
}

#[test]
fn memory_limit_closes_holders_of_the_kind_that_is_short() {
    let limits = Limits {
        max_memory: 5_000_000,
        queue_limit: 1_000_000,
        soft_limit: 900_000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let stopped: Vec<_> = (0..50).map(|i| room.join(format!("{i}"))).collect();
    for one in &stopped {
        one.stream.takes(0);
    }
    room.say(&alice, "x".repeat(200_000));
    let unfinished = frame("x".repeat(1_000_000));
    for i in 0..60 {
        let other = room.join(format!("other {i}"));
        other.stream.sends(&unfinished[..130_000]);
        room.readable(&other);
        room.turns();
        assert!(room.relay.held_bytes() <= 5_000_000);
    }
    assert!(closed(&room, "out_of_memory") > 0);
    assert!(stopped.iter().all(|one| !one.stream.is_closed()));
}

#[test]
fn lifted_quota_ends_all_throttles() {
    let limits = Limits {
        rate: Some(100),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.sends(frame("x".repeat(1000)).repeat(50));
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.unread() > 0);
    room.relay.lift_quota();
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(
        &bob.stream.received(),
        &delivery("alice", "x".repeat(1000)).repeat(50),
    );
}

// ---- Eviction: a place is needed.

fn make_room(room: &mut Room) -> bool {
    room.relay.make_room(None, &mut room.scratch, room.now)
}

#[test]
fn oldest_pending_connection_is_evicted_once_it_has_had_time_for_its_name() {
    let limits = Limits {
        max_clients: 3,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let (first, second) = (room.connect(), room.connect());
    assert!(room.relay.is_full());
    room.pass(2 * SECOND);
    assert!(!make_room(&mut room), "their names may be on their way");
    room.pass(SECOND);
    assert!(make_room(&mut room));
    assert!(first.stream.is_closed() && !second.stream.is_closed());
    assert!(!alice.stream.is_closed() && !room.relay.is_full());
    // What was received and not read yet may be its name.
    second.stream.sends(frame("second"));
    room.readable(&second);
    assert!(!make_room(&mut room));
    room.turns();
    assert!(!make_room(&mut room), "both are members");
    assert_eq!(closed(&room, "evicted"), 1);
}

/// A room that is paused for a slow reader, between two rounds: alice, the slow reader, and a pending
/// connection that has had time enough for its name. Three more connections make the room full.
fn full_and_paused() -> (Room, Peer, Peer, Peer) {
    let limits = Limits {
        max_clients: 6,
        soft_limit: 10_000,
        slow_timeout: 1000 * SECOND,
        handshake_timeout: 1000 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, slow, pending) = (room.join("alice"), room.join("slow"), room.connect());
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(20_000));
    room.pass(3 * SECOND);
    room.say(&alice, "the line of a round");
    assert!(room.relay.is_paused() && alice.stream.unread() == 0);
    (room, alice, slow, pending)
}

#[test]
fn members_whose_peers_are_gone_between_rounds_are_evicted_oldest_first_before_pending_connections()
{
    let (mut room, alice, slow, pending) = full_and_paused();
    let gone: Vec<_> = (0..3).map(|i| room.join(format!("gone{i}"))).collect();
    assert!(room.relay.is_full());
    // The last one goes first, and the one in the middle in both directions.
    for (i, peer) in gone.iter().enumerate().rev() {
        peer.stream.sends(frame("y".repeat(100 * i))).closes();
        room.read_closed(peer);
        if i == 1 {
            room.relay.note(peer.id, Ready::HUNG_UP);
        }
        room.turns();
        assert!(!peer.stream.is_closed(), "it waits for a round");
    }
    room.take_events();
    let mut unread = 0;
    for (i, peer) in gone.iter().enumerate() {
        assert!(!peer.stream.is_closed());
        assert!(make_room(&mut room));
        assert!(peer.stream.is_closed() && !room.relay.is_full());
        room.turn();
        let expected = (CloseReason::Evicted, 10 + 100 * i as u64);
        unread += expected.1;
        assert_eq!(departure_of(&room.take_events(), peer), Some(expected));
        assert_eq!(room.relay.counters().bytes_discarded, unread);
        // Its place is another's, whose name is read though the room is paused.
        room.join(format!("new{i}"));
        room.turns();
    }
    assert!(!pending.stream.is_closed());
    assert!(make_room(&mut room));
    assert!(pending.stream.is_closed());
    assert!(!make_room(&mut room), "no other peer is gone");
    assert!(!alice.stream.is_closed() && !slow.stream.is_closed());
    assert_eq!(closed(&room, "evicted"), 4);
    assert_eq!(room.relay.members().total(), 5);
}

#[test]
fn connection_that_sent_its_name_and_a_message_and_closed_between_rounds_is_evicted() {
    let (mut room, _alice, _slow, pending) = full_and_paused();
    let gone = room.connect();
    gone.stream
        .sends([frame("gone"), frame("hello")].concat())
        .closes();
    room.read_closed(&gone);
    room.turns();
    assert!(!gone.stream.is_closed());
    assert_eq!(room.relay.members().total(), 3);
    room.take_events();
    assert!(make_room(&mut room));
    assert!(gone.stream.is_closed() && !pending.stream.is_closed());
    room.turn();
    let expected = (CloseReason::Evicted, frame("hello").len() as u64);
    assert_eq!(departure_of(&room.take_events(), &gone), Some(expected));
}

#[test]
fn member_whose_write_failed_in_a_round_and_whose_input_waits_for_the_next_is_evicted() {
    let (mut room, alice, _slow, pending) = full_and_paused();
    let broken = room.join("broken");
    broken.stream.sends(frame("last words").repeat(1000));
    broken.stream.breaks(ErrorKind::BrokenPipe);
    for peer in [&broken, &alice] {
        room.readable(peer);
    }
    alice.stream.sends(frame("a line"));
    room.pass(SECOND / 10);
    assert!(!broken.stream.is_closed(), "it is read to its end");
    let received = alice.stream.received();
    let message = delivery("broken", "last words");
    assert_bytes(&received, &message.repeat(received.len() / message.len()));
    let unread = broken.stream.unread() as u64;
    assert!(unread > 900 * frame("last words").len() as u64);
    room.take_events();
    assert!(make_room(&mut room));
    assert!(broken.stream.is_closed() && !pending.stream.is_closed());
    room.turn();
    let expected = (CloseReason::Evicted, unread);
    assert_eq!(departure_of(&room.take_events(), &broken), Some(expected));
}

#[test]
fn gone_peer_that_is_not_evicted_is_relayed_in_the_next_round_or_after_the_pause() {
    for is_in_round in [true, false] {
        let (mut room, alice, slow, _pending) = full_and_paused();
        let gone = room.join("gone");
        gone.stream.sends(frame("my last words")).closes();
        room.read_closed(&gone);
        room.turns();
        assert_bytes(&alice.stream.received(), b"");
        assert!(!gone.stream.is_closed());
        if is_in_round {
            room.pass(SECOND / 10);
            assert!(room.relay.is_paused());
        } else {
            slow.stream.takes(usize::MAX);
            room.writable(&slow);
            room.turns();
            assert!(!room.relay.is_paused());
        }
        assert!(gone.stream.is_closed());
        assert_bytes(&alice.stream.received(), &delivery("gone", "my last words"));
        assert_eq!(closed(&room, "eof"), 1);
        assert_eq!(room.relay.counters().bytes_discarded, 0);
    }
}

#[test]
fn throttled_member_whose_peer_has_closed_is_evicted() {
    let limits = Limits {
        rate: Some(10),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, _bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "x".repeat(3000));
    alice.stream.sends(frame("more")).closes();
    room.read_closed(&alice);
    room.turns();
    assert!(!alice.stream.is_closed(), "it is throttled for minutes");
    assert!(make_room(&mut room));
    assert!(alice.stream.is_closed());
    assert_eq!(room.relay.counters().bytes_discarded, 14);
    assert!(!make_room(&mut room));
}

#[test]
fn member_whose_last_messages_are_read_in_the_next_turn_is_not_evicted() {
    let limits = Limits {
        turn_budget: 1000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, bob, gone) = (room.join("alice"), room.join("bob"), room.join("gone"));
    room.say(&alice, "x".repeat(2000));
    bob.stream.received();
    alice.stream.sends(frame("x".repeat(2000)));
    room.readable(&alice);
    gone.stream.sends(frame("my last words")).closes();
    room.read_closed(&gone);
    room.turn();
    assert!(gone.stream.unread() > 0, "the turn was full");
    assert!(!make_room(&mut room), "it goes by itself");
    room.turns();
    assert!(gone.stream.is_closed());
    let received = bob.stream.received();
    assert!(parse_frames(&received).contains(&&b"my last words"[..]));
}

#[test]
fn draining_member_is_not_evicted() {
    let mut room = Room::new(Limits::default());
    let (alice, leaver) = (room.join("alice"), room.join("leaver"));
    leaver.stream.takes(0);
    room.say(&alice, "pending");
    leaver.stream.closes();
    room.read_closed(&leaver);
    room.turns();
    room.pass(3 * SECOND);
    assert!(!make_room(&mut room));
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.received(), &delivery("alice", "pending"));
    assert!(leaver.stream.is_closed());
    assert_eq!(closed(&room, "eof"), 1);
}

// ---- Limits of one address.

#[test]
fn address_at_its_limit_is_full_until_a_connection_goes() {
    let limits = Limits {
        max_per_ip: Some(2),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    // The scripts' address, and another.
    let (here, elsewhere) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let is_full = |room: &Room, ip: [u8; 4]| room.relay.is_address_full((ip, 9).into(), 0);
    let alice = room.join("alice");
    assert!(!is_full(&room, here));
    let _pending = room.connect();
    assert!(is_full(&room, here) && !is_full(&room, elsewhere));
    alice.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&alice);
    room.turns();
    assert!(!is_full(&room, here));
}

#[test]
fn address_at_its_limit_evicts_only_connections_of_its_own() {
    let limits = Limits {
        max_per_ip: Some(4),
        soft_limit: 10_000,
        slow_timeout: 1000 * SECOND,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    // The scripts' address, and another.
    let (here, elsewhere) = (([192, 0, 2, 1], 9).into(), ([192, 0, 2, 2], 9).into());
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let (pending, gone) = (room.connect(), room.join("gone"));
    assert!(room.relay.is_address_full(here, 0) && !room.relay.is_address_full(elsewhere, 0));
    let make_room_for = |room: &mut Room, peer| {
        room.relay
            .make_room(Some(peer), &mut room.scratch, room.now)
    };
    assert!(!make_room_for(&mut room, here), "all are there");
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(20_000));
    room.pass(3 * SECOND);
    room.say(&alice, "the line of a round");
    gone.stream.sends(frame("my last words")).closes();
    room.read_closed(&gone);
    room.turns();
    assert!(!make_room_for(&mut room, elsewhere), "they are another's");
    room.take_events();
    assert!(make_room_for(&mut room, here));
    assert!(gone.stream.is_closed() && !pending.stream.is_closed());
    room.turn();
    let unread = frame("my last words").len() as u64;
    let expected = (CloseReason::EvictedForAddress, unread);
    assert_eq!(departure_of(&room.take_events(), &gone), Some(expected));
    assert!(!make_room_for(&mut room, elsewhere));
    assert!(make_room_for(&mut room, here));
    assert!(pending.stream.is_closed());
    assert!(!make_room_for(&mut room, here));
    assert!(!alice.stream.is_closed() && !slow.stream.is_closed());
    assert_eq!(closed(&room, "evicted_for_address"), 2);
    assert_eq!(closed(&room, "evicted"), 0);
}
