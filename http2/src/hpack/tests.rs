//! The examples of RFC 7541, and properties over anything that a client may write.

use super::static_table::STATIC_FIELDS;
use super::*;
use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy;

type Pair = (Vec<u8>, Vec<u8>);

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, DecodeError> {
    let mut fields = vec![];
    decoder.decode(block, |field| fields.push((field.name().to_vec(), field.value().to_vec())))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<Pair> {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// RFC 7541, C.3 and C.4: three requests over one connection, without Huffman's code and with it.
#[test]
fn the_requests_of_the_rfc() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let host = (":authority", "www.example.com");
    let expected = [
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), host][..],
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), host, ("cache-control", "no-cache")],
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ],
    ];
    for requests in [plain, huffman] {
        let mut decoder = Decoder::default();
        for ((request, fields), size) in requests.iter().zip(expected).zip([57, 110, 164]) {
            assert_eq!(read(&mut decoder, &bytes(request)), Ok(pairs(fields)));
            assert_eq!(decoder.size, size);
        }
    }
}

#[test]
fn invalid_blocks_are_refused() {
    for (block, expected) in [
        ("80", DecodeError::InvalidIndex),
        ("be", DecodeError::InvalidIndex),
        ("7f 00", DecodeError::InvalidIndex),
        ("ff ff ff ff ff 7f", DecodeError::IntegerTooLarge),
        ("ff", DecodeError::Truncated),
        ("40", DecodeError::Truncated),
        ("40 01", DecodeError::Truncated),
        ("40 01 61", DecodeError::Truncated),
        ("44 02 61", DecodeError::Truncated),
        ("04 02 61", DecodeError::Truncated),
        ("00 7f ff ff ff 0f", DecodeError::Truncated),
        ("3f e2 1f", DecodeError::InvalidTableSize),
        ("82 20", DecodeError::InvalidTableSize),
        ("44 81 00", DecodeError::InvalidHuffman),
    ] {
        assert_eq!(read(&mut Decoder::default(), &bytes(block)), Err(expected), "{block}");
    }
    // Updates to the table's whole size, twice, and to 0.
    assert_eq!(read(&mut Decoder::default(), &bytes("3f e1 1f 20 82")), Ok(pairs(&[(":method", "GET")])));
}

#[test]
fn repeated_fields_are_not_confused() {
    let mut decoder = Decoder::default();
    let path = |value: &str| [&[0x04, value.len() as u8], value.as_bytes()].concat();
    for value in ["/a", "/a", "/b", "/", "/b", "/b", ""] {
        assert_eq!(read(&mut decoder, &path(value)), Ok(pairs(&[(":path", value)])));
        // The same value under another name.
        let authority = [&[0x01, value.len() as u8], value.as_bytes()].concat();
        assert_eq!(read(&mut decoder, &authority), Ok(pairs(&[(":authority", value)])));
    }
}

/// A field as a client may write it: plain or in Huffman's code, indexed or not, by reference.
#[derive(Debug, Clone)]
enum Written {
    Field { pair: Pair, kept: bool, huffman: bool, by_index: bool },
    Resize(usize),
}

fn written() -> impl Strategy<Value = Vec<Written>> {
    let text = |longest| prop::collection::vec(prop_oneof![4 => b'a'..=b'c', 1 => any::<u8>()], 0..longest);
    let name = prop_oneof![Just(b":path".to_vec()), Just(b"te".to_vec()), text(3)];
    let flags = any::<(bool, bool, bool)>();
    let field = ((name, prop_oneof![text(3), text(2_000)]), flags)
        .prop_map(|(pair, (kept, huffman, by_index))| Written::Field { pair, kept, huffman, by_index });
    let resize = (0..=MAX_TABLE_SIZE).prop_map(Written::Resize);
    prop::collection::vec(prop_oneof![9 => field, 1 => resize], 0..60)
}

/// A client's encoder, as plain as can be.
struct Model {
    table: Vec<Pair>,
    capacity: usize,
}

impl Model {
    fn size(pair: &Pair) -> usize {
        pair.0.len() + pair.1.len() + 32
    }

    fn trim(&mut self) {
        while self.table.iter().map(Self::size).sum::<usize>() > self.capacity {
            self.table.pop();
        }
    }

    fn write(&mut self, (name, value): &Pair, kept: bool, huffman: bool, by_index: bool, out: &mut Vec<u8>) {
        let all = pairs(&STATIC_FIELDS).into_iter().chain(self.table.iter().cloned()).collect::<Vec<_>>();
        if by_index && let Some(at) = all.iter().position(|pair| pair.0 == *name && pair.1 == *value) {
            return write_integer(at + 1, 7, 0x80, out);
        }
        let named = all.iter().position(|pair| by_index && pair.0 == *name);
        let (bits, flags) = if kept { (6, 0x40) } else { (4, 0) };
        write_integer(named.map_or(0, |at| at + 1), bits, flags, out);
        for text in named.is_none().then_some(name).into_iter().chain([value]) {
            let coded = if huffman { huffman::encode(text) } else { text.clone() };
            write_integer(coded.len(), 7, if huffman { 0x80 } else { 0 }, out);
            out.extend(coded);
        }
        if kept {
            self.table.insert(0, (name.clone(), value.clone()));
            self.trim();
        }
    }
}

proptest! {
    #[test]
    fn however_a_client_writes_its_fields_they_are_read(steps in written()) {
        let (mut decoder, mut model) = (Decoder::default(), Model { table: vec![], capacity: MAX_TABLE_SIZE });
        for step in steps {
            let mut block = vec![];
            match step {
                Written::Resize(size) => {
                    write_integer(size, 5, 0x20, &mut block);
                    model.capacity = size;
                    model.trim();
                    prop_assert_eq!(read(&mut decoder, &block), Ok(vec![]));
                }
                Written::Field { pair, kept, huffman, by_index } => {
                    model.write(&pair, kept, huffman, by_index, &mut block);
                    prop_assert_eq!(read(&mut decoder, &block), Ok(vec![pair]));
                }
            }
            prop_assert_eq!(decoder.size, model.table.iter().map(Model::size).sum::<usize>());
            prop_assert!(decoder.size <= decoder.capacity);
        }
    }

    #[test]
    fn anything_is_read_or_refused(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            if read(&mut decoder, &block).is_err() {
                break;
            }
            prop_assert!(decoder.size <= decoder.capacity && decoder.capacity <= MAX_TABLE_SIZE);
        }
    }
}
