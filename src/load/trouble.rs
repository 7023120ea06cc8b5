//! Errors and warnings of the load tool, with their remedies.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::connect::{Cause, Causes};
use crate::client_tls::Refusal;
use crate::units::{Count, Unit, several, time};

/// Why there is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The plan needs so many connections, and the limit of descriptors has room for so many.
    #[error(
        "{0} connections are more than the open-file limit has room for, which is {1}; ask for fewer, \
         or raise it (ulimit -Hn)"
    )]
    Descriptors(usize, usize),
    /// The source addresses have too few ports.
    #[error(
        "{wanted} connections need more ports than {} {} ({range}: {budget} in all); give more \
         addresses, as in --bind 127.0.0.1-127.0.0.{}",
        several(*sources as u64, "source address"),
        if *sources == 1 { "has" } else { "have" },
        wanted.div_ceil((budget / sources).max(1))
    )]
    Ports {
        /// The number of connections that the plan needs.
        wanted: usize,
        /// The number of source addresses.
        sources: usize,
        /// The number of connections that they have ports for.
        budget: usize,
        /// The ports of each address.
        range: String,
    },
    /// The source addresses are of another kind than the server's.
    #[error("--bind: {0} cannot be reached from there")]
    Family(SocketAddr),
    /// No relay could be started for the measurement.
    #[error("cannot start a relay to measure: {0}")]
    OwnRelay(io::Error),
    /// There is no such process, or it cannot be watched.
    #[error("--pid {0}: cannot watch it: {1}")]
    Pid(u32, io::Error),
    /// No connection to this server was made, for this reason.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, String),
    /// This server is not trusted, for this reason.
    #[error("{0} is not trusted: {1}")]
    Untrusted(SocketAddr, Box<Refusal>),
    /// This server already has this number of connections.
    #[error(
        "{} has {} already, which would receive all messages of this measurement; with --yes it is \
         measured all the same",
        .0, several(*.1 as u64, "connection")
    )]
    Company(SocketAddr, usize),
    /// The server ended all connections: their number, and the causes.
    #[error(
        "{0} took {1} connections, and then all of them ended: {2}; did the server crash? One that \
         uses select() cannot have more than about 1,000"
    )]
    Ended(SocketAddr, u64, String),
    /// No member receives messages, and perhaps something else failed.
    #[error(
        "{0} accepts connections, but no member receives the messages of others{1}; is it a chat \
         server of ten-byte headers? other protocols go before the address, as in `ws://`, `redis://` or `mqtt://`"
    )]
    NotChat(SocketAddr, String),
    /// The measurement was ended before there was anything to report.
    #[error("ended before there was anything to report")]
    Interrupted,
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    Io(#[from] io::Error),
}

impl LoadError {
    pub(super) fn connect(addr: SocketAddr, cause: Cause) -> Self {
        Self::Connect(addr, format!("{cause}{}", remedy(cause)))
    }
}

