//! A chat relay in one event loop, and a guided tour of non-blocking I/O.
//!
//! `chatloop` is the Python `select()` chat server of the well-known socket tutorials, done the way
//! a server for thousands has to be done: one thread, one [`mio`] poll, no async runtime.
//!
//! # Follow the bytes
//!
//! A message's way through the relay, and the place where each step is explained:
//!
//! | step | where |
//! |---|---|
//! | Everything that is asked of the operating system is one trait | [`server::System`] |
//! | A connection is accepted, even when descriptors run out | `server/acceptor.rs` |
//! | Its socket is registered once, for reading and writing | [`server`]: *why edge-triggered* |
//! | An event reports that it is readable: this is only noted | [`Relay::note`](relay::Relay::note), `relay/ready.rs` |
//! | Flow control permits a read, and how large | `relay/flow/mod.rs` |
//! | It is read into the loop's one scratch buffer | `relay/reading.rs`, `relay/connection.rs` |
//! | Frames are decoded in the scratch buffer, where they lie | [`wire::Decoder`] |
//! | What its protocol makes of them is one table | [`wire::Dialect::rules`] |
//! | The first frame is its name; it becomes a member | `relay/lifecycle.rs` |
//! | Each later one is published, encoded once for all members of a dialect | `relay/room.rs`, `relay/channel/mod.rs` |
//! | At the end of the turn each member is written to, once | [`relay`]: *why one write a turn*, `relay/delivery.rs` |
//! | What a socket does not accept stays, in one copy for all | [`relay`]: *the backlog*, `relay/channel/cursor.rs` |
//! | A slow reader is waited for, as long as it reads | `relay/flow/lag.rs` |
//! | Published messages stay longer for new members, if there is history | [`relay`]: *history*, `relay/channel/history.rs` |
//! | An event reports that it is writable: pending output goes first | [`relay`]: *why no receiver fails a sender* |
//! | Closed connections are removed | [`relay`]: *why close late* |
//! | What happened becomes log lines | `server/log.rs` |
//! | Connections are accepted last | [`server`]: *why accept last* |
//!
//! The modules behind the file names are private; `cargo doc --document-private-items` shows them.
//!
//! # The layers, in reading order
//!
//! - [`wire`]: bytes and frames. No I/O.
//! - [`handshake`]: how a WebSocket begins, in HTTP. No I/O.
//! - [`relay`]: the room. It reads and writes streams but knows no socket, no event loop, no clock, no log.
//! - [`bus`]: what several relays of one room say to each other through Redis. No I/O.
//! - [`server`]: the event loop around both: listeners, timers, signals.
//! - [`text`]: how untrusted text is shown.
//! - [`descriptors`]: the process's limit of open descriptors, and how many clients fit it.
//!
//! The feature `cli`, which is on by default, adds the program and its layers:
//!
//! - `clock`: timestamps, for any time that a clock can show.
//! - `sockets`: the TCP sockets of this machine, as the kernel lists them.
//! - `units`: figures with their units.
//! - `terminal`: raw mode, keys, and standard streams that do not block.
//! - `client_tls`: TLS of the client and of the load tool, and which servers they trust.
//! - `client`: the terminal client, an event loop of its own over the keyboard and a socket.
//! - `load`: the load generator, an event loop of its own over thousands of sockets.
//! - `top`: the live view of relays, an event loop of its own over the keyboard and the connections to them.
//! - `judge`: the clients of a chat server that is to be judged, in an event loop of their own.
//!
//! Imports run in that direction only: `wire` knows none of the others, `relay` and `bus` know `wire`, `server`
//! knows all three; `client`, `load`, `top` and `judge` know what is above them and below `server`, and nothing of the relay.
//!
//! # The library alone
//!
//! Without the feature `cli` the crate needs no crate for a terminal, a command line or a report:
//!
//! ```toml
//! chatloop = { version = "0.1", default-features = false }
//! ```
//!
//! A program runs a server turn by turn, or until it stops with [`Server::run`](server::Server::run):
//!
//! ```
//! use std::io::Write;
//! use std::net::TcpStream;
//!
//! use chatloop::server::{Config, Endpoint, Server, Turn};
//! use chatloop::wire::Dialect;
//!
//! let endpoint = Endpoint { dialect: Dialect::Chat10, addr: "127.0.0.1:0".parse()? };
//! let mut server = Server::bind(&Config::new(vec![endpoint]))?;
//!
//! // A client's first frame is its name.
//! let mut alice = TcpStream::connect(server.local_addrs()?[0])?;
//! alice.write_all(b"5         alice")?;
//! while server.relay().members().total() == 0 {
//!     server.turn(None)?;
//! }
//!
//! server.stop("the example"); // or leave it to a signal: see Server::handle_signals
//! while server.turn(None)? == Turn::Running {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program with an event loop and streams of its own needs only the room, [`Relay`](relay::Relay). Here
//! the streams are pairs of Unix sockets, and both connections are noted as readable in each turn, where
//! an event loop would note those of its events:
//!
//! ```
//! use std::io::{self, Read, Write};
//! use std::net::SocketAddr;
//! use std::os::unix::net::UnixStream;
//! use std::time::Instant;
//!
//! use chatloop::relay::{ConnId, Limits, Ready, Relay, ReplyTexts};
//! use chatloop::wire::Dialect;
//!
//! /// Connects a client to the relay; returns its end.
//! fn connect(relay: &mut Relay<UnixStream>) -> io::Result<(UnixStream, ConnId)> {
//!     let (client, stream) = UnixStream::pair()?;
//!     stream.set_nonblocking(true)?;
//!     let addr = SocketAddr::from(([192, 0, 2, 1], 4000)); // for the log and the limits
//!     Ok((client, relay.insert(stream, addr, Dialect::Chat10, Instant::now())))
//! }
//!
//! /// One turn: read, publish, deliver, close.
//! fn turn(relay: &mut Relay<UnixStream>, scratch: &mut [u8], readable: &[ConnId]) {
//!     let now = Instant::now();
//!     for &id in readable {
//!         relay.note(id, Ready::READABLE);
//!     }
//!     relay.handle_timeout(now);
//!     relay.serve_ready(scratch, now);
//!     relay.fan_out(now);
//!     relay.remove_closed(scratch, now);
//!     for event in relay.drain_events() {
//!         println!("{event:?}");
//!     }
//! }
//!
//! let limits = Limits::default();
//! let mut scratch = vec![0; limits.read_budget];
//! let served = [Dialect::Chat10];
//! let mut relay = Relay::new(limits, &served, &ReplyTexts::default(), Instant::now());
//! let (mut alice, alice_id) = connect(&mut relay)?;
//! let (mut bob, bob_id) = connect(&mut relay)?;
//!
//! alice.write_all(b"5         alice")?;
//! bob.write_all(b"3         bob")?;
//! turn(&mut relay, &mut scratch, &[alice_id, bob_id]);
//! assert_eq!(relay.members().total(), 2);
//!
//! alice.write_all(b"6         hello!")?;
//! turn(&mut relay, &mut scratch, &[alice_id, bob_id]);
//! let mut received = [0; 31];
//! bob.read_exact(&mut received)?;
//! assert_eq!(&received, b"5         alice6         hello!");
//! # Ok::<(), io::Error>(())
//! ```

#[cfg(not(unix))]
compile_error!("chatloop needs Unix: descriptor limits, signals and edge-triggered polling");

pub mod wire;

pub mod handshake;

pub mod relay;

pub mod bus;

pub mod server;

pub mod text;

#[cfg(feature = "cli")]
pub mod clock;

pub mod descriptors;

#[cfg(feature = "cli")]
mod sockets;

#[cfg(feature = "cli")]
mod units;

#[cfg(feature = "cli")]
pub mod terminal;

#[cfg(feature = "cli")]
pub mod client_tls;

#[cfg(feature = "cli")]
pub mod client;

#[cfg(feature = "cli")]
pub mod load;

#[cfg(feature = "cli")]
pub mod top;

#[cfg(feature = "cli")]
pub mod judge;
