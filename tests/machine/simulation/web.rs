//! WebSocket and its handshake, as the peers write them and as the model expects the answers.
//!
//! Nothing here is the relay's. Requests and their answers are written out. Frames have a parser, and JSON has
//! a writer, of their own.

use std::sync::OnceLock;

use chatloop::relay::Limits;
use chatloop::wire::Dialect;

pub const CONTINUED: u8 = 0x80;
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The longest payload of a control frame, in bytes.
const MAX_CONTROL: usize = 125;

/// The longest head of a request, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// The longest message of a tunnel, at the least, in bytes.
const MIN_TUNNEL_MESSAGE: usize = 1024 * 1024;

/// A host and an origin that the server is configured to allow.
pub const ALLOWED_HOST: &str = "chat.example";
pub const ALLOWED_ORIGIN: &str = "https://page.example";

/// Stands for any byte in the head of an expected response. The page's hashes have a test of their own.
const ANY: u8 = 0;

/// The page.
const PAGE: &str = include_str!("../../../src/server/web/page.html");

/// Whether connections of this dialect begin with a handshake in HTTP.
pub const fn is_web_socket(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Ws | Dialect::WsChat10 | Dialect::WsEcho)
}

/// Whether connections of this dialect begin with a request in HTTP.
pub const fn begins_with_http(dialect: Dialect) -> bool {
    is_web_socket(dialect) || matches!(dialect, Dialect::Metrics)
}

// Requests.

/// A request for the relay's health.
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n";

/// A request that a peer may send, and what the server must answer.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Vec<u8>,
    pub answer: Answer,
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The connection becomes a WebSocket connection of this dialect, if the response is accepted in one write.
    Upgrade(Dialect, Vec<u8>),
    /// A response that is delivered however long its peer takes.
    Whole(Vec<u8>),
    /// A refusal, of which only as much is sent as one write accepts.
    AtOnce(Vec<u8>),
}

/// The requests that a peer may send to a listener of this dialect. The handshakes that succeed come first.
pub fn requests(listener: Dialect) -> &'static [Request] {
    static ALL: OnceLock<[Vec<Request>; 3]> = OnceLock::new();
    static OF_METRICS: OnceLock<Vec<Request>> = OnceLock::new();
    if listener == Dialect::Metrics {
        return OF_METRICS.get_or_init(requests_for_metrics);
    }
    let dialects = [Dialect::Ws, Dialect::WsChat10, Dialect::WsEcho];
    let index = dialects.iter().position(|&one| one == listener);
    &ALL.get_or_init(|| dialects.map(all_requests))[index.expect("a WebSocket listener")]
}

/// The requests to a listener for metrics. That for the metrics themselves is not among them: the process's
/// own figures are in the response, and differ each time.
fn requests_for_metrics() -> Vec<Request> {
    let long = HEALTH.replace("Host", &"X".repeat(MAX_HEAD));
    let refused = |status| Answer::AtOnce(response(status, "", ""));
    let all = [
        (
            HEALTH.to_owned(),
            Answer::Whole(response("200 OK", "", "ok\n")),
        ),
        (
            HEALTH.replace("/healthz", "/"),
            Answer::Whole(response(
                "404 Not Found",
                "",
                "here are /metrics and /healthz\n",
            )),
        ),
        (
            HEALTH.replace("GET", "PUT"),
            Answer::Whole(response("405 Method Not Allowed", "Allow: GET\r\n", "")),
        ),
        (
            HEALTH.replace("HTTP/1.1", "HTTP/1.0"),
            refused("400 Bad Request"),
        ),
        (long, refused("431 Request Header Fields Too Large")),
    ];
    let request = |(head, answer): (String, _)| Request {
        head: head.into_bytes(),
        answer,
    };
    all.map(request).to_vec()
}

/// How many of the first requests to this listener are handshakes that succeed.
pub fn handshakes(listener: Dialect) -> usize {
    let is_handshake = |one: &&Request| matches!(one.answer, Answer::Upgrade(..));
    requests(listener).iter().take_while(is_handshake).count()
}

