//! What is told of a run: figures out of two looks at it, and what casts doubt on them.

use std::time::Duration;

use super::outcome::{Figures, Outcome};
use super::process::{Usage, socket_buffers};
use super::run::{Mark, Run, Span};
use super::trouble::Trouble;
use super::units::Unit;

/// A loop that waits less than a quarter of its time is at its limit if it is with a server that uses
/// less than this of a core, and by so much less than this loop does.
const BUSY: f64 = 0.75;
const SERVER_BUSY: f64 = 0.9;
const APART: f64 = 0.05;

/// How many seconds it takes at least to tell whose limit was met.
const ENOUGH: f64 = 0.1;

/// What was used before there were any members.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base {
    pub(super) server: Option<Usage>,
    pub(super) kernel: Option<u64>,
}

/// The figures of what was said and heard for a while.
pub(super) fn measured(
    run: &Run<'_>,
    outcome: &mut Outcome,
    span: &Span,
    base: Base,
    after: &Mark,
) {
    let figures = &mut outcome.figures;
    let members = run.crowd.members();
    figures.mention("members", "members", Unit::Count, members as f64);
    figures.count("messages", "messages", span.said);
    figures.count("deliveries", "deliveries", span.heard);
    figures.add(
        "messages_per_second",
        "messages, a second",
        Unit::Count,
        span.said as f64 / span.seconds,
    );
    figures.add(
        "deliveries_per_second",
        "deliveries, a second",
        Unit::Count,
        span.heard as f64 / span.seconds,
    );
    let delays = run.crowd.ledger.delays();
    figures.percentiles("latency_us", "delay", delays.percentiles());
    outcome.delays = Some(delays.clone());
    per_delivery(figures, span);
    if let Some(server) = span.server {
        figures.mention(
            "server/cpu_share",
            "server, CPU used",
            Unit::Share,
            server.cpu.as_secs_f64() / span.seconds,
        );
        memory_aside(figures, base, after, members);
        for (path, count) in [
            ("server/sleeps_per_second", Some(server.sleeps)),
            ("server/preemptions_per_second", Some(server.preempted)),
            ("server/reads_per_second", server.reads),
            ("server/writes_per_second", server.writes),
        ] {
            if let Some(count) = count {
                figures.note(path, Unit::Count, count as f64 / span.seconds);
            }
        }
    }
    tool(figures, span);
}

/// What the server holds.
pub(super) fn memory(
    figures: &mut Figures,
    base: Base,
    after: &Mark,
    members: usize,
    kernel: Option<u64>,
) {
    let (Some(start), Some(now)) = (base.server, after.server) else {
        return;
    };
    let grown = now.resident.saturating_sub(start.resident);
    figures.add(
        "server/rss_at_start_bytes",
        "server, memory at start",
        Unit::Bytes,
        start.resident as f64,
    );
    figures.add(
        "server/rss_bytes",
        "server, memory with all members",
        Unit::Bytes,
        now.resident as f64,
    );
    figures.add(
        "server/bytes_per_member",
        "server, memory for a member",
        Unit::Bytes,
        grown as f64 / members as f64,
    );
    if let (Some(start), Some(now)) = (base.kernel, kernel) {
        figures.mention(
            "kernel_bytes_per_connection",
            "kernel, memory for both ends of a connection",
            Unit::Bytes,
            now.saturating_sub(start) as f64 / members as f64,
        );
    }
}

/// The same where memory is not what it is about: in a small room it grows by less than the
/// allocator's grain, and then what a member costs says little.
pub(super) fn memory_aside(figures: &mut Figures, base: Base, after: &Mark, members: usize) {
    let (Some(start), Some(now)) = (base.server, after.server) else {
        return;
    };
    let grown = now.resident.saturating_sub(start.resident);
    let (start, now) = (start.resident as f64, now.resident as f64);
    figures.add("server/rss_bytes", "server, memory", Unit::Bytes, now);
    figures.note("server/rss_at_start_bytes", Unit::Bytes, start);
    let each = grown as f64 / members as f64;
    figures.note("server/bytes_per_member", Unit::Bytes, each);
}

/// What is on its way in the kernel, of the whole machine.
pub(super) fn buffers(figures: &mut Figures) {
    if let Some(bytes) = socket_buffers() {
        figures.note("socket_buffer_bytes", Unit::Bytes, bytes as f64);
    }
}

/// The server's CPU for a delivery.
pub(super) fn per_delivery(figures: &mut Figures, span: &Span) {
    if let Some(server) = span.server {
        figures.add(
            "server/cpu_ns_per_delivery",
            "server, CPU for a delivery",
            Unit::Nanoseconds,
            server.cpu.as_nanos() as f64 / span.heard as f64,
        );
    }
}

/// What the load tool itself had to do.
pub(super) fn tool(figures: &mut Figures, span: &Span) {
    let busy = "load_tool/busy_share";
    figures.mention(busy, "load tool, busy", Unit::Share, span.busy);
    figures.note("load_tool/cpu_share", Unit::Share, span.core);
}

/// Says so if the load tool was the limit.
pub(super) fn bottleneck(outcome: &mut Outcome, span: &Span) {
    let server = span
        .server
        .map(|used| used.cpu.as_secs_f64() / span.seconds);
    let has_room = server.is_none_or(|server| server < SERVER_BUSY.min(span.busy - APART));
    if span.seconds >= ENOUGH && span.busy >= BUSY && has_room {
        outcome.troubles.push(Trouble::Bottleneck {
            busy: span.busy,
            core: span.core,
            server,
        });
    }
}

/// What went wrong, by what it was.
pub(super) fn faults(run: &mut Run<'_>, outcome: &mut Outcome) {
    let figures = &mut outcome.figures;
    let tally = *run.crowd.ledger.tally();
    figures.fault("lost", "lost", tally.lost);
    figures.fault("duplicated", "duplicated", tally.duplicated);
    figures.fault("out_of_order", "out of order", tally.out_of_order);
    figures.fault("corrupt", "altered", tally.corrupt);
    figures.fault("cut", "cut", run.crowd.cuts.values().sum());
    figures.fault("refused", "refused", run.crowd.refusals.values().sum());
    for (object, causes) in [("cuts", &run.crowd.cuts), ("refusals", &run.crowd.refusals)] {
        for (cause, &count) in causes {
            figures.tally(&format!("{object}/{}", cause.name()), count);
        }
    }
    let deaf = if run.is_stopped() {
        0
    } else {
        run.crowd.deaf()
    };
    figures.tally("deaf", deaf as u64);
    figures.tally("foreign", tally.foreign);
    let troubles = &mut outcome.troubles;
    if !run.crowd.refusals.is_empty() {
        troubles.push(Trouble::Refused {
            causes: run.crowd.refusals.clone(),
            connected: run.crowd.connected(),
        });
    }
    if !run.crowd.cuts.is_empty() {
        troubles.push(Trouble::Cut {
            causes: run.crowd.cuts.clone(),
        });
    }
    if deaf > 0 {
        troubles.push(Trouble::Deaf { count: deaf });
    }
    if tally.foreign > 0 {
        troubles.push(Trouble::Company {
            messages: tally.foreign,
        });
    }
    if run.paused > Duration::ZERO {
        troubles.push(Trouble::Paused(run.paused));
    }
    troubles.append(&mut run.troubles);
}
