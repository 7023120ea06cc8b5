//! The file of the keys that users have accepted for servers, as `ssh` has one.
//!
//! A line is `HOST:PORT sha256:BASE64`. Lines that are empty or begin with `#` mean nothing; all others must be
//! of that form, since a line that is ignored would be a key that is asked about again.

use std::env;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chatloop::client_tls::{Fingerprint, KnownKey};
use rustix::fs::{FlockOperation, flock};

use crate::new_file::write_new;

/// Why the file cannot be used.
#[derive(Debug)]
pub(crate) enum KnownHostsError {
    /// There is no place for it.
    NoPlace,
    /// It cannot be read or written.
    File(PathBuf, io::Error),
    /// This line is none.
    Line(PathBuf, usize),
}

impl fmt::Display for KnownHostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace => f.write_str(
                "there is no place for known servers: set HOME, or write --known-hosts FILE",
            ),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Line(path, line) => write!(
                f,
                "{}: line {line} is not `HOST:PORT sha256:BASE64`; correct or remove it",
                path.display()
            ),
        }
    }
}

/// The file where it is if no flag names another.
pub(crate) fn default_path() -> Result<PathBuf, KnownHostsError> {
    // A relative path is ignored, as the specification of these variables demands.
    let folder = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .ok_or(KnownHostsError::NoPlace)?;
    Ok(state.join("chatloop/known_hosts"))
}

/// The keys that are known of a server. There are none without a file.
pub(crate) fn keys_of(server: &str, path: &Path) -> Result<Vec<KnownKey>, KnownHostsError> {
    let text = read(path).map_err(|error| KnownHostsError::File(path.to_owned(), error))?;
    let mut keys = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let known = text
            .split_once(char::is_whitespace)
            .and_then(|(host, key)| {
                let fingerprint = key.trim_start().parse().ok()?;
                Some((host, KnownKey { fingerprint, line }))
            });
        match known {
            None => return Err(KnownHostsError::Line(path.to_owned(), line)),
            Some((host, known)) if host.eq_ignore_ascii_case(server) => keys.push(known),
            Some(_) => {}
        }
    }
    Ok(keys)
}

/// Adds a key. Other programs that do so at the same time wait.
pub(crate) fn add(server: &str, key: Fingerprint, path: &Path) -> Result<(), KnownHostsError> {
    let write = || {
        // A link stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // A path without a folder is in the current one.
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // The folder is locked and not the file, which is another one after each addition.
        let lock = File::open(folder)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut text = read(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{server} {key}\n"));
        write_new(path, &text, 0o600)
    };
    write().map_err(|error| KnownHostsError::File(path.to_owned(), error))
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}
