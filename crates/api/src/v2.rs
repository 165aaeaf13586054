//! API v2: what is wrong with the mesh. Handlers pick what is asked for; the shapes stand in `views.rs`.
#![allow(unused_qualifications, reason = "generated code names types in full")]

mod views;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use canary_insight::Report;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::routes::Api;
use views::{Incident, Incidents, Problem, Verdict};

/// The document of API v2, made from the handlers and the views.
#[derive(OpenApi)]
#[openapi(
    info(title = "canary-bot", version = "2", description = "What a bot knows of the mesh. Every bot answers for all of it."),
    paths(verdict, incidents),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// The document as it is served, and as it stands in `docs/openapi.json`.
pub fn openapi() -> String {
    let mut text = Document::openapi().to_pretty_json().expect("the document has a JSON form");
    text.push('\n');
    text
}

pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

/// Which incidents.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// Those that last.
    Open,
    /// Those that are over, kept for a day.
    Closed,
    /// Both.
    #[default]
    All,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Which incidents. Default: all.
    #[serde(default)]
    #[param(inline, required = false)]
    state: Wanted,
}

/// The state of the mesh in one sentence, with the counts behind it.
#[utoipa::path(
    get,
    path = "/api/v2/verdict",
    responses(
        (status = 200, body = Verdict),
        (status = 401, description = "No token, or a wrong one."),
        (status = 429, description = "Too many failed authentications.")
    )
)]
pub(crate) async fn verdict(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.source.snapshot();
    Json(Verdict::of(&api.source.report(), &snapshot)).into_response()
}

/// What is wrong and who is to blame: open incidents first, the worst of them first; then those that are over, newest first. At most 64 are open, and
/// 128 closed ones are kept.
#[utoipa::path(
    get,
    path = "/api/v2/incidents",
    params(Filter),
    responses(
        (status = 200, body = Incidents),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter has no meaning."),
        (status = 401, description = "No token, or a wrong one."),
        (status = 429, description = "Too many failed authentications.")
    )
)]
pub(crate) async fn incidents(
    State(api): State<Arc<Api>>,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(Filter { state }) = match filter {
        Ok(filter) => filter,
        Err(rejection) => return refuse(rejection.body_text()),
    };
    let report = api.source.report();
    let Report { open, closed, .. } = &*report;
    let (open, closed) = match state {
        Wanted::Open => (open.as_slice(), &[][..]),
        Wanted::Closed => (&[][..], closed.as_slice()),
        Wanted::All => (open.as_slice(), closed.as_slice()),
    };
    let incidents = open.iter().chain(closed).map(|incident| Incident::of(incident)).collect();
    Json(Incidents { incidents }).into_response()
}

/// A request that cannot be understood (RFC 9457).
fn refuse(detail: String) -> Response {
    let problem = Problem { title: "the request has a parameter without meaning".to_owned(), status: 400, detail };
    let mut response = (StatusCode::BAD_REQUEST, Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[cfg(test)]
mod tests {
    /// `UPDATE_GOLDEN=1` writes it anew.
    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, super::openapi()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap_or_default(), super::openapi());
    }
}
