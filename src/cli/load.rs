//! The command line of the load tool: a command for each scenario, with its flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chatloop::load::{MIN_SIZE, Protocol, Sources};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use strum::VariantNames;

use crate::address::{Address, DEFAULT_PAGE_PORT, DEFAULT_PORT};

use super::trust::TrustArgs;
use super::values::{
    parse_count, parse_duration, parse_number, parse_positive_duration, parse_size,
};

pub(super) const EPILOGUE: &str = "\
Without --target, a relay is started for the measurement and ended with it. It is `chatloop serve` \
with its defaults; environment variables such as CHATLOOP_QUEUE_LIMIT go for it. For a --size over \
1MiB its --max-message and --queue-limit are what that takes.

The report goes to standard output, as a table that is Markdown as well; everything else goes to \
standard error. Every byte that a member receives is checked: deliveries that are lost, duplicated, out \
of their sender's order or altered are counted, and so are connections that end, by their cause.

The server's memory and CPU are read from /proc, if it runs on this machine and can be watched. Its \
memory for a member is its growth since before the first member, so start it afresh for that.

While it waits for its messages, the load tool polls without sleeping, so that the server does not \
spend CPU time on waking it; `--wait sleep` is for machines with one core, where it is the default. A \
soak sleeps. The delays of `latency` count from the time at which a message was scheduled, so that no \
stall is hidden (coordinated omission); those of the others count from when it was sent, and show \
little of stalls.

Examples:
  chatloop load idle                                 the cost of idle members
  chatloop load idle -t 127.0.0.1:1234 --chart memory.svg
                                                     another server, and its growth
  chatloop load fanout --against redis://127.0.0.1:6379
                                                     beside another server, in alternating rounds
  chatloop load latency --rate 1000 --json result.json
  chatloop load soak --for 5min                      is anything lost, cut or leaked?
  chatloop load idle --members 100000 --bind 127.0.0.1-127.0.0.4
                                                     more members than one address has ports

Exit codes:
  0  measured, and nothing was lost
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  4  cannot connect: no such host, connection refused, no answer
  5  measured, and something was lost, cut, refused or leaked
  6  the server does not speak the chat protocol
  7  the server is not trusted: its key is unknown, or has changed";

#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Many members join, are silent, and receive one message
    ///
    /// Measures the cost of a member: its memory, the CPU time to accept it, and what the server does
    /// while nothing happens; and how long one message takes to reach all members.
    Idle(IdleArgs),

    /// One member sends, all others receive
    ///
    /// As fast as the server can, with so many messages under way at a time. Measures how much it can
    /// deliver, and the CPU time of a delivery.
    Fanout(FanoutArgs),

    /// Every member sends, every other receives
    ///
    /// As fast as the server can, with so many messages under way at a time.
    Chat(ChatArgs),

    /// Messages at a fixed rate, and how long they take
    ///
    /// Messages are sent by a schedule that waits for no delivery, and each delay counts from the time
    /// in the schedule: a stall of the server, or of this tool, is in all the delays that it caused.
    Latency(LatencyArgs),

    /// All members leave and come back at once, over and over
    ///
    /// They leave by a reset, as when their network fails. Measures how long it takes until each member,
    /// and until all members receive again.
    Storm(StormArgs),

    /// Members join and leave for an hour, some misbehave, and nothing may be lost or leak
    ///
    /// Members send, leave in every way there is and are replaced by others, while other clients stop
    /// reading, flood the room, or send bytes that are no frame. Checks that each member received, of
    /// each sender, the same messages in the same order, from its joining to its leaving; that no
    /// member was cut that behaved; and that the server's memory and descriptors do not grow.
    Soak(SoakArgs),
}

