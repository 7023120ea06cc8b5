//! The folder for what the program remembers of its user.

use std::env;
use std::path::PathBuf;

/// The folder, which need not exist. `None` if the environment names none.
pub(crate) fn state_folder() -> Option<PathBuf> {
    // A relative path is ignored, as the specification of these variables demands.
    let folder = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("chatloop"))
}
