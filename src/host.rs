//! Host names of requests, normalized for comparison.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Length of a host name, in characters.
const MAX_NAME: usize = 253;

/// Normalizes the host of an authority `host:port` without user information: lower case, no port,
/// no brackets, no final dot. None when it is malformed.
pub fn name_of(authority: &(impl AsRef<[u8]> + ?Sized)) -> Option<Cow<'_, str>> {
    let authority = authority.as_ref();
    if let Some(rest) = authority.strip_prefix(b"[") {
        let end = rest.iter().position(|byte| *byte == b']')?;
        let address: Ipv6Addr = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        return is_port(&rest[end + 1..]).then(|| Cow::Owned(address.to_string()));
    }
    let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
    let (name, port) = authority.split_at(end);
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let good = (1..=MAX_NAME).contains(&name.len()) && name.iter().all(is_name_byte) && is_port(port);
    let name = std::str::from_utf8(name).ok().filter(|_| good)?;
    Some(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

/// Returns true if a text may follow a host: nothing, or a colon and any number of digits.
fn is_port(text: &[u8]) -> bool {
    text.strip_prefix(b":").unwrap_or(text).iter().all(u8::is_ascii_digit)
        && (text.is_empty() || text.starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalized_or_refused() {
        for (host, name) in [
            ("Keys.Example", Some("keys.example")),
            ("keys.example.:443", Some("keys.example")),
            ("localhost:4420", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("[0:0:0:0:0:0:0:1]:4420", Some("::1")),
            ("[2001:DB8::A]:", Some("2001:db8::a")),
            ("[::ffff:127.0.0.1]", Some("::ffff:127.0.0.1")),
            ("api_1.example:", Some("api_1.example")),
            ("", None),
            (":80", None),
            (".", None),
            ("a:b", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1]80", None),
            ("[::1]:80x", None),
            ("[::1]]", None),
            ("[[::1]]", None),
            ("[::1].", None),
            ("[::1%25eth0]", None),
            ("[127.0.0.1]", None),
            ("[]", None),
            ("api.example:80x", None),
            ("api.example:-1", None),
            ("api.example]", None),
            ("api.example..:1", Some("api.example.")),
            ("http://api.example", None),
            ("api.example,api.example", None),
            ("äpi.example", None),
            ("[a]", None),
            ("user@localhost", None),
            ("localhost/", None),
            ("localhost\0", None),
            ("a b", None),
            (&"a".repeat(254), None),
        ] {
            assert_eq!(name_of(host).as_deref(), name, "{host}");
        }
    }
}
