//! The README says what is so.

mod common;

use std::fs;

use common::process::{chatloop, run};

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn the_readme_shows_the_help_as_it_is() {
    let (code, help, _) = run(&mut chatloop(&["serve", "-h"]));
    assert_eq!(code, 0);
    let readme = readme();
    assert!(
        readme.contains(help.trim_end()),
        "put this into the README:\n{help}"
    );
}

#[test]
fn the_readme_lists_the_exit_codes_that_the_help_lists() {
    let (_, help, _) = run(&mut chatloop(&["serve", "--help"]));
    let readme = readme();
    let codes = help
        .split("Exit codes:\n")
        .nth(1)
        .expect("a list of exit codes");
    for line in codes.lines() {
        let (code, _) = line
            .trim()
            .split_once("  ")
            .expect("a code and what it means");
        assert!(
            readme.contains(&format!("\n| {code} | ")),
            "exit code {code}"
        );
    }
}

#[test]
fn the_readme_names_files_that_exist() {
    let readme = readme();
    let links = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files: Vec<_> = links.filter(|link| !link.starts_with("http")).collect();
    assert!(files.len() > 10);
    for file in files {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        assert!(fs::exists(&path).unwrap(), "{file}");
    }
}
