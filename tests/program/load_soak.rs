//! The soak against a relay, and against servers that do not treat those that come and go as they
//! should.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::chat_room::{Act, Message, Room};
use crate::common::chat_server::Refusal;
use crate::common::load::{Loading, Measured, arg, assert_fits_schema, load, measure, scratch};
use crate::common::process::{Relay, is_alone, run};
use crate::common::{at_once, delivery};

/// There were these faults and no others, and the exit code says so.
#[track_caller]
fn assert_faults(measured: &Measured, faults: &[&str]) {
    let report = format!("{:#}\n{}", measured.report, measured.err);
    assert_eq!(measured.faults(), faults, "{report}");
    let expected = if faults.is_empty() { 0 } else { 5 };
    assert_eq!(measured.code, expected, "{report}");
    assert_fits_schema(&measured.report);
}

/// Every kind of fault and every way to leave, in two seconds.
const BRIEF: [&str; 11] = [
    "soak",
    "--members",
    "10",
    "--faults",
    "10",
    "--rate",
    "300",
    "--churn",
    "20",
    "--duration",
    "2s",
];

#[test]
fn relay_loses_nothing_and_leaks_nothing_whatever_its_members_do() {
    let measured = measure(&[&BRIEF[..], &["--seed", "1"]].concat());
    assert_faults(&measured, &[]);
    let report = &measured.report;
    assert_eq!(measured.warnings_about_the_server(), [""; 0]);
    assert_eq!(report["members"], 10);
    assert_eq!(report["plan"]["seed"], 1);
    assert_eq!(report["plan"]["faults"], 10);
    for (object, count) in [("faults", 10), ("leaves", 4)] {
        let kinds = report[object].as_object().unwrap();
        assert_eq!(kinds.len(), count);
        for (kind, count) in kinds {
            assert!(count.as_u64() > Some(0), "{kind} in {report:#}");
        }
    }
    // A member that is leaving already when its time comes leaves once.
    let left = measured.number("/left");
    assert!((20.0..=40.0).contains(&left), "{report:#}");
    // Clients that send what is no message are not kept; and no client that reads is closed.
    for closed in ["no_frame", "too_long", "fin_inside"] {
        assert_eq!(report["closed"][closed], report["faults"][closed]);
    }
    for not_closed in ["trickle", "flood", "reset_inside"] {
        assert_eq!(report["closed"][not_closed], 0);
    }
    // All of the first, those that came for them, and those of the others that gave a name.
    assert!(measured.number("/joins") >= 10.0 + left + 9.0);
    assert!(measured.number("/messages") > 600.0);
    assert!(measured.number("/deliveries") > 6000.0);
    assert!(measured.number("/heard_bytes") > 1e6);
    assert!(measured.number("/lasted_seconds") >= 2.0);
    let descriptors = &report["server"]["descriptors"];
    assert_eq!(descriptors["at_end"], descriptors["at_start"]);
    assert!(measured.number("/server/descriptors/highest") > 15.0);
    let rss = |name| measured.number(&format!("/server/rss_{name}bytes"));
    for name in ["at_start_", "warm_", "second_quarter_", "last_quarter_", ""] {
        assert!(
            rss(name) > 100_000.0 && rss(name) <= rss("highest_"),
            "{name}"
        );
    }
}

/// The result of a soak in which only the server misbehaves.
#[track_caller]
fn soak(room: &Room, flags: &[&str]) -> Measured {
    // The descriptors that are counted are those of a process that has nothing to do with it.
    let bystander = Relay::start(&[]);
    let pid = bystander.pid().to_string();
    soak_and_watch(room, &[flags, &["--pid", &pid]].concat())
}

/// The same in which this process is watched, in which the room is. Such a test runs alone: what it
/// counts are the descriptors of the process.
#[track_caller]
fn soak_and_watch(room: &Room, flags: &[&str]) -> Measured {
    let target = arg(room.addr);
    let plan = ["soak", "--members", "5", "--faults", "0", "--rate", "300"];
    let time = ["--for", "500ms", "--target", &target];
    measure(&[&plan[..], &time, flags].concat())
}

const MEMBERS: usize = 5;

/// Whom it happens to, and with which message.
const VICTIM: usize = 3;
const NTH: u64 = 30;

/// What the soak finds if the victim is sent this for one message, and whatever else is proper.
#[track_caller]
fn once(act: impl FnMut(&Message) -> Act + Send + 'static) -> Measured {
    soak(&room_with(act), &["--churn", "0"])
}

fn room_with(mut act: impl FnMut(&Message) -> Act + Send + 'static) -> Room {
    let mut is_done = false;
    Room::start(MEMBERS, move |message, to| {
        // A message that all others receive, and that has something to alter.
        let fits = message.from != to && message.text.len() > 30;
        if to == VICTIM && message.nth >= NTH && fits && !is_done {
            is_done = true;
            act(message)
        } else {
            message.proper(to)
        }
    })
}

