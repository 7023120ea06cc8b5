//! The opening handshake of a WebSocket (RFC 6455, 4): the client's side, and what both sides share.
//!
//! It is the beginning of HTTP/1.1: a request with a key, and a response with its hash. No bytes are read or
//! written here. The server's side is in `server/http.rs`.

use std::fmt;

use data_encoding::BASE64;
use sha1_smol::Sha1;

/// The longest head of a request or of a response, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// How many header fields a head may have.
pub const MAX_FIELDS: usize = 64;

/// What is appended to the key of a handshake (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The most bytes that an error shows of a response that is none.
const EXCERPT_BYTES: usize = 60;

/// The value of `Sec-WebSocket-Accept` for this key.
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::from(key);
    hash.update(GUID.as_bytes());
    BASE64.encode(&hash.digest().bytes())
}

/// The length of a head, its empty line included, if all of it is here. `seen` bytes were searched before.
#[must_use]
pub fn head_len(bytes: &[u8], seen: usize) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let start = seen.saturating_sub(END.len() - 1);
    let found = bytes[start..].windows(END.len()).position(|end| end == END);
    found.map(|at| start + at + END.len())
}

/// A `Credentials` is the value of an `Authorization` field: a name and a password (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// Creates credentials of the scheme `Basic` from a name, a colon and a password.
    #[must_use]
    pub fn basic(name_and_password: &[u8]) -> Self {
        Self(format!("Basic {}", BASE64.encode(name_and_password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// A `Target` is what a client asks for in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server as the `Host` field has it: a name or an address, and the port.
    pub host: String,
    /// The path, from its slash on.
    pub path: String,
    /// The subprotocol that the client speaks; `None` if it is not negotiated.
    pub protocol: Option<&'static str>,
    /// The name and the password of the client, if it has any.
    pub credentials: Option<Credentials>,
}

/// An `Opening` is a client's handshake that waits for its response.
#[derive(Debug)]
pub struct Opening {
    protocol: Option<&'static str>,
    has_credentials: bool,
    accept: String,
    /// What has come of the response.
    head: Vec<u8>,
}

impl Opening {
    /// Begins a handshake with these sixteen bytes of chance. Returns it with its request.
    #[must_use]
    pub fn begin(target: &Target, chance: [u8; 16]) -> (Self, Vec<u8>) {
        let key = BASE64.encode(&chance);
        let protocol = target
            .protocol
            .map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let credentials = target
            .credentials
            .as_ref()
            .map(|Credentials(value)| format!("Authorization: {value}\r\n"));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{}{}\r\n",
            target.path,
            target.host,
            protocol.unwrap_or_default(),
            credentials.unwrap_or_default()
        );
        let opening = Self {
            has_credentials: target.credentials.is_some(),
            protocol: target.protocol,
            accept: accept_key(&key),
            head: Vec::new(),
        };
        (opening, request.into_bytes())
    }

    /// Takes bytes of the response. Once it has accepted the handshake, returns how many of these bytes it
    /// took: the rest are frames.
    ///
    /// # Errors
    ///
    /// Why the handshake failed, as soon as that is certain.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, HandshakeError> {
        let seen = self.head.len();
        let room = (MAX_HEAD + 1 - seen).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        let end = head_len(&self.head, seen);
        self.head.truncate(end.unwrap_or(self.head.len()));
        self.check()?;
        match end {
            Some(end) => Ok(Some(end - seen)),
            None if self.head.len() > MAX_HEAD => Err(HandshakeError::Invalid(
                "the head of its response has more than 8 KiB",
            )),
            None => Ok(None),
        }
    }

    /// Whether nothing has come of the response.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        self.head.is_empty()
    }

    /// Checks the response, as far as it has come.
    fn check(&self) -> Result<(), HandshakeError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let status = match parsed.parse(&self.head) {
            Ok(status) => status,
            Err(httparse::Error::TooManyHeaders) => {
                return Err(HandshakeError::Invalid(
                    "its response has more than 64 header fields",
                ));
            }
            Err(_) if parsed.code.is_some() => {
                return Err(HandshakeError::Invalid("its response is no valid HTTP"));
            }
            Err(_) => {
                let excerpt = self.head.len().min(EXCERPT_BYTES);
                return Err(HandshakeError::NotHttp(self.head[..excerpt].to_vec()));
            }
        };
        if status.is_partial() {
            return Ok(());
        }
        let fields = Fields(parsed.headers);
        let code = parsed.code.unwrap_or_default();
        if code == 401 {
            let had_password = self.has_credentials;
            return Err(HandshakeError::Unauthorized { had_password });
        }
        if code != 101 {
            return Err(HandshakeError::Refused {
                code,
                reason: parsed.reason.unwrap_or_default().to_owned(),
                location: fields.first("Location").map(str::to_owned),
            });
        }
        let invalid = |what| Err(HandshakeError::Invalid(what));
        if parsed.version != Some(1) {
            return invalid("its response is not HTTP/1.1");
        }
        if !fields.has("Upgrade", "websocket") || !fields.has("Connection", "upgrade") {
            return invalid("it changes to another protocol than WebSocket");
        }
        if !fields.is_only("Sec-WebSocket-Accept", &self.accept) {
            return invalid("its response has not the hash of our key");
        }
        if fields.first("Sec-WebSocket-Extensions").is_some() {
            return invalid("it uses an extension that was not offered");
        }
        match (self.protocol, fields.first("Sec-WebSocket-Protocol")) {
            (None, None) => Ok(()),
            (Some(offered), Some(_)) if fields.is_only("Sec-WebSocket-Protocol", offered) => Ok(()),
            (Some(offered), None) => Err(HandshakeError::NoProtocol(offered)),
            _ => invalid("it chose a subprotocol that was not offered"),
        }
    }
}

