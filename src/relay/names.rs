//! Names that only one member has at a time.

use std::borrow::Cow;
use std::collections::HashSet;

/// How many numbers are tried for a name that is taken. Each is looked up, and a turn can have many joins.
const MAX_NUMBERS: u32 = 100;

/// The names of all members, where no two may have the same. Names are compared as bytes.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Box<[u8]>>);

impl Names {
    /// Takes a name. If it is taken and `may_number`, it is another one that ends in a number: `alice-2`. Returns
    /// the name, or nothing if no such name of at most `max_len` bytes is free.
    pub(super) fn take<'a>(
        &mut self,
        name: &'a [u8],
        may_number: bool,
        max_len: usize,
    ) -> Option<Cow<'a, [u8]>> {
        if self.0.insert(name.into()) {
            return Some(name.into());
        }
        if !may_number {
            return None;
        }
        let numbered =
            (2..2 + MAX_NUMBERS).map(|number| [name, format!("-{number}").as_bytes()].concat());
        let mut free = numbered.take_while(|name| name.len() <= max_len);
        let name = free.find(|name| self.0.insert(name.as_slice().into()))?;
        Some(name.into())
    }

    /// Gives a name back: its member has left.
    pub(super) fn give_back(&mut self, name: &[u8]) {
        let was_taken = self.0.remove(name);
        debug_assert!(was_taken, "each member has taken its name");
    }

    /// How many names are taken.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_is_taken_gets_the_first_free_number() {
        let mut names = Names::default();
        let mut take =
            |name: &'static str| names.take(name.as_bytes(), true, 9).map(Cow::into_owned);
        assert_eq!(take("alice"), Some(b"alice".to_vec()));
        assert_eq!(take("alice"), Some(b"alice-2".to_vec()));
        assert_eq!(take("alice-3"), Some(b"alice-3".to_vec()));
        assert_eq!(take("alice"), Some(b"alice-4".to_vec()));
        assert_eq!(take("Alice"), Some(b"Alice".to_vec()));
        names.give_back(b"alice-2");
        assert_eq!(
            names.take(b"alice", true, 9).as_deref(),
            Some(&b"alice-2"[..])
        );
        names.give_back(b"alice");
        assert_eq!(
            names.take(b"alice", true, 9).as_deref(),
            Some(&b"alice"[..])
        );
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn name_is_refused_where_no_number_may_follow_or_fits() {
        let mut names = Names::default();
        assert!(names.take(b"bob", false, 5).is_some());
        assert_eq!(names.take(b"bob", false, 5), None);
        for number in 2..=9 {
            let name = names.take(b"bob", true, 5).unwrap();
            assert_eq!(*name, *format!("bob-{number}").as_bytes());
        }
        assert_eq!(names.take(b"bob", true, 5), None, "bob-10 is too long");
        for _ in 10..2 + MAX_NUMBERS {
            assert!(names.take(b"bob", true, 20).is_some());
        }
        assert_eq!(names.take(b"bob", true, 20), None);
    }
}
