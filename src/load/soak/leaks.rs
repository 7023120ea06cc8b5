//! Leaks of a server: its memory and descriptors are sampled every few seconds, for as long as the
//! soak lasts.
//!
//! Memory goes up and down with the messages that are queued for slow readers, so no two samples
//! are comparable. The median of a quarter of the time can be compared with that of a later one.
//! Descriptors can be counted: a server has as many more than at the start as it has connections,
//! and no more.

use std::time::Duration;

use super::super::process::Process;

/// The maximum number of samples, and the minimum interval between them.
const MAX_SAMPLES: u32 = 720;
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// The shortest soak in which the growth of the server's memory is judged. In less time its worst
/// moment may be still to come, and it keeps what that took.
pub(super) const MIN_JUDGED_TIME: Duration = Duration::from_secs(20 * 60);

/// The tolerated growth of the median from the second to the last quarter: a share of it, or so
/// many bytes, whichever is more. The output that is queued for slow readers goes up and down by
/// megabytes, and an allocator keeps some of that in pieces, more after the worst moment than
/// before it.
const MAX_GROWTH_SHARE: f64 = 0.02;
const MAX_GROWTH_BYTES: f64 = 1024.0 * 1024.0;

/// One sample of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// When, since the soaking began.
    at: Duration,
    /// Its resident memory, in bytes.
    resident: u64,
    /// How many descriptors it had open, if that may be seen, and how many connections there were.
    descriptors: Option<u64>,
    connections: u64,
}

/// A `Watch` takes samples of a server.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    server: Option<&'a Process>,
    /// The number of descriptors that it had open before any client connected.
    descriptors: Option<u64>,
    began: Duration,
    lasts: Duration,
    next: Duration,
    samples: Vec<Sample>,
}

/// The samples of a server's memory in short, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// After the first tenth of the time.
    pub(super) warm: f64,
    /// The medians of the second and of the last quarter.
    pub(super) second_quarter: f64,
    pub(super) last_quarter: f64,
    pub(super) highest: f64,
    /// At the last sample, with all members.
    pub(super) end: f64,
}

impl Memory {
    /// Whether it grew by more than is tolerated.
    pub(super) fn has_grown(&self) -> bool {
        let tolerated = MAX_GROWTH_BYTES.max(self.second_quarter * MAX_GROWTH_SHARE);
        self.last_quarter > self.second_quarter + tolerated
    }
}

impl<'a> Watch<'a> {
    /// Watches a server that has no members yet.
    pub(super) fn new(server: Option<&'a Process>) -> Self {
        Self {
            server,
            descriptors: server.and_then(Process::descriptors),
            began: Duration::ZERO,
            lasts: Duration::ZERO,
            next: Duration::MAX,
            samples: Vec::new(),
        }
    }

    /// Begins to take samples, for so long from `now` on.
    pub(super) fn begin(&mut self, now: Duration, lasts: Duration) {
        (self.began, self.lasts, self.next) = (now, lasts, now);
    }

    /// When the next sample is due.
    pub(super) const fn next(&self) -> Duration {
        self.next
    }

    /// Takes a sample if it is due, while there are so many connections.
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

    /// By how many descriptors it has more than it had and than there are connections, now; `None`
    /// if that cannot be seen.
    pub(super) fn excess(&self, connections: usize) -> Option<u64> {
        let open = self.server?.descriptors()?;
        Some(open.saturating_sub(self.descriptors? + connections as u64))
    }

    /// The number of descriptors that it had open before any client connected.
    pub(super) const fn descriptors_at_start(&self) -> Option<u64> {
        self.descriptors
    }

    /// The number of descriptors that it has open now.
    pub(super) fn descriptors_now(&self) -> Option<u64> {
        self.server?.descriptors()
    }

    /// The largest number of descriptors that it had open.
    pub(super) fn most_descriptors(&self) -> Option<u64> {
        let samples = self.samples.iter();
        samples.filter_map(|sample| sample.descriptors).max()
    }

