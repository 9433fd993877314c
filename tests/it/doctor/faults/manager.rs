//! Faults of the connection manager and of the process.

use super::Change::{After, Replace, Without};
use super::Fault;

pub(super) const FAULTS: &[Fault] = &[
    ("normalize-path", "error", &[Without("normalize_path:")]),
    ("merge-slashes", "warning", &[Without("merge_slashes:")]),
    (
        "escaped-slashes",
        "warning",
        &[Replace(
            "path_with_escaped_slashes_action: REJECT_REQUEST",
            "path_with_escaped_slashes_action: KEEP_UNCHANGED",
        )],
    ),
    (
        "underscores",
        "warning",
        &[Replace(
            "headers_with_underscores_action: REJECT_REQUEST",
            "headers_with_underscores_action: ALLOW",
        )],
    ),
    ("slow-headers", "note", &[Without("request_headers_timeout:")]),
    ("use-remote-address", "warning", &[Without("use_remote_address:")]),
    ("internal-addresses", "warning", &[After("use_remote_address:", "internal_address_config: {}")]),
    (
        "internal-addresses",
        "warning",
        &[After(
            "use_remote_address:",
            "internal_address_config: { cidr_ranges: [{ address_prefix: 0.0.0.0, prefix_len: 0 }] }",
        )],
    ),
    (
        "admin-exposed",
        "error",
        &[Replace("address: 127.0.0.1, port_value: 10001", "address: 0.0.0.0, port_value: 10001")],
    ),
    ("no-connection-limit", "note", &[Without("overload_manager:")]),
];
