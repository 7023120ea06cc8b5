//! Whether a message mentions its reader.

/// Whether `text` has this name in it as a word, in upper or lower case.
pub(super) fn mentions(text: &[u8], name: &[u8]) -> bool {
    let lower = |bytes| String::from_utf8_lossy(bytes).to_lowercase();
    let (text, name) = (lower(text), lower(name));
    let name = name.trim();
    let is_in_word = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            !is_in_word(before.chars().next_back()) && !is_in_word(after.chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_mentioned_if_it_stands_as_a_word() {
        for (text, name, expected) in [
            ("bob: hi", "bob", true),
            ("hi Bob!", "bob", true),
            ("ask @bob_", "bob", true),
            ("ZOË?", "zoë", true),
            ("bobby, kebob bob2", "bob", false),
            ("kebob and bob", "bob", true),
            ("Juan de la Cruz is here", "Juan de la Cruz", true),
            ("anything", "", false),
            ("any thing", " ", false),
        ] {
            let is_mentioned = mentions(text.as_bytes(), name.as_bytes());
            assert_eq!(is_mentioned, expected, "{text} {name}");
        }
    }
}
