//! What the kernel says about a process: its CPU time and its memory (proc(5)).

use std::fs;
use std::ops::{Add, Sub};

use anyhow::Context;
use serde::Serialize;

/// CPU time of processes, in nanoseconds; the kernel tells it in ticks, commonly of 10 ms.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) user: u64,
    pub(crate) system: u64,
}

impl Cpu {
    /// Of all these processes together, with all their threads, those that ended included.
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        pids.iter().try_fold(Self::default(), |sum, pid| Ok(sum + Self::read(&pid.to_string())?))
    }

    /// Of this process.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::read("self")
    }

    /// Both together.
    pub(crate) const fn total(self) -> u64 {
        self.user + self.system
    }

    fn read(pid: &str) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second())
            .with_context(|| format!("{path} reads {stat:?}"))
    }

    fn parse(stat: &str, ticks_per_second: u64) -> Option<Self> {
        // The second field is the name in parentheses, in which anything may stand.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let mut ticks = |skip| fields.nth(skip)?.parse::<u64>().ok();
        let nanos = |ticks| ticks * (1_000_000_000 / ticks_per_second);
        Some(Self { user: nanos(ticks(11)?), system: nanos(ticks(0)?) })
    }
}

impl Add for Cpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Resident memory of processes, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// `VmRSS` of `/proc/PID/status`.
    pub(crate) rss: u64,
    /// `Anonymous` of `/proc/PID/smaps_rollup`: heap and stacks, without mapped files.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Of all these processes together.
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            Ok(Self {
                rss: sum.rss + field(*pid, "status", "VmRSS:")?,
                anonymous: sum.anonymous + field(*pid, "smaps_rollup", "Anonymous:")?,
            })
        })
    }
}

/// Resident memory of processes over a time, in bytes.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Course {
    pub(crate) rss_before: u64,
    /// When half of the messages were published.
    pub(crate) rss_half: u64,
    pub(crate) rss_after: u64,
    /// The most in between (`VmHWM`), each process's at its own time.
    pub(crate) rss_peak: u64,
}

impl Course {
    /// Begins: forgets earlier peaks (proc(5), `clear_refs`; one's own processes only).
    pub(crate) fn begin(pids: &[u32]) -> anyhow::Result<Self> {
        for pid in pids {
            // Else the peak is that since the process began, which is no less.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Ok(Self { rss_before: resident(pids)?, ..Self::default() })
    }

    /// Half of the way.
    pub(crate) fn half(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        self.rss_half = resident(pids)?;
        Ok(())
    }

    /// Ends.
    pub(crate) fn end(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        self.rss_after = resident(pids)?;
        self.rss_peak = pids
            .iter()
            .try_fold(0, |sum, pid| anyhow::Ok(sum + field(*pid, "status", "VmHWM:")?))?;
        Ok(())
    }
}

fn resident(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter().try_fold(0, |sum, pid| Ok(sum + field(*pid, "status", "VmRSS:")?))
}

/// A line `Name:   123 kB`, in bytes.
fn field(pid: u32, file: &str, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kilobytes| kilobytes << 10)
        .with_context(|| format!("{path} has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_counted_behind_the_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 40 0 0 20 0 1 0 5 6";
        let cpu = Cpu::parse(stat, 100).unwrap();
        assert_eq!(cpu, Cpu { user: 2_500_000_000, system: 400_000_000 });
        assert_eq!(Cpu::parse("7 (a) S 1", 100), None);
    }

    #[test]
    fn a_process_can_look_at_itself() {
        let pid = std::process::id();
        let before = Cpu::of(&[pid]).unwrap();
        while (Cpu::own().unwrap() - before).total() == 0 {}
        let memory = Memory::of(&[pid, pid]).unwrap();
        assert!(memory.rss >= memory.anonymous && memory.anonymous > 0);
        assert!(Memory::of(&[0]).is_err());
    }
}
