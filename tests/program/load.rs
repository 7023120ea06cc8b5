//! The load tool's scenarios against servers that do as they should, and what it writes.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use chatloop::descriptors;
use serde_json::Value;

use crate::common;
use crate::common::chat_room::{Received, Room};
use crate::common::chat_server::{Refusal, ScriptedServer};
use crate::common::load::{
    Loading, Measured, arg, assert_fits_schema, by, load, measure, measure_with, processes_with,
    schema, scratch,
};
use crate::common::process::{Relay, run, wait_for};

/// The five, short and small.
pub(crate) const SCENARIOS: [&[&str]; 5] = [
    &["idle", "--for", "50ms"],
    &["fanout", "--for", "100ms", "--warmup", "10ms"],
    &["chat", "--for", "100ms", "--warmup", "10ms"],
    &["latency", "--for", "100ms", "--warmup", "10ms"],
    &["storm", "--for", "50ms"],
];

/// Nothing was lost, and it says so.
#[track_caller]
pub(crate) fn assert_sound(measured: &Measured) {
    let report = format!("{:#}\n{}", measured.report, measured.err);
    assert_eq!(measured.faults(), [""; 0], "{report}");
    assert_eq!(measured.code, 0, "{report}");
}

#[test]
fn report_of_each_scenario_fits_the_schema() {
    for scenario in SCENARIOS {
        let measured = measure(&[scenario, &["--members", "6"]].concat());
        assert_sound(&measured);
        assert_fits_schema(&measured.report);
        let report = &measured.report;
        assert_eq!(report["scenario"], scenario[0]);
        assert_eq!(report["members"], 6);
        assert_eq!(report["plan"]["members"], 6);
        for path in [
            "/deliveries",
            "/deliveries_per_second",
            "/latency_us/samples",
            "/latency_us/p50",
            "/latency_us/p90",
            "/latency_us/p99",
            "/latency_us/p99.9",
            "/latency_us/max",
            "/server/rss_at_start_bytes",
            "/server/rss_bytes",
            "/server/cpu_ns_per_delivery",
        ] {
            assert!(measured.number(path) > 0.0, "{path} in {report:#}");
        }
        measured.number("/server/bytes_per_member");
        for percentiles in ["p50", "p90", "p99", "p99.9", "max"].windows(2) {
            let [less, more] =
                [0, 1].map(|one| measured.number(&format!("/latency_us/{}", percentiles[one])));
            assert!(less <= more, "{report:#}");
        }
        assert!(report.get("ratio").is_none() && report.get("against").is_none());
    }
}

#[test]
fn report_with_another_form_does_not_fit_the_schema() {
    let schema = schema();
    let report = measure(&["idle", "--members", "2", "--for", "10ms"]).report;
    assert!(schema.is_valid(&report));
    for (pointer, value) in [
        ("/lost", Value::from(-1)),
        ("/lost", Value::from(0.5)),
        ("/schema", Value::from(2)),
        ("/scenario", Value::from("chatter")),
        ("/started", Value::from("yesterday")),
        ("/latency_us/p50", Value::Null),
        ("/troubles", Value::from("none")),
    ] {
        let mut wrong = report.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        assert!(!schema.is_valid(&wrong), "{pointer}");
    }
    for object in ["", "/plan", "/server", "/latency_us"] {
        let mut wrong = report.clone();
        let more = wrong.pointer_mut(object).unwrap().as_object_mut().unwrap();
        more.insert("more".to_owned(), 1.into());
        assert!(!schema.is_valid(&wrong), "{object}");
    }
    for key in ["lost", "plan", "name", "pid"] {
        let mut wrong = report.clone();
        wrong.as_object_mut().unwrap().remove(key);
        assert!(!schema.is_valid(&wrong), "{key}");
    }
    let mut wrong = report.clone();
    wrong["ratio"] = Value::Object(serde_json::Map::new());
    assert!(!schema.is_valid(&wrong), "a ratio to what?");
}

