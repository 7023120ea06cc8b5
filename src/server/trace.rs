//! The trace: what each turn did, as lines of JSON.
//!
//! A line is a record; `docs/trace.md` has the table of their kinds. The records of a turn stand between its `poll` and its `end`, in the order in which
//! things happened. No record has the contents of a message: lengths and names only.
//!
//! The text of a turn is written here into one string, without a library for JSON, and is given to the file at
//! the end of the turn. A turn goes out whole or not at all.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::log;
use super::trace_fields::{
    Busy, Channel, Id, IdText, List, Listed, Micros, Name, Of, Span, Words, push_number,
};
use crate::relay::{ConnId, Ready, ReadyList, Relay, RoomEvent};
use crate::text::Json;

/// The number of the format. It changes when a record no longer means what it meant.
const FORMAT: u32 = 1;

/// So much text is given to the file at once, in bytes, where the loop does not wait.
const FILE_BUFFER: usize = 64 * 1024;

/// The record that begins a trace lists no more connections than this.
const MAX_LISTED: usize = 1000;

/// A trace, as everything that writes records shares it.
#[derive(Clone)]
pub struct Trace(Rc<RefCell<Recorder>>);

/// What writes the records.
struct Recorder {
    /// The times in the records are counted from here.
    began: Instant,
    /// How many turns there were.
    turns: u64,
    /// The records of the turn under way.
    turn: String,
    /// One of them is of something that happened to the room.
    has_news: bool,
    /// The last one is of writes that accepted all of this many bytes, and has no end yet.
    open_write: Option<usize>,
    /// The members that lagged at the end of the last fan-out.
    lagging: BTreeSet<ConnId>,
    file: Option<TraceFile>,
    /// A watcher receives the records.
    is_watched: bool,
}

/// The end of a trace that lasts.
struct TraceFile {
    sink: Box<dyn Write>,
    /// What it has not received yet.
    text: String,
    /// How many bytes it may still take.
    room: u64,
}

