//! Scalars: without quotes, in quotes, and as blocks.

use std::borrow::Cow;

use super::{Mark, Reader, Step, Unreadable};

impl<'t> Reader<'t> {
    /// Reads the part of a scalar without quotes that is in this line.
    pub(super) fn plain_line(&mut self, in_flow: bool) -> Step<&'t str> {
        if matches!(self.peek(), Some(b'@' | b'`' | b'%' | b']' | b'}' | b',')) {
            return Err(self.odd_start());
        }
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if in_flow && (rest.starts_with(b"// ") || rest.starts_with(b"/*")) {
            return Err(self.error("JSON has no comments, and those of YAML begin with #"));
        }
        let start = self.at;
        let mut end = start;
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' | b'\r' => break,
                b' ' | b'\t' => {
                    self.at += 1;
                    continue;
                }
                b'#' if self.at > end => break,
                b':' if self.is_space_at(1) => break,
                b':' if in_flow
                    && matches!(self.peek_at(1), Some(b',' | b'[' | b']' | b'{' | b'}' | b'"')) =>
                {
                    break;
                }
                b',' | b'[' | b']' | b'{' | b'}' if in_flow => break,
                _ => self.at += 1,
            }
            end = self.at;
        }
        self.at = end;
        Ok(self.text.get(start..end).unwrap_or_default())
    }

    /// Returns the error for a scalar that needs quotes.
    pub(super) fn odd_start(&self) -> Unreadable {
        self.error("a value can't begin with this character; put it in quotes")
    }

    /// Returns a scalar without quotes with the lines that continue it: in a block, those indented
    /// by more than `parent`; in a flow collection (`parent` is none), all.
    pub(super) fn plain_rest(&mut self, first: &'t str, parent: Option<isize>) -> Step<Cow<'t, str>> {
        let mut text = Cow::Borrowed(first);
        loop {
            let mark = self.mark();
            self.skip_spaces();
            let mut breaks = 0;
            while self.skip_break() {
                breaks += 1;
                if self.is_at_end() {
                    breaks = 0;
                    break;
                }
                self.skip_spaces();
            }
            let is_in_block =
                parent.is_none_or(|parent| isize::try_from(self.column()).is_ok_and(|at| at > parent));
            let is_end = match self.peek() {
                None | Some(b'#') => true,
                Some(b',' | b'[' | b']' | b'{' | b'}' | b'"') => parent.is_none(),
                Some(b':') => parent.is_none() && self.is_space_at(1),
                Some(_) => false,
            };
            if breaks == 0 || !is_in_block || is_end {
                self.go_back(mark);
                return Ok(text);
            }
            let line = self.plain_line(parent.is_none())?;
            if parent.is_some() && self.peek() == Some(b':') {
                return Err(self.error("a key in the lines of a value; check the indentation"));
            }
            let text = text.to_mut();
            fold(text, breaks);
            text.push_str(line);
        }
    }

    /// Reads a scalar in quotes.
    pub(super) fn quoted(&mut self) -> Step<Cow<'t, str>> {
        let open = self.mark();
        let quote = self.peek().unwrap_or_default();
        self.at += 1;
        let mut owned: Option<String> = None;
        let mut piece = self.at;
        while let Some(byte) = self.peek() {
            let before = self.text.get(piece..self.at).unwrap_or_default();
            match byte {
                b'\'' if quote == byte && self.peek_at(1) == Some(byte) => {
                    let text = owned.get_or_insert_default();
                    text.push_str(before);
                    text.push('\'');
                    self.at += 2;
                }
                _ if byte == quote => {
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(before),
                        Some(text) => Cow::Owned(text + before),
                    });
                }
                b'\\' if quote == b'"' => {
                    let text = owned.get_or_insert_default();
                    text.push_str(before);
                    self.escape(open, text)?;
                }
                b'\n' | b'\r' => {
                    let text = owned.get_or_insert_default();
                    text.push_str(before.trim_end_matches([' ', '\t']));
                    fold(text, self.breaks(open)?);
                }
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            piece = self.at;
        }
        Err(self.error_at(open, "the quote isn't closed"))
    }

    /// Skips line breaks and the indentation behind them within quotes. Returns their number.
    fn breaks(&mut self, open: Mark) -> Step<usize> {
        let mut breaks = 0;
        while self.skip_break() {
            breaks += 1;
            if self.is_at_end() {
                return Err(self.error_at(open, "the quote isn't closed"));
            }
            self.skip_spaces();
        }
        Ok(breaks)
    }

    /// Reads an escape sequence.
    fn escape(&mut self, open: Mark, text: &mut String) -> Step<()> {
        let start = self.mark();
        self.at += 1;
        let letter = self.peek().unwrap_or_default();
        if matches!(letter, b'\n' | b'\r') {
            let breaks = self.breaks(open)?;
            text.extend(std::iter::repeat_n('\n', breaks.saturating_sub(1)));
            return Ok(());
        }
        self.at += 1;
        let character = match letter {
            b'0' => '\0',
            b'a' => '\u{7}',
            b'b' => '\u{8}',
            b't' | b'\t' => '\t',
            b'n' => '\n',
            b'v' => '\u{b}',
            b'f' => '\u{c}',
            b'r' => '\r',
            b'e' => '\u{1b}',
            b' ' | b'"' | b'/' | b'\\' | b'\'' => char::from(letter),
            b'N' => '\u{85}',
            b'_' => '\u{a0}',
            b'L' => '\u{2028}',
            b'P' => '\u{2029}',
            b'x' => self.hexadecimal(start, 2)?,
            b'u' => self.hexadecimal(start, 4)?,
            b'U' => self.hexadecimal(start, 8)?,
            _ => return Err(self.error_at(start, "unknown escape sequence")),
        };
        text.push(character);
        Ok(())
    }

    /// Reads the character with a hexadecimal number. In JSON two surrogates are one character.
    fn hexadecimal(&mut self, start: Mark, digits: usize) -> Step<char> {
        let mut code = self.digits(digits);
        let is_surrogate = code.is_some_and(|code| (0xd800..0xdc00).contains(&code));
        if is_surrogate && self.peek() == Some(b'\\') && self.peek_at(1) == Some(b'u') {
            self.at += 2;
            let low = self.digits(4).filter(|low| (0xdc00..0xe000).contains(low));
            code = code.zip(low).map(|(high, low)| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
        }
        code.and_then(char::from_u32).ok_or_else(|| self.error_at(start, "no character has this number"))
    }

    fn digits(&mut self, number: usize) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + number)?;
        self.at += number;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u32::from_str_radix(digits, 16).ok())
            .flatten()
    }

    /// Reads a block scalar whose lines are indented by more than `parent`.
    pub(super) fn block_scalar(&mut self, parent: isize) -> Step<Cow<'t, str>> {
        let is_folded = self.peek() == Some(b'>');
        self.at += 1;
        let (mut chomping, mut indentation) = (None, None);
        while let Some(byte) = self.peek() {
            match byte {
                b'+' | b'-' => chomping = Some(byte),
                b'1'..=b'9' => {
                    indentation = Some(usize::try_from(parent.max(0)).unwrap_or(0) + usize::from(byte - b'0'))
                }
                _ => break,
            }
            self.at += 1;
        }
        self.skip_spaces_and_comment();
        if !self.is_line_end() {
            return Err(self.error("unexpected text behind | or >"));
        }
        self.skip_break();
        let least = usize::try_from(parent.max(0) + 1).unwrap_or(1);
        let lines = self.block_lines(least, indentation);
        let mut text =
            if is_folded { folded(&lines) } else { lines.iter().flat_map(|line| [line, "\n"]).collect() };
        let ends_within_line = self.at > self.line_start;
        if ends_within_line {
            text.pop();
        }
        if chomping != Some(b'+') {
            let length = text.trim_end_matches('\n').len();
            let is_kept = chomping.is_none() && length > 0;
            text.truncate(length + usize::from(is_kept && length < text.len()));
        }
        Ok(Cow::Owned(text))
    }

    /// Reads the lines of a block scalar without their indentation.
    fn block_lines(&mut self, least: usize, mut indentation: Option<usize>) -> Vec<&'t str> {
        let mut lines = vec![];
        while self.at < self.text.len() && !self.is_at_end() {
            let mark = self.mark();
            self.skip_line();
            let line = self.text.get(mark.at..self.at).unwrap_or_default();
            let spaces = line.len() - line.trim_start_matches(' ').len();
            let is_blank = spaces == line.len();
            let indent = match is_blank {
                false => *indentation.get_or_insert(spaces.max(least)),
                true => indentation.unwrap_or(spaces),
            };
            if !is_blank && spaces < indent {
                self.go_back(mark);
                break;
            }
            lines.push(line.get(indent..).unwrap_or_default());
            if !self.skip_break() {
                break;
            }
        }
        lines
    }
}

/// Adds what line breaks within a scalar stand for.
fn fold(text: &mut String, breaks: usize) {
    match breaks {
        0 => {}
        1 => text.push(' '),
        more => text.extend(std::iter::repeat_n('\n', more - 1)),
    }
}

/// Returns the text of a folded block scalar. Lines that are indented further stay lines.
fn folded(lines: &[&str]) -> String {
    let is_kept = |line: &str| line.starts_with([' ', '\t']);
    let mut text = String::new();
    let mut previous: Option<&str> = None;
    let mut blank = 0;
    for line in lines.iter().copied() {
        if line.is_empty() {
            blank += 1;
            continue;
        }
        match previous {
            None => text.extend(std::iter::repeat_n('\n', blank)),
            Some(before) if is_kept(before) || is_kept(line) => {
                text.extend(std::iter::repeat_n('\n', blank + 1))
            }
            Some(_) => fold(&mut text, blank + 1),
        }
        text.push_str(line);
        (previous, blank) = (Some(line), 0);
    }
    text.extend(std::iter::repeat_n('\n', blank + 1));
    text
}
