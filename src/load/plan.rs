//! The plan of a measurement: what is done to which server, and how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use strum::{IntoStaticStr, VariantArray};

use super::protocol::Protocol;
use super::sources::Sources;
use crate::client_tls::Connector;

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scenario {
    /// Members join, are silent, and receive one message.
    Idle,
    /// One member sends, all others receive.
    Fanout,
    /// All members send, all receive.
    Chat,
    /// Messages are sent by a schedule.
    Latency,
    /// All members leave and come back at once.
    Storm,
    /// Members join and leave, some clients misbehave, and every delivery is checked for a long time.
    Soak,
}

/// How the load tool waits for messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// It polls without sleeping, which takes a core.
    #[default]
    Spin,
    /// It sleeps until an event.
    Sleep,
}

/// A server to measure.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its protocol.
    pub protocol: Protocol,
    /// TLS around it, if there is any.
    pub tls: Option<Connector>,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Server {
    /// The name of the protocol, with TLS around it or not.
    pub(super) fn scheme(&self) -> String {
        let name = <&str>::from(self.protocol);
        match self.tls {
            Some(_) => format!("tls+{name}"),
            None => name.to_owned(),
        }
    }
}

/// A `Plan` states what to measure, and how. The report has its part that the flags decide.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[cfg_attr(test, schemars(rename = "Asked", description = "What was asked for."))]
pub struct Plan {
    /// What is done to the server.
    #[serde(skip)]
    pub scenario: Scenario,
    /// The server; without one, a relay is started for this.
    #[serde(skip)]
    pub target: Option<Server>,
    /// Another server to compare it with, in alternating rounds.
    #[serde(skip)]
    pub against: Option<Server>,
    /// Whether a room with other members may be measured.
    #[serde(skip)]
    pub allow_company: bool,
    /// The program that is started as the relay: `chatloop`.
    #[serde(skip)]
    pub program: PathBuf,
    /// The server's process; without a number, the process that listens there.
    #[serde(skip)]
    pub pid: Option<u32>,
    /// In how many steps the members connect.
    #[serde(skip)]
    pub steps: usize,
    /// The command line, for the report.
    #[serde(skip)]
    pub command: String,
    /// --members: how many receive a message, and its sender.
    pub members: usize,
    /// --senders: how many of them send.
    pub senders: usize,
    /// --size: how long a message is, in bytes; in `soak` the longest.
    pub size: usize,
    /// --in-flight: how many messages are under way at a time, in `fanout` and `chat`.
    pub in_flight: usize,
    /// --rate: connections a second in `idle`, messages a second in `latency` and `soak`; null for as fast as possible.
    #[cfg_attr(test, schemars(required, extend("type" = ["number", "null"])))]
    pub rate: Option<f64>,
    /// --churn: how many members leave a second in `soak`, and are replaced by others.
    pub churn: f64,
    /// --faults: how many clients misbehave at a time in `soak`, beside the members.
    pub faults: usize,
    /// --for: how long it is measured, in seconds.
    #[serde(rename = "for_seconds", serialize_with = "in_seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub lasts: Duration,
    /// --warmup: how long it runs before that, in seconds.
    #[serde(rename = "warmup_seconds", serialize_with = "in_seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub warmup: Duration,
    /// --rounds: how often each server is measured; once without --against.
    pub rounds: usize,
    /// --seed: the start of the random numbers.
    pub seed: u64,
    /// --wait: how the load tool waits for messages.
    pub wait: Wait,
    /// --bind: how many source addresses connections came from; null if the system chose.
    #[serde(rename = "source_addresses")]
    #[cfg_attr(test, schemars(required, with = "Option<usize>", extend("type" = ["integer", "null"])))]
    pub sources: Option<Sources>,
}

fn in_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Plan {
    /// The number of receivers and of senders. A message has as many receivers with every protocol:
    /// one fewer than there are members.
    pub(super) fn cast(&self, protocol: Protocol) -> (usize, usize) {
        if protocol.is_broker() {
            (self.members - 1, self.senders)
        } else {
            // Two at least, since a sender does not receive its own messages.
            (self.members, self.senders.max(2))
        }
    }
}

/// How a member leaves as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantArray)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Leave {
    /// It closes its connection just after a message.
    Fin,
    /// It closes its sending side, and reads until the server closes the connection, or for a while.
    HalfClose,
    /// It resets its connection just after a message.
    Reset,
    /// It resets its connection after its last message was delivered.
    Quiet,
}

/// How a member misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantArray)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// It stops reading for good.
    Stop,
    /// It stops reading for some seconds, and then reads all that has arrived.
    Pause,
    /// It reads a byte at a time.
    Drip,
    /// It sends a message a byte at a time.
    Trickle,
    /// It sends as much as the server accepts.
    Flood,
    /// It resets its connection inside a message.
    ResetInside,
    /// It closes its sending side inside a frame.
    FinInside,
    /// It never sends a name.
    Nameless,
    /// It sends something that is no frame.
    NoFrame,
    /// It sends a header over every limit.
    TooLong,
}
