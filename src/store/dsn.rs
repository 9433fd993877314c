//! Database URLs in the forms that Ory's configuration knows.

use std::time::Duration;

use super::StoreError;
use crate::duration;

/// A DSN, taken apart: ours are the pool's settings, the driver's the rest.
#[derive(Debug)]
pub(super) struct Dsn {
    pub url: String,
    pub max_connections: u32,
    pub max_lifetime: Option<Duration>,
    pub idle_time: Option<Duration>,
}

impl Dsn {
    /// Reads a DSN.
    ///
    /// # Errors
    /// When its scheme isn't supported or a pool setting of it is malformed.
    pub fn parse(dsn: &str) -> Result<Self, StoreError> {
        let path = ["sqlite://", "sqlite3://"]
            .iter()
            .find_map(|scheme| dsn.strip_prefix(scheme))
            .ok_or(StoreError::Dsn("must begin with sqlite:// or sqlite3://"))?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if path.is_empty() || path.contains(":memory:") {
            return Err(StoreError::Dsn("must name a file: sqlite://talos.db or sqlite:///var/lib/talos.db"));
        }
        let mut parsed = Self {
            url: String::new(),
            max_connections: 25,
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            idle_time: Some(Duration::from_secs(10 * 60)),
        };
        let mut passed_on = String::new();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "max_conns" => {
                    let connections = value.parse().ok().filter(|count| *count > 0);
                    parsed.max_connections =
                        connections.ok_or(StoreError::Dsn("max_conns must be a number above 0"))?;
                }
                "max_conn_lifetime" => parsed.max_lifetime = span(value)?,
                "max_conn_idle_time" => parsed.idle_time = span(value)?,
                // The pool closes what is idle by time alone; underscored ones are pragmas of Go's driver.
                "max_idle_conns" => {}
                _ if name.starts_with('_') => {}
                "mode" => {}
                _ => passed_on.push_str(&format!("&{name}={value}")),
            }
        }
        parsed.url = format!("sqlite://{path}?mode=rwc{passed_on}");
        Ok(parsed)
    }

    /// The same database, but not made when it isn't there.
    pub fn of_old(mut self) -> Self {
        self.url = self.url.replacen("?mode=rwc", "?mode=rw", 1);
        self
    }
}

fn span(text: &str) -> Result<Option<Duration>, StoreError> {
    let span = duration::parse(text).map_err(|_| {
        StoreError::Dsn("max_conn_lifetime and max_conn_idle_time must be durations such as 30m")
    })?;
    Ok(Some(span).filter(|span| !span.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_settings_are_ours_and_the_rest_the_drivers() {
        let dsn = Dsn::parse("sqlite:///tmp/a.db?max_conns=5&_fk=true&cache=private&max_conn_idle_time=1m")
            .unwrap();
        assert_eq!(dsn.url, "sqlite:///tmp/a.db?mode=rwc&cache=private");
        assert_eq!(dsn.max_connections, 5);
        assert_eq!(dsn.idle_time, Some(Duration::from_secs(60)));
        for bad in ["", "a.db", "redis://x", "sqlite://", "sqlite://:memory:", "sqlite://a?max_conns=0"] {
            assert!(Dsn::parse(bad).is_err(), "{bad}");
        }
    }
}
