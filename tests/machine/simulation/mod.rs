//! A whole server on a simulated machine: every fault, at every step, the same each time.
//!
//! The server is the real one, all of it: [`Server::turn`] over the real relay and the real wire
//! protocol. Only what is below it is made up: sockets, epoll, descriptors, clocks and signals
//! ([`System`](chatloop::server::System)), and the peers at the other ends. What is made up obeys one
//! source of decisions, so a seed is a history, and a history that went wrong can be had again.
//!
//! In reading order:
//!
//! - [`choices`]: where decisions come from: a seed, or a fuzzer's bytes.
//! - [`plan`]: what is decided before anything happens.
//! - [`faults`]: what can go wrong.
//! - [`socket`]: a connection, as Linux's TCP treats it.
//! - [`world`]: the machine, with an epoll that tells of edges and never twice.
//! - [`system`]: the machine as the server sees it.
//! - [`peer`], [`schedule`]: what the peers and the network do.
//! - [`web`]: HTTP, WebSocket and JSON, as peers write them and expect them.
//! - [`proxy`]: what proxies send before their clients' bytes.
//! - [`lobby`]: what becomes of connections that speak HTTP or come from a proxy.
//! - [`model`]: what everybody is to be told, and why connections may end.
//! - [`counters`]: what the server counts of itself.
//! - [`torture`]: one call fails, each in turn.
//! - [`trace`]: what happened, for a reader.
//! - `seeds`: the tests.
//! - [`forgetful`], `histories`: the histories in `docs/loop.html`.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a test and a fuzz target have this each for itself, and each uses a part"
)]
#![allow(
    clippy::struct_excessive_bools,
    reason = "what has happened to a connection is many things, and not one of them excludes another"
)]

pub mod choices;
pub mod counters;
pub mod faults;
pub mod forgetful;
#[cfg(test)]
mod histories;
pub mod lobby;
pub mod model;
pub mod peer;
pub mod plan;
pub mod proxy;
pub mod schedule;
#[cfg(test)]
mod seeds;
pub mod socket;
pub mod system;
pub mod torture;
pub mod trace;
pub mod web;
pub mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::rc::Rc;

use chatloop::relay::{CloseReason, Relay};
use chatloop::server::{Server, System, Traced, Turn};

use choices::Choices;
use counters::CounterCheck;
use faults::FaultCounts;
use forgetful::Forgetful;

use model::{Claims, End, Reading, Totals};
use plan::Plan;
use schedule::Action;
use system::Machine;
use torture::Call;
use world::World;

/// A server and its world.
pub struct Simulation {
    world: Rc<RefCell<World>>,
}

/// What a simulation came to, in which nothing was wrong.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub simulations: u64,
    /// In how many of them the model could not know what was published, so that they ended early.
    pub given_up: u64,
    /// The same for the same history.
    pub hash: u64,
    pub steps: u64,
    pub faults: FaultCounts,
    pub totals: Totals,
    /// How often the room has begun to wait, and how often of these though everybody read.
    pub waits: u64,
    pub waits_for_readers: u64,
    /// The longest that anybody was not listened to because of that, in `slow_timeout`.
    pub longest_held_up: f64,
}

impl Outcome {
    /// Adds what another one came to.
    pub fn add(&mut self, other: &Self) {
        self.simulations += other.simulations;
        self.given_up += other.given_up;
        self.hash ^= other.hash;
        self.steps += other.steps;
        self.faults.add(&other.faults);
        self.totals.add(&other.totals);
        self.waits += other.waits;
        self.waits_for_readers += other.waits_for_readers;
        self.longest_held_up = self.longest_held_up.max(other.longest_held_up);
    }
}

