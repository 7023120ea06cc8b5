//! A Redis of the test's own, as relays share it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::process::{send_signal, wait_for};
use super::{PATIENCE, skip};

/// A running engine, which keeps on disk what it has acknowledged.
pub struct Engine {
    child: Option<Child>,
    addr: SocketAddr,
    dir: PathBuf,
    /// Whose replica it is, if it is one.
    of: Option<u16>,
    /// The master that it watches, if it is a Sentinel.
    watches: Option<u16>,
}

impl Engine {
    /// One that runs; none where there is no Redis.
    pub fn start() -> Option<Self> {
        let mut engine = Self::stopped()?;
        engine.start_again();
        Some(engine)
    }

    /// A replica of this one, which has caught up.
    pub fn replica(&self) -> Self {
        let mut replica = Self::stopped().unwrap();
        replica.of = Some(self.addr.port());
        replica.start_again();
        wait_for("the replica", || {
            replica
                .ask("INFO replication")
                .contains("master_link_status:up")
        });
        replica
    }

    /// A Sentinel that watches this one under the name `main`.
    pub fn sentinel(&self) -> Self {
        let mut sentinel = Self::stopped().unwrap();
        sentinel.watches = Some(self.addr.port());
        sentinel.start_again();
        sentinel
    }

    /// One that does not run yet.
    pub fn stopped() -> Option<Self> {
        let version = Command::new("redis-server").arg("--version").output();
        if version.is_err() {
            skip("there is no redis-server");
            return None;
        }
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chatloop-engine-{}-{count}", process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        // A port that is free now.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Some(Self {
            child: None,
            addr: listener.local_addr().unwrap(),
            dir,
            of: None,
            watches: None,
        })
    }

    /// The URL for `--bus`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts it with what it has on disk.
    #[track_caller]
    pub fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        if let Some(master) = self.watches {
            let config = self.dir.join("sentinel.conf");
            let lines = format!("sentinel monitor main 127.0.0.1 {master} 1\n");
            fs::write(&config, lines).unwrap();
            command.arg(config).arg("--sentinel");
        }
        command.arg("--port").arg(self.addr.port().to_string());
        command.arg("--dir").arg(&self.dir);
        command.args(["--bind", "127.0.0.1"]);
        if self.watches.is_none() {
            command.args(["--save", "", "--appendonly", "yes"]);
            command.args(["--appendfsync", "always"]);
        }
        if let Some(master) = self.of {
            command.args(["--replicaof", "127.0.0.1", &master.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
        wait_for("the engine", || {
            TcpStream::connect(self.addr).is_ok_and(|stream| {
                ask_on(stream, "PING").is_ok_and(|reply| reply.starts_with("+PONG"))
            })
        });
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        send_signal(self.child.as_ref().unwrap().id(), signal);
    }

    /// Sends a command of words without blanks. Returns the beginning of the reply.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        ask_on(TcpStream::connect(self.addr).unwrap(), command).unwrap()
    }
}

fn ask_on(mut stream: TcpStream, command: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut reply = vec![0; 64 * 1024];
    let len = stream.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..len]).into_owned())
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
