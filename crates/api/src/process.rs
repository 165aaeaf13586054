//! What the system knows of this process, in the names that Prometheus clients agree on.

/// Figures of the process; none where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) virtual_bytes: Option<f64>,
    pub(crate) open_fds: Option<f64>,
    pub(crate) max_fds: Option<f64>,
    pub(crate) start_time_seconds: Option<f64>,
    pub(crate) threads: Option<f64>,
}

/// Clock ticks a second, as `/proc` counts them: 100 on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Reads `/proc/self`.
    pub(crate) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        // The second field is the program's name in parentheses and may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<f64>().ok();
        let status = read("/proc/self/status");
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
        };
        let limits = read("/proc/self/limits");
        let max_fds = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .and_then(|line| line.split_ascii_whitespace().nth(3));
        let booted = read("/proc/stat")
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
        Self {
            cpu_seconds: field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: field(23),
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            max_fds: max_fds.and_then(|max| max.parse().ok()),
            start_time_seconds: booted
                .zip(field(22))
                .map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND),
            threads: field(20),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_process_is_found() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1e5), "{process:?}");
        assert!(process.virtual_bytes > process.resident_bytes, "{process:?}");
        assert!(process.open_fds.is_some_and(|count| count >= 3.0), "{process:?}");
        assert!(process.start_time_seconds.is_some_and(|at| at > 1.6e9), "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.threads.is_some(), "{process:?}");
    }
}