impl Trace {
    /// A trace that nothing receives yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(RefCell::new(Recorder {
            began: now,
            turns: 0,
            turn: String::new(),
            has_news: false,
            open_write: None,
            lagging: BTreeSet::new(),
            file: None,
            is_watched: false,
        })))
    }

    /// From now on writes the records here as well, up to this many bytes.
    pub(super) fn write_to<S>(&self, relay: &Relay<S>, sink: impl Write + 'static, max: u64) {
        let text = Self::start(relay);
        self.0.borrow_mut().file = Some(TraceFile {
            sink: Box::new(sink),
            room: max.saturating_sub(text.len() as u64),
            text,
        });
    }

    /// Whether a watcher receives the records.
    pub(super) fn set_watched(&self, is_watched: bool) {
        self.0.borrow_mut().is_watched = is_watched;
    }

    /// Adds a record of this kind, with these fields, each of which a comma precedes.
    fn record(&self, kind: &str, fields: fmt::Arguments<'_>) {
        let mut recorder = self.0.borrow_mut();
        if recorder.is_on() {
            recorder.push(kind, fields);
            recorder.has_news = true;
        }
    }

    /// The poll has returned: a turn begins.
    pub(super) fn poll(&self, timeout: Option<Duration>, slept: Duration, now: Instant) {
        let mut recorder = self.0.borrow_mut();
        recorder.turns += 1;
        if recorder.is_on() {
            let (turn, at) = (recorder.turns, recorder.micros(now));
            let timeout = Micros(timeout);
            let slept = slept.as_micros();
            let fields = format_args!(
                ",\"turn\":{turn},\"at\":{at},\"timeout\":{timeout},\"slept\":{slept}"
            );
            recorder.push("poll", fields);
        }
    }

    /// An event reports that a connection is ready.
    pub(super) fn edge(&self, id: ConnId, ready: Ready) {
        self.record("edge", format_args!(",{},{}", Id(id), Words(ready)));
    }

    /// An event reports that connections wait at a listener.
    pub(super) fn incoming(&self, listener: usize) {
        self.record("incoming", format_args!(",\"listener\":{listener}"));
    }

    /// A signal came, or another thread woke the loop.
    pub(super) fn signal(&self) {
        self.record("signal", format_args!(""));
    }

    /// A connection was accepted, or not.
    pub(super) fn accepted(&self, listener: usize, result: Result<SocketAddr, &io::Error>) {
        let listener = format_args!(",\"listener\":{listener}");
        match result {
            Ok(peer) => self.record("accept", format_args!("{listener},\"peer\":\"{peer}\"")),
            Err(error) => self.failed("accept", listener, 0, error),
        }
    }

    /// A connection was registered: as one of the room, or, without an identity, as one that speaks HTTP.
    pub(super) fn registered(&self, id: Option<ConnId>, peer: SocketAddr) {
        match id {
            Some(id) => self.record("register", format_args!(",{},\"peer\":\"{peer}\"", Id(id))),
            None => self.record("register", format_args!(",\"id\":null,\"peer\":\"{peer}\"")),
        }
    }

    /// A read of a connection has returned.
    pub(super) fn read(&self, id: ConnId, of: usize, result: &io::Result<usize>) {
        match result {
            Ok(bytes) => self.moved(|recorder| recorder.push_read(id, *bytes, of)),
            Err(error) => self.failed("read", format_args!(",{}", Id(id)), of, error),
        }
    }

    /// A write to a connection has returned.
    #[inline]
    pub(super) fn written(&self, id: ConnId, of: usize, result: &io::Result<usize>) {
        match result {
            Ok(bytes) => self.moved(|recorder| recorder.push_write(id, *bytes, of)),
            Err(error) => self.failed("write", format_args!(",{}", Id(id)), of, error),
        }
    }

    #[inline]
    fn moved(&self, push: impl FnOnce(&mut Recorder)) {
        let recorder = &mut *self.0.borrow_mut();
        if recorder.is_on() {
            recorder.has_news = true;
            push(recorder);
        }
    }

    fn failed(&self, call: &str, subject: fmt::Arguments<'_>, of: usize, error: &io::Error) {
        let of = Of(of);
        if error.kind() == io::ErrorKind::WouldBlock {
            return self.record(
                "would_block",
                format_args!(",\"call\":\"{call}\"{subject}{of}"),
            );
        }
        let error = error.to_string();
        let error = Json(&error);
        self.record(
            "failed",
            format_args!(",\"call\":\"{call}\"{subject}{of},\"error\":{error}"),
        );
    }

    /// A connection was closed. One that had no place has no identity.
    pub(super) fn closed(&self, id: Option<ConnId>) {
        match id {
            Some(id) => self.record("close", format_args!(",{}", Id(id))),
            None => self.record("close", format_args!(",\"id\":null")),
        }
    }

    /// The reserve descriptor was opened or closed.
    pub(super) fn reserve(&self, is_open: bool) {
        self.record("reserve", format_args!(",\"is_open\":{is_open}"));
    }

    /// Something happened outside of the relay that only a simulation can know.
    pub fn world(&self, id: Option<ConnId>, text: &str) {
        let text = Json(text);
        match id {
            Some(id) => self.record("world", format_args!(",{},\"text\":{text}", Id(id))),
            None => self.record("world", format_args!(",\"id\":null,\"text\":{text}")),
        }
    }

    /// How many bytes the kernel holds for a connection in each direction, which only a simulation can know, and
    /// whether the end of the input has come.
    pub fn kernel(&self, id: ConnId, unread: usize, has_ended: bool, unsent: usize) {
        self.record(
            "kernel",
            format_args!(
                ",{},\"unread\":{unread},\"has_ended\":{has_ended},\"unsent\":{unsent}",
                Id(id)
            ),
        );
    }

    /// The relay is about to look at the timers that have fired.
    pub(super) fn timers<S>(&self, relay: &Relay<S>, now: Instant) {
        if self.0.borrow().is_on() {
            for (id, kind) in relay.due_timers(now) {
                self.record("timer", format_args!(",{},\"timer\":\"{kind}\"", Id(id)));
            }
        }
    }

    /// The relay is about to deliver what was published.
    pub(super) fn published<S>(&self, relay: &Relay<S>) {
        if !self.0.borrow().is_on() {
            return;
        }
        for channel in relay.channel_states().filter(|one| one.turn_len > 0) {
            let spans = relay
                .own_spans()
                .filter(|(_, dialect, span)| !span.is_empty() && *dialect == channel.dialect);
            let spans = List::of(spans.map(|(id, _, span)| {
                let end = span.end.min(channel.turn_len);
                Span(id, span.start, end)
            }));
            let (dialect, bytes) = (channel.dialect, channel.turn_len);
            let fields =
                format_args!(",\"dialect\":\"{dialect}\",\"bytes\":{bytes},\"spans\":{spans}");
            self.record("published", fields);
        }
    }

    /// The turn was delivered: who has begun to lag, and who lags no more?
    pub(super) fn delivered<S>(&self, relay: &Relay<S>) {
        let mut recorder = self.0.borrow_mut();
        if !recorder.is_on() || (relay.lagging() == 0 && recorder.lagging.is_empty()) {
            return;
        }
        let mut lagging = BTreeSet::new();
        for state in relay.busy_connection_states() {
            let Some(cursor) = state.cursor else { continue };
            if !recorder.lagging.contains(&state.id) {
                let (id, position, pending) = (Id(state.id), cursor.position, cursor.pending);
                let fields = format_args!(",{id},\"position\":{position},\"pending\":{pending}");
                recorder.push("queued", fields);
                recorder.has_news = true;
            }
            lagging.insert(state.id);
        }
        let before = std::mem::replace(&mut recorder.lagging, lagging);
        for id in before.iter().filter(|id| relay.stream(**id).is_some()) {
            if !recorder.lagging.contains(id) {
                recorder.push("caught_up", format_args!(",{}", Id(*id)));
                recorder.has_news = true;
            }
        }
    }

    /// Something happened in the room.
    pub(super) fn event(&self, event: &RoomEvent) {
        match event {
            RoomEvent::Joined { member, .. } => {
                let name = Name(member.name.as_deref());
                let (id, dialect) = (Id(member.id), member.dialect);
                self.record(
                    "joined",
                    format_args!(",{id},{name},\"dialect\":\"{dialect}\""),
                );
            }
            RoomEvent::Left { peer, reason, .. } => {
                let (id, reason, text) = (Id(peer.id), reason.info().key, reason.to_string());
                let text = Json(&text);
                self.record(
                    "left",
                    format_args!(",{id},\"reason\":\"{reason}\",\"text\":{text}"),
                );
            }
            RoomEvent::PauseBegan { reader, lag } => {
                self.record("paused", format_args!(",{},\"lag\":{lag}", Id(reader.id)));
            }
            RoomEvent::PauseEnded { lasted } => {
                let lasted = lasted.as_micros();
                self.record("resumed", format_args!(",\"lasted\":{lasted}"));
            }
            RoomEvent::Throttled { member, wait } => {
                let (id, wait) = (Id(member.id), wait.as_micros());
                self.record("throttled", format_args!(",{id},\"wait\":{wait}"));
            }
            // These are seen as calls and as published bytes.
            RoomEvent::Accepted(_) | RoomEvent::Closed { .. } | RoomEvent::Published { .. } => {}
        }
    }

    /// The turn is over, and the next poll may wait this long. A turn that did nothing for the room, such as one
    /// that served a watcher, leaves no record.
    pub(super) fn end_turn<S>(&self, relay: &Relay<S>, timeout: Option<Duration>, now: Instant) {
        let mut recorder = self.0.borrow_mut();
        if recorder.has_news && recorder.is_on() {
            recorder.push_end(relay, timeout, now);
            recorder.save();
        } else {
            recorder.turn.clear();
            recorder.open_write = None;
        }
        recorder.has_news = false;
    }

    /// Calls `show` with the records of the turn that has ended, and forgets them.
    pub(super) fn take_turn(&self, show: impl FnOnce(&str)) {
        let mut turn = std::mem::take(&mut self.0.borrow_mut().turn);
        show(&turn);
        turn.clear();
        self.0.borrow_mut().turn = turn;
    }

    /// The record that begins a trace: the connections that there are.
    pub(super) fn start<S>(relay: &Relay<S>) -> String {
        let limits = relay.limits();
        let (soft_limit, queue_limit) = (limits.soft_limit, limits.queue_limit);
        let more = relay.len().saturating_sub(MAX_LISTED);
        let listed = relay.connection_states().take(MAX_LISTED);
        let listed = List::of(listed.map(Listed));
        format!(
            "{{\"kind\":\"start\",\"format\":{FORMAT},\"read_budget\":{},\
             \"soft_limit\":{soft_limit},\"queue_limit\":{queue_limit},\"connections\":{listed},\"more\":{more}}}\n",
            limits.read_budget,
        )
    }

    /// The loop is about to wait, so there is time for the file.
    pub(super) fn flush(&self) {
        self.0.borrow_mut().flush_file();
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Recorder {
    const fn is_on(&self) -> bool {
        self.file.is_some() || self.is_watched
    }

    fn micros(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.began).as_micros()
    }

    /// Writing to a string does not fail, here and below.
    fn push(&mut self, kind: &str, fields: fmt::Arguments<'_>) {
        self.close_write();
        let _ = writeln!(self.turn, "{{\"kind\":\"{kind}\"{fields}}}");
    }

    /// The record of a read.
    fn push_read(&mut self, id: ConnId, bytes: usize, of: usize) {
        let id = Id(id);
        self.push("read", format_args!(",{id},\"bytes\":{bytes},\"of\":{of}"));
    }

    /// The record of a write. A turn may have thousands that are alike, each to another member: they are one
    /// record, which is written without the formatter.
    fn push_write(&mut self, id: ConnId, bytes: usize, of: usize) {
        if bytes == of && self.open_write == Some(of) {
            self.turn.push(',');
        } else {
            self.push_write_start(bytes, of);
        }
        let text = &mut self.turn;
        text.push('"');
        push_number(text, id.key());
        text.push('.');
        push_number(text, id.generation());
        text.push('"');
        if bytes < of {
            self.close_write();
        }
    }

    #[cold]
    fn push_write_start(&mut self, bytes: usize, of: usize) {
        self.close_write();
        self.open_write = Some(of);
        let start = format_args!("{{\"kind\":\"write\",\"bytes\":{bytes},\"of\":{of},\"ids\":[");
        let _ = self.turn.write_fmt(start);
    }

    fn close_write(&mut self) {
        if self.open_write.take().is_some() {
            self.turn.push_str("]}\n");
        }
    }

    /// The record that ends a turn: what the relay remembers. What it does not have at all is left out.
    fn push_end<S>(&mut self, relay: &Relay<S>, timeout: Option<Duration>, now: Instant) {
        self.close_write();
        let (at, timeout, open) = (self.micros(now), Micros(timeout), relay.len());
        let _ = write!(
            self.turn,
            "{{\"kind\":\"end\",\"at\":{at},\"timeout\":{timeout},\"open\":{open}"
        );
        if relay.is_paused() {
            self.turn.push_str(",\"is_paused\":true");
        }
        for (list, key) in [
            (ReadyList::ToRead, "to_read"),
            (ReadyList::Held, "held"),
            (ReadyList::ToFlush, "to_flush"),
        ] {
            self.push_list(key, relay.listed(list).map(IdText));
        }
        self.push_list("busy", relay.busy_connection_states().map(Busy));
        self.push_list("channels", relay.channel_states().map(Channel));
        self.turn.push_str("}\n");
    }

    /// The field of a list that has an item.
    fn push_list<I: Display>(&mut self, key: &str, items: impl Iterator<Item = I>) {
        let mut items = items.peekable();
        if items.peek().is_some() {
            let _ = write!(self.turn, ",\"{key}\":{}", List::of(items));
        }
    }

    /// Gives the turn to the file, if it has room for it. If not, the trace ends there.
    fn save(&mut self) {
        let Some(file) = &mut self.file else { return };
        let len = self.turn.len() as u64;
        if len > file.room {
            self.flush_file();
            if self.file.take().is_some() {
                log::trace_is_full();
            }
            return;
        }
        file.room -= len;
        file.text.push_str(&self.turn);
        if file.text.len() > FILE_BUFFER {
            self.flush_file();
        }
    }

    /// Writes the text that the file has not received. An error ends the trace, and nothing else.
    fn flush_file(&mut self) {
        if let Some(file) = &mut self.file
            && !file.text.is_empty()
        {
            let written = file.sink.write_all(file.text.as_bytes());
            file.text.clear();
            if let Err(error) = written {
                self.file = None;
                log::trace_failed(&error);
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush_file();
    }
}
