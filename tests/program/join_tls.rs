//! `chatloop join tls://…` and `wss://…`: the client through TLS, and which servers it trusts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::common::chat_server::{Peer, ScriptedServer};
use crate::common::process::{Relay, chatloop, run};
use crate::common::python::has_python;
use crate::common::terminal::{Ended, Terminal};
use crate::common::tls::Authority;
use crate::common::{assert_bytes, delivery, frame};
use crate::join_pipe::Piped;
use crate::join_web::{end_of, lines};

/// The scratch folder of a test, with certificates in it. A client keeps the keys that are accepted there, and
/// knows no issuers.
struct Home(Authority);

impl Home {
    fn new() -> Self {
        Self(Authority::new())
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name).display().to_string()
    }

    fn known_hosts(&self) -> PathBuf {
        self.0.path("state/chatloop/known_hosts")
    }

    /// A client of a server under this scheme.
    fn join(&self, scheme: &str, addr: SocketAddr, more: &[&str]) -> Command {
        let server = format!("{scheme}://localhost:{}", addr.port());
        let mut command = chatloop(&[&["join", &server, "--name", "me"], more].concat());
        command
            .env("XDG_STATE_HOME", self.0.path("state"))
            .env("SSL_CERT_FILE", self.0.path("none"))
            .env("SSL_CERT_DIR", self.0.path("none"));
        command
    }

    /// A relay with the certificate of this name.
    fn relay(&self, name: &str, more: &[&str]) -> Relay {
        let (certificate, key) = (
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        );
        let flags = [&["--cert", &certificate, "--key", &key], more].concat();
        Relay::serving(&["chat10", "tls+chat10", "wss"], &flags)
    }

    /// The fingerprint of the key of this name, as OpenSSL computes it from the certificate.
    fn fingerprint(&self, name: &str) -> String {
        fingerprint(&self.0.path(&format!("{name}.crt")))
    }

    /// A server's side of TLS with the certificate of this name.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(self.0.path(&format!("{name}.crt")));
        let key = PrivateKeyDer::from_pem_file(self.0.path(&format!("{name}.key")));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.unwrap()], key.unwrap());
        Arc::new(config.unwrap())
    }
}

fn fingerprint(certificate: &Path) -> String {
    let script = "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform der | \
                  openssl dgst -sha256 -binary | openssl base64";
    let mut shell = Command::new("sh");
    let (code, out, err) = run(shell.args(["-c", script, "sh"]).arg(certificate));
    assert_eq!(code, 0, "{err}");
    format!("sha256:{}", out.trim())
}

type Secure = StreamOwned<ServerConnection, TcpStream>;

/// The server's side of a connection, which blocks.
fn secure(peer: Peer, config: &Arc<ServerConfig>) -> Secure {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    StreamOwned::new(connection, peer.stream)
}

#[track_caller]
fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_bytes(&received, expected);
}

/// Ends a terminal's client, which has joined.
#[track_caller]
fn leave(terminal: &mut Terminal) {
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

fn on_terminal(command: &Command) -> Terminal {
    Terminal::run(command, 24, 100)
}

// With the certificate that `chatloop cert` makes.

#[test]
fn made_certificate_is_asked_about_once_and_served_from_then_on() {
    let home = Home::new();
    let out = home.path("made");
    let (code, made, err) = run(&mut chatloop(&["cert", "--out", &out]));
    assert_eq!(code, 0, "{err}");
    let fingerprint = fingerprint(&home.0.path("made/chatloop.crt"));
    assert!(
        made.contains(&format!("fingerprint {fingerprint}\n")),
        "{made}"
    );
    let mut relay = home.relay("made/chatloop", &[]);
    let addr = relay.addr_of("tls+chat10");
    let mut ear = relay.join("ear");

    let mut first = on_terminal(&home.join("tls", addr, &[]));
    first.wait_for_text("Trust this key from now on? (yes/no) [no]:");
    let rows = first.rows().join("\n");
    assert!(rows.contains("localhost"), "{rows}");
    assert!(rows.contains("is from an unknown issuer"), "{rows}");
    assert!(rows.contains(&format!("\n  {fingerprint}\n")), "{rows}");
    first.send("what\n");
    first.wait_for_text("Type yes or no [no]:");
    first.send("yes\n");
    first.wait_for_text("-- connected to tls://");
    first.send("hello\r");
    expect(&mut ear, &delivery("me", "hello"));
    leave(&mut first);
    let known = fs::read_to_string(home.known_hosts()).unwrap();
    assert_eq!(known, format!("localhost:{} {fingerprint}\n", addr.port()));
    let permissions = fs::metadata(home.known_hosts()).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);

    let mut second = on_terminal(&home.join("tls", addr, &[]));
    second.wait_for_text("-- connected to tls://");
    leave(&mut second);
    assert!(!second.rows().join("\n").contains("Trust"));
    // Another port is another server.
    let mut other = on_terminal(&home.join("wss", relay.addr_of("wss"), &[]));
    other.wait_for_text("Trust this key");
    other.send("yes\n");
    other.wait_for_text("-- connected to wss://");
    leave(&mut other);
    assert_eq!(
        fs::read_to_string(home.known_hosts())
            .unwrap()
            .lines()
            .count(),
        2
    );
    // The authority is enough as well, and needs no file.
    let elsewhere = Home::new();
    let ca = home.path("made/chatloop-ca.crt");
    let client = Piped::start(&mut elsewhere.join("tls", addr, &["--ca", &ca]));
    assert_eq!(client.finish().0, 0);
    assert!(!elsewhere.known_hosts().exists());
}

