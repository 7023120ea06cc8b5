//! Errors and warnings on the standard error stream, for the commands that have no log.

use log::Level;

use crate::{journal, log_output};

/// Prints an error as one line. If standard error does not accept it, it is lost.
pub(crate) fn print(text: &str) {
    let mut line = format!("chatloop: {text}\n");
    if journal::is_stderr() {
        line = journal::line(Level::Error, line.trim_end());
    }
    log_output::write_line(&line);
}
