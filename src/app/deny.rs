//! The operator's deny list (`consistency.deny_file`), read at the start and again whenever it changes.
//!
//! Refusing more is done at once. Refusing less is believed at once as long as it is little: a list
//! that was truncated (`grep -v ID list > list`) looks like one that was emptied on purpose, so
//! [`Guard`] looks at it a second time.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::key::deny::{DenyList, DenyListError, MAX_IDS};
use crate::service::Service;
use crate::telemetry::deny_file::Shrunk;
use crate::telemetry::metrics::Metrics;

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often it may be found changing before it is read all the same: it may be appended to for hours.
const MAX_CHANGING: u32 = 3;
/// One in so many keys of the list in force may be lifted without a second look: a tenth.
const LIFTED_SHARE: usize = 10;
/// How long a file that lifts more has to stand unchanged. Also how long keys that were lifted
/// count together.
pub const SECOND_LOOK: Duration = Duration::from_secs(10);
/// The same, in looks: a process that stood still meanwhile has not looked.
const SECOND_LOOK_AFTER: u128 = SECOND_LOOK.as_millis() / INTERVAL.as_millis();
/// A file that changed less than this ago is read for the start only once it stands still.
const YOUNG: Duration = Duration::from_secs(1);
/// How often a young file is looked at for that before it is read all the same.
const MAX_START_LOOKS: u32 = 8;

/// Why there is no deny list.
#[derive(Debug, thiserror::Error)]
#[error("consistency.deny_file: {}: {problem}", path.display())]
pub struct DenyFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is larger than 64 MiB")]
    TooLarge,
    #[error("is a pipe or a socket, not a file")]
    NoFile,
    #[error(transparent)]
    Malformed(#[from] DenyListError),
    #[error("names too many others than the list in force: more than {} key ids together", 2 * MAX_IDS)]
    TooManyTogether,
}

/// Reads the file for the start: nothing is known of it yet that it could be compared with, so a
/// file that is being written is waited for, two seconds at most.
///
/// # Errors
/// As [`read`].
pub async fn read_for_start(path: &Path, clock: &Clock) -> Result<DenyList, DenyFileError> {
    let mut list = (look(path).await?, read(path).await?);
    for _ in 0..MAX_START_LOOKS {
        let (version, _) = &list;
        if version.modified_at().plus(YOUNG) < clock.now() {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
        let seen = look(path).await?;
        if seen == *version {
            break;
        }
        list = (seen, read(path).await?);
    }
    Ok(list.1)
}

/// Reads the file.
///
/// # Errors
/// When it isn't there, is too large or isn't a list of key ids.
async fn read(path: &Path) -> Result<DenyList, DenyFileError> {
    let file = path.to_owned();
    let list = tokio::task::spawn_blocking(move || read_file(&file)).await;
    let list = list.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked).into()));
    list.map_err(|problem| DenyFileError { path: path.to_owned(), problem })
}

fn read_file(path: &Path) -> Result<DenyList, Problem> {
    let mut text = vec![];
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        // Opening it would wait for a writer, perhaps for ever.
        return Err(Problem::NoFile);
    }
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    match u64::try_from(text.len()).is_ok_and(|len| len <= MAX_FILE) {
        true => Ok(DenyList::parse(&text)?),
        false => Err(Problem::TooLarge),
    }
}

