//! The scenarios: what is done to a server, and what is measured of it.

use std::io;
use std::time::Duration;

use super::account;
use super::connect::Site;
use super::delays::Delays;
use super::figures::{Figures, Gauge, ServerFigures, quotient};
use super::members::Members;
use super::message::Codec;
use super::plan::{Plan, Scenario};
use super::pool::{Behaviour, ClientPool};
use super::process::{kernel_memory, socket_buffers};
use super::ramp_up::Pace;
use super::report::Outcome;
use super::run::{Context, Mark, Run, Span};
use super::schedule::Schedule;
use super::trouble::Warning;

/// How many points a curve over time has.
const CURVE_POINTS: u32 = 60;

/// How long after its last message a server is idle.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// Messages that are sent later than this are worth a warning.
const MAX_LATENESS: Duration = Duration::from_millis(1);

/// Runs the scenario of the plan.
pub(super) fn measure(plan: &Plan, site: Site, context: Context<'_>) -> io::Result<Outcome> {
    let (receivers, senders) = plan.cast(site.protocol);
    let codec = Codec::new(site.protocol, &site.tag, plan.size, plan.senders, plan.seed);
    let members = Members::new(codec, receivers, senders);
    let pool = ClientPool::new(site, members.checker.receivers(), plan.wait)?;
    let run = &mut Run::new(pool, members, context);
    let mut outcome = match plan.scenario {
        Scenario::Idle => idle(run, plan)?,
        Scenario::Fanout | Scenario::Chat => throughput(run, plan)?,
        Scenario::Latency => latency(run, plan)?,
        Scenario::Storm => storm(run, plan)?,
        // It has clients of its own, which come and go.
        Scenario::Soak => Outcome::default(),
    };
    if plan.scenario != Scenario::Storm {
        outcome.delays = run.clients.delays().cloned();
    }
    let deaf = u64::from(!run.is_stopped()) * run.clients.deaf() as u64;
    outcome.connected = run.pool.connected;
    account::conclude(run, &mut outcome, deaf, run.pool.connected);
    Ok(outcome)
}

/// Members join, are silent, and receive one message.
fn idle(run: &mut Run<'_, Members>, plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    if let (true, Some(server)) = (plan.steps > 1, run.context.base.server) {
        outcome.curve.push((0.0, server.resident as f64));
    }
    let (connecting, cpu) = connect_all(run, plan, &mut outcome)?;
    let members = run.clients.count();
    let (kernel, buffers) = (kernel_memory(), socket_buffers());
    let silence = stay_silent(run, plan)?;
    let message = send_to_all(run)?;
    let delays = &run.clients.checker.delays;
    let longest = delays.quantile(1.0).map(|longest| longest.as_secs_f64());
    let kernel = run.context.base.kernel.zip(kernel);
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    outcome.figures = Figures {
        members: Some(Gauge(members as u64)),
        connects_per_second: quotient(members as f64, connecting.as_secs_f64()),
        connect_us: run.clients.connects.times(),
        kernel_bytes_per_connection: kernel
            .and_then(|(start, now)| account::per_member(start, now, members)),
        socket_buffer_bytes: buffers.map(Gauge),
        deliveries: message.deliveries,
        deliveries_per_second: longest
            .and_then(|longest| quotient(message.deliveries as f64, longest)),
        latency_us: delays.times(),
        server: silence.0.server.map(|used| ServerFigures {
            cpu_us_per_connect: quotient(micros(cpu), members as f64),
            idle_wakeups: Some(Gauge(used.sleeps)),
            idle_cpu_us_per_second: quotient(micros(used.cpu), silence.0.seconds),
            cpu_ns_per_delivery: account::cpu_ns_per_delivery(&message),
            ..ServerFigures::default()
        }),
        ..Figures::default()
    };
    account::add_memory(&mut outcome.figures, run, &silence.1);
    Ok(outcome)
}

