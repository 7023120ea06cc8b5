//! How much the real program delivers, and what a delivery costs it, in one table. Run with
//! `cargo bench --bench fanout`; it takes half a minute. Each row is a run of `chatloop load` with a
//! relay of its own, with the benchmarks' profile.

use std::error::Error;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What is measured: a scenario and its flags. The rates at which a room is used differ by far, and
/// so does what a delivery costs, since a turn with more messages delivers them in as many calls.
const ROWS: [&[&str]; 4] = [
    &["fanout", "--members", "501", "--in-flight", "1"],
    &["fanout", "--members", "501", "--in-flight", "64"],
    &["chat", "--members", "100", "--in-flight", "10"],
    &["chat", "--members", "500", "--in-flight", "1000"],
];

/// How long each lasts, and how long with `--test`, which only checks that it runs.
const LASTS: [&str; 4] = ["--for", "5s", "--warmup", "1s"];
const BRIEFLY: [&str; 6] = ["--for", "100ms", "--warmup", "0s", "--members", "20"];

fn main() -> Result<(), Box<dyn Error>> {
    let only_try = std::env::args().any(|arg| arg == "--test");
    let columns = ["deliveries/s", "CPU a delivery", "p50", "p99"];
    println!(
        "| {:<35} | {:>12} | {:>14} | {:>8} | {:>8} |",
        "`chatloop load` …", columns[0], columns[1], columns[2], columns[3]
    );
    println!("|:{0:-<36}|{0:->13}:|{0:->15}:|{0:->9}:|{0:->9}:|", "");
    for row in ROWS {
        let args = if only_try {
            [&row[..1], &BRIEFLY].concat()
        } else {
            [row, &LASTS].concat()
        };
        let report = measure(&args)?;
        let figure = |path: &str, unit: f64, decimals: usize| {
            let value = report.pointer(path).and_then(Value::as_f64);
            value.map_or_else(
                || "–".to_owned(),
                |value| format!("{:.decimals$}", value / unit),
            )
        };
        println!(
            "| {:<35} | {:>10} M | {:>11} ns | {:>5} ms | {:>5} ms |",
            if only_try {
                row[0].to_owned()
            } else {
                row.join(" ")
            },
            figure("/deliveries_per_second", 1e6, 2),
            figure("/server/cpu_ns_per_delivery", 1.0, 0),
            figure("/latency_us/p50", 1e3, 2),
            figure("/latency_us/p99", 1e3, 2),
        );
        for trouble in report["troubles"].as_array().into_iter().flatten() {
            eprintln!("! {}", trouble.as_str().unwrap_or_default());
        }
    }
    Ok(())
}

/// The report of one run.
fn measure(args: &[&str]) -> Result<Value, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatloop"));
    command.arg("load").args(args).args(["--json", "-"]);
    let output = command.stderr(Stdio::null()).output()?;
    if output.stdout.is_empty() {
        return Err(format!("{command:?} measured nothing").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
