//! Libraries to be preloaded into the program, which change the results of its system calls.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// Compiles `tests/common/{name}.c`. None, and a line about it, if there is nothing to compile
/// it with.
pub fn compiled(name: &str) -> Option<PathBuf> {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common");
    let source = Path::new(sources).join(name).with_extension("c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let library = library.with_extension("so");
    let compiled = Command::new("cc")
        .args(["-Wall", "-Wextra", "-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output();
    let Ok(output) = compiled else {
        skip("cc is not installed");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(library)
}
