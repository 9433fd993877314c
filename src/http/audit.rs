//! Audit layer: records operations in the audit log.
//!
//! An operation runs to its end even if the client disconnects, and is answered once its outcome is
//! on disk.

use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::client_address::client_address;
use super::context::Context;
use super::telemetry::RequestId;
use crate::audit::{Call, Origin, Outcome};
use crate::caller::{Caller, Peer};
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::trace;

/// Header with the request id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs `handler` and records the call.
pub(super) async fn audited<H, T>(
    operation: Operation,
    handler: H,
    context: Context,
    mut request: Request,
) -> Response
where
    H: Handler<T, Context>,
    T: 'static,
{
    let origin = origin(&context, &request);
    let request_id = HeaderValue::from_str(&origin.request_id).ok();
    let call = Arc::new(Call::new(Arc::clone(&context.service.audit), operation, origin));
    request.extensions_mut().insert(Arc::clone(&call));
    // In its own task, so that a client that disconnects cancels neither the operation nor its
    // record.
    let work = tokio::spawn(trace::with_current_span(async move {
        let inner = tokio::spawn(trace::with_current_span(handler.call(request, context)));
        let response = inner.await.unwrap_or_else(|_| panicked().into_response());
        let reason = response.extensions().get::<Reason>().copied();
        let outcome = Outcome { status: response.status().as_u16(), reason };
        match call.record_outcome(outcome).await {
            Ok(()) => response,
            Err(error) => error.into_response(),
        }
    }));
    let mut response = work.await.unwrap_or_else(|_| panicked().into_response());
    if operation != Operation::SelfRevoke
        && let Some(request_id) = request_id
    {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    response
}

fn panicked() -> ApiError {
    ApiError::new(Reason::InternalServerError, "internal error")
}

/// Returns the origin of a request.
pub(super) fn origin(context: &Context, request: &Request) -> Origin {
    let source = context.service.settings.load().client_ip_source;
    Origin {
        caller: request.extensions().get::<Caller>().cloned(),
        client: client_address(source, request),
        peer: request.extensions().get::<Peer>().and_then(|peer| peer.address),
        request_id: request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
    }
}
