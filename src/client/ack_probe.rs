//! When to ask the kernel whether sent messages are acknowledged.

use std::time::{Duration, Instant};

use super::limits::MAX_PENDING_BYTES;
use super::link::{AckUnknown, Link};
use super::outbox::Outbox;

/// The interval between a message and the first probe. It doubles with each probe.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while many bytes are unacknowledged, since the outbox keeps them until then.
const BULK_INTERVAL: Duration = Duration::from_millis(10);
/// The same for a client that leaves as soon as everything is acknowledged.
const FIRST_LEAVING_INTERVAL: Duration = Duration::from_millis(2);
const MAX_LEAVING_INTERVAL: Duration = Duration::from_millis(200);

/// The age at which a message counts as delivered, on systems that report no acknowledgements.
const ASSUMED_DELIVERY: Duration = Duration::from_secs(60);
/// The same for a client that leaves.
const ASSUMED_LEAVING_DELIVERY: Duration = Duration::from_secs(1);

/// More bytes than the send buffer of any socket holds: earlier ones are delivered.
const MAX_SEND_BUFFER_BYTES: u64 = 16 * 1024 * 1024;

/// An `AckProbe` schedules the next look at the acknowledgements of the connection.
///
/// There is no event for an acknowledgement, and each look costs the system a walk over its
/// connections. So the first probe is soon after a message, and the intervals grow. They are short
/// while many bytes are unacknowledged, unless the last two probes found the same number.
#[derive(Debug, Default)]
pub(super) struct AckProbe {
    next: Option<Probe>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    /// The interval to the probe after this one.
    interval: Duration,
    /// Whether the last probe found no progress, and nothing was sent since.
    stalled: bool,
}

impl Probe {
    const fn new(at: Instant, interval: Duration) -> Self {
        Self {
            at,
            interval,
            stalled: false,
        }
    }
}

impl AckProbe {
    /// The time of the next probe, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|probe| probe.at)
    }

    /// Probes at once, and at short intervals from there: the user wants to leave.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = Some(Probe::new(now, FIRST_LEAVING_INTERVAL));
    }

    /// Notes that another message was sent.
    pub(super) fn note_sent(&mut self) {
        if let Some(probe) = &mut self.next {
            probe.stalled = false;
        }
    }

    /// Probes if it is time to. `leaving` is the time at which the user asked to leave.
    pub(super) fn run(
        &mut self,
        link: &mut Link,
        outbox: &mut Outbox,
        leaving: Option<Instant>,
        now: Instant,
    ) {
        if outbox.is_confirmed_by_server() || !outbox.is_waiting() {
            self.next = None;
            return;
        }
        let is_stalled = self.next.is_some_and(|probe| probe.stalled);
        let (first, longest) = if leaving.is_some() {
            (FIRST_LEAVING_INTERVAL, MAX_LEAVING_INTERVAL)
        } else if outbox.unacknowledged_bytes() > MAX_PENDING_BYTES && !is_stalled {
            (BULK_INTERVAL, BULK_INTERVAL)
        } else {
            (FIRST_INTERVAL, MAX_INTERVAL)
        };
        let probe = self
            .next
            .get_or_insert_with(|| Probe::new(now + first, first));
        // The interval may have become shorter since the probe was scheduled.
        probe.at = probe.at.min(now + longest);
        if probe.at > now {
            return;
        }
        let interval = (probe.interval * 2).min(longest);
        let before = outbox.unacknowledged_bytes();
        update(link, outbox, leaving, now);
        self.next = outbox.is_waiting().then(|| Probe {
            stalled: outbox.unacknowledged_bytes() == before,
            ..Probe::new(now + interval, interval)
        });
    }
}

/// Asks the kernel what is acknowledged, and updates the outbox. A server that confirms messages itself
/// makes that needless.
pub(super) fn update(link: &mut Link, outbox: &mut Outbox, leaving: Option<Instant>, now: Instant) {
    if outbox.is_confirmed_by_server() {
        return;
    }
    match (link.unacknowledged(), leaving) {
        (Ok(Some(unacknowledged)), _) => outbox.acknowledge(unacknowledged, now),
        (Ok(None), _) => {}
        (Err(AckUnknown), Some(since)) if now.duration_since(since) >= ASSUMED_LEAVING_DELIVERY => {
            outbox.acknowledge(0, now);
        }
        (Err(AckUnknown), _) => {
            outbox.acknowledge(MAX_SEND_BUFFER_BYTES, now);
            if let Some(before) = now.checked_sub(ASSUMED_DELIVERY) {
                outbox.assume_acknowledged(before, now);
            }
        }
    }
}
