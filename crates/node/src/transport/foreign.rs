//! Foreign bytes all the way from a socket's message to a living core.

use std::sync::Arc;
use std::time::Duration;

use buffa::{Message as _, MessageView as _};
use canary_core::{
    CallId, Config, Core, Incarnation, Instance, Labels, MeshName, Now, Output, Record, Request,
    RequestId, Response, Time, Wall,
};

use super::{pb, wire};
use crate::v1;

const MEMBER: Instance = Instance(2);
const OTHER: Instance = Instance(3);

fn at(millis: u64) -> Now {
    Now {
        time: Time::ZERO + Duration::from_secs(1 << 20) + Duration::from_millis(millis),
        wall: Wall::from_unix_millis(1 << 40),
    }
}

/// A core with two members, and an exchange with the first under way.
fn living() -> Option<(Core, CallId)> {
    let record = |name: &str, instance| {
        let target = format!("{name}:1").parse().ok()?;
        Some(Record {
            mesh: MeshName::default(),
            name: name.parse().ok()?,
            target,
            labels: Labels::default(),
            incarnation: Incarnation(7),
            instance,
        })
    };
    let me = record("owl", Instance(1))?;
    let peer = Arc::new(record("duck", MEMBER)?);
    let other = Arc::new(record("swan", OTHER)?);
    let mut core = Core::new(Config::default(), me.name, me.target, me.labels, 1, at(0));
    core.handle_request(RequestId(1), Request::Join(Arc::clone(&peer)), at(0));
    core.handle_request(RequestId(2), Request::Join(Arc::clone(&other)), at(0));
    let mut exchanging = None;
    for step in 1..100 {
        while let Some(output) = core.poll_output() {
            match output {
                Output::Call { id, target, request: Request::Identify, .. } => {
                    let record = if target == peer.target { &peer } else { &other };
                    core.handle_response(id, Ok(Response::Identify(Arc::clone(record))), at(step));
                }
                Output::Call { id, target, request: Request::Exchange(_), .. }
                    if target == peer.target =>
                {
                    exchanging = Some(id);
                }
                _ => {}
            }
        }
        if let Some(call) = exchanging {
            return Some((core, call));
        }
        core.handle_timeout(at(step * 50));
    }
    None
}

pub(crate) fn mesh_message(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let Some((mut core, call)) = living() else {
        unreachable!("a joiner that answers is admitted, and exchanged with");
    };
    let now = at(6000);
    match kind % 8 {
        0 => {
            let Some(gossip) = pb::ExchangeRequest::decode_from_slice(body)
                .ok()
                .and_then(|request| request.gossip.into_option())
            else {
                return;
            };
            let mut exchange = wire::exchange(gossip);
            // Of a stranger nothing is taken; that the speaker is a member is what the fuzzer need
            // not find out.
            (exchange.from, exchange.to) = (Some(MEMBER), None);
            core.handle_request(RequestId(9), Request::Exchange(Box::new(exchange)), now);
        }
        1 => {
            let Some(response) = pb::ExchangeResponse::decode_from_slice(body)
                .ok()
                .and_then(|answer| wire::exchange_answer(answer).ok())
            else {
                return;
            };
            core.handle_response(call, Ok(response), now);
        }
        2 => {
            let Some(node) = pb::JoinRequest::decode_from_slice(body)
                .ok()
                .and_then(|request| request.node.into_option())
            else {
                return;
            };
            let Ok(record) = wire::record(node) else { return };
            core.handle_request(RequestId(9), Request::Join(record), now);
        }
        3 => {
            let _ = pb::JoinResponse::decode_from_slice(body).ok().map(wire::join_answer);
        }
        4 => {
            let _ = pb::IndirectProbeResponse::decode_from_slice(body)
                .ok()
                .map(|response| wire::answer(&response));
        }
        5 => {
            let _ = wire::decode_probe_response(body);
            return;
        }
        6 => {
            let Some(guest) = core.record_of(MEMBER).map(Arc::clone) else { return };
            let Ok(samples) = pb::mesh::v1::SamplesView::decode_view(body) else { return };
            for request in v1::foreign::pushed(&samples, &guest, core.record(), now.wall) {
                core.handle_request(RequestId(9), request, now);
            }
        }
        _ => {
            let Ok(answer) = pb::mesh::v1::JoinMeshResponse::decode_from_slice(body) else {
                return;
            };
            for request in v1::foreign::joined(answer, &core) {
                core.handle_request(RequestId(9), request, now);
            }
        }
    }
    live_on(&mut core, now);
}

/// Ten seconds in which nobody answers; a bot of ours would accept all that is said in that time.
fn live_on(core: &mut Core, now: Now) {
    let mut now = now;
    for _ in 0..200 {
        while let Some(output) = core.poll_output() {
            let said = match output {
                Output::Call { request: Request::Exchange(exchange), .. } => exchange,
                Output::Reply { response: Response::Exchange(exchange), .. } => exchange,
                _ => continue,
            };
            assert!(
                wire::gossip(&said).encoded_len() as usize <= super::MESSAGE_BYTES_MAX,
                "a message of ours is too long"
            );
            assert_eq!(
                wire::exchange(wire::gossip(&said)).unread,
                0,
                "a message of ours cannot be read"
            );
        }
        now.time = now.time + Duration::from_millis(50);
        if core.poll_timeout().is_some_and(|due| due <= now.time) {
            core.handle_timeout(now);
        }
    }
    let snapshot = core.snapshot(now);
    for member in &snapshot.members {
        let found = core.record_of(member.record.instance).map(|record| &record.name);
        assert_eq!(found, Some(&member.record.name), "a member is not found by its instance");
    }
    let rows = snapshot.members.iter().filter_map(|member| member.row.as_ref());
    let cells: usize = rows.map(|row| row.cells().len()).sum();
    assert!(cells <= 2 * canary_core::limits::FRAME_BYTES_MAX, "rows have more cells than bytes");
}
