//! Beside the pyramid, the model of the bus. Real: the state machines of [`bus`](chatloop::bus). Made up: the engine,
//! the connections, and what is said. Every order of what can happen is tried, with a few messages and faults.
//!
//! - [`explorer`]: breadth first, each state once, and the shortest way to a broken promise.
//! - [`engine`]: a stream with ids, and its replies.
//! - [`world`]: relays, faults, and an engine that lies.
//! - [`promise`]: what each receiver must get of each sender: every message once and in order, or its count.
//!
//! The last tests have the engine lie, so that a part of the protocol is of no use: then a promise must be broken.

mod engine;
mod explorer;
mod promise;
mod world;

use explorer::{Counterexample, explore};
use world::{Faults, Plan, Without};

const NONE: Faults = Faults {
    cuts: 0,
    late: 0,
    refusals: 0,
    failovers: 0,
    silent_failovers: 0,
    trims: 0,
    crashes: 0,
    given_up: 0,
};

const TWO_RELAYS: Plan = Plan {
    relays: 2,
    messages: 2,
    has_prologue: false,
    without: Without::Nothing,
    faults: NONE,
};

/// Explores a plan in which every promise is kept.
fn holds(plan: Plan) {
    match explore(&plan) {
        Ok(states) => println!("{states} states: {plan:?}"),
        Err(counterexample) => panic!("{plan:?}: {counterexample:?}"),
    }
}

/// Explores a plan in which a promise is broken, and returns how.
fn breaks(plan: Plan) -> Counterexample {
    match explore(&plan) {
        Ok(states) => panic!("{plan:?} holds in all of its {states} states"),
        Err(counterexample) => {
            println!("{plan:?}: {counterexample:?}");
            counterexample
        }
    }
}

#[test]
fn lost_replies_late_entries_and_refusals_lose_nothing() {
    holds(Plan {
        faults: Faults {
            cuts: 1,
            late: 1,
            refusals: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
}

#[test]
fn trimmed_and_given_up_messages_are_counted() {
    holds(Plan {
        messages: 3,
        faults: Faults {
            trims: 2,
            given_up: 1,
            cuts: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
}

#[test]
fn relay_that_starts_gets_what_is_said_from_then_on() {
    let faults = Faults {
        trims: 1,
        crashes: 1,
        ..NONE
    };
    holds(Plan {
        faults,
        ..TWO_RELAYS
    });
}

#[test]
fn failover_that_loses_the_tail_loses_nothing() {
    holds(Plan {
        faults: Faults {
            failovers: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
    holds(Plan {
        relays: 3,
        messages: 1,
        faults: Faults {
            failovers: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
}

#[test]
fn failover_beside_each_other_fault_loses_nothing() {
    let failover = Faults {
        failovers: 1,
        ..NONE
    };
    let others = [
        Faults {
            failovers: 2,
            ..NONE
        },
        Faults {
            cuts: 1,
            ..failover
        },
        Faults {
            trims: 1,
            ..failover
        },
        Faults {
            crashes: 1,
            ..failover
        },
    ];
    for faults in others {
        holds(Plan {
            messages: 1,
            faults,
            ..TWO_RELAYS
        });
    }
}

/// What the reader has passed it gets when the sender says its next word.
#[test]
fn failover_behind_a_proxy_loses_nothing_of_senders_that_were_heard() {
    holds(SILENT);
}

const SILENT: Plan = Plan {
    messages: 1,
    has_prologue: true,
    faults: Faults {
        silent_failovers: 1,
        ..NONE
    },
    ..TWO_RELAYS
};

/// The same with more messages and faults: some minutes and gigabytes with `--release`.
#[test]
#[ignore = "it takes minutes"]
fn long_run() {
    let faults = [
        Faults {
            failovers: 1,
            cuts: 1,
            ..NONE
        },
        Faults {
            failovers: 1,
            trims: 1,
            ..NONE
        },
        Faults {
            cuts: 2,
            late: 1,
            refusals: 1,
            ..NONE
        },
    ];
    for faults in faults {
        holds(Plan {
            faults,
            ..TWO_RELAYS
        });
    }
    holds(Plan {
        messages: 2,
        ..SILENT
    });
}

// ---- Without a part of the protocol ----

#[test]
fn without_deduplication_a_lost_reply_delivers_twice() {
    let broken = breaks(Plan {
        without: Without::Deduplication,
        faults: Faults { cuts: 1, ..NONE },
        ..TWO_RELAYS
    });
    assert!(broken.promise.contains("Delivered"), "{broken:?}");
}

#[test]
fn without_sending_again_a_failover_loses_messages() {
    breaks(Plan {
        without: Without::Resending,
        faults: Faults {
            failovers: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
}

#[test]
fn without_reading_back_a_gap_is_counted_that_is_none() {
    let broken = breaks(Plan {
        without: Without::ReadingBack,
        ..SILENT
    });
    assert!(broken.promise.contains("Missing"), "{broken:?}");
}

#[test]
fn without_the_check_of_the_last_entry_a_failover_loses_messages() {
    let broken = breaks(Plan {
        without: Without::LastEntry,
        faults: Faults {
            failovers: 1,
            ..NONE
        },
        ..TWO_RELAYS
    });
    assert!(broken.promise.contains("lacks"), "{broken:?}");
}

#[test]
fn without_a_look_at_the_newest_entries_old_ones_are_delivered() {
    let broken = breaks(Plan {
        without: Without::Start,
        faults: Faults { crashes: 1, ..NONE },
        ..TWO_RELAYS
    });
    assert!(broken.promise.contains("Delivered"), "{broken:?}");
}
