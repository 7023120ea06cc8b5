//! Every limit of the relay, in one place, each default with its reason.

use std::time::Duration;

use crate::wire::header;

/// The bytes of a backlog's chunk, in which published bytes are stored and freed. It is also about the
/// most that one slice of a gathered write carries.
pub(super) const CHUNK: usize = 64 * 1024;

/// The limits of a room and of each connection.
///
/// A limit that a user can meet is a flag of the command line and is named after it. The others are
/// the loop's own work budgets: they decide how a turn is cut, never what is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections there may be at once. For one more a connection is evicted, or it is refused.
    ///
    /// Default: unlimited, for a room in memory. A server sets it from the process's descriptor limit.
    pub max_clients: usize,

    /// The longest username, in bytes.
    ///
    /// Default: 256. A name is kept for as long as its member is connected, and is delivered with each of
    /// its messages, so it should be short; 256 bytes are a long name in any script.
    pub max_name: usize,
    /// Whether no two members may have the same name. One that is taken is refused where the peer can be told
    /// so, and gets a number elsewhere: `alice-2`.
    pub unique_names: bool,

    /// The longest message, in bytes.
    ///
    /// Default: 1 MiB. That is far more than a line of text, and room for a pasted file or a small
    /// picture. An incomplete message cannot take more memory than that.
    pub max_message: usize,

    /// The lag, in bytes, over which a member that is not waited for is closed as a slow consumer.
    ///
    /// Default: 8 MiB. The tutorials' clients read only when their user presses Enter, so they lag by
    /// minutes: this is some ninety thousand short messages, on top of what the kernel's socket buffers
    /// hold. Published bytes are kept once for all lagging members, not once each.
    pub queue_limit: usize,

    /// Whether senders are paused for a slow reader.
    ///
    /// Default: [`Slow::Pace`]. A member that reads must lose nothing because others send fast.
    pub slow: Slow,

    /// The soft limit: the lag of a member that reads, in bytes, over which senders are paused.
    ///
    /// Default: 1 MiB. A short flood pauses nothing.
    pub soft_limit: usize,

    /// The time of pause over which a slow reader must accept the minimum read rate, or it is closed. A
    /// member that accepts nothing for half of this time is stalled: the room is not paused for it.
    ///
    /// Default: 40 s. Half of it is as long as a reader of 6.5 kB/s needs for the system's default receive
    /// buffer of 128 KiB, which it may have to read to the end before its socket accepts anything.
    pub slow_timeout: Duration,

    /// How long a pending connection may take for its whole first frame.
    ///
    /// Default: 10 s. A client sends its name in the segment after the handshake, so even a bad mobile
    /// link needs a fraction of it; a connection without a name keeps its place no longer.
    pub handshake_timeout: Duration,

    /// How long a member may take for a whole message, from its first byte to its last, not counting
    /// the time in which the relay did not read from it.
    ///
    /// Default: 60 s, in which the largest message arrives at 17 kB/s. A member that sends a byte now and
    /// then holds memory that no other member can have.
    pub message_timeout: Duration,

    /// How long a member may send nothing before it is closed, if there is such a time.
    ///
    /// Default: none. The protocols have no sign of life, and a member may only listen. Peers that are
    /// gone are found by TCP keepalive.
    pub idle_timeout: Option<Duration>,

    /// The send quota, if there is one: how many bytes a second a member may have the relay write, which
    /// are those of its messages times the members that receive them. A member over it is throttled.
    ///
    /// Default: none. In a small room each member may fill the line.
    pub rate: Option<u64>,

    /// How many connections there may be from one address at once, if there is such a limit. Of IPv6 a
    /// /64 counts as one address: that is what one customer gets.
    ///
    /// Default: none. A school, an office, a proxy and all clients on this machine are one address.
    pub max_per_ip: Option<usize>,

    /// How many connections are accepted a second, if there is such a limit; a second's worth may come
    /// at once. The others wait in the kernel's queue.
    ///
    /// Default: none. To accept a connection takes microseconds.
    pub accept_rate: Option<u64>,

    /// How much memory may be held for all connections together, in bytes: published bytes that some
    /// member has not received, counted once however many members that are, the turn buffer, history,
    /// incomplete messages, and cursors. Over it, the connections that hold most are closed.
    ///
    /// Default: 128 MiB. It takes hundreds of clients at their other limits at the same time to get
    /// there, which is an attack or a mishap; without it ten thousand of them could hold ten gigabytes.
    pub max_memory: usize,

    /// How long a draining member may accept none of its remaining output, before it is closed with that
    /// output undelivered.
    ///
    /// Default: 60 s. What a peer reads shows only when the kernel has room for more, which is after about
    /// a third of what its buffer holds, up to a megabyte: less time would close members on slow links.
    pub farewell_timeout: Duration,

    /// How many of the last messages a new member receives.
    ///
    /// Default: 0. Clients without history support cannot distinguish old messages from new ones.
    pub history: usize,

    /// The same, in dialects whose messages carry their time.
    ///
    /// Default: 50. Old messages look old there, and a new member sees what the conversation is about. Unless
    /// [`history`](Self::history) is set as well, they are kept from the first such member on: a relay without
    /// browsers does not pay for them.
    pub timed_history: usize,

    /// How much memory these messages may take, in bytes.
    ///
    /// Default: 1 MiB: thousands of short messages, and at most one of the longest. Dialects that encode
    /// messages differently share it. A new member lags by as much, so it must be smaller than the queue
    /// limit.
    pub history_bytes: usize,

    /// How much is read from one connection in one turn, in bytes. It is the size of the loop's
    /// scratch buffer too.
    ///
    /// Default: 64 KiB. A flooding member is read as far as this, and then waits until every other one
    /// had its turn. Larger reads would save few system calls and delay the others more.
    pub read_budget: usize,

    /// How much may be published in one turn, in bytes. Connections that are ready after that wait for
    /// the next turn.
    ///
    /// Default: 256 KiB. A turn's bytes are written to each member in turn, so they should stay in the
    /// processor's second-level cache, and the last member of the walk should not wait for megabytes to
    /// be copied to all before it. A read is never larger than what may still be published, so a turn
    /// exceeds this by one message at most, except when the relay stops.
    pub turn_budget: usize,

    /// How many connections are accepted in one turn.
    ///
    /// Default: 64. When thousands connect at once, members still have their turns.
    pub accept_budget: usize,
}

