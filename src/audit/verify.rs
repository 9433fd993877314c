//! Verification of a log: all lines are there, unchanged and in order.

use std::collections::BTreeMap;

use serde_json::Value;

use super::chain::{self, ChainKey, Mac};
use super::changes::{RecordedChange, changes_of};
use crate::clock::Timestamp;
use crate::store::AuditHead;

/// Maximum number of problems that are listed.
const MAX_PROBLEMS: usize = 100;

/// Result for the lines of one chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Id of the chain. `None` if no line names it.
    pub chain: Option<String>,
    /// Number of the first line.
    pub first: Option<u64>,
    /// Number of the last line.
    pub last: Option<u64>,
    /// Whole lines read.
    pub lines: u64,
    /// Problems that writing a log can't cause.
    pub problems: Vec<String>,
    /// Number of further problems.
    pub more_problems: u64,
    /// Those of the problems that only say that lines are missing, and lines that nothing proves as
    /// the one before them is missing.
    pub gaps: Vec<String>,
    /// The first problem of another kind.
    pub changed: Option<String>,
    /// Calls of unknown outcome.
    pub unresolved: Vec<UnresolvedCall>,
    /// Parts that could not be checked, and remarks.
    pub notes: Vec<String>,
    /// Number of lines before the first one read.
    pub earlier: u64,
    /// Number of the last outcome that succeeded and that the database doesn't know, although it
    /// knows the chain.
    pub unknown_to_database: Option<u64>,
    /// Changes of keys and actors, if they were asked for.
    pub changes: Vec<RecordedChange>,
}

/// A call whose process ended before its outcome was written, or that is still in progress.
#[derive(Debug, PartialEq, Eq)]
pub struct UnresolvedCall {
    /// Number of the intent's line.
    pub line: u64,
    /// Time of the intent.
    pub time: String,
    /// Operation.
    pub operation: String,
    /// Keys of the call.
    pub keys: Vec<String>,
    /// Request id.
    pub request_id: String,
}

/// Verifier of one chain. Reads one file after the other.
pub struct Verifier<'a> {
    keys: &'a [ChainKey],
    findings: Findings,
    /// Previous line, if one was read.
    before: Option<PreviousLine>,
    /// End of the chain as the database knows it, if its seal is right.
    head: Option<AuditHead>,
    /// True once the line was read that `head` names.
    head_seen: bool,
    /// Calls without an outcome so far, by the line of their intent.
    unresolved: BTreeMap<u64, UnresolvedCall>,
    /// True if changes of keys are collected.
    with_changes: bool,
}

struct PreviousLine {
    number: u64,
    mac: Mac,
    /// Index of its key, `None` if unknown.
    key: Option<usize>,
}

impl<'a> Verifier<'a> {
    /// Creates a verifier. `keys` are the keys of the lines, `head` is what the database knows of
    /// the chain's end.
    pub fn new(keys: &'a [ChainKey], head: Option<AuditHead>) -> Self {
        let mut verifier = Self {
            keys,
            findings: Findings::default(),
            before: None,
            head: None,
            head_seen: false,
            unresolved: BTreeMap::new(),
            with_changes: false,
        };
        if let Some(head) = head {
            let seal = Mac(head.seal);
            match keys.iter().any(|key| key.seal(&head.chain, head.lines, &Mac(head.mac)).matches(&seal)) {
                true => verifier.head = Some(head),
                false => verifier.add_problem("the database: what it says of the chain's end was not written under audit.key or audit.key_retired".to_owned()),
            }
        }
        verifier
    }

    /// Makes the verifier collect the changes that lines record whose MAC is right.
    #[must_use]
    pub fn with_changes(self) -> Self {
        Self { with_changes: true, ..self }
    }

    /// Reads a file. Problems refer to it by `name`.
    pub fn read(&mut self, name: &str, text: &[u8]) {
        let mut lines = text.split(|byte| *byte == b'\n').peekable();
        let mut number = 0;
        while let Some(line) = lines.next() {
            number += 1;
            let at = format!("{name}:{number}");
            if lines.peek().is_none() {
                if !line.is_empty() {
                    self.findings.notes.push(format!(
                        "{at}: {} bytes of an incomplete line, which was never acknowledged",
                        line.len()
                    ));
                }
                break;
            }
            self.findings.lines += 1;
            match std::str::from_utf8(line).ok().and_then(ParsedLine::parse) {
                Some(read) => self.check_line(&at, &read),
                None => self.add_problem(format!("{at}: is not a line of an audit log")),
            }
        }
    }

