//! What the kernel reports of a process: its memory, its CPU time, its sleeps. Linux only, for `/proc`.
//!
//! A server is watched from outside, through proc(5), so any server can be measured. Elsewhere than on
//! Linux, or for a process of another user, there is nothing to read, and its figures are left out.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use crate::sockets::{self, Socket, canonical};
use crate::text::Shown;

/// A process on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
}

/// What a process has used so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// The CPU time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) resident: u64,
    /// How often one of its threads went to sleep, which is how often one woke up.
    pub(super) sleeps: u64,
    /// How often one was taken off its CPU.
    pub(super) preempted: u64,
    /// Calls of read(2) and its like, and of write(2) and its like, if the kernel counts them. recv(2)
    /// and send(2) are not among them.
    pub(super) reads: Option<u64>,
    pub(super) writes: Option<u64>,
}

impl Process {
    /// The process with this number, if it can be watched.
    pub(super) fn watch(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.usage().map(|_| process)
    }

    /// The process that listens on this address of this machine, if it can be found: only its own user
    /// and root can see its descriptors.
    pub(super) fn listening_on(addr: SocketAddr) -> Option<Self> {
        let socket = format!("socket:[{}]", listener(addr)?.inode);
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let has_socket = |process: &Self| {
            let descriptors = fs::read_dir(process.path("fd")).into_iter().flatten();
            let mut links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            links.any(|link| link.as_os_str() == &socket[..])
        };
        pids.map(|pid| Self { pid })
            .filter(has_socket)
            .find(|process| process.usage().is_ok())
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its command line in short, the program without the folder: `python3 server.py`. A process may
    /// write anything there, so it is escaped.
    pub(super) fn command(&self) -> String {
        let line = self.read("cmdline").unwrap_or_default();
        let words = line.split('\0').filter(|word| !word.is_empty());
        let mut words = words.map(|word| {
            let name = Path::new(word).file_name().and_then(|name| name.to_str());
            // Some servers change their own command line: `redis-server *:6379`.
            name.and_then(|name| name.split(' ').next()).unwrap_or(word)
        });
        let program = words.next().unwrap_or("?");
        // An interpreter is named with its script.
        let command = match words.next() {
            Some(script) if !script.starts_with('-') => &format!("{program} {script}"),
            _ => program,
        };
        Shown::plain(command.as_bytes()).to_string()
    }

    /// The number of descriptors that it may have open.
    pub(super) fn open_files_limit(&self) -> Option<u64> {
        field(&self.read("limits").ok()?, "Max open files")
    }

    /// Its resident memory, in bytes.
    pub(super) fn resident(&self) -> io::Result<u64> {
        // A process that has ended and was not waited for has none.
        let kilobytes = field(&self.read("status")?, "VmRSS:").ok_or(ErrorKind::NotFound)?;
        Ok(kilobytes * 1024)
    }

    /// The number of descriptors that it has open.
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
            // A thread that has ended meanwhile has no files.
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            usage.cpu += Duration::from_nanos(field(&read("schedstat"), "").unwrap_or(0));
            let status = read("status");
            usage.sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            usage.preempted += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        // The time of threads that have ended is only in this, which is coarser.
        let cpu = cpu_time(&self.read("stat")?).unwrap_or_default();
        usage.cpu = usage.cpu.max(cpu);
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
        let calls = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            resident: self.resident,
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            preempted: self.preempted.saturating_sub(before.preempted),
            reads: calls(self.reads, before.reads),
            writes: calls(self.writes, before.writes),
        }
    }
}

/// The CPU time of this process: cheaper to read than its usage, and exact.
pub(super) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The bytes in the kernel's slabs: sockets, files and the like, of the whole machine. The buffers of an
/// idle connection are empty, so this is most of what it costs.
///
/// The objects in use are counted if they can be read, which takes root; otherwise their pages, among
/// which are some in reserve.
pub(super) fn kernel_memory() -> Option<u64> {
    let objects = read_proc("slabinfo").map(|slabs| objects(&slabs));
    objects.or_else(|| Some(field(&read_proc("meminfo")?, "Slab:")? * 1024))
}

/// The number of packets that this machine's kernel has dropped because a CPU's queue of received
/// packets was full. All that is sent over the loopback network passes through it.
pub(super) fn dropped_packets() -> Option<u64> {
    dropped_in(&read_proc("net/softnet_stat")?)
}

/// The bytes in the buffers of all TCP sockets of this machine.
pub(super) fn socket_buffers() -> Option<u64> {
    buffers(&read_proc("net/sockstat")?)
}

fn read_proc(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc").join(name)).ok()
}

/// Sums up the dropped packets in a table that has a line a CPU, in hexadecimal.
fn dropped_in(table: &str) -> Option<u64> {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    table.lines().map(dropped).sum()
}

