//! Reference implementation of route matching, rule by rule as documented, for tests only.

use std::net::Ipv6Addr;

use crate::config::{PathMatch, Route};

/// The number of the rule that decides about a request; None when none matches. The host may have
/// any case and a port. The path is decoded; None stands for a request without one.
pub fn find(routes: &[Route], host: &[u8], method: &[u8], path: Option<&[u8]>) -> Option<usize> {
    let mut best: Option<(usize, [usize; 6])> = None;
    for (number, route) in routes.iter().enumerate() {
        if let Some(rank) = rank(route, host, method, path)
            && best.is_none_or(|(_, other)| rank > other)
        {
            best = Some((number, rank));
        }
    }
    best.map(|(number, _)| number)
}

/// Rank of a rule for a request; None when it doesn't match.
fn rank(route: &Route, host: &[u8], method: &[u8], path: Option<&[u8]>) -> Option<[usize; 6]> {
    if route.host.as_ref().is_some_and(|wanted| !is_host(wanted, host)) {
        return None;
    }
    let has_methods = !route.methods.is_empty();
    if has_methods && !route.methods.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(method)) {
        return None;
    }
    let (of_path, exact, literals, template) = match &route.path {
        None => (0, 0, 0, 0),
        Some(rule) => rank_of_path(rule, path?)?,
    };
    Some([route.host.iter().len(), of_path, exact, literals, template, usize::from(has_methods)])
}

fn rank_of_path(rule: &PathMatch, path: &[u8]) -> Option<(usize, usize, usize, usize)> {
    match rule {
        PathMatch::Exact(wanted) => (wanted.as_bytes() == path).then_some((1, 1, 0, 0)),
        PathMatch::Prefix(wanted) => {
            let wanted = wanted.trim_end_matches('/').as_bytes();
            let rest = path.strip_prefix(wanted)?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some((1, 0, segments(wanted).len(), 0))
        }
        PathMatch::Template(wanted) => {
            let (wanted, given) = (segments(wanted.as_bytes()), segments(path));
            let fits = |(wanted, given): (&&[u8], &&[u8])| match wanted.starts_with(b"{") {
                true => !given.is_empty(),
                false => wanted == given,
            };
            if wanted.len() != given.len() || !wanted.iter().zip(&given).all(fits) {
                return None;
            }
            let literal = |segment: &&&[u8]| !segment.is_empty() && !segment.starts_with(b"{");
            Some((1, 0, wanted.iter().filter(literal).count(), 1))
        }
    }
}

fn segments(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').skip(1).collect()
}

/// Returns true if a rule's host equals that of a request. Addresses are compared by value, names
/// as text.
fn is_host(wanted: &str, given: &[u8]) -> bool {
    let Ok(given) = std::str::from_utf8(given) else { return false };
    let end = match given.starts_with('[') {
        true => given.find(']').map(|end| end + 1),
        false => given.find(':'),
    };
    let (name, port) = given.split_at(end.unwrap_or(given.len()));
    let digits = if port.is_empty() { Some(port) } else { port.strip_prefix(':') };
    if !digits.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_digit())) {
        return false;
    }
    let whole = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match (wanted.parse::<Ipv6Addr>(), in_brackets) {
        (Ok(wanted), Some(given)) => given.parse() == Ok(wanted),
        (Err(_), None) => whole(wanted) == whole(name),
        _ => false,
    }
}

/// Decoded path of a request target: None when it is ambiguous, Some(None) when the request has
/// none.
pub fn path(target: &[u8], method: &[u8]) -> Option<Option<Vec<u8>>> {
    let before_query = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    if before_query == b"*" || (before_query.is_empty() && method == b"CONNECT") {
        return Some(None);
    }
    let encoded = match before_query.first() {
        Some(b'/') => before_query.to_vec(),
        _ => after_authority(before_query)?,
    };
    let mut path = vec![];
    let mut bytes = encoded.iter().copied();
    while let Some(byte) = bytes.next() {
        let meant = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits)
                    .ok()
                    .filter(|text| text.chars().all(|c| c.is_ascii_hexdigit()))?;
                let meant = u8::from_str_radix(digits, 16).ok()?;
                if b"/.".contains(&meant) {
                    return None;
                }
                meant
            }
            _ => byte,
        };
        if b";\\\0".contains(&meant) {
            return None;
        }
        path.push(meant);
    }
    let parts = segments(&path);
    let (last, inner) = parts.split_last()?;
    let is_dot = |segment: &[u8]| segment == b"." || segment == b"..";
    let is_plain = !is_dot(last) && inner.iter().all(|segment| !segment.is_empty() && !is_dot(segment));
    (is_plain && !path.windows(2).any(is_overlong)).then_some(Some(path))
}

/// Returns true if two bytes begin a character that fits into fewer bytes.
fn is_overlong(pair: &[u8]) -> bool {
    let (lead, next) = (u32::from(pair[0]), u32::from(pair[1]));
    if next >> 6 != 0b10 {
        return false;
    }
    match lead {
        0xc0..=0xdf => ((lead & 0x1f) << 6 | (next & 0x3f)) < 0x80,
        0xe0..=0xef => ((lead & 0xf) << 12 | (next & 0x3f) << 6) < 0x800,
        0xf0..=0xf7 => ((lead & 7) << 18 | (next & 0x3f) << 12) < 0x1_0000,
        _ => false,
    }
}

/// The part after `scheme://authority`; a slash when there is none.
fn after_authority(target: &[u8]) -> Option<Vec<u8>> {
    let at = target.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = (&target[..at], &target[at + 3..]);
    let is_scheme = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return None;
    }
    let path: Vec<u8> = rest.iter().copied().skip_while(|byte| !matches!(byte, b'/' | b'\\')).collect();
    match path.first() {
        None => Some(b"/".to_vec()),
        Some(b'/') => Some(path),
        Some(_) => None,
    }
}
