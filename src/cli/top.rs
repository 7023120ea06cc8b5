//! The command line of `chatloop top`.

use std::time::Duration;

use clap::Args;

use super::values::{parse_count, parse_interval};

pub(super) const EPILOGUE: &str = "\
A RELAY is where one answers:
  127.0.0.1:9150     its listener for metrics; http:// or metrics:// may stand before it
  9150               a port of 127.0.0.1; an address alone has port 9150
  /run/chatloop.sock its admin socket: chatloop serve --admin PATH; unix: may stand before it
Only an admin socket has the members. It is for the user that runs the relay.

Keys:
  q, Esc, Ctrl-C     leave
  < >, Left Right    sort the members by another column
  r                  reverse their order
  /                  show only members with this in their name, address, dialect or state
  arrows, PgUp PgDn, Home End
                     scroll
  Tab                the next relay
  Ctrl-Z, Ctrl-L     suspend; paint again

`busy` is the share of the time in which the relay's loop did not wait. `p99 ≤ 1 ms` means that of 100 turns,
or deliveries, 99 took at most that long. A delay is the time from the poll of a turn to its last write. A bar
of a member's lag is full where senders are paused for it, or with --slow cut where it is closed.

Where standard output is no terminal, each sample is a line. With --json it is an object, with `null` for what
is not known.

Examples:
  chatloop serve --listen 1234 --listen metrics://9150 --admin /tmp/chatloop.sock
  chatloop top                               that relay, by its metrics
  chatloop top /tmp/chatloop.sock            with its members
  chatloop top 10.0.0.1 10.0.0.2             two others
  chatloop top --json -n 1 | jq .busy        how busy it is now

Exit codes:
  0  ended by its user, or after --count samples
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  4  cannot connect: no such host, connection refused, no answer
  6  what answers is no relay
A program that is ended by a signal restores the terminal and ends by that signal.";

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Where a relay answers; may be given more than once
    #[arg(value_name = "RELAY", default_value = "127.0.0.1:9150")]
    pub(crate) relays: Vec<String>,

    /// The time between two samples
    #[arg(
        short,
        long,
        value_name = "DUR",
        default_value = "1s",
        value_parser = parse_interval
    )]
    pub(crate) interval: Duration,

    /// End after this many samples [default: never]
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<usize>,

    /// Write each sample as a JSON object on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
}
