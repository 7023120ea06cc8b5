//! Bytes from a terminal, cut anywhere: the keys do not depend on the cuts, and whatever the keys
//! are, the line editor's cursor stays between two clusters.
//!
//! The first four bytes are the sizes of the pieces, in turn; the rest is what the terminal sends.
//!
//!     mkdir -p fuzz/corpus/keys
//!     cargo +nightly fuzz run keys fuzz/corpus/keys fuzz/seeds/keys

#![no_main]

use chatloop::client::line_editor::{Edit, LineEditor};
use chatloop::terminal::keys::{Input, KeyDecoder};
use chatloop_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use unicode_segmentation::UnicodeSegmentation;

fuzz_target!(|data: &[u8]| {
    let Some((sizes, stream)) = data.split_first_chunk::<4>() else {
        return;
    };
    let inputs = decode([stream]);
    assert_eq!(decode(pieces(stream, *sizes)), inputs);

    let mut editor = LineEditor::new();
    for input in inputs {
        match editor.feed(input) {
            Edit::Interrupt => editor.discard(),
            Edit::Complete => {
                editor.complete(["alice", "Ångström", "/quit"].into_iter());
            }
            _ => {}
        }
        check(&editor);
    }
});

/// What the pieces mean. Of a paste, only the text counts: in how many pieces it comes depends on
/// those of the bytes.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Input> {
    let mut decoder = KeyDecoder::default();
    let mut inputs = Vec::new();
    for piece in pieces {
        decoder.feed(piece, |input| match (inputs.last_mut(), input) {
            (Some(Input::Paste(text)), Input::Paste(piece)) => text.push_str(&piece),
            (_, input) => inputs.push(input),
        });
    }
    decoder.timeout(|input| inputs.push(input));
    inputs
}

fn check(editor: &LineEditor) {
    let (text, cursor) = (editor.text(), editor.cursor());
    let mut boundaries = text.grapheme_indices(true).map(|(offset, _)| offset);
    assert!(
        cursor == text.len() || boundaries.any(|offset| offset == cursor),
        "inside a cluster: {text:?} at {cursor}"
    );
}