fn all_requests(listener: Dialect) -> Vec<Request> {
    const HOST: &str = "192.0.2.1:1235";
    let request = |head: String, answer| Request {
        head: head.into_bytes(),
        answer,
    };
    let handshake = |host: &str, path: &str, fields: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: keep-alive, \
             Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: \
             13\r\n{fields}\r\n"
        )
    };
    // The key and its answer are those of RFC 6455, 1.3.
    let upgrade = |dialect, fields: &str| {
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{fields}\r\n"
        );
        Answer::Upgrade(dialect, response.into_bytes())
    };
    let (chat10, json) = (
        "Sec-WebSocket-Protocol: chat10\r\n",
        "Sec-WebSocket-Protocol: chatloop.json\r\n",
    );
    let offers_json = "Sec-WebSocket-Protocol: other, chatloop.json, chat10\r\n";
    let foreign_host = handshake("evil.example", "/", "");
    let foreign_origin = handshake(HOST, "/", "Origin: https://evil.example\r\n");
    let plain = handshake(HOST, "/", "");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let refused = |status| Answer::AtOnce(response(status, "", ""));
    let nothing = || response("404 Not Found", "", "there is nothing here\n");
    let mut all = vec![request(plain.clone(), upgrade(listener, ""))];
    match listener {
        Dialect::Ws => all.extend([
            request(
                handshake(HOST, "/", chat10),
                upgrade(Dialect::WsChat10, chat10),
            ),
            request(
                handshake(HOST, "/chat?room=1", offers_json),
                upgrade(listener, json),
            ),
        ]),
        Dialect::WsChat10 => all.push(request(
            handshake(HOST, "/", offers_json),
            upgrade(listener, chat10),
        )),
        _ => all.push(request(
            handshake(HOST, "/", offers_json),
            upgrade(listener, ""),
        )),
    }
    let own_origin = format!("Origin: http://{HOST}\r\n");
    let allowed_origin = format!("Origin: {ALLOWED_ORIGIN}\r\n");
    all.extend([
        request(handshake(HOST, "/", &own_origin), upgrade(listener, "")),
        request(handshake(HOST, "/", &allowed_origin), upgrade(listener, "")),
        request(handshake(ALLOWED_HOST, "/", ""), upgrade(listener, "")),
        request(handshake("localhost", "/", ""), upgrade(listener, "")),
    ]);
    let page = match listener {
        Dialect::Ws => page_response(HOST),
        _ => nothing(),
    };
    let version = "Sec-WebSocket-Version: 13\r\n";
    let long = format!("X: {}\r\n", "x".repeat(MAX_HEAD));
    all.extend([
        request(get("/"), Answer::Whole(page)),
        request(
            get("/favicon.ico"),
            Answer::Whole(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()),
        ),
        request(get("/nothing"), Answer::Whole(nothing())),
        request(foreign_host, refused("403 Forbidden")),
        request(foreign_origin, refused("403 Forbidden")),
        request(
            plain.replace("Version: 13", "Version: 8"),
            Answer::Whole(response("426 Upgrade Required", version, "")),
        ),
        request(
            plain.replace("IHNhbXBsZSBub25jZQ==", ""),
            refused("400 Bad Request"),
        ),
        request(
            plain.replace("GET", "POST"),
            Answer::Whole(response("405 Method Not Allowed", "Allow: GET\r\n", "")),
        ),
        request(
            plain.replace("HTTP/1.1", "HTTP/1.0"),
            refused("400 Bad Request"),
        ),
        request(
            "5         alice\r\n\r\n".to_owned(),
            refused("400 Bad Request"),
        ),
        request(
            handshake(HOST, "/", &long),
            refused("431 Request Header Fields Too Large"),
        ),
    ]);
    all
}

/// What a server, which stops or not, must answer a request that has come in these bytes; `None` if there is
/// more to come.
pub fn answer(listener: Dialect, received: &[u8], is_stopping: bool) -> Option<Answer> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n");
    let refused = |status| Some(Answer::AtOnce(response(status, "", "")));
    match end.map(|at| at + 4) {
        Some(len) if len > MAX_HEAD => refused("431 Request Header Fields Too Large"),
        // A client waits for the answer before it sends a frame.
        Some(len) if len < received.len() => refused("400 Bad Request"),
        Some(_) if is_stopping && received == HEALTH.as_bytes() => Some(Answer::Whole(response(
            "503 Service Unavailable",
            "",
            "stopping\n",
        ))),
        Some(_) => {
            let known = requests(listener).iter();
            let request = known.clone().find(|request| request.head == received);
            Some(request.expect("a request that peers send").answer.clone())
        }
        None if received.len() > MAX_HEAD => refused("431 Request Header Fields Too Large"),
        None => None,
    }
}

