//! The scenarios: what is done to a server, and what is measured of it.

use std::io;
use std::time::Duration;

use super::account::{self, Base};
use super::delays::Delays;
use super::gather::Pace;
use super::outcome::Outcome;
use super::plan::{Plan, Scenario};
use super::process::kernel_memory;
use super::run::Run;
use super::schedule::Schedule;
use super::trouble::Trouble;
use super::units::Unit;

/// How many points a curve over time has.
const POINTS: u64 = 60;

/// How long after its last message a server has come to rest, in nanoseconds.
const SETTLED: u64 = 50_000_000;

/// Messages that are sent later than this many nanoseconds are worth telling of.
const LATE: u64 = 1_000_000;

/// Runs the scenario of the plan.
pub(super) fn measure(run: &mut Run<'_>, plan: &Plan, base: Base) -> io::Result<Outcome> {
    let mut outcome = match plan.scenario {
        Scenario::Idle => idle(run, plan, base)?,
        Scenario::Fanout | Scenario::Chat => throughput(run, plan, base)?,
        Scenario::Latency => latency(run, plan, base)?,
        Scenario::Storm => storm(run, plan, base)?,
        // It has a loop of its own, for members who come and go.
        Scenario::Soak => Outcome::default(),
    };
    account::faults(run, &mut outcome);
    outcome.interrupted = run.is_stopped();
    Ok(outcome)
}

/// Members come, are silent, and hear one message.
fn idle(run: &mut Run<'_>, plan: &Plan, base: Base) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    if let (true, Some(server)) = (plan.steps > 1, base.server) {
        outcome.memory.push((0.0, server.resident as f64));
    }
    let taken_in = come(run, plan, &mut outcome)?;
    let kernel = kernel_memory();
    account::buffers(&mut outcome.figures);
    be_silent(run, plan, base, kernel, taken_in, &mut outcome)?;
    tell_all(run, &mut outcome)?;
    Ok(outcome)
}

/// All connect, in as many steps as the plan has. Returns the CPU that the server used to take them
/// in.
fn come(run: &mut Run<'_>, plan: &Plan, outcome: &mut Outcome) -> io::Result<Duration> {
    let total = run.crowd.len();
    let steps = plan.steps.clamp(1, total);
    let (mut connecting, mut cpu) = (Duration::ZERO, Duration::ZERO);
    for step in 0..steps {
        let members = total * step / steps..total * (step + 1) / steps;
        run.begin("connecting", None);
        let before = run.mark();
        run.gather(members, Pace::Measured(plan.rate), false)?;
        connecting += Duration::from_nanos(run.crowd.now() - before.at);
        run.begin("settling", None);
        run.rest()?;
        if let Some(used) = before.until(&run.mark()).server {
            cpu += used.cpu;
            let point = (run.crowd.members() as f64, used.resident as f64);
            outcome.memory.push(point);
        }
    }
    let figures = &mut outcome.figures;
    let members = run.crowd.members() as f64;
    figures.mention("members", "members", Unit::Count, members);
    figures.add(
        "connects_per_second",
        "connected, a second",
        Unit::Count,
        members / connecting.as_secs_f64(),
    );
    let connects = run.crowd.connects.percentiles();
    figures.percentiles("connect_us", "time to connect", connects);
    Ok(cpu)
}

/// Nobody says anything, and the server is watched.
fn be_silent(
    run: &mut Run<'_>,
    plan: &Plan,
    base: Base,
    kernel: Option<u64>,
    taken_in: Duration,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let figures = &mut outcome.figures;
    let before = run.mark();
    let until = before.at + plan.lasts.as_nanos() as u64;
    run.begin("silent", Some(until));
    run.sleep_until(until)?;
    let after = run.mark();
    let silence = before.until(&after);
    let Some(server) = silence.server else {
        return Ok(());
    };
    let members = run.crowd.members();
    account::memory(figures, base, &after, members, kernel);
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    figures.add(
        "server/cpu_us_per_connect",
        "server, CPU to take one in",
        Unit::Microseconds,
        micros(taken_in) / members as f64,
    );
    figures.add(
        "server/idle_wakeups",
        "server, wake-ups while silent",
        Unit::Count,
        server.sleeps as f64,
    );
    figures.add(
        "server/idle_cpu_us_per_second",
        "server, CPU a second of silence",
        Unit::Microseconds,
        micros(server.cpu) / silence.seconds,
    );
    Ok(())
}

