//! The admin plane and self-revocation: status codes, JSON shapes, and what is refused with which
//! words.

mod bad_input;
mod batch;
mod delete;
mod derive;
mod docs;
mod epoch;
mod examples;
mod find;
mod import;
mod import_edges;
mod issue;
mod last_used;
mod list;
mod macaroon;
mod prolong;
mod quota;
mod races;
mod retry;
mod revoke;
mod rotate;
mod self_revoke;
mod strict;
mod suspend;
mod update;
mod verify;
