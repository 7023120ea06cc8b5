//! Two relays and a Redis between them: one room, whatever becomes of the Redis.

use std::io::{Read, Write};
use std::net::TcpStream;

use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocket};

use crate::common::engine::Engine;
use crate::common::http::{body, get, sample};
use crate::common::process::{Relay, chatloop, run, wait_for};
use crate::common::{PATIENCE, assert_bytes, delivery, frame, wide_frame};

/// A relay of this name for members of three dialects, connected or not.
fn relay(engine: &Engine, node: &str, args: &[&str]) -> Relay {
    let bus = ["--bus", &engine.url(), "--bus-node", node];
    Relay::serving(
        &["chat10", "chat64", "ws", "metrics"],
        &[&bus, args].concat(),
    )
}

/// The same, connected.
fn connected(engine: &Engine, node: &str, args: &[&str]) -> Relay {
    let mut relay = relay(engine, node, args);
    relay.log_line("bus: connected to");
    relay
}

#[track_caller]
fn say(member: &mut TcpStream, text: &str) {
    member.write_all(&frame(text)).unwrap();
}

/// The member's next bytes are these messages, under this name.
#[track_caller]
fn expect(member: &mut TcpStream, name: &str, texts: &[&str]) {
    let expected: Vec<u8> = texts.iter().flat_map(|text| delivery(name, text)).collect();
    let mut got = vec![0; expected.len()];
    member.read_exact(&mut got).unwrap();
    assert_bytes(&got, &expected);
}

fn metrics(relay: &Relay) -> String {
    body(&get(relay.addr_of("metrics"), "/metrics")).to_owned()
}

/// Waits until everything that was said here is in the stream.
#[track_caller]
fn wait_until_sent(relay: &Relay) {
    wait_for("the engine has it", || {
        let metrics = metrics(relay);
        let value = |name| sample(&metrics, name);
        value("chatloop_bus_lag_bytes") + value("chatloop_bus_in_flight_entries") == 0
    });
}

type Browser = WebSocket<TcpStream>;

/// A member that joins as browsers do.
fn browse(relay: &mut Relay, name: &str) -> Browser {
    let addr = relay.addr_of("ws");
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut browser = WebSocket::from_raw_socket(stream, Role::Client, None);
    browser.send(Message::from(name)).unwrap();
    relay.log_line("joined:");
    browser
}

/// The next object that a browser receives.
#[track_caller]
fn next(browser: &mut Browser) -> String {
    browser.read().unwrap().into_text().unwrap().to_string()
}

#[test]
fn members_of_two_relays_chat_across_dialects() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let mut alice = east.join("alice");
    let mut bob = browse(&mut west, "bob");
    let mut carol = TcpStream::connect(west.addr_of("chat64")).unwrap();
    carol.set_read_timeout(Some(PATIENCE)).unwrap();
    west.log_line("joined:");

    assert!(next(&mut bob).contains("hello"));
    say(&mut alice, "hello, west");
    let received = next(&mut bob);
    assert!(
        received.contains(r#""name":"alice","message":"hello, west""#),
        "{received}"
    );
    bob.send(Message::from("hello, east")).unwrap();
    expect(&mut alice, "bob", &["hello, east"]);
    let mut heard = [0; 22];
    carol.read_exact(&mut heard).unwrap();
    assert_bytes(&heard, b"hello, westhello, east");
    carol.write_all(&wide_frame("hi")).unwrap();
    let name = carol.local_addr().unwrap().to_string();
    expect(&mut alice, &name, &["hi"]);
    assert_eq!(next(&mut bob), r#"{"ack":1}"#);
    // What has come from the bus does not go back to it.
    let entries = engine.ask("XLEN chatloop:{room}");
    assert_eq!(entries, ":3\r\n");
    let health = get(east.addr_of("metrics"), "/healthz");
    assert!(body(&health).starts_with("ok\nbus: up for "), "{health}");
}

#[test]
fn relays_of_another_room_hear_nothing() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let tea = format!("{}/0?room=tea", engine.url());
    let mut other = Relay::start(&["--bus", &tea]);
    other.log_line("bus: connected to");
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob, mut eve) = (east.join("alice"), west.join("bob"), other.join("eve"));
    say(&mut alice, "one");
    expect(&mut bob, "alice", &["one"]);
    other.join("mallory").write_all(&frame("two")).unwrap();
    expect(&mut eve, "mallory", &["two"]);
}

