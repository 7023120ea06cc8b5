//! Keys and pastes out of the bytes of a terminal in raw mode.
//!
//! A terminal sends a character as its UTF-8 bytes, a key with Ctrl as one of the 32 control
//! characters, and any other key as a sequence that begins with ESC. Alt is an ESC in front of the
//! key. What is pasted comes as it is, between two marks, if the terminal was asked for that
//! (*bracketed paste*):
//!
//! ```text
//!   a              a                        ESC [ A          Up
//!   0x01           Ctrl-A                   ESC [ 1 ; 5 C    Ctrl-Right
//!   0x0d           Enter                    ESC O A          Up, of another mode or terminal
//!   ESC a          Alt-A                    ESC [ 200 ~      a paste begins
//!   ESC            Escape, or any of these  ESC [ 201 ~      it ends
//!   ESC [ I        the window is focused    ESC [ O          it is no longer
//! ```
//!
//! The lone ESC is the flaw in this: that nothing followed can be told only by
//! waiting. The decoder has no clock, so it reports when it [is undecided](KeyDecoder::is_undecided),
//! and its caller waits.

use std::mem;
use std::time::Duration;

/// How long an ESC may stay alone before it counts as the Escape key.
///
/// A terminal writes the bytes of one key at once, and on one machine they also arrive at once; the
/// delay is for a network that cuts between them. It also delays the Escape key, by a time that is too
/// short to notice.
pub const ESCAPE_DELAY: Duration = Duration::from_millis(50);

const ESC: char = '\x1b';

/// What ends a paste. ESC stands nowhere but at its beginning.
const PASTE_END: &str = "\x1b[201~";

/// The number in the sequence that begins a paste.
const PASTE_START: u32 = 200;

/// An `Input` is a key or a paste.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key was pressed.
    Key(Key),
    /// Text was pasted: all of it or the next piece, never empty, with every line break as `\n`.
    Paste(String),
    /// The terminal's window was focused, or is no longer, if the terminal was asked to report that.
    Focus(bool),
}

/// A key, and what was held down with it.
///
/// Shift is not among that: it has done its work in the character, and few terminals report it for
/// other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key itself.
    pub code: KeyCode,
    /// Whether Ctrl was held.
    pub ctrl: bool,
    /// Whether Alt was held, or Escape pressed just before, which is the same to a terminal.
    pub alt: bool,
}

/// A key on the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names on the keys")]
pub enum KeyCode {
    /// A key that types this character; with Ctrl, a letter is always a small one.
    Char(char),
    Enter,
    Tab,
    /// Shift and Tab.
    BackTab,
    Backspace,
    Delete,
    Insert,
    Escape,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
}

impl Key {
    /// The key alone.
    pub(crate) const fn plain(code: KeyCode) -> Self {
        Self {
            code,
            ctrl: false,
            alt: false,
        }
    }

    /// The key with Ctrl.
    pub(crate) const fn ctrl(code: KeyCode) -> Self {
        Self {
            ctrl: true,
            ..Self::plain(code)
        }
    }

    /// The key with Alt.
    pub(crate) const fn alt(code: KeyCode) -> Self {
        Self {
            alt: true,
            ..Self::plain(code)
        }
    }

    /// The key that sends `char`.
    ///
    /// A control character is what Ctrl makes of the character 64 or 96 places above it. Some have
    /// a key to themselves, and that is the one more likely pressed: Tab rather than Ctrl-I. Both
    /// BS and DEL are in use for Backspace.
    fn typed(char: char) -> Self {
        match char {
            '\t' => Self::plain(KeyCode::Tab),
            '\r' | '\n' => Self::plain(KeyCode::Enter),
            ESC => Self::plain(KeyCode::Escape),
            '\x08' | '\x7f' => Self::plain(KeyCode::Backspace),
            '\0' => Self::ctrl(KeyCode::Char(' ')),
            '\x01'..='\x1a' => Self::ctrl(KeyCode::Char(char::from(char as u8 | 0x60))),
            '\x1c'..='\x1f' => Self::ctrl(KeyCode::Char(char::from(char as u8 | 0x40))),
            _ => Self::plain(KeyCode::Char(char)),
        }
    }

    /// The key, with Alt too if an ESC came in front of it.
    const fn with_alt(mut self, alt: bool) -> Self {
        self.alt |= alt;
        self
    }

