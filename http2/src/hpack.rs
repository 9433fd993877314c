//! Header compression (RFC 7541): the decoder, and integers as both directions write them.

use std::collections::VecDeque;
use std::rc::Rc;

use thiserror::Error;

use crate::field::{FieldName, FieldRef, HeaderField};
use crate::work;

mod huffman;
pub(crate) mod static_table;
#[cfg(test)]
mod tests;

use static_table::STATIC_TABLE;

/// Largest dynamic table, in bytes: the initial SETTINGS_HEADER_TABLE_SIZE (RFC 9113, 6.5.2).
pub(crate) const MAX_TABLE_SIZE: usize = 4_096;
/// Longest encoded literal that is cached, in bytes.
const MAX_CACHED_LITERAL: usize = 256;
/// Most that all cached literals may count as, in bytes; `:path` and `:authority` are what repeats.
pub(crate) const MAX_LITERAL_CACHE_SIZE: usize = 4_096;
/// Most memory that a field takes for each byte of its size (RFC 7541, 4.1).
///
/// The smallest counts as 32 bytes, and takes its pointers, its counters and two allocations.
pub(crate) const FIELD_MEMORY_FACTOR: usize = 4;
/// Largest integer that is accepted.
const MAX_INTEGER: usize = 1 << 24;

/// A compression error, which ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[cfg_attr(
    not(any(test, feature = "contract")),
    expect(unreachable_pub, reason = "public with the feature `contract`")
)]
pub enum DecodeError {
    /// The block is truncated.
    #[error("the header block is truncated")]
    Truncated,
    /// An integer is larger than any that could be meant.
    #[error("an integer of the header block is too large")]
    IntegerTooLarge,
    /// The tables have no field with this index.
    #[error("the header block refers to an index that isn't in the tables")]
    InvalidIndex,
    /// A string isn't in Huffman's code.
    #[error("a string of the header block isn't in Huffman's code")]
    InvalidHuffman,
    /// A table size update is too large, or not at the block's beginning.
    #[error("the header block has a table size update that is too large or misplaced")]
    InvalidTableSize,
}

/// The decoder of one peer's header blocks, with its dynamic table.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The dynamic table, the newest field first.
    table: VecDeque<Rc<HeaderField>>,
    /// Size of the dynamic table, and its largest, in bytes.
    size: usize,
    capacity: usize,
    /// The last literal of each static name that the peer keeps out of the table.
    literal_cache: Vec<Option<CachedLiteral>>,
    /// Size that the cached literals count as, in bytes.
    literal_cache_size: usize,
}

/// A literal as it was encoded, and its decoded field.
type CachedLiteral = (Box<[u8]>, Rc<HeaderField>);

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            capacity: MAX_TABLE_SIZE,
            literal_cache: vec![],
            literal_cache_size: 0,
        }
    }
}

impl Decoder {
    /// Decodes a header block and passes each field to `each`.
    ///
    /// # Errors
    /// The block is malformed. The table is out of step with the peer's then.
    pub(crate) fn decode(&mut self, block: &[u8], mut each: impl FnMut(FieldRef)) -> Result<(), DecodeError> {
        let mut rest = block;
        let mut is_beginning = true;
        while let Some(&first) = rest.first() {
            let field = match first {
                0x80.. => self.indexed(read_integer(&mut rest, 7)?)?,
                0x40.. => {
                    let field = Rc::new(self.literal(&mut rest, 6)?);
                    self.insert(Rc::clone(&field));
                    FieldRef::Shared(field)
                }
                0x20.. => {
                    let size = read_integer(&mut rest, 5)?;
                    if !is_beginning || size > MAX_TABLE_SIZE {
                        return Err(DecodeError::InvalidTableSize);
                    }
                    self.capacity = size;
                    self.evict(0);
                    continue;
                }
                _ => FieldRef::Shared(self.unindexed(&mut rest)?),
            };
            is_beginning = false;
            work::fields(1);
            each(field);
        }
        Ok(())
    }

    #[inline]
    fn indexed(&self, index: usize) -> Result<FieldRef, DecodeError> {
        let at = index.checked_sub(1).ok_or(DecodeError::InvalidIndex)?;
        match STATIC_TABLE.get(at) {
            Some(field) => Ok(FieldRef::Static(field)),
            None => {
                let field = self.table.get(at - STATIC_TABLE.len()).ok_or(DecodeError::InvalidIndex)?;
                Ok(FieldRef::Shared(Rc::clone(field)))
            }
        }
    }

