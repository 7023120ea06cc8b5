//! What went wrong or casts doubt on the figures, in words that say what to do.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::connect::{Cause, Causes};
use super::units::{Count, Unit, time};

/// Something that one should know about a measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Warning {
    /// The server may not open as many descriptors as there are to be members.
    ServerDescriptors {
        pid: u32,
        limit: u64,
        members: usize,
    },
    /// Connections were not made.
    Refused { causes: Causes, connected: usize },
    /// Connections ended.
    Cut { causes: Causes },
    /// Members are connected and hear nothing.
    Deaf { count: u64 },
    /// Others are in the room.
    Company { messages: u64 },
    /// This program, or its machine, did not run for this long.
    Paused(Duration),
    /// The machine's clock was set.
    ClockJumped { by: Duration, back: bool },
    /// This program had no time to wait, and the server, as far as that is known, had.
    Bottleneck {
        /// The part of the time in which this program did not wait.
        busy: f64,
        /// How much of a core it was given.
        core: f64,
        /// How much of a core the server used.
        server: Option<f64>,
    },
    /// Messages were sent later than they were to be: one in a hundred by this much.
    Late { p99: Duration },
    /// The kernel of this machine dropped packets while something failed.
    Dropped { packets: u64 },
    /// What the relay that was started for this logged.
    Logged(String),
    /// The server does not give back what it should.
    Leak(Leak),
    /// After some rounds there was one of which nothing came, for this reason.
    Round(String),
}

/// What a server does not give back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leak {
    /// Its memory grew, in bytes from one median to the other, while there was as much to do.
    Memory { before: f64, after: f64 },
    /// It had so many descriptors more than at the start and for these silent members.
    Descriptors { more: u64, members: usize },
}

impl Warning {
    /// Whether the machine's clock was set, while so much time passed by one that cannot be.
    pub(super) fn of_clocks(
        steady: Duration,
        before: SystemTime,
        after: SystemTime,
    ) -> Option<Self> {
        /// How far the clocks may drift apart between two looks at them.
        const DRIFT: Duration = Duration::from_millis(100);
        let (by, back) = match after.duration_since(before) {
            Ok(wall) if wall >= steady => (wall.abs_diff(steady), false),
            Ok(wall) => (wall.abs_diff(steady), true),
            Err(error) => (steady + error.duration(), true),
        };
        (by > DRIFT).then_some(Self::ClockJumped { by, back })
    }

