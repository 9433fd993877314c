//! Decoding of the fields of a CheckRequest that are used, without copies.
//!
//! Envoy sends some forty texts along with a request. Owning or reference-counting each of them
//! takes longer than deciding about the request, so the attributes borrow from the message. Field
//! numbers are those of `proto/ext_authz.proto`; the tests below compare with its generated
//! decoder.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Name and value.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// Initial capacity for header lines.
const TYPICAL_HEADER_COUNT: usize = 32;

/// Most headers, context extensions and namespaces of metadata of a request, all together.
///
/// Envoy sends some hundred at most. An empty one takes two bytes of the message and many times
/// that in memory, and each search for a header visits all of them.
const MAX_ENTRIES: usize = 4_096;

/// Attributes of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Address of the downstream peer, as text. `None` if it has none (a Unix socket).
    pub peer: Option<&'a [u8]>,
    /// Method as received.
    pub method: &'a [u8],
    /// Path as received, with query and fragment.
    pub path: &'a [u8],
    /// Host as received, with port.
    pub host: &'a [u8],
    /// Headers, one value per name, repeated headers joined by commas. Empty with
    /// `encode_raw_headers`.
    pub joined_headers: Vec<Pair<'a>>,
    /// Header lines as received. `None` without `encode_raw_headers`.
    pub raw_headers: Option<Vec<Pair<'a>>>,
    /// Context extensions of the Envoy route.
    pub context_extensions: Vec<Pair<'a>>,
    /// Metadata of the Envoy route: namespaces, and encoded `google.protobuf.Struct`s.
    pub route_metadata: Vec<Pair<'a>>,
}

/// Problem that makes a message unusable as a CheckRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheckRequest {
    /// It isn't protobuf, or a used field has another type.
    #[error("not a CheckRequest")]
    Malformed,
    /// It has more headers, context extensions and namespaces of metadata than are read.
    #[error("the CheckRequest has more than {max} headers and settings of its route", max = MAX_ENTRIES)]
    TooManyEntries,
}

type DecodeResult = Result<(), InvalidCheckRequest>;

impl<'a> Attributes<'a> {
    /// Decodes a message. Repeated fields are merged as protobuf demands.
    ///
    /// # Errors
    /// Fails if the message isn't protobuf, a used field has another type, or there are too many
    /// headers, context extensions and namespaces of metadata.
    pub fn decode(message: &'a [u8]) -> Result<Self, InvalidCheckRequest> {
        let mut decoder = Decoder::default();
        for_each_field(message, &[1], |_, attributes| decoder.read(attributes))?;
        Ok(decoder.found)
    }

    /// Returns the memory that the lists take, in bytes. The texts are the message's own.
    pub(super) fn lists_size(&self) -> usize {
        let raw_headers = self.raw_headers.as_ref().map_or(0, Vec::capacity);
        let others = [&self.joined_headers, &self.context_extensions, &self.route_metadata];
        (raw_headers + others.map(Vec::capacity).iter().sum::<usize>()) * size_of::<Pair<'_>>()
    }
}

/// Reads a message field by field.
#[derive(Default)]
struct Decoder<'a> {
    /// The fields that were read so far.
    found: Attributes<'a>,
    /// Number of entries of all lists.
    entries: usize,
}

impl<'a> Decoder<'a> {
    fn read(&mut self, attributes: &'a [u8]) -> DecodeResult {
        for_each_field(attributes, &[1, 4, 10, 13], |number, value| match number {
            1 => self.read_source(value),
            4 => for_each_field(value, &[2], |_, http| self.read_http(http)),
            10 => {
                count(&mut self.entries)?;
                push_map_entry(&mut self.found.context_extensions, value)
            }
            _ => for_each_field(value, &[1], |_, entry| {
                count(&mut self.entries)?;
                push_map_entry(&mut self.found.route_metadata, entry)
            }),
        })
    }

    fn read_source(&mut self, source: &'a [u8]) -> DecodeResult {
        for_each_field(source, &[1], |_, address| {
            for_each_field(address, &[1], |_, socket_address| {
                let peer = self.found.peer.get_or_insert_default();
                for_each_field(socket_address, &[2], |_, text| {
                    *peer = text;
                    Ok(())
                })
            })
        })
    }

    fn read_http(&mut self, http: &'a [u8]) -> DecodeResult {
        let Self { found, entries } = self;
        for_each_field(http, &[2, 3, 4, 5, 13], |number, value| {
            match number {
                2 => found.method = value,
                3 => {
                    count(entries)?;
                    return push_map_entry(&mut found.joined_headers, value);
                }
                4 => found.path = value,
                5 => found.host = value,
                _ => {
                    let lines =
                        found.raw_headers.get_or_insert_with(|| Vec::with_capacity(TYPICAL_HEADER_COUNT));
                    return for_each_field(value, &[1], |_, line| {
                        count(entries)?;
                        push_header(lines, line)
                    });
                }
            }
            Ok(())
        })
    }
}