fn response(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {len}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn page_response(host: &str) -> Vec<u8> {
    let hash = "\0".repeat(44);
    let version = chatloop_version();
    let fields = format!(
        "Content-Type: text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'; \
         script-src 'sha256-{hash}'; style-src 'sha256-{hash}'; connect-src 'self' ws://{host} \
         wss://{host}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: \
         no-referrer\r\nCache-Control: no-cache\r\nETag: \"{version}-sha256-{hash}\"\r\n"
    );
    response("200 OK", &fields, PAGE)
}

/// Whether a response goes on so. A byte of it that is [`ANY`] may be any.
pub fn goes_on(expected: &[u8], bytes: &[u8]) -> bool {
    let is_as_expected = |(byte, expected): (&u8, &u8)| byte == expected || *expected == ANY;
    bytes.len() <= expected.len() && bytes.iter().zip(expected).all(is_as_expected)
}

// Frames.

/// A frame of a server.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(len as u8),
        len @ ..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A frame of a client.
pub fn client_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = server_frame(first, payload);
    let header = frame.len() - payload.len();
    frame[1] |= 0x80;
    let masked = payload.iter().zip(key.iter().cycle());
    let masked: Vec<_> = masked.map(|(byte, key)| byte ^ key).collect();
    frame.truncate(header);
    frame.extend_from_slice(&key);
    frame.extend_from_slice(&masked);
    frame
}

/// A server's Close frame.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    server_frame(
        CLOSE,
        &[&code.to_be_bytes()[..], reason.as_bytes()].concat(),
    )
}

/// Whether a server that writes this ends a connection for a reason of its own. It returns a client's Close
/// frame without a text.
pub fn is_own_close(bytes: &[u8]) -> bool {
    matches!(bytes, [CLOSE, len, rest @ ..] if usize::from(*len) == rest.len() && rest.len() > 2)
}

/// What a client has sent, once it is whole.
#[derive(Debug)]
pub enum Item {
    Message {
        is_text: bool,
        payload: Vec<u8>,
    },
    Ping(Vec<u8>),
    Pong,
    /// With the status code, or nothing.
    Close(Vec<u8>),
}

/// What a client has sent that is not whole yet.
#[derive(Debug, Default)]
pub struct ClientStream {
    bytes: Vec<u8>,
    /// How many of them were used up.
    used: usize,
    /// The fragments so far of a message, and whether it is text.
    message: Option<(bool, Vec<u8>)>,
}

impl ClientStream {
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the client stands inside a frame or a message.
    pub fn is_inside(&self) -> bool {
        self.used < self.bytes.len() || self.message.is_some()
    }

    /// Whether a message has fragments, and more of them must follow.
    pub const fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// How many bytes are not whole.
    pub fn len(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
        self.bytes.len() - self.used + message
    }

    /// The next item of messages that may be so long; or the status code with which the connection must be
    /// closed, as soon as its bytes show that.
    pub fn next(&mut self, max: usize) -> Result<Option<Item>, u16> {
        loop {
            let bytes = &self.bytes[self.used..];
            let Some(&first) = bytes.first() else {
                return Ok(None);
            };
            let (is_final, opcode) = (first & 0x80 != 0, first & 0xf);
            let is_control = opcode >= 8;
            let is_allowed = match opcode {
                0 => self.message.is_some(),
                1 | 2 => self.message.is_none(),
                8..=10 => is_final,
                _ => false,
            };
            if first & 0x70 != 0 || !is_allowed {
                return Err(1002);
            }
            let Some(&second) = bytes.get(1) else {
                return Ok(None);
            };
            let short = usize::from(second & 0x7f);
            if second & 0x80 == 0 || (is_control && short > MAX_CONTROL) {
                return Err(1002);
            }
            let extended = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let Some((header, rest)) = bytes.split_at_checked(2 + extended + 4) else {
                return Ok(None);
            };
            let (long, key) = header[2..].split_at(extended);
            let len = match extended {
                0 => short as u64,
                _ => long.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
            };
            let least = match extended {
                0 => 0,
                2 => 126,
                _ => 0x1_0000,
            };
            if len < least || len > i64::MAX as u64 {
                return Err(1002);
            }
            let before = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
            if !is_control && len.saturating_add(before as u64) > max as u64 {
                return Err(1009);
            }
            let Some(masked) = rest.get(..len as usize) else {
                return Ok(None);
            };
            let payload = masked.iter().zip(key.iter().cycle());
            let payload: Vec<u8> = payload.map(|(byte, key)| byte ^ key).collect();
            self.used += header.len() + payload.len();
            match opcode {
                8 => return close_item(&payload).map(Some),
                9 => return Ok(Some(Item::Ping(payload))),
                10 => return Ok(Some(Item::Pong)),
                _ => {}
            }
            let (is_text, message) = self.message.get_or_insert((opcode == 1, Vec::new()));
            message.extend(payload);
            if is_final {
                let (is_text, payload) = (*is_text, std::mem::take(message));
                self.message = None;
                if is_text && std::str::from_utf8(&payload).is_err() {
                    return Err(1007);
                }
                return Ok(Some(Item::Message { is_text, payload }));
            }
        }
    }
}