    /// The key with the modifiers of a sequence: bit 0 is Shift, bit 1 Alt, bit 2 Ctrl.
    const fn with_modifiers(mut self, modifiers: u32) -> Self {
        if let KeyCode::Enter = self.code {
            // Which of them goes with Enter for a new line is a habit from elsewhere, and Ctrl or
            // Shift has no other use there.
            self.alt = modifiers & 0b111 != 0;
            return self;
        }
        self.alt |= modifiers & 0b010 != 0;
        self.ctrl |= modifiers & 0b100 != 0;
        if let KeyCode::Char(char) = &mut self.code
            && self.ctrl
        {
            *char = char.to_ascii_lowercase();
        }
        self
    }
}

/// A `KeyDecoder` decodes the bytes of a terminal as they arrive, and calls back with each input.
///
/// However the bytes are cut into calls, the keys are the same; a paste is the same text, in more
/// or fewer pieces. Sequences that mean nothing here are taken whole and dropped, so that a key
/// without a use does not type its sequence's tail. Memory is that of the decoder itself: what may
/// be long, a sequence or a paste, is not kept.
#[derive(Debug, Default)]
pub struct KeyDecoder {
    state: DecoderState,
}

/// What the bytes so far are the beginning of.
#[derive(Clone, Copy, Debug, Default)]
enum DecoderState {
    /// Of nothing: the next byte begins something.
    #[default]
    Ground,
    /// A character of several bytes.
    Char { alt: bool, char: PartialChar },
    /// ESC came, and if `alt` another one before it.
    Escape { alt: bool },
    /// ESC `[` came, and perhaps parameters: a control sequence.
    Csi { alt: bool, params: Option<Params> },
    /// ESC `O` came: one more byte names a key.
    Ss3 { alt: bool },
    /// ESC `[` `[` came: one more byte names one of the Linux console's keys F1 to F5.
    LinuxFunctionKey,
    /// A paste began and has not ended.
    Paste(Paste),
}

impl KeyDecoder {
    /// Takes all of `bytes` and calls `on_input` with each input that they complete, in order.
    ///
    /// Of a paste each call gives what it can, in one piece. Held back are only an incomplete
    /// character and what may be the beginning of the end.
    pub fn feed(&mut self, bytes: &[u8], mut on_input: impl FnMut(Input)) {
        let mut pasted = String::new();
        for &byte in bytes {
            self.step(byte, &mut pasted, &mut on_input);
        }
        hand_over(&mut pasted, &mut on_input);
    }

