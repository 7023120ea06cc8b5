//! The line that is being typed.
//!
//! The keys are those of readline's Emacs mode, which are in most fingers already. What they move
//! over and delete is a *grapheme cluster*: what a reader takes for one character, though it may be
//! several code points, such as a letter with its accents or a family of emoji.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use super::completion::Completion;
use crate::terminal::keys::{Input, Key, KeyCode};

/// The most lines of the history: more than can be gone through with a key.
const MAX_HISTORY: usize = 1000;

/// The most bytes of the history, because a line can be a paste of any length. The newest line always
/// stays.
const MAX_HISTORY_BYTES: usize = 4 * 1024 * 1024;

/// A `LineEditor` edits the typed line without a terminal: inputs go in, and the screen shows
/// [`text`](Self::text) and [`cursor`](Self::cursor).
///
/// The text may have several lines: Alt-Enter and pastes bring line breaks, Enter sends.
///
/// Nothing typed is lost unless it is deleted. Going up into the history keeps what was being
/// typed, the *draft*, and going down again brings it back. A line from the history that is edited
/// is a new draft; the history's own copy stays as it was, and if there was another draft, that
/// becomes the history's newest line. The same happens to a draft when a line from the history is
/// sent in its place.
#[derive(Debug, Default)]
pub struct LineEditor {
    text: String,
    /// Where in `text` the next character goes: a byte offset, always between two clusters.
    cursor: usize,
    /// The line of the history that `text` is, until it is edited.
    recalled: Option<Recalled>,
    /// The search of the history that is under way.
    search: Option<Search>,
    /// The words that the last Tab has chosen from, until another key is pressed.
    completion: Option<Completion>,
    /// What was sent or discarded, oldest first, no two neighbours the same.
    history: VecDeque<String>,
    history_bytes: usize,
    /// What was killed last, for Ctrl-Y.
    killed: String,
    /// Whether the last command killed: if the next one does too, that makes one kill of both.
    is_killing: bool,
}

#[derive(Debug)]
struct Recalled {
    index: usize,
    draft: String,
}

/// A `Search` is a search of the history for lines that contain a text, as Ctrl-R begins it.
#[derive(Debug, Default)]
struct Search {
    query: String,
    /// Whether no further line contains the text.
    has_failed: bool,
}

/// An `Edit` is the result of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    None,
    /// The text changed, or the cursor moved.
    Changed,
    /// Enter: this is to be sent, unless it is empty. The editor is empty again.
    Line(String),
    /// Tab: see [`LineEditor::complete`].
    Complete,
    /// Ctrl-C. The text is as it was; see [`LineEditor::discard`].
    Interrupt,
    /// Ctrl-D, with nothing typed.
    EndOfInput,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// An `EditAction` is what a key is bound to.
#[derive(Clone, Copy, Debug)]
enum EditAction {
    Insert(char),
    Enter,
    Move(Motion),
    Delete(Motion),
    Kill(Motion),
    DeleteOrEnd,
    Yank,
    Transpose,
    Up,
    Down,
    Search,
    Complete,
    Interrupt,
    Suspend,
    Redraw,
}

/// A `Motion` leads from the cursor to another place.
#[derive(Clone, Copy, Debug)]
enum Motion {
    Left,
    Right,
    /// The beginning of this word, or of the one before it. Words are letters and digits.
    WordLeft,
    /// The end of this word, or of the next.
    WordRight,
    /// The beginning of this word or of the one before it, if only white space ends a word.
    BlankLeft,
    LineStart,
    LineEnd,
}

/// The key bindings, a table for each way to hold Ctrl and Alt.
fn bound(key: Key) -> Option<EditAction> {
    use EditAction::{
        Complete, Delete, DeleteOrEnd, Down, Enter, Insert, Interrupt, Kill, Move, Redraw, Search,
        Suspend, Transpose, Up, Yank,
    };
    use KeyCode::Char;
    use Motion::{BlankLeft, Left, LineEnd, LineStart, Right, WordLeft, WordRight};

    Some(match (key.ctrl, key.alt) {
        (false, false) => match key.code {
            Char(char) if !char.is_control() => Insert(char),
            KeyCode::Enter => Enter,
            KeyCode::Tab => Complete,
            KeyCode::Left => Move(Left),
            KeyCode::Right => Move(Right),
            KeyCode::Home => Move(LineStart),
            KeyCode::End => Move(LineEnd),
            KeyCode::Up => Up,
            KeyCode::Down => Down,
            KeyCode::Backspace => Delete(Left),
            KeyCode::Delete => Delete(Right),
            _ => return None,
        },
        (true, false) => match key.code {
            Char('a') => Move(LineStart),
            Char('b') => Move(Left),
            Char('c') => Interrupt,
            Char('d') => DeleteOrEnd,
            Char('e') => Move(LineEnd),
            Char('f') => Move(Right),
            Char('k') => Kill(LineEnd),
            Char('l') => Redraw,
            Char('n') => Down,
            Char('p') => Up,
            Char('r') => Search,
            Char('t') => Transpose,
            Char('u') => Kill(LineStart),
            Char('w') => Kill(BlankLeft),
            Char('y') => Yank,
            Char('z') => Suspend,
            KeyCode::Left => Move(WordLeft),
            KeyCode::Right => Move(WordRight),
            KeyCode::Backspace => Kill(WordLeft),
            KeyCode::Delete => Kill(WordRight),
            _ => return None,
        },
        (false, true) => match key.code {
            Char('b') | KeyCode::Left => Move(WordLeft),
            Char('f') | KeyCode::Right => Move(WordRight),
            Char('d') => Kill(WordRight),
            KeyCode::Backspace => Kill(WordLeft),
            KeyCode::Enter => Insert('\n'),
            _ => return None,
        },
        (true, true) => return None,
    })
}

