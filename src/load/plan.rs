//! The plan of a measurement: what is done to which server, and how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use super::protocol::Protocol;
use super::sources::Sources;

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scenario {
    /// Members come, are silent, and hear one message.
    Idle,
    /// One speaks, all others hear.
    Fanout,
    /// All speak, all hear.
    Chat,
    /// Messages are said by the clock.
    Latency,
    /// All leave and come back at once.
    Storm,
    /// Members come and go, some of them misbehave, and all is checked for a long time.
    Soak,
}

/// How the load tool waits for what is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// It keeps asking, which takes a core.
    #[default]
    Spin,
    /// It sleeps until there is something.
    Sleep,
}

/// A server that is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done to the server.
    pub scenario: Scenario,
    /// The server; without one, a relay is started for this.
    pub target: Option<Server>,
    /// Another one to compare it with, in turns.
    pub against: Option<Server>,
    /// Whether a room may be measured that has members already.
    pub allow_company: bool,
    /// How often each of two servers is measured.
    pub rounds: usize,
    /// The program that is a relay of one's own: `chatloop`.
    pub program: PathBuf,
    /// The server's process, if it is not to be searched for.
    pub pid: Option<u32>,
    /// How many members there are. At least two.
    pub members: usize,
    /// How many of them send messages.
    pub senders: usize,
    /// How long a message is, in bytes; at least [`MIN_SIZE`](super::MIN_SIZE). In a soak, where they have many
    /// sizes, it is [`SOAK_SIZE`](super::SOAK_SIZE).
    pub size: usize,
    /// How many messages are under way at a time.
    pub in_flight: usize,
    /// How many connections are made or messages sent a second, as the scenario requires.
    pub rate: Option<f64>,
    /// How many members leave a second, and are replaced by others: in a soak.
    pub churn: f64,
    /// How many misbehave at a time: in a soak, beside the members.
    pub faults: usize,
    /// How long it is measured.
    pub lasts: Duration,
    /// How long it runs before that.
    pub warmup: Duration,
    /// In how many steps the members connect.
    pub steps: usize,
    /// The source addresses of connections, if those are not left to the system.
    pub sources: Option<Sources>,
    /// What chance starts from.
    pub seed: u64,
    /// How to wait.
    pub wait: Wait,
    /// The command that asked for it, for the report.
    pub command: String,
}

/// How a member leaves that has behaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantArray)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Leave {
    /// It closes its connection, having just said something.
    Fin,
    /// It closes its sending side, and reads until the server closes the connection, or for a while.
    HalfClose,
    /// It resets its connection, having just said something.
    Reset,
    /// It resets its connection, after its last message was heard.
    Quiet,
}

/// How a member misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantArray)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// It stops reading for good.
    Stop,
    /// It stops reading for some seconds, and then reads all there is.
    Pause,
    /// It reads a byte at a time.
    Drip,
    /// It says a message a byte at a time.
    Trickle,
    /// It says as much as the server takes.
    Flood,
    /// It resets its connection inside a message.
    ResetInside,
    /// It closes its sending side inside a frame.
    FinInside,
    /// It never gives a name.
    Nameless,
    /// It sends something that is no frame.
    NoFrame,
    /// It sends a header over every limit.
    TooLong,
}
