//! `chatloop join` in a pipe, from a file and into one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use crate::common::chat_server::{Peer, Refusal, ScriptedServer};
use crate::common::process::{Relay, chatloop, run, wait_for};
use crate::common::python::PythonServer;
use crate::common::{self, assert_bytes, frame};

/// More lines than all buffers on the way hold together.
const LINES: usize = 100_000;

fn join(addr: SocketAddr, name: &str, more: &[&str]) -> Command {
    let addr = addr.to_string();
    chatloop(&[&["join", &addr, "--name", name], more].concat())
}

/// A file of one test, which is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("chatloop-test-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }

    fn rewrite(&self) -> File {
        File::create(&self.0).unwrap()
    }

    fn read(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A client whose streams are pipes to the test.
pub(crate) struct Piped {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: BufReader<ChildStdout>,
}

impl Piped {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.output.read_until(b'\n', &mut line).unwrap();
        line
    }

    /// Ends the input, and waits for the client's end.
    pub(crate) fn finish(mut self) -> (i32, String) {
        self.input = None;
        let mut sent = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut sent).unwrap();
        (self.child.wait().unwrap().code().unwrap(), sent)
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn status(&self, what: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbered_lines() -> String {
    let lines: Vec<_> = (0..LINES)
        .map(|number| format!("line number {number}\n"))
        .collect();
    lines.concat()
}

/// The output of a client that receives these lines from another one.
fn received_lines(name: &str, lines: &str) -> Vec<u8> {
    let received: Vec<_> = lines
        .lines()
        .map(|line| format!("{name}: {line}\n"))
        .collect();
    received.concat().into_bytes()
}

#[test]
fn input_is_sent_and_nothing_is_written() {
    let mut relay = Relay::start(&[]);
    let mut ear = relay.join("ear");
    let mut client = Piped::start(&mut join(relay.addr, "ci", &[]));
    client.say("build 17 is done\n");
    let mut output = Vec::new();
    let (code, sent) = {
        client.input = None;
        client.output.read_to_end(&mut output).unwrap();
        client.finish()
    };
    assert_eq!(
        (code, sent),
        (0, format!("chatloop: connected to {} as ci\n", relay.addr))
    );
    assert_bytes(&output, b"");
    let expected = common::delivery("ci", "build 17 is done");
    let mut got = vec![0; expected.len()];
    ear.read_exact(&mut got).unwrap();
    assert_bytes(&got, &expected);
}

#[test]
fn long_input_from_a_file_or_a_pipe_is_delivered_in_order() {
    let lines = numbered_lines();
    let file = Scratch::new("lines", lines.as_bytes());
    let log = Scratch::new("log", b"");
    let mut relay = Relay::start(&[]);
    // One client writes to a file, for as long as its input is open.
    let mut ear = join(relay.addr, "ear", &[])
        .stdin(Stdio::piped())
        .stdout(log.rewrite())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    relay.log_line("joined: \"ear\"");

    let mut from_file = join(relay.addr, "file", &[]);
    assert_eq!(run(from_file.stdin(file.open())).0, 0);
    // The relay may still have to publish them, and the next client must not receive any.
    let from_file = received_lines("file", &lines);
    wait_for("the lines of the file", || {
        log.read().len() >= from_file.len()
    });
    let mut from_pipe = Piped::start(&mut join(relay.addr, "pipe", &[]));
    from_pipe.say(&lines);
    assert_eq!(from_pipe.finish().0, 0);

    let expected = [from_file, received_lines("pipe", &lines)].concat();
    wait_for("all to be delivered", || log.read().len() >= expected.len());
    assert_bytes(&log.read(), &expected);
    drop(ear.stdin.take());
    assert_eq!(ear.wait().unwrap().code(), Some(0));
}

#[test]
fn line_of_input_is_sent_without_its_lf_or_crlf_and_otherwise_unchanged() {
    let server = ScriptedServer::new();
    let input = b"\n\r\nno \xff UTF-8 \0\n\n  spaces  \nfrom Windows\r\na\rb\r\r\nlast";
    let file = Scratch::new("bytes", input);
    let mut command = join(server.addr(), "me", &[]);
    let mut client = command.stdin(file.open()).spawn().unwrap();
    let mut peer = server.accept();
    let sent = peer.read_to_end();
    let lines: [&[u8]; 9] = [
        b"me",
        b"",
        b"",
        b"no \xff UTF-8 \0",
        b"",
        b"  spaces  ",
        b"from Windows",
        b"a\rb\r",
        b"last",
    ];
    assert_bytes(&sent, &lines.map(frame).concat());
    assert_eq!(client.wait().unwrap().code(), Some(0));
}

#[test]
fn empty_input_ends_the_client_unless_stay_is_set() {
    let server = ScriptedServer::new();
    // Unlike a pipe, which may still be open by then, this is known to be empty before it connects.
    let (code, received, sent) = run(join(server.addr(), "me", &[]).stdin(Stdio::null()));
    assert_bytes(&server.accept().read_to_end(), &frame("me"));
    let expected = format!(
        "chatloop: connected to {} as me; the input is empty, so there is nothing to send: --stay \
         listens\n",
        server.addr()
    );
    assert_eq!((code, received, sent), (0, String::new(), expected));

    // Without notices.
    let mut client = Piped::start(&mut join(server.addr(), "me", &["--stay", "--quiet"]));
    client.input = None;
    let mut peer = server.accept();
    peer.expect_frame("me");
    peer.say("bob", "hi");
    assert_bytes(&client.receive(), b"bob: hi\n");
    client.signal("TERM");
    let mut sent = String::new();
    let mut stderr = client.child.stderr.take().unwrap();
    stderr.read_to_string(&mut sent).unwrap();
    assert_eq!(sent, "");
}

/// The input that `nohup` puts in the place of a terminal.
#[test]
fn unreadable_input_counts_as_no_input() {
    let server = ScriptedServer::new();
    let unreadable = File::options().write(true).open("/dev/null").unwrap();
    let mut command = join(server.addr(), "me", &[]);
    let mut child = command
        .stdin(unreadable)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peer = server.accept();
    peer.expect_frame("me");
    peer.say("bob", "hi");
    let mut received = vec![0; b"bob: hi\n".len()];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut received)
        .unwrap();
    assert_bytes(&received, b"bob: hi\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn output_is_escaped_json_or_raw() {
    let server = ScriptedServer::new();
    let (name, message) = (&b"b\"ob"[..], &b"a\\b\n\x1b[2J\xc2\x9b\xff"[..]);
    for (flags, expected) in [
        (&[][..], &b"b\"ob: a\\b\\n\\u{1b}[2J\\u{9b}\\xff\n"[..]),
        (&["--raw"], b"b\"ob: a\\b\n\x1b[2J\xc2\x9b\xff\n"),
        (
            &["--json", "--no-time"],
            b"{\"name\":\"b\\\"ob\",\"message\":\"a\\\\b\\n\\u001b[2J\\u009b\xef\xbf\xbd\",\
              \"message_hex\":\"615c620a1b5b324ac29bff\"}\n",
        ),
    ] {
        let mut client = Piped::start(&mut join(server.addr(), "me", flags));
        server.accept().say(name, message);
        let mut received = client.receive();
        while received.len() < expected.len() {
            received.extend(client.receive());
        }
        assert_bytes(&received, expected);
    }

    let mut client = Piped::start(&mut join(server.addr(), "me", &["--json"]));
    server.accept().say("bob", "hi");
    let json: serde_json::Value = serde_json::from_slice(&client.receive()).unwrap();
    assert_eq!(
        (json["name"].as_str(), json["message"].as_str()),
        (Some("bob"), Some("hi"))
    );
    let time: jiff::Timestamp = json["time"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!((0..3600).contains(&age.as_secs()), "{json}");
}

#[test]
fn each_line_is_delivered_once_or_reported_over_lost_connections() {
    let server = ScriptedServer::with_buffer(64 * 1024);
    let lines = numbered_lines();
    let file = Scratch::new("uncertain", lines.as_bytes());
    let client = join(server.addr(), "me", &[])
        .stdin(file.open())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Three connections that end with a reset after so many bytes, and one that reads everything.
    let mut got: Vec<Vec<u8>> = Vec::new();
    for limit in [1000, 300_000, 5] {
        let mut peer = server.accept();
        let mut bytes = vec![0; limit];
        peer.stream.read_exact(&mut bytes).unwrap();
        peer.expect_something();
        peer.reset();
        got.push(bytes);
    }
    got.push(server.accept().read_to_end());

    let output = client.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{log}");
    assert!(log.ends_with("may not have arrived\n"), "{log}");

    // The delivered and the reported lines are all lines.
    let mut seen = vec![0; LINES];
    for bytes in &got {
        let mut rest = &bytes[..];
        let mut whole = Vec::new();
        while let Some((header, after)) = rest.split_at_checked(10) {
            let len: usize = str::from_utf8(header).unwrap().trim_end().parse().unwrap();
            let Some((payload, after)) = after.split_at_checked(len) else {
                break;
            };
            whole.push(payload);
            rest = after;
        }
        assert!(whole.is_empty() || whole[0] == b"me");
        for line in whole.iter().skip(1) {
            let number = str::from_utf8(line).unwrap().rsplit(' ').next().unwrap();
            seen[number.parse::<usize>().unwrap()] += 1;
        }
    }
    assert!(seen.iter().all(|&times| times <= 1), "none is sent twice");
    let uncertain: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("chatloop: lines "))
        .map(|line| {
            let numbers: Vec<usize> = line
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            numbers[0] - 1..numbers[1]
        })
        .collect();
    assert!(!uncertain.is_empty(), "{log}");
    for (number, &times) in seen.iter().enumerate() {
        let is_uncertain = uncertain.iter().any(|lines| lines.contains(&number));
        assert!(times == 1 || is_uncertain, "line {number} is lost");
    }
}

#[test]
fn stalled_server_pauses_the_input_and_memory_stays_small() {
    let server = ScriptedServer::new();
    let mut source = Command::new("yes")
        .arg("a line of some length that is said again and again")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = join(server.addr(), "me", &[]);
    let mut client = command
        .stdin(source.stdout.take().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let peer = server.accept();
    wait_until_asleep("everything to stand still", &[source.id(), client.id()]);
    let status = fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let most: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(most < 64 * 1024, "{line}");
    // It continues when the server reads again.
    let mut taken = vec![0; 20_000_000];
    (&peer.stream).read_exact(&mut taken).unwrap();
    source.kill().unwrap();
    source.wait().unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
}

/// Waits until a process has been asleep at fifty looks in a row.
pub(crate) fn wait_until_asleep(what: &str, ids: &[u32]) {
    let mut looks = 0;
    wait_for(what, || {
        let asleep = ids.iter().all(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('S')
        });
        looks = if asleep { looks + 1 } else { 0 };
        looks == 50
    });
}

#[test]
fn slow_reader_of_the_output_pauses_the_server_and_loses_nothing() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "slow", &[]));
    let mut peer = server.accept();
    peer.expect_frame("slow");
    // Fifty megabytes, of which the sockets and pipes on the way hold the smaller part.
    let message = "x".repeat(1000);
    let flood = common::delivery("bob", &message).repeat(50_000);
    let mut sender = peer.stream.try_clone().unwrap();
    sender.set_write_timeout(None).unwrap();
    let sent = thread::spawn(move || sender.write_all(&flood).unwrap());
    wait_until_asleep("the client to be held up", &[client.child.id()]);
    assert!(!sent.is_finished());
    assert!(client.status("VmHWM:") < 16 * 1024);
    // It sends although its output is not read.
    client.say("not stuck\n");
    peer.expect_frame("not stuck");
    let line = format!("bob: {message}\n");
    let mut received = vec![0; line.len()];
    for _ in 0..50_000 {
        client.output.read_exact(&mut received).unwrap();
        assert_bytes(&received, line.as_bytes());
    }
    sent.join().unwrap();
    assert_eq!(client.finish().0, 0);
}

