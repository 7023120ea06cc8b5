//! Listeners with TLS, the certificates that they read on SIGHUP, `chatloop cert`, and clients of others.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::common::http::SocketPath;
use crate::common::process::{Relay, chatloop, lines_of, run};
use crate::common::tls::Authority;
use crate::common::{PATIENCE, delivery, frame, skip};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A client that blocks. Its handshake is not complete.
fn connect(addr: SocketAddr, config: ClientConfig) -> Client {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, stream)
}

/// The certificate that the relay has shown to a new client.
fn certificate(addr: SocketAddr, authority: &Authority) -> Vec<u8> {
    let mut client = connect(addr, authority.client());
    client.conn.complete_io(&mut client.sock).unwrap();
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

fn expect(client: &mut impl Read, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received).unwrap();
    assert_eq!(received, expected);
}

/// The flags of a relay with the authority's certificate.
fn flags(authority: &Authority) -> Vec<String> {
    let file = |name| authority.path(name).display().to_string();
    vec![
        "--cert".to_owned(),
        file("server.crt"),
        "--key".to_owned(),
        file("server.key"),
    ]
}

fn start(authority: &Authority, others: &[String]) -> Relay {
    let all = [&flags(authority), others].concat();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    Relay::serving(&["chat10", "tls+chat10"], &all)
}

#[test]
fn certificate_that_is_read_again_is_given_to_new_connections() {
    let authority = Authority::new();
    let mut relay = start(&authority, &[]);
    let addr = relay.addr_of("tls+chat10");
    let mut alice = connect(addr, authority.client());
    alice.write_all(&frame("alice")).unwrap();
    relay.log_line("joined: \"alice\"");
    let old = certificate(addr, &authority);
    assert_eq!(certificate(addr, &authority), old);
    authority.renew();
    relay.signal("HUP");
    relay.log_line("SIGHUP: reloaded the certificate and its key; it expires on 4096-01-01");
    assert_ne!(certificate(addr, &authority), old);
    // The old ones go on.
    let mut bob = relay.join("bob");
    alice.write_all(&frame("hello")).unwrap();
    expect(&mut bob, &delivery("alice", "hello"));
}

/// A way to break a relay's files: what it is, how it is done, and what the error says.
type Breakage = (&'static str, fn(&Authority), Vec<&'static str>);

fn breakages() -> Vec<Breakage> {
    vec![
        (
            "a missing certificate",
            |authority| fs::remove_file(authority.path("server.crt")).unwrap(),
            vec!["--cert", "server.crt: cannot read it: No such file"],
        ),
        (
            "a missing key",
            |authority| fs::remove_file(authority.path("server.key")).unwrap(),
            vec!["--key", "server.key: cannot read it: No such file"],
        ),
        (
            "an empty certificate",
            |authority| authority.write("server.crt", ""),
            vec!["--cert", "there is no certificate in PEM in it"],
        ),
        (
            "a certificate that is cut",
            |authority| {
                let text = fs::read_to_string(authority.path("server.crt")).unwrap();
                authority.write("server.crt", &text[..text.len() / 2]);
            },
            vec!["--cert", "server.crt: it is not PEM"],
        ),
        (
            "a certificate that is none",
            |authority| {
                let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
                authority.write("server.crt", pem);
            },
            vec!["--cert", "server.crt: it is not a certificate"],
        ),
        (
            "the key of another certificate",
            |authority| {
                authority.issue("other", &CertificateParams::default());
                fs::copy(authority.path("other.key"), authority.path("server.key")).unwrap();
            },
            vec!["--key", "server.key: it is not the key of --cert"],
        ),
        (
            "a certificate in the place of the key",
            |authority| {
                fs::copy(authority.path("server.crt"), authority.path("server.key")).unwrap();
            },
            vec!["--key", "there is no private key in PEM in it"],
        ),
        (
            "an expired certificate",
            |authority| {
                let mut params = CertificateParams::default();
                params.not_after = date_time_ymd(2020, 2, 3);
                authority.issue("server", &params);
            },
            vec![
                "--cert",
                "server.crt: it has expired on 2020-02-03",
                "renew it",
            ],
        ),
        (
            "a certificate of the future",
            |authority| {
                let mut params = CertificateParams::default();
                params.not_before = date_time_ymd(2099, 2, 3);
                authority.issue("server", &params);
            },
            vec!["--cert", "server.crt: it is not valid before 2099-02-03"],
        ),
        (
            "an empty list of authorities",
            |authority| authority.write("clients.crt", ""),
            vec![
                "--client-ca",
                "clients.crt: there is no certificate in PEM in it",
            ],
        ),
        (
            "an empty revocation list",
            |authority| authority.write("revoked.crl", ""),
            vec![
                "--client-crl",
                "revoked.crl: there is no revocation list in PEM in it",
            ],
        ),
    ]
}

