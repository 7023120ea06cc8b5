//! The log's output to the standard error stream, which never blocks the event loop.
//!
//! A write to a pipe without a reader, or to a terminal that Ctrl-S has stopped, sleeps until there
//! is room again. In one event loop everything would sleep with it, the handling of SIGTERM too. So
//! a line that the descriptor does not accept waits in a bounded queue, and the loop comes back for
//! it. What does not fit the queue either is dropped, counted, and reported later.
//!
//! The inherited descriptor stays blocking. `O_NONBLOCK` belongs to the open file description, which
//! the shell and other programs share; they would get errors that they do not expect.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env_logger::{Builder, Target};
use log::{Level, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::stdio::dup2_stderr;
use rustix::termios::tcgetsid;
use socket2::SockRef;

/// How many bytes of lines wait at most. The table that SIGUSR1 asks for is logged in one turn, and
/// that of ten thousand members, a hundred bytes each, fits. Memory is taken only while lines wait.
const CAPACITY: usize = 1024 * 1024;

/// After how long to try again while lines wait. The loop cannot watch the descriptor itself: the
/// server's event queue has only its own descriptors, and epoll refuses some kinds of files.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// For how many lines an empty queue keeps its memory.
const IDLE_LINES: usize = 16;

/// How many bytes a pipe accepts without blocking when it polls as writable: the least `PIPE_BUF`
/// that POSIX allows.
const MIN_PIPE_BUF: usize = 512;

/// The one output of the process, as there is one standard error stream. Until [`install`] has run it
/// writes directly.
static OUTPUT: Mutex<Output> = Mutex::new(Output {
    access: Access::Direct,
    record: Vec::new(),
    queue: LineQueue::new(),
});

/// Starts to log with what was built, without ever blocking on the standard error stream.
///
/// Call this once, before anything is logged.
pub(crate) fn install(builder: &mut Builder) {
    output().access = Access::prepare();
    let logger = builder.target(Target::Pipe(Box::new(Recorder))).build();
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(Logger(logger))).expect("there is no other logger");
}

/// Writes as many of the waiting lines as the descriptor accepts. Returns after how long to call
/// this again; `None` if nothing waits.
pub(crate) fn flush() -> Option<Duration> {
    log::logger().flush();
    let is_waiting = !output().queue.lines.is_empty();
    is_waiting.then_some(RETRY_INTERVAL)
}

/// How many lines were dropped since the program started.
pub(crate) fn dropped_lines() -> u64 {
    output().queue.all_dropped
}

/// Writes a last line that is no log record, after those that wait. The panic hook calls this too.
pub(crate) fn write_line(line: &str) {
    let line = line.as_bytes();
    if OUTPUT.try_lock().is_err() {
        // The panic was in this file. The line is worth more than not to block.
        let _ = io::stderr().write_all(line);
        return;
    }
    log::logger().flush();
    let mut output = output();
    // Lines that an error has cost are reported before the next record. There is none any more.
    output.queue.take_dropped();
    output.submit(line.to_vec(), 0);
}

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A `Logger` submits each record as one line to the output.
struct Logger(env_logger::Logger);

impl Logger {
    /// Logs a record. One that is a report gives the number of `reported` lines.
    fn submit(&self, record: &Record<'_>, reported: u64) {
        self.0.log(record);
        let mut output = output();
        let line = mem::take(&mut output.record);
        // A record that the filter does not let through has none.
        if !line.is_empty() {
            output.submit(line, reported);
        }
    }

    fn report(&self, dropped: u64) {
        let lines = if dropped == 1 { "line" } else { "lines" };
        self.submit(
            &Record::builder()
                .level(Level::Warn)
                .target(module_path!())
                .args(format_args!(
                    "{dropped} log {lines} dropped: standard error did not accept them"
                ))
                .build(),
            dropped,
        );
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.0.matches(record) {
            return;
        }
        // The report stands where the lines are missing.
        let dropped = output().queue.take_dropped();
        if let Some(dropped) = dropped {
            self.report(dropped);
        }
        self.submit(record, 0);
    }

