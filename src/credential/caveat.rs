//! Caveats that the holder of a macaroon adds on its own to narrow it.

use serde::{Deserialize, Deserializer};

use crate::clock::Timestamp;
use crate::key::{AddressList, Scopes};

/// A holder's caveat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caveat {
    /// Issuer that the caveat is for.
    pub issuer: String,
    /// Earlier expiry.
    pub expires: Option<Timestamp>,
    /// Later start.
    pub starts: Option<Timestamp>,
    /// Narrower scopes.
    pub scopes: Option<Scopes>,
    /// Narrower addresses.
    pub addresses: Option<AddressList>,
}

/// Ignoring an unknown field would allow more than the holder believes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    iss: String,
    #[serde(default, deserialize_with = "not_null")]
    exp: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    nbf: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    scp: Option<Vec<String>>,
    #[serde(default, deserialize_with = "not_null")]
    acl: Option<Vec<String>>,
}

impl Caveat {
    /// Parses a caveat. Returns `None` if any part of it is unknown.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        // Serde would accept an array as well.
        if !json.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let fields: Fields = serde_json::from_slice(json).ok()?;
        Some(Self {
            issuer: fields.iss,
            expires: fields.exp.map(Timestamp::from_secs),
            starts: fields.nbf.map(Timestamp::from_secs),
            scopes: fields.scp.map(|scopes| Scopes::parse(&scopes)).transpose().ok()?,
            addresses: fields.acl.map(|blocks| AddressList::parse(&blocks)).transpose().ok()?,
        })
    }
}

/// Refuses `null`: a field that is present must narrow something.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let json = br#" {"acl":["10.0.0.0/8"],"nbf":1,"scp":["a","b:*"],"iss":"i","exp":-2} "#;
        let caveat = Caveat::parse(json).unwrap();
        assert_eq!(caveat.issuer, "i");
        assert_eq!(caveat.starts, Some(Timestamp::from_secs(1)));
        assert_eq!(caveat.expires, Some(Timestamp::from_secs(-2)));
        assert_eq!(caveat.scopes.unwrap().to_string(), "a b:*");
        assert_eq!(caveat.addresses, Some(AddressList::parse(&["10.0.0.0/8"]).unwrap()));
    }

    #[test]
    fn absent_members_restrict_nothing_and_empty_ones_everything() {
        let caveat = Caveat::parse(br#"{"iss":"i"}"#).unwrap();
        let (expires, starts, scopes, addresses) = (None, None, None, None);
        assert_eq!(caveat, Caveat { issuer: "i".into(), expires, starts, scopes, addresses });
        let caveat = Caveat::parse(br#"{"iss":"i","scp":[],"acl":[]}"#).unwrap();
        assert_eq!(caveat.scopes, Some(Scopes::default()));
        assert_eq!(caveat.addresses, Some(AddressList::default()));
    }

    #[test]
    fn unknown_caveats_are_refused() {
        let many = format!(r#"{{"iss":"i","scp":[{}"x"]}}"#, r#""y","#.repeat(100));
        for wrong in [
            "",
            "{}",
            "null",
            "account = 1",
            r#"["i",5]"#,
            r#"["i",null,null,null,null]"#,
            r#"{"exp":5}"#,
            r#"{"iss":null}"#,
            r#"{"iss":["i"]}"#,
            r#"{"iss":"i","exp":null}"#,
            r#"{"iss":"i","exp":"5"}"#,
            r#"{"iss":"i","exp":5.0}"#,
            r#"{"iss":"i","exp":9223372036854775808}"#,
            r#"{"iss":"i","nbf":true}"#,
            r#"{"iss":"i","scp":null}"#,
            r#"{"iss":"i","scp":"a"}"#,
            r#"{"iss":"i","scp":["a","a"]}"#,
            r#"{"iss":"i","scp":["a b"]}"#,
            r#"{"iss":"i","scp":[1]}"#,
            &many,
            r#"{"iss":"i","acl":null}"#,
            r#"{"iss":"i","acl":["10.0.0.1"]}"#,
            r#"{"iss":"i","acl":{}}"#,
            r#"{"iss":"i","aud":["x"]}"#,
            r#"{"iss":"i","sub":"x"}"#,
            r#"{"iss":"i","Exp":5}"#,
            r#"{"iss":"i","exp":5,"exp":5}"#,
            r#"{"iss":"i","iss":"i"}"#,
            r#"{"iss":"i","scp":["a"],"scp":["a"]}"#,
            r#"{"iss":"i","exp":5,"ex\u0070":9}"#,
            r#"{"iss":"i"}{"iss":"i"}"#,
            r#"{"iss":"i"} x"#,
            r#"{"iss":"i",}"#,
        ] {
            assert_eq!(Caveat::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Caveat::parse(b"{\"iss\":\"\xff\"}"), None);
    }
}
