//! Members behind nginx, Caddy and HAProxy, with the configurations of `docs/operations.md`, and behind HAProxy before
//! two relays, with that of `docs/scaling.md`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::common::engine::Engine;
use crate::common::process::{Relay, chatloop, run, wait_for};
use crate::common::{PATIENCE, assert_bytes, delivery, frame, skip};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const SCALING: &str = include_str!("../../docs/scaling.md");
const PAGE: &str = include_str!("../../src/server/web/page.html");

/// The name under which browsers reach the relay.
const NAME: &str = "chat.example.org";

/// Where the clients are, as their proxy sees them.
const BROWSER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const TERMINAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);

/// The proxies' timeout in these tests, in seconds, in place of the minute that they have elsewhere.
const PROXY_TIMEOUT: u32 = 3;

/// How many heartbeats of a relay with `--ws-heartbeat 1s` take longer than that.
const HEARTBEATS: usize = 5;

const TEXT: u8 = 0x81;
/// A Pong frame that answers no ping.
const HEARTBEAT: [u8; 2] = [0x8a, 0];

/// The fenced block of this language in a document.
fn documented(language: &str, document: &str) -> String {
    let fence = format!("```{language}\n");
    let mut blocks = document.split(&*fence).skip(1);
    let block = blocks.next().unwrap().split("```").next().unwrap();
    assert!(blocks.next().is_none(), "one block of {language}");
    block.to_owned()
}

/// A configuration with parts exchanged, each of which stands in it once.
#[track_caller]
fn changed(config: &str, changes: &[(&str, &str)]) -> String {
    changes
        .iter()
        .fold(config.to_owned(), |config, (from, to)| {
            assert_eq!(config.matches(from).count(), 1, "{from} in {config}");
            config.replace(from, to)
        })
}

/// A running proxy. It has an address of its own, so that no other program takes its ports.
struct Proxy {
    child: Child,
    folder: PathBuf,
    /// Where browsers come in.
    web: SocketAddr,
    /// Where `chat10` members come in, if it lets them in.
    chat10: SocketAddr,
}

