//! How many instructions the hot path takes, counted by valgrind's callgrind: figures that no noise
//! changes, so that a change which makes a delivery dearer is seen when it is made. Run with
//! `cargo bench --bench instructions`; it takes a second, and fails if a workload takes more than
//! [`TOLERANCE`] over its [`BASELINE`]. With `-- --set-baseline` it writes that.
//!
//! The C library's instructions are not in this: the processor decides which `memcpy` it takes, and
//! what `malloc` does depends on its version and on all that was allocated before. The calls of it
//! are counted instead, so that one more copy or allocation shows.
//!
//! gungraun counts in the same way, but where its runner is not installed, in the library's very
//! version, `cargo bench` fails; and it compares with profiles of an earlier run, not with figures
//! in a file.

mod common;

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use chatloop::relay::{Limits, Ready, Relay};
use chatloop::wire::Dialect;

use common::{DELIVERED, Sink, decode, frames, room_of, turn};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The figures of each workload when the baseline was set, and the compiler.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

const BASELINE_HEAD: &str = "\
# What each workload of benches/instructions.rs takes: instructions, and calls of the C library.
# Written by `cargo bench --bench instructions -- --set-baseline`. It is compared only where this
# compiler builds for this target, since others make other code:
";

/// The tolerated excess over the baseline, in percent. It is not for noise, since there is none: it
/// is what a change may cost without a reason given for it. In a turn in which one member sends, a
/// single instruction more for each delivery is above it.
const TOLERANCE: u32 = 1;

const SET_BASELINE: &str = "cargo bench --bench instructions -- --set-baseline";

/// With this argument and a workload's name, this program runs that one: for callgrind to watch.
const RUN: &str = "--run";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |wanted| args.iter().any(|arg| arg == wanted);
    if let [first, name] = &*args
        && first == RUN
    {
        let workload = WORKLOADS.iter().find(|workload| workload.name == name);
        (workload.ok_or("no such workload")?.run)();
        return Ok(ExitCode::SUCCESS);
    }
    // `cargo bench -- --test` wants to see them run, not to know the figures. So does `cargo test`,
    // whose programs are not optimised.
    if has("--test") || !has("--bench") {
        for workload in &WORKLOADS {
            (workload.run)();
        }
        println!("instructions: {} workloads run", WORKLOADS.len());
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!(
            "instructions: skipped, valgrind is not here to count (Debian: apt install valgrind)"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let built_with = built_with()?;
    println!("instructions, {built_with}:");
    let mut counts = Vec::new();
    for workload in &WORKLOADS {
        let count = count(workload)?;
        let each = f64::from(count.instructions) / f64::from(workload.units);
        println!(
            "  {:<14} {:<41} {:>7} and {:>4} calls, {each:>5.1} a {}",
            workload.name, workload.what, count.instructions, count.calls, workload.unit
        );
        counts.push((workload, count));
    }
    if has("--set-baseline") {
        set_baseline(&built_with, &counts)?;
    }
    compare(&built_with, &counts)
}

/// The compiler and the target, on one line.
fn built_with() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output()?;
    let about = String::from_utf8(output.stdout)?;
    let version = about.lines().next();
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let (version, host) = version
        .zip(host)
        .ok_or("rustc does not report its version")?;
    Ok(format!("{version} for {host}"))
}

/// What a workload takes.
#[derive(Clone, Copy, Default)]
struct Count {
    instructions: u32,
    /// Of the C library.
    calls: u32,
}

/// Has callgrind count a workload. It begins a new profile where [`counted`] begins and another
/// where it ends, so that the second one has what is between.
fn count(workload: &Workload) -> Result<Count> {
    let (program, profile) = (env::current_exe()?, profile(workload.name));
    let all = profile.with_extension("");
    // One that is left from before is not to be taken for the one that is wanted.
    let _ = fs::remove_file(&profile);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg("--dump-before=instructions::counted")
        .arg("--dump-after=instructions::counted")
        .arg(format!("--callgrind-out-file={}", all.display()))
        .arg(&program)
        .args([RUN, workload.name])
        // What is in an environment may change what is run, such as a preloaded library.
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .output()?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind failed at {}:\n{log}", workload.name).into());
    }
    let Ok(profile) = fs::read_to_string(profile) else {
        return Err(
            "callgrind does not find `counted`: are the program's symbols stripped?".into(),
        );
    };
    read_profile(&profile, &program)
}