/// Whether senders are paused for a slow reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// Senders are paused: see `relay/flow/lag.rs`.
    #[default]
    Pace,
    /// They are not. A member over the queue limit is closed.
    Cut,
}

/// The length of the longest address that can stand for a name: `[` to `]:65535`.
const LONGEST_ADDRESS: usize = 47;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: usize::MAX,
            max_name: 256,
            unique_names: false,
            max_message: 1024 * 1024,
            queue_limit: 8 * 1024 * 1024,
            slow: Slow::Pace,
            soft_limit: 1024 * 1024,
            slow_timeout: Duration::from_secs(40),
            message_timeout: Duration::from_secs(60),
            idle_timeout: None,
            rate: None,
            max_per_ip: None,
            accept_rate: None,
            max_memory: 128 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            farewell_timeout: Duration::from_secs(60),
            history: 0,
            timed_history: 50,
            history_bytes: 1024 * 1024,
            read_budget: 64 * 1024,
            turn_budget: 256 * 1024,
            accept_budget: 64,
        }
    }
}

impl Limits {
    /// The longest that one message can be on the wire, in bytes: two headers, name and message.
    #[must_use]
    pub fn largest_delivery(&self) -> usize {
        self.max_name
            .max(LONGEST_ADDRESS)
            .saturating_add(self.max_message)
            .saturating_add(2 * header::WIDTH)
    }

    /// The smallest memory limit, in bytes, under which one member can reach its own limits before it is
    /// closed for memory: a full queue, an incomplete message, and history. Published bytes are kept in
    /// chunks, of which two dialects have a first and a last one.
    #[must_use]
    pub fn least_memory(&self) -> usize {
        let history = if self.history > 0 {
            self.history_bytes
        } else {
            0
        };
        self.queue_limit
            .saturating_add(self.max_message)
            .saturating_add(history)
            .saturating_add(self.turn_budget.max(self.largest_delivery()))
            .saturating_add(4 * CHUNK)
    }

    /// Checks that the limits do not contradict each other.
    ///
    /// # Errors
    ///
    /// The first contradiction found: a length that no header can announce, a queue that one message
    /// would overflow, or a budget of zero, with which the loop would make no progress.
    pub fn check(&self) -> Result<(), LimitsError> {
        for (what, bytes) in [("name", self.max_name), ("message", self.max_message)] {
            if bytes as u64 > header::MAX_LEN {
                return Err(LimitsError::NoSuchHeader { what, bytes });
            }
        }
        if self.queue_limit < self.largest_delivery() {
            return Err(LimitsError::QueueTooShort {
                queue_limit: self.queue_limit,
                needed: self.largest_delivery(),
            });
        }
        if self.slow == Slow::Pace && self.soft_limit >= self.queue_limit {
            return Err(LimitsError::SoftOverHard {
                soft_limit: self.soft_limit,
                queue_limit: self.queue_limit,
            });
        }
        if self.max_memory < self.least_memory() {
            return Err(LimitsError::TooLittleMemory {
                max_memory: self.max_memory,
                needed: self.least_memory(),
            });
        }
        if self.history > 0 && self.queue_limit - self.largest_delivery() < self.history_bytes {
            return Err(LimitsError::TooMuchHistory {
                history_bytes: self.history_bytes,
                room: self.queue_limit - self.largest_delivery(),
            });
        }
        if self.read_budget == 0 || self.turn_budget == 0 || self.accept_budget == 0 {
            return Err(LimitsError::NoBudget);
        }
        Ok(())
    }
}

