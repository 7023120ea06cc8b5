//! The `chatloop` program: see `chatloop --help`.

mod cli;
mod serve;

use std::io::{self, Write};
use std::panic;
use std::process::{self, ExitCode};

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        complain(&format!("internal error, please report it: {panic}").replace('\n', " "));
        process::exit(1);
    }));
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error.to_string());
        ExitCode::from(error.exit_code())
    })
}

/// Says what went wrong, in one line. There is nobody to tell if that fails too.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "chatloop: {what}");
}
