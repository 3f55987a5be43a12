//! The routes and the OpenAPI document, made together so that neither can know a path the other does not. What
//! every operation of a kind may answer beside its success is added here, from the rules the code follows.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use http::Method;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, HeaderBuilder, Object, Ref, RefOr, Required, Response, ResponseBuilder, Type,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::{App, need, open, there};
use super::problem::PROBLEM;
use super::types::Problem;
use super::{dead_letters, pipelines, plugins, probes};
use crate::config::Role;

/// The document's head.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wasmill",
        description = "The HTTP API of a running host: upload plugins, deploy them in pipelines, watch and roll back. Every error is a problem of RFC 9457.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem)),
    tags(
        (name = "plugins", description = "Uploaded versions; they never change"),
        (name = "pipelines", description = "What is deployed, and what it does"),
        (name = "dead letters", description = "Records that were set aside: looked at, dropped, retried"),
        (name = "host", description = "The host that answers")
    )
)]
struct Head;

/// The OpenAPI document, as `/openapi.json` gives it.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    // Roles are checked by layers, which need a host; the document needs none of it.
    let [free, watch, read, operate, deploy] = groups();
    let all = OpenApiRouter::with_openapi(Head::openapi());
    let all = all
        .merge(free)
        .merge(watch)
        .merge(read)
        .merge(operate)
        .merge(deploy);
    completed(all.into_openapi())
}

/// Every route with the role it needs, and the document.
pub(super) fn routes(app: &Arc<App>) -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    let [free, watch, read, operate, deploy] = groups();
    let needs = |group: OpenApiRouter<Arc<App>>, role: Role| {
        group.route_layer(from_fn_with_state((app.clone(), role), need))
    };
    // Inside of the role: who may not ask is not told how the host is.
    let host =
        |group: OpenApiRouter<Arc<App>>| group.route_layer(from_fn_with_state(app.clone(), there));
    let all = OpenApiRouter::with_openapi(Head::openapi())
        .merge(free.route_layer(from_fn(open)))
        .merge(needs(watch, Role::Read))
        .merge(needs(host(read), Role::Read))
        .merge(needs(host(operate), Role::Operate))
        .merge(needs(host(deploy), Role::Deploy));
    let (router, document) = all.split_for_parts();
    (router, completed(document))
}

/// Routes by what they need: nothing; the role read; the host itself and read, operate, deploy.
fn groups() -> [OpenApiRouter<Arc<App>>; 5] {
    let free = OpenApiRouter::new()
        .routes(routes!(probes::live))
        .routes(routes!(probes::ready))
        .routes(routes!(probes::openapi));
    let watch = OpenApiRouter::new().routes(routes!(probes::metrics));
    let read = OpenApiRouter::new()
        .routes(routes!(probes::host))
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::version))
        .routes(routes!(pipelines::all))
        .routes(routes!(pipelines::one))
        .routes(routes!(pipelines::history))
        .routes(routes!(dead_letters::page))
        .routes(routes!(dead_letters::one));
    let operate = OpenApiRouter::new()
        .routes(routes!(probes::audit))
        .routes(routes!(pipelines::plan))
        .routes(routes!(pipelines::rollback))
        .routes(routes!(pipelines::pause))
        .routes(routes!(pipelines::resume))
        .routes(routes!(pipelines::raise))
        .routes(routes!(dead_letters::bundle))
        .routes(routes!(dead_letters::drop_page))
        .routes(routes!(dead_letters::retry_page));
    let deploy = OpenApiRouter::new()
        .routes(routes!(plugins::upload))
        .routes(routes!(pipelines::deploy))
        .routes(routes!(pipelines::promote))
        .routes(routes!(pipelines::remove));
    [free, watch, read, operate, deploy]
}

/// Adds the token scheme and what every operation of a kind may answer.
fn completed(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "a token of [http] in the host's config; a host without tokens asks for none",
        ))
        .build();
    if let Some(components) = document.components.as_mut() {
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete(path, &method, operation);
        }
    }
    document
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let all = [
        (Method::GET, item.get.as_mut()),
        (Method::PUT, item.put.as_mut()),
        (Method::POST, item.post.as_mut()),
        (Method::DELETE, item.delete.as_mut()),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| operation.map(|operation| (method, operation)))
        .collect()
}

fn complete(path: &str, method: &Method, operation: &mut Operation) {
    let probe = matches!(path, "/live" | "/ready");
    let free = probe || path == "/openapi.json";
    let change = *method != Method::GET;
    let plan = path.ends_with("/plan");
    let mut add = |status: u16, what: &str, header: Option<(&str, &str)>| {
        let all = &mut operation.responses.responses;
        all.entry(status.to_string())
            .or_insert_with(|| RefOr::T(problem(what, header)));
    };
    let retry = Some(("retry-after", "seconds to wait"));
    add(403, "the role is not enough, or a web page is asking", None);
    add(500, "a bug in Wasmill", None);
    if !probe {
        add(429, "more requests than a client may make", retry);
    }
    if !free {
        let challenge = Some(("www-authenticate", "how to say who is calling"));
        add(401, "no token, or not one of this host's", challenge);
        add(503, "the host or what it needs is not there now", retry);
    }
    if path.contains('{') {
        add(404, "there is nothing of this name", None);
    }
    let letters = path.contains("/dead-letters");
    if path == "/v1/audit" || letters {
        add(400, "the query is malformed", None);
    }
    if letters {
        add(422, "the pipeline keeps no dead letters, or not here", None);
    }
    if change {
        add(
            400,
            "the request is malformed, or its body ended early",
            None,
        );
        add(408, "the body came too slowly", None);
        add(413, "the body is larger than is taken", None);
        add(415, "the body is of another media type", None);
        add(422, "it was understood and cannot be done", None);
        if !plan && !letters {
            add(
                409,
                "somebody else was first, or the version exists with other bytes",
                None,
            );
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if parameter.parameter_in == ParameterIn::Header {
            parameter.required = Required::False;
        }
    }
    if !free {
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new("token", none)]);
    }
}

fn problem(what: &str, header: Option<(&str, &str)>) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new()
        .description(what)
        .content(PROBLEM, content);
    if let Some((name, about)) = header {
        let text = Object::with_type(Type::String);
        let header = HeaderBuilder::new().schema(text).description(Some(about));
        response = response.header(name, header.build());
    }
    response.build()
}