#[test]
fn key_is_not_trusted_without_a_yes() {
    let home = Home::new();
    let relay = home.relay("server", &[]);
    for answer in ["no\n", "\n", "\x04"] {
        let mut terminal = on_terminal(&home.join("tls", relay.addr_of("tls+chat10"), &[]));
        terminal.wait_for_text("Trust this key");
        terminal.send(answer);
        assert_eq!(terminal.wait(), Ended::Code(7), "{answer:?}");
        let rows = terminal.rows().join("\n");
        assert!(rows.contains("is not trusted"), "{rows}");
        assert!(!home.known_hosts().exists());
    }
}

#[test]
fn unknown_key_is_refused_in_a_pipe_with_the_flag_that_accepts_it() {
    let home = Home::new();
    let mut relay = home.relay("server", &[]);
    let pin = home.fingerprint("server");
    for (scheme, dialect) in [("tls", "tls+chat10"), ("wss", "wss")] {
        let addr = relay.addr_of(dialect);
        let (code, notices) = end_of(Piped::start(&mut home.join(scheme, addr, &[])));
        assert_eq!((code, notices.lines().count()), (7, 1), "{notices}");
        let says = format!(
            "chatloop: {scheme}://localhost:{} is not trusted: its certificate is from an unknown issuer; \
             compare the fingerprint of its key with the server's, and add --pin {pin} if it is the same",
            addr.port()
        );
        assert!(notices.starts_with(&says), "{notices}");
        assert!(!home.known_hosts().exists());
        let mut client = Piped::start(&mut home.join(scheme, addr, &["--pin", &pin]));
        relay.log_line("joined: \"me\"");
        client.input = None;
        assert_eq!(client.finish().0, 0);
        let wrong = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let mut other = home.join(scheme, addr, &["--pin", wrong]);
        let (code, notices) = end_of(Piped::start(&mut other));
        assert_eq!(code, 7, "{notices}");
        let says = format!("its key is {pin}, which is not the one of --pin");
        assert!(notices.contains(&says), "{notices}");
        let mut both = home.join(scheme, addr, &["--pin", wrong, "--pin", &pin]);
        assert_eq!(Piped::start(&mut both).finish().0, 0);
    }
}

#[test]
fn changed_key_is_refused_with_both_fingerprints_and_the_line() {
    let home = Home::new();
    let relay = home.relay("server", &[]);
    let addr = relay.addr_of("tls+chat10");
    let (now, before) = (home.fingerprint("server"), home.fingerprint("ca"));
    let file = home.path("mine");
    let known = format!("# mine\nlocalhost:{} {before}\n", addr.port());
    fs::write(&file, known).unwrap();
    let mut command = home.join("tls", addr, &["--known-hosts", &file]);
    let (code, notices) = end_of(Piped::start(&mut command));
    assert_eq!((code, notices.lines().count()), (7, 1), "{notices}");
    let says = format!(
        "is not trusted: its key has changed: it is {now} now, and was {before}; that may be another server \
         in its place. If the server has a new key, remove line 2 of {file}"
    );
    assert!(notices.contains(&says), "{notices}");
    let mut terminal = on_terminal(&command);
    assert_eq!(terminal.wait(), Ended::Code(7));
    let rows = terminal.rows().concat();
    assert!(rows.contains("its key has changed"), "{rows}");
    assert!(!rows.contains("Trust this key"), "{rows}");
    // An issuer that the machine knows does not help.
    command.env("SSL_CERT_FILE", home.path("ca.crt"));
    let (code, notices) = end_of(Piped::start(&mut command));
    assert_eq!(code, 7, "{notices}");
    // A second key of the same server is fine.
    let known = format!("localhost:{0} {before}\nLOCALHOST:{0} {now}\n", addr.port());
    fs::write(&file, known).unwrap();
    assert_eq!(Piped::start(&mut command).finish().0, 0);
    fs::write(&file, "localhost\n").unwrap();
    let (code, notices) = end_of(Piped::start(&mut command));
    assert_eq!(code, 1, "{notices}");
    assert!(
        notices.contains("line 1 is not `HOST:PORT sha256:BASE64`"),
        "{notices}"
    );
}

