//! The standard error stream where it is systemd's journal.

use std::env;
use std::io;

use log::Level;
use rustix::fs::fstat;

/// Whether the standard error stream is the journal: see `JOURNAL_STREAM` in systemd.exec(5). A
/// stream that was redirected since is another one.
pub(crate) fn is_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A line as the journal reads it, with the priority before it: see sd-daemon(3). It has the time
/// from the journal. A line feed would end it, and begin one without a priority.
pub(crate) fn line(level: Level, message: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{priority}>{}\n", message.replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        assert_eq!(line(Level::Warn, "a\nb\r\0c"), "<4>a b  c\n");
        assert_eq!(line(Level::Trace, "trace"), "<7>trace\n");
    }
}