/// Finds the buffers in the statistics of sockets, which count pages.
fn buffers(statistics: &str) -> Option<u64> {
    let (_, tcp) = statistics.split_once("TCP:")?;
    let (_, pages) = tcp.split_once(" mem")?;
    Some(field(pages, "")? * page_size() as u64)
}

/// Sums up the bytes of all objects in a list of slabs, see slabinfo(5).
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

/// The user and system time in a line of `/proc/PID/stat`, of all threads, those that have ended too.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name, in parentheses, and may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = (ticks()? + ticks()?) as f64;
    Some(Duration::from_secs_f64(
        ticks / clock_ticks_per_second() as f64,
    ))
}

/// Finds the socket that listens on this address of this machine, perhaps on all addresses.
fn listener(addr: SocketAddr) -> Option<Socket> {
    let is_any = |socket: &Socket| socket.local.ip().is_unspecified();
    // Sockets that listen come first: the rest of a table may be long. The second table is opened only
    // if there is none in the first: reading even an empty one takes milliseconds.
    sockets::tables().find_map(|table| {
        let listeners = table.take_while(Socket::is_listening);
        let listeners = listeners.filter(|socket| is_at(socket, addr, is_any(socket)));
        listeners.min_by_key(is_any)
    })
}

/// Whether a socket is at this address; with `is_any`, at any address of this machine.
fn is_at(socket: &Socket, addr: SocketAddr, is_any: bool) -> bool {
    let (local, addr) = (socket.local, canonical(addr));
    local.port() == addr.port() && (is_any || local.ip() == addr.ip())
}

/// Counts the connections that a server on this machine has not accepted, if they can be seen.
pub(super) fn accept_queue(addr: SocketAddr) -> Option<u64> {
    listener(addr).map(|listener| listener.unread)
}

/// Counts the connections of a server on this machine, if they can be seen.
pub(super) fn connections_at(addr: SocketAddr) -> Option<usize> {
    let is_any = listener(addr)?.local.ip().is_unspecified();
    let sockets = sockets::tables().flatten();
    let sockets = sockets.filter(|one| one.is_established() && is_at(one, addr, is_any));
    Some(sockets.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    #[cfg(target_os = "linux")]
    fn connections_of_a_server_are_those_at_its_address() {
        let connect = |addr: &str, port| TcpStream::connect((addr, port)).unwrap();
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let at = |addr: &str| SocketAddr::new(addr.parse().unwrap(), port);
        assert_eq!(connections_at(at("127.0.0.1")), Some(0));
        let _connections = ["127.0.0.1", "127.0.0.2"].map(|addr| connect(addr, port));
        assert_eq!(connections_at(at("127.0.0.1")), Some(2));
        let here = TcpListener::bind("127.0.0.3:0").unwrap();
        let port = here.local_addr().unwrap().port();
        let _connection = connect("127.0.0.3", port);
        let at = |addr: &str| SocketAddr::new(addr.parse().unwrap(), port);
        assert_eq!(connections_at(at("127.0.0.3")), Some(1));
        assert_eq!(connections_at(at("127.0.0.4")), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn accept_queue_has_the_connections_that_are_not_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(accept_queue(addr), Some(0));
        let _waiting = [(); 2].map(|()| TcpStream::connect(addr).unwrap());
        assert_eq!(accept_queue(addr), Some(2));
        listener.accept().unwrap();
        assert_eq!(accept_queue(addr), Some(1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn command_has_no_control_characters() {
        let mut program = Command::new("cat");
        program
            .arg0("/bin/\u{1b}[2Jcat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        // It has its command line by the time it answers.
        child.stdin.as_ref().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let command = Process::watch(child.id()).unwrap().command();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(command, "\\u{1b}[2Jcat");
    }

    #[test]
    fn cpu_time_includes_threads_that_have_ended() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 99";
        let ticks = clock_ticks_per_second();
        let expected = Duration::from_secs_f64(200.0 / ticks as f64);
        assert_eq!(cpu_time(stat), Some(expected));
        assert_eq!(cpu_time("42 (short) S 1"), None);
    }

    #[test]
    fn socket_buffers_are_counted_in_pages() {
        let statistics =
            "sockets: used 9\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 56\nUDP: inuse 0 mem 3\n";
        let page = page_size() as u64;
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
    fn kernel_objects_are_counts_times_sizes() {
        let slabs = "slabinfo - version: 2.1\n\
             # name  <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
             TCP          100    120   2560   12    8 : tunables 0 0 0 : slabdata 10 10 0\n\
             filp          10     64    256   16    1 : tunables 0 0 0 : slabdata 4 4 0\n";
        assert_eq!(objects(slabs), 258_560);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn process_is_found_by_its_listener_and_has_its_usage() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_on(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process.pid(), std::process::id());
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