/// Counts one more entry.
///
/// # Errors
/// Fails if there are too many.
fn count(entries: &mut usize) -> DecodeResult {
    *entries += 1;
    if *entries > MAX_ENTRIES { Err(InvalidCheckRequest::TooManyEntries) } else { Ok(()) }
}

/// Appends a map entry.
fn push_map_entry<'a>(pairs: &mut Vec<Pair<'a>>, entry: &'a [u8]) -> DecodeResult {
    let mut pair = Pair::default();
    for_each_field(entry, &[1, 2], |number, text| {
        match number {
            1 => pair.0 = text,
            _ => pair.1 = text,
        }
        Ok(())
    })?;
    pairs.push(pair);
    Ok(())
}

/// Appends a header line. The value is a string or, in newer versions of Envoy, bytes.
fn push_header<'a>(lines: &mut Vec<Pair<'a>>, line: &'a [u8]) -> DecodeResult {
    if let Some(pair) = parse_common_header(line) {
        lines.push(pair);
        return Ok(());
    }
    let (mut name, mut text, mut raw) = Default::default();
    for_each_field(line, &[1, 2, 3], |number, value| {
        match number {
            1 => name = value,
            2 => text = value,
            _ => raw = value,
        }
        Ok(())
    })?;
    lines.push((name, if raw.is_empty() { text } else { raw }));
    Ok(())
}

/// Parses a header line of the usual shape: a short name, then a short value, and nothing else.
fn parse_common_header(line: &[u8]) -> Option<Pair<'_>> {
    let (&[0x0a, length @ 1..0x80], rest) = line.split_first_chunk()? else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (&[0x12 | 0x1a, length @ 0..0x80], value) = rest.split_first_chunk()? else { return None };
    (value.len() == usize::from(length)).then_some((name, value))
}

/// Calls `visit` for each field in `used`. Each is a string or a message.
#[inline]
fn for_each_field<'a>(
    mut message: &'a [u8],
    used: &[u32],
    mut visit: impl FnMut(u32, &'a [u8]) -> DecodeResult,
) -> DecodeResult {
    while let Some(first) = message.first() {
        let (number, wire_type) = match first {
            // One-byte tag: a field number below 16.
            8..0x80 => {
                message.advance(1);
                (u32::from(first >> 3), WireType::try_from(u64::from(first & 7)))
            }
            _ => {
                let (number, wire_type) =
                    decode_key(&mut message).map_err(|_| InvalidCheckRequest::Malformed)?;
                (number, Ok(wire_type))
            }
        };
        let is_used = used.contains(&number);
        match wire_type.map_err(|_| InvalidCheckRequest::Malformed)? {
            WireType::LengthDelimited => {
                let length = length(&mut message)?;
                let value;
                (value, message) = message.split_at_checked(length).ok_or(InvalidCheckRequest::Malformed)?;
                if is_used {
                    visit(number, value)?;
                }
            }
            other if !is_used => {
                skip_field(other, number, &mut message, DecodeContext::default())
                    .map_err(|_| InvalidCheckRequest::Malformed)?;
            }
            _ => return Err(InvalidCheckRequest::Malformed),
        }
    }
    Ok(())
}

