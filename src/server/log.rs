//! The server's log: all wording, all levels, the names of the flags, and what is logged how often.
//!
//! The relay reports events and the acceptor its troubles; here they become lines. One event is one
//! line, with the flag that sets a limit where a limit was met. What can happen over and over is logged
//! at most once in [`LOG_INTERVAL`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, debug, info, log, log_enabled, trace, warn};

use super::access::Denied;
use super::lobby::Refused;
use super::proxy_header::BadHeader;
use super::tls::TlsError;
use crate::relay::{
    CloseReason, Counters, EndedBy, Identity, LimitsError, MemberCounts, MemberInfo, Relay,
    RoomEvent,
};
use crate::text::Quoted;
use crate::wire::{Dialect, FrameError, Naming, Sends, header};

/// How long a repeated event is not logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Logs a repeated event at most once in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether the event is to be logged now. If so, it counts as logged.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .0
            .is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Why a connection was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its address has this many connections already.
    AddressFull(usize),
    /// There are this many connections already.
    RelayFull(usize),
    /// It came to a listener for proxies, and is none that is trusted.
    NoProxy,
    /// The name in its certificate cannot be a member's.
    CertificateName(Box<[u8]>),
    /// Its address may not connect.
    Denied(Denied),
    /// The system cannot watch one more.
    Unwatchable(io::Error),
}

/// What one turn did, for the trace.
#[derive(Debug)]
pub(super) struct TurnTrace {
    /// Which turn it is, counted from the start.
    pub(super) number: u64,
    /// How long the poll took, and when it returned.
    pub(super) polled: (Duration, Instant),
    /// How many events it returned.
    pub(super) events: usize,
    /// The counters before the turn.
    pub(super) before: Counters,
}

/// The file of the trace has no room for the next turn.
pub(super) fn trace_is_full() {
    warn!("the trace ends here (limit: --trace-max)");
}

/// The trace cannot be written.
pub(super) fn trace_failed(error: &io::Error) {
    warn!("the trace ends here: {error}");
}

/// The server's log. It remembers what it logged when.
#[derive(Debug)]
pub(super) struct ServerLog {
    /// Whether there is more than one dialect to tell apart.
    is_mixed: bool,
    pause: LogThrottle,
    /// The beginning of the pause was logged, so its end will be.
    has_logged_pause: bool,
    throttled: LogThrottle,
    refusal: LogThrottle,
    handshake: LogThrottle,
    accept_rate: LogThrottle,
    shortage: LogThrottle,
    /// The beginning of the shortage was logged, so its end will be.
    has_logged_shortage: bool,
}

impl ServerLog {
    /// The log of a server that serves these dialects.
    pub(super) fn new(served: &[Dialect]) -> Self {
        Self {
            is_mixed: served.iter().any(|dialect| *dialect != served[0]),
            pause: LogThrottle::default(),
            has_logged_pause: false,
            throttled: LogThrottle::default(),
            refusal: LogThrottle::default(),
            handshake: LogThrottle::default(),
            accept_rate: LogThrottle::default(),
            shortage: LogThrottle::default(),
            has_logged_shortage: false,
        }
    }

    /// How many members there are, in words.
    pub(super) const fn members(&self, counts: MemberCounts) -> MembersText {
        MembersText {
            counts,
            is_mixed: self.is_mixed,
        }
    }

    /// An event of the room.
    pub(super) fn event(&mut self, event: &RoomEvent, now: Instant) {
        match event {
            RoomEvent::Accepted(peer) => debug!("accepted: {}", peer.peer),
            RoomEvent::Joined { member, members } => {
                info!("joined: {}, {}", Who(member), self.members(*members));
            }
            RoomEvent::Left {
                peer,
                reason,
                members,
                unread,
                ..
            } => self.left(peer, reason, *members, *unread),
            RoomEvent::Closed {
                peer,
                reason,
                members,
            } => self.closed(peer, reason, *members, 0),
            RoomEvent::PauseBegan { reader, lag } => {
                if self.pause.is_due(now) {
                    self.has_logged_pause = true;
                    let who = Who(reader);
                    info!(
                        "senders paused: slow reader {who} lags by {lag} bytes (limit: --soft-limit)"
                    );
                }
            }
            RoomEvent::PauseEnded { lasted } => {
                if std::mem::take(&mut self.has_logged_pause) {
                    let seconds = lasted.as_secs_f64();
                    info!("senders resumed after {seconds:.1} s");
                }
            }
            RoomEvent::Published { .. } => {}
            RoomEvent::Throttled { member, wait } => {
                if self.throttled.is_due(now) {
                    let (who, seconds) = (Who(member), wait.as_secs_f64());
                    info!("throttled for {seconds:.1} s: {who} (limit: --rate)");
                }
            }
        }
    }

