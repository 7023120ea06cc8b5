//! How much is held for the connections, and what to do when it is too much.

use std::cmp::Reverse;

use super::backlog::Backlog;
use super::connection::{Behind, Connection};
use super::departure::mark;
use super::{CloseReason, Relay};
use crate::wire::Decoder;

impl<S> Relay<S> {
    /// How much memory is held for the connections, in bytes: what members are behind and history, once
    /// however many they are, unfinished messages, and what it takes to remember all that. What a
    /// connection has while it is idle is not among it.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let backlogs = self.channels.iter().map(|channel| &channel.backlog);
        let behind = backlogs.map(Backlog::held_bytes).sum::<usize>();
        behind + self.unfinished
    }

    /// Closes those who hold most until no more is held than may be.
    ///
    /// What is held is of two kinds: what connections have of their own, and what was said, in one copy
    /// for all who are behind. Of the kind that there is more of, whoever holds most goes first: the
    /// largest unfinished message, or the one that is furthest behind. To close others would free
    /// nothing.
    #[cold]
    pub(super) fn free_memory(&mut self) {
        // Who goes in any case first.
        let departing: Vec<_> = self.departures.iter().map(|one| one.key).collect();
        for key in departing {
            self.give_back(key);
        }
        let backlogs = self.channels.iter().map(|channel| &channel.backlog);
        let shared: usize = backlogs.map(Backlog::shared_bytes).sum();
        let owns_most = self.held_bytes() - shared > shared;
        for by_own in [owns_most, !owns_most] {
            let mut holders: Vec<_> = self
                .connections
                .iter()
                .map(|(key, connection)| (self.held_by(connection, by_own), key))
                .filter(|&(held, _)| held > 0)
                .collect();
            holders.sort_unstable_by_key(|&(held, _)| Reverse(held));
            for (held, key) in holders {
                if self.held_bytes() <= self.limits.max_memory {
                    return;
                }
                let connection = &mut self.connections[key];
                let reason = CloseReason::OutOfMemory { held };
                mark(connection, key, reason, &mut self.departures);
                self.give_back(key);
            }
        }
    }

    /// Gives back what a connection holds that is about to go.
    fn give_back(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        connection.abandon_queue(&mut self.channels[connection.dialect].backlog);
        self.unfinished -= connection.decoder.held_bytes();
        connection.decoder = Decoder::new();
    }

    /// How much a connection has of its own, or how much of what was said it holds on to, in bytes.
    fn held_by(&self, connection: &Connection<S>, own: bool) -> u64 {
        let behind = connection.behind.as_deref();
        if own {
            let queue = behind.map_or(0, Behind::held_bytes);
            (connection.decoder.held_bytes() + queue) as u64
        } else {
            let backlog = &self.channels[connection.dialect].backlog;
            behind.map_or(0, |behind| behind.queue.cost(backlog))
        }
    }
}
