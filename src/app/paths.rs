//! Checks of paths that a configuration names, before anything is opened.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::permissions;

/// Longest path of a Unix socket, in bytes: `sockaddr_un` without the final zero.
const MAX_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Checks that a socket can be made at a path.
///
/// # Errors
/// With the key before the reason, and the cure behind it.
pub(super) fn socket(key: &str, path: &Path) -> Result<(), String> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH_BYTES {
        return Err(format!(
            "{key}: has {length} bytes, and a socket's path {MAX_SOCKET_PATH_BYTES} at most; name a shorter path"
        ));
    }
    directory_of(key, path)?;
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(format!("{key}: {} ends with /; name a path without it", path.display()));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(format!(
            "{key}: {} is there and no socket, so it isn't replaced; name another path",
            path.display()
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn directory_of(key: &str, path: &Path) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => {
            Err(format!("{key}: there is no directory {}; create it, or name another path", parent.display()))
        }
        _ => permissions::check_directory_of(path)
            .map_err(|problem| format!("{key}: {problem}; let it write there, or name another path")),
    }
}
