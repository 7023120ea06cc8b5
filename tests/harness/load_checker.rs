//! The load tool against servers that do not relay as they should: each fault is counted as what it
//! is, exactly as often as it happened, and never holds the tool up.

#![cfg(feature = "cli")]

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::common::chat_room::{Act, Message, Room};
use crate::common::load::{Measured, arg, load, measure};
use crate::common::process::run;
use crate::common::{delivery, frame};

const MEMBERS: usize = 5;

/// Whom it happens to.
const VICTIM: usize = 3;

/// With which message. Those before it are there to find out who receives, and to fall into step.
const NTH: u64 = 30;

/// What the tool finds if the victim is sent this for one message, and whatever else is proper.
#[track_caller]
fn once(in_flight: &str, mut act: impl FnMut(&Message) -> Act + Send + 'static) -> Measured {
    let room = Room::start(MEMBERS, move |message, to| {
        if to == VICTIM && message.nth == NTH {
            act(message)
        } else {
            message.proper(to)
        }
    });
    fanout(&room, in_flight)
}

#[track_caller]
fn fanout(room: &Room, in_flight: &str) -> Measured {
    measure(&[
        "fanout",
        "--target",
        &arg(room.addr),
        "--members",
        &MEMBERS.to_string(),
        "--in-flight",
        in_flight,
        "--for",
        "300ms",
        "--warmup",
        "0s",
        "--wait",
        "sleep",
    ])
}

#[track_caller]
fn assert_faults(measured: &Measured, faults: &[&str]) {
    let report = format!("{:#}", measured.report);
    assert_eq!(measured.faults(), faults, "{report}");
    let expected = if faults.is_empty() { 0 } else { 5 };
    assert_eq!(measured.code, expected, "{report}");
}

#[test]
fn server_that_relays_everything_has_no_fault() {
    let room = Room::proper(MEMBERS);
    let measured = fanout(&room, "2");
    assert_faults(&measured, &[]);
    let received = room.finish();
    assert_eq!(received.names.len(), MEMBERS);
    assert!(
        received.messages.len() as u64 > NTH,
        "the others prove little"
    );
    let reported = measured.number("/messages");
    assert!(reported <= received.messages.len() as f64);
}

/// What each fault looks like is tested in `src/load/checker.rs`, where it is found. Here: that it gets from
/// there to the report.
#[test]
fn report_with_one_fault_of_each_kind_counts_each_once() {
    let mut held = Vec::new();
    let room = Room::start(MEMBERS, move |message, to| {
        let later = message.nth.checked_sub(NTH);
        match later {
            _ if to != VICTIM => message.proper(to),
            Some(0) => Act::Nothing,
            Some(1) => Act::Send(message.bytes().repeat(2)),
            Some(2) => {
                held = message.bytes();
                Act::Nothing
            }
            Some(3) => Act::Send([&message.bytes()[..], &held].concat()),
            Some(4) => {
                let mut text = message.text.clone();
                *text.last_mut().unwrap() ^= 1;
                Act::Send(delivery(&message.name, text))
            }
            _ => message.proper(to),
        }
    });
    let faults = ["lost 1", "duplicated 1", "out_of_order 1", "corrupt 1"];
    assert_faults(&fanout(&room, "2"), &faults);
}

#[test]
fn message_without_a_present_receiver_is_not_lost() {
    // As if the server took that long to take its members in.
    let room = Room::start(MEMBERS, |message, to| match &message.text[..16] {
        b"000000:000000000" | b"000000:000000001" => Act::Nothing,
        _ => message.proper(to),
    });
    assert_faults(&fanout(&room, "2"), &[]);
}

#[test]
fn message_that_comes_again_much_later_is_duplicated() {
    let mut kept = Vec::new();
    let room = Room::start(MEMBERS, move |message, to| match message.nth {
        NTH if to == VICTIM => {
            kept = message.bytes();
            message.proper(to)
        }
        again if to == VICTIM && again == 2 * NTH => {
            Act::Send([&message.bytes()[..], &kept].concat())
        }
        _ => message.proper(to),
    });
    assert_faults(&fanout(&room, "2"), &["duplicated 1"]);
}

#[test]
fn message_that_was_shortened_is_corrupt() {
    let shortened = |message: &Message| Act::Send(delivery(&message.name, &message.text[..60]));
    assert_faults(&once("2", shortened), &["corrupt 1"]);
}

