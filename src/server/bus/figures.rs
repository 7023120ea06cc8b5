//! What the operator is told of the bus, in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// So many relays are told apart. The missing messages of the others are counted together.
const MAX_NODES: usize = 256;

/// What the bus has counted, and its state.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct BusFigures {
    /// Whether the engine can be used.
    pub(in crate::server) is_up: bool,
    /// For how long it is so.
    pub(in crate::server) since: Duration,
    /// Bytes that wait to be sent.
    pub(in crate::server) lag: u64,
    /// Entries that are not acknowledged.
    pub(in crate::server) in_flight: usize,
    /// Entries sent, less those that were sent again.
    pub(in crate::server) sent: u64,
    /// Messages of other relays that were published.
    pub(in crate::server) received: u64,
    /// Messages that were given up because too many waited.
    pub(in crate::server) given_up: u64,
    /// Messages that will never come, by relay.
    pub(in crate::server) missing: BTreeMap<Box<[u8]>, u64>,
    /// Entries and messages that were skipped.
    pub(in crate::server) unreadable: u64,
    /// How often the stream was another one.
    pub(in crate::server) replaced: u64,
    /// Entries that fewer replicas than asked for have confirmed in time.
    pub(in crate::server) under_replicated: u64,
    /// Members of other relays.
    pub(in crate::server) members: Vec<(Box<[u8]>, usize)>,
}

impl BusFigures {
    /// So many messages of this relay are missing.
    pub(super) fn count_missing(&mut self, node: &[u8], messages: u64) {
        let is_known = self.missing.contains_key(node) || self.missing.len() < MAX_NODES;
        let node = if is_known { node } else { b"others" };
        *self.missing.entry(node.into()).or_default() += messages;
    }
}

/// The state in one line.
impl fmt::Display for BusFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_duration(Duration::from_secs(self.since.as_secs()));
        if self.is_up {
            write!(f, "bus: up for {since}")?;
            let members: usize = self.members.iter().map(|(_, members)| members).sum();
            let relays = self.members.len();
            write!(f, ", {members} members at {relays} other relays")?;
        } else {
            write!(f, "bus: down for {since}")?;
        }
        write!(f, ", {} bytes wait", self.lag)
    }
}
