//! A wall clock of one process, which a test sets. `wall_clock.c` is compiled and preloaded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tempfile::TempDir;

use crate::rig::support::Must;

/// A clock for processes that are started with its [`WallClock::variables`].
#[derive(Clone)]
pub struct WallClock {
    dir: Arc<TempDir>,
    file: Arc<File>,
}

impl WallClock {
    /// Returns a clock that is right.
    pub fn new() -> WallClock {
        let dir = Arc::new(tempfile::tempdir().must("a directory for a clock"));
        let file = File::create(dir.path().join("ahead")).must("a file for a clock");
        let clock = WallClock { dir, file: Arc::new(file) };
        clock.put(0);
        clock
    }

    /// Returns the variables of a process that reads this clock.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library().to_owned()), ("WALL_CLOCK_AHEAD", self.dir.path().join("ahead"))]
    }

    /// Sets the clock ahead of the true time.
    pub fn ahead(&self, by: Duration) {
        self.put(micros(by));
    }

    /// Sets the clock behind the true time.
    pub fn behind(&self, by: Duration) {
        self.put(-micros(by));
    }

    fn put(&self, ahead: i64) {
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).must("setting a clock");
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).must("a duration that a clock can be off by")
}

/// Returns the path of the library, which is compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let unfinished = folder.join(format!("wall_clock-{}.so", std::process::id()));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&unfinished);
        let output =
            command.arg("tests/it/rig/wall_clock.c").current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.must("running cc");
        assert!(output.status.success(), "cc failed: {}", String::from_utf8_lossy(&output.stderr));
        // Another run of the tests may be making it, too.
        let library = folder.join("wall_clock.so");
        std::fs::rename(unfinished, &library).must("naming a library");
        library
    })
}
