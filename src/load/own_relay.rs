//! A relay of one's own to measure, when no server is named.

use std::io::{self, BufRead, BufReader};
use std::mem;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The longest message that a relay takes if nothing else is said, in bytes, and how many of longer
/// ones it is to queue.
const MAX_MESSAGE: usize = 1024 * 1024;
const QUEUE: usize = 8;

/// How many of its warnings are told.
const TOLD: usize = 3;

/// A child that ends with this.
#[derive(Debug)]
pub(super) struct OwnRelay {
    child: Child,
    log: BufReader<ChildStderr>,
    /// A line that is not all there yet.
    partial: Vec<u8>,
    addr: SocketAddr,
    /// Its first warnings, and how many there were.
    told: Vec<String>,
    warnings: usize,
}

impl OwnRelay {
    /// Starts `program serve` on a free port of 127.0.0.1, and waits until it listens. It takes
    /// messages of `size` bytes, if that is more than it would by itself.
    ///
    /// # Errors
    ///
    /// If there is no such program, or it does not say where it listens.
    pub(super) fn start(program: &Path, size: usize) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--end-with-parent"]);
        if size > MAX_MESSAGE {
            command.args(["--max-message", &size.to_string()]);
            command.args(["--queue-limit", &(QUEUE * size).to_string()]);
        }
        let mut child = command
            // What it says at its start, and of trouble; not who joins, which would cost it more than
            // the joining.
            .env("RUST_LOG", "warn,chatloop::serve=info")
            .env_remove("CHATLOOP_LOG_LEVEL")
            // It is not what a service manager that has started us wants to hear from.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            // The results' pipe is not its to hold open.
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // So that Ctrl-C is for this program, which ends the relay when it has told the results.
            .process_group(0)
            .spawn()?;
        let stderr = child.stderr.take();
        let stderr = stderr.ok_or_else(|| io::Error::other("the relay has no standard error"))?;
        let mut log = BufReader::new(stderr);
        let mut said = String::new();
        let addr = loop {
            let start = said.len();
            if log.read_line(&mut said)? == 0 {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!(
                    "the relay did not start: {}",
                    said.trim_end()
                )));
            }
            if let Some((_, rest)) = said[start..].split_once("listens on chat10://") {
                let addr = rest.split([';', ',', '\n']).next().unwrap_or_default();
                break addr.parse().map_err(io::Error::other)?;
            }
        };
        // From here on it is looked at now and then, and must not hold us up.
        let flags = fcntl_getfl(log.get_ref())?;
        fcntl_setfl(log.get_ref(), flags | OFlags::NONBLOCK)?;
        Ok(Self {
            child,
            log,
            partial: Vec::new(),
            addr,
            told: Vec::new(),
            warnings: 0,
        })
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads what the relay has logged, so that it never waits for a place to write to.
    pub(super) fn read_log(&mut self) {
        let mut line = mem::take(&mut self.partial);
        while let Ok(1..) = self.log.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line);
            if let Some((_, warning)) = text.trim_end().split_once("WARN ] ") {
                self.warnings += 1;
                if self.told.len() < TOLD {
                    self.told.push(warning.to_owned());
                }
            }
            line.clear();
        }
        // There is no more for now, and perhaps the beginning of a line.
        self.partial = line;
    }

    /// The warnings since this was asked last: the first of them, and how many there were.
    pub(super) fn take_warnings(&mut self) -> (Vec<String>, usize) {
        self.read_log();
        (mem::take(&mut self.told), mem::take(&mut self.warnings))
    }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
