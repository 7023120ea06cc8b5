//! The header of the PROXY protocol, with which a proxy states the address of its client before it forwards
//! the client's bytes.
//!
//! The bytes behind the header belong to the protocol of the listener, and are another reader's. So
//! [`next`] returns after each read how many bytes the header has at least, and no more than these are read.
//! Version 2 announces its length. Version 1 ends with a line, of which at least the line's end is missing.
//!
//! The format is [that of HAProxy](https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt), whose
//! section 2 demands that a receiver does not guess: a listener either requires the header or accepts none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
const MAX_LINE: usize = 107;

/// The shortest header of version 1, which no header of version 2 is shorter than.
const MIN_LINE: usize = b"PROXY UNKNOWN\r\n".len();

/// The longest header of version 2 that is accepted. It may announce 64 KiB. Addresses and the usual further
/// fields take less than 536 bytes; a proxy can add a client's certificate.
const MAX_BINARY: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, then version and command, family and transport, and the length of what follows.
const BINARY_START: usize = SIGNATURE.len() + 4;

/// How far the reading of a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// At least this many further bytes belong to the header.
    Missing(usize),
    /// The header is complete. It has the address of the proxy's client, unless the proxy connects for itself
    /// (`LOCAL`) or does not know an IP address (`UNKNOWN`).
    Complete(Option<SocketAddr>),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// They do not begin as a header does.
    NoHeader,
    /// They begin as a header does, and do not go on as one.
    Malformed,
    /// The header is longer than the format or this relay allows.
    TooLong,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "sent no header of the PROXY protocol",
            Self::Malformed => "sent a malformed header of the PROXY protocol",
            Self::TooLong => "sent a header of the PROXY protocol that is too long",
        })
    }
}

/// Whether these bytes begin with such a header.
pub(super) fn is_at_start_of(bytes: &[u8]) -> bool {
    bytes.starts_with(LINE_START) || bytes.starts_with(SIGNATURE)
}

/// How far the header is that begins with these bytes, all of which are the header's.
///
/// # Errors
///
/// [`BadHeader`], at the first byte that cannot be in a header.
pub(super) fn next(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(byte, other)| byte == other);
    if bytes.is_empty() {
        Ok(Progress::Missing(MIN_LINE))
    } else if begins(SIGNATURE) {
        next_binary(bytes)
    } else if begins(LINE_START) {
        next_line(bytes)
    } else {
        Err(BadHeader::NoHeader)
    }
}

/// Version 1: `PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`, and a line end.
fn next_line(bytes: &[u8]) -> Result<Progress, BadHeader> {
    // A line end that begins later is in no header, however many bytes came with it.
    let mut start = bytes.iter().take(MAX_LINE - 1);
    let Some(end) = start.position(|byte| matches!(byte, b'\r' | b'\n')) else {
        let missing = MIN_LINE.saturating_sub(bytes.len()).max(2);
        return missing_of(bytes, missing, MAX_LINE);
    };
    match &bytes[end..] {
        b"\r" => missing_of(bytes, 1, MAX_LINE),
        b"\r\n" => {
            let line = str::from_utf8(&bytes[..end]).map_err(|_| BadHeader::Malformed)?;
            let source = parse_line(line).ok_or(BadHeader::Malformed)?;
            Ok(Progress::Complete(source))
        }
        _ => Err(BadHeader::Malformed),
    }
}

