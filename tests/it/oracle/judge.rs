//! The judge: finds violations in a history, without asking an instance.

use super::history::{Answer, Asked, Credential, History, Micros, Pause, Reading, Span, Verdict};

/// A verdict that breaks the promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Something was allowed that never was a key, or became one only later.
    Conjured,
    /// A key was allowed by a question later than its acknowledged end or suspension and the bound.
    Stale { late_by: Micros },
    /// A key was refused that wasn't ended, or that had been resumed for longer than the bound.
    WronglyRefused,
}

/// Everything that must not have happened, with the question that shows it.
pub fn judge(history: &History, lease: Micros, widest: Micros) -> Vec<(Fault, Verdict)> {
    let bounds = Bounds::new(&history.readings, lease, widest);
    let fault = |verdict: &Verdict| {
        let credential = &history.credentials[verdict.credential];
        match verdict.answer {
            Answer::Allowed => wrongly_allowed(verdict, credential, &bounds),
            Answer::Refused => wrongly_refused(verdict, credential, &bounds),
            Answer::Unavailable => None,
        }
    };
    history.verdicts.iter().filter_map(|verdict| Some((fault(verdict)?, *verdict))).collect()
}

fn wrongly_allowed(verdict: &Verdict, credential: &Credential, bounds: &Bounds) -> Option<Fault> {
    let created = credential.origin.is_some_and(|origin| origin.span.began <= verdict.span.ended);
    if !created {
        return Some(Fault::Conjured);
    }
    let late_by = |instance, ended: Micros| {
        verdict.span.began.checked_sub(ended + allowance(verdict, instance, bounds)).filter(|by| *by > 0)
    };
    let end = credential.end.filter(|end| end.acknowledged);
    let end = end.and_then(|end| late_by(end.instance, end.span.ended));
    // Until somebody asked for its end, a suspension is in force.
    let is_on = |pause: &&Pause| {
        pause.began.acknowledged && pause.ended.is_none_or(|end| verdict.span.ended < end.span.began)
    };
    let paused = credential.pauses.iter().filter(is_on);
    let paused = paused.filter_map(|pause| late_by(pause.began.instance, pause.began.span.ended));
    end.into_iter().chain(paused).max().map(|late_by| Fault::Stale { late_by })
}

/// Returns whether a suspension explains a refusal: it may have begun, and may not have ended as
/// far as the instance had to know.
fn explains(pause: &Pause, verdict: &Verdict, bounds: &Bounds) -> bool {
    let is_over = pause.began.acknowledged
        && pause.ended.is_some_and(|end| {
            let known = end.span.ended + allowance(verdict, end.instance, bounds);
            end.acknowledged && verdict.span.began > known
        });
    pause.began.span.began <= verdict.span.ended && !is_over
}

fn wrongly_refused(verdict: &Verdict, credential: &Credential, bounds: &Bounds) -> Option<Fault> {
    let origin = credential.origin?;
    // An end that wasn't acknowledged may have happened, at any time after it was asked for.
    let is_ended = credential.end.is_some_and(|end| end.span.began <= verdict.span.ended);
    if is_ended || credential.pauses.iter().any(|pause| explains(pause, verdict, bounds)) {
        return None;
    }
    let allowance = match origin.imported {
        true => allowance(verdict, origin.instance, bounds),
        // A random id can't have been asked for before, so no instance has it as unknown.
        false => 0,
    };
    (verdict.span.began > origin.span.ended + allowance).then_some(Fault::WronglyRefused)
}

/// Returns for how long after a change on `instance` the instance that was asked may not know of
/// it.
fn allowance(verdict: &Verdict, instance: usize, bounds: &Bounds) -> Micros {
    match verdict.asked {
        Asked::Check if verdict.instance != instance => bounds.during(verdict.instance, verdict.span),
        Asked::Check | Asked::NoCache => 0,
    }
}

/// The bounds in force, as the instances said.
pub struct Bounds {
    lease: Micros,
    /// The bound of the mode with the widest one.
    widest: Micros,
    of: Vec<Vec<Reading>>,
}

impl Bounds {
    pub fn new(readings: &[Reading], lease: Micros, widest: Micros) -> Bounds {
        let mut of: Vec<Vec<Reading>> = Vec::new();
        for reading in readings {
            if of.len() <= reading.instance {
                of.resize(reading.instance + 1, Vec::new());
            }
            of[reading.instance].push(*reading);
        }
        Bounds { lease, widest, of }
    }

