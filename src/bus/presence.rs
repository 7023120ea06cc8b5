//! Which relays are there, and how many members each has: a key for each relay, which expires.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::Boot;
use super::failure::Failure;
use super::request::Request;
use super::resp::Value;

/// How often a relay says that it is there.
const INTERVAL: Duration = Duration::from_secs(10);

/// So many relays are looked at, at the most.
const MAX_NODES: usize = 256;

/// `Presence` has the numbers of the other relays' members, and when to ask for them again.
#[derive(Debug)]
pub struct Presence {
    /// The name of this relay.
    own: Vec<u8>,
    /// When it was said last that this relay is there.
    said_at: Option<Duration>,
    /// The names of the relays that may be there.
    nodes: Vec<Vec<u8>>,
    members: BTreeMap<Vec<u8>, usize>,
}

impl Presence {
    /// The presence of the relay with this name.
    #[must_use]
    pub const fn new(own: Vec<u8>) -> Self {
        Self {
            own,
            said_at: None,
            nodes: Vec::new(),
            members: BTreeMap::new(),
        }
    }

    /// The other relays that are there, by name, with the numbers of their members.
    pub fn others(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let members = self.members.iter();
        members.map(|(node, members)| (&node[..], *members))
    }

    /// There is a new connection.
    pub const fn on_connected(&mut self) {
        self.said_at = None;
    }

    /// The connection is gone: it is not known any more who is there.
    pub fn on_disconnected(&mut self) {
        self.members.clear();
    }

    /// The requests that are due now; none if it is too early.
    pub fn requests(&mut self, boot: Boot, members: usize, now: Duration) -> Vec<Request> {
        let is_due = |said_at| now.saturating_sub(said_at) >= INTERVAL;
        if !self.said_at.is_none_or(is_due) {
            return Vec::new();
        }
        self.said_at = Some(now);
        let mut requests = vec![
            Request::SetPresence(boot, members),
            Request::AddNode,
            Request::Nodes,
        ];
        if !self.nodes.is_empty() {
            requests.push(Request::Presences(self.nodes.clone()));
        }
        requests
    }

    /// A reply to one of the requests has come. Returns what is to be asked because of it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the connection must be closed.
    pub fn on_reply(
        &mut self,
        request: &Request,
        reply: Value,
    ) -> Result<Option<Request>, Failure> {
        match (request, reply) {
            (_, Value::Error(text)) => Err(Failure::Refused(text)),
            (Request::Nodes, Value::Array(nodes)) => Ok(self.on_nodes(&nodes)),
            (Request::Presences(nodes), Value::Array(values)) => {
                Ok(self.on_presences(nodes, &values))
            }
            _ => Ok(None),
        }
    }

    /// The names of the relays that may be there. If they are others than before, they are asked for at once.
    fn on_nodes(&mut self, nodes: &[Value]) -> Option<Request> {
        let others = nodes.iter().filter_map(Value::bytes);
        let others = others.filter(|&node| node != self.own);
        let mut others: Vec<_> = others.take(MAX_NODES).map(<[u8]>::to_vec).collect();
        others.sort_unstable();
        if others == self.nodes {
            return None;
        }
        self.nodes = others;
        let is_alone = self.nodes.is_empty();
        (!is_alone).then(|| Request::Presences(self.nodes.clone()))
    }

    /// What these relays have set last. Those that have expired are to be forgotten.
    fn on_presences(&mut self, nodes: &[Vec<u8>], values: &[Value]) -> Option<Request> {
        self.members.clear();
        let mut gone = Vec::new();
        for (node, value) in nodes.iter().zip(values) {
            let text = value
                .bytes()
                .and_then(|bytes| std::str::from_utf8(bytes).ok());
            let members = text.and_then(|text| text.split_once(' ')?.1.parse().ok());
            match members {
                Some(members) => drop(self.members.insert(node.clone(), members)),
                None => gone.push(node.clone()),
            }
        }
        (!gone.is_empty()).then_some(Request::RemoveNodes(gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn other_relays_are_there_until_their_keys_expire() {
        let boot = Boot {
            began: 1,
            random: 2,
        };
        let mut presence = Presence::new(b"east".to_vec());
        let first = presence.requests(boot, 7, Duration::ZERO);
        assert_eq!(first[0], Request::SetPresence(boot, 7));
        assert_eq!(first.len(), 3);
        assert_eq!(presence.requests(boot, 7, Duration::from_secs(9)), []);
        let nodes = Value::Array(vec![bytes("east"), bytes("west"), bytes("south")]);
        let asked = presence
            .on_reply(&first[2], nodes.clone())
            .unwrap()
            .unwrap();
        let values = Value::Array(vec![Value::Null, bytes("5-ab 12")]);
        let gone = presence.on_reply(&asked, values).unwrap();
        assert_eq!(presence.on_reply(&first[2], nodes), Ok(None));
        assert_eq!(presence.requests(boot, 7, INTERVAL)[3], asked);
        assert_eq!(gone, Some(Request::RemoveNodes(vec![b"south".to_vec()])));
        let others: Vec<_> = presence.others().collect();
        assert_eq!(others, [(&b"west"[..], 12)]);
    }
}
