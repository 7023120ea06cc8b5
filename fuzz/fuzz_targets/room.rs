//! A whole server on a simulated machine, where everything that happens is the fuzzer's choice: limits,
//! peers, what they say, what the network does with it, which calls fail, and when.
//!
//!     mkdir -p fuzz/corpus/room
//!     cargo +nightly fuzz run room fuzz/corpus/room fuzz/seeds/room
//!
//! The simulation and what it checks are those of `tests/machine/simulation/seeds.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use simulation::Simulation;
use simulation::choices::Choices;

#[path = "../../tests/machine/simulation/mod.rs"]
mod simulation;

fuzz_target!(|data: &[u8]| {
    Simulation::chosen(Choices::of_bytes(data)).run();
});
