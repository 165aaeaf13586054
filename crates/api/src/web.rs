//! The page for browsers, its parts, and the documentation of the API.
//!
//! All of it is embedded in the program and needs no token, because it holds nothing of the mesh.
//! The page asks API v2 for that, with the user's token.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::state::Api;
use crate::tagged::tagged;
use crate::v2;

/// Scripts, styles and data from this bot alone; nothing inline, nothing embedded, no frame around
/// it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The parts of the page by name, with their types.
const PARTS: [(&str, &str, &str); 9] = [
    ("app.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/app.js")),
    ("data.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/data.js")),
    ("grid.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/grid.js")),
    ("chart.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/chart.js")),
    ("words.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/words.js")),
    ("uplot.js", "text/javascript; charset=utf-8", include_str!("../assets/ui/uplot.js")),
    ("app.css", "text/css; charset=utf-8", include_str!("../assets/ui/app.css")),
    ("uplot.css", "text/css; charset=utf-8", include_str!("../assets/ui/uplot.css")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/ui/icon.svg")),
];

/// A path that is no part of API v2, as it is listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) path: &'static str,
    /// What it serves, in a few words.
    pub(crate) about: &'static str,
    /// Whether it needs no token.
    pub(crate) is_open: bool,
}

/// All that is listed, as the router gives it to its handlers.
type List = Extension<Arc<[Listed]>>;

/// What the page and the documentation are made of; their own paths are in the list of endpoints.
pub(crate) fn router(has_page: bool) -> Router<Arc<Api>> {
    let router = Router::new()
        // Where the original has its documentation.
        .route("/v1/", get(|Extension(list): List| async move { documentation("../", &list) }))
        .route("/ui/docs.css", get(docs_style));
    if has_page { router.route("/ui/{part}", get(part)) } else { router }
}

/// The page for browsers, and a short text for other clients.
pub(crate) async fn index(
    State(api): State<Arc<Api>>,
    Extension(list): List,
    headers: HeaderMap,
) -> Response {
    let accepts =
        headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if api.has_page && accepts.contains("text/html") {
        return page(include_str!("../assets/ui/index.html").to_owned());
    }
    words(&list).into_response()
}

/// The endpoints as text.
fn words(list: &[Listed]) -> String {
    let mut text = String::from(
        "canary-bot measures the network between the hosts of a distributed system.\n\nopen:\n",
    );
    let (open, guarded): (Vec<_>, Vec<_>) = list.iter().partition(|listed| listed.is_open);
    open.iter().for_each(|listed| put_line(&mut text, "GET", listed.path, listed.about));
    text.push_str("\nwith a token:\n");
    for (method, path, about) in v2::index() {
        put_line(&mut text, method, &path, &about);
    }
    guarded.iter().for_each(|listed| put_line(&mut text, "GET", listed.path, listed.about));
    text.push_str("  and api.v1.ApiService by gRPC, gRPC-Web and Connect\n\n");
    text.push_str("curl -H \"Authorization: Bearer $TOKEN\" http://HOST:PORT/api/v2/verdict\n");
    text
}

fn put_line(text: &mut String, method: &str, path: &str, about: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {method:<4} {path:<34} {}", about.trim_end_matches('.'));
}

fn page(html: String) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Another release may have another page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, html).into_response()
}

async fn part(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, kind, text)) = PARTS.iter().find(|(part, ..)| *part == name) else {
        return (StatusCode::NOT_FOUND, "there is no such part of the page\n").into_response();
    };
    tagged(&headers, HeaderValue::from_static(kind), *text)
}

async fn docs_style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/ui/docs.css"))
        .into_response()
}

/// The documentation of the API.
pub(crate) async fn docs(Extension(list): List) -> Response {
    documentation("", &list)
}

/// The document as a page without any script.
/// It is served at two depths: `up` leads to the root.
fn documentation(up: &str, list: &[Listed]) -> Response {
    let document = serde_json::to_value(v2::document()).unwrap_or_default();
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>canary-bot: the API</title><link rel=\"stylesheet\" href=\"{up}ui/docs.css\"></head><body><main><h1>canary-bot: the API</h1>",
    );
    let mut put = |text: &str| html.push_str(text);
    put(&format!("<p>{}</p>", text(&document["info"]["description"])));
    put(&format!(
        "<p>Everything but the open paths needs a token: <code>Authorization: Bearer TOKEN</code>. The same as a document for tools: \
         <a href=\"{up}openapi.json\">openapi.json</a>.</p><pre>curl -H \"Authorization: Bearer $TOKEN\" http://HOST:PORT/api/v2/verdict</pre>"
    ));
    put("<h2>API v2</h2>");
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            put(&described(&method.to_uppercase(), path, operation));
        }
    }
    for (title, is_open) in [("Other paths with a token", false), ("Open paths", true)] {
        put(&format!("<h2>{title}</h2><table><tbody>"));
        list.iter().filter(|listed| listed.is_open == is_open).for_each(|listed| {
            put(&format!(
                "<tr><td><code>GET {}</code></td><td>{}</td></tr>",
                listed.path, listed.about
            ));
        });
        put("</tbody></table>");
    }
    put(
        "<p>The same port speaks gRPC, gRPC-Web and Connect for <code>api.v1.ApiService</code>, with server reflection, and \
         <code>grpc.health.v1.Health</code>, which needs no token.</p><h2>Shapes</h2>",
    );
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        put(&shape(name, schema));
    }
    put("</main></body></html>");
    page(html)
}

