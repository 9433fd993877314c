//! The admin plane and self-revocation: status codes, JSON shapes, and what is refused with which words.

mod derive;
mod import;
mod issue;
mod list;
mod macaroon;
mod revoke;
mod self_revoke;
mod strict;
mod verify;