    /// Whether what came last may be a key by itself or the beginning of a sequence.
    ///
    /// If nothing comes within [`ESCAPE_DELAY`], the caller calls [`timeout`](Self::timeout). There
    /// is nothing to wait for inside a character or a paste, where only more bytes can decide; nor in
    /// a sequence that has parameters, which is never typed and a slow network may cut: if it is the
    /// mark of a paste, what follows must not be taken for keys.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        match self.state {
            DecoderState::Escape { .. }
            | DecoderState::Csi { params: None, .. }
            | DecoderState::Ss3 { .. } => true,
            DecoderState::Ground
            | DecoderState::Char { .. }
            | DecoderState::Csi { .. }
            | DecoderState::LinuxFunctionKey
            | DecoderState::Paste(_) => false,
        }
    }

    /// Whether a paste has begun and not ended.
    #[must_use]
    pub const fn is_pasting(&self) -> bool {
        matches!(self.state, DecoderState::Paste(_))
    }

    /// Decides that nothing follows: what might have been the beginning of a sequence was a key.
    pub fn timeout(&mut self, mut on_input: impl FnMut(Input)) {
        if !self.is_undecided() {
            return;
        }
        let key = match mem::take(&mut self.state) {
            DecoderState::Escape { alt } => Key::plain(KeyCode::Escape).with_alt(alt),
            DecoderState::Csi { params: None, .. } => Key::alt(KeyCode::Char('[')),
            DecoderState::Ss3 { .. } => Key::alt(KeyCode::Char('O')),
            _ => return,
        };
        on_input(Input::Key(key));
    }

    /// Takes one byte. What it adds to a paste goes to `pasted`, until that paste ends.
    fn step(&mut self, byte: u8, pasted: &mut String, on_input: &mut impl FnMut(Input)) {
        let mut on_key = |key| on_input(Input::Key(key));
        // An arm that stays inside something puts its state back.
        match mem::take(&mut self.state) {
            DecoderState::Ground => self.start(byte, false, on_key),
            DecoderState::Char { alt, mut char } => match char.push(byte) {
                CharProgress::Incomplete => self.state = DecoderState::Char { alt, char },
                CharProgress::Complete(char) => on_key(Key::typed(char).with_alt(alt)),
                CharProgress::Invalid => {
                    on_key(Key::typed(char::REPLACEMENT_CHARACTER).with_alt(alt));
                    self.start(byte, false, on_key);
                }
            },
            DecoderState::Escape { alt } => match char::from(byte) {
                '[' => self.state = DecoderState::Csi { alt, params: None },
                'O' => self.state = DecoderState::Ss3 { alt },
                // Somebody leans on the Escape key: two make a key, the third begins anew.
                ESC if alt => {
                    on_key(Key::alt(KeyCode::Escape));
                    self.start(byte, false, on_key);
                }
                _ => self.start(byte, true, on_key),
            },
            DecoderState::Csi { alt, params } => match byte {
                b' '..=b'?' => {
                    let params = Some(params.unwrap_or_default().with(byte));
                    self.state = DecoderState::Csi { alt, params };
                }
                b'[' if params.is_none() => self.state = DecoderState::LinuxFunctionKey,
                b'I' | b'O' if params.is_none() => on_input(Input::Focus(byte == b'I')),
                b'@'..=b'~' => self.end_csi(params.unwrap_or_default(), byte, alt, on_key),
                // A control character, or one beyond ASCII, is no part of a sequence.
                _ => self.start(byte, false, on_key),
            },
            DecoderState::Ss3 { alt } => match byte {
                b' '..=b'~' => {
                    if let Some(key) = ss3_key(byte) {
                        on_key(key.with_alt(alt));
                    }
                }
                _ => self.start(byte, false, on_key),
            },
            DecoderState::LinuxFunctionKey => match byte {
                b' '..=b'~' => {}
                _ => self.start(byte, false, on_key),
            },
            DecoderState::Paste(mut paste) => {
                if paste.push(byte, pasted) {
                    hand_over(pasted, on_input);
                } else {
                    self.state = DecoderState::Paste(paste);
                }
            }
        }
    }

    /// Takes the first byte of something.
    fn start(&mut self, byte: u8, alt: bool, mut on_key: impl FnMut(Key)) {
        let mut char = PartialChar::default();
        match char.push(byte) {
            CharProgress::Complete(ESC) => self.state = DecoderState::Escape { alt },
            CharProgress::Complete(char) => on_key(Key::typed(char).with_alt(alt)),
            CharProgress::Incomplete | CharProgress::Invalid => {
                self.state = DecoderState::Char { alt, char }
            }
        }
    }

    /// Takes the last byte of a control sequence.
    fn end_csi(&mut self, params: Params, last: u8, alt: bool, mut on_key: impl FnMut(Key)) {
        if params.unknown {
            return;
        }
        if (params.numbers[0], last) == (PASTE_START, b'~') {
            self.state = DecoderState::Paste(Paste::default());
        } else if let Some(key) = params.key(last) {
            on_key(key.with_alt(alt));
        }
    }
}

fn hand_over(pasted: &mut String, on_input: &mut impl FnMut(Input)) {
    if !pasted.is_empty() {
        on_input(Input::Paste(mem::take(pasted)));
    }
}

/// The parameters of a control sequence: numbers with semicolons between them.
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    numbers: [u32; 3],
    /// Which of the numbers is being read; past them, a fourth.
    index: usize,
    /// Something else came, or too many numbers: no key that is known here.
    unknown: bool,
}

impl Params {
    /// The parameters and one byte more.
    fn with(mut self, byte: u8) -> Self {
        match (byte, self.numbers.get_mut(self.index)) {
            (b'0'..=b'9', Some(number)) => {
                let digit = u32::from(byte - b'0');
                *number = number.saturating_mul(10).saturating_add(digit);
            }
            (b';', Some(_)) => self.index += 1,
            _ => self.unknown = true,
        }
        self
    }

