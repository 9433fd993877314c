//! HTTP/2 on the authz plane, byte for byte: RFC 9113 and RFC 7541, and what gRPC's clients do with
//! them. Nothing here knows how the server is made. Where the RFCs leave a choice, the tables list
//! every reaction that is right.

pub mod call;
mod cases;
mod client;
pub mod frames;
mod heard;
mod hpack;
mod huffman;
mod windows;

mod blocks;
mod bounds;
mod compression;
mod downward;
mod ending;
mod floods;
mod framing;
mod h2spec;
mod held;
mod opening;
mod random;
mod requests;
mod streaming;
mod streams;
mod upward;
