//! The simulated machine as the server sees it: a [`System`], and streams.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use chatloop::server::{Event, Request, Source, System};

use super::world::World;

/// A machine.
pub struct Machine {
    world: Rc<RefCell<World>>,
    events: Vec<Event>,
}

impl Machine {
    /// The machine of this world.
    pub fn of(world: &Rc<RefCell<World>>) -> Self {
        Self {
            world: Rc::clone(world),
            events: Vec::new(),
        }
    }
}

impl System for Machine {
    type Stream = Stream;

    fn now(&self) -> Instant {
        self.world.borrow().instant()
    }

    fn time_of_day(&self) -> SystemTime {
        self.world.borrow_mut().time_of_day()
    }

    fn random(&mut self) -> u64 {
        self.world.borrow_mut().random()
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.events.clear();
        self.world.borrow_mut().show_kernel();
        let polled = self.world.borrow_mut().poll(timeout);
        self.world.borrow_mut().show_kernel();
        self.events = polled?;
        Ok(())
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.events.iter().copied()
    }

    fn has_more(&self) -> bool {
        self.world.borrow().has_more
    }

    fn requests(&mut self) -> Vec<Request> {
        self.world.borrow_mut().requests()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, SocketAddr)> {
        let (peer, addr) = self.world.borrow_mut().accept(listener)?;
        let world = Rc::clone(&self.world);
        let stream = Stream {
            world,
            peer,
            listener,
        };
        Ok((stream, addr))
    }

    fn watch(&mut self, stream: &mut Stream, source: Source) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.watch(stream.peer, stream.listener, source)
    }

    fn clear_notsent_lowat(&mut self, stream: &Stream) {
        self.world.borrow_mut().clear_notsent_lowat(stream.peer);
    }

    fn shutdown_write(&mut self, _stream: &Stream) {
        // The stream is dropped next, and the peer receives its FIN then.
    }

    fn close_listener(&mut self, listener: usize) {
        self.world.borrow_mut().close_listener(listener);
    }

    fn open_reserve(&mut self) -> bool {
        self.world.borrow_mut().open_reserve()
    }

    fn close_reserve(&mut self) {
        self.world.borrow_mut().close_reserve();
    }
}

/// The server's end of a connection. To drop it is to close it.
pub struct Stream {
    world: Rc<RefCell<World>>,
    peer: usize,
    /// The index of the listener that it came to.
    listener: usize,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().read(self.peer, buf)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.peer, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // After a check that has failed there is nothing more to be found out.
        if !std::thread::panicking() {
            self.world.borrow_mut().close(self.peer);
        }
    }
}
