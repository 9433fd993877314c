//! V2 binary format of macaroons (libmacaroons, `doc/format.txt`): a version byte, then sections of
//! fields, each of a type, a length and bytes. Third-party caveats are not accepted.

/// First byte.
const VERSION: u8 = 2;
/// End of a section, and of the list of caveats.
const END: u8 = 0;
const LOCATION: u8 = 1;
const IDENTIFIER: u8 = 2;
const SIGNATURE: u8 = 6;

/// Maximum number of caveats, including the first.
pub(super) const MAX_CAVEATS: usize = 64;
/// Maximum length of a varint, in bytes. 28 bits exceed the largest macaroon by far.
const MAX_VARINT: usize = 4;

/// A parsed macaroon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Macaroon<'a> {
    /// Hint for the holder. The signature doesn't cover it.
    pub location: &'a [u8],
    /// Identifier, the first input of the signature.
    pub identifier: &'a [u8],
    /// First-party caveats, in order.
    pub caveats: Vec<&'a [u8]>,
    /// Signature, the last link of the chain.
    pub signature: [u8; 32],
}

impl<'a> Macaroon<'a> {
    /// Parses a macaroon. Accepts only one encoding of each, no third-party caveats, and nothing
    /// after the end.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.expect(VERSION)?;
        let location = reader.field(LOCATION)?;
        let identifier = reader.field(IDENTIFIER)?;
        reader.expect(END)?;
        let mut caveats = vec![];
        while !reader.skip(END) {
            // A caveat with a location or verification id (`cl`, `vid`) is a third-party caveat.
            caveats.push(reader.field(IDENTIFIER)?);
            reader.expect(END)?;
            if caveats.len() > MAX_CAVEATS {
                return None;
            }
        }
        let signature = reader.field(SIGNATURE)?.try_into().ok()?;
        reader.0.is_empty().then_some(Self { location, identifier, caveats, signature })
    }

    /// Serialises the macaroon.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        write_field(&mut out, LOCATION, self.location);
        write_field(&mut out, IDENTIFIER, self.identifier);
        out.push(END);
        for caveat in &self.caveats {
            write_field(&mut out, IDENTIFIER, caveat);
            out.push(END);
        }
        out.push(END);
        write_field(&mut out, SIGNATURE, &self.signature);
        out
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Skips `byte` if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    /// Reads a field of this type.
    fn field(&mut self, kind: u8) -> Option<&'a [u8]> {
        self.expect(kind)?;
        let length = self.varint()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    /// Reads a varint: seven bits per byte, the lowest first, in the shortest encoding.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for place in 0..MAX_VARINT {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                let shortest = byte != 0 || place == 0;
                return shortest.then_some(value);
            }
        }
        None
    }
}

fn write_field(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    /// Parts of the smallest macaroon, to change one at a time.
    const PARTS: [&[u8]; 5] = [&[2], &[1, 1, b'l', 2, 1, b'i', 0], &[2, 1, b'c', 0], &[0], &[6, 32]];

    fn with(place: usize, part: &[u8]) -> Vec<u8> {
        let mut parts = PARTS;
        parts[place] = part;
        [parts.concat(), vec![7; 32]].concat()
    }

    #[test]
    fn one_macaroon_has_one_form() {
        let good = with(0, PARTS[0]);
        let parsed = Macaroon::parse(&good).unwrap();
        assert_eq!((parsed.location, parsed.identifier), (&b"l"[..], &b"i"[..]));
        assert_eq!((parsed.caveats, parsed.signature), (vec![&b"c"[..]], [7; 32]));
        let long = [&[2, 0x80, 2][..], &[b'c'; 256], &[0]].concat();
        assert_eq!(Macaroon::parse(&with(2, &long)).unwrap().caveats, [[b'c'; 256]]);
        let wrong: [(usize, &[u8]); 19] = [
            (0, &[1]),
            (0, b"0"),
            (0, &[]),
            (1, &[2, 1, b'i', 0]),                   // no location
            (1, &[1, 1, b'l', 0]),                   // no identifier
            (1, &[2, 1, b'i', 1, 1, b'l', 0]),       // out of order
            (1, &[1, 1, b'l', 2, 1, b'i']),          // no end
            (1, &[1, 0x81, 0, b'l', 2, 1, b'i', 0]), // a length in more bytes than it takes
            (1, &[0x81, 0, 1, b'l', 2, 1, b'i', 0]), // a type, too
            (1, &[1, 1, b'l', 2, 1, b'i', 6, 1, 0, 0]),
            (2, &[1, 1, b'l', 2, 1, b'c', 0]),             // cl
            (2, &[2, 1, b'c', 4, 1, b'v', 0]),             // vid
            (2, &[1, 1, b'l', 2, 1, b'c', 4, 1, b'v', 0]), // both
            (2, &[2, 1, b'c', 2, 1, b'c', 0]),
            (2, &[2, 0x80, 0x80, 0x80, 0x80, 1]),
            (2, &[2, 0xff, 0xff, 0xff, 0x7f]),
            (3, &[]),
            (4, &[6, 31]),
            (4, &[5, 32]),
        ];
        for (place, part) in wrong {
            assert_eq!(Macaroon::parse(&with(place, part)), None, "{place} {part:?}");
        }
        assert_eq!(Macaroon::parse(&[good.clone(), vec![0]].concat()), None, "bytes behind the end");
        for length in 0..good.len() {
            assert_eq!(Macaroon::parse(&good[..length]), None, "cut to {length}");
        }
    }

    #[test]
    fn the_number_of_caveats_is_bounded() {
        let most = PARTS[2].repeat(MAX_CAVEATS);
        assert!(Macaroon::parse(&with(2, &most)).is_some());
        assert_eq!(Macaroon::parse(&with(2, &PARTS[2].repeat(MAX_CAVEATS + 1))), None);
    }

    proptest! {
        #[test]
        fn encoded_macaroons_round_trip(
            location: Vec<u8>, identifier: Vec<u8>, signature: [u8; 32],
            caveats in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        ) {
            let caveats = caveats.iter().map(Vec::as_slice).collect();
            let macaroon = Macaroon { location: &location, identifier: &identifier, caveats, signature };
            let bytes = macaroon.write();
            prop_assert_eq!(Macaroon::parse(&bytes), Some(macaroon));
        }

        #[test]
        fn decoded_macaroons_encode_to_the_same_octets(
            mut bytes in prop::collection::vec(0_u8..9, 0..40), changes: Vec<(prop::sample::Index, u8)>,
        ) {
            // Starts from nothing and from something nearly valid.
            let mut near = with(0, PARTS[0]);
            for (at, byte) in changes {
                let at = at.index(near.len());
                near[at] = byte;
            }
            for bytes in [&mut bytes, &mut near] {
                if let Some(macaroon) = Macaroon::parse(bytes) {
                    prop_assert_eq!(&macaroon.write(), bytes);
                }
            }
        }
    }
}
