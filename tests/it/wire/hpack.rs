//! HPACK (RFC 7541): an encoder that can write any form of a field, valid or not, and a strict
//! decoder.

use std::collections::VecDeque;

use super::huffman;
use crate::rig::support::Must;

/// A name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Size of the dynamic table that both ends begin with, in bytes.
pub const TABLE: usize = 4_096;

const STATIC: [(&str, &str); 61] = [
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

/// A dynamic table, its newest entry first.
struct Table {
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Table {
    const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: TABLE }
    }

    fn size_of((name, value): &Field) -> usize {
        name.len() + value.len() + 32
    }

    fn get(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.entries.get(index - STATIC.len()).cloned(),
        }
    }

    /// The indexes of a field, or of those that have its name.
    fn find(&self, is: impl Fn(&[u8], &[u8]) -> bool) -> Vec<usize> {
        let fixed = STATIC.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let own = self.entries.iter().map(|(name, value)| (&name[..], &value[..]));
        let all = fixed.chain(own).zip(1..);
        all.filter(|((name, value), _)| is(name, value)).map(|(_, index)| index).collect()
    }

    fn insert(&mut self, field: Field) {
        let size = Self::size_of(&field);
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    fn resize(&mut self, most: usize) {
        self.most = most;
        self.shrink(most);
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let oldest = self.entries.pop_back().must("an entry of a table that isn't empty");
            self.size -= Self::size_of(&oldest);
        }
    }
}

/// The encoding of a field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub form: Form,
    /// The name by its index, if it has one.
    pub name_by_index: bool,
    pub huffman_name: bool,
    pub huffman_value: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    NotIndexed,
    NeverIndexed,
    /// Into the dynamic table.
    Kept,
    /// All of it by index; kept if it has none yet.
    Indexed,
}

/// Literal fields without indexing and without Huffman codes.
pub const AS_IT_IS: Style =
    Style { form: Form::NotIndexed, name_by_index: false, huffman_name: false, huffman_value: false };
/// The encoding that clients choose for fields that they repeat.
pub const INDEXED: Style =
    Style { form: Form::Indexed, name_by_index: true, huffman_name: true, huffman_value: true };

pub struct Encoder {
    table: Table,
}

impl Encoder {
    pub const fn new() -> Self {
        Self { table: Table::new() }
    }

    /// The size that its table has now.
    pub const fn table_size(&self) -> usize {
        self.table.most
    }

    pub fn resize(&mut self, size: usize, out: &mut Vec<u8>) {
        self.table.resize(size);
        integer(0x20, 5, size, out);
    }

    pub fn field(&mut self, name: &[u8], value: &[u8], style: Style, out: &mut Vec<u8>) {
        let same = self.table.find(|known, its| known == name && its == value);
        if let (Form::Indexed, Some(index)) = (style.form, same.last()) {
            return integer(0x80, 7, *index, out);
        }
        let named = self.table.find(|known, _| known == name);
        let index = named.last().filter(|_| style.name_by_index).copied().unwrap_or(0);
        let (first, bits) = match style.form {
            Form::NotIndexed => (0, 4),
            Form::NeverIndexed => (0x10, 4),
            Form::Kept | Form::Indexed => (0x40, 6),
        };
        integer(first, bits, index, out);
        if index == 0 {
            string(name, style.huffman_name, out);
        }
        string(value, style.huffman_value, out);
        if matches!(style.form, Form::Kept | Form::Indexed) {
            self.table.insert((name.to_vec(), value.to_vec()));
        }
    }

    pub fn block(&mut self, fields: &[Field], style: Style) -> Vec<u8> {
        let mut block = vec![];
        for (name, value) in fields {
            self.field(name, value, style, &mut block);
        }
        block
    }
}

/// Writes an integer with a prefix of `bits` bits, the bits before it as in `first` (RFC 7541,
/// 5.1).
pub fn integer(first: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | (value & 0xff) as u8);
    }
    out.push(first | (most & 0xff) as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

pub fn string(text: &[u8], huffman: bool, out: &mut Vec<u8>) {
    let coded = if huffman { huffman::encode(text) } else { text.to_vec() };
    integer(if huffman { 0x80 } else { 0 }, 7, coded.len(), out);
    out.extend_from_slice(&coded);
}

/// Reads what a server sends, and holds it to the size of the table that it was allowed.
pub struct Decoder {
    table: Table,
    /// The largest size that it was allowed.
    most: usize,
    /// The size that the next block must begin by updating to.
    due: Option<usize>,
}

impl Decoder {
    pub const fn new() -> Self {
        Self { table: Table::new(), most: TABLE, due: None }
    }

    /// Notes that the server acknowledged this bound of its table.
    pub fn allow(&mut self, most: usize) {
        if most < self.table.most {
            self.due = Some(self.due.unwrap_or(most).min(most));
        }
        self.most = most;
    }

    pub fn decode(&mut self, mut block: &[u8]) -> Result<Vec<Field>, String> {
        let mut fields = vec![];
        while let Some(first) = block.first().copied() {
            if first & 0xe0 == 0x20 {
                let size = take_integer(&mut block, 5)?;
                if size > self.most || !fields.is_empty() {
                    return Err(format!("a table of {size} bytes after {} fields", fields.len()));
                }
                if self.due.is_some_and(|due| size <= due) {
                    self.due = None;
                }
                self.table.resize(size);
                continue;
            }
            if let Some(due) = self.due {
                return Err(format!("the table had to be made {due} bytes first"));
            }
            if first & 0x80 != 0 {
                let index = take_integer(&mut block, 7)?;
                fields.push(self.table.get(index).ok_or_else(|| format!("nothing at index {index}"))?);
                continue;
            }
            let kept = first & 0x40 != 0;
            let index = take_integer(&mut block, if kept { 6 } else { 4 })?;
            let name = match index {
                0 => take_string(&mut block)?,
                _ => self.table.get(index).ok_or_else(|| format!("no name at index {index}"))?.0,
            };
            let value = take_string(&mut block)?;
            if kept {
                self.table.insert((name.clone(), value.clone()));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}

fn take_integer(block: &mut &[u8], bits: u32) -> Result<usize, String> {
    let take = |block: &mut &[u8]| {
        let (first, rest) = block.split_first().ok_or("it ends within an integer")?;
        *block = rest;
        Ok::<_, String>(usize::from(*first))
    };
    let most = (1 << bits) - 1;
    let mut value = take(block)? & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = take(block)?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an integer beyond all bounds".to_owned())
}

fn take_string(block: &mut &[u8]) -> Result<Vec<u8>, String> {
    let huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = take_integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or("it ends within a string")?;
    *block = rest;
    if huffman { huffman::decode(text) } else { Ok(text.to_vec()) }
}

#[test]
fn what_is_encoded_is_decoded() {
    // RFC 7541, C.4: three requests on a connection.
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let no_cache = [common.as_slice(), &[("cache-control", "no-cache")]].concat();
    for (fields, hex) in
        [(&common[..], "828684418cf1e3c2e5f23a6ba0ab90f4ff"), (&no_cache, "828684be5886a8eb10649cbf")]
    {
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        let block = encoder.block(&fields, INDEXED);
        assert_eq!(block.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);
        assert_eq!(decoder.decode(&block), Ok(fields));
    }
    let mut number = vec![];
    integer(0, 5, 1_337, &mut number);
    assert_eq!(number, [31, 154, 10]);
}
