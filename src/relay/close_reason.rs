//! Why connections end, and how many did for which reason.

use std::fmt;
use std::io::ErrorKind;

use crate::wire::{Dialect, FrameError, header};

/// Why a connection ended. Each end has one reason, one log line and one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its end, between two frames.
    Eof,
    /// The peer closed its end inside a frame.
    TruncatedFrame,
    /// The peer sent something that is no frame, or one over a limit.
    Protocol(FrameError),
    /// The peer did not give its name in time.
    HandshakeTimeout,
    /// The member fell further behind the room than the queue limit allows.
    SlowConsumer {
        /// How far behind it was, in bytes.
        behind: u64,
    },
    /// The room waited for the member, and it took next to nothing.
    Dripping {
        /// How much that was, in bytes.
        took: u64,
    },
    /// The member did not finish a message in time.
    MessageTimeout,
    /// The member has sent nothing for too long.
    IdleTimeout,
    /// There was too much held in memory, and of that it had most.
    OutOfMemory {
        /// How much it held on to, in bytes.
        held: u64,
    },
    /// The member took its leave, and was sent what was queued for it.
    Farewell,
    /// The member was about to go, and did not read what was queued for it.
    FarewellTimeout {
        /// How much that was, in bytes.
        pending: u64,
    },
    /// The peer was greeted, and that was all.
    Greeted,
    /// The peer sends and sends, where nobody listens.
    Unheard {
        /// How much it might have sent, in bytes.
        max: usize,
    },
    /// The relay was full, and its place was needed: it had closed its sending side, or had given no
    /// name.
    Evicted,
    /// The same, and only its address had no place left.
    Replaced,
    /// The operating system says that the connection is broken.
    Io(ErrorKind),
    /// The relay stops.
    Shutdown,
}

impl CloseReason {
    /// Whether the relay decided to end the connection, rather than the peer or the network.
    pub(super) const fn is_ours(&self) -> bool {
        match self {
            Self::Eof | Self::TruncatedFrame | Self::Io(_) => false,
            Self::Protocol(_)
            | Self::HandshakeTimeout
            | Self::SlowConsumer { .. }
            | Self::Dripping { .. }
            | Self::MessageTimeout
            | Self::IdleTimeout
            | Self::OutOfMemory { .. }
            | Self::Farewell
            | Self::FarewellTimeout { .. }
            | Self::Greeted
            | Self::Unheard { .. }
            | Self::Evicted
            | Self::Replaced
            | Self::Shutdown => true,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("closed the connection"),
            Self::TruncatedFrame => f.write_str("closed the connection inside a frame"),
            Self::Protocol(error) => error.fmt(f),
            Self::HandshakeTimeout => f.write_str("gave no name in time"),
            Self::SlowConsumer { behind } => write!(f, "slow consumer, {behind} bytes behind"),
            Self::Dripping { took } => {
                write!(f, "held the room up, and took {took} bytes meanwhile")
            }
            Self::MessageTimeout => f.write_str("did not finish a message in time"),
            Self::IdleTimeout => f.write_str("sent nothing for too long"),
            Self::OutOfMemory { held } => write!(f, "memory was short, and it held {held} bytes"),
            Self::Farewell => f.write_str("said goodbye"),
            Self::FarewellTimeout { pending } => {
                write!(f, "did not read the last {pending} bytes before it left")
            }
            Self::Greeted => f.write_str("was greeted"),
            Self::Unheard { max } => {
                write!(f, "sent more than {max} bytes where nobody listens")
            }
            Self::Evicted => f.write_str("its place was needed"),
            Self::Replaced => f.write_str("its place was needed for another from its address"),
            Self::Io(kind) => kind.fmt(f),
            Self::Shutdown => f.write_str("the relay stops"),
        }
    }
}

/// What may have sent something that is no header, for somebody who wonders why a client was closed.
pub(super) fn likely_sender(dialect: Dialect, name: &[u8], header: &[u8]) -> Option<&'static str> {
    let spaces = |bytes: &[u8]| bytes.iter().take_while(|&&byte| byte == b' ').count();
    let width = dialect.rules().header_width?;
    let starters: [(&[u8], &str); 5] = [
        (b"GET ", "an HTTP request?"),
        (b"POST ", "an HTTP request?"),
        (b"HEAD ", "an HTTP request?"),
        (b"SSH-", "an ssh client?"),
        // A handshake record, of version 3 and something (RFC 8446, 5.1).
        (b"\x16\x03", "a TLS client?"),
    ];
    let known = starters.iter().find(|(start, _)| header.starts_with(start));
    if let Some(&(_, sender)) = known {
        return Some(sender);
    }
    // What follows the first ten bytes of a 64-byte header is spaces, which here begin the name.
    if width == header::WIDTH && (spaces(header) == width || spaces(name) >= header::WIDTH) {
        return Some("a client with 64-byte headers? its listener is chat64:// or ack64://");
    }
    if width == header::WIDE && header::parse(&header[..header::WIDTH]).is_some() {
        return Some("a client with ten-byte headers? its listener is chat10://");
    }
    None
}

