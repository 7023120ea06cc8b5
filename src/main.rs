//! The `chatloop` program: see `chatloop --help`.

mod address;
mod admin_command;
#[cfg(feature = "cert")]
mod cert;
mod cli;
mod error_line;
mod join;
mod journal;
mod judge_command;
#[cfg(feature = "tls-client")]
mod known_hosts;
mod load_command;
mod log_output;
mod new_file;
mod password_file;
mod secure;
mod serve;
mod service;
mod state_folder;
mod top_command;
mod tty;
mod typed_history;

use std::fmt::Display;
use std::panic;
use std::process::{self, ExitCode};

use cli::{Cli, Command};

fn main() -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        chatloop::terminal::restore_terminal();
        error_line::print(&format!("internal error, please report it: {panic}").replace('\n', " "));
        process::exit(1);
    }));
    let command = Cli::read().command;
    // The relay has a log for these.
    if !matches!(command, Command::Serve(_)) {
        for warning in Cli::warnings() {
            error_line::print(&warning);
        }
    }
    match command {
        Command::Serve(args) => {
            serve::serve(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        Command::Join(args) => {
            join::join(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        Command::Load(command) => {
            load_command::measure(&command).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        #[cfg(feature = "cert")]
        Command::Cert(args) => {
            cert::make(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        Command::Admin(args) => {
            admin_command::admin(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        Command::Judge(args) => {
            judge_command::judge(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
        Command::Top(args) => {
            top_command::top(&args).unwrap_or_else(|error| fail(&error, error.exit_code()))
        }
    }
}

/// Prints why a command failed, and returns the exit code that reports it to programs.
fn fail(error: &dyn Display, exit_code: u8) -> ExitCode {
    error_line::print(&error.to_string());
    ExitCode::from(exit_code)
}
