//! How fast the room goes: no faster than the slowest of those who read.
//!
//! Whoever reads slower than the others talk falls behind. A relay can drop messages then, or close
//! the slow member; or it can make the others wait, which costs nobody anything but time, and TCP
//! carries the waiting back to the program that talks: its `send` blocks. But then one member that
//! does not read at all would silence the room. So the room waits for a member as long as its socket
//! takes bytes, and not for long after that.
//!
//! A member that is behind is in one of four stages. It *takes* when its socket does; it is *silent*
//! when its socket has taken nothing for half of `slow_timeout`; it is *far behind* when it is behind
//! by more than its mark.
//!
//! | stage | the room | happens | then |
//! |---|---|---|---|
//! | following | goes on | it is far behind | awaited, quiet or stopped, by when it took last |
//! | awaited | waits | it has taken enough to be half the soft limit below its mark | following |
//! | | | in `slow_timeout` it took 64 KiB, which did not do | awaited, anew |
//! | | | in `slow_timeout` it took less than that: it drips | closed |
//! | | | it is silent | quiet, or stopped if it was quiet before and has dripped since |
//! | quiet | goes on, slowly | it takes | following, or awaited anew |
//! | | | it has taken nothing for six times `slow_timeout` | stopped |
//! | | | it is behind by more than the queue limit | closed |
//! | stopped | goes on | it takes | following, with a mark of its own |
//! | | | it is behind by more than the queue limit | closed |
//!
//! Why *quiet*: that a socket takes nothing for some seconds does not say that nobody reads there. A
//! receiver whose buffer was full tells of room only when a sixteenth of it is free, and of some
//! megabytes that is a quarter of one. So for a minute the room goes on at a pace at which the queue is
//! not full before the minute is over: a chat does not notice, a flood does. What it took meanwhile is
//! no measure of how fast it reads, so it is judged by what it takes from then on. But if it took less
//! in all that time than 64 KiB for each `slow_timeout`, it is not waited for like that again.
//!
//! The *mark* is the soft limit. But a member that comes back after it had stopped, a person who
//! pressed Enter after half an hour, may be far behind on its own account, and the others are not to
//! be silenced until it has read all that. Its mark is half the soft limit above where it is, and comes
//! down with it: it may fall no further behind, and that is all the room waits for. The same holds for
//! a newcomer that is told the history.
//!
//! To wait means to read next to nothing from those who speak: a line each, and all together no more
//! than what the slowest takes who is still waited for. So a flood stops and a chat goes on. Newcomers
//! are let in, names are read, and what is queued is written. A member that hears only answers to what
//! it says itself (`ack64`) does not keep the others waiting: only it is not read from, and it may drip.
//!
//! With `--slow cut` everybody is following, and is closed over the queue limit; so is always who hears
//! nothing but the time.

use std::time::{Duration, Instant};

use super::deadline::after;
use super::limits::{Limits, Slow};
use crate::wire::Hears;

/// What an awaited member has to take in `slow_timeout`, in bytes: about what a socket takes at a time.
const LEAST: u64 = 64 * 1024;

/// For how many times `slow_timeout` a member that takes nothing may still be one that reads.
const QUIET: u32 = 6;

/// The limits that pacing goes by.
#[derive(Clone, Debug)]
pub(super) struct PaceLimits {
    /// The room waits for nobody.
    is_off: bool,
    soft: u64,
    queue: u64,
    timeout: Duration,
    /// What an awaited member has to take in this time, in bytes.
    least: u64,
}

impl PaceLimits {
    /// Those for members who hear this. Whoever could be made to wait for one that hears the time says
    /// nothing.
    pub(super) fn new(limits: &Limits, hears: Hears) -> Self {
        let (soft, queue) = (limits.soft_limit as u64, limits.queue_limit as u64);
        Self {
            is_off: limits.slow == Slow::Cut || soft >= queue || hears == Hears::Time,
            soft,
            queue,
            timeout: limits.slow_timeout,
            // Nobody waits for one that hears only answers but itself.
            least: if hears == Hears::Nothing { 0 } else { LEAST },
        }
    }

    /// Whether the room waits for nobody.
    pub(super) const fn is_off(&self) -> bool {
        self.is_off
    }

    /// Whether to take this much in this time is to drip.
    fn is_dripping(&self, taken: u64, elapsed: Duration) -> bool {
        let due = u128::from(self.least) * elapsed.as_nanos();
        u128::from(taken) * self.timeout.as_nanos() < due
    }

    /// After how long of taking nothing a member is quiet.
    fn silence(&self) -> Duration {
        self.timeout / 2
    }

    /// After how long of taking nothing a member has stopped.
    fn patience(&self) -> Duration {
        self.timeout.saturating_mul(QUIET)
    }