    /// A member left, or a pending connection ended: `left` if the peer or the network ended it,
    /// `closed` if the relay did.
    fn left(&self, peer: &Identity, reason: &CloseReason, members: MemberCounts, unread: u64) {
        if reason.info().ended_by == EndedBy::Relay {
            return self.closed(peer, reason, members, unread);
        }
        match peer.name {
            Some(_) => info!("left: {}: {reason}, {}", Who(peer), self.members(members)),
            // A port scan, or a health check.
            None => debug!("left without a name: {}: {reason}", Who(peer)),
        }
    }

    /// The relay closed a connection. Where a limit was met, the line has the flag that sets it. It is a
    /// warning if a member lost output or a message, or a peer its name. A member's unread input is logged:
    /// its last messages may be in it.
    fn closed(&self, peer: &Identity, reason: &CloseReason, members: MemberCounts, unread: u64) {
        let (who, members) = (Who(peer), self.members(members));
        let (level, flag) = match reason {
            CloseReason::SlowConsumer { .. } => (Level::Warn, "--queue-limit"),
            CloseReason::BelowMinimumRate { .. } => (Level::Warn, "--slow-timeout"),
            CloseReason::MessageTimeout => (Level::Warn, "--message-timeout"),
            CloseReason::OutOfMemory { .. } => (Level::Warn, "--max-memory"),
            CloseReason::Protocol(FrameError::TooLong { .. }) if peer.name.is_some() => {
                (Level::Warn, "--max-message")
            }
            CloseReason::Protocol(FrameError::TooLong { .. }) => (Level::Warn, "--max-name"),
            CloseReason::IdleTimeout => (Level::Info, "--idle-timeout"),
            CloseReason::Revoked => (Level::Info, "--client-ca, --client-crl"),
            CloseReason::HandshakeTimeout => (Level::Info, "--handshake-timeout"),
            CloseReason::DrainTimeout { .. } => (Level::Info, "--farewell-timeout"),
            CloseReason::InputIgnored { .. } => (Level::Info, "--max-message"),
            CloseReason::Evicted => (Level::Info, "--max-clients"),
            CloseReason::NameTaken => (Level::Info, "--names"),
            CloseReason::EvictedForAddress => (Level::Info, "--max-per-ip"),
            CloseReason::Protocol(FrameError::BadHeader(header)) => {
                let name = peer.name.as_deref().unwrap_or_default();
                return match likely_sender(peer.dialect, name, header) {
                    Some(sender) => info!("closed: {who}: {reason} ({sender}), {members}"),
                    None => info!("closed: {who}: {reason}, {members}"),
                };
            }
            CloseReason::Shutdown => return debug!("closed: {who}: {reason}"),
            CloseReason::Greeted => return info!("greeted: {who}"),
            CloseReason::Protocol(FrameError::NotUtf8 | FrameError::WebSocket(_))
            | CloseReason::Eof
            | CloseReason::TruncatedFrame
            | CloseReason::Farewell
            | CloseReason::NameRefused
            | CloseReason::Removed
            | CloseReason::Io(_) => return info!("closed: {who}: {reason}, {members}"),
        };
        let unread = match peer.name {
            Some(_) if unread > 0 => format!(", {unread} bytes unread"),
            _ => String::new(),
        };
        log!(
            level,
            "closed: {who}: {reason} (limit: {flag}){unread}, {members}"
        );
    }

