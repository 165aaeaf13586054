//! Who may read.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use canary_net::token::Verdict;
use http::header;

use crate::refusals::{Dialect, Refusal};
use crate::state::Api;

/// Lets requests with a valid token pass; answers the others in the dialect of their group.
pub(crate) async fn require_token(
    State((api, dialect)): State<(Arc<Api>, Dialect)>,
    request: Request,
    next: Next,
) -> Response {
    let refusal = match api.guard.tokens.get().judge(request.headers().get(header::AUTHORIZATION)) {
        Verdict::Valid => return next.run(request).await,
        Verdict::Missing => Refusal::NoToken,
        Verdict::Invalid => Refusal::WrongToken,
    };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let is_heard = address.is_none_or(|address| api.guard.failures.note(address));
    let refusal = if is_heard { refusal } else { Refusal::TooMany };
    refusal.answer(dialect, request.headers())
}