/// What a relay has seen since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken into the relay, whether they ever gave a name or not.
    pub accepted: u64,
    /// Connections refused because there was no place for them, or none for their address, or no
    /// descriptor.
    pub refused: u64,
    /// Connections that became members: that gave their name, if they had to.
    pub joined: u64,
    /// The most members that were here at once.
    pub peak_members: usize,
    /// Messages relayed, counted once each however many heard them.
    pub messages: u64,
    /// Bytes read from all connections.
    pub bytes_in: u64,
    /// Bytes written to all connections.
    pub bytes_out: u64,
    /// Connections that ended for each [`CloseReason`].
    pub closed: ClosedCounters,
}

/// One counter for each [`CloseReason`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its CloseReason")]
pub struct ClosedCounters {
    pub eof: u64,
    pub truncated_frame: u64,
    pub protocol: u64,
    pub handshake_timeout: u64,
    pub slow_consumer: u64,
    pub dripping: u64,
    pub message_timeout: u64,
    pub idle_timeout: u64,
    pub out_of_memory: u64,
    pub farewell: u64,
    pub farewell_timeout: u64,
    pub greeted: u64,
    pub unheard: u64,
    pub evicted: u64,
    pub io: u64,
    pub shutdown: u64,
}

impl ClosedCounters {
    pub(super) fn count(&mut self, reason: &CloseReason) {
        *match reason {
            CloseReason::Eof => &mut self.eof,
            CloseReason::TruncatedFrame => &mut self.truncated_frame,
            CloseReason::Protocol(_) => &mut self.protocol,
            CloseReason::HandshakeTimeout => &mut self.handshake_timeout,
            CloseReason::SlowConsumer { .. } => &mut self.slow_consumer,
            CloseReason::Dripping { .. } => &mut self.dripping,
            CloseReason::MessageTimeout => &mut self.message_timeout,
            CloseReason::IdleTimeout => &mut self.idle_timeout,
            CloseReason::OutOfMemory { .. } => &mut self.out_of_memory,
            CloseReason::Farewell => &mut self.farewell,
            CloseReason::FarewellTimeout { .. } => &mut self.farewell_timeout,
            CloseReason::Greeted => &mut self.greeted,
            CloseReason::Unheard { .. } => &mut self.unheard,
            CloseReason::Evicted | CloseReason::Replaced => &mut self.evicted,
            CloseReason::Io(_) => &mut self.io,
            CloseReason::Shutdown => &mut self.shutdown,
        } += 1;
    }
}

impl fmt::Display for Counters {
    /// The counters on one line: the totals always, and of the reasons those that occurred.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            refused,
            joined,
            peak_members,
            messages,
            bytes_in,
            bytes_out,
            closed,
        } = self;
        write!(
            f,
            "accepted {accepted}, refused {refused}, joined {joined}, peak {peak_members}, \
             messages {messages}, bytes in {bytes_in}, bytes out {bytes_out}"
        )?;
        let mut sep = "; closed: ";
        for (what, count) in [
            ("by the peer", closed.eof),
            ("inside a frame", closed.truncated_frame),
            ("protocol error", closed.protocol),
            ("no name in time", closed.handshake_timeout),
            ("slow consumer", closed.slow_consumer),
            ("held the room up", closed.dripping),
            ("unfinished message", closed.message_timeout),
            ("idle", closed.idle_timeout),
            ("memory short", closed.out_of_memory),
            ("after a farewell", closed.farewell),
            ("leaving, unread", closed.farewell_timeout),
            ("greeted", closed.greeted),
            ("unheard", closed.unheard),
            ("evicted", closed.evicted),
            ("broken connection", closed.io),
            ("at shutdown", closed.shutdown),
        ] {
            if count > 0 {
                write!(f, "{sep}{what} {count}")?;
                sep = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likely_sender_of_what_is_no_header_is_told() {
        let wide = format!("{:<64}{}", 100, "z".repeat(100)).into_bytes();
        let narrow = b"3         bob5         hello5         hello5         hello5         ";
        for (dialect, name, header, says) in [
            (
                Dialect::Chat10,
                &b"          "[..],
                &b"          "[..],
                "64-byte",
            ),
            (Dialect::Chat10, &wide[10..110], b"zzzzzzzzzz", "64-byte"),
            (Dialect::Chat64, b"127.0.0.1:1", &narrow[..64], "ten-byte"),
            (Dialect::Chat10, b"", b"GET / HTTP", "HTTP"),
            (Dialect::Chat10, b"", b"SSH-2.0-Op", "ssh"),
            (
                Dialect::Chat10,
                b"",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
                "TLS",
            ),
            (
                Dialect::Ack64,
                b"",
                &b"POST / HTTP/1.1".repeat(5)[..64],
                "HTTP",
            ),
        ] {
            let sender = likely_sender(dialect, name, header).unwrap();
            assert!(sender.contains(says), "{sender}");
        }
        assert_eq!(
            likely_sender(Dialect::Chat10, b"alice", b"hello ther"),
            None
        );
        assert_eq!(likely_sender(Dialect::Chat64, b"", &[b'x'; 64]), None);
    }
}