    /// A connection was refused.
    pub(super) fn refused(&mut self, peer: SocketAddr, refusal: &Refusal, now: Instant) {
        let level = match refusal {
            // It is what the operator wants.
            Refusal::Denied(_) if self.refusal.is_due(now) => Level::Info,
            _ if self.refusal.is_due(now) => Level::Warn,
            _ => Level::Debug,
        };
        log!(level, "refused: {peer}: {refusal}");
    }

    /// A connection was refused for what it sent, or did not send, before it was the relay's. Any page can
    /// make a browser send a request, so that is no warning. But a proxy without the header is one that is
    /// configured differently, and lets no client in.
    pub(super) fn refused_visit(&mut self, peer: SocketAddr, reason: &Refused, now: Instant) {
        let level = match reason {
            Refused::BadHeader(_) | Refused::LateHeader if self.refusal.is_due(now) => Level::Warn,
            Refused::Handshake(_) if self.handshake.is_due(now) => Level::Info,
            Refused::Denied(_) | Refused::Password { is_missing: false }
                if self.refusal.is_due(now) =>
            {
                Level::Info
            }
            _ => Level::Debug,
        };
        match reason {
            Refused::Host(host) => info!(
                "refused: {peer}: asked for the host {} (allow it: --ws-host)",
                Quoted(host.as_bytes())
            ),
            Refused::Origin(origin) => info!(
                "refused: {peer}: a page of {} (allow it: --ws-origin)",
                Quoted(origin.as_bytes())
            ),
            Refused::Password { is_missing: true } => debug!("refused: {peer}: no password"),
            Refused::Password { is_missing: false } => {
                log!(
                    level,
                    "refused: {peer}: a wrong password (limit: --password-file)"
                );
            }
            Refused::Denied(denied) => log!(level, "refused: {peer}: {denied}"),
            Refused::Request(what) => debug!("refused: {peer}: {what}"),
            Refused::BadHeader(bad) => log!(
                level,
                "refused: {peer}: {bad} (for clients without a proxy: --listen without proxy+)"
            ),
            Refused::LateHeader => log!(
                level,
                "refused: {peer}: {} in time (limit: --handshake-timeout)",
                BadHeader::NoHeader
            ),
            Refused::Handshake(failure) => {
                let hint = if failure.is_other_protocol() {
                    " (for clients without TLS: --listen without tls+)"
                } else {
                    ""
                };
                log!(level, "refused: {peer}: TLS handshake: {failure}{hint}");
            }
            Refused::LateHandshake => {
                debug!("refused: {peer}: no TLS handshake in time (limit: --handshake-timeout)");
            }
            Refused::UnexpectedHeader => info!(
                "refused: {peer}: sent a header of the PROXY protocol (expect it: --listen \
                 proxy+ws://)"
            ),
        }
    }

    /// There is no descriptor for the connections that wait to be accepted.
    pub(super) fn shortage_began(&mut self, error: &io::Error, now: Instant) {
        // When one connection after the other has to wait a moment, once in a while will do.
        self.has_logged_shortage = self.shortage.is_due(now);
        if self.has_logged_shortage {
            let hint = match error.raw_os_error() {
                Some(libc::EMFILE) => " (raise the open-file limit, or lower --max-clients)",
                _ => "",
            };
            warn!("cannot accept: {error}{hint}; connections wait in the kernel");
        }
    }

    /// All connections that waited were accepted or refused.
    pub(super) fn shortage_ended(&mut self, lasted: Duration, refused: u64) {
        if std::mem::take(&mut self.has_logged_shortage) {
            let seconds = lasted.as_secs_f64();
            info!("accepting again after {seconds:.1} s; refused meanwhile: {refused}");
        }
    }

    /// Connections come faster than they may be accepted.
    pub(super) fn accept_rate_reached(&mut self, now: Instant) {
        if self.accept_rate.is_due(now) {
            info!("accept rate reached, connections wait in the kernel (limit: --accept-rate)");
        }
    }

