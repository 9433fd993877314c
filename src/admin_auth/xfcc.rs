//! Parsing of `x-forwarded-client-cert`: elements separated by commas, pairs by semicolons, quoted
//! values.
//!
//! Envoy writes a certificate's names into it unescaped, so a certificate named
//! `x,URI=spiffe://admin` looks like two elements. Names are therefore read from the certificate
//! itself, which precedes them, percent-encoded and with its hash.

use sha2::{Digest, Sha256};

use crate::caller::{Certificate, UnusableNames};
use crate::tls;

/// Maximum length of all headers, in bytes. They may contain a whole chain.
const MAX_HEADERS_LEN: usize = 32 * 1024;

/// Maximum number of elements, one for each proxy.
const MAX_ELEMENTS: usize = 16;

/// Characters that no name in a forwarded certificate may have.
const SEPARATORS: [char; 5] = [',', ';', '=', '"', '\\'];

/// Reason for refusing the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XfccError {
    /// There is no header.
    #[error("the request has no x-forwarded-client-cert")]
    Absent,
    /// The header is not in Envoy's format.
    #[error("x-forwarded-client-cert is malformed")]
    Malformed,
    /// There are names without the certificate that they come from.
    #[error(
        "x-forwarded-client-cert has no certificate, and the names in it can be forged by whoever gets one signed: set \
         `cert: true` in set_current_client_cert_details of each proxy that writes it"
    )]
    NoCertificate,
    /// The hash is not that of the certificate.
    #[error("x-forwarded-client-cert has a hash that is not that of its certificate")]
    WrongHash,
    /// A name contains a separator.
    #[error("a certificate in x-forwarded-client-cert has a name with a separator in it")]
    Separator,
    /// The certificate has no usable name.
    #[error("the forwarded certificate has no usable name: {0}")]
    Names(UnusableNames),
}

/// Returns the certificate of the client of the nearest proxy: the last element.
///
/// Elements before it may come from anybody, but must be well-formed: else the last one could be
/// part of another's name.
///
/// # Errors
/// Fails if an element is not in Envoy's format, or could be forged.
pub(crate) fn read(headers: &[&[u8]]) -> Result<Certificate, XfccError> {
    if headers.is_empty() {
        return Err(XfccError::Absent);
    }
    if headers.iter().map(|header| header.len()).sum::<usize>() > MAX_HEADERS_LEN {
        return Err(XfccError::Malformed);
    }
    let mut last = None;
    let mut count = 0;
    for header in headers {
        let text = std::str::from_utf8(header).map_err(|_| XfccError::Malformed)?;
        for element in split(text, ',').ok_or(XfccError::Malformed)? {
            count += 1;
            if count > MAX_ELEMENTS {
                return Err(XfccError::Malformed);
            }
            last = Some(certificate_of(element)?);
        }
    }
    last.ok_or(XfccError::Malformed)
}

/// Returns the certificate in one element: `By=…;Hash=…;Cert="…"`, then anything.
fn certificate_of(element: &str) -> Result<Certificate, XfccError> {
    let mut pairs = vec![];
    for pair in split(element, ';').ok_or(XfccError::Malformed)? {
        pairs.push(read_pair(pair).ok_or(XfccError::Malformed)?);
    }
    // Envoy writes these first, and then what the certificate's owner has chosen.
    let mut own = pairs.iter().skip_while(|(key, _)| *key == Key::By);
    let (Some((Key::Hash, hash)), Some((Key::Cert, encoded))) = (own.next(), own.next()) else {
        return Err(XfccError::NoCertificate);
    };
    if own.any(|(key, _)| matches!(key, Key::By | Key::Hash | Key::Cert)) {
        return Err(XfccError::Malformed);
    }
    let pem = percent_decode(encoded).ok_or(XfccError::Malformed)?;
    let (certificate, der) = tls::certificate_in(&pem).ok_or(XfccError::Malformed)?;
    let digest = hex::encode(Sha256::digest(&der));
    if !hash.eq_ignore_ascii_case(&digest) {
        return Err(XfccError::WrongHash);
    }
    match &certificate.names {
        Err(problem) => Err(XfccError::Names(*problem)),
        Ok(names) if names.iter().any(|name| name.contains(SEPARATORS)) => Err(XfccError::Separator),
        Ok(_) => Ok(certificate),
    }
}

/// Key of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    By,
    Hash,
    Cert,
    Chain,
    Subject,
    Uri,
    Dns,
}