    fn check_line(&mut self, at: &str, read: &ParsedLine<'_>) {
        let number = read.number;
        let expected = self.before.as_ref().map(|before| before.number.saturating_add(1));
        let in_order = expected.is_none_or(|expected| expected == number);
        let is_after_gap = expected.is_some_and(|expected| expected < number);
        match expected {
            Some(expected) if is_after_gap => {
                self.add_gap(format!(
                    "{at}: is line {number}: {} missing before it",
                    lines_are(expected, number - 1)
                ));
            }
            Some(expected) if !in_order => {
                self.add_problem(format!(
                    "{at}: is line {number}, which has its place before line {expected}"
                ));
            }
            _ => {}
        }
        let is_mac_valid = match read.kind() {
            "begin" => self.check_begin(at, read, in_order),
            _ => self.check_follows(at, read, in_order),
        };
        self.check_head(at, read);
        match (is_mac_valid, is_after_gap) {
            (true, _) => self.track_call(read),
            (false, true) => {
                self.list_gap(format!("{at}: line {number} isn't proven without the one before it"))
            }
            (false, false) => {}
        }
        self.findings.first = Some(self.findings.first.map_or(number, |first| first.min(number)));
        self.findings.last = Some(self.findings.last.map_or(number, |last| last.max(number)));
        let key = match read.kind() {
            "begin" => self.key_named(read.text_of("key")),
            _ => self.before.as_ref().and_then(|before| before.key),
        };
        self.before = Some(PreviousLine { number, mac: read.mac, key });
    }

    /// Checks a `begin` line, which says what it follows. Returns whether its MAC is right.
    fn check_begin(&mut self, at: &str, read: &ParsedLine<'_>, in_order: bool) -> bool {
        let chain = read.text_of("chain").to_owned();
        match &self.findings.chain {
            None => self.findings.chain = Some(chain),
            Some(known) if *known != chain => {
                self.add_problem(format!("{at}: begins another chain ({chain} instead of {known})"));
            }
            Some(_) => {}
        }
        let Some(previous) = Mac::parse(read.text_of("previous")) else {
            self.add_problem(format!("{at}: has no valid `previous`"));
            return false;
        };
        let Some(key) = self.key_named(read.text_of("key")) else {
            let name = read.text_of("key");
            self.add_problem(format!(
                "{at}: was written under a key ({name}) that is neither audit.key nor in audit.key_retired"
            ));
            return false;
        };
        let is_mac_valid = self.keys[key].mac(&previous, read.text.as_bytes()).matches(&read.mac);
        if is_mac_valid && let Some(known) = read.value["database_known_to"].as_u64() {
            self.findings.notes.push(format!(
                "{at}: the process found a database that knew this log only to line {known} and lacked changes after \
                 it, as after a restore: see `talos audit replay --dry-run`"
            ));
        }
        if !is_mac_valid {
            self.add_problem(format!("{at}: was changed after it was written"));
        } else if in_order && self.before.as_ref().is_some_and(|before| !before.mac.matches(&previous)) {
            self.add_problem(format!(
                "{at}: doesn't follow the line before it: that was changed, or comes from elsewhere"
            ));
        } else if self.before.is_none() && read.number == 1 && !previous.matches(&Mac::NONE) {
            self.add_problem(format!("{at}: is line 1 and follows another"));
        }
        is_mac_valid
    }

    fn check_follows(&mut self, at: &str, read: &ParsedLine<'_>, in_order: bool) -> bool {
        let Some(before) = &self.before else {
            self.add_gap(format!(
                "{at}: lines are missing before it: a file begins with one of kind \"begin\""
            ));
            return false;
        };
        let Some(key) = before.key else {
            // Reported where that key begins.
            return false;
        };
        let is_mac_valid = self.keys[key].mac(&before.mac, read.text.as_bytes()).matches(&read.mac);
        // Lines out of order have been reported already.
        if !is_mac_valid && in_order {
            self.add_problem(format!("{at}: was changed after it was written, or comes from elsewhere"));
        }
        is_mac_valid
    }

