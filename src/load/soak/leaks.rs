//! Leaks of a server: its memory and descriptors are sampled every few seconds, for as long as the
//! soak lasts.
//!
//! Memory goes up and down with the messages that are queued for slow readers, so no two samples
//! are comparable. The median of a quarter of the time can be compared with that of a later one.
//! Descriptors can be counted: a server has as many more than at the start as it has connections,
//! and no more.

use super::super::process::Process;

/// The maximum number of samples, and the minimum interval between them in nanoseconds.
const MAX_SAMPLES: u64 = 720;
const MIN_SAMPLE_INTERVAL_NS: u64 = 20_000_000;

/// How long a soak lasts at least for what the server holds as a rule to be judged, in nanoseconds:
/// twenty minutes. In less time it may still be meeting its worst moment, and keep what that took.
pub(super) const MIN_JUDGED_TIME_NS: u64 = 1_200_000_000_000;

/// The tolerated growth of the median from the second to the last quarter: a share of it, or so
/// many bytes, whichever is more. The output that is queued for slow readers goes up and down by
/// megabytes, and an allocator keeps some of that in pieces, more after the worst moment than
/// before it.
const MAX_GROWTH_SHARE: f64 = 0.02;
const MAX_GROWTH_BYTES: f64 = 1024.0 * 1024.0;

/// One look at a server.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    /// When, in nanoseconds since the soaking began.
    at: u64,
    /// Its resident memory, in bytes.
    resident: u64,
    /// How many descriptors it had open, if that may be seen, and how many connections there were.
    descriptors: Option<u64>,
    connections: u64,
}

/// A server that is looked at now and then.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    server: Option<&'a Process>,
    /// What it had open before anybody came.
    descriptors: Option<u64>,
    began: u64,
    lasts: u64,
    next: u64,
    looks: Vec<Look>,
}

/// What the looks at a server's memory tell, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// After the first tenth of the time.
    pub(super) warm: f64,
    /// The medians of the second and of the last quarter.
    pub(super) second_quarter: f64,
    pub(super) last_quarter: f64,
    pub(super) highest: f64,
    /// At the last look, while all were here.
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
            began: 0,
            lasts: 0,
            next: u64::MAX,
            looks: Vec::new(),
        }
    }

    /// Begins to look at it, for so long from `now` on.
    pub(super) fn begin(&mut self, now: u64, lasts: u64) {
        (self.began, self.lasts, self.next) = (now, lasts, now);
    }

    /// When to look next.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Looks, if it is time to, while there are so many connections.
    pub(super) fn check_up(&mut self, now: u64, connections: usize) {
        if now < self.next {
            return;
        }
        self.next = now + (self.lasts / MAX_SAMPLES).max(MIN_SAMPLE_INTERVAL_NS);
        if let Some(server) = self.server
            && let Ok(resident) = server.resident()
        {
            self.looks.push(Look {
                at: now - self.began,
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

    /// What it had open before anybody came.
    pub(super) const fn descriptors_at_start(&self) -> Option<u64> {
        self.descriptors
    }

    /// What it has open now.
    pub(super) fn descriptors_now(&self) -> Option<u64> {
        self.server?.descriptors()
    }

    /// The most that it had open.
    pub(super) fn most_descriptors(&self) -> Option<u64> {
        self.looks.iter().filter_map(|look| look.descriptors).max()
    }

    /// By how many descriptors it had more than connections, as a rule, in the last quarter. Some
    /// looks are at a moment at which one has left and the server does not know yet.
    pub(super) fn usual_excess(&self) -> Option<u64> {
        let before = self.descriptors?;
        let excess = |look: &Look| {
            let open = look.descriptors?;
            Some(open.saturating_sub(before + look.connections))
        };
        let last = self.looks.iter().filter(|look| look.at >= self.part(0.75));
        median(last.filter_map(excess).collect())
    }

    /// What its memory was, if it was looked at in every part of the time.
    pub(super) fn memory(&self) -> Option<Memory> {
        let between = |from, until| {
            let (from, until) = (self.part(from), self.part(until));
            let looks = self.looks.iter();
            let looks = looks.filter(move |look| (from..until).contains(&look.at));
            median(looks.map(|look| look.resident).collect()).map(|bytes| bytes as f64)
        };
        let mut after = self.looks.iter().filter(|look| look.at >= self.part(0.1));
        Some(Memory {
            warm: after.next()?.resident as f64,
            second_quarter: between(0.25, 0.5)?,
            last_quarter: between(0.75, f64::INFINITY)?,
            highest: self.looks.iter().map(|look| look.resident).max()? as f64,
            end: self.looks.last()?.resident as f64,
        })
    }

    /// Seconds, and bytes at that time: a curve.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let point = |look: &Look| (look.at as f64 / 1e9, look.resident as f64);
        self.looks.iter().map(point).collect()
    }

    /// This part of the time in which it was to be looked at.
    fn part(&self, part: f64) -> u64 {
        (self.lasts as f64 * part) as u64
    }
}

/// The one in the middle; of an even number, the greater of the two.
fn median(mut values: Vec<u64>) -> Option<u64> {
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
        watch.begin(0, 100);
        watch.descriptors = Some(7);
        watch.looks = (0..100)
            .map(|at| {
                let (resident, excess) = look(at);
                let connections = 50 + at % 3;
                Look {
                    at,
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
        watch.looks.truncate(75);
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
        watch.check_up(0, 0);
        assert!(watch.looks.is_empty(), "before it begins");
        watch.begin(5, 720 * MIN_SAMPLE_INTERVAL_NS);
        watch.check_up(5, 1);
        watch.check_up(5 + MIN_SAMPLE_INTERVAL_NS - 1, 1);
        watch.check_up(5 + MIN_SAMPLE_INTERVAL_NS, 1);
        let times: Vec<_> = watch.looks.iter().map(|look| look.at).collect();
        assert_eq!(times, [0, MIN_SAMPLE_INTERVAL_NS]);
        assert_eq!(watch.next(), 5 + 2 * MIN_SAMPLE_INTERVAL_NS);
        assert!(watch.curve()[0].1 > 100_000.0);
        assert!(watch.most_descriptors().unwrap() >= 3);
    }
}