#[test]
fn received_messages_are_written_before_the_client_ends() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = server.accept();
    peer.expect_frame("me");
    // More than the pipe holds, and less than the client does.
    for number in 0..20_000 {
        peer.say("bob", format!("message {number}"));
    }
    wait_until_asleep("the pipe to be full", &[client.child.id()]);
    // The end of its input wakes it up, and only the full pipe keeps it from leaving.
    client.say("bye\n");
    client.input = None;
    peer.expect_frame("bye");
    wait_until_asleep("the client to be held up again", &[client.child.id()]);
    let mut received = Vec::new();
    client.output.read_to_end(&mut received).unwrap();
    let expected: Vec<_> = (0..20_000)
        .map(|number| format!("bob: message {number}\n"))
        .collect();
    assert_bytes(&received, expected.concat().as_bytes());
    assert_eq!(client.finish().0, 0);
}

/// A client does not keep acknowledged messages of a server that reads everything at once.
#[test]
fn fast_server_does_not_grow_memory() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = server.accept();
    let line = "a line of some length that is said again and again\n";
    let bytes = 2_000_000 * frame(line.trim_end()).len() + frame("me").len();
    let reader = thread::spawn(move || {
        let mut left = bytes;
        let mut buf = vec![0; 1 << 20];
        while left > 0 {
            let most = buf.len().min(left);
            left -= peer.stream.read(&mut buf[..most]).unwrap();
        }
        peer
    });
    for _ in 0..2000 {
        client.say(line.repeat(1000));
    }
    let _peer = reader.join().unwrap();
    assert!(
        client.status("VmHWM:") < 40 * 1024,
        "{}",
        client.status("VmHWM:")
    );
    assert_eq!(client.finish().0, 0);
}