#[test]
fn message_too_short_to_identify_is_corrupt_and_the_original_is_lost() {
    let empty = |message: &Message| Act::Send(delivery(&message.name, ""));
    assert_faults(&once("2", empty), &["lost 1", "corrupt 1"]);
}

#[test]
fn member_whose_bytes_do_not_match_their_headers_is_cut_as_garbled() {
    // Four bytes of what follows are taken for the end of this one; what follows begins amiss.
    let cut_short = |message: &Message| {
        let bytes = message.bytes();
        Act::Send(bytes[..bytes.len() - 4].to_vec())
    };
    let mut measured = once("2", cut_short);
    assert_eq!(measured.code, 5);
    // What was sent before the tool saw it is lost for this member: as many messages as there happened to be.
    let lost = measured.number("/lost");
    assert!((0.0..=8.0).contains(&lost), "{:#}", measured.report);
    measured.report["lost"] = 0.into();
    let faults = ["corrupt 1", "cut 1", "cuts/garbled 1"];
    assert_faults(&measured, &faults);
    measured.trouble("1 connection ended: 1 sent what is not in the protocol;");
}

#[test]
fn messages_of_other_clients_are_no_fault_and_are_reported() {
    let company = |message: &Message| {
        Act::Send(
            [
                delivery("alice", "hello?"),
                message.bytes(),
                delivery("", ""),
            ]
            .concat(),
        )
    };
    let measured = once("2", company);
    assert_faults(&measured, &[]);
    measured.trouble("received 2 messages of other clients in the same room");
}

#[test]
fn member_whose_connection_is_closed_is_cut_and_its_missing_messages_are_lost() {
    let measured = once("1", |_| Act::Close);
    assert_faults(&measured, &["lost 1", "cut 1", "cuts/closed 1"]);
    assert_eq!(measured.report["members"], MEMBERS - 1);
    measured.trouble("1 connection ended: 1 closed by the server;");
}

#[test]
fn member_whose_connection_is_reset_is_cut_and_its_missing_messages_are_lost() {
    let measured = once("1", |_| Act::Reset);
    assert_faults(&measured, &["lost 1", "cut 1", "cuts/reset 1"]);
    measured.trouble("1 connection ended: 1 reset by the server;");
}

#[test]
fn measurement_ends_in_time_when_the_only_sender_is_cut() {
    let room = Room::start(MEMBERS, |message, to| {
        if message.nth == NTH && to == message.from {
            Act::Close
        } else {
            message.proper(to)
        }
    });
    assert_faults(&fanout(&room, "1"), &["cut 1", "cuts/closed 1"]);
}

#[test]
fn member_that_receives_garbage_is_cut_as_garbled() {
    let garbage = |_: &Message| Act::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let measured = once("1", garbage);
    assert_faults(&measured, &["lost 1", "cut 1", "cuts/garbled 1"]);
}

#[test]
fn header_over_the_limit_is_garbled() {
    let measured = once("1", |_| Act::Send(b"9999999999".to_vec()));
    assert_faults(&measured, &["lost 1", "cut 1", "cuts/garbled 1"]);
}

#[test]
fn each_member_may_receive_the_senders_in_an_order_of_its_own() {
    let mixed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&mixed);
    let room = Room::start_by_turns(MEMBERS, move |messages, to| {
        let mut mine: Vec<_> = messages.iter().collect();
        // Only the order within what one sender says is kept.
        mine.sort_by_key(|message| (message.from + to) % MEMBERS);
        let senders = messages.windows(2).filter(|two| two[0].from != two[1].from);
        count.fetch_add(senders.count() as u64, Ordering::Relaxed);
        mine.iter().map(|message| message.proper(to)).collect()
    });
    let target = arg(room.addr);
    let time = ["--for", "300ms", "--warmup", "0s", "--wait", "sleep"];
    let plan = ["chat", "--members", "5", "--in-flight", "32"];
    let measured = measure(&[&plan[..], &time, &["--target", &target]].concat());
    assert_faults(&measured, &[]);
    assert!(mixed.load(Ordering::Relaxed) > 100, "there is an order");
}

/// A room in which the victim receives nothing.
fn deaf() -> Room {
    Room::start(MEMBERS, |message, to| match to {
        VICTIM => Act::Nothing,
        _ => message.proper(to),
    })
}

