//! Authentication of callers of the admin plane, and authorization of each operation.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin_auth::{AuthError, PresentedCredentials, XFCC};
use crate::caller::{Caller, Peer};
use crate::error::{ApiError, Reason};
use crate::http::console;
use crate::http::context::Context;
use crate::http::openapi::operation::Access;
use crate::http::openapi::operations::is_public;
use crate::plane::Plane;
use crate::telemetry::refused_requests::RequestRefusal;

/// Authenticates the caller and puts the [`Caller`] into the request's extensions. Refuses others,
/// except on public paths and those of the console's pages.
pub(crate) async fn authenticate(
    State(context): State<Context>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if is_public(path) || console::is_page(path) {
        return next.run(request).await;
    }
    match caller_of(&context, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            if let Some(reason) = response.extensions().get::<RequestRefusal>() {
                context.metrics.refused_requests.count(Plane::Admin, *reason);
            }
            response
        }
        Err(response) => *response,
    }
}

fn caller_of(context: &Context, request: &Request) -> Result<Caller, Box<Response>> {
    let settings = context.service.snapshot();
    let values = |name: &str| request.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let presented =
        PresentedCredentials { authorization: values(AUTHORIZATION.as_str()), forwarded: values(XFCC) };
    let unknown = Peer::default();
    let peer = request.extensions().get::<Peer>().unwrap_or(&unknown);
    let caller = context.admin_auth.authenticate(peer, &presented, &settings.roles);
    caller.map_err(|error| Box::new(refuse(context, peer, &error)))
}

fn refuse(context: &Context, peer: &Peer, error: &AuthError) -> Response {
    let address = peer.address.map(tracing::field::display);
    tracing::info!(address, problem = %error, "refused a call of the admin plane");
    match error {
        AuthError::Unidentified(_) => {
            context.metrics.refused_requests.count(Plane::Admin, RequestRefusal::Unidentified);
            let error = ApiError::new(Reason::Unauthorized, "the caller is not authenticated");
            let mut response = error.into_response();
            if context.admin_auth.token_verifier().is_some() {
                let challenge = HeaderValue::from_static("Bearer realm=\"talos-admin\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        AuthError::NoRole(_) => {
            context.metrics.refused_requests.count(Plane::Admin, RequestRefusal::Role);
            ApiError::new(Reason::Forbidden, "the caller has no role on this plane (serve.http.auth.roles)")
                .into_response()
        }
    }
}

/// Lets a caller with the required role pass.
///
/// Only the admin plane has operations that need a role.
pub(crate) async fn authorize(access: Access, request: Request, next: Next) -> Response {
    let Access::From(least) = access else {
        return next.run(request).await;
    };
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role >= least => next.run(request).await,
        caller => {
            let (name, role) = (caller.map(|caller| &caller.name), caller.map(|caller| caller.role.name()));
            tracing::info!(name, role, needs = least.name(), "refused a call of the admin plane");
            let error = ApiError::new(Reason::Forbidden, format!("this operation needs the role {least}"));
            let mut response = error.into_response();
            response.extensions_mut().insert(RequestRefusal::Role);
            response
        }
    }
}
