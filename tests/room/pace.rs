//! How fast the room goes when members read slowly, or not at all: without sockets, on a clock that
//! moves when a test moves it. The policy is the table in `src/relay/flow/lag.rs`.

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, Limits, Ready, ReplyTexts, RoomEvent, Slow};
use chatloop::wire::Dialect::{Ack64, Chat64, Greet10};

use crate::common::script::{Peer, Room, TUTORIALS};
use crate::common::{assert_bytes, delivery, frame, parse_frames, wide_frame};

/// The soft limit, in bytes of lag.
const SOFT: usize = 100_000;
/// The queue limit, in bytes of lag.
const QUEUE: usize = 8_000_000;
/// The minimum read rate, in bytes a second.
const MIN_READ_RATE: usize = 6553;
/// What a slow reader must accept in ten seconds of pause, in bytes.
const MIN_READ: usize = 10 * MIN_READ_RATE;
/// The time from one round of a pause to the next at least.
const ROUND_TIME: Duration = Duration::from_millis(100);
/// What a member publishes in a round, in bytes, give or take one message.
const ROUND_BUDGET: usize = 512;
const SECOND: Duration = Duration::from_secs(1);
/// A slow reader is stalled when its socket has accepted nothing for so long: half of `slow_timeout`.
const STALL_TIME: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(1);

fn limits() -> Limits {
    Limits {
        soft_limit: SOFT,
        queue_limit: QUEUE,
        slow_timeout: 2 * STALL_TIME,
        ..Limits::default()
    }
}

fn room() -> Room {
    Room::serving(&TUTORIALS, limits(), &ReplyTexts::default())
}

/// The most that a socket accepts in one turn, in bytes: less than what one write can offer.
const ONE_WRITE: usize = 500_000;

/// The socket accepts this many bytes and is full then. That is one turn, or as many as it takes.
fn accept(room: &mut Room, peer: &Peer, mut bytes: usize) {
    while bytes > 0 {
        let now = bytes.min(ONE_WRITE);
        if peer.stream.takes(now) {
            room.writable(peer);
        }
        room.turn();
        bytes -= now;
    }
    peer.stream.takes(0);
}

/// The socket accepts output until this lag is left.
fn accept_down_to(room: &mut Room, peer: &Peer, lag: usize) {
    let bytes = self::lag(room, peer) - lag;
    accept(room, peer, bytes);
}

/// The socket accepts everything from now on.
fn accept_all(room: &mut Room, peer: &Peer) {
    peer.stream.takes(usize::MAX);
    room.writable(peer);
    room.turns();
}

fn lag(room: &Room, peer: &Peer) -> usize {
    usize::try_from(room.relay.pending_bytes(peer.id)).unwrap()
}

/// The talker sends so much in messages of 1000 bytes. Returns what the others receive of it.
fn talk(room: &mut Room, talker: &Peer, name: &str, bytes: usize) -> Vec<u8> {
    let message = "x".repeat(1000);
    let count = bytes / 1000;
    talker.stream.sends(frame(&message).repeat(count));
    room.readable(talker);
    room.turns();
    delivery(name, &message).repeat(count)
}

/// One message of this many bytes is published in one turn. Returns what the others receive of it.
fn publish(room: &mut Room, sender: &Peer, name: &str, bytes: usize) -> Vec<u8> {
    room.say(sender, "x".repeat(bytes));
    room.turns();
    assert_eq!(sender.stream.unread(), 0);
    delivery(name, "x".repeat(bytes))
}

/// A room that is paused for a slow reader.
struct Paused {
    room: Room,
    alice: Peer,
    bob: Peer,
    slow: Peer,
    /// What was published so far, as `bob` received it and `slow` did not.
    published: Vec<u8>,
}

/// A room that is paused for a slow reader with this lag. No member has sent anything that was not read.
fn paused_at(lag: usize) -> Paused {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let published = publish(
        &mut room,
        &alice,
        "alice",
        lag - delivery("alice", "").len(),
    );
    assert_eq!(room.relay.pending_bytes(slow.id), lag as u64);
    assert!(room.relay.is_paused());
    assert_bytes(&bob.stream.received(), &published);
    room.take_events();
    Paused {
        room,
        alice,
        bob,
        slow,
        published,
    }
}

fn paused() -> Paused {
    paused_at(2 * SOFT)
}

fn closed(room: &Room, key: &str) -> u64 {
    room.relay.counters().closed.of(key)
}

/// The reason for which a member left, or was closed after it had left.
fn reason_of(events: &[RoomEvent], of: &Peer) -> Option<CloseReason> {
    events.iter().rev().find_map(|event| match event {
        RoomEvent::Left { peer, reason, .. } | RoomEvent::Closed { peer, reason, .. }
            if peer.id == of.id =>
        {
            Some(reason.clone())
        }
        _ => None,
    })
}

/// The names of the senders of these messages, in order.
fn senders(messages: &[u8]) -> Vec<String> {
    let names = parse_frames(messages).into_iter().step_by(2);
    names
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

// ---- Paused until the lag is at the limit.

#[test]
fn room_is_paused_over_the_soft_limit_and_not_at_it() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    publish(
        &mut room,
        &alice,
        "alice",
        SOFT - delivery("alice", "").len(),
    );
    assert_eq!(lag(&room, &slow), SOFT);
    assert!(!room.relay.is_paused());
    room.take_events();
    room.say(&alice, "");
    assert!(room.relay.is_paused());
    let events = room.take_events();
    let [RoomEvent::PauseBegan { reader, lag }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(reader.id, slow.id);
    assert_eq!(*lag, (SOFT + delivery("alice", "").len()) as u64);
}

#[test]
fn paused_room_reads_no_member_between_rounds_until_the_lag_is_at_the_soft_limit() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        published,
    } = paused();
    for peer in [&alice, &bob] {
        peer.stream.sends(frame("later"));
        room.readable(peer);
    }
    room.turns();
    assert!(room.relay.has_held());
    accept_down_to(&mut room, &slow, SOFT + 1);
    room.turns();
    assert!(room.relay.has_held(), "one byte is missing");
    assert!(alice.stream.unread() > 0 && bob.stream.unread() > 0);
    accept(&mut room, &slow, 1);
    room.turns();
    assert!(!room.relay.has_held());
    assert_eq!((alice.stream.unread(), bob.stream.unread()), (0, 0));
    accept_all(&mut room, &slow);
    let expected = [
        published,
        delivery("alice", "later"),
        delivery("bob", "later"),
    ];
    assert_bytes(&slow.stream.received(), &expected.concat());
}

#[test]
fn endless_talker_runs_at_the_speed_of_the_slowest_reader_and_no_member_is_lost() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let published = talk(&mut room, &alice, "alice", 3_000_000);
    assert!(alice.stream.unread() > 2_700_000, "most of it must wait");
    let most = (2 * SOFT + room.relay.limits().turn_budget) as u64;
    let mut received = Vec::new();
    while received.len() < published.len() {
        room.pass(SECOND / 10);
        accept(&mut room, &slow, 2000);
        room.turns();
        received.extend(slow.stream.received());
        assert!(room.relay.backlog_bytes() < most);
    }
    assert_bytes(&received, &published);
    assert_bytes(&bob.stream.received(), &published);
    assert_eq!(room.relay.members().total(), 3);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

// ---- Rounds.

