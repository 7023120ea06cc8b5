//! The report of a soak: its figures, and warnings of what the server kept.

use strum::VariantArray;

use super::super::figures::{
    Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient, with_all,
};
use super::super::plan::{Fault, Leave, Plan};
use super::super::report::Outcome;
use super::super::run::{Run, Span};
use super::super::trouble::Warning;
use super::clients::SoakClients;
use super::leaks::{MIN_JUDGED_TIME, Watch, has_grown};

/// What is known of a soak when it is over.
#[derive(Debug)]
pub(super) struct Soaked<'a> {
    pub(super) run: &'a Run<'a, SoakClients>,
    pub(super) watch: &'a Watch<'a>,
    pub(super) used: Span,
    pub(super) end: End,
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
    let Soaked {
        run,
        watch,
        used,
        end,
    } = soak;
    let (checker, counts) = (&run.clients.checker, &run.clients.counts);
    let cpu = used.server.map(|server| server.cpu.as_secs_f64());
    let server = ServerFigures {
        cpu_share: cpu.and_then(|cpu| quotient(cpu, used.seconds)),
        ..watch.figures()
    };
    let (second, last) = (
        server.rss_second_quarter_bytes,
        server.rss_last_quarter_bytes,
    );
    outcome.figures = Figures {
        members: Some(Gauge(end.members as u64)),
        lasted_seconds: Some(used.seconds),
        joins: Some(checker.joins.into()),
        left: Some(counts.leaves.values().sum()),
        leaves: Some(with_all(Leave::VARIANTS, &counts.leaves)),
        faults: Some(with_all(Fault::VARIANTS, &counts.faults)),
        closed: Some(with_all(Fault::VARIANTS, &counts.closed)),
        closed_for_it: Some(counts.closed.values().sum()),
        messages: Some(used.sent),
        deliveries: used.deliveries,
        deliveries_per_second: quotient(used.deliveries as f64, used.seconds),
        heard_bytes: Some(Gauge(checker.bytes)),
        server: Some(server).filter(|server| *server != ServerFigures::default()),
        load_tool: Some(ToolFigures {
            cpu_share: quotient(used.core, 1.0),
            ..ToolFigures::default()
        }),
        ..Figures::default()
    };
    let is_judged = plan.lasts >= MIN_JUDGED_TIME && !run.is_stopped();
    let warnings = &mut outcome.warnings;
    if let Some((before, after)) = second.zip(last)
        && is_judged
        && has_grown(before, after)
    {
        warnings.push(Warning::MemoryLeak { before, after });
    }
    for (members, excess) in [(end.members, end.excess), (0, end.left_over)] {
        if let Some(more @ 1..) = excess {
            warnings.push(Warning::DescriptorLeak { more, members });
        }
    }
    let (cuts, refusals) = (&run.pool.cuts, &run.pool.refusals);
    let failures = Failures::new(&checker.tally, cuts, refusals, counts.deaf);
    outcome.warn(failures, checker.joins as usize, run.paused);
    outcome.memory = watch.curve();
}
