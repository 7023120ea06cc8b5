//! Under a service manager: the sockets that it passes, its notices, and its journal. The
//! manager is played by the test.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use chatloop::server::{Config, Endpoint, Inherited, Server};
use chatloop::wire::Dialect;
use socket2::{Domain, Socket, Type};

use crate::common::process::{Relay, chatloop, chatloop_after, lines_of, run};
use crate::common::{self, PATIENCE, assert_bytes, delivery, frame};

/// A manager that receives the relay's notices.
struct Manager {
    socket: UnixDatagram,
    /// What `NOTIFY_SOCKET` is to be.
    name: String,
    path: Option<PathBuf>,
}

impl Manager {
    /// With a socket in the file system, as systemd has one.
    fn start() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chatloop-notify-{}-{count}", process::id());
        let path = std::env::temp_dir().join(name);
        Self {
            socket: patient(UnixDatagram::bind(&path).unwrap()),
            name: path.to_str().unwrap().to_owned(),
            path: Some(path),
        }
    }

    /// The next message's lines.
    #[track_caller]
    fn notice(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("a message");
        let message = str::from_utf8(&buffer[..len]).unwrap();
        message.lines().map(str::to_owned).collect()
    }

    /// Waits for a message with this line in it.
    #[track_caller]
    fn wait_for(&self, line: &str) {
        while !self.notice().iter().any(|notice| notice == line) {}
    }

    /// Fills the manager's queue, so that it accepts no message until the test reads some.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"junk", &self.name).is_ok() {}
    }

    /// Whether nothing was sent that was not received.
    fn received_all(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 1]).unwrap_err();
        nothing.kind() == ErrorKind::WouldBlock
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn patient(socket: UnixDatagram) -> UnixDatagram {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A relay on a free port with these variables in its environment.
fn relay_with(env: &[(&str, &str)]) -> Relay {
    let mut command = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
    command.envs(env.iter().copied());
    Relay::spawn(command)
}

#[test]
fn manager_is_notified_when_the_relay_listens_and_when_it_stops_and_not_between() {
    for watchdog in [
        &[][..],
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "soon")],
        // That of another process.
        &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")],
    ] {
        let manager = Manager::start();
        let env = [&[("NOTIFY_SOCKET", &*manager.name)], watchdog].concat();
        let mut relay = relay_with(&env);
        let status = format!("STATUS=0 members; listens on chat10://{}", relay.addr);
        assert_eq!(manager.notice(), ["READY=1", &*status]);
        let _alice = relay.join("alice");
        relay.signal("HUP");
        relay.log_line("SIGHUP");
        relay.signal("TERM");
        assert_eq!(relay.wait().0, 0);
        assert_eq!(
            manager.notice(),
            ["STOPPING=1", "STATUS=stopping, 1 member, 0 lagging"],
            "{watchdog:?}"
        );
        assert!(manager.received_all(), "{watchdog:?}");
    }
}

#[test]
fn watchdog_is_pinged_from_the_loop_with_the_number_of_members() {
    let manager = Manager::start();
    let mut command = chatloop_after(
        "export WATCHDOG_PID=$$;",
        &[
            "serve",
            "--listen=127.0.0.1:0",
            "--drain=1h",
            "--queue-limit=1GiB",
        ],
    );
    command.env("NOTIFY_SOCKET", &manager.name);
    command.env("WATCHDOG_USEC", "20000");
    let mut relay = Relay::spawn(command);
    assert_eq!(manager.notice()[0], "READY=1");
    for _ in 0..3 {
        let status = format!("STATUS=0 members; listens on chat10://{}", relay.addr);
        assert_eq!(manager.notice(), ["WATCHDOG=1", &*status]);
    }
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    manager.wait_for(&format!(
        "STATUS=2 members; listens on chat10://{}",
        relay.addr
    ));

    // Bob reads nothing, so there is something left to deliver, and a drain that lasts.
    let message = frame(vec![b'x'; 1_000_000]);
    for _ in 0..20 {
        alice.write_all(&message).unwrap();
    }
    relay.signal("USR1");
    while !relay.log_line("SIGUSR1: ").contains(" 1 lagging") {
        relay.signal("USR1");
    }
    relay.signal("TERM");
    let stopping = loop {
        let notice = manager.notice();
        if notice[0] != "WATCHDOG=1" {
            break notice;
        }
    };
    // On a busy machine the manager's queue may have been full, and Alice may have left meanwhile.
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(stopping[1].starts_with("STATUS=stopping, "), "{stopping:?}");
    // Bob has left by then, and his output is pending.
    let still_there = "STATUS=stopping, 0 members, 1 lagging";
    while manager.notice() != ["WATCHDOG=1", still_there] {}
    bob.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(relay.wait().0, 0);
}

