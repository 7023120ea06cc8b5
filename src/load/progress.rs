//! The progress of a measurement on standard error: a bar on a terminal, a line a second elsewhere.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::units::{Count, time};

/// How often the bar is painted.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is written where there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The progress bar, which is hidden if standard error is not a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

/// How far a phase has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// The name of the phase.
    pub(super) doing: &'static str,
    /// How much of it is done, from 0 to 1, where that is known.
    pub(super) done: Option<f64>,
    pub(super) members: usize,
    pub(super) deliveries: u64,
    /// The 99th percentile of the delays so far.
    pub(super) p99: Option<Duration>,
}

/// The progress of one round.
#[derive(Debug)]
pub(super) struct Reporter<'p> {
    progress: &'p Progress,
    /// Which of several rounds it is: `round 2 of 5, 127.0.0.1:1234`.
    label: String,
    /// When the next report and the next line are due.
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
        // The bar is painted with each report: its own ticking would take a thread.
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(12));
        let style = ProgressStyle::with_template("{prefix} {bar:24} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        Self(bar)
    }

    /// Writes a line that stays in sight.
    pub(super) fn insert(&self, text: &str) {
        // If standard error is closed, there is no other place for an error.
        let _ = self.0.suspend(|| writeln!(io::stderr(), "{text}"));
    }

    /// Removes the bar before the report.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl<'p> Reporter<'p> {
    pub(super) fn new(progress: &'p Progress, label: String) -> Self {
        let now = Instant::now();
        Self {
            progress,
            label,
            tick: now,
            line: now + LINE_INTERVAL,
            before: (now, 0),
            rate: 0.0,
        }
    }

    /// Whether a report is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.tick
    }

    pub(super) fn report(&mut self, now: Instant, status: &Status) {
        self.tick = now + BAR_INTERVAL;
        let elapsed = now.duration_since(self.before.0);
        if elapsed >= LINE_INTERVAL / 2 {
            let deliveries = status.deliveries.saturating_sub(self.before.1);
            self.rate = deliveries as f64 / elapsed.as_secs_f64();
            self.before = (now, status.deliveries);
        }
        let (text, bar) = (self.text(status), &self.progress.0);
        if !bar.is_hidden() {
            bar.set_prefix(status.doing);
            bar.set_position((status.done.unwrap_or(1.0) * 1000.0) as u64);
            bar.set_message(text);
        } else if now >= self.line {
            self.line = now + LINE_INTERVAL;
            let done = status.done.map(|done| format!(" {:.0} %", done * 100.0));
            let line = format!("{}{}: {text}", status.doing, done.unwrap_or_default());
            self.progress.insert(&line);
        }
    }

    fn text(&self, status: &Status) -> String {
        let mut text = format!("{} members", Count(status.members as f64));
        // Writing to a string does not fail.
        if self.rate >= 1.0 {
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
