//! The writing side: what this relay's members have said, into the stream, each message at least once.
//!
//! ```text
//!        kept for a failover       sent one at a time
//!   ┌───────────────────────────┬─────────────────────┐
//!   │ acknowledged              │ not acknowledged    │  ← push
//!   └───────────────────────────┴─────────────────────┘
//!        bounded, oldest go         never dropped
//! ```
//!
//! One entry is in flight at a time. If the engine refused one and took the next, that would come first in the
//! stream, and readers would have to take the other one for missing. What is said meanwhile becomes one entry.
//!
//! The engine may have an entry whose reply was lost, and may lose one that it has acknowledged, when a replica
//! that never received it takes over. So after each reconnect the writer asks for the newest entry that was
//! acknowledged. If it is there, everything before it is, too, and only what follows is sent again. If not, the
//! whole window is. Entries that the engine then has twice are dropped by their readers.

use std::collections::VecDeque;

use super::entry::{Batch, Boot, Entry, EntryId, Identity};
use super::failure::{Failure, engine_time};
use super::request::Request;
use super::resp::Value;

/// How many entries are kept for a failover.
const MAX_KEPT: usize = 10_000;

/// How many bytes of messages are kept for a failover.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// The `Writer` has the entries that the engine may still have to be sent, and the requests to do so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    boot: Boot,
    /// How many replicas should have an entry; 0 asks for none.
    replicas: u64,
    phase: Phase,
    window: VecDeque<Batch>,
    /// How many entries of the window, the oldest ones, are acknowledged.
    acknowledged: usize,
    /// The bytes of the window's messages.
    bytes: usize,
    /// The number of the next message.
    next: u64,
    /// The newest acknowledged entry: its id, and which entry that is.
    newest: Option<(EntryId, Identity)>,
    /// How many connections there have been.
    attempt: u64,
    out: Vec<Request>,
    awaited: VecDeque<Awaited>,
    /// How often fewer replicas than asked for had confirmed.
    under_replicated: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// There is no connection.
    Down,
    /// The boot has no time yet, or it is not known what has to be sent again.
    Asking,
    /// Entries are sent as they come.
    Ready,
}

/// A reply that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaited {
    Time,
    Newest,
    Id,
    Replicas { after: u64 },
}

impl Writer {
    /// The writer of a run that has this random number.
    #[must_use]
    pub const fn new(random: u64, replicas: u64) -> Self {
        Self {
            boot: Boot { began: 0, random },
            replicas,
            phase: Phase::Down,
            window: VecDeque::new(),
            acknowledged: 0,
            bytes: 0,
            next: 0,
            newest: None,
            attempt: 0,
            out: Vec::new(),
            awaited: VecDeque::new(),
            under_replicated: 0,
        }
    }

    /// The run that its messages are numbered in.
    #[must_use]
    pub const fn boot(&self) -> Boot {
        self.boot
    }

    /// There is a new connection.
    pub fn on_connected(&mut self) {
        self.on_disconnected();
        self.attempt += 1;
        self.phase = Phase::Asking;
        if self.boot.began == 0 {
            self.ask(Request::Time, Awaited::Time);
        } else if let Some((id, _)) = self.newest {
            self.ask(Request::At(id), Awaited::Newest);
        } else {
            self.send_next();
        }
    }

    /// The connection is gone: what was not answered never will be.
    pub fn on_disconnected(&mut self) {
        self.phase = Phase::Down;
        self.out.clear();
        self.awaited.clear();
    }

    /// Whether the next entry may be sent.
    #[must_use]
    pub fn may_push(&self) -> bool {
        self.phase == Phase::Ready && self.in_flight() == 0
    }