    /// The server was asked to stop.
    pub(super) fn stopping<S>(&self, asked_by: &str, relay: &Relay<S>, drain: Duration) {
        let members = self.members(relay.members());
        match relay.lagging() {
            0 => info!("{asked_by}: stopping, {members}, no output pending"),
            lagging => info!(
                "{asked_by}: stopping, {members}, {lagging} of them with output pending, {} bytes; \
                 they have {} to read it (limit: --drain)",
                relay.unread_bytes(),
                humantime::format_duration(drain)
            ),
        }
    }

    /// The server was asked to stop a second time.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn stopping_at_once(&self, asked_by: &str) {
        info!("{asked_by} while stopping: stopping at once");
    }

    /// The drain ended with output pending.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn drain_timed_out(&self, lagging: usize) {
        let plural = if lagging == 1 { "" } else { "s" };
        warn!("{lagging} member{plural} did not read pending output in time (limit: --drain)");
    }

    /// The server has stopped.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn stopped(&self, uptime: Duration, counters: &Counters) {
        let uptime = humantime::format_duration(Duration::from_secs(uptime.as_secs()));
        info!("stopped after {uptime}: {counters}");
    }

    /// SIGHUP came.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn nothing_to_reload(&self) {
        info!("SIGHUP: there is no configuration to reload");
    }

    /// SIGHUP came, and new connections are given another certificate from now on.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn reloaded(&self, expires: SystemTime) {
        let expires = humantime::format_rfc3339_seconds(expires);
        info!("SIGHUP: reloaded the certificate and its key; it expires on {expires}");
    }

    /// SIGHUP came, and a file cannot be used.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn reload_failed(&self, error: &TlsError) {
        warn!("SIGHUP: nothing was reloaded, and the old certificate is used on: {error}");
    }

    /// The certificate is valid only for so long.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn certificate_expires(&self, left: Duration) {
        let hours = left.as_secs() / 3600;
        match (hours / 24, hours) {
            (0, 0) => warn!(
                "the certificate has expired, or will within an hour: renew --cert, send SIGHUP"
            ),
            (0, hours) => warn!("the certificate expires in {hours} h: renew --cert, send SIGHUP"),
            (days, _) => warn!("the certificate expires in {days} days: renew --cert, send SIGHUP"),
        }
    }

    /// The operator has done something at the admin socket.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn act(&self, text: &str) {
        info!("admin: {text}");
    }

    /// The members' table, and the totals above it.
    pub(super) fn table<S>(&self, relay: &Relay<S>, bus: Option<impl fmt::Display>, now: Instant) {
        info!(
            "SIGUSR1: {}, {} without a name; {} lagging, {} bytes held{}",
            self.members(relay.members()),
            relay.pending_connections(),
            relay.lagging(),
            relay.held_bytes(),
            if relay.is_paused() {
                "; senders are paused"
            } else {
                ""
            },
        );
        if let Some(bus) = bus {
            info!("{bus}");
        }
        let table = MembersTable { relay, now };
        for line in table.lines() {
            info!("{line}");
        }
    }

    /// Whether turns are traced.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn traces_turns(&self) -> bool {
        log_enabled!(Level::Trace)
    }

    /// One line about a turn.
    #[allow(clippy::unused_self, reason = "all lines are the log's")]
    pub(super) fn turn<S>(
        &self,
        turn: &TurnTrace,
        relay: &Relay<S>,
        next: Option<Duration>,
        now: Instant,
    ) {
        let (before, after) = (&turn.before, relay.counters());
        let (waited, polled_at) = turn.polled;
        let next = next.map_or_else(|| "none".to_owned(), |next| format!("in {next:.1?}"));
        trace!(
            "turn {}: polled {waited:.1?}, {} events; {} reads of {} B, {} messages published; {} writes \
             of {} B; {} lagging, {} B in backlogs{}; next timeout {next}; took {:.1?}",
            turn.number,
            turn.events,
            after.reads - before.reads,
            after.bytes_in - before.bytes_in,
            after.messages - before.messages,
            after.writes - before.writes,
            after.bytes_out - before.bytes_out,
            relay.lagging(),
            relay.backlog_bytes(),
            if relay.is_paused() { ", paused" } else { "" },
            now.saturating_duration_since(polled_at),
        );
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressFull(limit) => write!(
                f,
                "{limit} connections come from this address already (limit: --max-per-ip)"
            ),
            Self::RelayFull(limit) => {
                write!(f, "all {limit} places are taken (limit: --max-clients)")
            }
            Self::NoProxy => f.write_str(
                "no trusted proxy, and only those may connect here (limit: --trust-proxy)",
            ),
            Self::CertificateName(name) => write!(
                f,
                "{} in its certificate is no name of a member (limit: --max-name)",
                Quoted(name)
            ),
            Self::Denied(denied) => denied.fmt(f),
            Self::Unwatchable(error) => {
                write!(f, "the system cannot watch one more connection: {error}")
            }
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("in no network that may connect (limit: --allow)"),
            Self::Listed(network) => {
                write!(f, "{network} may not connect (limit: --deny)")
            }
            Self::Banned(banned) => write!(f, "{banned} is banned"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("closed the connection"),
            Self::TruncatedFrame => f.write_str("closed the connection inside a frame"),
            Self::Protocol(error) => error.fmt(f),
            Self::HandshakeTimeout => f.write_str("sent no name in time"),
            Self::SlowConsumer { lag } => write!(f, "slow consumer, lagged by {lag} bytes"),
            Self::BelowMinimumRate { accepted } => write!(
                f,
                "below the minimum read rate: read {accepted} bytes while senders were paused"
            ),
            Self::MessageTimeout => f.write_str("did not complete a message in time"),
            Self::IdleTimeout => f.write_str("sent nothing for too long"),
            Self::OutOfMemory { held } => {
                write!(f, "memory limit reached, and it held {held} bytes")
            }
            Self::Farewell => f.write_str("sent its farewell"),
            Self::DrainTimeout { pending } => {
                write!(f, "had left with {pending} bytes of output unread")
            }
            Self::Greeted => f.write_str("was greeted"),
            Self::InputIgnored { max } => {
                write!(f, "sent more than {max} bytes where input has no meaning")
            }
            Self::Evicted => f.write_str("evicted: relay full"),
            Self::EvictedForAddress => f.write_str("evicted: its address is at its limit"),
            Self::Io(kind) => kind.fmt(f),
            Self::NameTaken => f.write_str("another member has this name"),
            Self::NameRefused => f.write_str("the name was refused"),
            Self::Revoked => f.write_str("its certificate is not valid any more"),
            Self::Removed => f.write_str("removed by the program"),
            Self::Shutdown => f.write_str("the relay stops"),
        }
    }
}

