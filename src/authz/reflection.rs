//! gRPC server reflection, for tools. Not on the path of a Check.

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tonic_reflection::server::{Builder, Error};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::fallback::MAX_FALLBACK_MESSAGE;

type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Both versions of the reflection service. Most tools use v1alpha.
#[derive(Clone)]
pub struct Reflection {
    newer: Service,
    older: Service,
}

impl Reflection {
    /// Creates reflection of ext_authz, as Envoy declares it, and of health.
    ///
    /// # Errors
    /// Fails if the descriptors are inconsistent, which a test rules out.
    pub fn new() -> Result<Self, Error> {
        let builder = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(talos_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let newer =
            BoxCloneSyncService::new(builder().build_v1()?.max_decoding_message_size(MAX_FALLBACK_MESSAGE));
        let older = BoxCloneSyncService::new(
            builder().build_v1alpha()?.max_decoding_message_size(MAX_FALLBACK_MESSAGE),
        );
        Ok(Self { newer, older })
    }

    /// Returns the service of this name.
    pub fn named(&self, service: &str) -> Option<&Service> {
        match service {
            "grpc.reflection.v1.ServerReflection" => Some(&self.newer),
            "grpc.reflection.v1alpha.ServerReflection" => Some(&self.older),
            _ => None,
        }
    }

    /// Answers a request with a service that [`Reflection::named`] returned.
    pub async fn answer(service: Service, request: Request<Body>) -> Response<Body> {
        match service.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptions_go_together() {
        assert!(Reflection::new().is_ok());
    }
}
