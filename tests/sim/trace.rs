//! Trace of a simulation: what happened at which instance, and a table of it for people.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Width of a column of the table.
const WIDTH: usize = 34;

/// Lines in the order in which they happened.
#[derive(Default, Clone, PartialEq)]
pub struct Trace {
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq)]
struct Line {
    at: u64,
    /// `None` means the world.
    instance: Option<usize>,
    content: Content,
}

/// Content of a line, which becomes text only if somebody reads it.
#[derive(Clone, PartialEq)]
enum Content {
    Note(String),
    /// Message of a session to the database or from it.
    Message(u64, What, Fate),
}

/// Kind of a message.
#[derive(Clone, PartialEq)]
pub enum What {
    Step(&'static str),
    /// Statement, by its first words.
    Statement(Arc<str>),
}

/// Fate of a message.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Arrives(Duration),
    Resets(Duration),
    /// Nobody ever hears of it.
    Vanishes,
}

impl What {
    pub fn name(&self) -> &str {
        match self {
            Self::Step(name) => name,
            Self::Statement(name) => name,
        }
    }
}

impl Content {
    fn text(&self) -> String {
        match self {
            Self::Note(text) => text.clone(),
            Self::Message(session, what, fate) => {
                let fate = match fate {
                    Fate::Arrives(delay) => format!("{} ms", delay.as_millis()),
                    Fate::Resets(_) => "reset".to_owned(),
                    Fate::Vanishes => "vanishes".to_owned(),
                };
                format!("{session}: {}, {fate}", what.name())
            }
        }
    }
}

impl Trace {
    pub fn add(&mut self, at: u64, instance: Option<usize>, text: String) {
        self.lines.push(Line { at, instance, content: Content::Note(text) });
    }

    /// Adds a message of a session.
    pub fn add_call(&mut self, at: u64, instance: usize, session: u64, what: What, fate: Fate) {
        let content = Content::Message(session, what, fate);
        self.lines.push(Line { at, instance: Some(instance), content });
    }

    /// Returns the first lines in which two traces differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let count = self.lines.len().max(other.lines.len());
        let index = (0..count).find(|index| self.lines.get(*index) != other.lines.get(*index))?;
        let show = |trace: &Self| {
            let lines = trace.lines.iter().skip(index.saturating_sub(3)).take(5);
            lines.map(|line| format!("  {}\n", line.show())).collect::<String>()
        };
        Some(format!("line {index} of {count}\n{}or\n{}", show(self), show(other)))
    }

    /// Makes the table of a span, with a column for each instance.
    pub fn table(&self, instances: usize, from: u64, until: u64, with_calls: bool) -> String {
        let mut table = format!("{:>10}  {:<WIDTH$}", "seconds", "world");
        (0..instances).for_each(|instance| {
            let _ = write!(table, "  {:<WIDTH$}", format!("instance {instance}"));
        });
        table.push('\n');
        let in_span = |line: &&Line| {
            (from..=until).contains(&line.at) && (with_calls || matches!(line.content, Content::Note(_)))
        };
        for line in self.lines.iter().filter(in_span) {
            let column = line.instance.map_or(0, |instance| instance + 1);
            let text: String = line.content.text().chars().take(WIDTH + 40).collect();
            let _ = writeln!(table, "{:>10.3}  {}{text}", seconds(line.at), " ".repeat(column * (WIDTH + 2)));
        }
        table
    }
}

impl Line {
    fn show(&self) -> String {
        let who = self.instance.map_or("world".to_owned(), |instance| format!("instance {instance}"));
        format!("{:.3} {who}: {}", seconds(self.at), self.content.text())
    }
}

/// Returns the seconds since the start.
pub fn seconds(at: u64) -> f64 {
    at.saturating_sub(crate::scheduler::START) as f64 / 1e6
}
