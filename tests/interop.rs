//! Python clients in the manner of the tutorials, against the real program.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::process::{Relay, wait_for};
use common::python::has_python;

struct PythonClient {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl PythonClient {
    /// Starts one and waits until the relay has registered it.
    fn join(relay: &mut Relay, name: &str) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/chat10_client.py"
        );
        let (host, port) = (relay.addr.ip().to_string(), relay.addr.port().to_string());
        let mut child = Command::new("python3")
            .args([script, &host, &port, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        relay.log_line(&format!("joined: \"{name}\""));
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Its user types a line and presses Enter. Returns what it shows after that.
    fn enter(&mut self, line: &str) -> Vec<String> {
        writeln!(self.input.as_ref().unwrap(), "{line}").unwrap();
        let mut shown = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "the client ended: {shown:?}"
            );
            match line.trim_end() {
                "--" => return shown,
                line => shown.push(line.to_owned()),
            }
        }
    }

    /// Its user presses Enter until there is something to see.
    fn wait_to_hear(&mut self, messages: usize) -> Vec<String> {
        let mut shown = Vec::new();
        wait_for("the client to show a message", || {
            shown.extend(self.enter(""));
            shown.len() >= messages
        });
        shown
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_python_clients_chat() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::start(&[]);
    let mut alice = PythonClient::join(&mut relay, "alice");
    let mut zoe = PythonClient::join(&mut relay, "Zoë");
    assert_eq!(alice.enter("hello"), [""; 0]);
    assert_eq!(zoe.wait_to_hear(1), ["alice > hello"]);
    // While Zoë thinks about her answer, alice says more; it is all there when she presses Enter.
    for i in 0..100 {
        assert_eq!(alice.enter(&format!("message {i}")), [""; 0]);
    }
    let shown = zoe.wait_to_hear(100);
    let expected: Vec<_> = (0..100).map(|i| format!("alice > message {i}")).collect();
    assert_eq!(shown, expected);
    assert_eq!(zoe.enter("schön, dich zu hören"), [""; 0]);
    assert_eq!(alice.wait_to_hear(1), ["Zoë > schön, dich zu hören"]);
}

#[test]
fn a_python_client_that_is_killed_takes_nobody_with_it() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::start(&[]);
    let mut alice = PythonClient::join(&mut relay, "alice");
    let mut bob = PythonClient::join(&mut relay, "bob");
    drop(PythonClient::join(&mut relay, "carol"));
    for i in 0..3 {
        alice.enter(&format!("{i}"));
    }
    assert_eq!(bob.wait_to_hear(3), ["alice > 0", "alice > 1", "alice > 2"]);
    relay.log_line("left: \"carol\"");
}

#[test]
fn a_stopped_relay_ends_its_python_clients_in_order() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::start(&[]);
    let mut alice = PythonClient::join(&mut relay, "alice");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
    writeln!(alice.input.as_ref().unwrap()).unwrap();
    let mut line = String::new();
    alice.output.read_line(&mut line).unwrap();
    assert_eq!(line, "closed by the relay\n");
    assert_eq!(alice.child.wait().unwrap().code(), Some(0));
}