#[test]
fn round_gives_a_flood_and_an_ordinary_member_their_turns_in_order() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let carol = room.join("carol");
    alice.stream.sends(frame("flood").repeat(10_000));
    room.readable(&alice);
    for _ in 0..20 {
        carol.stream.sends(frame("a line"));
        room.readable(&carol);
        room.turns();
        assert_bytes(&bob.stream.received(), b"");
        accept_down_to(&mut room, &slow, SOFT);
        let round = bob.stream.received();
        assert!(lag(&room, &slow) > SOFT, "the round has filled it again");
        let senders = senders(&round);
        let (last, flood) = senders.split_last().unwrap();
        assert_eq!(last, "carol");
        assert!(!flood.is_empty() && flood.iter().all(|name| name == "alice"));
        let of_flood = round.len() - delivery("carol", "a line").len();
        assert!((200..=512).contains(&of_flood), "{of_flood}");
        assert_eq!(carol.stream.unread(), 0);
    }
    assert!(room.relay.is_paused());
}

#[test]
fn member_that_waited_longest_is_first_in_the_next_round() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    let (carol, dave, late) = (room.join("carol"), room.join("dave"), room.join("late"));
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 2 * SOFT);
    bob.stream.received();
    for peer in [&dave, &alice, &carol] {
        peer.stream.sends(frame("y".repeat(600)).repeat(2));
        room.readable(peer);
        room.turns();
    }
    // It is reported readable in the turn in which the round begins.
    late.stream.sends(frame("y".repeat(600)).repeat(2));
    room.readable(&late);
    let expected = ["dave", "alice", "carol", "late"];
    for _ in 0..2 {
        accept_down_to(&mut room, &slow, SOFT);
        room.turns();
        assert_eq!(senders(&bob.stream.received()), expected);
    }
    for peer in [&alice, &carol, &dave, &late] {
        assert_eq!(peer.stream.unread(), 0);
    }
}

#[test]
fn round_reads_a_long_message_whole() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let carol = room.join("carol");
    let long = "y".repeat(300_000);
    alice
        .stream
        .sends([frame(&long), frame("next").repeat(100)].concat());
    carol.stream.sends(frame("a line"));
    for peer in [&alice, &carol] {
        room.readable(peer);
    }
    room.turns();
    // One turn publishes no more than its budget, and what one message is over it.
    accept_down_to(&mut room, &slow, SOFT);
    assert_bytes(&bob.stream.received(), &delivery("alice", &long));
    room.turns();
    assert_bytes(&bob.stream.received(), b"");
    accept_down_to(&mut room, &slow, SOFT);
    let round = bob.stream.received();
    assert!(round.starts_with(&delivery("carol", "a line")), "its turn");
    assert!(senders(&round)[1..].iter().all(|name| name == "alice"));
}

#[test]
fn round_of_empty_messages_under_a_long_name_publishes_no_more_than_another() {
    let Paused {
        mut room,
        bob,
        slow,
        ..
    } = paused();
    let name = "n".repeat(256);
    let flooder = room.join(&name);
    flooder.stream.sends(frame("").repeat(1000));
    room.readable(&flooder);
    room.turns();
    for _ in 0..20 {
        accept_down_to(&mut room, &slow, SOFT);
        room.turns();
        let published = bob.stream.received().len();
        assert!((276..=2 * 276).contains(&published), "{published}");
    }
}

#[test]
fn messages_that_lack_only_their_last_byte_are_published_one_a_turn() {
    let mut room = Room::new(Limits::default());
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    let message = frame("y".repeat(1_000_000));
    let (most, last) = message.split_at(message.len() - 1);
    let large: Vec<_> = (0..5).map(|i| room.join(format!("large{i}"))).collect();
    for peer in &large {
        peer.stream.sends(most);
        room.readable(peer);
        room.turns();
    }
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 1024 * 1024);
    assert!(room.relay.is_paused());
    bob.stream.received();
    for peer in &large {
        peer.stream.sends(last);
        room.readable(peer);
    }
    room.turns();
    assert_bytes(&bob.stream.received(), b"");
    for i in 0..5 {
        accept_down_to(&mut room, &slow, 1024 * 1024);
        room.turns();
        assert_eq!(senders(&bob.stream.received()), [format!("large{i}")]);
    }
    assert_eq!(room.relay.members().total(), 8);
}

#[test]
fn rounds_end_when_the_lag_is_at_half_of_the_soft_limit() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    room.pass(SECOND);
    accept_down_to(&mut room, &slow, SOFT / 2 + 1);
    assert!(room.relay.is_paused(), "members are read in rounds");
    alice.stream.sends(frame("").repeat(1000));
    room.readable(&alice);
    room.turn();
    let one = delivery("alice", "").len();
    let round = bob.stream.received();
    assert!(round.len().abs_diff(ROUND_BUDGET) < one);
    assert_bytes(&round, &delivery("alice", "").repeat(round.len() / one));
    assert_eq!(room.take_events(), []);
    accept_down_to(&mut room, &slow, SOFT / 2);
    assert!(!room.relay.is_paused());
    let lasted = SECOND;
    assert_eq!(room.take_events(), [RoomEvent::PauseEnded { lasted }]);
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn room_at_half_of_the_soft_limit_reads_at_full_speed() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    alice.stream.sends(frame("").repeat(10_000));
    room.readable(&alice);
    room.turns();
    accept_down_to(&mut room, &slow, SOFT / 2);
    // A whole read, and not 512 bytes.
    assert!(bob.stream.received().len() > 50_000);
}

// ---- Rounds of a pause.

/// The times since the pause began at which something was published, and how many bytes that was.
fn published_in_pause(room: &mut Room, receiver: &Peer, time: Duration) -> Vec<(Duration, usize)> {
    let start = room.now;
    let mut rounds = Vec::new();
    while room.now < start + time {
        room.pass(MOMENT);
        match receiver.stream.received().len() {
            0 => {}
            bytes => rounds.push((room.now - start, bytes)),
        }
    }
    assert!(room.relay.is_paused());
    rounds
}

#[test]
fn rounds_of_a_pause_come_every_100_ms_or_when_a_reader_at_the_minimum_rate_has_read_the_last() {
    // One flooder publishes less in each round than may be read in 100 ms; five, or one long name, more.
    let long_name = "n".repeat(256);
    for (flooders, name) in [(1, "a"), (1, &long_name[..]), (5, "a")] {
        let Paused { mut room, bob, .. } = paused();
        let one = delivery(name, "").len();
        for _ in 0..flooders {
            let flooder = room.join(name);
            flooder.stream.sends(frame("").repeat(3000));
            room.readable(&flooder);
        }
        room.turns();
        let last = STALL_TIME.checked_sub(MOMENT).unwrap();
        let rounds = published_in_pause(&mut room, &bob, last);
        let mut due = ROUND_TIME;
        let mut before = 0;
        for &(at, bytes) in &rounds {
            let most = flooders * (ROUND_BUDGET + one);
            assert!(
                (flooders * (ROUND_BUDGET - one)..most).contains(&bytes),
                "{bytes} bytes"
            );
            assert_eq!(bytes % one, 0);
            // The clock goes in steps of a millisecond.
            assert!(at >= due && at < due + 2 * MOMENT, "{at:?} for {due:?}");
            before += bytes;
            let allowed = at.as_millis() as usize * MIN_READ_RATE / 1000 + bytes;
            assert!(before <= allowed, "{before} bytes until {at:?}");
            due = at + ROUND_TIME.max(Duration::from_millis((bytes * 1000 / MIN_READ_RATE) as u64));
        }
        assert!(due >= last, "the rounds go on to the end of the pause");
    }
}

