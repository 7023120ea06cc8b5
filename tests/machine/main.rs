//! Level 2, the machine. Real: [`server`](chatloop::server) with all that is below it in the source. Made
//! up: the kernel, the clocks and the peers. All that happens comes from one seed, so it can happen again.
//!
//! - [`simulation`]: the machine, its faults, and the model of what each peer must receive.
//! - [`simulation::seeds`]: the tests: 500 seeds, one session in which each call fails in turn, and how to
//!   repeat either.
//! - `secure`: listeners with TLS, whose clients are those of rustls.
//!
//! The fuzz target `room` includes `simulation` as well, with the fuzzer's bytes in place of a seed.

#[cfg(feature = "tls")]
#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "tls")]
mod secure;
mod simulation;