    fn flush(&self) {
        let dropped = {
            let mut output = output();
            output.write_waiting();
            // After an error only the next line shows whether writing works again. Without one there
            // is no reason to try.
            if output.queue.has_failed {
                None
            } else {
                output.queue.take_dropped()
            }
        };
        if let Some(dropped) = dropped {
            self.report(dropped);
        }
    }
}

/// A `Recorder` receives what `env_logger` has formatted.
struct Recorder;

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        output().record.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An `Output` is the standard error stream with the lines that wait for it.
struct Output {
    access: Access,
    /// The record that is being formatted.
    record: Vec<u8>,
    queue: LineQueue,
}

impl Output {
    fn submit(&mut self, text: Vec<u8>, reported: u64) {
        // While others wait, this line does too: one attempt a turn is enough. But many lines of one
        // turn may need the room that a reader has made meanwhile.
        if self.queue.is_too_full_for(&text) {
            self.write_waiting();
        }
        let had_waiting = !self.queue.lines.is_empty();
        let is_queued = self.queue.push(text, reported);
        if is_queued && !had_waiting {
            self.write_waiting();
        }
    }

    fn write_waiting(&mut self) {
        let access = self.access;
        self.queue.write_to(|bytes| access.write(bytes));
    }
}

/// An `Access` is a way to write to the standard error stream without blocking.
#[derive(Clone, Copy)]
enum Access {
    /// A plain write. A regular file never blocks, and neither does a description of our own.
    Direct,
    /// A socket takes a flag with each write.
    Socket,
    /// As much as is sure not to block, when the descriptor is ready. Another program that writes to
    /// the same pipe at the same moment can still take the room.
    Polled,
}

impl Access {
    /// Finds the way for what the standard error stream is.
    fn prepare() -> Self {
        let Ok(stat) = fstat(io::stderr()) else {
            return Self::Direct;
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => Self::Socket,
            FileType::Fifo | FileType::CharacterDevice if reopen().is_ok() => Self::Direct,
            FileType::Fifo | FileType::CharacterDevice => Self::Polled,
            _ => Self::Direct,
        }
    }

    fn write(self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr();
        match self {
            Self::Direct => stderr.write(bytes),
            Self::Socket => SockRef::from(&stderr).send_with_flags(bytes, libc::MSG_DONTWAIT),
            Self::Polled if is_writable(&stderr)? => {
                stderr.write(&bytes[..bytes.len().min(MIN_PIPE_BUF)])
            }
            Self::Polled => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

/// Replaces our standard error stream by a description of our own, which does not block, of the same
/// pipe or terminal. The number of descriptors stays the same.
fn reopen() -> io::Result<()> {
    let open = |path| {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
    };
    let own = if cfg!(any(target_os = "linux", target_os = "android")) {
        // Elsewhere such a path gives a copy of the descriptor, with the same description.
        open("/proc/self/fd/2")
    } else {
        Err(ErrorKind::Unsupported.into())
    };
    // Another user's pipe or terminal cannot be opened, except for the controlling terminal. This
    // succeeds only if it is that one.
    let own = own.or_else(|error| match tcgetsid(io::stderr()) {
        Ok(_) => open("/dev/tty"),
        Err(_) => Err(error),
    })?;
    dup2_stderr(own)?;
    Ok(())
}

/// Whether a descriptor accepts bytes, or has an error that a write returns.
fn is_writable(descriptor: &impl AsFd) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::OUT)];
    Ok(poll(&mut descriptors, Some(&Timespec::default()))? > 0)
}

/// A `LineQueue` holds whole lines until they are written, and counts those that it drops.
struct LineQueue {
    lines: VecDeque<Line>,
    /// The bytes of all of these lines.
    bytes: usize,
    /// How many bytes of the first line are written.
    written: usize,
    /// How many lines were dropped and not reported yet. Until they are, all others are dropped too,
    /// so that the report stands where lines are missing.
    dropped: u64,
    /// How many lines were dropped, reported or not.
    all_dropped: u64,
    /// The last write has failed.
    has_failed: bool,
    /// The last line that was written is not whole, and the rest of it is lost.
    is_cut: bool,
}