#[test]
fn stop_is_reported_as_soon_as_the_queue_of_the_manager_has_room() {
    let manager = Manager::start();
    let mut command = chatloop(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--drain=1h",
        "--queue-limit=1GiB",
    ]);
    command.env("NOTIFY_SOCKET", &manager.name);
    command.env("WATCHDOG_USEC", "2000");
    let mut relay = Relay::spawn(command);
    // Then the queue is full.
    relay.log_line("cannot notify the service manager: ");
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    // Bob does not read, so the drain lasts.
    let message = frame(vec![b'x'; 1_000_000]);
    for _ in 0..20 {
        alice.write_all(&message).unwrap();
    }
    relay.signal("USR1");
    while !relay.log_line("SIGUSR1: ").contains(" 1 lagging") {
        relay.signal("USR1");
    }
    relay.signal("TERM");
    relay.log_line("SIGTERM: stopping");
    // A later turn: by then the report of the stop has failed.
    relay.signal("USR1");
    relay.log_line("SIGUSR1: ");
    manager.wait_for("STOPPING=1");
    bob.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(relay.wait().0, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn manager_may_have_a_socket_without_a_file() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("chatloop-notify-{}", process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager {
        socket: patient(UnixDatagram::bind_addr(&addr).unwrap()),
        name: format!("@{name}"),
        path: None,
    };
    let _relay = relay_with(&[("NOTIFY_SOCKET", &manager.name)]);
    assert_eq!(manager.notice()[0], "READY=1");
}

#[test]
fn chat_goes_on_without_a_manager_to_notify() {
    for (name, says) in [
        ("/nowhere/notify", "cannot notify the service manager: "),
        (
            "nonsense",
            "cannot use NOTIFY_SOCKET nonsense: neither a path",
        ),
    ] {
        let mut relay = relay_with(&[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "2000")]);
        relay.log_line(says);
        relay.join("alice");
        relay.signal("TERM");
        let (code, log) = relay.wait();
        assert_eq!(code, 0);
        assert!(!log.contains("cannot notify"), "once is enough: {log}");
    }
}

#[test]
fn manager_that_does_not_read_does_not_delay_the_chat() {
    let manager = Manager::start();
    let mut relay = relay_with(&[("NOTIFY_SOCKET", &manager.name), ("WATCHDOG_USEC", "2000")]);
    // By then its queue is full.
    relay.log_line("cannot notify the service manager: ");
    let _alice = relay.join("alice");
    manager.wait_for(&format!(
        "STATUS=1 member; listens on chat10://{}",
        relay.addr
    ));
}

#[test]
fn manager_whose_queue_is_full_at_the_start_is_notified_when_it_has_room() {
    let manager = Manager::start();
    manager.fill();
    let mut relay = relay_with(&[("NOTIFY_SOCKET", &manager.name)]);
    relay.log_line("cannot notify the service manager: ");
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    alice.write_all(&frame("hello")).unwrap();
    let mut got = vec![0; delivery("alice", "hello").len()];
    bob.read_exact(&mut got).unwrap();
    assert_bytes(&got, &delivery("alice", "hello"));
    manager.wait_for("READY=1");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
    manager.wait_for("STOPPING=1");
}

