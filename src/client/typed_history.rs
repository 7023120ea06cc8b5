//! The file in which typed lines outlive the program.

use std::fs::File;
use std::io::{self, Write};

/// The longest line that is kept, in bytes. A paste can be much longer.
const MAX_LINE_BYTES: usize = 4096;

/// A `TypedHistory` has the lines that were typed before, and appends those that are typed now.
///
/// A line of the file is a typed one, in which a backslash is two, and a line feed a backslash and an `n`.
#[derive(Debug)]
pub struct TypedHistory {
    /// The lines that were typed before, oldest first.
    lines: Vec<String>,
    file: File,
}

impl TypedHistory {
    /// Creates a history from the text of its file, and from the file, which is open for appending.
    #[must_use]
    pub fn new(text: &str, file: File) -> Self {
        Self {
            lines: text.lines().map(decoded).collect(),
            file,
        }
    }

    /// Removes and returns the lines that were typed before.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Appends a line.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        if line.len() > MAX_LINE_BYTES {
            return Ok(());
        }
        // One write, since other clients may append to the same file.
        self.file.write_all((encoded(line) + "\n").as_bytes())
    }
}

fn encoded(line: &str) -> String {
    line.replace('\\', "\\\\").replace('\n', "\\n")
}

fn decoded(line: &str) -> String {
    let mut decoded = String::new();
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        decoded.push(match char {
            '\\' if chars.as_str().starts_with(['n', '\\']) => match chars.next() {
                Some('n') => '\n',
                _ => '\\',
            },
            char => char,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_line_is_the_same_after_it_was_written_and_read(line in "[\\\\n\\n\\r x]*|\\PC*") {
            let encoded = encoded(&line);
            prop_assert!(!encoded.contains('\n'));
            prop_assert_eq!(decoded(&encoded), line);
        }
    }
}
