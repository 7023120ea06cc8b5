//! The little of HTTP/1.1 that a relay needs: the head of a request, and the WebSocket handshake.

use data_encoding::BASE64;

use crate::handshake::{MAX_FIELDS, accept_key};
pub(super) use crate::handshake::{MAX_HEAD, head_len};

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The method, such as `GET`.
    pub(super) method: String,
    /// The path, without the query.
    pub(super) path: String,
    /// The query, without the question mark.
    pub(super) query: String,
    /// The `Host` field.
    pub(super) host: Option<String>,
    /// The `Origin` field.
    pub(super) origin: Option<String>,
    /// The entries of `X-Forwarded-For`, from left to right.
    pub(super) forwarded_for: Vec<String>,
    /// What the request says of a WebSocket handshake, if it asks for one.
    pub(super) upgrade: Option<Upgrade>,
    /// The ETag that the client has of the resource.
    pub(super) if_none_match: Option<String>,
    /// Whether another request may follow on the connection (RFC 9112, 9.3).
    pub(super) persists: bool,
}

/// A request for the WebSocket protocol (RFC 6455, 4.2.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// The key, if it is one.
    pub(super) key: Option<String>,
    /// Whether it asks for the version of RFC 6455.
    pub is_version_13: bool,
    /// The subprotocols that it offers, in order.
    pub(super) protocols: Vec<String>,
}

/// Why a head is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRequest;

/// Parses the head of a request.
///
/// # Errors
///
/// [`BadRequest`] for what is no head of HTTP/1.1, and for one whose fields contradict each other.
pub(super) fn parse(head: &[u8]) -> Result<Request, BadRequest> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        _ => return Err(BadRequest),
    }
    let (Some(method), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadRequest);
    };
    let fields = Fields(parsed.headers);
    let has_body = fields.one("Content-Length")?.is_some_and(|len| len != "0");
    if has_body || fields.one("Transfer-Encoding")?.is_some() {
        return Err(BadRequest);
    }
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: fields.one("Host")?,
        origin: fields.one("Origin")?,
        forwarded_for: fields.forwarded_for(),
        upgrade: fields.upgrade()?,
        if_none_match: fields.one("If-None-Match")?,
        persists: !fields.has("Connection", "close")?,
    })
}

/// The fields of a request.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// Each value of this field.
    fn all(&self, name: &str) -> Result<Vec<&'a str>, BadRequest> {
        let fields = self.0.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        named
            .map(|field| str::from_utf8(field.value).map_err(|_| BadRequest))
            .collect()
    }

    /// The only value of this field. Two of them would let the relay and a proxy before it disagree.
    fn one(&self, name: &str) -> Result<Option<String>, BadRequest> {
        match *self.all(name)? {
            [] => Ok(None),
            [value] => Ok(Some(value.trim().to_owned())),
            _ => Err(BadRequest),
        }
    }

    /// The items of a field that is a list.
    fn tokens(&self, name: &str) -> Result<Vec<String>, BadRequest> {
        let lists = self.all(name)?;
        let tokens = lists.iter().flat_map(|list| list.split(','));
        let tokens = tokens.map(|token| token.trim().to_owned());
        Ok(tokens.filter(|token| !token.is_empty()).collect())
    }

    /// The entries of `X-Forwarded-For`. A client can send any bytes there, and as many fields as it likes,
    /// so nothing is wrong with a request because of them.
    fn forwarded_for(&self) -> Vec<String> {
        let fields = self.0.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case("X-Forwarded-For"));
        let lists = named.map(|field| String::from_utf8_lossy(field.value));
        let entries = |list: &str| -> Vec<_> { list.split(',').map(str::to_owned).collect() };
        lists.flat_map(|list| entries(&list)).collect()
    }

    fn has(&self, name: &str, wanted: &str) -> Result<bool, BadRequest> {
        let mut tokens = self.tokens(name)?.into_iter();
        Ok(tokens.any(|token| token.eq_ignore_ascii_case(wanted)))
    }

    /// What the fields say of a WebSocket handshake, if they ask for one.
    fn upgrade(&self) -> Result<Option<Upgrade>, BadRequest> {
        if !self.has("Upgrade", "websocket")? || !self.has("Connection", "upgrade")? {
            return Ok(None);
        }
        let is_key = |key: &String| {
            let key = BASE64.decode(key.as_bytes());
            key.is_ok_and(|key| key.len() == 16)
        };
        Ok(Some(Upgrade {
            key: self.one("Sec-WebSocket-Key")?.filter(is_key),
            is_version_13: self.one("Sec-WebSocket-Version")?.as_deref() == Some("13"),
            protocols: self.tokens("Sec-WebSocket-Protocol")?,
        }))
    }
}

