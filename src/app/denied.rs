//! Texts of the operator's own for refusals (`authz.denied_template_file`), read at the start and whenever they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::watch::fingerprint;
use crate::authz::{MAX_TEMPLATE_FILE, TemplateError, Templates};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why there are no such texts.
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

/// Reads the file.
///
/// # Errors
/// When it can't be read or can't be used.
pub fn read(path: &Path) -> Result<Templates, TemplateFileError> {
    read_file(path).map_err(|problem| TemplateFileError { path: path.to_owned(), problem })
}

fn read_file(path: &Path) -> Result<Templates, Problem> {
    use std::io::Read;
    let mut text = String::new();
    let limit = u64::try_from(MAX_TEMPLATE_FILE).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(Templates::parse(&text)?)
}

/// Takes up what the file says whenever it changes, for ever. A file that is gone or no good changes nothing: the last
/// texts stay.
pub async fn watch(path: PathBuf, templates: Arc<ArcSwap<Templates>>) {
    let mut seen = None;
    loop {
        let file = path.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = fingerprint(&file);
            (now, (seen != Some(now)).then(|| read(&file)))
        });
        // A look that panicked is as good as none.
        if let Ok((now, read)) = looked.await {
            seen = Some(now);
            match read {
                Some(Ok(new)) if new != **templates.load() => {
                    templates.store(Arc::new(new));
                    tracing::info!("new texts for refusals are in force");
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "the texts for refusals were refused; the last ones stay")
                }
                _ => {}
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
