//! Python clients in the manner of the tutorials, against the real program.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::process::{Relay, wait_for};
use crate::common::python::has_python;

struct PythonClient {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl PythonClient {
    /// Starts one of the scripts, with the address of the relay and other arguments.
    fn start(script: &str, addr: SocketAddr, args: &[&str]) -> Self {
        let script = format!("{}/tests/interop/{script}", env!("CARGO_MANIFEST_DIR"));
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        let mut child = Command::new("python3")
            .args([&script, &host, &port])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Starts a `chat10` client and waits until the relay has registered it.
    fn join(relay: &mut Relay, name: &str) -> Self {
        let addr = relay.addr_of("chat10");
        let client = Self::start("chat10_client.py", addr, &[name]);
        relay.log_line(&format!("joined: \"{name}\""));
        client
    }

    /// Starts a client with 64-byte headers and waits until the relay has it.
    fn join_wide(relay: &mut Relay, dialect: &str, farewell: &str) -> Self {
        let addr = relay.addr_of(dialect);
        let mut client = Self::start("wide_client.py", addr, &[farewell]);
        assert_eq!(client.line(), "connected");
        relay.log_line(&format!("joined: {dialect} "));
        client
    }

    /// The next line that it shows.
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
        line.trim_end().to_owned()
    }

    /// Its user types a line and presses Enter, or only presses Enter. Returns the next line it shows.
    fn send(&mut self, line: &str) -> String {
        writeln!(self.input.as_ref().unwrap(), "{line}").unwrap();
        self.line()
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
    fn wait_to_receive(&mut self, messages: usize) -> Vec<String> {
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
    assert_eq!(zoe.wait_to_receive(1), ["alice > hello"]);
    // While Zoë thinks about her answer, alice says more; it is all there when she presses Enter.
    for i in 0..100 {
        assert_eq!(alice.enter(&format!("message {i}")), [""; 0]);
    }
    let shown = zoe.wait_to_receive(100);
    let expected: Vec<_> = (0..100).map(|i| format!("alice > message {i}")).collect();
    assert_eq!(shown, expected);
    assert_eq!(zoe.enter("schön, dich zu hören"), [""; 0]);
    assert_eq!(alice.wait_to_receive(1), ["Zoë > schön, dich zu hören"]);
}

#[test]
fn python_clients_of_every_chat_share_one_room() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::serving(&["chat10", "chat64", "ack64"], &[]);
    let mut alice = PythonClient::join(&mut relay, "alice");
    let mut bob = PythonClient::join_wide(&mut relay, "chat64", "Client Disconnected");
    let mut carol = PythonClient::join_wide(&mut relay, "ack64", "!DISCONNECT");

    assert_eq!(bob.send("grüezi"), "Message was Sent!");
    let shown = alice.wait_to_receive(1);
    assert!(
        shown[0].starts_with("127.0.0.1:") && shown[0].ends_with(" > grüezi"),
        "{shown:?}"
    );
    assert_eq!(carol.send("hello from carol"), "Msg received");
    assert_eq!(bob.send(""), "hello from carol");
    let shown = alice.wait_to_receive(1);
    assert!(shown[0].ends_with(" > hello from carol"), "{shown:?}");
    assert_eq!(alice.enter("hi all"), [""; 0]);
    assert_eq!(bob.send(""), "hi all");

    // Each sends its farewell when its input ends, is answered, and closed.
    carol.input = None;
    assert_eq!(carol.line(), "Msg received");
    assert_eq!(carol.line(), "closed by the relay");
    let left = relay.log_line("left: ack64 127.0.0.1:");
    assert!(
        left.ends_with(": sent its farewell, 2 members (1 chat10, 1 chat64)"),
        "{left}"
    );
    bob.input = None;
    assert_eq!(bob.line(), "Message was Sent!");
    assert_eq!(bob.line(), "closed by the relay");
    let received = alice.wait_to_receive(1);
    assert!(
        received[0].ends_with(" > Client Disconnected"),
        "{received:?}"
    );
}

#[test]
fn python_client_receives_the_greeting_and_the_time() {
    if !has_python() {
        return;
    }
    let relay = Relay::serving(&["greet10"], &["--every", "20ms"]);
    let addr = relay.addr_of("greet10");
    let mut client = PythonClient::start("greet10_client.py", addr, &["3"]);
    assert_eq!(client.line(), "Welcome to the server!");
    let mut time = || {
        let line = client.line();
        let time = line
            .strip_prefix("The time is ")
            .expect("it tells the time");
        time.parse::<f64>().unwrap()
    };
    let (first, second) = (time(), time());
    assert!(
        first > 1_700_000_000.0 && second > first,
        "{first}, {second}"
    );
}

#[test]
fn python_client_receives_only_the_greeting() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::serving(&["hello"], &[]);
    let addr = relay.addr_of("hello");
    let mut client = PythonClient::start("hello_client.py", addr, &[]);
    assert_eq!(client.line(), "welcome to the server!");
    assert_eq!(client.child.wait().unwrap().code(), Some(0));
    relay.log_line("greeted: hello 127.0.0.1:");
}

#[test]
fn python_client_that_is_killed_affects_no_other_member() {
    if !has_python() {
        return;
    }
    let mut relay = Relay::start(&[]);
    let mut alice = PythonClient::join(&mut relay, "alice");
    let mut bob = PythonClient::join(&mut relay, "bob");
    drop(PythonClient::join(&mut relay, "carol"));
    relay.log_line("left: \"carol\"");
    for i in 0..3 {
        alice.enter(&format!("{i}"));
    }
    assert_eq!(
        bob.wait_to_receive(3),
        ["alice > 0", "alice > 1", "alice > 2"]
    );
}

#[test]
fn stopped_relay_ends_its_python_clients_in_order() {
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
