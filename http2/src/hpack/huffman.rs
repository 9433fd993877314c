//! The Huffman code of strings (RFC 7541, 5.2).

use super::DecodeError;

/// The symbols by the length of their code in bits (RFC 7541, Appendix B).
///
/// The code is canonical: codes of one length are consecutive, in the order of their symbols, and
/// go on from those of the length before.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\
          \xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\
          \xdc\xf9",
    ),
    // The fourth code of this length is EOS, which no string may hold.
    (30, b"\x0a\x0d\x16"),
];

/// Bits that one lookup decodes; almost all symbols of headers have codes that are no longer.
const LOOKUP_BITS: u32 = 8;
/// Longest code, in bits.
const MAX_CODE_BITS: u32 = 30;

/// The first code of each length.
const FIRST_CODES: [u32; SYMBOLS.len()] = first_codes();
/// The symbol by the next [`LOOKUP_BITS`], and the length of its code; 0 when that is longer.
const SHORT_CODES: [(u8, u8); 1 << LOOKUP_BITS] = short_code_table();

const fn first_codes() -> [u32; SYMBOLS.len()] {
    let mut first = [0; SYMBOLS.len()];
    let mut row = 1;
    while row < SYMBOLS.len() {
        let (before, symbols) = SYMBOLS[row - 1];
        first[row] = (first[row - 1] + symbols.len() as u32) << (SYMBOLS[row].0 - before);
        row += 1;
    }
    first
}

const fn short_code_table() -> [(u8, u8); 1 << LOOKUP_BITS] {
    let mut short = [(0, 0); 1 << LOOKUP_BITS];
    let mut row = 0;
    while SYMBOLS[row].0 <= LOOKUP_BITS {
        let (length, symbols) = SYMBOLS[row];
        let mut at = 0;
        while at < symbols.len() {
            let begin = (FIRST_CODES[row] as usize + at) << (LOOKUP_BITS - length);
            let mut rest = 0;
            while rest < 1 << (LOOKUP_BITS - length) {
                short[begin + rest] = (symbols[at], length as u8);
                rest += 1;
            }
            at += 1;
        }
        row += 1;
    }
    short
}

/// Decodes a string.
///
/// # Errors
/// The string isn't in this code.
pub(super) fn decode(coded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    // No code is shorter than five bits.
    let mut out = Vec::with_capacity(coded.len() * 8 / 5);
    let mut rest = coded.iter();
    // The next bits from the highest down, and how many there are.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56 {
            let Some(&byte) = rest.next() else {
                break;
            };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let (symbol, length) = match SHORT_CODES[(bits >> (64 - LOOKUP_BITS)) as usize] {
            (_, 0) => decode_long(bits)?,
            (symbol, length) => (symbol, length.into()),
        };
        if length > count {
            break;
        }
        out.push(symbol);
        bits <<= length;
        count -= length;
    }
    // The last byte is padded with the beginning of EOS, which is all ones.
    let is_padding = count < 8 && bits == !(u64::MAX >> count);
    if is_padding { Ok(out) } else { Err(DecodeError::InvalidHuffman) }
}

/// Returns a symbol whose code is longer than [`LOOKUP_BITS`], and the length of its code.
fn decode_long(bits: u64) -> Result<(u8, u32), DecodeError> {
    for ((length, symbols), first) in SYMBOLS.into_iter().zip(FIRST_CODES) {
        let code = (bits >> (64 - length)) as u32;
        // Shorter codes were tried before, so this one isn't below the first of its length.
        if let Some(&symbol) = code.checked_sub(first).and_then(|at| symbols.get(at as usize)) {
            return Ok((symbol, length));
        }
    }
    // EOS, or padding that looks like it: longer than all that is left.
    Ok((0, MAX_CODE_BITS + 64))
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let (mut bits, mut count) = (0_u64, 0);
    for byte in text {
        let row = SYMBOLS.iter().position(|(_, symbols)| symbols.contains(byte)).unwrap();
        let (length, symbols) = SYMBOLS[row];
        let at = symbols.iter().position(|symbol| symbol == byte).unwrap();
        bits = bits << length | u64::from(FIRST_CODES[row] + at as u32);
        count += length;
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn every_symbol_has_one_code_and_the_last_one_ends_a_string() {
        let mut all: Vec<u8> = SYMBOLS.iter().flat_map(|(_, symbols)| symbols.iter().copied()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
        let last = FIRST_CODES.len() - 1;
        assert_eq!(FIRST_CODES[last] + SYMBOLS[last].1.len() as u32, (1 << MAX_CODE_BITS) - 1);
    }

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc() {
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let bytes: Vec<u8> = (0..coded.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&coded[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(decode(&bytes).as_deref(), Ok(text.as_bytes()));
            assert_eq!(encode(text.as_bytes()), bytes);
        }
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        assert_eq!(decode(&[]), Ok(vec![]));
        // '0' is 00000.
        assert_eq!(decode(&[0b0000_0111]), Ok(b"0".to_vec()));
        for bad in [&[0b0000_0110][..], &[0b0000_0000], &[0b0000_0111, 0xff], &[0xff], &[0xff; 4], &[0xff; 5]]
        {
            assert_eq!(decode(bad), Err(DecodeError::InvalidHuffman), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn encoded_text_decodes_to_itself(text in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&text)), Ok(text));
        }

        /// No string has two codes.
        #[test]
        fn decoded_text_encodes_to_the_same_octets(coded in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = decode(&coded) {
                prop_assert!(encode(&text) == coded);
            }
        }
    }
}
