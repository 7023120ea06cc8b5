//! Asks a relay for its figures, without blocking.
//!
//! Each sample is a request in HTTP for the metrics and, at an admin socket, one for the members. The relay closes
//! each connection after its response, so a sample is one connection after the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::error::SampleError;
use super::exposition::Exposition;
use super::figures::Figures;
use super::members::MembersTable;
use super::model::Answer;
use super::response::Response;

/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of one read.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The longest body of the metrics, in bytes: a relay sends some 10 kB.
const MAX_METRICS: usize = 1024 * 1024;

/// The longest body of the members' table: a million members are 150 MB.
const MAX_MEMBERS: usize = 256 * 1024 * 1024;

/// Where a relay answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// At one of these addresses; never empty. The first that answers is used.
    Tcp {
        /// The addresses.
        addrs: Vec<SocketAddr>,
        /// The server as the `Host` field has it.
        host: String,
    },
    /// At the admin socket of this path.
    Admin(PathBuf),
}

/// A `Source` takes samples of one relay, one after the other.
#[derive(Debug)]
pub(super) struct Source {
    target: Target,
    token: Token,
    interval: Duration,
    /// When the next sample begins.
    next_sample: Instant,
    /// The address that was used last.
    index: usize,
    /// The request that waits for its response.
    exchange: Option<Exchange>,
    /// The figures of the sample that waits for the members.
    figures: Option<Figures>,
}

/// A request, and what has come of its response.
#[derive(Debug)]
struct Exchange {
    stream: TcpStream,
    /// What the socket has not accepted of the request.
    request: Vec<u8>,
    response: Response,
    deadline: Instant,
    /// Which of the addresses have failed.
    failed_addrs: usize,
}

/// The resources of a relay, in the order in which they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Metrics,
    Members,
}

impl Source {
    /// Takes samples of this relay from now on.
    pub(super) const fn new(
        target: Target,
        token: Token,
        interval: Duration,
        now: Instant,
    ) -> Self {
        Self {
            target,
            token,
            interval,
            next_sample: now,
            index: 0,
            exchange: None,
            figures: None,
        }
    }

    /// When something must happen, if no event comes.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = self.exchange.as_ref().map(|exchange| exchange.deadline);
        deadline.unwrap_or(self.next_sample)
    }

    /// Goes on as far as it can without waiting. Returns the result of a sample when it is complete. An event
    /// for the source is a reason to call this, and so is its [`deadline`](Self::deadline).
    pub(super) fn progress(
        &mut self,
        registry: &Registry,
        now: Instant,
    ) -> Option<Result<Answer, SampleError>> {
        let result = self.go_on(registry, now).transpose()?;
        self.exchange = None;
        self.figures = None;
        Some(result)
    }

    fn go_on(&mut self, registry: &Registry, now: Instant) -> Result<Option<Answer>, SampleError> {
        if self.exchange.is_none() {
            if now < self.next_sample {
                return Ok(None);
            }
            // A sample that took longer than the interval delays the others.
            self.next_sample = (self.next_sample + self.interval).max(now);
            self.begin(registry, 0, now)?;
        }
        while let Some(exchange) = &mut self.exchange {
            match exchange.progress(now) {
                Ok(None) => break,
                Ok(Some(body)) => {
                    if let Some(answer) = self.take(&body)? {
                        return Ok(Some(answer));
                    }
                    self.begin(registry, 0, now)?;
                }
                Err(error) => {
                    // Another address of the same name may answer, unless this one has.
                    let failed_addrs = exchange.failed_addrs + 1;
                    if !exchange.response.is_empty() || failed_addrs >= self.addresses() {
                        return Err(error);
                    }
                    self.index += 1;
                    self.begin(registry, failed_addrs, now)?;
                }
            }
        }
        Ok(None)
    }

    fn addresses(&self) -> usize {
        match &self.target {
            Target::Tcp { addrs, .. } => addrs.len(),
            Target::Admin(_) => 1,
        }
    }

    const fn resource(&self) -> Resource {
        match self.figures {
            None => Resource::Metrics,
            Some(_) => Resource::Members,
        }
    }

    /// Connects to the next address at which that can begin.
    fn connect(&mut self, failed_addrs: &mut usize) -> io::Result<TcpStream> {
        loop {
            let connected = match &self.target {
                Target::Tcp { addrs, .. } => TcpStream::connect(addrs[self.index % addrs.len()]),
                // It is used as one over TCP: both are descriptors that are read and written by the same
                // calls.
                Target::Admin(path) => {
                    UnixStream::connect(path).map(|stream| TcpStream::from(OwnedFd::from(stream)))
                }
            };
            if connected.is_ok() || *failed_addrs + 1 >= self.addresses() {
                return connected;
            }
            *failed_addrs += 1;
            self.index += 1;
        }
    }

    /// Connects, and sends the request for what is to be asked next.
    fn begin(
        &mut self,
        registry: &Registry,
        mut failed_addrs: usize,
        now: Instant,
    ) -> Result<(), SampleError> {
        let mut stream = self.connect(&mut failed_addrs)?;
        registry.register(
            &mut stream,
            self.token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let host = match &self.target {
            Target::Tcp { host, .. } => host,
            Target::Admin(_) => "localhost",
        };
        let (path, max) = match self.resource() {
            Resource::Metrics => ("/metrics", MAX_METRICS),
            Resource::Members => ("/members", MAX_MEMBERS),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        self.exchange = Some(Exchange {
            stream,
            request: request.into_bytes(),
            response: Response::new(max),
            deadline: now + TIMEOUT,
            failed_addrs,
        });
        Ok(())
    }

    /// Takes the body of a response. Returns the answer if nothing else is to be asked.
    fn take(&mut self, body: &[u8]) -> Result<Option<Answer>, SampleError> {
        let Some(figures) = self.figures.take() else {
            let figures = str::from_utf8(body)
                .ok()
                .and_then(|text| Exposition::parse(text).ok())
                .and_then(|scrape| Figures::of(&scrape))
                .ok_or(SampleError::NoRelay)?;
            if matches!(self.target, Target::Admin(_)) {
                self.figures = Some(figures);
                return Ok(None);
            }
            return Ok(Some(Answer {
                figures,
                table: None,
            }));
        };
        let table = MembersTable::parse(body).map_err(|_| SampleError::BadTable)?;
        Ok(Some(Answer {
            figures,
            table: Some(table),
        }))
    }
}

impl Exchange {
    /// Sends and receives what the socket accepts and has. Returns the body once it is complete.
    fn progress(&mut self, now: Instant) -> Result<Option<Vec<u8>>, SampleError> {
        while !self.request.is_empty() {
            match self.stream.write(&self.request) {
                Ok(sent) => drop(self.request.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_ready(&error) => return self.wait(now),
                Err(error) => return Err(error.into()),
            }
        }
        let mut buf = vec![0; SCRATCH_BYTES];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return self.response.finish().map(Some),
                Ok(read) => {
                    if let Some(body) = self.response.feed(&buf[..read])? {
                        return Ok(Some(body));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_ready(&error) => return self.wait(now),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, now: Instant) -> Result<Option<Vec<u8>>, SampleError> {
        if now >= self.deadline {
            return Err(SampleError::Io(ErrorKind::TimedOut.into()));
        }
        Ok(None)
    }
}

/// Whether an event will show that the call can be made: the socket is not connected yet, has no room, or
/// nothing has come.
fn is_not_ready(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