/// A reason to doubt a measurement.
#[derive(Clone, Debug, PartialEq, Error)]
pub(super) enum Warning {
    /// The server may open too few descriptors for the members.
    #[error(
        "the server (pid {pid}) may open {} descriptors, which may be too few for {} members; start \
         it after `ulimit -n {}`",
        Count(*limit as f64), Count(*members as f64), members + 100
    )]
    ServerDescriptors {
        pid: u32,
        limit: u64,
        members: usize,
    },
    /// Connections were not made, beside those that were.
    #[error(
        "{} connected, {} did not: {}{}",
        Count(*connected as f64), Count(causes.values().sum::<u64>() as f64), listed(causes),
        causes.keys().copied().map(remedy).collect::<String>()
    )]
    Refused { causes: Causes, connected: usize },
    /// Connections ended.
    #[error(
        "{} ended: {}; the server's log may say why, and its descriptor limit, its limit of clients \
         and its queue limit are where to look first",
        several(.0.values().sum(), "connection"), listed(.0)
    )]
    Cut(Causes),
    /// This number of members received nothing.
    #[error(
        "{} received nothing, though connected; does the server relay the messages of each client to \
         all others?",
        several(*.0, "member")
    )]
    Deaf(u64),
    /// Other clients sent this number of messages.
    #[error("received {} of other clients in the same room", several(*.0, "message"))]
    Company(u64),
    /// This process, or its machine, did not run for this long.
    #[error(
        "the load tool itself did not run for {}: it was stopped, or the machine was; delays have \
         this in them, and members that did not read meanwhile may have been cut for it",
        time(*.0)
    )]
    Paused(Duration),
    /// The machine's clock was set by this much.
    #[error(
        "the machine's clock was set {} by {} meanwhile; the figures are from one that cannot be set",
        if *back { "back" } else { "forward" }, time(*by)
    )]
    ClockJumped { by: Duration, back: bool },
    /// The load tool was busy while the server, if it can be watched, was not.
    #[error(
        "the load tool {} the bottleneck: it was busy {:.0} % of the time, with {:.0} % of a core{}: do \
         not take the server's limits from this",
        if server.is_some() { "was" } else { "may have been" }, busy * 100.0, core * 100.0,
        server.map_or_else(String::new, |share| {
            format!("; the server used {:.0} % of one", share * 100.0)
        })
    )]
    Bottleneck {
        /// The share of the time in which the load tool did not wait.
        busy: f64,
        /// The shares of a core that the load tool and the server used.
        core: f64,
        server: Option<f64>,
    },
    /// Messages were sent late: this is the 99th percentile.
    #[error(
        "one in a hundred messages was sent {} late or more, which is in the delays: the load tool \
         had too much to do, or too little of a core",
        time(*p99)
    )]
    Late { p99: Duration },
    /// The kernel of this machine dropped packets while something failed.
    #[error(
        "the kernel dropped {} because a queue of received ones was full; on this machine's own \
         network that ends silent connections, often without a notice to this end, when thousands \
         are probed (keepalive) at a time: raise net.core.netdev_max_backlog",
        several(*.0, "packet")
    )]
    Dropped(u64),
    /// The relay that was started for the measurement logged this.
    #[error("the relay logged: {0}")]
    Logged(String),
    /// The median of the server's memory in bytes grew, from the second to the last quarter.
    #[error(
        "the server's memory grew: its median was {} in the second quarter of the time and {} in the \
         last, with as much to do",
        Unit::Bytes.text(*before as f64), Unit::Bytes.text(*after as f64)
    )]
    MemoryLeak { before: u64, after: u64 },
    /// The server had too many descriptors while these members were silent.
    #[error(
        "the server kept {} {}",
        several(*more, "descriptor"),
        match *members {
            0 => "when all had left".to_owned(),
            members => format!("too many while {} were silent", several(members as u64, "member")),
        }
    )]
    DescriptorLeak { more: u64, members: usize },
    /// A later round failed, for this reason.
    #[error("a later round failed: {0}")]
    Round(String),
}

impl Warning {
    /// Returns a warning if the wall clock advanced by another time than the monotonic clock.
    pub(super) fn of_clocks(
        steady: Duration,
        before: SystemTime,
        after: SystemTime,
    ) -> Option<Self> {
        const MAX_DRIFT: Duration = Duration::from_millis(100);
        let (by, back) = match after.duration_since(before) {
            Ok(wall) => (wall.abs_diff(steady), wall < steady),
            Err(error) => (steady + error.duration(), true),
        };
        (by > MAX_DRIFT).then_some(Self::ClockJumped { by, back })
    }

    /// Whether the warning makes the measurement a failure.
    pub(super) const fn is_failure(&self) -> bool {
        use Warning::{Cut, Deaf, DescriptorLeak, MemoryLeak, Refused, Round};
        let is_leak = matches!(self, MemoryLeak { .. } | DescriptorLeak { .. });
        is_leak || matches!(self, Refused { .. } | Cut(_) | Deaf(_) | Round(_))
    }
}