#[test]
fn engine_that_is_killed_costs_nobody_a_word() {
    let Some(mut engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    let mut near = east.join("near");
    for round in 0..3 {
        say(&mut alice, &format!("before {round}"));
        say(&mut bob, &format!("here too {round}"));
        engine.kill();
        let line = east.log_line("bus: no connection to");
        assert!(line.contains("members of this relay chat on"), "{line}");
        say(&mut alice, &format!("meanwhile {round}"));
        // Those at the same relay notice nothing.
        let texts = [format!("before {round}"), format!("meanwhile {round}")];
        for text in &texts {
            let mut got = vec![0; delivery("alice", text).len()];
            loop {
                near.read_exact(&mut got[..10]).unwrap();
                let is_alice = got.starts_with(b"5 ");
                let len = if is_alice { got.len() } else { 0 };
                if len > 0 {
                    near.read_exact(&mut got[10..]).unwrap();
                    break;
                }
                let mut rest = vec![0; delivery("bob", format!("here too {round}")).len() - 10];
                near.read_exact(&mut rest).unwrap();
            }
            assert_bytes(&got, &delivery("alice", text));
        }
        let health = get(east.addr_of("metrics"), "/healthz");
        assert!(body(&health).starts_with("ok\nbus: down for "), "{health}");
        engine.start_again();
        expect(&mut bob, "alice", &[&texts[0], &texts[1]]);
        expect(&mut alice, "bob", &[&format!("here too {round}")]);
        east.log_line("bus: connected to");
        west.log_line("bus: connected to");
    }
}

#[test]
fn engine_that_stands_still_is_left_and_costs_nobody_a_word() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    engine.signal("STOP");
    say(&mut alice, "one");
    let line = east.log_line("bus: no connection to");
    assert!(line.contains("it does not answer"), "{line}");
    say(&mut alice, "two");
    engine.signal("CONT");
    expect(&mut bob, "alice", &["one", "two"]);
}

#[test]
fn connections_that_the_engine_closes_cost_nobody_a_word() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    let mut said = Vec::new();
    for round in 0..20 {
        said.push(format!("word {round}"));
        say(&mut alice, &said[round]);
        engine.ask("CLIENT KILL TYPE normal SKIPME yes");
    }
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    expect(&mut bob, "alice", &said);
    say(&mut bob, "last");
    expect(&mut alice, "bob", &["last"]);
}

#[test]
fn engine_that_is_away_at_the_start_is_a_warning_and_hears_all_later() {
    let Some(mut engine) = Engine::stopped() else {
        return;
    };
    let mut east = relay(&engine, "east", &[]);
    let mut west = relay(&engine, "west", &[]);
    east.log_line("bus: no connection to");
    west.log_line("bus: no connection to");
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    say(&mut alice, "one");
    say(&mut bob, "two");
    engine.start_again();
    expect(&mut bob, "alice", &["one"]);
    expect(&mut alice, "bob", &["two"]);
}

#[test]
fn words_beyond_the_queue_are_given_up_and_counted_by_both_relays() {
    let Some(mut engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &["--bus-queue", "10KiB"]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    say(&mut alice, "zero");
    expect(&mut bob, "alice", &["zero"]);
    engine.kill();
    east.log_line("bus: no connection to");
    let long = "x".repeat(1000);
    for _ in 0..30 {
        say(&mut alice, &long);
    }
    east.log_line("giving up the oldest messages");
    wait_for("all are read", || {
        sample(&metrics(&east), "chatloop_messages_total") == 31
    });
    let given_up = sample(&metrics(&east), "chatloop_bus_given_up_total");
    assert_eq!(given_up, 21, "nine of 1025 bytes fit 10 KiB");
    engine.start_again();
    expect(&mut bob, "alice", &[&long[..]; 9]);
    west.log_line("bus: 21 messages of \"east\" are missing");
    let missing = sample(&metrics(&west), "chatloop_bus_missing_total{node=\"east\"}");
    assert_eq!(missing, 21);
}

#[test]
fn entries_that_are_trimmed_are_a_counted_gap() {
    let Some(mut engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    say(&mut alice, "zero");
    expect(&mut bob, "alice", &["zero"]);
    // The other relay stands still while the stream is trimmed.
    west.signal("STOP");
    for text in ["one", "two", "three"] {
        say(&mut alice, text);
        wait_until_sent(&east);
    }
    engine.ask("XTRIM chatloop:{room} MAXLEN 1");
    engine.ask("CLIENT KILL TYPE normal SKIPME yes");
    engine.kill();
    engine.start_again();
    west.signal("CONT");
    // What it was sent before it stood still may still reach it.
    say(&mut alice, "four");
    let mut heard = Vec::new();
    while !heard.ends_with(b"four") {
        let mut byte = [0];
        bob.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    let messages = heard.windows(5).filter(|part| part == b"alice").count() as u64;
    let metrics = metrics(&west);
    let missing = metrics
        .lines()
        .find_map(|line| line.strip_prefix("chatloop_bus_missing_total{node=\"east\"} "));
    let missing: u64 = missing.map_or(0, |count| count.parse().unwrap());
    assert_eq!(messages + missing, 4, "{}", heard.escape_ascii());
}

#[test]
fn entry_that_is_garbage_is_skipped_with_one_line() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    engine.ask("XADD chatloop:{room} * hello world");
    engine.ask("XADD chatloop:{room} * v 1 n x b 1-1 s 0 c 1 d nonsense");
    say(&mut alice, "one");
    expect(&mut bob, "alice", &["one"]);
    west.log_line("bus: skipped entry");
    assert!(west.try_log_line("bus: skipped entry").is_none());
    assert_eq!(sample(&metrics(&west), "chatloop_bus_unreadable_total"), 2);
}

#[test]
fn history_is_there_again_after_a_restart() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &["--history", "2"]);
    let mut alice = east.join("alice");
    for text in ["one", "two", "three"] {
        say(&mut alice, text);
    }
    wait_until_sent(&east);
    east.signal("TERM");
    assert_eq!(east.wait().0, 0);
    let mut east = relay(&engine, "east", &["--history", "2"]);
    let mut bob = east.join("bob");
    expect(&mut bob, "alice", &["two", "three"]);
    let mut carol = browse(&mut east, "carol");
    let received = [(); 3].map(|()| next(&mut carol)).concat();
    assert!(received.contains(r#"Z","name":"alice","message":"two""#));
    assert!(!received.contains("1970"), "{received}");
}

#[test]
fn last_words_before_a_relay_stops_reach_the_others() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut east = connected(&engine, "east", &[]);
    let mut west = connected(&engine, "west", &[]);
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    for _ in 0..1000 {
        say(&mut alice, "word");
    }
    east.signal("TERM");
    assert_eq!(east.wait().0, 0);
    expect(&mut bob, "alice", &["word"; 1000]);
}

#[test]
fn members_of_other_relays_are_counted() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let mut west = connected(&engine, "west", &[]);
    let _members = (west.join("alice"), west.join("bob"));
    drop(relay(&engine, "south", &[]));
    let mut east = connected(&engine, "east", &[]);
    let _carol = east.join("carol");
    let count = |relay: &Relay, node| {
        let name = format!("chatloop_bus_members{{node=\"{node}\"}} ");
        let metrics = metrics(relay);
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map(str::to_owned)
    };
    wait_for("the counts", || {
        count(&east, "west").as_deref() == Some("2")
    });
    wait_for("the counts", || {
        count(&west, "east").as_deref() == Some("1")
    });
}