    /// The largest bound that may have been in force in a span: the readings that overlap it, and
    /// the ones before and after them.
    pub fn during(&self, instance: usize, span: Span) -> Micros {
        let readings = self.of.get(instance).map_or(&[][..], Vec::as_slice);
        let first = readings.partition_point(|reading| reading.span.ended < span.began).saturating_sub(1);
        let last = readings.partition_point(|reading| reading.span.began <= span.ended);
        let readings = &readings[first..readings.len().min(last + 1)];
        // Another mode may have come and gone between two readings: that shows only by its count.
        // What is closed by one reading of an outage may have been open again before the next;
        // without an outage, nothing is ever allowed later than the lease says.
        let unseen = |pair: &[Reading]| {
            let is_outage = pair[0].outages > 0 && pair.iter().any(|reading| reading.bound == 0);
            pair[0].outages != pair[1].outages || is_outage
        };
        let least = if readings.windows(2).any(unseen) { self.widest } else { self.lease };
        readings.iter().map(|reading| reading.bound).fold(least, Micros::max)
    }
}

mod tests {
    use super::super::history::{Change, Credential, End, How, Origin};
    use super::*;

    const LEASE: Micros = 1_000;

    const fn span(began: Micros, ended: Micros) -> Span {
        Span { began, ended }
    }

    /// A key made on instance 0 from 100 to 110 and, if so, ended there from 2,000 to 2,010.
    fn history(imported: bool, ended: Option<bool>) -> History {
        let origin = Some(Origin { instance: 0, span: span(100, 110), imported });
        let span = span(2_000, 2_010);
        let end =
            ended.map(|acknowledged| End { how: How::Revoked, instance: 0, span, acknowledged, phase: 0 });
        let never = Credential { origin: None, end: None, pauses: vec![] };
        let key = Credential { origin, end, pauses: vec![] };
        History { credentials: vec![key, never], ..History::default() }
    }

    fn said(began: Micros, instance: usize, answer: Answer) -> Verdict {
        Verdict { credential: 0, instance, asked: Asked::Check, span: span(began, began + 5), answer }
    }

    #[track_caller]
    fn finds(mut history: History, verdict: Verdict, expected: Option<Fault>) {
        history.verdicts.push(verdict);
        let found = judge(&history, LEASE, 20_000);
        assert_eq!(found.first().map(|(fault, _)| *fault), expected, "{verdict:?}");
    }

    #[test]
    fn a_stale_allow_is_found() {
        use Answer::Allowed;
        let revoked = || history(false, Some(true));
        // Elsewhere after the bound, counted from the acknowledgement to the question.
        finds(revoked(), said(3_010, 1, Allowed), None);
        finds(revoked(), said(3_011, 1, Allowed), Some(Fault::Stale { late_by: 1 }));
        // At once where it was made, and for whoever wants the database's word.
        finds(revoked(), said(2_010, 0, Allowed), None);
        finds(revoked(), said(2_011, 0, Allowed), Some(Fault::Stale { late_by: 1 }));
        let no_cache = Verdict { asked: Asked::NoCache, ..said(2_015, 1, Allowed) };
        finds(revoked(), no_cache, Some(Fault::Stale { late_by: 5 }));
        // A change without an acknowledgement may not have happened.
        finds(history(false, Some(false)), said(9_000, 0, Allowed), None);
        finds(history(false, None), said(9_000, 0, Allowed), None);
    }

    #[test]
    fn a_wider_bound_counts_where_and_while_it_is_in_force() {
        use Answer::Allowed;
        let with_static = |instance, began| {
            let mut history = history(false, Some(true));
            let fresh = |began| Reading { instance, span: span(began, began + 10), bound: LEASE, outages: 0 };
            let wide = Reading { bound: 20_000, ..fresh(began) };
            history.readings = vec![fresh(3_000), wide, fresh(4_500), fresh(5_000), fresh(6_000)];
            history
        };
        finds(with_static(1, 4_000), said(4_005, 1, Allowed), None);
        // Until a reading says that it is over.
        finds(with_static(1, 4_000), said(4_400, 1, Allowed), None);
        finds(with_static(1, 4_000), said(5_500, 1, Allowed), Some(Fault::Stale { late_by: 2_490 }));
        finds(with_static(2, 4_000), said(4_005, 1, Allowed), Some(Fault::Stale { late_by: 995 }));
    }

