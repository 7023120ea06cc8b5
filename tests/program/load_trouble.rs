//! What can go wrong on a measurement's way, provoked for real: the load tool says what it was, what
//! to do about it, and ends with the code for it.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common;
use crate::common::chat_room::Room;
use crate::common::chat_server::Refusal;
use crate::common::load::{
    Loading, Measured, arg, by, load, measure, measure_with, with_descriptors,
};
use crate::common::process::{Relay, chatloop, run};
use crate::common::shim::compiled;
use crate::common::{at_once, frame};

/// The tool says this and nothing else, and ends with this code.
#[track_caller]
fn assert_says(command: &mut Command, code: i32, says: &str) {
    let (actual, out, err) = run(command);
    assert_eq!((actual, &out[..]), (code, ""), "{err}");
    assert_eq!(err, format!("chatloop: {says}\n"));
}

#[test]
fn too_few_descriptors_of_the_load_tool_are_reported_before_it_connects() {
    let command = load(&["idle", "--members", "200"]);
    let says = "200 connections are more than the open-file limit has room for, which is 83; ask for \
                fewer, or raise it (ulimit -Hn)";
    assert_says(&mut with_descriptors(100, &command), 2, says);
    // With a relay elsewhere there is no listener, and room for one more.
    let target = ["--target", "127.0.0.1:1"];
    let command = load(&[&["idle", "--members", "85"][..], &target].concat());
    let says = "85 connections are more than the open-file limit has room for, which is 84; ask for \
                fewer, or raise it (ulimit -Hn)";
    assert_says(&mut with_descriptors(100, &command), 2, says);
}

#[test]
fn without_a_number_there_are_as_many_silent_members_as_descriptors_allow() {
    let command = load(&["idle", "--for", "10ms"]);
    let measured = measure_with(with_descriptors(100, &command));
    assert_eq!(measured.code, 0, "{:#}", measured.report);
    assert_eq!(measured.report["members"], 83);
}

#[test]
fn too_few_descriptors_of_the_server_are_reported_beforehand_and_its_cuts_counted() {
    let serve = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
    let relay = Relay::spawn(with_descriptors(64, &serve));
    let target = arg(relay.addr);
    let plan = ["idle", "--members", "200", "--for", "10ms"];
    let measured = measure(&[&plan[..], &["--target", &target]].concat());
    let warning = format!(
        "chatloop: the server (pid {}) may open 64 descriptors, which may be too few for 200 members; \
         start it after `ulimit -n 300`",
        relay.pid()
    );
    assert_eq!(measured.err.lines().next(), Some(&warning[..]));
    assert_eq!(measured.code, 5);
    // The relay keeps some descriptors for itself and turns the others away.
    assert_eq!(measured.report["members"], 47);
    assert_eq!(measured.report["cut"], 153);
    assert_eq!(measured.report["deliveries"], 46);
    let text = measured.trouble("153 connections ended: ");
    let remedy = "; the server's log may say why, and its descriptor limit, its limit of clients and \
                  its queue limit are where to look first";
    assert!(text.ends_with(remedy), "{text}");
}

#[test]
fn members_over_the_limit_of_the_server_are_cut() {
    let relay = Relay::start(&["--max-clients", "5"]);
    let target = arg(relay.addr);
    let plan = [
        "fanout",
        "--members",
        "8",
        "--for",
        "50ms",
        "--warmup",
        "0s",
    ];
    let measured = measure(&[&plan[..], &["--target", &target]].concat());
    assert_eq!(measured.code, 5);
    assert_eq!(measured.report["members"], 5);
    assert_eq!(measured.report["cut"], 3);
    assert_eq!(measured.report["lost"], 0);
}