    /// Decodes a field whose value, at least, is a literal.
    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<HeaderField, DecodeError> {
        let name = match read_integer(rest, prefix)? {
            0 => FieldName::new(StringLiteral::read(rest)?.decode()?),
            index => self.indexed(index)?.shared_name(),
        };
        Ok(HeaderField::new(name, StringLiteral::read(rest)?.decode()?))
    }

    /// Decodes a literal that isn't added to the table.
    ///
    /// Peers repeat some of these, such as `:path`: then the field decoded before is returned.
    fn unindexed(&mut self, rest: &mut &[u8]) -> Result<Rc<HeaderField>, DecodeError> {
        let whole = *rest;
        let index = read_integer(rest, 4)?;
        // An index of the dynamic table may name another field the next time.
        let Some(field) = index.checked_sub(1).and_then(|at| STATIC_TABLE.get(at)) else {
            *rest = whole;
            return Ok(Rc::new(self.literal(rest, 4)?));
        };
        let value = StringLiteral::read(rest)?;
        let encoded = &whole[..whole.len() - rest.len()];
        if let Some(Some((before, field))) = self.literal_cache.get(index)
            && **before == *encoded
        {
            return Ok(Rc::clone(field));
        }
        let field = Rc::new(HeaderField::new(field.shared_name(), value.decode()?));
        self.cache_literal(index, encoded, &field);
        Ok(field)
    }

    fn cache_literal(&mut self, index: usize, encoded: &[u8], field: &Rc<HeaderField>) {
        if encoded.len() > MAX_CACHED_LITERAL {
            return;
        }
        self.literal_cache.resize(STATIC_TABLE.len() + 1, None);
        let size = |(encoded, field): &CachedLiteral| encoded.len() + field.size();
        let slot = &mut self.literal_cache[index];
        let before = slot.as_ref().map_or(0, size);
        let after = encoded.len() + field.size();
        if self.literal_cache_size - before + after <= MAX_LITERAL_CACHE_SIZE {
            work::bytes(encoded.len());
            self.literal_cache_size = self.literal_cache_size - before + after;
            *slot = Some((encoded.into(), Rc::clone(field)));
        }
    }

    /// Returns the memory that the tables may take, in bytes.
    #[inline]
    pub(crate) const fn memory_usage(&self) -> usize {
        FIELD_MEMORY_FACTOR * (self.size + self.literal_cache_size)
    }

    fn insert(&mut self, field: Rc<HeaderField>) {
        let size = field.size();
        self.evict(size);
        // A field larger than the whole table only empties it.
        if size <= self.capacity {
            self.size += size;
            self.table.push_front(field);
        }
    }

    /// Evicts the oldest fields until one of this size fits.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.capacity
            && let Some(oldest) = self.table.pop_back()
        {
            work::fields(1);
            self.size -= oldest.size();
        }
    }
}

/// A string literal as it is encoded (RFC 7541, 5.2).
struct StringLiteral<'b> {
    is_huffman: bool,
    encoded: &'b [u8],
}

impl<'b> StringLiteral<'b> {
    #[inline]
    fn read(rest: &mut &'b [u8]) -> Result<Self, DecodeError> {
        let is_huffman = rest.first().ok_or(DecodeError::Truncated)? & 0x80 != 0;
        let length = read_integer(rest, 7)?;
        let (encoded, after) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        *rest = after;
        Ok(Self { is_huffman, encoded })
    }

    fn decode(&self) -> Result<Vec<u8>, DecodeError> {
        work::bytes(self.encoded.len());
        if self.is_huffman { huffman::decode(self.encoded) } else { Ok(self.encoded.to_vec()) }
    }
}

/// Reads an integer whose first byte has a prefix of so many bits (RFC 7541, 5.1).
#[inline]
fn read_integer(rest: &mut &[u8], prefix: u32) -> Result<usize, DecodeError> {
    let mut next = || {
        let (&byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        Ok(byte)
    };
    let max = (1_usize << prefix) - 1;
    let mut value = usize::from(next()?) & max;
    if value < max {
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
        if value > MAX_INTEGER || shift > 21 {
            return Err(DecodeError::IntegerTooLarge);
        }
    }
}

/// Writes an integer behind these flags (RFC 7541, 5.1).
pub(crate) fn write_integer(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let max = (1_usize << prefix) - 1;
    if value < max {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | max as u8);
    let mut rest = value - max;
    while rest >= 0x80 {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
