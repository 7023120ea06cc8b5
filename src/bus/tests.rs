//! Writers and readers on an engine that forgets what it is told to.

use super::resp::Value;
use super::{Boot, EntryId, Found, Frames, Reader, Request, Terms, Writer};
use crate::wire::encode_frame;
use std::time::Duration;

const PAGE: usize = 4;

/// A stream, its entries as replies have them.
#[derive(Default)]
struct Engine {
    entries: Vec<(EntryId, Value)>,
    time: u64,
}

fn bytes(text: &dyn ToString) -> Value {
    Value::Bytes(text.to_string().into_bytes())
}

impl Engine {
    fn listed(&self, entries: impl Iterator<Item = usize>) -> Value {
        let entries = entries.map(|at| {
            let (id, fields) = &self.entries[at];
            Value::Array(vec![bytes(&id), fields.clone()])
        });
        Value::Array(entries.collect())
    }

    fn reply(&mut self, request: &Request) -> Value {
        match request {
            Request::Time => {
                let (seconds, micros) = (self.time / 1000, self.time % 1000 * 1000);
                Value::Array(vec![bytes(&seconds), bytes(&micros)])
            }
            Request::Add { .. } => {
                let mut command = Vec::new();
                request.encode(&terms(), &mut command);
                let mut decoder = super::ReplyDecoder::new(1000);
                decoder.feed(&command);
                let words = decoder.decode().unwrap().unwrap();
                let last = self.entries.last().map_or(EntryId::START, |(id, _)| *id);
                let number = if last.ms < self.time {
                    0
                } else {
                    last.number + 1
                };
                let id = EntryId {
                    ms: self.time.max(last.ms),
                    number,
                };
                let fields = Value::Array(words.array().unwrap()[6..].to_vec());
                self.entries.push((id, fields));
                bytes(&id)
            }
            Request::Wait(_) => Value::Integer(1),
            Request::At(id) => {
                let all = 0..self.entries.len();
                self.listed(all.filter(|&at| self.entries[at].0 == *id))
            }
            Request::Before(id) => {
                let all = (0..self.entries.len()).rev();
                let before = all.filter(|&at| id.is_none_or(|id| self.entries[at].0 < id));
                self.listed(before.take(PAGE))
            }
            Request::After(id) => {
                let all = 0..self.entries.len();
                let after = all.filter(|&at| self.entries[at].0 > *id);
                match self.listed(after.take(PAGE)) {
                    Value::Array(entries) if entries.is_empty() => Value::Null,
                    entries => Value::Array(vec![Value::Array(vec![bytes(&"key"), entries])]),
                }
            }
            _ => Value::Null,
        }
    }

    /// Sends what the writer has to send.
    fn serve(&mut self, writer: &mut Writer) {
        loop {
            let requests = writer.take_requests();
            if requests.is_empty() {
                return;
            }
            for request in requests {
                let reply = self.reply(&request);
                writer.on_reply(reply).unwrap();
            }
        }
    }

    /// Replies until the stream has no more. Returns the messages, and what else was found.
    fn read(&mut self, reader: &mut Reader) -> (Vec<String>, Vec<Found>) {
        let mut found = Vec::new();
        loop {
            let [request] = &reader.take_requests()[..] else {
                panic!("one request at a time")
            };
            let reply = self.reply(request);
            let is_end = reply == Value::Null;
            reader.on_reply(reply, &mut found).unwrap();
            if is_end {
                break;
            }
        }
        let (mut said, mut others) = (Vec::new(), Vec::new());
        for one in found {
            if let Found::Messages {
                bytes, is_history, ..
            } = &one
            {
                let prefix = if *is_history { "(old) " } else { "" };
                for (name, message) in Frames::new(bytes) {
                    let text = [prefix.as_bytes(), name, b": ", message].concat();
                    said.push(String::from_utf8(text).unwrap());
                }
            } else {
                others.push(one);
            }
        }
        // The last request found nothing, and is asked again on the same connection.
        reader.on_disconnected();
        (said, others)
    }

    fn connect(&mut self, writer: &mut Writer) {
        writer.on_connected();
        self.serve(writer);
    }

    /// A reader whose relay starts now.
    fn reader(own: u64, history: u64) -> Reader {
        let mut reader = Reader::new(own, history, PAGE);
        reader.on_connected(Duration::ZERO);
        reader
    }
}

fn terms() -> Terms {
    Terms {
        key: b"key".to_vec(),
        node: b"east".to_vec(),
        keep: 1000,
        page: PAGE,
        block: Duration::ZERO,
        patience: Duration::ZERO,
        expiry: Duration::ZERO,
    }
}

fn words(texts: &[&str]) -> Vec<u8> {
    let mut frames = Vec::new();
    for text in texts {
        encode_frame(b"alice", &mut frames);
        encode_frame(text.as_bytes(), &mut frames);
    }
    frames
}

fn say(writer: &mut Writer, texts: &[&str]) {
    writer.push(&words(texts), texts.len() as u64);
}

