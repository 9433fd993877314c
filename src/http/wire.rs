//! The JSON of the API, field by field (openapi.json, talos.md section 3), and its way to and from our own types.
//!
//! In: absent, `null` and `*_UNSPECIFIED` are the same. Out: booleans, numbers, lists and `next_page_token` always stand
//! there, anything else only when it is set.

mod listed;
pub mod names;
mod requests;
mod responses;
mod update;

pub use listed::listed_key;
pub use requests::{
    BatchImportBody, BatchVerifyBody, DeriveBody, ImportBody, IssueBody, MAX_BATCH_IMPORT, MAX_BATCH_VERIFY,
    RevokeBody, RotateBody, SelfRevokeRequest, VerifyBody, custom_claims, list_request, reason, scopes,
    token_format, ttl,
};
pub use responses::{
    BatchImportOut, BatchImportResult, BatchVerifyOut, DeriveOut, ImportedKey, IssueOut, KeyOut,
    ListImportedOut, ListIssuedOut, RotateOut, TokenOut, VerifyOut,
};
pub use update::{KeyBody, MAX_MASK, WrappedImported, WrappedIssued, Wrapper, update, update_mask};
