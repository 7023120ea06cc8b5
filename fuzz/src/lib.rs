//! What the targets share.

/// `stream` in pieces of `sizes`, round and round. A size of zero is an empty piece, unless all of
/// them are: then every piece is one byte.
pub fn pieces(stream: &[u8], sizes: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    let sizes = if sizes == [0; 4] { [1; 4] } else { sizes };
    let mut sizes = sizes.into_iter().cycle();
    let mut rest = stream;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = usize::from(sizes.next()?).min(rest.len());
        let (piece, after) = rest.split_at(size);
        rest = after;
        Some(piece)
    })
}

/// The length that a header announces, if it is one. This reads the grammar as no relay would, with
/// strings.
///
/// ```text
/// header = *SP 1*DIGIT *SP
/// ```
///
/// A length too large for a `u64` comes back as the largest one.
#[must_use]
pub fn announced(header: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(header).ok()?.trim_matches(' ');
    if digits.is_empty() || digits.contains(|digit: char| !digit.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    // 39 digits may be too many for a u128; twenty are already as many as the largest u64 has.
    let number = match digits.len() {
        0 => 0,
        1..=20 => digits.parse::<u128>().ok()?,
        _ => u128::MAX,
    };
    Some(u64::try_from(number).unwrap_or(u64::MAX))
}

/// The index of the first byte that no header of this width has after those before it: with it, what
/// has come is no header however it is filled up.
#[must_use]
pub fn first_impossible(header: &[u8], width: usize) -> Option<usize> {
    (0..header.len()).find(|&index| {
        let filled_with = |byte| {
            let mut filled = header[..=index].to_vec();
            filled.resize(width, byte);
            announced(&filled)
        };
        filled_with(b' ').is_none() && filled_with(b'0').is_none()
    })
}
