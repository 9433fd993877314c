//! Parser of patterns, and the program that it makes.

use std::iter::Peekable;
use std::str::Chars;

/// Most steps of a program, so that matching a name is quick.
const MAX_STEPS: usize = 1_000;
/// Most groups within each other.
const MAX_DEPTH: usize = 16;
/// Largest number in a quantifier.
const MAX_REPEAT: u32 = 255;

const TOO_COMPLEX: &str = "must be simpler: with fewer or smaller repetitions";
const UNSUPPORTED_GROUP: &str = "has a group that isn't supported; plain groups (…) and (?:…) are";
const NOTHING_TO_REPEAT: &str = "has a quantifier that follows nothing, or another one";

/// Step of a program.
#[derive(Debug)]
pub(super) enum Step {
    /// Takes a character of the class.
    Class(Class),
    /// Goes on at either step.
    Split(usize, usize),
    /// Goes on at another step.
    Jump(usize),
}

/// Set of characters.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// First and last character of each range.
    pub ranges: Vec<(char, char)>,
    /// True if it has all characters but those.
    pub is_negated: bool,
}

/// Program that matches names. The end of its steps is a match.
#[derive(Debug)]
pub(super) struct Program {
    pub steps: Vec<Step>,
    /// True if a match begins at the start of a name.
    pub from_start: bool,
    /// True if a match ends at the end of a name.
    pub to_end: bool,
}

/// Parsed part of a pattern.
#[derive(Debug)]
enum Node {
    Class(Class),
    All(Vec<Self>),
    Any(Vec<Self>),
    Repeat { node: Box<Self>, least: u32, most: Option<u32> },
}

/// Parses a pattern.
pub(super) fn parse(text: &str) -> Result<Program, &'static str> {
    let (has_start, inner) = text.strip_prefix('^').map_or((false, text), |inner| (true, inner));
    let is_escaped = inner.chars().rev().skip(1).take_while(|character| *character == '\\').count() % 2 == 1;
    let end = inner.strip_suffix('$').filter(|_| !is_escaped);
    let (has_end, inner) = end.map_or((false, inner), |inner| (true, inner));
    let mut parser = Parser { rest: inner.chars().peekable(), depth: 0 };
    let node = parser.alternatives()?;
    if parser.rest.next().is_some() {
        return Err("has a ) without its (");
    }
    if (has_start || has_end) && matches!(&node, Node::Any(several) if several.len() > 1) {
        return Err("must have its alternatives in parentheses, as in ^(a|b)$");
    }
    let mut steps = vec![];
    emit(&node, &mut steps)?;
    Ok(Program { steps, from_start: has_start || !has_end, to_end: has_end || !has_start })
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Result<Node, &'static str> {
        let mut several = vec![self.sequence()?];
        while self.rest.next_if_eq(&'|').is_some() {
            several.push(self.sequence()?);
        }
        Ok(Node::Any(several))
    }

    fn sequence(&mut self) -> Result<Node, &'static str> {
        let mut nodes = vec![];
        while let Some(next) = self.rest.peek() {
            if matches!(next, '|' | ')') {
                break;
            }
            let node = self.atom()?;
            nodes.push(self.quantified(node)?);
        }
        Ok(Node::All(nodes))
    }

    fn atom(&mut self) -> Result<Node, &'static str> {
        let class = |ranges, is_negated| Node::Class(Class { ranges, is_negated });
        Ok(match self.rest.next().ok_or("ends too early")? {
            '(' => return self.group(),
            '[' => return self.class(),
            '.' => class(vec![], true),
            '\\' => Node::Class(self.escape()?),
            '*' | '+' | '?' | '{' => return Err(NOTHING_TO_REPEAT),
            '^' | '$' => return Err("may have ^ at its start and $ at its end alone; put \\ before others"),
            ']' | '}' => return Err("has a ] or } without its beginning; put \\ before it"),
            literal => class(vec![(literal, literal)], false),
        })
    }

    fn group(&mut self) -> Result<Node, &'static str> {
        if self.rest.next_if_eq(&'?').is_some() && self.rest.next() != Some(':') {
            return Err(UNSUPPORTED_GROUP);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("must not be nested more than 16 levels deep");
        }
        let inner = self.alternatives()?;
        self.depth -= 1;
        match self.rest.next() {
            Some(')') => Ok(inner),
            _ => Err("has a ( without its )"),
        }
    }

    fn class(&mut self) -> Result<Node, &'static str> {
        const OPEN: &str = "has a [ without its ]";
        let is_negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = vec![];
        loop {
            let first = match self.rest.next().ok_or(OPEN)? {
                ']' if !ranges.is_empty() => return Ok(Node::Class(Class { ranges, is_negated })),
                '\\' => {
                    let Class { ranges: more, is_negated: false } = self.escape()? else {
                        return Err("has \\D, \\W or \\S within [ ], where they aren't supported");
                    };
                    match more.as_slice() {
                        [(one, other)] if one == other => *one,
                        _ => {
                            ranges.extend(more);
                            continue;
                        }
                    }
                }
                character => character,
            };
            let mut ahead = self.rest.clone();
            let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|last| last != ']');
            if !is_range {
                ranges.push((first, first));
                continue;
            }
            self.rest.next();
            let last = match self.rest.next().ok_or(OPEN)? {
                '\\' => self.rest.next().ok_or(OPEN)?,
                character => character,
            };
            if last < first {
                return Err("has a range in [ ] whose end is before its start");
            }
            ranges.push((first, last));
        }
    }

    /// Parses what follows a `\`.
    fn escape(&mut self) -> Result<Class, &'static str> {
        let digits = vec![('0', '9')];
        let word = vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')];
        let space = vec![(' ', ' '), ('\t', '\r'), ('\u{a0}', '\u{a0}')];
        let (ranges, is_negated) = match self.rest.next().ok_or("ends with a \\")? {
            'd' => (digits, false),
            'D' => (digits, true),
            'w' => (word, false),
            'W' => (word, true),
            's' => (space, false),
            'S' => (space, true),
            other if other.is_ascii_alphanumeric() => {
                return Err("has a \\ before a letter or digit that isn't supported; \\d, \\w and \\s are");
            }
            literal => (vec![(literal, literal)], false),
        };
        Ok(Class { ranges, is_negated })
    }

    fn quantified(&mut self, node: Node) -> Result<Node, &'static str> {
        let (least, most) = match self.rest.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.rest.next();
                let bounds = self.bounds()?;
                return self.repeated(node, bounds);
            }
            _ => return Ok(node),
        };
        self.rest.next();
        self.repeated(node, (least, most))
    }

    fn repeated(&mut self, node: Node, (least, most): (u32, Option<u32>)) -> Result<Node, &'static str> {
        match self.rest.peek() {
            Some('*' | '+' | '?' | '{') => Err(NOTHING_TO_REPEAT),
            _ => Ok(Node::Repeat { node: Box::new(node), least, most }),
        }
    }

    /// Parses the bounds of a quantifier, up to its `}`.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), &'static str> {
        const FORM: &str = "must have quantifiers such as {3}, {2,} and {2,5}, up to 255";
        let least = self.number().ok_or(FORM)?;
        let most = match self.rest.next() {
            Some('}') => return Ok((least, Some(least))),
            Some(',') if self.rest.next_if_eq(&'}').is_some() => return Ok((least, None)),
            Some(',') => self.number().ok_or(FORM)?,
            _ => return Err(FORM),
        };
        let is_closed = self.rest.next() == Some('}');
        if is_closed && least <= most { Ok((least, Some(most))) } else { Err(FORM) }
    }

    fn number(&mut self) -> Option<u32> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        digits.parse().ok().filter(|number| *number <= MAX_REPEAT)
    }
}