/// The second of the profiles that callgrind leaves of the workload of this name.
fn profile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{name}.2"))
}

/// What `program` itself took, and how often it called what is not in it.
///
/// In a profile, `ob=` names the file of the following. A line of two numbers is a place and a
/// count. A call is `calls=` and how many, after a `cob=` if it goes into another file; the line
/// after it is what the called function took, which stands where that one is listed, too.
fn read_profile(profile: &str, program: &Path) -> Result<Count> {
    let mut count = Count::default();
    let (mut is_own, mut goes_out) = (false, false);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(file) = line.strip_prefix("ob=") {
            is_own = Path::new(file) == program;
        } else if line.starts_with("cob=") {
            goes_out = true;
        } else if let Some(call) = line.strip_prefix("calls=") {
            lines.next();
            let (times, _) = call.split_once(' ').ok_or("a call without a place")?;
            if mem::take(&mut goes_out) && is_own {
                count.calls += times.parse::<u32>()?;
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit()) && is_own {
            let (_, instructions) = line.split_once(' ').ok_or("a place without a count")?;
            count.instructions += instructions.parse::<u32>()?;
        }
    }
    if count.instructions == 0 {
        return Err(format!("nothing of {} in callgrind's profile", program.display()).into());
    }
    Ok(count)
}

fn set_baseline(built_with: &str, counts: &[(&Workload, Count)]) -> Result<()> {
    let mut text = format!("{BASELINE_HEAD}{built_with}\n");
    for (workload, count) in counts {
        let name = workload.name;
        writeln!(text, "{name} {} {}", count.instructions, count.calls)?;
    }
    Ok(fs::write(BASELINE, text)?)
}

/// Says which workloads differ from their baselines. Fails if one takes too much more.
fn compare(built_with: &str, counts: &[(&Workload, Count)]) -> Result<ExitCode> {
    let text = fs::read_to_string(BASELINE)?;
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let baseline_of = lines.next().ok_or("the baseline is empty")?;
    if baseline_of != built_with {
        println!("not compared: the baseline is of {baseline_of}");
        return Ok(ExitCode::SUCCESS);
    }
    let baselines: HashMap<_, _> = lines.filter_map(|line| line.split_once(' ')).collect();
    let (mut dearer, mut cheaper) = (false, false);
    for (workload, count) in counts {
        let name = workload.name;
        let baseline = baselines.get(name).and_then(|both| both.split_once(' '));
        let Some((instructions, calls)) = baseline else {
            return Err(format!("{name} has no baseline; to set one: {SET_BASELINE}").into());
        };
        for (what, now, before) in [
            ("instructions", count.instructions, instructions.parse()?),
            ("calls of the C library", count.calls, calls.parse()?),
        ] {
            if now == before {
                continue;
            }
            let percent = (f64::from(now) / f64::from(before) - 1.0) * 100.0;
            let is_dearer = exceeds(now, before);
            let verdict = if is_dearer { ": too many" } else { "" };
            println!("{name}: {now} {what} instead of {before}, {percent:+.1} %{verdict}");
            dearer |= is_dearer;
            cheaper |= exceeds(before, now);
        }
    }
    if dearer {
        println!("More than {TOLERANCE} % over the baseline is too many. To see where they went:");
        println!("    callgrind_annotate {}", profile("NAME").display());
        println!("If it is worth that: {SET_BASELINE}");
        return Ok(ExitCode::FAILURE);
    }
    println!("none is more than {TOLERANCE} % over its baseline");
    if cheaper {
        println!("to hold on to what was gained: {SET_BASELINE}");
    }
    Ok(ExitCode::SUCCESS)
}

fn exceeds(now: u32, before: u32) -> bool {
    u64::from(now) * 100 > u64::from(before) * u64::from(100 + TOLERANCE)
}

/// A piece of work, of which [`counted`] has the part that matters.
struct Workload {
    name: &'static str,
    what: &'static str,
    units: u32,
    unit: &'static str,
    run: fn(),
}