#[test]
fn user_with_the_fewest_commands_is_enough() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let user = "ACL SETUSER relay on >secret resetkeys ~chatloop:{room}* -@all \
        +ping +time +xadd +xread +xrange +xrevrange +set +get +sadd +srem +smembers +mget";
    assert_eq!(engine.ask(user), "+OK\r\n");
    engine.ask("CONFIG SET requirepass other");
    let url = |login: &str| format!("redis://{login}@{}", engine.addr());
    let bus = url("relay:secret");
    let mut east = Relay::start(&["--bus", &bus, "--history", "5"]);
    let mut west = Relay::start(&["--bus", &bus]);
    east.log_line("bus: connected to");
    west.log_line("bus: connected to");
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    say(&mut alice, "one");
    expect(&mut bob, "alice", &["one"]);
    let mut wrong = Relay::start(&["--bus", &url("relay:wrong")]);
    let line = wrong.log_line("bus: no connection to");
    assert!(line.contains("WRONGPASS"), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[test]
fn failover_by_a_sentinel_costs_nobody_a_word() {
    let Some(first) = Engine::start() else {
        return;
    };
    let second = first.replica();
    let sentinel = first.sentinel();
    wait_for("the Sentinel knows the replica", || {
        let replicas = sentinel.ask("SENTINEL replicas main");
        replicas.contains(&second.addr().port().to_string())
    });
    let bus = format!("redis-sentinel://{}/main", sentinel.addr());
    let start = |node| {
        let bus = ["--bus", &bus, "--bus-node", node, "--bus-replicas", "1"];
        let mut relay = Relay::start(&bus);
        let line = relay.log_line("bus: connected to");
        assert!(line.contains(&first.addr().to_string()), "{line}");
        relay
    };
    let (mut east, mut west) = (start("east"), start("west"));
    let (mut alice, mut bob) = (east.join("alice"), west.join("bob"));
    say(&mut alice, "one");
    expect(&mut bob, "alice", &["one"]);
    // It waits until it has heard of the replica's state.
    wait_for("the Sentinel takes the replica", || {
        sentinel.ask("SENTINEL failover main") == "+OK\r\n"
    });
    let mut said = Vec::new();
    wait_for("both have changed over", || {
        said.push(format!("word {}", said.len()));
        say(&mut alice, said.last().unwrap());
        let is_there = |relay: &mut Relay| {
            let there = second.addr().to_string();
            let line = relay.try_log_line(&there);
            let known = relay.lines.iter().any(|line| line.contains(&there));
            line.is_some() || known
        };
        is_there(&mut east) && is_there(&mut west)
    });
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    expect(&mut bob, "alice", &said);
    say(&mut bob, "last");
    expect(&mut alice, "bob", &["last"]);
}

#[test]
fn url_that_cannot_work_is_refused_with_what_to_write() {
    let (code, _, log) = run(&mut chatloop(&["serve", "--bus", "127.0.0.1:6379"]));
    assert_eq!(code, 2);
    assert!(log.contains("write redis://127.0.0.1:6379"), "{log}");
    let (code, _, log) = run(&mut chatloop(&[
        "serve",
        "--bus",
        "redis://no.such.host.invalid",
    ]));
    assert_eq!(code, 3, "{log}");
}
