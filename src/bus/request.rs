//! What a relay asks of the engine.

use std::time::Duration;

use super::entry::{Batch, Boot, EntryId, with_fields};
use super::resp::encode_command;

/// A `Request` is one command, which the engine answers with one reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// `TIME`: the engine's time.
    Time,
    /// `XADD`: adds an entry, and trims the stream.
    Add {
        /// Whose messages they are.
        boot: Boot,
        /// The messages.
        batch: Batch,
    },
    /// `WAIT`: how many replicas have everything that this connection has added. It waits for this many.
    Wait(u64),
    /// `XRANGE`: the entry with this id, if there is one.
    At(EntryId),
    /// `XREVRANGE`: the entries before this id, or the last ones of all, the newest first.
    Before(Option<EntryId>),
    /// `XREAD`: the entries after this id. It waits for the next one, if there is none.
    After(EntryId),
    /// `SET NX`: makes this number the epoch of the stream, if it has none.
    SetEpoch(u64),
    /// `GET`: the epoch of the stream.
    Epoch,
    /// `SET EX`: this relay is there, with this many members.
    SetPresence(Boot, usize),
    /// `SADD`: the name of this relay is one of those that may be there.
    AddNode,
    /// `SMEMBERS`: the names of the relays that may be there.
    Nodes,
    /// `MGET`: what the relays of these names have set last, if they are still there.
    Presences(Vec<Vec<u8>>),
    /// `SREM`: the relays of these names are not there any more.
    RemoveNodes(Vec<Vec<u8>>),
}

/// What all requests of a relay have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The key of the stream.
    pub key: Vec<u8>,
    /// The name of this relay, for people.
    pub node: Vec<u8>,
    /// How many entries the stream keeps, about.
    pub keep: u64,
    /// How many entries one reply has at the most.
    pub page: usize,
    /// How long the engine waits for the next entry.
    pub block: Duration,
    /// How long the engine waits for its replicas.
    pub patience: Duration,
    /// How long a relay counts as there that does not say so again.
    pub expiry: Duration,
}

impl Terms {
    fn key_of(&self, suffix: &[u8]) -> Vec<u8> {
        [&self.key, suffix].concat()
    }

    fn key_of_node(&self, node: &[u8]) -> Vec<u8> {
        [&self.key, &b":node:"[..], node].concat()
    }
}

impl Request {
    /// Appends the command to `out`.
    pub fn encode(&self, terms: &Terms, out: &mut Vec<u8>) {
        let (key, node) = (&terms.key[..], &terms.node[..]);
        let page = terms.page.to_string();
        let page = page.as_bytes();
        let mut command = |words: &[&[u8]]| encode_command(words, out);
        match self {
            Self::Time => command(&[b"TIME"]),
            Self::Add { boot, batch } => {
                let keep = terms.keep.to_string();
                let add: [&[u8]; 6] = [b"XADD", key, b"MAXLEN", b"~", keep.as_bytes(), b"*"];
                with_fields(node, *boot, batch, |fields| {
                    command(&[&add, fields].concat());
                });
            }
            Self::Wait(replicas) => {
                let patience = terms.patience.as_millis().to_string();
                let replicas = replicas.to_string();
                command(&[b"WAIT", replicas.as_bytes(), patience.as_bytes()]);
            }
            Self::At(id) => {
                let id = id.to_string();
                command(&[b"XRANGE", key, id.as_bytes(), id.as_bytes()]);
            }
            Self::Before(id) => {
                let end = id.map_or("+".to_owned(), |id| format!("({id}"));
                command(&[b"XREVRANGE", key, end.as_bytes(), b"-", b"COUNT", page]);
            }
            Self::After(id) => {
                let (id, block) = (id.to_string(), terms.block.as_millis().to_string());
                let (id, block) = (id.as_bytes(), block.as_bytes());
                command(&[
                    b"XREAD", b"COUNT", page, b"BLOCK", block, b"STREAMS", key, id,
                ]);
            }
            Self::SetEpoch(random) => {
                let random = format!("{random:x}");
                command(&[b"SET", &terms.key_of(b":epoch"), random.as_bytes(), b"NX"]);
            }
            Self::Epoch => command(&[b"GET", &terms.key_of(b":epoch")]),
            Self::SetPresence(boot, members) => {
                let (value, seconds) = (format!("{boot} {members}"), terms.expiry.as_secs());
                let (value, seconds) = (value.as_bytes(), seconds.to_string());
                let key = terms.key_of_node(node);
                command(&[b"SET", &key, value, b"EX", seconds.as_bytes()]);
            }
            Self::AddNode => command(&[b"SADD", &terms.key_of(b":nodes"), node]),
            Self::Nodes => command(&[b"SMEMBERS", &terms.key_of(b":nodes")]),
            Self::Presences(nodes) => {
                let keys: Vec<_> = nodes.iter().map(|node| terms.key_of_node(node)).collect();
                command(&words(&[b"MGET"], &keys));
            }
            Self::RemoveNodes(nodes) => {
                command(&words(&[b"SREM", &terms.key_of(b":nodes")], nodes));
            }
        }
    }
}

fn words<'a>(first: &[&'a [u8]], more: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    let more = more.iter().map(Vec::as_slice);
    first.iter().copied().chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the command, with a space between them.
    fn command(request: &Request) -> String {
        let terms = Terms {
            key: b"chat:room".to_vec(),
            node: b"east".to_vec(),
            keep: 1000,
            page: 64,
            block: Duration::from_secs(10),
            patience: Duration::from_millis(100),
            expiry: Duration::from_secs(30),
        };
        let mut out = Vec::new();
        request.encode(&terms, &mut out);
        let text = String::from_utf8(out).unwrap();
        let words = text.split("\r\n").skip(2).step_by(2);
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn requests_are_the_commands_of_the_documents() {
        let id = EntryId { ms: 7, number: 1 };
        let boot = Boot {
            began: 5,
            random: 0xab,
        };
        let batch = Batch {
            first: 3,
            count: 1,
            bytes: b"1         a1         b"[..].into(),
            origin: None,
            attempt: 2,
        };
        for (request, expected) in [
            (
                Request::Add { boot, batch },
                "XADD chat:room MAXLEN ~ 1000 * v 1 n east b 5-ab s 3 c 1 a 2 d 1         a1         b",
            ),
            (Request::Wait(2), "WAIT 2 100"),
            (Request::At(id), "XRANGE chat:room 7-1 7-1"),
            (Request::Before(None), "XREVRANGE chat:room + - COUNT 64"),
            (
                Request::Before(Some(id)),
                "XREVRANGE chat:room (7-1 - COUNT 64",
            ),
            (
                Request::After(id),
                "XREAD COUNT 64 BLOCK 10000 STREAMS chat:room 7-1",
            ),
            (Request::SetEpoch(255), "SET chat:room:epoch ff NX"),
            (Request::Epoch, "GET chat:room:epoch"),
            (
                Request::SetPresence(boot, 12),
                "SET chat:room:node:east 5-ab 12 EX 30",
            ),
            (Request::AddNode, "SADD chat:room:nodes east"),
            (Request::Nodes, "SMEMBERS chat:room:nodes"),
            (
                Request::Presences(vec![b"east".to_vec(), b"west".to_vec()]),
                "MGET chat:room:node:east chat:room:node:west",
            ),
            (
                Request::RemoveNodes(vec![b"west".to_vec()]),
                "SREM chat:room:nodes west",
            ),
            (Request::Time, "TIME"),
        ] {
            assert_eq!(command(&request), expected);
        }
    }
}
