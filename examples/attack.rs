//! The attacks: what breaks the steps of the ladder, and what the next step survives.
//!
//! ```text
//! cargo run --example attack -- split 04_level          starts the step, and stops it afterwards
//! cargo run --example attack -- split 127.0.0.1:1234    any server of this chat, in any language
//! ```
//!
//! An attack prints what it does, what it expects and what came. The exit code is 0 if the server
//! survived, 1 if it is broken, and 2 if there was no attack. A third argument is the number of seconds
//! for which the attack waits for what does not come.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CpuSet, Pid, sched_getcpu, sched_setaffinity};
use socket2::{Domain, Socket, Type};

const MS: Duration = Duration::from_millis(1);
/// How long an attack waits for what any server should do, and for what comes after the server's trouble.
const PATIENCE: Duration = Duration::from_secs(30);
/// These messages are together more than the buffers of a connection hold.
const MESSAGES: usize = 4000;
const MESSAGE_LEN: usize = 4000;
/// The limit of the server that is started for `full`.
const MAX_OPEN_FILES: u32 = 40;

/// What came. It is an error if the server did not survive.
type Verdict = Result<String, Box<dyn Error>>;

/// What an attack does, what it expects, and the attack itself.
type Attack = (&'static str, &'static str, fn(&mut Target) -> Verdict);

fn attack(name: &str) -> Option<Attack> {
    Some(match name {
        "chat" => (
            "alice and bob join, and send a message each",
            "alice and bob receive each other's messages",
            chat,
        ),
        "idle" => (
            "a client connects and is silent, then alice and bob join",
            "alice and bob receive each other's messages",
            idle,
        ),
        "slow" => (
            "bob joins and does not read; alice sends 4000 messages of 4000 bytes",
            "carol receives each of them",
            slow,
        ),
        "rest" => (
            "alice and bob join, and are silent for a second",
            "the server uses no CPU",
            rest,
        ),
        "split" => (
            "alice sends a message of 70,000 bytes",
            "bob receives it",
            split,
        ),
        "glue" => (
            "alice sends two messages in one write",
            "bob receives two messages",
            glue,
        ),
        "late" => (
            "alice sends 4000 messages of 4000 bytes, and only then does bob read",
            "bob receives each of them",
            late,
        ),
        "crowd" => (
            "alice sends messages to bob, first without and then beside 900 silent clients",
            "beside the crowd, a message costs less than half a poll of the crowd more CPU",
            crowd,
        ),
        "burst" => (
            "alice sends 50 messages of 1000 bytes in one write",
            "bob receives each of them",
            burst,
        ),
        "flood" => (
            "while the server is suspended, mallory sends 40 messages, and then alice one",
            "bob receives alice's message among the first ten",
            flood,
        ),
        "half" => (
            "alice sends 4000 messages of 4000 bytes, bob ends his input, and only then reads",
            "bob receives each of them",
            half,
        ),
        "full" => (
            "64 clients join a server that may open 40 files, then the first 32 of them leave",
            "the last client is served or refused",
            full,
        ),
        "silent" => (
            "a client connects, and sends no more than half a header",
            "the server closes the connection",
            silent,
        ),
        "stop" => (
            "alice sends 4000 messages of 4000 bytes, the server gets SIGTERM, and only then does bob read",
            "bob receives each of them",
            stop,
        ),
        "hoard" => (
            "ten members do not read, and alice sends 4000 messages of 4000 bytes",
            "the server's memory grows by less than 32 MB",
            hoard,
        ),
        "drip" => (
            "alice sends 4000 messages of 4000 bytes, and bob reads one in each millisecond",
            "bob receives each of them",
            drip,
        ),
        "reset" => (
            "bob resets his connection",
            "alice and carol receive each other's messages",
            reset,
        ),
        _ => return None,
    })
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let name = args.first().map_or("", String::as_str);
    let (Some((does, expects, run)), Some(target)) = (attack(name), args.get(1)) else {
        eprintln!("usage: attack NAME STEP|ADDRESS [SECONDS]; examples/README.md has the names");
        return ExitCode::from(2);
    };
    let seconds = args.get(2).and_then(|text| text.parse().ok()).unwrap_or(3);
    let max_open_files = (name == "full").then_some(MAX_OPEN_FILES);
    let mut target = match Target::new(target, Duration::from_secs(seconds), max_open_files) {
        Ok(target) => target,
        Err(error) => {
            eprintln!("{target}: {error}");
            return ExitCode::from(2);
        }
    };
    println!("does:     {does}\nexpects:  {expects}");
    match run(&mut target) {
        Ok(came) => {
            println!("came:     {came}\nsurvived");
            ExitCode::SUCCESS
        }
        Err(came) => {
            println!("came:     {came}\nbroken");
            ExitCode::FAILURE
        }
    }
}