/// Takes up what the file says whenever it changes, for ever. A file that is gone or no good changes nothing: the last
/// list stays.
pub async fn watch(path: PathBuf, service: Arc<Service>, metrics: Arc<Metrics>) {
    let (mut changes, mut guard) = (Changes::default(), Guard::default());
    let mut reported = None;
    loop {
        let read = match look(&path).await {
            Ok(seen) => match changes.note(seen) || guard.is_second_look_due() {
                true => Some(read(&path).await),
                false => None,
            },
            Err(error) => Some(Err(error)),
        };
        let judged = read.map(|read| {
            let in_force = service.deny_list.load_full();
            let fail = |problem| DenyFileError { path: path.clone(), problem };
            read.and_then(|list| guard.judge(list, &in_force).map_err(fail))
        });
        match judged {
            None => {}
            Some(Ok(verdict)) => {
                act(verdict, &service, &metrics);
                reported = None;
            }
            Some(Err(error)) => {
                metrics.deny_file.set_current(false);
                metrics.deny_file.set_held(0);
                // Nobody sees now whether it stays as it was.
                guard.held = None;
                if matches!(error.problem, Problem::Unreadable(_)) {
                    // That may pass without any change of the file.
                    changes = Changes::default();
                }
                // Once, not with every look.
                if reported.as_deref() != Some(&*error.to_string()) {
                    tracing::error!(%error, "the deny list was refused; the last one stays in force");
                    reported = Some(error.to_string());
                }
            }
        }
        guard.tick();
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Puts into force what was judged, and reports it.
fn act(verdict: Verdict, service: &Service, metrics: &Metrics) {
    let before = service.deny_list.load_full();
    let file = &metrics.deny_file;
    match verdict {
        Verdict::Hold { together, held, is_new } => {
            file.set_current(false);
            file.set_held(held);
            if is_new {
                let (keys, seconds) = (before.len(), SECOND_LOOK.as_secs());
                tracing::warn!(
                    held,
                    keys,
                    "consistency.deny_file names far fewer keys than are refused: the others stay refused until the file \
                     has stood unchanged for {seconds} s"
                );
            }
            if together != *before {
                service.deny_list.store(Arc::new(together));
            }
        }
        Verdict::TakeUp { list, lifted, was_held } => {
            file.set_current(true);
            file.set_held(0);
            if list == *before {
                return;
            }
            let keys = list.len();
            service.deny_list.store(Arc::new(list));
            file.lifted.inc_by(lifted as u64);
            if was_held {
                let (from, to) = (before.len() as u64, keys as u64);
                file.set_shrunk(Shrunk { from, to, at: service.clock.boot_now() });
                tracing::warn!(
                    keys,
                    lifted,
                    "a far shorter deny list is in force: keys that it doesn't name are no longer refused by it"
                );
            } else {
                tracing::info!(keys, lifted, "a new deny list is in force");
            }
        }
    }
}

/// Decides whether what the file no longer names is lifted: at once when that is little, else once
/// the file has stood unchanged for [`SECOND_LOOK`].
#[derive(Default)]
struct Guard {
    /// The list from before keys were lifted lately, and the looks since: many small steps are a
    /// large one.
    base: Option<(Arc<DenyList>, u128)>,
    held: Option<Held>,
}

/// A list that needs a second look.
struct Held {
    list: DenyList,
    /// Looks since it was read first.
    looks: u128,
}

/// What becomes of a list that was read.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is to be in force; so many keys are refused no more.
    TakeUp { list: DenyList, lifted: usize, was_held: bool },
    /// What it names is to be refused together with what is in force, `held` keys of which it
    /// doesn't name.
    Hold { together: DenyList, held: usize, is_new: bool },
}

impl Guard {
    fn judge(&mut self, list: DenyList, in_force: &Arc<DenyList>) -> Result<Verdict, Problem> {
        let lifted = in_force.count_not_in(&list);
        let looks = self.held.take().filter(|held| held.list == list).map(|held| held.looks);
        let lifts_much = |from: &DenyList, lifted: usize| lifted * LIFTED_SHARE > from.len();
        let is_much = lifts_much(in_force, lifted)
            || self.base.as_ref().is_some_and(|(base, _)| lifts_much(base, base.count_not_in(&list)));
        if lifted > 0 && is_much && looks.is_none_or(|looks| looks < SECOND_LOOK_AFTER) {
            let together = in_force.union(&list).ok_or(Problem::TooManyTogether)?;
            self.held = Some(Held { list, looks: looks.unwrap_or(0) });
            return Ok(Verdict::Hold { together, held: lifted, is_new: looks.is_none() });
        }
        let was_held = lifted > 0 && is_much;
        if was_held {
            self.base = None;
        } else if lifted > 0 && self.base.is_none() {
            self.base = Some((Arc::clone(in_force), 0));
        }
        Ok(Verdict::TakeUp { list, lifted, was_held })
    }

    fn is_second_look_due(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.looks >= SECOND_LOOK_AFTER)
    }

    /// Counts a look.
    fn tick(&mut self) {
        if let Some(held) = &mut self.held {
            held.looks += 1;
        }
        self.base = self.base.take().map(|(base, looks)| (base, looks + 1));
        self.base.take_if(|(_, looks)| *looks > SECOND_LOOK_AFTER);
    }
}

async fn look(path: &Path) -> Result<Version, DenyFileError> {
    let file = path.to_owned();
    let seen = tokio::task::spawn_blocking(move || fs::metadata(file)).await;
    let seen = seen.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
    let fail = |error: std::io::Error| DenyFileError { path: path.to_owned(), problem: error.into() };
    Ok(Version::of(&seen.map_err(fail)?))
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    fn modified_at(&self) -> Timestamp {
        Timestamp::from_secs(self.modified.0.max(self.changed.0)).plus(Duration::from_secs(1))
    }
}

/// Decides when to read the file: once it stands still between two looks, as it may be written in parts, but not much
/// later than it began to change.
#[derive(Debug, Default)]
struct Changes {
    /// What was read while it stood still.
    read: Option<Version>,
    /// What was seen last.
    last: Option<Version>,
    /// How often in a row it was found changed.
    changing: u32,
}

