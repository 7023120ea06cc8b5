//! The tests on the simulated machine: many seeds, and one session in which each call fails.

use std::fs::File;
use std::panic::catch_unwind;
use std::time::Instant;

use super::faults::Fault;
use super::histories::Shared;
use super::model::End;
use super::plan::{PROXIED, Plan};
use super::schedule::Action;
use super::{Outcome, Simulation};
use chatloop::server::Request;

/// How many seeds every run of the tests tries.
const SEEDS: u64 = 500;

/// Runs one seed. If that fails, says how to see it again.
fn run(seed: u64) -> Outcome {
    let _says_how = SaysHow::Seed(seed);
    Simulation::new(seed).run()
}

/// Says how to see again what has failed, if it has.
enum SaysHow {
    Seed(u64),
    Torture {
        session: &'static str,
        index: usize,
        errno: i32,
    },
}

impl Drop for SaysHow {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self {
                Self::Seed(seed) => eprintln!(
                    "to see it again: SEED={seed} cargo test --release --test machine replay -- \
                     --nocapture"
                ),
                Self::Torture {
                    session,
                    index,
                    errno,
                } => eprintln!(
                    "to see it again: SESSION={session} CALL={index} ERRNO={errno} cargo test --release --test \
                     machine replay -- --nocapture"
                ),
            }
        }
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn faults_lose_duplicate_and_reorder_no_message() {
    let mut all = Outcome::default();
    for seed in 0..SEEDS {
        all.add(&run(seed));
    }
    for (fault, count) in all.faults.iter() {
        assert!(count > 0, "never happened: {fault}");
    }
    assert!(all.given_up <= 1, "{} were given up", all.given_up);
    let out_of_memory = all.totals.ends.get(&End::OutOfMemory);
    assert!(out_of_memory > Some(&10), "{out_of_memory:?} out of memory");
    let totals = &all.totals;
    for (what, count) in [
        ("handshakes", totals.upgrades),
        ("other requests", totals.visits),
        ("headers of proxies", 2 * totals.headers),
        ("bad headers", 10 * totals.bad_headers),
        ("heartbeats", totals.heartbeats),
        ("pause notices", totals.notices),
    ] {
        assert!(count > SEEDS / 5, "{count} {what}");
    }
    for code in [1001, 1002, 1007, 1008, 1009, 1013] {
        let count = totals.closes.get(&code);
        assert!(count > Some(&3), "{count:?} Close frames with {code}");
    }
    // The room waits for those who read, and none of them is closed for being slow.
    let waits = all.waits_for_readers;
    assert!(
        waits > SEEDS / 2,
        "the room waited for readers {waits} times"
    );
}

#[test]
fn same_seed_gives_the_same_history() {
    for seed in 0..20 {
        assert_eq!(run(seed).hash, run(seed).hash, "seed {seed}");
    }
    assert_ne!(run(1).hash, run(2).hash);
}

#[test]
fn traced_server_has_the_same_history_and_each_record_is_json() {
    for seed in 0..20 {
        let trace = Shared::default();
        let traced = Simulation::new(seed).traced(trace.clone());
        assert_eq!(traced.hash, run(seed).hash, "seed {seed}");
        let trace = trace.text();
        let mut is_in_turn = false;
        for line in trace.lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("a record");
            match record["kind"].as_str().expect("its kind") {
                "poll" => assert!(!std::mem::replace(&mut is_in_turn, true), "{line}"),
                "end" => assert!(std::mem::replace(&mut is_in_turn, false), "{line}"),
                "start" | "world" | "kernel" => {}
                _ => assert!(is_in_turn, "{line}"),
            }
        }
        assert!(trace.lines().count() > 10, "seed {seed}");
    }
}

/// The sessions of which each call fails.
fn session(name: &str) -> Simulation {
    match name {
        "web" => web_session(),
        _ => tutorials_session(),
    }
}

