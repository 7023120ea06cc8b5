//! The engine: a stream of entries, each with a higher id than the one before, and the replies to requests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use chatloop::bus::{EntryId, ReplyDecoder, Request, Terms, Value};

/// The number by which the model calls one run of a relay.
pub(crate) type Boot = u8;

/// The number of a message among those of its boot.
pub(crate) type Number = u8;

/// An entry as it was sent: the fields as they stand in the command.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) boot: Boot,
    pub(crate) number: Number,
    fields: Rc<Value>,
    /// The hash of the fields.
    hash: u64,
}

impl Sent {
    /// The entry of an `XADD`, of one message.
    pub(crate) fn new(boot: Boot, request: &Request) -> Self {
        let Request::Add { batch, .. } = request else {
            unreachable!("it is an XADD");
        };
        let words = words(boot, request);
        let at = words.iter().position(|word| word.bytes() == Some(b"*"));
        let fields = Value::Array(words[at.unwrap() + 1..].to_vec());
        let mut hasher = DefaultHasher::new();
        fields.hash(&mut hasher);
        Self {
            boot,
            number: batch.first as Number,
            fields: Rc::new(fields),
            hash: hasher.finish(),
        }
    }
}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.boot, self.number, self.hash).hash(state);
    }
}

/// The words of a command, as the engine decodes them.
fn words(boot: Boot, request: &Request) -> Vec<Value> {
    let terms = Terms {
        key: b"room".to_vec(),
        node: vec![boot],
        keep: 1000,
        page: 64,
        block: Duration::from_secs(10),
        patience: Duration::from_millis(100),
        expiry: Duration::from_secs(30),
    };
    let mut bytes = Vec::new();
    request.encode(&terms, &mut bytes);
    let mut decoder = ReplyDecoder::new(1 << 20);
    decoder.feed(&bytes);
    match decoder.decode() {
        Ok(Some(Value::Array(words))) => words,
        other => panic!("{request:?} is no command: {other:?}"),
    }
}

/// An entry in the stream.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) sent: Sent,
}

impl Entry {
    /// The entry in a reply that lists entries.
    pub(crate) fn listed(&self) -> Value {
        let id = Value::Bytes(format!("{}-0", self.id).into_bytes());
        Value::Array(vec![id, Value::clone(&self.sent.fields)])
    }

    /// The same entry, as if a boot that was never heard had sent it.
    pub(crate) fn of_another_boot(&self) -> Self {
        let mut other = self.clone();
        if let Value::Array(fields) = Rc::make_mut(&mut other.sent.fields) {
            let at = fields.iter().position(|field| field.bytes() == Some(b"b"));
            fields[at.expect("it has a boot") + 1] = Value::Bytes(b"0-fff".into());
        }
        other
    }
}

/// The `Engine` adds an entry a millisecond.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Engine {
    pub(crate) stream: Vec<Entry>,
    /// The id of the last entry that was added.
    pub(crate) last_id: u64,
    /// Whether its clock is behind that id: ids go on from the last one all the same.
    pub(crate) is_behind: bool,
}

impl Engine {
    /// Adds an entry, and returns the reply.
    pub(crate) fn add(&mut self, sent: Sent) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        self.stream.push(Entry { id, sent });
        Value::Bytes(format!("{id}-0").into_bytes())
    }

    /// The first entry after this id.
    pub(crate) fn after(&self, id: EntryId) -> Option<&Entry> {
        self.stream.iter().find(|entry| entry.id > id.ms)
    }

    /// The reply to a request that changes nothing. The engine has one entry at a time ready for `XREAD`, and
    /// none for a reader that has all.
    pub(crate) fn reply(&self, request: &Request) -> Value {
        let bytes = |text: String| Value::Bytes(text.into_bytes());
        match request {
            Request::Time => {
                let ms = if self.is_behind { 1 } else { self.last_id + 1 };
                Value::Array(vec![bytes("0".into()), bytes((ms * 1000).to_string())])
            }
            Request::At(id) => {
                let entry = self.stream.iter().find(|entry| entry.id == id.ms);
                Value::Array(entry.map(Entry::listed).into_iter().collect())
            }
            Request::Before(id) => {
                let entries = self.stream.iter().rev();
                let before = entries.filter(|entry| id.is_none_or(|id| entry.id < id.ms));
                Value::Array(before.map(Entry::listed).collect())
            }
            Request::After(id) => self.after(*id).map_or(Value::Null, read_reply),
            other => panic!("the model has no reply to {other:?}"),
        }
    }
}

/// The reply to `XREAD` that has this entry.
pub(crate) fn read_reply(entry: &Entry) -> Value {
    let entries = Value::Array(vec![entry.listed()]);
    Value::Array(vec![Value::Array(vec![
        Value::Bytes(b"room".into()),
        entries,
    ])])
}