#[test]
fn server_that_relays_everything_to_changing_members_has_no_fault() {
    if !is_alone(
        module_path!(),
        "server_that_relays_everything_to_changing_members_has_no_fault",
    ) {
        return;
    }
    let room = Room::proper(MEMBERS);
    let measured = soak_and_watch(&room, &["--churn", "100"]);
    assert_faults(&measured, &[]);
    assert!(measured.number("/left") >= 10.0, "{:#}", measured.report);
    // What its process is doing besides is its own affair, but it has given back what it took.
    let kept = |text: &&&str| text.contains("descriptor");
    assert_eq!(measured.troubles().iter().find(kept), None);
    let names = room.finish().names;
    assert_eq!(measured.report["joins"], names.len());
    assert!(names.len() >= MEMBERS + 10, "{}", names.len());
}

/// What each fault looks like is tested in `src/load/soak/checker.rs`, where it is found. Here: that it
/// gets from there to the report.
#[test]
fn report_with_one_fault_of_each_kind_counts_each_once() {
    let mut stage = 0;
    let mut held = (0, Vec::new());
    let room = Room::start(MEMBERS, move |message, to| {
        if to != VICTIM || message.from == to || message.nth < NTH {
            return message.proper(to);
        }
        stage += 1;
        match stage {
            1 => Act::Nothing,
            2 => Act::Send(message.bytes().repeat(2)),
            // Only a longer message has something to alter.
            3 if message.text.len() > 30 => {
                let mut text = message.text.clone();
                *text.last_mut().unwrap() ^= 1;
                Act::Send(delivery(&message.name, text))
            }
            4 => {
                held = (message.from, message.bytes());
                Act::Nothing
            }
            5 if message.from == held.0 => Act::Send([message.bytes(), held.1.clone()].concat()),
            // It waits for a message that fits.
            3 | 5 => {
                stage -= 1;
                message.proper(to)
            }
            _ => message.proper(to),
        }
    });
    let faults = ["lost 1", "duplicated 1", "out_of_order 1", "corrupt 1"];
    assert_faults(&soak(&room, &["--churn", "0"]), &faults);
}

#[test]
fn last_message_of_a_leaving_member_is_delivered_to_all_or_to_none() {
    // With this seed the first member says something and closes its connection, and is the only one
    // to leave. What it says from when all others have received a client, it says then or just before.
    let plan = ["--churn", "2", "--seed", "22"];
    let cases = [(&[1, 2, 3, 4][..], 0), (&[], 0), (&[2], 3)];
    at_once(cases, |(hearers, lost)| {
        let last = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&last);
        let mut have_received = [true, false, false, false, false];
        let mut known = BTreeMap::new();
        let room = Room::start(MEMBERS, move |message, to| {
            let is_last = *known.entry(message.text.clone()).or_insert_with(|| {
                let has_spoken = &message.text[10..19] != b"000000000";
                let is_last = message.from == 0 && has_spoken && have_received == [true; MEMBERS];
                count.fetch_add(is_last.into(), Ordering::Relaxed);
                is_last
            });
            if is_last && !hearers.contains(&to) {
                return Act::Nothing;
            }
            if to != message.from && to < MEMBERS {
                have_received[to] = true;
            }
            message.proper(to)
        });
        let measured = soak(&room, &plan);
        assert_eq!(measured.report["leaves"]["fin"], 1);
        drop(room);
        let last = last.load(Ordering::Relaxed);
        assert!(last > 0, "it left in silence");
        let expected = (lost > 0).then(|| format!("lost {}", lost * last));
        let faults: Vec<_> = expected.iter().map(|fault| &fault[..]).collect();
        assert_faults(&measured, &faults);
    });
}

#[test]
fn member_that_is_closed_is_cut_and_another_comes() {
    let measured = once(|_| Act::Close);
    assert_faults(&measured, &["cut 1", "cuts/closed 1"]);
    measured.trouble("1 connection ended: 1 closed by the server;");
    assert_eq!(measured.report["joins"], MEMBERS + 1);
    assert_eq!(measured.report["members"], MEMBERS);
}

#[test]
fn member_that_receives_no_frame_is_cut_as_garbled() {
    let garbage = |_: &Message| Act::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert_faults(&once(garbage), &["cut 1", "cuts/garbled 1"]);
    // Nor does it wait for the end of what would be longer than anything that was sent.
    let endless = |_: &Message| Act::Send([&b"9999999   "[..], &b"x".repeat(40_000)].concat());
    assert_faults(&once(endless), &["cut 1", "cuts/garbled 1"]);
}

#[test]
fn descriptor_that_is_not_closed_is_a_leak() {
    if !is_alone(module_path!(), "descriptor_that_is_not_closed_is_a_leak") {
        return;
    }
    let mut kept = Vec::new();
    let room = room_with(move |message| {
        kept.push(File::open("/dev/null").unwrap());
        message.proper(VICTIM)
    });
    let measured = soak_and_watch(&room, &["--churn", "0"]);
    assert_eq!(measured.faults(), [""; 0]);
    assert_eq!(measured.code, 5, "{:#}", measured.report);
    measured.trouble("the server kept 1 descriptor too many while 5 members were silent");
    measured.trouble("the server kept 1 descriptor when all had left");
}

