//! The completion of a word with Tab.

/// A `Completion` holds the words that the word before the cursor may become. Each Tab takes the next one,
/// and after the last the first.
#[derive(Debug)]
pub(super) struct Completion {
    /// Where the word begins, in bytes.
    start: usize,
    /// The completed words, never none.
    words: Vec<String>,
    next: usize,
}

impl Completion {
    /// Completes the last word of `typed`. `None` if none of these words begins with it.
    ///
    /// Upper and lower case are the same. Behind a word that begins the line stands a colon, as people write
    /// it in front of what they say to one of them; a command has none.
    pub(super) fn begin<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let start = typed.rfind(char::is_whitespace);
        let start = start.map_or(0, |at| {
            at + typed[at..].chars().next().map_or(0, char::len_utf8)
        });
        let part = typed[start..].to_lowercase();
        if part.is_empty() {
            return None;
        }
        let words: Vec<_> = words
            .filter(|word| word.to_lowercase().starts_with(&part))
            .map(|word| match (start, word.starts_with('/')) {
                (0, false) => format!("{word}: "),
                _ => format!("{word} "),
            })
            .collect();
        (!words.is_empty()).then_some(Self {
            start,
            words,
            next: 0,
        })
    }

    /// Where the word begins, in bytes.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// The next of the completed words.
    pub(super) fn next_word(&mut self) -> String {
        let word = self.words[self.next].clone();
        self.next = (self.next + 1) % self.words.len();
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(typed: &str) -> Option<(usize, Vec<String>)> {
        let words = ["alice", "Alan Turing", "bob", "/names"];
        let mut completion = Completion::begin(typed, words.into_iter())?;
        let all = (0..=completion.words.len()).map(|_| completion.next_word());
        let all = all.collect();
        Some((completion.start(), all))
    }

    #[test]
    fn last_word_becomes_each_word_that_begins_with_it_in_turn() {
        for (typed, start, words) in [
            ("al", 0, &["alice: ", "Alan Turing: ", "alice: "][..]),
            ("AL", 0, &["alice: ", "Alan Turing: ", "alice: "]),
            ("hi b", 3, &["bob ", "bob "]),
            ("hé\u{3000}b", 6, &["bob ", "bob "]),
            ("/n", 0, &["/names ", "/names "]),
            ("/ignore bo", 8, &["bob ", "bob "]),
        ] {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(completed(typed), Some((start, words)), "{typed}");
        }
        for typed in ["", "hi ", "x", "alices"] {
            assert_eq!(completed(typed), None, "{typed}");
        }
    }
}
