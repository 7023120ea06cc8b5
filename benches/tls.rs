//! What TLS costs the real program: memory of idle members, CPU of deliveries, and what plain members notice while
//! all members come back at once. Run with `cargo bench --bench tls`; it takes a minute.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay with a plain listener and one with TLS, and a certificate of its own.
struct Relay {
    child: Child,
    folder: PathBuf,
    plain: SocketAddr,
    secure: SocketAddr,
    client: Arc<ClientConfig>,
}

impl Relay {
    fn start(folder: PathBuf) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_chatloop");
        let made = Command::new(program)
            .args(["cert", "--host", "localhost", "--out"])
            .arg(&folder)
            .stdout(Stdio::null())
            .status()?;
        assert!(made.success(), "there is a certificate");
        let mut child = Command::new(program)
            .args(["serve", "--log-level", "info"])
            .args(["--listen", "chat10://127.0.0.1:0"])
            .args(["--listen", "tls+chat10://127.0.0.1:0", "--cert"])
            .arg(folder.join("chatloop.crt"))
            .arg("--key")
            .arg(folder.join("chatloop.key"))
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("a log")?);
        let mut line = String::new();
        log.read_line(&mut line)?;
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let address = |scheme: &str| {
            let rest = line.split(scheme).nth(1).unwrap_or_default();
            rest.split([',', ';']).next().unwrap_or_default().parse()
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(
            folder.join("chatloop-ca.crt"),
        )?)?;
        Ok(Self {
            plain: address(" chat10://")?,
            secure: address("tls+chat10://")?,
            client: Arc::new(
                ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            ),
            child,
            folder,
        })
    }

    /// A member of the room, with TLS or without. Its socket blocks.
    fn join(&self, is_secure: bool, name: &str) -> Result<TcpStream> {
        let addr = if is_secure { self.secure } else { self.plain };
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let frame = frame(name);
        if is_secure {
            let host = ServerName::try_from("localhost")?;
            let mut session = ClientConnection::new(Arc::clone(&self.client), host)?;
            session.writer().write_all(&frame)?;
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut stream)?;
            }
        } else {
            stream.write_all(&frame)?;
        }
        Ok(stream)
    }

    /// How much memory it has in RAM, in bytes.
    fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        kibibytes(&status)
    }

    /// How long it has run on a CPU.
    fn cpu(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))?;
        Ok(stat.split(' ').next().ok_or("a number")?.parse()?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn kibibytes(status: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or("a figure")?.parse::<u64>()? * 1024)
}

fn frame(payload: &str) -> Vec<u8> {
    format!("{:<10}{payload}", payload.len()).into_bytes()
}

/// What a member takes that says nothing.
fn idle(relay: &Relay, is_secure: bool, members: usize) -> Result<()> {
    // What the first ones take is there for all.
    let mut peers = vec![relay.join(is_secure, "first")?];
    thread::sleep(Duration::from_millis(300));
    let before = relay.resident()?;
    for index in 0..members {
        peers.push(relay.join(is_secure, &format!("user{index:06}"))?);
    }
    thread::sleep(Duration::from_millis(500));
    let each = (relay.resident()? - before) / members as u64;
    println!("idle, {}: {each} bytes a member", kind(is_secure));
    Ok(())
}

const fn kind(is_secure: bool) -> &'static str {
    if is_secure { "TLS" } else { "plain" }
}

/// What rustls takes for a connection with its ordinary interface, which owns its buffers.
fn buffered(relay: &Relay, connections: usize) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(relay.folder.join("chatloop.crt"))?;
    let key = PrivateKeyDer::from_pem_file(relay.folder.join("chatloop.key"))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.collect::<std::result::Result<_, _>>()?, key)?;
    config.send_tls13_tickets = 0;
    let config = Arc::new(config);
    let shake = || -> Result<ServerConnection> {
        let host = ServerName::try_from("localhost")?;
        let mut client = ClientConnection::new(Arc::clone(&relay.client), host)?;
        let mut server = ServerConnection::new(Arc::clone(&config))?;
        client.writer().write_all(&frame("alice"))?;
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
            let mut records = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut records)?;
            }
            let mut rest = &records[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest)?;
                server.process_new_packets()?;
            }
            records.clear();
            while server.wants_write() {
                server.write_tls(&mut records)?;
            }
            let mut rest = &records[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest)?;
                client.process_new_packets()?;
            }
        }
        let mut name = [0; 15];
        server.reader().read_exact(&mut name)?;
        Ok(server)
    };
    let resident = || kibibytes(&fs::read_to_string("/proc/self/status")?);
    let mut kept = vec![shake()?];
    let before = resident()?;
    for _ in 0..connections {
        kept.push(shake()?);
    }
    let each = (resident()? - before) / connections as u64;
    println!("idle, rustls with buffers of its own: {each} bytes a connection");
    Ok(())
}

