//! Spans of OpenTelemetry. Attributes and events go to the current span, if there is one. Without
//! a tracer, every function here does nothing.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    get_active_span,
};
use opentelemetry::{Context, KeyValue};

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Sets the tracer; spans are recorded from then on. A second call has no effect.
pub fn set_tracer(tracer: BoxedTracer) {
    let _ = TRACER.set(tracer);
}

/// Returns true once a tracer is set.
pub fn is_enabled() -> bool {
    TRACER.get().is_some()
}

/// Started span, together with its context.
pub struct Span(Context);

/// Starts the span of a request; `parent` is the caller's `traceparent`. Returns `None` without a
/// tracer.
pub fn start_server_span(name: impl Into<Cow<'static, str>>, parent: Option<&[u8]>) -> Option<Span> {
    let tracer = TRACER.get()?;
    let parent = match parent.and_then(read_parent) {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    };
    let span = tracer.span_builder(name).with_kind(SpanKind::Server).start_with_context(tracer, &parent);
    Some(Span(parent.with_span(span)))
}

/// Returns the caller's own trace, `parent` in its `traceparent`, for the log of a process without
/// a tracer. Nothing is recorded.
pub fn span_of_caller(parent: Option<&[u8]>) -> Option<Span> {
    let parent = parent.and_then(read_parent)?;
    Some(Span(Context::new().with_remote_span_context(parent)))
}

/// Ids of a trace and a span, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The trace.
    pub trace: String,
    /// The span of this process; `None` if only the caller has one.
    pub span: Option<String>,
}

/// Returns the ids of the current trace, if there is one.
pub fn current_ids() -> Option<Ids> {
    get_active_span(|span| {
        let context = span.span_context();
        context.is_valid().then(|| Ids {
            trace: context.trace_id().to_string(),
            span: (!context.is_remote()).then(|| context.span_id().to_string()),
        })
    })
}

impl Span {
    /// Runs a future within the span, then ends the span.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let result = work.with_context(self.0.clone()).await;
        self.0.span().end();
        result
    }
}

/// Runs a future in a child of the current span.
pub async fn in_child_span<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    let Some(tracer) = TRACER.get() else {
        return work.await;
    };
    let parent = Context::current();
    if !parent.span().is_recording() {
        return work.await;
    }
    let span = tracer.span_builder(name).start_with_context(tracer, &parent);
    Span(parent.with_span(span)).run(work).await
}

/// Makes the current span that of a future which another task will run.
pub fn with_current_span<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    work.with_current_context()
}

/// Sets an attribute of the current span.
pub fn set_attribute(name: &'static str, value: impl Into<opentelemetry::Value>) {
    if is_enabled() {
        get_active_span(|span| span.set_attribute(KeyValue::new(name, value)));
    }
}

/// Adds an event to the current span.
pub fn add_event<'a>(name: &'static str, attributes: impl Iterator<Item = (&'a str, String)>) {
    if !is_enabled() {
        return;
    }
    get_active_span(|span| {
        if span.is_recording() {
            let attributes = attributes.map(|(name, value)| KeyValue::new(name.to_owned(), value));
            span.add_event(name, attributes.collect());
        }
    });
}

/// Parses a `traceparent` of W3C Trace Context: version 00, or a later one with the same prefix.
fn read_parent(text: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_valid =
        is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2) && version != "ff";
    if !is_valid || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(flags & TraceFlags::SAMPLED.to_u8()),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_parents_are_ignored() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = read_parent(good).unwrap();
        assert_eq!(parent.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(parent.is_sampled() && parent.is_remote());
        for bad in [
            &b""[..],
            b"00",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            b"\xff",
        ] {
            assert!(read_parent(bad).is_none(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_trace_of_a_caller_is_known_without_a_tracer() {
        assert_eq!(current_ids(), None);
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let ids = span_of_caller(Some(parent)).unwrap().run(async { current_ids() }).await.unwrap();
        assert_eq!(ids, Ids { trace: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), span: None });
        assert!(span_of_caller(Some(b"nonsense")).is_none() && span_of_caller(None).is_none());
    }

    #[tokio::test]
    async fn without_a_tracer_nothing_happens() {
        assert!(start_server_span("x", None).is_none());
        assert_eq!(in_child_span("y", with_current_span(async { 7 })).await, 7);
        set_attribute("a", 1);
        add_event("b", std::iter::empty());
    }
}
