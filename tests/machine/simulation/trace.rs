//! What happened, in order: printed when somebody wants to read it, and hashed in any case.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use chatloop::relay::{ConnId, Ready};
use chatloop::server::Preamble;
use chatloop::wire::Dialect;

use super::faults::Fault;

/// Something that happened. Peers are numbers, counted as they come.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Happening {
    Connects {
        peer: usize,
        dialect: Dialect,
        preamble: Preamble,
    },
    Sends {
        peer: usize,
        bytes: usize,
    },
    Arrives {
        peer: usize,
        bytes: usize,
        is_end: bool,
    },
    Takes {
        peer: usize,
        bytes: usize,
        is_edge: bool,
    },
    StopsReading {
        peer: usize,
    },
    ReadsAgain {
        peer: usize,
    },
    ClosesSending {
        peer: usize,
    },
    Closes {
        peer: usize,
    },
    Dies {
        peer: usize,
        errno: i32,
    },
    ClockIs(Duration),
    Strikes(Fault),
    Shortage {
        errno: i32,
    },
    ShortageEnds,
    Polls {
        timeout: Option<Duration>,
        events: usize,
    },
    Event {
        id: ConnId,
        bits: u8,
    },
    VisitorEvent {
        index: usize,
        bits: u8,
    },
    Accepts {
        result: Result<usize, i32>,
    },
    Watches {
        peer: usize,
        id: ConnId,
    },
    Visits {
        peer: usize,
        index: usize,
    },
    Reads {
        peer: usize,
        most: usize,
        result: Result<usize, i32>,
    },
    Writes {
        peer: usize,
        most: usize,
        result: Result<usize, i32>,
    },
    LetsGo {
        peer: usize,
    },
    ClosesConnection {
        peer: usize,
    },
    StopsListening,
    Reserve {
        is_there: bool,
    },
    PeaceBegins,
}

impl Happening {
    /// An event of a connection.
    pub fn event(id: ConnId, ready: Ready) -> Self {
        let bits = Self::bits(ready);
        Self::Event { id, bits }
    }

    /// An event of a connection that speaks HTTP.
    pub fn visitor_event(index: usize, ready: Ready) -> Self {
        let bits = Self::bits(ready);
        Self::VisitorEvent { index, bits }
    }

    /// What the world did, as a record of the server's trace has it; `None` for what the server did.
    fn in_words(&self) -> Option<(Option<usize>, String)> {
        let (peer, text) = match *self {
            Self::Connects { peer, dialect, .. } => (peer, format!("connects, {dialect}")),
            Self::Sends { peer, bytes } => (peer, format!("sends {bytes} bytes")),
            Self::Arrives {
                peer,
                bytes,
                is_end,
            } => {
                let text = match (bytes, is_end) {
                    (0, _) => "end of input (FIN) arrives".to_owned(),
                    (_, true) => {
                        format!("{bytes} bytes and the end of input (FIN) arrive together")
                    }
                    (_, false) => format!("{bytes} bytes arrive"),
                };
                (peer, text)
            }
            Self::Takes { peer, bytes, .. } => (peer, format!("takes {bytes} bytes")),
            Self::StopsReading { peer } => (peer, "stops reading".to_owned()),
            Self::ReadsAgain { peer } => (peer, "reads again".to_owned()),
            Self::ClosesSending { peer } => (peer, "will send nothing more".to_owned()),
            Self::Closes { peer } => (peer, "closes its socket".to_owned()),
            Self::Dies { peer, errno } => (peer, format!("connection dies: {}", name(errno))),
            // The server has that as its own call's error.
            Self::Strikes(Fault::NoDescriptor) => return None,
            Self::Strikes(_) | Self::Shortage { .. } | Self::ShortageEnds | Self::PeaceBegins => {
                return Some((None, self.to_string()));
            }
            _ => return None,
        };
        Some((Some(peer), text))
    }

