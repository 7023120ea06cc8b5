//! The ladder, `examples/`: each step works, breaks as its head says, and the next step survives that.
//!
//! An attack is a program of its own, `examples/attack.rs`, and this module runs it. That a step is broken
//! is no matter of time: what it fails to do it would never do, and the attack shows what would have to
//! happen first.

#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use crate::common::at_once;
use crate::common::process::{Relay, chatloop, lines_of, run};

const MAX_LINES: usize = 150;

/// How many seconds an attack waits for what never comes, and for what will come.
const IN_VAIN: &str = "2";
const LONG: &str = "30";

const HEAD: [&str; 4] = [
    "//! - **Can do**: ",
    "//! - **Breaks**: ",
    "//! - **See it break**: ",
    "//! - **In the real code**: ",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The steps' names, in order.
fn steps() -> Vec<String> {
    let files = fs::read_dir(root().join("examples")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let steps = names.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned()));
    let steps = steps.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    let steps: BTreeSet<_> = steps.collect();
    steps.into_iter().collect()
}

fn source(step: &str) -> String {
    fs::read_to_string(root().join("examples").join(step).with_extension("rs")).unwrap()
}

/// The program of an example. They are built first: Cargo does so only if all tests are run.
fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // Build scripts would run again because of what Cargo tells tests of their crate, and all that depends on
        // theirs would be compiled anew.
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            build.env_remove(name);
        }
        build.env_remove("CARGO_MANIFEST_DIR");
        build.args(["build", "--quiet", "--locked", "--examples"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let (code, _, errors) = run(build.current_dir(root()));
        assert_eq!(code, 0, "{errors}");
        // This program is beside them, in `deps`.
        let program = env::current_exe().unwrap();
        program.parent().unwrap().with_file_name("examples")
    });
    folder.join(name)
}

/// Runs an attack. Returns whether the server has survived, and what the attack has printed.
#[track_caller]
fn attack(name: &str, target: &str, seconds: &str) -> (bool, String) {
    let mut attack = Command::new(example("attack"));
    // With it, the attack would build the step as well.
    attack.env_remove("CARGO");
    let (code, output, errors) = run(attack.args([name, target, seconds]));
    assert!(code == 0 || code == 1, "{name} {target}: {errors}");
    (code == 0, output)
}

#[track_caller]
fn assert_survives(name: &str, target: &str) {
    let (has_survived, output) = attack(name, target, LONG);
    assert!(has_survived, "{target} does not survive:\n{output}");
}

/// The attack of this name breaks the step, with this result, and not the next step.
#[track_caller]
fn assert_mended(name: &str, step: &str, came: &str) {
    let steps = steps();
    let index = steps.iter().position(|one| one == step).unwrap();
    thread::scope(|scope| {
        if let Some(next) = steps.get(index + 1) {
            scope.spawn(|| assert_survives(name, next));
        }
        let (has_survived, output) = attack(name, step, IN_VAIN);
        assert!(!has_survived, "{step} survives:\n{output}");
        assert!(output.contains(came), "no {came:?} in\n{output}");
    });
}

#[test]
fn silent_client_holds_up_step_01_and_not_step_02() {
    assert_mended(
        "idle",
        "01_blocking",
        "nothing, until the silent client had left",
    );
}

#[test]
fn client_that_does_not_read_holds_up_step_02_and_not_step_03() {
    assert_mended("slow", "02_threads", "nothing, until bob had left");
}

#[test]
fn step_03_uses_cpu_at_rest_and_step_04_does_not() {
    assert_mended("rest", "03_busy_loop", "of CPU");
}

#[test]
fn step_04_puts_a_name_into_a_message_of_70_kb_and_step_05_does_not() {
    assert_mended(
        "split",
        "04_level",
        "of 70000 bytes, the first 4086 of them right",
    );
}

#[test]
fn step_04_makes_one_message_of_two_in_one_write_and_step_05_does_not() {
    assert_mended("glue", "04_level", "nothing");
}

#[test]
fn step_05_loses_bytes_for_a_client_that_reads_late_and_step_06_does_not() {
    assert_mended("late", "05_framing", "messages, then ");
}

#[test]
fn silent_clients_make_each_message_dearer_in_step_06_and_not_in_step_07() {
    assert_mended("crowd", "06_write_queue", "beside the crowd");
}

#[test]
fn burst_stands_still_in_step_07_until_another_edge_and_not_in_step_08() {
    assert_mended(
        "burst",
        "07_edge_lost",
        "messages, then nothing, until alice sent one more",
    );
}

#[test]
fn flood_goes_before_all_others_in_step_08_and_not_in_step_09() {
    assert_mended(
        "flood",
        "08_edge_drained",
        "alice's message, after 40 of mallory's",
    );
}

