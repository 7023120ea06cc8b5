//! Histograms with fixed buckets, as a relay has them.

/// A `Histogram` counts values by upper bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Each upper bound, with how many values do not exceed it.
    buckets: Vec<(f64, f64)>,
    sum: f64,
}

impl Histogram {
    pub(super) const fn new(buckets: Vec<(f64, f64)>, sum: f64) -> Self {
        Self { buckets, sum }
    }

    /// The values that were counted since an earlier state of the same histogram.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| {
            let mut buckets = earlier.buckets.iter();
            buckets
                .find(|bucket| bucket.0.total_cmp(&bound).is_eq())
                .map_or(0.0, |bucket| bucket.1)
        };
        let buckets = self.buckets.iter();
        Self {
            buckets: buckets
                .map(|&(bound, count)| (bound, (count - before(bound)).max(0.0)))
                .collect(),
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// The sum of the values.
    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }

    /// Each upper bound, with how many values are in its bucket alone.
    pub(super) fn counts(&self) -> impl Iterator<Item = (f64, f64)> {
        let lower = std::iter::once(0.0).chain(self.buckets.iter().map(|bucket| bucket.1));
        let buckets = self.buckets.iter().zip(lower);
        buckets.map(|(&(bound, count), lower)| (bound, (count - lower).max(0.0)))
    }

    /// The lowest bound that this share of the values does not exceed; infinite if it is none, and `None`
    /// without values.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let (_, total) = *self.buckets.last()?;
        let mut buckets = self.buckets.iter();
        let reached = buckets.find(|(_, count)| *count >= total * share);
        reached.filter(|_| total > 0.0).map(|&(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [f64; 3], sum: f64) -> Histogram {
        let bounds = [0.1, 0.5, f64::INFINITY];
        Histogram::new(bounds.into_iter().zip(counts).collect(), sum)
    }

    #[test]
    fn quantile_is_the_bound_of_the_bucket_that_it_falls_into() {
        let some = histogram([5.0, 9.0, 10.0], 1.0);
        assert_eq!(some.quantile(0.5), Some(0.1));
        assert_eq!(some.quantile(0.51), Some(0.5));
        assert_eq!(some.quantile(0.99), Some(f64::INFINITY));
        assert_eq!(histogram([0.0; 3], 0.0).quantile(0.5), None);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn difference_has_the_values_between_two_states() {
        let (before, after) = (
            histogram([5.0, 9.0, 10.0], 1.0),
            histogram([5.0, 12.0, 14.0], 3.5),
        );
        let since = after.since(&before);
        assert!((since.sum() - 2.5).abs() < 1e-9);
        let counts: Vec<_> = since.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [0.0, 3.0, 1.0]);
        assert_eq!(since.quantile(0.5), Some(0.5));
    }
}
