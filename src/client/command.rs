//! The commands of a typed line.

/// A `Command` is what a typed line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Send this message.
    Send(&'a str),
    /// Leave.
    Quit,
    /// List the keys and the commands.
    Help,
    /// `/me` without an action.
    EmptyAction,
    /// A command that takes no argument, with one.
    NoArgument(&'a str),
    /// A command that does not exist.
    Unknown(&'a str),
}

/// The lines that `/help` shows.
pub(super) const HELP: &[&str] = &[
    "Enter        sends the line",
    "Alt-Enter    begins another line of the same message",
    "/me waves    sends an action",
    "//word       sends \"/word\"",
    "/quit        leaves, as do Ctrl-D and Ctrl-C on an empty line",
    "Up, Down     bring back your earlier messages",
    "Ctrl-L       clears the screen",
    "Ctrl-Z       stops the client; the shell's fg continues it",
    "Home, End, Ctrl-A, Ctrl-W, Ctrl-K, Ctrl-Y, Alt-B, ... edit as in a shell",
];

impl<'a> Command<'a> {
    /// Parses a line. A command is a slash and a word of letters at the very beginning, so that a path
    /// such as "/etc/hosts" is a message.
    pub(super) fn parse(line: &'a str) -> Self {
        let Some(rest) = line.strip_prefix('/') else {
            return Self::Send(line);
        };
        if rest.starts_with('/') {
            return Self::Send(rest);
        }
        match line.trim_end() {
            "/quit" => return Self::Quit,
            "/help" => return Self::Help,
            // For the test that a panic restores the terminal.
            #[cfg(debug_assertions)]
            "/panic" => panic!("you asked for it"),
            _ => {}
        }
        let word = rest.split([' ', '\n']).next().unwrap_or_default();
        if word.is_empty() || !word.chars().all(char::is_alphabetic) {
            return Self::Send(line);
        }
        // It is sent unchanged: see `Theme::write_message`.
        if word == "me" {
            return match rest[word.len()..].trim() {
                "" => Self::EmptyAction,
                _ => Self::Send(line),
            };
        }
        let command = &line[..=word.len()];
        match word {
            "quit" | "help" => Self::NoArgument(command),
            _ => Self::Unknown(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_a_message_unless_it_begins_with_a_command() {
        for (line, command) in [
            ("hello", Command::Send("hello")),
            (" /quit", Command::Send(" /quit")),
            ("/quit", Command::Quit),
            ("/quit ", Command::Quit),
            (
                "/quit and more\nthat was pasted",
                Command::NoArgument("/quit"),
            ),
            ("/help", Command::Help),
            ("/help me", Command::NoArgument("/help")),
            ("/me waves", Command::Send("/me waves")),
            ("/me", Command::EmptyAction),
            ("/me  ", Command::EmptyAction),
            ("/quitt", Command::Unknown("/quitt")),
            ("/nick bob", Command::Unknown("/nick")),
            ("//quit", Command::Send("/quit")),
            ("//", Command::Send("/")),
            ("/", Command::Send("/")),
            ("/ hm", Command::Send("/ hm")),
            ("/etc/hosts is empty", Command::Send("/etc/hosts is empty")),
            ("/usr", Command::Unknown("/usr")),
        ] {
            assert_eq!(Command::parse(line), command, "{line}");
        }
    }
}
