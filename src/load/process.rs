//! What the system tells of a process: its memory, its CPU, its sleep. Linux only, for `/proc`.
//!
//! A server is watched from outside, through proc(5), so that it need not be prepared for it and any
//! server can be. Elsewhere than on Linux, or for a process of somebody else, there is nothing to
//! read, and its figures are left out.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A process on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
}

/// What a process has used so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Time on a CPU, of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) resident: u64,
    /// How often one of its threads went to sleep, which is how often one woke up.
    pub(super) sleeps: u64,
    /// How often one was taken off its CPU.
    pub(super) preempted: u64,
    /// Calls of read(2) and its like, and of write(2) and its like, where the system says. Not among
    /// them are recv(2) and send(2).
    pub(super) reads: Option<u64>,
    pub(super) writes: Option<u64>,
}

impl Process {
    /// The process with this number, if it can be watched.
    pub(super) fn watch(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.usage().map(|_| process)
    }

    /// This one.
    pub(super) fn this() -> Self {
        Self {
            pid: std::process::id(),
        }
    }

    /// The one that listens on this address of this machine, if it can be found: its descriptors can
    /// be seen only by its own user and by root.
    pub(super) fn listening_on(addr: SocketAddr) -> Option<Self> {
        let socket = format!("socket:[{}]", listener(addr)?);
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some(pid)
        });
        pids.filter(|&pid| holds(pid, &socket))
            .find_map(|pid| Self::watch(pid).ok())
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// What it was started as, its program without the folder: `python3 server.py`.
    pub(super) fn command(&self) -> String {
        let bytes = self.read("cmdline").unwrap_or_default();
        let mut words = bytes
            .split('\0')
            .filter(|word| !word.is_empty())
            .map(|word| {
                let name = Path::new(word).file_name().and_then(|name| name.to_str());
                // Some write what they do into their own name: `redis-server *:6379`.
                name.unwrap_or(word).split(' ').next().unwrap_or(word)
            });
        let program = words.next().unwrap_or("?").to_owned();
        // For what runs scripts, the script.
        match words.next() {
            Some(script) if !script.starts_with('-') => format!("{program} {script}"),
            _ => program,
        }
    }

    /// How many descriptors it may have open.
    pub(super) fn open_files_limit(&self) -> Option<u64> {
        let limits = self.read("limits").ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Its resident memory, in bytes.
    pub(super) fn resident(&self) -> io::Result<u64> {
        // One that has ended and was not waited for has none.
        let kilobytes = field(&self.read("status")?, "VmRSS:").ok_or(ErrorKind::NotFound)?;
        Ok(kilobytes * 1024)
    }

    /// How many descriptors it has open.
    pub(super) fn descriptors(&self) -> Option<u64> {
        Some(fs::read_dir(self.path("fd")).ok()?.count() as u64)
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let mut usage = Usage {
            resident: self.resident()?,
            ..Usage::default()
        };
        for task in fs::read_dir(self.path("task"))?.flatten() {
            // One that has ended meanwhile has nothing to tell.
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let schedule = read("schedstat");
            let on_cpu = schedule
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok());
            usage.cpu += Duration::from_nanos(on_cpu.unwrap_or(0));
            let status = read("status");
            usage.sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            usage.preempted += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        // Of threads that have ended, only this knows. It is coarser.
        usage.cpu = usage
            .cpu
            .max(cpu_time(&self.read("stat")?).unwrap_or_default());
        if let Ok(io) = self.read("io") {
            usage.reads = field(&io, "syscr:");
            usage.writes = field(&io, "syscw:");
        }
        Ok(usage)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let bytes = fs::read(self.path(name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Usage {
    /// What was used since an earlier time. What is held is what is held now.
    pub(super) fn since(&self, before: &Self) -> Self {
        let used = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            resident: self.resident,
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            preempted: self.preempted.saturating_sub(before.preempted),
            reads: used(self.reads, before.reads),
            writes: used(self.writes, before.writes),
        }
    }
}

/// How long this process has been on a CPU: cheaper to ask than its usage, and exact.
pub(super) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the kernel holds in its slabs, in bytes: sockets, files and the like, of the whole machine.
/// The buffers of an idle connection are empty, so this is most of what it costs.
///
/// The objects in use are counted if that may be read, which takes root; the pages that they are on
/// if not, among which are some that are in reserve.
pub(super) fn kernel_memory() -> Option<u64> {
    if let Ok(slabs) = fs::read_to_string("/proc/slabinfo") {
        return Some(objects(&slabs));
    }
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    Some(field(&meminfo, "Slab:")? * 1024)
}

/// The number of packets that this machine's kernel has dropped because a CPU's queue of received packets
/// was full. All that is sent over the loopback network passes through it.
pub(super) fn dropped_packets() -> Option<u64> {
    dropped_in(&fs::read_to_string("/proc/net/softnet_stat").ok()?)
}

/// The same in the kernel's table, which has a line a CPU, in hexadecimal.
fn dropped_in(table: &str) -> Option<u64> {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    table.lines().map(dropped).sum()
}

/// What the buffers of all TCP sockets of this machine hold, in bytes.
pub(super) fn socket_buffers() -> Option<u64> {
    buffers(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

/// The same in the kernel's statistics of sockets, which count pages.
fn buffers(statistics: &str) -> Option<u64> {
    let line = statistics.lines().find(|line| line.starts_with("TCP:"))?;
    let (_, pages) = line.split_once(" mem ")?;
    let pages: u64 = pages.trim().parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The bytes of all objects in a list of slabs, see slabinfo(5).
fn objects(slabs: &str) -> u64 {
    let bytes = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let count: u64 = columns.next()?.parse().ok()?;
        let size: u64 = columns.nth(1)?.parse().ok()?;
        Some(count * size)
    };
    slabs.lines().filter_map(bytes).sum()
}

/// The first number after a label at the beginning of a line.
fn field(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The time that all threads of a process were on a CPU, those that have ended too: of its line in
/// `/proc/PID/stat`, user and system time.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(
        (user + system) as f64 / ticks as f64,
    ))
}

const SOCKET_TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The number of the socket that listens on this address.
fn listener(addr: SocketAddr) -> Option<u64> {
    listening(addr).map(|listening| listening.inode)
}

/// How many connections to this address of this machine wait to be accepted, if that is told.
pub(super) fn accept_queue(addr: SocketAddr) -> Option<u64> {
    listening(addr).map(|listening| listening.queued)
}

/// How many connections a server on this machine has at this address. `None` if it is elsewhere, or
/// if that cannot be seen.
pub(super) fn connections_at(addr: SocketAddr) -> Option<usize> {
    let listening = listening(addr)?;
    let tables = SOCKET_TABLES.into_iter();
    let tables = tables.filter_map(|name| Some(BufReader::new(File::open(name).ok()?)));
    Some(
        tables
            .map(|table| connections_in(table, addr, listening.is_any))
            .sum(),
    )
}

/// The same in a table of sockets; with `is_any`, whichever of this machine's addresses they are to.
fn connections_in(table: impl BufRead, addr: SocketAddr, is_any: bool) -> usize {
    const ESTABLISHED: &str = "01";
    let lines = table.lines().map_while(Result::ok);
    let is_one = |line: &String| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().and_then(socket_addr);
        local.is_some_and(|local| {
            let is_there = is_any || local.ip().to_canonical() == addr.ip().to_canonical();
            is_there && local.port() == addr.port() && columns.nth(1) == Some(ESTABLISHED)
        })
    };
    lines.filter(is_one).count()
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    inode: u64,
    /// Whether it listens on all addresses of this machine.
    is_any: bool,
    /// How many connections are not accepted yet.
    queued: u64,
}

fn listening(addr: SocketAddr) -> Option<Listening> {
    let read = |name| listening_in(BufReader::new(File::open(name).ok()?), addr);
    SOCKET_TABLES.into_iter().find_map(read)
}

/// The same in a table of sockets, see proc_net_tcp(5). Those that listen come first, so that it need
/// not be read to its end, which may be far.
fn listening_in(table: impl BufRead, addr: SocketAddr) -> Option<Listening> {
    const LISTEN: &str = "0A";
    let mut any = None;
    for line in table.lines().map_while(Result::ok).skip(1) {
        let mut columns = line.split_whitespace();
        let local = socket_addr(columns.nth(1)?)?;
        if columns.nth(1)? != LISTEN {
            break;
        }
        if local.port() != addr.port() {
            continue;
        }
        let (_, queued) = columns.next()?.split_once(':')?;
        let found = Listening {
            is_any: local.ip().is_unspecified(),
            queued: u64::from_str_radix(queued, 16).ok()?,
            inode: columns.nth(4)?.parse().ok()?,
        };
        if local.ip().to_canonical() == addr.ip().to_canonical() {
            return Some(found);
        }
        if found.is_any {
            any = any.or(Some(found));
        }
    }
    any
}

/// An address as the kernel writes it: words in the machine's byte order, and the port.
fn socket_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .map(|word| word.map(u32::to_ne_bytes))
        .collect::<Option<Vec<[u8; 4]>>>()
        .map(|words| words.concat());
    let bytes = words?;
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether a process has this socket.
fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listener_is_found_by_the_address_it_takes_connections_on() {
        let rest = "00:00000000 00000000     0        0";
        let none = "00000000:0000";
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when ...\n\
             0: 00000000:04D2 {none} 0A 00000000:00000000 {rest} 111 1 0\n\
             1: 0100007F:04D2 {none} 0A 00000000:0000001F {rest} 222 1 0\n\
             2: 00000000:04D3 {none} 0A 00000000:00000000 {rest} 333 1 0\n\
             3: 0000000000000000FFFF00000100007F:04D4 {none} 0A 00000000:00000000 {rest} 444 1 0\n\
             4: 0100007F:04D5 {none} 01 00000000:00000000 {rest} 555 1 0\n\
             5: 0100007F:04D5 {none} 0A 00000000:00000000 {rest} 666 1 0\n"
        );
        for (addr, expected) in [
            ("127.0.0.1:1234", Some((222, 31))),
            ("127.0.0.2:1234", Some((111, 0))),
            ("192.0.2.1:1235", Some((333, 0))),
            ("127.0.0.1:1236", Some((444, 0))),
            ("127.0.0.1:1237", None),
        ] {
            let found = listening_in(table.as_bytes(), addr.parse().unwrap());
            let found = found.map(|found| (found.inode, found.queued));
            assert_eq!(found, expected, "{addr}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn connections_of_a_server_are_those_at_its_address() {
        let rest = "00:00000000 00000000 0 0 555 1 0";
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when ...\n\
             0: 0100007F:04D2 00000000:0000 0A 00000000:00000000 {rest}\n\
             1: 0100007F:04D2 0100007F:9C40 01 00000000:00000000 {rest}\n\
             2: 0200007F:04D2 0100007F:9C41 01 00000000:00000000 {rest}\n\
             3: 0100007F:9C40 0100007F:04D2 01 00000000:00000000 {rest}\n\
             4: 0100007F:04D2 0100007F:9C42 06 00000000:00000000 {rest}\n"
        );
        let addr = "127.0.0.1:1234".parse().unwrap();
        assert_eq!(connections_in(table.as_bytes(), addr, false), 1);
        assert_eq!(connections_in(table.as_bytes(), addr, true), 2);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn connections_that_are_not_accepted_are_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(accept_queue(addr), Some(0));
        let _waiting = [(); 2].map(|()| std::net::TcpStream::connect(addr).unwrap());
        assert_eq!(accept_queue(addr), Some(2));
        listener.accept().unwrap();
        assert_eq!(accept_queue(addr), Some(1));
    }

    #[test]
    fn the_time_of_threads_that_have_ended_is_in_the_line_of_the_process() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 99";
        let ticks = rustix::param::clock_ticks_per_second();
        let expected = Duration::from_secs_f64(200.0 / ticks as f64);
        assert_eq!(cpu_time(stat), Some(expected));
        assert_eq!(cpu_time("42 (short) S 1"), None);
    }

    #[test]
    fn socket_buffers_are_counted_in_pages() {
        let statistics =
            "sockets: used 9\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 56\nUDP: inuse 0 mem 3\n";
        let page = rustix::param::page_size() as u64;
        assert_eq!(buffers(statistics), Some(56 * page));
        assert_eq!(buffers("UDP: inuse 0 mem 3\n"), None);
    }

    #[test]
    fn dropped_packets_of_all_cpus_are_summed() {
        let table = "0661dbe6 00000001 00000008 00000000\n04f7f9ed 0000411d 00000005 00000000\n";
        assert_eq!(dropped_in(table), Some(16_670));
        assert_eq!(dropped_in("none\n"), None);
    }

    #[test]
    fn the_kernels_objects_add_up() {
        let slabs = "slabinfo - version: 2.1\n\
             # name  <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
             TCP          100    120   2560   12    8 : tunables 0 0 0 : slabdata 10 10 0\n\
             filp          10     64    256   16    1 : tunables 0 0 0 : slabdata 4 4 0\n";
        assert_eq!(objects(slabs), 258_560);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_found_by_its_listener_and_tells_what_it_uses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_on(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process, Process::this());
        let usage = process.usage().unwrap();
        assert!(usage.resident > 100_000, "{usage:?}");
        let before = usage.cpu;
        let mut sum = 0_u64;
        while process.usage().unwrap().cpu < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(process.open_files_limit().unwrap() > 10);
        // The three standard streams, and the listener.
        assert!(process.descriptors().unwrap() >= 4);
        assert!(
            process.command().contains("chatloop"),
            "{}",
            process.command()
        );
        assert!(kernel_memory().unwrap() > 1_000_000);
    }
}