impl LineEditor {
    /// An editor with nothing typed and nothing remembered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is typed so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where in the text the cursor is: a byte offset, always between two grapheme clusters.
    #[must_use]
    pub const fn cursor(&self) -> usize {
        self.cursor
    }

    /// The text that the history is searched for, and whether no further line contains it.
    #[must_use]
    pub fn search(&self) -> Option<(&str, bool)> {
        let search = self.search.as_ref()?;
        Some((&search.query, search.has_failed))
    }

    /// Puts older lines before those of the history, oldest first.
    pub fn remember_earlier(&mut self, lines: Vec<String>) {
        for line in lines {
            self.remember(line);
        }
    }

    /// Executes `input`.
    ///
    /// Keys type no control characters; what is pasted is taken as it is.
    pub fn feed(&mut self, input: Input) -> Edit {
        if self.search.is_some() {
            return match self.feed_search(&input) {
                Some(edit) => edit,
                // The search has ended, which shows.
                None => match self.feed(input) {
                    Edit::None => Edit::Changed,
                    edit => edit,
                },
            };
        }
        let was_killing = mem::take(&mut self.is_killing);
        let key = match input {
            Input::Key(key) => key,
            Input::Paste(text) => return self.insert(&text),
            Input::Focus(_) => return Edit::None,
        };
        let Some(command) = bound(key) else {
            return Edit::None;
        };
        if !matches!(command, EditAction::Complete) {
            self.completion = None;
        }
        match command {
            EditAction::Insert(char) => self.insert(char.encode_utf8(&mut [0; 4])),
            EditAction::Enter => self.enter(),
            EditAction::Move(motion) => self.move_to(self.target(motion)),
            EditAction::Delete(motion) => self.replace(self.range_to(motion), ""),
            EditAction::Kill(motion) => self.kill(motion, was_killing),
            EditAction::DeleteOrEnd if self.text.is_empty() => Edit::EndOfInput,
            EditAction::DeleteOrEnd => self.replace(self.range_to(Motion::Right), ""),
            EditAction::Yank => {
                let killed = mem::take(&mut self.killed);
                let edit = self.insert(&killed);
                self.killed = killed;
                edit
            }
            EditAction::Transpose => self.transpose(),
            EditAction::Up => self.up(),
            EditAction::Down => self.down(),
            EditAction::Search => {
                self.search = Some(Search::default());
                Edit::Changed
            }
            EditAction::Complete => Edit::Complete,
            EditAction::Interrupt => Edit::Interrupt,
            EditAction::Suspend => Edit::Suspend,
            EditAction::Redraw => Edit::Redraw,
        }
    }

