//! Leaks of a server: its memory and descriptors are sampled every few seconds, for as long as the
//! soak lasts.
//!
//! Memory goes up and down with the messages that are queued for slow readers, so no two samples
//! are comparable. The median of a quarter of the time can be compared with that of a later one.
//! Descriptors can be counted: a server has as many more than at the start as it has connections,
//! and no more.

use std::time::Duration;

use super::super::figures::{Descriptors, Gauge, ServerFigures};
use super::super::process::Process;
use super::super::trouble::Warning;

/// The maximum number of samples, and the minimum interval between them.
const MAX_SAMPLES: u32 = 720;
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// The shortest soak after which memory is judged. In less time the server may still meet its worst
/// moment, and keep the memory that this took.
pub(super) const MIN_JUDGED_TIME: Duration = Duration::from_secs(20 * 60);

/// The tolerated growth of the median from the second to the last quarter: a share of it, or so
/// many bytes, whichever is more. The output that is queued for slow readers goes up and down by
/// megabytes, and an allocator keeps some of that in pieces, more after the worst moment than
/// before it.
const MAX_GROWTH_SHARE: f64 = 0.02;
const MAX_GROWTH_BYTES: f64 = 1024.0 * 1024.0;

/// A sample of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// When, since the soak began.
    at: Duration,
    /// Its resident memory, in bytes.
    resident: u64,
    /// Its open descriptors, if they can be seen, and the connections.
    descriptors: Option<u64>,
    connections: u64,
}

/// The samples of a server.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    server: Option<&'a Process>,
    /// Its resident memory and its open descriptors before the first member.
    resident: Option<u64>,
    descriptors: Option<u64>,
    began: Duration,
    lasts: Duration,
    next: Duration,
    samples: Vec<Sample>,
}

impl<'a> Watch<'a> {
    /// Watches a server that has no members yet.
    pub(super) fn new(server: Option<&'a Process>) -> Self {
        Self {
            server,
            resident: server.and_then(|server| server.resident().ok()),
            descriptors: server.and_then(Process::descriptors),
            began: Duration::ZERO,
            lasts: Duration::ZERO,
            next: Duration::MAX,
            samples: Vec::new(),
        }
    }

    /// Begins to sample it, for so long from `now` on.
    pub(super) fn begin(&mut self, now: Duration, lasts: Duration) {
        (self.began, self.lasts, self.next) = (now, lasts, now);
    }

    /// When the next sample is due.
    pub(super) const fn next(&self) -> Duration {
        self.next
    }

    /// Takes a sample, if one is due.
    pub(super) fn check_up(&mut self, now: Duration, connections: usize) {
        if now < self.next {
            return;
        }
        self.next = now + (self.lasts / MAX_SAMPLES).max(MIN_SAMPLE_INTERVAL);
        if let Some(server) = self.server
            && let Ok(resident) = server.resident()
        {
            self.samples.push(Sample {
                at: now.saturating_sub(self.began),
                resident,
                descriptors: server.descriptors(),
                connections: connections as u64,
            });
        }
    }

    /// The open descriptors beyond those at the start and one for each connection, now; `None` if they
    /// cannot be seen.
    pub(super) fn excess(&self, connections: usize) -> Option<u64> {
        let open = self.server?.descriptors()?;
        Some(open.saturating_sub(self.descriptors? + connections as u64))
    }

    /// The same as a rule, in the last quarter. Some samples are taken when a member has left and the
    /// server has not read that yet.
    fn usual_excess(&self) -> Option<u64> {
        let before = self.descriptors?;
        let excess = |sample: &Sample| {
            Some(
                sample
                    .descriptors?
                    .saturating_sub(before + sample.connections),
            )
        };
        median(self.between(0.75, f64::INFINITY).filter_map(excess))
    }

    /// Adds the figures of the samples.
    pub(super) fn add_to(&self, figures: &ServerFigures) -> ServerFigures {
        let descriptors = self.samples.iter().filter_map(|sample| sample.descriptors);
        ServerFigures {
            rss_at_start_bytes: self.resident.map(Gauge),
            rss_warm_bytes: self.resident(0.1, f64::INFINITY).next().map(Gauge),
            rss_second_quarter_bytes: median(self.resident(0.25, 0.5)).map(Gauge),
            rss_last_quarter_bytes: median(self.resident(0.75, f64::INFINITY)).map(Gauge),
            rss_highest_bytes: self.resident(0.0, f64::INFINITY).max().map(Gauge),
            rss_bytes: self.resident(0.0, f64::INFINITY).last().map(Gauge),
            descriptors: self.descriptors.map(|at_start| Descriptors {
                at_start: Some(Gauge(at_start)),
                highest: descriptors.max().map(Gauge),
                at_end: self.server.and_then(Process::descriptors).map(Gauge),
                // No failure: a server keeps a closed connection until it has read all of it.
                excess: self.usual_excess().map(Gauge),
            }),
            ..figures.clone()
        }
    }

    /// Returns a warning if memory grew by more than is tolerated.
    pub(super) fn growth(&self) -> Option<Warning> {
        let before = median(self.resident(0.25, 0.5))?;
        let after = median(self.resident(0.75, f64::INFINITY))?;
        let tolerated = MAX_GROWTH_BYTES.max(before as f64 * MAX_GROWTH_SHARE);
        (after as f64 > before as f64 + tolerated).then_some(Warning::MemoryLeak { before, after })
    }