impl Proxy {
    /// Starts `program` with the configuration for these two addresses. None, and a line that says so, if it is
    /// not installed.
    fn start(
        program: &str,
        word: &str,
        args: &[&str],
        configure: impl FnOnce(SocketAddr, SocketAddr) -> String,
    ) -> Option<Self> {
        static COUNT: AtomicU8 = AtomicU8::new(77);
        let [.., high, low] = process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, COUNT.fetch_add(1, Ordering::Relaxed), high, low);
        // They are free now, and nothing else takes ports of this address.
        let [web, chat10] = [(); 2].map(|()| TcpListener::bind((ip, 0)).unwrap());
        let free = [web, chat10].map(|listener| listener.local_addr().unwrap());
        let [web, chat10] = free;
        let name = format!("chatloop-{}-{program}-{word}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config"), configure(web, chat10)).unwrap();
        let child = Command::new(program)
            .args(args)
            .current_dir(&folder)
            .env("XDG_CONFIG_HOME", &folder)
            .env("XDG_DATA_HOME", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("errors")).unwrap())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::remove_dir_all(&folder).unwrap();
                skip(&format!("{program} is not installed"));
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let mut proxy = Self {
            child,
            folder,
            web,
            chat10,
        };
        wait_for(&format!("{program} to listen"), || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                let errors = fs::read_to_string(proxy.folder.join("errors"));
                panic!("{program} has ended, {status}: {}", errors.unwrap());
            }
            TcpStream::connect(proxy.web).is_ok()
        });
        Some(proxy)
    }

    fn nginx(word: &str, relay: &Relay) -> Option<Self> {
        let relay = relay.addr_of("ws").to_string();
        let args = ["-p", ".", "-c", "config", "-e", "errors"];
        Self::start("nginx", word, &args, |web, _| {
            let server = changed(
                &documented("nginx", OPERATIONS),
                &[
                    ("listen 80;", &format!("listen {web};")),
                    ("127.0.0.1:1235", &relay),
                    (
                        "read_timeout 60s",
                        &format!("read_timeout {PROXY_TIMEOUT}s"),
                    ),
                ],
            );
            // Each path is in the folder of this proxy.
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {kind};"))
                .join("\n");
            // A master would outlive its test.
            format!(
                "daemon off;\nmaster_process off;\npid pid;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temporary}\n{server}}}\n"
            )
        })
    }

    fn caddy(word: &str, relay: &Relay) -> Option<Self> {
        let relay = relay.addr_of("ws").to_string();
        let args = ["run", "--adapter", "caddyfile", "--config", "config"];
        Self::start("caddy", word, &args, |web, _| {
            // Without certificates, and with the timeout that it does not have otherwise.
            let site = format!("http://{NAME}:{} {{\n\tbind {}\n", web.port(), web.ip());
            let timeout = format!(" {{\ntransport http {{\nread_timeout {PROXY_TIMEOUT}s\n}}\n}}");
            let site = changed(
                &documented("caddyfile", OPERATIONS),
                &[
                    (&format!("{NAME} {{\n"), &site),
                    ("127.0.0.1:1235", &format!("{relay}{timeout}")),
                ],
            );
            format!("{{\n\tadmin off\n}}\n{site}")
        })
    }

    fn haproxy(word: &str, relay: &Relay) -> Option<Self> {
        let (ws, chat10) = (relay.addr_of("proxy+ws"), relay.addr_of("proxy+chat10"));
        let (ws, chat10) = (ws.to_string(), chat10.to_string());
        Self::start("haproxy", word, &["-db", "-f", "config"], |web, members| {
            let timeout = |side| (format!("{side} 60s"), format!("{side} {PROXY_TIMEOUT}s"));
            let (client, server) = (timeout("client"), timeout("server"));
            changed(
                &documented("haproxy", OPERATIONS),
                &[
                    ("bind :80", &format!("bind {web}")),
                    ("bind :1234", &format!("bind {members}")),
                    ("127.0.0.1:1235", &ws),
                    ("127.0.0.1:1236", &chat10),
                    (&client.0, &client.1),
                    (&server.0, &server.1),
                ],
            )
        })
    }

    /// HAProxy before two relays.
    fn haproxy_before(relays: [&Relay; 2]) -> Option<Self> {
        let addrs = relays.map(|relay| {
            ["proxy+ws", "proxy+chat10"].map(|dialect| relay.addr_of(dialect).to_string())
        });
        let [[east_ws, east], [west_ws, west]] = addrs;
        let args = ["-db", "-f", "config"];
        Self::start("haproxy", "relays", &args, |web, members| {
            changed(
                &documented("haproxy", SCALING),
                &[
                    ("bind :80", &format!("bind {web}")),
                    ("bind :1234", &format!("bind {members}")),
                    ("10.0.0.1:1235", &east_ws),
                    ("10.0.0.1:1236", &east),
                    ("10.0.0.2:1235", &west_ws),
                    ("10.0.0.2:1236", &west),
                ],
            )
        })
    }

    /// The `Host` that browsers send.
    fn host(&self) -> String {
        format!("{NAME}:{}", self.web.port())
    }

    /// Sends a request that a browser sends, with these fields besides.
    fn request(&self, fields: &str) -> TcpStream {
        let mut stream = connect(BROWSER, self.web);
        // The address that this states is the client's invention.
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 198.51.100.1\r\n{fields}\r\n",
            self.host()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Sends a WebSocket handshake from a page of this origin, and returns what the head of the response is.
    fn handshake(&self, origin: &str) -> (TcpStream, String) {
        let mut stream = self.request(&format!(
            "Origin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        ));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        (stream, String::from_utf8(head).unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A connection from one address of this machine to another.
fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[track_caller]
fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_bytes(&received, expected);
}

/// A browser that has sent its name.
struct Browser(TcpStream);

impl Browser {
    #[track_caller]
    fn enter(proxy: &Proxy, name: &str) -> Self {
        let (stream, head) = proxy.handshake(&format!("http://{}", proxy.host()));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let accept = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
        assert!(head.to_ascii_lowercase().contains(accept), "{head}");
        let mut browser = Self(stream);
        browser.send(TEXT, name.as_bytes());
        let hello = browser.receive();
        assert!(hello.starts_with(r#"{"hello":"#), "{hello}");
        browser
    }

    /// Sends a frame, with a mask of zeros.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            len @ ..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).unwrap();
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next text, behind any heartbeats.
    #[track_caller]
    fn receive(&mut self) -> String {
        loop {
            let start = self.take(2);
            if start == HEARTBEAT {
                continue;
            }
            assert_eq!(start[0], TEXT, "{start:?}");
            let len = match start[1] {
                126 => u64::from(u16::from_be_bytes(self.take(2).try_into().unwrap())),
                127 => u64::from_be_bytes(self.take(8).try_into().unwrap()),
                len => u64::from(len),
            };
            return String::from_utf8(self.take(len as usize)).unwrap();
        }
    }

    /// Waits for so many heartbeats.
    #[track_caller]
    fn expect_heartbeats(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.take(2), HEARTBEAT);
        }
    }

    /// Receives exactly this message next, at whatever time.
    #[track_caller]
    fn expect(&mut self, name: &str, message: &str) {
        let received = self.receive();
        let (time, rest) = received.split_at("{'time':'2026-11-28T02:42:20.283Z'".len());
        assert!(time.starts_with(r#"{"time":""#), "{time}");
        let expected = format!(r#","name":"{name}","message":"{message}"}}"#);
        assert_bytes(rest.as_bytes(), expected.as_bytes());
    }
}

/// A relay that trusts this machine, with heartbeats at this interval.
fn start_relay(listeners: &[&str], heartbeat: &str) -> Relay {
    let mut command = chatloop(&["serve", "--trust-proxy", "127.0.0.1", "--ws-host", NAME]);
    command.args(["--ws-heartbeat", heartbeat, "--history", "0"]);
    for listener in listeners {
        command.args(["--listen", &format!("{listener}://127.0.0.1:0")]);
    }
    Relay::spawn(command)
}

/// A member whose address is its own.
#[track_caller]
fn join(relay: &mut Relay, addr: SocketAddr, name: &str) -> TcpStream {
    let mut member = connect(TERMINAL, addr);
    member.write_all(&frame(name)).unwrap();
    let line = relay.log_line(&format!("joined: \"{name}\""));
    let addr = member.local_addr().unwrap();
    assert!(line.contains(&format!("\"{name}\" {addr},")), "{line}");
    member
}

/// A browser and a member with a plain socket talk.
#[track_caller]
fn converse(browser: &mut Browser, member: &mut TcpStream) {
    let long = "x".repeat(200_000);
    for text in ["hello", "Zo\u{eb} \u{1f600}", "", &long] {
        browser.send(TEXT, text.as_bytes());
        assert_eq!(browser.receive(), r#"{"ack":1}"#);
        expect(member, &delivery("bob", text));
        member.write_all(&frame(text)).unwrap();
        browser.expect("alice", text);
    }
}

/// Everything that a browser behind a proxy needs. `member` is one behind nothing, or behind the same proxy.
fn assert_browsers_are_served(relay: &mut Relay, proxy: &Proxy, member: &mut TcpStream) {
    let mut response = String::new();
    let mut page = proxy.request("Connection: close\r\n");
    page.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains(&format!("ws://{}", proxy.host())), "{head}");
    assert!(body == PAGE, "another page: {body}");

    let (_, head) = proxy.handshake("http://evil.example");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let line = relay.log_line("refused:");
    assert!(line.contains(&format!("{BROWSER}:")), "{line}");

    let mut browser = Browser::enter(proxy, "bob");
    let line = relay.log_line("joined: \"bob\"");
    assert!(line.contains(&format!("\"bob\" {BROWSER}:")), "{line}");
    relay.signal("USR1");
    let line = relay.log_line("ws ");
    assert!(line.starts_with(&format!("{BROWSER}:")), "{line}");
    assert!(line.ends_with("\"bob\""), "{line}");

    converse(&mut browser, member);
    browser.expect_heartbeats(HEARTBEATS);
    converse(&mut browser, member);
    drop(browser);
    relay.log_line("left: \"bob\"");
    let refused = |line: &&String| line.starts_with("refused:");
    let refused: Vec<_> = relay.lines.iter().filter(refused).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
}

/// The proxy closes a connection that is silent, so that silence was a test.
fn assert_silence_is_closed(relay: &mut Relay, proxy: &Proxy) {
    let mut browser = Browser::enter(proxy, "bob");
    relay.log_line("joined: \"bob\"");
    let mut rest = Vec::new();
    // How the proxy does that is its own.
    let _ = browser.0.read_to_end(&mut rest);
    assert!(!rest.contains(&TEXT), "{rest:?}");
    let line = relay.log_line("\"bob\"");
    assert!(!line.contains("joined"), "{line}");
}

// What the relay says of its configuration, and of its proxies'.

#[test]
fn listener_for_proxies_needs_a_proxy_to_trust() {
    let listen = "proxy+chat10://127.0.0.1:0";
    let (code, out, err) = run(&mut chatloop(&["serve", "--listen", listen]));
    let says = format!(
        "chatloop: --listen {listen} needs --trust-proxy with the address of the proxy, since no other peer \
         may connect there\n"
    );
    assert_eq!((code, out.as_str(), err), (2, "", says));
    for value in ["localhost", "10.0.0.0/33", "127.0.0.1:80"] {
        let (code, _, err) = run(&mut chatloop(&["serve", "--trust-proxy", value]));
        let says = format!(
            "error: invalid value '{value}' for '--trust-proxy <ADDR[/PREFIX]>': not an IP address or network; \
             write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32\n"
        );
        assert_eq!(code, 2);
        assert!(err.starts_with(&says), "{err}");
    }
}

#[test]
fn listener_for_proxies_is_shown_as_one_and_not_as_an_address_for_clients() {
    let mut relay = start_relay(&["proxy+ws", "proxy+chat10"], "off");
    let line = relay.lines[0].clone();
    assert!(line.contains(" listens on proxy+ws://127.0.0.1:"), "{line}");
    assert!(line.contains(", proxy+chat10://127.0.0.1:"), "{line}");
    relay.signal("TERM");
    let (code, rest) = relay.wait();
    assert_eq!(code, 0);
    assert!(!rest.contains("open http:"), "{rest}");
}

#[test]
fn proxy_that_is_configured_otherwise_is_warned_of_with_what_to_do() {
    let mut relay = start_relay(&["proxy+chat10", "chat10", "ws"], "off");
    let close = |mut stream: TcpStream, bytes: &[u8]| {
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let proxied = relay.addr_of("proxy+chat10");
    close(connect(Ipv4Addr::LOCALHOST, proxied), &frame("alice"));
    let line = relay.log_line("refused:");
    assert!(
        line.ends_with(
            ": sent no header of the PROXY protocol (for clients without a proxy: --listen without proxy+)"
        ),
        "{line}"
    );
    let mut relay = start_relay(&["proxy+chat10", "chat10", "ws"], "off");
    close(connect(TERMINAL, relay.addr_of("proxy+chat10")), b"");
    let line = relay.log_line("refused:");
    assert!(
        line.ends_with(
            ": no trusted proxy, and only those may connect here (limit: --trust-proxy)"
        ),
        "{line}"
    );
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.1 1 2\r\n";
    close(connect(TERMINAL, relay.addr), header);
    let line = relay.log_line("closed:");
    assert!(
        line.contains("(a proxy? its listener is proxy+chat10://)"),
        "{line}"
    );
    close(connect(TERMINAL, relay.addr_of("ws")), header);
    let line = relay.log_line("refused:");
    assert!(
        line.ends_with(": sent a header of the PROXY protocol (expect it: --listen proxy+ws://)"),
        "{line}"
    );
}

// Behind the proxies themselves.

#[test]
fn browsers_behind_nginx_have_their_addresses_and_outlast_its_timeout() {
    let listeners = ["ws", "chat10"];
    let mut relay = start_relay(&listeners, "1s");
    let Some(proxy) = Proxy::nginx("heartbeats", &relay) else {
        return;
    };
    let addr = relay.addr_of("chat10");
    let mut alice = join(&mut relay, addr, "alice");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut relay = start_relay(&listeners, "off");
            let proxy = Proxy::nginx("silent", &relay).unwrap();
            assert_silence_is_closed(&mut relay, &proxy);
        });
        assert_browsers_are_served(&mut relay, &proxy, &mut alice);
    });
}

#[test]
fn browsers_behind_caddy_have_their_addresses_and_outlast_its_timeout() {
    let listeners = ["ws", "chat10"];
    let mut relay = start_relay(&listeners, "1s");
    let Some(proxy) = Proxy::caddy("heartbeats", &relay) else {
        return;
    };
    let addr = relay.addr_of("chat10");
    let mut alice = join(&mut relay, addr, "alice");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut relay = start_relay(&listeners, "off");
            let proxy = Proxy::caddy("silent", &relay).unwrap();
            assert_silence_is_closed(&mut relay, &proxy);
        });
        assert_browsers_are_served(&mut relay, &proxy, &mut alice);
    });
}