    /// The mark of a member that is this far behind on its own account.
    fn own_mark(&self, behind: u64) -> u64 {
        behind.saturating_add(self.soft / 2).max(self.soft)
    }
}

/// How a member that is behind takes what is queued for it.
#[derive(Debug)]
pub(super) struct Pace {
    stage: Stage,
    mark: u64,
    /// Up to here it may be behind with nothing to be decided.
    limit: u64,
    took_at: Instant,
    /// Since when the room waits for it.
    since: Instant,
    /// What it has taken since then.
    taken: u64,
    /// When it was quiet last, since it has been behind, and what it has taken since then.
    quiet: Option<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Following,
    Awaited,
    Quiet,
    Stopped,
}

/// What is decided about a member that is far behind, or takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The room waits for it.
    Await {
        /// By this time there is something to be decided again.
        due: Instant,
        /// How many bytes may be said meanwhile, in `slow_timeout`.
        allowance: u64,
    },
    /// The room does not wait for it.
    LetBe,
    /// It has to go: it is too far behind.
    TooFar,
    /// It has to go: this is all that it took while the room waited.
    Drips(u64),
}

impl Pace {
    /// That of a member which falls behind now, because others said more than its socket took.
    pub(super) const fn new(limits: &PaceLimits, now: Instant) -> Self {
        let mark = if limits.is_off {
            limits.queue
        } else {
            limits.soft
        };
        Self {
            stage: Stage::Following,
            mark,
            limit: mark,
            took_at: now,
            since: now,
            taken: 0,
            quiet: None,
        }
    }

    /// That of a member which begins this far behind.
    pub(super) fn behind_from_the_start(behind: u64, limits: &PaceLimits, now: Instant) -> Self {
        let mut pace = Self::new(limits, now);
        if !limits.is_off {
            pace.follow(limits.own_mark(behind), limits);
        }
        pace
    }

