//! The limit of both directions of the client.

/// The most bytes that may be pending for a slow server, and for a slow terminal or pipe, before
/// reading is paused.
pub(super) const MAX_PENDING_BYTES: usize = 1024 * 1024;