fn close_item(payload: &[u8]) -> Result<Item, u16> {
    let (code, reason) = match payload {
        [] => return Ok(Item::Close(Vec::new())),
        [_] => return Err(1002),
        [high, low, reason @ ..] => ([*high, *low], reason),
    };
    // RFC 6455, 7.4, and the registry that it began.
    if !matches!(u16::from_be_bytes(code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(1002);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(1007);
    }
    Ok(Item::Close(code.to_vec()))
}

/// Where a client stands in the frames of a server.
#[derive(Debug, Default)]
pub struct ServerStream {
    header: Vec<u8>,
    /// How much of the frame's payload is still to come.
    left: u64,
    /// A Close frame has begun.
    is_closing: bool,
}

impl ServerStream {
    /// Takes what a client has received.
    ///
    /// # Panics
    ///
    /// If that can be no server's frames, or if something comes behind a Close frame.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = bytes.len().min(self.left as usize);
                self.left -= taken as u64;
                bytes = &bytes[taken..];
                continue;
            }
            assert!(
                !self.is_closing || !self.header.is_empty(),
                "there are bytes behind a Close frame"
            );
            if self.header.is_empty() {
                assert!(
                    matches!(byte, TEXT | BINARY | CLOSE | PING | PONG),
                    "no server's frame begins with {byte:#x}"
                );
                self.is_closing = byte == CLOSE;
            }
            self.header.push(byte);
            bytes = rest;
            let Some(&short) = self.header.get(1) else {
                continue;
            };
            let extended = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let long = &self.header[2..];
            if long.len() == extended {
                let long = long.iter().fold(0, |len, &byte| len << 8 | u64::from(byte));
                self.left = if extended == 0 {
                    u64::from(short)
                } else {
                    long
                };
                self.header.clear();
            }
        }
    }

    /// Whether it stands between two frames.
    pub const fn is_between_frames(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }
}

/// The longest message of WebSocket that a client of this dialect may send where a message of the room may be
/// so long.
pub const fn max_message(dialect: Dialect, max: usize) -> usize {
    match dialect {
        // Where a message ends means nothing in a tunnel.
        Dialect::WsChat10 if max < MIN_TUNNEL_MESSAGE => MIN_TUNNEL_MESSAGE,
        _ => max,
    }
}

// JSON.

/// The frame with a message, as browsers receive it.
pub fn message_frame(time: &str, name: &[u8], message: &[u8]) -> Vec<u8> {
    let mut object = format!("{{\"time\":\"{time}\",");
    push_field("name", name, &mut object);
    object.push(',');
    push_field("message", message, &mut object);
    object.push('}');
    server_frame(TEXT, object.as_bytes())
}

/// The most that a message and a name of these lengths come to as an object in a frame.
pub const fn longest_message_frame(name: usize, message: usize) -> usize {
    // A control character takes six bytes, and two more in hexadecimal if other bytes are not UTF-8.
    8 * (name + message) + 128
}

fn push_field(key: &str, value: &[u8], object: &mut String) {
    use std::fmt::Write as _;
    let text = String::from_utf8_lossy(value);
    let _ = write!(object, "\"{key}\":\"");
    for char in text.chars() {
        let _ = match char {
            '"' | '\\' => write!(object, "\\{char}"),
            '\n' => write!(object, "\\n"),
            '\r' => write!(object, "\\r"),
            '\t' => write!(object, "\\t"),
            '\0'..' ' => write!(object, "\\u{:04x}", char as u32),
            _ => write!(object, "{char}"),
        };
    }
    object.push('"');
    if text.as_bytes() != value {
        let _ = write!(object, ",\"{key}_hex\":\"");
        for byte in value {
            let _ = write!(object, "{byte:02x}");
        }
        object.push('"');
    }
}

/// The first frame that a browser receives after the history.
pub fn hello(limits: &Limits) -> Vec<u8> {
    let (version, name, message) = (chatloop_version(), limits.max_name, limits.max_message);
    let object = format!(
        "{{\"hello\":{{\"version\":\"{version}\",\"maxName\":{name},\"maxMessage\":{message}}}}}"
    );
    server_frame(TEXT, object.as_bytes())
}

/// The version of the crate, whichever crate this file is built in.
fn chatloop_version() -> &'static str {
    let manifest = include_str!("../../../Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = \""));
    version
        .and_then(|rest| rest.split('"').next())
        .expect("a version")
}

/// What browsers receive when senders are paused, or are not any more.
pub fn pause_frame(is_paused: bool) -> Vec<u8> {
    let object = format!("{{\"paused\":{is_paused}}}");
    server_frame(TEXT, object.as_bytes())
}

/// A time of day in milliseconds since 1970, as messages carry it.
pub fn time_text(millis: u64) -> String {
    let (mut day, of_day) = (millis / 86_400_000, millis % 86_400_000);
    let is_leap = |year| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let day = day + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}