#[test]
fn line_of_an_ordinary_member_goes_out_with_each_round_of_a_pause_beside_a_flood() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        published,
    } = paused();
    let carol = room.join("carol");
    alice.stream.sends(frame("flood").repeat(3000));
    room.readable(&alice);
    let flood = delivery("alice", "flood");
    let mut expected = published;
    for i in 0..40 {
        let line = format!("line {i}");
        carol.stream.sends(frame(&line));
        room.readable(&carol);
        room.pass(ROUND_TIME.checked_sub(MOMENT).unwrap());
        assert_bytes(&bob.stream.received(), b"");
        room.pass(MOMENT);
        assert_eq!(carol.stream.unread(), 0);
        let round = bob.stream.received();
        let line = delivery("carol", line);
        let of_flood = round.len() - line.len();
        assert!(of_flood.abs_diff(ROUND_BUDGET) < flood.len(), "{of_flood}");
        let count = of_flood / flood.len();
        assert_bytes(&round, &[flood.repeat(count), line].concat());
        expected.extend(round);
    }
    assert!(room.relay.is_paused() && alice.stream.unread() > 0);
    accept_down_to(&mut room, &slow, 0);
    let received = slow.stream.received();
    assert_bytes(&received[..expected.len()], &expected);
}

#[test]
fn line_that_comes_later_than_100_ms_after_the_last_round_is_read_at_once() {
    let Paused {
        mut room,
        alice,
        bob,
        ..
    } = paused();
    for _ in 0..10 {
        room.pass(ROUND_TIME);
        room.say(&alice, "a line");
        assert_bytes(&bob.stream.received(), &delivery("alice", "a line"));
        // The next one waits.
        room.say(&alice, "another");
        room.pass(ROUND_TIME.checked_sub(MOMENT).unwrap());
        assert_bytes(&bob.stream.received(), b"");
        room.pass(MOMENT);
        assert_bytes(&bob.stream.received(), &delivery("alice", "another"));
    }
    assert!(room.relay.is_paused());
}

#[test]
fn long_message_in_a_pause_is_read_over_several_rounds_and_delays_no_line_of_another() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let long = "x".repeat(20_000);
    alice.stream.sends(frame(&long));
    room.readable(&alice);
    let mut lines = 0;
    while alice.stream.unread() > 0 {
        slow.stream.sends(frame("a line"));
        room.readable(&slow);
        room.pass(2 * ROUND_TIME);
        lines += 1;
        assert!(lines < 100, "it comes to no end");
        assert_eq!(slow.stream.unread(), 0, "its line was read in a round");
    }
    // No more than 512 bytes of it were read in a round.
    assert!(lines >= 20_000 / 512 / 2, "{lines}");
    room.pass(2 * ROUND_TIME);
    assert!(room.relay.is_paused());
    let received = bob.stream.received();
    let line = delivery("slow", "a line");
    assert_eq!(
        received.len(),
        lines * line.len() + delivery("alice", &long).len()
    );
    let whole = received
        .windows(delivery("alice", &long).len())
        .any(|window| window == delivery("alice", &long));
    assert!(whole, "it arrives whole");
}

#[test]
fn members_that_a_full_turn_did_not_serve_are_first_in_the_next_round() {
    let limits = Limits {
        slow_timeout: 1000 * SECOND,
        turn_budget: 2500,
        ..limits()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 2 * SOFT);
    bob.stream.received();
    let names: Vec<_> = (0..10).map(|i| format!("large{i}")).collect();
    let large: Vec<_> = names.iter().map(|name| room.join(name)).collect();
    room.turns();
    for peer in &large {
        peer.stream.sends(frame("y".repeat(490)).repeat(2));
        room.readable(peer);
    }
    let mut served = Vec::new();
    while served.len() < 20 {
        room.pass(ROUND_TIME);
        let round = senders(&bob.stream.received());
        assert!(round.len() <= 6, "{round:?}");
        served.extend(round);
        assert!(room.relay.is_paused() && !slow.stream.is_closed());
    }
    assert_eq!(served, [&names[..], &names[..]].concat());
}

#[test]
fn next_timeout_is_that_of_a_round_only_while_a_member_is_held() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let start = room.now;
    let stall = Some(start + STALL_TIME);
    assert_eq!(room.relay.next_timeout(), stall, "the room is idle");
    alice.stream.sends(frame("held"));
    room.readable(&alice);
    room.turns();
    assert!(room.relay.has_held() && !room.relay.has_ready());
    assert_eq!(room.relay.next_timeout(), Some(start + ROUND_TIME));
    room.pass(ROUND_TIME);
    assert_bytes(&bob.stream.received(), &delivery("alice", "held"));
    assert!(!room.relay.has_held());
    assert_eq!(room.relay.next_timeout(), stall);
    // The beginning of a message makes a round as well: the rest will be published.
    room.pass(SECOND);
    alice.stream.sends(&frame("unfinished")[..15]);
    room.readable(&alice);
    room.turns();
    assert_eq!(alice.stream.unread(), 0);
    room.pass(ROUND_TIME);
    bob.stream.sends(frame("the rest of the round"));
    room.readable(&bob);
    room.turns();
    assert_eq!(bob.stream.unread(), 0);
    let message = Some(room.now + 60_u32 * SECOND).and_then(|at| at.checked_sub(ROUND_TIME));
    assert_eq!(room.relay.next_timeout(), stall.min(message));
    // The pause ends, and so do its rounds.
    accept_down_to(&mut room, &slow, SOFT);
    assert_eq!(room.relay.next_timeout(), message);
}

#[test]
fn idle_paused_room_wakes_up_only_for_the_stall() {
    let Paused {
        mut room,
        alice,
        bob,
        ..
    } = paused();
    room.say(&alice, "held");
    let (mut wake_ups, start) = (Vec::new(), room.now);
    while let Some(at) = room.relay.next_timeout() {
        room.now = at;
        room.turn();
        room.relay.handle_timeout(at);
        room.turn();
        assert!(!room.relay.has_ready(), "no turn is wanted at once");
        wake_ups.push(at - start);
        assert!(wake_ups.len() < 10, "{wake_ups:?}");
    }
    assert_eq!(wake_ups, [ROUND_TIME, STALL_TIME]);
    assert_bytes(&bob.stream.received(), &delivery("alice", "held"));
    assert!(!room.relay.is_paused());
}

#[test]
fn slow_reader_that_accepts_often_does_not_delay_the_rounds() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    for i in 0..40 {
        let line = format!("line {i}");
        alice.stream.sends(frame(&line));
        room.readable(&alice);
        for _ in 0..10 {
            assert_bytes(&bob.stream.received(), b"");
            room.pass(ROUND_TIME / 10);
            accept(&mut room, &slow, 100);
        }
        assert_bytes(&bob.stream.received(), &delivery("alice", line));
    }
    assert!(room.relay.is_paused());
}

#[test]
fn second_slow_reader_does_not_hasten_the_next_round() {
    let limits = Limits {
        max_name: 2 * SOFT,
        ..limits()
    };
    let mut room = Room::new(limits);
    // An empty message of this member takes a reader over the limit, and is enough for the rest of the pause.
    let long = "y".repeat(2 * SOFT);
    let alice = room.join(&long);
    room.turns();
    let (bob, slow) = (room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "");
    room.turns();
    assert!(room.relay.is_paused());
    bob.stream.received();
    let late = room.join("late");
    late.stream.takes(0);
    alice.stream.sends([frame(""), frame("later")].concat());
    room.readable(&alice);
    room.pass(ROUND_TIME);
    assert_eq!(lag(&room, &late), delivery(&long, "").len());
    assert_bytes(&bob.stream.received(), &delivery(&long, ""));
    assert!(room.relay.has_held());
    let rest = STALL_TIME.checked_sub(ROUND_TIME).unwrap();
    assert_eq!(room.relay.next_timeout(), Some(room.now + rest));
    room.pass(rest);
    assert!(room.relay.is_paused(), "for the second one");
    assert_bytes(&bob.stream.received(), b"");
    room.pass(ROUND_TIME);
    assert_bytes(&bob.stream.received(), &delivery(&long, "later"));
}

