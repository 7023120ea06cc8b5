//! What was heard of each run.

use super::entry::Boot;

/// So many runs are remembered. The one that was silent for the longest is forgotten first.
const MAX_BOOTS: usize = 1024;

/// `Heard` has the number of the next message of each run, in the order in which the runs were heard last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Heard {
    boots: Vec<(Boot, u64)>,
}

impl Heard {
    /// The number of the next message of this run; `None` if it was never heard.
    pub(super) fn next(&self, boot: Boot) -> Option<u64> {
        let mut boots = self.boots.iter().rev();
        boots.find(|(one, _)| *one == boot).map(|(_, next)| *next)
    }

    /// This run was heard, and its next message has this number.
    pub(super) fn set_next(&mut self, boot: Boot, next: u64) {
        match self.boots.iter().rposition(|(one, _)| *one == boot) {
            // As a rule it is the last one.
            Some(at) => self.boots[at..].rotate_left(1),
            None => self.boots.push((boot, next)),
        }
        if let Some(last) = self.boots.last_mut() {
            last.1 = next;
        }
        if self.boots.len() > MAX_BOOTS {
            self.boots.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_that_was_silent_for_the_longest_is_forgotten() {
        let boot = |random| Boot { began: 1, random };
        let mut heard = Heard::default();
        for random in 0..MAX_BOOTS as u64 {
            heard.set_next(boot(random), random);
        }
        heard.set_next(boot(0), 77);
        heard.set_next(boot(5000), 1);
        assert_eq!(heard.next(boot(0)), Some(77));
        assert_eq!(heard.next(boot(1)), None);
        assert_eq!(heard.next(boot(2)), Some(2));
        assert_eq!(heard.next(boot(5000)), Some(1));
        assert_eq!(heard.boots.len(), MAX_BOOTS);
    }
}
