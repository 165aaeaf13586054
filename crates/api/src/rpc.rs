//! The original's `api.v1.ApiService` for clients of gRPC, gRPC-Web and Connect; reflection and
//! health beside it.

use std::sync::Arc;

use canary_core::Snapshot;
use connectrpc::{
    CompressionRegistry, ConnectError, ConnectRpcService, ErrorCode, Limits, RequestContext,
    Response, Router, ServiceRequest, ServiceResult,
};
use connectrpc_health::{Checker, HealthService, Status};
use connectrpc_reflection::Reflector;
use tokio::sync::Semaphore;

use crate::state::{Api, WEDGED_AFTER};
use crate::v1;

/// Generated from `proto/`.
#[allow(
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    elided_lifetimes_in_paths,
    clippy::pedantic,
    reason = "generated code: which of these it trips changes with its generator"
)]
mod pb {
    connectrpc::include_generated!();
    pub use api::v1::*;
}

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.fds.bin"));
/// The service's name on the wire.
pub(crate) const API_SERVICE: &str = "api.v1.ApiService";

/// Largest request in bytes: all of them are empty, and a stranger's fields are skipped.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Samples in one answer: about 64 MB, the samples of 600 hosts. One message is made whole in
/// memory; REST streams any number.
const SAMPLES_MAX: usize = 750_000;
/// Answers with samples that are made at once.
const ANSWERS_MAX: usize = 2;

struct ApiService {
    api: Arc<Api>,
    answers: Semaphore,
}

#[expect(refining_impl_trait, reason = "the handlers name what they return")]
impl pb::ApiService for ApiService {
    async fn list_samples(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, pb::ListSampleRequest>,
    ) -> ServiceResult<pb::ListSampleResponse> {
        let gone = |_| ConnectError::new(ErrorCode::Unavailable, "the bot is leaving");
        let _turn = self.answers.acquire().await.map_err(gone)?;
        let samples = samples(&self.api.source.snapshot())?;
        Response::ok(pb::ListSampleResponse { samples, ..Default::default() })
    }

    async fn list_nodes(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, pb::ListNodesRequest>,
    ) -> ServiceResult<pb::ListNodesResponse> {
        let snapshot = self.api.source.snapshot();
        let nodes = v1::present_names(&snapshot).map(str::to_owned).collect();
        Response::ok(pb::ListNodesResponse { nodes, ..Default::default() })
    }
}

fn samples(snapshot: &Snapshot) -> Result<Vec<pb::Sample>, ConnectError> {
    let mut all = Vec::new();
    for row in 0..=snapshot.members.len() {
        for sample in v1::samples_of(snapshot, row, 0..usize::MAX).0 {
            if all.len() >= SAMPLES_MAX {
                let words = format!(
                    "there are more than {SAMPLES_MAX} samples, too many for one message; ask GET /api/v1/samples, which streams"
                );
                return Err(ConnectError::new(ErrorCode::ResourceExhausted, words));
            }
            all.push(pb::Sample {
                from: sample.from.to_owned(),
                to: sample.to.to_owned(),
                r#type: sample.r#type.to_owned(),
                value: sample.value,
                ts: sample.ts,
                ..Default::default()
            });
        }
    }
    Ok(all)
}

/// The bot serves while its loop runs, as `/livez` tells.
struct Health(Arc<Api>);

impl Checker for Health {
    async fn check(&self, service: &str) -> Result<Status, ConnectError> {
        if !service.is_empty() && service != API_SERVICE {
            return Err(ConnectError::new(ErrorCode::NotFound, "there is no such service"));
        }
        Ok(if self.0.source.snapshot_age() < WEDGED_AFTER {
            Status::Serving
        } else {
            Status::NotServing
        })
    }
}

/// What needs a token, and the health service, which does not: those who ask it cannot present one.
pub(crate) fn services(api: &Arc<Api>) -> (ConnectRpcService<Router>, ConnectRpcService<Router>) {
    let limits = || {
        Limits::default()
            .with_max_request_body_size(REQUEST_BYTES_MAX)
            .with_max_message_size(REQUEST_BYTES_MAX)
    };
    let service =
        Arc::new(ApiService { api: Arc::clone(api), answers: Semaphore::new(ANSWERS_MAX) });
    // The descriptors are this build's own.
    let reflector = Reflector::from_descriptor_set_bytes(DESCRIPTORS)
        .expect("the generator wrote the descriptors");
    let guarded = connectrpc_reflection::install(Router::new().add_service(service), reflector);
    let health = Router::new().add_service(Arc::new(HealthService::new(Health(Arc::clone(api)))));
    let health =
        connectrpc_health::apply_request_limits(health, connectrpc_health::request_limits());
    // Requests are empty: what is compressed only costs.
    let service = |router| {
        ConnectRpcService::new(router)
            .with_limits(limits())
            .with_compression(CompressionRegistry::new())
    };
    (service(guarded), service(health))
}
