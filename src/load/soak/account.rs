//! What is told of a soak: what was done, what of it came, and what the server kept.

use std::time::Duration;

use super::super::outcome::{Figures, Outcome};
use super::super::plan::Plan;
use super::super::process::Usage;
use super::super::trouble::{Leak, Trouble};
use super::super::units::Unit;
use super::leaks::{JUDGED_FROM, Watch};
use super::party::Party;
use super::plan::{Fault, Leave};

/// What is known of a soak when it is over.
#[derive(Debug)]
pub(super) struct Soaked<'a> {
    pub(super) party: &'a Party,
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

/// The figures of a soak, and what casts doubt on the server.
pub(super) fn tell(soak: &Soaked<'_>, plan: &Plan, outcome: &mut Outcome) {
    let (used, rest) = (&soak.used, &soak.rest);
    let figures = &mut outcome.figures;
    let members = rest.members as f64;
    figures.mention("members", "members", Unit::Count, members);
    figures.mention("lasted_seconds", "lasted", Unit::Seconds, used.seconds);
    came_and_went(soak, figures);
    said_and_heard(soak, used, figures);
    if let Some(server) = used.server {
        let share = server.cpu.as_secs_f64() / used.seconds;
        figures.mention("server/cpu_share", "server, CPU used", Unit::Share, share);
    }
    let share = "load_tool/cpu_share";
    figures.mention(share, "load tool, CPU used", Unit::Share, used.core);
    let troubles = &mut outcome.troubles;
    let is_judged = plan.lasts.as_nanos() >= u128::from(JUDGED_FROM) && !soak.is_stopped;
    memory(soak.watch, soak.at_start, is_judged, figures, troubles);
    descriptors(soak.watch, rest, figures, troubles);
    faults(soak, figures, troubles);
    if soak.paused > Duration::ZERO {
        troubles.push(Trouble::Paused(soak.paused));
    }
    outcome.memory = soak.watch.curve();
}

fn came_and_went(soak: &Soaked<'_>, figures: &mut Figures) {
    let counts = &soak.party.counts;
    figures.count("joins", "joined", soak.party.checker.joins().into());
    figures.count("left", "left as planned", counts.leaves.values().sum());
    for leave in Leave::ALL {
        let count = counts.leaves.get(&leave).copied().unwrap_or(0);
        figures.tally(&format!("leaves/{}", leave.name()), count);
    }
    for fault in Fault::ALL {
        let count = counts.faults.get(&fault).copied().unwrap_or(0);
        let path = format!("faults/{}", fault.name());
        figures.count(&path, label(fault), count);
        let closed = counts.closed.get(&fault).copied().unwrap_or(0);
        figures.tally(&format!("closed/{}", fault.name()), closed);
    }
    let closed = counts.closed.values().sum();
    figures.count("closed_for_it", "closed by the server for that", closed);
}

/// What the table calls those who misbehave so.
const fn label(fault: Fault) -> &'static str {
    match fault {
        Fault::Stop => "stopped reading",
        Fault::Pause => "paused reading",
        Fault::Drip => "read a byte at a time",
        Fault::Trickle => "sent a byte at a time",
        Fault::Flood => "flooded the room",
        Fault::ResetInside => "reset inside a message",
        Fault::FinInside => "closed inside a message",
        Fault::Nameless => "gave no name",
        Fault::NoFrame => "sent what is no frame",
        Fault::TooLong => "sent a header over the limit",
    }
}

fn said_and_heard(soak: &Soaked<'_>, used: &Used, figures: &mut Figures) {
    figures.count("messages", "messages", used.said);
    figures.count("deliveries", "deliveries", used.heard);
    let rate = used.heard as f64 / used.seconds;
    figures.add(
        "deliveries_per_second",
        "deliveries, a second",
        Unit::Count,
        rate,
    );
    let bytes = soak.party.checker.bytes() as f64;
    figures.mention("heard_bytes", "heard, and checked", Unit::Bytes, bytes);
}

fn memory(
    watch: &Watch<'_>,
    at_start: Option<u64>,
    is_judged: bool,
    figures: &mut Figures,
    troubles: &mut Vec<Trouble>,
) {
    let (Some(start), Some(memory)) = (at_start, watch.memory()) else {
        return;
    };
    for (path, label, bytes) in [
        ("rss_at_start_bytes", "at start", start as f64),
        ("rss_warm_bytes", "after a tenth", memory.warm),
        (
            "rss_second_quarter_bytes",
            "second quarter",
            memory.second_quarter,
        ),
        (
            "rss_last_quarter_bytes",
            "last quarter",
            memory.last_quarter,
        ),
        ("rss_highest_bytes", "highest", memory.highest),
        ("rss_bytes", "at the end", memory.end),
    ] {
        let path = format!("server/{path}");
        let label = format!("server, memory, {label}");
        figures.mention(&path, &label, Unit::Bytes, bytes);
    }
    if is_judged && memory.has_grown() {
        troubles.push(Trouble::Leak(Leak::Memory {
            before: memory.second_quarter,
            after: memory.last_quarter,
        }));
    }
}

fn descriptors(watch: &Watch<'_>, rest: &Rest, figures: &mut Figures, troubles: &mut Vec<Trouble>) {
    for (path, label, count) in [
        ("at_start", "at start", watch.descriptors_at_start()),
        ("highest", "highest", watch.most_descriptors()),
        ("at_end", "after all have left", watch.descriptors_now()),
    ] {
        if let Some(count) = count {
            let path = format!("server/descriptors/{path}");
            let label = format!("server, descriptors, {label}");
            figures.mention(&path, &label, Unit::Count, count as f64);
        }
    }
    for (members, excess) in [(rest.members, rest.excess), (0, rest.left_over)] {
        if let Some(more @ 1..) = excess {
            troubles.push(Trouble::Leak(Leak::Descriptors { more, members }));
        }
    }
    // This is no fault: a server keeps those who have left as long as it has not read all that they
    // said.
    if let Some(usual) = watch.usual_excess() {
        figures.note("server/descriptors/excess", Unit::Count, usual as f64);
    }
}

/// What went wrong, by what it was.
fn faults(soak: &Soaked<'_>, figures: &mut Figures, troubles: &mut Vec<Trouble>) {
    let checker = &soak.party.checker;
    let counts = &soak.party.counts;
    let tally = checker.tally();
    figures.fault("lost", "lost", tally.lost);
    figures.fault("duplicated", "duplicated", tally.duplicated);
    figures.fault("out_of_order", "out of order", tally.out_of_order);
    figures.fault("corrupt", "altered", tally.corrupt);
    figures.fault("cut", "cut", counts.cuts.values().sum());
    figures.fault("refused", "refused", counts.refusals.values().sum());
    for (object, causes) in [("cuts", &counts.cuts), ("refusals", &counts.refusals)] {
        for (cause, &count) in causes {
            figures.tally(&format!("{object}/{}", cause.name()), count);
        }
    }
    let deaf = soak.party.counts.deaf;
    figures.tally("deaf", deaf);
    figures.tally("foreign", tally.foreign);
    if !counts.refusals.is_empty() {
        troubles.push(Trouble::Refused {
            causes: counts.refusals.clone(),
            connected: checker.joins() as usize,
        });
    }
    if !counts.cuts.is_empty() {
        troubles.push(Trouble::Cut {
            causes: counts.cuts.clone(),
        });
    }
    if deaf > 0 {
        let count = deaf as usize;
        troubles.push(Trouble::Deaf { count });
    }
    if tally.foreign > 0 {
        let messages = tally.foreign;
        troubles.push(Trouble::Company { messages });
    }
}
