//! Spans of OpenTelemetry: what there is to say of a request goes into the one that is under way, if there is one.
//! Where nobody asked for traces, none of this does anything.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    get_active_span,
};
use opentelemetry::{Context, KeyValue};

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Traces from now on.
pub fn start(tracer: BoxedTracer) {
    // Once is enough: who comes second traces with the first.
    let _ = TRACER.set(tracer);
}

/// Whether anybody wants traces.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A span that has begun.
pub struct Span(Context);

/// Begins the span of a request; `parent` is the caller's `traceparent`. None when nobody wants traces.
pub fn server(name: impl Into<Cow<'static, str>>, parent: Option<&[u8]>) -> Option<Span> {
    let tracer = TRACER.get()?;
    let parent = match parent.and_then(read_parent) {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    };
    let span = tracer.span_builder(name).with_kind(SpanKind::Server).start_with_context(tracer, &parent);
    Some(Span(parent.with_span(span)))
}

impl Span {
    /// Does something within the span, and ends it.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let result = work.with_context(self.0.clone()).await;
        self.0.span().end();
        result
    }
}

/// Does a part of what is under way in a span of its own.
pub async fn part<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    let Some(tracer) = TRACER.get() else {
        return work.await;
    };
    let around = Context::current();
    if !around.span().is_recording() {
        return work.await;
    }
    let span = tracer.span_builder(name).start_with_context(tracer, &around);
    Span(around.with_span(span)).run(work).await
}

/// Takes the span that is under way along into another task.
pub fn carry<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    work.with_current_context()
}

/// Says something of what is under way.
pub fn note(name: &'static str, value: impl Into<opentelemetry::Value>) {
    if is_on() {
        get_active_span(|span| span.set_attribute(KeyValue::new(name, value)));
    }
}

/// Tells of an event in what is under way.
pub fn event<'a>(name: &'static str, attributes: impl Iterator<Item = (&'a str, String)>) {
    if !is_on() {
        return;
    }
    get_active_span(|span| {
        if span.is_recording() {
            let attributes = attributes.map(|(name, value)| KeyValue::new(name.to_owned(), value));
            span.add_event(name, attributes.collect());
        }
    });
}

/// Reads a `traceparent` (W3C Trace Context, version 00 and what begins like it).
fn read_parent(text: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let good = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && version != "ff";
    if !good || (version == "00" && parts.next().is_some()) {
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
    fn parents_are_read_or_left_out() {
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
    async fn without_traces_nothing_happens() {
        assert!(server("x", None).is_none());
        assert_eq!(part("y", carry(async { 7 })).await, 7);
        note("a", 1);
        event("b", std::iter::empty());
    }
}
