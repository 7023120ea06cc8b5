//! What ten thousand silent members cost the real program: memory, and nothing else. Run with
//! `cargo bench --bench idle`; it takes a quarter of a minute. Linux only, for `/proc`.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chatloop::server::descriptors;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if !fs::exists("/proc/self/schedstat")? {
        println!("idle: skipped, this system has no /proc to measure with");
        return Ok(());
    }
    // `cargo bench -- --test` wants to see it run, not to know the figures.
    let (wanted, silence) = if std::env::args().any(|arg| arg == "--test") {
        (200, Duration::from_millis(200))
    } else {
        (10_000, Duration::from_secs(10))
    };
    let room = descriptors::room_for_clients(descriptors::raise_limit()?, 0);
    let members = wanted.min(room);
    let mut relay = Relay::start()?;

    let before = relay.resident_bytes()?;
    let (cpu_before, connecting) = (relay.cpu()?, Instant::now());
    let mut peers = Vec::with_capacity(members);
    while peers.len() < members {
        // Few enough at a time for any listen backlog.
        let batch = 64.min(members - peers.len());
        for _ in 0..batch {
            let mut peer = TcpStream::connect(relay.addr)?;
            write!(peer, "{:<10}user{:06}", 10, peers.len())?;
            peers.push(peer);
        }
        for _ in 0..batch {
            relay.wait_for_line("joined:")?;
        }
    }
    let connected = connecting.elapsed();
    let accept_cpu = relay.cpu_since(cpu_before)?;
    let after = relay.resident_bytes()?;

    let (cpu_before, wakes_before) = (relay.cpu()?, relay.wakes()?);
    sleep(silence);
    let (idle_cpu, wakes) = (relay.cpu_since(cpu_before)?, relay.wakes()? - wakes_before);

    let cpu_before = relay.cpu()?;
    let message = "5         hello";
    peers[0].write_all(message.as_bytes())?;
    let mut expected = vec![0; 20 + message.len()];
    for peer in &mut peers[1..] {
        peer.read_exact(&mut expected)?;
        assert!(
            expected.ends_with(message.as_bytes()),
            "each hears it whole"
        );
    }
    let sweep_cpu = relay.cpu_since(cpu_before)?;

    println!("{members} members, connected in {connected:.1?}, silent for {silence:?}:");
    println!("  resident before the first   {before:>10} bytes");
    println!(
        "  resident for each           {:>10} bytes",
        (after - before) / members
    );
    println!(
        "  CPU to accept, register, log{:>10.1?} each",
        accept_cpu / members as u32
    );
    println!("  wake-ups while silent       {wakes:>10}");
    println!("  CPU while silent            {idle_cpu:>10.1?}");
    println!(
        "  CPU to tell all a message   {:>10.1?} each",
        sweep_cpu / (members - 1) as u32
    );
    Ok(())
}

/// The program, built with the benchmarks' profile.
struct Relay {
    child: Child,
    log: BufReader<ChildStderr>,
    addr: SocketAddr,
}

impl Relay {
    fn start() -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chatloop"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "info"])
            .stderr(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut relay = Self {
            child,
            log,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = relay.wait_for_line("listens on")?;
        let addr = line
            .split("chat10://")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        relay.addr = addr.ok_or("no address in the start line")?.parse()?;
        Ok(relay)
    }

    fn wait_for_line(&mut self, text: &str) -> Result<String> {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            if self.log.read_line(&mut line)? == 0 {
                return Err("the relay ended".into());
            }
        }
        Ok(line)
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{name}",
            self.child.id()
        ))?)
    }

    /// A number of `/proc/PID/status`, see proc_pid_status(5).
    fn status(&self, key: &str) -> Result<usize> {
        let status = self.proc_file("status")?;
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|value| value.split_whitespace().next())
            .ok_or("no such line in /proc/PID/status")?;
        Ok(value.parse()?)
    }

    fn resident_bytes(&self) -> Result<usize> {
        Ok(self.status("VmRSS")? * 1024)
    }

    /// How often it was put to sleep, which is how often it has woken up.
    fn wakes(&self) -> Result<usize> {
        self.status("voluntary_ctxt_switches")
    }

    fn cpu(&self) -> Result<Duration> {
        let schedstat = self.proc_file("schedstat")?;
        let nanoseconds = schedstat.split(' ').next().ok_or("an empty schedstat")?;
        Ok(Duration::from_nanos(nanoseconds.parse()?))
    }

    fn cpu_since(&self, before: Duration) -> Result<Duration> {
        Ok(self.cpu()?.saturating_sub(before))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