/// The fields of a response.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// Each value of this field that is UTF-8.
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let fields = self.0.iter();
        let named = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.filter_map(|field| str::from_utf8(field.value).ok().map(str::trim))
    }

    fn first(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Whether this is the only value of the field.
    fn is_only(&self, name: &str, value: &str) -> bool {
        self.all(name).eq([value])
    }

    /// Whether one of the items of a field that is a list is this word.
    fn has(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|list| list.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    }
}

/// A `HandshakeError` is why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The server speaks no HTTP; these are its first bytes.
    NotHttp(Vec<u8>),
    /// The server answered with another status.
    Refused {
        /// The status code.
        code: u16,
        /// The text that stands behind the code.
        reason: String,
        /// The address to which the server redirects.
        location: Option<String>,
    },
    /// The server asks for a password, or for another one.
    Unauthorized {
        /// Whether the client has sent a password.
        had_password: bool,
    },
    /// The server speaks WebSocket, and not this subprotocol.
    NoProtocol(&'static str),
    /// The response breaks the rules, and how.
    Invalid(&'static str),
}

impl HandshakeError {
    /// Whether the same request may succeed later: the server, or a proxy before it, has trouble of its own.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if matches!(code, 408 | 429 | 500 | 502..=504))
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp(said) => write!(
                f,
                "this port does not speak WebSocket; it says \"{}\"",
                said.escape_ascii()
            ),
            Self::Refused {
                code,
                reason,
                location,
            } => {
                write!(f, "the server answered {code}")?;
                if !reason.is_empty() {
                    write!(f, " {}", reason.escape_default())?;
                }
                match code {
                    200..=299 => f.write_str(": it has a page at this address, and no WebSocket"),
                    300..=399 => match location {
                        Some(there) => write!(f, ": it redirects to {}", there.escape_default()),
                        None => Ok(()),
                    },
                    403 => f.write_str(
                        ": a relay accepts its IP addresses, localhost, and the names that its --ws-host has",
                    ),
                    404 => f.write_str(": there is nothing at this path"),
                    426 => f.write_str(": it wants another version of WebSocket"),
                    _ => Ok(()),
                }
            }
            Self::Unauthorized {
                had_password: false,
            } => f.write_str("the server answered 401: it asks for a password"),
            Self::Unauthorized { had_password: true } => {
                f.write_str("the server answered 401: the password is wrong")
            }
            Self::NoProtocol(offered) => write!(
                f,
                "the server speaks WebSocket, and not the subprotocol {offered}"
            ),
            Self::Invalid(what) => write!(f, "the server does not accept the WebSocket: {what}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of RFC 6455, 1.3, before it is encoded.
    const CHANCE: [u8; 16] = *b"the sample nonce";

    /// The response of RFC 6455, 1.3.
    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: chat\r\n\r\n";

    fn target(protocol: Option<&'static str>) -> Target {
        Target {
            host: "server.example.com:80".to_owned(),
            path: "/chat".to_owned(),
            protocol,
            credentials: None,
        }
    }

    fn opening(protocol: Option<&'static str>) -> Opening {
        Opening::begin(&target(protocol), CHANCE).0
    }

    /// The result of a response that comes in pieces of this size.
    fn result(response: &[u8], size: usize) -> Result<bool, HandshakeError> {
        let mut opening = opening(Some("chat"));
        for piece in response.chunks(size) {
            if opening.feed(piece)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[track_caller]
    fn assert_fails(response: &str, says: &str) {
        for size in [1, 2, 3, response.len()] {
            let error = result(response.as_bytes(), size).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
            assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
        }
    }

    #[test]
    fn request_is_that_of_the_rfc() {
        let (_, request) = Opening::begin(&target(Some("chat")), CHANCE);
        let expected = "GET /chat HTTP/1.1\r\nHost: server.example.com:80\r\n\
            Upgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(String::from_utf8(request).unwrap(), expected);
        let mut target = target(None);
        target.credentials = Some(Credentials::basic(b"Aladdin:open sesame"));
        let (mut opening, request) = Opening::begin(&target, CHANCE);
        assert!(!format!("{target:?}").contains("QWxh"));
        let refused = opening.feed(b"HTTP/1.1 401 No\r\n\r\n").unwrap_err();
        assert!(refused.to_string().ends_with("the password is wrong"));
        let request = String::from_utf8(request).unwrap();
        assert!(!request.contains("Protocol"), "{request}");
        // RFC 7617, 2.
        let field = "\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert!(request.ends_with(field), "{request}");
    }

    #[test]
    fn response_is_accepted_however_it_is_cut_and_frames_behind_it_are_left() {
        let stream = [ACCEPTED.as_bytes(), b"\x81\x02hi\r\n\r\n"].concat();
        for cut in 0..ACCEPTED.len() {
            let mut opening = opening(Some("chat"));
            assert_eq!(opening.feed(&stream[..cut]), Ok(None), "{cut}");
            assert_eq!(opening.is_unanswered(), cut == 0);
            let taken = opening.feed(&stream[cut..]);
            assert_eq!(taken, Ok(Some(ACCEPTED.len() - cut)), "{cut}");
        }
        assert_eq!(result(ACCEPTED.as_bytes(), 1), Ok(true));
    }

    #[test]
    fn response_that_breaks_a_rule_is_refused() {
        for (from, to, says) in [
            ("HTTP/1.1", "HTTP/1.0", "not HTTP/1.1"),
            ("websocket", "h2c", "another protocol"),
            (
                "Connection: Upgrade",
                "Connection: close",
                "another protocol",
            ),
            ("s3pP", "S3PP", "not the hash of our key"),
            ("Sec-WebSocket-Accept", "X", "not the hash of our key"),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                "not the hash of our key",
            ),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                "an extension that was not offered",
            ),
            (
                ": chat",
                ": superchat",
                "a subprotocol that was not offered",
            ),
            (
                "Sec-WebSocket-Protocol: chat\r\n",
                "",
                "speaks WebSocket, and not the subprotocol chat",
            ),
            ("Upgrade:", "Up grade:", "no valid HTTP"),
        ] {
            assert!(ACCEPTED.contains(from));
            assert_fails(&ACCEPTED.replacen(from, to, 1), says);
        }
        let error = opening(None).feed(ACCEPTED.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("was not offered"), "{error}");
        let long = ACCEPTED.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(8192)));
        assert_fails(&long, "more than 8 KiB");
        let many = ACCEPTED.replace("\r\n\r\n", &"\r\nX: x".repeat(61)) + "\r\n\r\n";
        assert_fails(&many, "more than 64 header fields");
    }

    #[test]
    fn other_answer_is_reported_with_what_to_do() {
        for (status, fields, says, is_temporary) in [
            ("200 OK", "", "200 OK: it has a page at this address", false),
            (
                "301 Moved Permanently",
                "Location: https://example.org/\x7f\r\n",
                "no valid HTTP",
                false,
            ),
            (
                "302 Found",
                "Location: https://example.org/\r\n",
                "302 Found: it redirects to https://example.org/",
                false,
            ),
            ("307 ", "", "the server answered 307", false),
            ("401 Unauthorized", "", "401: it asks for a password", false),
            ("403 Forbidden", "", "403 Forbidden: a relay accepts", false),
            ("404 Not Found", "", "nothing at this path", false),
            ("426 Upgrade Required", "", "another version", false),
            ("400 Bad Request", "", "answered 400 Bad Request", false),
            ("502 Bad Gateway", "", "answered 502 Bad Gateway", true),
            ("503 Down", "Content-Length: 0\r\n", "503 Down", true),
        ] {
            let response = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
            assert_fails(&response, says);
            let error = result(response.as_bytes(), 1000).unwrap_err();
            assert_eq!(error.is_temporary(), is_temporary, "{status}");
        }
    }

    #[test]
    fn server_that_speaks_no_http_is_reported_at_its_first_impossible_byte() {
        for (said, says) in [
            ("SSH-2.0-OpenSSH_9.2p1\r\n", "it says \"S"),
            ("5         alice", "it says \"5"),
            ("welcome to the server!", "it says \"w"),
            ("\x1b[2J", "it says \"\\x1b"),
            ("HTTP/2 200\r\n", "it says \"HTTP/2"),
        ] {
            assert_fails(said, says);
            assert_fails(said, "does not speak WebSocket");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_waited_for_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0..200_usize,
            size in 1..50_usize,
        ) {
            let whole = [&ACCEPTED.as_bytes()[..cut.min(ACCEPTED.len())], &bytes].concat();
            let in_pieces = result(&whole, size);
            prop_assert_eq!(in_pieces.is_ok(), result(&whole, 1).is_ok());
        }
    }
}
