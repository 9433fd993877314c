//! From where a key may be used.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::FieldError;

/// CIDR blocks, at most 100. An empty list allows every address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressList(Arc<[IpNet]>);

impl AddressList {
    /// Most blocks that a key can have.
    pub const MAX: usize = 100;

    /// Reads CIDR blocks such as `10.0.0.0/8` and `2001:db8::/32`.
    ///
    /// # Errors
    /// When there are too many or one isn't a CIDR block.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FieldError> {
        if texts.len() > Self::MAX {
            return Err(FieldError::new("must be 100 CIDR blocks at most"));
        }
        let parse = |(index, text): (usize, &S)| {
            text.as_ref()
                .parse()
                .map_err(|_| FieldError(format!("[{index}] must be a CIDR block such as 10.0.0.0/8").into()))
        };
        let blocks: Result<Vec<IpNet>, _> = texts.iter().enumerate().map(parse).collect();
        Ok(Self(blocks?.into()))
    }

    /// The blocks, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }

    /// Whether every address is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `client` may use the key. An unknown client may only when everyone may.
    pub fn allow(&self, client: Option<IpAddr>) -> bool {
        if self.is_empty() {
            return true;
        }
        // An IPv4 client of a dual-stack socket shows up as ::ffff:a.b.c.d.
        client.is_some_and(|client| {
            let client = client.to_canonical();
            self.iter().any(|block| block.contains(&client))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_by_block_and_fails_closed() {
        let list = AddressList::parse(&["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        for (client, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(list.allow(Some(client.parse().unwrap())), allowed, "{client}");
        }
        assert!(!list.allow(None));
        assert!(AddressList::default().allow(None));
    }

    #[test]
    fn refuses_what_is_no_block() {
        for bad in ["", "10.0.0.1", "10.0.0.0/33", "::/129", "10.0.0.0/8 ", "all"] {
            assert!(AddressList::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
