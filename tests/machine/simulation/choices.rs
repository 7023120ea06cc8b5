//! Where every decision of a simulation comes from.

use std::collections::VecDeque;

/// A source of decisions: a seed, or bytes from elsewhere.
///
/// All that happens in a simulation follows from it, so that the same seed is the same history. The
/// generator is our own, a few lines of it, because a seed that has found something must mean the
/// same after an update of a library.
pub struct Choices(Source);

enum Source {
    /// SplitMix64 (Steele, Lea and Flood 2014): any seed is a good one, 0 included.
    Seed(u64),
    /// A fuzzer's bytes, to be used up.
    Bytes(VecDeque<u8>),
}

impl Choices {
    /// Endless choices.
    pub fn of_seed(seed: u64) -> Self {
        Self(Source::Seed(seed))
    }

    /// As many choices as these bytes are good for. After that each is the first possible one.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let bytes = bytes.iter().copied().collect();
        Self(Source::Bytes(bytes))
    }

    /// Whether there are no more choices.
    pub fn are_used_up(&self) -> bool {
        match &self.0 {
            Source::Seed(_) => false,
            Source::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound <= 1 {
            return 0;
        }
        match &mut self.0 {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^= mixed >> 31;
                ((u128::from(mixed) * bound as u128) >> 64) as usize
            }
            Source::Bytes(bytes) => {
                // No more bytes than the choice needs, so that a fuzzer's change of one byte is a
                // change of one choice.
                let mut value = 0;
                let mut most = 1;
                while most < bound {
                    value = value << 8 | usize::from(bytes.pop_front().unwrap_or(0));
                    most = most.saturating_mul(256);
                }
                value % bound
            }
        }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Whether something happens that happens in so many of 1,024 cases.
    pub fn happens(&mut self, of_1024: u16) -> bool {
        of_1024 > 0 && !self.are_used_up() && self.below(1024) >= 1024 - usize::from(of_1024)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
