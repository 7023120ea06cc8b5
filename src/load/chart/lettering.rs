//! Text in a picture: how wide it is, where it is broken, and how XML has it.
//!
//! There is nobody to ask for widths: the fonts are the reader's, and not here. So they are
//! estimated.

use std::fmt::{self, Write as _};

/// About how wide a text is in letters of some size, rather too wide than too narrow: as in the
/// widest of the common fonts, and a full square for each character that is not ASCII.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let ems = |char: char| match char {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 0.36,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '-' | '/' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.0,
        'A'..='Z' | '&' | '+' | '<' | '=' | '>' | '~' => 0.8,
        ' '..='~' | 'µ' => 0.64,
        _ => 1.0,
    };
    size * text.chars().map(ems).sum::<f64>()
}

/// A text in lines no wider than the room there is, broken between words where that is possible.
pub(super) fn wrapped(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            if width(&line, size) + width(" ", size) + width(word, size) > room {
                lines.push(std::mem::take(&mut line));
            } else {
                line.push(' ');
            }
        }
        for char in word.chars() {
            line.push(char);
            if width(&line, size) > room {
                line.pop();
                lines.push(std::mem::replace(&mut line, char.to_string()));
            }
        }
    }
    lines.extend(Some(line).filter(|line| !line.is_empty()));
    lines
}

/// A text, or as much of its beginning as there is room for.
pub(super) fn shortened(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        short.push(char);
        if width(&short, size) + width("…", size) > room {
            short.pop();
            break;
        }
    }
    short + "…"
}

/// Text as XML has it. Controls are no XML, not even escaped, and are shown as what they are worth.
pub(super) struct Xml<'a>(pub(super) &'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\t' | '\n' | '\r' => f.write_char(' ')?,
                '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                _ if char.is_control() => f.write_char('\u{fffd}')?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_no_word_gets_lost() {
        let text = "one two  three\nfour";
        let lines = wrapped(text, 10.0, width("one two", 10.0));
        assert_eq!(lines, ["one two", "three", "four"]);
        assert_eq!(wrapped(text, 10.0, 1000.0), ["one two three four"]);
        assert!(wrapped(" ", 10.0, 100.0).is_empty());
    }

    #[test]
    fn a_word_too_long_for_a_line_is_broken_where_the_line_ends() {
        assert_eq!(
            wrapped("an abcabcabc", 10.0, width("abca", 10.0)),
            ["an", "abca", "bcab", "c"]
        );
    }

    #[test]
    fn a_text_without_room_is_cut_and_says_so() {
        let room = width("abcdef", 10.0);
        assert_eq!(shortened("abcdef", 10.0, room), "abcdef");
        let short = shortened("abcdefg", 10.0, room);
        assert_eq!(short, "abcd…");
        assert!(width(&short, 10.0) <= room);
    }

    #[test]
    fn xml_has_neither_marks_nor_controls_in_its_text() {
        assert_eq!(Xml("a<b>&\"c\"").to_string(), "a&lt;b&gt;&amp;\"c\"");
        assert_eq!(Xml("a\tb\nc").to_string(), "a b c");
        assert_eq!(
            Xml("\u{1b}\u{85}\u{ffff}").to_string(),
            "\u{fffd}".repeat(3)
        );
        assert_eq!(Xml("Zoë 👋").to_string(), "Zoë 👋");
    }
}