#[test]
fn step_08_closes_a_client_that_ended_its_input_before_its_output_and_step_09_does_not() {
    assert_mended(
        "half",
        "08_edge_drained",
        "messages, then the end of the connection",
    );
}

#[test]
fn clients_wait_for_ever_in_step_09_once_descriptors_ran_out_and_not_in_step_10() {
    assert_mended(
        "full",
        "09_turns",
        "nothing, until yet another client connected",
    );
}

#[test]
fn silent_client_keeps_its_place_in_step_10_and_not_in_step_11() {
    assert_mended("silent", "10_accept", "nothing");
}

#[test]
fn sigterm_loses_what_is_queued_in_step_11_and_not_in_step_12() {
    assert_mended(
        "stop",
        "11_timers",
        "messages, then the end of the connection",
    );
}

#[test]
fn each_slow_reader_has_its_own_copy_in_step_12_and_not_in_step_13() {
    assert_mended("hoard", "12_shutdown", "it has grown by");
}

#[test]
fn reader_that_is_slower_than_others_is_closed_in_step_13_and_not_by_chatloop() {
    assert_mended(
        "drip",
        "13_one_copy",
        "messages, then the end of the connection",
    );
    let relay = Relay::start(&[]);
    assert_survives("drip", &relay.addr.to_string());
}

/// The stage of `chatloop judge` that a step fails, and the chapter that the judge then names. Others pass all.
const FAILED_STAGES: [(&str, usize, &str); 8] = [
    ("01_blocking", 3, "01_blocking"),
    ("02_threads", 5, "02_threads"),
    ("03_busy_loop", 2, "04_level"),
    ("04_level", 2, "04_level"),
    ("05_framing", 5, "05_framing"),
    ("06_write_queue", 7, "09_turns"),
    ("07_edge_lost", 4, "07_edge_lost"),
    ("08_edge_drained", 7, "09_turns"),
];

/// A step that runs until this is dropped.
struct Step(Child);

impl Drop for Step {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a step with as many descriptors as are allowed. Returns its address as well.
fn start(step: &str) -> (Step, String) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" 127.0.0.1:0"]);
    let mut child = command
        .arg(example(step))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let line = lines.recv().unwrap();
    let addr = line.strip_prefix("listening on ").unwrap().to_owned();
    (Step(child), addr)
}

fn judge(addr: &str, args: &[&str]) -> (i32, String) {
    let (code, output, errors) = run(chatloop(&["judge", addr]).args(args));
    assert_eq!(errors, "");
    (code, output)
}

#[track_caller]
fn assert_passes_all_stages(step: &str) {
    let (_step, addr) = start(step);
    let (code, output) = judge(&addr, &["--patience", "60s"]);
    assert_eq!(code, 0, "{step}: {output}");
}

#[test]
fn each_step_up_to_08_fails_its_stage_and_passes_those_before() {
    for (step, failed, chapter) in FAILED_STAGES {
        let (_step, addr) = start(step);
        for stage in 1..failed {
            let args = ["--stage", &stage.to_string(), "--patience", "60s"];
            let (code, output) = judge(&addr, &args);
            assert_eq!(code, 0, "{step}: {output}");
        }
        let args = ["--stage", &failed.to_string(), "--patience", "2s"];
        let (code, output) = judge(&addr, &args);
        assert_eq!(code, 5, "{step}: {output}");
        let chapter = format!("   read      docs/guide/{chapter}.md\n");
        assert!(output.ends_with(&chapter), "{step}: {output}");
    }
}

#[test]
fn step_09_passes_all_stages() {
    assert_passes_all_stages("09_turns");
}

#[test]
fn step_10_passes_all_stages() {
    assert_passes_all_stages("10_accept");
}

#[test]
fn step_11_passes_all_stages() {
    assert_passes_all_stages("11_timers");
}

#[test]
fn step_12_passes_all_stages() {
    assert_passes_all_stages("12_shutdown");
}

#[test]
fn step_13_passes_all_stages() {
    assert_passes_all_stages("13_one_copy");
}