/// A session in which each dialect of the tutorials does everything that it can do, and nothing is left to chance.
#[allow(clippy::too_many_lines, reason = "it is a list of what happens")]
fn tutorials_session() -> Simulation {
    use Action::{
        Close, CloseSending, Connect, ReadAgain, Say, SayFarewell, Settle, Signal, StopReading,
        Wait,
    };
    let mut plan = Plan::quiet();
    plan.window = (200, 200);
    plan.buffer = (300, 300);
    plan.config.limits.history = 2;
    plan.config.limits.read_budget = 100;
    let second = std::time::Duration::from_secs(1);
    Simulation::scripted(
        plan,
        [
            // Peers 0 to 5: two with names, and one of each other dialect.
            vec![
                Connect(0),
                Connect(0),
                Connect(1),
                Connect(2),
                Connect(3),
                Connect(4),
            ],
            vec![
                Say(0, 5),
                Say(1, 0),
                Settle,
                Say(0, 12),
                Say(2, 7),
                Say(3, 20),
                Settle,
            ],
            // Two are behind, one of them with answers of its own.
            vec![
                StopReading(1),
                StopReading(2),
                Say(0, 500),
                Settle,
                Say(2, 0),
                Say(2, 3),
                Settle,
            ],
            vec![
                Wait(3 * second),
                Say(0, 150),
                Settle,
                Signal(Request::Table),
                Settle,
            ],
            // Peers 6 and 7 are told what was said last.
            vec![
                Connect(0),
                Connect(1),
                Say(6, 3),
                Settle,
                ReadAgain(1),
                Settle,
                ReadAgain(2),
            ],
            vec![
                Settle,
                Say(6, 400),
                Settle,
                CloseSending(0),
                Settle,
                Say(7, 9),
                Settle,
            ],
            // All ways to leave.
            vec![
                SayFarewell(2),
                Settle,
                SayFarewell(3),
                Settle,
                Close(4),
                Settle,
                Wait(3 * second),
            ],
            vec![
                Settle,
                Wait(3 * second),
                Close(6),
                Settle,
                Say(1, 30),
                Settle,
                Say(7, 1),
                Settle,
            ],
            // Peers 8 and 9 come, and leave with words that are to be read and words that are to be taken.
            vec![
                Connect(0),
                Connect(1),
                Say(8, 4),
                Settle,
                StopReading(8),
                Say(9, 400),
                Settle,
                Say(8, 20),
                CloseSending(8),
                Settle,
                Say(9, 30),
                Settle,
                ReadAgain(8),
                Settle,
                Wait(3 * second),
                CloseSending(9),
                Settle,
            ],
        ]
        .concat(),
    )
}

