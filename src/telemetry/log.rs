//! Log of the process: to stderr, as text or JSON lines.
//!
//! Some logged values come from strangers, such as the subject of a token or the id of a request.
//! They are escaped, so that none of them ends a line, begins a field, controls a terminal or is
//! invisible.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat, LogLevel};
use crate::escape;
use crate::trace::{self, Ids};

/// Starts logging. Does nothing when logging has already started.
pub fn start(log: &Log) {
    // Below info, libraries log headers and statements, which may hold secrets, and the file
    // watcher would log each write of a log file. Errors of sqlx are logged by this crate.
    let (level, others) = match log.level {
        LogLevel::Trace | LogLevel::Debug => (log.level.as_str(), LogLevel::Info.as_str()),
        level => (level.as_str(), level.as_str()),
    };
    let filter = EnvFilter::new(format!("{others},talos={level},sqlx=error"));
    // A line that can't be written is dropped: reporting that on stderr would panic, as stderr is
    // what can't be written to.
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(false)
        .with_env_filter(filter);
    let _ = match log.format {
        LogFormat::Json => builder
            .fmt_fields(JsonFields::new())
            .event_format(EscapedJson(Format::default().json()))
            .try_init(),
        LogFormat::Text => builder.fmt_fields(EscapedFields).try_init(),
    };
}

/// JSON lines in which invisible characters are escaped, beyond those that JSON demands. A line of
/// a request has the ids of its trace.
struct EscapedJson(Format<Json>);

impl<S, N> FormatEvent<S, N> for EscapedJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        if let Some(ids) = trace::current_ids() {
            add_ids(&mut line, &ids);
        }
        out.write_str(&escape::json(&line))
    }
}

/// Adds the ids of a trace to a JSON object that ends a line.
fn add_ids(line: &mut String, ids: &Ids) {
    if let Some(end) = line.rfind('}') {
        let span = ids.span.as_ref().map(|span| format!(r#","span_id":"{span}""#)).unwrap_or_default();
        line.insert_str(end, &format!(r#","trace_id":"{}"{span}"#, ids.trace));
    }
}

/// Text fields: the message, then `name=value` for each.
struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, out: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = TextLine { out, is_first: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct TextLine<'w> {
    out: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl TextLine<'_> {
    fn write(&mut self, field: &Field, escaped: &str) {
        // Fields of the `log` crate repeat the target of the line.
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let separator = if self.is_first { "" } else { " " };
        self.is_first = false;
        self.result = match field.name() {
            "message" => write!(self.out, "{separator}{escaped}"),
            name => write!(self.out, "{separator}{}={escaped}", name.strip_prefix("r#").unwrap_or(name)),
        };
    }
}

impl Visit for TextLine<'_> {
    /// Writes a text in quotes.
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.write(field, &escape::visible(value)),
            _ => self.write(field, &escape::quoted(value)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.write(field, &escape::visible(&text)),
            _ => self.write(field, &escape::value(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A writer into memory.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Lines that both formats write.
    fn lines(log: impl Fn()) -> [String; 2] {
        let (text, json) = (Buffer::default(), Buffer::default());
        let (for_text, for_json) = (text.clone(), json.clone());
        let builder = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
        let as_text = builder.with_writer(move || for_text.clone()).fmt_fields(EscapedFields).finish();
        tracing::subscriber::with_default(as_text, &log);
        let builder = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
        let builder = builder.with_writer(move || for_json.clone()).fmt_fields(JsonFields::new());
        let as_json = builder.event_format(EscapedJson(Format::default().json())).finish();
        tracing::subscriber::with_default(as_json, &log);
        [text, json].map(|buffer| String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn a_hostile_value_stays_one_value_of_one_line() {
        let hostile =
            "x\n2026-01-01T00:00:00Z  INFO forged decision=allow\u{1b}[2J\u{202e}\u{200b}\u{e0041}\u{9b}";
        let error = std::io::Error::other(hostile);
        let [text, json] = lines(|| {
            tracing::info!(caller = hostile, %error, debug = ?hostile, shown = %hostile, n = 7, "it {hostile}");
        });
        for line in [&text, &json] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.ends_with('\n') && !line.trim_end().contains(escape::is_invisible), "{line}");
        }
        let quoted = r#""x\u{a}2026-01-01T00:00:00Z  INFO forged decision=allow\u{1b}[2J\u{202e}\u{200b}\u{e0041}\u{9b}""#;
        for field in ["caller", "error", "shown"] {
            assert!(text.contains(&format!(" {field}={quoted}")), "{field}: {text}");
        }
        assert!(text.contains(" n=7"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        for field in ["caller", "error", "shown"] {
            assert_eq!(json["fields"][field], hostile);
        }
        assert_eq!(json["fields"]["message"], format!("it {hostile}"));
    }

    #[test]
    fn ids_of_a_trace_are_added_to_the_object() {
        let with = |span: Option<&str>| {
            let mut line = "{\"fields\":{\"message\":\"a }\"}}\n".to_owned();
            add_ids(&mut line, &Ids { trace: "4b".to_owned(), span: span.map(str::to_owned) });
            assert_eq!(line.matches('\n').count(), 1);
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        };
        let both = serde_json::json!({ "fields": { "message": "a }" }, "trace_id": "4b", "span_id": "00" });
        assert_eq!(with(Some("00")), both);
        assert_eq!(with(None).get("span_id"), None);
    }

    #[test]
    fn plain_values_are_unchanged() {
        let [text, _] =
            lines(|| tracing::info!(plane = "admin", address = %"[::1]:1", ok = true, "listening"));
        let (_, line) = text.split_once(": ").unwrap();
        assert_eq!(line, "listening plane=\"admin\" address=[::1]:1 ok=true\n");
    }
}
