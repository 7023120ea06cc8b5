//! This process, as the system describes it: the figures that Prometheus' own clients have too.

#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::time::SystemTime;

/// What the system counts of this process. What it does not report is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// The time on a CPU, in seconds.
    pub(super) cpu: Option<f64>,
    /// The memory that is in RAM, and all that is mapped, in bytes.
    pub(super) resident: Option<u64>,
    pub(super) mapped: Option<u64>,
    /// Open descriptors, and how many there may be.
    pub(super) open_descriptors: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
    /// When the process began, in seconds since the beginning of 1970.
    pub(super) started: Option<f64>,
}

/// The unit of CPU time in /proc: USER_HZ, which is 100 on all of today's Linux systems (proc(5)).
#[cfg(target_os = "linux")]
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// This process now.
    #[cfg(target_os = "linux")]
    pub(super) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        Self {
            // Since Linux 6.2 the size of this folder is the number of its entries: to list ten thousand
            // would take milliseconds.
            open_descriptors: fs::metadata("/proc/self/fd")
                .ok()
                .map(|folder| folder.len())
                .filter(|&count| count > 0),
            max_descriptors: rlimit::Resource::NOFILE.get_soft().ok(),
            ..Self::parse(&stat, &status, &uptime, SystemTime::now())
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn now() -> Self {
        Self {
            max_descriptors: rlimit::Resource::NOFILE.get_soft().ok(),
            ..Self::default()
        }
    }

    /// The texts of the files in /proc, as far as they have the format of proc(5).
    #[cfg(target_os = "linux")]
    fn parse(stat: &str, status: &str, uptime: &str, now: SystemTime) -> Self {
        // The name of the program is in parentheses, and may have blanks and parentheses in it. The first
        // field behind it is the third.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let field = |number: usize| {
            let text = fields.split(' ').nth(number - 3)?;
            text.parse::<f64>().ok()
        };
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kilobytes = line.split_whitespace().next()?;
            Some(kilobytes.parse::<u64>().ok()? * 1024)
        };
        let (user, system, begun) = (field(14), field(15), field(22));
        let up = uptime.split(' ').next().and_then(|text| text.parse().ok());
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok();
        let started = begun.zip(up).zip(now).map(|((begun, up), now)| {
            let up: f64 = up;
            now.as_secs_f64() - up + begun / TICKS_PER_SECOND
        });
        Self {
            cpu: user
                .zip(system)
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident: bytes("VmRSS:"),
            mapped: bytes("VmSize:"),
            started,
            ..Self::default()
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn figures_are_read_from_proc_whatever_the_program_is_called() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 137 0 0 0 250 50 0 0 20 0 1 0 12345 \
                    3000000 1100 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\n";
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let process = Process::parse(stat, status, "500.25 900.00\n", now);
        assert_eq!(process.cpu, Some(3.0));
        assert_eq!(
            (process.resident, process.mapped),
            (Some(512 * 1024), Some(2048 * 1024))
        );
        assert_eq!(process.started, Some(1_000_000.0 - 500.25 + 123.45));
    }

    #[test]
    fn file_that_says_nothing_of_it_leaves_a_figure_out() {
        let process = Process::parse("", "VmRSS:\tmany\n", "", SystemTime::now());
        assert_eq!(
            (process.cpu, process.resident, process.started),
            (None, None, None)
        );
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::now();
        assert!(process.resident.unwrap() > 100_000);
        assert!(process.max_descriptors.unwrap() > 2);
        let age = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
            - process.started.unwrap();
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