// ---- Stalled.

#[test]
fn stalled_reader_slows_the_others_for_half_of_the_slow_timeout_once_and_is_closed_at_the_queue_limit()
 {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let mut published = talk(&mut room, &alice, "alice", 1_000_000);
    room.pass(STALL_TIME.checked_sub(MOMENT).unwrap());
    assert!(room.relay.is_paused() && !slow.stream.is_closed());
    let one_message = published.len() / 1000;
    let in_pause = bob.stream.received();
    let most = 5 * MIN_READ_RATE + one_message;
    // A message of more than half a kilobyte takes two rounds, which do not come faster than ten a second.
    let least = 5 * 10 * 512 - one_message;
    assert!(
        (least..=most).contains(&in_pause.len()),
        "{}",
        in_pause.len()
    );
    assert_bytes(&in_pause, &published[..in_pause.len()]);
    published.drain(..in_pause.len());
    room.pass(MOMENT);
    assert!(!room.relay.is_paused() && !slow.stream.is_closed());
    assert_eq!(alice.stream.unread(), 0);
    let lasted = STALL_TIME;
    assert_eq!(room.take_events(), [RoomEvent::PauseEnded { lasted }]);
    let mut turns = 0;
    while !slow.stream.is_closed() {
        published.extend(talk(&mut room, &alice, "alice", 100_000));
        assert_eq!(alice.stream.unread(), 0, "the room is not slowed again");
        room.pass(SECOND);
        turns += 1;
        assert!(turns < 1000);
    }
    assert!(published.len() + 3 * SOFT > QUEUE);
    assert_bytes(&bob.stream.received(), &published);
    let events = room.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    let reason = reason_of(&events, &slow);
    let Some(CloseReason::SlowConsumer { lag }) = reason else {
        panic!("{reason:?}");
    };
    assert!(lag > QUEUE as u64);
    assert_eq!(closed(&room, "slow_consumer"), 1);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn member_that_accepted_nothing_for_long_does_not_pause_the_room() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "its user sits before input()");
    room.pass(30 * 60 * SECOND);
    room.take_events();
    talk(&mut room, &alice, "alice", 10 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
    assert_eq!(room.take_events(), []);
    room.pass(30 * 60 * SECOND);
    assert!(!slow.stream.is_closed(), "below the queue limit it may");
}

#[test]
fn stalled_member_that_reads_again_is_not_waited_for_before_it_has_caught_up() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let mut published = talk(&mut room, &alice, "alice", 20_000);
    room.pass(60 * SECOND);
    published.extend(talk(&mut room, &alice, "alice", 10 * SOFT));
    let mut received = Vec::new();
    while received.len() < published.len() {
        accept(&mut room, &slow, 5000);
        received.extend(slow.stream.received());
        if published.len() < 15 * SOFT {
            published.extend(talk(&mut room, &alice, "alice", 1000));
        }
        assert!(!room.relay.is_paused());
        room.pass(SECOND / 10);
    }
    assert_bytes(&received, &published);
}

#[test]
fn stalled_member_that_has_caught_up_is_waited_for_like_any_other() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    room.pass(STALL_TIME);
    talk(&mut room, &alice, "alice", 10 * SOFT);
    assert!(!room.relay.is_paused());
    accept_down_to(&mut room, &slow, SOFT + 1);
    publish(&mut room, &alice, "alice", SOFT);
    assert!(!room.relay.is_paused(), "one byte was missing");
    accept_down_to(&mut room, &slow, SOFT);
    assert!(!room.relay.is_paused());
    room.say(&alice, "");
    assert!(room.relay.is_paused());
    room.pass(STALL_TIME);
    assert!(!room.relay.is_paused());
    assert_eq!(room.relay.members().total(), 3);
}

#[test]
fn reader_that_stalls_over_the_queue_limit_is_closed() {
    let limits = Limits {
        max_message: 10_000,
        soft_limit: 1000,
        queue_limit: 20_000,
        ..limits()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    // All of it in one turn, so that the lag is over both limits at once.
    alice.stream.sends(frame("x".repeat(10_000)).repeat(3));
    room.readable(&alice);
    room.turn();
    assert!(room.relay.is_paused() && !slow.stream.is_closed());
    room.pass(STALL_TIME.checked_sub(MOMENT).unwrap());
    assert!(!slow.stream.is_closed(), "it may still read");
    room.pass(MOMENT);
    assert!(slow.stream.is_closed() && !room.relay.is_paused());
    assert_eq!(closed(&room, "slow_consumer"), 1);
    assert_eq!(
        bob.stream.received().len(),
        3 * delivery("alice", "").len() + 30_000
    );
}

#[test]
fn reader_that_stalls_at_the_queue_limit_is_closed_with_the_next_message() {
    let limits = Limits {
        max_message: 20_000,
        soft_limit: 1000,
        queue_limit: 20_000,
        ..limits()
    };
    let mut room = Room::new(limits);
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let length = 20_000 - delivery("alice", "").len();
    publish(&mut room, &alice, "alice", length);
    assert_eq!(lag(&room, &slow), 20_000);
    room.pass(STALL_TIME);
    assert!(!room.relay.is_paused() && !slow.stream.is_closed());
    room.say(&alice, "");
    assert!(slow.stream.is_closed());
    assert_eq!(closed(&room, "slow_consumer"), 1);
}

// ---- The minimum read rate.

#[test]
fn reader_below_the_minimum_rate_is_closed_at_its_next_accepted_piece() {
    let Paused {
        mut room,
        alice,
        bob,
        slow,
        ..
    } = paused();
    let published = talk(&mut room, &alice, "alice", 1_000_000);
    for _ in 0..9 {
        room.pass(SECOND);
        accept(&mut room, &slow, 1000);
        assert!(room.relay.is_paused() && !slow.stream.is_closed());
    }
    // It is not measured before it accepts something. Meanwhile it may stall.
    room.pass(SECOND + STALL_TIME / 2);
    assert!(room.relay.is_paused() && !slow.stream.is_closed());
    assert!(alice.stream.unread() > 0);
    accept(&mut room, &slow, 1);
    assert!(slow.stream.is_closed());
    let reason = reason_of(&room.take_events(), &slow);
    let accepted = 9001;
    assert_eq!(reason, Some(CloseReason::BelowMinimumRate { accepted }));
    assert_eq!(closed(&room, "below_minimum_rate"), 1);
    room.turns();
    assert!(!room.relay.is_paused());
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(&bob.stream.received(), &published);
    assert_eq!(room.relay.backlog_bytes(), 0);
    assert_eq!(room.relay.next_timeout(), None);
}

#[test]
fn reader_at_the_minimum_rate_is_not_closed() {
    for (accepted, is_closed) in [(MIN_READ - 1, true), (MIN_READ, false)] {
        let Paused { mut room, slow, .. } = paused();
        room.pass(4 * SECOND);
        accept(&mut room, &slow, accepted - 2);
        room.pass(4 * SECOND);
        accept(&mut room, &slow, 1);
        room.pass(2 * SECOND);
        assert!(!slow.stream.is_closed());
        accept(&mut room, &slow, 1);
        assert_eq!(slow.stream.is_closed(), is_closed, "{accepted} bytes");
        assert_eq!(room.relay.is_paused(), !is_closed);
    }
}

#[test]
fn minimum_rate_is_measured_anew_after_each_slow_timeout() {
    let Paused { mut room, slow, .. } = paused_at(1_000_000);
    for _ in 0..100 {
        room.pass(SECOND);
        accept(&mut room, &slow, 8000);
        assert!(room.relay.is_paused() && !slow.stream.is_closed());
    }
    for _ in 0..9 {
        room.pass(SECOND);
        accept(&mut room, &slow, 1000);
        assert!(!slow.stream.is_closed());
    }
    room.pass(SECOND);
    accept(&mut room, &slow, 1000);
    assert!(slow.stream.is_closed());
    let reason = reason_of(&room.take_events(), &slow);
    let accepted = 10_000;
    assert_eq!(reason, Some(CloseReason::BelowMinimumRate { accepted }));
}

#[test]
fn minimum_rate_counts_pauses_that_rounds_interrupt_together() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused_at(SOFT + 100);
    talk(&mut room, &alice, "alice", 1_000_000);
    // Each second a round is read, and fills the little that was accepted.
    let mut seconds = 0;
    while !slow.stream.is_closed() {
        room.pass(SECOND);
        let lag = lag(&room, &slow);
        if lag > SOFT {
            accept_down_to(&mut room, &slow, SOFT);
        }
        seconds += 1;
        assert!(seconds < 100, "it holds the room for ever");
    }
    assert_eq!(seconds, 10);
    assert_eq!(closed(&room, "below_minimum_rate"), 1);
}