#[test]
fn issuer_that_the_machine_knows_is_enough_for_a_valid_certificate_of_that_name() {
    let home = Home::new();
    let good = home.relay("server", &[]);
    let mut command = home.join("tls", good.addr_of("tls+chat10"), &[]);
    let client = Piped::start(command.env("SSL_CERT_FILE", home.path("ca.crt")));
    let (code, notices) = client.finish();
    assert_eq!(code, 0, "{notices}");
    assert!(!home.known_hosts().exists());

    let mut expired = CertificateParams::new(["localhost".to_owned()]).unwrap();
    expired.not_after = date_time_ymd(2020, 2, 3);
    let mut future = CertificateParams::new(["localhost".to_owned()]).unwrap();
    future.not_before = date_time_ymd(2099, 2, 3);
    let other = CertificateParams::new(["example.org".to_owned()]).unwrap();
    for (name, params, says) in [
        ("expired", expired, "its certificate has expired"),
        ("future", future, "its certificate is not valid yet"),
        ("other", other, "its certificate is for another name"),
    ] {
        home.0.issue(name, &params);
        let pin = home.fingerprint(name);
        // The relay itself would not use all of them.
        let server = ScriptedServer::new();
        let config = home.server(name);
        let ca = home.path("ca.crt");
        for more in [&[][..], &["--ca", &ca]] {
            let mut command = home.join("tls", server.addr(), more);
            command.env("SSL_CERT_FILE", &ca);
            let client = Piped::start(&mut command);
            let mut peer = secure(server.accept(), &config);
            assert!(peer.read(&mut [0]).is_err());
            let (code, notices) = end_of(client);
            assert_eq!((code, notices.lines().count()), (7, 1), "{notices}");
            assert!(notices.contains(says), "{notices}");
            assert_eq!(notices.contains("--pin"), more.is_empty(), "{notices}");
        }
        // Of a pinned key nothing of this matters.
        let client = Piped::start(&mut home.join("tls", server.addr(), &["--pin", &pin]));
        let mut peer = secure(server.accept(), &config);
        expect(&mut peer, &frame("me"));
        drop(client);
    }
}

#[test]
fn key_that_changes_before_a_reconnect_ends_the_client() {
    let home = Home::new();
    home.0.issue(
        "second",
        &CertificateParams::new(["localhost".to_owned()]).unwrap(),
    );
    let server = ScriptedServer::new();
    let known = format!(
        "localhost:{} {}\n",
        server.addr().port(),
        home.fingerprint("server")
    );
    fs::create_dir_all(home.known_hosts().parent().unwrap()).unwrap();
    fs::write(home.known_hosts(), known).unwrap();
    let mut terminal = on_terminal(&home.join("tls", server.addr(), &[]));
    for _ in 0..2 {
        let mut peer = secure(server.accept(), &home.server("server"));
        expect(&mut peer, &frame("me"));
        peer.conn.send_close_notify();
        peer.flush().unwrap();
    }
    terminal.send("unsent");
    let mut peer = secure(server.accept(), &home.server("second"));
    assert!(peer.read(&mut [0]).is_err());
    assert_eq!(terminal.wait(), Ended::Code(7));
    let rows = terminal.rows().concat();
    assert!(rows.contains("its key has changed"), "{rows}");
    assert!(rows.contains("not sent: unsent"), "{rows}");
}

#[test]
fn unknown_key_at_a_reconnect_is_not_asked_about() {
    let home = Home::new();
    home.0.issue(
        "other",
        &CertificateParams::new(["example.org".to_owned()]).unwrap(),
    );
    let server = ScriptedServer::new();
    let mut command = home.join("tls", server.addr(), &[]);
    command.env("SSL_CERT_FILE", home.path("ca.crt"));
    let mut terminal = on_terminal(&command);
    let mut peer = secure(server.accept(), &home.server("server"));
    expect(&mut peer, &frame("me"));
    terminal.wait_for_text("connected to tls://");
    drop(peer);
    let mut peer = secure(server.accept(), &home.server("other"));
    assert!(peer.read(&mut [0]).is_err());
    assert_eq!(terminal.wait(), Ended::Code(7));
    let rows = terminal.rows().concat();
    assert!(
        rows.contains("its certificate is for another name"),
        "{rows}"
    );
    assert!(!rows.contains("Trust this key"), "{rows}");
}