/// The `CommonArgs` are the flags of every scenario.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// The server to measure [default: a relay that is started for it]
    ///
    /// An address such as `127.0.0.1:1234`, or its port alone for this machine. It may begin with the
    /// server's protocol: `chat10://`, which is the default, `redis://` for Redis publish/subscribe,
    /// `mqtt://` for an MQTT broker, `nats://` for NATS, `ws://` for this relay's port for browsers.
    /// `ws-chat10://`, `ws-mqtt://` and `ws-nats://` are the same protocols through a WebSocket. Without
    /// a port it is the usual one of these: 1234, 6379, 1883, 4222, 1235, 1235, 9001, 8080. With `tls+` in front
    /// each is spoken through TLS, from the first byte and with the same port; `tls://` is `tls+chat10://`, and
    /// `wss://` is `tls+ws://`. The server must be trusted: see the flags for TLS.
    #[arg(short, long, value_name = "[PROTOCOL://]ADDR:PORT", value_parser = parse_server)]
    pub(crate) target: Option<ServerArg>,

    /// The target's process [default: searched for, if it is on this machine]
    #[arg(long, value_name = "PID", value_parser = parse_pid, requires = "target")]
    pub(crate) pid: Option<u32>,

    /// Measure a room even if it has members already
    ///
    /// They receive all messages of the measurement, which can be millions. Members are seen only if
    /// the server is on this machine.
    #[arg(long)]
    pub(crate) yes: bool,

    /// Source addresses of connections, one or a range
    ///
    /// Each has ports for some 28,000 connections to one server: see
    /// /proc/sys/net/ipv4/ip_local_port_range. On the loopback network all of 127.0.0.0/8 will do.
    #[arg(long, value_name = "ADDR[-ADDR]", value_parser = clap::value_parser!(Sources))]
    pub(crate) bind: Option<Sources>,

    /// Write the results as JSON to this file, or instead of the table if it is `-`
    ///
    /// `src/load/report.schema.json` in the program's source describes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the results as an SVG chart
    ///
    /// `idle`: memory against members, which join in ten steps for it. `fanout`, `chat`: deliveries a
    /// second over time. `latency`, `storm`: delays by percentile. `soak`: memory over time.
    #[arg(
        long,
        value_name = "FILE.svg",
        value_parser = PathBufValueParser::new().try_map(check_chart)
    )]
    pub(crate) chart: Option<PathBuf>,

    /// The seed of the random messages and senders [default: another one each time]
    #[arg(long, value_name = "N", value_parser = parse_seed)]
    pub(crate) seed: Option<u64>,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// The `SpeedArgs` are the flags of the scenarios that measure speed.
#[derive(Debug, Args)]
pub(crate) struct SpeedArgs {
    /// Another server to compare it with, in alternating rounds
    ///
    /// Figures are medians of the rounds, and the ratio is the target's over this one's. On a machine
    /// that does other things as well, ratios hold where figures do not.
    #[arg(long, value_name = "[PROTOCOL://]ADDR:PORT", value_parser = parse_server)]
    pub(crate) against: Option<ServerArg>,

    /// With --against: how many rounds each server has
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        value_parser = parse_count,
        requires = "against"
    )]
    pub(crate) rounds: usize,

    /// How long a message is
    #[arg(long, value_name = "BYTES", default_value = "64B", value_parser = parse_message_size)]
    pub(crate) size: usize,

    /// How to wait for the server [default: spin, or sleep if there is one core]
    #[arg(long, value_name = "HOW")]
    pub(crate) wait: Option<WaitArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WaitArg {
    /// Poll again and again, which takes a core
    Spin,
    /// Sleep, and be woken by the server
    Sleep,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// How many members [default: 10000, or as many as there are descriptors for]
    #[arg(short, long, value_name = "N", value_parser = parse_members)]
    pub(crate) members: Option<usize>,

    /// How many connect a second [default: as fast as the server accepts, if it can be watched]
    #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,

    /// How long they are silent
    #[arg(
        short = 'd',
        long = "for",
        value_name = "DUR",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    pub(crate) lasts: Duration,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    /// How many members
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "500",
        value_parser = parse_members
    )]
    pub(crate) members: usize,

    /// How many of them send
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = parse_count)]
    pub(crate) senders: usize,

    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// How many members
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "100",
        value_parser = parse_members
    )]
    pub(crate) members: usize,

    /// How many of them send [default: all]
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    pub(crate) senders: Option<usize>,

    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TalkArgs {
    /// How many messages are under way at a time
    ///
    /// After as many deliveries as one message has receivers, the next message is sent, or a few
    /// together if many may be under way. With 1, each is a turn of its own for the server; with many,
    /// it can handle several in a turn.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "64",
        value_parser = parse_count
    )]
    pub(crate) in_flight: usize,

    #[command(flatten)]
    pub(crate) time: TimeArgs,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TimeArgs {
    /// How long the measurement lasts
    #[arg(
        short = 'd',
        long = "for",
        value_name = "DUR",
        default_value = "5s",
        value_parser = parse_positive_duration
    )]
    pub(crate) lasts: Duration,

    /// How long it runs before that
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warmup: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// How many members
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "100",
        value_parser = parse_members
    )]
    pub(crate) members: usize,

    /// How many of them send [default: all]
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    pub(crate) senders: Option<usize>,

    /// How many messages a second, of all of them together
    #[arg(
        short,
        long,
        value_name = "PER_SECOND",
        default_value = "100",
        value_parser = parse_rate
    )]
    pub(crate) rate: f64,

    #[command(flatten)]
    pub(crate) time: TimeArgs,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// How many members
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "1000",
        value_parser = parse_members
    )]
    pub(crate) members: usize,

    /// How long it lasts
    #[arg(
        short = 'd',
        long = "for",
        value_name = "DUR",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    pub(crate) lasts: Duration,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// How many members behave
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "200",
        value_parser = parse_members
    )]
    pub(crate) members: usize,

    /// How many clients misbehave at a time, beside the members
    ///
    /// Each of them has one fault after another: it stops reading for good, or for some seconds; reads
    /// or sends a byte at a time; sends a megabyte at once; resets or closes its connection inside a
    /// message; sends no name, bytes that are no frame, or a header over the limit. From 10 on, all
    /// faults happen at once in the beginning.
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = parse_number)]
    pub(crate) faults: usize,

    /// How many messages a second, of all members together
    ///
    /// Most are as long as typed messages, and some have up to 32 KiB.
    #[arg(
        short,
        long,
        value_name = "PER_SECOND",
        default_value = "20",
        value_parser = parse_rate
    )]
    pub(crate) rate: f64,

    /// How many members a second leave and are replaced; 0 for none
    #[arg(
        short,
        long,
        value_name = "PER_SECOND",
        default_value = "5",
        value_parser = parse_churn
    )]
    pub(crate) churn: f64,

    /// How long it lasts
    ///
    /// Memory is judged from 20min on: its median in the last quarter of the time may be 2 % or
    /// 1MiB more than in the second, and no more. Descriptors must be closed however short it is.
    #[arg(
        short = 'd',
        long = "for",
        visible_alias = "duration",
        value_name = "DUR",
        default_value = "1h",
        value_parser = parse_positive_duration
    )]
    pub(crate) lasts: Duration,

    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// A `ServerArg` is a server and its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerArg {
    pub(crate) protocol: Protocol,
    pub(crate) is_secure: bool,
    pub(crate) addr: Address,
}

