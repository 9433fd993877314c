//! Permissions of this process's user on paths, asked for before anything is written there.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Checks that files can be made in the directory of `path`, which is there.
///
/// # Errors
/// With the directory and the reason.
pub fn check_directory_of(path: &Path) -> Result<(), String> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => check(parent, &parent.display().to_string(), Access::WRITE_OK | Access::EXEC_OK),
        None => check(Path::new("."), "the working directory", Access::WRITE_OK | Access::EXEC_OK),
    }
}

/// Checks that a file, which is there, can be written.
///
/// # Errors
/// With the file and the reason.
pub fn check_file(path: &Path) -> Result<(), String> {
    check(path, &path.display().to_string(), Access::WRITE_OK)
}

fn check(path: &Path, name: &str, wanted: Access) -> Result<(), String> {
    match accessat(CWD, path, wanted, AtFlags::EACCESS) {
        Err(Errno::ACCESS | Errno::PERM) => {
            Err(format!("{name} can't be written by this user (uid {})", geteuid().as_raw()))
        }
        Err(Errno::ROFS) => Err(format!("{name} can't be written, as its file system is read-only")),
        // Other errors are reported when the path is opened.
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_passes_and_what_cannot_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        check_directory_of(&file).unwrap();
        check_file(&file).unwrap();
        // What isn't there is reported when it is opened.
        check_file(&directory.path().join("none")).unwrap();
        // Root may write anywhere: tests/it/config/connect.rs takes that power away.
        if !geteuid().is_root() {
            let said = check_directory_of(Path::new("/proc/x")).unwrap_err();
            assert!(said.starts_with("/proc can't be written by this user (uid "), "{said}");
        }
    }
}
