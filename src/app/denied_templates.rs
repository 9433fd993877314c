//! Templates of the operator's own for refusals (`authz.denied_template_file`), read at the start
//! and whenever the file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::watched::{Watched, fingerprint};
use crate::authz::{MAX_TEMPLATE_FILE, TemplateError, Templates};
use crate::config::Authz;

/// Time between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// A template file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("authz.denied_template_file: {}: {problem}", path.display())]
pub struct TemplateFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] TemplateError),
}

/// Reads the configured file; without one, the built-in texts are used.
///
/// # Errors
/// As [`read`].
pub(super) fn read_at_start(config: &Authz) -> Result<ArcSwap<Templates>, TemplateFileError> {
    let templates = config.denied_template_file.as_deref().map(read).transpose()?;
    Ok(ArcSwap::from_pointee(templates.unwrap_or_default()))
}

/// Reads a template file.
///
/// # Errors
/// When it can't be read, is too large or is malformed.
pub(super) fn read(path: &Path) -> Result<Templates, TemplateFileError> {
    read_file(path).map_err(|problem| TemplateFileError { path: path.to_owned(), problem })
}

fn read_file(path: &Path) -> Result<Templates, Problem> {
    use std::io::Read;
    let mut text = String::new();
    let limit = u64::try_from(MAX_TEMPLATE_FILE).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(Templates::parse(&text)?)
}

/// Puts each new content of the file into force, forever. A file that is missing or malformed
/// changes nothing: the last templates stay.
pub(super) async fn watch(path: PathBuf, templates: Arc<ArcSwap<Templates>>) {
    let mut watched = Watched::by_polling(INTERVAL, fingerprint);
    watched.set_files([path.clone()]);
    loop {
        watched.wait().await;
        if watched.look().await.is_empty() {
            continue;
        }
        let file = path.clone();
        match tokio::task::spawn_blocking(move || read(&file)).await {
            Ok(Ok(new)) if new != **templates.load() => {
                templates.store(Arc::new(new));
                tracing::info!("new denied templates are in force");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the denied templates were refused; the last ones stay in force");
            }
            Err(panic) => {
                tracing::error!(%panic, "the denied templates can't be read; the last ones stay in force");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error is logged whenever the file changes, and the file of a key may be named by
    /// mistake.
    #[test]
    fn an_error_names_the_file_and_nothing_of_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("denied.yaml");
        for content in ["-----BEGIN PRIVATE KEY-----\ns3cr3t", "s3cr3t: 1", "responses: [s3cr3t]", "{s3cr3t"]
        {
            std::fs::write(&path, content).unwrap();
            let error = read(&path).unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.starts_with("authz.denied_template_file: ") && shown.contains("denied.yaml: "),
                "{shown}"
            );
            assert!(!format!("{shown}{error:?}").contains("s3cr3t"), "{content}: {error:?}");
        }
    }
}