fn parse_server(text: &str) -> Result<ServerArg, String> {
    let text = text.trim();
    let (name, addr) = text.split_once("://").unwrap_or(("chat10", text));
    let lower = name.to_ascii_lowercase();
    let (is_secure, name) = match &*lower {
        "tls" => (true, "chat10"),
        "wss" => (true, "ws"),
        name => name
            .strip_prefix("tls+")
            .map_or((false, name), |name| (true, name)),
    };
    let protocol = name.parse().map_err(|_| unknown_protocol())?;
    let usual_port = match protocol {
        Protocol::Chat10 => DEFAULT_PORT,
        Protocol::Redis => 6379,
        Protocol::Mqtt => 1883,
        Protocol::Nats => 4222,
        Protocol::Ws | Protocol::WsChat10 => DEFAULT_PAGE_PORT,
        // As in the examples of many brokers, and of NATS.
        Protocol::WsMqtt => 9001,
        Protocol::WsNats => 8080,
    };
    // As in a browser.
    let addr = match protocol {
        Protocol::Chat10 | Protocol::Redis | Protocol::Mqtt | Protocol::Nats => addr,
        Protocol::Ws | Protocol::WsChat10 | Protocol::WsMqtt | Protocol::WsNats => {
            addr.strip_suffix('/').unwrap_or(addr)
        }
    };
    let addr = Address::parse(addr, usual_port, "write 127.0.0.1:1234")?;
    Ok(ServerArg {
        protocol,
        is_secure,
        addr,
    })
}

fn unknown_protocol() -> String {
    let known = Protocol::VARIANTS.join(", ");
    format!("unknown protocol; the known ones: {known}, and each with tls+ in front")
}

fn parse_members(text: &str) -> Result<usize, String> {
    /// More than any system has descriptors for.
    const MOST: usize = 999_999_999;
    match parse_count(text)? {
        1 => Err("at least 2: one sends and the others receive".to_owned()),
        members @ ..=MOST => Ok(members),
        _ => Err(format!("at most {MOST}")),
    }
}

fn parse_pid(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not a process; write its number, which `pgrep` finds".to_owned())
}

fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("not a number from 0 to {}", u64::MAX))
}

/// Whether a chart can be written to this file.
fn check_chart(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path == Path::new("-") {
        return Err("standard output has the table; write a file's name, as in chart.svg");
    }
    match path.extension() {
        Some(kind) if !kind.eq_ignore_ascii_case("svg") => {
            Err("the picture is SVG; write a name that ends in .svg")
        }
        _ => Ok(path),
    }
}

