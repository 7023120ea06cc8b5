//! The relay that is started to be measured when no server is named.

use std::io::{self, BufRead, BufReader};
use std::mem;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The relay's default limit of a message, in bytes, and how many longer ones it queues.
const DEFAULT_MAX_MESSAGE: usize = 1024 * 1024;
const QUEUED_MESSAGES: usize = 8;

/// How many of its warnings are reported.
const MAX_WARNINGS: usize = 3;

/// A child process that ends with this one.
#[derive(Debug)]
pub(super) struct OwnRelay {
    child: Child,
    log: BufReader<ChildStderr>,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    addr: SocketAddr,
    /// Its first warnings, and the number of later ones.
    warnings: Vec<String>,
    more: usize,
}

impl OwnRelay {
    /// Starts `program serve` on a free port of 127.0.0.1, and waits until it listens. Its limits are
    /// the default, or as high as messages of `size` bytes need.
    pub(super) fn start(program: &Path, size: usize) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--end-with-parent"]);
        if size > DEFAULT_MAX_MESSAGE {
            command.args(["--max-message", &size.to_string()]);
            command.args(["--queue-limit", &(QUEUED_MESSAGES * size).to_string()]);
        }
        let mut child = command
            // Its address and its warnings, but no line for each member: that would cost it more than
            // accepting the member.
            .env("RUST_LOG", "warn,chatloop::serve=info")
            .env_remove("CHATLOOP_LOG_LEVEL")
            // A service manager expects notices of this process only.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            // The relay must not hold the pipe of the results open.
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C must reach only this process, which ends the relay after the report.
            .process_group(0)
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // Dropped on an error, it ends the child.
        let mut relay = Self {
            child,
            log: BufReader::new(stderr),
            partial: Vec::new(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            warnings: Vec::new(),
            more: 0,
        };
        let mut text = String::new();
        while relay.addr.port() == 0 {
            let start = text.len();
            if relay.log.read_line(&mut text)? == 0 {
                let text = format!("the relay did not start: {}", text.trim_end());
                return Err(io::Error::other(text));
            }
            if let Some((_, rest)) = text[start..].split_once("listens on chat10://") {
                let addr = rest.split([';', ',', '\n']).next().unwrap_or_default();
                relay.addr = addr.parse().map_err(io::Error::other)?;
            }
        }
        // From here on the log is read between turns of the loop, and must not block them.
        let flags = fcntl_getfl(relay.log.get_ref())?;
        fcntl_setfl(relay.log.get_ref(), flags | OFlags::NONBLOCK)?;
        Ok(relay)
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads the relay's log, so that the relay never waits for room in the pipe.
    pub(super) fn read_log(&mut self) {
        while let Ok(1..) = self.log.read_until(b'\n', &mut self.partial) {
            let line = String::from_utf8_lossy(&self.partial);
            if let Some((_, warning)) = line.trim_end().split_once("WARN ] ") {
                if self.warnings.len() < MAX_WARNINGS {
                    self.warnings.push(warning.to_owned());
                } else {
                    self.more += 1;
                }
            }
            self.partial.clear();
        }
    }

    /// Returns the warnings since the last call: the first few, and how many more there were.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        self.read_log();
        let mut warnings = mem::take(&mut self.warnings);
        match mem::take(&mut self.more) {
            0 => {}
            more => warnings.push(format!("and {more} warnings more")),
        }
        warnings
    }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
