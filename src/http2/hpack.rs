//! Header fields as HTTP/2 writes them (RFC 7541).
//!
//! Reading keeps the client's table, and what it says often as it was read first. Writing keeps none: the few fields
//! of our answers are as short as they are.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::LazyLock;

use http::HeaderMap;
use thiserror::Error;

use super::field::{Entry, Field};

mod huffman;

/// Most that a client's table may hold, in bytes: what every client takes for granted (RFC 9113, 6.5.2).
const TABLE: usize = 4_096;
/// Longest literal that is remembered for when it is sent again, in bytes.
const REMEMBERED: usize = 256;
/// A number that a header needs is smaller.
const MOST: usize = 1 << 24;

/// Why the fields of a client can't be read any more, which is the end of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Invalid {
    /// Something is missing at the end.
    #[error("it ends too early")]
    Short,
    /// A number is larger than any that could be meant.
    #[error("a number is too large")]
    Number,
    /// There is no such field in the tables.
    #[error("no such index")]
    Index,
    /// Not a string in Huffman's code.
    #[error("not a Huffman string")]
    Huffman,
    /// The table may not become so large, or not here.
    #[error("a wrong table size")]
    TableSize,
}

/// Reads what one client writes.
#[derive(Debug)]
pub struct Decoder {
    /// The newest comes first.
    table: VecDeque<Rc<Field>>,
    /// What it holds and may hold, in bytes.
    size: usize,
    capacity: usize,
    /// For each static name the literal that was sent last, where the client doesn't want it in the table.
    remembered: Vec<Option<(Box<[u8]>, Rc<Field>)>>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, capacity: TABLE, remembered: vec![] }
    }
}