fn resume(engine: &mut Engine, reader: &mut Reader) -> (Vec<String>, Vec<Found>) {
    reader.on_connected(Duration::ZERO);
    engine.read(reader)
}

fn missing(messages: u64) -> Vec<Found> {
    let node = b"east".to_vec();
    vec![Found::Missing { node, messages }]
}

/// An engine, a connected writer that has said "one" and "two", and a reader that has read both.
fn conversation() -> (Engine, Writer, Reader) {
    let mut engine = Engine {
        time: 1000,
        ..Engine::default()
    };
    let mut reader = Engine::reader(2, 0);
    assert_eq!(engine.read(&mut reader), (Vec::new(), Vec::new()));
    engine.time += 1;
    let mut writer = Writer::new(1, 0);
    engine.connect(&mut writer);
    say(&mut writer, &["one", "two"]);
    engine.serve(&mut writer);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(
        (said.join(" "), others),
        ("alice: one alice: two".into(), vec![])
    );
    (engine, writer, reader)
}

#[test]
fn entry_whose_reply_was_lost_is_delivered_once() {
    let (mut engine, mut writer, mut reader) = conversation();
    say(&mut writer, &["three"]);
    for request in writer.take_requests() {
        engine.reply(&request);
    }
    engine.connect(&mut writer);
    say(&mut writer, &["four"]);
    engine.serve(&mut writer);
    assert_eq!(
        engine.entries.len(),
        4,
        "one of them is twice in the stream"
    );
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: three", "alice: four"]);
    assert_eq!(others, []);
}

#[test]
fn failover_that_loses_the_tail_loses_no_message() {
    let (mut engine, mut writer, mut reader) = conversation();
    for text in ["three", "four"] {
        engine.time += 1;
        say(&mut writer, &[text]);
        engine.serve(&mut writer);
    }
    let (said, _) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: three", "alice: four"]);
    say(&mut writer, &["five"]);
    engine.serve(&mut writer);
    // What takes over has only the first entry, and a clock that is behind.
    engine.entries.truncate(1);
    engine.time -= 1;
    engine.connect(&mut writer);
    say(&mut writer, &["six"]);
    engine.serve(&mut writer);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: five", "alice: six"]);
    assert_eq!(others, []);
}

#[test]
fn entry_at_an_id_that_was_passed_is_found() {
    let (mut engine, mut writer, mut reader) = conversation();
    let mut other = Writer::new(3, 0);
    engine.connect(&mut other);
    say(&mut other, &["other"]);
    engine.serve(&mut other);
    let last = engine.entries.pop().unwrap();
    for text in ["three", "four"] {
        say(&mut writer, &[text]);
        engine.serve(&mut writer);
    }
    // The reader has seen a later id than that of "three".
    let (three, four) = (engine.entries[1].clone(), engine.entries.pop().unwrap());
    engine.entries[1] = last;
    let late = EntryId {
        ms: 5000,
        number: 0,
    };
    engine.entries[1].0 = late;
    resume(&mut engine, &mut reader);
    engine.entries.pop();
    engine.entries.push(three);
    engine.entries.push((
        EntryId {
            ms: 5000,
            number: 0,
        },
        engine.entries[0].1.clone(),
    ));
    engine.entries.push((
        EntryId {
            ms: 5000,
            number: 1,
        },
        four.1,
    ));
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: three", "alice: four"]);
    assert_eq!(others, []);
}

#[test]
fn trimmed_messages_are_counted_exactly() {
    let (mut engine, mut writer, mut reader) = conversation();
    for texts in [&["three", "four", "five"][..], &["six"], &["seven"]] {
        say(&mut writer, texts);
        engine.serve(&mut writer);
    }
    engine.entries.drain(..3);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: seven"]);
    assert_eq!(others, missing(4));
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!((said.len(), others), (0, vec![]), "it is counted once");
}

#[test]
fn given_up_messages_are_counted_exactly() {
    let (mut engine, mut writer, mut reader) = conversation();
    writer.give_up(5);
    say(&mut writer, &["eight"]);
    engine.serve(&mut writer);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(
        (&said[..], others),
        (&["alice: eight".into()][..], missing(5))
    );
}

#[test]
fn flushed_engine_is_filled_again_and_repeats_nothing() {
    let (mut engine, mut writer, mut reader) = conversation();
    engine.entries.clear();
    engine.connect(&mut writer);
    say(&mut writer, &["three"]);
    engine.serve(&mut writer);
    assert_eq!(engine.entries.len(), 2);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!((&said[..], others), (&["alice: three".into()][..], vec![]));
}

#[test]
fn reader_starts_when_its_relay_has_started() {
    let (mut engine, mut writer, _) = conversation();
    engine.time += 10_000;
    say(&mut writer, &["three"]);
    engine.serve(&mut writer);
    engine.time += 4000;
    // The engine was away for the five seconds before this.
    let mut reader = Reader::new(3, 0, PAGE);
    reader.on_connected(Duration::from_secs(5));
    let (said, others) = engine.read(&mut reader);
    assert_eq!((&said[..], others), (&["alice: three".into()][..], vec![]));
}

