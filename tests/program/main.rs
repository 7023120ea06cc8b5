//! Level 4, the program. Real: the `chatloop` program, as a process, with its flags, signals, exit codes,
//! log and terminal. The other end is another process, or a server or a client that a test plays.
//!
//! `chatloop serve`:
//!
//! - [`program`]: what it prints, how it ends, what it does on signals.
//! - [`service`]: under a service manager.
//! - [`metrics`]: the listener for Prometheus.
//! - [`admin`]: the admin socket, and what it shows.
//! - [`access`]: who may connect, and `chatloop admin`, which closes and bans.
//! - [`trace`]: what `--trace` writes, and what `--watch` shows to whom.
//! - [`log_output`]: where standard error accepts no more.
//! - [`shortage`]: where its descriptors run out.
//! - [`torture`]: where each of its system calls fails, one after the other.
//! - [`interop`]: with the tutorials' own clients.
//! - [`six_ways`]: where the tutorials' servers die.
//! - `tls`: with TLS, its certificates and their renewal, and `chatloop cert`.
//! - [`bus`]: with others, and a Redis between them.
//! - [`proxies`]: behind nginx, Caddy and HAProxy.
//! - [`web`]: with browsers and other WebSocket clients. Some of its tests drive the server over sockets, or a
//!   room over scripts, where a process could not be timed.
//!
//! `chatloop join`:
//!
//! - [`join_pipe`]: in a pipe, from a file and into one.
//! - [`join_terminal`]: on a terminal.
//! - [`join_commands`]: the commands there, and what it does for a user who stays for long.
//! - [`join_web`]: over WebSocket.
//! - `join_tls`: through TLS, and which servers it trusts.
//!
//! `chatloop top`:
//!
//! - [`top`]: in a pipe and on a terminal, with relays and with servers that are none.
//!
//! `chatloop judge`:
//!
//! - [`judge`]: on a relay, on the tutorials' server, and on servers that do not answer.
//!
//! `chatloop load`:
//!
//! - [`load`]: its scenarios against servers that do as they should, and what it writes.
//! - [`load_trouble`]: what can go wrong on a measurement's way.
//! - [`load_web`]: the same through WebSockets.
//! - `load_tls`: the same through TLS.
//! - [`load_soak`]: the soak, against a relay and against servers with faults.
//!
//! All tests share this process. A test that changes its limits would change them for the programs of the
//! others, so it has a shell do that for its own program. A test that counts its descriptors runs in a
//! process of its own: see [`common::process::is_alone`].

#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod admin;
mod bus;
mod interop;
mod join_commands;
mod join_pipe;
mod join_terminal;
#[cfg(feature = "tls-client")]
mod join_tls;
mod join_web;
mod judge;
mod load;
mod load_soak;
#[cfg(feature = "tls-client")]
mod load_tls;
mod load_trouble;
mod load_web;
mod log_output;
mod metrics;
mod program;
mod proxies;
mod service;
mod shortage;
mod six_ways;
#[cfg(all(feature = "tls", feature = "cert"))]
mod tls;
mod top;
mod torture;
mod trace;
mod web;
