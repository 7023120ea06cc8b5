//! Why connections end: one table.

use std::io::ErrorKind;

use crate::wire::FrameError;

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The peer closed it.
    Peer,
    /// The relay closed it.
    Relay,
    /// The network broke it.
    Network,
}

/// A row of the table of close reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReasonInfo {
    /// The reason as a metric's label has it: letters and underscores.
    pub key: &'static str,
    /// The reason as the log's summary has it.
    pub label: &'static str,
    /// Which side ended the connection.
    pub ended_by: EndedBy,
}

/// Writes [`CloseReason`] and its table. A row is a variant with its data, and then key, label and the
/// side that ends the connection. A reason is added here and nowhere else in the relay; its wording is
/// added in the server's log.
macro_rules! close_reasons {
    ($(
        $(#[$doc:meta])*
        $name:ident $( { $( $(#[$field_doc:meta])* $field:ident : $data:ty ),* } )? $( ($inner:ty) )?
        => $key:literal, $label:literal, $ended_by:ident;
    )*) => {
        /// Why a connection ended. Each end has one reason, one event and one counter.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum CloseReason {
            $( $(#[$doc])* $name $( { $( $(#[$field_doc])* $field: $data ),* } )? $( ($inner) )?, )*
        }

        impl CloseReason {
            /// The table: a row for each reason, in the order of the variants.
            pub const TABLE: &'static [CloseReasonInfo] = &[
                $( CloseReasonInfo { key: $key, label: $label, ended_by: EndedBy::$ended_by }, )*
            ];

            /// This reason's index in [`TABLE`](Self::TABLE).
            fn index(&self) -> usize {
                let rows = [ $( matches!(self, Self::$name { .. }), )* ];
                let index = rows.iter().position(|&is_row| is_row);
                debug_assert!(index.is_some(), "each variant is a row");
                index.unwrap_or_default()
            }
        }
    };
}

close_reasons! {
    /// The peer ended its input between two frames.
    Eof => "eof", "by the peer", Peer;
    /// The peer ended its input inside a frame.
    TruncatedFrame => "truncated_frame", "inside a frame", Peer;
    /// The member sent the farewell of its dialect, and its output was delivered.
    Farewell => "farewell", "after a farewell", Peer;
    /// The operating system reports that the connection is broken.
    Io(ErrorKind) => "io", "broken connection", Network;
    /// The peer sent bytes that are no frame, or a frame over a limit.
    Protocol(FrameError) => "protocol", "protocol error", Relay;
    /// The pending connection did not send its name in time.
    HandshakeTimeout => "handshake_timeout", "no name in time", Relay;
    /// The member's lag exceeded the queue limit while the room did not wait for it.
    SlowConsumer {
        /// The lag, in bytes.
        lag: u64
    } => "slow_consumer", "slow consumer", Relay;
    /// The room was paused for the member, and it read slower than the minimum read rate.
    BelowMinimumRate {
        /// How much it accepted in the time in which the minimum was due, in bytes.
        accepted: u64
    } => "below_minimum_rate", "below minimum read rate", Relay;
    /// The member did not complete a message in time.
    MessageTimeout => "message_timeout", "unfinished message", Relay;
    /// The member sent nothing for too long.
    IdleTimeout => "idle_timeout", "idle", Relay;
    /// The relay held more memory than its limit, and this connection held most of it.
    OutOfMemory {
        /// How much the connection held, in bytes.
        held: u64
    } => "out_of_memory", "memory limit", Relay;
    /// The draining member did not accept its remaining output in time.
    DrainTimeout {
        /// How much output was pending, in bytes.
        pending: u64
    } => "drain_timeout", "output unread when leaving", Relay;
    /// The peer received the greeting that is all its dialect has.
    Greeted => "greeted", "greeted", Relay;
    /// The peer sent more than the limit where input has no meaning.
    InputIgnored {
        /// The limit, in bytes.
        max: usize
    } => "input_ignored", "too much ignored input", Relay;
    /// The relay was full, and this connection's place was given to another.
    Evicted => "evicted", "evicted", Relay;
    /// The connection's address was at its limit, and the place was given to another connection of it.
    EvictedForAddress => "evicted_for_address", "evicted for its address", Relay;
    /// The program around the relay refused the name.
    NameRefused => "name_refused", "name refused", Relay;
    /// The certificate with which the member came is not valid any more.
    Revoked => "revoked", "certificate revoked", Relay;
    /// Another member has the name, and no two may have the same.
    NameTaken => "name_taken", "name taken", Relay;
    /// The program around the relay removed the connection.
    Removed => "removed", "removed", Relay;
    /// The relay stops.
    Shutdown => "shutdown", "at shutdown", Relay;
}

impl CloseReason {
    /// This reason's row of the table.
    #[must_use]
    pub fn info(&self) -> &'static CloseReasonInfo {
        &Self::TABLE[self.index()]
    }

    /// The status code with which a WebSocket connection is closed for this reason (RFC 6455, 7.4), if the
    /// peer can still be told.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Protocol(FrameError::TooLong { .. }) => Some(1009),
            Self::Protocol(FrameError::NotUtf8) => Some(1007),
            Self::Protocol(_) => Some(1002),
            Self::Shutdown => Some(1001),
            Self::SlowConsumer { .. }
            | Self::BelowMinimumRate { .. }
            | Self::OutOfMemory { .. }
            | Self::Evicted => Some(1013),
            _ => self.is_ours().then_some(1008),
        }
    }

    /// Whether the relay decided to end the connection, rather than the peer or the network.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.info().ended_by == EndedBy::Relay
    }
}

/// How many connections ended for each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedCounters([u64; CloseReason::TABLE.len()]);

impl ClosedCounters {
    pub(super) fn count(&mut self, reason: &CloseReason) {
        self.0[reason.index()] += 1;
    }

    /// How many connections ended for the reason with this key; 0 if there is no such reason.
    #[must_use]
    pub fn of(&self, key: &str) -> u64 {
        let row = |(info, _): &(&CloseReasonInfo, u64)| info.key == key;
        self.iter().find(row).map_or(0, |(_, count)| count)
    }

    /// Each row of the table with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static CloseReasonInfo, u64)> {
        CloseReason::TABLE.iter().zip(self.0)
    }

    /// How many connections ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_reason_is_found_in_its_own_row() {
        for (reason, key, ended_by) in [
            (CloseReason::Eof, "eof", EndedBy::Peer),
            (
                CloseReason::Io(ErrorKind::BrokenPipe),
                "io",
                EndedBy::Network,
            ),
            (
                CloseReason::SlowConsumer { lag: 1 },
                "slow_consumer",
                EndedBy::Relay,
            ),
            (CloseReason::Shutdown, "shutdown", EndedBy::Relay),
        ] {
            assert_eq!((reason.info().key, reason.info().ended_by), (key, ended_by));
        }
    }

    #[test]
    fn keys_are_unique_and_counters_are_found_by_them() {
        let keys: HashSet<_> = CloseReason::TABLE.iter().map(|info| info.key).collect();
        assert_eq!(keys.len(), CloseReason::TABLE.len());
        let mut counters = ClosedCounters::default();
        counters.count(&CloseReason::Evicted);
        counters.count(&CloseReason::Evicted);
        counters.count(&CloseReason::Eof);
        assert_eq!((counters.of("evicted"), counters.of("eof")), (2, 1));
        assert_eq!((counters.of("io"), counters.of("no such key")), (0, 0));
        assert_eq!(counters.total(), 3);
    }
}
