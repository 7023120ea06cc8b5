//! The log lines of the bus.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::config::BusConfig;
use super::link::Trouble;
use crate::bus::EntryId;
use crate::server::log::LogThrottle;
use crate::text::Quoted;
use crate::wire::FrameError;

/// The log of the bus. It remembers what it logged when.
#[derive(Debug, Default)]
pub(super) struct BusLog {
    unreadable: LogThrottle,
    too_long: LogThrottle,
    given_up: LogThrottle,
}

impl BusLog {
    /// The engine can be used. It could not for as long as `was_down` says, if that was logged.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn up(
        &self,
        peer: SocketAddr,
        config: &BusConfig,
        was_down: Option<Duration>,
        lag: u64,
    ) {
        let (room, node) = (
            Quoted(config.room.as_bytes()),
            Quoted(config.node.as_bytes()),
        );
        match was_down {
            None => info!("bus: connected to {peer}, room {room}, as {node}"),
            Some(lasted) => info!(
                "bus: connected to {peer} after {:.1} s, room {room}, as {node}; {lag} bytes waited",
                lasted.as_secs_f64()
            ),
        }
    }

    /// The engine cannot be used.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn down(&self, peer: SocketAddr, trouble: &Trouble, lag: u64) {
        warn!(
            "bus: no connection to {peer}: {trouble}; members of this relay chat on, {lag} bytes wait \
             (limit: --bus-queue)"
        );
    }

    /// Messages are given up: so many since the start.
    pub(super) fn given_up(&mut self, messages: u64, now: Instant) {
        if self.given_up.is_due(now) {
            warn!(
                "bus: giving up the oldest messages, {messages} so far: other relays will \
                 miss them (limit: --bus-queue)"
            );
        }
    }

    /// So many messages of a relay will never come.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn missing(&self, node: &[u8], messages: u64) {
        warn!(
            "bus: {messages} messages of {} are missing: its --bus-queue or the stream's --bus-keep was \
             too short",
            Quoted(node)
        );
    }

    /// An entry is skipped.
    pub(super) fn unreadable(&mut self, id: EntryId, now: Instant) {
        if self.unreadable.is_due(now) {
            warn!("bus: skipped entry {id}, which is none of a relay of this version");
        }
    }

    /// A message is skipped.
    pub(super) fn too_long(&mut self, error: &FrameError, now: Instant) {
        if self.too_long.is_due(now) {
            warn!(
                "bus: skipped a message of another relay: {error} (limits: --max-message, --max-name)"
            );
        }
    }

    /// The stream is another one than before.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn replaced(&self) {
        warn!("bus: the stream was replaced; what other relays keep is sent again");
    }

    /// So many messages of the history were read.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn history(&self, messages: u64) {
        info!("bus: read {messages} messages of the history");
    }

    /// The history has not come.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn history_is_late(&self) {
        warn!("bus: the history has not come in time; members find none");
    }
}