/// One says something, and all hear it.
fn tell_all(run: &mut Run<'_>, outcome: &mut Outcome) -> io::Result<()> {
    run.begin("telling all", None);
    run.crowd.expect_all();
    let before = run.mark();
    run.crowd.ledger.measure_from(0);
    let mut speakers = 0..run.crowd.ledger.speakers();
    if let Some(speaker) = speakers.find(|&one| run.crowd.can_say(one)) {
        // Not since the mark, which took a while to be made.
        run.crowd.say(speaker, run.crowd.now());
        run.crowd.send();
    }
    run.drain()?;
    // The kernel tells what a process has used when that is put to sleep.
    run.sleep_until(run.crowd.now() + SETTLED)?;
    let telling = before.until(&run.mark());
    let figures = &mut outcome.figures;
    figures.count("deliveries", "heard one message", telling.heard);
    let delays = run.crowd.ledger.delays();
    if let Some(last) = delays.percentiles() {
        figures.add(
            "deliveries_per_second",
            "deliveries, a second",
            Unit::Count,
            telling.heard as f64 / Duration::from_nanos(last.max).as_secs_f64(),
        );
    }
    figures.percentiles("latency_us", "delay", delays.percentiles());
    outcome.delays = Some(delays.clone());
    account::per_delivery(&mut outcome.figures, &telling);
    Ok(())
}

/// As many messages are under way as there may be.
fn throughput(run: &mut Run<'_>, plan: &Plan, base: Base) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    run.begin("connecting", None);
    run.gather(0..run.crowd.len(), Pace::Measured(None), true)?;
    let start = run.crowd.now() + plan.warmup.as_nanos() as u64;
    run.begin("warming up", Some(start));
    let mut next = 0;
    talk(run, plan, &mut next, start)?;
    if run.is_stopped() {
        return Ok(outcome);
    }
    let before = run.mark();
    run.crowd.ledger.measure_from(before.at);
    let end = before.at + plan.lasts.as_nanos() as u64;
    run.begin("measuring", Some(end));
    outcome.throughput = talk(run, plan, &mut next, end)?;
    let after = run.mark();
    account::buffers(&mut outcome.figures);
    run.drain()?;
    let span = before.until(&after);
    account::measured(run, &mut outcome, &span, base, &after);
    account::bottleneck(&mut outcome, &span);
    Ok(outcome)
}

/// Keeps as many messages under way as the plan has, until `until`. Returns how much was heard when:
/// seconds from here, and deliveries a second.
fn talk(run: &mut Run<'_>, plan: &Plan, next: &mut u32, until: u64) -> io::Result<Vec<(f64, f64)>> {
    let began = run.crowd.now();
    let every = (until.saturating_sub(began) / POINTS).max(1);
    let mut point = (began, run.crowd.ledger.tally().deliveries);
    let mut due = began + every;
    let mut curve = Vec::new();
    let mut now = began;
    while now < until && !run.is_stopped() && run.crowd.connected() > 1 {
        let receivers = run.crowd.receivers().max(1) as u64;
        let under_way = run.crowd.ledger.outstanding().div_ceil(receivers) as usize;
        let missing = plan.in_flight.saturating_sub(under_way);
        // A system call for each would be a good part of what this loop does.
        let missing = if missing > plan.in_flight / 16 {
            missing
        } else {
            0
        };
        for _ in 0..missing {
            let speaker = *next;
            *next = (*next + 1) % plan.senders as u32;
            if run.crowd.can_say(speaker) {
                run.crowd.say(speaker, now);
            }
        }
        run.crowd.send();
        now = run.turn(until, false)?;
        if now >= due {
            let heard = run.crowd.ledger.tally().deliveries;
            let rate = (heard - point.1) as f64 / ((now - point.0) as f64 / 1e9);
            curve.push(((now - began) as f64 / 1e9, rate));
            point = (now, heard);
            // From the beginning each time, so that the last point is at the end.
            due += every * ((now - due) / every + 1);
        }
    }
    Ok(curve)
}

