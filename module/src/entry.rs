//! Ready answer for one credential under one policy.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use ipnet::IpNet;
use parking_lot::Mutex;
use prost::Message;
use talos_proto::edge;

#[cfg(test)]
use crate::metadata;
use crate::metadata::Metadata;

/// Bytes of an entry beside its texts, by estimate: the structure and what moka keeps for it.
const FIXED_BYTES: usize = 700;
/// Most client networks of an entry.
const MAX_ADDRESSES: usize = 100;
/// Slots of keys and of actors.
pub(crate) const SLOTS: usize = 65_536 + 4_096;

/// Answer that the server made for a credential, and the conditions of its use.
pub(crate) struct Entry {
    /// Headers to overwrite.
    pub set_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Headers to remove unless set.
    pub remove_headers: Vec<Vec<u8>>,
    /// Dynamic metadata.
    pub metadata: Metadata,
    /// Compared with the values of the slots.
    pub stamp: u64,
    /// Slots of the key and of its actor.
    pub slots: [usize; 2],
    /// Generation of the settings by which it was made.
    pub generation: u64,
    /// Wall time in microseconds from which on the module asks again.
    pub refresh_at: Option<i64>,
    /// Wall time in microseconds from which on it must not be used.
    pub expires: i64,
    /// Wall time in microseconds from which on the key is refused.
    pub key_end: Option<i64>,
    /// Client networks of the key; empty: all.
    pub addresses: Vec<IpNet>,
    /// Row of the usage table.
    pub counted_as: edge::CountedAs,
    /// Estimated size.
    pub bytes: u64,
    /// Uses that the server hasn't been told of.
    pub uses: AtomicU64,
    /// Wall time of the last one.
    pub last_use: AtomicI64,
    /// Address of its client; `None` if the module can't tell.
    pub last_client: Mutex<Option<IpAddr>>,
    /// Wall time in microseconds before which the module doesn't ask for its successor again.
    pub next_ask: AtomicI64,
    /// True if it isn't in the cache any more.
    pub is_removed: AtomicBool,
}

impl Entry {
    /// Takes over the server's message; `None` if it has something that the module can't do.
    pub(crate) fn read(message: edge::Entry) -> Option<Self> {
        let bytes = FIXED_BYTES as u64 + 3 * message.encoded_len() as u64;
        let slot = |slot: u32| usize::try_from(slot).ok().filter(|slot| *slot < SLOTS);
        let slots = [slot(message.key_slot)?, slot(message.actor_slot)?];
        let header = |header: edge::Header| {
            let good = is_name(&header.name) && is_value(&header.value);
            good.then(|| (header.name.to_vec(), header.value.to_vec()))
        };
        let address = |text: &String| text.parse::<IpNet>().ok();
        if message.addresses.len() > MAX_ADDRESSES || !message.remove_headers.iter().all(|name| is_name(name))
        {
            return None;
        }
        Some(Self {
            set_headers: message.set_headers.into_iter().map(header).collect::<Option<_>>()?,
            remove_headers: message.remove_headers.iter().map(|name| name.to_vec()).collect(),
            metadata: Metadata::read(message.metadata?)?,
            stamp: message.stamp,
            slots,
            generation: message.generation,
            refresh_at: message.refresh_at_micros,
            expires: message.expires_micros,
            key_end: message.key_end_micros,
            addresses: message.addresses.iter().map(address).collect::<Option<_>>()?,
            counted_as: message.counted_as.unwrap_or_default(),
            bytes,
            uses: AtomicU64::new(0),
            last_use: AtomicI64::new(0),
            last_client: Mutex::new(None),
            next_ask: AtomicI64::new(0),
            is_removed: AtomicBool::new(false),
        })
    }

    /// Returns true if a header is one that it sets.
    pub(crate) fn sets(&self, name: &[u8]) -> bool {
        self.set_headers.iter().any(|(set, _)| set == name)
    }

    /// Returns true if it is for clients at this address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.iter().any(|network| network.contains(&address))
    }
}

/// Returns true for a name in lower case of a header that isn't Envoy's own business.
fn is_name(name: &[u8]) -> bool {
    let is_token =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name != b"host" && name.iter().all(is_token)
}

/// Returns true for a value that ends no line.
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
impl Entry {
    /// Returns an entry with nothing in it.
    pub(crate) fn for_tests() -> Self {
        let message = edge::Entry { metadata: Some(metadata::allowed()), ..Default::default() };
        Self::read(message).expect("a good one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> edge::Entry {
        edge::Entry { metadata: Some(metadata::allowed()), ..Default::default() }
    }

    #[test]
    fn what_it_cannot_do_makes_no_entry() {
        assert!(Entry::read(message()).is_some());
        let header = |name: &'static str, value: &'static str| edge::Header {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        let set = |header| edge::Entry { set_headers: vec![header], ..message() };
        assert!(Entry::read(set(header("x-a", "b c"))).is_some());
        for bad in [
            edge::Entry { metadata: None, ..message() },
            edge::Entry { metadata: Some(prost_types::Struct::default()), ..message() },
            edge::Entry { key_slot: 69_632, ..message() },
            edge::Entry { actor_slot: u32::MAX, ..message() },
            edge::Entry { addresses: vec!["10.0.0.0".to_owned()], ..message() },
            edge::Entry { addresses: vec!["10.0.0.0/8".to_owned(); 101], ..message() },
            edge::Entry { remove_headers: vec![":path".as_bytes().into()], ..message() },
            set(header(":path", "/")),
            set(header("host", "a")),
            set(header("X-A", "b")),
            set(header("", "b")),
            set(header("x-a", "b\r\nc: d")),
        ] {
            assert!(Entry::read(bad.clone()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_compared_in_their_shortest_form() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(str::to_owned).to_vec();
        let entry = Entry::read(edge::Entry { addresses: networks, ..message() }).unwrap();
        for (address, is_in) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("2001:db8::1", true), ("11.0.0.1", false)]
        {
            assert_eq!(entry.allows(address.parse().unwrap()), is_in, "{address}");
        }
    }
}
