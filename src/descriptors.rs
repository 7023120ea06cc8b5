//! How many clients the process's descriptor limit has room for.

use std::io;

/// What the relay itself needs, in descriptors: the three standard streams, the event queue, the
/// signals' pipe, the one in reserve, and some that libraries open for a moment.
const OWN: u64 = 16;

/// Raises the soft limit of open descriptors to the hard limit, and returns what it is then.
///
/// The soft limit is 1,024 on most systems for the sake of programs that use `select`, which cannot
/// handle more. A program that does not is expected to raise it by itself.
///
/// # Errors
///
/// The result of `getrlimit` or `setrlimit`.
pub fn raise_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

/// How many clients fit a descriptor limit, beside this many listeners and the relay's own needs.
#[must_use]
pub fn room_for_clients(limit: u64, listeners: usize) -> usize {
    let room = limit.saturating_sub(OWN + listeners as u64);
    usize::try_from(room).unwrap_or(usize::MAX)
}