/// Messages are said by the clock, whatever becomes of those before.
fn latency(run: &mut Run<'_>, plan: &Plan, base: Base) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    run.begin("connecting", None);
    run.gather(0..run.crowd.len(), Pace::Measured(None), true)?;
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let began = run.crowd.now();
    let start = began + plan.warmup.as_nanos() as u64;
    run.begin("warming up", Some(start));
    let mut late = Delays::new();
    speak(run, plan, &mut chance, (began, start), &mut late)?;
    if run.is_stopped() {
        return Ok(outcome);
    }
    // Between two schedules, so that nothing falls due while this is done.
    let before = run.mark();
    let start = run.crowd.now();
    let end = start + plan.lasts.as_nanos() as u64;
    run.crowd.ledger.measure_from(start);
    run.begin("measuring", Some(end));
    late = Delays::new();
    speak(run, plan, &mut chance, (start, end), &mut late)?;
    let after = run.mark();
    run.drain()?;
    account::measured(run, &mut outcome, &before.until(&after), base, &after);
    if let Some(lateness) = late.percentiles() {
        outcome.figures.mention(
            "load_tool/late_us",
            "load tool, late by (p99)",
            Unit::Microseconds,
            lateness.p99 as f64 / 1000.0,
        );
        if lateness.p99 > LATE {
            let p99 = Duration::from_nanos(lateness.p99);
            outcome.troubles.push(Trouble::Late { p99 });
        }
    }
    Ok(outcome)
}

/// Has messages said by a schedule from one time to another.
fn speak(
    run: &mut Run<'_>,
    plan: &Plan,
    chance: &mut fastrand::Rng,
    (start, end): (u64, u64),
    late: &mut Delays,
) -> io::Result<()> {
    let mut schedule = Schedule::new(start, plan.rate.unwrap_or(100.0), Some(end));
    let mut now = start;
    while (now < end || schedule.next().is_some()) && !run.is_stopped() && run.crowd.connected() > 1
    {
        while let Some(at) = schedule.take_due(now) {
            let speaker = chance.u32(..plan.senders as u32);
            if run.crowd.can_say(speaker) {
                run.crowd.say(speaker, at);
            }
            late.record(now - at, 1);
        }
        run.crowd.send();
        now = run.turn(schedule.next().unwrap_or(end), false)?;
    }
    Ok(())
}

/// All leave and come back at once.
fn storm(run: &mut Run<'_>, plan: &Plan, base: Base) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    run.begin("connecting", None);
    let all = 0..run.crowd.len();
    run.gather(all.clone(), Pace::Measured(None), true)?;
    run.drain()?;
    let members = run.crowd.members();
    let (mut each, mut everyone) = (Delays::new(), Delays::new());
    let before = run.mark();
    let end = before.at + plan.lasts.as_nanos() as u64;
    run.begin("storming", Some(end));
    let mut now = before.at;
    while now < end && !run.is_stopped() && run.crowd.connected() > 1 {
        run.crowd.arrivals.clear();
        run.crowd.leave();
        run.gather(all.clone(), Pace::Storm, true)?;
        let back = run.crowd.now();
        for arrival in &run.crowd.arrivals {
            each.record(arrival - now, 1);
        }
        if run.crowd.all_here() && run.crowd.members() == members && !run.is_stopped() {
            everyone.record(back - now, 1);
        }
        run.drain()?;
        now = run.crowd.now();
    }
    let after = run.mark();
    let figures = &mut outcome.figures;
    figures.mention("members", "members", Unit::Count, members as f64);
    let storms = everyone.percentiles().map_or(0, |storms| storms.samples);
    figures.count("storms", "storms", storms);
    figures.percentiles(
        "all_back_us",
        "until all hear again",
        everyone.percentiles(),
    );
    figures.percentiles("latency_us", "until one hears again", each.percentiles());
    outcome.delays = Some(each);
    let span = before.until(&after);
    figures.count("deliveries", "deliveries", span.heard);
    figures.mention(
        "deliveries_per_second",
        "deliveries, a second",
        Unit::Count,
        span.heard as f64 / span.seconds,
    );
    if let Some(server) = span.server {
        account::memory_aside(figures, base, &after, members);
        let each = server.cpu.as_nanos() as f64 / 1000.0 / (storms * members as u64) as f64;
        figures.add(
            "server/cpu_us_per_return",
            "server, CPU for one that returns",
            Unit::Microseconds,
            each,
        );
    }
    if let Some(server) = span.server {
        let each = server.cpu.as_nanos() as f64 / span.heard as f64;
        figures.note("server/cpu_ns_per_delivery", Unit::Nanoseconds, each);
    }
    account::tool(figures, &span);
    Ok(outcome)
}
