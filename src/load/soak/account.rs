//! The figures of a soak: what was done, what came of it, and what the server kept.

use super::super::figures::{
    Descriptors, Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient, with_all,
};
use super::super::plan::{Fault, Leave, Plan};
use super::super::report::Outcome;
use super::super::run::{Run, Span};
use super::super::trouble::{Leak, Warning};
use super::clients::SoakClients;
use super::leaks::{MIN_JUDGED_TIME, Memory, Watch};

/// What is known of a soak when it is over.
#[derive(Debug)]
pub(super) struct Soaked<'a> {
    pub(super) run: &'a Run<'a, SoakClients>,
    pub(super) watch: &'a Watch<'a>,
    pub(super) used: Span,
    pub(super) end: End,
    /// The server's resident memory before the first member, in bytes.
    pub(super) at_start: Option<u64>,
}

/// The state at the end, when all members were silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// The number of members.
    pub(super) members: usize,
    /// The number of descriptors that the server had too many then, and after the members had
    /// left.
    pub(super) excess: Option<u64>,
    pub(super) left_over: Option<u64>,
}

/// The figures of a soak, and the warnings about the server.
pub(super) fn report(soak: &Soaked<'_>, plan: &Plan, outcome: &mut Outcome) {
    let (used, end, watch) = (&soak.used, &soak.end, soak.watch);
    let (pool, clients) = (&soak.run.pool, &soak.run.clients);
    let (checker, counts) = (&clients.checker, &clients.counts);
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
        members: Some(Gauge(end.members as u64)),
        lasted_seconds: Some(used.seconds),
        joins: Some(checker.joins().into()),
        left: Some(counts.leaves.values().sum()),
        leaves: Some(with_all(&Leave::ALL, &counts.leaves)),
        faults: Some(with_all(&Fault::ALL, &counts.faults)),
        closed: Some(with_all(&Fault::ALL, &counts.closed)),
        closed_for_it: Some(counts.closed.values().sum()),
        messages: Some(used.sent),
        deliveries: used.deliveries,
        deliveries_per_second: quotient(used.deliveries as f64, used.seconds),
        heard_bytes: Some(Gauge(checker.bytes())),
        server: Some(server).filter(|server| *server != ServerFigures::default()),
        load_tool: Some(ToolFigures {
            cpu_share: quotient(used.core, 1.0),
            ..ToolFigures::default()
        }),
        ..Figures::default()
    };
    let is_judged = plan.lasts >= MIN_JUDGED_TIME && !soak.run.is_stopped();
    if let Some(memory) = memory.filter(|memory| is_judged && memory.has_grown()) {
        let (before, after) = (memory.second_quarter, memory.last_quarter);
        let leak = Leak::Memory { before, after };
        outcome.warnings.push(Warning::Leak(leak));
    }
    for (members, excess) in [(end.members, end.excess), (0, end.left_over)] {
        if let Some(more @ 1..) = excess {
            let leak = Leak::Descriptors { more, members };
            outcome.warnings.push(Warning::Leak(leak));
        }
    }
    let failures = Failures::new(checker.tally(), &pool.cuts, &pool.refusals, counts.deaf);
    outcome.warn(failures, checker.joins() as usize, soak.run.paused);
    outcome.memory = watch.curve();
}