impl fmt::Display for Counters {
    /// The counters on one line: the totals always, and of the close reasons those that occurred.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            refused,
            joined,
            peak_members,
            messages,
            deliveries,
            reads: _,
            bytes_in,
            writes: _,
            bytes_out,
            bytes_discarded,
            pauses,
            paused,
            throttles,
            closed,
        } = self;
        write!(
            f,
            "accepted {accepted}, refused {refused}, joined {joined}, peak {peak_members}, \
             messages {messages}, deliveries {deliveries}, bytes in {bytes_in}, bytes out {bytes_out}, bytes discarded \
             {bytes_discarded}"
        )?;
        if *pauses > 0 {
            let seconds = paused.as_secs_f64();
            write!(f, "; paused {pauses} times, {seconds:.1} s")?;
        }
        if *throttles > 0 {
            write!(f, "; throttled {throttles} times")?;
        }
        let mut sep = "; closed: ";
        for (info, count) in closed.iter().filter(|&(_, count)| count > 0) {
            write!(f, "{sep}{} {count}", info.label)?;
            sep = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchHeader { what, bytes } => write!(
                f,
                "--max-{what} {bytes}: a header announces at most {} bytes",
                header::MAX_LEN
            ),
            Self::QueueTooShort {
                queue_limit,
                needed,
            } => write!(
                f,
                "--queue-limit of {queue_limit} bytes cannot hold one largest message: make it at \
                 least {needed}, or lower --max-message"
            ),
            Self::SoftOverHard {
                soft_limit,
                queue_limit,
            } => write!(
                f,
                "--soft-limit of {soft_limit} bytes is not below the --queue-limit of {queue_limit}: \
                 lower it, or raise --queue-limit"
            ),
            Self::TooLittleMemory { max_memory, needed } => write!(
                f,
                "--max-memory of {max_memory} bytes is less than one member may need: make it at \
                 least {needed}, or lower --queue-limit"
            ),
            Self::TooMuchHistory {
                history_bytes,
                room,
            } => write!(
                f,
                "--history-bytes of {history_bytes} (1MiB if not given) do not fit the queue of a \
                 new member: lower them to {room}, or raise --queue-limit"
            ),
            Self::NoBudget => f.write_str("a work budget of zero would never do any work"),
        }
    }
}

