//! A limit on a process's memory that the kernel enforces, as it does for a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::rig::support::Must;

/// Mount point of each version of cgroups, and the file that has the limit.
const VERSIONS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// A cgroup with a limit on memory or, where the machine allows none, the limit alone. Then the
/// process's peak is compared with it: a process that takes too much is found at the end instead of
/// being killed.
pub struct MemoryBox {
    limit: u64,
    folder: Option<PathBuf>,
}

impl MemoryBox {
    pub fn new(limit: u64) -> MemoryBox {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("talos-test-{}-{number}", std::process::id());
        let made = VERSIONS.iter().find_map(|(root, file)| make(&Path::new(root).join(&name), file, limit));
        match &made {
            Some(folder) => println!("the kernel bounds memory: {}", folder.display()),
            None => println!("no cgroup can be made here: the peak of memory is compared instead"),
        }
        MemoryBox { limit, folder: made }
    }

    /// The file that takes the ids of processes; none without a cgroup.
    pub fn processes(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("cgroup.procs"))
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }
}

/// Makes a cgroup whose memory is limited; none when the system doesn't let us, or has no such
/// controller.
fn make(folder: &Path, file: &str, limit: u64) -> Option<PathBuf> {
    fs::create_dir(folder).ok()?;
    let limited = folder.join(file).is_file() && fs::write(folder.join(file), limit.to_string()).is_ok();
    if !limited {
        let _ = fs::remove_dir(folder);
        return None;
    }
    // Turns swap off, which wouldn't count as memory.
    for swap in ["memory.swap.max", "memory.memsw.limit_in_bytes"] {
        let bytes = if swap == "memory.swap.max" { 0 } else { limit };
        let _ = fs::write(folder.join(swap), bytes.to_string());
    }
    Some(folder.to_owned())
}

impl Drop for MemoryBox {
    fn drop(&mut self) {
        let Some(folder) = &self.folder else {
            return;
        };
        // The kernel may need a moment after the last process has ended.
        for _ in 0..50 {
            if fs::remove_dir(folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("{} is left behind", folder.display());
    }
}

#[test]
fn a_memory_limit_kills_a_process_that_takes_more() {
    let of_memory = MemoryBox::new(64 << 20);
    let Some(processes) = of_memory.processes() else {
        return;
    };
    // A process that takes twice as much doesn't live.
    let greedy = "echo $$ > \"$0\" && head -c 134217728 /dev/zero | tail -n 1 > /dev/null";
    let mut command = std::process::Command::new("timeout");
    let status = command.args(["20", "sh", "-c", greedy]).arg(processes).status().must("running sh");
    assert!(!status.success(), "{status}");
}
