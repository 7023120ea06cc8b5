//! Beside the pyramid, the harness: the tree itself, and the tools that other evidence rests on. Nothing
//! here is about what the relay does.
//!
//! - [`architecture`]: layers and imports, read from the source.
//! - [`readme`]: the documents say what is so.
//! - [`terminal_harness`]: the terminal on which tests run the client.
//! - [`load_checker`]: the load tool finds each fault of a server that has one.
//! - [`ladder`]: the examples: each step breaks as it says, and the next one does not.

#[path = "../common/mod.rs"]
mod common;

mod architecture;
mod ladder;
mod load_checker;
mod readme;
mod terminal_harness;
