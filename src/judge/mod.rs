//! The judge: it plays the clients of a `chat10` server, in any language, and reports what the server
//! does wrong.
//!
//! | step | where |
//! |---|---|
//! | The stages, in order, each with the chapter that explains it | `stages.rs` |
//! | Clients connect, send and receive, in one event loop | `clients.rs` |
//! | What was sent, expected and received becomes text | `failure.rs` |
//!
//! The judge asks for no more than what the tutorials' clients need. So it accepts a server that closes slow
//! readers, and one that keeps silent connections. Nothing in the protocol confirms that a client has
//! joined: a room is complete when a message of its first client has reached all others.

mod clients;
mod failure;
mod stages;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::descriptors;
use clients::Clients;

pub use failure::Failure;
pub use stages::{CROWD, STAGES, Stage};

/// What to judge, and how.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The address of the server.
    pub addr: SocketAddr,
    /// How long the judge waits for each message. A stage may take four times as long.
    pub patience: Duration,
}

/// Why a server could not be judged.
#[derive(Debug)]
pub enum JudgeError {
    /// The process may open fewer files than the stage with many clients needs.
    Descriptors(u64),
    /// No connection to the server was possible.
    Connect(io::Error),
    /// A system call failed.
    Io(&'static str, io::Error),
}

/// Checks that the server accepts a connection, and raises the limit of descriptors if these stages need it.
///
/// # Errors
///
/// There is no server, or the limit of descriptors is too low.
pub fn prepare(config: Config, stages: &[Stage]) -> Result<(), JudgeError> {
    if stages.iter().any(|stage| stage.clients >= CROWD) {
        let limit = descriptors::raise_limit();
        let limit =
            limit.map_err(|error| JudgeError::Io("cannot read the open-file limit", error))?;
        if descriptors::room_for_clients(limit, 0) <= CROWD {
            return Err(JudgeError::Descriptors(limit));
        }
    }
    clients::connect(config.addr, config.patience)
        .map(drop)
        .map_err(JudgeError::Connect)
}

/// Plays one stage. Returns what the server did wrong, if it did.
///
/// # Errors
///
/// A system call of the judge's own failed.
pub fn play(config: Config, stage: &Stage) -> Result<Option<Failure>, JudgeError> {
    let clients = Clients::new(config.addr, config.patience);
    let mut clients = clients.map_err(|error| JudgeError::Io("cannot wait for events", error))?;
    let Err(mut failure) = stage.play(&mut clients) else {
        return Ok(None);
    };
    drop(clients);
    // A server that has crashed explains what came.
    if let Err(error) = clients::connect(config.addr, config.patience) {
        failure.came = format!(
            "{}; now the server does not accept connections: {error}",
            failure.came
        );
    }
    Ok(Some(failure))
}