fn chat(target: &mut Target) -> Verdict {
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    bob.send("")?;
    alice.receive("bob", "")?;
    alice.send("hi bob")?;
    bob.receive("alice", "hi bob")?;
    Ok("both messages".into())
}

fn idle(target: &mut Target) -> Verdict {
    let silent = target.connect()?;
    if let Ok([mut alice, mut bob]) = target.room_within(target.patience, ["alice", "bob"]) {
        bob.send("hi alice")?;
        alice.receive("bob", "hi alice")?;
        return Ok("both messages".into());
    }
    drop(silent);
    target.room(["alice", "bob"])?;
    Err("nothing, until the silent client had left".into())
}

fn slow(target: &mut Target) -> Verdict {
    let [mut alice, mut carol, bob] = target.room(["alice", "carol", "bob"])?;
    let Err(trouble) = alice.send_all(&mut carol) else {
        return Ok("all messages".into());
    };
    drop(bob);
    carol.be_patient()?;
    carol.next()?;
    Err(format!("{trouble}, until bob had left").into())
}

fn rest(target: &mut Target) -> Verdict {
    let _room = target.room(["alice", "bob"])?;
    let (start, before) = (Instant::now(), target.cpu()?);
    let mut used = Duration::ZERO;
    while used < 100 * MS && start.elapsed() < 1000 * MS {
        sleep(10 * MS);
        used = target.cpu()?.saturating_sub(before);
    }
    let came = format!("{used:?} of CPU in {:?}", start.elapsed());
    verdict(used < 10 * MS, came)
}

fn split(target: &mut Target) -> Verdict {
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    let message = "x".repeat(70_000);
    alice.send(&message)?;
    bob.receive("alice", &message)?;
    Ok("that message".into())
}

fn glue(target: &mut Target) -> Verdict {
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    alice.write(&[frame("one"), frame("two")].concat())?;
    bob.receive("alice", "one")?;
    bob.receive("alice", "two")?;
    Ok("two messages".into())
}

fn late(target: &mut Target) -> Verdict {
    let [mut alice, mut carol, mut bob] = target.room(["alice", "carol", "bob"])?;
    alice.send_all(&mut carol)?;
    bob.receive_all(Duration::ZERO)
}

fn crowd(target: &mut Target) -> Verdict {
    target.share_processor()?;
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    let mut cpu_of_a_message = |target: &Target| -> Result<Duration, Box<dyn Error>> {
        let before = target.cpu()?;
        for _ in 0..200 {
            alice.send("hello")?;
            bob.receive("alice", "hello")?;
        }
        Ok(target.cpu()?.saturating_sub(before) / 200)
    };
    // The least of some rounds: other programs on the machine can only make a round cost more.
    let (mut alone, mut beside, mut poll) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        alone = alone.min(cpu_of_a_message(target)?);
        let connect = |_| target.connect();
        let crowd: Vec<_> = (0..900).map(connect).collect::<Result<_, _>>()?;
        // While these are sent, the crowd is accepted, and later closed.
        cpu_of_a_message(target)?;
        beside = beside.min(cpu_of_a_message(target)?);
        poll = poll.min(time_of_a_poll(&crowd)?);
        drop(crowd);
        cpu_of_a_message(target)?;
    }
    let came = format!(
        "{alone:?} a message alone, {beside:?} beside the crowd; a poll of it takes {poll:?}"
    );
    verdict(beside < alone + poll / 2, came)
}