#[test]
fn page_of_the_judge_has_the_stage_that_each_step_fails() {
    let page = fs::read_to_string(root().join("docs/judge.md")).unwrap();
    for step in steps() {
        let failed = FAILED_STAGES.iter().find(|(name, ..)| *name == step);
        let result = match failed {
            Some((_, stage, chapter)) => {
                format!("fails stage {stage} | [{chapter}](guide/{chapter}.md) |")
            }
            None => "passes all | ".to_owned(),
        };
        let row = format!("| [{step}](../examples/{step}.rs) | {result}");
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn two_clients_chat_on_each_step() {
    for step in steps() {
        assert_survives("chat", &step);
    }
}

#[test]
fn each_step_with_a_room_for_three_survives_a_reset() {
    for step in steps().iter().skip(1) {
        assert_survives("reset", step);
    }
}

#[test]
fn each_step_that_waits_for_events_rests() {
    at_once(steps().iter().skip(3), |step| assert_survives("rest", step));
}

#[test]
fn each_step_ends_with_an_error_if_its_address_is_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    for step in steps() {
        let (code, output, errors) = run(Command::new(example(&step)).arg(&addr));
        assert_eq!((code, output.as_str()), (1, ""), "{step}");
        assert!(
            errors.contains("Address already in use"),
            "{step}: {errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{step}: {errors}");
    }
}

#[test]
fn attack_on_nothing_is_none() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for args in [
        &["chat"][..],
        &["dance", "01_blocking"],
        &["chat", "99_none"],
    ] {
        let (code, output, _) = run(Command::new(example("attack"))
            .env_remove("CARGO")
            .args(args));
        assert_eq!((code, output.as_str()), (2, ""), "{args:?}");
    }
    let (has_survived, output) = attack("chat", &unused.to_string(), IN_VAIN);
    assert!(!has_survived, "{output}");
}

#[test]
fn each_step_is_short_and_its_head_has_four_parts() {
    let steps = steps();
    assert!(steps.len() >= 12, "{steps:?}");
    for (index, step) in steps.iter().enumerate() {
        let source = source(step);
        let lines = source.lines().count();
        assert!(lines <= MAX_LINES, "{step} has {lines} lines");
        let title = format!("//! Step {:02}: ", index + 1);
        assert!(
            source.starts_with(&title),
            "{step} does not start with {title}"
        );
        for part in HEAD {
            assert_eq!(source.matches(part).count(), 1, "{step}: {part}");
        }
    }
}

/// The text of a part of a step's head, without line breaks.
fn part(source: &str, name: &str) -> String {
    let head = source.lines().map_while(|line| line.strip_prefix("//!"));
    let head = head.map(str::trim).collect::<Vec<_>>().join(" ");
    let rest = head.split(&format!("- **{name}**: ")).nth(1).unwrap();
    rest.split(" - **").next().unwrap().to_owned()
}

#[test]
fn head_of_each_step_has_its_attack_and_a_file_that_exists() {
    for step in steps() {
        let source = source(&step);
        let command = part(&source, "See it break");
        let attack = command.strip_prefix("`cargo run --example attack -- ");
        let attack = attack.and_then(|rest| rest.strip_suffix(&format!(" {step}`")));
        let attack = attack.unwrap_or_else(|| panic!("{step}: {command}"));
        let tests = include_str!("ladder.rs");
        let is_tested = tests.split("assert_mended(").any(|call| {
            call.trim_start().starts_with(&format!("\"{attack}\",")) && call.contains(&step)
        });
        assert!(is_tested, "no test for {attack} on {step}");
        let place = part(&source, "In the real code");
        let path = place.split('`').nth(1).unwrap();
        assert!(root().join(path).is_file(), "{step}: {path}");
    }
}

#[test]
fn table_of_the_readme_has_each_step_with_its_attack_and_its_file() {
    let readme = fs::read_to_string(root().join("examples/README.md")).unwrap();
    for step in steps() {
        let source = source(&step);
        let row = format!("| [{step}]({step}.rs) | ");
        let row = readme.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row for {step}"));
        let command = part(&source, "See it break");
        let command = command
            .trim_matches('`')
            .strip_prefix("cargo run --example ")
            .unwrap();
        assert!(
            row.contains(&format!("`{command}`")),
            "{command} is not in {row}"
        );
        let place = part(&source, "In the real code");
        let path = place.split('`').nth(1).unwrap();
        assert!(
            row.contains(&format!("](../{path})")),
            "{path} is not in {row}"
        );
    }
}

#[test]
fn guide_has_a_chapter_for_each_step_with_its_attack_and_three_exercises() {
    let guide = root().join("docs/guide");
    let contents = fs::read_to_string(guide.join("README.md")).unwrap();
    for step in steps() {
        let chapter = fs::read_to_string(guide.join(&step).with_extension("md")).unwrap();
        let command = part(&source(&step), "See it break");
        let command = command.trim_matches('`');
        let command = command.strip_prefix("cargo run --example ").unwrap();
        // A command may go over the end of a line.
        let words = chapter.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(command), "{step}: {command}");
        assert_eq!(
            chapter.matches("<summary>Answer</summary>").count(),
            3,
            "{step}"
        );
        assert!(contents.contains(&format!("]({step}.md)")), "{step}");
    }
}