#[test]
fn members_of_two_dialects_behind_haproxy_have_their_addresses_and_outlast_its_timeout() {
    let listeners = ["proxy+ws", "proxy+chat10"];
    let mut relay = start_relay(&listeners, "1s");
    let Some(proxy) = Proxy::haproxy("heartbeats", &relay) else {
        return;
    };
    let mut alice = join(&mut relay, proxy.chat10, "alice");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut relay = start_relay(&listeners, "off");
            let proxy = Proxy::haproxy("silent", &relay).unwrap();
            assert_silence_is_closed(&mut relay, &proxy);
        });
        assert_browsers_are_served(&mut relay, &proxy, &mut alice);
    });
}

#[test]
fn members_behind_haproxy_chat_though_they_are_at_two_relays() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let [mut east, mut west] = ["east", "west"].map(|node| {
        let url = engine.url();
        let proxy = ["--trust-proxy", "127.0.0.0/8", "--ws-host", NAME];
        let bus = ["--bus", &url, "--bus-node", node];
        let mut relay = Relay::serving(&["proxy+ws", "proxy+chat10"], &[proxy, bus].concat());
        relay.log_line("bus: connected to");
        relay
    });
    let Some(proxy) = Proxy::haproxy_before([&east, &west]) else {
        return;
    };
    // The second one comes to the relay that has fewer members.
    let mut alice = join(&mut east, proxy.chat10, "alice");
    let mut bob = join(&mut west, proxy.chat10, "bob");
    for (from, name, to) in [(0, "alice", 1), (1, "bob", 0)] {
        let members = [&mut alice, &mut bob];
        members[from].write_all(&frame("hello")).unwrap();
        let expected = delivery(name, "hello");
        let mut got = vec![0; expected.len()];
        members[to].read_exact(&mut got).unwrap();
        assert_bytes(&got, &expected);
    }
}
