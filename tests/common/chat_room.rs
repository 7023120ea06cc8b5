//! A chat server for the load tool to measure, which does to what it relays what a test asks for.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::SockRef;

use super::delivery;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A message of a member.
#[derive(Clone, Debug)]
pub struct Message {
    /// How many messages were sent before it since all members had joined; 0 until then, and for the first.
    pub nth: u64,
    /// Its sender: the number at the end of the name.
    pub from: usize,
    pub name: Vec<u8>,
    pub text: Vec<u8>,
}

impl Message {
    /// What the others are to receive.
    pub fn bytes(&self) -> Vec<u8> {
        delivery(&self.name, &self.text)
    }

    /// What this member must receive, which may be the sender.
    pub fn proper(&self, to: usize) -> Act {
        if to == self.from {
            return Act::Nothing;
        }
        Act::Send(self.bytes())
    }
}

/// What is done to one member.
#[derive(Debug)]
pub enum Act {
    Nothing,
    Send(Vec<u8>),
    /// Its connection ends with a FIN.
    Close,
    /// Its connection ends with a reset.
    Reset,
}

/// All that a room has received.
#[derive(Debug, Default)]
pub struct Received {
    /// Where its members came from, in the order in which they came.
    pub peers: Vec<SocketAddr>,
    pub names: Vec<Vec<u8>>,
    pub messages: Vec<Message>,
}

/// A server in a thread of its own, which ends with this.
pub struct Room {
    pub addr: SocketAddr,
    over: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<Received>>,
}

impl Room {
    /// A room for so many members. `rule` decides what becomes of each message for each member, its
    /// sender among them.
    pub fn start(
        members: usize,
        mut rule: impl FnMut(&Message, usize) -> Act + Send + 'static,
    ) -> Self {
        Self::start_by_turns(members, move |messages, to| {
            messages.iter().map(|message| rule(message, to)).collect()
        })
    }

    /// The same with a rule for all the messages that have come at a time.
    pub fn start_by_turns(
        members: usize,
        rule: impl FnMut(&[Message], usize) -> Vec<Act> + Send + 'static,
    ) -> Self {
        let poll = Poll::new().unwrap();
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let interest = Interest::READABLE;
        poll.registry()
            .register(&mut listener, LISTENER, interest)
            .unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let mut host = Host {
            poll,
            listener,
            members,
            all_since: None,
            clients: Vec::new(),
            received: Received::default(),
            rule: Box::new(rule),
        };
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            host.run(&is_over);
            host.received
        });
        Self {
            addr,
            over,
            waker,
            thread: Some(thread),
        }
    }

    /// One that relays as it should.
    pub fn proper(members: usize) -> Self {
        Self::start(members, Message::proper)
    }

    /// Ends it, and returns what it has received.
    pub fn finish(mut self) -> Received {
        self.end().unwrap()
    }

    fn end(&mut self) -> Option<Received> {
        let thread = self.thread.take()?;
        self.over.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        thread.join().ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.end();
    }
}

type Rule = Box<dyn FnMut(&[Message], usize) -> Vec<Act> + Send>;

struct Host {
    poll: Poll,
    listener: TcpListener,
    members: usize,
    /// The number of messages when the last of the members had joined.
    all_since: Option<usize>,
    clients: Vec<Client>,
    received: Received,
    rule: Rule,
}

struct Client {
    /// None when it has ended.
    stream: Option<TcpStream>,
    /// The name, when it has come, and the number at the end of it.
    name: Option<(Vec<u8>, usize)>,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Host {
    fn run(&mut self, is_over: &AtomicBool) {
        let mut events = Events::with_capacity(64);
        while !is_over.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.unwrap(),
            }
            let mut ready: HashSet<usize> = HashSet::new();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    Token(client) => {
                        ready.insert(client);
                    }
                }
            }
            let mut messages = Vec::new();
            for client in ready {
                self.clients[client].flush();
                self.read(client, &mut messages);
            }
            self.relay(&messages);
            self.received.messages.append(&mut messages);
        }
    }

    fn accept(&mut self) {
        loop {
            let (mut stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("accepting failed: {error}"),
            };
            stream.set_nodelay(true).unwrap();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(self.clients.len()), interest)
                .unwrap();
            self.received.peers.push(peer);
            self.clients.push(Client {
                stream: Some(stream),
                name: None,
                input: Vec::new(),
                out: Vec::new(),
            });
        }
    }

    fn read(&mut self, client: usize, messages: &mut Vec<Message>) {
        let client = &mut self.clients[client];
        client.fill();
        while let Some(payload) = client.next_frame() {
            let Some((name, from)) = &client.name else {
                let digits = payload.rsplit(|&byte| byte == b'-').next().unwrap();
                let index = std::str::from_utf8(digits).unwrap().parse().unwrap();
                self.received.names.push(payload.clone());
                client.name = Some((payload, index));
                continue;
            };
            let sent = self.received.messages.len() + messages.len();
            if self.received.names.len() >= self.members {
                self.all_since.get_or_insert(sent);
            }
            messages.push(Message {
                nth: self.all_since.map_or(0, |since| sent - since) as u64,
                from: *from,
                name: name.clone(),
                text: payload,
            });
        }
    }

    fn relay(&mut self, messages: &[Message]) {
        for client in &mut self.clients {
            let Some((_, index)) = &client.name else {
                continue;
            };
            let acts = (self.rule)(messages, *index);
            for act in acts {
                match act {
                    Act::Nothing => {}
                    Act::Send(bytes) => client.out.extend(bytes),
                    Act::Close => client.stream = None,
                    Act::Reset => {
                        if let Some(stream) = client.stream.take() {
                            let linger = Some(Duration::ZERO);
                            SockRef::from(&stream).set_linger(linger).unwrap();
                        }
                    }
                }
            }
            client.flush();
        }
    }
}

impl Client {
    /// Reads all there is.
    fn fill(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer) {
                Ok(0) => self.stream = None,
                Ok(read) => self.input.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The load tool leaves by a reset.
                Err(_) => self.stream = None,
            }
        }
    }

    /// The payload of the first frame, if all of it has come.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let header = self.input.get(..10)?;
        let len: usize = std::str::from_utf8(header)
            .unwrap()
            .trim_end()
            .parse()
            .unwrap();
        let payload = self.input.get(10..10 + len)?.to_vec();
        self.input.drain(..10 + len);
        Some(payload)
    }

    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                // The socket is reported writable when it accepts more. An end shows when it is read.
                Err(_) => return,
            }
        }
    }
}
