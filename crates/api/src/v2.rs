//! API v2: what a bot knows of the mesh. One list of endpoints makes the router, the document, and
//! the lists in the page at `/`.
//!
//! Handlers pick what a request asks for; the JSON shapes stand in `views.rs` and beside the
//! handlers that alone use them.
#![allow(unused_qualifications, reason = "generated code names types in full")]

mod answer;
mod events;
mod incidents;
pub(crate) mod live;
mod matrix;
mod mesh;
mod nodes;
mod paging;
mod pairs;
mod stream;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use http::HeaderMap;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Api;
use crate::tagged::{JSON, tagged};
pub(crate) use answer::{BODY_BYTES_MAX, Problem, refuse};

/// The document of API v2, made from the handlers and the views.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "canary-bot",
        version = "2",
        description = "What a bot knows of the mesh. Every bot answers for all of it. Times are RFC 3339 in UTC; `null` means that there is no \
                       value; lists that have more than `limit` entries come with a `next_page_token`."
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// Every endpoint: the one list.
fn endpoints() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(incidents::verdict))
        .routes(routes!(incidents::incidents))
        .routes(routes!(mesh::mesh))
        .routes(routes!(nodes::nodes))
        .routes(routes!(nodes::node))
        .routes(routes!(pairs::pairs))
        .routes(routes!(pairs::pair))
        .routes(routes!(matrix::matrix))
        .routes(routes!(events::events))
        .routes(routes!(events::mark))
        .routes(routes!(stream::stream))
}

/// The handlers by their paths.
pub(crate) fn router() -> Router<Arc<Api>> {
    let (router, _) = endpoints().split_for_parts();
    router.layer(axum::middleware::from_fn(answer::negotiate))
}

/// The document as it is served, and as it stands in `docs/openapi.json`.
pub fn openapi() -> String {
    let mut text = document().to_pretty_json().expect("the document has a JSON form");
    text.push('\n');
    text
}

/// The document for other forms of it.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    endpoints().split_for_parts().1
}

/// Method, path and first sentence of every endpoint.
pub(crate) fn index() -> Vec<(&'static str, String, String)> {
    let document = document();
    let methods = |item: &utoipa::openapi::path::PathItem| {
        [("GET", item.get.clone()), ("POST", item.post.clone())]
            .into_iter()
            .filter_map(|(method, operation)| Some((method, operation?)))
    };
    let mut lines = Vec::new();
    for (path, item) in &document.paths.paths {
        for (method, operation) in methods(item) {
            lines.push((method, path.clone(), operation.summary.unwrap_or_default()));
        }
    }
    lines
}

pub(crate) async fn serve_document(headers: HeaderMap) -> Response {
    tagged(&headers, JSON, openapi())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// `UPDATE_GOLDEN=1` writes it again.
    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, super::openapi()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap_or_default(), super::openapi());
    }

    /// Two structures of one name would become one shape in the document.
    #[test]
    fn every_shape_has_a_name_of_its_own() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/v2");
        let mut names = std::collections::BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let mut is_shape = false;
            for line in text.lines() {
                is_shape |= line.starts_with("#[derive(")
                    && line.contains("ToSchema")
                    && !line.contains("Deserialize");
                let words: Vec<_> = line
                    .split_whitespace()
                    .skip_while(|word| *word != "struct" && *word != "enum")
                    .collect();
                if let [_, name, ..] = words.as_slice()
                    && std::mem::take(&mut is_shape)
                {
                    assert!(names.insert((*name).to_owned()), "two shapes are called {name}");
                }
            }
        }
        assert!(names.contains("Verdict") && names.len() > 20, "{names:?}");
    }

    #[test]
    fn every_endpoint_has_a_summary() {
        let index = super::index();
        assert!(index.len() > 10);
        for (method, path, summary) in index {
            assert!(
                path.starts_with("/api/v2/") && !summary.is_empty(),
                "{method} {path}: {summary}"
            );
        }
    }
}