#[test]
fn failover_repeats_nothing_from_before_the_start() {
    let (mut engine, mut writer, _) = conversation();
    engine.time += 1000;
    let mut reader = Engine::reader(3, 0);
    assert_eq!(engine.read(&mut reader), (vec![], vec![]));
    engine.time += 1000;
    engine.entries.clear();
    engine.connect(&mut writer);
    say(&mut writer, &["three"]);
    engine.serve(&mut writer);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!((&said[..], others), (&["alice: three".into()][..], vec![]));
}

#[test]
fn history_is_read_back_and_repeats_nothing() {
    let (mut engine, mut writer, _) = conversation();
    for text in ["three", "four", "five", "six", "seven"] {
        say(&mut writer, &[text]);
        engine.serve(&mut writer);
    }
    engine.time += 1000;
    say(&mut writer, &["eight"]);
    engine.serve(&mut writer);
    let mut reader = Reader::new(3, 5, PAGE);
    reader.on_connected(Duration::from_millis(500));
    let (said, others) = engine.read(&mut reader);
    let last: Vec<_> = said
        .iter()
        .rev()
        .take(6)
        .rev()
        .map(String::as_str)
        .collect();
    let old = ["three", "four", "five", "six", "seven"].map(|text| format!("(old) alice: {text}"));
    assert_eq!(last[..5], old);
    assert_eq!(last[5], "alice: eight");
    assert_eq!(others, [Found::HistoryRead]);
    let (said, _) = resume(&mut engine, &mut reader);
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn entry_that_cannot_be_read_is_skipped() {
    let (mut engine, mut writer, mut reader) = conversation();
    let id = EntryId {
        ms: 2000,
        number: 0,
    };
    engine
        .entries
        .push((id, Value::Array(vec![bytes(&"a"), bytes(&"b")])));
    engine.time = 3000;
    say(&mut writer, &["three"]);
    engine.serve(&mut writer);
    let (said, others) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: three"]);
    assert_eq!(others, [Found::Unreadable(id)]);
}

#[test]
fn own_entries_are_not_delivered() {
    let (mut engine, mut writer, _) = conversation();
    let mut reader = Engine::reader(1, 0);
    engine.time += 1;
    say(&mut writer, &["three"]);
    engine.serve(&mut writer);
    let (said, others) = engine.read(&mut reader);
    assert_eq!((said, others), (vec![], vec![]));
}

#[test]
fn refused_command_is_a_failure_with_the_reason() {
    let mut writer = Writer::new(1, 0);
    writer.on_connected();
    let error = writer.on_reply(Value::Error(b"NOPERM no".to_vec()));
    assert_eq!(error.unwrap_err().to_string(), "it refuses: NOPERM no");
    assert!(writer.on_reply(Value::Null).is_err(), "none was due");
}

#[test]
fn window_is_bounded_by_what_was_acknowledged() {
    let (mut engine, mut writer, _) = conversation();
    let large = "x".repeat(1024 * 1024);
    for _ in 0..20 {
        say(&mut writer, &[&large]);
        engine.serve(&mut writer);
    }
    engine.entries.clear();
    engine.connect(&mut writer);
    assert_eq!(engine.entries.len(), 7, "8 MiB of it are kept");
}

#[test]
fn entry_waits_for_the_one_before_it() {
    let (mut engine, mut writer, mut reader) = conversation();
    say(&mut writer, &["three"]);
    assert!(!writer.may_push());
    writer.take_requests();
    let refusal = writer.on_reply(Value::Error(b"OOM command not allowed".to_vec()));
    assert!(refusal.is_err() && !writer.may_push());
    engine.connect(&mut writer);
    assert!(writer.may_push());
    let (said, _) = resume(&mut engine, &mut reader);
    assert_eq!(said, ["alice: three"]);
}

#[test]
fn confirmed_entries_are_not_kept() {
    let mut engine = Engine {
        time: 1,
        ..Engine::default()
    };
    let mut writer = Writer::new(1, 1);
    engine.connect(&mut writer);
    say(&mut writer, &["one"]);
    engine.serve(&mut writer);
    engine.entries.clear();
    engine.connect(&mut writer);
    assert_eq!(engine.entries.len(), 0);
    let mut writer = Writer::new(1, 2);
    engine.connect(&mut writer);
    say(&mut writer, &["one"]);
    engine.serve(&mut writer);
    assert_eq!(writer.under_replicated(), 1);
    engine.entries.clear();
    engine.connect(&mut writer);
    assert_eq!(engine.entries.len(), 1);
}

#[test]
fn boot_has_the_engines_time() {
    let (_, writer, _) = conversation();
    let boot = Boot {
        began: 1001,
        random: 1,
    };
    assert_eq!(writer.boot(), boot);
}
