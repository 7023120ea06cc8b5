//! What ten thousand silent members cost the real program: memory, and nothing else. Run with
//! `cargo bench --bench idle`; it takes a quarter of a minute. It is `chatloop load idle`, with the
//! benchmarks' profile.

use std::error::Error;
use std::process::{Command, ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatloop"));
    command.args(["load", "idle"]);
    // `cargo bench -- --test` wants to see it run, not to know the figures.
    if std::env::args().any(|arg| arg == "--test") {
        command.args(["--members", "200", "--for", "200ms"]);
    }
    let status = command.status()?;
    Ok(ExitCode::from(u8::from(!status.success())))
}