    /// The key whose sequence has these parameters and ends with `last`.
    fn key(self, last: u8) -> Option<Key> {
        let [first, second, third] = self.numbers;
        let key = match (last, first) {
            (b'A'..=b'D' | b'H' | b'F', _) => Key::plain(cursor_key(last)?),
            (b'Z', _) => Key::plain(KeyCode::BackTab),
            // xterm, asked to report keys that have no sequence of their own.
            (b'~', 27) => code_point_key(third)?,
            (b'~', number) => Key::plain(editing_key(number)?),
            // rxvt, with Ctrl.
            (b'^', number) => Key::ctrl(editing_key(number)?),
            // Other terminals' way to report what has no sequence of its own.
            (b'u', code_point) => code_point_key(code_point)?,
            _ => return None,
        };
        // The second number is the modifiers' and one more than their bits, so that 0 is "absent".
        Some(key.with_modifiers(second.saturating_sub(1)))
    }
}

/// The keys that a letter names, after ESC `[` or ESC `O`.
const fn cursor_key(letter: u8) -> Option<KeyCode> {
    Some(match letter {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'H' => KeyCode::Home,
        b'F' => KeyCode::End,
        _ => return None,
    })
}

/// The keys that a number names, after ESC `[` and before `~`.
const fn editing_key(number: u32) -> Option<KeyCode> {
    Some(match number {
        1 | 7 => KeyCode::Home,
        2 => KeyCode::Insert,
        3 => KeyCode::Delete,
        4 | 8 => KeyCode::End,
        5 => KeyCode::PageUp,
        6 => KeyCode::PageDown,
        _ => return None,
    })
}

/// The key that a code point names.
///
/// None of the private ones: terminals use those for keys that type nothing. Nor zero, which is no
/// number at all: a bare ESC `[` `u` is not about keys.
fn code_point_key(code_point: u32) -> Option<Key> {
    match char::from_u32(code_point)? {
        '\0' | '\u{e000}'..='\u{f8ff}' => None,
        char => Some(Key::typed(char)),
    }
}

/// The keys that one byte names after ESC `O`. Small letters are rxvt's arrows with Ctrl.
fn ss3_key(byte: u8) -> Option<Key> {
    match byte {
        b'M' => Some(Key::plain(KeyCode::Enter)),
        b'a'..=b'd' => cursor_key(byte.to_ascii_uppercase()).map(Key::ctrl),
        _ => cursor_key(byte).map(Key::plain),
    }
}

/// The inside of a paste.
#[derive(Clone, Copy, Debug, Default)]
struct Paste {
    char: PartialChar,
    /// How many bytes of [`PASTE_END`] came last.
    matched: usize,
    /// A CR came last and was taken for the line break: an LF right after it belongs to it.
    after_cr: bool,
}

impl Paste {
    /// Takes one byte, adds to `text` what is certain by now, and returns whether the paste is over.
    fn push(&mut self, byte: u8, text: &mut String) -> bool {
        if self.matched > 0 {
            if byte == PASTE_END.as_bytes()[self.matched] {
                self.matched += 1;
                return self.matched == PASTE_END.len();
            }
            text.push_str(&PASTE_END[..mem::take(&mut self.matched)]);
        }
        let after_cr = mem::take(&mut self.after_cr);
        match self.char.push(byte) {
            CharProgress::Incomplete => {}
            CharProgress::Invalid => {
                text.push(char::REPLACEMENT_CHARACTER);
                return self.push(byte, text);
            }
            CharProgress::Complete(ESC) => self.matched = 1,
            CharProgress::Complete('\r') => {
                text.push('\n');
                self.after_cr = true;
            }
            CharProgress::Complete('\n') if after_cr => {}
            CharProgress::Complete(char) => text.push(char),
        }
        false
    }
}

/// The bytes so far of a character that is not complete.
#[derive(Clone, Copy, Debug, Default)]
struct PartialChar {
    bytes: [u8; 4],
    len: usize,
}

enum CharProgress {
    /// The byte was taken; more must follow.
    Incomplete,
    /// The byte was taken and completes this character. If it cannot begin any, that is U+FFFD.
    Complete(char),
    /// The byte cannot go on with the character. What there was of it is forgotten, and stands for
    /// one U+FFFD, as [`String::from_utf8_lossy`] has it; the byte was not taken.
    Invalid,
}

