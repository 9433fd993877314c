//! Fallback service of the authz plane: gRPC health and reflection.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response};
use tonic::body::Body;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::ServiceExt;

use super::error::ServeError;
use super::workers::FallbackFactory;
use crate::authz::{MAX_FALLBACK_MESSAGE, Reflection};

/// Makes the fallback service of each worker thread.
///
/// # Errors
/// When the reflection service can't be built.
pub(super) fn factory<H: Health>(health: HealthServer<H>) -> Result<FallbackFactory, ServeError> {
    let health = health.max_decoding_message_size(MAX_FALLBACK_MESSAGE);
    let reflection = Reflection::new().map_err(|error| ServeError::Reflection(error.to_string()))?;
    Ok(Arc::new(move || {
        let (health, reflection) = (health.clone(), reflection.clone());
        Rc::new(move |request| answer(health.clone(), reflection.clone(), request).boxed_local())
    }))
}

async fn answer<H: Health>(
    health: HealthServer<H>,
    reflection: Reflection,
    request: Request<Body>,
) -> Response<Body> {
    let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    match service {
        Some(("grpc.health.v1.Health", _)) => match health.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Some((name, _)) => match reflection.named(name).cloned() {
            Some(service) => Reflection::answer(service, request).await,
            None => unknown_method(),
        },
        None => unknown_method(),
    }
}

fn unknown_method() -> Response<Body> {
    tonic::Status::unimplemented("there is no such method").into_http()
}