#[test]
fn manager_whose_queue_stays_full_does_not_delay_sigterm() {
    let manager = Manager::start();
    manager.fill();
    let mut relay = relay_with(&[("NOTIFY_SOCKET", &manager.name)]);
    relay.join("alice");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
}

/// The program with these sockets passed, the second of which is optional. A shell puts them where
/// a service manager does, from its own standard streams.
fn with_sockets(first: OwnedFd, second: Option<OwnedFd>, args: &[&str]) -> Command {
    let count = 1 + usize::from(second.is_some());
    let script =
        format!("exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS={count};");
    let mut command = chatloop_after(&script, &[&["serve"], args].concat());
    command.stdin(first);
    if let Some(second) = second {
        command.stdout(second);
    }
    command
}

/// A listener that stays ours when a copy of it is passed, as the manager's do, and its address.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// What the start line says of where it listens.
fn listens_on(relay: &Relay) -> &str {
    let rest = relay.lines[0].split_once(" listens on ").unwrap().1;
    rest.split_once("; ").unwrap().0
}

#[test]
fn sockets_that_are_passed_are_served_in_the_dialect_that_is_their_name() {
    for (names, dialects) in [
        (Some("chat64:chatloop.socket"), ["chat64", "chat10"]),
        (Some("greet10:hello"), ["greet10", "hello"]),
        (Some("chat64"), ["chat64", "chat10"]),
        (Some(""), ["chat10", "chat10"]),
        (None, ["chat10", "chat10"]),
    ] {
        let ((one, one_addr), (two, two_addr)) = (listener(), listener());
        let mut command = with_sockets(one.into(), Some(two.into()), &[]);
        if let Some(names) = names {
            command.env("LISTEN_FDNAMES", names);
        }
        let relay = Relay::spawn(command);
        let expected = format!("{}://{one_addr}, {}://{two_addr}", dialects[0], dialects[1]);
        assert_eq!(listens_on(&relay), expected, "{names:?}");
    }
}

#[test]
fn passed_socket_is_for_proxies_if_its_name_is_of_that_kind() {
    let trust = ["--trust-proxy", "127.0.0.1"];
    let (socket, addr) = listener();
    let mut command = with_sockets(socket.into(), None, &trust);
    command.env("LISTEN_FDNAMES", "proxy+chat10");
    let mut relay = Relay::spawn(command);
    assert_eq!(listens_on(&relay), format!("proxy+chat10://{addr}"));
    let mut member = TcpStream::connect(addr).unwrap();
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.1 4321 1234\r\n5         alice";
    member.write_all(header).unwrap();
    let line = relay.log_line("joined:");
    assert!(line.contains("\"alice\" 203.0.113.7:4321"), "{line}");
    let (socket, addr) = listener();
    let mut command = with_sockets(socket.into(), None, &[]);
    command.env("LISTEN_FDNAMES", "proxy+chat10");
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 2, "{err}");
    let says = format!("chatloop: --listen proxy+chat10://{addr} needs --trust-proxy");
    assert!(err.starts_with(&says), "{err}");
}

#[test]
fn members_of_different_sockets_share_one_room() {
    let ((one, addr), (two, wide_addr)) = (listener(), listener());
    let mut command = with_sockets(one.into(), Some(two.into()), &[]);
    command.env("LISTEN_FDNAMES", "chat10:chat64");
    let mut relay = Relay::spawn(command);
    assert_eq!(relay.addr, addr);
    let mut alice = relay.join("alice");
    let mut bob = TcpStream::connect(wide_addr).unwrap();
    bob.set_read_timeout(Some(PATIENCE)).unwrap();
    let joined = relay.log_line("joined: chat64");
    assert!(
        joined.ends_with("2 members (1 chat10, 1 chat64)"),
        "{joined}"
    );
    alice.write_all(&frame("hello")).unwrap();
    let mut got = [0; 5];
    bob.read_exact(&mut got).unwrap();
    assert_bytes(&got, b"hello");
}