/// The source in a line of version 1: none if it is unknown. `None` if the line is malformed.
#[expect(clippy::option_option, reason = "the outer one is the parser's")]
fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let fields: Vec<_> = line.split(' ').collect();
    let source = match fields[..] {
        // What follows must be ignored.
        ["PROXY", "UNKNOWN", ..] => return Some(None),
        ["PROXY", "TCP4", source, destination, source_port, port] => {
            let _: Ipv4Addr = destination.parse().ok()?;
            parse_port(port)?;
            let ip = source.parse::<Ipv4Addr>().ok()?;
            SocketAddr::new(ip.into(), parse_port(source_port)?)
        }
        ["PROXY", "TCP6", source, destination, source_port, port] => {
            let _: Ipv6Addr = destination.parse().ok()?;
            parse_port(port)?;
            let ip = source.parse::<Ipv6Addr>().ok()?;
            SocketAddr::new(ip.into(), parse_port(source_port)?)
        }
        _ => return None,
    };
    Some(Some(source))
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16` takes a plus sign as well.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Version 2: a signature, and fields of fixed places.
fn next_binary(bytes: &[u8]) -> Result<Progress, BadHeader> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let command = bytes.get(SIGNATURE.len());
    if command.is_some_and(|&command| command != LOCAL && command != PROXY) {
        return Err(BadHeader::Malformed);
    }
    let Some((start, rest)) = bytes.split_at_checked(BINARY_START) else {
        return missing_of(bytes, BINARY_START - bytes.len(), MAX_BINARY);
    };
    let [.., command, transport, high, low] = *start else {
        return Err(BadHeader::Malformed);
    };
    let announced = usize::from(u16::from_be_bytes([high, low]));
    if rest.len() < announced {
        return missing_of(bytes, announced - rest.len(), MAX_BINARY);
    }
    if command == LOCAL {
        // Family and addresses are to be ignored.
        return Ok(Progress::Complete(None));
    }
    // After the addresses there may be further fields, none of which is needed here.
    match (transport >> 4, transport & 0x0f) {
        // TCP over IPv4, and over IPv6.
        (1, 1) => source::<4>(rest),
        (2, 1) => source::<16>(rest),
        // Unspecified, UDP, or Unix sockets: it has no address of a TCP client.
        (0..=3, 0..=2) => Ok(Progress::Complete(None)),
        _ => Err(BadHeader::Malformed),
    }
}

/// The source in the addresses of version 2, each of which takes `N` bytes: source, destination, source
/// port, destination port.
fn source<const N: usize>(addresses: &[u8]) -> Result<Progress, BadHeader>
where
    IpAddr: From<[u8; N]>,
{
    let ip = addresses.first_chunk::<N>();
    let ports = addresses.get(2 * N..).and_then(<[u8]>::first_chunk::<4>);
    match (ip, ports) {
        (Some(&ip), Some(&[high, low, _, _])) => {
            let source = SocketAddr::new(ip.into(), u16::from_be_bytes([high, low]));
            Ok(Progress::Complete(Some(source)))
        }
        _ => Err(BadHeader::Malformed),
    }
}

/// That `missing` bytes are missing, unless the header were longer than `max` then.
fn missing_of(bytes: &[u8], missing: usize, max: usize) -> Result<Progress, BadHeader> {
    if bytes.len() + missing > max {
        return Err(BadHeader::TooLong);
    }
    Ok(Progress::Missing(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};

    /// A header's source, and what was not read.
    type Outcome<'a> = Result<(Option<SocketAddr>, &'a [u8]), BadHeader>;

    /// Reads a header as the lobby does, in pieces of at most `piece` bytes.
    fn read(input: &[u8], piece: usize) -> Outcome<'_> {
        read_cut(input, piece, 0)
    }

    /// The same, where no piece goes past the first `cut` bytes and begins before their end.
    fn read_cut(mut input: &[u8], piece: usize, cut: usize) -> Outcome<'_> {
        let mut read = Vec::new();
        loop {
            match next(&read)? {
                Progress::Complete(source) => return Ok((source, input)),
                Progress::Missing(missing) => {
                    assert!(missing > 0, "a read of nothing");
                    let len = match cut.saturating_sub(read.len()) {
                        0 => missing.min(piece),
                        before_cut => missing.min(piece).min(before_cut),
                    };
                    assert!(
                        len <= input.len(),
                        "more is awaited than there is: {read:?}"
                    );
                    let (more, rest) = input.split_at(len);
                    read.extend_from_slice(more);
                    input = rest;
                }
            }
        }
    }

    /// A header of version 2 with this command, transport and announced length.
    fn binary(command: u8, transport: u8, announced: u16, rest: &[u8]) -> Vec<u8> {
        let [high, low] = announced.to_be_bytes();
        [&SIGNATURE[..], &[command, transport, high, low], rest].concat()
    }

    /// Headers as another implementation encodes them, and their sources.
    fn headers_of_others() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let mut headers = Vec::new();
        for (source, destination) in [
            ("192.0.2.1:1", "192.0.2.2:65535"),
            ("[2001:db8::1]:65535", "[::1]:1"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let address = ProxiedAddress::stream(source, destination);
            let header = ProxyHeader::with_address(address.clone());
            let (mut line, mut binary, mut longer) = (Vec::new(), Vec::new(), Vec::new());
            header.encode_v1(&mut line).unwrap();
            header.encode_v2(&mut binary).unwrap();
            let fields = [
                Tlv::Authority("chat.example.org".into()),
                Tlv::Noop(300),
                Tlv::UniqueId(b"PROXY \r\n\r\n"[..].into()),
                Tlv::Custom(0xe0, vec![0xff; 200].into()),
            ];
            let header = ProxyHeader::with_tlvs(Some(address), fields);
            header.encode_v2(&mut longer).unwrap();
            assert!(longer.len() > 536);
            headers.extend([line, binary, longer].map(|header| (header, Some(source))));
            let datagrams =
                ProxyHeader::with_address(ProxiedAddress::datagram(source, destination));
            let mut binary = Vec::new();
            datagrams.encode_v2(&mut binary).unwrap();
            headers.push((binary, None));
        }
        let (mut line, mut binary) = (Vec::new(), Vec::new());
        ProxyHeader::with_local().encode_v1(&mut line).unwrap();
        ProxyHeader::with_local().encode_v2(&mut binary).unwrap();
        headers.extend([(line, None), (binary, None)]);
        headers
    }

    /// Headers that are written out here, and their sources.
    fn headers() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
        assert_eq!(unknown.len(), MAX_LINE);
        let all_ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let unix = [0; 216];
        let lines = [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
                Some("192.0.2.1:1"),
            ),
            ("PROXY TCP6 :: :: 0 0\r\n", Some("[::]:0")),
            (longest, Some(all_ones)),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 anything 7\r\n", None),
            (&unknown, None),
        ];
        let mut headers = headers_of_others();
        headers.extend(lines.map(|(line, source)| {
            let source = source.map(|source| source.parse().unwrap());
            (line.as_bytes().to_vec(), source)
        }));
        headers.extend([
            // What a proxy connects for itself: the rest does not matter, whatever it is.
            (binary(0x20, 0x00, 0, b""), None),
            (binary(0x20, 0xff, 3, b"abc"), None),
            (binary(0x20, 0x11, 12, &[1; 12]), None),
            // Addresses of no TCP client.
            (binary(0x21, 0x00, 0, b""), None),
            (binary(0x21, 0x00, 5, b"abcde"), None),
            (binary(0x21, 0x31, 216, &unix), None),
            (binary(0x21, 0x32, 216, &unix), None),
            // As long as may be.
            (binary(0x20, 0x00, 4080, &[0; 4080]), None),
        ]);
        headers
    }

    #[test]
    fn header_is_read_to_its_end_however_it_is_cut() {
        for (header, source) in headers() {
            for rest in [&b""[..], b"5         alice", b"\r\n", b"PROXY UNKNOWN\r\n"] {
                let input = [&header, rest].concat();
                for piece in [1, 2, 3, 7, 16, usize::MAX] {
                    assert_eq!(read(&input, piece), Ok((source, rest)), "{header:?}");
                }
            }
            for len in 0..header.len() {
                let progress = next(&header[..len]);
                let missing = header.len() - len;
                assert!(
                    matches!(progress, Ok(Progress::Missing(least)) if least <= missing),
                    "{progress:?} of {missing} after {len} of {header:?}"
                );
            }
        }
    }

    #[test]
    fn header_that_is_complete_is_the_one_that_another_implementation_reads() {
        for (header, source) in headers_of_others() {
            let (other, len) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
            assert_eq!(len, header.len());
            let stream =
                |address: &&ProxiedAddress| address.protocol == proxy_header::Protocol::Stream;
            let address = other.proxied_address().filter(stream);
            assert_eq!(address.map(|address| address.source), source);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_in_the_same_way_however_they_are_cut(
            start in prop::sample::select(vec![&b""[..], LINE_START, SIGNATURE, b"PROXY TCP4 1.1.1.1 "]),
            rest in vec(any::<u8>(), 0..200),
            piece in 1..20_usize,
        ) {
            // Zeros behind them, so that no header waits for more.
            let input = [start, &rest, &[0; MAX_BINARY]].concat();
            let whole = read(&input, usize::MAX);
            prop_assert_eq!(read(&input, piece), whole);
            let is_bounded = |rest: &[u8]| rest.len() + MAX_BINARY >= input.len();
            prop_assert!(whole.is_err() || whole.is_ok_and(|(_, rest)| is_bounded(rest)));
        }

        #[test]
        fn header_with_a_changed_byte_is_read_in_the_same_way_wherever_it_is_cut(
            header in prop::sample::select(headers()),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (mut header, _) = header;
            let at = at.index(header.len());
            header[at] = byte;
            let input = [&header[..], &[0; MAX_BINARY]].concat();
            let whole = read(&input, usize::MAX);
            for cut in 1..header.len() {
                prop_assert_eq!(read_cut(&input, usize::MAX, cut), whole, "at {}", cut);
            }
        }
    }

    /// The error, and after how many bytes it is certain.
    fn error(input: &[u8]) -> Option<(BadHeader, usize)> {
        (0..=input.len()).find_map(|len| next(&input[..len]).err().map(|error| (error, len)))
    }

    #[test]
    fn bytes_that_are_no_header_are_refused_at_the_first_that_cannot_be_one() {
        for (input, at) in [
            (&b"5         alice"[..], 1),
            (b"GET / HTTP/1.1\r\n\r\n", 1),
            (b"POST / HTTP/1.1\r\n\r\n", 2),
            (b"proxy TCP4", 1),
            (b"PROXY\tTCP4", 6),
            (b"\r\n\r\nGET", 5),
            (b"\r\n\r\n\0\r\nQUIT\r", 12),
            (b"\0", 1),
        ] {
            assert_eq!(error(input), Some((BadHeader::NoHeader, at)), "{input:?}");
        }
    }

    #[test]
    fn malformed_header_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
            "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP6 ::1 [::1] 1 2\r\n",
        ] {
            let found = error(line.as_bytes());
            assert_eq!(found, Some((BadHeader::Malformed, line.len())), "{line:?}");
        }
        let not_utf8 = b"PROXY UNKNOWN \xff\r\n";
        assert_eq!(
            error(not_utf8),
            Some((BadHeader::Malformed, not_utf8.len()))
        );
        for (header, at) in [
            (binary(0x11, 0x11, 12, &[0; 12]), 13),
            (binary(0x22, 0x11, 12, &[0; 12]), 13),
            (binary(0x21, 0x41, 12, &[0; 12]), 28),
            (binary(0x21, 0x13, 12, &[0; 12]), 28),
            // It announces less than its addresses take.
            (binary(0x21, 0x11, 0, b""), 16),
            (binary(0x21, 0x11, 11, &[0; 11]), 27),
            (binary(0x21, 0x21, 35, &[0; 35]), 51),
        ] {
            assert_eq!(
                error(&header),
                Some((BadHeader::Malformed, at)),
                "{header:?}"
            );
        }
    }

    #[test]
    fn header_that_is_too_long_is_refused_before_it_is_read() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        assert_eq!(error(&endless), Some((BadHeader::TooLong, 106)));
        let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
        assert_eq!(error(line.as_bytes()), Some((BadHeader::TooLong, 106)));
        // However it is cut, and whatever stands where the line end should be.
        let line = format!("PROXY UNKNOWN {}\n", "x".repeat(MAX_LINE - 15));
        for piece in [1, 2, usize::MAX] {
            assert_eq!(read(line.as_bytes(), piece), Err(BadHeader::TooLong));
        }
        for announced in [4081, u16::MAX] {
            let header = binary(0x21, 0x11, announced, b"");
            assert_eq!(error(&header), Some((BadHeader::TooLong, 16)));
        }
    }
}
