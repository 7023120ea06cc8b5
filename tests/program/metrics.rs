//! The listener for metrics: what Prometheus reads there, and what it withstands.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::common::http::{body, get};
use crate::common::process::{Relay, wait_for};
use crate::common::{PATIENCE, assert_bytes, delivery, frame, wide_frame};

/// The samples of a scrape: each name with its labels, and its value.
fn scrape(relay: &Relay) -> BTreeMap<String, String> {
    let response = get(relay.addr_of("metrics"), "/metrics");
    assert!(response.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    let lines = body(&response).lines();
    let samples = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.to_owned())
    });
    samples.collect()
}

/// A sample as a number.
fn number(relay: &Relay, name: &str) -> f64 {
    scrape(relay)[name].parse().unwrap()
}

/// A blocking member, known to be one because it has received this member's message.
fn member(addr: SocketAddr, name: &str) -> TcpStream {
    let mut member = TcpStream::connect(addr).unwrap();
    member.set_read_timeout(Some(PATIENCE)).unwrap();
    member.write_all(&frame(name)).unwrap();
    member
}

fn expect(member: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    member.read_exact(&mut received).unwrap();
    assert_bytes(&received, expected);
}

#[test]
fn scrape_has_what_happened_in_the_room_and_no_name_of_a_member() {
    let mut relay = Relay::serving(&["chat10", "chat64", "metrics"], &["--max-clients", "3"]);
    let before = scrape(&relay);
    assert_eq!(before["chatloop_connections_accepted_total"], "0");
    let mut alice = member(relay.addr_of("chat10"), "alice");
    relay.log_line("joined: \"alice\"");
    let mut bob = member(relay.addr_of("chat10"), "bob");
    relay.log_line("joined: \"bob\"");
    let mut carol = TcpStream::connect(relay.addr_of("chat64")).unwrap();
    relay.log_line("joined: chat64");
    alice.write_all(&frame("hello")).unwrap();
    expect(&mut bob, &delivery("alice", "hello"));
    carol.write_all(&wide_frame("hi")).unwrap();
    expect(&mut carol, b"helloMessage was Sent!");
    let mut refused = TcpStream::connect(relay.addr_of("chat10")).unwrap();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    bob.write_all(b"nonsense!!").unwrap();
    relay.log_line("closed: \"bob\"");

    let samples = scrape(&relay);
    let carols = carol.local_addr().unwrap().to_string();
    let frames = delivery("alice", "hello").len() + delivery(&carols, "hi").len() * 2;
    let sent = frames + "helloMessage was Sent!".len();
    let received = frame("alice").len() + frame("bob").len() + frame("hello").len() + 64 + 2 + 10;
    for (name, value) in [
        ("chatloop_members{dialect=\"chat10\"}", 1),
        ("chatloop_members{dialect=\"chat64\"}", 1),
        ("chatloop_connections", 2),
        ("chatloop_pending_connections", 0),
        ("chatloop_connections_accepted_total", 3),
        (
            "chatloop_connections_refused_total{reason=\"relay_full\"}",
            1,
        ),
        ("chatloop_connections_refused_total{reason=\"request\"}", 0),
        ("chatloop_connections_closed_total{reason=\"protocol\"}", 1),
        ("chatloop_connections_closed_total{reason=\"eof\"}", 0),
        ("chatloop_joins_total", 3),
        ("chatloop_messages_total", 2),
        ("chatloop_deliveries_total", 4),
        ("chatloop_received_bytes_total", received),
        ("chatloop_sent_bytes_total", sent),
        ("chatloop_lagging_members", 0),
        ("chatloop_paused", 0),
        ("chatloop_stopping", 0),
        ("chatloop_delivery_delay_seconds_count", 2),
        ("chatloop_turn_messages_bucket{le=\"1\"}", 2),
        ("chatloop_turn_messages_sum", 2),
        ("chatloop_log_lines_dropped_total", 0),
    ] {
        assert_eq!(samples[name], value.to_string(), "{name}");
    }
    assert!(
        number(&relay, "chatloop_turns_total") > before["chatloop_turns_total"].parse().unwrap()
    );
    assert!(number(&relay, "process_resident_memory_bytes") > 1e6);
    for name in samples.keys() {
        assert!(
            !name.contains("alice") && !name.contains("127.0.0.1"),
            "{name}"
        );
    }
}

