//! Router made of operations, so that exactly the described operations can be reached.

use std::mem::take;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use tower::ServiceExt;

use super::audit::audited;
use super::context::Context;
use super::middleware::admin_auth::authorize;
use super::openapi::operation::Operation;
use super::reply::{method_not_allowed, no_such_resource};
use super::telemetry::Route;
use crate::event;

/// Operations and their handlers.
#[derive(Default)]
pub(super) struct Routes {
    operations: Vec<&'static Operation>,
    resources: Vec<Resource>,
}

/// Handlers of one path.
#[derive(Default)]
struct Resource {
    path: String,
    /// Methods of the resource itself.
    own: Option<MethodRouter<Context>>,
    /// True if ids may have colons, as those of actors do.
    has_colons: bool,
    /// Custom methods (AIP-136), `{key_id}:{verb}`, which the router can't distinguish.
    custom: Vec<(&'static str, MethodRouter<Context>)>,
}

impl Routes {
    /// Adds an operation.
    pub(super) fn at<H, T>(mut self, operation: &'static Operation, handler: H) -> Self
    where
        H: Handler<T, Context>,
        T: 'static,
    {
        self.operations.push(operation);
        let (path, custom) = split_custom_method(operation.path);
        let index = self.resources.iter().position(|resource| resource.path == path);
        let index = index.unwrap_or_else(|| {
            let has_colons = operation.path.contains("{actor_id}");
            self.resources.push(Resource { path, has_colons, ..Resource::default() });
            self.resources.len() - 1
        });
        let resource = &mut self.resources[index];
        let methods = match custom {
            None => resource.own.get_or_insert_default(),
            Some(name) => {
                let position = resource.custom.iter().position(|(other, _)| *other == name);
                let position = position.unwrap_or_else(|| {
                    resource.custom.push((name, MethodRouter::new()));
                    resource.custom.len() - 1
                });
                &mut resource.custom[position].1
            }
        };
        let route = Route(operation.path);
        let named = move |State(context): State<Context>, request: Request| async move {
            let mut response = handler.call(request, context).await;
            response.extensions_mut().insert(route);
            response
        };
        let access = operation.access;
        let handler = named.layer(from_fn(move |request, next| authorize(access, request, next)));
        *methods = take(methods).on(operation.verb.filter(), handler);
        self
    }

    /// Adds an operation that is recorded in the audit log.
    pub(super) fn audited<H, T>(
        self,
        event: event::Operation,
        operation: &'static Operation,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Context>,
        T: 'static,
    {
        self.at(operation, move |State(context): State<Context>, request: Request| {
            audited(event, handler, context, request)
        })
    }

    /// Adds the operations of `other`.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.operations.extend(other.operations);
        self.resources.extend(other.resources);
        self
    }

    /// Returns the operations in the order in which they were added.
    pub(super) fn operations(&self) -> &[&'static Operation] {
        &self.operations
    }

    /// Returns the router.
    pub(super) fn into_router(self) -> Router<Context> {
        self.resources.into_iter().fold(
            Router::new(),
            |router, Resource { path, has_colons, own, custom }| {
                let methods = match own {
                    Some(own) if custom.is_empty() => own,
                    own => by_custom_method(own, custom, has_colons),
                };
                router.route(&path, methods)
            },
        )
    }
}

/// Returns the path for the router, and the name of the custom method, if any.
fn split_custom_method(path: &'static str) -> (String, Option<&'static str>) {
    match path.split_once('{') {
        Some((before, rest)) => {
            let custom = rest.split_once("}:").map(|(_, name)| name);
            (format!("{before}{{id}}"), custom)
        }
        None => (path.to_owned(), None),
    }
}

/// Dispatches by what follows the last colon of the path's last segment.
fn by_custom_method(
    own: Option<MethodRouter<Context>>,
    custom: Vec<(&'static str, MethodRouter<Context>)>,
    has_colons: bool,
) -> MethodRouter<Context> {
    let closed = |methods: MethodRouter<Context>| methods.fallback(async || method_not_allowed());
    let own = own.map(closed);
    let custom: Vec<_> = custom.into_iter().map(|(name, methods)| (name, closed(methods))).collect();
    any(move |State(context): State<Context>, id: Result<Path<String>, PathRejection>, request: Request| {
        // Where ids have no colon, what follows one is a custom method, known or not. Where they
        // may, only POST has custom methods, and nothing else is a POST.
        let is_custom = !has_colons || request.method() == Method::POST;
        let chosen = id.ok().and_then(|Path(id)| match id.rsplit_once(':').filter(|_| is_custom) {
            Some((_, name)) => custom.iter().find(|(known, _)| *known == name).map(|(_, methods)| methods),
            None => own.as_ref(),
        });
        let chosen = chosen.cloned();
        answer(chosen, context, request)
    })
}

async fn answer(methods: Option<MethodRouter<Context>>, context: Context, request: Request) -> Response {
    match methods {
        Some(methods) => methods.with_state(context).oneshot(request).await.into_response(),
        None => no_such_resource().into_response(),
    }
}
