//! Header fields as HTTP/2 writes them (RFC 7541).
//!
//! Reading keeps the client's table, and what it says often as it was read first. Writing keeps none: the few fields
//! of our answers are as short as they are.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::LazyLock;

use http::HeaderMap;
use thiserror::Error;

use super::field::{Entry, Field, Name};
use super::work;

mod huffman;
#[cfg(test)]
mod tests;

/// Most that a client's table may hold, in bytes: what every client takes for granted (RFC 9113, 6.5.2).
const TABLE: usize = 4_096;
/// Longest literal that is remembered for when it is sent again, in bytes.
const REMEMBERED: usize = 256;
/// Most that all of them may count as, in bytes: `:path` and `:authority` are what repeats.
const MAX_REMEMBERED: usize = 4_096;
/// What a field may take in memory for each byte that it counts as (RFC 7541, 4.1): the least
/// counts as 32 bytes, and takes its pointers, its counters and two allocations.
pub(super) const FIELD_FACTOR: usize = 4;
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
    remembered: Vec<Option<Remembered>>,
    /// What these count as, in bytes.
    remembered_size: usize,
}

/// A literal as it was written, and what it was read as.
type Remembered = (Box<[u8]>, Rc<Field>);

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, capacity: TABLE, remembered: vec![], remembered_size: 0 }
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
            work::fields(1);
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
            0 => Name::new(Text::read(rest)?.decode()?),
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
        self.remember(index, coded, &field);
        Ok(field)
    }

    fn remember(&mut self, index: usize, coded: &[u8], field: &Rc<Field>) {
        if coded.len() > REMEMBERED {
            return;
        }
        self.remembered.resize(STATIC.len() + 1, None);
        let size = |(coded, field): &Remembered| coded.len() + field.size();
        let slot = &mut self.remembered[index];
        let before = slot.as_ref().map_or(0, size);
        let after = coded.len() + field.size();
        if self.remembered_size - before + after <= MAX_REMEMBERED {
            work::bytes(coded.len());
            self.remembered_size = self.remembered_size - before + after;
            *slot = Some((coded.into(), Rc::clone(field)));
        }
    }

    /// Bytes of memory that its tables may take.
    pub(super) const fn memory(&self) -> usize {
        FIELD_FACTOR * (self.size + self.remembered_size)
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
            work::fields(1);
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
        work::bytes(self.coded.len());
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
    fields.map(|(name, value)| Field::new(Name::fixed(name.as_bytes()), value.as_bytes())).collect()
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