    /// Completes the word before the cursor to the first of these words that begins with it; right after
    /// that, to the next of them.
    pub fn complete<'a>(&mut self, words: impl Iterator<Item = &'a str>) -> Edit {
        let begun = self.completion.take();
        let typed = &self.text[..self.cursor];
        let Some(mut completion) = begun.or_else(|| Completion::begin(typed, words)) else {
            return Edit::None;
        };
        let word = completion.next_word();
        let edit = self.replace(completion.start()..self.cursor, &word);
        self.completion = Some(completion);
        edit
    }

    /// Gives up what is typed. It goes to the history: Up brings it back.
    pub fn discard(&mut self) {
        let text = self.take();
        self.remember(text);
    }

    fn enter(&mut self) -> Edit {
        let mut line = self.take();
        // They come with what was pasted, and would show as empty lines.
        line.truncate(line.trim_end_matches('\n').len());
        self.remember(line.clone());
        Edit::Line(line)
    }

    /// Empties the editor, except that a draft goes to the history.
    fn take(&mut self) -> String {
        self.is_killing = false;
        self.keep_draft();
        self.cursor = 0;
        mem::take(&mut self.text)
    }

    fn insert(&mut self, text: &str) -> Edit {
        self.replace(self.cursor..self.cursor, text)
    }

    /// Edits the text; every edit goes through here. The cursor ends up behind what is put in.
    fn replace(&mut self, range: Range<usize>, with: &str) -> Edit {
        if range.is_empty() && with.is_empty() {
            return Edit::None;
        }
        self.keep_draft();
        self.completion = None;
        let end = range.start + with.len();
        self.text.replace_range(range, with);
        // What meets here may be one cluster now: a letter and an accent, two halves of a flag.
        self.cursor = boundary_from(&self.text, end);
        Edit::Changed
    }

    fn move_to(&mut self, to: usize) -> Edit {
        // A place in a line is between two clusters, except the end of one that ends in CR LF. The
        // key decoder makes one LF of that, but an `Input` can hold it.
        let to = boundary_up_to(&self.text, to);
        if to == self.cursor {
            return Edit::None;
        }
        self.cursor = to;
        Edit::Changed
    }

    /// Deletes up to where `motion` leads, for [`EditAction::Yank`] to bring back.
    ///
    /// At the edge of a line that is its line break, so that the same key goes on to the next line.
    fn kill(&mut self, motion: Motion, was_killing: bool) -> Edit {
        let range = match (motion, self.range_to(motion)) {
            (Motion::LineStart, range) if range.is_empty() => self.range_to(Motion::Left),
            (Motion::LineEnd, range) if range.is_empty() => self.range_to(Motion::Right),
            (_, range) => range,
        };
        if range.is_empty() {
            self.is_killing = was_killing;
            return Edit::None;
        }
        if !was_killing {
            self.killed.clear();
        }
        let at = if range.start < self.cursor {
            0
        } else {
            self.killed.len()
        };
        self.killed.insert_str(at, &self.text[range.clone()]);
        self.is_killing = true;
        self.replace(range, "")
    }

    /// Swaps the clusters on both sides of the cursor, or at the end of a line the two before it.
    fn transpose(&mut self) -> Edit {
        let line = self.line_start()..self.line_end();
        let middle = if self.cursor == line.end {
            self.target(Motion::Left).max(line.start)
        } else {
            self.cursor
        };
        let first = self.text[line.start..middle].graphemes(true).next_back();
        let second = self.text[middle..line.end].graphemes(true).next();
        let (Some(first), Some(second)) = (first, second) else {
            return Edit::None;
        };
        let range = middle - first.len()..middle + second.len();
        self.replace(range, &format!("{second}{first}"))
    }

    /// Goes one line up, and from the first one to the line before it in the history.
    fn up(&mut self) -> Edit {
        let start = self.line_start();
        if start == 0 {
            return self.recall_older();
        }
        let above = line_start(&self.text[..start - 1]);
        self.move_to(self.below(above, start))
    }

    /// Goes one line down, and from the last one to the line after it in the history.
    fn down(&mut self) -> Edit {
        let end = self.line_end();
        if end == self.text.len() {
            return self.recall_newer();
        }
        self.move_to(self.below(end + 1, self.line_start()))
    }

    /// The place in the line at `to` that is as many clusters in as the cursor is in its own line,
    /// the one at `from`; or that line's end.
    fn below(&self, to: usize, from: usize) -> usize {
        let column = self.text[from..self.cursor].graphemes(true).count();
        let line = &self.text[to..line_end(&self.text, to)];
        let offset = line.grapheme_indices(true).nth(column);
        to + offset.map_or(line.len(), |(offset, _)| offset)
    }

    fn recall_older(&mut self) -> Edit {
        let newer = self.recalled.as_ref();
        let newer = newer.map_or(self.history.len(), |recalled| recalled.index);
        match newer.checked_sub(1) {
            Some(index) => self.recall(index),
            None => Edit::None,
        }
    }

    /// Shows this line of the history, and keeps the draft.
    fn recall(&mut self, index: usize) -> Edit {
        let shown = mem::replace(&mut self.text, self.history[index].clone());
        let draft = match self.recalled.take() {
            Some(recalled) => recalled.draft,
            None => shown,
        };
        self.recalled = Some(Recalled { index, draft });
        self.cursor = self.text.len();
        Edit::Changed
    }

    /// Shows the draft again.
    fn recall_draft(&mut self) {
        if let Some(recalled) = self.recalled.take() {
            self.text = recalled.draft;
            self.cursor = self.text.len();
        }
    }

    /// Executes an input while the history is searched. `None` if it ends the search, and is to be
    /// executed on the line that was found.
    fn feed_search(&mut self, input: &Input) -> Option<Edit> {
        let mut search = self.search.take()?;
        let index = self.recalled.as_ref().map(|recalled| recalled.index);
        // The lines that are searched, from the newest: those before this one.
        let mut end = index.map_or(self.history.len(), |index| index + 1);
        match input {
            Input::Focus(_) => {}
            Input::Paste(text) => search.query.push_str(text),
            Input::Key(key) => match (key.code, bound(*key)) {
                (_, Some(EditAction::Search)) => end = index.unwrap_or(end),
                (_, Some(EditAction::Insert(char))) => search.query.push(char),
                (KeyCode::Backspace, _) => {
                    search.query.pop();
                    end = self.history.len();
                }
                (KeyCode::Escape, _) | (_, Some(EditAction::Interrupt)) => {
                    self.recall_draft();
                    return Some(Edit::Changed);
                }
                (KeyCode::Char('g'), _) if key.ctrl => {
                    self.recall_draft();
                    return Some(Edit::Changed);
                }
                _ => return None,
            },
        }
        if search.query.is_empty() {
            self.recall_draft();
            search.has_failed = false;
        } else {
            let query = search.query.to_lowercase();
            let found = (0..end)
                .rev()
                .find(|&index| self.history[index].to_lowercase().contains(&query));
            search.has_failed = found.is_none();
            if let Some(index) = found {
                self.recall(index);
            }
        }
        self.search = Some(search);
        Some(Edit::Changed)
    }

    fn recall_newer(&mut self) -> Edit {
        let Some(Recalled { index, draft }) = self.recalled.take() else {
            return Edit::None;
        };
        let index = index + 1;
        if let Some(line) = self.history.get(index) {
            self.text.clone_from(line);
            self.recalled = Some(Recalled { index, draft });
        } else {
            self.text = draft;
        }
        self.cursor = self.text.len();
        Edit::Changed
    }

    /// From here on `text` is nothing recalled: if that was in a draft's place, keeps the draft.
    fn keep_draft(&mut self) {
        if let Some(recalled) = self.recalled.take() {
            self.remember(recalled.draft);
        }
    }

    fn remember(&mut self, line: String) {
        if line.is_empty() || self.history.back() == Some(&line) {
            return;
        }
        self.history_bytes += line.len();
        self.history.push_back(line);
        while self.history.len() > MAX_HISTORY
            || self.history.len() > 1 && self.history_bytes > MAX_HISTORY_BYTES
        {
            let oldest = self.history.pop_front().unwrap_or_default();
            self.history_bytes -= oldest.len();
        }
    }

    /// What lies between the cursor and where `motion` leads.
    fn range_to(&self, motion: Motion) -> Range<usize> {
        let target = self.target(motion);
        self.cursor.min(target)..self.cursor.max(target)
    }

    fn target(&self, motion: Motion) -> usize {
        // The cursor is between two clusters, so that each side can be looked at by itself.
        let (before, after) = self.text.split_at(self.cursor);
        let before = before.graphemes(true).rev();
        let after = after.graphemes(true);
        match motion {
            Motion::Left => self.cursor - before.take(1).map(str::len).sum::<usize>(),
            Motion::Right => self.cursor + after.take(1).map(str::len).sum::<usize>(),
            Motion::WordLeft => self.cursor - len_past_word(before, char::is_alphanumeric),
            Motion::WordRight => self.cursor + len_past_word(after, char::is_alphanumeric),
            Motion::BlankLeft => self.cursor - len_past_word(before, |c| !c.is_whitespace()),
            Motion::LineStart => self.line_start(),
            Motion::LineEnd => self.line_end(),
        }
    }

    fn line_start(&self) -> usize {
        line_start(&self.text[..self.cursor])
    }

    fn line_end(&self) -> usize {
        line_end(&self.text, self.cursor)
    }
}

