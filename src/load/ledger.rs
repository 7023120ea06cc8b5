//! What was said, and who has heard it: every byte that a server relays is checked here. No I/O.
//!
//! A hearer is to hear each message that others say once, whole, and each speaker's in the order in
//! which they were said. Nearly always all hearers hear the same in the same order, each without its
//! own. So what the first of them hears is checked in full and kept, and the others' bytes are
//! compared with it, many messages at a time: that costs less than the system call that brought
//! them, and no byte is taken on trust.
//!
//! ```text
//!   kept, in the order in which it was first heard   [0:0][1:0][0:1][2:0][0:2]
//!   hearer 0, who hears all but its own                         ^ next for it is 2:0
//!   hearer 3, not in step: it was sent 1:0 before 0:0           counts for itself from there on
//! ```
//!
//! A hearer whose bytes differ is not necessarily wrong, since only a speaker's own order is
//! promised. It goes its own way from there: which message of each speaker is next for it, and which
//! are missing.

use std::collections::{BTreeSet, VecDeque};

use super::delays::Delays;
use super::protocol::{Garbled, Incoming, Protocol, index_of};
use super::script::{Line, Reading, Script};

/// How many messages are said at least before those are dropped that everybody has heard.
const TRIM_FROM: usize = 1024;

/// How many bytes of them are kept at least before the same.
const TRIM_BYTES: usize = 8 * 1024 * 1024;

/// What came of all that was to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Messages heard, counted once for each who heard them.
    pub(super) deliveries: u64,
    /// Messages that somebody should have heard and did not.
    pub(super) lost: u64,
    /// Messages heard again by somebody who had heard them.
    pub(super) duplicated: u64,
    /// Messages heard after a later one of the same speaker.
    pub(super) out_of_order: u64,
    /// Messages that were not what was said.
    pub(super) corrupt: u64,
    /// Messages of others, who are in the room too.
    pub(super) foreign: u64,
}

/// All that is said and heard in a run.
#[derive(Debug)]
pub(super) struct Ledger {
    protocol: Protocol,
    tag: String,
    script: Script,
    speakers: Vec<Speaker>,
    hearers: Vec<Hearer>,
    /// The messages that have been heard by somebody and may yet be by others, in the order of the
    /// first hearing, and the bytes in which they came, all of the same length.
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    len: usize,
    /// How many have been dropped before the first entry. Positions count them.
    dropped: u64,
    /// How many are to have been said before there is again something to drop.
    trim_at: u64,
    /// How many bytes are to be kept before the same.
    trim_bytes: usize,
    /// How many messages have been said.
    said: u64,
    /// How many hearers are here.
    here: usize,
    /// How many deliveries are to come.
    outstanding: u64,
    tally: Tally,
    /// How long each delivery took, of the messages that are measured.
    delays: Delays,
    measured_from: u64,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Speaker {
    /// The hearer that is this speaker.
    hearer: Option<usize>,
    said: u32,
    /// The next of its messages that nobody has heard yet.
    unheard: u32,
    /// When each message from `times_from` on was to be sent.
    times: VecDeque<u64>,
    times_from: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    line: Line,
    /// When it was to be sent.
    sent: u64,
}

#[derive(Debug)]
struct Hearer {
    place: Place,
    /// How many of all messages are no longer to come: heard, lost, or said before it was here.
    settled: u64,
    /// Which speaker it is.
    speaker: Option<u32>,
    /// The positions of its own messages, which it will not hear.
    own: VecDeque<u64>,
    /// How many messages it had said when it last left: those it may hear, as old ones.
    said_before: u32,
}

/// What a hearer is to hear next.
#[derive(Debug)]
enum Place {
    /// It is not here, or not known to be: nothing need come, and anything may.
    Away,
    /// What stands at this position.
    InStep(u64),
    /// It hears in an order of its own.
    OwnWay(Box<OwnWay>),
}

#[derive(Debug)]
struct OwnWay {
    /// The next message of each speaker.
    next: Vec<u32>,
    /// Earlier ones that have not come.
    missing: BTreeSet<Line>,
}

impl Ledger {
    /// For so many hearers, none of them here yet, and speakers, which in a chat are the first of
    /// the hearers.
    pub(super) fn new(
        protocol: Protocol,
        tag: &str,
        script: Script,
        hearers: usize,
        speakers: usize,
    ) -> Self {
        let apart = protocol.is_broker();
        Self {
            protocol,
            tag: tag.to_owned(),
            script,
            speakers: (0..speakers)
                .map(|index| Speaker {
                    hearer: (!apart).then_some(index),
                    said: 0,
                    unheard: 0,
                    times: VecDeque::new(),
                    times_from: 0,
                })
                .collect(),
            hearers: (0..hearers)
                .map(|index| Hearer {
                    place: Place::Away,
                    settled: 0,
                    speaker: (!apart && index < speakers).then_some(index as u32),
                    own: VecDeque::new(),
                    said_before: 0,
                })
                .collect(),
            entries: VecDeque::new(),
            bytes: Vec::new(),
            len: 0,
            dropped: 0,
            trim_at: TRIM_FROM as u64,
            trim_bytes: TRIM_BYTES,
            said: 0,
            here: 0,
            outstanding: 0,
            tally: Tally::default(),
            delays: Delays::new(),
            measured_from: u64::MAX,
            payload: Vec::new(),
        }
    }