/// Lists causes with their counts.
pub(super) fn listed(causes: &Causes) -> String {
    let counts = causes.iter();
    let counts = counts.map(|(cause, &count)| format!("{} {cause}", Count(count as f64)));
    counts.collect::<Vec<_>>().join(", ")
}

/// Says what to do about connections that were not made.
const fn remedy(cause: Cause) -> &'static str {
    match cause {
        Cause::Refused => "; does the server listen there?",
        Cause::TimedOut => "; the server may accept too slowly, or a firewall may be in the way",
        Cause::Closed | Cause::Reset => {
            "; the server may be full, or out of descriptors (`ulimit -n` where it is started)"
        }
        Cause::Garbled => "; does it speak that protocol?",
        Cause::NoWebSocket => {
            "; is it its port for browsers, and does it have that subprotocol there?"
        }
        Cause::Untrusted => "; see --pin and --ca",
        Cause::NoTls => "; is it a port with TLS, and does it demand a --client-cert?",
        Cause::NoDescriptor => "; raise the limit of this side with `ulimit -n`",
        Cause::NoPort => "; use more source addresses, as in --bind 127.0.0.1-127.0.0.4",
        Cause::NoSource => "; give --bind addresses of this machine",
        Cause::Other(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn jump(steady: Duration, wall: i64) -> Option<String> {
        let before = SystemTime::UNIX_EPOCH + 1000 * SECOND;
        let moved = Duration::from_millis(wall.unsigned_abs());
        let after = if wall < 0 {
            before - moved
        } else {
            before + moved
        };
        let warning = Warning::of_clocks(steady, before, after);
        warning.map(|warning| warning.to_string())
    }

    #[test]
    fn clock_that_was_set_has_a_warning_and_one_that_drifts_has_none() {
        assert_eq!(jump(SECOND, 1000), None);
        assert_eq!(jump(SECOND, 1099), None);
        assert_eq!(jump(SECOND, 901), None);
        for (wall, says) in [
            (4500, "set forward by 3.50 s"),
            (500, "set back by 500 ms"),
            (-2000, "set back by 3.00 s"),
        ] {
            let text = jump(SECOND, wall).unwrap();
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn refused_connections_are_listed_by_cause_with_a_remedy() {
        let causes = Causes::from([(Cause::NoPort, 2), (Cause::Refused, 1500)]);
        let text = Warning::Refused {
            causes,
            connected: 7,
        }
        .to_string();
        for says in [
            "7 connected, 1,502 did not",
            "1,500 refused, 2 without a port on this side",
            "--bind",
        ] {
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn leak_warning_has_the_amount_and_the_time() {
        let grown = Warning::MemoryLeak {
            before: 4_194_304,
            after: 5_242_880,
        };
        let kept = |more, members| Warning::DescriptorLeak { more, members };
        for (warning, part) in [
            (
                grown,
                "4.00 MiB in the second quarter of the time and 5.00 MiB in the last",
            ),
            (kept(1, 0), "kept 1 descriptor when all had left"),
            (
                kept(2, 7),
                "kept 2 descriptors too many while 7 members were silent",
            ),
        ] {
            assert!(warning.to_string().contains(part), "{warning}");
            assert!(warning.is_failure());
        }
    }

    #[test]
    fn bottleneck_is_certain_only_if_the_server_is_watched() {
        let text = |server| {
            let warning = Warning::Bottleneck {
                busy: 0.987,
                core: 0.5,
                server,
            };
            warning.to_string()
        };
        let certain = text(Some(0.4));
        assert!(certain.contains("was the bottleneck: it was busy 99 %"));
        assert!(certain.contains("50 % of a core; the server used 40 %"));
        assert!(text(None).contains("may have been the bottleneck"));
    }
}
