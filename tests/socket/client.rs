//! The client as a library: its turns, and a server in the same thread.

#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use chatloop::client::display::Format;
use chatloop::client::{Client, ClientError, Config, Ending, Interface, Streams, Turn};

use crate::common::chat_server::Refusal;
use crate::common::socket::{End, TestPeer};
use crate::common::{PATIENCE, assert_bytes, delivery, frame};

/// A client of the server at `addr`, between these pipes.
fn config(addr: SocketAddr, input: PipeReader, output: PipeWriter, notices: PipeWriter) -> Config {
    Config {
        server: "example".to_owned(),
        addrs: vec![addr],
        web_socket: None,
        tls: None,
        name: b"me".to_vec(),
        reconnect: true,
        wait: false,
        quiet: false,
        interface: Interface::Streams(Streams {
            input: Some(input.into()),
            output: output.into(),
            notices: notices.into(),
            format: Format::Plain,
            clock: None,
            stay: false,
            by_hand: false,
        }),
    }
}

struct TestClient {
    client: Client,
    listener: TcpListener,
    input: Option<PipeWriter>,
    output: PipeReader,
    notices: BufReader<PipeReader>,
    received: Vec<u8>,
    turn: Turn,
}

impl TestClient {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (theirs, input) = pipe().unwrap();
        let (output, ours) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&output, true).unwrap();
        let (notices, theirs_too) = pipe().unwrap();
        let client = Client::new(config(addr, theirs, ours, theirs_too));
        Self {
            client: client.unwrap(),
            listener,
            input: Some(input),
            output,
            notices: BufReader::new(notices),
            received: Vec::new(),
            turn: Turn::Running,
        }
    }

    /// Takes turns until `done`; a failure reports `what` it waits for.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(result) = done(self) {
                return result;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
            self.turn = self.client.turn(Some(Duration::from_millis(5))).unwrap();
        }
    }

    /// The server's side of the client's next connection.
    #[track_caller]
    fn accept(&mut self) -> TestPeer {
        self.until("the client to connect", |client| {
            let (stream, _) = client.listener.accept().ok()?;
            Some(TestPeer::from(stream))
        })
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
    }

    /// The server gets exactly this next.
    #[track_caller]
    fn expect_sent(&mut self, peer: &mut TestPeer, expected: &[u8]) {
        self.until("the server to hear", |_| {
            (peer.pump().len() >= expected.len() || peer.end.is_some()).then_some(())
        });
        let sent: Vec<u8> = peer.received.drain(..).collect();
        assert_bytes(&sent, expected);
    }

    /// This is the next notice, with `ADDR` for the address, and without the time to the next attempt.
    #[track_caller]
    fn expect_notice(&mut self, expected: &str) {
        let mut line = String::new();
        self.notices.read_line(&mut line).unwrap();
        let addr = self.listener.local_addr().unwrap().to_string();
        let line = line.trim_end().replace(&addr, "ADDR");
        assert_eq!(line.split(" in 0.").next(), Some(expected));
    }

    /// This is written to the output next.
    #[track_caller]
    fn expect_output(&mut self, expected: &[u8]) {
        self.until("the output", |client| {
            let mut buf = [0; 4096];
            match client.output.read(&mut buf) {
                Ok(read) => client.received.extend_from_slice(&buf[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            (client.received.len() >= expected.len()).then_some(())
        });
        assert_bytes(&std::mem::take(&mut self.received), expected);
    }
}

#[test]
fn message_that_arrives_byte_by_byte_is_written_when_it_is_complete() {
    let mut client = TestClient::start();
    let mut peer = client.accept();
    client.expect_sent(&mut peer, &frame("me"));
    let message = delivery("bob", "hi");
    for at in 0..=message.len() {
        let (left, right) = message.split_at(at);
        peer.send(left);
        // So that the client has seen the first part by itself.
        let line = format!("at {at}");
        client.say(&format!("{line}\n"));
        client.expect_sent(&mut peer, &frame(line));
        peer.send(right);
        client.expect_output(b"bob: hi\n");
    }
}

#[test]
fn client_ends_after_its_input_when_everything_is_sent() {
    let mut client = TestClient::start();
    client.say("one\ntwo\nthree");
    client.input = None;
    let mut peer = client.accept();
    let all = ["me", "one", "two", "three"].map(frame).concat();
    client.expect_sent(&mut peer, &all);
    client.until("the end", |client| {
        (client.turn != Turn::Running).then_some(())
    });
    let left = Ending::Left {
        unsent: 0,
        uncertain: 0,
    };
    assert_eq!(client.turn, Turn::Over(left));
    client.until("the connection's end", |_| {
        peer.pump();
        peer.end
    });
    assert_eq!((peer.end, &peer.received[..]), (Some(End::Fin), &[][..]));
}

#[test]
fn lost_connection_is_made_again_and_begins_with_the_name() {
    let mut client = TestClient::start();
    let mut peer = client.accept();
    client.expect_sent(&mut peer, &frame("me"));
    for round in 0..3 {
        // A message that was cut off is not shown, and the next connection starts anew.
        peer.send(&delivery("bob", "cut off")[..25]);
        drop(peer);
        peer = client.accept();
        client.say(&format!("round {round}\n"));
        let expected = [frame("me"), frame(format!("round {round}"))].concat();
        client.expect_sent(&mut peer, &expected);
        peer.send(delivery("bob", "whole"));
        client.expect_output(b"bob: whole\n");
    }
}

#[test]
fn message_that_arrives_with_the_end_of_the_connection_is_written() {
    let mut client = TestClient::start();
    let mut peer = client.accept();
    client.expect_sent(&mut peer, &frame("me"));
    peer.send(delivery("bob", "last words"));
    drop(peer);
    client.expect_output(b"bob: last words\n");
    client.expect_notice("chatloop: connected to ADDR as me");
    client.expect_notice("chatloop: the server closed the connection; connecting again");
    let mut peer = client.accept();
    client.expect_sent(&mut peer, &frame("me"));
    client.expect_notice("chatloop: connected to ADDR again");
}

#[test]
fn first_connection_that_is_refused_is_an_error_with_the_address() {
    let refusal = Refusal::new();
    let ((input, _say), (_receive, output), (_told, notices)) =
        (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
    let client = Client::new(config(refusal.addr(), input, output, notices));
    let error = client.unwrap().run().unwrap_err();
    assert!(matches!(error, ClientError::Connect(..)));
    let addr = refusal.addr();
    let expected = format!("cannot connect to example ({addr}): connection refused");
    assert_eq!(error.to_string(), expected);
}
