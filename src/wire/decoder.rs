//! Frames out of a byte stream that is cut anywhere.

use std::fmt;

use super::header::{self, Prefix};

/// An incremental decoder: give it the bytes as they come, take the payloads as they are complete.
///
/// A read from a socket ends wherever TCP likes: inside a header, inside a payload, or ten frames
/// on. The decoder walks over the slice it is handed and yields each payload that is complete
/// *as a part of that slice*, so a frame that arrives whole is never copied. Only the bytes of an
/// unfinished frame are kept here, and given back when the frame is done:
///
/// ```text
///   read 1:  [header payload][header payl        two payloads begin; one is yielded in place,
///                                  └── kept      four bytes of the other are kept
///   read 2:  oad][header payload]                the kept one is completed and yielded, then
///                                                the next in place; nothing is kept any more
/// ```
///
/// Three promises follow. Nothing is scanned twice: a header that arrives whole is parsed once, and of
/// one that arrives in pieces each piece is, since a byte that no header has is refused as soon as it is
/// there. A peer that speaks another protocol may wait for an answer and never send the rest. Nothing is allocated because a header *says* so: what is kept grows with the bytes that
/// came. And an idle connection owns nothing here but one null pointer.
///
/// ```
/// use chatloop::wire::{Decoder, header};
///
/// const MAX_PAYLOAD: usize = 1024;
/// let mut decoder = Decoder::new();
/// let mut payloads = Vec::new();
/// // Two frames in three reads: the first is cut in its payload, the second in its header.
/// for read in [&b"5         al"[..], b"ice6   ", b"      hello!"] {
///     let mut input = read;
///     while let Some(payload) = decoder.decode(&mut input, header::WIDTH, MAX_PAYLOAD)? {
///         payloads.push(payload.to_vec());
///     }
/// }
/// assert_eq!(payloads, [&b"alice"[..], b"hello!"]);
/// assert!(!decoder.is_inside_frame());
///
/// // A byte that no header has is an error as soon as it comes.
/// let mut input = &b"GET"[..];
/// assert!(decoder.decode(&mut input, header::WIDTH, MAX_PAYLOAD).is_err());
/// # Ok::<(), chatloop::wire::FrameError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// An unfinished frame.
#[derive(Debug)]
struct Partial {
    state: DecodeState,
    /// While in `Header`, the header bytes so far; after that, the payload bytes so far.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecodeState {
    /// The header is not complete; so far it is this.
    Header(Prefix),
    /// The header is parsed; the payload has this many bytes.
    Payload(usize),
    /// The payload was handed out and goes when the next frame is asked for.
    Yielded,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// The next payload, or `None` when `input` is used up.
    ///
    /// `input` is moved past what was taken from it. Call this until it returns `None`: by then the
    /// decoder has taken all of `input` and kept what belongs to an unfinished frame.
    /// `header_width` is the dialect's; `max_payload` is the largest payload to accept, in bytes,
    /// and may differ from frame to frame (a name has another limit than a message).
    ///
    /// # Errors
    ///
    /// [`FrameError::BadHeader`], as soon as a byte has come that cannot stand where it does in a
    /// header; [`FrameError::TooLong`], as soon as the header is complete and before any byte of its
    /// payload is kept. The stream has lost its place then: the only thing left to do with it is to
    /// close it.
    pub fn decode<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i [u8],
        header_width: usize,
        max_payload: usize,
    ) -> Result<Option<&'d [u8]>, FrameError> {
        let len = match self.partial.as_deref_mut() {
            None => self.start_header(input, header_width, max_payload)?,
            Some(partial) => match partial.state {
                DecodeState::Payload(len) => return Ok(self.resume_payload(input, len)),
                DecodeState::Header(prefix) => {
                    self.resume_header(input, prefix, header_width, max_payload)?
                }
                DecodeState::Yielded => {
                    self.partial = None;
                    self.start_header(input, header_width, max_payload)?
                }
            },
        };
        let Some(len) = len else {
            return Ok(None);
        };
        if let Some((payload, rest)) = input.split_at_checked(len) {
            *input = rest;
            return Ok(Some(payload));
        }
        self.keep(input, DecodeState::Payload(len));
        Ok(None)
    }

    /// Whether the stream stands inside a frame: if it ends now, that frame was cut short.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        self.partial
            .as_deref()
            .is_some_and(|partial| partial.state != DecodeState::Yielded)
    }

    /// How many bytes are missing from what it reads now: a header, or a payload. With so many and no
    /// more nothing is read of what comes after that.
    #[must_use]
    pub fn missing(&self, header_width: usize) -> usize {
        let partial = self.partial.as_deref();
        partial.map_or(header_width, |partial| match partial.state {
            DecodeState::Header(_) => header_width - partial.bytes.len(),
            DecodeState::Payload(len) => len - partial.bytes.len(),
            DecodeState::Yielded => header_width,
        })
    }

    /// How much memory is held for an unfinished frame, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial
            .as_deref()
            .map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }

    /// Reads a header straight from `input`, or keeps what there is of it.
    #[inline]
    fn start_header(
        &mut self,
        input: &mut &[u8],
        header_width: usize,
        max_payload: usize,
    ) -> Result<Option<usize>, FrameError> {
        if let Some((header, rest)) = input.split_at_checked(header_width) {
            *input = rest;
            return payload_len(header, max_payload).map(Some);
        }
        if !input.is_empty() {
            self.keep_header(input)?;
        }
        Ok(None)
    }

    /// Keeps the beginning of a header, if it can be one.
    #[inline(never)]
    fn keep_header(&mut self, input: &mut &[u8]) -> Result<(), FrameError> {
        match Prefix::default().extend(input) {
            Some(prefix) => {
                self.keep(input, DecodeState::Header(prefix));
                Ok(())
            }
            None => Err(FrameError::BadHeader((*input).into())),
        }
    }

    /// Completes a kept header from `input`, if it can, and drops it then.
    #[inline(never)]
    fn resume_header(
        &mut self,
        input: &mut &[u8],
        prefix: Prefix,
        header_width: usize,
        max_payload: usize,
    ) -> Result<Option<usize>, FrameError> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(None);
        };
        let kept = partial.bytes.len();
        partial.take(input, header_width);
        let is_complete = partial.bytes.len() == header_width;
        match prefix.extend(&partial.bytes[kept..]) {
            Some(prefix) if !is_complete => {
                partial.state = DecodeState::Header(prefix);
                self.partial = Some(partial);
                Ok(None)
            }
            prefix => match prefix.and_then(Prefix::announced) {
                Some(len) => within(len, max_payload).map(Some),
                None => Err(FrameError::BadHeader(partial.bytes.into())),
            },
        }
    }

    /// Adds to a kept payload of `len` bytes, and yields it once it is whole.
    fn resume_payload(&mut self, input: &mut &[u8], len: usize) -> Option<&[u8]> {
        let partial = self.partial.as_deref_mut()?;
        partial.take(input, len);
        if partial.bytes.len() < len {
            return None;
        }
        partial.state = DecodeState::Yielded;
        Some(&partial.bytes)
    }

    /// Keeps all of `input` as the beginning of a frame's header or payload.
    fn keep(&mut self, input: &mut &[u8], state: DecodeState) {
        self.partial = Some(Box::new(Partial {
            state,
            bytes: input.to_vec(),
        }));
        *input = &[];
    }
}

