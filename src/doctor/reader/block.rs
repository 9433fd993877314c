//! Block collections: lists and maps that indentation delimits.

use std::borrow::Cow;

use super::{Properties, Reader, Step};
use crate::doctor::tree::{Data, Tree};

/// Tag of keys that Envoy ignores, with their value.
const IGNORE: &str = "!ignore";

/// Column; -1 around a document.
type Column = isize;

/// Key of a block map. The position is at the colon behind it.
struct Key<'t> {
    text: Cow<'t, str>,
    is_ignored: bool,
}

impl<'t> Reader<'t> {
    /// Reads a node whose lines are indented by more than `parent`.
    ///
    /// `is_inline` means that it begins in the line of its key, where no collection may begin.
    pub(super) fn block_node(&mut self, parent: Column, is_inline: bool) -> Step<Tree<'t>> {
        let (before, start) = (self.values, self.indent()?);
        let line = self.line;
        let properties = self.properties()?;
        if self.is_line_end() || self.is_comment() {
            let mut tree = self.next_lines(parent, is_inline)?;
            if matches!(tree.data, Data::Null) {
                tree.data = properties.plain(Cow::default());
            }
            self.define(&properties, &tree, before)?;
            return Ok(tree);
        }
        let scalar = match self.peek() {
            Some(b'-') if self.is_space_at(1) && !is_inline => {
                let tree = self.block_list(start)?;
                self.define(&properties, &tree, before)?;
                return Ok(tree);
            }
            Some(b'-' | b'?' | b':') if self.is_space_at(1) => {
                return Err(self.error("a list or map can't begin here; put it into the next line"));
            }
            Some(b'|' | b'>') => Data::Block(self.block_scalar(parent)?),
            Some(b'[' | b'{') => self.flow_node()?.data,
            Some(b'*') => self.alias()?.data,
            Some(b'"' | b'\'') => Data::Quoted(self.quoted()?),
            _ => Data::Plain(Cow::Borrowed(self.plain_line(false)?)),
        };
        if self.is_at_colon(line) {
            if is_inline {
                return Err(self.error("a second colon in the line; put the value in quotes"));
            }
            // The properties in the line of a key are those of the key.
            let key = self.key_of(scalar, &properties)?;
            return self.block_map(start, key, line);
        }
        let data = match scalar {
            Data::Plain(Cow::Borrowed(first)) => properties.plain(self.plain_rest(first, Some(parent))?),
            other => other,
        };
        if let Data::Plain(Cow::Owned(text))
        | Data::Quoted(Cow::Owned(text))
        | Data::Block(Cow::Owned(text)) = &data
        {
            self.count(text.len())?;
        } else if !matches!(data, Data::List(_) | Data::Map(_)) {
            self.count(0)?;
        }
        let tree = Tree { line, data };
        self.define(&properties, &tree, before)?;
        // A block scalar ends in front of the next line.
        if !matches!(tree.data, Data::Block(_)) {
            self.skip_spaces_and_comment();
            if !self.is_line_end() {
                return Err(self.error("unexpected text behind a value"));
            }
        }
        Ok(tree)
    }

    /// Reads the value of a key or list item whose line has nothing more.
    fn next_lines(&mut self, parent: Column, allows_same_column: bool) -> Step<Tree<'t>> {
        let null = self.null();
        if self.skip_blank()? {
            let column = self.indent()?;
            if column > parent {
                return self.block_node(parent, false);
            }
            if allows_same_column && column == parent && self.peek() == Some(b'-') && self.is_space_at(1) {
                return self.block_list(column);
            }
        }
        self.count(0)?;
        Ok(null)
    }

    /// Reads a list whose hyphens are in a column. The position is at the first.
    fn block_list(&mut self, column: Column) -> Step<Tree<'t>> {
        self.enter()?;
        self.count(0)?;
        let line = self.line;
        let mut items = vec![];
        loop {
            self.at += 1;
            self.skip_spaces_and_comment();
            items.push(match self.is_line_end() {
                true => self.next_lines(column, false)?,
                false => self.block_node(column, false)?,
            });
            if !self.continues(column)? || self.peek() != Some(b'-') || !self.is_space_at(1) {
                break;
            }
        }
        self.depth -= 1;
        Ok(Tree { line, data: Data::List(items.into_boxed_slice()) })
    }

    /// Reads a map whose keys are in a column. The position is at the colon of the first.
    fn block_map(&mut self, column: Column, first: Key<'t>, line: u32) -> Step<Tree<'t>> {
        self.enter()?;
        self.count(0)?;
        let mut entries = vec![];
        let mut key = first;
        loop {
            self.at += 1;
            self.skip_spaces_and_comment();
            let value = match self.is_line_end() {
                true => self.next_lines(column, true)?,
                false => self.block_node(column, true)?,
            };
            if !key.is_ignored {
                entries.push((key.text, value));
            }
            if !self.continues(column)? {
                break;
            }
            key = self.key()?;
        }
        self.depth -= 1;
        Ok(Tree::map(line, entries))
    }

    /// Goes to the next line that has content. Returns true if it continues the collection in a
    /// column.
    fn continues(&mut self, column: Column) -> Step<bool> {
        if !self.skip_blank()? {
            return Ok(false);
        }
        let next = self.indent()?;
        match next > column {
            true => Err(self.error("the indentation isn't that of the lines before")),
            false => Ok(next == column),
        }
    }

    /// Reads a key up to its colon.
    fn key(&mut self) -> Step<Key<'t>> {
        let line = self.line;
        let start = self.mark();
        let properties = self.properties()?;
        let scalar = match self.peek() {
            Some(b'*') => self.alias()?.data,
            Some(b'"' | b'\'') => Data::Quoted(self.quoted()?),
            _ => Data::Plain(Cow::Borrowed(self.plain_line(false)?)),
        };
        if !self.is_at_colon(line) {
            return Err(self.error_at(start, "expected `key: value`"));
        }
        self.key_of(scalar, &properties)
    }

    fn key_of(&mut self, scalar: Data<'t>, properties: &Properties<'t>) -> Step<Key<'t>> {
        let before = self.values;
        let tree = Tree { line: self.line, data: scalar };
        self.count(0)?;
        self.define(properties, &tree, before)?;
        match tree.data {
            Data::Plain(text) | Data::Quoted(text) => {
                Ok(Key { text, is_ignored: properties.tag == Some(IGNORE) })
            }
            _ => Err(self.error("a key must be text")),
        }
    }

    /// Returns true if the scalar that was just read, begun in `line`, is a key.
    fn is_at_colon(&mut self, line: u32) -> bool {
        let mark = self.mark();
        self.skip_spaces();
        let is_key = self.line == line && self.peek() == Some(b':') && self.is_space_at(1);
        if !is_key {
            self.go_back(mark);
        }
        is_key
    }

    /// Returns the column of the position.
    fn indent(&self) -> Step<Column> {
        let before = self.text.as_bytes().get(self.line_start..self.at).unwrap_or_default();
        // The indentation ends at the first token of the line, so `before` is read no further.
        let mut indentation = before.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
        let is_flow = matches!(self.peek(), Some(b'[' | b'{'));
        if !is_flow && indentation.any(|byte| *byte == b'\t') {
            return Err(self.error("a tab in the indentation; use spaces"));
        }
        Ok(isize::try_from(self.column()).unwrap_or(isize::MAX))
    }
}
