//! Reads CPU time and memory of a process from /proc.

use std::time::Duration;

/// Clock ticks per second in /proc/PID/stat, the same on all supported Linux systems.
const TICKS_PER_SECOND: u64 = 100;

/// Returns the CPU time of a process: user and system, all threads.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|ticks| Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND))
}

/// Returns the sum of fields 14 and 15, counted after the name, which may have blanks and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_fields_are_added() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 1 1 20 0";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn our_own_cost_is_known() {
        assert!(cpu(std::process::id()).is_some());
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
