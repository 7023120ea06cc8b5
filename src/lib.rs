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
//! | All that is asked of the operating system is one trait | [`server::System`] |
//! | A newcomer is accepted, even when descriptors run out | `server/acceptor.rs` |
//! | Its socket is registered once, for reading and writing | [`server`]: *why edge-triggered* |
//! | An event says that it is readable: this is only noted | [`Relay::note`](relay::Relay::note), `relay/ready.rs` |
//! | It is read into the loop's one scratch buffer, up to its budget | `relay/connection.rs` |
//! | Frames are taken out of the scratch buffer where they lie | [`wire::Decoder`] |
//! | What its protocol makes of them is one table | [`wire::Dialect::rules`] |
//! | The first is its name; each later one is said, encoded once for all who hear it alike | `relay/channel.rs` |
//! | At the end of the turn each member is written to, once | [`relay`]: *why one write a turn*, `relay/delivery.rs` |
//! | What a socket does not take stays, in one copy for all | [`relay`]: *the backlog*, `relay/send_queue.rs` |
//! | Who is far behind is waited for, as long as it reads | [`relay`]: *pace, then cut*, `relay/pace.rs` |
//! | What was said stays longer for newcomers, if they are to be told | [`relay`]: *history*, `relay/history.rs` |
//! | An event says that it is writable: what is queued goes first | [`relay`]: *why nobody fails for anybody* |
//! | Marked connections are closed | [`relay`]: *why close late* |
//! | Newcomers are accepted last | [`server`]: *why accept last* |
//!
//! The modules behind the file names are private; `cargo doc --document-private-items` shows them.
//!
//! # The layers, in reading order
//!
//! - [`wire`]: bytes and frames. No I/O.
//! - [`relay`]: the room. It reads and writes streams but knows no socket, no event loop, no clock.
//! - [`server`]: the event loop around it: listeners, timers, signals.
//! - [`text`]: how strangers' text is shown.
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

pub mod clock;

pub mod descriptors;

pub mod client;

pub mod load;
