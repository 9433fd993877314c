//! Drawing of a run: an SVG with a lane for each instance, over time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use talos::cache::freshness::Mode;

use crate::history::{Answer, History};
use crate::plan::{INSTANCES, Plan};
use crate::run::Outcome;
use crate::trace::seconds;

/// Width of the lanes.
const WIDTH: f64 = 1_200.0;
/// Width of the lanes' names.
const LEFT: f64 = 90.0;
/// Height of an instance's lane.
const LANE: f64 = 74.0;
/// Height of a fault's bar.
const BAR: f64 = 16.0;

/// Span of time, as a scale.
#[derive(Clone, Copy)]
struct Scale {
    from: u64,
    until: u64,
}

impl Scale {
    fn x(self, at: u64) -> f64 {
        let at = at.clamp(self.from, self.until) - self.from;
        LEFT + at as f64 / (self.until - self.from).max(1) as f64 * WIDTH
    }

    fn has(self, at: u64) -> bool {
        (self.from..=self.until).contains(&at)
    }
}

/// Draws a span of a run into a file of the build's directory; returns its path.
pub fn draw(plan: &Plan, faults: &[usize], outcome: &Outcome, (from, until): (u64, u64)) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{}.svg", plan.seed));
    std::fs::write(&path, svg(plan, faults, outcome, Scale { from, until })).expect("a drawing");
    path
}

fn svg(plan: &Plan, faults: &[usize], outcome: &Outcome, scale: Scale) -> String {
    let key = outcome.violations.first().and_then(|violation| key_at(&outcome.history, violation.at));
    let shown: Vec<usize> = faults
        .iter()
        .copied()
        .filter(|index| plan.faults[*index].from <= scale.until && plan.faults[*index].until >= scale.from)
        .collect();
    let top = 40.0 + BAR * shown.len() as f64;
    let height = top + LANE * INSTANCES as f64 + 60.0;
    let mut drawing = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{w}' height='{height}' font-family='sans-serif' font-size='11'>\n\
         <rect width='{w}' height='{height}' fill='white'/>\n",
        w = LEFT + WIDTH + 20.0
    );
    axis(&mut drawing, scale, height);
    for (row, index) in shown.iter().enumerate() {
        let fault = &plan.faults[*index];
        let (x, y) = (scale.x(fault.from), 30.0 + BAR * row as f64);
        let width = (scale.x(fault.until) - x).max(2.0);
        let name = escape(&format!("{:?}", fault.fault));
        let _ = writeln!(
            drawing,
            "<rect x='{x:.1}' y='{y}' width='{width:.1}' height='{h}' fill='#f2c27b'/><text x='{t:.1}' y='{ty}'>{name}</text>",
            h = BAR - 3.0,
            t = x.min(LEFT + WIDTH - 500.0) + 3.0,
            ty = y + 10.0
        );
    }
    if let Some(key) = &key {
        truth(&mut drawing, &outcome.history, key, (plan.terms.lease, scale), (top, height - 50.0));
    }
    for instance in 0..INSTANCES {
        lane(&mut drawing, &outcome.history, instance, key.as_deref(), (scale, top + LANE * instance as f64));
    }
    let text = outcome.violations.first().map_or("no promise is broken", |violation| &violation.text);
    let _ = writeln!(
        drawing,
        "<text x='{LEFT}' y='{y}'>seed {}: {}</text>\n<text x='{LEFT}' y='{z}' fill='#666'>band: mode (green fresh, blue \
         relayed, orange static, grey closed) · bars: polls (red failed) · above: allowed (squares: by the module), below: \
         refused, crosses: no answer · black: the key in question</text>\n</svg>",
        plan.seed,
        escape(text),
        y = height - 28.0,
        z = height - 10.0
    );
    drawing
}

