//! Credentials: their forms, and how each is made and verified. No I/O.

pub mod api_key;
mod caveat;
pub mod claims;
pub mod imported;
pub mod imported_hash;
pub mod jwk;
pub mod jwt;
pub mod macaroon;
pub mod new_jwk;
pub mod page_token;
pub mod request_seal;
pub mod secrets;
#[cfg(test)]
mod vectors;

/// Maximum length of a credential, in bytes. Base58 decoding takes quadratic time.
pub const MAX_LEN: usize = 16 * 1024;

/// A presented credential: not empty, not too long, and never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a>(&'a str);

impl<'a> Presented<'a> {
    /// Accepts a credential. Returns `None` if it is empty or longer than [`MAX_LEN`].
    pub fn new(text: &'a str) -> Option<Self> {
        (1..=MAX_LEN).contains(&text.len()).then_some(Self(text))
    }

    /// Returns the text. Callers must not print, log or store it.
    pub const fn expose(self) -> &'a str {
        self.0
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Presented(…)")
    }
}

/// Form of a credential. The first that matches counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// `eyJ….….…`
    Jwt,
    /// `<macaroon prefix>_v1_…`
    Macaroon(macaroon::Parts<'a>),
    /// `<prefix>_v1_<identifier>_<checksum>`
    Issued(api_key::Parts<'a>),
    /// Anything else.
    Imported,
}

impl Form<'_> {
    /// Returns whether this is a token derived from a key.
    pub const fn is_derived(&self) -> bool {
        matches!(self, Self::Jwt | Self::Macaroon(_))
    }
}

/// Format of a derived token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// JWT, signed with a key whose public half is published.
    Jwt,
    /// Macaroon, signed with the HMAC secret. Its holder can add caveats.
    Macaroon,
}

impl TokenFormat {
    /// Name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Macaroon => "macaroon",
        }
    }
}

/// Returns the form of `credential`.
///
/// `prefixes` are all macaroon prefixes ever used: a macaroon with a retired one must not be taken
/// for an imported key.
pub fn classify<'a, 'p>(
    credential: Presented<'a>,
    macaroon_prefixes: impl IntoIterator<Item = &'p str>,
) -> Form<'a> {
    let credential = credential.expose();
    if is_jwt(credential) {
        return Form::Jwt;
    }
    let macaroon = |prefix| macaroon::Parts::split(credential, prefix);
    if let Some(parts) = macaroon_prefixes.into_iter().find_map(macaroon) {
        return Form::Macaroon(parts);
    }
    match api_key::Parts::split(credential) {
        Some(parts) => Form::Issued(parts),
        None => Form::Imported,
    }
}

/// Returns whether a text has the form of a credential that Talos makes, whatever its prefix.
pub fn has_own_form(text: &str) -> bool {
    is_jwt(text) || text.split_once("_v1_").is_some_and(|(prefix, _)| api_key::is_prefix(prefix))
}

/// `^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`
fn is_jwt(credential: &str) -> bool {
    let Some(rest) = credential.strip_prefix("eyJ") else {
        return false;
    };
    let base64url = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        !part.is_empty() && part.bytes().all(allowed)
    };
    let mut parts = rest.split('.');
    let three = [parts.next(), parts.next(), parts.next()];
    parts.next().is_none() && three.iter().all(|part| part.is_some_and(base64url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(credential: &str) -> &'static str {
        match classify(Presented(credential), ["mc", "old"]) {
            Form::Jwt => "jwt",
            Form::Macaroon(_) => "macaroon",
            Form::Issued(_) => "issued",
            Form::Imported => "imported",
        }
    }

    #[test]
    fn first_match_wins() {
        let id = "2".repeat(20);
        let sum = "3".repeat(10);
        for (credential, expected) in [
            ("eyJa.b.c", "jwt"),
            ("eyJ.b.c", "imported"),
            ("eyJa.b", "imported"),
            ("eyJa.b.c.d", "imported"),
            ("eyJa.b.c=", "imported"),
            ("mc_v1_", "macaroon"),
            ("old_v1_AgEZ", "macaroon"),
            ("mcx_v1_AgEZ", "imported"),
            (&format!("mc_v1_{id}_{sum}"), "macaroon"),
            (&format!("ory_ak_v1_{id}_{sum}"), "issued"),
            (&format!("a_v1_v1_{id}_{sum}"), "issued"),
            (&format!("_v1_{id}_{sum}"), "imported"),
            (&format!("seventeen_chars_x_v1_{id}_{sum}"), "imported"),
            (&format!("ory-ak_v1_{id}_{sum}"), "imported"),
            (&format!("ory_ak_v1_{id}_{}", &sum[1..]), "imported"),
            (&format!("ory_ak_v1_{}_{sum}", &id[1..]), "imported"),
            (&format!("ory_ak_v1_{id}_{sum}0"), "imported"),
            (&format!("ory_ak_v2_{id}_{sum}"), "imported"),
            ("", "imported"),
        ] {
            assert_eq!(form(credential), expected, "{credential}");
        }
    }

    #[test]
    fn own_credentials_have_a_form_of_their_own() {
        for (text, own) in [
            ("ory_ak_v1_x", true),
            ("mc_v1_AgEZ", true),
            ("eyJa.b.c", true),
            ("api", false),
            ("_v1_x", false),
            ("x-oauth-basic", false),
            ("", false),
        ] {
            assert_eq!(has_own_form(text), own, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_form(credential in any::<String>()) {
            form(&credential);
        }
    }
}
