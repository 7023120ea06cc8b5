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
//! | It is read into the loop's one scratch buffer | `relay/connection.rs` |
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
//! - [`relay`]: the room. It reads and writes streams but knows no socket, no event loop, no clock, no log.
//! - [`server`]: the event loop around it: listeners, timers, signals.
//! - [`text`]: how untrusted text is shown.
//! - [`clock`]: the time of day, whatever the clock says.
//! - [`client`]: the terminal client, an event loop of its own over the keyboard and a socket.
//! - [`load`]: the load generator, an event loop of its own over thousands of sockets.
//! - [`descriptors`]: how many of them a process may have.
//!
//! Imports run in that direction only: `wire` knows none of the others, `relay` knows `wire`, `server`
//! knows both; `client` and `load` know `wire`, `text`, `clock` and `descriptors`, and nothing of the
//! relay.
//!
//! # A relay of your own
//!
//! ```
//! use chatloop::server::{Config, Endpoint, Server, Turn};
//! use chatloop::wire::Dialect;
//!
//! let endpoint = Endpoint { dialect: Dialect::Chat10, addr: "127.0.0.1:0".parse()? };
//! let mut server = Server::bind(&Config::new(vec![endpoint]))?;
//! println!("listening on {}", server.local_addrs()?[0]);
//!
//! server.stop("the example"); // or leave it to a signal: see Server::handle_signals
//! while server.turn(None)? == Turn::Running {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(unix))]
compile_error!("chatloop needs Unix: descriptor limits, signals and edge-triggered polling");

pub mod wire;

pub mod relay;

pub mod server;

pub mod text;

#[cfg(feature = "cli")]
pub mod clock;

pub mod descriptors;

#[cfg(feature = "cli")]
pub mod client;

#[cfg(feature = "cli")]
pub mod load;