/// Returns the key of the Check that was made at this time.
fn key_at(history: &History, at: u64) -> Option<String> {
    history.checks.iter().find(|check| check.at == at).map(|check| check.key.clone())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn axis(drawing: &mut String, scale: Scale, height: f64) {
    let mut at = scale.from.div_ceil(1_000_000) * 1_000_000;
    while at <= scale.until {
        let x = scale.x(at);
        let _ = writeln!(
            drawing,
            "<line x1='{x:.1}' y1='20' x2='{x:.1}' y2='{y}' stroke='#eee'/><text x='{x:.1}' y='15' fill='#666'>{:.0} s</text>",
            seconds(at),
            y = height - 50.0
        );
        at += 1_000_000;
    }
}

/// Draws when the key ended or came back, and until when the old answer may be given.
fn truth(
    drawing: &mut String,
    history: &History,
    key: &str,
    (lease, scale): (u64, Scale),
    (top, end): (f64, f64),
) {
    let states = history.truth.get(key).map(Vec::as_slice).unwrap_or_default();
    for (at, active) in states.iter().filter(|(at, _)| scale.has(*at)) {
        let (x, width) = (scale.x(*at), scale.x(*at + lease) - scale.x(*at));
        let (colour, word) = if *active { ("#2a2", "valid") } else { ("#c22", "ended") };
        let _ = writeln!(
            drawing,
            "<rect x='{x:.1}' y='{top}' width='{width:.1}' height='{h:.1}' fill='{colour}' opacity='0.08'/>\
             <line x1='{x:.1}' y1='{top}' x2='{x:.1}' y2='{end}' stroke='{colour}'/>\
             <text x='{t:.1}' y='{y}' fill='{colour}'>{word}</text>",
            h = end - top,
            t = x + 3.0,
            y = top - 2.0
        );
    }
}

fn lane(
    drawing: &mut String,
    history: &History,
    instance: usize,
    key: Option<&str>,
    (scale, top): (Scale, f64),
) {
    let middle = top + LANE / 2.0;
    let _ = writeln!(drawing, "<text x='5' y='{:.1}'>instance {instance}</text>", middle + 4.0);
    let seen: Vec<_> = history.modes.iter().filter(|seen| seen.instance == instance).collect();
    for (index, one) in seen.iter().enumerate().filter(|(_, one)| scale.has(one.at)) {
        let until = seen.get(index + 1).map_or(scale.until, |next| next.at);
        let colour = match one.mode {
            Mode::Fresh => "#bfe3bf",
            Mode::Relayed => "#bcd3f0",
            Mode::Static => "#f5d9a8",
            Mode::Closed => "#cccccc",
        };
        let (x, width) = (scale.x(one.at), scale.x(until) - scale.x(one.at));
        let _ = writeln!(
            drawing,
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='14' fill='{colour}'/>",
            y = middle - 7.0
        );
    }
    for poll in history.polls.iter().filter(|poll| poll.instance == instance && scale.has(poll.until)) {
        let (x, width) = (scale.x(poll.from), (scale.x(poll.until) - scale.x(poll.from)).max(1.0));
        let colour = if poll.succeeded { "#285" } else { "#c22" };
        let _ = writeln!(
            drawing,
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='4' fill='{colour}'/>",
            y = middle - 2.0
        );
    }
    // How many were drawn at this place: several at once stand above each other.
    let mut stacks: BTreeMap<(u64, bool), u32> = BTreeMap::new();
    for check in history.checks.iter().filter(|check| check.instance == instance && scale.has(check.at)) {
        let is_up = check.answer != Answer::Refused;
        let x = scale.x(check.at);
        let height = stacks.entry((x as u64 / 4, is_up)).or_default();
        *height += 1;
        let away = 9.0 + 4.0 * f64::from((*height).min(5));
        let y = if is_up { middle - away } else { middle + away };
        let colour = match check.answer {
            _ if key == Some(check.key.as_str()) => "black",
            Answer::Allowed => "#3a3",
            Answer::Refused => "#c44",
            Answer::Unavailable => "#888",
        };
        let _ = match check.answer {
            Answer::Unavailable => writeln!(drawing, "<text x='{x:.1}' y='{y:.1}' fill='{colour}'>×</text>"),
            _ if check.by_module => writeln!(
                drawing,
                "<rect x='{:.1}' y='{:.1}' width='4' height='4' fill='{colour}'/>",
                x - 2.0,
                y - 2.0
            ),
            _ => writeln!(drawing, "<circle cx='{x:.1}' cy='{y:.1}' r='2' fill='{colour}'/>"),
        };
    }
}