    #[test]
    fn a_wider_bound_between_two_readings_shows_by_its_count() {
        let between = |outages, bound| {
            let mut history = history(false, Some(true));
            let fresh = |began, outages| Reading {
                instance: 1,
                span: span(began, began + 10),
                bound: LEASE,
                outages,
            };
            history.readings =
                vec![fresh(1_000, 0), fresh(3_900, 0), fresh(4_100, outages), fresh(9_000, outages)];
            history.readings[1].bound = bound;
            history
        };
        let stale = Some(Fault::Stale { late_by: 990 });
        finds(between(0, LEASE), said(4_000, 1, Answer::Allowed), stale);
        finds(between(1, LEASE), said(4_000, 1, Answer::Allowed), None);
        // Closed without an outage: nothing is ever allowed later for that.
        finds(between(0, 0), said(4_000, 1, Answer::Allowed), stale);
        finds(between(1, LEASE), said(5_000, 1, Answer::Allowed), Some(Fault::Stale { late_by: 1_990 }));
    }

    /// A key that was suspended from 2,000 on and, if so, resumed from 5,000 on, on instance 0.
    fn paused(began: bool, ended: Option<bool>) -> History {
        let mut history = history(false, None);
        let change = |at, acknowledged| Change { instance: 0, span: span(at, at + 10), acknowledged };
        let ended = ended.map(|acknowledged| change(5_000, acknowledged));
        history.credentials[0].pauses.push(Pause { began: change(2_000, began), ended });
        history
    }

    #[test]
    fn a_suspension_holds_from_the_bound_until_its_end_is_asked_for() {
        use Answer::Allowed;
        let stale = |late_by| Some(Fault::Stale { late_by });
        for ended in [None, Some(true), Some(false)] {
            finds(paused(true, ended), said(3_010, 1, Allowed), None);
            finds(paused(true, ended), said(3_011, 1, Allowed), stale(1));
            finds(paused(true, ended), said(2_011, 0, Allowed), stale(1));
            finds(paused(true, ended), said(4_994, 1, Allowed), stale(1_984));
        }
        finds(paused(true, Some(true)), said(4_995, 1, Allowed), None);
        finds(paused(false, None), said(9_000, 0, Allowed), None);
    }

    #[test]
    fn a_resumed_key_is_not_refused_after_the_bound() {
        use Answer::Refused;
        let wrong = Some(Fault::WronglyRefused);
        finds(paused(true, Some(true)), said(1_994, 1, Refused), wrong);
        finds(paused(true, Some(true)), said(1_995, 1, Refused), None);
        finds(paused(true, Some(true)), said(6_010, 1, Refused), None);
        finds(paused(true, Some(true)), said(6_011, 1, Refused), wrong);
        finds(paused(true, Some(true)), said(5_011, 0, Refused), wrong);
        // A change without an acknowledgement may be in force, or come into force later.
        finds(paused(true, Some(false)), said(9_000, 0, Refused), None);
        finds(paused(false, Some(true)), said(9_000, 0, Refused), None);
        finds(paused(true, None), said(9_000, 0, Refused), None);
    }

    #[test]
    fn an_allowed_unknown_key_is_found() {
        let never = Verdict { credential: 1, ..said(500, 0, Answer::Allowed) };
        finds(history(false, None), never, Some(Fault::Conjured));
        finds(history(false, None), Verdict { answer: Answer::Refused, ..never }, None);
        // Or wasn't yet.
        finds(history(false, None), said(90, 0, Answer::Allowed), Some(Fault::Conjured));
        finds(history(false, None), said(95, 0, Answer::Allowed), None);
    }

    #[test]
    fn a_wrong_refusal_is_found() {
        use Answer::{Refused, Unavailable};
        finds(history(false, None), said(111, 1, Refused), Some(Fault::WronglyRefused));
        finds(history(false, None), said(110, 1, Refused), None);
        finds(history(false, None), said(500, 1, Unavailable), None);
        // An end that was asked for may have come through, acknowledged or not.
        for acknowledged in [true, false] {
            finds(history(false, Some(acknowledged)), said(1_994, 1, Refused), Some(Fault::WronglyRefused));
            finds(history(false, Some(acknowledged)), said(1_995, 1, Refused), None);
        }
        // An imported key may be remembered as unknown elsewhere, for as long as the bound.
        finds(history(true, None), said(111, 0, Refused), Some(Fault::WronglyRefused));
        finds(history(true, None), said(1_110, 1, Refused), None);
        finds(history(true, None), said(1_111, 1, Refused), Some(Fault::WronglyRefused));
    }
}