/// An authority whose relay demands certificates of clients, and the flags for that.
fn demanding() -> (Authority, Vec<String>) {
    let authority = Authority::new();
    fs::copy(authority.path("ca.crt"), authority.path("clients.crt")).unwrap();
    authority.revoke("revoked.crl", &[]);
    let file = |name| authority.path(name).display().to_string();
    let flags = vec![
        "--client-ca".to_owned(),
        file("clients.crt"),
        "--client-crl".to_owned(),
        file("revoked.crl"),
    ];
    (authority, flags)
}

#[test]
fn file_that_cannot_be_used_changes_nothing_at_a_reload() {
    for (what, break_it, says) in breakages() {
        let (authority, others) = demanding();
        let mut relay = start(&authority, &others);
        let addr = relay.addr_of("tls+chat10");
        let alice = authority.identity(1, "alice", &[]);
        let join = |relay: &mut Relay| {
            let config = authority.client_of(rustls::DEFAULT_VERSIONS, Some(&alice));
            let mut client = connect(addr, config);
            client.write_all(&frame("alice")).unwrap();
            relay.log_line("joined: \"alice\"");
            client.conn.peer_certificates().unwrap()[0].to_vec()
        };
        let old = join(&mut relay);
        break_it(&authority);
        relay.signal("HUP");
        let line =
            relay.log_line("SIGHUP: nothing was reloaded, and the old certificate is used on: ");
        for part in says {
            assert!(line.contains(part), "{what}: {line}");
        }
        assert_eq!(join(&mut relay), old, "{what}");
    }
}

#[test]
fn relay_does_not_start_with_a_file_that_cannot_be_used() {
    for (what, break_it, says) in breakages() {
        let (authority, others) = demanding();
        break_it(&authority);
        let all = [flags(&authority), others].concat();
        let mut command = chatloop(&["serve", "--listen", "tls+chat10://127.0.0.1:0"]);
        let (code, _, err) = run(command.args(all));
        assert_eq!(code, 2, "{what}: {err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{what}: {err}");
        for part in says {
            assert!(err.contains(part), "{what}: {err}");
        }
    }
    for (args, says) in [
        (
            vec!["--listen", "wss://127.0.0.1:0"],
            "--listen wss://127.0.0.1:0 needs --cert and --key; `chatloop cert` makes both",
        ),
        (
            vec!["--cert", "a", "--key", "b"],
            "--cert a is for listeners with TLS, and there is none",
        ),
        (vec!["--cert", "a"], "--key <FILE>"),
        (vec!["--client-crl", "a"], "--client-ca <FILE>"),
    ] {
        let mut command = chatloop(&["serve"]);
        let (code, _, err) = run(command.args(args));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says), "{err}");
    }
}

#[test]
fn member_whose_certificate_is_revoked_is_closed_at_the_reload() {
    let (authority, others) = demanding();
    let mut relay = start(&authority, &others);
    let addr = relay.addr_of("tls+chat10");
    let identities = [1, 2, 3].map(|serial| {
        authority.identity(serial, ["alice", "carol", "dave"][serial as usize - 1], &[])
    });
    let mut clients = identities.each_ref().map(|identity| {
        let config = authority.client_of(rustls::DEFAULT_VERSIONS, Some(identity));
        let mut client = connect(addr, config);
        client.write_all(&frame("x")).unwrap();
        relay.log_line("joined: ");
        client
    });
    authority.revoke("revoked.crl", &[&identities[1]]);
    relay.signal("HUP");
    relay.log_line("closed: \"carol\"");
    let [alice, carol, dave] = &mut clients;
    assert_eq!(carol.read(&mut [0]).unwrap(), 0, "it is closed");
    alice.write_all(&frame("still here")).unwrap();
    expect(dave, &delivery("alice", "still here"));
    let config = authority.client_of(rustls::DEFAULT_VERSIONS, Some(&identities[1]));
    let mut again = connect(addr, config);
    let ended = again.read(&mut [0]).unwrap_err();
    assert!(ended.to_string().contains("CertificateRevoked"), "{ended}");
    relay.log_line("TLS handshake: the client's certificate is revoked");
}