const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "decode-whole",
        what: "1,000 frames of 64 bytes in one read",
        units: 1000,
        unit: "frame",
        run: || decode_in_reads_of(usize::MAX),
    },
    Workload {
        name: "decode-cut",
        what: "the same in reads of 61 bytes",
        units: 1000,
        unit: "frame",
        run: || decode_in_reads_of(61),
    },
    Workload {
        name: "one-sends",
        what: "one of 1,000 members in a turn",
        units: 999,
        unit: "delivery",
        run: || send(1, &[Dialect::Chat10]),
    },
    Workload {
        name: "hundred-send",
        what: "a hundred of them in a turn",
        units: 100 * 999,
        unit: "delivery",
        run: || send(100, &[Dialect::Chat10]),
    },
    Workload {
        name: "two-dialects",
        what: "one of 1,000 of which half are chat64",
        units: 999,
        unit: "delivery",
        run: || send(1, &[Dialect::Chat10, Dialect::Chat64]),
    },
    Workload {
        name: "behind",
        what: "100 members that fall behind and catch up",
        units: 2 * 100,
        unit: "delivery",
        run: fall_behind_and_catch_up,
    },
];

/// Callgrind counts what happens in here: it knows the function by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

fn decode_in_reads_of(len: usize) {
    let stream = frames(1000, 64);
    let len = len.min(stream.len());
    counted(&mut || assert_eq!(decode(black_box(&stream).chunks(len)), 64_000));
}

/// So many members send in one turn, in a room whose buffers have grown to what such a turn takes.
fn send(senders: usize, dialects: &[Dialect]) {
    let mut scratch = vec![0; Limits::default().read_budget];
    let (mut relay, ids) = room_of::<Sink>(1000, dialects, &mut scratch);
    let now = Instant::now();
    let mut one_turn = || {
        // A sink sends the bytes of a chat10 client.
        for &id in ids.iter().step_by(dialects.len()).take(senders) {
            relay.note(id, Ready::READABLE);
        }
        turn(&mut relay, &mut scratch, now);
    };
    one_turn();
    counted(&mut one_turn);
    assert_eq!(relay.counters().messages, 2 * senders as u64);
}

/// A stream that, of each three writes, takes a part of the first, nothing of the second, and all
/// of the third.
#[derive(Default)]
struct Halting {
    sink: Sink,
    writes: u32,
}

impl Halting {
    fn take(&mut self, len: usize) -> io::Result<usize> {
        let write = self.writes % 3;
        self.writes += 1;
        match write {
            0 => Ok(len.min(DELIVERED / 2)),
            1 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(len),
        }
    }
}

impl Read for Halting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.sink.read(buf)
    }
}

impl Write for Halting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let offered = self.sink.write(bytes)?;
        self.take(offered)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = self.sink.write_vectored(slices)?;
        self.take(offered)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Two messages to members that lag behind with the first when the second is sent.
fn fall_behind_and_catch_up() {
    let mut scratch = vec![0; Limits::default().read_budget];
    let (mut relay, ids) = room_of::<Halting>(101, &[Dialect::Chat10], &mut scratch);
    let (&sender, receivers) = ids.split_first().expect("101 of them");
    let now = Instant::now();
    let writable = |relay: &mut Relay<_>| {
        for &id in receivers {
            relay.note(id, Ready::WRITABLE);
        }
    };
    let mut three_turns = || {
        // Each takes a part and is behind with the rest.
        relay.note(sender, Ready::READABLE);
        turn(&mut relay, &mut scratch, now);
        // Each takes nothing, and there is more.
        relay.note(sender, Ready::READABLE);
        writable(&mut relay);
        turn(&mut relay, &mut scratch, now);
        assert_eq!(relay.lagging(), receivers.len());
        // Each takes all.
        writable(&mut relay);
        turn(&mut relay, &mut scratch, now);
        assert_eq!(relay.lagging(), 0);
    };
    three_turns();
    counted(&mut three_turns);
    let received = 4 * receivers.len() * DELIVERED;
    assert_eq!(relay.counters().bytes_out, received as u64);
}
