//! Deny list: keys that are refused whatever the database says, for use during its outages.

use super::KeyId;

/// Maximum number of ids in a list.
pub const MAX_IDS: usize = 1_000_000;

/// Maximum number of invalid lines that an error names.
const MAX_NAMED: usize = 10;

/// Ids of keys, in all networks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    /// Sorted. For a million ids it takes half the memory of a set.
    ids: Box<[KeyId]>,
}

/// Error in a deny list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyListError {
    /// These lines are neither a key id nor a comment nor blank.
    #[error("not a key id in line {}", lines(.0))]
    BadLines(Vec<usize>),
    /// There are too many ids.
    #[error("more than {MAX_IDS} key ids")]
    TooMany,
}

fn lines(numbers: &[usize]) -> String {
    let named: Vec<String> = numbers.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = if numbers.len() > MAX_NAMED { " and others" } else { "" };
    format!("{}{more}", named.join(", "))
}

impl DenyList {
    /// Parses a list: one id per line, comments from `#`. A byte order mark at the start is left
    /// out.
    ///
    /// # Errors
    /// Fails if a line is invalid or there are too many ids. A list is never applied in part.
    pub fn parse(text: &[u8]) -> Result<Self, DenyListError> {
        // Editors and shells of Windows begin texts with a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut ids = vec![];
        let mut bad = vec![];
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let id = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if id.is_empty() {
                continue;
            }
            match std::str::from_utf8(id).ok().and_then(KeyId::parse_any) {
                Some(_) if ids.len() == MAX_IDS => return Err(DenyListError::TooMany),
                Some(id) => ids.push(id),
                // One more than is named, to know that there are more.
                None if bad.len() <= MAX_NAMED => bad.push(number),
                None => {}
            }
        }
        if !bad.is_empty() {
            return Err(DenyListError::BadLines(bad));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Self { ids: ids.into() })
    }

    /// Returns whether the key is on the list.
    pub fn denies(&self, id: &KeyId) -> bool {
        !self.ids.is_empty() && self.ids.binary_search(id).is_ok()
    }

    /// Counts the keys on this list that are not on `other`.
    pub fn count_not_in(&self, other: &Self) -> usize {
        let mut others = other.ids.iter().peekable();
        let is_missing = |id: &&KeyId| {
            while others.next_if(|other| other < id).is_some() {}
            others.peek() != Some(id)
        };
        self.ids.iter().filter(is_missing).count()
    }

    /// Returns the union of both lists, `None` if it has more than twice [`MAX_IDS`] ids.
    pub fn union(&self, other: &Self) -> Option<Self> {
        let mut ids: Vec<KeyId> = self.ids.iter().chain(&other.ids).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        (ids.len() <= 2 * MAX_IDS).then(|| Self { ids: ids.into() })
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use uuid::Uuid;

    const ISSUED: &str = "b2a748d2-4516-456f-8781-314b6a4507d0";
    const IMPORTED: &str = "3774b4ac520e75a920cc6b029890c7ae0e8ed4987f25ec0f6a9c2125fd42122b";

    fn parse(text: &str) -> Result<DenyList, String> {
        DenyList::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_comments_and_blank_lines() {
        let text = format!("# leaked on Friday\r\n\n  {ISSUED}\t# in a log\r\n{IMPORTED}\n{ISSUED}");
        let list = parse(&text).unwrap();
        assert_eq!(list.len(), 2);
        for id in [ISSUED, IMPORTED] {
            assert!(list.denies(&KeyId::parse_any(id).unwrap()), "{id}");
        }
        assert!(!list.denies(&KeyId::Issued(Uuid::from_u128(1))));
        for empty in ["", "\n", "# nothing\n\n", "\u{feff}", "\u{feff}# nothing\n"] {
            assert!(parse(empty).unwrap().is_empty(), "{empty:?}");
        }
        for text in [format!("\u{feff}{ISSUED}"), format!("\u{feff}\r\n{ISSUED}\r\n")] {
            assert_eq!(parse(&text).unwrap().len(), 1, "{text:?}");
        }
    }

    #[test]
    fn bad_lines_are_named_by_number_and_refuse_the_whole() {
        let with = |line: &str| parse(&format!("{ISSUED}\n{line}\n")).unwrap_err();
        for bad in ["x", "ory_ak_v1_abc_def", &ISSUED[..35], &format!("{ISSUED} {ISSUED}"), "\u{fffd}"] {
            assert_eq!(with(bad), "not a key id in line 2", "{bad}");
        }
        assert_eq!(with(&format!("\u{feff}{ISSUED}")), "not a key id in line 2", "a mark that isn't first");
        assert_eq!(parse("x\n\ny").unwrap_err(), "not a key id in line 1, 3");
        let eleven = parse(&"x\n".repeat(11)).unwrap_err();
        assert_eq!(eleven, "not a key id in line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and others");
        assert!(DenyList::parse(b"\xff\xfe\n").is_err());
    }

    #[test]
    fn a_million_ids_and_no_more() {
        let line = format!("{ISSUED}\n");
        assert_eq!(parse(&line.repeat(MAX_IDS)).unwrap().len(), 1);
        assert_eq!(parse(&line.repeat(MAX_IDS + 1)).unwrap_err(), "more than 1000000 key ids");
    }

    #[test]
    fn a_union_refuses_what_either_does_and_the_difference_is_counted() {
        let (one, both) = (parse(ISSUED).unwrap(), parse(&format!("{ISSUED}\n{IMPORTED}")).unwrap());
        let other = parse(IMPORTED).unwrap();
        assert_eq!((both.count_not_in(&one), one.count_not_in(&both), one.count_not_in(&other)), (1, 0, 1));
        assert_eq!(one.union(&other), Some(both));
        assert_eq!(one.union(&DenyList::default()), Some(one));
    }

    proptest! {
        #[test]
        fn the_list_denies_the_keys_that_it_names_and_no_others(named: Vec<u128>, other: u128, bytes in any::<Vec<u8>>()) {
            let id = |number: &u128| KeyId::Issued(Uuid::from_u128(*number));
            let text: String = named.iter().map(|number| format!("{}\n", id(number))).collect();
            let list = parse(&text).unwrap();
            prop_assert!(named.iter().all(|number| list.denies(&id(number))));
            prop_assert_eq!(list.denies(&id(&other)), named.contains(&other));
            let _ = DenyList::parse(&bytes);
        }
    }
}
