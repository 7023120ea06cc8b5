//! Graceful shutdown: deliver what was published, and disconnect members with jitter.
//!
//! Ten thousand clients whose relay is gone all connect to the next one at the same moment, with their
//! handshakes, their names, their histories. So they are disconnected one after the other, at random
//! times. The room goes on meanwhile for the members that are left: what one of them sends before its
//! time, the others receive. A member whose time has come receives everything published until then.

use std::time::{Duration, Instant};

use crate::relay::{ConnId, after};

/// The mean time between two disconnections. Two thousand a second is a rate at which a small machine can
/// accept them again, and a handful is gone at once.
const INTERVAL: Duration = Duration::from_micros(500);

/// A shutdown that has begun and is not finished.
#[derive(Debug)]
pub(super) struct Drain {
    /// Until then, no member is disconnected before everything that was received is relayed.
    read_until: Instant,
    /// Output that is not delivered by then is lost.
    until: Instant,
    /// When each connection is disconnected, the next one last; `None` while input is still read.
    schedule: Option<Vec<(Instant, ConnId)>>,
}

impl Drain {
    /// A drain that begins now and takes no longer than `limit`.
    pub(super) fn new(now: Instant, limit: Duration) -> Self {
        Self {
            read_until: after(now, limit / 2),
            until: after(now, limit),
            schedule: None,
        }
    }

    /// When the drain ends at the latest.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// Whether input that was received before the drain is still being read.
    pub(super) const fn is_reading(&self) -> bool {
        self.schedule.is_none()
    }

    /// When there is no more time for that.
    pub(super) const fn read_until(&self) -> Instant {
        self.read_until
    }

    /// Schedules the disconnection of these connections, at times that `random` decides.
    pub(super) fn schedule(
        &mut self,
        ids: Vec<ConnId>,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) {
        // They need time to read their output, too.
        let at_most = self.until.saturating_duration_since(now) / 2;
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let spread = INTERVAL.saturating_mul(count).min(at_most);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let at = |id| (now + Duration::from_nanos(random() % nanos), id);
        let mut schedule: Vec<_> = ids.into_iter().map(at).collect();
        schedule.sort_unstable_by(|one, other| other.cmp(one));
        self.schedule = Some(schedule);
    }

    /// The next connection whose time has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<ConnId> {
        let schedule = self.schedule.as_mut()?;
        schedule.pop_if(|&mut (at, _)| at <= now).map(|(_, id)| id)
    }

    /// When the drain must be looked at next.
    pub(super) fn next_timeout(&self) -> Instant {
        let Some(schedule) = &self.schedule else {
            return self.read_until;
        };
        let next = schedule.last().map(|&(at, _)| at);
        next.map_or(self.until, |at| at.min(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<ConnId> {
        (0..count).map(ConnId::from).collect()
    }

    /// The times at which a drain of five seconds disconnects this many, in milliseconds.
    fn times(count: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut drain = Drain::new(start, Duration::from_secs(5));
        assert!(drain.is_reading());
        assert_eq!(drain.next_timeout(), start + Duration::from_millis(2500));
        let mut random = fastrand::Rng::with_seed(7);
        drain.schedule(ids(count), start, || random.u64(..));
        let mut times = Vec::new();
        let mut gone = Vec::new();
        let mut before = start;
        while gone.len() < count {
            let at = drain.next_timeout();
            assert!(at == before || drain.next(before).is_none());
            before = at;
            gone.extend(drain.next(at));
            times.push((at - start).as_millis());
        }
        assert_eq!(drain.next_timeout(), drain.until());
        gone.sort_unstable();
        assert_eq!(gone, ids(count), "each once");
        times
    }

    #[test]
    fn handful_is_disconnected_at_once_and_thousands_over_half_of_the_limit() {
        assert!(times(4).iter().all(|&time| time < 2));
        let times = times(20_000);
        assert!(times.is_sorted());
        for half_second in 0..5 {
            let span: std::ops::Range<u128> = half_second * 500..(half_second + 1) * 500;
            let count = times.iter().filter(|&time| span.contains(time)).count();
            assert!((3500..4500).contains(&count), "{count} in {span:?}");
        }
    }
}
