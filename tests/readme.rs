//! The README says what is so.

#![cfg(feature = "cli")]

mod common;

use std::fs;

use common::process::{chatloop, run};

const COMMANDS: [&str; 3] = ["serve", "join", "load"];

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn the_readme_shows_the_help_as_it_is() {
    let readme = readme();
    for command in COMMANDS {
        let (code, help, _) = run(&mut chatloop(&[command, "-h"]));
        assert_eq!(code, 0);
        assert!(
            readme.contains(help.trim_end()),
            "put this into the README:\n{help}"
        );
    }
}

#[test]
fn the_readme_lists_the_exit_codes_that_the_help_lists() {
    let readme = readme();
    for command in COMMANDS {
        let (_, help, _) = run(&mut chatloop(&[command, "--help"]));
        let codes = help
            .split("Exit codes:\n")
            .nth(1)
            .expect("a list of exit codes");
        for line in codes.lines().take_while(|line| line.starts_with(' ')) {
            let (code, meaning) = line
                .trim()
                .split_once("  ")
                .expect("a code and what it means");
            let row = readme
                .lines()
                .find(|row| row.starts_with(&format!("| {code} | ")));
            let row = row.unwrap_or_else(|| panic!("exit code {code}"));
            assert!(row.contains(meaning), "{meaning}, not {row}");
        }
    }
}

#[test]
fn the_readme_names_files_that_exist() {
    let readme = readme();
    let links = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files: Vec<_> = links
        .filter(|link| !link.starts_with("http") && !link.starts_with('#'))
        .collect();
    assert!(files.len() > 10);
    for file in files {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        assert!(fs::exists(&path).unwrap(), "{file}");
    }
}
