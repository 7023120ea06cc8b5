//! The report of a soak: its figures, and warnings of what the server kept.

use std::time::Duration;

use super::super::figures::{
    Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient, with_all,
};
use super::super::plan::{Fault, Leave, Plan};
use super::super::process::Usage;
use super::super::report::Outcome;
use super::super::trouble::Warning;
use super::leaks::{MIN_JUDGED_TIME_NS, Watch, has_grown};

use super::pool::SoakPool;

/// The state at the end of a soak.
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
    /// For how long this process did not run.
    pub(super) paused: Duration,
}

/// What happened while the server soaked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) seconds: f64,
    pub(super) said: u64,
    pub(super) heard: u64,
    pub(super) server: Option<Usage>,
    /// How much of a core the load tool used.
    pub(super) core: f64,
}

/// The state after the misbehaving clients have left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// The number of members then.
    pub(super) members: usize,
    /// The server's surplus of descriptors while the members were silent, and after they had left.
    pub(super) excess: Option<u64>,
    pub(super) left_over: Option<u64>,
}

/// The figures of a soak, and the warnings about the server.
pub(super) fn report(soak: &Soaked<'_>, plan: &Plan, outcome: &mut Outcome) {
    let (used, rest, watch) = (&soak.used, &soak.rest, soak.watch);
    let (checker, counts) = (&soak.pool.checker, &soak.pool.counts);
    let cpu = used.server.map(|server| server.cpu.as_secs_f64());
    let sampled = watch.figures();
    let has_memory = sampled.rss_bytes.is_some();
    let server = ServerFigures {
        cpu_share: cpu.and_then(|cpu| quotient(cpu, used.seconds)),
        rss_at_start_bytes: soak.at_start.map(Gauge).filter(|_| has_memory),
        ..sampled
    };
    let medians = server
        .rss_second_quarter_bytes
        .zip(server.rss_last_quarter_bytes);
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
    let warnings = &mut outcome.warnings;
    if let Some((before, after)) = medians
        && is_judged
        && has_grown(before, after)
    {
        warnings.push(Warning::MemoryLeak { before, after });
    }
    for (members, excess) in [(rest.members, rest.excess), (0, rest.left_over)] {
        if let Some(more @ 1..) = excess {
            warnings.push(Warning::DescriptorLeak { more, members });
        }
    }
    let failures = Failures::new(checker.tally(), &counts.cuts, &counts.refusals, counts.deaf);
    outcome.warn(failures, checker.joins() as usize, soak.paused);
    outcome.memory = watch.curve();
}
