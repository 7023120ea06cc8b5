//! A handle to a running server, for other threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Registry, Token, Waker};

use super::signals::Request;

/// Stops or wakes a server that waits in its poll, from any thread. It can be cloned, and outlives the
/// server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    must_stop: AtomicBool,
}

impl Handle {
    /// A handle that wakes the poll of this registry.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let waker = Waker::new(registry, token)?;
        let must_stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { waker, must_stop });
        Ok(Self { shared })
    }

    /// Asks the server to [stop](super::Server::stop).
    ///
    /// # Errors
    ///
    /// If the system cannot wake it.
    pub fn stop(&self) -> io::Result<()> {
        self.shared.must_stop.store(true, Ordering::Release);
        self.shared.waker.wake()
    }

    /// Has the server make a turn soon, though nothing happened.
    ///
    /// # Errors
    ///
    /// If the system cannot wake it.
    pub fn wake(&self) -> io::Result<()> {
        self.shared.waker.wake()
    }

    /// What was asked for since the last call.
    pub(super) fn pending(&self) -> Option<Request> {
        let must_stop = self.shared.must_stop.swap(false, Ordering::Acquire);
        must_stop.then_some(Request::Stop("the program"))
    }
}