/// The length of what comes before the next word, and of that word.
///
/// A cluster belongs to a word if its first character does: an accent goes with its letter.
fn len_past_word<'a>(clusters: impl Iterator<Item = &'a str>, is_word: fn(char) -> bool) -> usize {
    let mut is_inside = false;
    clusters
        .take_while(|cluster| {
            let belongs = cluster.starts_with(is_word);
            is_inside |= belongs;
            belongs || !is_inside
        })
        .map(str::len)
        .sum()
}

/// Where the last line of `text` starts.
fn line_start(text: &str) -> usize {
    text.rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the line at `offset` ends, before its line break.
fn line_end(text: &str, offset: usize) -> usize {
    let newline = text[offset..].find('\n');
    newline.map_or(text.len(), |newline| offset + newline)
}

/// The first place between two clusters that is at `offset` or after it.
fn boundary_from(text: &str, offset: usize) -> usize {
    let mut cursor = GraphemeCursor::new(offset, text.len(), true);
    if cursor.is_boundary(text, 0) == Ok(true) {
        return offset;
    }
    // An error would ask for more of the text, and this is all of it.
    let next = cursor.next_boundary(text, 0).ok().flatten();
    next.unwrap_or(text.len())
}

/// The last place between two clusters that is at `offset` or before it.
fn boundary_up_to(text: &str, offset: usize) -> usize {
    let mut cursor = GraphemeCursor::new(offset, text.len(), true);
    if cursor.is_boundary(text, 0) == Ok(true) {
        return offset;
    }
    let previous = cursor.prev_boundary(text, 0).ok().flatten();
    previous.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The keys of a script: characters are themselves, a line feed is Alt-Enter, and other keys
    /// stand in angle brackets, as `<Left>`, `<C-a>` or `<M-Left>`.
    fn keys(script: &str) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut rest = script;
        while let Some(char) = rest.chars().next() {
            rest = &rest[char.len_utf8()..];
            keys.push(match char {
                '\n' => Key::alt(KeyCode::Enter),
                '<' => {
                    let (name, after) = rest.split_once('>').expect("a key ends with >");
                    rest = after;
                    named(name)
                }
                _ => Key::plain(KeyCode::Char(char)),
            });
        }
        keys
    }

    fn named(name: &str) -> Key {
        if let Some(name) = name.strip_prefix("C-") {
            return Key {
                ctrl: true,
                ..named(name)
            };
        }
        if let Some(name) = name.strip_prefix("M-") {
            return Key {
                alt: true,
                ..named(name)
            };
        }
        Key::plain(match name {
            "Enter" => KeyCode::Enter,
            "Tab" => KeyCode::Tab,
            "BackTab" => KeyCode::BackTab,
            "Backspace" => KeyCode::Backspace,
            "Delete" => KeyCode::Delete,
            "Insert" => KeyCode::Insert,
            "Escape" => KeyCode::Escape,
            "Up" => KeyCode::Up,
            "Down" => KeyCode::Down,
            "Left" => KeyCode::Left,
            "Right" => KeyCode::Right,
            "Home" => KeyCode::Home,
            "End" => KeyCode::End,
            "PageUp" => KeyCode::PageUp,
            "PageDown" => KeyCode::PageDown,
            _ => KeyCode::Char(name.parse().expect("one character, or a key's name")),
        })
    }

    /// Types a script, and returns what the last key came to.
    fn play(editor: &mut LineEditor, script: &str) -> Edit {
        let mut last = Edit::None;
        for key in keys(script) {
            let before = shown(editor);
            let mut is_search = editor.search().is_some();
            last = editor.feed(Input::Key(key));
            is_search |= editor.search().is_some();
            match last {
                // The prompt has changed.
                Edit::Changed if is_search => {}
                // A draft may be the same as the line before it.
                Edit::Changed if matches!(key.code, KeyCode::Up | KeyCode::Down) => {}
                Edit::Changed => assert_ne!(shown(editor), before, "{key:?} in {script:?}"),
                Edit::Line(_) => assert_eq!(shown(editor), "|", "{key:?} in {script:?}"),
                _ => assert_eq!(shown(editor), before, "{key:?} in {script:?}"),
            }
            check(editor);
        }
        last
    }

    fn paste(editor: &mut LineEditor, text: &str) -> Edit {
        let edit = editor.feed(Input::Paste(text.to_owned()));
        check(editor);
        edit
    }

    /// The text, with a bar where the cursor is.
    fn shown(editor: &LineEditor) -> String {
        let (before, after) = editor.text().split_at(editor.cursor());
        format!("{before}|{after}")
    }

    /// Checks what must hold after whatever was done.
    fn check(editor: &LineEditor) {
        let text = editor.text();
        let mut boundaries = text.grapheme_indices(true).map(|(offset, _)| offset);
        assert!(
            editor.cursor() == text.len() || boundaries.any(|offset| offset == editor.cursor()),
            "inside a cluster: {text:?} at {}",
            editor.cursor()
        );
        if let Some(recalled) = &editor.recalled {
            assert_eq!(editor.text, editor.history[recalled.index]);
        }
        let (left, right) = editor.history.as_slices();
        let history = [left, right].concat();
        assert!(history.len() <= MAX_HISTORY);
        assert!(history.windows(2).all(|pair| pair[0] != pair[1]));
    }

    /// Plays each script to a new editor, and compares what it shows in the end.
    fn check_scripts(table: &[(&str, &str)]) {
        for (script, expected) in table {
            let mut editor = LineEditor::new();
            play(&mut editor, script);
            assert_eq!(shown(&editor), *expected, "{script:?}");
        }
    }

    #[test]
    fn cursor_moves_by_characters() {
        check_scripts(&[
            ("", "|"),
            ("hello", "hello|"),
            ("hello<Left><C-b>", "hel|lo"),
            ("hello<Left><Left><Right>", "hell|o"),
            ("hello<Home><C-f>", "h|ello"),
            ("hello<C-a>", "|hello"),
            ("hello<C-a><C-e>", "hello|"),
            ("hello<Home><End>", "hello|"),
            ("hello<Right>", "hello|"),
            ("hello<Home><Left>", "|hello"),
            ("hello<Home><Home><End><End><End>", "hello|"),
            ("helo<Left>l", "hell|o"),
        ]);
    }

    #[test]
    fn cursor_moves_by_words() {
        check_scripts(&[
            ("one two<M-b>", "one |two"),
            ("one two<M-b><M-b>", "|one two"),
            ("one two<M-b><M-b><M-b>", "|one two"),
            ("one two<M-Left><C-Left>", "|one two"),
            ("one two<Home><M-f>", "one| two"),
            ("one two<Home><M-f><M-f>", "one two|"),
            ("one two<Home><M-Right><C-Right><M-f>", "one two|"),
            ("a.b, (c) !<M-b>", "a.b, (|c) !"),
            ("a.b, (c) !<M-b><M-b>", "a.|b, (c) !"),
            ("don't 4711<M-b><M-b>", "don'|t 4711"),
            ("one\ntwo<M-b><M-b>", "|one\ntwo"),
            // An accent of its own, and letters without case.
            ("ne\u{301}e<M-b>", "|ne\u{301}e"),
            ("李 小龙<M-b>", "李 |小龙"),
        ]);
    }

    #[test]
    fn deleted_text_is_not_kept() {
        check_scripts(&[
            ("hello<Backspace>", "hell|"),
            ("hello<Left><Delete>", "hell|"),
            ("hello<Home><C-d>", "|ello"),
            ("hello<Home><Backspace>", "|hello"),
            ("hello<Delete><C-d>", "hello|"),
            ("a\nb<Left><Backspace>", "a|b"),
            ("a\nb<Home><Left><Delete>", "a|b"),
        ]);
    }

    #[test]
    fn kill_removes_up_to_its_motion() {
        check_scripts(&[
            ("one two<Home><C-k>", "|"),
            ("one two<M-b><C-k>", "one |"),
            ("one two<M-b><C-u>", "|two"),
            ("one two<M-b><C-w>", "|two"),
            ("one t-w.o  <C-w>", "one |"),
            ("one t-w.o  <M-Backspace>", "one t-w.|"),
            ("one t-w.o<C-Backspace>", "one t-w.|"),
            ("one two<Home><M-d>", "| two"),
            ("one two<Home><C-Delete>", "| two"),
            // Of several lines, only the cursor's; then its line break.
            ("one\ntwo<C-u>", "one\n|"),
            ("one\ntwo<C-u><C-u>", "one|"),
            ("one\ntwo<Up><Home><C-k>", "|\ntwo"),
            ("one\ntwo<Up><Home><C-k><C-k>", "|two"),
            ("one\ntwo<Left><C-k>", "one\ntw|"),
            ("one\ntwo <C-w><C-w>", "|"),
        ]);
    }

    #[test]
    fn yank_inserts_the_last_kill() {
        check_scripts(&[
            ("<C-y>", "|"),
            ("one<C-u><C-y><C-y>", "oneone|"),
            ("one two<C-w><Home><C-y>", "two|one "),
            // Kills in a row are one kill, each put on the side that it was on.
            ("one two three<C-w><C-w><C-y>", "one two three|"),
            ("one two<Home><M-d><M-d><C-y>", "one two|"),
            ("one two three<M-b><C-w><C-k><C-y>", "one two three|"),
            ("one two three<M-b><C-k><C-w><C-y>", "one two three|"),
            ("one\ntwo<C-u><C-u><C-u><C-y>", "one\ntwo|"),
            // A kill that finds nothing does not come between.
            ("one two<C-w><C-k><C-w><C-y>", "one two|"),
            // Anything else does.
            ("one two<C-w><End><C-w><C-y>", "one |"),
            ("one two<C-w>x<C-w><C-y>", "one x|"),
            ("one two<C-w><Tab><C-w><C-y>", "one |"),
            // What is deleted by the character is not kept.
            ("one two<C-w><Backspace><C-y>", "onetwo|"),
        ]);
    }

    #[test]
    fn transpose_swaps_two_characters() {
        check_scripts(&[
            ("<C-t>", "|"),
            ("a<C-t>", "a|"),
            ("ab<C-t>", "ba|"),
            ("abc<Left><C-t>", "acb|"),
            ("abc<Home><Right><C-t>", "ba|c"),
            ("abc<Home><Right><C-t><C-t>", "bca|"),
            ("abc<Home><C-t>", "|abc"),
            ("ab\nc<C-t>", "ab\nc|"),
            ("ab\nc<Left><C-t>", "ab\n|c"),
            ("ab\nc<Up><End><C-t>", "ba|\nc"),
            ("e\u{301}x<C-t>", "xe\u{301}|"),
        ]);
    }

    #[test]
    fn cursor_moves_over_lines() {
        check_scripts(&[
            ("one\ntwo<Home>", "one\n|two"),
            ("one\ntwo<Home><Home><C-a>", "one\n|two"),
            ("one\ntwo<Home><Left>", "one|\ntwo"),
            ("one\ntwo<Home><Left><Home><End><End><C-e>", "one|\ntwo"),
            ("one\ntwo<Left><Up>", "on|e\ntwo"),
            ("one\ntwo<Left><C-p><C-n>", "one\ntw|o"),
            ("a\nlonger<Up>", "a|\nlonger"),
            ("a\n\nb<Up>", "a\n|\nb"),
            ("a\n\nb<Up><Up>", "|a\n\nb"),
            ("a\n\nb<Up><Up><Down><Down>", "a\n\n|b"),
            // Columns are counted in characters, whatever their bytes.
            ("李e\u{301}x\nabc<Left><Up>", "李e\u{301}|x\nabc"),
            ("李e\u{301}x\nabc<Up><Left><Down>", "李e\u{301}x\nab|c"),
            // At the first and at the last line it is the history's turn, and there is none.
            ("one\ntwo<Up><Up>", "one|\ntwo"),
            ("one\ntwo<Down>", "one\ntwo|"),
        ]);
    }

    #[test]
    fn grapheme_cluster_is_one_character() {
        let clusters = [
            "李",
            "e\u{301}",
            "e\u{301}\u{327}",
            "👩\u{200d}👩\u{200d}👧\u{200d}👦",
            "👍🏽",
            "🇩🇰",
            "क्षि",
            "\u{1100}\u{1161}\u{11a8}",
        ];
        for cluster in clusters {
            for (script, expected) in [
                ("a<>b<Left><Left>", "a|<>b"),
                ("a<>b<Home><Right><Right>", "a<>|b"),
                ("a<>b<Left><Backspace>", "a|b"),
                ("a<>b<Home><Right><Delete>", "a|b"),
                ("a<>b<Left><C-t>", "ab<>|"),
            ] {
                let mut editor = LineEditor::new();
                play(&mut editor, &script.replace("<>", cluster));
                assert_eq!(shown(&editor), expected.replace("<>", cluster), "{script}");
            }
        }
    }

    #[test]
    fn cursor_moves_behind_a_cluster_that_an_edit_has_joined() {
        check_scripts(&[
            // A letter in front of an accent that stood alone.
            ("\u{301}<Left>e", "e\u{301}|"),
            // A joiner between two people.
            ("👩👧<Left>\u{200d}", "👩\u{200d}👧|"),
            // What stood between the two halves of a flag, or of a family, is deleted.
            ("🇩x🇰<Left><Backspace>", "🇩🇰|"),
            ("👩\u{200d}x👧<Left><Backspace>", "👩\u{200d}👧|"),
            // Half a flag in front of a whole one pairs anew, and leaves a half at the end.
            ("🇩🇰<Home>🇩", "🇩🇩|🇰"),
        ]);
    }

    #[test]
    fn enter_sends_the_line_and_empties_the_editor() {
        let mut editor = LineEditor::new();
        assert_eq!(play(&mut editor, "hello<Left><Enter>"), line("hello"));
        assert_eq!(play(&mut editor, "one\ntwo<Enter>"), line("one\ntwo"));
        assert_eq!(play(&mut editor, "  <Enter>"), line("  "));
        assert_eq!(play(&mut editor, "<Enter>"), line(""));
    }

    fn line(text: &str) -> Edit {
        Edit::Line(text.to_owned())
    }

    #[test]
    fn trailing_line_breaks_are_not_sent() {
        let mut editor = LineEditor::new();
        paste(&mut editor, "\n\none\n\ntwo\n\n");
        assert_eq!(play(&mut editor, "<Enter>"), line("\n\none\n\ntwo"));
        paste(&mut editor, "\n\n");
        assert_eq!(play(&mut editor, "<Enter>"), line(""));
        assert_eq!(shown(&editor), "|");
        play(&mut editor, "<Up>");
        assert_eq!(shown(&editor), "\n\none\n\ntwo|");
    }

    #[test]
    fn paste_is_inserted_unchanged_at_the_cursor() {
        let mut editor = LineEditor::new();
        play(&mut editor, "ab<Left>");
        assert_eq!(paste(&mut editor, "1\n\t\x1b[A\x032"), Edit::Changed);
        assert_eq!(shown(&editor), "a1\n\t\x1b[A\x032|b");
        assert_eq!(paste(&mut editor, ""), Edit::None);
    }

    #[test]
    fn crlf_is_one_cluster() {
        for (script, expected) in [
            ("", "ab\r\ncd|"),
            ("<Up>", "ab|\r\ncd"),
            ("<Up><End><Right>", "ab\r\n|cd"),
            ("<Up><Home><End><Down>", "ab\r\ncd|"),
            ("<Home><Backspace>", "ab|cd"),
        ] {
            let mut editor = LineEditor::new();
            paste(&mut editor, "ab\r\ncd");
            play(&mut editor, script);
            assert_eq!(shown(&editor), expected, "{script:?}");
        }
    }

    #[test]
    fn keys_for_the_caller_do_not_change_the_text() {
        let mut editor = LineEditor::new();
        assert_eq!(play(&mut editor, "<C-d>"), Edit::EndOfInput);
        for (script, edit) in [
            ("a<C-c>", Edit::Interrupt),
            ("b<C-z>", Edit::Suspend),
            ("c<C-l>", Edit::Redraw),
            ("<Tab>", Edit::Complete),
            ("<C-d>", Edit::None),
        ] {
            assert_eq!(play(&mut editor, script), edit);
        }
        assert_eq!(shown(&editor), "abc|");
    }

    #[test]
    fn unbound_keys_type_nothing() {
        let mut editor = LineEditor::new();
        for script in [
            "<BackTab><Escape><Insert><PageUp><PageDown>",
            "<C-x><C-@><C-Home><C-Enter><M-x><M-Escape><M-Up><C-M-h><C-M-Left>",
            "\u{7}\u{80}\u{9b}",
        ] {
            for key in keys(script) {
                assert_eq!(editor.feed(Input::Key(key)), Edit::None, "{key:?}");
            }
        }
        assert_eq!(shown(&editor), "|");
    }

    #[test]
    fn up_and_down_recall_the_history_and_return_to_the_draft() {
        check_scripts(&[
            ("<Up>", "|"),
            ("<Down>", "|"),
            ("one<Enter><Up>", "one|"),
            ("one<Enter>two<Enter><Up><C-p>", "one|"),
            ("one<Enter>two<Enter><Up><Up><Up>", "one|"),
            ("one<Enter>two<Enter><Up><Up><Down>", "two|"),
            ("one<Enter>two<Enter><Up><Up><Down><Down>", "|"),
            ("one<Enter>two<Enter><Up><Up><Down><Down><Down>", "|"),
            ("one<Enter>draft<Left><Up>", "one|"),
            ("one<Enter>draft<Left><Up><C-n>", "draft|"),
            ("one<Enter>two<Enter>draft<Up><Up><Down><Down>", "draft|"),
            // Lines of an entry come before the entry above it.
            ("one<Enter>two\nthree<Enter><Up><Up>", "two|\nthree"),
            ("one<Enter>two\nthree<Enter><Up><Up><Up>", "one|"),
            ("one<Enter>a\nb<Up><Up>", "one|"),
            ("one<Enter>a\nb<Up><Up><Down>", "a\nb|"),
            // The same line twice in a row is remembered once.
            ("one<Enter>two<Enter>two<Enter><Up><Up>", "one|"),
            ("one<Enter><Up><Enter><Up><Up>", "one|"),
            ("one<Enter>two<Enter><Up><Up><Enter><Up><Up>", "two|"),
        ]);
    }

    #[test]
    fn edited_history_line_becomes_the_draft_and_the_old_draft_is_kept() {
        check_scripts(&[
            // The edit is not lost by going away from it, and the entry is as it was.
            ("one<Enter><Up>!<Up>", "one|"),
            ("one<Enter><Up>!<Up><Down>", "one!|"),
            ("one<Enter><Up>!<Down>", "one!|"),
            // Nor is the draft.
            ("one<Enter>draft<Up>!<Up>", "draft|"),
            ("one<Enter>draft<Up>!<Up><Up>", "one|"),
            ("one<Enter>draft<Up>!<Up><Up><Down><Down>", "one!|"),
            ("one<Enter>draft<Up><C-u><Up>", "draft|"),
            // Moving about in an entry is no edit.
            ("one<Enter>draft<Up><Left><C-a><Down>", "draft|"),
            ("one<Enter>draft<Up><C-u><C-y><Down>", "one|"),
            // A draft is remembered too if something else is sent.
            ("one<Enter>draft<Up><Enter><Up>", "one|"),
            ("one<Enter>draft<Up><Enter><Up><Up>", "draft|"),
        ]);
    }

    #[test]
    fn discarded_line_can_be_recalled() {
        let mut editor = LineEditor::new();
        play(&mut editor, "one<Enter>two<Left>");
        editor.discard();
        assert_eq!(shown(&editor), "|");
        play(&mut editor, "<Up>");
        assert_eq!(shown(&editor), "two|");
        play(&mut editor, "<Up>");
        assert_eq!(shown(&editor), "one|");
        editor.discard();
        editor.discard();
        play(&mut editor, "<Up><Up>");
        assert_eq!(shown(&editor), "two|");
    }

    #[test]
    fn search_shows_the_newest_line_with_the_text_and_then_older_ones() {
        let mut editor = LineEditor::new();
        editor.remember_earlier(
            ["Alpha one", "beta", "alpha two"]
                .map(str::to_owned)
                .to_vec(),
        );
        let mut steps = |script: &str| {
            for key in keys(script) {
                editor.feed(Input::Key(key));
                check(&editor);
            }
            let search = editor.search();
            let search = search.map(|(query, has_failed)| (query.to_owned(), has_failed));
            (shown(&editor), search)
        };
        let searching = |query: &str, has_failed| Some((query.to_owned(), has_failed));
        for (script, shows, search) in [
            ("draft<C-r>", "draft|", searching("", false)),
            ("al", "alpha two|", searching("al", false)),
            ("<C-r>", "Alpha one|", searching("al", false)),
            ("<C-r>", "Alpha one|", searching("al", true)),
            ("x", "Alpha one|", searching("alx", true)),
            ("<Backspace>", "alpha two|", searching("al", false)),
            ("<Backspace><Backspace>", "draft|", searching("", false)),
            ("eta", "beta|", searching("eta", false)),
            ("<C-g>", "draft|", None),
            ("<C-r>be<Escape>", "draft|", None),
            ("<C-r>be<C-c>", "draft|", None),
            // Any other key ends the search on the line that was found.
            ("<C-r>be<Left>", "bet|a", None),
            ("<Down>", "alpha two|", None),
            ("<Down>", "draft|", None),
            ("<C-r>one<C-a>", "|Alpha one", None),
        ] {
            let expected = (shows.to_owned(), search);
            assert_eq!(steps(script), expected, "{script}");
        }
        assert_eq!(editor.feed(Input::Paste("!".to_owned())), Edit::Changed);
        let enter = Input::Key(Key::plain(KeyCode::Enter));
        play(&mut editor, "<C-r>");
        editor.feed(Input::Paste("beta".to_owned()));
        assert_eq!(editor.feed(enter), line("beta"));
        assert_eq!(shown(&editor), "|");
    }

    #[test]
    fn tab_completes_with_the_next_word_until_another_key_is_pressed() {
        let mut editor = LineEditor::new();
        let tab = |editor: &mut LineEditor| {
            assert_eq!(play(editor, "<Tab>"), Edit::Complete);
            let edit = editor.complete(["bob", "bill"].into_iter());
            check(editor);
            (edit, shown(editor))
        };
        let changed = |text: &str| (Edit::Changed, text.to_owned());
        play(&mut editor, "x<Left>B");
        assert_eq!(tab(&mut editor), changed("bob: |x"));
        assert_eq!(tab(&mut editor), changed("bill: |x"));
        assert_eq!(tab(&mut editor), changed("bob: |x"));
        play(&mut editor, "b");
        assert_eq!(tab(&mut editor), changed("bob: bob |x"));
        play(&mut editor, "<Left><Right>");
        assert_eq!(tab(&mut editor), (Edit::None, "bob: bob |x".to_owned()));
    }

    #[test]
    fn history_drops_its_oldest_line() {
        let mut editor = LineEditor::new();
        for number in 0..=MAX_HISTORY {
            play(&mut editor, &format!("{number}<Enter>"));
        }
        play(&mut editor, &"<Up>".repeat(2 * MAX_HISTORY));
        assert_eq!(shown(&editor), "1|");
    }

    #[test]
    fn history_is_limited_by_size_and_keeps_the_newest_line() {
        let mut editor = LineEditor::new();
        for size in [10, MAX_HISTORY_BYTES - 10, 1, 2 * MAX_HISTORY_BYTES] {
            editor.feed(Input::Paste("x".repeat(size)));
            play(&mut editor, "<Enter>");
            let bytes: usize = editor.history.iter().map(String::len).sum();
            assert_eq!(editor.history_bytes, bytes);
            assert_eq!(editor.history.back().map(String::len), Some(size));
        }
        assert_eq!(editor.history.len(), 1);
    }

    /// It takes a moment if each key costs a copy of the text, and hours if it costs more.
    #[test]
    fn large_text_is_edited_without_quadratic_cost() {
        for text in ["word ", "\n", "e\u{301}", "🇩", "\u{301}", "👩\u{200d}"] {
            let mut editor = LineEditor::new();
            editor.feed(Input::Paste(text.repeat((1 << 20) / text.len())));
            let keys = keys("a<Left><Left>b<C-t><M-b><C-w><C-y><Up><Home><C-k>c<Down><End>");
            for key in keys.into_iter().cycle().take(100) {
                editor.feed(Input::Key(key));
            }
        }
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let codes = "<Enter><Tab><Backspace><Delete><Left><Right><Up><Down><Home><End>";
        let codes: Vec<_> = keys(codes).iter().map(|key| key.code).collect();
        let code = prop_oneof![
            prop::sample::select(codes),
            prop::sample::select(&['a', 'b', 'd', 'e', 'f', 'h', 'k', 't', 'u', 'w', 'y'][..])
                .prop_map(KeyCode::Char),
            any_char().prop_map(KeyCode::Char),
        ];
        let modifier = || prop::bool::weighted(0.3);
        (code, modifier(), modifier()).prop_map(|(code, ctrl, alt)| Key { code, ctrl, alt })
    }

    /// Characters that make clusters with each other.
    fn any_char() -> impl Strategy<Value = char> {
        let chars = "a \n\r李e\u{301}\u{200d}👩👧🇩🇰🏽\u{fe0f}क्षि\u{1100}\u{1161}\u{11a8}\u{600}";
        prop_oneof![
            8 => prop::sample::select(chars.chars().collect::<Vec<_>>()),
            1 => any::<char>(),
        ]
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            8 => any_key().prop_map(Input::Key),
            1 => prop::collection::vec(any_char(), 0..8)
                .prop_map(|chars| Input::Paste(chars.into_iter().collect())),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_done_the_cursor_is_between_two_clusters(
            inputs in prop::collection::vec(any_input(), 0..60),
        ) {
            let mut editor = LineEditor::new();
            for input in inputs {
                editor.feed(input);
                check(&editor);
            }
        }

        #[test]
        fn what_is_typed_is_what_is_sent(text in "[^\\p{Cc}]{1,30}(\n[^\\p{Cc}]{1,10})?") {
            let mut editor = LineEditor::new();
            for char in text.chars() {
                editor.feed(Input::Key(match char {
                    '\n' => Key::alt(KeyCode::Enter),
                    _ => Key::plain(KeyCode::Char(char)),
                }));
            }
            prop_assert_eq!(editor.feed(Input::Key(Key::plain(KeyCode::Enter))), Edit::Line(text));
        }

        /// Each typed character is another, and no key deletes: all of them must be somewhere.
        #[test]
        fn nothing_typed_is_lost(
            keys in prop::collection::vec(
                prop::sample::select(&["x", "x", "<Up>", "<Down>", "<Left>", "\n", "<Enter>"][..]),
                0..60,
            ),
        ) {
            let mut editor = LineEditor::new();
            let mut typed = '一'..;
            let mut expected = Vec::new();
            for key in keys {
                if key == "x" {
                    let char = typed.next().expect("there are many");
                    expected.push(char);
                    play(&mut editor, &char.to_string());
                } else {
                    play(&mut editor, key);
                }
            }
            let draft = editor.recalled.iter().map(|recalled| &recalled.draft);
            let kept = editor.history.iter().chain(draft).chain([&editor.text]);
            let kept: String = kept.map(String::as_str).collect();
            for char in expected {
                prop_assert!(kept.contains(char), "{} is lost", char);
            }
        }
    }
}