    /// The resident memory in the samples from one part of the time to another.
    fn resident(&self, from: f64, until: f64) -> impl Iterator<Item = u64> {
        self.between(from, until).map(|sample| sample.resident)
    }

    /// Seconds, and bytes at that time: a curve.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let point = |sample: &Sample| (sample.at.as_secs_f64(), sample.resident as f64);
        self.samples.iter().map(point).collect()
    }

    /// The samples from one part of the time to another.
    fn between(&self, from: f64, until: f64) -> impl Iterator<Item = &Sample> {
        let part = |at: Duration| at.div_duration_f64(self.lasts);
        let samples = self.samples.iter();
        samples.filter(move |sample| (from..until).contains(&part(sample.at)))
    }
}

/// The one in the middle; of an even number, the greater of the two.
fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A watch with 100 samples, with this memory and surplus of descriptors.
    fn watched(sample: impl Fn(u64) -> (u64, u64)) -> Watch<'static> {
        let mut watch = Watch::new(None);
        watch.begin(Duration::ZERO, Duration::from_secs(100));
        (watch.resident, watch.descriptors) = (Some(MIB), Some(7));
        watch.samples = (0..100)
            .map(|at| {
                let (resident, excess) = sample(at);
                let connections = 50 + at % 3;
                Sample {
                    at: Duration::from_secs(at),
                    resident,
                    descriptors: Some(7 + connections + excess),
                    connections,
                }
            })
            .collect();
        watch
    }

    #[test]
    fn memory_that_goes_up_and_down_and_stays_on_average_has_not_grown() {
        let watch = watched(|at| (20 * MIB + at % 7 * MIB, 0));
        assert!(watch.growth().is_none());
        let mib = |count| Some(Gauge(count * MIB));
        let expected = ServerFigures {
            rss_at_start_bytes: mib(1),
            rss_warm_bytes: mib(23),
            rss_second_quarter_bytes: mib(23),
            rss_last_quarter_bytes: mib(23),
            rss_highest_bytes: mib(26),
            rss_bytes: mib(21),
            cpu_share: Some(0.5),
            ..ServerFigures::default()
        };
        let figures = ServerFigures {
            cpu_share: Some(0.5),
            ..ServerFigures::default()
        };
        let figures = watch.add_to(&figures);
        assert_eq!(
            ServerFigures {
                descriptors: None,
                ..figures
            },
            expected
        );
    }

    #[test]
    fn memory_that_creeps_up_has_grown() {
        let creeping = |step| watched(move |at| (20 * MIB + at % 7 * MIB + at * step, 0));
        // Half the time lies between the two medians: 900 KiB, and 1.25 MiB.
        assert!(creeping(18 * 1024).growth().is_none());
        assert!(creeping(25 * 1024).growth().is_some());
    }

    #[test]
    fn tolerated_growth_is_a_share_of_much_memory() {
        for (grown, expected) in [(10, false), (30, true)] {
            let watch = watched(|at| (1000 * MIB + at / 75 * grown * MIB, 0));
            assert_eq!(watch.growth().is_some(), expected, "{grown}");
        }
    }

    #[test]
    fn quarter_without_samples_has_no_figure() {
        let none = ServerFigures::default();
        assert_eq!(Watch::new(None).add_to(&none), none);
        let mut watch = watched(|at| (MIB + at * MIB, 0));
        watch.samples.truncate(75);
        let figures = watch.add_to(&none);
        assert_eq!(figures.rss_last_quarter_bytes, None);
        assert!(figures.rss_second_quarter_bytes.is_some());
        assert_eq!(watch.growth(), None);
    }

    #[test]
    fn usual_excess_is_of_most_samples() {
        // One in five samples is at a bad moment.
        let usual = |leaked| watched(move |at| (MIB, leaked + u64::from(at % 5 == 0)));
        assert_eq!(usual(0).usual_excess(), Some(0));
        assert_eq!(usual(2).usual_excess(), Some(2));
        assert_eq!(Watch::new(None).usual_excess(), None);
        let descriptors = usual(0).add_to(&ServerFigures::default());
        let descriptors = descriptors.descriptors.unwrap();
        assert_eq!(descriptors.highest, Some(Gauge(60)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn sample_is_taken_when_it_is_due() {
        let process = Process::watch(std::process::id()).unwrap();
        let mut watch = Watch::new(Some(&process));
        let began = Duration::from_secs(5);
        watch.check_up(Duration::ZERO, 0);
        assert!(watch.samples.is_empty(), "before it begins");
        watch.begin(began, 720 * MIN_SAMPLE_INTERVAL);
        watch.check_up(began, 1);
        watch.check_up(began + MIN_SAMPLE_INTERVAL / 2, 1);
        watch.check_up(began + MIN_SAMPLE_INTERVAL, 1);
        let times: Vec<_> = watch.samples.iter().map(|sample| sample.at).collect();
        assert_eq!(times, [Duration::ZERO, MIN_SAMPLE_INTERVAL]);
        assert_eq!(watch.next(), began + 2 * MIN_SAMPLE_INTERVAL);
        assert!(watch.curve()[0].1 > 100_000.0);
        assert!(watch.samples[0].descriptors >= Some(3));
    }
}
