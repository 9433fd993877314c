//! Lists of texts in requests. Of one that is too long, no more is kept than shows that.

use serde::de::{Deserializer, Error as _};

use crate::config::optional_list_up_to;
use crate::credential::MAX_LEN as MAX_CREDENTIAL;
use crate::key::{AddressList, Scopes};

/// Maximum number of audiences of which a token must have one.
pub(super) const MAX_EXPECTED_AUDIENCES: usize = 1_000;

type Texts = Option<Vec<String>>;

/// Deserialises scopes.
pub(super) fn scopes<'de, D: Deserializer<'de>>(list: D) -> Result<Texts, D::Error> {
    optional_list_up_to(list, Scopes::MAX)
}

/// Deserialises CIDR blocks.
pub(super) fn blocks<'de, D: Deserializer<'de>>(list: D) -> Result<Texts, D::Error> {
    optional_list_up_to(list, AddressList::MAX)
}

/// Deserialises the audiences of a token. A token with more than it has bytes is too long anyway.
pub(super) fn audiences<'de, D: Deserializer<'de>>(list: D) -> Result<Texts, D::Error> {
    optional_list_up_to(list, MAX_CREDENTIAL)
}

/// Deserialises the audiences of which a token must have one.
pub(super) fn expected_audiences<'de, D: Deserializer<'de>>(list: D) -> Result<Texts, D::Error> {
    let audiences: Texts = optional_list_up_to(list, MAX_EXPECTED_AUDIENCES)?;
    match audiences.as_ref().is_some_and(|audiences| audiences.len() > MAX_EXPECTED_AUDIENCES) {
        true => Err(D::Error::custom(format!("must be {MAX_EXPECTED_AUDIENCES} audiences at most"))),
        false => Ok(audiences),
    }
}

/// Deserialises texts that nobody reads.
pub(super) fn ignored<'de, D: Deserializer<'de>>(list: D) -> Result<Texts, D::Error> {
    optional_list_up_to(list, 0)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "scopes")]
        scopes: Texts,
        #[serde(default, deserialize_with = "blocks")]
        blocks: Texts,
        #[serde(default, deserialize_with = "audiences")]
        audiences: Texts,
        #[serde(default, deserialize_with = "expected_audiences")]
        expected: Texts,
        #[serde(default, deserialize_with = "ignored")]
        ignored: Texts,
    }

    fn len(texts: Texts) -> Option<usize> {
        texts.map(|texts| texts.len())
    }

    #[test]
    fn one_text_beyond_the_limit_is_kept() {
        let many = vec!["a"; 100_000];
        let body = json!({ "scopes": many, "blocks": many, "audiences": many, "ignored": many });
        let body: Body = serde_json::from_str(&body.to_string()).unwrap();
        assert_eq!((len(body.scopes), len(body.blocks)), (Some(101), Some(101)));
        assert_eq!((len(body.audiences), len(body.ignored)), (Some(16_385), Some(1)));
        assert_eq!(len(body.expected), None);
    }

    #[test]
    fn too_many_expected_audiences_are_refused() {
        let body = |count: usize| json!({ "expected": vec!["a"; count] }).to_string();
        let most: Body = serde_json::from_str(&body(1_000)).unwrap();
        assert_eq!(len(most.expected), Some(1_000));
        let error = serde_json::from_str::<Body>(&body(1_001)).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("must be 1000 audiences at most"), "{error}");
    }
}
