//! Whether the user looks at the window, and what is announced otherwise.

/// The code that rings the terminal's bell.
const BELL: &[u8] = b"\x07";

/// Codes that keep the title of the window, and bring it back. Where a terminal keeps none, the title that the
/// client sets last stays.
const SAVE_TITLE: &[u8] = b"\x1b[22;2t";
const RESTORE_TITLE: &[u8] = b"\x1b]2;chatloop\x07\x1b[23;2t";

/// An `Attention` tracks whether the user looks at the window, as terminals report it that can.
///
/// It has the client mark the place of the first message that came while the user looked elsewhere, and
/// announce mentions: with the bell, and with their number in the window's title.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Whether mentions are announced.
    announces: bool,
    /// Whether the window is known to be looked at. Many terminals do not report it.
    is_focused: bool,
    /// Whether the next message is the first since the user looked elsewhere.
    is_mark_due: bool,
    /// The number of mentions in the window's title.
    mentions: usize,
}

impl Attention {
    pub(super) fn new(announces: bool) -> Self {
        Self {
            announces,
            ..Self::default()
        }
    }

    /// Notes that the user looks elsewhere.
    pub(super) fn leave(&mut self) {
        self.is_focused = false;
        self.is_mark_due = true;
    }

    /// Notes that the window is looked at.
    pub(super) fn focus(&mut self, out: &mut Vec<u8>) {
        self.is_focused = true;
        self.note_key(out);
    }

    /// Notes that the user has pressed a key, and so looks at the window.
    pub(super) fn note_key(&mut self, out: &mut Vec<u8>) {
        self.is_mark_due = false;
        if std::mem::take(&mut self.mentions) > 0 {
            out.extend_from_slice(RESTORE_TITLE);
        }
    }

    /// Whether a mark is to stand before the message that comes now.
    pub(super) fn take_mark(&mut self) -> bool {
        std::mem::take(&mut self.is_mark_due)
    }

    /// Announces that the user was mentioned.
    pub(super) fn note_mention(&mut self, out: &mut Vec<u8>) {
        if !self.announces || self.is_focused {
            return;
        }
        if self.mentions == 0 {
            out.extend_from_slice(SAVE_TITLE);
        }
        self.mentions += 1;
        let title = format!("\x1b]2;({}) chatloop\x07", self.mentions);
        out.extend_from_slice(title.as_bytes());
        out.extend_from_slice(BELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(act: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        act(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn mentions_are_counted_in_the_title_until_the_window_is_looked_at() {
        let mut attention = Attention::new(true);
        let first = written(|out| attention.note_mention(out));
        assert_eq!(first, "\x1b[22;2t\x1b]2;(1) chatloop\x07\x07");
        let second = written(|out| attention.note_mention(out));
        assert_eq!(second, "\x1b]2;(2) chatloop\x07\x07");
        let restored = "\x1b]2;chatloop\x07\x1b[23;2t";
        assert_eq!(written(|out| attention.focus(out)), restored);
        assert_eq!(written(|out| attention.focus(out)), "");
        assert_eq!(written(|out| attention.note_mention(out)), "");
        attention.leave();
        assert_eq!(written(|out| attention.note_mention(out)), first);
        assert_eq!(written(|out| attention.note_key(out)), restored);
    }

    #[test]
    fn nothing_is_announced_unless_it_is_asked_for() {
        let mut attention = Attention::new(false);
        attention.leave();
        assert_eq!(written(|out| attention.note_mention(out)), "");
    }

    #[test]
    fn mark_is_due_once_after_the_user_has_looked_elsewhere() {
        let mut attention = Attention::default();
        assert!(!attention.take_mark());
        attention.leave();
        assert!(attention.take_mark());
        assert!(!attention.take_mark());
        attention.leave();
        written(|out| attention.note_key(out));
        assert!(!attention.take_mark());
    }
}
