//! Child processes that never outlive their test, with their output in a file that a failing test
//! prints.

use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::rig::support::{Must, until};

pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn spawn(name: &'static str, mut command: Command, log: &Path) -> Process {
        let output = File::options().create(true).append(true).open(log).must("opening a log file");
        let errors = output.try_clone().must("cloning a log file's handle");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        Process { name, child: child.must(&format!("starting {name} as {command:?}")), log: log.to_owned() }
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().must("asking for an exit status")
    }

    /// Waits for the end of the process.
    pub async fn end(&mut self) -> ExitStatus {
        until(&format!("{} ends", self.name), async || self.ended()).await
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).must("sending a signal");
    }

    /// Limits the size of files that the process writes, in bytes; None lifts the limit.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit)
            .must("limiting the size of files");
    }

    /// Kills the process with SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only when it has ended and been waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the memory that the process holds now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the most memory that it held since [`Process::forget_peak`], in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Resets the peak of its memory to what it holds now. Where the kernel can't forget, the
    /// peak is that since the start: a bound may then fail, but never pass by mistake.
    pub fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).must("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).must(name);
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().must(line);
        kilobytes * 1024
    }

    /// Returns the CPU time that the process has taken so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).must("its statistics");
        let (_, fields) = stat.rsplit_once(')').must("its name");
        // User and system time, in ticks of 10 ms.
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().must("ticks"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    pub fn log(&self) -> String {
        // /dev/full has no end.
        let bytes = match self.log.is_file() {
            true => std::fs::read(&self.log).unwrap_or_default(),
            false => vec![],
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the last lines of {}:\n{}\n---", self.name, tail.join("\n"));
        }
    }
}

/// Ports for servers that tests start, and start again: below those that the system gives to
/// outgoing connections (32768 on Linux), any of which could otherwise have a server's port between
/// its end and its next start.
const PORTS: Range<u32> = 10_000..32_000;

/// Returns a port that was free a moment ago and that no other test of this run was given.
/// A server of another run may still take it: whoever starts one tries again with another.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Runs at the same time begin at different places.
        let place = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + place % (PORTS.end - PORTS.start)).must("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