#[test]
fn counters_of_the_last_scrape_are_those_of_the_summary() {
    let mut relay = Relay::serving(&["chat10", "metrics"], &[]);
    let mut alice = member(relay.addr_of("chat10"), "alice");
    relay.log_line("joined: \"alice\"");
    let mut bob = member(relay.addr_of("chat10"), "bob");
    relay.log_line("joined: \"bob\"");
    for number in 0..100 {
        alice.write_all(&frame(number.to_string())).unwrap();
    }
    let all: Vec<_> = (0..100)
        .flat_map(|number| delivery("alice", number.to_string()))
        .collect();
    expect(&mut bob, &all);
    drop((alice, bob));
    relay.log_line("left: ");
    relay.log_line("left: ");
    let samples = scrape(&relay);
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    let of = |name: &str| &samples[name];
    let summary = format!(
        "accepted {}, refused 0, joined {}, peak 2, messages {}, deliveries {}, bytes in {}, bytes out \
         {}, bytes discarded {}; closed: by the peer {}",
        of("chatloop_connections_accepted_total"),
        of("chatloop_joins_total"),
        of("chatloop_messages_total"),
        of("chatloop_deliveries_total"),
        of("chatloop_received_bytes_total"),
        of("chatloop_sent_bytes_total"),
        of("chatloop_discarded_bytes_total"),
        of("chatloop_connections_closed_total{reason=\"eof\"}"),
    );
    assert!(log.contains(&summary), "{summary}\n{log}");
}

#[test]
fn relay_is_healthy_until_it_is_asked_to_stop_and_has_metrics_until_its_end() {
    // More than the kernel holds for a member that does not read.
    const MESSAGES: usize = 20;
    let limits = [
        "--soft-limit",
        "64MiB",
        "--queue-limit",
        "100MiB",
        "--max-memory",
        "1GiB",
    ];
    let flags = [&limits[..], &["--drain", "10min"]].concat();
    let mut relay = Relay::serving(&["chat10", "metrics"], &flags);
    let metrics = relay.addr_of("metrics");
    assert!(get(metrics, "/healthz").ends_with("\r\n\r\nok\n"));
    let mut alice = member(relay.addr_of("chat10"), "alice");
    relay.log_line("joined: \"alice\"");
    let mut bob = member(relay.addr_of("chat10"), "bob");
    for _ in 0..MESSAGES {
        bob.write_all(&frame(vec![b'x'; 1 << 20])).unwrap();
    }
    wait_for("all to be published", || {
        scrape(&relay)["chatloop_messages_total"] == MESSAGES.to_string()
    });
    assert!(number(&relay, "chatloop_largest_lag_bytes") > f64::from(1 << 20));
    relay.signal("TERM");
    relay.log_line("stopping");
    let response = get(metrics, "/healthz");
    assert!(
        response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{response}"
    );
    assert!(response.ends_with("\r\n\r\nstopping\n"), "{response}");
    let samples = scrape(&relay);
    assert_eq!(samples["chatloop_joins_total"], "2");
    assert_eq!(samples["chatloop_stopping"], "1");
    let refused = TcpStream::connect(relay.addr_of("chat10")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
    assert!(alice.read(&mut [0; 1]).is_ok());
}

#[test]
fn request_is_answered_however_it_is_cut_and_garbage_is_refused() {
    let relay = Relay::serving(&["chat10", "metrics"], &[]);
    let addr = relay.addr_of("metrics");
    let request = b"GET /healthz HTTP/1.1\r\nHost: relay.example\r\n\r\n";
    for at in 1..request.len() {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let (first, second) = request.split_at(at);
        stream.write_all(first).unwrap();
        // The relay has most probably read the first part by then; it must not matter.
        thread::yield_now();
        stream.write_all(second).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert_eq!(body(&response), "ok\n", "cut at {at}");
    }
    for (request, status) in [
        (
            "POST /metrics HTTP/1.1\r\nHost: relay\r\n\r\n",
            "405 Method Not Allowed",
        ),
        ("GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "404 Not Found"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "400 Bad Request"),
        ("\0\r\n\r\n", "400 Bad Request"),
    ] {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {response}"
        );
    }
    assert_eq!(
        scrape(&relay)["chatloop_connections_refused_total{reason=\"request\"}"],
        "2"
    );
}

#[test]
fn connections_that_ask_and_never_read_or_ask_half_keep_no_scrape_out() {
    let relay = Relay::serving(
        &["chat10", "metrics", "ws"],
        &["--handshake-timeout", "10min"],
    );
    let addr = relay.addr_of("metrics");
    let before = number(&relay, "process_resident_memory_bytes");
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(addr).unwrap();
        let request: &[u8] = if number % 2 == 0 {
            b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n"
        } else {
            b"GET /metrics HTTP/1.1\r\n"
        };
        stream.write_all(request).unwrap();
        silent.push(stream);
        // Browsers that have not sent their request have places of their own.
        silent.push(TcpStream::connect(relay.addr_of("ws")).unwrap());
        if number % 50 == 49 {
            assert_eq!(scrape(&relay)["chatloop_connections"], "0");
        }
    }
    let grown = number(&relay, "process_resident_memory_bytes") - before;
    assert!(grown < f64::from(1 << 20), "{grown}");
}

