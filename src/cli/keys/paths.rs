//! Paths of the API's resources.

/// Keys of either kind.
pub const API_KEYS: &str = "/v2alpha1/admin/apiKeys";
/// Issued keys.
pub const ISSUED_API_KEYS: &str = "/v2alpha1/admin/issuedApiKeys";
/// Imported keys.
pub const IMPORTED_API_KEYS: &str = "/v2alpha1/admin/importedApiKeys";
/// Actors.
pub const ACTORS: &str = "/v2alpha1/admin/actors";
/// Revocation of a key by its holder.
pub const SELF_REVOKE: &str = "/v2alpha1/apiKeys:selfRevoke";
