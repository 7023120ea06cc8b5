//! What the event loop counts of itself: turns, wake-ups, and how long things take.

use std::time::Duration;

/// The most buckets of a histogram, without the one for everything above the highest bound.
const MAX_BUCKETS: usize = 13;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// The upper bounds of times, in nanoseconds.
const TIMES: &[u64] = &[
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    1000 * MILLISECOND,
];

/// The upper bounds of numbers of messages.
const NUMBERS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384];

/// A `Histogram` counts values in buckets with fixed upper bounds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static [u64],
    /// The values of each bucket; the last one is that of the values above all bounds.
    counts: [u64; MAX_BUCKETS + 1],
    sum: u64,
}

impl Histogram {
    const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= MAX_BUCKETS);
        Self {
            bounds,
            counts: [0; MAX_BUCKETS + 1],
            sum: 0,
        }
    }

    /// Counts a value.
    pub(super) fn observe(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    fn observe_time(&mut self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Each upper bound, with how many values do not exceed it.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut total = 0;
        self.bounds
            .iter()
            .zip(self.counts)
            .map(move |(&bound, count)| {
                total += count;
                (bound, total)
            })
    }

    /// How many values were counted.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the values.
    pub(super) const fn sum(&self) -> u64 {
        self.sum
    }
}

/// The loop's own counters.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    /// Turns.
    pub(super) turns: u64,
    /// Polls that waited and returned.
    pub(super) wakeups: u64,
    /// How long turns took, from the return of the poll on, in nanoseconds.
    pub(super) turn_times: Histogram,
    /// How many messages were published in a turn, of those in which any was.
    pub(super) turn_messages: Histogram,
    /// How long messages took from the turn's poll until the last write to a member of that turn, in
    /// nanoseconds.
    pub(super) delivery_delays: Histogram,
}

impl Stats {
    pub(super) const fn new() -> Self {
        Self {
            turns: 0,
            wakeups: 0,
            turn_times: Histogram::new(TIMES),
            turn_messages: Histogram::new(NUMBERS),
            delivery_delays: Histogram::new(TIMES),
        }
    }

    /// A turn published this many messages, and wrote them to all members this long after its poll.
    pub(super) fn on_fan_out(&mut self, messages: u64, delay: Duration) {
        self.turn_messages.observe(messages);
        self.delivery_delays.observe_time(delay);
    }

    /// A turn ends, this long after its poll.
    pub(super) fn on_turn(&mut self, time: Duration) {
        self.turns += 1;
        self.turn_times.observe_time(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_at_a_bound_is_in_its_bucket_and_one_above_all_bounds_is_counted() {
        let mut histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 500] {
            histogram.observe(value);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(1, 2), (10, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, 524));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [TIMES, NUMBERS] {
            assert!(bounds.is_sorted_by(|one, other| one < other));
        }
    }
}
