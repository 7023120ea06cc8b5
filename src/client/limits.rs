//! A limit that the ends of the client share.

/// How many bytes may wait for a slow server, and how many for a slow terminal or pipe, before no
/// more is read.
pub(super) const MAX_PENDING: usize = 1024 * 1024;
