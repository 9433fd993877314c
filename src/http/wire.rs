//! JSON of the API, field by field, and its conversion to and from our own types.
//!
//! In requests, absent, `null` and `*_UNSPECIFIED` mean the same. In responses, booleans, numbers,
//! lists and `next_page_token` are always present, other members only if set.

mod credits;
mod events;
mod explain;
mod listed;
mod lists;
pub(super) mod names;
mod own_key;
mod policies;
mod query;
mod rate_limits;
mod requests;
mod responses;
mod scalars;
mod state;
mod update;
mod usage;
mod whoami;

pub(super) use events::{EventsOut, follow_request};
pub(super) use explain::{ExplainBody, ExplainOut};
pub use listed::{check_import, listed_key};
pub(super) use policies::{
    CheckPoliciesBody, CheckPoliciesOut, ListPoliciesOut, PreviewScopesBody, PreviewScopesOut,
};
pub(super) use query::{force, list_request};
pub(super) use requests::{
    BatchImportBody, BatchVerifyBody, DeriveBody, ImportBody, IssueBody, MAX_BATCH_IMPORT, MAX_BATCH_VERIFY,
    RevokeBody, RotateBody, SelfRevokeRequest, VerifyBody, custom_claims, reason, scopes, token_format, ttl,
};
pub(super) use responses::{
    BatchImportOut, BatchImportResult, BatchVerifyOut, DeriveOut, ErasedActorOut, ImportedKey, IssueOut,
    KeyOut, ListImportedOut, ListIssuedOut, RotateOut, TokenOut, VerifyOut,
};
pub(super) use state::{ActorBody, ActorOut, EmptyBody, SuspendBody, actor_update};
pub(super) use update::{KeyBody, MAX_MASK, WrappedImported, WrappedIssued, Wrapper, update, update_mask};
pub(super) use usage::{SelfUsageOut, UsageOut, usage_request};
pub(super) use whoami::WhoamiOut;
