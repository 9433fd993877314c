//! Encoded responses in two parts: the bytes that those of many keys share, kept once, and a key's
//! own.

use std::collections::HashSet;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

/// Shortest shared run between two own ones, in bytes: a shorter one is kept with them, as each run
/// costs every answer some instructions.
const MIN_SHARED_BYTES: usize = 24;
/// Most runs of a response with own bytes; what is beyond counts as shared.
const MAX_OWN_RUNS: usize = 32;
/// Bytes in which the length of an own run is kept.
const LEN_BYTES: usize = size_of::<u16>();
/// Templates from which on those that no response uses are removed.
const MIN_SWEEP: usize = 256;

/// Conditions under which a response may be used, beside its times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Generation of the settings under which it was encoded.
    pub generation: u64,
    /// Audience of the token that it carries; the outer `None` means no token.
    pub token: Option<Option<Box<str>>>,
}

/// Bytes that the encoded responses of many keys share, with gaps for a key's own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Template {
    conditions: Conditions,
    /// Shared bytes of all runs, one after the other.
    shared: Box<[u8]>,
    /// Lengths of the shared runs. After each comes an own run.
    runs: Box<[u16]>,
    /// Number of runs of the first of the two halves.
    first_runs: u16,
}

impl Template {
    fn heap_bytes(&self) -> usize {
        let audience = self.conditions.token.as_ref().and_then(Option::as_ref).map_or(0, |text| text.len());
        // With the counters of its `Arc`, and its place in the set.
        size_of::<Self>() + 16 + self.shared.len() + size_of_val(&*self.runs) + audience + 16
    }
}

/// Half of an encoded response, and the ranges in it that are a key's own.
///
/// The ranges are a hint: whatever they are, the response comes out as it went in.
pub struct Half<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Ranges of bytes that few other responses have.
    pub own: Vec<Range<usize>>,
}

/// Encoded response that is kept in two parts, and read in two halves.
#[derive(Debug, Clone)]
pub struct SplitResponse {
    template: Arc<Template>,
    /// Lengths of the own runs, two bytes each, and then their bytes.
    own: Box<[u8]>,
    lens: [u32; 2],
}

impl SplitResponse {
    /// Returns the conditions under which it may be used.
    pub fn conditions(&self) -> &Conditions {
        &self.template.conditions
    }

    /// Returns the lengths of both halves, in bytes.
    pub fn lens(&self) -> [usize; 2] {
        self.lens.map(|len| len as usize)
    }

    /// Returns the bytes on the heap: its own, and its share of the template, so that those of all
    /// responses are never less than what they take, however few have the same one.
    pub(super) fn heap_bytes(&self) -> usize {
        // The set has a reference, too.
        let responses = Arc::strong_count(&self.template) - 1;
        self.own.len() + self.template.heap_bytes().div_ceil(responses.max(1))
    }

    /// Returns true if both have the same template.
    #[cfg(test)]
    pub(crate) fn shares_template(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.template, &other.template)
    }

    /// Returns the bytes that are kept for it alone.
    #[cfg(test)]
    pub(crate) const fn own_bytes(&self) -> usize {
        self.own.len()
    }

    /// Appends the first half, whatever `between` appends, and the second half.
    pub fn write(&self, out: &mut Vec<u8>, between: impl FnOnce(&mut Vec<u8>)) {
        let runs = &*self.template.runs;
        let (mut shared, (lens, mut own)) =
            (&*self.template.shared, self.own.split_at(LEN_BYTES * runs.len()));
        let mut pairs = runs.iter().zip(lens.as_chunks::<LEN_BYTES>().0);
        let mut write = |count: usize, out: &mut Vec<u8>| {
            for (shared_len, own_len) in pairs.by_ref().take(count) {
                let (bytes, rest) = shared.split_at(usize::from(*shared_len));
                out.extend_from_slice(bytes);
                shared = rest;
                let (bytes, rest) = own.split_at(usize::from(u16::from_le_bytes(*own_len)));
                out.extend_from_slice(bytes);
                own = rest;
            }
        };
        write(usize::from(self.template.first_runs), out);
        between(out);
        write(usize::MAX, out);
    }
}

/// Templates of all responses that are kept, each once.
#[derive(Default)]
pub struct Templates(Mutex<TemplateSet>);

#[derive(Default)]
struct TemplateSet {
    templates: HashSet<Arc<Template>>,
    /// Number of templates from which on unused ones are removed.
    sweep_at: usize,
}

impl Templates {
    /// Splits an encoded response, and shares what others share.
    pub fn split(&self, conditions: Conditions, halves: [Half<'_>; 2]) -> SplitResponse {
        let lens = [&halves[0], &halves[1]].map(|half| u32::try_from(half.bytes.len()).unwrap_or(u32::MAX));
        let mut parts = Splitter::default();
        let mut first_runs = 0;
        for (index, half) in halves.into_iter().enumerate() {
            parts.add(half);
            if index == 0 {
                first_runs = u16::try_from(parts.runs.len()).unwrap_or(u16::MAX);
            }
        }
        let own_lens = parts.own.iter().flat_map(|run| (run.len() as u16).to_le_bytes());
        let own: Box<[u8]> = own_lens.chain(parts.own.iter().copied().flatten().copied()).collect();
        let template =
            Template { conditions, shared: parts.shared.into(), first_runs, runs: parts.runs.into() };
        SplitResponse { template: self.intern(template), own, lens }
    }

    /// Returns the template that is equal to this one.
    fn intern(&self, template: Template) -> Arc<Template> {
        let mut set = self.0.lock();
        if let Some(known) = set.templates.get(&template) {
            return Arc::clone(known);
        }
        if set.templates.len() >= set.sweep_at.max(MIN_SWEEP) {
            set.templates.retain(|template| Arc::strong_count(template) > 1);
            set.sweep_at = 2 * set.templates.len();
        }
        let template = Arc::new(template);
        set.templates.insert(Arc::clone(&template));
        template
    }

    /// Returns the number of templates.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().templates.len()
    }
}