#[test]
fn minimum_rate_is_measured_anew_after_the_reader_has_caught_up() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    for _ in 0..5 {
        for _ in 0..8 {
            room.pass(SECOND);
            accept(&mut room, &slow, 1);
        }
        // After eight of ten seconds it catches up, and then lags again.
        accept(&mut room, &slow, 4 * SOFT);
        assert!(!room.relay.is_paused());
        publish(&mut room, &alice, "alice", 2 * SOFT);
        assert!(room.relay.is_paused());
    }
    assert!(!slow.stream.is_closed());
}

#[test]
fn time_without_a_pause_does_not_count_for_the_minimum_rate() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    // In rounds, and accepting a byte now and then: no member waits for it.
    accept_down_to(&mut room, &slow, SOFT);
    for _ in 0..100 {
        room.pass(3 * SECOND);
        accept(&mut room, &slow, 1);
    }
    assert!(room.relay.is_paused(), "members are read in rounds");
    assert!(!slow.stream.is_closed());
    publish(&mut room, &alice, "alice", SOFT);
    room.pass(4 * SECOND);
    accept(&mut room, &slow, 1);
    room.pass(4 * SECOND);
    assert!(!slow.stream.is_closed());
}

// ---- Readers in bursts.

/// A flood goes on beside a reader whose socket accepts this many bytes every 20 seconds, in a room with
/// the default limits. Returns the room after so many pieces, the flooder, the reader, and what the reader
/// received.
fn flood_beside_reader_in_pieces(piece: usize, pieces: usize) -> (Room, Peer, Vec<u8>) {
    let mut room = Room::new(Limits::default());
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let mut published = talk(&mut room, &alice, "alice", 1_500_000);
    let mut received = Vec::new();
    room.take_events();
    for _ in 0..pieces {
        if alice.stream.unread() < 200_000 {
            published.extend(talk(&mut room, &alice, "alice", 200_000));
        }
        room.pass((20 * SECOND).checked_sub(MOMENT).unwrap());
        // In the turn in which the stall is due, the loop writes before it handles timeouts.
        room.now += MOMENT;
        assert!(slow.stream.takes(piece));
        room.writable(&slow);
        room.relay.serve_ready(&mut room.scratch, room.now);
        room.relay.handle_timeout(room.now);
        room.finish_turn();
        slow.stream.takes(0);
        room.turns();
        received.extend(slow.stream.received());
        let goes_on = alice.stream.unread() > 0;
        assert!(goes_on || slow.stream.is_closed());
    }
    assert_bytes(&received, &published[..received.len()]);
    let bob_received = bob.stream.received();
    assert_bytes(&bob_received, &published[..bob_received.len()]);
    (room, slow, received)
}

#[test]
fn reader_whose_piece_is_accepted_in_the_turn_of_its_stall_does_not_stall() {
    // With a receive buffer of 128 KiB that is a reader at the minimum rate.
    let (mut room, slow, received) = flood_beside_reader_in_pieces(128 * 1024, 30);
    assert_eq!(received.len(), 30 * 128 * 1024);
    assert!(!slow.stream.is_closed() && room.relay.is_paused());
    assert_eq!(room.take_events(), [], "the pause did not end");
    // A piece that comes no later than that is the condition.
    room.pass((20 * SECOND).checked_sub(MOMENT).unwrap());
    assert!(room.relay.is_paused());
    room.pass(MOMENT);
    assert!(!room.relay.is_paused() && !slow.stream.is_closed());
}

#[test]
fn reader_in_pieces_below_the_minimum_rate_is_closed_at_the_end_of_the_slow_timeout() {
    let (mut room, slow, received) = flood_beside_reader_in_pieces(131_000, 2);
    assert_eq!(received.len(), 2 * 131_000);
    assert!(slow.stream.is_closed() && !room.relay.is_paused());
    let reason = reason_of(&room.take_events(), &slow);
    let accepted = 2 * 131_000;
    assert_eq!(reason, Some(CloseReason::BelowMinimumRate { accepted }));
}

#[test]
fn reader_in_bursts_that_keeps_the_minimum_rate_keeps_its_place() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    let published = talk(&mut room, &alice, "alice", 5_000_000);
    bob.stream.received();
    let mut received = Vec::new();
    for _ in 0..50 {
        // Its kernel reports what it has read in large steps.
        room.pass(4 * SECOND);
        accept(&mut room, &slow, 60_000);
        room.turns();
        received.extend(slow.stream.received());
        let went_on = bob.stream.received().len();
        // Rounds fill up to the limit what was accepted; at half of it, one read is published whole.
        assert!((20_000..80_000).contains(&went_on), "{went_on}");
    }
    assert_bytes(&received, &published[..50 * 60_000]);
    assert_eq!(room.relay.members().total(), 3);
}

#[test]
fn reader_in_bursts_with_long_gaps_slows_the_others_for_no_longer_than_a_stall() {
    let mut room = room();
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "it falls behind now");
    let mut received = Vec::new();
    let mut published = delivery("alice", "it falls behind now");
    let mut bob_received = bob.stream.received();
    let mut slowed = 0;
    for second in 1..=80 {
        published.extend(talk(&mut room, &alice, "alice", 50_000));
        room.pass(SECOND);
        let in_this_second = bob.stream.received();
        assert!(!in_this_second.is_empty(), "a conversation goes on");
        slowed += u32::from(in_this_second.len() <= MIN_READ_RATE + ROUND_BUDGET + 1000);
        bob_received.extend(in_this_second);
        if second % 8 == 0 {
            assert!(!slow.stream.is_closed());
            accept(&mut room, &slow, 10_000_000);
            room.turns();
            received.extend(slow.stream.received());
        }
    }
    // In each eight seconds the lag is over the limit after two, and the reader is stalled after five.
    assert!((20..=30).contains(&slowed), "{slowed}");
    accept_all(&mut room, &slow);
    received.extend(slow.stream.received());
    assert_bytes(&received, &published);
    bob_received.extend(bob.stream.received());
    assert_bytes(&bob_received, &published);
}

// ---- History.