impl PartialChar {
    fn push(&mut self, byte: u8) -> CharProgress {
        let before = mem::take(&mut self.len);
        // Four bytes are always a character or none, so there is room for this one.
        self.bytes[before] = byte;
        match str::from_utf8(&self.bytes[..=before]) {
            Ok(text) => text
                .chars()
                .next()
                .map_or(CharProgress::Incomplete, CharProgress::Complete),
            Err(error) if error.error_len().is_none() => {
                self.len = before + 1;
                CharProgress::Incomplete
            }
            Err(_) if before == 0 => CharProgress::Complete(char::REPLACEMENT_CHARACTER),
            Err(_) => CharProgress::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KeyCode::*;
    use super::*;
    use proptest::prelude::*;

    fn key(code: KeyCode) -> Input {
        Input::Key(Key::plain(code))
    }

    fn ctrl(code: KeyCode) -> Input {
        Input::Key(Key::ctrl(code))
    }

    fn alt(code: KeyCode) -> Input {
        Input::Key(Key::alt(code))
    }

    fn ctrl_alt(code: KeyCode) -> Input {
        Input::Key(Key {
            alt: true,
            ..Key::ctrl(code)
        })
    }

    fn paste(text: &str) -> Input {
        Input::Paste(text.to_owned())
    }

    fn keys(text: &str) -> Vec<Input> {
        text.chars().map(|char| key(Char(char))).collect()
    }

    /// Adds `input`, if it is a piece of a paste to the piece before it.
    fn join(inputs: &mut Vec<Input>, input: Input) {
        match (inputs.last_mut(), input) {
            (Some(Input::Paste(text)), Input::Paste(piece)) => text.push_str(&piece),
            (_, input) => inputs.push(input),
        }
    }

    /// What a stream of pieces decodes to, and whether it ends undecided.
    fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Input>, bool) {
        let mut decoder = KeyDecoder::default();
        let mut inputs = Vec::new();
        for piece in pieces {
            decoder.feed(piece, |input| {
                assert_ne!(input, paste(""));
                join(&mut inputs, input);
            });
        }
        (inputs, decoder.is_undecided())
    }

    /// Decodes `stream` whole, byte by byte and at every split, and insists on one answer.
    fn decode_every_way(stream: &[u8]) -> (Vec<Input>, bool) {
        let whole = decode_pieces([stream]);
        assert_eq!(decode_pieces(stream.chunks(1)), whole, "byte by byte");
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(decode_pieces([left, right]), whole, "split at {at}");
            for end in at..=stream.len() {
                let pieces = [left, &stream[at..end], &stream[end..]];
                assert_eq!(decode_pieces(pieces), whole, "split at {at} and {end}");
            }
        }
        whole
    }

    /// Checks that each stream means its inputs, however it is cut, and ends decided.
    fn check(table: &[(&[u8], Vec<Input>)]) {
        for (stream, inputs) in table {
            let decoded = decode_every_way(stream);
            assert_eq!(
                decoded,
                (inputs.clone(), false),
                "{}",
                stream.escape_ascii()
            );
        }
    }

    #[test]
    fn characters_and_controls_are_keys() {
        check(&[
            (b"", vec![]),
            (b"Hi ~", keys("Hi ~")),
            ("Zoë 李 👩‍🚀".as_bytes(), keys("Zoë 李 👩‍🚀")),
            (b"\r", vec![key(Enter)]),
            (b"\n", vec![key(Enter)]),
            (b"\r\n", vec![key(Enter), key(Enter)]),
            (b"\t", vec![key(Tab)]),
            (b"\x7f\x08", vec![key(Backspace), key(Backspace)]),
            (
                b"\x00\x01\x07\x0b\x1a",
                [' ', 'a', 'g', 'k', 'z'].map(|c| ctrl(Char(c))).into(),
            ),
            (
                b"\x1c\x1d\x1e\x1f",
                ['\\', ']', '^', '_'].map(|c| ctrl(Char(c))).into(),
            ),
        ]);
    }

    #[test]
    fn reports_of_the_focus_are_no_keys() {
        check(&[(
            b"a\x1b[Ob\x1b[I\x1b[1I",
            [
                keys("a"),
                vec![Input::Focus(false)],
                keys("b"),
                vec![Input::Focus(true)],
            ]
            .concat(),
        )]);
    }