    /// By how many descriptors it had more than connections, as a rule, in the last quarter. Some
    /// samples are taken when a client has left and the server has not noticed yet.
    pub(super) fn usual_excess(&self) -> Option<u64> {
        let before = self.descriptors?;
        let last = self.between(0.75, f64::INFINITY);
        median(last.filter_map(|sample| {
            Some(
                sample
                    .descriptors?
                    .saturating_sub(before + sample.connections),
            )
        }))
    }

    /// What its memory was, if there are samples of every part of the time.
    pub(super) fn memory(&self) -> Option<Memory> {
        let resident = |from, until| self.between(from, until).map(|it| it.resident);
        Some(Memory {
            warm: resident(0.1, f64::INFINITY).next()? as f64,
            second_quarter: median(resident(0.25, 0.5))? as f64,
            last_quarter: median(resident(0.75, f64::INFINITY))? as f64,
            highest: resident(0.0, f64::INFINITY).max()? as f64,
            end: self.samples.last()?.resident as f64,
        })
    }

    /// Seconds, and bytes at that time: a curve.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let point = |sample: &Sample| (sample.at.as_secs_f64(), sample.resident as f64);
        self.samples.iter().map(point).collect()
    }

    /// The samples between these parts of the time, from 0 to 1.
    fn between(&self, from: f64, until: f64) -> impl Iterator<Item = &Sample> {
        let part = move |at: Duration| at.div_duration_f64(self.lasts);
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

    /// A watch of 100 looks, with the memory and the surplus of descriptors that these have.
    fn watched(look: impl Fn(u64) -> (u64, u64)) -> Watch<'static> {
        let mut watch = Watch::new(None);
        watch.begin(Duration::ZERO, Duration::from_secs(100));
        watch.descriptors = Some(7);
        watch.samples = (0..100)
            .map(|at| {
                let (resident, excess) = look(at);
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
    fn memory_that_goes_up_and_down_and_on_average_stays_has_not_grown() {
        let watch = watched(|at| (20 * MIB + at % 7 * MIB, 0));
        let memory = watch.memory().unwrap();
        assert!(!memory.has_grown(), "{memory:?}");
        let expected = Memory {
            warm: (23 * MIB) as f64,
            second_quarter: (23 * MIB) as f64,
            last_quarter: (23 * MIB) as f64,
            highest: (26 * MIB) as f64,
            end: (21 * MIB) as f64,
        };
        assert_eq!(memory, expected);
    }

    #[test]
    fn memory_that_creeps_up_has_grown() {
        let creeping = |step| watched(move |at| (20 * MIB + at % 7 * MIB + at * step, 0));
        // Half the time lies between the two medians: 900 KiB, and 1.25 MiB.
        assert!(!creeping(18 * 1024).memory().unwrap().has_grown());
        assert!(creeping(25 * 1024).memory().unwrap().has_grown());
    }

    #[test]
    fn of_much_memory_more_is_tolerated() {
        for (grown, has_grown) in [(10, false), (30, true)] {
            let watch = watched(|at| (1000 * MIB + at / 75 * grown * MIB, 0));
            assert_eq!(watch.memory().unwrap().has_grown(), has_grown, "{grown}");
        }
    }

    #[test]
    fn memory_that_was_not_looked_at_for_a_quarter_is_not_told() {
        assert_eq!(Watch::new(None).memory(), None);
        let mut watch = watched(|_| (MIB, 0));
        watch.samples.truncate(75);
        assert_eq!(watch.memory(), None);
    }

    #[test]
    fn descriptors_that_are_usually_too_many_are_counted() {
        // One in five looks is at a bad moment.
        let usual = |leaked| watched(move |at| (MIB, leaked + u64::from(at % 5 == 0)));
        assert_eq!(usual(0).usual_excess(), Some(0));
        assert_eq!(usual(2).usual_excess(), Some(2));
        assert_eq!(Watch::new(None).usual_excess(), None);
        assert_eq!(usual(0).most_descriptors(), Some(60));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_looked_at_when_it_is_time() {
        let process = Process::this();
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
        assert!(watch.most_descriptors().unwrap() >= 3);
    }
}
