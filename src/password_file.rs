//! Files with a password.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// No password is longer, in bytes: a request over HTTP must have room for it.
const MAX_LEN: usize = 1024;

/// The password in a file: its first line.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    first_line(File::open(path)?)
}

/// The same of a file that nobody but its owner may read.
pub(crate) fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let text =
            format!("others may read it (its mode is {mode:04o}); chmod 600 makes it private");
        return Err(io::Error::new(ErrorKind::PermissionDenied, text));
    }
    first_line(file)
}

fn first_line(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A device may have no end.
    file.take(MAX_LEN as u64 + 2).read_to_end(&mut bytes)?;
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let password = line.strip_suffix(b"\r").unwrap_or(line);
    let error = |text| Err(io::Error::new(ErrorKind::InvalidData, text));
    match password.len() {
        0 => error("its first line is empty; write the password there"),
        1..=MAX_LEN => Ok(password.to_vec()),
        _ => error("the password is longer than 1,024 bytes"),
    }
}