impl Key {
    const ALL: [(&'static str, Self); 7] = [
        ("By", Self::By),
        ("Hash", Self::Hash),
        ("Cert", Self::Cert),
        ("Chain", Self::Chain),
        ("Subject", Self::Subject),
        ("URI", Self::Uri),
        ("DNS", Self::Dns),
    ];
}

/// Parses a pair. Returns `None` if it is not in Envoy's format.
fn read_pair(pair: &str) -> Option<(Key, String)> {
    let (name, value) = pair.split_once('=')?;
    let (_, key) = Key::ALL.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some((key, unquoted(value)?))
}

/// Decodes `%XX`. Returns `None` if a `%` lacks its digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        (rest, bytes) = match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                bytes.extend(byte);
                (after, bytes)
            }
            byte => {
                bytes.push(*byte);
                (after, bytes)
            }
        };
    }
    Some(bytes)
}

/// Splits at separators outside quotes. Returns `None` if quotes are not closed.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (vec![], 0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if char == separator && !quoted => {
                parts.push(text[begin..at].trim());
                begin = at + char.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim());
    (!quoted).then_some(parts)
}

/// Removes quotes. Returns `None` if the quoting is wrong.
fn unquoted(value: &str) -> Option<String> {
    let Some(inside) = value.strip_prefix('"') else {
        return (!value.contains(['"', '=', ',', ';'])).then(|| value.to_owned());
    };
    let inside = inside.strip_suffix('"')?;
    let (mut out, mut escaped) = (String::new(), false);
    for char in inside.chars() {
        match char {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return None,
            _ => {
                escaped = false;
                out.push(char);
            }
        }
    }
    (!escaped).then_some(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    /// Issues certificates with any names, as a careless authority would.
    pub(crate) struct Forged {
        uris: Vec<&'static str>,
        dns: Vec<&'static str>,
        pem: String,
        hash: String,
    }

    impl Forged {
        pub(crate) fn new(uris: &[&'static str], dns: &[&'static str]) -> Self {
            let mut params = CertificateParams::new(vec![]).unwrap();
            let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
            let names = names.chain(dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())));
            params.subject_alt_names = names.collect();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let hash = hex::encode(Sha256::digest(certificate.der()));
            Self { uris: uris.to_vec(), dns: dns.to_vec(), pem: certificate.pem(), hash }
        }

        /// Returns the element that Envoy writes with all details but the chain.
        pub(crate) fn element(&self) -> String {
            let cert = self.cert();
            format!("By=spiffe://a/proxy;Hash={};{cert};Subject=\"CN=a\\,b\\\"c\"{}", self.hash, self.names())
        }

        fn cert(&self) -> String {
            let encoded: String = self
                .pem
                .bytes()
                .map(|byte| match byte {
                    b'\n' | b' ' | b'+' | b'/' | b'=' => format!("%{byte:02X}"),
                    byte => char::from(byte).to_string(),
                })
                .collect();
            format!("Cert=\"{encoded}\"")
        }

        fn names(&self) -> String {
            let uris = self.uris.iter().map(|uri| format!(";URI={uri}"));
            uris.chain(self.dns.iter().map(|name| format!(";DNS={name}"))).collect()
        }
    }

    fn names(headers: &[&str]) -> Result<Vec<String>, XfccError> {
        let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
        let certificate = read(&headers)?;
        Ok(certificate.names.unwrap().iter().map(str::to_owned).collect())
    }

    #[test]
    fn the_certificate_that_the_nearest_proxy_saw_counts() {
        let (one, other) =
            (Forged::new(&["spiffe://a/x"], &["One", "two"]), Forged::new(&["spiffe://b"], &[]));
        let both = format!("{},{}", other.element(), one.element());
        for headers in [vec![one.element()], vec![both], vec![other.element(), one.element()]] {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            assert_eq!(names(&headers).unwrap(), ["spiffe://a/x", "one", "two"]);
        }
        // Names beside the certificate don't count and may be missing.
        let bare = format!("hash={};cert={}", one.hash.to_uppercase(), &one.cert()["Cert=".len()..]);
        assert_eq!(names(&[&bare]).unwrap(), ["spiffe://a/x", "one", "two"]);
        let lie = format!("Hash={};{};URI=spiffe://b", one.hash, one.cert());
        assert_eq!(names(&[&lie]).unwrap(), ["spiffe://a/x", "one", "two"]);
    }

    /// The owner of a certificate can choose its names.
    #[test]
    fn separators_in_names_make_nobody() {
        let admin = Forged::new(&["spiffe://a/admin"], &[]);
        let whole: &'static str = Box::leak(format!("spiffe://a/x,{}", admin.element()).into_boxed_str());
        let pairs: &'static str = Box::leak(
            format!("x;Hash={};{};URI=spiffe://a/admin", admin.hash, admin.cert()).into_boxed_str(),
        );
        for (uris, dns) in [
            (&["spiffe://a/x,URI=spiffe://a/admin"][..], &[][..]),
            (&["spiffe://a/x;URI=spiffe://a/admin"], &[]),
            (&["spiffe://a/x;DNS=admin.a"], &[]),
            (&["spiffe://a/x"], &["x,By=y;Hash=00;URI=spiffe://a/admin"]),
            (&[";URI=spiffe://a/admin"], &[]),
            (&["spiffe://a/admin "], &[]),
            (&[" spiffe://a/admin"], &[]),
            (&["\"", "spiffe://a/admin"], &[]),
            (&[whole], &[]),
            (&[pairs], &[]),
            (&[], &[whole]),
        ] {
            let forged = Forged::new(uris, dns);
            for header in [
                forged.element(),
                // An element of a proxy that forwards no certificates.
                format!("By=spiffe://a/proxy;Hash={};Subject=\"\"{}", forged.hash, forged.names()),
                format!("{},{}", admin.element(), forged.element()),
            ] {
                let read = names(&[&header]);
                assert!(read.is_err(), "{uris:?} {dns:?}: {read:?}\n{header}");
            }
        }
    }

    proptest! {
        /// Nothing after a whole element changes the caller.
        #[test]
        fn text_after_the_certificate_changes_no_name(rest in "[;,=\"\\\\ a-zA-Z:/.%]{0,60}") {
            let one = one();
            if let Ok(found) = names(&[&format!("{}{rest}", one.element())]) {
                prop_assert_eq!(found, ["spiffe://a/x"]);
            }
            let _ = names(&[&rest]);
        }
    }

    /// Returns a certificate that is made only once, since that is slow.
    fn one() -> &'static Forged {
        static ONE: std::sync::OnceLock<Forged> = std::sync::OnceLock::new();
        ONE.get_or_init(|| Forged::new(&["spiffe://a/x"], &[]))
    }

    #[test]
    fn malformed_headers_name_nobody() {
        let one = Forged::new(&["spiffe://a/x"], &[]);
        let two = Forged::new(&["spiffe://a/y"], &[]);
        let (element, hash, cert) = (one.element(), &one.hash, one.cert());
        assert_eq!(names(&[]), Err(XfccError::Absent));
        for names_only in ["By=spiffe://a/proxy;Hash=00;URI=spiffe://a/x", "URI=spiffe://a/x", "DNS=one"] {
            assert_eq!(names(&[names_only]), Err(XfccError::NoCertificate), "{names_only}");
            assert_eq!(names(&[names_only, &element]), Err(XfccError::NoCertificate), "{names_only}");
        }
        assert_eq!(names(&[&format!("Hash={};{cert}", two.hash)]), Err(XfccError::WrongHash));
        for bad in [
            String::new(),
            "Cert".to_owned(),
            format!("{element},"),
            format!(",{element}"),
            format!("{element};"),
            format!("{element};Serial=1"),
            format!("{element};Hash={hash}"),
            format!("{element};{cert}"),
            format!("URI=spiffe://a/x;Hash={hash};{cert}"),
            format!("{cert};Hash={hash}"),
            format!("Hash={hash};Subject=\"\";{cert}"),
            format!("Hash={hash};Cert=\"%2\""),
            format!("Hash={hash};Cert=\"%zz\""),
            format!("Hash={hash};Cert=\"no%20certificate\""),
            format!("Hash={hash};{}", cert.trim_end_matches('"')),
            format!("Hash={hash};{cert}x"),
            [element.as_str(); 17].join(","),
            format!("Hash={hash};{cert};URI={}", "a".repeat(MAX_HEADERS_LEN)),
        ] {
            assert!(names(&[&bad]).is_err(), "{bad:.300}");
        }
        let twice = Forged::new(&["spiffe://a/x", "spiffe://a/y"], &[]);
        assert_eq!(names(&[&twice.element()]), Err(XfccError::Names(UnusableNames::ManyUris)));
        let nobody = Forged::new(&[], &[]);
        assert_eq!(names(&[&nobody.element()]), Err(XfccError::Names(UnusableNames::None)));
    }
}