#[test]
fn two_servers_are_measured_in_turns_and_compared() {
    let (one, other) = (Relay::start(&[]), Relay::start(&[]));
    let [target, against] = [&one, &other].map(|relay| arg(relay.addr));
    for scenario in SCENARIOS {
        let servers = ["--target", &target, "--against", &against];
        let rounds = ["--rounds", "2", "--members", "4"];
        let measured = measure(&[scenario, &servers, &rounds].concat());
        assert_sound(&measured);
        assert_fits_schema(&measured.report);
        let report = &measured.report;
        let name = |relay: &Relay| format!("chatloop serve, {}", relay.addr);
        assert_eq!(report["name"], name(&one));
        assert_eq!(report["against"]["name"], name(&other));
        for server in [report, &report["against"]] {
            let rounds = server["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 2);
            let deliveries = rounds.iter().map(|round| &round["deliveries"]);
            let sum: u64 = deliveries.map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(server["deliveries"], sum);
            // What the first round's members left is not always given back.
            let held = rounds.iter().map(|round| &round["server"]["rss_bytes"]);
            assert_eq!(
                held.map(Value::is_number).collect::<Vec<_>>(),
                [true, false]
            );
        }
        for path in ["/latency_us/p99.9", "/server/rss_bytes"] {
            let ratio = measured.number(path) / measured.number(&format!("/against{path}"));
            let reported = measured.number(&format!("/ratio{path}"));
            assert!(
                (ratio / reported - 1.0).abs() < 1e-9,
                "{path}: {ratio}, {reported}"
            );
        }
    }
}

#[test]
fn server_that_cannot_be_watched_has_no_figures_of_its_process() {
    // In a namespace of its own the tool sees none but itself.
    let alone = ["unshare", "-rpf", "--mount-proc"];
    let works = Command::new(alone[0])
        .args(&alone[1..])
        .arg("true")
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        common::skip("there are no process namespaces (unshare -rpf --mount-proc)");
        return;
    }
    let relay = Relay::start(&[]);
    for scenario in SCENARIOS {
        let flags = ["--members", "4", "--target", &arg(relay.addr)];
        let measured = measure_with(by(&alone, &load(&[scenario, &flags].concat())));
        assert_sound(&measured);
        assert_fits_schema(&measured.report);
        assert_eq!(measured.report["name"], relay.addr.to_string());
        assert!(measured.report.get("server").is_none());
    }
}

#[test]
fn idle_scenario_with_fifteen_thousand_members_loses_nothing() {
    let limit = descriptors::raise_limit().unwrap();
    // The relay has the same limit, and listens.
    let members = descriptors::room_for_clients(limit, 1).min(15_000);
    if members < 3000 {
        common::skip("the descriptor limit is too low (raise ulimit -Hn)");
        return;
    }
    let measured = measure(&["idle", "--members", &members.to_string(), "--for", "100ms"]);
    assert_sound(&measured);
    assert_eq!(measured.report["members"], members);
    assert_eq!(measured.report["deliveries"], members - 1);
    assert_eq!(measured.warnings_about_the_server(), [""; 0]);
}

/// What a table's rows and columns are called.
fn labels(table: &str) -> Vec<&str> {
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.split('|').nth(1).unwrap().trim())
        .collect()
}

#[test]
fn results_go_to_standard_output_and_progress_to_standard_error() {
    let relay = Relay::start(&[]);
    let target = arg(relay.addr);
    let flags = [
        "fanout",
        "--members",
        "5",
        "--for",
        "1200ms",
        "--warmup",
        "0s",
    ];
    let flags = [&flags[..], &["--wait", "sleep", "--target", &target]].concat();
    let (code, out, err) = run(&mut load(&flags));
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.lines().count() > 0);
    for line in err.lines() {
        assert!(line.starts_with("measuring "), "{err}");
        assert!(line.contains(" %: 5 members, "), "{err}");
    }
    let done = "1 of 5 members sends messages of 64 bytes, 64 under way at a time, for 1s 200ms";
    assert_eq!(out.lines().next(), Some(done));
    let expected = [
        "fanout",
        "members",
        "messages",
        "deliveries",
        "messages, a second",
        "deliveries, a second",
        "server, memory with all members",
        "server, CPU for a delivery",
        "server, CPU used",
        "load tool, busy",
        "lost, duplicated, out of order, altered, cut, refused",
        "times",
        "delay",
    ];
    assert_eq!(labels(&out), expected);
    let command = format!(", `chatloop load {}`", flags.join(" "));
    assert!(out.trim_end().ends_with(&command), "{out}");
    // Nothing but the tables, their subject and the warnings.
    let others: Vec<_> = out
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('|') && !line.starts_with("! "))
        .collect();
    assert_eq!(others.len(), 3, "{others:#?}");
}

