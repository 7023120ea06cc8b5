//! Level 3, the socket. Real: the [`Server`](chatloop::server::Server) or the
//! [`Client`](chatloop::client::Client), the kernel, and loopback sockets. Each is in the test's own thread,
//! one turn at a time, so a test decides what happens between two turns. No program is started.
//!
//! - [`conversation`]: what the tutorials' clients do, and what TCP makes of it.
//! - [`dialect_sockets`]: the other dialects: how connections end, and slow readers.
//! - [`slow_member`]: members that stop reading.
//! - [`hostile`]: peers that send bad headers, reset, or are too many.
//! - [`proxies`]: proxies that state their clients' addresses.
//! - `tls`: listeners with TLS.
//! - [`crowd`]: more members than `select` can watch.
//! - [`embed`]: a program around the server.
//! - [`client`]: the client as a library.
//!
//! All tests share this process and its descriptors. One that counts them, or sets a limit, belongs in
//! `program`, where the program has its own.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod conversation;
mod crowd;
mod dialect_sockets;
mod embed;
mod hostile;
mod proxies;
mod slow_member;
#[cfg(feature = "tls")]
mod tls;