    /// Whether it makes the measurement a failure.
    pub(super) const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Cut { .. }
                | Self::Deaf { .. }
                | Self::Leak(_)
                | Self::Round(_)
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerDescriptors {
                pid,
                limit,
                members,
            } => write!(
                f,
                "the server (pid {pid}) may open {} descriptors, which may be too few for {} \
                 members; start it after `ulimit -n {}`",
                Count(*limit as f64),
                Count(*members as f64),
                members + 100
            ),
            Self::Refused { causes, connected } => {
                write!(
                    f,
                    "{} connected, {} did not: {}",
                    Count(*connected as f64),
                    Count(causes.values().sum::<u64>() as f64),
                    listed(causes)
                )?;
                for cause in causes.keys() {
                    f.write_str(remedy(*cause))?;
                }
                Ok(())
            }
            Self::Cut { causes } => write!(
                f,
                "{} ended: {}; the server's log may say why, and its descriptor limit, its limit of \
                 clients and its queue limit are where to look first",
                several(causes.values().sum(), "connection"),
                listed(causes)
            ),
            Self::Deaf { count } => write!(
                f,
                "{} received nothing, though connected; does the server relay the messages of each client to \
                 all others?",
                several(*count, "member")
            ),
            Self::Company { messages } => write!(
                f,
                "received {} of other clients in the same room",
                several(*messages, "message")
            ),
            Self::Paused(paused) => write!(
                f,
                "the load tool itself did not run for {}: it was stopped, or the machine was; delays \
                 have this in them, and members that did not read meanwhile may have been cut for it",
                time(*paused)
            ),
            Self::ClockJumped { by, back } => write!(
                f,
                "the machine's clock was set {} by {} meanwhile; the figures are from one that \
                 cannot be set",
                if *back { "back" } else { "forward" },
                time(*by)
            ),
            Self::Bottleneck { busy, core, server } => {
                let certain = if server.is_some() {
                    "was"
                } else {
                    "may have been"
                };
                write!(
                    f,
                    "the load tool {certain} the bottleneck: it was busy {:.0} % of the time, with \
                     {:.0} % of a core",
                    busy * 100.0,
                    core * 100.0
                )?;
                if let Some(server) = server {
                    write!(f, "; the server used {:.0} % of one", server * 100.0)?;
                }
                f.write_str(": do not take the server's limits from this")
            }
            Self::Late { p99 } => write!(
                f,
                "one in a hundred messages was sent {} late or more, which is in the delays: the load \
                 tool had too much to do, or too little of a core",
                time(*p99)
            ),
            Self::Dropped { packets } => write!(
                f,
                "the kernel dropped {} because a queue of received ones was full; on this machine's \
                 own network that ends silent connections, often without a notice to this end, when \
                 thousands are probed (keepalive) at a time: raise net.core.netdev_max_backlog",
                several(*packets, "packet")
            ),
            Self::Logged(line) => write!(f, "the relay logged: {line}"),
            Self::Leak(leak) => leak.fmt(f),
            Self::Round(error) => write!(f, "a later round failed: {error}"),
        }
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let too_many = |more| several(more, "descriptor");
        match *self {
            Self::Memory { before, after } => write!(
                f,
                "the server's memory grew: its median was {} in the second quarter of the time and {} \
                 in the last, with as much to do",
                Unit::Bytes.text(before),
                Unit::Bytes.text(after)
            ),
            Self::Descriptors { more, members: 0 } => {
                write!(f, "the server kept {} when all had left", too_many(more))
            }
            Self::Descriptors { more, members } => write!(
                f,
                "the server had {} too many while {} were silent",
                too_many(more),
                several(members as u64, "member")
            ),
        }
    }
}

/// So many of these.
fn several(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", Count(count as f64))
}

/// Causes with their counts, in words.
pub(super) fn listed(causes: &Causes) -> String {
    let counts: Vec<_> = causes
        .iter()
        .map(|(&cause, &count)| format!("{} {}", Count(count as f64), words(cause)))
        .collect();
    counts.join(", ")
}

/// What happened to some connections.
pub(super) fn words(cause: Cause) -> String {
    match cause {
        Cause::Refused => "refused".to_owned(),
        Cause::TimedOut => "timed out".to_owned(),
        Cause::Closed => "closed by the server".to_owned(),
        Cause::Reset => "reset by the server".to_owned(),
        Cause::Garbled => "sent what is not in the protocol".to_owned(),
        Cause::NoWebSocket => "the server does not accept the WebSocket".to_owned(),
        Cause::NoDescriptor => "without a descriptor on this side".to_owned(),
        Cause::NoPort => "without a port on this side".to_owned(),
        Cause::NoSource => "from an address that this machine does not have".to_owned(),
        Cause::Other(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}

/// What to do about connections that were not made.
pub(super) const fn remedy(cause: Cause) -> &'static str {
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
    fn a_clock_that_was_set_is_told_and_one_that_drifts_is_not() {
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
    fn each_cause_says_what_to_do() {
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
    fn a_leak_says_what_was_kept_and_when() {
        for (leak, says) in [
            (
                Leak::Memory {
                    before: 4_194_304.0,
                    after: 5_242_880.0,
                },
                "4.00 MiB in the second quarter of the time and 5.00 MiB in the last",
            ),
            (
                Leak::Descriptors {
                    more: 1,
                    members: 0,
                },
                "kept 1 descriptor when all had left",
            ),
            (
                Leak::Descriptors {
                    more: 2,
                    members: 7,
                },
                "had 2 descriptors too many while 7 members were silent",
            ),
        ] {
            let warning = Warning::Leak(leak);
            assert!(warning.to_string().contains(says), "{warning}");
            assert!(warning.is_failure());
        }
    }

    #[test]
    fn the_bottleneck_is_certain_only_where_the_server_is_seen() {
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