    #[test]
    fn invalid_utf8_is_replaced_without_loss_of_the_next_key() {
        check(&[
            (b"a\xffb", keys("a\u{fffd}b")),
            // Half a character, then another thing, of every kind.
            (b"\xe2\x82a", keys("\u{fffd}a")),
            (b"\xe2\x82\xe2\x82\xac", keys("\u{fffd}€")),
            (b"\xe2\x82\r", vec![key(Char('\u{fffd}')), key(Enter)]),
            (b"\xe2\x82\x1b[A", vec![key(Char('\u{fffd}')), key(Up)]),
            (
                b"\xc3\x1b[200~b\x1b[201~",
                vec![key(Char('\u{fffd}')), paste("b")],
            ),
            // A surrogate, an overlong slash, a code point too large: each byte by itself.
            (b"\xed\xa0\x80", keys("\u{fffd}\u{fffd}\u{fffd}")),
            (b"\xc0\xaf", keys("\u{fffd}\u{fffd}")),
            (
                b"\xf4\x90\x80\x80",
                keys("\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ),
            // An eight-bit CSI is no CSI.
            (b"\x9bA", keys("\u{fffd}A")),
        ]);
    }

    #[test]
    fn escape_before_a_key_is_alt() {
        check(&[
            (b"\x1bb", vec![alt(Char('b'))]),
            (b"\x1bB", vec![alt(Char('B'))]),
            ("\x1bë".as_bytes(), vec![alt(Char('ë'))]),
            (b"\x1b\xc3b", vec![alt(Char('\u{fffd}')), key(Char('b'))]),
            (b"\x1b\r", vec![alt(Enter)]),
            (b"\x1b\x7f\x1b\x08", vec![alt(Backspace), alt(Backspace)]),
            (b"\x1b\x01", vec![ctrl_alt(Char('a'))]),
            (b"\x1b\x1bb", vec![alt(Char('b'))]),
            (b"\x1b\x1b[A", vec![alt(Up)]),
            (b"\x1b\x1bOA", vec![alt(Up)]),
            (b"\x1b\x1b[1;5A", vec![ctrl_alt(Up)]),
            (b"\x1b\x1b\x1b[A", vec![alt(Escape), key(Up)]),
        ]);
    }

    #[test]
    fn sequences_are_keys() {
        check(&[
            (
                b"\x1b[A\x1b[B\x1b[C\x1b[D\x1b[H\x1b[F",
                [Up, Down, Right, Left, Home, End].map(key).into(),
            ),
            (
                b"\x1bOA\x1bOB\x1bOC\x1bOD\x1bOH\x1bOF\x1bOM",
                [Up, Down, Right, Left, Home, End, Enter].map(key).into(),
            ),
            (
                b"\x1b[1~\x1b[2~\x1b[3~\x1b[4~\x1b[5~\x1b[6~\x1b[7~\x1b[8~",
                [Home, Insert, Delete, End, PageUp, PageDown, Home, End]
                    .map(key)
                    .into(),
            ),
            (b"\x1b[Z", vec![key(BackTab)]),
            // With modifiers: Shift, Alt, Ctrl, and Ctrl with Alt.
            (b"\x1b[1;2C", vec![key(Right)]),
            (b"\x1b[1;3C", vec![alt(Right)]),
            (b"\x1b[1;5C", vec![ctrl(Right)]),
            (b"\x1b[1;7C", vec![ctrl_alt(Right)]),
            (b"\x1b[3;5~", vec![ctrl(Delete)]),
            // rxvt's.
            (b"\x1bOc\x1bOd", vec![ctrl(Right), ctrl(Left)]),
            (b"\x1b[3^", vec![ctrl(Delete)]),
        ]);
    }

    #[test]
    fn keys_reported_by_code_point_are_decoded() {
        check(&[
            (b"\x1b[13u\x1b[13;1u", vec![key(Enter), key(Enter)]),
            (b"\x1b[13;2u", vec![alt(Enter)]),
            (b"\x1b[13;5u", vec![alt(Enter)]),
            (b"\x1b[27;2;13~", vec![alt(Enter)]),
            (b"\x1b[27;3;13~", vec![alt(Enter)]),
            (b"\x1b[97;5u", vec![ctrl(Char('a'))]),
            (b"\x1b[27;6;65~", vec![ctrl(Char('a'))]),
            (b"\x1b[27;2;65~", keys("A")),
            (b"\x1b[127;5u", vec![ctrl(Backspace)]),
            (b"\x1b[27u", vec![key(Escape)]),
            (b"\x1b[26446u", keys("李")),
            // No key that types anything: a private code point, a surrogate, nothing.
            (b"\x1b[57358u\x1b[55296u\x1b[u.", keys(".")),
        ]);
    }

    #[test]
    fn unknown_sequence_is_dropped_whole() {
        let long = [
            b"\x1b[".as_slice(),
            &b"1234567890;".repeat(10),
            b"~.".as_slice(),
        ]
        .concat();
        check(&[
            // Function keys, the mouse, a terminal's answers, one paste too few.
            (b"\x1bOP.\x1b[15~.\x1b[1;5P.", keys("...")),
            (b"\x1b[J.\x1b[<0;1;1M.", keys("..")),
            (b"\x1b[?62;4c.\x1b[?2004$y.\x1b[2 q.", keys("...")),
            (b"\x1b[201~.", keys(".")),
            (b"\x1b[[A.\x1b[[E.", keys("..")),
            (b"\x1b[;;;;A.\x1b[1:2A.", keys("..")),
            // 4294967299 is 3, if it is let overflow.
            (b"\x1b[4294967299~.", keys(".")),
            (&long, keys(".")),
        ]);
    }

    #[test]
    fn impossible_byte_ends_a_sequence_and_is_decoded() {
        check(&[
            (b"\x1b[1;\x1b[A", vec![key(Up)]),
            (b"\x1b[\x1b\r", vec![alt(Enter)]),
            (b"\x1b[12\r", vec![key(Enter)]),
            (b"\x1b[\x03", vec![ctrl(Char('c'))]),
            (b"\x1b[1\x7f", vec![key(Backspace)]),
            (b"\x1b[1\xc3\xab", keys("ë")),
            (b"\x1b\x1b[1a\rb", vec![key(Enter), key(Char('b'))]),
            (b"\x1bO\r", vec![key(Enter)]),
            (b"\x1bO\x1b[A", vec![key(Up)]),
            (b"\x1bO\xc3\xab", keys("ë")),
            (b"\x1b[[\r", vec![key(Enter)]),
            (b"\x1b[[\x1b[A", vec![key(Up)]),
        ]);
    }

    #[test]
    fn paste_is_text_between_its_marks() {
        check(&[
            (b"\x1b[200~hello\x1b[201~", vec![paste("hello")]),
            (b"\x1b[200~\x1b[201~", vec![]),
            (
                b"a\x1b[200~b\x1b[201~c",
                vec![key(Char('a')), paste("b"), key(Char('c'))],
            ),
            (
                b"\x1b[200~a\r\nb\rc\nd\r\r\n\n\x1b[201~\n",
                vec![paste("a\nb\nc\nd\n\n\n"), key(Enter)],
            ),
            (b"\x1b[200~\r\x1b\n\x1b[201~", vec![paste("\n\x1b\n")]),
            // Keys are no keys inside, and controls stay what they are.
            (
                b"\x1b[200~\x1b[A\x03\x1bb\x00\t\x7f\x1b[200~\x1b[201~",
                vec![paste("\x1b[A\x03\x1bb\0\t\x7f\x1b[200~")],
            ),
            // Almost an end.
            (
                b"\x1b[200~\x1b[20\x1b[201\x1b\x1b[201 \x1b[201~",
                vec![paste("\x1b[20\x1b[201\x1b\x1b[201 ")],
            ),
            // Not UTF-8, up to the last byte.
            ("\x1b[200~Zoë 李\x1b[201~".as_bytes(), vec![paste("Zoë 李")]),
            (
                b"\x1b[200~\xff\xe2\x82a\xe2\x82\xed\xa0\r\xe2\x82\x1b[201~",
                vec![paste("\u{fffd}\u{fffd}a\u{fffd}\u{fffd}\u{fffd}\n\u{fffd}")],
            ),
        ]);
    }

    #[test]
    fn paste_is_passed_on_with_each_feed_except_a_possible_end_mark() {
        let mut decoder = KeyDecoder::default();
        let feeds: [(&[u8], &[&str]); 9] = [
            (b"\x1b[200~", &[]),
            (b"one\rtwo\r", &["one\ntwo\n"]),
            (b"\n", &[]),
            (b"\xe2\x82", &[]),
            (b"\xac\x1b[", &["€"]),
            (b"20", &[]),
            (b"x", &["\x1b[20x"]),
            (b"y\x1b[201~\x1b[200~z\x1b", &["y", "z"]),
            (b"[201~", &[]),
        ];
        for (bytes, pieces) in feeds {
            let mut pasted = Vec::new();
            decoder.feed(bytes, |input| pasted.push(input));
            let pieces: Vec<_> = pieces.iter().copied().map(paste).collect();
            assert_eq!(pasted, pieces, "{}", bytes.escape_ascii());
            assert!(!decoder.is_undecided(), "{}", bytes.escape_ascii());
        }
        assert!(matches!(decoder.state, DecoderState::Ground));
    }

    #[test]
    fn timeout_decides_an_undecided_escape() {
        let table: [(&[u8], Input); 7] = [
            (b"\x1b", key(Escape)),
            (b"\x1b\x1b", alt(Escape)),
            (b"\x1b[A\x1b", key(Escape)),
            (b"\x1b[", alt(Char('['))),
            (b"\x1b\x1b[", alt(Char('['))),
            (b"\x1bO", alt(Char('O'))),
            (b"\x1b[200\x1b[", alt(Char('['))),
        ];
        for (stream, expected) in table {
            let (_, undecided) = decode_every_way(stream);
            assert!(undecided, "{}", stream.escape_ascii());
            let mut decoder = KeyDecoder::default();
            decoder.feed(stream, |_| {});
            let mut decided = Vec::new();
            decoder.timeout(|input| decided.push(input));
            assert_eq!(decided, [expected], "{}", stream.escape_ascii());
            assert!(!decoder.is_undecided());
            decided.clear();
            decoder.feed(b"A", |input| decided.push(input));
            assert_eq!(decided, keys("A"), "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn timeout_has_no_effect_when_nothing_is_undecided() {
        let table: [(&[u8], &[u8], Input); 7] = [
            (b"", b"a", key(Char('a'))),
            (b"\xe2\x82", b"\xac", key(Char('€'))),
            (b"\x1b\xe2\x82", b"\xac", alt(Char('€'))),
            (b"\x1b[1;5", b"C", ctrl(Right)),
            (b"\x1b[20", b"0~a\r", paste("a\n")),
            (b"\x1b[200~", b"b", paste("b")),
            (b"\x1b[200~\x1b[20", b"c", paste("\x1b[20c")),
        ];
        for (before, after, expected) in table {
            let mut decoder = KeyDecoder::default();
            decoder.feed(before, |input| panic!("{input:?}"));
            assert!(!decoder.is_undecided());
            decoder.timeout(|input| panic!("{input:?}"));
            let mut inputs = Vec::new();
            decoder.feed(after, |input| inputs.push(input));
            assert_eq!(inputs, [expected]);
        }
    }

    #[test]
    fn decoder_is_small_and_owns_no_memory() {
        fn is_copy(_: impl Copy) {}
        is_copy(DecoderState::default());
        assert!(size_of::<KeyDecoder>() <= 40);
    }

    /// Bytes of which many mean something together.
    fn terminal_bytes() -> impl Strategy<Value = Vec<u8>> {
        let pieces: &[&[u8]] = &[
            b"\x1b[200~",
            b"\x1b[201~",
            b"\x1b[A",
            b"\x1b[",
            b"\x1bO",
            b"\x1b",
            b"[",
            b"1",
            b";5",
            b"~",
            b"a",
            b"\r",
            b"\n",
            b"\x03",
            b"\xe2\x82\xac",
            b"\xe2\x82",
            b"\xf0\x9f\x98",
        ];
        let piece = prop_oneof![
            3 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_of_any_bytes_means_the_same(
            stream in terminal_bytes(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            prop_assert_eq!(decode_pieces(pieces), decode_pieces([&stream[..]]));
        }

        #[test]
        fn without_controls_bytes_are_their_text_typed_or_pasted(
            mut bytes in prop::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    prop::sample::select(&b"\xe2\x82\xac\xf0\x9f\x98\x81a"[..]),
                ],
                0..60,
            ),
        ) {
            bytes.retain(|byte| !byte.is_ascii_control());
            // So that nothing is left incomplete.
            bytes.push(b'.');
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(decode_pieces([&bytes[..]]).0, keys(&text));
            let pasted = [b"\x1b[200~", &bytes[..], b"\x1b[201~"].concat();
            prop_assert_eq!(decode_pieces([&pasted[..]]).0, [paste(&text)]);
        }
    }
}