impl Partial {
    /// Moves bytes from `input` until there are `goal` of them.
    ///
    /// The buffer grows by doubling, so that a payload which trickles in costs time in proportion
    /// to its length, but never past `goal`: a large message's buffer ends exactly full.
    fn take(&mut self, input: &mut &[u8], goal: usize) {
        let have = self.bytes.len();
        let (taken, rest) = input.split_at(input.len().min(goal - have));
        let needed = have + taken.len();
        if needed > self.bytes.capacity() {
            let capacity = needed.max(2 * have).min(goal);
            self.bytes.reserve_exact(capacity - have);
        }
        self.bytes.extend_from_slice(taken);
        *input = rest;
    }
}

/// The length that a complete header announces.
#[inline(never)]
fn payload_len(header: &[u8], max: usize) -> Result<usize, FrameError> {
    let Some(len) = header::parse(header) else {
        return Err(FrameError::BadHeader(header.into()));
    };
    within(len, max)
}

/// A length that was announced, if it is no more than is accepted.
fn within(len: u64, max: usize) -> Result<usize, FrameError> {
    usize::try_from(len)
        .ok()
        .filter(|&len| len <= max)
        .ok_or(FrameError::TooLong { len, max })
}

/// Why a stream of frames cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// These bytes stand where a header should, and no header begins with them (see [`header`]).
    ///
    /// They begin where the header should, and the first byte that is impossible there is among them.
    /// After it they have, up to the header's width, what had come with it: that is for a reader to
    /// guess what the peer is, and depends on how the stream was cut.
    BadHeader(Box<[u8]>),
    /// The header announces more than is accepted, both in bytes.
    TooLong {
        /// What the header announces.
        len: u64,
        /// What would have been accepted.
        max: usize,
    },
    /// A WebSocket text is not UTF-8.
    NotUtf8,
    /// This is no frame of a WebSocket peer.
    WebSocket(&'static str),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadHeader(bytes) => {
                write!(f, "not a header: \"{}\"", bytes.escape_ascii())
            }
            Self::TooLong { len, max } => {
                write!(f, "announced {len} bytes where {max} are the limit")
            }
            Self::NotUtf8 => f.write_str("text that is not UTF-8"),
            Self::WebSocket(what) => write!(f, "not a WebSocket frame: {what}"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1000;

    /// What a stream of pieces decodes to: the payloads, how it ended, and whether it stands
    /// inside a frame.
    type Decoded = (Vec<Vec<u8>>, Option<FrameError>, bool);

    fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        decode_pieces_of(header::WIDTH, pieces)
    }

    fn decode_pieces_of<'a>(
        header_width: usize,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Decoded {
        let mut decoder = Decoder::new();
        let mut payloads = Vec::new();
        for mut piece in pieces {
            loop {
                match decoder.decode(&mut piece, header_width, MAX) {
                    Ok(Some(payload)) => payloads.push(payload.to_vec()),
                    Ok(None) => break,
                    Err(error) => {
                        let error = without_what_came_after(error, header_width);
                        return (payloads, Some(error), false);
                    }
                }
            }
            assert!(piece.is_empty(), "None means that the input is used up");
        }
        let inside = decoder.is_inside_frame();
        (payloads, None, inside)
    }

    /// The error without the bytes after the impossible one, which depend on how the stream was cut.
    fn without_what_came_after(error: FrameError, header_width: usize) -> FrameError {
        let FrameError::BadHeader(bytes) = error else {
            return error;
        };
        assert!(bytes.len() <= header_width, "no more than a header");
        let begins_a_header = |prefix: &[u8]| {
            [b' ', b'0'].into_iter().any(|rest| {
                let mut header = prefix.to_vec();
                header.resize(header_width, rest);
                header::parse(&header).is_some()
            })
        };
        let end = (1..=bytes.len()).find(|&end| !begins_a_header(&bytes[..end]));
        FrameError::BadHeader(bytes[..end.expect("an impossible byte")].into())
    }

    /// Decodes `stream` whole, byte by byte and at every split, and insists on one answer.
    fn decode_every_way(stream: &[u8]) -> Decoded {
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

    fn frames(payloads: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for payload in payloads {
            crate::wire::encode_frame(payload, &mut stream);
        }
        stream
    }

    #[test]
    fn frames_split_anywhere_decode_to_the_same_payloads() {
        let payloads: [&[u8]; 6] = [b"alice", b"", b"hello", b"\x00\xff\n", b"", b"5         "];
        let (decoded, error, inside) = decode_every_way(&frames(&payloads));
        assert_eq!(decoded, payloads);
        assert_eq!((error, inside), (None, false));
    }

    #[test]
    fn frames_with_wide_headers_split_anywhere_decode_to_the_same_payloads() {
        let mut stream = Vec::new();
        for payload in ["hello", "", "é"] {
            stream.extend(format!("{:<64}{payload}", payload.len()).into_bytes());
        }
        let whole = decode_pieces_of(header::WIDE, [&stream[..]]);
        assert_eq!(whole.0, ["hello".as_bytes(), b"", "é".as_bytes()]);
        assert_eq!(decode_pieces_of(header::WIDE, stream.chunks(1)), whole);
        for at in 0..=stream.len() {
            for end in at..=stream.len() {
                let pieces = [&stream[..at], &stream[at..end], &stream[end..]];
                assert_eq!(decode_pieces_of(header::WIDE, pieces), whole, "{at}, {end}");
            }
        }
    }

    #[test]
    fn a_header_with_leading_spaces_counts_as_any_other() {
        let (decoded, error, _) = decode_every_way(b" 5        hello         2hi");
        assert_eq!(decoded, [&b"hello"[..], b"hi"]);
        assert_eq!(error, None);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_says_so() {
        let stream = frames(&[b"alice", b"hello"]);
        for end in 0..=stream.len() {
            let (_, error, inside) = decode_every_way(&stream[..end]);
            assert_eq!(error, None);
            assert_eq!(inside, end != 0 && end != 15 && end != 30, "ends at {end}");
        }
    }

    #[test]
    fn a_payload_that_was_just_yielded_leaves_the_stream_between_frames() {
        let stream = frames(&[b"hello"]);
        for at in 0..stream.len() {
            let (mut left, mut right) = stream.split_at(at);
            let mut decoder = Decoder::new();
            assert_eq!(decoder.decode(&mut left, header::WIDTH, MAX), Ok(None));
            assert_eq!(decoder.is_inside_frame(), at > 0, "split at {at}");
            let payload = decoder.decode(&mut right, header::WIDTH, MAX);
            assert_eq!(payload, Ok(Some(&b"hello"[..])), "split at {at}");
            assert!(!decoder.is_inside_frame(), "split at {at}");
        }
    }

    #[test]
    fn header_is_refused_at_its_first_impossible_byte_and_frames_before_it_are_yielded() {
        for (header, impossible) in [
            (&b"GET / HTTP/1.1\r\n"[..], 0),
            (b"5\t        ", 1),
            (b"  +5      ", 2),
            (b"5   5     ", 4),
            (b"12345678\0 ", 8),
            (b"          ", 9),
            (b"5        a", 9),
        ] {
            let text = header.escape_ascii();
            let good = frames(&[b"alice", b"hello"]);
            let possible = [&good[..], &header[..impossible]].concat();
            let (decoded, error, inside) = decode_every_way(&possible);
            assert_eq!(decoded, [b"alice", b"hello"]);
            assert_eq!((error, inside), (None, impossible > 0), "\"{text}\"");
            for end in impossible + 1..=header.len() {
                let (decoded, error, _) = decode_every_way(&[&good, &header[..end]].concat());
                assert_eq!(decoded, [b"alice", b"hello"]);
                let refused = header[..=impossible].into();
                assert_eq!(error, Some(FrameError::BadHeader(refused)), "\"{text}\"");
            }
        }
    }

    #[test]
    fn header_of_ten_bytes_is_refused_as_a_wide_one_at_the_payload_after_it() {
        let stream = frames(&[b"x", b"hi"]);
        let refused = FrameError::BadHeader(stream[..11].into());
        for size in 1..=stream.len() {
            let (decoded, error, _) = decode_pieces_of(header::WIDE, stream.chunks(size));
            assert_eq!(decoded, Vec::<Vec<u8>>::new());
            assert_eq!(error.as_ref(), Some(&refused), "pieces of {size}");
        }
    }

    #[test]
    fn refused_header_has_the_bytes_that_came_with_it_up_to_its_width() {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        for (width, end, reported) in [(10, 18, 10), (64, 18, 18), (10, 6, 6), (64, 1, 1)] {
            let mut decoder = Decoder::new();
            let refused = decoder.decode(&mut &request[..end], width, MAX);
            let reported = request[..reported].into();
            assert_eq!(refused, Err(FrameError::BadHeader(reported)));
        }
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut &b"5  "[..], 10, MAX), Ok(None));
        let refused = decoder.decode(&mut &b" hello there"[..], 10, MAX);
        assert_eq!(
            refused,
            Err(FrameError::BadHeader(b"5   hello "[..].into()))
        );
    }

    #[test]
    fn the_limit_is_inclusive_and_checked_before_the_payload() {
        let longest = [b'x'; MAX];
        let (decoded, error, _) = decode_pieces(frames(&[&longest]).chunks(7));
        assert_eq!(decoded, [longest]);
        assert_eq!(error, None);
        for (header, len) in [(b"1001      ", 1001), (b"9999999999", 9_999_999_999)] {
            let (decoded, error, _) = decode_every_way(header);
            assert!(decoded.is_empty());
            assert_eq!(error, Some(FrameError::TooLong { len, max: MAX }));
        }
    }

    #[test]
    fn an_error_tells_what_came_with_nothing_in_it_that_a_terminal_obeys() {
        let bytes = *b"\x1b[2J\xff\r\n\"1";
        let (len, max) = (1001, MAX);
        for (error, told) in [
            (
                FrameError::BadHeader(bytes.into()),
                r#"not a header: "\x1b[2J\xff\r\n\"1""#,
            ),
            (
                FrameError::TooLong { len, max },
                "announced 1001 bytes where 1000 are the limit",
            ),
        ] {
            assert_eq!(error.to_string(), told);
        }
    }

    #[test]
    fn only_the_bytes_that_came_take_memory() {
        let mut decoder = Decoder::new();
        let mut input = &b"1000000   x"[..];
        assert_eq!(
            decoder.decode(&mut input, header::WIDTH, 1_000_000),
            Ok(None)
        );
        let partial = decoder.partial.as_ref().expect("a frame has begun");
        assert!(
            partial.bytes.capacity() < 100,
            "not what the header announced"
        );
    }

    #[test]
    fn a_kept_payload_ends_exactly_full_and_is_given_back() {
        let stream = frames(&[&[b'x'; 777]]);
        let mut decoder = Decoder::new();
        for mut piece in stream.chunks(100) {
            while let Some(payload) = decoder.decode(&mut piece, header::WIDTH, MAX).unwrap() {
                assert_eq!(payload, [b'x'; 777]);
            }
        }
        assert!(decoder.partial.is_none(), "an idle decoder owns nothing");

        let mut input = &stream[..500];
        assert_eq!(decoder.decode(&mut input, header::WIDTH, MAX), Ok(None));
        let mut input = &stream[500..];
        assert!(
            decoder
                .decode(&mut input, header::WIDTH, MAX)
                .unwrap()
                .is_some()
        );
        assert_eq!(
            decoder.partial.as_ref().map(|p| p.bytes.capacity()),
            Some(777)
        );
    }

    #[test]
    fn a_payload_that_trickles_in_takes_at_most_twice_its_bytes_and_is_moved_seldom() {
        const LEN: usize = 10_000;
        let stream = frames(&[&[b'x'; LEN]]);
        let (header, payload) = stream.split_at(header::WIDTH);
        for size in [1, 2, 3, 100, 6_000] {
            let mut decoder = Decoder::new();
            let mut input = header;
            assert_eq!(decoder.decode(&mut input, header::WIDTH, LEN), Ok(None));
            let (mut had, mut moves) = (0, 0);
            for mut piece in payload.chunks(size) {
                decoder.decode(&mut piece, header::WIDTH, LEN).unwrap();
                let partial = decoder.partial.as_ref().expect("the frame has begun");
                let (len, has) = (partial.bytes.len(), partial.bytes.capacity());
                assert!(has <= 2 * len, "{has} bytes for {len} in pieces of {size}");
                if has != had {
                    assert!(had < len, "{had} were enough for {len} in pieces of {size}");
                    moves += 1;
                }
                had = has;
            }
            assert_eq!(had, LEN, "ends exactly full in pieces of {size}");
            assert!(moves <= 15, "moved {moves} times in pieces of {size}");
        }
    }

    #[test]
    fn a_frame_that_arrives_whole_is_yielded_in_place() {
        let stream = frames(&[b"hello"]);
        let mut input = &stream[..];
        let mut decoder = Decoder::new();
        let payload = decoder
            .decode(&mut input, header::WIDTH, MAX)
            .unwrap()
            .unwrap();
        assert!(std::ptr::eq(payload, &raw const stream[10..]));
    }

    #[test]
    fn a_decoder_is_one_pointer() {
        assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    }

    proptest! {
        #[test]
        fn any_chunking_of_any_bytes_means_the_same(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            tail in prop::collection::vec(prop::sample::select(&b"0159 +a"[..]), 0..25),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                crate::wire::encode_frame(payload, &mut stream);
            }
            stream.extend_from_slice(&tail);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            let whole = decode_pieces([&stream[..]]);
            prop_assert_eq!(&whole.0[..payloads.len()], &payloads[..]);
            prop_assert_eq!(decode_pieces(pieces), whole);
        }
    }

    #[test]
    fn what_is_missing_ends_with_the_header_and_with_the_payload() {
        let mut decoder = Decoder::new();
        let mut feed = |mut bytes: &[u8]| {
            let payload = decoder.decode(&mut bytes, 10, 100).unwrap();
            let yielded = payload.map(<[u8]>::to_vec);
            (yielded, decoder.missing(10))
        };
        assert_eq!(feed(b"5  "), (None, 7));
        assert_eq!(feed(b"       "), (None, 5));
        assert_eq!(feed(b"he"), (None, 3));
        assert_eq!(feed(b"llo"), (Some(b"hello".to_vec()), 10));
        assert_eq!(feed(b""), (None, 10));
    }

    #[test]
    fn what_is_held_is_told() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.held_bytes(), 0);
        let stream = [&b"1000      "[..], &[b'x'; 600]].concat();
        assert_eq!(decoder.decode(&mut &stream[..], 10, 1000), Ok(None));
        assert!((600..700).contains(&decoder.held_bytes()));
        assert!(
            decoder
                .decode(&mut &[b'x'; 400][..], 10, 1000)
                .unwrap()
                .is_some()
        );
        assert_eq!(decoder.decode(&mut &b""[..], 10, 1000), Ok(None));
        assert_eq!(decoder.held_bytes(), 0);
    }
}
