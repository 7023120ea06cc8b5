//! The reading side: what other relays' members have said, each message once and in its sender's order.
//!
//! Every relay numbers its messages, so a reader knows of each run which number comes next:
//!
//! | an entry's numbers | it is |
//! |---|---|
//! | all before the next | a duplicate: dropped |
//! | some before the next | delivered without these |
//! | from the next on | delivered |
//! | all after the next | a gap |
//!
//! A gap is not believed at first: after a failover, entries may have been added at ids that the reader has
//! passed. So the stream is read once more from its start, which repeats nothing. What is missing then was
//! trimmed, or given up by its relay, and is counted.
//!
//! Reading starts at the engine's time at which this relay started, though the first connection may be much later.
//! After a reconnect it goes on behind the last entry, if that is still there; if not, the stream was trimmed or is
//! another one, and is read from its start.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::{Batch, Content, Entry, EntryId, Identity};
use super::failure::{Failure, engine_time};
use super::frames::Frames;
use super::heard::Heard;
use super::request::Request;
use super::resp::Value;

/// The `Reader` has the place in the stream, and what was heard of each run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The random number of this relay's run, whose entries are skipped.
    own: u64,
    /// How many messages from before the start are wanted, as history.
    history: u64,
    /// How many entries a reply may have.
    page: usize,
    /// How long the relay has run; it matters until the start is known.
    uptime: Duration,
    /// The id at which reading started, once that is known.
    start: Option<EntryId>,
    /// From this id on, a run that was never heard is new. An unheard run's entries before it are from before the
    /// start.
    floor: EntryId,
    /// The last entry that was read: its id, and which entry that is.
    last: (EntryId, Option<Identity>),
    pass: Pass,
    heard: Heard,
    /// The entries of the history, the newest first, and how many messages those are.
    found: (Vec<Entry>, u64),
    out: Vec<Request>,
    awaited: VecDeque<Awaited>,
}

/// Whether everything was read that is in the stream before the last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pass {
    /// Reading went on where it had ended. A gap may be an entry at an id that was passed.
    Onward,
    /// Reading began at the stream's start, so a gap is one. It ends with this entry, or with the stream.
    Whole(Option<Identity>),
    /// The history is read, in the order in which it was said.
    History,
}

/// A reply that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaited {
    Time,
    Newest,
    History { start: EntryId },
    Last,
    Entries,
}

/// What the reader has found in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// Messages of another relay.
    Messages {
        /// The name of the relay.
        node: Vec<u8>,
        /// When they were said, in milliseconds since 1970.
        ms: u64,
        /// The messages, as frames of `chat10`.
        bytes: Vec<u8>,
        /// Whether they are from before this relay's start.
        is_history: bool,
    },
    /// So many messages of this relay will never come.
    Missing {
        /// The name of the relay.
        node: Vec<u8>,
        /// How many.
        messages: u64,
    },
    /// This entry cannot be read, and is skipped.
    Unreadable(EntryId),
    /// The history is complete, as far as the stream has it.
    HistoryRead,
}

impl Reader {
    /// The reader of a run that has this random number.
    #[must_use]
    pub fn new(own: u64, history: u64, page: usize) -> Self {
        Self {
            own,
            history,
            page,
            uptime: Duration::ZERO,
            start: None,
            floor: EntryId::START,
            last: (EntryId::START, None),
            pass: Pass::Onward,
            heard: Heard::default(),
            found: (Vec::new(), 0),
            out: Vec::new(),
            awaited: VecDeque::new(),
        }
    }

    /// There is a new connection, this long after the relay's start.
    pub fn on_connected(&mut self, uptime: Duration) {
        self.on_disconnected();
        self.set_uptime(uptime);
        match self.start {
            None => self.ask(Request::Before(None), Awaited::Newest),
            Some(_) if self.last.1.is_some() => {
                self.ask(Request::At(self.last.0), Awaited::Last);
            }
            Some(_) => self.read_whole(None),
        }
    }

    /// The relay has run for this long. It should be known when a reply comes: what is said between the start and a
    /// late reply was said after the start.
    pub const fn set_uptime(&mut self, uptime: Duration) {
        if self.start.is_none() {
            self.uptime = uptime;
        }
    }

