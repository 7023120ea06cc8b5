//! The figures between two marks of a run, and the warnings about them.

use super::delays::Delays;
use super::figures::{Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient};
use super::members::Members;
use super::pool::Behaviour;
use super::report::Outcome;
use super::run::{Mark, Run, Span};
use super::trouble::Warning;

/// The load tool was the bottleneck if it waited less than a quarter of the time while the server used
/// less than this share of a core, and by so much less than the load tool was busy.
const BUSY_SHARE: f64 = 0.75;
const SERVER_BUSY_SHARE: f64 = 0.9;
const MIN_SHARE_DIFFERENCE: f64 = 0.05;

/// The shortest measurement, in seconds, in which the bottleneck can be seen.
const MIN_SECONDS: f64 = 0.1;

/// The figures of what happened between two marks.
pub(super) fn measured<C: Behaviour>(run: &Run<'_, C>, span: &Span, members: usize) -> Figures {
    let a_second = |count: u64| quotient(count as f64, span.seconds);
    Figures {
        members: Some(Gauge(members as u64)),
        messages: Some(span.sent),
        messages_per_second: a_second(span.sent),
        deliveries: span.deliveries,
        deliveries_per_second: a_second(span.deliveries),
        latency_us: run.clients.delays().and_then(Delays::times),
        server: span.server.map(|used| ServerFigures {
            cpu_ns_per_delivery: cpu_ns_per_delivery(span),
            cpu_share: quotient(used.cpu.as_secs_f64(), span.seconds),
            sleeps_per_second: a_second(used.sleeps),
            preemptions_per_second: a_second(used.preempted),
            reads_per_second: used.reads.and_then(a_second),
            writes_per_second: used.writes.and_then(a_second),
            ..ServerFigures::default()
        }),
        load_tool: Some(ToolFigures {
            busy_share: quotient(span.busy, 1.0),
            cpu_share: quotient(span.core, 1.0),
            late_us: None,
        }),
        ..Figures::default()
    }
}

/// Adds the server's memory, if it was watched from before the first member.
pub(super) fn add_memory(figures: &mut Figures, run: &Run<'_, Members>, after: &Mark) {
    if let Some(server) = &mut figures.server
        && let (Some(start), Some(now)) = (run.context.base.server, after.server)
    {
        server.rss_at_start_bytes = Some(Gauge(start.resident));
        server.rss_bytes = Some(Gauge(now.resident));
        server.bytes_per_member = per_member(start.resident, now.resident, run.clients.count());
    }
}

/// The bytes that something grew by for each member.
pub(super) fn per_member(start: u64, now: u64, members: usize) -> Option<Gauge> {
    let each = quotient(now.saturating_sub(start) as f64, members as f64)?;
    Some(Gauge(each.round() as u64))
}

pub(super) fn cpu_ns_per_delivery(span: &Span) -> Option<f64> {
    quotient(span.server?.cpu.as_nanos() as f64, span.deliveries as f64)
}

/// Warns if the load tool was the limit.
pub(super) fn bottleneck(outcome: &mut Outcome, span: &Span) {
    let server = span
        .server
        .map(|used| used.cpu.as_secs_f64() / span.seconds);
    let has_room = server
        .is_none_or(|server| server < SERVER_BUSY_SHARE.min(span.busy - MIN_SHARE_DIFFERENCE));
    if span.seconds >= MIN_SECONDS && span.busy >= BUSY_SHARE && has_room {
        outcome.warnings.push(Warning::Bottleneck {
            busy: span.busy,
            core: span.core,
            server,
        });
    }
}

/// Ends a run: adds its failures, and the warnings about them and about the run itself. `connected` is
/// the number of connections that were made, beside those that were not.
pub(super) fn conclude<C: Behaviour>(
    run: &mut Run<'_, C>,
    outcome: &mut Outcome,
    deaf: u64,
    connected: usize,
) {
    let (tally, cuts, causes) = (*run.clients.tally(), &run.pool.cuts, &run.pool.refusals);
    let failures = Failures {
        lost: tally.lost,
        duplicated: tally.duplicated,
        out_of_order: tally.out_of_order,
        corrupt: tally.corrupt,
        cut: cuts.values().sum(),
        refused: causes.values().sum(),
        cuts: cuts.clone(),
        refusals: causes.clone(),
        deaf,
        foreign: tally.foreign,
    };
    let (dropped, paused) = (run.dropped_packets(), run.paused);
    let (cuts, causes) = (cuts.clone(), causes.clone());
    let warnings = [
        (failures.refused, Warning::Refused { causes, connected }),
        (failures.cut, Warning::Cut(cuts)),
        (deaf, Warning::Deaf(deaf)),
        (tally.foreign, Warning::Company(tally.foreign)),
        (u64::from(!paused.is_zero()), Warning::Paused(paused)),
        (
            u64::from(failures.are_any()) * dropped,
            Warning::Dropped(dropped),
        ),
    ];
    let due = warnings.into_iter().filter(|(count, _)| *count > 0);
    outcome.warnings.extend(due.map(|(_, warning)| warning));
    outcome.warnings.append(&mut run.warnings);
    outcome.figures.failures = failures;
    outcome.interrupted = run.is_stopped();
    outcome.deliveries = tally.deliveries;
}
