//! A system whose calls are traced.
//!
//! [`Traced`] wraps any [`System`] and writes a record of each call to a [`Trace`], in the moment in which it
//! returns. The loop is compiled for it as for any other system, so a server without a trace has not one
//! instruction of this.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::system::{Event, Request, Source, System};
use super::trace::Trace;
use crate::relay::ConnId;

/// A system and the trace of its calls.
#[derive(Debug)]
pub struct Traced<S> {
    system: S,
    has_reserve: bool,
    trace: Trace,
}

impl<S: System> Traced<S> {
    /// The calls of this system are traced from now on.
    pub fn new(system: S) -> Self {
        let trace = Trace::new(system.now());
        Self {
            system,
            has_reserve: false,
            trace,
        }
    }

    fn show_reserve(&mut self, is_open: bool) {
        if self.has_reserve != is_open {
            self.has_reserve = is_open;
            self.trace.reserve(is_open);
        }
    }

    /// The trace.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }
}

impl<S> AsRef<S> for Traced<S> {
    fn as_ref(&self) -> &S {
        &self.system
    }
}

impl<S> AsMut<S> for Traced<S> {
    fn as_mut(&mut self) -> &mut S {
        &mut self.system
    }
}

/// A connection's socket, whose calls are traced once it is one of the room.
#[derive(Debug)]
pub struct TracedStream<T> {
    stream: T,
    peer: SocketAddr,
    source: Option<Source>,
    trace: Trace,
}

impl<T> TracedStream<T> {
    fn register(&mut self, source: Source) {
        self.source = Some(source);
        self.trace.registered(self.id(), self.peer);
    }

    /// Its identity in the room. What connections do that speak HTTP, or are the bus's, is not traced.
    const fn id(&self) -> Option<ConnId> {
        match self.source {
            Some(Source::Connection(id)) => Some(id),
            Some(Source::Visitor(_) | Source::Bus(_)) | None => None,
        }
    }

    #[inline]
    fn wrote(&self, of: usize, result: io::Result<usize>) -> io::Result<usize> {
        if let Some(id) = self.id() {
            self.trace.written(id, of, &result);
        }
        result
    }
}

impl<T: Read> Read for TracedStream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(buffer);
        if let Some(id) = self.id() {
            self.trace.read(id, buffer.len(), &result);
        }
        result
    }
}

impl<T: Write> Write for TracedStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stream.write(bytes);
        self.wrote(bytes.len(), result)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = self.stream.write_vectored(slices);
        let of = slices.iter().map(|slice| slice.len()).sum();
        self.wrote(of, result)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<T> Drop for TracedStream<T> {
    fn drop(&mut self) {
        // One without a place is closed before it is registered.
        if self.source.is_none() || self.id().is_some() {
            self.trace.closed(self.id());
        }
    }
}

impl<S: System> System for Traced<S> {
    type Stream = TracedStream<S::Stream>;

    fn now(&self) -> Instant {
        self.system.now()
    }

    fn time_of_day(&self) -> SystemTime {
        self.system.time_of_day()
    }

    fn random(&mut self) -> u64 {
        self.system.random()
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout != Some(Duration::ZERO) {
            self.trace.flush();
        }
        let began = self.system.now();
        let polled = self.system.poll(timeout);
        let now = self.system.now();
        let slept = now.saturating_duration_since(began);
        self.trace.poll(timeout, slept, now);
        if polled.is_ok() {
            for event in self.system.events() {
                match event {
                    Event::Signal => self.trace.signal(),
                    Event::Incoming(listener) => self.trace.incoming(listener),
                    Event::Connection(id, ready) => self.trace.edge(id, ready),
                    Event::Visitor(..) | Event::Bus(..) => {}
                }
            }
        }
        polled
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.system.events()
    }

    fn has_more(&self) -> bool {
        self.system.has_more()
    }

    fn requests(&mut self) -> Vec<Request> {
        self.system.requests()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)> {
        let accepted = self.system.accept(listener);
        self.trace
            .accepted(listener, accepted.as_ref().map(|(_, peer)| *peer));
        let (stream, peer) = accepted?;
        let stream = TracedStream {
            stream,
            peer,
            source: None,
            trace: self.trace.clone(),
        };
        Ok((stream, peer))
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<Self::Stream> {
        Ok(TracedStream {
            stream: self.system.connect(addr)?,
            peer: addr,
            source: None,
            trace: self.trace.clone(),
        })
    }

    fn watch(&mut self, stream: &mut Self::Stream, source: Source) -> io::Result<()> {
        self.system.watch(&mut stream.stream, source)?;
        stream.register(source);
        Ok(())
    }

    fn watch_as(&mut self, stream: &mut Self::Stream, source: Source) -> io::Result<()> {
        self.system.watch_as(&mut stream.stream, source)?;
        stream.register(source);
        Ok(())
    }

    fn clear_notsent_lowat(&mut self, stream: &Self::Stream) {
        self.system.clear_notsent_lowat(&stream.stream);
    }

    fn shutdown_write(&mut self, stream: &Self::Stream) {
        self.system.shutdown_write(&stream.stream);
    }

    fn close_listener(&mut self, listener: usize) {
        self.system.close_listener(listener);
    }

    fn open_reserve(&mut self) -> bool {
        let is_open = self.system.open_reserve();
        self.show_reserve(is_open);
        is_open
    }

    fn close_reserve(&mut self) {
        self.system.close_reserve();
        self.show_reserve(false);
    }

    fn trace(&self) -> Option<&Trace> {
        Some(&self.trace)
    }
}
