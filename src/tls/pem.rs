//! Certificates and keys in PEM files.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsError;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// UTF-8's mark at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the certificates in a file, in order; at least one.
///
/// # Errors
/// When the file has none, or can't be read.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(content(path, "has no certificate in PEM")),
        Err(_) => Err(content(path, "is malformed: must be certificates in PEM")),
    }
}

/// Reads the private key in a file.
///
/// # Errors
/// When the file has none, or can't be read.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| content(path, "has no unencrypted private key in PEM"))
}

fn content(path: &Path, problem: &'static str) -> TlsError {
    TlsError::Content { path: path.display().to_string(), problem }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let fail = |source| TlsError::File { path: path.display().to_string(), source };
    let mut bytes = Zeroizing::new(vec![]);
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(content(path, "must be 1 MiB at most"));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(content(path, "is UTF-16: save it as UTF-8"));
    }
    // Editors on Windows begin a file with a byte order mark, which would hide the first line.
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}
