//! Parses the members' table of an admin socket.

use serde::Deserialize;

use crate::text::Shown;

/// A `MembersTable` is the members of a relay at one time.
#[derive(Debug, Deserialize)]
pub struct MembersTable {
    /// The lag over which senders are paused for a member.
    soft_limit: u64,
    /// The lag over which a member is closed.
    queue_limit: u64,
    /// `cut` if senders are never paused.
    slow: String,
    /// The members, in the order of their slots.
    pub members: Vec<Member>,
}

/// A row of the table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Member {
    /// The number of its connection, in hexadecimal.
    pub id: String,
    /// The name, if its dialect has names.
    #[serde(default)]
    pub name: Option<String>,
    /// The bytes of a name that is not UTF-8, in hexadecimal.
    #[serde(default)]
    pub name_hex: Option<String>,
    /// Its address, as far as it is known.
    pub address: String,
    /// What it speaks.
    pub dialect: String,
    /// How long it has been connected, in seconds.
    pub age: u64,
    /// How many messages it has sent.
    pub sent: u64,
    /// How many messages it was sent, or will be.
    pub received: u64,
    /// How many bytes of its output are pending.
    pub pending: u64,
    /// How it keeps up, in one word.
    pub state: String,
}

impl MembersTable {
    /// Parses the table. No text in it has an effect on a terminal then.
    ///
    /// # Errors
    ///
    /// If it is none, or cut short.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut table: Self = serde_json::from_slice(text)?;
        for member in &mut table.members {
            member.make_harmless();
        }
        Ok(table)
    }

    /// The lag that has consequences: the room is paused, or the member is closed.
    #[must_use]
    pub fn lag_limit(&self) -> u64 {
        if self.slow == "cut" {
            self.queue_limit
        } else {
            self.soft_limit
        }
    }
}

impl Member {
    /// Escapes all texts, so that none has an effect on a terminal.
    fn make_harmless(&mut self) {
        let bytes = self.name_hex.as_deref().and_then(from_hex);
        let name = self.name.as_deref();
        self.name = name.map(|name| shown(bytes.as_deref().unwrap_or(name.as_bytes())));
        for text in [&mut self.address, &mut self.dialect, &mut self.state] {
            *text = shown(text.as_bytes());
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    Shown::plain(bytes).to_string()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"slow":"pace","soft_limit":10,"queue_limit":80,"members":["#;

    fn member(name: &str) -> String {
        format!(
            r#"{{"id":"2a",{name},"address":"192.0.2.1:4000","dialect":"chat10","age":3,"sent":1,"received":2,"pending":7,"state":"lagging"}}"#
        )
    }

    #[test]
    fn names_are_shown_without_effect_on_a_terminal() {
        for (name, shown) in [
            (r#""name":"alice""#, Some("alice")),
            (r#""name":null"#, None),
            (
                r#""name":"a\u001b[2Jb\u202e""#,
                Some(r"a\u{1b}[2Jb\u{202e}"),
            ),
            (r#""name":"a\ufffd","name_hex":"61ff""#, Some(r"a\xff")),
        ] {
            let text = format!("{HEAD}\n{}\n]}}\n", member(name));
            let table = MembersTable::parse(text.as_bytes()).unwrap();
            assert_eq!(table.members[0].name.as_deref(), shown);
            assert_eq!(table.members[0].pending, 7);
            assert_eq!(table.lag_limit(), 10);
        }
    }

    #[test]
    fn table_that_is_cut_short_is_refused_wherever_it_ends() {
        let text = format!("{HEAD}\n{}\n]}}", member(r#""name":"a""#));
        assert!(MembersTable::parse(text.as_bytes()).is_ok());
        for end in 0..text.len() {
            assert!(
                MembersTable::parse(&text.as_bytes()[..end]).is_err(),
                "{end}"
            );
        }
    }
}
