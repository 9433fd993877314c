//! Places of a request that carry keys, and formats that show them.

use crate::config::{Authz, CredentialSource};

/// Operator of an access log that shows a header; others begin like it.
const REQUEST_HEADER: &str = "%REQ";
/// Operator that shows the path.
const PATH: &str = "%PATH";
/// Operator that shows the path without its query.
const WITHOUT_QUERY: &str = "%PATH(NQ)%";
/// Operator that shows a cookie.
const COOKIE: &str = "%COOKIE(";
/// Operator that shows the first of several values, which JSON names.
const COALESCE: &str = "%COALESCE(";

/// Places of a request that carry keys.
pub(super) struct Carriers {
    /// Names of headers, in lower case.
    headers: Vec<String>,
    is_in_query: bool,
    is_in_path: bool,
}

impl Carriers {
    /// Returns the carriers of a configuration's sources.
    pub(super) fn of(authz: &Authz) -> Self {
        let mut carriers = Self { headers: vec![], is_in_query: false, is_in_path: false };
        for source in &authz.sources {
            carriers.headers.extend(source.header().map(str::to_ascii_lowercase));
            carriers.is_in_query |= matches!(source, CredentialSource::Query { .. });
            carriers.is_in_path |= matches!(source, CredentialSource::Path(_));
        }
        carriers
    }

    /// Returns true if a header may contain a key. `query` tells if it is shown with its query.
    pub(super) fn has(&self, name: &str, query: bool) -> bool {
        let name = name.trim().to_ascii_lowercase();
        let is_path = matches!(name.as_str(), ":path" | "x-envoy-original-path");
        (is_path && (self.is_in_path || (self.is_in_query && query))) || self.headers.contains(&name)
    }

    /// Returns true if an operator of a format, from its `%` to its end, shows a key.
    fn is_shown_by(&self, operator: &str) -> bool {
        let arguments =
            operator.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inner, _)| inner);
        if operator.starts_with(COOKIE) {
            return self.headers.iter().any(|header| header == "cookie");
        }
        if operator.starts_with(COALESCE) {
            let operator = operator.to_ascii_lowercase();
            return self.headers.iter().any(|name| operator.contains(&format!("\"{name}\"")));
        }
        if operator.starts_with(PATH) && !operator.starts_with("%PATH_") {
            let is_without_query = arguments.is_some_and(|inner| inner.trim().starts_with("NQ"));
            return self.is_in_path || (self.is_in_query && !is_without_query);
        }
        let (true, Some(arguments)) = (operator.starts_with(REQUEST_HEADER), arguments) else { return false };
        let has_query = !operator.starts_with("%REQ_WITHOUT_QUERY");
        arguments.split('?').any(|name| self.has(name, has_query))
    }

    /// Returns true for an operator that shows the path.
    fn is_path(&self, operator: &str) -> bool {
        operator.starts_with(PATH) || operator.to_ascii_lowercase().contains(":path")
    }

    /// Returns a format without the operators that show a key. `None` if there are none.
    pub(super) fn removed_from(&self, format: &str) -> Option<String> {
        let (mut rest, mut kept, mut is_changed) = (format, String::new(), false);
        while let Some(start) = rest.find('%') {
            let (before, operator) = rest.split_at(start);
            kept.push_str(before);
            let end = operator[1..].find('%').map_or(operator.len(), |end| end + 2);
            let (operator, after) = operator.split_at(end);
            let is_shown = self.is_shown_by(operator);
            is_changed |= is_shown;
            kept.push_str(match is_shown {
                false => operator,
                true if self.is_path(operator) && !self.is_in_path => WITHOUT_QUERY,
                true => "-",
            });
            rest = after;
        }
        kept.push_str(rest);
        is_changed.then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_show_keys_are_taken_out() {
        let sources = |sources: &str| {
            let sources = serde_norway::from_str(sources).unwrap();
            Carriers::of(&Authz { sources, ..Authz::default() })
        };
        let headers = sources("[{ header: authorization, scheme: Bearer }, { cookie: key }]");
        let query = sources("[{ query: key }]");
        let path = sources("[{ path: '/v2/{key}' }]");
        let default = "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%";
        for (carriers, format, kept) in [
            (&headers, "%START_TIME% %REQ(AUTHORIZATION)%\n", Some("%START_TIME% -\n")),
            (&headers, "%REQ(x-user?Authorization):12% %REQ(:METHOD)%", Some("- %REQ(:METHOD)%")),
            (&headers, "%REQ(cookie)%%COOKIE(key)%", Some("--")),
            (&headers, default, None),
            (&headers, "%RESP(AUTHORIZATION)% %REQ(X-USER)% %REQUESTED_SERVER_NAME% 100%%", None),
            (&headers, "%REQ(AUTHORIZATION", None),
            (
                &headers,
                "%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"Authorization\"}]})%",
                Some("-"),
            ),
            (&headers, "%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-other\"}]})%", None),
            (&query, default, Some("%PATH(NQ)%")),
            (&query, "%PATH% %PATH(WQ)% %PATH(NQ:ORIG)%", Some("%PATH(NQ)% %PATH(NQ)% %PATH(NQ:ORIG)%")),
            (&query, "%REQ_WITHOUT_QUERY(:PATH)% %REQ(COOKIE)%", None),
            (&path, "%REQ_WITHOUT_QUERY(:PATH)% %PATH(NQ)%", Some("- -")),
        ] {
            assert_eq!(carriers.removed_from(format).as_deref(), kept, "{format}");
        }
    }
}
