//! The `admin` command: one request to a relay's admin socket.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chatloop::server::Banned;
use chatloop::text::{PercentEncoded, Quoted, Shown};
use chatloop::top::MembersTable;
use unicode_width::UnicodeWidthStr;

use crate::cli::{AdminArgs, AdminCommand, BannedArgs};

/// How long an answer, or a part of it, may take. A relay in a long turn answers after it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers are not read beyond this many bytes. A million members take some 200 MB.
const MAX_ANSWER: u64 = 1 << 28;

/// A relay refuses a longer head of a request.
const MAX_TARGET: usize = 8000;

/// How wide the column of the names is at most.
const MAX_NAME_WIDTH: usize = 32;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum AdminError {
    /// No connection to the socket.
    Connect(PathBuf, io::Error),
    /// The connection failed before the answer was complete.
    Exchange(io::Error),
    /// What answers is no relay.
    NoRelay,
    /// The message is too long for a request.
    TooLong,
    /// The relay refuses, with the reason.
    Refused(String),
    /// Standard output failed.
    Output(io::Error),
}

impl AdminError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::TooLong => 2,
            Self::Connect(..) | Self::Exchange(_) => 4,
            Self::NoRelay => 6,
            Self::Refused(_) | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(path, error) => {
                let quoted = Quoted(path.as_os_str().as_bytes());
                write!(f, "cannot connect to {quoted}: {error}")?;
                match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                        write!(f, "; a relay listens there with --admin {quoted}")
                    }
                    ErrorKind::PermissionDenied => {
                        f.write_str("; only the user that runs the relay, and root, may connect")
                    }
                    _ => Ok(()),
                }
            }
            Self::Exchange(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                write!(
                    f,
                    "no answer in {} s; the relay may be suspended",
                    TIMEOUT.as_secs()
                )
            }
            Self::Exchange(error) => write!(f, "the connection to the relay failed: {error}"),
            Self::NoRelay => {
                f.write_str("what answers there is no relay; use the path of serve --admin")
            }
            Self::TooLong => f.write_str("the message is too long; send it in parts"),
            Self::Refused(why) => f.write_str(why),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

