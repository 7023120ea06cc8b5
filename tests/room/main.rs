//! Level 1, the room. Real: [`relay`](chatloop::relay) and [`wire`](chatloop::wire). Made up: the streams,
//! which are scripts, and the clock, which moves when a test moves it. No test opens a socket, so every
//! order of reads, writes, refusals and ends can be had on request.
//!
//! - [`relay`]: joins, messages, closes, and errors at any byte. With the promise as a property test.
//! - [`dialects`]: every tutorial's protocol, byte for byte, and all of them in one room.
//! - [`browsers`]: WebSocket connections: their encoding, and the edges of their lives.
//! - [`pace`]: how fast the room goes when members read slowly, or not at all.
//! - [`limits`]: what one connection may take, and all of them together.
//! - [`names`]: names that only one member has at a time.
//! - [`bus`]: what other relays are told, and what they say.
//! - [`footprint`]: what a member costs while it does nothing.

#[path = "../common/mod.rs"]
mod common;

mod browsers;
mod bus;
mod dialects;
mod footprint;
mod limits;
mod names;
mod pace;
mod relay;
