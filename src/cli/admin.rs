//! The command line of `chatloop admin`.

use std::path::PathBuf;
use std::time::Duration;

use chatloop::server::Banned;
use clap::{Args, Subcommand};

use super::values::{parse_banned, parse_positive_duration};

pub(super) const EPILOGUE: &str = "\
The relay must have an admin socket: chatloop serve --admin PATH. It is for the user that runs the relay. Each act
is one line of the relay's log.

A member that is closed may come back. To ban is to close, and to refuse connections from that address for a time.
Of IPv6, the /64 of a connection is banned. Behind a proxy that is not trusted (serve --trust-proxy), all clients
have the address of the proxy. Where clients have certificates (serve --client-ca), cert:NAME bans those with this
name in theirs. Bans end with the relay, unless it has a file for them: serve --bans FILE.

Examples:
  chatloop admin -s /tmp/chatloop.sock list
  chatloop admin -s /tmp/chatloop.sock kick bob
  chatloop admin -s /tmp/chatloop.sock ban --id 1f --for 1h
  chatloop admin -s /tmp/chatloop.sock ban 192.0.2.0/24
  chatloop admin -s /tmp/chatloop.sock ban cert:bob@example.com --for 1d
  chatloop admin -s /tmp/chatloop.sock say 'The relay is restarted at noon.'

Exit codes:
  0  done
  1  not done: there is no such member, or anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  4  cannot connect: no socket there, no relay, no permission, no answer
  6  what answers is no relay";

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The admin socket of the relay
    #[arg(
        short,
        long,
        env = "CHATLOOP_ADMIN",
        value_name = "PATH",
        hide_env = true
    )]
    pub(crate) socket: PathBuf,

    #[command(subcommand)]
    pub(crate) command: AdminCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Show the members
    List,
    /// Close a member's connection
    Kick(MemberArgs),
    /// Close connections, and refuse others from their address or with their certificate
    Ban(BanArgs),
    /// Lift a ban
    Unban {
        /// The address, the network, or the name in a certificate, as `bans` shows it
        #[arg(value_name = "ADDR[/PREFIX]|cert:NAME", value_parser = parse_banned)]
        banned: Banned,
    },
    /// Show who is banned, and for how long
    Bans,
    /// Send a message to all members
    Say {
        /// The message
        text: String,
        /// The name that it comes from
        #[arg(long = "as", value_name = "NAME", default_value = "server")]
        name: String,
    },
    /// Show the figures of the relay
    Stats,
}

/// A member, or a connection.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct MemberArgs {
    /// The name; all members that have it are closed
    pub(crate) name: Option<String>,
    /// The connection's number, as `list` shows it
    #[arg(long)]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BanArgs {
    #[command(flatten)]
    pub(crate) whom: BannedArgs,
    /// How long it holds [default: until it is lifted]
    #[arg(long = "for", value_name = "DUR", value_parser = parse_positive_duration)]
    pub(crate) length: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct BannedArgs {
    /// An address or a network, or the name in the certificates of clients
    #[arg(value_name = "ADDR[/PREFIX]|cert:NAME", value_parser = parse_banned)]
    pub(crate) banned: Option<Banned>,
    /// The address of this connection, by its number in `list`
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The addresses of all members of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
}