/// Sends the relay one request, and shows what it answers.
pub(crate) fn admin(args: &AdminArgs) -> Result<ExitCode, AdminError> {
    let (method, target) = request(&args.command);
    if target.len() > MAX_TARGET {
        return Err(AdminError::TooLong);
    }
    let (status, body) = exchange(&args.socket, method, &target)?;
    // A table that the end of the connection cut short is none.
    let text = match (status, &args.command) {
        (200, AdminCommand::List) => table(&body)?,
        _ => harmless(&body),
    };
    if status != 200 {
        return Err(AdminError::Refused(text.trim_end().to_owned()));
    }
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(AdminError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// The method and the target of the request for a command.
fn request(command: &AdminCommand) -> (&'static str, String) {
    match command {
        AdminCommand::List => ("GET", "/members".to_owned()),
        AdminCommand::Bans => ("GET", "/bans".to_owned()),
        AdminCommand::Stats => ("GET", "/stats".to_owned()),
        AdminCommand::Kick(args) => (
            "POST",
            format!(
                "/kick?{}",
                whom(None, args.id.as_deref(), args.name.as_deref())
            ),
        ),
        AdminCommand::Ban(args) => {
            let BannedArgs { banned, id, name } = &args.whom;
            let whom = whom(banned.as_ref(), id.as_deref(), name.as_deref());
            let length = args
                .length
                .map(|length| format!("&for={}", length.as_secs().max(1)));
            ("POST", format!("/ban?{whom}{}", length.unwrap_or_default()))
        }
        AdminCommand::Unban { banned } => {
            ("POST", format!("/unban?{}", whom(Some(banned), None, None)))
        }
        AdminCommand::Say { text, name } => (
            "POST",
            format!("/say?name={}&text={}", encoded(name), encoded(text)),
        ),
    }
}

/// The field of a query that says whom an act is about.
fn whom(banned: Option<&Banned>, id: Option<&str>, name: Option<&str>) -> String {
    match (banned, id, name) {
        (Some(Banned::Network(network)), ..) => format!("address={network}"),
        (Some(Banned::Certificate(name)), ..) => format!("certificate={}", PercentEncoded(name)),
        (_, Some(id), _) => format!("id={}", encoded(id)),
        (.., name) => format!("name={}", encoded(name.unwrap_or_default())),
    }
}

const fn encoded(text: &str) -> PercentEncoded<'_> {
    PercentEncoded(text.as_bytes())
}

/// The status and the body that the relay answers a request with.
fn exchange(path: &Path, method: &str, target: &str) -> Result<(u16, Vec<u8>), AdminError> {
    let connect = |error| AdminError::Connect(path.to_owned(), error);
    let mut stream = UnixStream::connect(path).map_err(connect)?;
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut response = Vec::new();
    stream
        .set_read_timeout(Some(TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.take(MAX_ANSWER).read_to_end(&mut response))
        .map_err(AdminError::Exchange)?;
    parse(&response).ok_or(AdminError::NoRelay)
}

fn parse(response: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = str::from_utf8(&response[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    let status = (words.next()? == "HTTP/1.1").then(|| words.next()?.parse().ok())??;
    let body = &response[end + 4..];
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let is_whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
    is_whole.then(|| (status, body.to_vec()))
}

/// The lines of an answer, so that nothing in them has an effect on a terminal.
fn harmless(body: &[u8]) -> String {
    let mut text = String::new();
    for line in body
        .strip_suffix(b"\n")
        .unwrap_or(body)
        .split(|&byte| byte == b'\n')
    {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", Shown::plain(line));
    }
    text
}

/// The members as a table.
fn table(body: &[u8]) -> Result<String, AdminError> {
    let members = MembersTable::parse(body)
        .map_err(|_| AdminError::NoRelay)?
        .members;
    let head = [
        "ID", "NAME", "ADDRESS", "DIALECT", "AGE", "SENT", "RECEIVED", "PENDING", "STATE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for member in members {
        let age = humantime::format_duration(Duration::from_secs(member.age)).to_string();
        // The first two units are enough.
        let age: Vec<_> = age.split(' ').take(2).collect();
        rows.push([
            member.id,
            member.name.unwrap_or_else(|| "-".to_owned()),
            member.address,
            member.dialect,
            age.join(" "),
            member.sent.to_string(),
            member.received.to_string(),
            member.pending.to_string(),
            member.state,
        ]);
    }
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().min(MAX_NAME_WIDTH).max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = width.saturating_sub(cell.width());
            // Numbers stand at the right.
            let (before, after) = if (5..8).contains(&index) {
                (gap, 0)
            } else {
                (0, gap)
            };
            let _ = write!(line, "{:before$}{cell}{:after$}  ", "", "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_is_cut_short_or_no_http_is_from_no_relay() {
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n";
        assert_eq!(parse(whole), Some((404, b"no\n".to_vec())));
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(parse(b"220 mail.example.com ESMTP\r\n\r\n"), None);
    }

    #[test]
    fn columns_of_the_table_are_as_wide_as_their_widest_cells() {
        let body = br#"{"slow":"pace","soft_limit":1,"queue_limit":2,"members":[
{"id":"0","name":"bob","address":"127.0.0.1:5","dialect":"chat10","age":3725,"sent":1,"received":200,"pending":0,"state":"ok"},
{"id":"1f","name":null,"address":"127.0.0.1:50000","dialect":"greet10","age":1,"sent":0,"received":2,"pending":70,"state":"lagging"}
]}"#;
        let expected = "\
ID  NAME  ADDRESS          DIALECT  AGE    SENT  RECEIVED  PENDING  STATE
0   bob   127.0.0.1:5      chat10   1h 2m     1       200        0  ok
1f  -     127.0.0.1:50000  greet10  1s        0         2       70  lagging
";
        assert_eq!(table(body).unwrap(), expected);
    }
}