    fn bits(ready: Ready) -> u8 {
        let all = [
            Ready::READABLE,
            Ready::WRITABLE,
            Ready::READ_CLOSED,
            Ready::URGENT,
            Ready::HUNG_UP,
        ];
        let mut bits = 0;
        for (index, one) in all.into_iter().enumerate() {
            bits |= u8::from(ready.any(one)) << index;
        }
        bits
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Connects {
                peer,
                dialect,
                preamble,
            } => write!(f, "peer {peer} connects, {}", preamble.with(dialect)),
            Self::Sends { peer, bytes } => write!(f, "peer {peer} sends {bytes}"),
            Self::Arrives {
                peer,
                bytes,
                is_end,
            } => {
                let end = if is_end { " and the end" } else { "" };
                write!(f, "of peer {peer}, {bytes}{end} arrive")
            }
            Self::Takes {
                peer,
                bytes,
                is_edge,
            } => {
                let edge = if is_edge { ", which is an edge" } else { "" };
                write!(f, "peer {peer} takes {bytes}{edge}")
            }
            Self::StopsReading { peer } => write!(f, "peer {peer} stops reading"),
            Self::ReadsAgain { peer } => write!(f, "peer {peer} reads again"),
            Self::ClosesSending { peer } => write!(f, "peer {peer} will send nothing more"),
            Self::Closes { peer } => write!(f, "peer {peer} closes its socket"),
            Self::Dies { peer, errno } => {
                write!(f, "the connection of peer {peer} dies of {}", name(errno))
            }
            Self::ClockIs(now) => write!(f, "the clock says {now:?}"),
            Self::Strikes(fault) => write!(f, "fault: {fault}"),
            Self::Shortage { errno } => write!(f, "from now on accept says {}", name(errno)),
            Self::ShortageEnds => f.write_str("accept works again"),
            Self::Polls {
                timeout: Some(timeout),
                events,
            } => {
                write!(f, "server: poll({timeout:?}) = {events} events")
            }
            Self::Polls {
                timeout: None,
                events,
            } => write!(f, "server: poll(for ever) = {events} events"),
            Self::Event { id, bits } => write!(f, "    {id:?}: {}", bits_named(bits)),
            Self::VisitorEvent { index, bits } => {
                write!(f, "    visitor {index}: {}", bits_named(bits))
            }
            Self::Visits { peer, index } => write!(f, "  watch(peer {peer}) as visitor {index}"),
            Self::Accepts { result: Ok(peer) } => write!(f, "  accept() = peer {peer}"),
            Self::Accepts { result: Err(errno) } => write!(f, "  accept() = {}", name(errno)),
            Self::Watches { peer, id } => write!(f, "  watch(peer {peer}) as {id:?}"),
            Self::Reads { peer, most, result } => {
                write!(f, "  read(peer {peer}, {most}) = {}", outcome(result))
            }
            Self::Writes { peer, most, result } => {
                write!(f, "  write(peer {peer}, {most}) = {}", outcome(result))
            }
            Self::LetsGo { peer } => write!(f, "  lets peer {peer} go"),
            Self::ClosesConnection { peer } => write!(f, "  close(peer {peer})"),
            Self::StopsListening => f.write_str("  close(listeners)"),
            Self::Reserve { is_there } => write!(f, "  reserve: {is_there}"),
            Self::PeaceBegins => f.write_str("from now on nothing goes wrong"),
        }
    }
}

fn outcome(result: Result<usize, i32>) -> String {
    result.map_or_else(name, |bytes| bytes.to_string())
}

fn bits_named(bits: u8) -> String {
    let all = ["readable", "writable", "read closed", "urgent", "hung up"];
    let set = all
        .iter()
        .enumerate()
        .filter(|(index, _)| bits & 1 << index != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// An error as the manual has it.
fn name(errno: i32) -> String {
    match errno {
        libc::EAGAIN => "EAGAIN".to_owned(),
        libc::EINTR => "EINTR".to_owned(),
        libc::ECONNRESET => "ECONNRESET".to_owned(),
        libc::EPIPE => "EPIPE".to_owned(),
        libc::ETIMEDOUT => "ETIMEDOUT".to_owned(),
        libc::EHOSTUNREACH => "EHOSTUNREACH".to_owned(),
        libc::ECONNABORTED => "ECONNABORTED".to_owned(),
        libc::EMFILE => "EMFILE".to_owned(),
        libc::ENFILE => "ENFILE".to_owned(),
        libc::ENOBUFS => "ENOBUFS".to_owned(),
        libc::ENOMEM => "ENOMEM".to_owned(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}

/// The history of one simulation.
#[derive(Default)]
pub struct Trace {
    /// Whether it is printed.
    pub is_printed: bool,
    hash: Fnv,
    happenings: u64,
    /// The server's trace, if it has one: what the world did is put between the server's calls.
    pub of_server: Option<chatloop::server::Trace>,
    /// Who has which connection.
    ids: BTreeMap<usize, ConnId>,
}

impl Trace {
    pub fn note(&mut self, happening: Happening) {
        happening.hash(&mut self.hash);
        if let Happening::Watches { peer, id } = happening {
            self.ids.insert(peer, id);
        }
        if let (Some(trace), Some((peer, text))) = (&self.of_server, happening.in_words()) {
            let id = peer.and_then(|peer| self.ids.get(&peer).copied());
            match peer {
                Some(peer) if id.is_none() => trace.world(id, &format!("peer {peer}: {text}")),
                _ => trace.world(id, &text),
            }
        }
        if self.is_printed {
            println!("{:6} {happening}", self.happenings);
        }
        self.happenings += 1;
    }

    /// The same for the same history.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}

/// FNV-1a, which is the same everywhere and always, as the standard library's hasher is not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
