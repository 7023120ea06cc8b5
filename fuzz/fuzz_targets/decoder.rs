//! A stream of frames, cut anywhere: the decoder that takes the pieces as they come makes of them
//! what a reader that has the whole stream makes of it.
//!
//! The first byte chooses the headers' width, the next two are the limits of the first frame and of
//! the others, and four more the sizes of the pieces, in turn; the rest is the stream.
//!
//!     mkdir -p fuzz/corpus/decoder
//!     cargo +nightly fuzz run decoder fuzz/corpus/decoder fuzz/seeds/decoder

#![no_main]

use chatloop::wire::{Decoder, FrameError, header};
use chatloop_fuzz::{announced, first_impossible, pieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[width, name, message, ref sizes @ ..], stream)) = data.split_first_chunk::<7>()
    else {
        return;
    };
    let rules = Rules {
        // The dialects' two, and two with which a short stream has many frames.
        header_width: [header::WIDTH, header::WIDE, 1, 2][usize::from(width % 4)],
        max_name: limit(name),
        max_message: limit(message),
    };
    let expected = rules.read(stream);
    let cut = pieces(stream, *sizes).collect();
    for pieces in [cut, stream.chunks(1).collect(), vec![stream]] {
        let decoded = rules.decode(stream, &pieces, &expected);
        assert_eq!(decoded, expected, "in {} pieces", pieces.len());
    }
});

/// A limit for payloads, in bytes. The largest stands for all that a header of ten bytes can say,
/// which is more than libFuzzer lets a target allocate: "malloc limit exceeded" is what becomes of
/// a decoder that allocates because a header says so.
fn limit(byte: u8) -> usize {
    match byte {
        u8::MAX => header::MAX_LEN as usize,
        _ => usize::from(byte),
    }
}

/// What the decoder is told of its stream.
struct Rules {
    header_width: usize,
    max_name: usize,
    max_message: usize,
}

/// What a stream comes to.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// Each payload, after the place in the stream where it ends.
    payloads: Vec<(usize, Vec<u8>)>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    BetweenFrames,
    InsideFrame,
    /// What ends at this place is refused: a complete header, or one at its first impossible byte.
    Refused(usize, FrameError),
}

impl Reading {
    /// The place at which the frame that comes after so many is complete, or refused.
    fn next(&self, payloads: usize) -> Option<usize> {
        match (self.payloads.get(payloads), &self.end) {
            (Some((end, _)), _) | (None, End::Refused(end, _)) => Some(*end),
            _ => None,
        }
    }
}

impl Rules {
    /// The limit of the frame that comes after so many.
    fn max(&self, payloads: usize) -> usize {
        if payloads == 0 {
            self.max_name
        } else {
            self.max_message
        }
    }

    /// Reads the stream as the grammar has it: header, payload, and again.
    fn read(&self, stream: &[u8]) -> Reading {
        let mut payloads = Vec::new();
        let mut at = 0;
        let end = loop {
            if at == stream.len() {
                break End::BetweenFrames;
            }
            let rest = &stream[at..];
            let header = &rest[..rest.len().min(self.header_width)];
            if let Some(impossible) = first_impossible(header, self.header_width) {
                let refused = header[..=impossible].into();
                break End::Refused(at + impossible + 1, FrameError::BadHeader(refused));
            }
            if header.len() < self.header_width {
                break End::InsideFrame;
            }
            at += self.header_width;
            let max = self.max(payloads.len());
            let len = announced(header).expect("no byte of it is impossible");
            if len > max as u64 {
                break End::Refused(at, FrameError::TooLong { len, max });
            }
            let Some(payload) = stream.get(at..at + len as usize) else {
                break End::InsideFrame;
            };
            at += payload.len();
            payloads.push((at, payload.to_vec()));
        };
        Reading { payloads, end }
    }

    /// Has the decoder read the stream in these pieces. After each of them it has to be as far as
    /// one can be: it has yielded all that is complete, and knows whether more has begun.
    fn decode(&self, stream: &[u8], pieces: &[&[u8]], expected: &Reading) -> Reading {
        let mut decoder = Decoder::new();
        let mut payloads = Vec::new();
        let mut begins = 0;
        for mut input in pieces.iter().copied() {
            let ends = begins + input.len();
            loop {
                let max = self.max(payloads.len());
                let result = decoder.decode(&mut input, self.header_width, max);
                let at = ends - input.len();
                match result {
                    Ok(Some(payload)) => {
                        let from = at - payload.len();
                        assert!(
                            from <= begins || std::ptr::eq(payload, &raw const stream[from..at]),
                            "copied, though its header ends in this piece and it does too"
                        );
                        payloads.push((at, payload.to_vec()));
                        assert!(!decoder.is_inside_frame(), "inside at {at}, where one ends");
                    }
                    Ok(None) => break,
                    Err(FrameError::BadHeader(bytes)) => {
                        let from = payloads.last().map_or(0, |(end, _)| *end);
                        let come = &stream[from..ends];
                        let come = &come[..come.len().min(self.header_width)];
                        assert_eq!(*bytes, *come, "all of the header that has come");
                        let impossible = first_impossible(&bytes, self.header_width);
                        let impossible = impossible.expect("a byte of it is impossible");
                        let refused = FrameError::BadHeader(bytes[..=impossible].into());
                        let end = End::Refused(from + impossible + 1, refused);
                        return Reading { payloads, end };
                    }
                    Err(error) => {
                        let end = End::Refused(at, error);
                        return Reading { payloads, end };
                    }
                }
            }
            assert!(input.is_empty(), "None means that the input is used up");
            begins = ends;
            let next = expected.next(payloads.len());
            assert!(next.is_none_or(|end| end > ends), "nothing by {ends}");
            let last = payloads.last().map_or(0, |(end, _)| *end);
            assert_eq!(decoder.is_inside_frame(), last < ends, "inside at {ends}");
        }
        let end = if decoder.is_inside_frame() {
            End::InsideFrame
        } else {
            End::BetweenFrames
        };
        Reading { payloads, end }
    }
}
