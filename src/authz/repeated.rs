//! A credential of the URL that the request repeats elsewhere: in headers of proxies and browsers
//! that hold the URL under names nobody has listed, in cookies, elsewhere in the URL.

use super::query;
use super::request::Malformed;
use super::sources::PresentedCredential;
use crate::config::CredentialSource;

/// Minimum length of a credential that is searched for, in bytes. Shorter ones stand in other
/// values by chance.
const MIN_SEARCHED: usize = 8;

/// Search for the credential of a URL. Has no Debug: its text is never printed.
#[derive(Clone, Copy)]
pub(super) struct RepeatedCredential<'p>(Option<&'p str>);

impl<'p> RepeatedCredential<'p> {
    /// Returns the search for a credential; one that finds nothing if it isn't in the query or the
    /// path.
    pub(super) fn of(presented: Option<&'p PresentedCredential<'_>>) -> Self {
        let is_in_url = |source: &CredentialSource| {
            matches!(source, CredentialSource::Query { .. } | CredentialSource::Path(_))
        };
        let presented = presented.filter(|presented| presented.carriers().any(is_in_url));
        Self(presented.map(PresentedCredential::text).filter(|text| text.len() >= MIN_SEARCHED))
    }

    /// Returns true if a value contains the credential, as it is or encoded as in a URL.
    pub(super) fn is_in(self, value: &[u8]) -> bool {
        // No encoding is shorter than what it stands for.
        let Some(credential) = self.0.filter(|credential| credential.len() <= value.len()) else {
            return false;
        };
        // The search in texts takes linear time, also for hostile values.
        let contains = |text: &[u8]| String::from_utf8_lossy(text).contains(credential);
        // What can't be decoded has been searched as it is.
        query::in_any_layer(value, contains, |_| false)
    }

    /// Checks the path of the target that goes upstream, without query and fragment.
    ///
    /// # Errors
    /// Fails if it contains the credential. What stands in a path can't be taken out without making
    /// it another one.
    pub(super) fn check_path(self, target: &[u8]) -> Result<(), Malformed> {
        let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
        if self.is_in(&target[..end]) { Err(Malformed::Ambiguous) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::path_key;
    use crate::authz::request::Headers;
    use crate::authz::request::tests::both_forms;

    #[test]
    fn a_credential_of_the_url_is_seen_in_every_encoding() {
        let sources: Vec<CredentialSource> =
            serde_json::from_value(serde_json::json!([{ "query": "key" }, { "header": "x-api-key" }]))
                .unwrap();
        for (path, key, value, seen) in [
            ("/?key=s3cr3t%2B/1", "", "/a?token=s3cr3t+/1", true),
            ("/?key=s3cr3t%2B/1", "", "url=%2Fa%3Fkey%3Ds3cr3t%2B%2F1", true),
            ("/?key=s3cr3t%2B/1", "", "u=%252Fa%253Fkey%253Ds3cr3t%252B%252F1", true),
            ("/?key=s3cr3t%2B/1", "", "100% s3cr3t+/1", true),
            ("/?key=s3cr3t%2B/1", "", "s3cr3t", false),
            ("/?key=s3cr3t%2B/1", "", "", false),
            // Too short to be told from other text.
            ("/?key=s3cr3t", "", "s3cr3t", false),
            // Not of the URL: the client's other headers are its own affair.
            ("/", "s3cr3t+/1", "s3cr3t+/1", false),
        ] {
            for attributes in both_forms(path, &[("x-api-key", key)]) {
                let presented = PresentedCredential::find(&Headers::of(&attributes), &sources).unwrap();
                let repeated = RepeatedCredential::of(presented.as_ref());
                assert_eq!(repeated.is_in(value.as_bytes()), seen, "{path} {value}");
            }
        }
        assert!(!RepeatedCredential::of(None).is_in(b"s3cr3t"));
    }

    #[test]
    fn a_path_that_repeats_the_credential_is_refused() {
        let sources: Vec<CredentialSource> =
            serde_json::from_value(serde_json::json!([{ "query": "key" }, { "path": "/v2/{key}" }])).unwrap();
        for (target, refused) in [
            ("/v2/s3cr3t-key/x", false),
            ("/v2/s3cr3t-key/x?next=/v2/s3cr3t-key#s3cr3t-key", false),
            ("/v2/s3cr3t-key/as3cr3t-keyb", true),
            ("/v2/s3cr3t-key/x/s3cr3t%2dkey", true),
            ("/v2/s3cr3t-key/x%252Fs3cr3t%252Dkey?a", true),
            ("/v2/s3cr3t-kez/s3cr3t-key", false),
            ("/p?key=s3cr3t-key", false),
            ("/p/s3cr3t-key?key=s3cr3t-key", true),
            ("/p/%733cr3t-key?key=s3cr3t%2Dkey", true),
            ("/p/s3cr3t-key", false),
            // Too short to be told from other text.
            ("/p/orders?key=orders", false),
        ] {
            for attributes in both_forms(target, &[]) {
                let headers = Headers::of(&attributes);
                let presented = PresentedCredential::find(&headers, &sources).unwrap();
                let upstream = path_key::upstream_target(headers.path(), &sources);
                let checked = RepeatedCredential::of(presented.as_ref()).check_path(&upstream);
                let expected = if refused { Err(Malformed::Ambiguous) } else { Ok(()) };
                assert_eq!(checked, expected, "{target}");
            }
        }
    }
}
