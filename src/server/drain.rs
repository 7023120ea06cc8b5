//! Stopping, so that nothing is lost and nobody is run over.
//!
//! Ten thousand clients whose relay is gone all connect to the next one at the same moment, with their
//! handshakes, their names, their histories. So they are let go one after the other, in an order and
//! at times that chance decides. The room goes on meanwhile for those who are still here: what one of
//! them says before its time, the others hear. Whose time has come is sent all that was said until
//! then.

use std::time::{Duration, Instant};

use crate::relay::{ConnId, after};

/// How long letting go takes for each connection. Two thousand a second is a pace at which a machine
/// that is small can take them in again, and a handful is gone at once.
const EACH: Duration = Duration::from_micros(500);

/// A stop that was asked for and has not come to its end.
#[derive(Debug)]
pub(super) struct Drain {
    /// What has come by then is still relayed before anybody is let go, if reading it takes so long.
    hear_until: Instant,
    /// What is not delivered by then will not be.
    until: Instant,
    /// Who is still to be let go and when, the next one last; nothing before that has begun.
    leaves: Option<Vec<(Instant, ConnId)>>,
}

impl Drain {
    /// A drain that begins now and may take so long.
    pub(super) fn new(now: Instant, may_take: Duration) -> Self {
        Self {
            hear_until: after(now, may_take / 2),
            until: after(now, may_take),
            leaves: None,
        }
    }

    /// When it has to be over.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// Whether it still waits for what had come before it to be read.
    pub(super) const fn is_hearing(&self) -> bool {
        self.leaves.is_none()
    }

    /// When there is no more time for that.
    pub(super) const fn hear_until(&self) -> Instant {
        self.hear_until
    }

    /// Begins to let these connections go. The numbers that `random` gives decide when each goes.
    pub(super) fn begin(
        &mut self,
        ids: Vec<ConnId>,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) {
        // They need time to take what is queued for them, too.
        let at_most = self.until.saturating_duration_since(now) / 2;
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let spread = EACH.saturating_mul(count).min(at_most);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let at = |id| (now + Duration::from_nanos(random() % nanos), id);
        let mut leaves: Vec<_> = ids.into_iter().map(at).collect();
        leaves.sort_unstable_by(|one, other| other.cmp(one));
        self.leaves = Some(leaves);
    }

    /// The next one whose time has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<ConnId> {
        let leaves = self.leaves.as_mut()?;
        leaves.pop_if(|&mut (at, _)| at <= now).map(|(_, id)| id)
    }

    /// When somebody is to be let go next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.leaves.as_ref()?.last().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<ConnId> {
        (0..count).map(ConnId::from).collect()
    }

    /// The times at which a drain of five seconds lets so many go, in milliseconds.
    fn times(count: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut drain = Drain::new(start, Duration::from_secs(5));
        assert!(drain.is_hearing() && drain.next_at().is_none());
        let mut random = fastrand::Rng::with_seed(7);
        drain.begin(ids(count), start, || random.u64(..));
        let mut times = Vec::new();
        let mut gone = Vec::new();
        let mut before = start;
        while let Some(at) = drain.next_at() {
            assert!(at == before || drain.next(before).is_none());
            before = at;
            gone.extend(drain.next(at));
            times.push((at - start).as_millis());
        }
        gone.sort_unstable();
        assert_eq!(gone, ids(count), "each once");
        times
    }

    #[test]
    fn a_handful_is_let_go_at_once_and_thousands_over_half_the_time() {
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