#[test]
fn two_servers_have_a_column_each_and_one_for_the_ratio() {
    let (one, other) = (Relay::start(&[]), Relay::start(&[]));
    let [target, against] = [&one, &other].map(|relay| arg(relay.addr));
    let plan = ["idle", "--members", "4", "--for", "10ms", "--rounds", "1"];
    let servers = ["--target", &target, "--against", &against];
    let (code, out, _) = run(&mut load(&[&plan[..], &servers].concat()));
    assert_eq!(code, 0, "{out}");
    let names = [&target, &against].map(|addr| format!("chatloop serve, {addr}"));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = out.lines().filter(|line| line.starts_with('|')).map(cells);
    assert_eq!(
        lines.next().unwrap(),
        ["idle", &names[0], &names[1], "ratio"]
    );
    let received = lines.find(|cells| cells[0] == "deliveries");
    assert_eq!(received.unwrap(), ["deliveries", "3", "3", ""]);
    for label in [format!("delay, {}", names[0]), "delay, ratio".to_owned()] {
        assert!(labels(&out).contains(&&label[..]), "{label} in {out}");
    }
}

#[test]
fn json_goes_to_a_file_beside_the_table_or_takes_its_place() {
    let path = scratch("report.json");
    let file = path.to_str().unwrap();
    fs::write(&path, "what was there before, which is longer than nothing").unwrap();
    let plan = ["idle", "--members", "3", "--for", "10ms", "--json"];
    let (code, out, _) = run(&mut load(&[&plan[..], &[file]].concat()));
    assert_eq!(code, 0);
    assert!(out.starts_with("3 members are silent"), "{out}");
    let json = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(json.ends_with("}\n"));
    assert_fits_schema(&serde_json::from_str(&json).unwrap());

    let (code, out, _) = run(&mut load(&[&plan[..], &["-"]].concat()));
    assert_eq!(code, 0);
    assert!(out.starts_with("{\n"), "{out}");
    assert_fits_schema(&serde_json::from_str(&out).unwrap());
}

/// Checks that every tag is closed by its like, and returns the text between them.
#[track_caller]
fn text_of(svg: &str) -> String {
    let (mut open, mut text) = (Vec::new(), String::new());
    let mut rest = svg;
    while let Some((before, from)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, after) = from.split_once('>').expect("a tag has an end");
        assert!(!tag.contains('<'), "a < inside of a tag: {tag}");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), name, "</{tag}>");
        } else if !tag.ends_with('/') {
            open.push(name.unwrap());
        }
        rest = after;
    }
    assert_eq!(open, [""; 0], "these are never closed");
    for entity in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "apos;", "#"];
        assert!(
            known.iter().any(|known| entity.starts_with(known)),
            "&{entity}"
        );
    }
    text + rest
}

