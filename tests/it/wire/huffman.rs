//! The Huffman code of HPACK (RFC 7541, appendix B), made from the lengths of its codes.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Bits of each byte's code, and of the end of a string, which may not occur in one.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const END_OF_STRING: usize = 256;

/// The code of each symbol, in its low bits.
fn codes() -> &'static [u32; 257] {
    static CODES: OnceLock<[u32; 257]> = OnceLock::new();
    CODES.get_or_init(|| {
        let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let (mut codes, mut next, mut length) = ([0; 257], 0, 0);
        for symbol in order {
            next <<= LENGTHS[symbol] - length;
            length = LENGTHS[symbol];
            codes[symbol] = next;
            next += 1;
        }
        codes
    })
}

pub fn encode(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut held, mut bits) = (vec![], 0_u64, 0);
    for byte in text {
        let symbol = usize::from(*byte);
        held = held << LENGTHS[symbol] | u64::from(codes()[symbol]);
        bits += LENGTHS[symbol];
        while bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    if bits > 0 {
        // The rest of the last byte is the beginning of the end's code, which is all ones.
        bytes.push((held << (8 - bits) & 0xff) as u8 | 0xff >> bits);
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    static SYMBOLS: OnceLock<HashMap<(u8, u32), usize>> = OnceLock::new();
    let symbols =
        SYMBOLS.get_or_init(|| (0..257).map(|symbol| ((LENGTHS[symbol], codes()[symbol]), symbol)).collect());
    let (mut text, mut length, mut code) = (vec![], 0_u8, 0_u32);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            match symbols.get(&(length, code)) {
                Some(&END_OF_STRING) => return Err("the end of the string stands in it".to_owned()),
                Some(symbol) => {
                    text.push((*symbol & 0xff) as u8);
                    (length, code) = (0, 0);
                }
                None if length > 30 => return Err("no code".to_owned()),
                None => {}
            }
        }
    }
    match length < 8 && code == (1 << length) - 1 {
        true => Ok(text),
        false => Err(format!("padding of {length} bits, {code:b}")),
    }
}

#[test]
fn the_code_is_that_of_the_rfc() {
    // RFC 7541, C.4.1, C.4.3 and C.6.1.
    for (text, code) in [
        ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        ("custom-value", "25a849e95bb8e8b4bf"),
        ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
    ] {
        let hex: String = encode(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, code);
    }
    assert_eq!(codes()[END_OF_STRING], 0x3fff_ffff);
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(decode(&encode(&all)), Ok(all));
    assert!(decode(&[0xff; 4]).is_err());
    assert!(decode(&[0x1f, 0xff]).is_err());
    assert!(decode(&[0x18]).is_err());
}
