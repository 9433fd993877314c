//! Problems of the process in words, for operators.

use std::time::Duration;

use super::dependencies::RedisStatus;
use super::{Certificate, Database, Lease, Poll, Relay, Signing, Status};
use crate::cache::freshness::Mode;

/// Time for which a far shorter deny list, or an audit log that somebody changed, is reported: long
/// enough to be seen by whoever made the change.
const MAX_SHRUNK_AGE: Duration = Duration::from_secs(600);

impl Status {
    /// Problems in words, the worst first.
    pub(super) fn problems(&self, mode: Mode, is_draining: bool) -> Vec<String> {
        let mut problems = vec![];
        problems.extend(mode_problem(mode, &self.lease, &self.relay));
        problems.extend(self.poll.problem(mode));
        if is_draining {
            problems.push("the process is stopping".to_owned());
        } else if !self.database.answers {
            problems.push("the database doesn't answer: readiness is off".to_owned());
        }
        if let Some(audit) = &self.audit {
            problems.extend(audit.problems(MAX_SHRUNK_AGE.as_secs_f64()));
        }
        problems.extend(self.database.clock_problem());
        problems.extend(self.deny_list_problems());
        problems.extend(self.signing.iter().flat_map(Signing::problems));
        problems.extend(self.certificates.iter().filter_map(Certificate::problem));
        problems.extend(self.redis.iter().filter_map(RedisStatus::problem));
        let is_explained = self.redis.iter().any(|redis| redis.client == "cache" && redis.cause.is_some());
        if matches!(self.breaker, "open" | "half-open") && !is_explained {
            problems.push("Redis fails: lookups go to the database".to_owned());
        }
        if let Some(reason) = self.traces.as_ref().and_then(|traces| traces.failing.as_ref()) {
            problems.push(format!(
                "traces can't be exported, and are lost: {reason}; check tracing.endpoint and the collector"
            ));
        }
        if !self.settings.current {
            let problem = "the configuration, or a key set, was refused when it was last read (the log says why); the \
                           one before it is in force";
            problems.push(problem.to_owned());
        }
        problems.extend(unadopted_problem(&self.unadopted_tables));
        let database = &self.database;
        if database.idle_connections == 0 && database.connections >= database.max_connections {
            problems.push(format!("all {} connections to the database are in use", database.connections));
        }
        problems
    }

    fn deny_list_problems(&self) -> Vec<String> {
        let deny_list = &self.deny_list;
        let mut problems = vec![];
        if let Some(held) = deny_list.held {
            problems.push(format!(
                "consistency.deny_file no longer names {held} of the {} keys that it refuses (was it truncated?): they \
                 stay refused until it has stood unchanged for ten seconds",
                deny_list.keys
            ));
        } else if !deny_list.current {
            problems.push(format!(
                "consistency.deny_file is missing or was refused (the log says why): the last list, of {} keys, is in \
                 force",
                deny_list.keys
            ));
        }
        if let Some(shrunk) = &deny_list.shrunk
            && shrunk.age_seconds < MAX_SHRUNK_AGE.as_secs_f64()
        {
            problems.push(format!(
                "consistency.deny_file shrank from {} keys to {}, {:.0} s ago: the keys that it no longer names are \
                 allowed again",
                shrunk.from, shrunk.to, shrunk.age_seconds
            ));
        }
        problems
    }
}

/// The problem of keys that Ory Talos left in these tables of the database.
pub fn unadopted_problem(tables: &[String]) -> Option<String> {
    (!tables.is_empty()).then(|| {
        format!(
            "the database holds keys of Ory Talos that are unknown here (in {}): take them over with `talos migrate \
             adopt --from-database` (docs/migrate-from-ory.md), or drop the tables",
            tables.join(", ")
        )
    })
}

/// The problem of a mode other than fresh.
fn mode_problem(mode: Mode, lease: &Lease, relay: &Relay) -> Option<String> {
    let age = lease.age_seconds.into_iter().chain(relay.age_seconds).fold(f64::INFINITY, f64::min);
    let left = (lease.seconds + lease.grace_seconds - age).max(0.0);
    match (mode, lease.age_seconds) {
        (Mode::Fresh, _) => None,
        (Mode::Relayed, _) => Some(format!(
            "the mutation log can't be polled: another instance relays it, last {:.1} s ago; unknown keys get 503",
            relay.age_seconds.unwrap_or_default()
        )),
        (Mode::Static, _) => Some(format!(
            "the mutation log can't be polled: known keys stay valid for {left:.0} s more, even if they are revoked \
             elsewhere, and unknown keys get 503"
        )),
        (Mode::Closed, None) => Some("the mutation log was never polled: every key gets 503".to_owned()),
        (Mode::Closed, Some(age)) => Some(format!(
            "the mutation log was last polled {age:.0} s ago, which is too long: every key gets 503"
        )),
    }
}

impl Database {
    fn clock_problem(&self) -> Option<String> {
        let seconds = self.clock_skew_seconds.filter(|_| self.clock_is_off)?;
        let direction = if seconds < 0.0 { "behind" } else { "ahead of" };
        Some(format!(
            "this server's clock is {:.0} s {direction} the database's: expiry is judged by a wrong time, and beyond 30 s \
             no key is issued, rotated or imported here, and no token derived; set the clocks (NTP)",
            seconds.abs()
        ))
    }
}

impl Poll {
    fn problem(&self, mode: Mode) -> Option<String> {
        match (mode, self) {
            (Mode::Fresh, Self { reconnect_error: Some(error), .. }) => Some(format!(
                "no new connection to the database can be made, and the lease will run out unless one is: {error}"
            )),
            (Mode::Fresh, _) => None,
            (_, Self { last_failure: Some(reason), .. }) => {
                Some(format!("the last poll that failed: {reason}"))
            }
            _ => None,
        }
    }
}