/// A session in which members of WebSocket and echo do everything that they can do, one of them through a proxy,
/// and the relay's health is asked for.
fn web_session() -> Simulation {
    use super::web::{BINARY, CONTINUED, PING, client_frame, server_frame};
    use Action::{
        Close, CloseSending, Connect, ReadAgain, Request as Ask, Say, SayFarewell, Send, Settle,
        Signal, StopReading, Wait,
    };
    const KEY: [u8; 4] = *b"key!";
    // The listeners, in the order of the dialects, and the page and a foreign host among the requests.
    const CHAT10: usize = 0;
    const WS: usize = 5;
    const TUNNEL: usize = 6;
    const WS_ECHO: usize = 7;
    const ECHO: usize = 8;
    const METRICS: usize = 9;
    const PROXIED_WS: usize = 10;
    let mut plan = Plan::quiet();
    plan.window = (1500, 1500);
    plan.buffer = (3000, 3000);
    plan.config.limits.timed_history = 2;
    plan.config.limits.read_budget = 1000;
    let ws = plan.config.listen[WS];
    plan.config.listen_with = vec![(PROXIED, ws)];
    plan.config.trusted_proxies = vec!["::/0".parse().expect("a network")];
    let step = plan.config.heartbeat.expect("heartbeats") / 2;
    let handshakes = super::web::handshakes(chatloop::wire::Dialect::Ws);
    let ping = client_frame(PING, b"there?", KEY);
    Simulation::scripted(
        plan,
        [
            // Peers 0 to 5: two browsers, and one of each other kind.
            vec![Connect(WS), Connect(WS), Connect(TUNNEL), Settle, Settle],
            vec![Connect(WS_ECHO), Connect(ECHO), Connect(CHAT10), Settle],
            vec![Say(0, 5), Say(1, 0), Say(2, 4), Say(5, 3), Settle],
            vec![Say(3, 6), Say(4, 150), Say(0, 12), Settle, Settle],
            vec![Say(5, 20), Say(2, 30), Settle, Settle],
            // A message in fragments, with a ping between them.
            vec![
                Send(1, client_frame(BINARY & 0xf, b"one, ", KEY)),
                Settle,
                Send(1, ping.clone()),
                Send(1, client_frame(CONTINUED, b"two", KEY)[..5].to_vec()),
                Settle,
                Send(1, client_frame(CONTINUED, b"two", KEY)[5..].to_vec()),
                Settle,
            ],
            // One lags, and is answered behind what is due to it.
            vec![StopReading(1), Say(0, 3000), Settle, Say(5, 900), Settle],
            vec![Send(1, ping), Say(1, 7), Settle, Signal(Request::Table)],
            vec![Settle, ReadAgain(1), Settle, Settle, Settle],
            // Nothing is sent for so long that members receive a heartbeat.
            vec![Wait(step), Settle, Wait(step), Settle],
            // Peers 6 to 8: a browser that receives history, the page, and a request that is refused.
            vec![
                Connect(WS),
                Ask(WS, handshakes),
                Ask(WS, handshakes + 3),
                Settle,
            ],
            vec![Settle, Say(6, 3), Settle, Settle, Say(0, 9), Settle],
            // Peers 9 and 10: a browser through a proxy, and a probe of the relay's health.
            vec![Connect(PROXIED_WS), Ask(METRICS, 0), Settle, Settle],
            vec![Say(9, 4), Settle, Say(9, 20), Settle],
            // All ways to leave.
            vec![Send(6, server_frame(BINARY, b"unmasked")), Settle],
            vec![SayFarewell(0), Settle, Say(5, 4), Settle],
            vec![CloseSending(2), Settle, Close(3), Settle],
            vec![StopReading(4), Say(4, 4000), CloseSending(4), Settle],
            vec![Say(5, 8), Settle, ReadAgain(4), Settle],
        ]
        .concat(),
    )
}

#[test]
fn last_member_of_a_dialect_receives_the_whole_turn_in_which_it_leaves() {
    use Action::{CloseSending, Connect, Say, Settle};
    let script = vec![
        Connect(0),
        Connect(1),
        Say(0, 5),
        Settle,
        // Both arrive in one turn, the end first.
        CloseSending(0),
        Say(1, 9),
        Settle,
    ];
    let outcome = Simulation::scripted(Plan::quiet(), script).run();
    assert_eq!(outcome.totals.deliveries, 1);
    assert_eq!(outcome.totals.ends.get(&End::Eof), Some(&1));
}

#[test]
fn failed_call_affects_only_its_own_connection() {
    let failures = fail_each_call("tutorials");
    assert!(failures > 1000, "only {failures} failures");
}

#[test]
fn failed_call_in_a_session_of_web_socket_affects_only_its_own_connection() {
    let planned = web_session().run().totals;
    assert_eq!((planned.upgrades, planned.visits), (6, 3));
    assert_eq!(planned.headers, 1);
    assert!(planned.heartbeats > 0);
    let failures = fail_each_call("web");
    assert!(failures > 1000, "only {failures} failures");
}

