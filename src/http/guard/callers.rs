//! Who asks: found out once, before the request is looked at, and what it may do before it is done.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admission::{NotAdmitted, Shown, XFCC};
use crate::caller::{Caller, Peer};
use crate::error::{ApiError, Reason};
use crate::http::openapi::Access;
use crate::http::{Context, is_for_anyone};
use crate::plane::Plane;
use crate::telemetry::refused_requests::RequestRefusal;

/// Puts the [`Caller`] into the request's extensions. Nobody else gets further than to what is for anyone.
pub async fn identify(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    if is_for_anyone(request.uri().path()) {
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
        Err(refused) => *refused,
    }
}

fn caller_of(context: &Context, request: &Request) -> Result<Caller, Box<Response>> {
    let settings = context.service.snapshot();
    let values = |name: &str| request.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let shown = Shown { authorization: values(AUTHORIZATION.as_str()), forwarded: values(XFCC) };
    let nobody = Peer::default();
    let peer = request.extensions().get::<Peer>().unwrap_or(&nobody);
    let admitted = context.admission.admit(peer, &shown, &settings.roles);
    admitted.map_err(|refused| Box::new(refuse(context, peer, &refused)))
}

fn refuse(context: &Context, peer: &Peer, refused: &NotAdmitted) -> Response {
    let address = peer.address.map(tracing::field::display);
    tracing::info!(address, problem = %refused, "a call of the admin plane was refused");
    match refused {
        NotAdmitted::Unidentified(_) => {
            context.metrics.refused_requests.count(Plane::Admin, RequestRefusal::Unidentified);
            let error = ApiError::new(Reason::Unauthorized, "it isn't known who asks");
            let mut response = error.into_response();
            if context.admission.bearer().is_some() {
                let challenge = HeaderValue::from_static("Bearer realm=\"talos-admin\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        NotAdmitted::NoRole(_) => {
            context.metrics.refused_requests.count(Plane::Admin, RequestRefusal::Role);
            ApiError::new(Reason::Forbidden, "whoever asks has no role here").into_response()
        }
    }
}

/// Lets those do an operation who may. Only the admin plane has operations that not everybody may do, and nobody
/// without a caller gets to one.
pub async fn permit(access: Access, request: Request, next: Next) -> Response {
    let Access::From(least) = access else {
        return next.run(request).await;
    };
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role >= least => next.run(request).await,
        caller => {
            let (name, role) = (caller.map(|caller| &caller.name), caller.map(|caller| caller.role.name()));
            tracing::info!(name, role, needs = least.name(), "a call of the admin plane was refused");
            let error = ApiError::new(Reason::Forbidden, format!("that needs the role {least}"));
            let mut response = error.into_response();
            response.extensions_mut().insert(RequestRefusal::Role);
            response
        }
    }
}
