//! Host names of requests, normalized for comparison, and addresses of clients.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Parses a client's address as proxies write it. None when it is anything else.
///
/// White space may stand around it. An IPv6 address may have brackets and a zone (`%eth0`, which is
/// dropped: address lists have none). A port may follow an IPv4 address, and an IPv6 address in
/// brackets; after a bare one it would read as a part of the address.
pub fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let is_end = after.is_empty() || after.strip_prefix(':').is_some_and(is_port_number);
        return is_end.then(|| v6_of(address)).flatten();
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            let address = address.parse::<Ipv4Addr>().ok()?;
            is_port_number(port).then_some(IpAddr::V4(address))
        }
        _ => v6_of(text),
    }
}

/// Parses an IPv6 address with or without a zone.
fn v6_of(text: &str) -> Option<IpAddr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    let is_zone_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_zone = !zone.is_empty() && zone.bytes().all(is_zone_byte);
    address.parse::<Ipv6Addr>().ok().filter(|_| is_zone).map(IpAddr::V6)
}

fn is_port_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
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

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (text, address) in [
            ("203.0.113.7", Some("203.0.113.7")),
            (" \t203.0.113.7 ", Some("203.0.113.7")),
            ("203.0.113.7:51008", Some("203.0.113.7")),
            ("203.0.113.7:0", Some("203.0.113.7")),
            ("2001:DB8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:65535", Some("2001:db8::7")),
            ("[fe80::1%eth0]:443", Some("fe80::1")),
            ("fe80::1%25eth0", Some("fe80::1")),
            ("fe80::1%3", Some("fe80::1")),
            ("::ffff:203.0.113.7", Some("::ffff:203.0.113.7")),
            ("[::ffff:203.0.113.7]:80", Some("::ffff:203.0.113.7")),
            ("2001:db8::1:8080", Some("2001:db8::1:8080")),
            ("", None),
            ("unknown", None),
            ("_hidden", None),
            ("203.0.113.7:", None),
            ("203.0.113.7:65536", None),
            ("203.0.113.7:+80", None),
            ("203.0.113.7:8o", None),
            ("203.0.113.7:80:80", None),
            ("203.0.113.7 :80", None),
            ("203.0.113.7%eth0", None),
            ("203.0.113", None),
            ("0203.0.113.7", None),
            ("203.0.113.7/32", None),
            ("[203.0.113.7]", None),
            ("[2001:db8::7", None),
            ("2001:db8::7]", None),
            ("[2001:db8::7]80", None),
            ("[2001:db8::7]:", None),
            ("[2001:db8::7]:x", None),
            ("[]", None),
            ("fe80::1%", None),
            ("fe80::1%a/b", None),
            ("fe80::1%a%b", None),
            ("2001:db8::1:51008", None),
            ("203.0.113.7, 203.0.113.8", None),
            (":80", None),
        ] {
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(address_of(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(address_of(b"203.0.113.7\xff"), None);
    }
}
