//! The identity of a connection.

/// A connection's identity: its slot in the slab, and the generation of the connection in that slot.
///
/// Slots are used again. An event that was fetched before its connection ended must not be taken for
/// one of the connection that has the slot now. So the identity has a generation in its upper half,
/// and an identity of another generation refers to nothing.
///
/// **Identities order by age**: generations count up with each connection, so the smaller identity
/// belongs to the connection that was accepted first. The indexes of the lifecycle rely on it: the
/// first element of a `BTreeSet<ConnId>` is the connection that has been there longest. (After four
/// billion connections the count wraps, and for a while the order is wrong; nothing but the order of
/// eviction depends on it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(usize);

const KEY_BITS: u32 = usize::BITS / 2;

impl ConnId {
    pub(super) const fn new(key: usize, generation: u32) -> Self {
        debug_assert!(
            key < 1 << KEY_BITS,
            "the slot must leave the generation alone"
        );
        Self((generation as usize) << KEY_BITS | key)
    }

    /// The slot.
    #[must_use]
    pub const fn key(self) -> usize {
        self.0 & ((1 << KEY_BITS) - 1)
    }

    /// The generation of the connection in that slot.
    #[must_use]
    pub const fn generation(self) -> usize {
        self.0 >> KEY_BITS
    }
}

impl From<usize> for ConnId {
    fn from(id: usize) -> Self {
        Self(id)
    }
}

impl From<ConnId> for usize {
    fn from(id: ConnId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_order_by_age_whatever_their_slots_are() {
        let older = ConnId::new(9, 3);
        let younger = ConnId::new(0, 4);
        assert!(older < younger);
        assert_eq!(younger.key(), 0);
        assert_eq!(ConnId::from(usize::from(older)), older);
    }
}
