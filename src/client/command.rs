//! What a typed line asks for.

/// What a typed line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// To say this.
    Say(&'a str),
    /// To leave.
    Quit,
    /// To be told what there is.
    Help,
    /// To say what one does, but not what.
    ActNothing,
    /// A command that takes nothing, with something after it.
    TakesNothing(&'a str),
    /// Something that is not known by this name.
    Unknown(&'a str),
}

/// What `/help` says.
pub(super) const HELP: &[&str] = &[
    "Enter        sends the line",
    "Alt-Enter    begins another line of the same message",
    "/me waves    says what you do",
    "//word       says \"/word\"",
    "/quit        leaves, as do Ctrl-D and Ctrl-C on an empty line",
    "Up, Down     bring back what you said",
    "Ctrl-A, Ctrl-E, Ctrl-W, Ctrl-K, Ctrl-U, Ctrl-Y, Alt-B, Alt-F, ... edit as in a shell",
];

impl<'a> Command<'a> {
    /// Reads a line. A command is a slash and a word of letters at the very beginning, so that a path
    /// such as "/etc/hosts" is just something that somebody says.
    pub(super) fn parse(line: &'a str) -> Self {
        let Some(rest) = line.strip_prefix('/') else {
            return Self::Say(line);
        };
        if rest.starts_with('/') {
            return Self::Say(rest);
        }
        match line.trim_end() {
            "/quit" => return Self::Quit,
            "/help" => return Self::Help,
            // How the tests see that a panic leaves the terminal as it was found.
            #[cfg(debug_assertions)]
            "/panic" => panic!("you asked for it"),
            _ => {}
        }
        let word = rest.split([' ', '\n']).next().unwrap_or_default();
        if word.is_empty() || !word.chars().all(char::is_alphabetic) {
            return Self::Say(line);
        }
        // The protocol carries it as it is: see `Look::write_message`.
        if word == "me" {
            return match rest[word.len()..].trim() {
                "" => Self::ActNothing,
                _ => Self::Say(line),
            };
        }
        let command = &line[..=word.len()];
        match word {
            "quit" | "help" => Self::TakesNothing(command),
            _ => Self::Unknown(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_unless_they_begin_with_a_command() {
        for (line, command) in [
            ("hello", Command::Say("hello")),
            (" /quit", Command::Say(" /quit")),
            ("/quit", Command::Quit),
            ("/quit ", Command::Quit),
            (
                "/quit and more\nthat was pasted",
                Command::TakesNothing("/quit"),
            ),
            ("/help", Command::Help),
            ("/help me", Command::TakesNothing("/help")),
            ("/me waves", Command::Say("/me waves")),
            ("/me", Command::ActNothing),
            ("/me  ", Command::ActNothing),
            ("/quitt", Command::Unknown("/quitt")),
            ("/nick bob", Command::Unknown("/nick")),
            ("//quit", Command::Say("/quit")),
            ("//", Command::Say("/")),
            ("/", Command::Say("/")),
            ("/ hm", Command::Say("/ hm")),
            ("/etc/hosts is empty", Command::Say("/etc/hosts is empty")),
            ("/usr", Command::Unknown("/usr")),
        ] {
            assert_eq!(Command::parse(line), command, "{line}");
        }
    }
}
