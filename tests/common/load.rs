//! The load tool as a child process, and its report.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use jsonschema::Validator;
use serde_json::Value;

use super::PATIENCE;
use super::process::{chatloop, exit_code, lines_of, run, send_signal, wait_for};

/// The validator of the schema that is in the source tree.
pub fn schema() -> Validator {
    let schema = include_str!("../../src/load/report.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&schema).expect("the schema is one")
}

#[track_caller]
pub fn assert_fits_schema(report: &Value) {
    let errors: Vec<_> = schema()
        .iter_errors(report)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
}

/// `chatloop load` with these arguments.
pub fn load(args: &[&str]) -> Command {
    let mut command = chatloop(&["load"]);
    command.args(args);
    command
}

/// The result of a measurement, from its report in JSON.
#[derive(Debug)]
pub struct Measured {
    pub code: i32,
    pub report: Value,
    pub err: String,
}

/// Measures, with `--json -`.
#[track_caller]
pub fn measure(args: &[&str]) -> Measured {
    measure_with(load(args))
}

/// The same with a command that has what else it needs.
#[track_caller]
pub fn measure_with(mut command: Command) -> Measured {
    let (code, out, err) = run(command.args(["--json", "-"]));
    let report = serde_json::from_str(&out)
        .unwrap_or_else(|error| panic!("exit code {code}, no JSON: {error}\n{out}{err}"));
    Measured { code, report, err }
}

impl Measured {
    /// The faults, in the order of their names: `lost 1`, `cuts/closed 2`.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for key in [
            "lost",
            "duplicated",
            "out_of_order",
            "corrupt",
            "cut",
            "refused",
        ] {
            let count = self.report[key].as_u64().expect(key);
            faults.extend((count > 0).then(|| format!("{key} {count}")));
        }
        for object in ["cuts", "refusals"] {
            let causes = self.report[object].as_object();
            for (cause, count) in causes.into_iter().flatten() {
                faults.push(format!("{object}/{cause} {count}"));
            }
        }
        faults
    }

    /// A number at a path such as `/server/rss_bytes`.
    #[track_caller]
    pub fn number(&self, path: &str) -> f64 {
        let value = self.report.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {path} in {:#}", self.report))
    }

    pub fn troubles(&self) -> Vec<&str> {
        let troubles = self.report["troubles"].as_array().unwrap();
        let texts = troubles.iter().map(|text| text.as_str().unwrap());
        texts.collect()
    }

    /// The warnings that are not about the load tool's own machine. A busy machine suspends the load
    /// tool now and then; the report has a warning, and its other figures stay valid.
    pub fn warnings_about_the_server(&self) -> Vec<&str> {
        let mut warnings = self.troubles();
        warnings.retain(|text| !text.starts_with("the load tool itself did not run for "));
        warnings
    }

    /// The one trouble that begins so.
    #[track_caller]
    pub fn trouble(&self, beginning: &str) -> &str {
        let troubles = self.troubles();
        let found = troubles.iter().find(|text| text.starts_with(beginning));
        found.unwrap_or_else(|| panic!("no trouble {beginning:?} in {troubles:#?}"))
    }
}

/// A measurement that is under way.
pub struct Loading {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    /// The lines of standard error so far.
    pub lines: Vec<String>,
}

impl Loading {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: lines_of(child.stdout.take().unwrap()),
            err: lines_of(child.stderr.take().unwrap()),
            child,
            lines: Vec::new(),
        }
    }

    /// Waits until the progress has this phase.
    #[track_caller]
    pub fn wait_until(&mut self, doing: &str) {
        self.wait_for_line(doing, |line| line.starts_with(doing));
    }

    /// Waits until a line of the progress has this in it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.wait_for_line(text, |line| line.contains(text));
    }

    #[track_caller]
    fn wait_for_line(&mut self, what: &str, is_it: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !self.lines.last().is_some_and(|line| is_it(line)) {
            let lines = self.lines.join("\n");
            assert!(start.elapsed() < PATIENCE, "no {what:?} in:\n{lines}");
            let line = self.err.recv_timeout(PATIENCE);
            self.lines.push(line.expect("it is still being measured"));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    /// Stops it for so long.
    #[track_caller]
    pub fn hold_up(&self, time: Duration) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.pid());
        wait_for("the tool to be stopped", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        });
        // This is what it is to notice: time that passes.
        thread::sleep(time);
        self.signal("CONT");
    }

    /// Waits for its end; returns the exit code, standard output and the rest of standard error.
    #[track_caller]
    pub fn wait(mut self) -> (i32, String, String) {
        let code = exit_code(&mut self.child);
        let text = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
        (code, text(&self.out), text(&self.err))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server's address as an argument.
pub fn arg(addr: SocketAddr) -> String {
    addr.to_string()
}

/// A path for a test's own file or folder, which does not exist yet.
pub fn scratch(name: &str) -> PathBuf {
    let path = env::temp_dir().join(format!("chatloop-load-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// A command that another one runs, such as `sh -c … sh`, with the same environment.
pub fn by(runner: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(runner[0]);
    outer.args(&runner[1..]);
    outer.arg(command.get_program()).args(command.get_args());
    outer.stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A command that may open so many descriptors.
pub fn with_descriptors(limit: u32, command: &Command) -> Command {
    let script = format!("ulimit -n {limit} && exec \"$@\"");
    by(&["sh", "-c", &script, "sh"], command)
}

/// The processes whose environment has this in it, and so those that they have started.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let environ = |pid: &u32| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let has = |pid: &u32| {
        let environ = environ(pid);
        let mut variables = environ.split(|&byte| byte == 0);
        variables.any(|variable| variable == marker.as_bytes())
    };
    pids.filter(has).collect()
}
