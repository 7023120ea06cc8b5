//! The page `docs/six-ways.md`: each client in it does to the tutorials' server what the page says, and does
//! not do that to a relay.

use std::env::temp_dir;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, id};

use crate::common::process::{Relay, run};
use crate::common::python::PythonServer;

const PAGE: &str = include_str!("../../docs/six-ways.md");

const MAX_LINES: usize = 20;

/// A client of the page.
struct Client<'p> {
    name: &'p str,
    code: &'p str,
    /// What it prints, on the tutorials' server and on a relay.
    outputs: [&'p str; 2],
}

/// The clients, in the order of the page.
fn clients() -> Vec<Client<'static>> {
    let parts = PAGE
        .split("\n## ")
        .filter(|part| part.contains("```python"));
    let client = |part: &'static str| {
        let (before, rest) = part.split_once("```python\n").unwrap();
        let (code, rest) = rest.split_once("```\n").unwrap();
        let name = before.trim_end().lines().last().unwrap();
        let name = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix("`:"));
        let output = |server: &str| {
            let row = rest.split(&format!("\n| {server} | `")).nth(1).unwrap();
            row.split_once("` |").unwrap().0
        };
        Client {
            name: name.unwrap(),
            code,
            outputs: ["the tutorials'", "`chatloop serve`"].map(output),
        }
    };
    parts.map(client).collect()
}

/// Runs a client on a server. Returns its exit code and its output.
fn run_on(addr: SocketAddr, name: &str, code: &str) -> (i32, String) {
    let path = temp_dir().join(format!("chatloop-{}-{}-{name}", id(), addr.port()));
    fs::write(&path, code).unwrap();
    let mut python = Command::new("python3");
    python
        .arg(&path)
        .args([addr.ip().to_string(), addr.port().to_string()]);
    let (exit_code, output, errors) = run(&mut python);
    fs::remove_file(path).unwrap();
    (exit_code, output + &errors)
}

/// Runs the client of this name on both servers.
#[track_caller]
fn assert_page_is_right(name: &str) {
    let Some(tutorial) = PythonServer::start() else {
        return;
    };
    let client = clients()
        .into_iter()
        .find(|client| client.name == name)
        .unwrap();
    let [on_tutorial, on_relay] = client.outputs;
    // What never comes need not be awaited for long.
    let code = client.code.replace("PATIENCE = 30\n", "PATIENCE = 2\n");
    let (exit_code, output) = run_on(tutorial.addr(), name, &code);
    assert_eq!((exit_code, output.trim_end()), (1, on_tutorial));
    // By default it would wait 20 s for a member that does not read.
    let relay = Relay::start(&["--slow-timeout", "4s"]);
    let (exit_code, output) = run_on(relay.addr, name, client.code);
    assert_eq!((exit_code, output.trim_end()), (0, on_relay));
}

#[test]
fn silent_client_stops_the_tutorial_server_and_no_relay() {
    assert_page_is_right("silence.py");
}

#[test]
fn half_a_message_stops_the_tutorial_server_and_no_relay() {
    assert_page_is_right("half.py");
}

#[test]
fn member_that_does_not_read_stops_the_tutorial_server_and_no_relay() {
    assert_page_is_right("deaf.py");
}

#[test]
fn reset_ends_the_tutorial_server_and_no_relay() {
    assert_page_is_right("reset.py");
}

#[test]
fn crowd_ends_the_tutorial_server_and_no_relay() {
    assert_page_is_right("crowd.py");
}

#[test]
fn long_message_is_cut_by_the_tutorial_server_and_by_no_relay() {
    assert_page_is_right("long.py");
}

#[test]
fn clients_of_the_page_are_six_and_short() {
    let clients = clients();
    assert_eq!(clients.len(), 6);
    for client in clients {
        let lines = client.code.lines().filter(|line| !line.is_empty()).count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", client.name);
    }
}