impl Changes {
    /// Notes what the file looks like now; true when it is to be read.
    fn note(&mut self, now: Version) -> bool {
        let stands_still = self.last.replace(now) == Some(now);
        if self.read == Some(now) {
            self.changing = 0;
            return false;
        }
        if stands_still {
            self.read = Some(now);
        }
        self.changing += 1;
        let due = stands_still || self.changing == MAX_CHANGING;
        if due {
            self.changing = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(len: u64) -> Version {
        Version { device: 1, inode: 2, len, modified: (3, 0), changed: (3, 0) }
    }

    #[test]
    fn it_is_read_when_it_stands_still_and_while_it_never_does() {
        let mut changes = Changes::default();
        let mut note = |len| changes.note(version(len));
        assert!(!note(1), "just seen");
        assert!(note(1), "stands still");
        assert!(!note(1), "was read");
        assert_eq!([2, 3, 4].map(&mut note), [false, false, true], "while it changes");
        assert!(note(4), "again once it stands still");
        assert!(!note(4), "was read");
        assert!(!note(5) && note(5), "it has changed");
    }

    fn list(ids: std::ops::Range<u128>) -> DenyList {
        let text: String = ids.map(|id| format!("{}\n", uuid::Uuid::from_u128(id))).collect();
        DenyList::parse(text.as_bytes()).unwrap()
    }

    /// A guard and what is in force, as the watch has them.
    struct World(Guard, Arc<DenyList>);

    impl World {
        fn of(in_force: std::ops::Range<u128>) -> Self {
            Self(Guard::default(), Arc::new(list(in_force)))
        }

        /// Reads the file; says how many keys are held, and how many are refused then.
        fn reads(&mut self, file: std::ops::Range<u128>) -> (usize, usize) {
            let (list, held) = match self.0.judge(list(file), &self.1).unwrap() {
                Verdict::TakeUp { list, .. } => (list, 0),
                Verdict::Hold { together, held, .. } => (together, held),
            };
            self.1 = Arc::new(list);
            (held, self.1.len())
        }

        fn looks(&mut self, times: u128) -> bool {
            (0..times).for_each(|_| self.0.tick());
            self.0.is_second_look_due()
        }
    }

    #[test]
    fn a_tenth_is_lifted_at_once_and_more_after_a_second_look() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(10..100), (0, 90));
        let mut world = World::of(0..100);
        assert_eq!(world.reads(11..100), (11, 100));
        assert!(!world.looks(SECOND_LOOK_AFTER - 1), "not yet");
        assert_eq!(world.reads(11..100), (11, 100), "read again, and the same");
        assert!(world.looks(1));
        assert_eq!(world.reads(11..100), (0, 89));
        assert!(!world.looks(SECOND_LOOK_AFTER), "that was it");
    }

    #[test]
    fn what_is_added_counts_at_once_and_a_changed_file_begins_anew() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(0..0), (100, 100), "truncated");
        assert!(!world.looks(SECOND_LOOK_AFTER - 1));
        assert_eq!(world.reads(100..120), (100, 120), "written to");
        assert!(!world.looks(SECOND_LOOK_AFTER - 1));
        assert_eq!(world.reads(0..0), (120, 120), "truncated again");
        assert_eq!(world.reads(0..120), (0, 120), "made whole");
        assert!(!world.looks(SECOND_LOOK_AFTER));
        assert_eq!(world.reads(0..121), (0, 121), "added to");
    }

    #[test]
    fn many_small_steps_are_a_large_one() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(6..100), (0, 94));
        assert_eq!(world.reads(11..100), (5, 94), "five more");
        assert!(world.looks(SECOND_LOOK_AFTER));
        assert_eq!(world.reads(11..100), (0, 89));
        assert_eq!(world.reads(18..100), (0, 82));
        world.looks(SECOND_LOOK_AFTER + 1);
        assert_eq!(world.reads(26..100), (0, 74), "later");
    }

    #[test]
    fn a_short_list_needs_a_second_look_for_each_key_and_another_list_of_the_same_length_does() {
        let mut world = World::of(0..9);
        assert_eq!(world.reads(1..9), (1, 9));
        let mut world = World::of(0..9);
        assert_eq!(world.reads(9..18), (9, 18), "it replaces all of them");
        let mut world = World::of(0..0);
        assert_eq!((world.reads(0..0), world.reads(0..5)), ((0, 0), (0, 5)));
    }

    #[tokio::test]
    async fn a_pipe_is_named_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(read(&path).await.unwrap_err().to_string().ends_with("is a pipe or a socket, not a file"));
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        fs::write(&path, "").unwrap();
        let writing = {
            let path = path.clone();
            async move {
                tokio::time::sleep(INTERVAL / 2).await;
                fs::write(&path, format!("{}\n", uuid::Uuid::nil())).unwrap();
            }
        };
        let clock = Clock::system();
        let (list, ()) = tokio::join!(read_for_start(&path, &clock), writing);
        assert_eq!(list.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_file_is_read_or_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        let missing = read(&path).await.unwrap_err().to_string();
        assert!(missing.starts_with("consistency.deny_file: ") && missing.contains("deny.txt"), "{missing}");
        fs::write(&path, "# none yet\n").unwrap();
        assert!(read(&path).await.unwrap().is_empty());
        fs::write(&path, "nonsense\n").unwrap();
        let bad = read(&path).await.unwrap_err().to_string();
        assert!(bad.ends_with("not a key id in line 1"), "{bad}");
        File::options().write(true).open(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(read(&path).await.unwrap_err().to_string().ends_with("is larger than 64 MiB"));
        assert!(read(directory.path()).await.is_err(), "a directory");
    }
}