#[track_caller]
fn assert_not_chat(also: &str, rule: impl FnMut(&Message, usize) -> Act + Send + 'static) {
    let room = Room::start(MEMBERS, rule);
    let target = arg(room.addr);
    let plan = ["fanout", "--members", "5", "--in-flight", "2"];
    let time = ["--for", "100ms", "--warmup", "0s", "--wait", "sleep"];
    let flags = ["--json", "-", "--target", &target];
    let (code, out, err) = run(&mut load(&[&plan[..], &time, &flags].concat()));
    let expected = format!(
        "chatloop: {target} accepts connections, but no member receives the messages of others{also}; is it a \
         chat server of ten-byte headers? other protocols go before the address, as in `ws://`, `redis://` or `mqtt://`\n"
    );
    let last = err.lines().last().unwrap().to_owned() + "\n";
    assert_eq!((code, &out[..], last), (6, "", expected));
}

#[test]
fn server_that_answers_with_something_else_is_no_chat_server() {
    let also = ", and 5 sent what is not in the protocol";
    assert_not_chat(also, |_, _| {
        Act::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())
    });
}

/// Each of these waits some seconds for what does not come: all at a time, they take no longer.
#[test]
fn no_server_holds_the_tool_up_however_little_it_relays() {
    thread::scope(|scope| {
        for case in [
            message_whose_end_never_comes_is_lost_after_a_wait,
            member_that_receives_nothing_makes_the_measurement_a_failure,
            message_that_a_silent_member_does_not_receive_is_lost,
            reset_of_the_only_sender_is_reported_as_a_cut_and_not_as_another_protocol,
            server_that_relays_nothing_is_no_chat_server,
            server_that_relays_without_names_is_no_chat_server,
            server_that_accepts_no_connection_is_not_stormed,
        ] {
            scope.spawn(case);
        }
    });
}

/// A queue that overflows answers no client, and so measures the time until a client tries again.
fn server_that_accepts_no_connection_is_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = arg(listener.local_addr().unwrap());
    let plan = [
        "fanout",
        "--members",
        "100",
        "--for",
        "1ms",
        "--warmup",
        "0s",
    ];
    let (code, out, err) = run(&mut load(&[&plan[..], &["--target", &target]].concat()));
    assert_eq!((code, &out[..]), (6, ""));
    assert!(
        err.contains("receives the messages of others, and 36 timed out;"),
        "{err}"
    );
}

fn message_whose_end_never_comes_is_lost_after_a_wait() {
    let cut_short = |message: &Message| {
        let bytes = message.bytes();
        Act::Send(bytes[..bytes.len() - 4].to_vec())
    };
    // With one under way at a time nothing comes after it.
    assert_faults(&once("1", cut_short), &["lost 1"]);
}

fn member_that_receives_nothing_makes_the_measurement_a_failure() {
    let measured = fanout(&deaf(), "2");
    // It is not known what it was to receive, so there is no count of what is lost.
    assert_eq!(measured.faults(), [""; 0]);
    assert_eq!(measured.code, 5);
    measured.trouble("1 member received nothing, though connected; does the server relay");
}

fn message_that_a_silent_member_does_not_receive_is_lost() {
    let room = deaf();
    let plan = ["idle", "--members", "5", "--for", "10ms"];
    let measured = measure(&[&plan[..], &["--target", &arg(room.addr)]].concat());
    assert_faults(&measured, &["lost 1"]);
    assert_eq!(measured.report["deliveries"], 3);
}

fn reset_of_the_only_sender_is_reported_as_a_cut_and_not_as_another_protocol() {
    let room = Room::start(MEMBERS, |_, to| match to {
        0 => Act::Reset,
        _ => Act::Nothing,
    });
    let plan = ["idle", "--members", "5", "--for", "10ms"];
    let measured = measure(&[&plan[..], &["--target", &arg(room.addr)]].concat());
    assert_faults(&measured, &["lost 4", "cut 1", "cuts/reset 1"]);
}

fn server_that_relays_nothing_is_no_chat_server() {
    assert_not_chat("", |_, _| Act::Nothing);
}

fn server_that_relays_without_names_is_no_chat_server() {
    assert_not_chat("", |message, to| match message.proper(to) {
        Act::Send(_) => Act::Send(frame(&message.text)),
        other => other,
    });
}
