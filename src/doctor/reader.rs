//! Reads YAML and JSON as Envoy does, with the line of each value.
//!
//! Envoy's files are read by yaml-cpp and by a lenient JSON reader, so this reader is as lenient:
//! trailing commas, keys without quotes, repeated keys, `!ignore`. Time and memory are linear in
//! the text, with [`MAX_DEPTH`] and [`MAX_VALUES`] as bounds.

mod block;
mod flow;
mod scalar;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use super::tree::{Data, Tree};

/// Maximum nesting of lists and maps.
pub(super) const MAX_DEPTH: usize = 128;
/// Maximum number of values in a text, aliases counted as what they stand for.
pub(super) const MAX_VALUES: usize = 8_000_000;
/// Bytes of a scalar that count as one value, where the reader has to copy it.
const COPIED_BYTES_PER_VALUE: usize = 64;

/// Error: the text isn't YAML or JSON, or has more than is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct Unreadable {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: usize,
    /// The problem.
    pub problem: String,
}

/// Reads all documents of a text. Lines are counted from `first_line`.
///
/// # Errors
/// Fails where the text can't be read, with line and column.
pub(super) fn read(text: &str, first_line: u32) -> Result<Vec<Tree<'_>>, Unreadable> {
    Reader::new(text, first_line).documents()
}

/// Result of a step.
type Step<T> = Result<T, Unreadable>;

/// Position in a text, and what has been read.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    line_start: usize,
    depth: usize,
    /// Number of values so far.
    values: usize,
    anchors: HashMap<&'t str, Anchored<'t>>,
}

/// A position to return to, or to report.
#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    line: u32,
    line_start: usize,
}

/// A value with an anchor.
struct Anchored<'t> {
    tree: Tree<'t>,
    /// Number of values in it.
    size: usize,
    /// Levels of lists and maps in it.
    height: usize,
}

/// Anchor and tag of a node.
#[derive(Default)]
struct Properties<'t> {
    anchor: Option<&'t str>,
    tag: Option<&'t str>,
}