    /// Up to here it may be behind, in bytes, with nothing to be decided.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    fn follow(&mut self, mark: u64, limits: &PaceLimits) {
        self.stage = Stage::Following;
        self.mark = mark;
        self.limit = mark.min(limits.queue);
    }

    /// Its socket took this much, and it is this far behind now.
    pub(super) fn took(
        &mut self,
        sent: u64,
        behind: u64,
        limits: &PaceLimits,
        now: Instant,
    ) -> Verdict {
        self.took_at = now;
        if limits.is_off {
            return Verdict::LetBe;
        }
        if self.stage == Stage::Quiet {
            (self.since, self.taken) = (now, 0);
        }
        self.taken = self.taken.saturating_add(sent);
        if let Some((_, taken)) = &mut self.quiet {
            *taken = taken.saturating_add(sent);
        }
        match self.stage {
            Stage::Following => self.follow(self.mark.min(limits.own_mark(behind)), limits),
            Stage::Awaited | Stage::Quiet if behind > self.mark - limits.soft / 2 => {
                self.stage = Stage::Awaited;
                return self.decide(behind, limits, now);
            }
            Stage::Awaited | Stage::Quiet => {
                self.follow(self.mark.min(limits.own_mark(behind)), limits);
            }
            Stage::Stopped => self.follow(limits.own_mark(behind), limits),
        }
        Verdict::LetBe
    }

    /// It is further behind than [`limit`](Self::limit).
    pub(super) fn judge(&mut self, behind: u64, limits: &PaceLimits, now: Instant) -> Verdict {
        if self.stage != Stage::Following || limits.is_off {
            return Verdict::TooFar;
        }
        self.stage = Stage::Awaited;
        (self.since, self.taken) = (now, 0);
        self.decide(behind, limits, now)
    }

    /// Some time has passed: decides about a member that the room waits for.
    pub(super) fn expire(&mut self, behind: u64, limits: &PaceLimits, now: Instant) -> Verdict {
        match self.stage {
            Stage::Awaited | Stage::Quiet => self.decide(behind, limits, now),
            Stage::Following | Stage::Stopped => Verdict::LetBe,
        }
    }

    /// Decides about a member that is far behind.
    fn decide(&mut self, behind: u64, limits: &PaceLimits, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.took_at);
        if silence < limits.silence() {
            if now.saturating_duration_since(self.since) >= limits.timeout {
                if self.taken < limits.least {
                    return Verdict::Drips(self.taken);
                }
                (self.since, self.taken) = (now, 0);
            }
            self.stage = Stage::Awaited;
            // However far that is: had it been less, the room would have waited as well.
            self.limit = u64::MAX;
            let silent_at = after(self.took_at, limits.silence());
            return Verdict::Await {
                due: silent_at.min(after(self.since, limits.timeout)),
                allowance: LEAST,
            };
        }
        if behind > limits.queue {
            return Verdict::TooFar;
        }
        self.limit = limits.queue;
        if silence < limits.patience() && self.may_be_quiet(limits, now) {
            self.stage = Stage::Quiet;
            return Verdict::Await {
                due: after(self.took_at, limits.patience()),
                allowance: LEAST.max((limits.queue - behind) / u64::from(QUIET)),
            };
        }
        self.stage = Stage::Stopped;
        Verdict::LetBe
    }

    /// Whether one that is silent may be one that reads. It is quiet from now on if it was not.
    fn may_be_quiet(&mut self, limits: &PaceLimits, now: Instant) -> bool {
        if self.stage == Stage::Quiet {
            return true;
        }
        let has_dripped = self.quiet.is_some_and(|(since, taken)| {
            limits.is_dripping(taken, now.saturating_duration_since(since))
        });
        if !has_dripped {
            self.quiet = Some((now, 0));
        }
        !has_dripped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The room waits for who is more than 1000 bytes behind, and closes who is more than 100,000.
    fn limits() -> PaceLimits {
        PaceLimits::new(
            &Limits {
                soft_limit: 1000,
                queue_limit: 100_000,
                slow_timeout: 10 * SECOND,
                ..Limits::default()
            },
            Hears::Frames,
        )
    }

    /// The room waits until then, and may say this much in ten seconds.
    fn until(due: Instant, allowance: u64) -> Verdict {
        Verdict::Await { due, allowance }
    }

    #[test]
    fn who_is_behind_on_its_own_account_may_fall_behind_by_half_the_soft_limit_more() {
        let (limits, now) = (limits(), Instant::now());
        for (behind, mark) in [
            (0, 1000),
            (500, 1000),
            (501, 1001),
            (82_499, 82_999),
            (99_500, 100_000),
            (1_000_000, 100_000),
        ] {
            let pace = Pace::behind_from_the_start(behind, &limits, now);
            assert_eq!(pace.limit(), mark, "{behind} behind");
            // The same for who had stopped, and takes something.
            let mut pace = Pace::new(&limits, now);
            let later = now + 60 * SECOND;
            assert_eq!(pace.judge(1001, &limits, later), Verdict::LetBe);
            assert_eq!(pace.took(1, behind, &limits, later), Verdict::LetBe);
            assert_eq!(pace.limit(), mark, "{behind} behind, and back");
        }
    }

    #[test]
    fn who_reads_what_it_has_missed_may_fall_no_further_behind_than_before() {
        let (limits, now) = (limits(), Instant::now());
        let mut pace = Pace::behind_from_the_start(3000, &limits, now);
        for (behind, mark) in [
            (3400, 3500),
            (2000, 2500),
            (2400, 2500),
            (0, 1000),
            (900, 1000),
        ] {
            assert_eq!(pace.took(1, behind, &limits, now), Verdict::LetBe);
            assert_eq!(pace.limit(), mark, "{behind} behind");
        }
    }

    #[test]
    fn who_has_stopped_is_too_far_behind_over_the_queue_limit_and_not_at_it() {
        let (limits, now) = (limits(), Instant::now());
        for (behind, verdict) in [(100_000, Verdict::LetBe), (100_001, Verdict::TooFar)] {
            let mut pace = Pace::new(&limits, now);
            let later = now + 60 * SECOND;
            assert_eq!(pace.judge(behind, &limits, later), verdict, "{behind}");
            if verdict == Verdict::LetBe {
                assert_eq!(pace.limit(), 100_000, "that is decided");
            }
        }
    }

    #[test]
    fn who_reads_is_not_too_far_behind_however_far_that_is() {
        let (limits, now) = (limits(), Instant::now());
        let mut pace = Pace::new(&limits, now);
        let due = until(now + 5 * SECOND, LEAST);
        assert_eq!(pace.judge(1_000_000, &limits, now), due);
        assert_eq!(pace.limit(), u64::MAX);
        // But it is, if it takes nothing more.
        let silent = now + 5 * SECOND;
        assert_eq!(pace.expire(1_000_000, &limits, silent), Verdict::TooFar);
    }

    #[test]
    fn who_takes_nothing_is_quiet_after_half_of_the_time_and_has_stopped_after_six_times_that_time()
    {
        let (limits, now) = (limits(), Instant::now());
        let just_before = |seconds: u64| now + Duration::from_nanos(seconds * 1_000_000_000 - 1);
        let mut pace = Pace::new(&limits, now);
        let awaited = until(now + 5 * SECOND, LEAST);
        assert_eq!(pace.judge(1001, &limits, now), awaited);
        assert_eq!(pace.expire(1001, &limits, just_before(5)), awaited);
        // In a minute the room may say no more than there is room for, and never less than the least.
        let minute = now + 60 * SECOND;
        let quiet = until(minute, LEAST);
        assert_eq!(pace.expire(1001, &limits, now + 5 * SECOND), quiet);
        assert_eq!(pace.expire(1001, &limits, just_before(60)), quiet);
        assert_eq!(pace.expire(1001, &limits, minute), Verdict::LetBe);
        assert_eq!(pace.limit(), 100_000);
        // A longer queue has room for more.
        let long = PaceLimits::new(&Limits::default(), Hears::Frames);
        let mut pace = Pace::new(&long, now);
        let later = now + 5 * SECOND;
        let quiet = until(minute, (8 * 1024 * 1024 - 2_000_000) / 6);
        assert_eq!(pace.judge(2_000_000, &long, later), quiet);
        // It takes something, but not enough, and the room waits again.
        let awaited = until(later + 5 * SECOND, LEAST);
        assert_eq!(pace.took(1, 1_999_999, &long, later), awaited);
        // It takes enough.
        let half = 512 * 1024;
        assert_eq!(pace.took(1, half + 1, &long, later), awaited);
        assert_eq!(pace.took(1, half, &long, later), Verdict::LetBe);
        assert_eq!(pace.expire(half, &long, minute), Verdict::LetBe);
    }

    #[test]
    fn who_takes_64_kib_in_time_has_as_much_time_again() {
        let (limits, now) = (limits(), Instant::now());
        let (then, end) = (now + 6 * SECOND, now + 10 * SECOND);
        for (taken, verdict) in [
            (65_535, Verdict::Drips(65_535)),
            (65_536, until(then + 5 * SECOND, LEAST)),
        ] {
            let mut pace = Pace::new(&limits, now);
            let first = until(now + 5 * SECOND, LEAST);
            assert_eq!(pace.judge(90_000, &limits, now), first);
            pace.took(taken - 1, 9001, &limits, now + 2 * SECOND);
            pace.took(1, 9000, &limits, then);
            let early = now + Duration::from_nanos(9_999_999_999);
            assert_eq!(pace.expire(9000, &limits, early), until(end, LEAST));
            assert_eq!(pace.expire(9000, &limits, end), verdict);
        }
    }

    #[test]
    fn who_was_quiet_is_judged_by_what_it_takes_from_then_on() {
        let (limits, now) = (limits(), Instant::now());
        let mut pace = Pace::new(&limits, now);
        pace.judge(90_000, &limits, now);
        pace.expire(90_000, &limits, now + 6 * SECOND);
        let end = now + 50 * SECOND;
        let awaited = until(end + 5 * SECOND, LEAST);
        assert_eq!(pace.took(100, 90_000, &limits, end), awaited);
        for second in 51..60 {
            let verdict = pace.took(100, 90_000, &limits, now + second * SECOND);
            assert!(matches!(verdict, Verdict::Await { .. }), "{verdict:?}");
        }
        let end = now + 60 * SECOND;
        let drips = Verdict::Drips(1100);
        assert_eq!(pace.took(100, 90_000, &limits, end), drips);
    }

    #[test]
    fn who_takes_little_at_long_intervals_is_waited_for_like_that_only_once() {
        // 64 KiB in each ten seconds, of the 47 since it was quiet.
        for (taken, is_awaited) in [(308_019, false), (308_020, true)] {
            let (limits, now) = (limits(), Instant::now());
            let mut pace = Pace::new(&limits, now);
            pace.judge(90_000, &limits, now);
            let quiet = until(now + 60 * SECOND, LEAST);
            assert_eq!(pace.expire(90_000, &limits, now + 5 * SECOND), quiet);
            pace.took(taken, 90_000, &limits, now + 47 * SECOND);
            let verdict = pace.expire(90_000, &limits, now + 52 * SECOND);
            let again = until(now + 107 * SECOND, LEAST);
            let expected = if is_awaited { again } else { Verdict::LetBe };
            assert_eq!(verdict, expected, "{taken}");
            // And that is so for as long as it is quiet.
            let later = pace.expire(90_000, &limits, now + 100 * SECOND);
            assert_eq!(later, expected, "{taken}");
        }
    }

    #[test]
    fn who_hears_only_answers_may_drip() {
        let limits = PaceLimits {
            least: PaceLimits::new(&Limits::default(), Hears::Nothing).least,
            ..limits()
        };
        let now = Instant::now();
        let mut pace = Pace::new(&limits, now);
        pace.judge(90_000, &limits, now);
        for second in 1..100 {
            let verdict = pace.took(1, 90_000, &limits, now + second * SECOND);
            assert!(matches!(verdict, Verdict::Await { .. }), "{verdict:?}");
        }
    }
}