#[test]
fn client_certificate_is_shown_to_a_relay_that_demands_one() {
    let home = Home::new();
    let mut params = CertificateParams::new(["alice.example.org".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    home.0.issue("alice", &params);
    let ca = home.path("ca.crt");
    let mut relay = home.relay("server", &["--client-ca", &ca]);
    let (certificate, key) = (home.path("alice.crt"), home.path("alice.key"));
    let own = ["--client-cert", &certificate, "--client-key", &key];
    for (scheme, dialect) in [("tls", "tls+chat10"), ("wss", "wss")] {
        let addr = relay.addr_of(dialect);
        let mut with = home.join(scheme, addr, &[&["--ca", &ca], &own[..]].concat());
        let mut client = Piped::start(&mut with);
        relay.log_line("joined: \"alice.example.org\"");
        client.input = None;
        assert_eq!(client.finish().0, 0);
        // Without one it is no use to try again.
        let without = Piped::start(&mut home.join(scheme, addr, &["--ca", &ca]));
        let (code, notices) = end_of(without);
        assert!([4, 5].contains(&code), "{code} {notices}");
        assert!(notices.contains("see --client-cert"), "{notices}");
    }
    for (flags, says) in [
        (
            ["--client-cert", &key, "--client-key", &key],
            "there is no certificate in PEM in it",
        ),
        (
            ["--client-cert", &certificate, "--client-key", &ca],
            "there is no private key in PEM in it",
        ),
        (
            ["--client-cert", "missing", "--client-key", &key],
            "--client-cert missing: cannot read it",
        ),
    ] {
        let addr = relay.addr_of("tls+chat10");
        let (code, notices) = end_of(Piped::start(&mut home.join("tls", addr, &flags)));
        assert_eq!((code, notices.lines().count()), (2, 1), "{notices}");
        assert!(notices.contains(says), "{notices}");
    }
}

// Bytes.

#[test]
fn members_through_tls_exchange_every_byte() {
    let home = Home::new();
    let mut relay = home.relay("server", &[]);
    let ca = home.path("ca.crt");
    let mut other = relay.join("other");
    for (scheme, dialect) in [("tls", "tls+chat10"), ("wss", "wss")] {
        let more = ["--ca", &ca, "--raw"];
        let mut client = Piped::start(&mut home.join(scheme, relay.addr_of(dialect), &more));
        relay.log_line("joined: \"me\"");
        let lines = lines();
        let mut input = client.input.take().unwrap();
        let sent = lines.clone();
        let writer = std::thread::spawn(move || {
            for line in &sent {
                input.write_all(&[line, &b"\n"[..]].concat()).unwrap();
            }
            input
        });
        for line in &lines {
            expect(&mut other, &delivery("me", line));
        }
        let input = writer.join().unwrap();
        let mut received = BufReader::new(&mut client.output);
        for line in lines.iter().filter(|line| line.len() <= 1 << 20) {
            other.write_all(&frame(line)).unwrap();
            expect(&mut received, &[b"other: ", &line[..], b"\n"].concat());
        }
        drop(input);
        assert_eq!(client.finish().0, 0);
    }
}

#[test]
fn records_may_come_in_pieces_of_a_byte() {
    let home = Home::new();
    let server = ScriptedServer::new();
    let ca = home.path("ca.crt");
    let mut client = Piped::start(&mut home.join("tls", server.addr(), &["--ca", &ca]));
    let mut peer = secure(server.accept(), &home.server("server"));
    peer.conn.complete_io(&mut peer.sock).unwrap();
    peer.conn
        .writer()
        .write_all(&[delivery("a", "one"), delivery("b", "two")].concat())
        .unwrap();
    let mut records = Vec::new();
    while peer.conn.wants_write() {
        peer.conn.write_tls(&mut records).unwrap();
    }
    for byte in records {
        peer.sock.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.receive(), b"a: one\n");
    assert_eq!(client.receive(), b"b: two\n");
    expect(&mut peer, &frame("me"));
}

#[test]
fn server_in_python_is_joined() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    // Not every OpenSSL reads the keys of other tests.
    let out = home.path("made");
    assert_eq!(run(&mut chatloop(&["cert", "--out", &out])).0, 0);
    let script = "\
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
if sys.argv[3] == '1.2':
    context.maximum_version = ssl.TLSVersion.TLSv1_2
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
stream = context.wrap_socket(listener.accept()[0], server_side=True)
frame = lambda data: b'%-10d' % len(data) + data
everything = bytes(range(256)) * 400
stream.sendall(frame(b'py') + frame(everything))
expected = frame(b'me') + frame(b'hello')
received = b''
while True:
    data = stream.recv(10)
    if not data:
        break
    received += data
assert received == expected, received
print(stream.version(), flush=True)
";
    for version in ["1.2", "1.3"] {
        let mut python = Command::new("python3")
            .args([
                "-c",
                script,
                &home.path("made/chatloop.crt"),
                &home.path("made/chatloop.key"),
                version,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(python.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        let ca = home.path("made/chatloop-ca.crt");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut client = Piped::start(&mut home.join("tls", addr, &["--ca", &ca, "--raw"]));
        let all: Vec<_> = (0..=255).collect::<Vec<u8>>().repeat(400);
        expect(&mut client.output, &[&b"py: "[..], &all, b"\n"].concat());
        client.say("hello\n");
        assert_eq!(client.finish().0, 0);
        line.clear();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("TLSv{version}\n"));
        python.wait().unwrap();
    }
}

// Servers that fail.

#[test]
fn handshake_that_is_cut_or_reset_anywhere_ends_the_client_with_one_line() {
    let home = Home::new();
    let server = ScriptedServer::new();
    let ca = home.path("ca.crt");
    let config = home.server("server");
    let mut cut = 0;
    loop {
        let client = Piped::start(&mut home.join("tls", server.addr(), &["--ca", &ca]));
        let mut peer = server.accept();
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while !connection.wants_write() {
            connection.read_tls(&mut peer.stream).unwrap();
            connection.process_new_packets().unwrap();
        }
        let mut answer = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut answer).unwrap();
        }
        if cut >= answer.len() {
            break;
        }
        peer.send_raw(&answer[..cut]);
        if cut % 2 == 0 {
            peer.close();
        } else {
            peer.reset();
        }
        let (code, notices) = end_of(client);
        assert_eq!((code, notices.lines().count()), (4, 1), "{cut}: {notices}");
        let says = "closed the connection during the TLS handshake";
        assert!(notices.contains(says), "{cut}: {notices}");
        cut += 31;
    }
}

#[test]
fn server_that_does_not_answer_in_tls_is_given_up() {
    let home = Home::new();
    let server = ScriptedServer::new();
    // It takes ten seconds, which the client waits and not the test.
    let client = Piped::start(&mut home.join("tls", server.addr(), &[]));
    let peer = server.accept();
    peer.expect_something();
    let (code, notices) = end_of(client);
    assert_eq!((code, notices.lines().count()), (4, 1), "{notices}");
    assert!(notices.contains("no answer"), "{notices}");
}

#[test]
fn port_without_tls_and_port_with_it_are_told_apart() {
    let home = Home::new();
    let relay = home.relay("server", &[]);
    let plain = home
        .join("tls", relay.addr_of("chat10"), &[])
        .stdin(Stdio::null())
        .output();
    let notices = String::from_utf8(plain.unwrap().stderr).unwrap();
    assert!(notices.contains("is it a port with TLS?"), "{notices}");
    let server = ScriptedServer::new();
    let client = Piped::start(&mut home.join("tls", server.addr(), &[]));
    let mut peer = server.accept();
    peer.send_raw("Welcome to this server!\n");
    let (code, notices) = end_of(client);
    assert_eq!(code, 4, "{notices}");
    assert!(
        notices.contains("this port does not speak TLS"),
        "{notices}"
    );
    let addr = relay.addr_of("tls+chat10").to_string();
    let mut command = chatloop(&["join", &addr, "--name", "me", "--no-reconnect"]);
    let (code, notices) = end_of(Piped::start(&mut command));
    assert_eq!(code, 6, "{notices}");
    assert!(
        notices.contains("this port speaks TLS; write tls:// in front"),
        "{notices}"
    );
}

#[test]
fn end_of_the_connection_without_the_end_of_tls_is_an_end() {
    let home = Home::new();
    let server = ScriptedServer::new();
    let ca = home.path("ca.crt");
    let mut command = home.join("tls", server.addr(), &["--ca", &ca, "--no-reconnect"]);
    let mut client = Piped::start(&mut command);
    let mut peer = secure(server.accept(), &home.server("server"));
    expect(&mut peer, &frame("me"));
    peer.write_all(&delivery("a", "last")).unwrap();
    drop(peer);
    assert_eq!(client.receive(), b"a: last\n");
    let (code, notices) = end_of(client);
    assert_eq!(code, 5, "{notices}");
    assert!(
        notices.contains("the server closed the connection"),
        "{notices}"
    );
}