impl std::error::Error for LimitsError {}

/// A connection as the log names it: its name, escaped, if it has one, else its dialect; and where it
/// comes from.
struct Who<'a>(&'a Identity);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            name,
            dialect,
            peer,
            ..
        } = self.0;
        match (name, dialect.rules().naming) {
            (Some(name), Naming::FirstFrame) => write!(f, "{} ", Quoted(name))?,
            (None, Naming::FirstFrame) => {}
            (_, Naming::Address) => write!(f, "{dialect} ")?,
        }
        peer.fmt(f)
    }
}

/// How many members there are; where they may have different dialects, how many have which.
#[derive(Debug)]
pub struct MembersText {
    counts: MemberCounts,
    is_mixed: bool,
}

impl fmt::Display for MembersText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.counts.total();
        let plural = if total == 1 { "" } else { "s" };
        write!(f, "{total} member{plural}")?;
        if !self.is_mixed || total == 0 {
            return Ok(());
        }
        let mut sep = " (";
        for dialect in Dialect::ALL {
            let count = self.counts.of(dialect);
            if count > 0 {
                write!(f, "{sep}{count} {dialect}")?;
                sep = ", ";
            }
        }
        f.write_str(")")
    }
}

const COLUMNS: usize = 7;

/// The head of the members' table. `sent` and `received` are messages, `pending` are bytes.
///
/// The name is last, where nothing has to be aligned with its end: how many columns a name takes depends
/// on its script and on the terminal. All other cells are ASCII.
const HEAD: [&str; COLUMNS] = [
    "address", "dialect", "age", "sent", "received", "pending", "name",
];

/// The members as a table. Nothing of it is kept but the widths of the columns, however many members
/// there are.
struct MembersTable<'a, S> {
    relay: &'a Relay<S>,
    now: Instant,
}

impl<S> MembersTable<'_, S> {
    /// The table's lines: the head, and one for each member.
    fn lines(&self) -> impl Iterator<Item = String> {
        let mut widths = HEAD.map(str::len);
        for row in self.rows() {
            for (width, cell) in widths.iter_mut().zip(&row) {
                *width = cell.len().max(*width);
            }
        }
        let head = HEAD.map(str::to_owned);
        std::iter::once(head)
            .chain(self.rows())
            .map(move |row| line(&row, &widths))
    }

    fn rows(&self) -> impl Iterator<Item = [String; COLUMNS]> {
        let members = self.relay.member_infos(self.now);
        members.map(|member| row(&member))
    }
}

fn row(member: &MemberInfo<'_>) -> [String; COLUMNS] {
    let rules = member.dialect.rules();
    [
        member.peer.to_string(),
        rules.name.to_owned(),
        humantime::format_duration(member.age).to_string(),
        if rules.sends.is_chat() {
            member.sent.to_string()
        } else {
            "-".to_owned()
        },
        member.received.to_string(),
        member.pending.to_string(),
        match rules.naming {
            Naming::FirstFrame => Quoted(member.name).to_string(),
            Naming::Address => "-".to_owned(),
        },
    ]
}

