//! What the process under test has cost so far.

use std::time::Duration;

/// Ticks of /proc/PID/stat in a second: the same on every Linux that we run on.
const TICKS: u64 = 100;

/// CPU time of a process, user and system, all its threads.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|ticks| Duration::from_micros(ticks * 1_000_000 / TICKS))
}

/// Fields 14 and 15, counted after the name, which may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Bytes of a process's memory that are resident.
pub fn resident(pid: u32) -> Option<u64> {
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