#[test]
fn server_that_dies_ends_the_measurement_with_the_figures_so_far() {
    let timed = ["--warmup", "0s"];
    let cases = [
        ("fanout", &timed[..], "measuring"),
        ("latency", &timed, "measuring"),
        ("storm", &[], "storming"),
    ];
    at_once(cases, |(scenario, flags, phase)| {
        let relay = Relay::start(&[]);
        let target = arg(relay.addr);
        let plan = [scenario, "--members", "5", "--for", "1h", "--json", "-"];
        let target = ["--target", &target];
        let mut loading = Loading::start(load(&[&plan[..], flags, &target].concat()));
        loading.wait_until(phase);
        relay.signal("KILL");
        let (code, out, err) = loading.wait();
        assert_eq!(code, 5, "{scenario}: {out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let ended = ["cut", "refused"].map(|key| report[key].as_u64().unwrap());
        let ended: u64 = ended.iter().sum();
        // With one member left none receives anything, and its end is not waited for. In a storm, members that had
        // just lost a connection may have been refused another.
        assert!(
            matches!(ended, 4 | 5) || scenario == "storm" && ended > 5,
            "{report:#}"
        );
    });
}

#[test]
fn server_that_dies_in_a_later_round_is_a_failure_and_earlier_rounds_are_reported() {
    let (target, against) = (Relay::start(&[]), Relay::start(&[]));
    let servers = [
        "--target",
        &arg(target.addr),
        "--against",
        &arg(against.addr),
    ];
    let plan = [
        "latency",
        "--members",
        "3",
        "--for",
        "1500ms",
        "--warmup",
        "0s",
    ];
    let rounds = ["--rounds", "1000", "--json", "-"];
    let mut loading = Loading::start(load(&[&plan[..], &servers, &rounds].concat()));
    // While the other one has its turn, so that no client is cut.
    let turn = format!("(round 2 of 1000, chatloop serve, {})", target.addr);
    loading.wait_for(&turn);
    against.signal("KILL");
    let (code, out, err) = loading.wait();
    assert_eq!(code, 5, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let troubles = report["against"]["troubles"].as_array().unwrap();
    let last = troubles.last().and_then(Value::as_str).unwrap();
    let says = format!("a later round failed: cannot connect to {}", against.addr);
    assert!(last.starts_with(&says), "{last}");
    assert!(report["ratio"]["latency_us"]["p50"].is_number(), "{out}");
}

/// Runs a command where connections have the ports 40000-40011 and no others: an even number, since
/// the system does not always find the last one of an odd number. None, and a line that says so,
/// where this cannot be.
fn with_ports(command: &Command) -> Option<Command> {
    let own = ["unshare", "-rn"];
    let up = Command::new(own[0])
        .args(["-rn", "ip", "link", "set", "lo", "up"])
        .output();
    if !up.is_ok_and(|output| output.status.success()) {
        common::skip("there are no network namespaces (unshare -rn ip link set lo up)");
        return None;
    }
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    let script = format!("ip link set lo up && echo 40000 40011 > {range} && exec \"$@\"");
    Some(by(
        &[&own[..], &["sh", "-c", &script, "sh"]].concat(),
        command,
    ))
}

#[test]
fn more_members_than_ports_are_reported_with_a_remedy_before_it_connects() {
    let plan = ["idle", "--members", "25", "--for", "10ms"];
    let Some(mut command) = with_ports(&load(&plan)) else {
        return;
    };
    let says = "25 connections need more ports than 1 source address has (40000-40011: 12 in all); \
                give more addresses, as in --bind 127.0.0.1-127.0.0.3";
    assert_says(&mut command, 2, says);
    // It does help.
    let bind = ["--bind", "127.0.0.1-127.0.0.3"];
    let command = load(&[&plan[..], &bind].concat());
    let measured = measure_with(with_ports(&command).unwrap());
    assert_eq!(measured.code, 0, "{:#}", measured.report);
    let budget =
        "chatloop: 3 source addresses with the ports 40000-40011: enough for 36 connections\n";
    assert_eq!(measured.err, budget);
    assert_eq!(measured.report["members"], 25);

    let bind = ["--bind", "127.0.0.1-127.0.0.2"];
    let command = load(&[&plan[..], &bind].concat());
    let says = "25 connections need more ports than 2 source addresses have (40000-40011: 24 in \
                all); give more addresses, as in --bind 127.0.0.1-127.0.0.3";
    assert_says(&mut with_ports(&command).unwrap(), 2, says);
}

#[test]
fn ports_that_run_out_during_the_ramp_up_are_counted_and_reported() {
    let plan = ["idle", "--members", "12", "--for", "10ms"];
    let Some(command) = with_ports(&load(&plan)) else {
        return;
    };
    let measured = measure_with(command);
    // The relay has the twelfth: it listens there.
    assert_eq!(measured.faults(), ["refused 1", "refusals/no_port 1"]);
    assert_eq!(measured.code, 5);
    assert_eq!(measured.report["members"], 11);
    let expected = "11 connected, 1 did not: 1 without a port on this side; use more source \
                    addresses, as in --bind 127.0.0.1-127.0.0.4";
    assert_eq!(measured.warnings_about_the_server(), [expected]);
}

#[test]
fn ports_of_source_addresses_that_run_out_are_counted() {
    let flags = [
        "--members",
        "24",
        "--for",
        "10ms",
        "--bind",
        "127.0.0.1-127.0.0.2",
    ];
    let command = load(&[&["idle"][..], &flags].concat());
    let Some(command) = with_ports(&command) else {
        return;
    };
    let measured = measure_with(command);
    assert_eq!(measured.faults(), ["refused 1", "refusals/no_port 1"]);
}

#[test]
fn source_addresses_of_other_machines_are_reported() {
    let relay = Relay::start(&[]);
    let target = arg(relay.addr);
    // One of the addresses for documentation, which belong to no machine.
    let plan = ["fanout", "--members", "5", "--bind", "192.0.2.1"];
    let (code, out, err) = run(&mut load(&[&plan[..], &["--target", &target]].concat()));
    assert_eq!((code, &out[..]), (4, ""));
    let (budget, error) = err.split_once('\n').unwrap();
    assert!(budget.starts_with("chatloop: 1 source address with the ports "));
    assert!(budget.ends_with(" connections"), "{budget}");
    let expected = format!(
        "chatloop: cannot connect to {target}: from an address that this machine does not have; give \
         --bind addresses of this machine\n"
    );
    assert_eq!(error, expected);

    let plan = ["fanout", "--members", "5", "--bind", "::1"];
    let says = format!("--bind: {target} cannot be reached from there");
    let mut command = load(&[&plan[..], &["--target", &target]].concat());
    assert_says(&mut command, 2, &says);
}

#[test]
fn each_source_address_has_its_share_of_the_members() {
    let room = Room::proper(6);
    let target = arg(room.addr);
    let plan = [
        "fanout",
        "--members",
        "6",
        "--for",
        "50ms",
        "--warmup",
        "0s",
    ];
    let flags = ["--bind", "127.0.0.2-127.0.0.4", "--target", &target];
    let measured = measure(&[&plan[..], &flags].concat());
    assert_eq!((measured.code, measured.faults()), (0, Vec::new()));
    let mut counts = BTreeMap::new();
    for peer in room.finish().peers {
        *counts.entry(peer.ip()).or_insert(0) += 1;
    }
    let expected = [2, 3, 4].map(|last| (IpAddr::from([127, 0, 0, last]), 2));
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn server_whose_name_has_no_address_is_reported_at_once() {
    let mut command = load(&["fanout", "--target", "nobody.invalid:1234"]);
    let (code, out, err) = run(&mut command);
    assert_eq!((code, &out[..]), (4, ""));
    let says = "chatloop: cannot find the address of nobody.invalid: ";
    assert!(err.starts_with(says) && err.lines().count() == 1, "{err}");
}

#[test]
fn address_without_a_listener_is_reported_at_once() {
    let refusal = Refusal::new();
    let target = arg(refusal.addr());
    for scenario in ["idle", "fanout", "chat", "latency", "storm"] {
        // None of them waits out its time.
        let flags = [
            scenario,
            "--members",
            "5",
            "--for",
            "1h",
            "--target",
            &target,
        ];
        let says = format!("cannot connect to {target}: refused; does the server listen there?");
        assert_says(&mut load(&flags), 4, &says);
    }
}

#[test]
fn connection_attempt_without_an_answer_times_out() {
    // A connection after these is not even refused.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let waiting = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&addr);
        socket
    };
    let _queue: Vec<Socket> = (0..4).map(|_| waiting()).collect();
    let target = arg(addr.as_socket().unwrap());
    let (code, out, err) = run(&mut load(&[
        "fanout",
        "--members",
        "3",
        "--yes",
        "--target",
        &target,
    ]));
    assert_eq!((code, &out[..]), (4, ""));
    let says = format!(
        "chatloop: cannot connect to {target}: timed out; the server may accept too slowly, or a \
         firewall may be in the way"
    );
    assert_eq!(err.lines().last(), Some(&says[..]));
}

#[test]
fn pid_without_a_process_is_a_usage_error() {
    let relay = Relay::start(&[]);
    let target = arg(relay.addr);
    // One more than Linux ever gives.
    let flags = [
        "idle",
        "--members",
        "5",
        "--pid",
        "4194305",
        "--target",
        &target,
    ];
    let says = "--pid 4194305: cannot watch it: No such file or directory (os error 2)";
    assert_says(&mut load(&flags), 2, says);
}

#[test]
fn pause_of_the_load_tool_is_reported_and_is_in_the_delays() {
    let plan = [
        "latency",
        "--members",
        "5",
        "--for",
        "1500ms",
        "--warmup",
        "0s",
    ];
    let mut loading = Loading::start(load(&[&plan[..], &["--json", "-"]].concat()));
    loading.wait_until("measuring");
    loading.hold_up(Duration::from_millis(400));
    let (code, out, err) = loading.wait();
    assert_eq!(code, 0, "{out}{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let troubles = report["troubles"].as_array().unwrap();
    let pause = troubles
        .iter()
        .map(|text| text.as_str().unwrap())
        .find(|text| {
            text.starts_with("the load tool itself did not run for ")
                && text.contains(": it was stopped, or the machine was; delays have this in them")
        });
    assert!(pause.is_some(), "{troubles:#?}");
    // A message was due every ten milliseconds, and each delay is from when it was.
    // More than a quarter of them waited for as long as it still did not run.
    let p90 = report["latency_us"]["p90"].as_f64().unwrap();
    assert!(p90 >= 200_000.0, "{report:#}");
}

/// The library that changes the clock and the pace of what it is loaded into. None, and a line that
/// says so, if there is nothing to compile it with.
fn shim() -> Option<&'static PathBuf> {
    static SHIM: LazyLock<Option<PathBuf>> = LazyLock::new(|| compiled("load_shim"));
    SHIM.as_ref()
}

#[test]
fn clock_that_is_set_meanwhile_is_reported_and_changes_no_figure() {
    let Some(shim) = shim() else { return };
    let relay = Relay::start(&[]);
    for (seconds, way) in [("3600", "forward"), ("-3600", "back")] {
        let time = [
            "--for",
            "600ms",
            "--warmup",
            "0s",
            "--target",
            &arg(relay.addr),
        ];
        let mut command = load(&[&["latency", "--members", "5"][..], &time].concat());
        command.env("LD_PRELOAD", shim).env("SHIM_JUMP", seconds);
        let measured = measure_with(command);
        assert_eq!((measured.code, measured.faults()), (0, Vec::new()));
        let text =
            format!("the machine's clock was set {way} by 3600 s meanwhile; the figures are");
        measured.trouble(&text);
        assert!(measured.number("/latency_us/max") < 60e6);
        let rate = measured.number("/messages_per_second");
        assert!((50.0..=101.0).contains(&rate), "{rate} is not about 100");
    }
}

/// A measurement in which each read takes the load tool twenty milliseconds: longer than a busy machine
/// has it wait for the server or for a core. `None`, and a notice, without a compiler for that.
fn slowed(plan: &[&str]) -> Option<Measured> {
    let shim = shim()?;
    let relay = Relay::start(&[]);
    let time = ["--for", "500ms", "--warmup", "0s"];
    let target = ["--target", &arg(relay.addr)];
    let mut command = load(&[plan, &time, &target].concat());
    command.env("LD_PRELOAD", shim).env("SHIM_BUSY_US", "20000");
    let measured = measure_with(command);
    assert_eq!((measured.code, measured.faults()), (0, Vec::new()));
    Some(measured)
}

#[test]
fn load_tool_that_is_the_bottleneck_is_reported() {
    let Some(measured) = slowed(&["fanout", "--members", "5"]) else {
        return;
    };
    let text = measured.trouble("the load tool was the bottleneck: it was busy ");
    let end = " of one: do not take the server's limits from this";
    assert!(
        text.contains(" % of a core; the server used ") && text.ends_with(end),
        "{text}"
    );
}

#[test]
fn messages_that_are_sent_late_are_reported_with_their_lateness() {
    let Some(measured) = slowed(&["latency", "--members", "5", "--rate", "2000"]) else {
        return;
    };
    let text = measured.trouble("one in a hundred messages was sent ");
    assert!(
        text.contains(" late or more, which is in the delays"),
        "{text}"
    );
    // Reading the messages to four members takes eighty milliseconds, in which none is sent.
    assert!(measured.number("/load_tool/late_us") >= 20_000.0);
    assert!(measured.number("/latency_us/p50") >= 20_000.0);
}

#[test]
fn room_with_members_is_measured_only_with_yes() {
    let relay = Relay::start(&[]);
    let mut member = TcpStream::connect(relay.addr).unwrap();
    member.write_all(&frame("alice")).unwrap();
    let target = arg(relay.addr);
    let flags = ["idle", "--members", "3", "--for", "10ms"];
    let flags = [&flags[..], &["--target", &target]].concat();
    let says = format!(
        "{target} has 1 connection already, which would receive all messages of this measurement; \
         with --yes it is measured all the same"
    );
    assert_says(&mut load(&flags), 2, &says);
    member.set_nonblocking(true).unwrap();
    let nothing = member.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);

    let measured = measure(&[&flags[..], &["--yes"]].concat());
    assert_eq!(measured.code, 0, "{:#}", measured.report);
    member.set_nonblocking(false).unwrap();
    let mut header = [0; 10];
    member.read_exact(&mut header).unwrap();
    assert_eq!(&header, b"10        ", "the length of a sender's name");
}

#[test]
fn server_to_compare_with_is_tried_before_the_first_round() {
    let room = Room::proper(2);
    let refusal = Refusal::new();
    let [target, against] = [room.addr, refusal.addr()].map(arg);
    let flags = ["fanout", "--members", "2", "--for", "1h"];
    let servers = ["--target", &target, "--against", &against];
    let says = format!("cannot connect to {against}: refused; does the server listen there?");
    assert_says(&mut load(&[&flags[..], &servers].concat()), 4, &says);
    assert_eq!(room.finish().peers.len(), 0);
}