    fn key_named(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name() == name)
    }

    fn check_head(&mut self, at: &str, read: &ParsedLine<'_>) {
        let Some(head) = &self.head else { return };
        if head.lines == read.number {
            self.head_seen = true;
            if !read.mac.matches(&Mac(head.mac)) {
                self.add_problem(format!("{at}: is not line {} as the database knows it", read.number));
            }
        }
    }

    fn track_call(&mut self, read: &ParsedLine<'_>) {
        match read.kind() {
            "intent" => {
                let keys = read.value["keys"].as_array().into_iter().flatten();
                let unknown = UnresolvedCall {
                    line: read.number,
                    time: read.text_of("time").to_owned(),
                    operation: read.text_of("operation").to_owned(),
                    keys: keys.filter_map(|key| key.as_str().map(str::to_owned)).collect(),
                    request_id: read.text_of("request_id").to_owned(),
                };
                self.unresolved.insert(read.number, unknown);
            }
            "outcome" => {
                self.track_changes(read);
                if let Some(intent) = read.value["intent"].as_u64()
                    && read.text_of("outcome") != "unknown"
                {
                    self.unresolved.remove(&intent);
                }
            }
            _ => {}
        }
    }

    /// Records the changes of an outcome. Its intent is still unresolved. A call that failed has
    /// made those that its line has.
    fn track_changes(&mut self, read: &ParsedLine<'_>) {
        let is_success = read.text_of("outcome") == "success";
        if is_success && self.head.as_ref().is_some_and(|head| head.lines < read.number) {
            self.findings.unknown_to_database = Some(read.number);
        }
        if self.with_changes {
            let intent = read.value["intent"].as_u64().and_then(|intent| self.unresolved.get(&intent));
            let began = intent.and_then(|intent| Timestamp::from_rfc3339(&intent.time));
            self.findings.changes.extend(changes_of(&read.value, read.number, began));
        }
    }

    /// Returns the findings. `should_reach_end` says if the files should reach the chain's end.
    pub fn finish(mut self, should_reach_end: bool) -> Findings {
        match (self.findings.first, self.findings.last) {
            (Some(first), Some(last)) => {
                if first > 1 {
                    self.findings.earlier = first - 1;
                    let earlier = lines_are(1, first - 1);
                    self.findings.notes.push(format!("{earlier} not in these files, and not checked"));
                }
                self.check_end(last, should_reach_end);
            }
            _ => {
                if let Some(head) = &self.head {
                    let missing = lines_are(1, head.lines);
                    self.add_problem(format!("{missing} missing: the database knows of them"));
                }
            }
        }
        self.findings.unresolved = std::mem::take(&mut self.unresolved).into_values().collect();
        self.findings
    }

    fn check_end(&mut self, last: u64, should_reach_end: bool) {
        let Some(head) = self.head.take() else { return };
        if head.lines > last {
            let after = lines_are(last + 1, head.lines);
            match should_reach_end {
                true => self.add_problem(format!("{after} missing at the end: the database knows of them")),
                false => self.findings.notes.push(format!("{after} not in these files, and not checked")),
            }
        } else if !self.head_seen && head.lines >= self.findings.first.unwrap_or_default() {
            self.add_problem(format!("line {} is missing: the database knows of it", head.lines));
        }
    }

    fn add_problem(&mut self, problem: String) {
        if self.findings.changed.is_none() {
            self.findings.changed = Some(problem.clone());
        }
        self.list_problem(problem);
    }

    /// Adds the problem that lines are missing.
    fn add_gap(&mut self, problem: String) {
        self.list_gap(problem.clone());
        self.list_problem(problem);
    }

    fn list_gap(&mut self, problem: String) {
        if self.findings.gaps.len() < MAX_PROBLEMS {
            self.findings.gaps.push(problem);
        }
    }

    fn list_problem(&mut self, problem: String) {
        match self.findings.problems.len() < MAX_PROBLEMS {
            true => self.findings.problems.push(problem),
            false => self.findings.more_problems += 1,
        }
    }
}

