//! The file of the keys that users have accepted for servers, as `ssh` has one.
//!
//! A line is `HOST:PORT sha256:BASE64`. Lines that are empty or begin with `#` mean nothing; all others must be
//! of that form, since a line that is ignored would be a key that is asked about again.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chatloop::client_tls::{Fingerprint, KnownKey};
use rustix::fs::{FlockOperation, flock};

use crate::new_file::write_new;
use crate::state_folder::state_folder;

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
    let folder = state_folder().ok_or(KnownHostsError::NoPlace)?;
    Ok(folder.join("known_hosts"))
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
        text += &[server, " ", &key.to_string(), "\n"].concat();
        write_new(path, &text, 0o600)
    };
    write().map_err(|error| KnownHostsError::File(path.to_owned(), error))
}

/// The text of the file; without a file it is empty.
fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("chatloop-known-{}-{test}", std::process::id());
            Self(env::temp_dir().join(name))
        }

        fn file(&self) -> PathBuf {
            self.0.join("deeper/known_hosts")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const fn key(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    #[test]
    fn added_keys_are_those_of_their_server_in_a_file_of_the_users_own() {
        let folder = Folder::new("added");
        let file = folder.file();
        assert_eq!(keys_of("a:1", &file).unwrap(), []);
        for (server, number) in [("a:1", 1), ("[::1]:1", 2), ("a:1", 3)] {
            add(server, key(number), &file).unwrap();
        }
        let known = |number, line| KnownKey {
            fingerprint: key(number),
            line,
        };
        assert_eq!(keys_of("A:1", &file).unwrap(), [known(1, 1), known(3, 3)]);
        assert_eq!(keys_of("[::1]:1", &file).unwrap(), [known(2, 2)]);
        assert_eq!(keys_of("a:10", &file).unwrap(), []);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }

    #[test]
    fn line_that_is_none_is_an_error_and_not_a_key_that_is_asked_about() {
        let folder = Folder::new("lines");
        let file = folder.file();
        add("a:1", key(1), &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let with = |more: &str| {
            fs::write(&file, format!("# mine\n\n{text}{more}")).unwrap();
            keys_of("a:1", &file)
        };
        assert_eq!(with("").unwrap()[0].line, 3);
        assert_eq!(with("  # indented\n").unwrap().len(), 1);
        for wrong in ["b:1", "b:1 sha256:AAAA", "b:1 sha1:AAAA", &text[..20]] {
            let error = with(wrong).unwrap_err().to_string();
            let says = "line 4 is not `HOST:PORT sha256:BASE64`";
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn keys_that_are_added_at_the_same_time_are_all_kept() {
        let folder = Folder::new("race");
        let file = folder.file();
        thread::scope(|scope| {
            for number in 0..16 {
                let file = &file;
                scope.spawn(move || add("a:1", key(number), file).unwrap());
            }
        });
        let mut numbers: Vec<_> = keys_of("a:1", &file)
            .unwrap()
            .iter()
            .map(|known| known.fingerprint.0[0])
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn file_is_as_it_was_if_a_key_cannot_be_added_and_complete_otherwise() {
        let folder = Folder::new("whole");
        let file = folder.file();
        add("a:1", key(1), &file).unwrap();
        let before = fs::read(&file).unwrap();
        // The new file cannot be there.
        let new = file.with_file_name("known_hosts.new");
        fs::create_dir(&new).unwrap();
        let error = add("a:1", key(2), &file).unwrap_err();
        assert!(matches!(error, KnownHostsError::File(..)), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
        fs::remove_dir(&new).unwrap();
        // One that a program has left behind that was killed; and a last line without its end.
        fs::write(&new, "a:1 sha").unwrap();
        fs::write(&file, before.trim_ascii_end()).unwrap();
        add("a:1", key(2), &file).unwrap();
        assert_eq!(keys_of("a:1", &file).unwrap().len(), 2);
        assert!(!new.exists());
    }

    #[test]
    fn link_to_the_file_stays_one() {
        let folder = Folder::new("link");
        let file = folder.file();
        add("a:1", key(1), &file).unwrap();
        let link = folder.0.join("link");
        symlink(&file, &link).unwrap();
        add("a:1", key(2), &link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(keys_of("a:1", &file).unwrap().len(), 2);
    }
}
