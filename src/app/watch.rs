//! Notices that files change, whatever way they are written: in place, by a rename over them, or by a swap of the
//! symlinks on the way to them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Most bytes of a file that are looked at.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What a file holds, as a hash: equal when nothing changed.
pub type Fingerprint = [u8; 32];

/// Watches the directories that files are in. The files themselves may come and go.
pub struct Watch {
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watch {
    /// A watch over nothing yet. When the system has none to give, it says so in the log and never notices anything.
    pub fn new() -> Self {
        let changed = Arc::new(Notify::new());
        let notice = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may mean that events were lost: look, to be sure.
            if event.map_or(true, |event| is_a_change(&event.kind)) {
                notice.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| tracing::warn!(%error, "files can't be watched")).ok();
        Self { changed, watcher, directories: BTreeSet::new() }
    }

    /// Watches what `files` are in from now on, as given and as symlinks lead there.
    pub fn set(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| directories_of(file)).collect();
        for gone in self.directories.difference(&wanted) {
            // It fails when the directory is gone itself.
            let _ = watcher.unwatch(gone);
        }
        self.directories = wanted
            .into_iter()
            .filter(|directory| {
                // Watching again what is watched changes nothing, and finds a directory that was made anew.
                watcher.watch(directory, RecursiveMode::NonRecursive).is_ok()
            })
            .collect();
    }

    /// Resolves when something changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Reading a file is an event, too, and we do that ourselves.
fn is_a_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

fn directories_of(file: &Path) -> Vec<PathBuf> {
    let directory = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let real = file.canonicalize().ok();
    [Some(file), real.as_deref()].into_iter().flatten().filter_map(directory).collect()
}

/// What a file holds now. One that can't be read counts with the reason.
pub fn fingerprint(file: &Path) -> Fingerprint {
    let mut bytes = vec![];
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    let outcome = read.map_or_else(|error| error.to_string(), |length| format!("{length} bytes"));
    // The file may hold secrets.
    let bytes = Zeroizing::new(bytes);
    Sha256::new().chain_update(outcome).chain_update(&bytes).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    /// Each way to write a file is noticed, and reading it isn't.
    #[tokio::test]
    async fn every_way_to_change_a_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // As Kubernetes mounts a ConfigMap: talos.yaml -> ..data/talos.yaml, ..data -> ..one
        for version in ["..one", "..two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("talos.yaml"), version).unwrap();
        }
        symlink("..one", at("..data")).unwrap();
        symlink("..data/talos.yaml", at("talos.yaml")).unwrap();
        fs::write(at("plain"), "1").unwrap();
        let files = [at("talos.yaml"), at("plain")];

        let steps: [(&str, &dyn Fn()); 5] = [
            ("written in place", &|| fs::write(at("plain"), "2").unwrap()),
            ("renamed over it", &|| {
                fs::write(at("new"), "3").unwrap();
                fs::rename(at("new"), at("plain")).unwrap();
            }),
            ("removed", &|| fs::remove_file(at("plain")).unwrap()),
            ("symlinks swapped", &|| {
                symlink("..two", at("..tmp")).unwrap();
                fs::rename(at("..tmp"), at("..data")).unwrap();
            }),
            ("changed where the symlinks lead", &|| fs::write(at("..two/talos.yaml"), "4").unwrap()),
        ];
        for (what, step) in steps {
            // A watch of its own, so that nothing is left of the step before.
            let mut watch = Watch::new();
            watch.set(&files);
            let before = files.each_ref().map(|file| fingerprint(file));
            step();
            let noticed = tokio::time::timeout(Duration::from_secs(10), watch.changed()).await;
            assert!(noticed.is_ok(), "{what}: not noticed");
            assert_ne!(files.each_ref().map(|file| fingerprint(file)), before, "{what}");
        }
    }

    #[test]
    fn reading_is_no_change() {
        for kind in [AccessKind::Read, AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)]
        {
            assert!(!is_a_change(&EventKind::Access(kind)), "{kind:?}");
        }
        assert!(is_a_change(&EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_a_change(&EventKind::Any));
    }
}