/// A connection of a scraper that keeps it for its next scrapes.
struct Scraper(BufReader<TcpStream>);

impl Scraper {
    fn connect(relay: &Relay) -> Self {
        let stream = TcpStream::connect(relay.addr_of("metrics")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// Asks once more, and returns the body of the response.
    #[track_caller]
    fn scrape(&mut self) -> String {
        self.send("GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
        let mut len = None;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert_ne!(line, "Connection: close\r\n");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                len = Some(value.trim().parse().unwrap());
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len.expect("a length")];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The relay closes the connection, with nothing more to receive.
    #[track_caller]
    fn expect_end(mut self) {
        let end = self.0.read(&mut [0; 1]);
        assert_eq!(end.expect("the end of the connection"), 0);
    }
}

#[test]
fn scraper_that_keeps_its_connection_wakes_an_idle_relay_at_most_once_a_scrape() {
    let relay = Relay::serving(&["chat10", "metrics"], &[]);
    let mut scraper = Scraper::connect(&relay);
    let wakeups = |text: String| -> u64 {
        let mut lines = text.lines();
        let sample = lines.find_map(|line| line.strip_prefix("chatloop_wakeups_total "));
        sample.unwrap().parse().unwrap()
    };
    let first = wakeups(scraper.scrape());
    for scrape in 1..=20 {
        // A request that comes while the relay still looks for the end of the input wakes nobody.
        assert!(wakeups(scraper.scrape()) <= first + scrape);
    }
}

#[test]
fn scraper_that_keeps_its_connection_is_closed_for_its_end_and_for_a_request_that_is_late() {
    let relay = Relay::serving(&["chat10", "metrics"], &["--handshake-timeout", "300ms"]);
    let mut ending = Scraper::connect(&relay);
    ending.scrape();
    ending.0.get_ref().shutdown(Shutdown::Write).unwrap();
    ending.expect_end();
    // The end comes with the request.
    let mut last = Scraper::connect(&relay);
    last.send("GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
    last.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    last.0.read_to_string(&mut response).unwrap();
    assert!(response.ends_with('\n'), "{response}");
    let mut kept = Scraper::connect(&relay);
    kept.scrape();
    let mut late = Scraper::connect(&relay);
    late.scrape();
    late.send("GET /metrics HT");
    late.expect_end();
    // One that was silent for as long is not late.
    kept.scrape();
    kept.send("GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n");
    let mut response = String::new();
    kept.0.read_to_string(&mut response).unwrap();
    assert_eq!(body(&response), "ok\n");
}

#[test]
fn scraper_that_keeps_its_connection_and_is_silent_the_longest_gives_up_its_place() {
    let relay = Relay::serving(&["chat10", "metrics"], &[]);
    let mut scrapers: Vec<_> = (0..16).map(|_| Scraper::connect(&relay)).collect();
    for scraper in &mut scrapers {
        scraper.scrape();
    }
    scrapers[0].scrape();
    let mut one_more = Scraper::connect(&relay);
    one_more.scrape();
    scrapers.remove(1).expect_end();
    for scraper in &mut scrapers {
        scraper.scrape();
    }
}

#[test]
fn table_of_the_documentation_has_each_metric_with_its_type_and_help() {
    let relay = Relay::serving(&["chat10", "metrics"], &[]);
    let response = get(relay.addr_of("metrics"), "/metrics");
    let comments = |kind: &str| -> Vec<(String, String)> {
        let start = format!("# {kind} ");
        let lines = body(&response).lines();
        let comments = lines.filter_map(|line| line.strip_prefix(&start)?.split_once(' '));
        let comments = comments.map(|(name, text)| (name.to_owned(), text.to_owned()));
        comments.collect()
    };
    let rows: Vec<_> = comments("HELP")
        .into_iter()
        .zip(comments("TYPE"))
        .map(|((name, help), (_, kind))| format!("| `{name}` | {kind} | {help} |"))
        .collect();
    assert!(!rows.is_empty());
    let document = include_str!("../../docs/operations.md");
    let (_, table) = document
        .split_once("| metric | type | what it is |\n")
        .unwrap();
    let documented = table.lines().skip(1).take_while(|line| !line.is_empty());
    // A relay without TLS has no certificate that expires, and one without a bus no figures of it.
    let of_others = [
        "| `chatloop_tls_certificate_expiry_seconds` |",
        "| `chatloop_bus_",
    ];
    let is_here = |row: &&str| !of_others.iter().any(|start| row.starts_with(start));
    let documented: Vec<_> = documented.filter(is_here).collect();
    assert_eq!(documented, rows);
}
