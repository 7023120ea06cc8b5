//! Python programs in the manner of the tutorials.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// Whether there is a Python to run; says so if there is none.
pub fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        super::skip("python3 is not installed");
    }
    found
}

/// A running `tests/interop/chat10_server.py`.
pub struct PythonServer {
    child: Child,
    port: u16,
}

impl PythonServer {
    /// On a free port of 127.0.0.1. None, and a line that says so, if there is no Python.
    #[track_caller]
    pub fn start() -> Option<Self> {
        if !has_python() {
            return None;
        }
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/chat10_server.py"
        );
        let child = Command::new("python3")
            .args([script, "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // What some tests do to it ends it with a traceback.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, port: 0 };
        let mut line = String::new();
        let mut output = BufReader::new(server.child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.trim_end().strip_prefix("listening on ").unwrap();
        server.port = port.parse().unwrap();
        Some(server)
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
