//! Reads the output of the list commands, pages of the API and rows of tables back into keys. All
//! of it must be valid, or none of it is used.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::escape::visible;
use crate::http::listed_key;
use crate::key::{Key, KeyId, KeyKind, NetworkId};

// Field names of the API's pages.
const ISSUED: &str = "issued_api_keys";
const IMPORTED: &str = "imported_api_keys";
const NEXT: &str = "next_page_token";
/// Number of problems that are listed.
const MAX_REPORTED: usize = 20;

/// Position of a key in the files or tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// Name of the file or table.
    file: Arc<str>,
    /// Id of the key whose row it is, in a table.
    row: Option<Box<str>>,
    /// Number of the document in its file, from 1; none when it is the only one.
    document: Option<usize>,
    list: Option<List>,
    index: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Issued,
    Imported,
    /// A JSON list outside of a page, with keys of either kind.
    Bare,
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if let Some(row) = &self.row {
            write!(out, ", key {row}")?;
        }
        if let Some(document) = self.document {
            write!(out, ": document {document}")?;
        }
        match self.list {
            Some(List::Issued) => write!(out, ": {ISSUED}")?,
            Some(List::Imported) => write!(out, ": {IMPORTED}")?,
            Some(List::Bare) => out.write_str(": ")?,
            None => {}
        }
        match self.index {
            Some(index) => write!(out, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// The keys of all files or tables.
#[derive(Debug)]
pub(super) struct Listing {
    /// Each key once, with its first location.
    pub keys: Vec<(Key, Location)>,
    /// Number of exact repetitions of keys.
    pub repeated: usize,
    /// Locations of last pages that name a next page.
    pub unfinished: Vec<String>,
}

/// Reads keys from files or tables, and collects the problems found in them.
pub(super) struct Reader {
    network: NetworkId,
    now: Timestamp,
    listing: Listing,
    seen: HashMap<KeyId, usize>,
    problems: Vec<String>,
    more_problems: usize,
}

impl Reader {
    /// Creates a reader of keys of one network; `now` decides which keys have expired.
    pub(super) fn new(network: NetworkId, now: Timestamp) -> Self {
        Self {
            network,
            now,
            listing: Listing { keys: vec![], repeated: 0, unfinished: vec![] },
            seen: HashMap::new(),
            problems: vec![],
            more_problems: 0,
        }
    }

    /// Reads a file: JSON lists of keys, pages of the API, or a sequence of keys.
    pub(super) fn read(&mut self, file: &str, text: &str) {
        let at = |document| Location { file: file.into(), row: None, document, list: None, index: None };
        let documents: Result<Vec<&RawValue>, _> =
            serde_json::Deserializer::from_str(text).into_iter().collect();
        let documents = match documents {
            Ok(documents) if documents.is_empty() => return self.report(&at(None), "is empty"),
            Ok(documents) => documents,
            Err(error) => {
                let problem = format!("invalid JSON at line {}, column {}", error.line(), error.column());
                return self.report(&at(None), problem);
            }
        };
        let is_numbered = documents.len() > 1;
        // The last page of each kind decides whether its list is complete.
        let mut unfinished = [None, None];
        for (number, document) in (1..).zip(documents) {
            let location = at(is_numbered.then_some(number));
            match Document::parse(document) {
                Ok(Document::Key(key)) => self.key(None, key.get(), location),
                Ok(Document::List(keys)) => self.keys(List::Bare, keys, &location),
                Ok(Document::Page(page)) => {
                    let is_unfinished = page.next_page_token.is_some_and(|token| !token.is_empty());
                    let lists =
                        [(List::Issued, page.issued_api_keys), (List::Imported, page.imported_api_keys)];
                    for ((list, keys), unfinished) in lists.into_iter().zip(&mut unfinished) {
                        if let Some(keys) = keys {
                            *unfinished = is_unfinished.then(|| location.to_string());
                            self.keys(list, keys, &location);
                        }
                    }
                }
                Err(problem) => self.report(&location, problem),
            }
        }
        self.listing.unfinished.extend(unfinished.into_iter().flatten());
    }

    /// Reads a row of a table: the key as the API would list it, or why it can't be.
    pub(super) fn row(
        &mut self,
        table: &Arc<str>,
        kind: KeyKind,
        key_id: &str,
        json: Result<String, String>,
    ) {
        let location = Location {
            file: Arc::clone(table),
            row: Some(key_id.into()),
            document: None,
            list: None,
            index: None,
        };
        match json {
            Ok(json) => self.key(Some(kind), &json, location),
            Err(problem) => self.report(&location, problem),
        }
    }

    /// Returns the keys that were read.
    ///
    /// # Errors
    /// Returns the problems, one per line, if there are any.
    pub(super) fn finish(self) -> Result<Listing, String> {
        if self.problems.is_empty() {
            return Ok(self.listing);
        }
        let mut text = self.problems.join("\n");
        if self.more_problems > 0 {
            text.push_str(&format!("\nand {} more", self.more_problems));
        }
        Err(text)
    }

    fn keys(&mut self, list: List, keys: Vec<&RawValue>, location: &Location) {
        let kind = match list {
            List::Issued => Some(KeyKind::Issued),
            List::Imported => Some(KeyKind::Imported),
            List::Bare => None,
        };
        for (index, key) in keys.into_iter().enumerate() {
            self.key(kind, key.get(), Location { list: Some(list), index: Some(index), ..location.clone() });
        }
    }

    fn key(&mut self, kind: Option<KeyKind>, json: &str, location: Location) {
        if !json.starts_with('{') {
            return self.report(&location, "must be a JSON object");
        }
        let key = match listed_key(self.network, kind, json, self.now) {
            Ok(key) => key,
            Err(error) => return self.report(&location, error),
        };
        let Some(earlier) = self.seen.get(&key.id).and_then(|at| self.listing.keys.get(*at)) else {
            self.seen.insert(key.id, self.listing.keys.len());
            return self.listing.keys.push((key, location));
        };
        match earlier.0.differences(&key).as_slice() {
            [] => self.listing.repeated += 1,
            fields => {
                let (fields, earlier) = (fields.join(", "), &earlier.1);
                let problem = format!("key_id: also in {earlier}, with a different {fields}");
                self.report(&location, problem);
            }
        }
    }

    fn report(&mut self, location: &Location, problem: impl fmt::Display) {
        match self.problems.len() < MAX_REPORTED {
            // Field names come from the file and may hold control characters.
            true => self.problems.push(visible(&format!("{location}: {problem}")).into_owned()),
            false => self.more_problems += 1,
        }
    }
}

/// One JSON document of a file.
enum Document<'t> {
    Key(&'t RawValue),
    List(Vec<&'t RawValue>),
    Page(Page<'t>),
}

/// A page of the API, or the output of `list --all`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page<'t> {
    #[serde(borrow)]
    issued_api_keys: Option<Vec<&'t RawValue>>,
    #[serde(borrow)]
    imported_api_keys: Option<Vec<&'t RawValue>>,
    next_page_token: Option<String>,
}

impl<'t> Document<'t> {
    fn parse(json: &'t RawValue) -> Result<Self, String> {
        let text = json.get();
        if text.starts_with('[') {
            return serde_json::from_str(text)
                .map(Self::List)
                .map_err(|_| "must be a list of keys".to_owned());
        }
        let names = match serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) {
            Ok(members) => members.into_keys().collect::<Vec<_>>(),
            Err(_) => {
                return Err(format!(
                    "must be a list of keys, {{\"{ISSUED}\":[…]}}, {{\"{IMPORTED}\":[…]}} or a key"
                ));
            }
        };
        let is_page_field = |name: &String| [ISSUED, IMPORTED, NEXT].contains(&name.as_str());
        if !names.iter().any(is_page_field) {
            return Ok(Self::Key(json));
        }
        serde_json::from_str(text).map(Self::Page).map_err(|_| {
            match names.iter().find(|name| !is_page_field(name)) {
                Some(name) => format!("{}: is not a known field", name.chars().take(128).collect::<String>()),
                None => {
                    format!("{ISSUED} and {IMPORTED} must be lists, {NEXT} a string, each at most once")
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
