//! Requests in HTTP, over TCP and over the admin socket, written out independently of the code under test.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::PATIENCE;

/// A connection to the admin socket.
#[track_caller]
pub fn connect_admin(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The request for this path, after which no other comes.
pub fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
}

/// The response to a request for this path, all of it.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, &request(path))
}

/// The body of the response of the admin socket to a request for this path.
#[track_caller]
pub fn get_admin(socket: &Path, path: &str) -> String {
    let response = exchange(connect_admin(socket), &request(path));
    body(&response).to_owned()
}

/// Sends a request and returns the whole response.
#[track_caller]
pub fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The body of a response, whose length must be the announced one, if one is.
#[track_caller]
pub fn body(response: &str) -> &str {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map(|length| length.parse::<usize>().unwrap());
    assert!(length.is_none_or(|length| length == body.len()), "{head}");
    body
}

/// The value of the sample of this name and these labels, which is a whole number.
#[track_caller]
pub fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// A path for an admin socket. A file that is left there is removed with it.
pub struct SocketPath(PathBuf);

impl SocketPath {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chatloop-admin-{}-{count}.sock", process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Deref for SocketPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
