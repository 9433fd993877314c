//! Operations that are recorded: each goes on to its end even if its client doesn't wait, and is answered once its
//! outcome is written down.

use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::observe::RequestId;
use super::{Context, admin};
use crate::audit::{Call, Ended, Origin};
use crate::caller::{Caller, Peer};
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::trace;

/// The number that a request has on its way through many systems.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Does a request as `handler` does it, and records it.
pub async fn record<H, T>(
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
    // A task of its own: who stops waiting doesn't stop what was begun, nor that it is written down.
    let work = tokio::spawn(trace::with_current_span(async move {
        let inner = tokio::spawn(trace::with_current_span(handler.call(request, context)));
        let response = inner.await.unwrap_or_else(|_| panicked().into_response());
        let reason = response.extensions().get::<Reason>().copied();
        let ended = Ended { status: response.status().as_u16(), reason };
        match call.close(ended).await {
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
    ApiError::new(Reason::InternalServerError, "something went wrong here")
}

/// Whose request it is.
pub fn origin(context: &Context, request: &Request) -> Origin {
    let source = context.service.settings.load().client_ip_source;
    Origin {
        caller: request.extensions().get::<Caller>().cloned(),
        client: admin::client(source, request),
        peer: request.extensions().get::<Peer>().and_then(|peer| peer.address),
        request_id: request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
    }
}
