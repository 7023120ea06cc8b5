//! The histories in `docs/loop.html`: scripts for the simulated machine, and the test that the file has what they
//! write.
//!
//! After a change of the trace or of the relay, write them anew:
//! `WRITE_HISTORIES=1 cargo test --test machine histories`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;
use std::{env, fs};

use super::Simulation;
use super::plan::Plan;
use super::schedule::Action::{self, *};
use chatloop::relay::Slow;

/// The file, from the project's root.
const VIEWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/loop.html");

/// What is written, for two owners.
#[derive(Clone, Default)]
pub struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.take()).expect("text")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A room for `chat10` clients.
fn plan() -> Plan {
    let mut plan = Plan::quiet();
    plan.config.listen.truncate(1);
    plan.config.limits.slow_timeout = Duration::from_secs(40);
    plan
}

fn frame(text: &str) -> Vec<u8> {
    format!("{:<10}{text}", text.len()).into_bytes()
}

/// These clients connect and send their names.
fn join(names: &[&str]) -> Vec<Action> {
    let connect = names.iter().map(|_| Connect(0));
    let name = |(who, name): (usize, &&str)| Send(who, frame(name));
    let names = names.iter().enumerate().map(name);
    connect.chain(names).chain([Settle, Settle]).collect()
}

/// A client sends this many messages of 1000 bytes with their headers, in one piece.
fn burst(who: usize, messages: usize) -> Action {
    Send(who, frame(&"x".repeat(990)).repeat(messages))
}

/// Each history: its name in the file, and how it is made.
fn histories() -> [(&'static str, Simulation); 5] {
    [
        ("edge", forgotten_edge()),
        ("fin", fin_that_shares_an_edge()),
        ("slow", slow_reader_paced()),
        ("slot", slot_used_again()),
        ("descriptors", descriptors_run_out()),
    ]
}

/// A script in which some time passes before each thing that happens.
fn scripted(plan: Plan, script: &[Vec<Action>]) -> Simulation {
    let timed = |action: &Action| [Wait(Duration::from_millis(20)), action.clone()];
    Simulation::scripted(plan, script.concat().iter().flat_map(timed)).until_peace()
}

fn forgotten_edge() -> Simulation {
    let script = [
        join(&["alice", "bob"]),
        vec![burst(0, 10), Settle, Wait(Duration::from_secs(5)), Settle],
        vec![burst(0, 1), Settle, Wait(Duration::from_secs(5)), Settle],
    ];
    scripted(plan(), &script).forgetful()
}

fn fin_that_shares_an_edge() -> Simulation {
    let script = [
        join(&["alice", "bob"]),
        vec![Send(0, frame("bye")), CloseSending(0), Settle, Settle],
    ];
    scripted(plan(), &script)
}

fn slow_reader_paced() -> Simulation {
    let mut plan = plan();
    plan.buffer = (8000, 8000);
    let limits = &mut plan.config.limits;
    limits.slow = Slow::Pace;
    limits.max_message = 4000;
    limits.queue_limit = 60_000;
    limits.soft_limit = 5000;
    let more = vec![burst(0, 3), Settle];
    let script = [
        join(&["alice", "bob", "carol"]),
        vec![StopReading(1)],
        [more.clone(), more.clone(), more.clone(), more.clone(), more].concat(),
        vec![burst(0, 3), Settle, Take(1, 5000), Settle],
        vec![burst(2, 1), Settle, Take(1, 8000)],
        vec![ReadAgain(1), Settle, Settle, Settle, Settle],
    ];
    scripted(plan, &script)
}

fn slot_used_again() -> Simulation {
    let script = [
        join(&["alice", "bob"]),
        vec![CloseSending(0), Settle, Connect(0), Settle],
        vec![RepeatEvent, Send(2, frame("carol")), Settle, Settle],
        vec![Send(2, frame("hello")), Settle, Settle],
    ];
    scripted(plan(), &script)
}

fn descriptors_run_out() -> Simulation {
    let mut plan = plan();
    plan.descriptors = 4;
    let script = [
        join(&["alice", "bob"]),
        vec![Connect(0), Send(2, frame("carol")), Settle],
        vec![Connect(0), Send(3, frame("dave")), Settle],
        vec![CloseSending(0), Settle, Settle, Connect(0), Settle],
        vec![Wait(Duration::from_secs(1)), Settle],
    ];
    scripted(plan, &script)
}

/// The element of a history in the file: its beginning, and its end.
fn element(html: &str, name: &str) -> (usize, usize) {
    let open = format!("<script type=\"application/json\" id=\"{name}\">\n");
    let start = html.find(&open).expect("the element of the history") + open.len();
    let end = html[start..].find("</script>").expect("its end");
    (start, start + end)
}

#[test]
fn viewer_has_the_histories_that_the_simulation_writes() {
    let mut html = fs::read_to_string(VIEWER).expect("the viewer");
    let writes = env::var_os("WRITE_HISTORIES").is_some();
    for (name, simulation) in histories() {
        let written = Shared::default();
        simulation.traced(written.clone());
        let history = written.text();
        let (start, end) = element(&html, name);
        if writes {
            html.replace_range(start..end, &history);
        } else {
            let is_same = html[start..end] == history;
            assert!(
                is_same,
                "write {name} anew: WRITE_HISTORIES=1 cargo test --test machine histories"
            );
        }
    }
    if writes {
        fs::write(VIEWER, html).expect("the viewer");
    }
}