#[test]
fn what_is_asked_for_is_listened_on_beside_what_is_passed() {
    for by_flag in [true, false] {
        let (socket, addr) = listener();
        let asked = "hello://127.0.0.1:0";
        let flag = ["--listen", asked];
        let mut command = with_sockets(socket.into(), None, if by_flag { &flag } else { &[] });
        if !by_flag {
            command.env("CHATLOOP_LISTEN", asked);
        }
        let relay = Relay::spawn(command);
        let own = relay.addr_of("hello");
        let expected = format!("hello://{own}, chat10://{addr}");
        assert_eq!(listens_on(&relay), expected);
    }
}

#[test]
fn address_that_a_socket_has_already_is_refused() {
    let (socket, addr) = listener();
    let mut command = with_sockets(socket.into(), None, &["--listen", &addr.to_string()]);
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 2);
    let says = format!("chatloop: --listen {addr} collides with {addr}, a socket that was passed;");
    assert!(err.starts_with(&says), "{err}");
}

#[test]
fn sockets_that_are_passed_to_another_process_are_left_alone() {
    let (socket, addr) = listener();
    let args = ["serve", "--listen", "127.0.0.1:0"];
    let mut command = chatloop_after("exec 3<&0 </dev/null;", &args);
    command.stdin(OwnedFd::from(socket));
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]);
    let relay = Relay::spawn(command);
    assert_ne!(relay.addr, addr);
    assert!(!listens_on(&relay).contains(&addr.to_string()));
}

#[test]
fn passed_descriptor_that_is_no_listening_tcp_socket_is_reported_with_a_remedy() {
    let path = std::env::temp_dir().join(format!("chatloop-unix-{}", process::id()));
    let unix = UnixListener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (socket, addr) = listener();
    let connected = TcpStream::connect(addr).unwrap();
    for (passed, says) in [
        (OwnedFd::from(unix), "fd 3 is not a valid tcp socket"),
        (
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            "fd 3 is not a valid tcp socket",
        ),
        (connected.into(), "fd 3 does not listen"),
        (
            File::open("/dev/null").unwrap().into(),
            "fd 3 is not a socket",
        ),
    ] {
        let (code, _, err) = run(&mut with_sockets(passed, None, &[]));
        assert_eq!(code, 3, "{err}");
        let start = format!("chatloop: cannot serve what was passed in LISTEN_FDS: {says}; ");
        assert!(err.starts_with(&start), "{err}");
        assert!(err.contains("ListenStream="), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    drop(socket);
}

#[test]
fn connection_made_between_two_relays_is_served_by_the_next() {
    let (socket, addr) = listener();
    let pass = || with_sockets(socket.try_clone().unwrap().into(), None, &[]);
    let early = TcpStream::connect(addr).unwrap();
    let mut first = Relay::spawn(pass());
    let join = |mut stream: TcpStream, relay: &mut Relay, name: &str| {
        stream.write_all(&frame(name)).unwrap();
        relay.log_line(&format!("joined: \"{name}\""));
        stream
    };
    let _alice = join(early, &mut first, "alice");
    first.signal("TERM");
    assert_eq!(first.wait().0, 0);
    let between = TcpStream::connect(addr).unwrap();
    let mut second = Relay::spawn(pass());
    let mut bob = join(between, &mut second, "bob");
    let mut carol = second.join("carol");
    carol.write_all(&frame("hello")).unwrap();
    let mut got = vec![0; delivery("carol", "hello").len()];
    bob.read_exact(&mut got).unwrap();
    assert_bytes(&got, &delivery("carol", "hello"));
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        common::skip("this machine has no IPv6");
    }
    has
}

/// A socket that listens on the IPv6 wildcard.
fn ipv6_wildcard(only_v6: bool) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(only_v6).unwrap();
    let any: SocketAddr = "[::]:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(1).unwrap();
    socket.into()
}