#[test]
fn input_is_sent_while_the_output_is_not_read() {
    let server = ScriptedServer::new();
    // The sockets on the way hold the smaller part of it.
    let lines = numbered_lines().repeat(8);
    let file = Scratch::new("said", lines.as_bytes());
    let mut client = join(server.addr(), "me", &[])
        .stdin(file.open())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peer = server.accept();
    peer.expect_frame("me");
    wait_until_asleep("the client to be held up", &[client.id()]);
    drop(client.stdout.take());
    let sent = peer.read_to_end();
    let expected: Vec<_> = lines.lines().map(frame).collect();
    assert_bytes(&sent, &expected.concat());
    assert_eq!(client.wait().unwrap().code(), Some(0));
}

#[test]
fn closed_output_ends_the_client_after_its_input() {
    let server = ScriptedServer::new();
    let mut listener = join(server.addr(), "me", &["--stay"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peer = server.accept();
    peer.expect_frame("me");
    // The closed output is noticed although nothing is written.
    drop(listener.stdout.take());
    assert_bytes(&peer.read_to_end(), b"");
    assert_eq!(listener.wait().unwrap().code(), Some(0));

    let mut talker = join(server.addr(), "me", &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(talker.stdout.take());
    let mut peer = server.accept();
    peer.expect_frame("me");
    peer.say("bob", "nobody hears this");
    let mut input = talker.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    peer.expect_frame("one");
    input.write_all(b"two\n").unwrap();
    peer.expect_frame("two");
    drop(input);
    assert_eq!(talker.wait().unwrap().code(), Some(0));
}

#[test]
fn failure_is_one_line_and_an_exit_code() {
    let refusal = Refusal::new();
    let refused = refusal.addr().to_string();
    for (args, code, says) in [
        (
            &["join", &refused][..],
            4,
            "connection refused; `chatloop serve` runs a relay",
        ),
        (
            &["join", "no.such.host.invalid:1"],
            4,
            "cannot find the address of no.such.host.invalid: ",
        ),
        (
            &["join", "no/where"],
            2,
            "\"no/where\": not ADDR:PORT; write 127.0.0.1:1234",
        ),
        (&["join", "::1:1234"], 2, "; write [::1]:1234\n"),
        (
            &["join", "http://127.0.0.1:1234"],
            2,
            "write ws://127.0.0.1:1234\n",
        ),
        (&["join", "[::1"], 2, "a bracket is missing"),
        (&["join", "127.0.0.1:0"], 2, "port 0 cannot be connected to"),
        (
            &["join", "127.0.0.1:99999"],
            2,
            "a port is a number up to 65535",
        ),
    ] {
        let (got, out, err) = run(&mut chatloop(args));
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(
            err.starts_with("chatloop: ") && err.contains(says),
            "{args:?}: {err}"
        );
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    }
    let (code, _, err) = run(&mut chatloop(&["join", "--json", "--raw"]));
    assert_eq!(code, 2, "{err}");
}

/// The exit code and the last line of a client that has sent this, after the server has acted. Its
/// input ends if it has sent anything.
fn last_line(
    server: &ScriptedServer,
    sent: &str,
    flags: &[&str],
    act: impl FnOnce(Peer),
) -> (i32, String) {
    let mut client = Piped::start(&mut join(server.addr(), "me", flags));
    if !sent.is_empty() {
        client.say(sent);
        client.input = None;
    }
    act(server.accept());
    let mut log = String::new();
    let mut stderr = client.child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    let code = client.child.wait().unwrap().code().unwrap();
    (code, log.lines().last().unwrap().to_owned())
}

#[test]
fn invalid_server_is_reported() {
    let server = ScriptedServer::new();
    let addr = server.addr();
    let (code, sent) = last_line(&server, "", &[], |mut peer| {
        peer.send_raw("HTTP/1.1 400 Bad Request\r\n");
        peer.read_to_end();
    });
    let expected = format!(
        "chatloop: {addr}: this port does not speak the chat protocol; it says \
         \"HTTP/1.1 400 Bad Request\\r\\n\""
    );
    assert_eq!((code, sent), (6, expected));

    let (code, sent) = last_line(&server, "too long\n", &[], |mut peer| {
        peer.expect_frames(&["me", "too long"]);
        peer.close();
    });
    let expected = "chatloop: the server closed the connection; that was right after joining: is the \
                    server full, the name too long for it, are there too many from your address, or \
                    does the port have another dialect?";
    assert_eq!((code, sent.as_str()), (5, expected));

    // A short message is not a likely cause.
    for (len, hint) in [
        (999, ""),
        (
            1000,
            "; that was right after a message of 1000 bytes: is it over the server's limit?",
        ),
    ] {
        let line = "x".repeat(len);
        let (code, sent) = last_line(&server, &(line.clone() + "\n"), &[], |mut peer| {
            peer.say("bob", "hi");
            peer.expect_frames(&["me", &line]);
            peer.close();
        });
        let expected = format!("chatloop: the server closed the connection{hint}");
        assert_eq!((code, sent), (5, expected));
    }

    let (code, sent) = last_line(&server, "", &["--no-reconnect"], |mut peer| {
        peer.expect_frame("me");
        peer.send_raw("3         bob5         hel");
        peer.close();
    });
    let expected = "chatloop: the server closed the connection in the middle of a message";
    assert_eq!((code, sent.as_str()), (5, expected));
}

#[test]
fn message_over_the_relays_limit_is_reported_with_a_hint() {
    let relay = Relay::start(&["--max-message=1KiB"]);
    let mut client = Piped::start(&mut join(relay.addr, "me", &[]));
    client.say("x".repeat(1025) + "\n");
    let (code, sent) = client.finish();
    assert_eq!(code, 5, "{sent}");
    let hint = "a message of 1025 bytes: is the server full, one of them too long for it, are there too \
                many from your address, or does the port have another dialect?\n";
    assert!(sent.ends_with(hint), "{sent}");
}

/// A message that the server refuses before it is sent whole is given up.
#[test]
fn message_after_a_refused_one_is_sent() {
    let mut relay = Relay::start(&["--max-message=1KiB"]);
    let mut ear = relay.join("ear");
    let mut client = Piped::start(&mut join(relay.addr, "me", &[]));
    client.say("x".repeat(12_000_000) + "\nafter it\n");
    let (code, sent) = client.finish();
    assert_eq!(code, 5, "{sent}");
    let given_up = "chatloop: line 1 given up, since two connections ended in the middle of it\n";
    assert!(sent.contains(given_up), "{sent}");
    let hint = "in the middle of a message of 12000000 bytes: is it over the server's limit?\n";
    assert!(sent.contains(hint), "{sent}");
    let mut got = vec![0; common::delivery("me", "after it").len()];
    ear.read_exact(&mut got).unwrap();
    assert_bytes(&got, &common::delivery("me", "after it"));
}

#[test]
fn refusal_right_after_joining_is_reported_with_a_hint() {
    let relay = Relay::start(&["--max-name=3"]);
    let (code, sent) = {
        let mut client = Piped::start(&mut join(relay.addr, "alice", &["--no-reconnect"]));
        let mut log = String::new();
        let mut stderr = client.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        (client.child.wait().unwrap().code(), log)
    };
    assert_eq!(code, Some(5), "{sent}");
    let hint = "right after joining: is the server full, the name too long for it, are there too many \
                from your address, or does the port have another dialect?\n";
    assert!(sent.ends_with(hint), "{sent}");
}

#[test]
fn client_is_closed_at_once_on_a_port_for_64_byte_headers() {
    let mut relay = Relay::serving(&["chat64", "ack64"], &[]);
    for dialect in ["chat64", "ack64"] {
        let addr = relay.addr_of(dialect);
        // The input stays open: only the relay can end the connection.
        let mut client = Piped::start(&mut join(addr, "me", &["--no-reconnect"]));
        client.say("hi\n");
        let mut log = String::new();
        let mut stderr = client.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        assert_eq!(client.child.wait().unwrap().code(), Some(5), "{log}");
        assert!(
            log.ends_with("does the port have another dialect?\n"),
            "{log}"
        );
        let line = relay.log_line(&format!("closed: {dialect} "));
        assert!(line.contains("not a header: \"2         m"), "{line}");
        assert!(line.contains("a client with ten-byte headers?"), "{line}");
    }
}

#[test]
fn unusable_stream_is_reported() {
    let server = ScriptedServer::new();
    let directory = File::open(std::env::temp_dir()).unwrap();
    let (code, _, err) = run(join(server.addr(), "me", &[]).stdin(directory));
    assert_eq!(code, 1);
    assert!(
        err.ends_with("chatloop: cannot read the input: Is a directory (os error 21)\n"),
        "{err}"
    );

    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut client = join(server.addr(), "me", &["--stay"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first was for the directory.
    drop(server.accept());
    server.accept().say("bob", "hi");
    let mut err = String::new();
    client
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(
        err.ends_with("cannot write the output: No space left on device (os error 28)\n"),
        "{err}"
    );
}

#[test]
fn tutorial_server_relays_the_input_of_a_pipe() {
    let Some(python) = PythonServer::start() else {
        return;
    };
    let mut ear = Piped::start(&mut join(python.addr(), "ear", &["--stay"]));
    let mut talker = Piped::start(&mut join(python.addr(), "Zoë", &[]));
    // Messages are delivered only after the server has accepted the other member.
    let mut sent = 0;
    rustix::io::ioctl_fionbio(ear.output.get_ref(), true).unwrap();
    wait_for("the first message", || {
        talker.say(format!("{sent}\n"));
        sent += 1;
        ear.output.fill_buf().is_ok()
    });
    rustix::io::ioctl_fionbio(ear.output.get_ref(), false).unwrap();
    let first = String::from_utf8(ear.receive()).unwrap();
    let first: usize = first
        .strip_prefix("Zoë: ")
        .unwrap()
        .trim_end()
        .parse()
        .unwrap();
    talker.say("the end\n");
    for number in first + 1..sent {
        assert_bytes(&ear.receive(), format!("Zoë: {number}\n").as_bytes());
    }
    assert_bytes(&ear.receive(), "Zoë: the end\n".as_bytes());
    assert_eq!(talker.finish().0, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn client_in_a_pipe_is_one_thread() {
    let server = ScriptedServer::new();
    let client = Piped::start(&mut join(server.addr(), "me", &[]));
    server.accept().expect_frame("me");
    assert_eq!(client.status("Threads:"), 1);
}

#[test]
fn sequential_clients_stay_below_the_limit_per_address() {
    let mut relay = Relay::start(&["--max-per-ip", "2"]);
    let mut listener = Piped::start(&mut join(relay.addr, "listener", &[]));
    relay.log_line("joined: \"listener\"");
    // The end of its input is a departure: each client frees its place before the next one connects.
    for line in ["one", "two", "three", "four"] {
        let file = Scratch::new(line, line.as_bytes());
        let (code, _, err) = run(join(relay.addr, "me", &["--no-reconnect"]).stdin(file.open()));
        assert_eq!(code, 0, "{err}");
        assert_bytes(&listener.receive(), format!("me: {line}\n").as_bytes());
    }
}