    /// The connection is gone: what was not answered never will be.
    pub fn on_disconnected(&mut self) {
        self.out.clear();
        self.awaited.clear();
        self.found = (Vec::new(), 0);
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

    /// The next reply has come. Appends what is in it to `found`.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the connection must be closed.
    pub fn on_reply(&mut self, reply: Value, found: &mut Vec<Found>) -> Result<(), Failure> {
        match self.awaited.pop_front().ok_or(Failure::Unexpected)? {
            Awaited::Time => self.on_time(reply, found),
            Awaited::Newest => {
                self.found.0 = entries(reply)?;
                self.ask(Request::Time, Awaited::Time);
                Ok(())
            }
            Awaited::History { start } => {
                self.on_history(&entries(reply)?, start, found);
                Ok(())
            }
            Awaited::Last => {
                let entry = entries(reply)?.pop();
                if entry.and_then(|entry| entry.identity()) == self.last.1 {
                    self.read_on();
                } else {
                    self.read_whole(None);
                }
                Ok(())
            }
            Awaited::Entries => {
                self.on_entries(&entries_of_stream(reply)?, found);
                Ok(())
            }
        }
    }

    fn ask(&mut self, request: Request, awaited: Awaited) {
        self.out.push(request);
        self.awaited.push_back(awaited);
    }

    /// Reads on behind the last entry.
    fn read_on(&mut self) {
        self.ask(Request::After(self.last.0), Awaited::Entries);
    }

    /// Reads the stream from its start, and believes gaps up to this entry.
    fn read_whole(&mut self, until: Option<Identity>) {
        self.pass = Pass::Whole(until);
        self.last = (EntryId::START, None);
        self.read_on();
    }

    /// The newest entries, and then the engine's time. After a failover to an engine whose clock is behind, the
    /// ids of its entries are above its time.
    fn on_time(&mut self, reply: Value, found: &mut Vec<Found>) -> Result<(), Failure> {
        let Some(time) = engine_time(&reply) else {
            return Err(Failure::of(reply));
        };
        let (page, _) = std::mem::take(&mut self.found);
        let now = page.first().map_or(time, |newest| newest.id.ms.max(time));
        let start = EntryId {
            ms: now.saturating_sub(self.uptime.as_millis() as u64),
            number: u64::MAX,
        };
        self.on_history(&page, start, found);
        Ok(())
    }

    /// A page of entries, the newest first. Those from before the start say which messages of their runs come next.
    /// With a history, older ones are asked for until these are messages enough, and all of them are delivered.
    fn on_history(&mut self, page: &[Entry], start: EntryId, found: &mut Vec<Found>) {
        let old = page.iter().filter(|entry| entry.id <= start);
        for entry in old {
            let content = entry.content.as_ref();
            self.found.1 += content.map_or(0, |content| content.batch.count);
            self.found.0.push(entry.clone());
        }
        let is_full = page.len() == self.page;
        if let Some(oldest) = page.last()
            && is_full
            && self.found.1 < self.history
        {
            self.ask(Request::Before(Some(oldest.id)), Awaited::History { start });
            return;
        }
        let (mut entries, _) = std::mem::take(&mut self.found);
        entries.reverse();
        self.start = Some(start);
        self.floor = match entries.first() {
            _ if !is_full => EntryId::START,
            Some(oldest) => oldest.id,
            None => start,
        };
        // If it is full of what came after the start, that is read from the start on.
        self.last = (if is_full { start } else { EntryId::START }, None);
        self.pass = Pass::History;
        for entry in &entries {
            self.is_passed(entry, found);
        }
        self.pass = Pass::Onward;
        if self.history > 0 {
            found.push(Found::HistoryRead);
        }
        self.read_on();
    }

    /// The next entries of the stream; none if it has no more for now.
    fn on_entries(&mut self, entries: &[Entry], found: &mut Vec<Found>) {
        if entries.is_empty() {
            self.pass = Pass::Onward;
        }
        for entry in entries {
            if !self.is_passed(entry, found) {
                return self.read_whole(entry.identity());
            }
        }
        self.read_on();
    }

    /// Whether an entry was dealt with. If not, there is a gap before it that may be none.
    fn is_passed(&mut self, entry: &Entry, found: &mut Vec<Found>) -> bool {
        match &entry.content {
            None => found.push(Found::Unreadable(entry.id)),
            Some(content) if content.boot.random == self.own => {}
            Some(content) => {
                let next = self.expected(entry, content);
                if content.batch.first > next && self.pass == Pass::Onward {
                    return false;
                }
                self.on_content(entry, content, next, found);
            }
        }
        self.last = (entry.id, entry.identity());
        if matches!(self.pass, Pass::Whole(Some(until)) if Some(until) == entry.identity()) {
            self.pass = Pass::Onward;
        }
        true
    }

    /// The number of the message that is expected next of this entry's run.
    fn expected(&self, entry: &Entry, content: &Content) -> u64 {
        let start = self.start.unwrap_or_default();
        let batch = &content.batch;
        match self.heard.next(content.boot) {
            Some(next) => next,
            None if self.pass == Pass::History => batch.first,
            // It was said before the start.
            None if entry.origin() < self.floor => batch.first + batch.count,
            // It began after the start, and so did all that it has said.
            None if content.boot.began > start.ms => 0,
            None => batch.first,
        }
    }

    fn on_content(&mut self, entry: &Entry, content: &Content, next: u64, found: &mut Vec<Found>) {
        let Batch {
            first,
            count,
            bytes,
            ..
        } = &content.batch;
        let end = first + count;
        let is_history = self.pass == Pass::History;
        if *first > next && !is_history {
            found.push(Found::Missing {
                node: content.node.clone(),
                messages: first - next,
            });
        }
        self.heard.set_next(content.boot, end.max(next));
        let is_wanted = !is_history || self.history > 0;
        if end > next && is_wanted {
            let mut frames = Frames::new(bytes);
            for _ in *first..next {
                frames.next();
            }
            found.push(Found::Messages {
                node: content.node.clone(),
                ms: entry.origin().ms,
                bytes: frames.rest().to_vec(),
                is_history,
            });
        }
    }
}

/// The entries of a reply that lists them.
fn entries(reply: Value) -> Result<Vec<Entry>, Failure> {
    let entries = reply
        .array()
        .and_then(|values| values.iter().map(Entry::decode).collect());
    entries.ok_or_else(|| Failure::of(reply))
}

/// The entries of a reply that lists them for each stream; none if there is no stream.
fn entries_of_stream(reply: Value) -> Result<Vec<Entry>, Failure> {
    if reply == Value::Null {
        return Ok(Vec::new());
    }
    match reply {
        Value::Array(mut streams) if streams.len() == 1 => match streams.pop() {
            Some(Value::Array(mut stream)) if stream.len() == 2 => {
                entries(stream.pop().unwrap_or(Value::Null))
            }
            _ => Err(Failure::Unexpected),
        },
        reply => Err(Failure::of(reply)),
    }
}