#[test]
fn passed_ipv6_wildcard_accepts_ipv4_unless_its_opener_disabled_that() {
    if !has_ipv6() {
        return;
    }
    for only_v6 in [false, true] {
        let (socket, own, _reserved) = loop {
            let socket = ipv6_wildcard(only_v6);
            let own = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
            // Another process may have the port of IPv4. Bound without listening, this socket reserves
            // it, and the relay may listen there.
            let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            reserved.set_reuse_address(true).unwrap();
            if !only_v6 || reserved.bind(&own.into()).is_ok() {
                break (socket, own.to_string(), reserved);
            }
        };
        let inherited = Inherited::new(Dialect::Chat10, socket.try_clone().unwrap());
        assert_eq!(inherited.unwrap().takes_ipv4(), !only_v6);
        let mut command = with_sockets(socket.into(), None, &["--listen", &own]);
        if only_v6 {
            assert!(listens_on(&Relay::spawn(command)).starts_with(&format!("chat10://{own}, ")));
        } else {
            let (code, _, err) = run(&mut command);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains("collides with [::]:"), "{err}");
        }
    }
}

#[test]
fn own_ipv6_wildcard_leaves_ipv4_to_a_passed_socket() {
    if !has_ipv6() {
        return;
    }
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let wildcard = Endpoint {
        dialect: Dialect::Chat10,
        addr: format!("[::]:{port}").parse().unwrap(),
    };
    let inherited = Inherited::new(Dialect::Chat10, socket).unwrap();
    let server = Server::bind_with(&Config::new(vec![wildcard]), vec![inherited]).unwrap();
    let addrs = server.local_addrs().unwrap();
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    assert_eq!(addrs, [format!("[::]:{port}"), format!("0.0.0.0:{port}")]);
}

/// The program with a standard error stream that it takes for the journal, and what comes there.
fn with_journal(args: &[&str]) -> (Child, std::sync::mpsc::Receiver<String>) {
    let (journal, stderr) = std::io::pipe().unwrap();
    let stat = rustix::fs::fstat(&stderr).unwrap();
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    let mut command = chatloop(args);
    command.env("JOURNAL_STREAM", stream).stderr(stderr);
    (command.spawn().unwrap(), lines_of(journal))
}

#[test]
fn journal_has_a_priority_before_each_line_and_the_time_from_itself() {
    let args = ["serve", "--listen", "127.0.0.1:0", "--max-clients", "1"];
    let (mut child, journal) = with_journal(&[&args[..], &["--log-level", "trace"]].concat());
    let mut lines = Vec::new();
    let mut line = |text: &str| {
        while let Ok(line) = journal.recv_timeout(PATIENCE) {
            lines.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no {text:?} in the journal: {lines:?}");
    };
    let start = line("listens on");
    let version = env!("CARGO_PKG_VERSION");
    assert!(start.starts_with(&format!("<6>chatloop {version} listens on ")));
    let addr = common::process::listening_on(&start);
    let mut alice = TcpStream::connect(addr).unwrap();
    alice.write_all(&frame("al\nice")).unwrap();
    assert!(line("joined").starts_with("<6>joined: \"al\\nice\" "));
    let _bob = TcpStream::connect(addr).unwrap();
    assert!(line("refused").starts_with("<4>refused: "));
    let _carol = TcpStream::connect(addr).unwrap();
    assert!(line("refused").starts_with("<7>refused: "));
    common::process::send_signal(child.id(), "TERM");
    assert!(line("stopped after").starts_with("<6>stopped after "));
    assert_eq!(common::process::exit_code(&mut child), 0);
    for line in lines {
        let priority = ["<3>", "<4>", "<6>", "<7>"];
        assert!(priority.iter().any(|one| line.starts_with(one)), "{line}");
        assert!(!line.contains("] "), "a time or level: {line}");
    }
}

#[test]
fn what_it_dies_of_is_an_error_in_the_journal() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (mut child, journal) = with_journal(&["serve", "--listen", &addr]);
    assert_eq!(common::process::exit_code(&mut child), 3);
    let lines: Vec<_> = journal.iter().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let says = format!("<3>chatloop: cannot listen on {addr}: ");
    assert!(lines[0].starts_with(&says), "{lines:?}");
}