/// A line of the table: texts are aligned on the left, numbers on the right.
fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let [numbers, name] = [2, COLUMNS - 1];
    let cell = |(column, (cell, &width))| {
        if column < numbers {
            format!("{cell:width$}")
        } else if column < name {
            format!("{cell:>width$}")
        } else {
            String::clone(cell)
        }
    };
    let cells: Vec<_> = row.iter().zip(widths).enumerate().map(cell).collect();
    cells.join("  ")
}

/// The likely client behind an invalid header, as a hint in the line about its end.
fn likely_sender(dialect: Dialect, name: &[u8], header: &[u8]) -> Option<&'static str> {
    let spaces = |bytes: &[u8]| bytes.iter().take_while(|&&byte| byte == b' ').count();
    let Sends::Frames(width) = dialect.rules().sends else {
        return None;
    };
    let starters: [(&[u8], &str); 7] = [
        (b"PROXY ", "a proxy? its listener is proxy+chat10://"),
        (b"\r\n\r\n\0", "a proxy? its listener is proxy+chat10://"),
        (b"GET ", "an HTTP request?"),
        (b"POST ", "an HTTP request?"),
        (b"HEAD ", "an HTTP request?"),
        (b"SSH-", "an ssh client?"),
        // A handshake record, of version 3 and something (RFC 8446, 5.1).
        (b"\x16\x03", "a TLS client?"),
    ];
    let known = starters.iter().find(|(start, _)| header.starts_with(start));
    if let Some(&(_, sender)) = known {
        return Some(sender);
    }
    // What follows the first ten bytes of a 64-byte header is spaces, which here begin the name.
    if width == header::WIDTH && (spaces(header) == width || spaces(name) >= header::WIDTH) {
        return Some("a client with 64-byte headers? its listener is chat64:// or ack64://");
    }
    let narrow = header.get(..header::WIDTH);
    if width == header::WIDE && narrow.is_some_and(|narrow| header::parse(narrow).is_some()) {
        return Some("a client with ten-byte headers? its listener is chat10://");
    }
    let is_typed = |&byte: &u8| byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n');
    let ends_line = header.contains(&b'\n');
    (ends_line && header.iter().all(is_typed)).then_some("text typed into nc?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{ConnId, Limits, Ready, ReplyTexts};
    use std::io::{Read, Write};

    /// A stream with this input, whose output is discarded.
    struct Stub(&'static [u8]);

    impl Read for Stub {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read),
            }
        }
    }

    impl Write for Stub {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn table_has_a_line_for_each_member_and_aligned_columns() {
        let mut now = Instant::now();
        let (limits, texts) = (Limits::default(), ReplyTexts::default());
        let mut scratch = vec![0; limits.read_budget];
        let mut relay = Relay::new(limits, &Dialect::ALL, &texts, now);
        let inputs: [(&[u8], _); 5] = [
            (b"8         al\tice's5         hello", Dialect::Chat10),
            (b"", Dialect::Chat64),
            (b"", Dialect::Chat10),
            (b"", Dialect::Greet10),
            ("4         zoë".as_bytes(), Dialect::Chat10),
        ];
        for (port, (input, dialect)) in (4001..).zip(inputs) {
            let peer = SocketAddr::from(([192, 0, 2, 1], port));
            let id = relay.insert(Stub(input), peer, dialect, now);
            relay.note(id, Ready::READABLE);
            now += Duration::from_secs(60);
            relay.serve_ready(&mut scratch, now);
            relay.fan_out(now);
        }
        let now = now + Duration::from_secs(3600);
        let table = MembersTable { relay: &relay, now };
        assert_eq!(
            table.lines().collect::<Vec<_>>(),
            [
                "address         dialect    age  sent  received  pending  name",
                r#"192.0.2.1:4001  chat10   1h 5m     1         0        0  "al\tice's""#,
                "192.0.2.1:4002  chat64   1h 4m     0         0        0  -",
                "192.0.2.1:4004  greet10  1h 2m     -         0        0  -",
                r#"192.0.2.1:4005  chat10   1h 1m     0         0        0  "zoë""#,
            ]
        );
        let log = ServerLog::new(&Dialect::ALL);
        let text = log.members(relay.members()).to_string();
        assert_eq!(text, "4 members (2 chat10, 1 chat64, 1 greet10)");
        let log = ServerLog::new(&[Dialect::Chat10; 2]);
        assert_eq!(log.members(relay.members()).to_string(), "4 members");
        assert_eq!(
            ServerLog::new(&Dialect::ALL)
                .members(MemberCounts::default())
                .to_string(),
            "0 members"
        );
    }

    #[test]
    fn repeated_event_is_logged_again_after_the_interval_and_not_before() {
        let start = Instant::now();
        let mut throttle = LogThrottle::default();
        let times = [0, 0, 9, 10, 11, 19, 20, 100, 109];
        let logged = times.map(|second| throttle.is_due(start + Duration::from_secs(second)));
        let due = [true, false, false, true, false, false, true, true, false];
        assert_eq!(logged, due);
    }

    #[test]
    fn connection_is_named_by_its_name_its_dialect_or_its_address() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 4001));
        for (name, dialect, shown) in [
            (
                Some(&b"al\tice"[..]),
                Dialect::Chat10,
                r#""al\tice" 192.0.2.1:4001"#,
            ),
            (None, Dialect::Chat10, "192.0.2.1:4001"),
            (
                Some(&b"192.0.2.1:4001"[..]),
                Dialect::Ack64,
                "ack64 192.0.2.1:4001",
            ),
            (None, Dialect::Hello, "hello 192.0.2.1:4001"),
        ] {
            let identity = Identity {
                id: ConnId::from(0),
                name: name.map(Into::into),
                dialect,
                peer,
            };
            assert_eq!(Who(&identity).to_string(), shown);
        }
    }

    #[test]
    fn likely_sender_of_a_bad_header_is_guessed() {
        let wide = format!("{:<64}{}", 100, "z".repeat(100)).into_bytes();
        let narrow = b"3         bob5         hello5         hello5         hello5         ";
        let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03";
        let post = b"POST / HTTP/1.1".repeat(5);
        for (dialect, name, header, says) in [
            (
                Dialect::Chat10,
                &b"          "[..],
                &b"          "[..],
                "64-byte",
            ),
            (Dialect::Chat10, &wide[10..110], b"zzzzzzzzzz", "64-byte"),
            (Dialect::Chat64, b"127.0.0.1:1", &narrow[..64], "ten-byte"),
            (Dialect::Chat64, b"127.0.0.1:1", &narrow[..11], "ten-byte"),
            (Dialect::Chat10, b"", b"GET / HTTP", "HTTP"),
            (Dialect::Chat10, b"", b"SSH-2.0-Op", "ssh"),
            (Dialect::Chat10, b"", tls, "TLS"),
            (Dialect::Chat10, b"", b"PROXY TCP4", "proxy+chat10://"),
            (Dialect::Ack64, b"", b"\r\n\r\n\0\r\nQUIT\n", "proxy+"),
            (Dialect::Ack64, b"", &post[..64], "HTTP"),
            (Dialect::Chat10, b"", b"hello\r\nwor", "nc?"),
            (Dialect::Chat64, b"", b"hi\n", "nc?"),
        ] {
            let sender = likely_sender(dialect, name, header).unwrap();
            assert!(sender.contains(says), "{sender}");
        }
        let unknown = likely_sender(Dialect::Chat10, b"alice", b"hello ther");
        assert_eq!(unknown, None);
        assert_eq!(likely_sender(Dialect::Chat64, b"", &[b'x'; 64]), None);
    }

    #[test]
    fn limits_that_contradict_each_other_name_the_flags_and_the_way_out() {
        for (error, says) in [
            (
                LimitsError::QueueTooShort {
                    queue_limit: 179,
                    needed: 180,
                },
                "--queue-limit of 179 bytes cannot hold one largest message: make it at least 180,",
            ),
            (
                LimitsError::NoSuchHeader {
                    what: "message",
                    bytes: 10_000_000_000,
                },
                "--max-message 10000000000: a header announces at most 9999999999 bytes",
            ),
        ] {
            assert!(error.to_string().starts_with(says), "{error}");
        }
    }
}