fn parse_message_size(text: &str) -> Result<usize, String> {
    const MOST: usize = 16 * 1024 * 1024;
    match parse_size(text)? {
        ..MIN_SIZE => Err(format!(
            "at least {MIN_SIZE} bytes: each message has its sender's number and its own"
        )),
        size @ ..=MOST => Ok(size),
        _ => Err("at most 16MiB".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=10_000_000.0).contains(rate))
        .ok_or_else(|| "not a rate; write how many a second, as in 0.5 or 1000".to_owned())
}

fn parse_churn(text: &str) -> Result<f64, String> {
    match text {
        "0" => Ok(0.0),
        _ => parse_rate(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_has_an_optional_protocol() {
        for (text, protocol, addr) in [
            ("127.0.0.1:1234", Protocol::Chat10, "127.0.0.1:1234"),
            ("chat10://[::1]:1", Protocol::Chat10, "[::1]:1"),
            ("redis://127.0.0.1:6379", Protocol::Redis, "127.0.0.1:6379"),
            ("5050", Protocol::Chat10, "127.0.0.1:5050"),
            ("127.0.0.1", Protocol::Chat10, "127.0.0.1:1234"),
            ("redis://127.0.0.1", Protocol::Redis, "127.0.0.1:6379"),
            ("MQTT://[::1]", Protocol::Mqtt, "[::1]:1883"),
            ("ws://127.0.0.1:80/", Protocol::Ws, "127.0.0.1:80"),
            ("ws://127.0.0.1", Protocol::Ws, "127.0.0.1:1235"),
            ("ws-chat10://99", Protocol::WsChat10, "127.0.0.1:99"),
            ("ws-mqtt://[::1]/", Protocol::WsMqtt, "[::1]:9001"),
            ("nats://127.0.0.1", Protocol::Nats, "127.0.0.1:4222"),
            ("ws-nats://127.0.0.1/", Protocol::WsNats, "127.0.0.1:8080"),
        ] {
            let addr = Address::Ip(addr.parse().unwrap());
            let server = ServerArg {
                protocol,
                is_secure: false,
                addr,
            };
            assert_eq!(parse_server(text).as_ref(), Ok(&server), "{text}");
            if !text.contains("://") {
                continue;
            }
            let is_secure = true;
            let secure = ServerArg {
                is_secure,
                ..server
            };
            assert_eq!(parse_server(&format!("tls+{text}")), Ok(secure), "{text}");
        }
        for (short, long) in [
            ("tls://[::1]", "tls+chat10://[::1]"),
            ("WSS://127.0.0.1/", "tls+ws://127.0.0.1"),
        ] {
            assert_eq!(parse_server(short), parse_server(long));
        }
        for (text, says) in [
            (
                "irc://127.0.0.1:1",
                "the known ones: chat10, redis, mqtt, nats, ws, ws-chat10, ws-mqtt, ws-nats",
            ),
            (":1234", "write 127.0.0.1:1234"),
            ("1234:1234", "1234 is not an address"),
        ] {
            let error = parse_server(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn value_that_cannot_be_measured_is_refused() {
        assert!(parse_members("1").unwrap_err().contains("at least 2"));
        let many = parse_members("1000000000").unwrap_err();
        assert_eq!(many, "at most 999999999");
        assert_eq!(parse_members("999999999"), Ok(999_999_999));
        assert!(parse_message_size("15").unwrap_err().contains("16 bytes"));
        assert!(parse_message_size("17MiB").unwrap_err().contains("16MiB"));
        assert_eq!(parse_message_size("16"), Ok(16));
        for text in ["0", "-1", "fast", "nan", "inf", "1e9"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert_eq!((parse_churn("0"), parse_churn("0.5")), (Ok(0.0), Ok(0.5)));
        assert_eq!((parse_seed("7"), parse_pid("7")), (Ok(7), Ok(7)));
        assert!(parse_seed("x").unwrap_err().contains("from 0 to 1844674"));
        assert!(parse_pid("x").unwrap_err().contains("write its number"));
    }

    #[test]
    fn chart_file_has_no_extension_or_svg() {
        for path in ["a.svg", "A.SVG", "a", "/dev/stdout", "-.svg"] {
            assert_eq!(check_chart(path.into()), Ok(path.into()));
        }
        for (path, says) in [("-", "write a file's name"), ("a.png", "is SVG")] {
            let error = check_chart(path.into()).unwrap_err();
            assert!(error.contains(says), "{path}: {error}");
        }
    }
}