#[test]
fn banned_name_of_a_certificate_is_closed_and_refused_until_the_ban_is_lifted() {
    let (authority, mut others) = demanding();
    let socket = SocketPath::new();
    let bans = authority.path("bans").display().to_string();
    let more = ["--admin", socket.as_str(), "--bans", &bans];
    others.extend(more.map(str::to_owned));
    let all = [flags(&authority), others].concat();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let start = || Relay::serving(&["chat10", "tls+chat10", "wss"], &all);
    let mail = |mail: &str| [rcgen::SanType::Rfc822Name(mail.try_into().unwrap())];
    // One person can have several certificates.
    let bobs = [1, 2].map(|serial| authority.identity(serial, "Bob", &mail("bob@example.com")));
    let alice = authority.identity(3, "alice", &[]);
    let client = |addr: SocketAddr, identity| {
        connect(
            addr,
            authority.client_of(rustls::DEFAULT_VERSIONS, Some(identity)),
        )
    };
    let join = |relay: &mut Relay, identity, name: &str| {
        let mut client = client(relay.addr_of("tls+chat10"), identity);
        client.write_all(&frame("x")).unwrap();
        relay.log_line(&format!("joined: \"{name}\""));
        client
    };
    let admin = |args: &[&str]| {
        let all = [&["admin", "--socket", socket.as_str()], args].concat();
        let (code, out, err) = run(&mut chatloop(&all));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    };
    let is_refused = |relay: &Relay, listener: &str| {
        let mut client = client(relay.addr_of(listener), &bobs[1]);
        let mut received = Vec::new();
        // A reset ends a connection as well.
        let sent = client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let _ = sent.and_then(|()| client.read_to_end(&mut received));
        assert!(!client.conn.is_handshaking(), "its handshake is complete");
        assert_eq!(String::from_utf8_lossy(&received), "", "{listener}");
    };

    let mut relay = start();
    let mut alice = join(&mut relay, &alice, "alice");
    let mut bob = join(&mut relay, &bobs[0], "bob@example.com");
    let mut other = relay.join("bob@example.com");
    let answer = admin(&["ban", "cert:bob@example.com", "--for", "1h"]);
    assert_eq!(
        answer,
        "banned cert:bob@example.com for 1h; closed 1 connection\n"
    );
    relay.log_line("admin: banned cert:bob@example.com for 1h; closed 1 connection");
    assert_eq!(bob.read(&mut [0]).unwrap(), 0, "it is closed");
    is_refused(&relay, "tls+chat10");
    relay.log_line(": cert:bob@example.com is banned");
    is_refused(&relay, "wss");
    // A name that a member sends itself is no certificate's.
    alice.write_all(&frame("still here")).unwrap();
    let mut received = vec![0; delivery("alice", "still here").len()];
    other.read_exact(&mut received).unwrap();
    assert_eq!(received, delivery("alice", "still here"));
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);

    let mut relay = start();
    is_refused(&relay, "tls+chat10");
    assert!(admin(&["bans"]).starts_with("cert:bob@example.com for "));
    let answer = admin(&["unban", "cert:bob@example.com"]);
    assert_eq!(answer, "cert:bob@example.com is not banned any more\n");
    join(&mut relay, &bobs[1], "bob@example.com");
}

#[test]
fn certificate_that_ends_soon_is_warned_of_and_its_end_is_a_metric() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let in_five_days =
        std::time::SystemTime::now() + std::time::Duration::from_secs(5 * 86400 + 3600);
    params.not_after = in_five_days.into();
    authority.issue("server", &params);
    let flags = flags(&authority);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut relay = Relay::serving(&["tls+chat10", "metrics"], &flags);
    relay.log_line("the certificate expires in 5 days: renew --cert, send SIGHUP");
    let mut scraper = TcpStream::connect(relay.addr_of("metrics")).unwrap();
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let metrics = io::read_to_string(scraper).unwrap();
    let seconds = in_five_days.duration_since(std::time::SystemTime::UNIX_EPOCH);
    let row = format!(
        "\nchatloop_tls_certificate_expiry_seconds {}\n",
        seconds.unwrap().as_secs()
    );
    assert!(metrics.contains(&row), "{metrics}");
}