    /// How many entries are not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.window.len() - self.acknowledged
    }

    /// How often fewer replicas than asked for had confirmed an entry in time.
    #[must_use]
    pub const fn under_replicated(&self) -> u64 {
        self.under_replicated
    }

    /// Sends the next messages: frames of `chat10`. It [must be able to](Self::may_push).
    pub fn push(&mut self, bytes: &[u8], count: u64) {
        debug_assert!(self.may_push(), "one entry is in flight at a time");
        let batch = Batch {
            first: self.next,
            count,
            bytes: bytes.into(),
            origin: None,
            attempt: self.attempt,
        };
        self.next += count;
        self.bytes += bytes.len();
        self.window.push_back(batch);
        self.send_next();
    }

    /// The next messages, so many, will never be sent. Their numbers are used up, so that readers notice.
    pub const fn give_up(&mut self, messages: u64) {
        self.next += messages;
    }

    /// Takes the requests to send.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out)
    }

    /// How many replies are due.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// The next reply has come.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the connection must be closed.
    pub fn on_reply(&mut self, reply: Value) -> Result<(), Failure> {
        match self.awaited.pop_front().ok_or(Failure::Unexpected)? {
            Awaited::Time => {
                let Some(began) = engine_time(&reply) else {
                    return Err(Failure::of(reply));
                };
                self.boot.began = began.max(1);
                self.send_next();
            }
            Awaited::Newest => self.on_newest(reply)?,
            Awaited::Id => match reply.bytes().and_then(EntryId::parse) {
                Some(id) => self.on_acknowledged(id),
                None => return Err(Failure::of(reply)),
            },
            Awaited::Replicas { after } => match reply {
                Value::Integer(confirmed) => self.on_replicas(confirmed, after),
                reply => return Err(Failure::of(reply)),
            },
        }
        Ok(())
    }

    /// The entry that is now where the newest acknowledged one was, if there is one.
    fn on_newest(&mut self, reply: Value) -> Result<(), Failure> {
        let Some(entries) = reply.array() else {
            return Err(Failure::of(reply));
        };
        let entry = entries.first().and_then(Entry::decode);
        let found = entry.and_then(|entry| entry.identity());
        if found != self.newest.map(|(_, identity)| identity) {
            // Then none of the others need be there.
            self.acknowledged = 0;
            self.newest = None;
        }
        self.send_next();
        Ok(())
    }

    /// Sends the oldest entry that is not acknowledged. Only when there is none, something new may follow: readers
    /// rely on the order.
    fn send_next(&mut self) {
        self.phase = Phase::Ready;
        let Some(batch) = self.window.get_mut(self.acknowledged) else {
            return;
        };
        batch.attempt = self.attempt;
        let (boot, batch, after) = (self.boot, batch.clone(), batch.first);
        self.ask(Request::Add { boot, batch }, Awaited::Id);
        if self.replicas > 0 {
            self.ask(Request::Wait(self.replicas), Awaited::Replicas { after });
        }
    }

    fn ask(&mut self, request: Request, awaited: Awaited) {
        self.out.push(request);
        self.awaited.push_back(awaited);
    }

    fn on_acknowledged(&mut self, id: EntryId) {
        if let Some(batch) = self.window.get_mut(self.acknowledged) {
            let (boot, first, attempt) = (self.boot, batch.first, batch.attempt);
            let identity = Identity {
                boot,
                first,
                attempt,
            };
            self.newest = Some((id, identity));
            batch.origin.get_or_insert(id);
            self.acknowledged += 1;
        }
        while self.acknowledged > 0 && (self.window.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES)
        {
            self.drop_oldest();
        }
        self.send_next();
    }

    /// So many replicas have everything up to the entry with this first number.
    fn on_replicas(&mut self, confirmed: i64, after: u64) {
        if confirmed < 0 || (confirmed as u64) < self.replicas {
            self.under_replicated += 1;
            return;
        }
        while self.acknowledged > 0
            && self
                .window
                .front()
                .is_some_and(|batch| batch.first <= after)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(batch) = self.window.pop_front() {
            self.bytes -= batch.bytes.len();
            self.acknowledged -= 1;
        }
    }
}