#[inline]
fn length(message: &mut &[u8]) -> Result<usize, InvalidCheckRequest> {
    if let Some(&short @ 0..0x80) = message.first() {
        message.advance(1);
        return Ok(usize::from(short));
    }
    let length = decode_varint(message).map_err(|_| InvalidCheckRequest::Malformed)?;
    usize::try_from(length).map_err(|_| InvalidCheckRequest::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
    use prost::Message;
    use prost::bytes::Bytes;
    use talos_proto::{
        Address, AttributeContext, CheckRequest, Entry, HeaderMap, HeaderValue, HttpRequest, Metadata,
        MetadataEntry, Peer, Request, SocketAddress,
    };

    /// Returns what the generated decoder has read.
    fn as_generated(request: &CheckRequest) -> Attributes<'_> {
        let Some(attributes) = &request.attributes else {
            return Attributes::default();
        };
        let address = attributes.source.as_ref().and_then(|peer| peer.address.as_ref());
        let socket = address.and_then(|address| address.socket_address.as_ref());
        let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let raw = http.and_then(|http| http.header_map.as_ref());
        let metadata = attributes.route_metadata_context.as_ref();
        Attributes {
            peer: socket.map(|socket| &socket.address[..]),
            method: http.map_or(&[], |http| &http.method),
            path: http.map_or(&[], |http| &http.path),
            host: http.map_or(&[], |http| &http.host),
            joined_headers: http.map_or(vec![], |http| http.headers.iter().map(entry).collect()),
            raw_headers: raw.map(|map| map.headers.iter().map(line).collect()),
            context_extensions: attributes.context_extensions.iter().map(entry).collect(),
            route_metadata: metadata.map_or(vec![], |all| {
                all.filter_metadata.iter().map(|of| (&of.key[..], &of.value[..])).collect()
            }),
        }
    }

    fn entry(entry: &Entry) -> Pair<'_> {
        (&entry.key, &entry.value)
    }

    fn line(line: &HeaderValue) -> Pair<'_> {
        (&line.key, if line.raw_value.is_empty() { &line.value } else { &line.raw_value })
    }

    fn text() -> impl Strategy<Value = Bytes> {
        // Lengths around 128 need one or two bytes.
        vec(any::<u8>(), 0..140).prop_map(Bytes::from)
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        vec((text(), text()).prop_map(|(key, value)| Entry { key, value }), 0..4)
    }

    fn http() -> impl Strategy<Value = HttpRequest> {
        let line = (text(), text(), text()).prop_map(|(key, value, raw_value)| HeaderValue {
            key,
            value,
            raw_value,
        });
        let map = of(vec(line, 0..4).prop_map(|headers| HeaderMap { headers }));
        (text(), text(), text(), entries(), map).prop_map(|(method, path, host, headers, header_map)| {
            HttpRequest { method, path, host, headers, header_map }
        })
    }

    fn requests() -> impl Strategy<Value = CheckRequest> {
        let socket = of(text().prop_map(|address| SocketAddress { address }));
        let peer = of(of(socket.prop_map(|socket_address| Address { socket_address })));
        let namespace = (text(), text()).prop_map(|(key, value)| MetadataEntry { key, value });
        let metadata = of(vec(namespace, 0..3).prop_map(|filter_metadata| Metadata { filter_metadata }));
        let request = of(of(http()).prop_map(|http| Request { http }));
        let attributes = (peer, request, entries(), metadata).prop_map(
            |(peer, request, context_extensions, route_metadata_context)| AttributeContext {
                source: peer.map(|address| Peer { address }),
                request,
                context_extensions,
                route_metadata_context,
            },
        );
        of(attributes).prop_map(|attributes| CheckRequest { attributes })
    }

    /// Returns a request with as many empty headers of each form, extensions and namespaces.
    fn empty_entries(joined: usize, raw: usize, extensions: usize, namespaces: usize) -> Vec<u8> {
        let headers = vec![HeaderValue::default(); raw];
        let http = HttpRequest {
            headers: vec![Entry::default(); joined],
            header_map: (raw > 0).then_some(HeaderMap { headers }),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(Request { http: Some(http) }),
            context_extensions: vec![Entry::default(); extensions],
            route_metadata_context: Some(Metadata {
                filter_metadata: vec![MetadataEntry::default(); namespaces],
            }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }

    #[test]
    fn more_entries_than_any_envoy_sends_are_refused() {
        for (joined, raw, extensions, namespaces) in [
            (MAX_ENTRIES, 0, 0, 0),
            (0, MAX_ENTRIES, 0, 0),
            (0, 0, MAX_ENTRIES, 0),
            (0, 0, 0, MAX_ENTRIES),
            (MAX_ENTRIES - 3, 1, 1, 1),
        ] {
            let full = empty_entries(joined, raw, extensions, namespaces);
            let attributes = Attributes::decode(&full).unwrap();
            let least = MAX_ENTRIES * size_of::<Pair<'_>>();
            assert!((least..=2 * least).contains(&attributes.lists_size()));
            for one_more in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)] {
                let (joined, raw, extensions, namespaces) = one_more;
                // Two concatenated messages decode as their merge.
                let message = [&full[..], &empty_entries(joined, raw, extensions, namespaces)].concat();
                assert_eq!(Attributes::decode(&message), Err(InvalidCheckRequest::TooManyEntries));
            }
        }
        // Nothing after the first one too many is read.
        let broken = [&empty_entries(0, MAX_ENTRIES + 1, 0, 0)[..], b"\x0a"].concat();
        assert_eq!(Attributes::decode(&broken), Err(InvalidCheckRequest::TooManyEntries));
    }

    fn agree(bytes: &[u8]) -> Result<(), proptest::test_runner::TestCaseError> {
        let generated = CheckRequest::decode(bytes);
        let generated = generated.as_ref().map(as_generated).map_err(|_| InvalidCheckRequest::Malformed);
        prop_assert_eq!(Attributes::decode(bytes), generated);
        Ok(())
    }

    proptest! {
        #[test]
        fn whole_messages_are_read_as_the_generated_decoder_reads_them(
            request in requests(), again in requests(),
        ) {
            agree(&request.encode_to_vec())?;
            // Two concatenated messages decode as their merge.
            agree(&[request.encode_to_vec(), again.encode_to_vec()].concat())?;
        }

        #[test]
        fn broken_messages_are_refused_where_the_generated_decoder_refuses_them(
            request in requests(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index,
        ) {
            let mut bytes = request.encode_to_vec();
            bytes.truncate(cut.index(bytes.len() + 1));
            agree(&bytes)?;
            let mut bytes = request.encode_to_vec();
            for (at, to) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = to;
                }
            }
            agree(&bytes)?;
        }

        #[test]
        fn any_bytes_are_read_alike(bytes in vec(any::<u8>(), 0..64)) {
            agree(&bytes)?;
        }
    }
}
