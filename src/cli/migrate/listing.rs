//! What the list commands print and the pages of the API, read back into keys: nothing of it counts unless all does.

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

/// What pages call the lists, and what leads to the next page.
const ISSUED: &str = "issued_api_keys";
const IMPORTED: &str = "imported_api_keys";
const NEXT: &str = "next_page_token";
/// Most mistakes that are told.
const MAX_TOLD: usize = 20;

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    /// The document's number from 1, when it isn't the only one.
    document: Option<usize>,
    list: Option<List>,
    index: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Issued,
    Imported,
    /// By itself, its items of either kind.
    Bare,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
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

/// All keys of some files.
#[derive(Debug)]
pub struct Listing {
    /// Each key once, and where it first stands.
    pub keys: Vec<(Key, Place)>,
    /// How many stand there again, just the same.
    pub repeated: usize,
    /// The places of the pages that name a following one which isn't there.
    pub unfinished: Vec<String>,
}

/// Reads files, one after the other.
pub struct Reader {
    network: NetworkId,
    now: Timestamp,
    listing: Listing,
    seen: HashMap<KeyId, usize>,
    mistakes: Vec<String>,
    more_mistakes: usize,
}

impl Reader {
    /// For keys of that network, at that moment.
    pub fn new(network: NetworkId, now: Timestamp) -> Self {
        Self {
            network,
            now,
            listing: Listing { keys: vec![], repeated: 0, unfinished: vec![] },
            seen: HashMap::new(),
            mistakes: vec![],
            more_mistakes: 0,
        }
    }

    /// Reads a file: JSON lists of keys, by themselves or as the API wraps them, or keys, one after the other.
    pub fn read(&mut self, file: &str, text: &str) {
        let at = |document| Place { file: file.into(), document, list: None, index: None };
        let documents: Result<Vec<&RawValue>, _> =
            serde_json::Deserializer::from_str(text).into_iter().collect();
        let documents = match documents {
            Ok(documents) if documents.is_empty() => return self.mistake(&at(None), "is empty"),
            Ok(documents) => documents,
            Err(error) => {
                let problem = format!("no JSON at line {}, column {}", error.line(), error.column());
                return self.mistake(&at(None), problem);
            }
        };
        let several = documents.len() > 1;
        // The last page of each kind tells whether there is another.
        let mut unfinished = [None, None];
        for (number, document) in (1..).zip(documents) {
            let place = at(several.then_some(number));
            match Document::parse(document) {
                Ok(Document::Key(key)) => self.key(None, key, place),
                Ok(Document::List(keys)) => self.keys(List::Bare, keys, &place),
                Ok(Document::Page(page)) => {
                    let is_unfinished = page.next_page_token.is_some_and(|token| !token.is_empty());
                    let lists =
                        [(List::Issued, page.issued_api_keys), (List::Imported, page.imported_api_keys)];
                    for ((list, keys), unfinished) in lists.into_iter().zip(&mut unfinished) {
                        if let Some(keys) = keys {
                            *unfinished = is_unfinished.then(|| place.to_string());
                            self.keys(list, keys, &place);
                        }
                    }
                }
                Err(problem) => self.mistake(&place, problem),
            }
        }
        self.listing.unfinished.extend(unfinished.into_iter().flatten());
    }

    /// All that was read.
    ///
    /// # Errors
    /// With what is wrong, a line each, when anything is.
    pub fn finish(self) -> Result<Listing, String> {
        if self.mistakes.is_empty() {
            return Ok(self.listing);
        }
        let mut text = self.mistakes.join("\n");
        if self.more_mistakes > 0 {
            text.push_str(&format!("\nand {} more", self.more_mistakes));
        }
        Err(text)
    }

    fn keys(&mut self, list: List, keys: Vec<&RawValue>, place: &Place) {
        let kind = match list {
            List::Issued => Some(KeyKind::Issued),
            List::Imported => Some(KeyKind::Imported),
            List::Bare => None,
        };
        for (index, key) in keys.into_iter().enumerate() {
            self.key(kind, key, Place { list: Some(list), index: Some(index), ..place.clone() });
        }
    }

    fn key(&mut self, kind: Option<KeyKind>, json: &RawValue, place: Place) {
        if !json.get().starts_with('{') {
            return self.mistake(&place, "must be a JSON object");
        }
        let key = match listed_key(self.network, kind, json.get(), self.now) {
            Ok(key) => key,
            Err(error) => return self.mistake(&place, error),
        };
        let Some(earlier) = self.seen.get(&key.id).and_then(|at| self.listing.keys.get(*at)) else {
            self.seen.insert(key.id, self.listing.keys.len());
            return self.listing.keys.push((key, place));
        };
        match earlier.0.differences(&key).as_slice() {
            [] => self.listing.repeated += 1,
            fields => {
                let (fields, earlier) = (fields.join(", "), &earlier.1);
                let problem = format!("key_id: is that of {earlier} as well, with another {fields}");
                self.mistake(&place, problem);
            }
        }
    }

    fn mistake(&mut self, place: &Place, problem: impl fmt::Display) {
        match self.mistakes.len() < MAX_TOLD {
            // The names of fields are the file's own.
            true => self.mistakes.push(visible(&format!("{place}: {problem}")).into_owned()),
            false => self.more_mistakes += 1,
        }
    }
}

/// What a document is.
enum Document<'t> {
    Key(&'t RawValue),
    List(Vec<&'t RawValue>),
    Page(Page<'t>),
}

/// An answer of the API, or of `list --all`.
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
        let is_of_page = |name: &String| [ISSUED, IMPORTED, NEXT].contains(&name.as_str());
        if !names.iter().any(is_of_page) {
            return Ok(Self::Key(json));
        }
        serde_json::from_str(text).map(Self::Page).map_err(|_| {
            match names.iter().find(|name| !is_of_page(name)) {
                Some(name) => format!("{}: is not a known field", name.chars().take(128).collect::<String>()),
                None => {
                    format!("{ISSUED} and {IMPORTED} must be lists, {NEXT} a text, and each there but once")
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