/// All connect, in as many steps as the plan has. Returns how long that took, and the CPU time that the
/// server used for it.
fn connect_all(
    run: &mut Run<'_, Members>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> io::Result<(Duration, Duration)> {
    let total = run.pool.len();
    let steps = plan.steps.clamp(1, total);
    let (mut connecting, mut cpu) = (Duration::ZERO, Duration::ZERO);
    for step in 0..steps {
        let members = total * step / steps..total * (step + 1) / steps;
        run.begin("connecting", None);
        let before = run.mark();
        run.ramp_up(members, Pace::Measured(plan.rate), false)?;
        connecting += run.pool.now().saturating_sub(before.at);
        run.begin("settling", None);
        run.settle()?;
        if let Some(used) = before.until(&run.mark()).server {
            cpu += used.cpu;
            let point = (run.clients.count() as f64, used.resident as f64);
            outcome.curve.push(point);
        }
    }
    Ok((connecting, cpu))
}

/// No member sends anything, and the server is watched.
fn stay_silent(run: &mut Run<'_, Members>, plan: &Plan) -> io::Result<(Span, Mark)> {
    let before = run.mark();
    let until = before.at + plan.lasts;
    run.begin("silent", Some(until));
    run.sleep_until(until)?;
    let after = run.mark();
    Ok((before.until(&after), after))
}

/// One member sends a message to all others.
fn send_to_all(run: &mut Run<'_, Members>) -> io::Result<Span> {
    run.begin("telling all", None);
    run.expect_all();
    let before = run.mark();
    run.clients.checker.measure_from(Duration::ZERO);
    if let Some(sender) = run.able(0..run.clients.checker.senders()) {
        // Not since the mark, which took a while to be made.
        run.queue(sender, run.pool.now());
        run.send();
    }
    run.drain()?;
    // The kernel updates the CPU time of a process when that is put to sleep.
    run.sleep_until(run.pool.now() + SETTLE_TIME)?;
    Ok(before.until(&run.mark()))
}

