//! Paths of the API's resources.

/// Keys of either kind.
pub(super) const API_KEYS: &str = "/v2alpha1/admin/apiKeys";
/// Issued keys.
pub(super) const ISSUED_API_KEYS: &str = "/v2alpha1/admin/issuedApiKeys";
/// Imported keys.
pub(super) const IMPORTED_API_KEYS: &str = "/v2alpha1/admin/importedApiKeys";
/// Actors.
pub(super) const ACTORS: &str = "/v2alpha1/admin/actors";
/// Revocation of a key by its holder.
pub(super) const SELF_REVOKE: &str = "/v2alpha1/apiKeys:selfRevoke";