fn lines_are(first: u64, last: u64) -> String {
    if first == last { format!("line {first} is") } else { format!("lines {first} to {last} are") }
}

/// Returns the chain of a file and the number of its first line, which give the order of files. A
/// file that was truncated while it was written names its chain only later.
pub fn position(text: &[u8]) -> (Option<String>, u64) {
    let mut parsed = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| ParsedLine::parse(std::str::from_utf8(line).ok()?));
    let chain = |read: &ParsedLine<'_>| read.value["chain"].as_str().map(str::to_owned);
    let Some(first) = parsed.next() else {
        return (None, 0);
    };
    (chain(&first).or_else(|| parsed.find_map(|read| chain(&read))), first.number)
}

/// A parsed line.
struct ParsedLine<'a> {
    text: &'a str,
    mac: Mac,
    value: Value,
    number: u64,
}

impl<'a> ParsedLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (text, mac) = chain::split_line(line)?;
        let value: Value = serde_json::from_str(line).ok()?;
        let number = value.get("seq")?.as_u64().filter(|number| *number > 0)?;
        Some(Self { text, mac, value, number })
    }

    fn kind(&self) -> &str {
        self.text_of("kind")
    }

    fn text_of(&self, member: &str) -> &str {
        self.value[member].as_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY_ID: &str = "5b8a31f2-97d5-4c3b-8a67-111111111111";

    /// Lines of a log: a `begin` line, and these.
    fn log(objects: &[Value]) -> Vec<String> {
        let (key, mut mac) = (ChainKey::unkeyed(), Mac::NONE);
        let begin = json!({ "kind": "begin", "chain": "c", "key": key.name(), "previous": mac.to_string() });
        let numbered = (1..).zip(std::iter::once(&begin).chain(objects));
        let sign = |(number, object): (u64, &Value)| {
            let mut object = object.clone();
            object["seq"] = number.into();
            object["time"] = "2026-01-01T00:00:00Z".into();
            let (line, next) = key.sign_line(&mac, &object.to_string());
            mac = next;
            line + "\n"
        };
        numbered.map(sign).collect()
    }

    fn outcome(outcome: &str) -> Value {
        let network = crate::key::NetworkId::SINGLE.to_string();
        let event = json!({ "event": "IssuedAPIKeyRevoked", "ProjectID": network, "APIKeyID": KEY_ID });
        json!({ "kind": "outcome", "outcome": outcome, "events": [event] })
    }

    fn findings(lines: &[String]) -> Findings {
        let keys = [ChainKey::unkeyed()];
        let mut verifier = Verifier::new(&keys, None).with_changes();
        verifier.read("log", lines.concat().as_bytes());
        verifier.finish(false)
    }

    #[test]
    fn what_a_call_has_done_before_it_failed_is_a_change() {
        for result in ["success", "unknown"] {
            let found = findings(&log(&[outcome(result)]));
            assert_eq!((found.changes.len(), found.changed), (1, None), "{result}");
        }
    }

    #[test]
    fn missing_lines_are_told_from_changed_ones() {
        let all = log(&[outcome("success"), outcome("success"), outcome("success"), outcome("success")]);
        let whole = findings(&all);
        assert!(whole.problems.is_empty() && whole.gaps.is_empty());
        // Without line 3, nothing proves line 4.
        let found = findings(&[&all[..2], &all[3..]].concat());
        let changes: Vec<u64> = found.changes.iter().map(|change| change.line).collect();
        assert_eq!((changes, found.changed), (vec![2, 5], None));
        assert_eq!((found.problems.len(), found.gaps.len()), (1, 2), "{:?}", found.gaps);
        let mut forged = all;
        forged[2] = forged[2].replace(KEY_ID, "5b8a31f2-97d5-4c3b-8a67-222222222222");
        let found = findings(&forged);
        assert!(found.gaps.is_empty() && found.changed.is_some_and(|problem| problem.contains("log:3")));
    }
}