#[test]
fn each_scenario_has_a_chart() {
    let relay = Relay::start(&[]);
    let against = arg(relay.addr);
    let path = scratch("chart.svg");
    for (scenario, axis) in SCENARIOS.into_iter().zip([
        "resident memory",
        "deliveries a second",
        "deliveries a second",
        "delay",
        "time until they receive again",
    ]) {
        let flags = ["--members", "2", "--against", &against, "--rounds", "1"];
        let chart = ["--chart", path.to_str().unwrap()];
        let (code, _, err) = run(&mut load(&[scenario, &flags, &chart].concat()));
        assert_eq!(code, 0, "{err}");
        let svg = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(svg.starts_with("<svg "), "{svg}");
        assert!(svg.ends_with("</svg>\n"), "{svg}");
        let text = text_of(&svg);
        for part in [axis, "chatloop serve", "chatloop 0."] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn file_that_cannot_be_written_is_reported_before_the_measurement() {
    let room = Room::proper(2);
    let target = arg(room.addr);
    let path = scratch("no-such-folder").join("report");
    let file = path.to_str().unwrap();
    for flag in ["--json", "--chart"] {
        let flags = ["idle", "--members", "2", "--target", &target, flag, file];
        let (code, out, err) = run(&mut load(&flags));
        assert_eq!((code, &out[..]), (2, ""));
        let expected =
            format!("chatloop: cannot write {file}: No such file or directory (os error 2)\n");
        assert_eq!(err, expected);
    }
    assert_eq!(room.finish().peers.len(), 0);
}

#[test]
fn started_relay_accepts_messages_of_every_permitted_size() {
    let plan = ["fanout", "--members", "2", "--in-flight", "1"];
    let time = ["--for", "50ms", "--warmup", "0s", "--size", "2MiB"];
    let measured = measure(&[&plan[..], &time].concat());
    assert_eq!((measured.code, measured.faults()), (0, Vec::new()));
    let (_, help, _) = run(&mut load(&["--help"]));
    assert!(help.contains("For a --size over"), "{help}");
}

#[test]
fn report_and_chart_in_one_file_are_a_usage_error() {
    let path = scratch("both.svg");
    let file = path.to_str().unwrap();
    let (code, out, err) = run(&mut load(&["fanout", "--json", file, "--chart", file]));
    assert_eq!((code, &out[..]), (2, ""));
    let expected = format!(
        "chatloop: --json and --chart are both to be written to {file}; give each a file of its own\n"
    );
    assert_eq!(err, expected);
    assert!(!path.exists());
}

#[test]
fn flags_without_an_effect_are_usage_errors() {
    for (flag, value, says) in [
        ("--rounds", "3", "--against <"),
        ("--chart", "-", "standard output has the table"),
        ("--chart", "chart.png", "the picture is SVG"),
        ("--seed", "x", "not a number from 0 to "),
    ] {
        let (code, out, err) = run(&mut load(&["fanout", flag, value]));
        assert_eq!((code, &out[..]), (2, ""), "{err}");
        assert!(err.contains(says), "{err}");
    }
}

#[test]
fn failed_measurement_leaves_no_files_and_existing_ones_unchanged() {
    let (new, old) = (scratch("new.json"), scratch("old.svg"));
    fs::write(&old, "last week's").unwrap();
    let refusal = Refusal::new();
    let target = arg(refusal.addr());
    let plan = ["idle", "--members", "2", "--target", &target];
    let files = [
        "--json",
        new.to_str().unwrap(),
        "--chart",
        old.to_str().unwrap(),
    ];
    let (code, _, _) = run(&mut load(&[&plan[..], &files].concat()));
    assert_eq!(code, 4);
    assert!(!new.exists());
    assert_eq!(fs::read_to_string(&old).unwrap(), "last week's");
    fs::remove_file(&old).unwrap();
}

#[test]
fn more_senders_than_members_are_a_usage_error() {
    let (code, out, err) = run(&mut load(&["fanout", "--members", "5", "--senders", "6"]));
    assert_eq!((code, &out[..]), (2, ""));
    let expected = "chatloop: --senders 6: there are 5 members; ask for as many at most\n";
    assert_eq!(err, expected);
}

#[test]
fn ctrl_c_ends_the_measurement_with_the_figures_so_far_and_the_relay() {
    let marker = format!("LOAD_TEST=interrupted-{}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut command = load(&["fanout", "--members", "5", "--for", "1h", "--warmup", "0s"]);
    // A group of its own, all of which has the signal, as a terminal's has.
    command.env(name, value).process_group(0);
    let mut loading = Loading::start(command);
    loading.wait_until("measuring");
    let relays: Vec<_> = processes_with(&marker)
        .into_iter()
        .filter(|&pid| pid != loading.pid())
        .collect();
    assert_eq!(relays.len(), 1, "the tool has started a relay");
    let group = format!("-{}", loading.pid());
    let sent = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(sent.unwrap().success());
    let (code, out, err) = loading.wait();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("\n! ended before its time\n"), "{out}");
    let none = "| lost, duplicated, out of order, altered, cut, refused |";
    assert!(out.contains(none), "{out}");
    assert_eq!(processes_with(&marker), [0; 0]);
}

#[test]
fn report_of_an_interrupted_measurement_fits_the_schema() {
    let plan = ["latency", "--members", "5", "--for", "1h", "--warmup", "0s"];
    let mut loading = Loading::start(load(&[&plan[..], &["--json", "-"]].concat()));
    loading.wait_until("measuring");
    loading.signal("TERM");
    let (code, out, err) = loading.wait();
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_fits_schema(&report);
    assert_eq!(report["interrupted"], true);
}

#[test]
fn ctrl_c_before_the_first_figures_is_reported_and_leaves_no_file() {
    // The system accepts its connections, and no client receives anything.
    let server = ScriptedServer::new();
    let path = scratch("nothing.json");
    let plan = ["fanout", "--members", "3", "--target", &arg(server.addr())];
    let json = ["--json", path.to_str().unwrap()];
    let mut loading = Loading::start(load(&[&plan[..], &json].concat()));
    loading.wait_until("connecting");
    assert!(path.exists());
    loading.signal("INT");
    let (code, out, err) = loading.wait();
    assert_eq!((code, &out[..]), (1, ""));
    let expected = "chatloop: ended before there was anything to report";
    assert_eq!(err.lines().last(), Some(expected));
    assert!(!path.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn relay_that_was_started_ends_even_if_the_measurement_is_killed() {
    let marker = format!("LOAD_TEST=killed-{}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut command = load(&["fanout", "--members", "5", "--for", "1h", "--warmup", "0s"]);
    command.env(name, value);
    let mut loading = Loading::start(command);
    loading.wait_until("measuring");
    assert_eq!(processes_with(&marker).len(), 2);
    loading.signal("KILL");
    wait_for("the relay's end", || {
        !processes_with(&marker)
            .iter()
            .any(|&pid| pid != loading.pid())
    });
}

#[test]
fn relay_that_was_started_ends_with_the_measurement() {
    let marker = format!("LOAD_TEST=over-{}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut command = load(&["idle", "--members", "2", "--for", "10ms"]);
    let (code, ..) = run(command.env(name, value));
    assert_eq!(code, 0);
    assert_eq!(processes_with(&marker), [0; 0]);
}

#[test]
fn started_relay_reads_the_environment_and_its_warnings_are_reported() {
    let mut command = load(&[
        "fanout",
        "--members",
        "5",
        "--for",
        "50ms",
        "--warmup",
        "0s",
    ]);
    command.env("CHATLOOP_MAX_CLIENTS", "3");
    let measured = measure_with(command);
    // A refused connection ends with a FIN or with a reset: its name may arrive between the relay's
    // last read and its close.
    let causes = measured.report["cuts"].as_object().unwrap();
    assert!(
        causes
            .keys()
            .all(|cause| ["closed", "reset"].contains(&&cause[..])),
        "{causes:?}"
    );
    let cuts: u64 = causes.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(cuts, 2);
    let mut faults = measured.faults();
    faults.retain(|fault| !fault.starts_with("cuts/"));
    assert_eq!(faults, ["cut 2"]);
    assert_eq!(measured.code, 5);
    assert_eq!(measured.report["members"], 3);
    let text = measured.trouble("the relay logged: ");
    assert!(
        text.ends_with("all 3 places are taken (limit: --max-clients)"),
        "{text}"
    );
}

/// What a room receives from a measurement with this seed.
#[track_caller]
fn received_with(plan: &[&str], seed: &str) -> Received {
    let room = Room::proper(5);
    let target = arg(room.addr);
    let flags = ["--members", "5", "--wait", "sleep", "--seed", seed];
    let time = ["--for", "100ms", "--warmup", "0s", "--target", &target];
    assert_sound(&measure(&[plan, &flags, &time].concat()));
    let mut received = room.finish();
    received.names.sort();
    received
}

#[test]
fn same_seed_sends_the_same_messages_and_another_does_not() {
    let first = |seed| {
        let received = received_with(&["fanout"], seed);
        let mut by_first = received.messages.into_iter().filter(|one| one.from == 0);
        (received.names, by_first.next().unwrap().text)
    };
    let (names, text) = first("7");
    assert_eq!(first("7"), (names.clone(), text.clone()));
    let (other_names, other_text) = first("8");
    assert_ne!(other_names, names);
    assert_ne!(other_text, text);
}

#[test]
fn same_seed_has_the_same_members_send() {
    let senders = |seed| {
        let received = received_with(&["latency", "--rate", "600"], seed).messages;
        // Before the sixty of the schedule are those that found out who receives.
        let mut counts = BTreeMap::new();
        for message in &received[received.len() - 60..] {
            *counts.entry(message.from).or_insert(0) += 1;
        }
        counts
    };
    let counts = senders("7");
    assert_eq!(senders("7"), counts);
    assert_ne!(senders("8"), counts);
}

/// A server of another program, on a free port of 127.0.0.1.
pub(crate) struct Broker {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Broker {
    /// None, and a line that says so, if it is not installed or does not start. `flags` are those for a
    /// port.
    pub(crate) fn start(program: &str, flags: impl Fn(&str) -> Vec<String>) -> Option<Self> {
        for _ in 0..10 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            drop(listener);
            let child = Command::new(program)
                .args(flags(&addr.port().to_string()))
                .current_dir(std::env::temp_dir())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = child else {
                common::skip(&format!("{program} is not installed"));
                return None;
            };
            let mut broker = Self { child, addr };
            let mut has_ended = false;
            wait_for("the broker to listen or to end", || {
                has_ended = broker.child.try_wait().unwrap().is_some();
                has_ended || TcpStream::connect(addr).is_ok()
            });
            // Another program may have taken the port meanwhile.
            if !has_ended {
                return Some(broker);
            }
        }
        common::skip(&format!("{program} does not start"));
        None
    }

    #[track_caller]
    pub(crate) fn is_measured_as(&self, protocol: &str) {
        let target = format!("{protocol}://{}", self.addr);
        for scenario in SCENARIOS {
            let flags = ["--members", "6", "--target", &target];
            let measured = measure(&[scenario, &flags].concat());
            assert_sound(&measured);
            assert_fits_schema(&measured.report);
            assert!(measured.number("/server/rss_bytes") > 0.0);
            if scenario[0] == "idle" {
                assert_eq!(measured.report["deliveries"], 5);
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn redis_is_measured_on_the_same_work() {
    let flags = |port: &str| {
        let flags = ["--bind", "127.0.0.1", "--save", "", "--port", port];
        flags.map(str::to_owned).to_vec()
    };
    if let Some(broker) = Broker::start("redis-server", flags) {
        broker.is_measured_as("redis");
    }
}

#[test]
fn mqtt_broker_is_measured_on_the_same_work() {
    let flags = |port: &str| vec!["-p".to_owned(), port.to_owned()];
    if let Some(broker) = Broker::start("mosquitto", flags) {
        broker.is_measured_as("mqtt");
    }
}

#[test]
fn nats_is_measured_on_the_same_work() {
    let flags = |port: &str| ["-a", "127.0.0.1", "-p", port].map(str::to_owned).to_vec();
    if let Some(broker) = Broker::start("nats-server", flags) {
        broker.is_measured_as("nats");
    }
}
