//! A system on which the relay forgets edges, as `examples/07_edge_lost.rs` does.
//!
//! The fault is one line: a read asks for 4096 bytes at most, and its caller is not told. So a read that has filled
//! its buffer looks like one that came to the end of the input, and nobody remembers that there is more.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use chatloop::server::{Event, Request, Source, System, Trace};

/// How much one read asks for.
const READ: usize = 4096;

/// A system with that fault.
pub struct Forgetful<S>(pub S);

/// A stream with that fault.
pub struct ForgetfulStream<T>(T);

impl<T: Read> Read for ForgetfulStream<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(READ);
        self.0.read(&mut buf[..most])
    }
}

impl<T: Write> Write for ForgetfulStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: System> System for Forgetful<S> {
    type Stream = ForgetfulStream<S::Stream>;

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn time_of_day(&self) -> SystemTime {
        self.0.time_of_day()
    }

    fn random(&mut self) -> u64 {
        self.0.random()
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.poll(timeout)
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.0.events()
    }

    fn has_more(&self) -> bool {
        self.0.has_more()
    }

    fn requests(&mut self) -> Vec<Request> {
        self.0.requests()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept(listener)?;
        Ok((ForgetfulStream(stream), peer))
    }

    fn watch(&mut self, stream: &mut Self::Stream, source: Source) -> io::Result<()> {
        self.0.watch(&mut stream.0, source)
    }

    fn clear_notsent_lowat(&mut self, stream: &Self::Stream) {
        self.0.clear_notsent_lowat(&stream.0);
    }

    fn shutdown_write(&mut self, stream: &Self::Stream) {
        self.0.shutdown_write(&stream.0);
    }

    fn close_listener(&mut self, listener: usize) {
        self.0.close_listener(listener);
    }

    fn open_reserve(&mut self) -> bool {
        self.0.open_reserve()
    }

    fn close_reserve(&mut self) {
        self.0.close_reserve();
    }

    fn trace(&self) -> Option<&Trace> {
        self.0.trace()
    }
}