impl Decoder {
    /// Reads a block; `each` gets every field of it.
    ///
    /// # Errors
    /// When the table can't be kept any more.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(Entry)) -> Result<(), Invalid> {
        let mut rest = block;
        let mut is_beginning = true;
        while let Some(&first) = rest.first() {
            let entry = match first {
                0x80.. => self.indexed(number(&mut rest, 7)?)?,
                0x40.. => {
                    let field = Rc::new(self.literal(&mut rest, 6)?);
                    self.insert(Rc::clone(&field));
                    Entry::Shared(field)
                }
                0x20.. => {
                    let size = number(&mut rest, 5)?;
                    if !is_beginning || size > TABLE {
                        return Err(Invalid::TableSize);
                    }
                    self.capacity = size;
                    self.make_room(0);
                    continue;
                }
                _ => Entry::Shared(self.unindexed(&mut rest)?),
            };
            is_beginning = false;
            each(entry);
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<Entry, Invalid> {
        let at = index.checked_sub(1).ok_or(Invalid::Index)?;
        match STATIC.get(at) {
            Some(field) => Ok(Entry::Static(field)),
            None => {
                let field = self.table.get(at - STATIC.len()).ok_or(Invalid::Index)?;
                Ok(Entry::Shared(Rc::clone(field)))
            }
        }
    }

    /// A field of which at least the value stands here.
    fn literal(&self, rest: &mut &[u8], bits: u32) -> Result<Field, Invalid> {
        let name = match number(rest, bits)? {
            0 => Text::read(rest)?.decode()?.into(),
            index => self.indexed(index)?.name_again(),
        };
        Ok(Field::new(name, Text::read(rest)?.decode()?))
    }

    /// A field that isn't to be in the table. What stands there is often the same, as for `:path`: then it is what it
    /// was read as.
    fn unindexed(&mut self, rest: &mut &[u8]) -> Result<Rc<Field>, Invalid> {
        let whole = *rest;
        let index = number(rest, 4)?;
        // Other names may be something else the next time.
        let Some(field) = index.checked_sub(1).and_then(|at| STATIC.get(at)) else {
            *rest = whole;
            return Ok(Rc::new(self.literal(rest, 4)?));
        };
        let value = Text::read(rest)?;
        let coded = &whole[..whole.len() - rest.len()];
        if let Some(Some((before, field))) = self.remembered.get(index)
            && **before == *coded
        {
            return Ok(Rc::clone(field));
        }
        let field = Rc::new(Field::new(field.name_again(), value.decode()?));
        if coded.len() <= REMEMBERED {
            self.remembered.resize(STATIC.len() + 1, None);
            self.remembered[index] = Some((coded.into(), Rc::clone(&field)));
        }
        Ok(field)
    }

    fn insert(&mut self, field: Rc<Field>) {
        let size = field.size();
        self.make_room(size);
        // One that is larger than all of the table only empties it.
        if size <= self.capacity {
            self.size += size;
            self.table.push_front(field);
        }
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.capacity
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

/// A string as it stands there.
struct Text<'b> {
    is_huffman: bool,
    coded: &'b [u8],
}

impl<'b> Text<'b> {
    fn read(rest: &mut &'b [u8]) -> Result<Self, Invalid> {
        let is_huffman = rest.first().ok_or(Invalid::Short)? & 0x80 != 0;
        let length = number(rest, 7)?;
        let (coded, after) = rest.split_at_checked(length).ok_or(Invalid::Short)?;
        *rest = after;
        Ok(Self { is_huffman, coded })
    }

    fn decode(&self) -> Result<Vec<u8>, Invalid> {
        if self.is_huffman { huffman::decode(self.coded) } else { Ok(self.coded.to_vec()) }
    }
}

/// A number that begins in the lower `bits` of the next byte (RFC 7541, 5.1).
fn number(rest: &mut &[u8], bits: u32) -> Result<usize, Invalid> {
    let mut next = || {
        let (&byte, after) = rest.split_first().ok_or(Invalid::Short)?;
        *rest = after;
        Ok(byte)
    };
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(next()?) & most;
    if value < most {
        return Ok(value);
    }
    let mut shift = 0;
    loop {
        let byte = next()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
        if value > MOST || shift > 21 {
            return Err(Invalid::Number);
        }
    }
}

fn write_number(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes a field as it is, to be kept in no table.
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        write_number(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}

/// The head of an answer; without a status what follows one.
pub fn block(status: Option<http::StatusCode>, headers: &HeaderMap) -> Vec<u8> {
    let mut out = vec![];
    if let Some(status) = status {
        write_field(b":status", status.as_str().as_bytes(), &mut out);
    }
    for (name, value) in headers {
        write_field(name.as_str().as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

/// The fields that every connection's table begins with (RFC 7541, Appendix A).
static STATIC: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let fields = STATIC_FIELDS.iter();
    fields.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())).collect()
});

const STATIC_FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::Strategy;

    type Pair = (Vec<u8>, Vec<u8>);

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, Invalid> {
        let mut fields = vec![];
        decoder.decode(block, |entry| fields.push((entry.name().to_vec(), entry.value().to_vec())))?;
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
    fn what_is_wrong_is_refused() {
        for (block, expected) in [
            ("80", Invalid::Index),
            ("be", Invalid::Index),
            ("7f 00", Invalid::Index),
            ("ff ff ff ff ff 7f", Invalid::Number),
            ("ff", Invalid::Short),
            ("40", Invalid::Short),
            ("40 01", Invalid::Short),
            ("40 01 61", Invalid::Short),
            ("44 02 61", Invalid::Short),
            ("04 02 61", Invalid::Short),
            ("00 7f ff ff ff 0f", Invalid::Short),
            ("3f e2 1f", Invalid::TableSize),
            ("82 20", Invalid::TableSize),
            ("44 81 00", Invalid::Huffman),
        ] {
            assert_eq!(read(&mut Decoder::default(), &bytes(block)), Err(expected), "{block}");
        }
        // Of the table's whole size, twice, and of none.
        assert_eq!(read(&mut Decoder::default(), &bytes("3f e1 1f 20 82")), Ok(pairs(&[(":method", "GET")])));
    }

    #[test]
    fn what_was_read_last_is_not_taken_for_another() {
        let mut decoder = Decoder::default();
        let path = |value: &str| [&[0x04, value.len() as u8], value.as_bytes()].concat();
        for value in ["/a", "/a", "/b", "/", "/b", "/b", ""] {
            assert_eq!(read(&mut decoder, &path(value)), Ok(pairs(&[(":path", value)])));
            // The same value, of another name.
            let authority = [&[0x01, value.len() as u8], value.as_bytes()].concat();
            assert_eq!(read(&mut decoder, &authority), Ok(pairs(&[(":authority", value)])));
        }
    }

    /// How a client may write a field: as it is or in Huffman's code, kept or not, by an index where there is one.
    #[derive(Debug, Clone)]
    enum Written {
        Field { pair: Pair, kept: bool, huffman: bool, by_index: bool },
        Resize(usize),
    }

    fn written() -> impl Strategy<Value = Vec<Written>> {
        let text =
            |longest| prop::collection::vec(prop_oneof![4 => b'a'..=b'c', 1 => any::<u8>()], 0..longest);
        let name = prop_oneof![Just(b":path".to_vec()), Just(b"te".to_vec()), text(3)];
        let flags = any::<(bool, bool, bool)>();
        let field = ((name, prop_oneof![text(3), text(2_000)]), flags)
            .prop_map(|(pair, (kept, huffman, by_index))| Written::Field { pair, kept, huffman, by_index });
        let resize = (0..=TABLE).prop_map(Written::Resize);
        prop::collection::vec(prop_oneof![9 => field, 1 => resize], 0..60)
    }

    /// A client's end of the table, as plain as can be.
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

        fn write(
            &mut self,
            (name, value): &Pair,
            kept: bool,
            huffman: bool,
            by_index: bool,
            out: &mut Vec<u8>,
        ) {
            let all = pairs(&STATIC_FIELDS).into_iter().chain(self.table.iter().cloned()).collect::<Vec<_>>();
            if by_index && let Some(at) = all.iter().position(|pair| pair.0 == *name && pair.1 == *value) {
                return write_number(at + 1, 7, 0x80, out);
            }
            let named = all.iter().position(|pair| by_index && pair.0 == *name);
            let (bits, flags) = if kept { (6, 0x40) } else { (4, 0) };
            write_number(named.map_or(0, |at| at + 1), bits, flags, out);
            for text in named.is_none().then_some(name).into_iter().chain([value]) {
                let coded = if huffman { huffman::encode(text) } else { text.clone() };
                write_number(coded.len(), 7, if huffman { 0x80 } else { 0 }, out);
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
            let (mut decoder, mut model) = (Decoder::default(), Model { table: vec![], capacity: TABLE });
            for step in steps {
                let mut block = vec![];
                match step {
                    Written::Resize(size) => {
                        write_number(size, 5, 0x20, &mut block);
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
                prop_assert!(decoder.size <= decoder.capacity && decoder.capacity <= TABLE);
            }
        }
    }
}
