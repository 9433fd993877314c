//! The report of a run: counts, times for which revoked keys were still allowed, latency of
//! announcements.

use std::fmt::Write;

use super::faults::Phase;
use super::history::{Answer, Asked, History, How, Micros};
use super::judge::Bounds;

/// Upper ends of the histogram, in milliseconds.
const ENDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, u64::MAX];

/// The outcome for one key on one instance that didn't end it.
#[derive(Clone, Copy, Default)]
struct Aftermath {
    /// Time of the last question that was answered by an allow, after the acknowledgement.
    last_allow: Option<Micros>,
    /// Time of the first question that was refused, after the acknowledgement.
    refused: Option<Micros>,
}

pub fn report(
    history: &History,
    (lease, widest): (Micros, Micros),
    instances: usize,
    cut_off: usize,
) -> String {
    let mut text = String::new();
    let aftermaths = aftermaths(history, instances);
    for (phase, name) in Phase::ALL.iter().enumerate() {
        let of_phase = |index: &usize| history.credentials[*index].end.is_some_and(|end| end.phase == phase);
        let keys: Vec<usize> = (0..history.credentials.len()).filter(of_phase).collect();
        let ends = || keys.iter().filter_map(|key| history.credentials[*key].end);
        let how = |how| ends().filter(|end| end.how == how).count();
        let _ = writeln!(
            text,
            "\n{name:?}: {} keys ended, {} of them acknowledged ({} revoked, {} self-revoked, {} rotated, {} deleted)",
            keys.len(),
            ends().filter(|end| end.acknowledged).count(),
            how(How::Revoked),
            how(How::SelfRevoked),
            how(How::Rotated),
            how(How::Deleted),
        );
        let elsewhere: Vec<(usize, Aftermath)> = keys
            .iter()
            .filter_map(|key| Some((*key, history.credentials[*key].end.filter(|end| end.acknowledged)?)))
            .flat_map(|(key, end)| {
                let others = (0..instances).filter(move |instance| *instance != end.instance);
                others.map(move |instance| (key, instance))
            })
            .map(|(key, instance)| (instance, aftermaths[key * instances + instance]))
            .collect();
        let of = |which: fn(usize, usize) -> bool| -> Vec<Aftermath> {
            let those = elsewhere.iter().filter(|(instance, _)| which(*instance, cut_off));
            those.map(|(_, aftermath)| *aftermath).collect()
        };
        match name {
            Phase::CutOff => {
                let _ = writeln!(text, "  where the database can be reached:");
                write_lags(&mut text, &of(|instance, cut_off| instance != cut_off));
                let _ = writeln!(text, "  where it can't, most of the time:");
                write_lags(&mut text, &of(|instance, cut_off| instance == cut_off));
            }
            _ => write_lags(&mut text, &of(|_, _| true)),
        }
    }
    let count = |asked, answer| {
        let asked = history.verdicts.iter().filter(|verdict| verdict.asked == asked);
        asked.filter(|verdict| verdict.answer == answer).count()
    };
    for asked in [Asked::Check, Asked::NoCache] {
        let _ = writeln!(
            text,
            "{asked:?}: {} allowed, {} refused, {} unavailable",
            count(asked, Answer::Allowed),
            count(asked, Answer::Refused),
            count(asked, Answer::Unavailable),
        );
    }
    let wide = decided_beyond(history, lease, widest);
    let _ =
        writeln!(text, "{wide} of {} decided while the bound may have been wider", history.verdicts.len());
    text
}

/// Returns the number of questions decided while an instance reported a bound wider than the lease.
pub fn decided_beyond(history: &History, lease: Micros, widest: Micros) -> usize {
    let bounds = Bounds::new(&history.readings, lease, widest);
    let during = |verdict: &super::history::Verdict| bounds.during(verdict.instance, verdict.span);
    history.verdicts.iter().filter(|verdict| during(verdict) > lease).count()
}

fn aftermaths(history: &History, instances: usize) -> Vec<Aftermath> {
    let mut aftermaths = vec![Aftermath::default(); history.credentials.len() * instances];
    for verdict in history.verdicts.iter().filter(|verdict| verdict.asked == Asked::Check) {
        let Some(end) = history.credentials[verdict.credential].end else {
            continue;
        };
        let aftermath = &mut aftermaths[verdict.credential * instances + verdict.instance];
        match verdict.answer {
            Answer::Allowed => {
                let since = verdict.span.began.checked_sub(end.span.ended);
                aftermath.last_allow = aftermath.last_allow.max(since);
            }
            Answer::Refused => {
                let since = verdict.span.began.saturating_sub(end.span.ended);
                aftermath.refused = Some(aftermath.refused.map_or(since, |first| first.min(since)));
            }
            Answer::Unavailable => {}
        }
    }
    aftermaths
}

fn write_lags(text: &mut String, elsewhere: &[Aftermath]) {
    let lags: Vec<Micros> = elsewhere.iter().filter_map(|aftermath| aftermath.last_allow).collect();
    let none = elsewhere.len() - lags.len();
    let _ = write!(text, "  last allow - acknowledgement, elsewhere: {none} none");
    let mut start = 0;
    for end in ENDS {
        let within = lags.iter().filter(|lag| (start..end).contains(&(**lag / 1_000))).count();
        let _ = match (within, end) {
            (0, _) => Ok(()),
            (within, u64::MAX) => write!(text, ", {within} from {start} ms"),
            (within, end) => write!(text, ", {within} in {start}..{end} ms"),
        };
        start = end;
    }
    let largest = lags.iter().max().copied().unwrap_or(0);
    let mut refused: Vec<Micros> = elsewhere.iter().filter_map(|aftermath| aftermath.refused).collect();
    refused.sort_unstable();
    let _ = writeln!(
        text,
        "; at most {:.1} ms\n  first question refused - acknowledgement, elsewhere: p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        millis(largest),
        millis(quantile(&refused, 0.50)),
        millis(quantile(&refused, 0.99)),
        millis(quantile(&refused, 1.0)),
    );
}

fn quantile(sorted: &[Micros], share: f64) -> Micros {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(0)
}

fn millis(micros: Micros) -> f64 {
    micros as f64 / 1e3
}
