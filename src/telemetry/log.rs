//! The process's own log: to stderr, as text or JSON lines.
//!
//! Some of what is logged strangers wrote: a token's subject, the id of a request. None of it ends
//! a line, begins a field, steers a terminal or hides.

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

/// Starts logging. Does nothing when it has begun before.
pub fn start(log: &Log) {
    // What others have to say below info may hold anything that was sent, headers and statements, and the watch over
    // files would tell of the log itself. sqlx has its own levels: what it has to say comes as errors of ours.
    let (level, others) = match log.level {
        LogLevel::Trace | LogLevel::Debug => (log.level.as_str(), LogLevel::Info.as_str()),
        level => (level.as_str(), level.as_str()),
    };
    let filter = EnvFilter::new(format!("{others},talos={level},sqlx=error"));
    // What can't be written is lost. Told to complain on stderr, it would panic when that is what can't be written to.
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

/// JSON lines in which everything is visible. The library escapes what JSON demands, which isn't
/// all that hides.
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
        out.write_str(&escape::json(&line))
    }
}

/// The message, then `name=value`.
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
        // What the `log` crate says of itself is told as the line's own target.
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let between = if self.is_first { "" } else { " " };
        self.is_first = false;
        self.result = match field.name() {
            "message" => write!(self.out, "{between}{escaped}"),
            name => write!(self.out, "{between}{}={escaped}", name.strip_prefix("r#").unwrap_or(name)),
        };
    }
}

impl Visit for TextLine<'_> {
    /// A text is always in quotes, as the library writes it.
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

    /// What is written, kept.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that both formats write.
    fn lines(tell: impl Fn()) -> [String; 2] {
        let (text, json) = (Kept::default(), Kept::default());
        let (for_text, for_json) = (text.clone(), json.clone());
        let builder = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
        let as_text = builder.with_writer(move || for_text.clone()).fmt_fields(EscapedFields).finish();
        tracing::subscriber::with_default(as_text, &tell);
        let builder = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
        let builder = builder.with_writer(move || for_json.clone()).fmt_fields(JsonFields::new());
        let as_json = builder.event_format(EscapedJson(Format::default().json())).finish();
        tracing::subscriber::with_default(as_json, &tell);
        [text, json].map(|kept| String::from_utf8(kept.0.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn what_a_stranger_wrote_is_one_value_of_one_line() {
        let hostile =
            "x\n2026-01-01T00:00:00Z  INFO forged decision=allow\u{1b}[2J\u{202e}\u{200b}\u{e0041}\u{9b}";
        let error = std::io::Error::other(hostile);
        let [text, json] = lines(|| {
            tracing::info!(caller = hostile, %error, debug = ?hostile, shown = %hostile, n = 7, "it {hostile}");
        });
        for line in [&text, &json] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.ends_with('\n') && !line.trim_end().contains(escape::is_hidden), "{line}");
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
    fn plain_values_look_as_they_did() {
        let [text, _] =
            lines(|| tracing::info!(plane = "admin", address = %"[::1]:1", ok = true, "listening"));
        let (_, told) = text.split_once(": ").unwrap();
        assert_eq!(told, "listening plane=\"admin\" address=[::1]:1 ok=true\n");
    }
}
