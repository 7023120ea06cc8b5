//! An explorer of small models: every order of steps, breadth first, so that a counterexample is a shortest one.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A model: a state, the steps that are possible in it, and what must hold.
pub(crate) trait Model {
    type State: Clone + Hash;
    type Step: Copy + Debug;

    fn start(&self) -> Self::State;

    /// Adds the steps that are possible in this state.
    fn steps(&self, state: &Self::State, steps: &mut Vec<Self::Step>);

    /// Takes a step. An error is a broken promise.
    fn take(&self, state: &mut Self::State, step: Self::Step) -> Result<(), String>;

    /// Checks a state, which has this hash: an error is a broken promise.
    fn check(&self, state: &Self::State, hash: u64) -> Result<(), String>;
}

/// The steps that lead to a broken promise.
pub(crate) struct Counterexample {
    pub(crate) promise: String,
    steps: Vec<String>,
}

impl Debug for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            write!(f, "\n    {step}")?;
        }
        write!(f, "\n    {}", self.promise)
    }
}

/// Visits every state that the steps reach, and returns how many these are.
///
/// A state is remembered by a hash of 64 bits: among ten million states two share one with a probability of
/// 3 in a million, and then one of them is not explored.
pub(crate) fn explore<M: Model>(model: &M) -> Result<usize, Counterexample> {
    let start = model.start();
    let first = hash(&start);
    let mut seen = HashSet::from([first]);
    // How each state was reached first: from which one, and by which step.
    let mut origins: Vec<Option<(u32, M::Step)>> = vec![None];
    let mut queue = VecDeque::from([(start, first, 0)]);
    let mut steps = Vec::new();
    while let Some((state, state_hash, index)) = queue.pop_front() {
        if let Err(promise) = model.check(&state, state_hash) {
            return Err(counterexample(&origins, index, None, promise));
        }
        steps.clear();
        model.steps(&state, &mut steps);
        for &step in &steps {
            let mut next = state.clone();
            if let Err(promise) = model.take(&mut next, step) {
                return Err(counterexample(&origins, index, Some(step), promise));
            }
            let next_hash = hash(&next);
            if seen.insert(next_hash) {
                queue.push_back((next, next_hash, origins.len() as u32));
                origins.push(Some((index, step)));
            }
        }
    }
    Ok(origins.len())
}

fn hash(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn counterexample<S: Copy + Debug>(
    origins: &[Option<(u32, S)>],
    mut index: u32,
    last: Option<S>,
    promise: String,
) -> Counterexample {
    let mut steps = Vec::from_iter(last.map(|step| format!("{step:?}")));
    while let Some((from, step)) = origins[index as usize] {
        steps.push(format!("{step:?}"));
        index = from;
    }
    steps.reverse();
    Counterexample { promise, steps }
}
