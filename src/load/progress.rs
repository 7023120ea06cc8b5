//! What is told while a measurement runs: a bar on a terminal, a line a second elsewhere.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::{Count, time};

/// How often the bar is painted, and the reports are looked at.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is written where there is no bar.
const LINE: Duration = Duration::from_secs(1);

/// How progress is shown. All of it goes to standard error.
#[derive(Debug)]
pub struct Progress(Shown);

#[derive(Debug)]
enum Shown {
    /// As a bar, for a terminal.
    Bar(ProgressBar),
    /// As a line a second, for anything else.
    Lines,
    /// Not at all.
    Nothing,
}

/// How far a phase has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// What is being done.
    pub(super) doing: &'static str,
    /// How much of it is done, from 0 to 1, where that is known.
    pub(super) done: Option<f64>,
    /// How many members there are.
    pub(super) members: usize,
    /// Deliveries so far.
    pub(super) deliveries: u64,
    /// The 99th percentile of the delays so far.
    pub(super) p99: Option<Duration>,
}

/// The progress of one measurement.
#[derive(Debug)]
pub(super) struct Reporter<'p> {
    progress: &'p mut Progress,
    /// Which of several this is: `round 2 of 5, 127.0.0.1:1234`.
    label: String,
    /// When to look again, and when to write the next line.
    tick: Instant,
    line: Instant,
    /// Deliveries at an earlier time, for the rate.
    before: (Instant, u64),
    rate: f64,
}

impl Progress {
    /// A bar on standard error, if that is a terminal, and lines if not.
    #[must_use]
    pub fn on_stderr() -> Self {
        // The bar is painted when we say so: its own ticking would take a thread.
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(12));
        if bar.is_hidden() {
            return Self(Shown::Lines);
        }
        let style = ProgressStyle::with_template("{prefix} {bar:24} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        Self(Shown::Bar(bar))
    }

    /// None at all.
    #[must_use]
    pub const fn silent() -> Self {
        Self(Shown::Nothing)
    }

    /// Says something that is not to be lost from sight.
    pub(super) fn insert(&self, text: &str) {
        match &self.0 {
            Shown::Bar(bar) => bar.suspend(|| complain(text)),
            Shown::Lines => complain(text),
            Shown::Nothing => {}
        }
    }

    /// Takes the bar away: what follows are the results.
    pub(super) fn clear(&self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// An error is ignored: there is no other place for it if standard error is closed.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl<'p> Reporter<'p> {
    pub(super) fn new(progress: &'p mut Progress, label: String) -> Self {
        let now = Instant::now();
        Self {
            progress,
            label,
            tick: now,
            line: now + LINE,
            before: (now, 0),
            rate: 0.0,
        }
    }

    /// Whether it is time to report.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.tick
    }

    pub(super) fn report(&mut self, now: Instant, status: &Status) {
        self.tick = now + BAR_INTERVAL;
        let elapsed = now.duration_since(self.before.0);
        if elapsed >= LINE / 2 {
            let deliveries = status.deliveries.saturating_sub(self.before.1);
            self.rate = deliveries as f64 / elapsed.as_secs_f64();
            self.before = (now, status.deliveries);
        }
        let text = self.text(status);
        match &self.progress.0 {
            Shown::Bar(bar) => {
                bar.set_prefix(status.doing);
                bar.set_position((status.done.unwrap_or(1.0) * 1000.0) as u64);
                bar.set_message(text);
            }
            Shown::Lines if now >= self.line => {
                self.line = now + LINE;
                let done = status.done.map(|done| format!(" {:.0} %", done * 100.0));
                let done = done.unwrap_or_default();
                complain(&format!("{}{done}: {text}", status.doing));
            }
            Shown::Lines | Shown::Nothing => {}
        }
    }

    fn text(&self, status: &Status) -> String {
        let mut text = format!("{} members", Count(status.members as f64));
        if self.rate >= 1.0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {} deliveries/s", Count(self.rate));
        }
        if let Some(p99) = status.p99 {
            let _ = write!(text, ", p99 {}", time(p99));
        }
        if !self.label.is_empty() {
            let _ = write!(text, " ({})", self.label);
        }
        text
    }
}