/// Runs `chatloop cert` for this folder, and returns what it prints.
#[track_caller]
fn make(folder: &Path, args: &[&str]) -> String {
    let mut command = chatloop(&["cert", "--out", folder.to_str().unwrap()]);
    let (code, out, err) = run(command.args(args));
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

#[test]
fn certificate_of_our_own_is_trusted_by_those_who_trust_its_authority() {
    let scratch = Authority::new();
    let folder = scratch.path("made");
    let out = make(&folder, &[]);
    for (name, mode) in [
        ("chatloop-ca.key", 0o600),
        ("chatloop.key", 0o600),
        ("chatloop-ca.crt", 0o644),
        ("chatloop.crt", 0o644),
    ] {
        let metadata = fs::metadata(folder.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    let file = |name| folder.join(name).display().to_string();
    let (cert, key, ca) = (
        file("chatloop.crt"),
        file("chatloop.key"),
        file("chatloop-ca.crt"),
    );
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{cert} is for localhost, ")),
        "{out}"
    );
    assert!(lines[0].contains(", 127.0.0.1, ::1"), "{out}");
    assert!(lines[1].starts_with("fingerprint sha256:"), "{out}");
    let serve =
        format!("chatloop serve --listen tls+chat10://0.0.0.0:1234 --cert {cert} --key {key}");
    assert_eq!(lines[3], serve);
    let mut relay = Relay::serving(&["tls+chat10", "wss"], &["--cert", &cert, "--key", &key]);
    let trusting = || {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&ca).unwrap())
            .unwrap();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let addr = relay.addr_of("tls+chat10");
    let mut client = connect(addr, trusting());
    client.write_all(&frame("alice")).unwrap();
    relay.log_line("joined: \"alice\"");
    let old = client.conn.peer_certificates().unwrap()[0].to_vec();
    // Another one of the same authority.
    let authority = fs::read(&ca).unwrap();
    let renewed = make(&folder, &["--host", "localhost", "--host", "192.0.2.1"]);
    assert!(
        renewed.starts_with(&format!("{cert} is for localhost, 192.0.2.1\n")),
        "{renewed}"
    );
    assert_eq!(fs::read(&ca).unwrap(), authority);
    relay.signal("HUP");
    relay.log_line("SIGHUP: reloaded");
    let mut client = connect(addr, trusting());
    client.conn.complete_io(&mut client.sock).unwrap();
    assert_ne!(client.conn.peer_certificates().unwrap()[0].to_vec(), old);
}

#[test]
fn cert_says_why_there_is_no_certificate() {
    let scratch = Authority::new();
    let folder = scratch.path("made");
    let fails = |args: &[&str], code: i32, says: &str| {
        let mut command = chatloop(&["cert", "--out", folder.to_str().unwrap()]);
        let (ended, _, err) = run(command.args(args));
        assert_eq!(ended, code, "{err}");
        assert!(err.contains(says), "{err}");
    };
    fails(
        &["--host", "two words"],
        2,
        "--host two words: neither a name nor an address",
    );
    make(&folder, &[]);
    fs::remove_file(folder.join("chatloop-ca.key")).unwrap();
    fails(
        &[],
        1,
        "chatloop-ca.crt: its key is missing; remove chatloop-ca.crt and chatloop-ca.key",
    );
    fs::remove_file(folder.join("chatloop-ca.crt")).unwrap();
    fs::write(folder.join("chatloop-ca.crt.new"), "").unwrap();
    make(&folder, &[]);
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    fails(&[], 1, "made");
}

/// Has a client of others send a name and a message, and waits until it shows what the relay sent to it.
#[track_caller]
fn converse(relay: &mut Relay, name: &str, command: &mut Command) {
    let mut bob = relay.join("bob");
    let client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut client) = client else {
        return skip(&format!(
            "{} is not installed",
            command.get_program().display()
        ));
    };
    let mut input = client.stdin.take().unwrap();
    let output = lines_of(client.stdout.take().unwrap());
    input
        .write_all(&[frame(name), frame("hello")].concat())
        .unwrap();
    input.flush().unwrap();
    relay.log_line(&format!("joined: \"{name}\""));
    expect(&mut bob, &delivery(name, "hello"));
    bob.write_all(&frame("hi\n")).unwrap();
    loop {
        let line = output.recv_timeout(PATIENCE).expect("a line of the client");
        if line.contains("3         bob3         hi") {
            break;
        }
    }
    drop(input);
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn clients_of_others_take_part() {
    let authority = Authority::new();
    // Not all of them know Ed25519.
    let folder = authority.path("made");
    make(&folder, &["--host", "localhost"]);
    let file = |name| folder.join(name).display().to_string();
    let ca = file("chatloop-ca.crt");
    let flags = [
        "--cert",
        &file("chatloop.crt"),
        "--key",
        &file("chatloop.key"),
    ];
    let mut relay = Relay::serving(&["chat10", "tls+chat10", "wss"], &flags);
    let port = relay.addr_of("tls+chat10").port().to_string();
    let addr = format!("localhost:{port}");
    let openssl = [
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-CAfile",
        &ca,
        "-connect",
        &addr,
    ];
    converse(&mut relay, "openssl", Command::new("openssl").args(openssl));
    let gnutls = [
        "--logfile=/dev/null",
        "--x509cafile",
        &ca,
        "--port",
        &port,
        "localhost",
    ];
    converse(
        &mut relay,
        "gnutls",
        Command::new("gnutls-cli").args(gnutls),
    );
    let script = format!("{}/tests/interop/tls_client.py", env!("CARGO_MANIFEST_DIR"));
    converse(
        &mut relay,
        "python",
        Command::new("python3").args([&script, &port, &ca]),
    );
    let page = format!("https://localhost:{}/", relay.addr_of("wss").port());
    let curl = Command::new("curl")
        .args(["-sS", "--cacert", &ca, &page])
        .output();
    match curl {
        Ok(output) => {
            let page = String::from_utf8_lossy(&output.stdout);
            assert!(page.starts_with("<!doctype html>"), "{page}");
        }
        Err(_) => skip("curl is not installed"),
    }
}

#[test]
fn nothing_older_than_the_minimum_is_spoken_and_nothing_is_resumed() {
    let authority = Authority::new();
    let s_client = |addr: SocketAddr, args: &[&str], input: &str| {
        let mut command = Command::new("openssl");
        let ca = authority.path("ca.crt");
        command.args(["s_client", "-CAfile", ca.to_str().unwrap(), "-connect"]);
        command.arg(addr.to_string()).args(args);
        let client = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut client) = client else {
            skip("openssl is not installed");
            return None;
        };
        client
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = client.wait_with_output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&both).into_owned())
    };
    for (min, versions) in [
        (
            "1.3",
            &[("-tls1_1", false), ("-tls1_2", false), ("-tls1_3", true)],
        ),
        (
            "1.2",
            &[("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)],
        ),
    ] {
        let relay = start(&authority, &["--tls-min".to_owned(), min.to_owned()]);
        let addr = relay.addr_of("tls+chat10");
        for &(version, is_spoken) in versions {
            // SECLEVEL 0, or it would not even ask.
            let Some(text) = s_client(addr, &[version, "-cipher", "ALL:@SECLEVEL=0"], "") else {
                return;
            };
            assert_eq!(
                !text.contains("no peer certificate available"),
                is_spoken,
                "{min} {version}: {text}"
            );
            assert!(!text.contains("New Session Ticket"), "{text}");
            if is_spoken {
                assert!(text.contains("Compression: NONE"), "{text}");
                assert!(!text.contains("TLS session ticket:"), "{text}");
            }
        }
        if min == "1.2" {
            // A line with an R asks for another handshake.
            let text = s_client(addr, &["-tls1_2"], "R\n").unwrap();
            let is_refused = text.contains("no renegotiation") || text.contains("renegotiation");
            assert!(is_refused && !text.contains("Reused, "), "{text}");
        }
    }
}