/// The host of a `Host` field or of an origin's authority, without the port. Of what is no host and no port,
/// all.
#[must_use]
pub(super) fn host_without_port(authority: &str) -> &str {
    let end = if authority.starts_with('[') {
        authority.find(']').map(|at| at + 1)
    } else {
        authority.rfind(':')
    };
    let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
    match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A response with this status, fields and body. The connection ends after it.
#[must_use]
pub(super) fn response(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    message(status, fields, body, "Connection: close\r\n")
}

/// The same, and another request may follow on the connection.
#[must_use]
pub(super) fn persistent_response(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    message(status, fields, body, "")
}

fn message(status: &str, fields: &[(&str, &str)], body: &[u8], connection: &str) -> Vec<u8> {
    let fields = lines_of(fields);
    // These have no body, and must not announce the length of one (RFC 9110, 8.6).
    let length = if status.starts_with("204 ") || status.starts_with("304 ") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = format!("HTTP/1.1 {status}\r\n{fields}{length}{connection}\r\n");
    [head.as_bytes(), body].concat()
}

/// The head of a response whose length is not known: the end of the connection is the end of the body.
#[must_use]
pub(super) fn head_of_parts(status: &str, fields: &[(&str, &str)]) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{}Connection: close\r\n\r\n",
        lines_of(fields)
    )
}

/// Header fields, each on a line.
fn lines_of(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter();
    fields
        .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
        .collect()
}

/// The response that changes to the WebSocket protocol, with the subprotocol that was chosen.
#[must_use]
pub(super) fn switching_protocols(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{}\r\n",
        accept_key(key),
        protocol.unwrap_or_default()
    );
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: server.example.com:80\r\n\
        Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn handshake_of_the_rfc_is_understood_and_answered() {
        let request = parse(HANDSHAKE.as_bytes()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("GET", "/chat")
        );
        assert_eq!(request.query, "x=1");
        assert_eq!(request.host.as_deref(), Some("server.example.com:80"));
        assert_eq!(request.origin.as_deref(), Some("http://example.com"));
        let upgrade = request.upgrade.unwrap();
        assert_eq!(upgrade.protocols, ["chat", "superchat"]);
        assert!(upgrade.is_version_13);
        // RFC 6455, 1.3.
        let key = upgrade.key.unwrap();
        assert_eq!(accept_key(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answer = String::from_utf8(switching_protocols(&key, Some("chat"))).unwrap();
        assert!(
            answer.ends_with("\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn end_of_a_head_is_found_however_it_was_cut() {
        let bytes = HANDSHAKE.as_bytes();
        for seen in 0..bytes.len() {
            assert_eq!(head_len(&bytes[..seen], 0), None);
            assert_eq!(head_len(bytes, seen), Some(bytes.len()), "{seen}");
        }
        let more = [bytes, b"more"].concat();
        assert_eq!(head_len(&more, 0), Some(bytes.len()));
    }

    #[test]
    fn handshake_with_anything_missing_or_twice_is_none() {
        let changed = |from: &str, to: &str| {
            assert!(HANDSHAKE.contains(from));
            parse(HANDSHAKE.replace(from, to).as_bytes())
        };
        for (from, to) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("GET /", "GET  /"),
            ("Host: server", "Host: other\r\nHost: server"),
            ("Origin: ", "Origin: http://evil.example\r\nOrigin: "),
            ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"),
            ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            assert_eq!(changed(from, to), Err(BadRequest), "{to}");
        }
        assert_eq!(changed("Upgrade: WebSocket\r\n", "").unwrap().upgrade, None);
        assert_eq!(
            changed("keep-alive, Upgrade", "close").unwrap().upgrade,
            None
        );
        let upgrade = |from, to| changed(from, to).unwrap().upgrade.unwrap();
        assert_eq!(
            upgrade("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==").key,
            None
        );
        assert!(!upgrade("Version: 13", "Version: 8").is_version_13);
    }

    #[test]
    fn forwarded_addresses_of_all_fields_are_one_list() {
        let head = HANDSHAKE.replace(
            "Origin: ",
            "X-Forwarded-For: 192.0.2.1,unknown\r\nx-forwarded-for:  ::1 \r\nOrigin: ",
        );
        let entries = parse(head.as_bytes()).unwrap().forwarded_for;
        let entries: Vec<_> = entries.iter().map(|entry| entry.trim()).collect();
        assert_eq!(entries, ["192.0.2.1", "unknown", "::1"]);
        assert!(
            parse(HANDSHAKE.as_bytes())
                .unwrap()
                .forwarded_for
                .is_empty()
        );
        let head =
            [b"GET / HTTP/1.1\r\nX-Forwarded-For: \xff, 192.0.2.1\r\n\r\n".as_slice()].concat();
        assert_eq!(parse(&head).unwrap().forwarded_for[1], " 192.0.2.1");
    }

    #[test]
    fn host_is_what_stands_before_the_port() {
        for (authority, host) in [
            ("localhost:1235", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:1235", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("localhost:", "localhost"),
            ("127.0.0.1:80; more", "127.0.0.1:80; more"),
            ("[::1]; more", "[::1]; more"),
            ("[::1", "[::1"),
        ] {
            assert_eq!(host_without_port(authority), host);
        }
    }
}
