//! The certificate of the listeners with TLS: it is loaded, loaded anew, and watched until it expires.

use std::time::{Duration, Instant, SystemTime};

use super::stream::Buffers;
use super::tls::{Credentials, Failure, Session, TlsError, TlsFiles};
use crate::relay::{ConnId, after};

/// How long before it expires a certificate is warned of.
const WARNINGS: [Duration; 4] = [
    Duration::from_secs(30 * DAY),
    Duration::from_secs(7 * DAY),
    Duration::from_secs(DAY),
    Duration::ZERO,
];

/// How many certificates of members are looked at in a turn.
const CHECKS_PER_TURN: usize = 16;

const DAY: u64 = 24 * 60 * 60;

/// What new connections with TLS are given.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    credentials: Credentials,
    buffers: Buffers,
    /// How often the files were read.
    generation: u32,
    /// The connections whose certificates were not looked at since the files were read.
    unchecked: Vec<ConnId>,
    /// When the next warning is due.
    warning: Option<Instant>,
}

impl Certificates {
    /// Reads the files.
    pub(super) fn load(
        files: TlsFiles,
        (now, time): (Instant, SystemTime),
    ) -> Result<Self, TlsError> {
        Ok(Self {
            credentials: Credentials::load(&files, time)?,
            files,
            buffers: Buffers::new(),
            generation: 0,
            unchecked: Vec::new(),
            // If that is soon, it is said at once.
            warning: Some(now),
        })
    }

    /// Reads the files anew. After an error everything is as it was.
    pub(super) fn reload(&mut self, (now, time): (Instant, SystemTime)) -> Result<(), TlsError> {
        self.credentials = Credentials::load(&self.files, time)?;
        self.generation += 1;
        self.warning = Some(now);
        Ok(())
    }

    pub(super) fn session(&self, is_web: bool) -> Result<Session, Failure> {
        Session::new(&self.credentials, is_web, self.generation)
    }

    /// Whether a session began before the files were read.
    pub(super) fn is_older(&self, session: &Session) -> bool {
        session.generation() != self.generation
    }

    /// The certificates of these connections are looked at again, if clients have any.
    pub(super) fn check_again(&mut self, ids: impl IntoIterator<Item = ConnId>) {
        if self.files.demands_certificates() {
            self.unchecked.extend(ids);
        }
    }

    pub(super) fn has_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// The connections whose certificates are looked at in this turn.
    pub(super) fn next_to_check(&mut self) -> Vec<ConnId> {
        let rest = self.unchecked.len().saturating_sub(CHECKS_PER_TURN);
        self.unchecked.split_off(rest)
    }

    pub(super) const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Whether a client that has this session would be refused by now.
    pub(super) fn refuses(&self, session: &Session, time: SystemTime) -> bool {
        self.credentials.refuses(session, time)
    }

    /// When the certificate expires.
    pub(super) const fn expires(&self) -> SystemTime {
        self.credentials.expires()
    }

    /// When the next warning is due.
    pub(super) const fn warning_due(&self) -> Option<Instant> {
        self.warning
    }

    pub(super) fn is_warning_due(&self, now: Instant) -> bool {
        self.warning.is_some_and(|due| due <= now)
    }

    /// How long the certificate is still valid, if its end is near enough for a warning.
    pub(super) fn take_warning(&mut self, now: Instant, time: SystemTime) -> Option<Duration> {
        let left = self.expires().duration_since(time).unwrap_or_default();
        let next = WARNINGS.into_iter().find(|&before| before < left);
        self.warning = next.map(|before| after(now, left.saturating_sub(before)));
        (left <= WARNINGS[0]).then_some(left)
    }
}
