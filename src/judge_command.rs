//! The `judge` command: from flags to a verdict on a server.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use chatloop::judge::{self, CROWD, Config, Failure, JudgeError, STAGES, Stage};
use chatloop::text::Quoted;
use crossterm::style::Stylize;

use crate::address::{Address, DEFAULT_PORT, LookupError};
use crate::cli::JudgeArgs;
use crate::tty::Tty;

/// The exit code of a server that failed a stage.
const FAILED: u8 = 5;

/// The columns of a stage's result, such as `failed`.
const RESULT_WIDTH: usize = 6;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum JudgeCommandError {
    /// This is no address of a server, and why.
    Server(String, String),
    /// The server's name has no address.
    Lookup(LookupError),
    /// The server could not be judged.
    Judge(String, JudgeError),
    /// A result could not be written.
    Output(io::Error),
}

impl JudgeCommandError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Server(..) | Self::Judge(_, JudgeError::Descriptors(_)) => 2,
            Self::Lookup(_) | Self::Judge(_, JudgeError::Connect(_)) => 4,
            Self::Judge(_, JudgeError::Io(..)) | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for JudgeCommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server, why) => write!(f, "{}: {why}", Quoted(server.as_bytes())),
            Self::Lookup(error) => error.fmt(f),
            Self::Judge(server, JudgeError::Connect(error)) => {
                write!(f, "cannot connect to {server}: {error}")
            }
            Self::Judge(_, JudgeError::Descriptors(limit)) => write!(
                f,
                "the stage with {CROWD} clients needs more open files than the {limit} that are allowed; \
                 raise `ulimit -Hn`, or play other stages with --stage"
            ),
            Self::Judge(_, JudgeError::Io(what, error)) => write!(f, "{what}: {error}"),
            Self::Output(error) => write!(f, "cannot write the result: {error}"),
        }
    }
}

/// Judges a server, stage by stage, up to the first one that fails.
pub(crate) fn judge(args: &JudgeArgs) -> Result<ExitCode, JudgeCommandError> {
    let wrong = |why| JudgeCommandError::Server(args.server.clone(), why);
    let addr = Address::parse(args.server.trim(), DEFAULT_PORT, "write 127.0.0.1:1234");
    let addr = addr
        .map_err(wrong)?
        .lookup_first()
        .map_err(JudgeCommandError::Lookup)?;
    if addr.port() == 0 {
        return Err(wrong("port 0 cannot be connected to".to_owned()));
    }
    let failed = |error| JudgeCommandError::Judge(addr.to_string(), error);
    let config = Config {
        addr,
        patience: args.patience,
    };
    let (first, stages) = match args.stage {
        Some(number) => (number, &STAGES[number - 1..number]),
        None => (1, &STAGES[..]),
    };
    judge::prepare(config, stages).map_err(failed)?;
    let mut output = Verdicts::new();
    for (number, stage) in (first..).zip(stages) {
        output
            .begin(number, stage)
            .map_err(JudgeCommandError::Output)?;
        let failure = judge::play(config, stage).map_err(failed)?;
        output
            .end(number, stage, failure.as_ref())
            .map_err(JudgeCommandError::Output)?;
        if failure.is_some() {
            return Ok(ExitCode::from(FAILED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The results on standard output: a line for each stage.
struct Verdicts {
    output: io::Stdout,
    /// A terminal shows a stage while it is played.
    is_terminal: bool,
    has_colors: bool,
}

impl Verdicts {
    fn new() -> Self {
        let output = io::stdout();
        let is_terminal = output.is_terminal();
        Self {
            output,
            is_terminal,
            has_colors: is_terminal && Tty::has_colors(),
        }
    }

    fn begin(&mut self, number: usize, stage: &Stage) -> io::Result<()> {
        if self.is_terminal {
            write!(
                self.output,
                "{number}  {:RESULT_WIDTH$}  {}\r",
                "…", stage.title
            )?;
        }
        self.output.flush()
    }

    fn end(&mut self, number: usize, stage: &Stage, failure: Option<&Failure>) -> io::Result<()> {
        let result = format!(
            "{:RESULT_WIDTH$}",
            if failure.is_some() { "failed" } else { "ok" }
        );
        let result = match (self.has_colors, failure) {
            (false, _) => result,
            (true, None) => result.green().to_string(),
            (true, Some(_)) => result.red().to_string(),
        };
        writeln!(self.output, "{number}  {result}  {}", stage.title)?;
        let Some(failure) = failure else {
            return self.output.flush();
        };
        let chapter = stage.chapter_of(failure);
        for (what, text) in [
            ("sent", &failure.sent),
            ("expected", &failure.expected),
            ("came", &failure.came),
            ("why", &stage.explanation.to_owned()),
            ("read", &chapter),
        ] {
            writeln!(self.output, "   {what:8}  {text}")?;
        }
        self.output.flush()
    }
}