/// Has a session again and again, and each time one call fails. Returns how often.
fn fail_each_call(name: &'static str) -> usize {
    let session_as_planned = session(name).recorded();
    let planned = session_as_planned.run();
    let ends = |outcome: &Outcome, end| outcome.totals.ends.get(&end).copied().unwrap_or(0);
    assert_eq!(ends(&planned, End::Io), 0, "nothing fails by itself");
    let mut failures = 0;
    for (index, call) in session_as_planned.calls().into_iter().enumerate() {
        for &errno in call.errors() {
            let _says_what = SaysHow::Torture {
                session: name,
                index,
                errno,
            };
            let outcome = session(name).failing(index, errno).run();
            // The model has checked what each was told, and why each was closed. At most one was
            // closed for another reason than in the session as it was planned.
            let totals = (&outcome.totals, &planned.totals);
            assert!(
                totals.0.accepted + 1 >= totals.1.accepted,
                "one may not have come in"
            );
            assert!(totals.0.refused <= 1, "or was refused");
            let broken = ends(&outcome, End::Io) + ends(&outcome, End::TruncatedFrame);
            assert!(
                broken <= 1,
                "or its connection broke, perhaps inside a frame"
            );
            for end in [End::SlowConsumer, End::Protocol] {
                let most = ends(&planned, end);
                assert!(ends(&outcome, end) <= most, "{end:?}");
            }
            // A browser whose handshake is answered late has no name in this script.
            let late = ends(&outcome, End::HandshakeTimeout);
            assert!(late == 0 || name == "web", "{late} without a name");
            failures += 1;
        }
    }
    failures
}

/// Shows the history of one seed, or of the session in which one call fails:
/// `SEED=7 cargo test --test machine replay -- --nocapture`. With `TRACE=FILE` it writes the server's trace
/// there, for `docs/loop.html`.
#[test]
fn replay() {
    let simulation = if let Some(seed) = number("SEED") {
        Simulation::new(seed)
    } else if let (Some(call), Some(errno)) = (number("CALL"), number("ERRNO")) {
        let name = std::env::var("SESSION").unwrap_or_default();
        session(&name).failing(call as usize, errno as i32)
    } else {
        return;
    };
    let outcome = match std::env::var_os("TRACE") {
        Some(path) => simulation.traced(File::create(path).expect("the file of the trace")),
        None => simulation.printed().run(),
    };
    println!("{} steps, history {:016x}", outcome.steps, outcome.hash);
}

/// `SEEDS=100000 cargo test --release --test machine long_run -- --ignored --nocapture`, from the
/// seed `FROM` on.
#[test]
#[ignore = "takes as long as it is told to"]
fn long_run() {
    let from = number("FROM").unwrap_or(SEEDS);
    let seeds = number("SEEDS").unwrap_or(10_000);
    let begun = Instant::now();
    let mut all = Outcome::default();
    let mut failed = Vec::new();
    for seed in from..from + seeds {
        match catch_unwind(|| run(seed)) {
            Ok(outcome) => all.add(&outcome),
            Err(_) => failed.push(seed),
        }
    }
    let totals = &all.totals;
    println!(
        "seeds       {} from {from}, {} of them given up",
        all.simulations, all.given_up
    );
    println!("steps       {} in {:.1?}", all.steps, begun.elapsed());
    println!(
        "connections {}, refused {}",
        totals.accepted, totals.refused
    );
    println!("messages    {}", totals.messages);
    println!(
        "deliveries  {}, {} bytes compared",
        totals.deliveries, totals.bytes_told
    );
    println!("ticks       {}", totals.ticks);
    println!(
        "handshakes  {}, and {} other requests or connections without one",
        totals.upgrades, totals.visits
    );
    println!(
        "proxies     {} headers accepted, {} refused",
        totals.headers, totals.bad_headers
    );
    println!(
        "heartbeats  {}, {} pause notices, Close frames {:?}",
        totals.heartbeats, totals.notices, totals.closes
    );
    println!(
        "room waited {}, {} of these with everybody reading",
        all.waits, all.waits_for_readers
    );
    println!(
        "held up     {:.1} times slow_timeout at most",
        all.longest_held_up
    );
    println!("ends");
    for (end, count) in &totals.ends {
        println!("{count:12} {end:?}");
    }
    println!("faults, {} kinds", Fault::ALL.len());
    for (fault, count) in all.faults.iter() {
        println!("{count:12} {fault}");
    }
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
}
