//! Addresses from which a key may be used.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::FieldError;

/// CIDR blocks, at most 100. An empty list allows every address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressList(Arc<[IpNet]>);

impl AddressList {
    /// Maximum number of blocks.
    pub const MAX: usize = 100;

    /// Parses CIDR blocks such as `10.0.0.0/8` and `2001:db8::/32`.
    ///
    /// # Errors
    /// Fails if there are too many, or one is not a CIDR block.
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
        let blocks: Vec<IpNet> = blocks?.into_iter().map(canonical).collect();
        // The default takes no memory.
        Ok(if blocks.is_empty() { Self::default() } else { Self(blocks.into()) })
    }

    /// Returns the blocks in their order.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }

    /// Returns the bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        if self.is_empty() { 0 } else { (16 + size_of_val(&*self.0)).next_multiple_of(8) }
    }

    /// Returns whether every address is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `client` may use the key. An unknown client may only if the list is empty.
    pub fn allow(&self, client: Option<IpAddr>) -> bool {
        if self.is_empty() {
            return true;
        }
        // An IPv4 client of a dual-stack socket appears as ::ffff:a.b.c.d.
        client.is_some_and(|client| {
            let client = client.to_canonical();
            self.iter().any(|block| block.contains(&client))
        })
    }

    /// Returns the addresses that both lists allow: of two overlapping blocks, the smaller.
    ///
    /// Returns `None` if there are no such addresses, or more blocks than [`AddressList::MAX`].
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.is_empty() || other.is_empty() {
            return Some(if self.is_empty() { other.clone() } else { self.clone() });
        }
        let within = |block: &IpNet, list: &Self| list.iter().any(|wider| wider.contains(block));
        let mut both: Vec<IpNet> = other.iter().filter(|block| within(block, self)).copied().collect();
        for block in self.iter().filter(|block| within(block, other)) {
            if !both.contains(block) {
                both.push(*block);
            }
        }
        (1..=Self::MAX).contains(&both.len()).then(|| Self(both.into()))
    }
}

/// Returns the block of IPv4 for one of IPv4-mapped addresses: clients' addresses are compared in
/// that form.
fn canonical(block: IpNet) -> IpNet {
    let IpNet::V6(six) = block else { return block };
    let four = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
    four.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(block, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

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
        let mapped = AddressList::parse(&["::ffff:10.0.0.0/104", "::ffff:11.0.0.1/128"]).unwrap();
        assert_eq!(mapped, AddressList::parse(&["10.0.0.0/8", "11.0.0.1/32"]).unwrap());
        assert!(mapped.allow("::ffff:10.1.2.3".parse().ok()) && !mapped.allow("11.0.0.2".parse().ok()));
        assert!(!list.allow(None));
        assert!(AddressList::default().allow(None));
    }

    #[test]
    fn refuses_what_is_no_block() {
        for bad in ["", "10.0.0.1", "10.0.0.0/33", "::/129", "10.0.0.0/8 ", "all"] {
            assert!(AddressList::parse(&[bad]).is_err(), "{bad}");
        }
    }
    #[test]
    fn intersection_table() {
        for (one, other, both) in [
            ("10.0.0.0/8", "10.1.0.0/16", Some("10.1.0.0/16")),
            ("10.1.0.0/16", "10.0.0.0/8", Some("10.1.0.0/16")),
            ("10.0.0.0/8 ::/0", "::1/128 10.2.0.0/16 11.0.0.0/8", Some("::1/128 10.2.0.0/16")),
            ("", "10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.0/8", "", Some("10.0.0.0/8")),
            ("", "", Some("")),
            ("10.0.0.0/8", "11.0.0.0/8", None),
            ("::/0", "0.0.0.0/0", None),
        ] {
            let list = |text: &str| AddressList::parse(&text.split_whitespace().collect::<Vec<_>>()).unwrap();
            assert_eq!(list(one).intersection(&list(other)), both.map(list), "{one} / {other}");
        }
    }

    proptest! {
        #[test]
        fn an_intersection_allows_addresses_that_both_lists_allow(
            blocks in prop::collection::vec((0_u8..4, 0_u8..=32), 2..8), split: prop::sample::Index,
            client in any::<u8>(),
        ) {
            let text = |(first, length): &(u8, u8)| format!("{first}.0.0.0/{length}");
            let blocks: Vec<String> = blocks.iter().map(text).collect();
            let (one, other) = blocks.split_at(1 + split.index(blocks.len() - 1));
            let (one, other) = (AddressList::parse(one).unwrap(), AddressList::parse(other).unwrap());
            let client = Some(IpAddr::from([client % 8, 0, 0, 0]));
            let allowed = one.intersection(&other).is_some_and(|both| both.allow(client));
            prop_assert_eq!(allowed, one.allow(client) && other.allow(client));
        }
    }
}