/// A line that waits.
struct Line {
    text: Vec<u8>,
    /// How many dropped lines it reports, if it is a report.
    reported: u64,
}

impl LineQueue {
    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            written: 0,
            dropped: 0,
            all_dropped: 0,
            has_failed: false,
            is_cut: false,
        }
    }

    /// Queues a line, or drops it. Returns whether it was queued.
    fn push(&mut self, text: Vec<u8>, reported: u64) -> bool {
        let is_too_full = self.is_too_full_for(&text);
        let line = Line { text, reported };
        if self.dropped > 0 || is_too_full {
            self.drop_line(&line);
            return false;
        }
        self.bytes += line.text.len();
        self.lines.push_back(line);
        true
    }

    /// Whether this line is the first to be dropped.
    fn is_too_full_for(&self, text: &[u8]) -> bool {
        self.dropped == 0 && self.bytes + text.len() > CAPACITY
    }

    /// Returns how many lines were dropped, which the caller must report, once half of the queue is
    /// free. With less room, every few lines would have a report of their own.
    fn take_dropped(&mut self) -> Option<u64> {
        let is_due = self.dropped > 0 && self.bytes <= CAPACITY / 2;
        is_due.then(|| mem::take(&mut self.dropped))
    }

    /// Writes until nothing waits or the write would block. After an error the lines are dropped: it
    /// may last, as that of a full disk does.
    fn write_to(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        while let Some(line) = self.lines.front() {
            let rest = if self.is_cut {
                b"\n"
            } else {
                &line.text[self.written..]
            };
            match write(rest) {
                Ok(0) => return,
                Ok(_) if self.is_cut => self.is_cut = false,
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.fail(),
            }
        }
        // After many lines have waited, their memory is given back.
        self.lines.shrink_to(IDLE_LINES);
    }

    fn advance(&mut self, written: usize) {
        self.has_failed = false;
        self.written += written;
        if self
            .lines
            .front()
            .is_some_and(|line| line.text.len() == self.written)
        {
            self.bytes -= self.written;
            self.written = 0;
            self.lines.pop_front();
        }
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.is_cut |= self.written > 0;
        self.written = 0;
        self.bytes = 0;
        for line in mem::take(&mut self.lines) {
            self.drop_line(&line);
        }
    }

    fn drop_line(&mut self, line: &Line) {
        self.dropped += line.reported.max(1);
        // The lines of a report are counted already.
        self.all_dropped += u64::from(line.reported == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Accepts bytes until it has no room.
    struct Sink {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Sink {
        fn with_room(room: usize) -> Self {
            let bytes = Vec::new();
            Self { bytes, room }
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= len;
            self.bytes.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        #[track_caller]
        fn assert_holds(&self, expected: &[u8]) {
            assert_eq!(
                self.bytes.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
    }

    fn push(queue: &mut LineQueue, line: &[u8]) -> bool {
        queue.push(line.to_vec(), 0)
    }

    /// A queue that was filled with this line, and has dropped two.
    fn full_queue(line: &[u8]) -> LineQueue {
        let mut queue = LineQueue::new();
        while push(&mut queue, line) {}
        assert!(!push(&mut queue, line));
        queue
    }

    #[test]
    fn line_that_is_written_in_part_goes_on_where_it_stopped() {
        for room in 0..=6 {
            let mut queue = LineQueue::new();
            push(&mut queue, b"ab\n");
            push(&mut queue, b"cd\n");
            let mut sink = Sink::with_room(room);
            queue.write_to(|bytes| sink.write(bytes));
            sink.assert_holds(&b"ab\ncd\n"[..room]);
            sink.room = 10;
            queue.write_to(|bytes| sink.write(bytes));
            sink.assert_holds(b"ab\ncd\n");
            assert_eq!((queue.lines.len(), queue.bytes), (0, 0));
        }
    }

    #[test]
    fn interrupted_write_is_repeated() {
        let mut queue = LineQueue::new();
        push(&mut queue, b"ab\n");
        let mut sink = Sink::with_room(10);
        let mut is_interrupted = false;
        queue.write_to(|bytes| {
            is_interrupted = !is_interrupted;
            if is_interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            sink.write(bytes)
        });
        sink.assert_holds(b"ab\n");
    }

    #[test]
    fn full_queue_drops_the_newest_lines_until_their_report_has_room() {
        let line = &[b'x'; 1000];
        let mut queue = full_queue(line);
        assert!(queue.bytes <= CAPACITY && queue.bytes + line.len() > CAPACITY);
        assert_eq!(queue.take_dropped(), None);

        // There is room for a line, but not for a report yet.
        let mut sink = Sink::with_room(line.len());
        queue.write_to(|bytes| sink.write(bytes));
        assert_eq!(queue.take_dropped(), None);
        assert!(!push(&mut queue, line), "it would come before the report");

        sink.room = CAPACITY / 2;
        queue.write_to(|bytes| sink.write(bytes));
        assert_eq!(queue.take_dropped(), Some(3));
        assert_eq!(queue.take_dropped(), None, "once is enough");
        assert!(push(&mut queue, line));
    }

    #[test]
    fn report_that_is_dropped_counts_as_the_lines_it_reports() {
        let mut queue = LineQueue::new();
        queue.push(b"5 dropped\n".to_vec(), 5);
        push(&mut queue, b"ab\n");
        queue.write_to(|_| Err(ErrorKind::StorageFull.into()));
        assert_eq!(queue.take_dropped(), Some(6));
    }

    #[test]
    fn failed_write_drops_what_waits_and_is_not_repeated() {
        let mut queue = LineQueue::new();
        push(&mut queue, b"ab\n");
        push(&mut queue, b"cd\n");
        let mut writes = 0;
        queue.write_to(|_| {
            writes += 1;
            Err(ErrorKind::BrokenPipe.into())
        });
        assert_eq!((writes, queue.lines.len(), queue.bytes), (1, 0, 0));
        assert!(queue.has_failed);
        assert_eq!(queue.take_dropped(), Some(2));
    }

    #[test]
    fn line_that_a_failed_write_has_cut_ends_before_the_next() {
        let mut queue = LineQueue::new();
        push(&mut queue, b"abcd\n");
        let mut sink = Sink::with_room(2);
        let mut fail_or_write = |queue: &mut LineQueue, room| {
            sink.room = room;
            queue.write_to(|bytes| {
                let written = sink.write(bytes);
                written.map_err(|_| ErrorKind::StorageFull.into())
            });
            sink.bytes.clone()
        };
        assert_eq!(fail_or_write(&mut queue, 2), b"ab");
        assert_eq!(queue.take_dropped(), Some(1));
        // It fails again before it has written anything.
        push(&mut queue, b"ef\n");
        assert_eq!(fail_or_write(&mut queue, 0), b"ab");
        assert_eq!(queue.take_dropped(), Some(1));
        push(&mut queue, b"gh\n");
        assert_eq!(fail_or_write(&mut queue, 10), b"ab\ngh\n");
        assert!(!queue.has_failed);
    }

    #[test]
    fn queue_that_was_full_gives_its_memory_back() {
        let mut queue = full_queue(b"x\n");
        assert!(queue.lines.capacity() > 1000);
        queue.write_to(|bytes| Ok(bytes.len()));
        assert!(queue.lines.capacity() <= IDLE_LINES);
    }

    #[test]
    fn full_pipe_polls_as_not_writable_until_it_is_read() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let chunk = [b'x'; MIN_PIPE_BUF];
        let mut written = 0;
        while is_writable(&writer).unwrap() {
            written += writer.write(&chunk).unwrap();
        }
        assert!(written > 0);
        let mut read = vec![0; written];
        reader.read_exact(&mut read).unwrap();
        assert!(is_writable(&writer).unwrap());
        drop(reader);
        assert!(is_writable(&writer).unwrap(), "the write returns the error");
    }
}