#[test]
fn new_member_with_history_over_the_soft_limit_does_not_pause_the_room() {
    let limits = Limits {
        history: 10_000,
        history_bytes: 10 * SOFT,
        ..limits()
    };
    let mut room = Room::new(limits);
    let alice = room.join("alice");
    let mut published = talk(&mut room, &alice, "alice", 5 * SOFT);
    let new = room.connect();
    new.stream.takes(1000);
    new.stream.sends(frame("new"));
    room.readable(&new);
    room.turns();
    new.stream.takes(0);
    published.extend(talk(&mut room, &alice, "alice", 2 * SOFT));
    assert!(!room.relay.is_paused());
    assert_eq!(alice.stream.unread(), 0);
    // It is waited for once it has caught up.
    accept_down_to(&mut room, &new, SOFT);
    published.extend(publish(&mut room, &alice, "alice", 1000));
    assert!(room.relay.is_paused());
    accept_all(&mut room, &new);
    assert_bytes(&new.stream.received(), &published);
}

// ---- Members that pause only themselves.

/// An `ack64` member that does not read its acknowledgements, and is paused itself.
fn self_paused(room: &mut Room) -> Peer {
    let asker = room.connect_to(Ack64);
    asker.stream.takes(0);
    asker.stream.sends(wide_frame("").repeat(87_500));
    room.readable(&asker);
    room.turns();
    assert!(asker.stream.unread() > 0, "its input is not read");
    asker
}

#[test]
fn member_that_does_not_read_its_acknowledgements_pauses_only_itself() {
    let texts = ReplyTexts {
        ack: Some(vec![b'k'; 10_000]),
        ..ReplyTexts::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits(), &texts);
    let (asker, alice, bob) = (room.connect_to(Ack64), room.join("alice"), room.join("bob"));
    asker.stream.takes(0);
    for _ in 0..100 {
        asker.stream.sends(wide_frame("").repeat(10));
        room.readable(&asker);
        room.turn();
    }
    room.turns();
    assert!(asker.stream.unread() > 0, "its input is not read");
    assert!(!room.relay.is_paused());
    bob.stream.received();
    room.say(&alice, "as if nothing had happened");
    let expected = delivery("alice", "as if nothing had happened");
    assert_bytes(&bob.stream.received(), &expected);
    let mut acks = 0;
    while acks < 10_000_000 {
        accept(&mut room, &asker, 100_000);
        room.turns();
        room.pass(SECOND / 10);
        acks += asker.stream.received().len();
    }
    assert_eq!((acks, asker.stream.unread()), (10_000_000, 0));
    assert_eq!(room.relay.members().total(), 3);
}

#[test]
fn self_paused_member_may_read_as_slowly_as_it_likes() {
    let mut room = room();
    let asker = self_paused(&mut room);
    for _ in 0..100 {
        room.pass(SECOND);
        accept(&mut room, &asker, 500);
        assert!(!room.relay.is_paused() && !asker.stream.is_closed());
    }
    room.pass(24 * 60 * 60 * SECOND);
    assert!(!asker.stream.is_closed());
    accept_all(&mut room, &asker);
    assert_eq!(asker.stream.unread(), 0);
    assert_bytes(&asker.stream.received(), &b"Msg received".repeat(87_500));
}

#[test]
fn self_paused_member_whose_peer_is_gone_loses_its_place() {
    let mut room = room();
    let asker = self_paused(&mut room);
    asker.stream.fails(ErrorKind::ConnectionReset);
    room.relay.note(asker.id, Ready::READABLE | Ready::HUNG_UP);
    room.turns();
    assert!(asker.stream.is_closed());
    assert_eq!(room.relay.counters().messages, 87_500);
}

#[test]
fn acknowledgements_that_are_not_read_pause_the_room_where_its_messages_are_among_them() {
    let mut room = room();
    let (asker, alice) = (room.connect_to(Chat64), room.join("alice"));
    asker.stream.takes(0);
    asker.stream.sends(wide_frame("").repeat(10_000));
    room.readable(&asker);
    room.turns();
    assert!(room.relay.is_paused());
    alice.stream.sends(frame("held"));
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.unread() > 0 && asker.stream.unread() > 0);
    accept_all(&mut room, &asker);
    assert_eq!((alice.stream.unread(), asker.stream.unread()), (0, 0));
}

// ---- What is read during a pause.

#[test]
fn paused_room_reads_names_and_no_message_behind_them() {
    let Paused {
        mut room,
        bob,
        slow,
        ..
    } = paused();
    let new: Vec<_> = (0..50).map(|_| room.connect()).collect();
    for peer in &new {
        peer.stream
            .sends([frame("new"), frame("hello").repeat(10)].concat());
        room.readable(peer);
    }
    room.turns();
    assert_eq!(room.relay.members().total(), 53);
    assert_eq!(room.relay.pending_connections(), 0);
    let unread = 10 * frame("hello").len();
    assert!(new.iter().all(|peer| peer.stream.unread() == unread));
    assert_bytes(&bob.stream.received(), b"");
    accept_all(&mut room, &slow);
    assert_eq!(
        bob.stream.received().len(),
        500 * delivery("new", "hello").len()
    );
}

#[test]
fn name_that_comes_in_pieces_is_read_in_a_pause_to_its_last_byte() {
    let Paused { mut room, bob, .. } = paused();
    let new = room.connect();
    let input = [frame("new"), frame("hello")].concat();
    for (i, byte) in input.iter().enumerate() {
        new.stream.sends([*byte]);
        room.readable(&new);
        room.turns();
        let unread = (i + 1).saturating_sub(frame("new").len());
        assert_eq!(new.stream.unread(), unread);
    }
    assert_eq!(room.relay.members().total(), 4);
    assert_bytes(&bob.stream.received(), b"");
}

#[test]
fn input_that_no_member_receives_is_read_in_a_pause() {
    let mut room = room();
    let (listener, leaver) = (room.connect_to(Greet10), room.connect_to(Chat64));
    leaver.stream.takes(0);
    leaver.stream.sends(wide_frame("Client Disconnected"));
    room.readable(&leaver);
    room.turns();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 2 * SOFT);
    assert!(room.relay.is_paused());
    for peer in [&listener, &leaver] {
        peer.stream.sends("without a meaning ".repeat(1000));
        room.readable(peer);
    }
    room.turns();
    assert_eq!((listener.stream.unread(), leaver.stream.unread()), (0, 0));
    assert!(!leaver.stream.is_closed(), "its output is pending");
}

#[test]
fn last_messages_of_a_member_that_left_during_a_pause_are_relayed_after_it() {
    for is_hung_up in [false, true] {
        let Paused {
            mut room,
            bob,
            slow,
            ..
        } = paused();
        let leaver = room.join("leaver");
        leaver
            .stream
            .sends([frame("goodbye").repeat(200), frame("the last")].concat())
            .closes();
        room.read_closed(&leaver);
        if is_hung_up {
            room.relay.note(leaver.id, Ready::HUNG_UP);
        }
        room.turns();
        assert!(leaver.stream.unread() > 0);
        room.take_events();
        accept_all(&mut room, &slow);
        let expected = [
            delivery("leaver", "goodbye").repeat(200),
            delivery("leaver", "the last"),
        ];
        assert_bytes(&bob.stream.received(), &expected.concat());
        let reason = reason_of(&room.take_events(), &leaver);
        assert_eq!(reason, Some(CloseReason::Eof));
    }
}

// ---- Members that leave.

#[test]
fn draining_member_that_reads_is_waited_for_until_its_output_is_delivered() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let published = publish(&mut room, &alice, "alice", SOFT / 2);
    slow.stream.closes();
    room.read_closed(&slow);
    room.turns();
    assert!(!slow.stream.is_closed(), "its output is pending");
    // What is published later is not for it, and is kept until it has read its own.
    talk(&mut room, &alice, "alice", 20 * SOFT);
    assert!(room.relay.is_paused() && alice.stream.unread() > 0);
    accept_all(&mut room, &slow);
    assert!(slow.stream.is_closed());
    assert_bytes(&slow.stream.received(), &published);
    assert!(!room.relay.is_paused());
    assert_eq!((alice.stream.unread(), room.relay.backlog_bytes()), (0, 0));
    assert_eq!(closed(&room, "eof"), 1);
}

