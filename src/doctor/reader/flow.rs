//! Flow collections, `[…]` and `{…}`. JSON consists of these.

use std::borrow::Cow;

use super::{Mark, Reader, Step};
use crate::doctor::tree::{Data, Tree};

impl<'t> Reader<'t> {
    /// Reads a node of a flow collection, or a flow collection.
    pub(super) fn flow_node(&mut self) -> Step<Tree<'t>> {
        let before = self.values;
        let properties = self.properties()?;
        if properties.anchor.is_some() || properties.tag.is_some() {
            self.skip_blank()?;
        }
        let line = self.line;
        let data = match self.peek() {
            Some(b'[') => self.flow_list()?,
            Some(b'{') => self.flow_map()?,
            Some(b'*') => self.alias()?.data,
            Some(b'"' | b'\'') => Data::Quoted(self.quoted()?),
            Some(b',' | b']' | b'}' | b':') => properties.plain(Cow::default()),
            Some(b'?') => return Err(self.odd_start()),
            _ => {
                let first = self.plain_line(true)?;
                properties.plain(self.plain_rest(first, None)?)
            }
        };
        match &data {
            Data::Plain(Cow::Owned(text)) | Data::Quoted(Cow::Owned(text)) => self.count(text.len())?,
            _ => self.count(0)?,
        }
        let tree = Tree { line, data };
        self.define(&properties, &tree, before)?;
        Ok(tree)
    }

    fn flow_list(&mut self) -> Step<Data<'t>> {
        let open = self.mark();
        self.enter()?;
        self.at += 1;
        let mut items = vec![];
        while !self.closes(open, b']')? {
            if self.peek() == Some(b',') {
                return Err(self.error("expected a value before the comma"));
            }
            let start = self.mark();
            let item = self.flow_node()?;
            self.skip_blank()?;
            items.push(match self.peek() == Some(b':') {
                true => {
                    let line = item.line;
                    let pair = self.pair(item, start)?;
                    Tree::map(line, vec![pair])
                }
                false => item,
            });
            self.separator(open, b']')?;
        }
        self.depth -= 1;
        Ok(Data::List(items.into_boxed_slice()))
    }

    fn flow_map(&mut self) -> Step<Data<'t>> {
        let open = self.mark();
        self.enter()?;
        self.at += 1;
        let mut entries = vec![];
        while !self.closes(open, b'}')? {
            if matches!(self.peek(), Some(b',' | b':')) {
                return Err(self.error("expected a key"));
            }
            let start = self.mark();
            let key = self.flow_node()?;
            self.skip_blank()?;
            entries.push(self.pair(key, start)?);
            self.separator(open, b'}')?;
        }
        self.depth -= 1;
        Ok(Tree::map(open.line, entries).data)
    }

    /// Reads the value behind a key that began at `start`, if the position is at a colon.
    fn pair(&mut self, key: Tree<'t>, start: Mark) -> Step<(Cow<'t, str>, Tree<'t>)> {
        let (Data::Plain(text) | Data::Quoted(text)) = key.data else {
            return Err(self.error_at(start, "a key must be text"));
        };
        if self.peek() != Some(b':') {
            return Ok((text, Tree { line: key.line, data: Data::Null }));
        }
        self.at += 1;
        self.skip_blank()?;
        Ok((text, self.flow_node()?))
    }

    /// Skips white space, and the closing bracket if it follows.
    fn closes(&mut self, open: Mark, bracket: u8) -> Step<bool> {
        if !self.skip_blank()? {
            return Err(self.error_at(open, "the bracket isn't closed"));
        }
        let closes = self.peek() == Some(bracket);
        if closes {
            self.at += 1;
        }
        Ok(closes)
    }

    /// Skips the comma behind an item. The last item needs none.
    fn separator(&mut self, open: Mark, bracket: u8) -> Step<()> {
        if !self.skip_blank()? {
            return Err(self.error_at(open, "the bracket isn't closed"));
        }
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(())
            }
            Some(next) if next == bracket => Ok(()),
            _ => Err(self.error(format!("expected a comma or `{}`", char::from(bracket)))),
        }
    }
}
