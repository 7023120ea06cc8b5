//! The connection table: a slab of connections, found by their identities.

use slab::Slab;

use super::conn_id::ConnId;
use super::connection::Connection;

/// A table of up to this many slots is not worth shrinking.
const MIN_SLOTS: usize = 1024;

/// All connections, by slot.
#[derive(Debug)]
pub(super) struct Connections<S> {
    slab: Slab<Connection<S>>,
    /// The generation of the next connection.
    generation: u32,
}

impl<S> Connections<S> {
    pub(super) const fn new() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The identity that the next connection will have.
    pub(super) fn next_id(&self) -> ConnId {
        ConnId::new(self.slab.vacant_key(), self.generation)
    }

    /// Adds the connection of the [`next_id`](Self::next_id).
    pub(super) fn insert(&mut self, connection: Connection<S>) {
        debug_assert_eq!(connection.id(), self.next_id(), "it has the next identity");
        self.slab.insert(connection);
        self.generation = self.generation.wrapping_add(1);
    }

    #[inline]
    pub(super) fn get(&self, id: ConnId) -> Option<&Connection<S>> {
        let connection = self.slab.get(id.key());
        connection.filter(|connection| connection.id() == id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection<S>> {
        let connection = self.slab.get_mut(id.key());
        connection.filter(|connection| connection.id() == id)
    }

    /// How many slots there are: each connection's slot is below this.
    pub(super) fn slots(&self) -> usize {
        self.slab.capacity()
    }

    /// The connection in this slot.
    pub(super) fn in_slot(&self, slot: usize) -> Option<&Connection<S>> {
        self.slab.get(slot)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection<S>> {
        self.get(id)?;
        self.slab.try_remove(id.key())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection<S>> {
        self.slab.iter().map(|(_, connection)| connection)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection<S>> {
        self.slab.iter_mut().map(|(_, connection)| connection)
    }

    /// Returns memory after a storm of connections, so that a walk over the connections does not pass
    /// empty slots, as far as no connection that stayed has one of the last slots.
    pub(super) fn shrink(&mut self) {
        if self.slab.capacity() > MIN_SLOTS && self.slab.len() < self.slab.capacity() / 4 {
            self.slab.shrink_to_fit();
        }
    }
}