#[test]
fn draining_member_that_does_not_read_is_closed_at_the_queue_limit() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", SOFT / 2);
    slow.stream.closes();
    room.read_closed(&slow);
    room.turns();
    room.pass(room.relay.limits().slow_timeout / 2);
    assert!(!slow.stream.is_closed(), "its output is pending");
    talk(&mut room, &alice, "alice", 70 * SOFT);
    assert!(!room.relay.is_paused() && !slow.stream.is_closed());
    talk(&mut room, &alice, "alice", 30 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
    assert!(slow.stream.is_closed(), "what is published is kept for it");
    assert_eq!(closed(&room, "slow_consumer"), 1);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn slow_reader_that_leaves_and_reads_no_more_is_waited_for_until_it_stalls() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    accept_down_to(&mut room, &slow, SOFT * 3 / 4);
    // In the turn in which it leaves, its lag is over the limit again.
    alice.stream.sends(frame("x".repeat(SOFT)));
    room.readable(&alice);
    slow.stream.closes();
    room.read_closed(&slow);
    room.turns();
    assert_eq!(room.relay.members().total(), 2, "it has left");
    assert!(lag(&room, &slow) > SOFT);
    room.pass(STALL_TIME.checked_sub(MOMENT).unwrap());
    assert!(room.relay.is_paused());
    room.pass(MOMENT);
    assert!(!room.relay.is_paused());
    assert!(!slow.stream.is_closed(), "its output is pending");
    talk(&mut room, &alice, "alice", 10 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn paused_room_goes_on_when_its_slow_reader_ends_or_has_caught_up() {
    for end in 0..4 {
        let Paused {
            mut room,
            alice,
            bob,
            slow,
            published,
        } = paused();
        alice.stream.sends(frame("held"));
        room.readable(&alice);
        room.turns();
        assert!(alice.stream.unread() > 0);
        match end {
            0 => {
                slow.stream.breaks(ErrorKind::BrokenPipe);
                room.writable(&slow);
            }
            1 => {
                room.relay.dismiss(slow.id, &mut room.scratch, room.now);
                room.finish_turn();
            }
            2 => {
                // It leaves in the round that it makes possible itself.
                slow.stream.closes();
                room.read_closed(&slow);
                room.turns();
                accept_down_to(&mut room, &slow, SOFT);
            }
            _ => {
                slow.stream.takes(usize::MAX);
                room.writable(&slow);
            }
        }
        room.turns();
        if matches!(end, 1 | 2) {
            // It is waited for, and receives what was published until it left.
            assert!(!slow.stream.is_closed());
            accept_all(&mut room, &slow);
            assert!(slow.stream.is_closed());
            let received = slow.stream.received();
            assert_bytes(&received[..published.len()], &published);
        }
        assert!(!room.relay.is_paused(), "end {end}");
        assert_eq!(alice.stream.unread(), 0);
        assert_bytes(&bob.stream.received(), &delivery("alice", "held"));
    }
}

#[test]
fn held_member_that_is_dismissed_is_read_and_receives_what_was_published_until_then() {
    let Paused {
        mut room,
        bob,
        slow,
        alice,
        published,
    } = paused();
    for peer in [&alice, &slow] {
        peer.stream.sends(frame("the last"));
        room.readable(peer);
    }
    room.turns();
    assert!(room.relay.has_held());
    for peer in [&alice, &slow] {
        room.relay.dismiss(peer.id, &mut room.scratch, room.now);
        room.finish_turn();
    }
    let expected = [delivery("alice", "the last"), delivery("slow", "the last")];
    assert_bytes(&bob.stream.received(), &expected.concat());
    assert!(alice.stream.is_closed() && !slow.stream.is_closed());
    room.turns();
    accept_all(&mut room, &slow);
    let expected = [published, delivery("alice", "the last")];
    assert_bytes(&slow.stream.received(), &expected.concat());
    assert_eq!(closed(&room, "shutdown"), 2);
}

#[test]
fn member_that_leaves_with_a_lag_over_the_queue_limit_receives_its_output() {
    let limits = Limits {
        max_message: 30_000,
        soft_limit: 1000,
        queue_limit: 30_000,
        ..limits()
    };
    let mut room = Room::new(limits);
    let (alice, bob, slow) = (room.join("alice"), room.join("bob"), room.join("slow"));
    slow.stream.takes(0);
    alice.stream.sends(frame("x".repeat(20_000)).repeat(3));
    room.readable(&alice);
    room.turn();
    assert!(room.relay.is_paused());
    let published = delivery("alice", "x".repeat(20_000)).repeat(3);
    assert_eq!(lag(&room, &slow), published.len());
    slow.stream.closes();
    room.read_closed(&slow);
    room.pass(ROUND_TIME);
    assert!(room.relay.is_paused() && !slow.stream.is_closed());
    assert_eq!(room.relay.members().total(), 2);
    room.pass(SECOND);
    accept_all(&mut room, &slow);
    assert!(!room.relay.is_paused() && slow.stream.is_closed());
    assert_bytes(&slow.stream.received(), &published);
    assert_bytes(&bob.stream.received(), &published);
    assert_eq!(closed(&room, "eof"), 1);
}

// ---- Timers.

#[test]
fn stall_that_is_noticed_late_ends_the_pause_all_the_same() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    alice.stream.sends(frame("held"));
    room.readable(&alice);
    room.turns();
    room.now += 10 * 60 * SECOND;
    room.relay.handle_timeout(room.now);
    room.turns();
    assert!(!room.relay.is_paused() && !slow.stream.is_closed());
    assert_eq!(alice.stream.unread(), 0);
}

#[test]
fn minimum_rate_is_measured_when_a_piece_is_accepted_and_over_all_of_the_time_until_then() {
    // Three pieces in twelve seconds: what is enough for ten seconds is not enough for twelve.
    let minimum = 12 * MIN_READ_RATE;
    for (accepted, is_closed) in [(MIN_READ, true), (minimum - 1, true), (minimum, false)] {
        let Paused { mut room, slow, .. } = paused();
        for piece in [accepted - 2, 1] {
            room.pass(4 * SECOND);
            accept(&mut room, &slow, piece);
        }
        room.pass((4 * SECOND).checked_sub(MOMENT).unwrap());
        assert!(!slow.stream.is_closed(), "no timer measures it");
        room.pass(MOMENT);
        assert!(!slow.stream.is_closed());
        accept(&mut room, &slow, 1);
        assert_eq!(slow.stream.is_closed(), is_closed, "{accepted} bytes");
        assert_eq!(closed(&room, "below_minimum_rate"), u64::from(is_closed));
    }
}

#[test]
fn pause_that_ended_leaves_no_timer() {
    let Paused {
        mut room,
        alice,
        slow,
        ..
    } = paused();
    assert_eq!(room.relay.next_timeout(), Some(room.now + STALL_TIME));
    for _ in 0..100 {
        room.pass(SECOND / 100);
        accept_down_to(&mut room, &slow, SOFT);
        assert_eq!(room.relay.next_timeout(), None, "in rounds");
        publish(&mut room, &alice, "alice", SOFT);
        assert!(room.relay.next_timeout().is_some());
    }
    accept_all(&mut room, &slow);
    assert_eq!(room.relay.next_timeout(), None);
    // The next pause has a time of its own.
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 2 * SOFT);
    assert_eq!(room.relay.next_timeout(), Some(room.now + STALL_TIME));
}

