//! The metrics that every process has, under Prometheus' standard names, read from `/proc/self`
//! at each scrape. Where there is no `/proc` they are left out.

use std::fmt::Write;
use std::fs;

/// Adds them to a page of metrics in Prometheus' text format.
pub(crate) fn render(page: &mut String) {
    let stat = Stat::read();
    let metrics: [(&str, &str, &str, Option<f64>); 6] = [
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory",
            stat.as_ref().map(Stat::resident),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory",
            stat.as_ref().map(|s| s.virtual_bytes),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time",
            stat.as_ref().map(Stat::cpu),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start of the process since the epoch",
            stat.as_ref().and_then(Stat::start),
        ),
        ("process_open_fds", "gauge", "Open file descriptors", open_files()),
        ("process_max_fds", "gauge", "Limit of open file descriptors", open_files_limit()),
    ];
    for (name, kind, help, value) in metrics {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
}

/// What `/proc/self/stat` tells (proc_pid_stat(5)).
struct Stat {
    /// CPU time in clock ticks.
    ticks: f64,
    /// Start in clock ticks after the boot.
    started: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything, so count
        // from the last one: what follows is field 3.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    fn resident(&self) -> f64 {
        // A page size is far below 2^53, so exact.
        #[expect(clippy::cast_precision_loss)]
        let page = rustix::param::page_size() as f64;
        self.resident_pages * page
    }

    fn cpu(&self) -> f64 {
        self.ticks / ticks_per_second()
    }

    fn start(&self) -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 =
            stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + self.started / ticks_per_second())
    }
}

fn ticks_per_second() -> f64 {
    // 100 everywhere; far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    ticks
}

fn open_files() -> Option<f64> {
    // One of them is the directory that is being read.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

/// Unlimited is told as infinity.
fn open_files_limit() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses() {
        let text = "42 (a) b (c)) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 5 0 1234 8192 7 99";
        let stat = Stat::parse(text).unwrap();
        let got = (stat.ticks, stat.started, stat.virtual_bytes, stat.resident_pages);
        assert_eq!(got, (300.0, 1234.0, 8192.0, 7.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_plausible() {
        let mut page = String::new();
        render(&mut page);
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap().split_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{page}");
        assert!(value("process_open_fds") >= 3.0, "{page}");
        assert!(value("process_max_fds") >= value("process_open_fds"), "{page}");
        assert!(value("process_cpu_seconds_total") < 3600.0, "{page}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        // The boot time is told in whole seconds.
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