/// Parts of a response that is being split.
#[derive(Default)]
struct Splitter<'a> {
    shared: Vec<u8>,
    /// Lengths of the shared runs.
    runs: Vec<u16>,
    /// The own run after each.
    own: Vec<&'a [u8]>,
}

impl<'a> Splitter<'a> {
    fn add(&mut self, half: Half<'a>) {
        let Half { bytes, own } = half;
        let mut at = 0;
        for range in merge(own, bytes.len()) {
            let has_room = self.own.len() < MAX_OWN_RUNS && u16::try_from(range.len()).is_ok();
            // Otherwise it is left for the next shared run.
            if has_room {
                self.push(&bytes[at..range.start], &bytes[range.clone()]);
                at = range.end;
            }
        }
        if at < bytes.len() {
            self.push(&bytes[at..], &[]);
        }
    }

    /// Adds shared bytes, and the own run that follows them.
    fn push(&mut self, mut shared: &[u8], own: &'a [u8]) {
        self.shared.extend_from_slice(shared);
        while let Some((_, rest)) = shared.split_at_checked(usize::from(u16::MAX)) {
            self.runs.push(u16::MAX);
            self.own.push(&[]);
            shared = rest;
        }
        self.runs.push(shared.len() as u16);
        self.own.push(own);
    }
}

/// Returns the ranges in order, those within a response of `len` bytes that don't overlap; near
/// ones are merged.
fn merge(mut ranges: Vec<Range<usize>>, len: usize) -> Vec<Range<usize>> {
    ranges.retain(|range| range.start < range.end && range.end <= len);
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end + MIN_SHARED_BYTES => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conditions() -> Conditions {
        Conditions { generation: 1, token: Some(None) }
    }

    fn joined(response: &SplitResponse) -> Vec<u8> {
        let mut out = vec![];
        response.write(&mut out, |out| out.extend_from_slice(b"|between|"));
        out
    }

    proptest! {
        /// Whatever the ranges are, the bytes come out as they went in.
        #[test]
        fn a_response_comes_out_as_it_went_in(
            halves in prop::array::uniform2((
                prop::collection::vec(0_u8..4, 0..400),
                prop::collection::vec((0_usize..420, 0_usize..60), 0..60),
            )),
        ) {
            let half = |(bytes, own): &'_ (Vec<u8>, Vec<(usize, usize)>)| {
                (bytes.clone(), own.iter().map(|(at, len)| *at..at + len).collect::<Vec<_>>())
            };
            let [(one, own), (two, more)] = [half(&halves[0]), half(&halves[1])];
            let templates = Templates::default();
            let split = || {
                let halves = [
                    Half { bytes: &one, own: own.clone() },
                    Half { bytes: &two, own: more.clone() },
                ];
                templates.split(conditions(), halves)
            };
            let (response, again) = (split(), split());
            prop_assert_eq!(joined(&response), [&*one, b"|between|", &*two].concat());
            prop_assert_eq!(response.lens(), [one.len(), two.len()]);
            prop_assert!(Arc::ptr_eq(&response.template, &again.template));
        }
    }

    #[test]
    fn long_runs_come_out_as_they_went_in() {
        let (long, templates) = (vec![7; 200_000], Templates::default());
        let cases: [&[(usize, usize)]; 4] =
            [&[], &[(0, 200_000)], &[(10, 70_000)], &[(5, 60_000), (100_000, 199_999)]];
        for ranges in cases {
            let own: Vec<_> = ranges.iter().map(|(start, end)| *start..*end).collect();
            let halves = [Half { bytes: &long, own: own.clone() }, Half { bytes: &long, own }];
            let expected = [&*long, b"|between|", &*long].concat();
            assert_eq!(joined(&templates.split(conditions(), halves)), expected);
        }
    }

    #[test]
    fn responses_share_a_template_and_each_counts_its_share() {
        let templates = Templates::default();
        let split = |id: &str| {
            let text = format!("shared text of many keys {id} and more of the shared text {id}");
            let own = [25, 25 + id.len() + 29].map(|at| at..at + id.len()).to_vec();
            templates
                .split(conditions(), [Half { bytes: text.as_bytes(), own }, Half { bytes: b"", own: vec![] }])
        };
        let one = split("id-1");
        let alone = one.heap_bytes();
        let two = split("id-2");
        assert!(Arc::ptr_eq(&one.template, &two.template));
        assert_eq!(two.own.len(), 2 * (LEN_BYTES + "id-2".len()));
        let shared = two.template.heap_bytes();
        assert_eq!(alone, one.own.len() + shared);
        assert_eq!(two.heap_bytes(), two.own.len() + shared.div_ceil(2));
    }

    #[test]
    fn templates_that_no_response_uses_are_removed() {
        let templates = Templates::default();
        for n in 0..10_000_usize {
            let text = n.to_string();
            let half = Half { bytes: text.as_bytes(), own: vec![] };
            templates.split(conditions(), [half, Half { bytes: b"", own: vec![] }]);
        }
        assert!(templates.len() <= MIN_SWEEP, "{}", templates.len());
    }
}