    /// A speaker says its next message, which was to be sent at `sent`: appended to `out`.
    pub(super) fn say(&mut self, speaker: u32, sent: u64, out: &mut Vec<u8>) {
        let speaking = &mut self.speakers[speaker as usize];
        let line = Line {
            speaker,
            seq: speaking.said,
        };
        speaking.said += 1;
        speaking.times.push_back(sent);
        self.script.write(line, &mut self.payload);
        self.protocol.say(&self.payload, &self.tag, out);
        self.said += 1;
        let hears_itself = speaking.hearer.is_some_and(|hearer| self.is_here(hearer));
        self.outstanding += (self.here - usize::from(hears_itself)) as u64;
    }

    /// Checks what a hearer was sent. Returns how many bytes of it were taken, which is all but the
    /// beginning of something that is not all there, and whether a welcome was among it.
    ///
    /// # Errors
    ///
    /// If it is not what the protocol has: there is no going on from there.
    pub(super) fn hear(
        &mut self,
        hearer: usize,
        input: &[u8],
        now: u64,
    ) -> Result<(usize, bool), Garbled> {
        let mut rest = input;
        let mut welcomed = false;
        loop {
            rest = self.skim(hearer, rest, now);
            let Some((incoming, used)) = self.protocol.next(rest)? else {
                break;
            };
            let (taken, after) = rest.split_at(used);
            rest = after;
            match incoming {
                Incoming::Welcome => welcomed = true,
                Incoming::Aside => {}
                Incoming::Message { name, payload } => {
                    self.take(hearer, name, payload, taken, now);
                }
            }
        }
        if self.said >= self.trim_at || self.bytes.len() >= self.trim_bytes {
            self.trim();
        }
        Ok((input.len() - rest.len(), welcomed))
    }

    /// Counts on a hearer to hear what is said from now on.
    pub(super) fn expect(&mut self, hearer: usize) {
        if !self.is_here(hearer) {
            self.hearers[hearer].place = Place::InStep(self.end());
            self.hearers[hearer].settled = 0;
            self.hearers[hearer].settled = self.owed(hearer);
            self.here += 1;
        }
    }

    /// A hearer is gone. What was to come is lost if it `was_cut`, and no loss if it left.
    pub(super) fn leave(&mut self, hearer: usize, was_cut: bool) {
        if self.is_here(hearer) {
            let owed = self.owed(hearer);
            self.here -= 1;
            self.outstanding -= owed;
            if was_cut {
                self.tally.lost += owed;
            }
        }
        let leaving = &mut self.hearers[hearer];
        leaving.place = Place::Away;
        leaving.own.clear();
        if let Some(own) = leaving.speaker {
            leaving.said_before = self.speakers[own as usize].said;
        }
    }

    /// How many there are who are to hear.
    pub(super) fn hearers(&self) -> usize {
        self.hearers.len()
    }

    /// How many there are who may speak.
    pub(super) fn speakers(&self) -> u32 {
        self.speakers.len() as u32
    }

    /// Whether a hearer has heard anything since it came.
    pub(super) fn is_here(&self, hearer: usize) -> bool {
        !matches!(self.hearers[hearer].place, Place::Away)
    }

    /// How many have heard something since they came.
    pub(super) const fn here(&self) -> usize {
        self.here
    }

    /// How many deliveries are to come.
    pub(super) const fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// How many messages have been said.
    pub(super) const fn said(&self) -> u64 {
        self.said
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How long the deliveries took, of the messages that are measured.
    pub(super) const fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Measures the messages that are to be sent from this time on, and forgets what was measured
    /// before.
    pub(super) fn measure_from(&mut self, time: u64) {
        self.delays = Delays::new();
        self.measured_from = time;
    }

    /// Gives up what has not come: it is lost.
    pub(super) fn give_up(&mut self) {
        self.tally.lost += self.outstanding;
        for hearer in 0..self.hearers.len() {
            if self.is_here(hearer) {
                let owed = self.owed(hearer);
                self.hearers[hearer].settled += owed;
            }
        }
        self.outstanding = 0;
    }

    fn owed(&self, hearer: usize) -> u64 {
        let hearing = &self.hearers[hearer];
        let own = hearing
            .speaker
            .map_or(0, |speaker| u64::from(self.speakers[speaker as usize].said));
        // Never below zero, but for a server that says what nobody has said yet.
        (self.said - own).saturating_sub(hearing.settled)
    }

    /// Takes the messages at the beginning that are, byte for byte, those that are next for this
    /// hearer. Returns what is left.
    fn skim<'a>(&mut self, hearer: usize, mut rest: &'a [u8], now: u64) -> &'a [u8] {
        let len = self.len;
        let Hearer {
            place: Place::InStep(at),
            own,
            ..
        } = &mut self.hearers[hearer]
        else {
            return rest;
        };
        let mut taken = 0;
        while rest.len() >= len {
            if own.front() == Some(at) {
                own.pop_front();
                *at += 1;
                continue;
            }
            let first = (*at - self.dropped) as usize;
            let until = own
                .front()
                .map_or(self.entries.len(), |own| (own - self.dropped) as usize);
            let mut count = (until - first).min(rest.len().checked_div(len).unwrap_or(0));
            let kept = &self.bytes[first * len..][..count * len];
            let all = count;
            if rest[..count * len] != *kept {
                let pairs = rest.chunks_exact(len).zip(kept.chunks_exact(len));
                count = pairs.take_while(|(came, kept)| came == kept).count();
            }
            if count == 0 {
                break;
            }
            let heard = self.entries.range(first..first + count);
            record(&mut self.delays, self.measured_from, heard, now);
            rest = &rest[count * len..];
            *at += count as u64;
            taken += count as u64;
            if count < all {
                break;
            }
        }
        self.tally.deliveries += taken;
        self.settle(hearer, taken);
        rest
    }

