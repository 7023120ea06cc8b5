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
    /// List the members from which messages have arrived.
    Names,
    /// Join again under this name.
    Nick(&'a str),
    /// Connect again.
    Reconnect,
    /// Hide the messages of this member, or show them again; list those that are hidden if it is empty.
    Ignore(&'a str),
    /// Show the latest message that was folded.
    More,
    /// Clear the screen.
    Clear,
    /// A command that is not used as it must be, and how.
    Misused(&'static str),
    /// A command that takes no argument, with one.
    NoArgument(&'a str),
    /// A command that does not exist.
    Unknown(&'a str),
}

/// The commands, as they are completed.
pub(super) const COMMANDS: [&str; 9] = [
    "/help",
    "/names",
    "/me",
    "/nick",
    "/ignore",
    "/more",
    "/reconnect",
    "/clear",
    "/quit",
];

/// The lines that `/help` shows.
pub(super) const HELP: &[&str] = &[
    "Enter        sends the line; an empty one connects at once, or sends held messages",
    "Alt-Enter    begins another line of the same message",
    "Tab          completes a name, or a command; once more: the next one",
    "Up, Down     bring back your earlier messages",
    "Ctrl-R       searches them; once more: an older one; Escape ends the search",
    "Ctrl-L       clears the screen, as does /clear",
    "Ctrl-Z       stops the client; the shell's fg continues it",
    "Ctrl-C       discards the line, and leaves if it is empty",
    "Home, End, Ctrl-A, Ctrl-W, Ctrl-K, Ctrl-Y, Alt-B, ... edit as in a shell",
    "/names       lists the members that were heard, and how long ago",
    "/me waves    sends an action",
    "/nick bob    joins again, as bob",
    "/ignore eve  hides messages of eve; the same command shows them again",
    "/more        shows the last long message whole",
    "/reconnect   connects again, at once",
    "/quit        leaves, as does Ctrl-D on an empty line",
    "//word       sends \"/word\"",
    "There are no private messages: every member receives what you send.",
];

const NO_PRIVATE: &str = "there are no private messages: every member receives what you send";

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
        let word = rest.split([' ', '\n']).next().unwrap_or_default();
        if word.is_empty() || !word.chars().all(char::is_alphabetic) {
            return Self::Send(line);
        }
        let command = &line[..=word.len()];
        match (word, rest[word.len()..].trim()) {
            ("quit", "") => Self::Quit,
            ("help", "") => Self::Help,
            ("names", "") => Self::Names,
            ("reconnect", "") => Self::Reconnect,
            ("more", "") => Self::More,
            ("clear", "") => Self::Clear,
            // For the test that a panic restores the terminal.
            #[cfg(debug_assertions)]
            ("panic", "") => panic!("you asked for it"),
            ("quit" | "help" | "names" | "reconnect" | "more" | "clear", _) => {
                Self::NoArgument(command)
            }
            ("me", "") => Self::Misused("/me takes what you do, as in: /me waves"),
            // It is sent unchanged: see `Theme::write_message`.
            ("me", _) => Self::Send(line),
            ("nick", "") => Self::Misused("/nick takes your new name, as in: /nick bob"),
            ("nick", name) => Self::Nick(name),
            ("ignore", name) => Self::Ignore(name),
            ("msg" | "query" | "whisper", _) => Self::Misused(NO_PRIVATE),
            _ => Self::Unknown(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_a_message_unless_it_begins_with_a_command() {
        let me = "/me takes what you do, as in: /me waves";
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
            ("/me", Command::Misused(me)),
            ("/me  ", Command::Misused(me)),
            ("/quitt", Command::Unknown("/quitt")),
            ("/nick bob", Command::Nick("bob")),
            ("/nick Juan de la Cruz ", Command::Nick("Juan de la Cruz")),
            ("/nickel", Command::Unknown("/nickel")),
            ("/ignore", Command::Ignore("")),
            ("/ignore eve", Command::Ignore("eve")),
            ("/msg eve psst", Command::Misused(NO_PRIVATE)),
            ("/names", Command::Names),
            ("/names eve", Command::NoArgument("/names")),
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

    #[test]
    fn each_command_that_is_completed_exists_and_is_in_the_help() {
        for command in COMMANDS {
            let parsed = Command::parse(command);
            assert!(!matches!(parsed, Command::Unknown(_)), "{command}");
            let is_in_help = |line: &&str| line.contains(command);
            let is_listed = HELP.iter().any(is_in_help);
            assert!(is_listed || command == "/help", "{command}");
        }
    }
}
