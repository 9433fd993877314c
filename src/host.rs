//! Names of hosts, as requests say them and as they are compared.

use std::net::Ipv6Addr;

/// Longest name, in characters.
const MAX_NAME: usize = 253;

/// The name in `name:port`, to be compared with others: in lower case, without a port, brackets or a final dot. None
/// when it is none.
pub fn name_of(host: &str) -> Option<String> {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = rest.strip_prefix(':').unwrap_or(rest);
            let address: Ipv6Addr = address.parse().ok()?;
            return (is_port(port) && (rest.is_empty() || rest.starts_with(':')))
                .then(|| address.to_string());
        }
        None => match host.split_once(':') {
            Some((name, port)) => Some(name).filter(|_| is_port(port))?,
            None => host,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let good = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_of_a_name);
    good.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_dress() {
        for (host, name) in [
            ("Keys.Example", Some("keys.example")),
            ("keys.example.:443", Some("keys.example")),
            ("localhost:4420", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("[0:0:0:0:0:0:0:1]:4420", Some("::1")),
            ("", None),
            (":80", None),
            (".", None),
            ("a:b", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
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