/// Adds the steps of a node.
fn emit(node: &Node, steps: &mut Vec<Step>) -> Result<(), &'static str> {
    match node {
        Node::Class(class) => push(steps, Step::Class(class.clone())).map(drop),
        Node::All(nodes) => nodes.iter().try_for_each(|node| emit(node, steps)),
        Node::Any(several) => {
            let mut jumps = vec![];
            for (index, node) in several.iter().enumerate() {
                if index + 1 == several.len() {
                    emit(node, steps)?;
                    break;
                }
                let split = push(steps, Step::Split(0, 0))?;
                emit(node, steps)?;
                jumps.push(push(steps, Step::Jump(0))?);
                steps[split] = Step::Split(split + 1, steps.len());
            }
            for jump in jumps {
                steps[jump] = Step::Jump(steps.len());
            }
            Ok(())
        }
        Node::Repeat { node, least, most } => {
            for _ in 0..*least {
                let before = steps.len();
                emit(node, steps)?;
                if steps.len() == before {
                    // Repeating nothing is nothing.
                    return Ok(());
                }
            }
            let Some(most) = most else {
                let split = push(steps, Step::Split(0, 0))?;
                emit(node, steps)?;
                push(steps, Step::Jump(split))?;
                steps[split] = Step::Split(split + 1, steps.len());
                return Ok(());
            };
            let mut splits = vec![];
            for _ in *least..*most {
                splits.push(push(steps, Step::Split(0, 0))?);
                emit(node, steps)?;
            }
            for split in splits {
                steps[split] = Step::Split(split + 1, steps.len());
            }
            Ok(())
        }
    }
}

/// Adds a step and returns its position.
fn push(steps: &mut Vec<Step>, step: Step) -> Result<usize, &'static str> {
    if steps.len() >= MAX_STEPS {
        return Err(TOO_COMPLEX);
    }
    steps.push(step);
    Ok(steps.len() - 1)
}