// ---- Several slow readers.

#[test]
fn room_is_paused_until_the_last_of_many_slow_readers_is_at_the_limit() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let slow: Vec<_> = (0..50).map(|i| room.join(format!("slow{i}"))).collect();
    for peer in &slow {
        peer.stream.takes(0);
    }
    publish(&mut room, &alice, "alice", 2 * SOFT);
    bob.stream.received();
    room.take_events();
    alice.stream.sends(frame("held"));
    room.readable(&alice);
    for peer in &slow {
        room.turns();
        assert_bytes(&bob.stream.received(), b"");
        accept_down_to(&mut room, peer, SOFT);
    }
    room.turns();
    assert_bytes(&bob.stream.received(), &delivery("alice", "held"));
    for peer in &slow {
        accept_all(&mut room, peer);
    }
    assert!(!room.relay.is_paused());
    let lasted = Duration::ZERO;
    assert_eq!(room.take_events(), [RoomEvent::PauseEnded { lasted }]);
}

#[test]
fn slowest_of_many_readers_sets_the_pace_and_none_is_closed() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let slow: Vec<_> = (0..20).map(|i| room.join(format!("slow{i}"))).collect();
    for peer in &slow {
        peer.stream.takes(0);
    }
    let published = talk(&mut room, &alice, "alice", 1_000_000);
    let start = bob.stream.received().len();
    let mut went_on = 0;
    let mut received = vec![0; slow.len()];
    for _ in 0..60 {
        room.pass(SECOND);
        for (i, peer) in slow.iter().enumerate() {
            accept(&mut room, peer, if i == 7 { 8000 } else { 10_000 });
            room.turns();
            received[i] += peer.stream.received().len();
        }
        went_on += bob.stream.received().len();
    }
    assert_eq!(received[7], 60 * 8000);
    assert!(received.iter().all(|&bytes| bytes >= 60 * 8000));
    let ahead = start + went_on - received[7];
    assert!((SOFT - 2000..SOFT + 2000).contains(&ahead), "{ahead}");
    assert!(start + went_on < published.len());
    assert_eq!(room.relay.members().total(), 22);
}

#[test]
fn many_readers_that_stop_together_cost_the_others_one_stall() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let stopped: Vec<_> = (0..50).map(|i| room.join(format!("{i}"))).collect();
    for peer in &stopped {
        peer.stream.takes(0);
    }
    let published = talk(&mut room, &alice, "alice", 1_000_000);
    assert!(alice.stream.unread() > 0);
    room.pass(STALL_TIME);
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(&bob.stream.received(), &published);
    assert_eq!(room.relay.members().total(), 52);
    // They share one copy.
    let chunk = 65_536;
    assert!(room.relay.backlog_bytes() <= (published.len() + chunk) as u64);
}

#[test]
fn each_slow_reader_has_its_own_time_to_stall() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let (early, late) = (room.join("early"), room.join("late"));
    early.stream.takes(0);
    publish(&mut room, &alice, "alice", SOFT / 2);
    room.pass(2 * SECOND);
    late.stream.takes(0);
    // Both are over the limit at once, and one has accepted nothing for two seconds already.
    publish(&mut room, &alice, "alice", 2 * SOFT);
    bob.stream.received();
    let published = talk(&mut room, &alice, "alice", 1_000_000);
    room.pass(3 * SECOND);
    assert!(room.relay.is_paused() && alice.stream.unread() > 900_000);
    accept_all(&mut room, &late);
    assert!(!room.relay.is_paused(), "the early one is stalled");
    assert_eq!(alice.stream.unread(), 0);
    assert_bytes(&bob.stream.received(), &published);
    assert_eq!(room.relay.next_timeout(), None);
}

#[test]
fn reader_below_the_minimum_rate_is_closed_while_the_room_is_paused_for_another() {
    let Paused {
        mut room,
        slow: steady,
        alice,
        ..
    } = paused_at(900_000);
    let slow = room.join("slow");
    accept_down_to(&mut room, &steady, SOFT / 2);
    slow.stream.takes(0);
    publish(&mut room, &alice, "alice", 900_000);
    for _ in 0..10 {
        assert!(!slow.stream.is_closed());
        accept(&mut room, &steady, 10_000);
        accept(&mut room, &slow, 1000);
        room.pass(SECOND);
    }
    accept(&mut room, &slow, 1000);
    assert!(slow.stream.is_closed());
    assert_eq!(closed(&room, "below_minimum_rate"), 1);
    assert!(room.relay.is_paused() && !steady.stream.is_closed());
}

// ---- Where no pause is wanted.

#[test]
fn with_the_cut_policy_no_member_is_waited_for() {
    let limits = Limits {
        slow: Slow::Cut,
        ..limits()
    };
    let texts = ReplyTexts {
        ack: Some(vec![b'k'; 1000]),
        ..ReplyTexts::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &texts);
    let (alice, slow, asker) = (
        room.join("alice"),
        room.join("slow"),
        room.connect_to(Ack64),
    );
    slow.stream.takes(0);
    asker.stream.takes(0);
    asker.stream.sends(wide_frame("").repeat(500));
    room.readable(&asker);
    talk(&mut room, &alice, "alice", 70 * SOFT);
    assert!(!slow.stream.is_closed() && !room.relay.is_paused());
    assert_eq!((alice.stream.unread(), asker.stream.unread()), (0, 0));
    talk(&mut room, &alice, "alice", 15 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
    assert!(slow.stream.is_closed());
    assert_eq!(closed(&room, "slow_consumer"), 1);
    assert!(!asker.stream.is_closed(), "it lags by half a megabyte");
    asker.stream.sends(wide_frame("").repeat(8000));
    room.readable(&asker);
    room.turns();
    assert!(asker.stream.is_closed());
    assert_eq!(closed(&room, "slow_consumer"), 2);
}

#[test]
fn member_that_receives_ticks_does_not_pause_the_room_and_is_closed_over_the_queue_limit() {
    let limits = Limits {
        max_message: 1000,
        soft_limit: 1000,
        queue_limit: 10_000,
        ..limits()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let listener = room.connect_to(Greet10);
    room.turns();
    let greeting = listener.stream.received().len();
    assert!(greeting > 0);
    listener.stream.takes(0);
    let tick = [b't'; 90];
    for _ in 0..100 {
        room.relay.publish_tick(&tick);
        room.turn();
        room.pass(SECOND / 10);
        assert!(!room.relay.is_paused());
    }
    assert_eq!(lag(&room, &listener), 10_000);
    assert!(!listener.stream.is_closed(), "at the limit");
    room.say(&alice, "as if nothing had happened");
    let expected = delivery("alice", "as if nothing had happened");
    assert_bytes(&bob.stream.received(), &expected);
    room.relay.publish_tick(&tick);
    room.turn();
    assert!(listener.stream.is_closed());
    assert_eq!(closed(&room, "slow_consumer"), 1);
}

#[test]
fn long_greeting_that_is_not_read_does_not_pause_the_room() {
    let texts = ReplyTexts {
        greeting: Some(vec![b'g'; 2 * SOFT]),
        ..ReplyTexts::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits(), &texts);
    let alice = room.join("alice");
    let listener = room.connect_to(Greet10);
    listener.stream.takes(0);
    room.turns();
    assert!(!room.relay.is_paused());
    talk(&mut room, &alice, "alice", 2 * SOFT);
    assert_eq!(alice.stream.unread(), 0);
    accept_all(&mut room, &listener);
    assert_bytes(&listener.stream.received(), &frame(vec![b'g'; 2 * SOFT]));
}