#[test]
fn standard_error_stream_that_is_not_the_journal_has_times_and_levels() {
    for stream in ["", "1:1", "journal"] {
        let mut command = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
        let (log, stderr) = std::io::pipe().unwrap();
        command.env("JOURNAL_STREAM", stream).stderr(stderr);
        let mut child = command.spawn().unwrap();
        drop(command);
        let first = lines_of(log).recv_timeout(PATIENCE).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first.contains(" INFO ] chatloop "), "{first}");
    }
}

/// One of the units in `packaging/`.
fn unit(name: &str) -> String {
    let path = format!("{}/packaging/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap()
}

/// What a unit sets this to.
fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut lines = unit.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}= in the unit"))
}

#[test]
fn units_start_the_program_as_it_is() {
    let (service, port) = (unit("chatloop.service"), unit("chatloop.socket"));
    let name = setting(&port, "FileDescriptorName");
    assert_eq!(name.parse(), Ok(Dialect::Chat10));
    let mut args = setting(&service, "ExecStart").split_whitespace();
    assert_eq!(args.next(), Some("/usr/local/bin/chatloop"));
    assert_eq!(args.next(), Some("serve"));
    let args: Vec<_> = args.collect();
    let value_of = |flag| {
        let at = args.iter().position(|arg| *arg == flag).unwrap();
        args[at + 1]
    };

    let manager = Manager::start();
    let (socket, addr) = listener();
    let mut command = with_sockets(socket.into(), None, &args);
    command.env("LISTEN_FDNAMES", name);
    command.env("NOTIFY_SOCKET", &manager.name);
    let mut relay = Relay::spawn(command);
    let status = format!("STATUS=0 members; listens on chat10://{addr}");
    assert_eq!(manager.notice(), ["READY=1", &*status]);
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);

    let limit = setting(&service, "LimitNOFILE").parse().unwrap();
    let room = chatloop::descriptors::room_for_clients(limit, 1);
    assert!(value_of("--max-clients").parse::<usize>().unwrap() <= room);
    let drain = humantime::parse_duration(value_of("--drain")).unwrap();
    let patience = humantime::parse_duration(setting(&service, "TimeoutStopSec")).unwrap();
    assert!(drain < patience, "it would be killed while it delivers");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = std::env::temp_dir().join(format!("chatloop-units-{}", process::id()));
    fs::create_dir_all(&dir).unwrap();
    let service = unit("chatloop.service");
    // It looks whether the program is there.
    let here = service.replace("/usr/local/bin/chatloop", env!("CARGO_BIN_EXE_chatloop"));
    fs::write(dir.join("chatloop.service"), here).unwrap();
    fs::write(dir.join("chatloop.socket"), unit("chatloop.socket")).unwrap();
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).current_dir(&dir).output()
    };
    let verified = analyze(&["verify", "./chatloop.service", "./chatloop.socket"]);
    // The threshold is in tenths of what is printed.
    let exposed = analyze(&[
        "security",
        "--offline=true",
        "--threshold=10",
        "./chatloop.service",
    ]);
    fs::remove_dir_all(&dir).unwrap();
    let (Ok(verified), Ok(exposed)) = (verified, exposed) else {
        common::skip("systemd-analyze is not installed");
        return;
    };
    let log = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{log}");
    assert!(!log.contains("chatloop"), "{log}");
    assert!(
        exposed.status.success(),
        "{}",
        String::from_utf8_lossy(&exposed.stdout)
    );
}