    /// Takes one message that is not known to be the next one.
    fn take(&mut self, hearer: usize, name: Option<&[u8]>, payload: &[u8], bytes: &[u8], now: u64) {
        if name.is_some_and(|name| index_of(name, &self.tag).is_none()) {
            self.tally.foreign += 1;
            return;
        }
        let (line, whole) = match self.script.read(payload) {
            Reading::Whole(line) => (line, true),
            Reading::Damaged(line) => (line, false),
            Reading::Unreadable => {
                self.tally.corrupt += 1;
                return;
            }
        };
        let was_said = self
            .speakers
            .get(line.speaker as usize)
            .is_some_and(|speaker| line.seq < speaker.said);
        let named = name.is_none_or(|name| index_of(name, &self.tag) == Some(line.speaker));
        let own = self.hearers[hearer].speaker == Some(line.speaker);
        if own && line.seq < self.hearers[hearer].said_before {
            // A server may tell newcomers what was said before, and this one has come back.
            return;
        }
        if !was_said || !named || own {
            self.tally.corrupt += 1;
            return;
        }
        if !whole {
            self.tally.corrupt += 1;
        }
        let bytes = whole.then_some(bytes);
        match self.hearers[hearer].place {
            Place::Away => {
                self.note(line, bytes, self.end());
                self.arrive(hearer, line);
            }
            // It is the first to hear what comes next, or the first to tell where it stands.
            Place::InStep(at) => {
                if self.note(line, bytes, at) {
                    self.hearers[hearer].place = Place::InStep(at + 1);
                    self.count(hearer, line, now);
                } else {
                    self.part_ways(hearer, at);
                    self.take_own_way(hearer, line, now);
                }
            }
            Place::OwnWay(_) => self.take_own_way(hearer, line, now),
        }
    }

