//! The bus: one room on several relays, over a stream of Redis or Valkey that they share.
//!
//! Each relay is one writer and one reader of the stream. Both are state machines without I/O: replies go in,
//! requests come out, and what was found. Who connects, and when, is the caller's.
//!
//! ```text
//!   relay's members ──► Writer ──► XADD ─┐            ┌─ XREAD ──► Reader ──► relay's members
//!                                        ▼            │
//!                                     ┌─────────────────┐
//!                                     │  engine: stream │
//!                                     └─────────────────┘
//! ```
//!
//! What is promised: a member of any relay receives each message of another relay once and in its sender's order,
//! whatever happens to connections and to the engine, or its relay counts exactly how many are missing.

mod entry;
mod failure;
mod frames;
mod heard;
mod presence;
mod reader;
mod request;
mod resp;
mod writer;

#[cfg(test)]
mod tests;

pub use entry::{Batch, Boot, Content, Entry, EntryId, Identity};
pub use failure::Failure;
pub use frames::Frames;
pub use presence::Presence;
pub use reader::{Found, Reader};
pub use request::{Request, Terms};
pub use resp::{NoReply, ReplyDecoder, Value, encode_command};
pub use writer::Writer;