/// Why a set of [`Limits`] cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// Names or messages may be longer than any header can announce.
    NoSuchHeader {
        /// Which of the two.
        what: &'static str,
        /// How long they may be.
        bytes: usize,
    },
    /// One largest message does not fit the queue, so it would close every member that lags at all.
    QueueTooShort {
        /// The limit as it is.
        queue_limit: usize,
        /// What it must be at least.
        needed: usize,
    },
    /// Senders would never be paused, because a member is closed before.
    SoftOverHard {
        /// The lag over which senders are paused.
        soft_limit: usize,
        /// The lag over which a member is closed.
        queue_limit: usize,
    },
    /// One member could take more memory than there may be.
    TooLittleMemory {
        /// The budget as it is.
        max_memory: usize,
        /// What it must be at least.
        needed: usize,
    },
    /// The history does not fit the queue, so new members would be closed as slow consumers.
    TooMuchHistory {
        /// The memory that the history may take.
        history_bytes: usize,
        /// How much the queue can hold beside one largest message.
        room: usize,
    },
    /// A work budget is zero.
    NoBudget,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_queue_must_hold_one_largest_message() {
        let limits = |queue_limit| Limits {
            max_name: 60,
            max_message: 100,
            queue_limit,
            soft_limit: 0,
            ..Limits::default()
        };
        assert_eq!(limits(180).check(), Ok(()));
        let error = limits(179).check().unwrap_err();
        assert!(error.to_string().contains("at least 180,"), "{error}");
    }

    #[test]
    fn an_address_can_stand_for_a_name_however_short_names_are() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert_eq!(longest.len(), LONGEST_ADDRESS);
        let limits = Limits {
            max_name: 1,
            max_message: 100,
            ..Limits::default()
        };
        assert_eq!(limits.largest_delivery(), 20 + LONGEST_ADDRESS + 100);
    }

    #[test]
    fn a_queue_must_hold_the_history_and_a_message_more() {
        let limits = |history, history_bytes| Limits {
            max_name: 60,
            max_message: 100,
            queue_limit: 1000,
            soft_limit: 0,
            history,
            history_bytes,
            ..Limits::default()
        };
        assert_eq!(limits(1, 820).check(), Ok(()));
        let error = limits(1, 821).check().unwrap_err();
        assert!(error.to_string().contains("lower them to 820,"), "{error}");
        assert_eq!(limits(0, 821).check(), Ok(()), "there is none");
    }

    #[test]
    fn the_room_must_wait_before_the_queue_is_full() {
        let limits = |slow, soft_limit| Limits {
            queue_limit: 2_000_000,
            soft_limit,
            slow,
            ..Limits::default()
        };
        assert_eq!(limits(Slow::Pace, 1_999_999).check(), Ok(()));
        let error = limits(Slow::Pace, 2_000_000).check().unwrap_err();
        assert!(error.to_string().contains("not below the --queue-limit"));
        assert_eq!(limits(Slow::Cut, 2_000_000).check(), Ok(()));
    }

    #[test]
    fn the_memory_must_do_for_one_member_at_its_limits() {
        let limits = |history, max_memory| Limits {
            queue_limit: 2000,
            soft_limit: 100,
            max_name: 10,
            max_message: 100,
            history,
            history_bytes: 1000,
            turn_budget: 100,
            max_memory,
            ..Limits::default()
        };
        // The largest delivery has the longest address for a name.
        let chunks = 4 * 65_536 + 20 + 47 + 100;
        assert_eq!(limits(0, 2100 + chunks).check(), Ok(()));
        let error = limits(1, 3099 + chunks).check().unwrap_err();
        let says = format!("at least {},", 3100 + chunks);
        assert!(error.to_string().contains(&says), "{error}");
        assert_eq!(limits(1, 3100 + chunks).check(), Ok(()));
    }

    #[test]
    fn a_length_that_no_header_can_announce_is_no_limit() {
        let limits = Limits {
            max_message: 10_000_000_000,
            queue_limit: usize::MAX,
            ..Limits::default()
        };
        let error = limits.check().unwrap_err();
        assert!(error.to_string().starts_with("--max-message"), "{error}");
        let longest = Limits {
            max_message: 9_999_999_999,
            max_memory: usize::MAX,
            ..limits
        };
        assert_eq!(longest.check(), Ok(()));
    }

    #[test]
    fn a_budget_of_nothing_is_refused() {
        for (read_budget, turn_budget, accept_budget) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            let limits = Limits {
                read_budget,
                turn_budget,
                accept_budget,
                ..Limits::default()
            };
            assert_eq!(limits.check(), Err(LimitsError::NoBudget));
        }
    }
}