impl<'t> Properties<'t> {
    /// Returns what text without quotes stands for. With a tag it is never null.
    fn plain(&self, text: Cow<'t, str>) -> Data<'t> {
        match self.tag {
            None if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") => Data::Null,
            Some("!") => Data::Quoted(text),
            Some(_) if text.is_empty() => Data::Quoted(text),
            _ => Data::Plain(text),
        }
    }
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, first_line: u32) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let anchors = HashMap::new();
        Self { text, at, line: first_line, line_start: at, depth: 0, values: 0, anchors }
    }

    fn documents(&mut self) -> Step<Vec<Tree<'t>>> {
        let mut documents = vec![];
        loop {
            self.skip_directives()?;
            let has_content = self.skip_blank()?;
            if has_content {
                self.anchors.clear();
                documents.push(self.block_node(-1, false)?);
                if self.skip_blank()? {
                    return Err(
                        self.error("expected the end of the document, or a key in the column of the others")
                    );
                }
            }
            if self.at >= self.text.len() {
                return Ok(documents);
            }
            // At `---` or `...`.
            self.at += 3;
        }
    }

    fn skip_directives(&mut self) -> Step<()> {
        while self.skip_blank()? && self.column() == 0 && self.peek() == Some(b'%') {
            self.skip_line();
        }
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark { at: self.at, line: self.line, line_start: self.line_start }
    }

    fn go_back(&mut self, mark: Mark) {
        (self.at, self.line, self.line_start) = (mark.at, mark.line, mark.line_start);
    }

    fn error(&self, problem: impl Into<String>) -> Unreadable {
        self.error_at(self.mark(), problem)
    }

    fn error_at(&self, mark: Mark, problem: impl Into<String>) -> Unreadable {
        let before = self.text.get(mark.line_start..mark.at).unwrap_or_default();
        Unreadable { line: mark.line, column: before.chars().count() + 1, problem: problem.into() }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn peek_at(&self, offset: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + offset).copied()
    }

    /// Returns the column of the position, from 0.
    fn column(&self) -> usize {
        self.at - self.line_start
    }

    /// Returns true if the byte at an offset is white space or the end of the text.
    fn is_space_at(&self, offset: usize) -> bool {
        self.peek_at(offset).is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
    }

    /// Returns true at the end of the document: `---` or `...` at the start of a line, or the end
    /// of the text.
    fn is_at_end(&self) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        rest.is_empty()
            || (self.column() == 0
                && (rest.starts_with(b"---") || rest.starts_with(b"..."))
                && self.is_space_at(3))
    }

    /// Skips a line break, if the position is at one.
    fn skip_break(&mut self) -> bool {
        let length = match (self.peek(), self.peek_at(1)) {
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\n' | b'\r'), _) => 1,
            _ => return false,
        };
        self.at += length;
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
        true
    }

    /// Skips spaces and tabs.
    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Skips to the end of the line.
    fn skip_line(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
    }

    /// Skips spaces, and a comment behind them, up to the end of the line.
    fn skip_spaces_and_comment(&mut self) {
        self.skip_spaces();
        if self.is_comment() {
            self.skip_line();
        }
    }

    /// Returns true at the start of a comment: a `#` that isn't within a scalar.
    fn is_comment(&self) -> bool {
        self.peek() == Some(b'#')
    }

    /// Returns true if nothing follows in the line.
    fn is_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n' | b'\r'))
    }

    /// Skips white space, comments and line breaks. Returns false at the end of the document.
    fn skip_blank(&mut self) -> Step<bool> {
        loop {
            self.skip_spaces_and_comment();
            if !self.skip_break() {
                return Ok(!self.is_at_end());
            }
            if self.is_at_end() {
                return Ok(false);
            }
        }
    }

    /// Counts a value, and the bytes of its text that were copied.
    fn count(&mut self, copied: usize) -> Step<()> {
        self.add_values(1 + copied / COPIED_BYTES_PER_VALUE)
    }

    fn add_values(&mut self, number: usize) -> Step<()> {
        self.values += number;
        match self.values > MAX_VALUES {
            true => Err(self.error(format!(
                "more than {MAX_VALUES} values; examine a part, such as /config_dump?resource=dynamic_listeners"
            ))),
            false => Ok(()),
        }
    }

    /// Goes one level deeper.
    fn enter(&mut self) -> Step<()> {
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err(self.error(format!("nested more than {MAX_DEPTH} levels deep"))),
            false => Ok(()),
        }
    }

    /// Reads anchors and tags.
    fn properties(&mut self) -> Step<Properties<'t>> {
        let mut properties = Properties::default();
        loop {
            let is_anchor = match self.peek() {
                Some(b'&') => true,
                Some(b'!') => false,
                _ => return Ok(properties),
            };
            let word = self.word();
            if is_anchor {
                properties.anchor = word.get(1..);
            } else {
                properties.tag = Some(word);
            }
            self.skip_spaces();
        }
    }

    /// Reads up to white space or a flow indicator.
    fn word(&mut self) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
        let word = rest.split(ends).next().unwrap_or_default();
        self.at += word.len();
        word
    }

    /// Reads `*name` and returns a copy of what the name stands for.
    fn alias(&mut self) -> Step<Tree<'t>> {
        let start = self.mark();
        let name = self.word().get(1..).unwrap_or_default();
        let Some(anchored) = self.anchors.get(name) else {
            return Err(self.error_at(start, "the alias has no anchor before it"));
        };
        let (size, height) = (anchored.size, anchored.height);
        self.add_values(size)?;
        if self.depth + height > MAX_DEPTH {
            return Err(self.error_at(start, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let data = self.anchors.get(name).map_or(Data::Null, |anchored| anchored.tree.data.clone());
        Ok(Tree { line: start.line, data })
    }

    /// Remembers a value by its anchor. `before` is the number of values before it.
    fn define(&mut self, properties: &Properties<'t>, tree: &Tree<'t>, before: usize) -> Step<()> {
        if let Some(anchor) = properties.anchor {
            let size = self.values - before;
            self.add_values(size)?;
            self.anchors.insert(anchor, Anchored { tree: tree.clone(), size, height: tree.height() });
        }
        Ok(())
    }

    fn null(&self) -> Tree<'t> {
        Tree { line: self.line, data: Data::Null }
    }
}
