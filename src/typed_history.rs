//! The file of the lines that were typed on a terminal, as shells have one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use chatloop::client::TypedHistory;

use crate::new_file::write_new;

/// The most bytes that are read of the file, from its end.
const MAX_BYTES: u64 = 256 * 1024;

/// Opens the file, which only its owner may read, and makes it shorter if it has become too long.
pub(crate) fn open(path: &Path) -> io::Result<TypedHistory> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let text = match File::open(path) {
        Ok(file) => read_end(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if text.len() as u64 >= MAX_BYTES {
        // Half of it, so that it is long before that is done again. The first line may not be whole.
        let half = text.len() / 2;
        let at = text.as_bytes()[half..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(text.len(), |at| half + at + 1);
        write_new(path, &text[at..], 0o600)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(TypedHistory::new(&text, file))
}

/// The last bytes of a file. Bytes that are not UTF-8 are replaced.
fn read_end(mut file: File) -> io::Result<String> {
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
