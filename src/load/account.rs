//! The figures between two marks of a run, and the warnings about them.

use super::figures::{Failures, Figures, Gauge, ServerFigures, ToolFigures, quotient};
use super::members::Members;
use super::process::Usage;
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

/// What the server and the kernel held before the first member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base {
    pub(super) server: Option<Usage>,
    pub(super) kernel: Option<u64>,
}

/// The figures of the messages that were sent and received between two marks.
pub(super) fn measured(run: &Run<'_, Members>, span: &Span, base: Base, after: &Mark) -> Figures {
    let members = run.clients.count();
    Figures {
        members: Some(Gauge(members as u64)),
        messages: Some(span.sent),
        messages_per_second: quotient(span.sent as f64, span.seconds),
        deliveries: span.deliveries,
        deliveries_per_second: quotient(span.deliveries as f64, span.seconds),
        latency_us: run.clients.checker.delays.times(),
        server: span.server.map(|used| {
            let a_second = |count: u64| quotient(count as f64, span.seconds);
            ServerFigures {
                cpu_ns_per_delivery: cpu_ns_per_delivery(span),
                cpu_share: quotient(used.cpu.as_secs_f64(), span.seconds),
                sleeps_per_second: a_second(used.sleeps),
                preemptions_per_second: a_second(used.preempted),
                reads_per_second: used.reads.and_then(a_second),
                writes_per_second: used.writes.and_then(a_second),
                ..memory(base, after, members)
            }
        }),
        load_tool: Some(tool(span)),
        ..Figures::default()
    }
}

/// The server's memory.
pub(super) fn memory(base: Base, after: &Mark, members: usize) -> ServerFigures {
    let (Some(start), Some(now)) = (base.server, after.server) else {
        return ServerFigures::default();
    };
    ServerFigures {
        rss_at_start_bytes: Some(Gauge(start.resident)),
        rss_bytes: Some(Gauge(now.resident)),
        bytes_per_member: per_member(start.resident, now.resident, members),
        ..ServerFigures::default()
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

/// What the load tool itself used.
pub(super) fn tool(span: &Span) -> ToolFigures {
    ToolFigures {
        busy_share: quotient(span.busy, 1.0),
        cpu_share: quotient(span.core, 1.0),
        late_us: None,
    }
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

/// Adds the failures of a run, and the warnings about them.
pub(super) fn failures(run: &mut Run<'_, Members>, outcome: &mut Outcome) {
    let (pool, clients) = (&run.pool, &run.clients);
    let deaf = u64::from(!run.is_stopped()) * clients.deaf() as u64;
    let failures = Failures::new(&clients.checker.tally, &pool.cuts, &pool.refusals, deaf);
    outcome.warn(failures, pool.connected, run.paused);
    let dropped = run.dropped_packets();
    if dropped > 0 && outcome.figures.failures.are_any() {
        outcome.warnings.push(Warning::Dropped(dropped));
    }
    outcome.warnings.append(&mut run.warnings);
}