    /// The position after the last message that is kept.
    fn end(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    /// Has a message stand at this position, where somebody in step hears it, if it came whole and that
    /// does not contradict what others have heard. Says whether it does stand there.
    ///
    /// Usually it is new, and the position is the end. But whoever hears first does not hear its own
    /// messages. The next one finds those between what is kept, and there is their place; or rather,
    /// before or after its own, which it does not hear either, so that the third may know better.
    fn note(&mut self, line: Line, bytes: Option<&[u8]>, position: u64) -> bool {
        let Some(bytes) = bytes.filter(|bytes| self.len == 0 || bytes.len() == self.len) else {
            return false;
        };
        let from = (position - self.dropped) as usize;
        let speaker = &self.speakers[line.speaker as usize];
        let own = speaker.hearer;
        let kept = (line.seq < speaker.unheard).then(|| {
            self.entries
                .range(from..)
                .position(|entry| entry.line == line)
        });
        let entry = match kept {
            Some(Some(index)) => self.entries[from + index],
            // It has been heard before, by everybody who was to.
            Some(None) => return false,
            None => {
                // If some before it were not heard by anybody, those in step would pass over the gap
                // with it, and it is theirs to notice. If nobody is, nobody was there to hear them.
                let misses = |hearer: &Hearer| {
                    matches!(hearer.place, Place::InStep(_)) && hearer.speaker != Some(line.speaker)
                };
                if line.seq > speaker.unheard && self.hearers.iter().any(misses) {
                    return false;
                }
                let at = line.seq.checked_sub(speaker.times_from);
                let Some(&sent) = at.and_then(|at| speaker.times.get(at as usize)) else {
                    return false;
                };
                Entry { line, sent }
            }
        };
        let kept = kept.flatten().map(|index| from + index);
        // It goes before no other of its speaker.
        let mut passed = self.entries.range(from..kept.unwrap_or(self.entries.len()));
        if passed.any(|entry| entry.line.speaker == line.speaker) {
            return false;
        }
        if position < self.end() && !self.make_room(position, own, kept) {
            return false;
        }
        let len = bytes.len();
        self.len = len;
        if let Some(index) = kept {
            self.entries.remove(index);
            self.bytes[from * len..(index + 1) * len].rotate_right(len);
        } else {
            self.speakers[line.speaker as usize].unheard = line.seq + 1;
            let place = from * len..from * len;
            self.bytes.splice(place, bytes.iter().copied());
        }
        self.entries.insert(from, entry);
        if position + 1 < self.end() {
            self.find_own(position);
        } else if let Some(own) = own
            && matches!(self.hearers[own].place, Place::InStep(_))
        {
            self.hearers[own].own.push_back(position);
        }
        true
    }

    /// Prepares for a message of this hearer's own to stand at a position where others stand now, it
    /// being new or `kept` at a later index. Says whether it may.
    ///
    /// Who is beyond the position and is not its speaker would have missed it, or have heard it later,
    /// unless what stood before it were messages of its own.
    fn make_room(&mut self, position: u64, own: Option<usize>, kept: Option<usize>) -> bool {
        let from = (position - self.dropped) as usize;
        let kept = kept.map_or(u64::MAX, |index| self.dropped + index as u64);
        for (index, hearer) in self.hearers.iter().enumerate() {
            if let Place::InStep(at) = hearer.place
                && at > position
                && own != Some(index)
            {
                let before = (at.min(kept) - self.dropped) as usize;
                let mut before = self.entries.range(from..before);
                if !before.all(|entry| hearer.speaker == Some(entry.line.speaker)) {
                    return false;
                }
            }
        }
        for (index, hearer) in self.hearers.iter_mut().enumerate() {
            if let Place::InStep(at) = &mut hearer.place
                && *at > position
                && *at <= kept
            {
                // Its speaker has passed it from now on; others have it before them.
                *at = if own == Some(index) {
                    *at + 1
                } else {
                    position
                };
            }
        }
        true
    }

    /// Finds out again, from this position on, which messages are whose own.
    fn find_own(&mut self, position: u64) {
        for hearer in &mut self.hearers {
            let before = hearer.own.partition_point(|&own| own < position);
            hearer.own.truncate(before);
        }
        let from = (position - self.dropped) as usize;
        for (position, entry) in (position..).zip(self.entries.range(from..)) {
            if let Some(own) = self.speakers[entry.line.speaker as usize].hearer
                && let Place::InStep(at) = self.hearers[own].place
                && at <= position
            {
                self.hearers[own].own.push_back(position);
            }
        }
    }

    /// A hearer that was not known to be here hears this: it is, from there on.
    fn arrive(&mut self, hearer: usize, line: Line) {
        let Some(index) = self.entries.iter().rposition(|entry| entry.line == line) else {
            return;
        };
        let after = self.dropped + index as u64 + 1;
        self.hearers[hearer].place = Place::InStep(after);
        self.find_own(after);
        // All that is to come is what was said after this one.
        let own = self.hearers[hearer].speaker;
        let next = self.next_from(index + 1);
        let to_come: u64 = (0..)
            .zip(self.speakers.iter().zip(next))
            .filter(|&(speaker, _)| own != Some(speaker))
            .map(|(_, (speaker, next))| u64::from(speaker.said - next))
            .sum();
        self.hearers[hearer].settled = 0;
        self.hearers[hearer].settled = self.owed(hearer) - to_come;
        self.here += 1;
        self.outstanding += to_come;
        self.tally.deliveries += 1;
    }

    /// The next message of each speaker for one who has heard all that is kept before this index.
    fn next_from(&self, index: usize) -> Vec<u32> {
        let mut next: Vec<u32> = self.speakers.iter().map(|one| one.unheard).collect();
        for entry in self.entries.range(index..).rev() {
            next[entry.line.speaker as usize] = entry.line.seq;
        }
        next
    }

    /// A hearer that was in step is not any more.
    fn part_ways(&mut self, hearer: usize, at: u64) {
        let next = self.next_from((at - self.dropped) as usize);
        let parting = &mut self.hearers[hearer];
        parting.own = VecDeque::new();
        parting.place = Place::OwnWay(Box::new(OwnWay {
            next,
            missing: BTreeSet::new(),
        }));
    }

    fn take_own_way(&mut self, hearer: usize, line: Line, now: u64) {
        let Place::OwnWay(way) = &mut self.hearers[hearer].place else {
            return;
        };
        let next = &mut way.next[line.speaker as usize];
        if line.seq >= *next {
            let skipped = (*next..line.seq).map(|seq| Line { seq, ..line });
            let lost = u64::from(line.seq - *next);
            way.missing.extend(skipped);
            *next = line.seq + 1;
            self.count(hearer, line, now);
            // Until they come after all.
            self.tally.lost += lost;
            self.settle(hearer, lost);
        } else if way.missing.remove(&line) {
            self.tally.lost -= 1;
            self.tally.out_of_order += 1;
            self.tally.deliveries += 1;
        } else {
            self.tally.duplicated += 1;
        }
    }

    /// Counts a delivery.
    fn count(&mut self, hearer: usize, line: Line, now: u64) {
        let speaker = &self.speakers[line.speaker as usize];
        let at = line.seq.checked_sub(speaker.times_from);
        if let Some(&sent) = at.and_then(|at| speaker.times.get(at as usize)) {
            let entry = Entry { line, sent };
            record(&mut self.delays, self.measured_from, [&entry], now);
        }
        self.tally.deliveries += 1;
        self.settle(hearer, 1);
    }

    /// Some messages are no longer to come: fewer than that, if they were given up before.
    fn settle(&mut self, hearer: usize, count: u64) {
        let count = count.min(self.owed(hearer));
        self.hearers[hearer].settled += count;
        self.outstanding -= count;
    }

    /// Drops what everybody has heard.
    fn trim(&mut self) {
        let mut keep_from = self.end();
        for hearer in &mut self.hearers {
            if let Place::InStep(at) = &mut hearer.place {
                // Who only speaks hears nothing that would move it past its own.
                while hearer.own.front() == Some(at) {
                    hearer.own.pop_front();
                    *at += 1;
                }
                keep_from = keep_from.min(*at);
            }
        }
        let drop = (keep_from - self.dropped) as usize;
        self.entries.drain(..drop);
        self.bytes.drain(..drop * self.len);
        self.dropped = keep_from;
        self.fall_in();
        // The times of sending are needed for as long as those who go their own way may hear it.
        let mut next = self.next_from(0);
        let in_step = |hearer: &Hearer| matches!(hearer.place, Place::InStep(_));
        if !self.hearers.iter().any(in_step) {
            // Then nothing is kept, and nothing held up by what nobody has heard.
            next = self.speakers.iter().map(|speaker| speaker.said).collect();
        }
        for hearer in &self.hearers {
            if let Place::OwnWay(way) = &hearer.place {
                for (speaker, (next, own)) in next.iter_mut().zip(&way.next).enumerate() {
                    if hearer.speaker != Some(speaker as u32) {
                        *next = (*next).min(*own);
                    }
                }
            }
        }
        for (speaker, next) in self.speakers.iter_mut().zip(next) {
            let passed = next.saturating_sub(speaker.times_from);
            speaker.times.drain(..passed as usize);
            speaker.times_from += passed;
        }
        self.trim_at = self.said + TRIM_FROM.max(2 * self.entries.len()) as u64;
        self.trim_bytes = TRIM_BYTES.max(2 * self.bytes.len());
    }

    /// Has those in step again who have heard all that is kept up to some position, and nothing else.
    fn fall_in(&mut self) {
        for index in 0..self.hearers.len() {
            let hearer = &self.hearers[index];
            if let Place::OwnWay(way) = &hearer.place
                && way.missing.is_empty()
                && let Some(at) = self.position_of(&way.next, hearer.speaker)
            {
                self.hearers[index].place = Place::InStep(at);
                let position = self.dropped;
                self.find_own(position);
            }
        }
    }

    /// The position before which everything was heard, and after which nothing, by a hearer for whom
    /// these are the next messages of each speaker, if there is one.
    fn position_of(&self, next: &[u32], own: Option<u32>) -> Option<u64> {
        let is_own = |speaker: usize| own == Some(speaker as u32);
        let is_next = |entry: &Entry| {
            let speaker = entry.line.speaker as usize;
            !is_own(speaker) && entry.line.seq >= next[speaker]
        };
        let first = self.entries.iter().position(is_next);
        let first = first.unwrap_or(self.entries.len());
        // What is next from there on, if the hearer has heard all before it.
        let expected = self.next_from(first);
        let mut pairs = next.iter().zip(&expected).enumerate();
        pairs
            .all(|(speaker, (next, expected))| is_own(speaker) || next == expected)
            .then_some(self.dropped + first as u64)
    }
}

/// Records how long these took that have come now. What was said together took the same time.
fn record<'a>(
    delays: &mut Delays,
    measured_from: u64,
    heard: impl IntoIterator<Item = &'a Entry>,
    now: u64,
) {
    // When the messages of a run were sent, and how many there are.
    let (mut sent, mut count) = (measured_from, 0);
    for entry in heard {
        if entry.sent != sent {
            if count > 0 {
                delays.record(now.saturating_sub(sent), count);
            }
            (sent, count) = (entry.sent, 0);
        }
        count += u64::from(entry.sent >= measured_from);
    }
    if count > 0 {
        delays.record(now.saturating_sub(sent), count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::name_of;
    use super::*;
    use crate::wire::encode_frame;
    use proptest::prelude::*;

    const TAG: &str = "tag";
    const SIZE: usize = 20;

    /// A ledger in which these hear, and the first so many of them speak.
    fn ledger(hearers: usize, speakers: usize) -> Ledger {
        let script = Script::new(SIZE, 2, 1);
        let mut ledger = Ledger::new(Protocol::Chat10, TAG, script, hearers, speakers);
        ledger.measure_from(0);
        for hearer in 0..hearers {
            ledger.expect(hearer);
        }
        ledger
    }

    /// What a server makes of a message.
    fn relayed(line: Line) -> Vec<u8> {
        let mut payload = Vec::new();
        Script::new(SIZE, 2, 1).write(line, &mut payload);
        let mut bytes = Vec::new();
        encode_frame(name_of(line.speaker, TAG).as_bytes(), &mut bytes);
        encode_frame(&payload, &mut bytes);
        bytes
    }

    const fn line(speaker: u32, seq: u32) -> Line {
        Line { speaker, seq }
    }

    fn say(ledger: &mut Ledger, count: u32, speaker: u32) {
        for _ in 0..count {
            ledger.say(speaker, 5, &mut Vec::new());
        }
    }

    fn hear(ledger: &mut Ledger, hearer: usize, lines: &[Line]) {
        for &line in lines {
            let bytes = relayed(line);
            let taken = ledger.hear(hearer, &bytes, 10).unwrap();
            assert_eq!(taken, (bytes.len(), false));
        }
    }

    fn own_ways(ledger: &Ledger) -> usize {
        let own_way = |hearer: &&Hearer| matches!(hearer.place, Place::OwnWay(_));
        ledger.hearers.iter().filter(own_way).count()
    }

    #[test]
    fn what_is_said_is_what_a_server_takes_for_a_message() {
        let mut ledger = ledger(2, 1);
        let mut said = Vec::new();
        ledger.say(0, 0, &mut said);
        let payload = &relayed(line(0, 0))[20..];
        assert_eq!(said, payload);
    }

    #[test]
    fn each_message_is_counted_once_for_each_who_hears_it() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 2, 0);
        assert_eq!(ledger.outstanding(), 4);
        hear(&mut ledger, 1, &[line(0, 0), line(0, 1)]);
        hear(&mut ledger, 2, &[line(0, 0)]);
        assert_eq!(ledger.outstanding(), 1);
        let expected = Tally {
            deliveries: 3,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
        let delays = ledger.delays();
        assert_eq!(
            (delays.times().unwrap().samples, delays.quantile(1.0)),
            (3, Some(5))
        );
    }

    #[test]
    fn only_what_was_to_be_sent_late_enough_is_measured() {
        let mut ledger = ledger(2, 1);
        ledger.measure_from(100);
        for sent in [99, 100, 150] {
            ledger.say(0, sent, &mut Vec::new());
        }
        let stream: Vec<u8> = (0..3).flat_map(|seq| relayed(line(0, seq))).collect();
        ledger.hear(1, &stream, 160).unwrap();
        let delays = ledger.delays();
        assert_eq!(delays.times().unwrap().samples, 2);
        assert_eq!(
            [0.5, 1.0].map(|part| delays.quantile(part)),
            [Some(10), Some(60)]
        );
    }

    #[test]
    fn a_message_that_one_never_gets_is_lost_when_a_later_one_comes() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 3, 0);
        hear(&mut ledger, 1, &[line(0, 0), line(0, 2)]);
        assert_eq!(ledger.tally().lost, 1);
        hear(&mut ledger, 2, &[line(0, 0), line(0, 1), line(0, 2)]);
        let expected = Tally {
            deliveries: 5,
            lost: 1,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn a_message_that_nobody_gets_is_lost_for_everybody() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 2, 0);
        hear(&mut ledger, 1, &[line(0, 1)]);
        hear(&mut ledger, 2, &[line(0, 1)]);
        assert_eq!(ledger.tally().lost, 2);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn a_message_that_comes_twice_is_duplicated() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 2, 0);
        hear(&mut ledger, 1, &[line(0, 0), line(0, 0), line(0, 1)]);
        hear(&mut ledger, 2, &[line(0, 0), line(0, 1), line(0, 1)]);
        let expected = Tally {
            deliveries: 4,
            duplicated: 2,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
    }

    #[test]
    fn messages_of_one_speaker_that_change_places_are_out_of_order_and_not_lost() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 3, 0);
        hear(&mut ledger, 1, &[line(0, 1), line(0, 0), line(0, 2)]);
        hear(&mut ledger, 2, &[line(0, 0), line(0, 1), line(0, 2)]);
        let expected = Tally {
            deliveries: 6,
            out_of_order: 1,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn messages_of_two_speakers_may_come_in_any_order() {
        let mut ledger = ledger(4, 2);
        say(&mut ledger, 1, 0);
        say(&mut ledger, 1, 1);
        hear(&mut ledger, 2, &[line(0, 0), line(1, 0)]);
        hear(&mut ledger, 3, &[line(1, 0), line(0, 0)]);
        hear(&mut ledger, 0, &[line(1, 0)]);
        hear(&mut ledger, 1, &[line(0, 0)]);
        let expected = Tally {
            deliveries: 6,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
    }

    #[test]
    fn a_message_that_is_not_what_was_said_is_corrupt() {
        let mut ledger = ledger(2, 1);
        say(&mut ledger, 1, 0);
        let mut damaged = relayed(line(0, 0));
        *damaged.last_mut().unwrap() ^= 1;
        ledger.hear(1, &damaged, 10).unwrap();
        let expected = Tally {
            deliveries: 1,
            corrupt: 1,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
        // Under another's name, of nobody, of the future, and one's own: never said to this one.
        let mut renamed = relayed(line(0, 0));
        renamed[19] = b'1';
        let nobody = relayed(line(9, 0));
        let future = relayed(line(0, 7));
        for (corrupt, bytes) in (2..).zip([renamed, nobody, future]) {
            ledger.hear(1, &bytes, 10).unwrap();
            assert_eq!(ledger.tally().corrupt, corrupt);
        }
        ledger.hear(0, &relayed(line(0, 0)), 10).unwrap();
        assert_eq!(ledger.tally().corrupt, 5);
        assert_eq!(ledger.tally().deliveries, 1);
    }

    #[test]
    fn what_others_say_in_the_room_is_foreign() {
        let mut ledger = ledger(2, 1);
        say(&mut ledger, 1, 0);
        let mut stream = Vec::new();
        for part in ["alice", "hi", "tag-bob", "ho"] {
            encode_frame(part.as_bytes(), &mut stream);
        }
        stream.extend(relayed(line(0, 0)));
        ledger.hear(1, &stream, 10).unwrap();
        let expected = Tally {
            deliveries: 1,
            foreign: 2,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
    }

    #[test]
    fn a_stream_out_of_step_is_garbled() {
        let mut ledger = ledger(2, 1);
        say(&mut ledger, 1, 0);
        assert_eq!(ledger.hear(1, b"no header at all", 10), Err(Garbled));
    }

    #[test]
    fn the_beginning_of_a_message_is_left_for_later() {
        let mut ledger = ledger(2, 1);
        say(&mut ledger, 2, 0);
        let one = relayed(line(0, 0));
        let stream = [&one[..], &relayed(line(0, 1))[..7]].concat();
        assert_eq!(ledger.hear(1, &stream, 10), Ok((one.len(), false)));
        for end in 0..one.len() {
            assert_eq!(
                ledger.hear(1, &relayed(line(0, 1))[..end], 10),
                Ok((0, false))
            );
        }
    }

    #[test]
    fn what_is_to_come_when_a_connection_ends_is_lost_unless_it_was_ended_from_here() {
        for (was_cut, lost) in [(true, 2), (false, 0)] {
            let mut ledger = ledger(3, 1);
            say(&mut ledger, 3, 0);
            hear(&mut ledger, 1, &[line(0, 0)]);
            ledger.leave(1, was_cut);
            assert_eq!(ledger.tally().lost, lost);
            assert_eq!(ledger.outstanding(), 3);
            assert_eq!(ledger.here(), 2);
        }
    }

    #[test]
    fn what_is_given_up_is_lost() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 3, 0);
        hear(&mut ledger, 1, &[line(0, 0)]);
        ledger.give_up();
        assert_eq!(ledger.tally().lost, 5);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn what_comes_after_it_was_given_up_is_a_delivery_and_was_lost() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 1, 0);
        ledger.give_up();
        hear(&mut ledger, 1, &[line(0, 0)]);
        hear(&mut ledger, 2, &[line(0, 0)]);
        assert_eq!((ledger.tally().lost, ledger.tally().deliveries), (2, 2));
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn a_newcomer_is_here_from_the_first_message_that_it_hears() {
        let mut ledger = ledger(3, 2);
        ledger.leave(2, false);
        say(&mut ledger, 2, 0);
        assert_eq!(ledger.outstanding(), 2);
        assert!(!ledger.is_here(2));
        hear(&mut ledger, 1, &[line(0, 0), line(0, 1)]);
        hear(&mut ledger, 2, &[line(0, 1)]);
        assert!(ledger.is_here(2));
        say(&mut ledger, 1, 0);
        assert_eq!(ledger.outstanding(), 2);
        hear(&mut ledger, 1, &[line(0, 2)]);
        hear(&mut ledger, 2, &[line(0, 2)]);
        assert_eq!(ledger.outstanding(), 0);
        let expected = Tally {
            deliveries: 5,
            ..Tally::default()
        };
        assert_eq!(*ledger.tally(), expected);
    }

    #[test]
    fn who_comes_back_may_be_told_what_it_said_before() {
        let mut ledger = ledger(3, 1);
        say(&mut ledger, 2, 0);
        hear(&mut ledger, 1, &[line(0, 0), line(0, 1)]);
        ledger.leave(0, false);
        hear(&mut ledger, 0, &[line(0, 0), line(0, 1)]);
        assert_eq!(ledger.tally().corrupt, 0);
        assert!(!ledger.is_here(0));
        say(&mut ledger, 1, 0);
        hear(&mut ledger, 0, &[line(0, 2)]);
        assert_eq!(ledger.tally().corrupt, 1);
    }

    #[test]
    fn what_was_said_to_nobody_is_no_loss_to_those_who_come_later() {
        let mut ledger = ledger(3, 1);
        ledger.leave(1, false);
        ledger.leave(2, false);
        say(&mut ledger, 2, 0);
        hear(&mut ledger, 1, &[line(0, 1)]);
        hear(&mut ledger, 2, &[line(0, 1)]);
        assert_eq!(ledger.tally().lost, 0);
        assert_eq!(ledger.here(), 3);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn what_everybody_has_heard_is_dropped() {
        let mut ledger = ledger(3, 2);
        for seq in 0..5000 {
            say(&mut ledger, 1, 0);
            hear(&mut ledger, 1, &[line(0, seq)]);
            hear(&mut ledger, 2, &[line(0, seq)]);
        }
        let most = 2 * TRIM_FROM;
        assert!(ledger.entries.len() <= most);
        assert!(ledger.speakers[0].times.len() <= most);
        assert!(ledger.hearers[0].own.len() <= most);
        assert_eq!(ledger.tally().deliveries, 10_000);
    }

    #[test]
    fn large_messages_are_dropped_before_they_are_many() {
        const LARGE: usize = 1024 * 1024;
        let mut ledger = Ledger::new(Protocol::Chat10, TAG, Script::new(LARGE, 2, 1), 2, 1);
        ledger.expect(0);
        ledger.expect(1);
        let mut said = Vec::new();
        for _ in 0..20 {
            said.clear();
            ledger.say(0, 0, &mut said);
            let mut relayed = Vec::new();
            encode_frame(name_of(0, TAG).as_bytes(), &mut relayed);
            relayed.extend_from_slice(&said);
            ledger.hear(1, &relayed, 1).unwrap();
            assert!(ledger.bytes.len() <= TRIM_BYTES + LARGE + 100);
        }
        assert_eq!(ledger.tally().deliveries, 20);
    }

    #[test]
    fn who_went_its_own_way_falls_in_again() {
        let mut ledger = ledger(4, 2);
        for seq in 0..2 * TRIM_FROM as u32 {
            say(&mut ledger, 1, 0);
            say(&mut ledger, 1, 1);
            hear(&mut ledger, 2, &[line(0, seq), line(1, seq)]);
            let (first, second) = if seq == 0 { (1, 0) } else { (0, 1) };
            hear(&mut ledger, 3, &[line(first, seq), line(second, seq)]);
            if seq == 0 {
                assert_eq!(own_ways(&ledger), 1);
            }
            hear(&mut ledger, 0, &[line(1, seq)]);
            hear(&mut ledger, 1, &[line(0, seq)]);
        }
        assert_eq!(own_ways(&ledger), 0);
    }

    /// How a server may treat a message on its way to one member.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        None,
        Drop,
        Repeat,
        /// It goes after the next one.
        Delay,
    }

    fn fault() -> impl Strategy<Value = Fault> {
        prop_oneof![
            12 => Just(Fault::None),
            1 => Just(Fault::Drop),
            1 => Just(Fault::Repeat),
            1 => Just(Fault::Delay),
        ]
    }

    /// What a member is sent, of what is said in this order.
    fn sent_to(hearer: u32, order: &[Line], faults: &[Fault]) -> Vec<Line> {
        let mut sent = Vec::new();
        let mut late = None;
        let others = order.iter().filter(|line| line.speaker != hearer);
        for (&line, fault) in others.zip(faults.iter().cycle()) {
            match fault {
                Fault::None => sent.push(line),
                Fault::Drop => {}
                Fault::Repeat => sent.extend([line, line]),
                Fault::Delay => {
                    sent.extend(late.replace(line));
                    continue;
                }
            }
            sent.extend(late.take());
        }
        sent.extend(late);
        sent
    }

    /// What a tally has to be: each hearer's stream by itself, in the plainest way.
    fn counted(streams: &[Vec<Line>], said: &[u32]) -> Tally {
        let mut tally = Tally::default();
        for (hearer, stream) in streams.iter().enumerate() {
            for (speaker, &said) in (0..).zip(said) {
                if speaker as usize == hearer {
                    continue;
                }
                let mut heard = BTreeSet::new();
                for line in stream.iter().filter(|line| line.speaker == speaker) {
                    let is_late = heard.last().is_some_and(|&last| last > line.seq);
                    if heard.insert(line.seq) {
                        tally.deliveries += 1;
                        tally.out_of_order += u64::from(is_late);
                    } else {
                        tally.duplicated += 1;
                    }
                }
                tally.lost += u64::from(said) - heard.len() as u64;
            }
        }
        tally
    }

    /// Has all hear what they are sent, in pieces of these sizes, by turns of these hearers.
    fn play(ledger: &mut Ledger, streams: &[Vec<Line>], reads: &[(usize, usize)]) {
        let streams: Vec<Vec<u8>> = streams
            .iter()
            .map(|lines| lines.iter().flat_map(|&line| relayed(line)).collect())
            .collect();
        // How far each has read, and how much of that was taken.
        let mut at = vec![(0_usize, 0_usize); streams.len()];
        let turns = reads
            .iter()
            .copied()
            .map(|(hearer, len)| (hearer % streams.len(), len));
        let rest = (0..streams.len()).map(|hearer| (hearer, usize::MAX));
        for (hearer, len) in turns.chain(rest) {
            let (read, taken) = &mut at[hearer];
            *read = read.saturating_add(len).min(streams[hearer].len());
            *taken += ledger
                .hear(hearer, &streams[hearer][*taken..*read], 10)
                .unwrap()
                .0;
            let owed: u64 = (0..streams.len()).map(|hearer| ledger.owed(hearer)).sum();
            assert_eq!(ledger.outstanding(), owed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// A server with one order for all: nobody needs to go its own way, so that what is compared
        /// byte by byte is all of it but the first hearing.
        #[test]
        fn all_stay_in_step_with_one_order(
            order in prop::collection::vec(0..5_u32, 1..60),
            reads in prop::collection::vec((0..6_usize, 1..200_usize), 0..200),
        ) {
            let mut ledger = ledger(6, 5);
            let mut said = vec![0; 5];
            let order: Vec<Line> = order
                .into_iter()
                .map(|speaker| {
                    say(&mut ledger, 1, speaker);
                    said[speaker as usize] += 1;
                    line(speaker, said[speaker as usize] - 1)
                })
                .collect();
            let streams: Vec<_> = (0..6).map(|hearer| sent_to(hearer, &order, &[Fault::None])).collect();
            play(&mut ledger, &streams, &reads);
            prop_assert_eq!(*ledger.tally(), counted(&streams, &said));
            prop_assert_eq!(ledger.outstanding(), 0);
            prop_assert_eq!(own_ways(&ledger), 0);
        }

        /// Whatever a server does with its messages, and in whatever order whoever reads, what is
        /// counted is what each was sent.
        #[test]
        fn faults_are_counted_for_what_they_are(
            orders in prop::collection::vec(prop::collection::vec(0..4_u32, 30), 5),
            faults in prop::collection::vec(prop::collection::vec(fault(), 1..40), 5),
            reads in prop::collection::vec((0..5_usize, 1..200_usize), 0..200),
            one_order in any::<bool>(),
        ) {
            let mut ledger = ledger(5, 4);
            for speaker in 0..4 {
                say(&mut ledger, 30, speaker);
            }
            // Each hears the speakers take turns as its order says, or all as the first one's.
            let streams: Vec<_> = (0..5)
                .map(|hearer| {
                    let mut said = [0; 4];
                    let order = &orders[if one_order { 0 } else { hearer }];
                    let rest = (0..4).cycle().take(4 * 30);
                    let mut turns: Vec<Line> = Vec::new();
                    for speaker in order.iter().copied().chain(rest) {
                        let seq = &mut said[speaker as usize];
                        if *seq < 30 {
                            turns.push(line(speaker, *seq));
                            *seq += 1;
                        }
                    }
                    sent_to(hearer as u32, &turns, &faults[hearer])
                })
                .collect();
            play(&mut ledger, &streams, &reads);
            ledger.give_up();
            prop_assert_eq!(*ledger.tally(), counted(&streams, &[30; 4]));
        }
    }
}
