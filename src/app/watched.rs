//! Watches files for changes, however they are written: in place, by a rename over them, or by a
//! swap of the symbolic links that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use zeroize::Zeroizing;

/// Bytes of a file that are hashed at most.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Wait after a file has changed: it may be one of several, or be written in parts.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// Hash of the content of a file.
pub(super) type Fingerprint = [u8; 32];

/// Files, with the state `T` that each had when it was last looked at.
pub(super) struct Watched<T> {
    files: BTreeMap<PathBuf, Option<T>>,
    state_of: fn(&Path) -> T,
    poll: Interval,
    /// None when only the interval is a reason to look.
    notifier: Option<Notifier>,
    /// End of the wait after a notification.
    settled_at: Option<Instant>,
}

impl<T: PartialEq + Send + 'static> Watched<T> {
    /// Watches files by looking at them in each `interval`.
    pub(super) fn by_polling(every: Duration, state_of: fn(&Path) -> T) -> Self {
        let mut poll = interval(every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { files: BTreeMap::new(), state_of, poll, notifier: None, settled_at: None }
    }

    /// Watches files by notifications of the operating system, and also looks at them in each
    /// `interval`, as network file systems send no notifications.
    pub(super) fn by_notification(every: Duration, state_of: fn(&Path) -> T) -> Self {
        Self { notifier: Notifier::new(), ..Self::by_polling(every, state_of) }
    }

    /// Watches these files from now on. States of files that were watched before are kept.
    pub(super) fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut known = std::mem::take(&mut self.files);
        let with_state = |file: PathBuf| {
            let state = known.remove(&file).flatten();
            (file, state)
        };
        self.files = files.into_iter().map(with_state).collect();
    }

    /// The files that are watched.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    /// The state of a file when it was last looked at.
    pub(super) fn state(&self, file: &Path) -> Option<&T> {
        self.files.get(file)?.as_ref()
    }

    /// Waits for the next reason to look: a notification, or the end of the interval. Cancel-safe.
    /// The first call returns at once.
    pub(super) async fn wait(&mut self) {
        if self.settled_at.is_none()
            && let Some(notifier) = &mut self.notifier
        {
            notifier.watch(self.files.keys());
            tokio::select! {
                () = notifier.changed() => self.settled_at = Some(Instant::now() + SETTLE_TIME),
                _ = self.poll.tick() => return,
            }
        }
        match self.settled_at {
            Some(settled_at) => sleep_until(settled_at).await,
            None => drop(self.poll.tick().await),
        }
        self.settled_at = None;
    }

    /// Looks at all files. Returns those whose state is another than at the last look, or that
    /// weren't looked at before.
    ///
    /// To be called before the files are read, so that a change in between is found by the next
    /// look.
    pub(super) async fn look(&mut self) -> Vec<PathBuf> {
        self.look_at(self.files.keys().cloned().collect()).await
    }

    /// Looks at files that weren't looked at before.
    pub(super) async fn look_at_new(&mut self) {
        let new = self.files.iter().filter(|(_, state)| state.is_none());
        self.look_at(new.map(|(file, _)| file.clone()).collect()).await;
    }

    /// Looks at files, and returns those whose state has changed since the last look.
    async fn look_at(&mut self, files: Vec<PathBuf>) -> Vec<PathBuf> {
        let state_of = self.state_of;
        let look = move || {
            let look = |file: PathBuf| {
                let state = state_of(&file);
                (file, state)
            };
            files.into_iter().map(look).collect::<Vec<_>>()
        };
        // Without the task's result, nothing counts as changed.
        let states = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let mut changed = vec![];
        for (file, state) in states {
            let known = self.files.entry(file.clone()).or_default();
            if known.as_ref() != Some(&state) {
                *known = Some(state);
                changed.push(file);
            }
        }
        changed
    }
}

/// Notifications of the operating system about the directories of files. The files themselves may
/// come and go.
struct Notifier {
    changed: Arc<Notify>,
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
}

impl Notifier {
    /// A notifier for nothing yet; None, with a line in the log, when the operating system refuses.
    fn new() -> Option<Self> {
        let changed = Arc::new(Notify::new());
        let notice = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may mean that events were lost.
            if event.map_or(true, |event| is_change(&event.kind)) {
                notice.notify_one();
            }
        });
        match watcher {
            Ok(watcher) => Some(Self { changed, watcher, directories: BTreeSet::new() }),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the operating system sends no notifications about files: changes are found later, by polling"
                );
                None
            }
        }
    }

    /// Watches the directories of `files`, as given and as symbolic links resolve.
    fn watch<'a>(&mut self, files: impl Iterator<Item = &'a PathBuf>) {
        let wanted: BTreeSet<PathBuf> = files.flat_map(|file| directories_of(file)).collect();
        for gone in self.directories.difference(&wanted) {
            // Fails when the directory was deleted.
            let _ = self.watcher.unwatch(gone);
        }
        self.directories = wanted
            .into_iter()
            .filter(|directory| {
                // Watching a directory again has no effect, unless it was made anew.
                self.watcher.watch(directory, RecursiveMode::NonRecursive).is_ok()
            })
            .collect();
    }

    /// Resolves when something has changed since the last call.
    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Returns true if an event is about a change. Reads of a file are events, too.
fn is_change(kind: &EventKind) -> bool {
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

/// Hashes the content of a file, or the reason for which it can't be read.
pub(super) fn fingerprint(file: &Path) -> Fingerprint {
    let mut bytes = vec![];
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    let outcome = read.map_or_else(|error| error.to_string(), |length| format!("{length} bytes"));
    // The file may hold secrets.
    let bytes = Zeroizing::new(bytes);
    Sha256::new().chain_update(outcome).chain_update(&bytes).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Long enough that only notifications are a reason to look.
    const NEVER: Duration = Duration::from_secs(3_600);

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
            // New for each step, so that no event of the last one is left.
            let mut watched = Watched::by_notification(NEVER, fingerprint);
            watched.set_files(files.clone());
            watched.wait().await;
            assert_eq!(watched.look().await.len(), 2, "the first look finds all of them new");
            assert!(watched.look().await.is_empty());
            step();
            let noticed = tokio::time::timeout(Duration::from_secs(10), watched.wait()).await;
            assert!(noticed.is_ok(), "{what}: not noticed");
            assert_eq!(watched.look().await.len(), 1, "{what}");
        }
    }

    #[tokio::test]
    async fn states_of_files_that_stay_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        let mut watched = Watched::by_polling(Duration::from_millis(1), fingerprint);
        watched.set_files([one.clone()]);
        assert_eq!(watched.look().await, std::slice::from_ref(&one), "that it is missing is a state, too");
        watched.set_files([one.clone(), two.clone()]);
        assert!(watched.state(&one).is_some() && watched.state(&two).is_none());
        watched.look_at_new().await;
        watched.wait().await;
        assert!(watched.look().await.is_empty());
        fs::write(&two, "2").unwrap();
        watched.wait().await;
        assert_eq!(watched.look().await, [two]);
    }

    #[test]
    fn reading_is_no_change() {
        for kind in [AccessKind::Read, AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)]
        {
            assert!(!is_change(&EventKind::Access(kind)), "{kind:?}");
        }
        assert!(is_change(&EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(&EventKind::Any));
    }
}