#[test]
fn member_that_receives_nothing_makes_the_soak_a_failure() {
    let room = Room::start(MEMBERS, |message, to| match to {
        VICTIM => Act::Nothing,
        _ => message.proper(to),
    });
    let measured = soak(&room, &["--churn", "0"]);
    assert_eq!(measured.faults(), [""; 0]);
    assert_eq!(measured.report["deaf"], 1);
    assert_eq!(measured.code, 5, "{:#}", measured.report);
}

#[test]
fn server_that_dies_ends_the_soak_with_the_figures_so_far() {
    let relay = Relay::start(&[]);
    let target = arg(relay.addr);
    let plan = [
        "soak",
        "--members",
        "5",
        "--faults",
        "0",
        "--churn",
        "0",
        "--json",
        "-",
    ];
    let mut loading = Loading::start(load(&[&plan[..], &["--target", &target]].concat()));
    loading.wait_until("soaking");
    relay.signal("KILL");
    let (code, out, err) = loading.wait();
    assert_eq!(code, 5, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_fits_schema(&report);
    // A member that connected again while the server was dying was cut once more.
    assert!(report["cut"].as_u64() >= Some(5), "{out}");
    assert!(report["refusals"]["refused"].as_u64() >= Some(5), "{out}");
}

#[test]
fn pause_of_the_load_tool_is_reported() {
    let plan = ["soak", "--members", "5", "--for", "1500ms", "--json", "-"];
    let mut loading = Loading::start(load(&plan));
    loading.wait_until("soaking");
    loading.hold_up(Duration::from_millis(500));
    let (code, out, err) = loading.wait();
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("the load tool itself did not run for "),
        "{out}"
    );
}

#[test]
fn ctrl_c_ends_the_soak_with_the_figures_so_far() {
    let mut loading = Loading::start(load(&["soak", "--members", "5", "--json", "-"]));
    loading.wait_until("soaking");
    loading.signal("INT");
    let (code, out, err) = loading.wait();
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_fits_schema(&report);
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["plan"]["for_seconds"], 3600.0);
}

#[test]
fn server_of_another_kind_is_reported_before_the_soak() {
    let refusal = Refusal::new();
    let (code, out, err) = run(&mut load(&["soak", "--target", &arg(refusal.addr())]));
    assert_eq!((code, &out[..]), (4, ""));
    assert!(
        err.ends_with("refused; does the server listen there?\n"),
        "{err}"
    );
    let room = Room::start(MEMBERS, |_, _| Act::Nothing);
    let target = arg(room.addr);
    let (code, out, err) = run(&mut load(&["soak", "--members", "5", "--target", &target]));
    assert_eq!((code, &out[..]), (6, ""));
    assert!(
        err.contains("no member receives the messages of others; is it a chat"),
        "{err}"
    );
}

#[test]
fn server_of_another_protocol_is_not_soaked() {
    let (code, out, err) = run(&mut load(&["soak", "--target", "redis://127.0.0.1:1"]));
    let expected =
        "chatloop: a soak is for servers that speak chat10 or ws-chat10, and not redis\n";
    assert_eq!((code, &out[..], &err[..]), (2, "", expected));
}

#[test]
fn table_has_the_seed_and_each_fault_and_the_chart_the_memory() {
    let path = scratch("soak.svg");
    let chart = ["--chart", path.to_str().unwrap()];
    let (code, out, err) = run(&mut load(&[&BRIEF[..], &chart, &["--seed", "42"]].concat()));
    assert_eq!(code, 0, "{out}{err}");
    let done = "10 members send 300 messages a second, and 20 a second leave and are replaced, beside 10 \
                that misbehave, for 2s; seed 42";
    assert_eq!(out.lines().next(), Some(done));
    for row in [
        "stopped reading",
        "flooded the room",
        "received and checked",
        "server, memory in the last quarter",
        "server, descriptors after all left",
        "lost, duplicated, out of order, altered, cut, refused",
    ] {
        assert!(out.contains(&format!("| {row} ")), "{row} in {out}");
    }
    assert!(
        err.lines().any(|line| line.starts_with("soaking ")),
        "{err}"
    );
    let svg = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(svg.contains("\nresident memory\n"), "{svg}");
}

#[test]
fn same_seed_has_each_member_send_the_same_number_of_messages() {
    let sent = |seed| {
        let room = Room::proper(MEMBERS);
        assert_faults(&soak(&room, &["--churn", "0", "--seed", seed]), &[]);
        let messages = room.finish().messages;
        let mut counts = BTreeMap::new();
        for message in &messages {
            *counts.entry(message.name.clone()).or_insert(0) += 1;
        }
        // Beside the 150 messages of the plan, each member sends one in each roll call. Only the sum
        // is reliable: the room may read one member's roll call before another's last message.
        let in_roll_calls = messages.len() - 150;
        assert_eq!(in_roll_calls % MEMBERS, 0);
        for count in counts.values_mut() {
            *count -= in_roll_calls / MEMBERS;
        }
        counts
    };
    let first = sent("7");
    assert_eq!(sent("7"), first);
    assert_ne!(sent("8"), first);
}
