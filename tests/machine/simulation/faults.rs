//! What can go wrong, and how often it did.

use std::fmt;

/// Declares the kinds of faults with the words that stand for them in traces and reports.
macro_rules! faults {
    ($($fault:ident: $words:literal,)*) => {
        /// Something that happens to a server rarely, and here all the time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $words] $fault,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$fault,)*];

            const fn words(self) -> &'static str {
                match self {
                    $(Self::$fault => $words,)*
                }
            }
        }
    };
}

faults! {
    // What the network does to bytes.
    LoneByte: "one byte arrives by itself",
    UrgentByte: "a read stops early at an urgent byte",
    InTurn: "the network moves in the middle of a turn",
    FinWithData: "data and its end share an edge",
    ZeroWindow: "a peer stops reading",
    WindowOpens: "a peer that had stopped reads again",
    // Results of calls on a connection.
    ReadInterrupted: "read: EINTR",
    ReadWouldBlock: "read: EAGAIN, and the bytes come right after it",
    WriteInterrupted: "write: EINTR",
    WriteWouldBlock: "write: EAGAIN",
    ShortWrite: "a write is short",
    LoneByteWritten: "a write takes one byte",
    // How connections end.
    HalfClose: "a peer closes its sending side, and reads what is left for it",
    TruncatedFrame: "a peer closes inside a frame",
    FullClose: "a peer closes, and answers what comes with a reset",
    ResetAfterFin: "a reset comes after the end of the input: EPIPE",
    ResetKeepingInput: "a reset leaves what has arrived: ECONNRESET",
    ResetDroppingInput: "a reset takes what has arrived along: ECONNRESET",
    TimedOut: "a connection dies: ETIMEDOUT",
    HostUnreachable: "a connection dies: EHOSTUNREACH",
    DeadBeforeAccept: "a connection dies before it is accepted",
    // Reports of events.
    SpuriousReadable: "an event reports readable, and nothing is there",
    SpuriousWritable: "an event reports writable, and there is no room",
    SpuriousIncoming: "an event reports connections to accept, and none waits",
    DuplicateEvent: "an event comes twice in a batch",
    StaleEvent: "an event is about a connection that is gone",
    StaleEventOfSlot: "an event is about the slot's previous connection",
    Reordered: "a batch's events come in another order",
    SmallBatch: "a batch is cut, and the rest comes with the next",
    PollInterrupted: "poll: EINTR",
    EarlyReturn: "poll returns early with nothing",
    // Results of accepting.
    AcceptInterrupted: "accept: EINTR",
    AcceptAborted: "accept: ECONNABORTED",
    AcceptNetworkError: "accept: an error of the network",
    NoDescriptor: "accept: EMFILE",
    FileTableFull: "accept: ENFILE",
    NoBuffers: "accept: ENOBUFS",
    NoMemory: "accept: ENOMEM",
    NoReserve: "there is no descriptor for the reserve",
    CannotWatch: "epoll_ctl fails",
    // Clocks.
    ClockJumps: "the clock jumps ahead",
    ClockStands: "the clock stands still",
    DayTurnsBack: "the time of day is set back",
    // Signals.
    Table: "SIGUSR1",
    Reload: "SIGHUP",
    Stop: "SIGTERM in the middle of things",
    SecondStop: "a second SIGTERM",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How often each kind has occurred.
#[derive(Clone, Debug)]
pub struct FaultCounts(Vec<u64>);

impl Default for FaultCounts {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len()])
    }
}

impl FaultCounts {
    /// Counts one.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Adds what another run has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// Each kind and how often it has occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().copied().zip(self.0.iter().copied())
    }
}
