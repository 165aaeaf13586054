//! How the API says no: each group of routes in the dialect that its clients read.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::v2;

/// gRPC's code for a method that nobody serves.
const UNIMPLEMENTED: u32 = 12;

/// How a group of routes spells a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The original's: gRPC's code and a message as JSON. Paths that nobody serves answer so, too.
    Original,
    /// RFC 9457, for API v2.
    Problem,
    /// A line of text, for scrapers.
    Text,
    /// gRPC, gRPC-Web or Connect, as the caller speaks.
    Call,
}

/// Why a request is refused before a handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no token.
    NoToken,
    /// Its token is not one of this bot's.
    WrongToken,
    /// Its sender gave wrong tokens too often.
    TooMany,
    /// Nothing is served at its path.
    NoSuchPath,
    /// Its path does not know its method.
    NoSuchMethod,
}

impl Refusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// gRPC's code: its number, and its name as Connect spells it.
    const fn code(self) -> (u32, &'static str) {
        match self {
            Self::NoToken | Self::WrongToken => (16, "unauthenticated"),
            Self::TooMany => (8, "resource_exhausted"),
            Self::NoSuchPath => (5, "not_found"),
            Self::NoSuchMethod => (UNIMPLEMENTED, "unimplemented"),
        }
    }

    /// In the original's words, where it has some.
    const fn message(self) -> &'static str {
        match self {
            Self::NoToken => "no token provided",
            Self::WrongToken => "auth failed",
            Self::TooMany => "too many failed authentications; come again later",
            Self::NoSuchPath => "Not Found",
            Self::NoSuchMethod => "Method Not Allowed",
        }
    }

    /// What to do differently.
    const fn advice(self) -> &'static str {
        match self {
            Self::NoToken | Self::WrongToken => {
                "give a token of this bot as `Authorization: Bearer TOKEN`"
            }
            Self::TooMany => self.message(),
            Self::NoSuchPath => "API v2 has no such path; see /docs",
            Self::NoSuchMethod => "this path does not know the method; see the header Allow",
        }
    }

    const fn line(self) -> &'static str {
        match self {
            Self::NoToken | Self::WrongToken => "Unauthorized\n",
            Self::TooMany => "Too many failed authentications\n",
            Self::NoSuchPath => "Not Found\n",
            Self::NoSuchMethod => "Method Not Allowed\n",
        }
    }

    /// The answer to a request with these headers.
    pub(crate) fn answer(self, dialect: Dialect, asked: &HeaderMap) -> Response {
        let ((code, name), message) = (self.code(), self.message());
        // A client of gRPC may call what nobody serves.
        let grpc_code = if self == Self::NoSuchPath { UNIMPLEMENTED } else { code };
        if matches!(dialect, Dialect::Call | Dialect::Original)
            && let Some(headers) = canary_net::refused_call(asked, grpc_code, Some(message))
        {
            return (headers, ()).into_response();
        }
        let mut response = match dialect {
            Dialect::Original => {
                (self.status(), Json(json!({ "code": code, "message": message }))).into_response()
            }
            Dialect::Problem => v2::refuse(self.status(), self.advice()),
            Dialect::Text => (self.status(), self.line()).into_response(),
            Dialect::Call => {
                (self.status(), Json(json!({ "code": name, "message": message }))).into_response()
            }
        };
        let headers = response.headers_mut();
        match self {
            Self::NoToken => headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(
                    "Bearer realm=\"canary-bot\", error_description=\"no token provided\"",
                ),
            ),
            Self::WrongToken => headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(
                    "Bearer realm=\"canary-bot\", error=\"invalid_token\", error_description=\"auth failed\"",
                ),
            ),
            Self::TooMany => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Self::NoSuchPath | Self::NoSuchMethod => None,
        };
        response
    }
}
