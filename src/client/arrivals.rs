//! When to ask whether what was sent has arrived.

use std::time::{Duration, Instant};

use super::limits::MAX_PENDING;
use super::link::{Link, Untold};
use super::outbox::Outbox;

/// When to ask for the first time after something was sent. The time doubles from there.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// The same when much was sent, which is remembered until then.
const OF_MUCH: Duration = Duration::from_millis(10);
/// The same for somebody who waits for the answer to leave.
const FIRST_TO_LEAVE: Duration = Duration::from_millis(2);
const LONGEST_TO_LEAVE: Duration = Duration::from_millis(200);

/// After how long what was sent counts as arrived on systems that do not tell.
const SURELY: Duration = Duration::from_secs(60);
/// The same for somebody who waits for the answer to leave.
const LIKELY: Duration = Duration::from_secs(1);

/// More than any socket's send buffer holds, in bytes: what was sent before that much has arrived.
const MOST_BUFFERED: u64 = 16 * 1024 * 1024;

/// The next question whether what was sent has arrived.
///
/// There is no event for it, and each question costs the system a walk over its connections. So it is
/// asked soon after something was sent, then at longer and longer intervals; sooner if much waits for
/// the answer, unless the answer was the same as before.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    next: Option<Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    at: Instant,
    /// How long to wait after that.
    wait: Duration,
    /// Whether the last answer was the same as the one before, and nothing was sent since.
    stalled: bool,
}

impl Question {
    const fn new(at: Instant, wait: Duration) -> Self {
        Self {
            at,
            wait,
            stalled: false,
        }
    }
}

impl Arrivals {
    /// When to ask next, if there is something to ask.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|question| question.at)
    }

    /// The user wants to leave: asks at once, and often from there.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = Some(Question::new(now, FIRST_TO_LEAVE));
    }

    /// Something more was sent.
    pub(super) fn sent(&mut self) {
        if let Some(question) = &mut self.next {
            question.stalled = false;
        }
    }

    /// Asks if it is time to. `leaving` is since when the user wants to leave.
    pub(super) fn look(
        &mut self,
        link: &mut Link,
        outbox: &mut Outbox,
        leaving: Option<Instant>,
        now: Instant,
    ) {
        if !outbox.is_waiting() {
            self.next = None;
            return;
        }
        let is_stalled = self.next.is_some_and(|question| question.stalled);
        let (first, longest) = if leaving.is_some() {
            (FIRST_TO_LEAVE, LONGEST_TO_LEAVE)
        } else if outbox.waiting_cost() > MAX_PENDING && !is_stalled {
            (OF_MUCH, OF_MUCH)
        } else {
            (FIRST, LONGEST)
        };
        let question = self
            .next
            .get_or_insert_with(|| Question::new(now + first, first));
        // What was to be asked later may have become urgent.
        question.at = question.at.min(now + longest);
        if question.at > now {
            return;
        }
        let wait = (question.wait * 2).min(longest);
        let before = outbox.waiting_cost();
        ask(link, outbox, leaving, now);
        self.next = outbox.is_waiting().then(|| Question {
            stalled: outbox.waiting_cost() == before,
            ..Question::new(now + wait, wait)
        });
    }
}

/// Asks what has arrived, and has the outbox know.
pub(super) fn ask(link: &mut Link, outbox: &mut Outbox, leaving: Option<Instant>, now: Instant) {
    match (link.unacknowledged(), leaving) {
        (Ok(Some(unacknowledged)), _) => outbox.arrived(unacknowledged, now),
        (Ok(None), _) => {}
        (Err(Untold), Some(since)) if now.duration_since(since) >= LIKELY => {
            outbox.arrived(0, now);
        }
        (Err(Untold), _) => {
            outbox.arrived(MOST_BUFFERED, now);
            if let Some(before) = now.checked_sub(SURELY) {
                outbox.assume_arrived(before, now);
            }
        }
    }
}