/// How long poll(2) takes on these connections when it need not wait: the least of some times.
fn time_of_a_poll(connections: &[TcpStream]) -> Result<Duration, Box<dyn Error>> {
    let watch = |connection| PollFd::new(connection, PollFlags::IN);
    let mut fds: Vec<_> = connections.iter().map(watch).collect();
    let mut least = Duration::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        poll(&mut fds, Some(&Timespec::default()))?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

fn burst(target: &mut Target) -> Verdict {
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    let message = "x".repeat(1000);
    alice.write(&frame(&message).repeat(50))?;
    for count in 0..50 {
        let Err(trouble) = bob.receive("alice", &message) else {
            continue;
        };
        alice.send("are you there?")?;
        bob.be_patient()?;
        bob.next()?;
        return Err(format!("{count} messages, then {trouble}, until alice sent one more").into());
    }
    Ok("all messages".into())
}

fn flood(target: &mut Target) -> Verdict {
    let [mut alice, mut bob, mut mallory] = target.room(["alice", "bob", "mallory"])?;
    // It may still be about to read once more from alice.
    target.await_state('S')?;
    target.signal("STOP")?;
    target.await_state('T')?;
    let messages = frame(&"x".repeat(1000)).repeat(40);
    mallory.write(&messages)?;
    // A busy kernel may deliver on two processors in another order.
    while mallory.unread_by_server()? < messages.len() {
        sleep(MS);
    }
    alice.send("hello")?;
    target.signal("CONT")?;
    let mut before = 0;
    while bob.next()?.0 == b"mallory" {
        before += 1;
    }
    let came = format!("alice's message, after {before} of mallory's");
    verdict(before < 10, came)
}

fn half(target: &mut Target) -> Verdict {
    let [mut alice, mut carol, mut bob] = target.room(["alice", "carol", "bob"])?;
    alice.send_all(&mut carol)?;
    bob.stream.shutdown(Shutdown::Write)?;
    // When carol has these, the server has met the end of bob's input.
    alice.send_all(&mut carol)?;
    bob.receive_all(Duration::ZERO)
}

fn full(target: &mut Target) -> Verdict {
    let join = |_| target.join("one of many");
    let mut clients: Vec<_> = (0..64).map(join).collect::<Result<_, _>>()?;
    target.await_shortage();
    clients.drain(..32);
    let [.., other, last] = clients.as_mut_slice() else {
        return Err("no clients".into());
    };
    // It fails if the other client was refused as well.
    let _ = other.send("hello");
    match last.receive("one of many", "hello") {
        Ok(()) => return Ok("the last client was served".into()),
        Err(Trouble::Closed) => return Ok("the last client was refused".into()),
        Err(_) => {}
    }
    let _new = target.connect()?;
    last.be_patient()?;
    last.receive("one of many", "hello")?;
    Err("nothing, until yet another client connected".into())
}

fn silent(target: &mut Target) -> Verdict {
    let mut silent = target.connect()?;
    silent.write_all(b"5    ")?;
    match Peer::new(silent, "")?.next() {
        Err(Trouble::Closed) => Ok("the connection was closed".into()),
        Err(trouble) => Err(trouble.into()),
        Ok(_) => Err("a message".into()),
    }
}

fn stop(target: &mut Target) -> Verdict {
    let [mut alice, mut carol, mut bob] = target.room(["alice", "carol", "bob"])?;
    alice.send_all(&mut carol)?;
    target.signal("TERM")?;
    bob.receive_all(Duration::ZERO)
}

fn hoard(target: &mut Target) -> Verdict {
    let [mut alice, mut carol] = target.room(["alice", "carol"])?;
    let join = |_| target.join("bob");
    let _bobs: Vec<_> = (0..10).map(join).collect::<Result<_, _>>()?;
    let before = target.peak_memory()?;
    alice.send_all(&mut carol)?;
    let grown = (target.peak_memory()? - before) / 1000;
    verdict(grown < 32, format!("it has grown by {grown} MB"))
}

fn drip(target: &mut Target) -> Verdict {
    let [mut alice, mut bob] = target.room(["alice", "bob"])?;
    thread::scope(|scope| {
        // Sending fails if the server is stopped, which is no news.
        scope.spawn(move || (0..MESSAGES).try_for_each(|count| alice.send(&message(count))));
        bob.receive_all(MS)
    })
}

fn reset(target: &mut Target) -> Verdict {
    let [mut alice, mut carol, bob] = target.room(["alice", "carol", "bob"])?;
    alice.send("hello")?;
    carol.receive("alice", "hello")?;
    // A connection that is closed with input unread is reset.
    bob.stream.peek(&mut [0])?;
    drop(bob);
    carol.send("hi")?;
    alice.receive("carol", "hi")?;
    Ok("both messages".into())
}

fn verdict(has_survived: bool, came: String) -> Verdict {
    if has_survived {
        Ok(came)
    } else {
        Err(came.into())
    }
}

fn message(count: usize) -> String {
    format!("{count:<MESSAGE_LEN$}")
}

fn frame(payload: &str) -> Vec<u8> {
    format!("{:<10}{payload}", payload.len()).into_bytes()
}

/// The server under attack.
struct Target {
    addr: SocketAddr,
    /// The server's process, if it was started for the attack.
    process: Option<Child>,
    patience: Duration,
}

impl Target {
    /// An address is that of a server. Anything else is an example, which is started.
    fn new(target: &str, patience: Duration, files: Option<u32>) -> Result<Self, Box<dyn Error>> {
        let mut started = Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            process: None,
            patience,
        };
        if let Ok(addr) = target.parse() {
            started.addr = addr;
            return Ok(started);
        }
        if let Some(cargo) = env::var_os("CARGO") {
            let args = ["build", "--quiet", "--example", target];
            Command::new(cargo).args(args).status()?;
        }
        let limit = files.map_or_else(|| "true".to_owned(), |files| format!("ulimit -n {files}"));
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limit} && exec \"$0\" 127.0.0.1:0")])
            .arg(env::current_exe()?.with_file_name(target))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("it has no output")?;
        started.process = Some(process);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("listening on ");
        started.addr = addr.ok_or("it does not start")?.parse()?;
        Ok(started)
    }

    /// The receive buffer is small, and stays so: otherwise a reader that is slow would be less so.
    fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None)?;
        socket.set_recv_buffer_size(64 * 1024)?;
        socket.connect(&self.addr.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn join(&self, name: &str) -> Result<Peer, Trouble> {
        let mut peer = Peer::new(self.connect()?, name)?;
        peer.send(name)?;
        Ok(peer)
    }

    fn room<const N: usize>(&self, names: [&str; N]) -> Result<[Peer; N], Trouble> {
        self.room_within(PATIENCE, names)
    }

    /// Clients that have all joined, since the others have received a message of the first one.
    ///
    /// Nothing tells a client that it has joined. So they wait a moment, and if that was not enough, they
    /// leave, and others join that wait longer.
    fn room_within<const N: usize>(
        &self,
        limit: Duration,
        names: [&str; N],
    ) -> Result<[Peer; N], Trouble> {
        let start = Instant::now();
        let mut wait = 10 * MS;
        while start.elapsed() < limit {
            let mut peers = Vec::new();
            for name in names {
                peers.push(self.join(name)?);
            }
            sleep(wait);
            let (first, others) = peers.split_first_mut().ok_or(Trouble::Nothing)?;
            first.send("is anybody there?")?;
            let has_joined = |peer: &mut Peer| {
                let _ = peer.stream.set_read_timeout(Some(10 * wait));
                let received = peer.receive(names[0], "is anybody there?");
                let _ = peer.stream.set_read_timeout(Some(self.patience));
                received.is_ok()
            };
            if others.iter_mut().all(has_joined) {
                return peers.try_into().map_err(|_| Trouble::Nothing);
            }
            wait *= 2;
        }
        Err(Trouble::Nothing)
    }

    fn pid(&self) -> Result<u32, Box<dyn Error>> {
        let process = self.process.as_ref();
        let process = process.ok_or("this attack must start the server: name a step")?;
        Ok(process.id())
    }

    fn signal(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let args = [format!("-{name}"), self.pid()?.to_string()];
        Command::new("kill").args(args).status()?;
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String, Box<dyn Error>> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.pid()?))?)
    }

    /// Waits until the server is in this state of proc(5): `S` asleep, `T` suspended.
    fn await_state(&self, state: char) -> Result<(), Box<dyn Error>> {
        while !self.proc("stat")?.contains(&format!(") {state} ")) {
            sleep(MS);
        }
        Ok(())
    }

    /// Waits until the server has all the files open that it may, and sleeps: it has met the error then. Of a
    /// server that was not started here nothing is known.
    fn await_shortage(&self) {
        let is_short = || {
            let files = fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count();
            Ok::<_, Box<dyn Error>>(
                files >= MAX_OPEN_FILES as usize && self.proc("stat")?.contains(") S "),
            )
        };
        let start = Instant::now();
        while !is_short().unwrap_or(true) && start.elapsed() < PATIENCE {
            sleep(MS);
        }
    }

    /// The CPU time that the server has used.
    fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        let times = self.proc("schedstat")?;
        let nanoseconds = times.split(' ').next().unwrap_or_default();
        Ok(Duration::from_nanos(nanoseconds.parse()?))
    }

    /// Keeps the server on this processor, and this program as well: to be woken from another one costs a
    /// server several times as much CPU if it was idle, and nobody knows when it was.
    fn share_processor(&self) -> Result<(), Box<dyn Error>> {
        let pid = i32::try_from(self.pid()?)?;
        let mut this = CpuSet::new();
        this.set(sched_getcpu());
        sched_setaffinity(None, &this)?;
        sched_setaffinity(Pid::from_raw(pid), &this)?;
        Ok(())
    }

    /// The most memory that the server has had, in kilobytes.
    fn peak_memory(&self) -> Result<u64, Box<dyn Error>> {
        let status = self.proc("status")?;
        let peak = status.split("VmHWM:").nth(1).unwrap_or_default();
        Ok(peak.split_whitespace().next().unwrap_or_default().parse()?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A client.
struct Peer {
    name: String,
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Peer {
    fn new(stream: TcpStream, name: &str) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            input: BufReader::new(stream.try_clone()?),
            stream,
        })
    }

    fn be_patient(&self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn send(&mut self, payload: &str) -> Result<(), Trouble> {
        self.write(&frame(payload))
    }

    /// How many bytes the server's kernel has of this peer that the server has not read: `rx_queue` of
    /// proc(5). The server is at 127.0.0.1.
    fn unread_by_server(&self) -> io::Result<usize> {
        let (here, there) = (self.stream.local_addr()?, self.stream.peer_addr()?);
        let ends = format!(
            " 0100007F:{:04X} 0100007F:{:04X} 01 ",
            there.port(),
            here.port()
        );
        let table = fs::read_to_string("/proc/net/tcp")?;
        let queues = table
            .lines()
            .find_map(|line| Some(line.split_once(&ends)?.1));
        // In hexadecimal digits: what waits to be sent, and what waits to be read.
        let unread = queues.and_then(|queues| usize::from_str_radix(queues.get(9..17)?, 16).ok());
        unread.ok_or_else(|| io::Error::other("the connection is not in /proc/net/tcp"))
    }

    /// Sends all messages, each when the witness has the one before.
    fn send_all(&mut self, witness: &mut Self) -> Result<(), String> {
        for count in 0..MESSAGES {
            let sent = self.send(&message(count));
            sent.and_then(|()| witness.receive(&self.name, &message(count)))
                .map_err(|trouble| format!("{count} messages, then {trouble}"))?;
        }
        Ok(())
    }

    /// Receives all messages, with a pause after each.
    fn receive_all(&mut self, pause: Duration) -> Verdict {
        for count in 0..MESSAGES {
            self.receive("alice", &message(count))
                .map_err(|trouble| format!("{count} messages, then {trouble}"))?;
            sleep(pause);
        }
        Ok("all messages".into())
    }

    fn receive(&mut self, from: &str, message: &str) -> Result<(), Trouble> {
        let (name, received) = self.next()?;
        if name == from.as_bytes() && received == message.as_bytes() {
            return Ok(());
        }
        let same = received.iter().zip(message.as_bytes());
        let same = same.take_while(|(one, other)| one == other).count();
        let text = format!(
            "another message: from \"{}\", of {} bytes, the first {same} of them right",
            name.escape_ascii(),
            received.len()
        );
        Err(Trouble::Other(text))
    }

    /// The next message, after its sender's name.
    fn next(&mut self) -> Result<(Vec<u8>, Vec<u8>), Trouble> {
        Ok((self.next_frame()?, self.next_frame()?))
    }

    fn next_frame(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut header = [0; 10];
        self.input.read_exact(&mut header)?;
        let len = String::from_utf8_lossy(&header).trim_end().parse::<u32>();
        let Ok(len) = len else {
            let text = format!("\"{}\" for a header", header.escape_ascii());
            return Err(Trouble::Other(text));
        };
        let mut payload = vec![0; len as usize];
        self.input.read_exact(&mut payload)?;
        Ok(payload)
    }
}

/// Why a message was not received.
#[derive(Debug)]
enum Trouble {
    Nothing,
    Closed,
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Closed => f.write_str("the end of the connection"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Error for Trouble {}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Nothing,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Self::Closed
            }
            _ => Self::Other(error.to_string()),
        }
    }
}
