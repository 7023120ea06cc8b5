//! The command line of `chatloop judge`.

use std::time::Duration;

use chatloop::judge::STAGES;
use clap::Args;

use super::values::{parse_count, parse_positive_duration};

const MAX_PATIENCE: Duration = Duration::from_secs(3600);

pub(super) const EPILOGUE: &str = "\
The judge plays the clients of a chat10 server, as the tutorials' clients speak it: ten bytes with the length,
padded with spaces, and the payload; the name first, then messages. The server may be in any language.

Stages:
  1  two clients join and chat
  2  frames come in pieces, and several in one
  3  a message goes to all others, and not back
  4  messages are empty, long, or not ASCII
  5  a client does not read, and the others go on
  6  clients reset their connections
  7  a client ends its input and reads on
  8  1,100 clients are in the room
  9  all are silent, one before its name, and then chat

It stops at the first stage that fails, and reports what was sent, expected and received, and the chapter of
the guide that explains it.

Examples:
  chatloop judge 127.0.0.1:1234              all stages, one after the other
  chatloop judge 1234                        the same: a port alone is one of 127.0.0.1
  chatloop judge --stage 2 1234              the second one alone

Exit codes:
  0  all stages passed
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  4  cannot connect: no such host, connection refused, no answer
  5  a stage failed";

#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// The server to judge
    #[arg(value_name = "ADDR:PORT")]
    pub(crate) server: String,

    /// Play this stage alone
    #[arg(long, value_name = "N", value_parser = parse_stage)]
    pub(crate) stage: Option<usize>,

    /// How long to wait for each message that must come; a stage may take four times as long
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = parse_patience)]
    pub(crate) patience: Duration,
}

fn parse_stage(text: &str) -> Result<usize, String> {
    match parse_count(text) {
        Ok(stage) if stage <= STAGES.len() => Ok(stage),
        _ => Err(format!("not a stage; there are 1 to {}", STAGES.len())),
    }
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    match parse_positive_duration(text)? {
        patience if patience > MAX_PATIENCE => Err("must be at most 1h".to_owned()),
        patience => Ok(patience),
    }
}
