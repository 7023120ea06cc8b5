//! The members from which messages have arrived: for `/names`, the completion of names, and `/ignore`.

use jiff::Timestamp;

use super::display::{Named, shown_name};

/// The most members that are listed, and the longest name, in bytes: each takes memory, and a server can send as many
/// names as it wants to.
const MAX_MEMBERS: usize = 500;
const MAX_NAME_BYTES: usize = 256;

/// The most members that one list shows.
const MAX_LISTED: usize = 40;

/// A `Roster` lists the members from which messages have arrived. The protocols have no list of all members.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// From the one whose message arrived last.
    heard: Vec<Heard>,
    /// The names whose messages are hidden.
    ignored: Vec<Vec<u8>>,
}

/// A `Heard` is a member and the time of its latest message.
#[derive(Debug)]
struct Heard {
    name: Vec<u8>,
    at: Timestamp,
}

impl Roster {
    /// Notes a message of this member.
    pub(super) fn note(&mut self, name: &[u8], at: Timestamp) {
        if name.len() > MAX_NAME_BYTES {
            return;
        }
        let known = self.heard.iter().position(|member| member.name == name);
        if let Some(index) = known {
            self.heard[..=index].rotate_right(1);
        } else {
            self.heard.truncate(MAX_MEMBERS - 1);
            let name = name.to_vec();
            self.heard.insert(0, Heard { name, at });
        }
        self.heard[0].at = at;
    }

    /// The names that can be typed, from the latest message on.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.heard.iter().map(|member| &member.name[..]);
        names.filter_map(|name| {
            str::from_utf8(name)
                .ok()
                .filter(|text| shown_name(name) == *text)
        })
    }

    /// Hides the messages of this member from now on, or no longer. Returns whether they are hidden.
    pub(super) fn toggle_ignored(&mut self, typed: &str) -> bool {
        // A name with escapes is typed as it is shown.
        let is_it = |name: &[u8]| name == typed.as_bytes() || shown_name(name) == typed;
        let count = self.ignored.len();
        self.ignored.retain(|name| !is_it(name));
        if self.ignored.len() < count {
            return false;
        }
        let heard = self.heard.iter().find(|member| is_it(&member.name));
        let name = heard.map_or_else(|| typed.into(), |member| member.name.clone());
        self.ignored.push(name);
        true
    }

    /// Whether the messages of this member are hidden.
    pub(super) fn is_ignored(&self, name: &[u8]) -> bool {
        self.ignored.iter().any(|ignored| ignored == name)
    }

    /// The names whose messages are hidden, as a list.
    pub(super) fn ignored(&self) -> String {
        let names = self.ignored.iter().map(|name| Named(name).to_string());
        names.collect::<Vec<_>>().join(", ")
    }

    /// The members as a list, each with the time since its latest message.
    pub(super) fn list(&self, now: Timestamp) -> String {
        let members = self.heard.iter().take(MAX_LISTED).map(|member| {
            let age = age(now.as_second() - member.at.as_second());
            let is_ignored = self.is_ignored(&member.name);
            let ignored = if is_ignored { ", ignored" } else { "" };
            format!("{} ({age}{ignored})", Named(&member.name))
        });
        let more = self.heard.len().saturating_sub(MAX_LISTED);
        let more = (more > 0).then(|| format!("and {more} more"));
        members.chain(more).collect::<Vec<_>>().join(", ")
    }
}

/// A number of seconds, rounded down to its largest unit.
fn age(seconds: i64) -> String {
    match seconds {
        ..60 => "now".to_owned(),
        60..3600 => format!("{}min", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn members_are_listed_from_the_one_that_was_heard_last() {
        let mut roster = Roster::default();
        for (name, second) in [
            (&b"bob"[..], 0),
            (b"eve", 10),
            (b"a, b (now)", 90_000),
            (b"\xff\x1b", 95_000),
            (b"bob", 99_000),
        ] {
            roster.note(name, at(second));
        }
        assert!(roster.toggle_ignored("eve"));
        assert_eq!(
            roster.list(at(99_050)),
            "bob (now), \\xff\\u{1b} (1h), \"a, b (now)\" (2h), eve (1d, ignored)"
        );
        let names: Vec<_> = roster.names().collect();
        assert_eq!(names, ["bob", "a, b (now)", "eve"]);
    }

    #[test]
    fn memory_is_that_of_the_latest_names_of_usual_length() {
        let mut roster = Roster::default();
        roster.note(&[b'x'; MAX_NAME_BYTES + 1], at(0));
        assert_eq!(roster.list(at(0)), "");
        for number in 0..=MAX_MEMBERS {
            roster.note(number.to_string().as_bytes(), at(0));
        }
        let names: Vec<_> = roster.names().collect();
        assert_eq!(names.len(), MAX_MEMBERS);
        assert_eq!((names[0], names[MAX_MEMBERS - 1]), ("500", "1"));
        assert!(roster.list(at(60)).ends_with("461 (1min), and 460 more"));
    }

    #[test]
    fn member_is_ignored_until_that_is_asked_for_again() {
        let mut roster = Roster::default();
        roster.note(b"e\x1b", at(0));
        assert!(roster.toggle_ignored("eve"));
        assert!(roster.toggle_ignored("e\\u{1b}"));
        assert!(roster.is_ignored(b"eve") && roster.is_ignored(b"e\x1b"));
        assert_eq!(roster.ignored(), "eve, e\\u{1b}");
        assert!(!roster.is_ignored(b"Eve"));
        assert!(!roster.toggle_ignored("eve"));
        assert!(!roster.is_ignored(b"eve"));
    }
}