/// All connect and send until a time, twice: to warm up, and measured. Returns what happened then, or
/// `None` if it was ended before that.
fn send_all(
    run: &mut Run<'_, Members>,
    plan: &Plan,
    mut send: impl FnMut(&mut Run<'_, Members>, Duration) -> io::Result<()>,
) -> io::Result<Option<(Figures, Span)>> {
    run.begin("connecting", None);
    run.ramp_up(0..run.pool.len(), Pace::Measured(None), true)?;
    let start = run.pool.now() + plan.warmup;
    run.begin("warming up", Some(start));
    send(run, start)?;
    if run.is_stopped() {
        return Ok(None);
    }
    let before = run.mark();
    // Since the mark takes a while to be made, nothing falls due in that.
    let start = run.pool.now();
    run.clients.checker.measure_from(start);
    run.begin("measuring", Some(start + plan.lasts));
    send(run, start + plan.lasts)?;
    let after = run.mark();
    let buffers = socket_buffers();
    run.drain()?;
    let (span, members) = (before.until(&after), run.clients.count());
    let mut figures = account::measured(run, &span, members);
    figures.socket_buffer_bytes = buffers.map(Gauge);
    account::add_memory(&mut figures, run, &after);
    Ok(Some((figures, span)))
}

/// As many messages are under way as there may be.
fn throughput(run: &mut Run<'_, Members>, plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut next = 0;
    let measured = send_all(run, plan, |run, until| {
        outcome.curve = send_in_flight(run, plan, &mut next, until)?;
        Ok(())
    })?;
    if let Some((figures, span)) = measured {
        outcome.figures = figures;
        account::bottleneck(&mut outcome, &span);
    }
    Ok(outcome)
}

/// Keeps as many messages under way as the plan has, until `until`. Returns a curve: seconds from
/// here, and deliveries a second.
fn send_in_flight(
    run: &mut Run<'_, Members>,
    plan: &Plan,
    next: &mut u32,
    until: Duration,
) -> io::Result<Vec<(f64, f64)>> {
    let began = run.pool.now();
    let interval = (until.saturating_sub(began) / CURVE_POINTS).max(Duration::from_nanos(1));
    let mut point = (began, run.deliveries());
    let mut points = 1;
    let mut curve = Vec::new();
    let mut now = began;
    while now < until && !run.is_stopped() && run.pool.connected > 1 {
        let receivers = run.clients.receivers().max(1) as u64;
        let under_way = run.clients.checker.outstanding.div_ceil(receivers) as usize;
        let missing = plan.in_flight.saturating_sub(under_way);
        // A system call for each would be a good part of what this loop does.
        if missing > plan.in_flight / 16 {
            for _ in 0..missing {
                run.queue(*next, now);
                *next = (*next + 1) % plan.senders as u32;
            }
            run.send();
        }
        now = run.turn(until, false)?;
        // From the beginning each time, so that the last point is at the end.
        if now >= began + interval * points {
            let deliveries = (run.deliveries() - point.1) as f64;
            let rate = deliveries / now.saturating_sub(point.0).as_secs_f64();
            let elapsed = now.saturating_sub(began);
            curve.push((elapsed.as_secs_f64(), rate));
            point = (now, run.deliveries());
            points = elapsed.div_duration_f64(interval) as u32 + 1;
        }
    }
    Ok(curve)
}

/// Messages are sent by a schedule, whatever becomes of those before.
fn latency(run: &mut Run<'_, Members>, plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let mut late = Delays::default();
    let measured = send_all(run, plan, |run, until| {
        late = send_by_schedule(run, plan, &mut chance, until)?;
        Ok(())
    })?;
    let Some((figures, _)) = measured else {
        return Ok(outcome);
    };
    outcome.figures = figures;
    let p99 = late.quantile(0.99);
    if let Some(tool) = &mut outcome.figures.load_tool {
        tool.late_us = p99.map(|late| late.as_nanos() as f64 / 1e3);
    }
    if let Some(p99) = p99.filter(|&late| late > MAX_LATENESS) {
        outcome.warnings.push(Warning::Late { p99 });
    }
    Ok(outcome)
}

/// Sends messages by a schedule until `end`. Returns how late they were sent.
fn send_by_schedule(
    run: &mut Run<'_, Members>,
    plan: &Plan,
    chance: &mut fastrand::Rng,
    end: Duration,
) -> io::Result<Delays> {
    let mut late = Delays::default();
    let mut now = run.pool.now();
    let mut schedule = Schedule::new(now, plan.rate.unwrap_or(100.0), Some(end));
    while (now < end || schedule.next().is_some()) && !run.is_stopped() && run.pool.connected > 1 {
        while let Some(at) = schedule.take_due(now) {
            run.queue(chance.u32(..plan.senders as u32), at);
            late.record(now.saturating_sub(at).as_nanos() as u64, 1);
        }
        run.send();
        now = run.turn(schedule.next().unwrap_or(end), false)?;
    }
    Ok(late)
}

/// All members leave and come back at once.
fn storm(run: &mut Run<'_, Members>, plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    run.begin("connecting", None);
    let all = 0..run.pool.len();
    run.ramp_up(all.clone(), Pace::Measured(None), true)?;
    run.drain()?;
    let members = run.clients.count();
    let (mut each, mut everyone) = (Delays::default(), Delays::default());
    let before = run.mark();
    let end = before.at + plan.lasts;
    run.begin("storming", Some(end));
    let mut now = before.at;
    while now < end && !run.is_stopped() && run.pool.connected > 1 {
        run.clients.arrivals.clear();
        run.leave();
        run.ramp_up(all.clone(), Pace::Storm, true)?;
        let back = run.pool.now();
        for &arrival in &run.clients.arrivals {
            each.record(arrival.saturating_sub(now).as_nanos() as u64, 1);
        }
        if run.clients.all_present() && run.clients.count() == members && !run.is_stopped() {
            everyone.record(back.saturating_sub(now).as_nanos() as u64, 1);
        }
        run.drain()?;
        now = run.pool.now();
    }
    let after = run.mark();
    let span = before.until(&after);
    let storms = everyone.times().map_or(0, |storms| storms.samples);
    outcome.figures = Figures {
        storms: Some(storms),
        all_back_us: everyone.times(),
        latency_us: each.times(),
        ..account::measured(run, &span, members)
    };
    account::add_memory(&mut outcome.figures, run, &after);
    if let (Some(server), Some(used)) = (&mut outcome.figures.server, span.server) {
        let micros = used.cpu.as_nanos() as f64 / 1e3;
        server.cpu_us_per_return = quotient(micros, (storms * members as u64) as f64);
    }
    outcome.delays = Some(each);
    Ok(outcome)
}
