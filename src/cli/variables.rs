//! The environment variables of flags, and unknown ones with the same prefix.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};

use chatloop::text::Escaped;
use clap::{Arg, Command};

const PREFIX: &str = "CHATLOOP_";

/// Removes the variables that are set to nothing. Configuration files often list all variables and leave
/// the unused ones empty.
pub(super) fn ignore_empty(command: Command) -> Command {
    let ignore = |arg: Arg| match arg.get_env() {
        Some(name) if !is_set(name) => arg.env(None),
        _ => arg,
    };
    command.mut_args(ignore).mut_subcommands(ignore_empty)
}

fn is_set(name: &OsStr) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// A warning for each variable that is set and has the prefix, but belongs to no command.
pub(super) fn warnings(command: &Command) -> Vec<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let ours = |name: &OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    let set: BTreeSet<_> = set.map(|(name, _)| name).filter(ours).collect();
    let known: Vec<_> = known.iter().filter_map(|name| name.to_str()).collect();
    set.iter()
        .filter(|name| !known.iter().any(|known| *known == name.as_os_str()))
        .map(|name| warning(name, &known))
        .collect()
}

/// Adds the variables of a command and its subcommands.
fn collect(command: &Command, known: &mut BTreeSet<OsString>) {
    known.extend(
        command
            .get_arguments()
            .filter_map(Arg::get_env)
            .map(OsStr::to_owned),
    );
    for subcommand in command.get_subcommands() {
        collect(subcommand, known);
    }
}

fn warning(name: &OsStr, known: &[&str]) -> String {
    let shown = Escaped(name.as_encoded_bytes());
    match nearest(&name.to_string_lossy(), known) {
        Some(near) => format!("{shown} is no variable of chatloop; did you mean {near}?"),
        None => format!("{shown} is no variable of chatloop; `--help` lists the flags"),
    }
}

/// The known name that differs least from `name`, if at most a third of the part after the prefix differs.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (name.len() - PREFIX.len()) / 3;
    known
        .iter()
        .map(|known| (edit_distance(name, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= most)
        .map(|(_, known)| known)
}

/// The number of insertions, removals and replacements that make one text of the other (Levenshtein
/// distance).
fn edit_distance(one: &str, other: &str) -> usize {
    // The distances of the processed part of `one` from each beginning of `other`.
    let mut distances: Vec<_> = (0..=other.chars().count()).collect();
    for (row, a) in one.chars().enumerate() {
        let mut diagonal = row;
        distances[0] = row + 1;
        for (col, b) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = distances[col + 1];
            distances[col + 1] = replaced.min(diagonal + 1).min(distances[col] + 1);
        }
    }
    distances[distances.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn edit_distance_counts_insertions_removals_and_replacements() {
        for (one, other, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "ac", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edit_distance(one, other), distance, "{one} {other}");
            assert_eq!(edit_distance(other, one), distance, "{other} {one}");
        }
    }

    #[test]
    fn unknown_variable_has_the_nearest_known_one_if_it_is_near() {
        let known = [
            "CHATLOOP_LISTEN",
            "CHATLOOP_LOG_LEVEL",
            "CHATLOOP_MAX_CLIENTS",
        ];
        for (name, near) in [
            ("CHATLOOP_MAX_CLIENT", Some("CHATLOOP_MAX_CLIENTS")),
            ("CHATLOOP_LOGLEVEL", Some("CHATLOOP_LOG_LEVEL")),
            ("CHATLOOP_LISTENER", Some("CHATLOOP_LISTEN")),
            ("CHATLOOP_PORT", None),
            ("CHATLOOP_", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }

    #[test]
    fn every_flag_of_serve_has_its_variable() {
        let cli = Cli::command();
        let serve = cli.find_subcommand("serve").unwrap();
        let flags = serve.get_arguments().filter(|arg| !arg.is_hide_set());
        for flag in flags.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            let id = flag.get_id().as_str().to_uppercase();
            let variable = OsString::from(format!("{PREFIX}{id}"));
            assert_eq!(flag.get_env(), Some(&*variable), "{id}");
        }
    }
}
