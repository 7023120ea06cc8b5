//! What is told of a soak: what was done, what of it came, and what the server kept.

use std::time::Duration;

use super::super::figures::{
    Descriptors, Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient, with_all,
};
use super::super::plan::{Fault, Leave, Plan};
use super::super::process::Usage;
use super::super::report::Outcome;
use super::super::trouble::Warning;
use super::leaks::{MIN_JUDGED_TIME_NS, Memory, Watch};

use super::pool::SoakPool;

/// What is known of a soak when it is over.
#[derive(Debug)]
pub(super) struct Soaked<'a> {
    pub(super) pool: &'a SoakPool,
    pub(super) watch: &'a Watch<'a>,
    pub(super) used: Used,
    pub(super) rest: Rest,
    /// The server's resident memory before the first member, in bytes.
    pub(super) at_start: Option<u64>,
    /// Whether it was ended early.
    pub(super) is_stopped: bool,
    /// For how long this program did not run.
    pub(super) paused: Duration,
}

/// What was used while it soaked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) seconds: f64,
    pub(super) said: u64,
    pub(super) heard: u64,
    pub(super) server: Option<Usage>,
    /// How much of a core the load tool used.
    pub(super) core: f64,
}

/// What came of the end, when all was to come to rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// How many members there were then.
    pub(super) members: usize,
    /// Descriptors that the server had too many while the members were silent, and after they had
    /// left.
    pub(super) excess: Option<u64>,
    pub(super) left_over: Option<u64>,
}

/// The figures of a soak, and the warnings about the server.
pub(super) fn report(soak: &Soaked<'_>, plan: &Plan, outcome: &mut Outcome) {
    let (used, rest, watch) = (&soak.used, &soak.rest, soak.watch);
    let (checker, counts) = (&soak.pool.checker, &soak.pool.counts);
    let memory = watch.memory().filter(|_| soak.at_start.is_some());
    let bytes = |of: fn(&Memory) -> f64| memory.as_ref().map(|memory| Gauge(of(memory) as u64));
    let server = ServerFigures {
        cpu_share: used
            .server
            .and_then(|server| quotient(server.cpu.as_secs_f64(), used.seconds)),
        rss_at_start_bytes: soak.at_start.map(Gauge).filter(|_| memory.is_some()),
        rss_warm_bytes: bytes(|memory| memory.warm),
        rss_second_quarter_bytes: bytes(|memory| memory.second_quarter),
        rss_last_quarter_bytes: bytes(|memory| memory.last_quarter),
        rss_highest_bytes: bytes(|memory| memory.highest),
        rss_bytes: bytes(|memory| memory.end),
        descriptors: watch.descriptors_at_start().map(|start| Descriptors {
            at_start: Some(Gauge(start)),
            highest: watch.most_descriptors().map(Gauge),
            at_end: watch.descriptors_now().map(Gauge),
            // No failure: a server keeps a closed connection until it has read all of it.
            excess: watch.usual_excess().map(Gauge),
        }),
        ..ServerFigures::default()
    };
    outcome.figures = Figures {
        members: Some(Gauge(rest.members as u64)),
        lasted_seconds: Some(used.seconds),
        joins: Some(checker.joins().into()),
        left: Some(counts.leaves.values().sum()),
        leaves: Some(with_all(&Leave::ALL, &counts.leaves)),
        faults: Some(with_all(&Fault::ALL, &counts.faults)),
        closed: Some(with_all(&Fault::ALL, &counts.closed)),
        closed_for_it: Some(counts.closed.values().sum()),
        messages: Some(used.said),
        deliveries: used.heard,
        deliveries_per_second: quotient(used.heard as f64, used.seconds),
        heard_bytes: Some(Gauge(checker.bytes())),
        server: Some(server).filter(|server| *server != ServerFigures::default()),
        load_tool: Some(ToolFigures {
            cpu_share: quotient(used.core, 1.0),
            ..ToolFigures::default()
        }),
        ..Figures::default()
    };
    let is_judged = plan.lasts.as_nanos() >= u128::from(MIN_JUDGED_TIME_NS) && !soak.is_stopped;
    if let Some(memory) = memory.filter(|memory| is_judged && memory.has_grown()) {
        let (before, after) = (memory.second_quarter, memory.last_quarter);
        let leak = Warning::MemoryLeak { before, after };
        outcome.warnings.push(leak);
    }
    for (members, excess) in [(rest.members, rest.excess), (0, rest.left_over)] {
        if let Some(more @ 1..) = excess {
            let leak = Warning::DescriptorLeak { more, members };
            outcome.warnings.push(leak);
        }
    }
    let failures = Failures::new(checker.tally(), &counts.cuts, &counts.refusals, counts.deaf);
    outcome.warn(failures, checker.joins() as usize, soak.paused);
    outcome.memory = watch.curve();
}