fn described(method: &str, path: &str, operation: &Value) -> String {
    let mut html = format!("<section><h3><code>{method} {}</code></h3>", escape(path));
    html.push_str(&format!(
        "<p>{}</p><p>{}</p>",
        text(&operation["summary"]),
        text(&operation["description"])
    ));
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let rows: String = parameters
        .map(|parameter| {
            format!(
                "<tr><td><code>{}</code></td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["description"]) + &choices(&parameter["schema"])
            )
        })
        .collect();
    if !rows.is_empty() {
        html.push_str(&format!("<table><thead><tr><th>parameter</th><th>meaning</th></tr></thead><tbody>{rows}</tbody></table>"));
    }
    let body = operation["requestBody"]["content"].as_object().into_iter().flatten();
    let body: Vec<_> = body
        .map(|(kind, content)| {
            format!("{} <code>{}</code>", reference(&content["schema"]), escape(kind))
        })
        .collect();
    if !body.is_empty() {
        html.push_str(&format!("<p>Body: {}</p>", body.join(", ")));
    }
    let answers: String = operation["responses"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(status, response)| answer(status, response))
        .collect();
    html.push_str(&format!("<table><thead><tr><th>status</th><th>answer</th></tr></thead><tbody>{answers}</tbody></table></section>"));
    html
}

/// The values that a parameter may have, if they are few.
fn choices(schema: &Value) -> String {
    let either = std::iter::once(schema).chain(schema["oneOf"].as_array().into_iter().flatten());
    let words =
        either.filter_map(|schema| schema["enum"].as_array()).flatten().filter_map(Value::as_str);
    let words: Vec<_> = words.map(|word| format!("<code>{}</code>", escape(word))).collect();
    if words.is_empty() { String::new() } else { format!(" One of {}.", words.join(", ")) }
}

fn answer(status: &str, response: &Value) -> String {
    let contents = response["content"].as_object().into_iter().flatten();
    let kinds: Vec<_> = contents
        .map(|(kind, content)| {
            format!("{} <code>{}</code>", reference(&content["schema"]), escape(kind))
        })
        .collect();
    format!(
        "<tr><td>{status}</td><td>{} {}</td></tr>",
        text(&response["description"]),
        kinds.join(", ")
    )
}

fn shape(name: &str, schema: &Value) -> String {
    let mut html = format!("<section id=\"{0}\"><h3>{0}</h3>", escape(name));
    html.push_str(&format!("<p>{}</p>", text(&schema["description"])));
    let parts = std::iter::once(schema).chain(
        ["allOf", "oneOf"].iter().flat_map(|key| schema[*key].as_array().into_iter().flatten()),
    );
    let mut rows = String::new();
    for part in parts {
        if !part["$ref"].is_null() {
            rows.push_str(&format!(
                "<tr><td></td><td>all of {}</td><td></td></tr>",
                reference(part)
            ));
        }
        for (field, of) in part["properties"].as_object().into_iter().flatten() {
            rows.push_str(&format!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escape(field),
                reference(of),
                text(&of["description"])
            ));
        }
    }
    html.push_str(&format!(
        "<table><thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead><tbody>{rows}</tbody></table></section>"
    ));
    html
}

/// The type of a field in words, with a link to its shape.
fn reference(schema: &Value) -> String {
    let link = |text: &str| {
        let name = escape(text.rsplit('/').next().unwrap_or_default());
        format!("<a href=\"#{name}\">{name}</a>")
    };
    if let Some(target) = schema["$ref"].as_str() {
        return link(target);
    }
    if let Some(either) = schema["oneOf"].as_array() {
        return either.iter().map(reference).collect::<Vec<_>>().join(" or ");
    }
    if !schema["items"].is_null() {
        return format!("list of {}", reference(&schema["items"]));
    }
    let kind = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(kind).collect::<Vec<_>>().join(" or "),
        other => kind(other),
    }
}

/// A text of the document, escaped.
fn text(value: &Value) -> String {
    let mut html = String::new();
    // What stands between backticks is code, and a line ends where a paragraph does.
    for (place, part) in escape(value.as_str().unwrap_or_default()).split('`').enumerate() {
        let part = part.replace("\n\n", "<br>").replace("\n*", "<br>*").replace('\n', " ");
        html.push_str(&if place % 2 == 1 { format!("<code>{part}</code>") } else { part });
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