impl Simulation {
    /// Everything follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self::chosen(Choices::of_seed(seed))
    }

    /// Everything follows from these choices.
    pub fn chosen(mut choices: Choices) -> Self {
        let plan = Plan::chosen(&mut choices);
        Self::planned(plan, choices)
    }

    /// Nothing is left to chance.
    pub fn scripted(plan: Plan, script: impl IntoIterator<Item = Action>) -> Self {
        let simulation = Self::planned(plan, Choices::of_bytes(&[]));
        simulation.world.borrow_mut().script = Some(script.into_iter().collect::<VecDeque<_>>());
        simulation
    }

    fn planned(plan: Plan, choices: Choices) -> Self {
        let world = Rc::new(RefCell::new(World::new(plan, choices)));
        Self { world }
    }

    /// Prints what happens.
    #[must_use]
    pub fn printed(self) -> Self {
        self.world.borrow_mut().trace.is_printed = true;
        self
    }

    /// Records the calls that the server makes.
    #[must_use]
    pub fn recorded(self) -> Self {
        self.world.borrow_mut().torture.is_recording = true;
        self
    }

    /// Ends when the script does, and checks nothing after that.
    #[must_use]
    pub fn until_peace(self) -> Self {
        self.world.borrow_mut().ends_with_script = true;
        self
    }

    /// Has the server forget edges.
    #[must_use]
    pub fn forgetful(self) -> Self {
        self.world.borrow_mut().is_forgetful = true;
        self
    }

    /// Has one call of the server fail.
    #[must_use]
    pub fn failing(self, call: usize, errno: i32) -> Self {
        self.world.borrow_mut().torture.fails = Some((call, errno));
        self
    }

    /// The calls that the server has made.
    pub fn calls(&self) -> Vec<Call> {
        self.world.borrow().torture.calls.clone()
    }

    /// Runs until the server has stopped.
    ///
    /// # Panics
    ///
    /// If anything was not as it has to be.
    pub fn run(&self) -> Outcome {
        let config = self.world.borrow().plan.config.clone();
        if self.world.borrow().trace.is_printed {
            println!("{config:#?}");
        }
        let system = Machine::of(&self.world);
        self.run_on(Server::on(system, &config).expect("sound limits"))
    }

    /// Runs as well, and writes the server's trace.
    ///
    /// # Panics
    ///
    /// If anything was not as it has to be.
    pub fn traced(&self, sink: impl Write + 'static) -> Outcome {
        let system = Traced::new(Machine::of(&self.world));
        self.world.borrow_mut().trace.of_server = Some(system.trace().clone());
        if self.world.borrow().is_forgetful {
            return self.write_trace(Forgetful(system), sink);
        }
        self.write_trace(system, sink)
    }

    fn write_trace<S: System>(&self, system: S, sink: impl Write + 'static) -> Outcome {
        let config = self.world.borrow().plan.config.clone();
        let mut server = Server::on(system, &config).expect("sound limits");
        server.write_trace(sink, u64::MAX);
        self.run_on(server)
    }

    fn run_on<S: System>(&self, mut server: Server<S>) -> Outcome {
        self.world.borrow_mut().is_timed = server.relay().is_timed();
        let mut counters = CounterCheck::default();
        loop {
            let turn = server.turn(None).expect("no poll fails for good");
            let now = self.world.borrow().instant();
            let gauges = server.relay().gauges(now);
            counters.end_turn(&server, &gauges, turn == Turn::Stopped);
            let goes_on = self.world.borrow_mut().end_turn(server.relay(), turn);
            let is_over = self.world.borrow().is_script_over();
            if !goes_on || is_over {
                // Its connections must not be closed: the model would find no reason.
                std::mem::forget(server);
                return self.outcome(true);
            }
            if turn == Turn::Stopped {
                return self.outcome(false);
            }
        }
    }

    fn outcome(&self, is_given_up: bool) -> Outcome {
        let world = &*self.world.borrow();
        let slow_timeout = world.plan.config.limits.slow_timeout;
        Outcome {
            simulations: 1,
            given_up: u64::from(is_given_up),
            hash: world.trace.hash(),
            steps: world.steps,
            faults: world.faults.clone(),
            totals: world.model.totals.clone(),
            waits: world.waits,
            longest_held_up: world.longest_held_up.div_duration_f64(slow_timeout),
            waits_for_readers: match Reading::of(&world.plan) {
                Reading::Always => world.waits,
                Reading::AsTheyLike | Reading::WithPauses => 0,
            },
        }
    }
}

impl World {
    /// Holds the relay's view of things against the world's. Returns whether the model knows how to go on.
    fn end_turn<S>(&mut self, relay: &Relay<S>, turn: Turn) -> bool {
        if turn == Turn::Stopped {
            let is_early = self.stop_by.is_some_and(|by| self.now < by);
            self.model.is_stop_in_time = is_early && !self.was_stopped_twice;
            self.model.has_stopped = true;
        }
        let limits = relay.limits();
        let is_full = relay.is_full() || self.was_short() || self.model.is_crowded();
        self.model.has_more = self.has_more;
        let mut claims = claims(relay);
        claims.pending = self
            .model
            .pending()
            .map(|(who, id, ..)| (who, relay.pending_bytes(id)))
            .collect();
        self.is_timed = relay.is_timed();
        if !self.model.settle_past_notices(&claims) {
            return false;
        }
        self.model.end_turn(&claims, self.now, is_full);
        self.has_held = relay.has_held();
        assert!(
            relay.len() <= limits.max_clients,
            "more connections than allowed"
        );
        self.waits += u64::from(relay.is_paused() && !self.is_room_paused);
        self.is_room_paused = relay.is_paused();
        let held = relay.held_bytes();
        // Newcomers come after that was seen to; until the next turn each has a queue for its greeting.
        let greetings = 256 * limits.accept_budget;
        assert!(
            held <= limits.max_memory + greetings,
            "{held} bytes are held, and {} allowed",
            limits.max_memory
        );
        let mut behind = 0;
        for (who, id, due, facts) in self.model.pending() {
            let pending = relay.pending_bytes(id);
            assert!(
                pending == due as u64 || (pending == 0 && facts.has_failed),
                "{due} bytes are due to peer {who}, and the relay has {pending} for it"
            );
            behind += usize::from(pending > 0);
        }
        // Somebody who is to be sent nothing, in one write, is behind for a turn.
        assert!(
            relay.lagging() == behind || relay.has_ready(),
            "members behind"
        );
        let is_held = relay.lagging() > 0 || self.model.keeps_history();
        assert!(is_held || relay.backlog_bytes() == 0, "held for nobody");
        true
    }
}

/// What a relay says of itself.
fn claims<S>(relay: &Relay<S>) -> Claims {
    let counters = relay.counters();
    let closed = &counters.closed;
    // What only a program around the relay asks for, or clients with certificates cause. Here is neither.
    let of_a_program = ["name_refused", "name_taken", "revoked", "removed"];
    for key in CloseReason::TABLE.iter().map(|info| info.key) {
        let is_known = End::ALL.iter().any(|(_, known)| *known == key);
        assert!(is_known != of_a_program.contains(&key), "{key}");
        assert!(is_known || closed.of(key) == 0, "{key}");
    }
    Claims {
        accepted: counters.accepted,
        refused: counters.refused,
        joined: counters.joined,
        messages: counters.messages,
        deliveries: counters.deliveries,
        writes: counters.writes,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        bytes_discarded: counters.bytes_discarded,
        connections: relay.len(),
        members: relay.members().total(),
        held_bytes: relay.backlog_bytes(),
        is_paused: relay.is_paused(),
        pending: BTreeMap::new(),
        ends: End::ALL
            .iter()
            .map(|&(end, key)| (end, closed.of(key)))
            .collect(),
    }
}