/// What a delivery takes, when so many messages come at once.
fn delivery(relay: &Relay, is_secure: bool, at_once: usize, rounds: usize) -> Result<()> {
    const MEMBERS: usize = 500;
    let mut sender = relay.join(false, "sender")?;
    let mut peers: Vec<_> = (0..MEMBERS)
        .map(|index| relay.join(is_secure, &format!("user{index:06}")))
        .collect::<Result<_>>()?;
    thread::sleep(Duration::from_millis(300));
    let message = frame(&"x".repeat(64));
    let turn = message.repeat(at_once);
    let delivered = at_once * (message.len() + frame("sender").len());
    // A turn is one record, and it is longer by its header, its type and its tag.
    let len = if is_secure { delivered + 22 } else { delivered };
    let mut buffer = vec![0; len];
    let mut before = 0;
    for round in 0..rounds + 10 {
        if round == 10 {
            before = relay.cpu()?;
        }
        sender.write_all(&turn)?;
        for peer in &mut peers {
            peer.read_exact(&mut buffer)?;
        }
    }
    let each = (relay.cpu()? - before) / (rounds * MEMBERS * at_once) as u64;
    println!(
        "{at_once:>3} messages at once, {}: {each} ns a delivery",
        kind(is_secure)
    );
    Ok(())
}

/// How long plain members wait for each other's messages while so many come back at once.
fn storm(relay: &Relay, is_secure: bool, members: usize) -> Result<()> {
    let mut sender = relay.join(false, "sender")?;
    let mut receiver = relay.join(false, "receiver")?;
    // What the one sends before the other has joined is not for it.
    thread::sleep(Duration::from_millis(300));
    let has_ended = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&has_ended);
    let pair = thread::spawn(move || -> std::io::Result<Vec<Duration>> {
        let message = frame("hello");
        let mut buffer = vec![0; message.len() + frame("sender").len()];
        let mut delays = Vec::new();
        while !until.load(Ordering::Relaxed) {
            let start = Instant::now();
            sender.write_all(&message)?;
            receiver.read_exact(&mut buffer)?;
            delays.push(start.elapsed());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(delays)
    });
    let start = Instant::now();
    // All of them ask first, and wait then.
    let host = ServerName::try_from("localhost")?;
    let mut peers = Vec::new();
    for index in 0..members {
        let addr = if is_secure { relay.secure } else { relay.plain };
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = ClientConnection::new(Arc::clone(&relay.client), host.clone())?;
        let name = frame(&format!("user{index:06}"));
        if is_secure {
            session.writer().write_all(&name)?;
            session.write_tls(&mut stream)?;
        } else {
            stream.write_all(&name)?;
        }
        peers.push((stream, session));
    }
    if is_secure {
        for (stream, session) in &mut peers {
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(stream)?;
            }
        }
    }
    // The last one has joined when it receives.
    if let Some((stream, _)) = peers.last_mut() {
        stream.read_exact(&mut [0])?;
    }
    let took = start.elapsed();
    has_ended.store(true, Ordering::Relaxed);
    let mut delays = pair.join().map_err(|_| "the pair")??;
    delays.sort();
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{members} members at once, {}: back after {:.1} s; plain members' delays p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        kind(is_secure),
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    Ok(())
}

fn main() -> Result<()> {
    let only_try = std::env::args().any(|arg| arg == "--test");
    let (idle_members, rounds, stormers) = if only_try {
        (50, 5, 50)
    } else {
        (5000, 400, 9000)
    };
    chatloop::descriptors::raise_limit()?;
    let folder = |what: &str| {
        let id = std::process::id();
        std::env::temp_dir().join(format!("chatloop-bench-tls-{id}-{what}"))
    };
    for is_secure in [false, true] {
        idle(&Relay::start(folder("idle"))?, is_secure, idle_members)?;
    }
    buffered(&Relay::start(folder("buffered"))?, idle_members)?;
    for at_once in [1, 100] {
        for is_secure in [false, true, false, true] {
            delivery(
                &Relay::start(folder("delivery"))?,
                is_secure,
                at_once,
                rounds,
            )?;
        }
    }
    for is_secure in [false, true] {
        storm(&Relay::start(folder("storm"))?, is_secure, stormers)?;
    }
    Ok(())
}
