//! Between the core's types and the generated ones. What arrives becomes a type that cannot be wrong, or is refused whole.

use std::sync::Arc;
use std::time::Duration;

use buffa::Message as _;
use canary_core::limits::{EXCHANGE_BYTES_MAX, LABELS_MAX, PATCHES_MAX, RECORDS_PER_EXCHANGE_MAX, SUSPICIONS_MAX, WANTS_MAX};
use canary_core::{
    Answer, Exchange, Failure, Frame, Heard, Incarnation, Instance, JoinAnswer, Labels, NodeName, Patch, Record, Response, Roster,
    RosterId, RowNews, Secured, Suspicion, Wall, pack_entries, unpack_entries,
};

use super::pb;

/// Why a message of a peer was refused; a fragment that follows "the message is malformed: ".
pub(crate) type Malformed = String;

fn malformed(error: impl std::fmt::Display) -> Malformed {
    error.to_string()
}

/// Reads the answer to a probe from its gRPC body: a five-byte prefix and the message.
pub(crate) fn decode_probe_response(body: &[u8]) -> Result<(NodeName, Incarnation, Instance), Malformed> {
    let (prefix, message) = body.split_at_checked(5).ok_or("the answer has no message")?;
    if prefix[0] != 0 {
        return Err("the answer is compressed".to_owned());
    }
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if len as usize != message.len() {
        return Err("the answer is not one message".to_owned());
    }
    let answer = pb::ProbeResponse::decode_from_slice(message).map_err(malformed)?;
    Ok((answer.name.parse().map_err(malformed)?, Incarnation(answer.incarnation), Instance(answer.instance)))
}

pub(super) fn probe_response(record: &Record) -> pb::ProbeResponse {
    pb::ProbeResponse {
        name: record.name.as_str().to_owned(),
        incarnation: record.incarnation.0,
        instance: record.instance.0,
        ..Default::default()
    }
}

pub(super) fn node(record: &Record) -> pb::Node {
    pb::Node {
        name: record.name.as_str().to_owned(),
        target: record.target.to_string(),
        labels: record.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        incarnation: record.incarnation.0,
        instance: record.instance.0,
        mesh: record.mesh.as_str().to_owned(),
        ..Default::default()
    }
}

pub(super) fn record(node: pb::Node) -> Result<Arc<Record>, Malformed> {
    if node.labels.len() > LABELS_MAX {
        return Err("a node has too many labels".to_owned());
    }
    Ok(Arc::new(Record {
        mesh: node.mesh.parse().map_err(malformed)?,
        name: node.name.parse().map_err(malformed)?,
        target: node.target.parse().map_err(malformed)?,
        labels: Labels::new(node.labels).map_err(malformed)?,
        incarnation: Incarnation(node.incarnation),
        instance: Instance(node.instance),
    }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn gossip(exchange: &Exchange) -> pb::Gossip {
    pb::Gossip {
        from: exchange.from.map_or(0, |instance| instance.0),
        to: exchange.to.map_or(0, |instance| instance.0),
        range: exchange.range.map(|(low, high)| pb::Range { low, high, ..Default::default() }).into(),
        entries: pack_entries(&exchange.entries),
        records: exchange
            .records
            .iter()
            .map(|heard| pb::Heard {
                node: Some(node(&heard.record)).into(),
                heartbeat: heard.heartbeat,
                age_ms: millis(heard.age),
                left: heard.left,
                ..Default::default()
            })
            .collect(),
        rows: exchange.rows.iter().map(row_news).collect(),
        rosters: exchange.rosters.iter().map(|roster| roster.pack()).collect(),
        suspicions: exchange
            .suspicions
            .iter()
            .map(|suspicion| pb::Suspicion {
                instance: suspicion.instance.0,
                age_ms: millis(suspicion.age),
                refused: suspicion.refused,
                ..Default::default()
            })
            .collect(),
        wants_records: exchange.wants_records.iter().map(|instance| instance.0).collect(),
        wants_rows: exchange
            .wants_rows
            .iter()
            .map(|(source, version)| pb::WantedRow { source: source.0, version: *version, ..Default::default() })
            .collect(),
        wants_rosters: exchange.wants_rosters.iter().map(|id| id.0.to_le_bytes().to_vec()).collect(),
        ..Default::default()
    }
}

fn secured(secured: Secured) -> pb::Secured {
    let Secured { version, group, expires } = secured;
    pb::Secured { version: version.into(), group: group.into(), expires_unix: expires, ..Default::default() }
}

/// Numbers that no handshake has are as good as nothing.
fn told_secured(told: pb::Secured) -> Option<Secured> {
    Some(Secured { version: told.version.try_into().ok()?, group: told.group.try_into().ok()?, expires: told.expires_unix })
}

fn row_news(news: &RowNews) -> pb::RowNews {
    pb::RowNews {
        source: news.source.0,
        frame: news
            .frame
            .as_ref()
            .map(|(frame, age)| pb::Frame {
                version: frame.version(),
                roster: frame.roster().0.to_le_bytes().to_vec(),
                unix_ms: frame.wall().unix_millis(),
                age_ms: millis(*age),
                cells: frame.packed().to_vec(),
                secured: frame.secured().map(secured).into(),
                ..Default::default()
            })
            .into(),
        patches: news
            .patches
            .iter()
            .map(|patch| pb::Patch {
                version: patch.version(),
                unix_ms: patch.wall().unix_millis(),
                changes: patch.packed().to_vec(),
                ..Default::default()
            })
            .collect(),
        age_ms: millis(news.age),
        ..Default::default()
    }
}

/// No instance is zero: it stands for "nobody named".
fn instance(raw: u64) -> Option<Instance> {
    (raw != 0).then_some(Instance(raw))
}

fn roster_id(bytes: &[u8]) -> Result<RosterId, Malformed> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| "a roster's id has not 16 bytes")?;
    Ok(RosterId(u128::from_le_bytes(bytes)))
}

pub(super) fn exchange(gossip: pb::Gossip) -> Result<Exchange, Malformed> {
    let counts = [
        (gossip.records.len(), RECORDS_PER_EXCHANGE_MAX, "records"),
        (gossip.rows.len(), WANTS_MAX, "rows"),
        (gossip.rosters.len(), WANTS_MAX, "rosters"),
        (gossip.suspicions.len(), SUSPICIONS_MAX, "suspicions"),
        (gossip.wants_records.len(), WANTS_MAX, "wanted records"),
        (gossip.wants_rows.len(), WANTS_MAX, "wanted rows"),
        (gossip.wants_rosters.len(), WANTS_MAX, "wanted rosters"),
        (gossip.entries.len(), EXCHANGE_BYTES_MAX, "bytes of entries"),
    ];
    if let Some((_, _, what)) = counts.iter().find(|(count, max, _)| count > max) {
        return Err(format!("there are too many {what}"));
    }
    Ok(Exchange {
        from: instance(gossip.from),
        to: instance(gossip.to),
        range: gossip.range.into_option().map(|range| (range.low, range.high)).filter(|(low, high)| low <= high),
        entries: unpack_entries(&gossip.entries).map_err(malformed)?,
        records: gossip.records.into_iter().map(heard).collect::<Result<_, _>>()?,
        rows: gossip.rows.into_iter().map(news).collect::<Result<_, _>>()?,
        rosters: gossip.rosters.iter().map(|bytes| Roster::unpack(bytes).map_err(malformed)).collect::<Result<_, _>>()?,
        suspicions: gossip
            .suspicions
            .into_iter()
            .map(|suspicion| Suspicion {
                instance: Instance(suspicion.instance),
                age: Duration::from_millis(suspicion.age_ms),
                refused: suspicion.refused,
            })
            .collect(),
        wants_records: gossip.wants_records.into_iter().map(Instance).collect(),
        wants_rows: gossip.wants_rows.into_iter().map(|want| (Instance(want.source), want.version)).collect(),
        wants_rosters: gossip.wants_rosters.iter().map(|bytes| roster_id(bytes)).collect::<Result<_, _>>()?,
    })
}

fn heard(heard: pb::Heard) -> Result<Heard, Malformed> {
    Ok(Heard {
        record: record(heard.node.into_option().ok_or("a node is missing")?)?,
        heartbeat: heard.heartbeat,
        age: Duration::from_millis(heard.age_ms),
        left: heard.left,
    })
}

fn news(news: pb::RowNews) -> Result<RowNews, Malformed> {
    if news.patches.len() > PATCHES_MAX {
        return Err("a row has too many patches".to_owned());
    }
    let frame = match news.frame.into_option() {
        Some(frame) => {
            let wall = Wall::from_unix_millis(frame.unix_ms);
            let told = frame.secured.into_option().and_then(told_secured);
            let unpacked = Frame::from_packed(frame.version, roster_id(&frame.roster)?, wall, &frame.cells).map_err(malformed)?;
            Some((Arc::new(unpacked.with_secured(told)), Duration::from_millis(frame.age_ms)))
        }
        None => None,
    };
    let patch = |patch: pb::Patch| {
        let unpacked = Patch::from_packed(patch.version, Wall::from_unix_millis(patch.unix_ms), &patch.changes).map_err(malformed)?;
        Ok::<_, Malformed>(Arc::new(unpacked))
    };
    Ok(RowNews {
        source: Instance(news.source),
        frame,
        patches: news.patches.into_iter().map(patch).collect::<Result<_, _>>()?,
        age: Duration::from_millis(news.age_ms),
    })
}

pub(super) fn join_response(answer: &JoinAnswer) -> pb::JoinResponse {
    use pb::join_response::Result as Code;
    let response = |result: Code| pb::JoinResponse { result: result.into(), ..Default::default() };
    match answer {
        JoinAnswer::Admitted(record) => pb::JoinResponse { node: Some(node(record)).into(), ..response(Code::RESULT_ADMITTED) },
        JoinAnswer::Yourself => response(Code::RESULT_YOURSELF),
        JoinAnswer::NameTaken(record) => pb::JoinResponse { node: Some(node(record)).into(), ..response(Code::RESULT_NAME_TAKEN) },
        JoinAnswer::Outdated(incarnation) => pb::JoinResponse { incarnation: incarnation.0, ..response(Code::RESULT_OUTDATED) },
        JoinAnswer::Unreachable(detail) => pb::JoinResponse { detail: detail.clone(), ..response(Code::RESULT_UNREACHABLE) },
        JoinAnswer::Busy => response(Code::RESULT_BUSY),
        JoinAnswer::OtherMesh(name) => pb::JoinResponse { detail: name.as_str().to_owned(), ..response(Code::RESULT_OTHER_MESH) },
    }
}

/// Longest reason of a peer that is shown to a person, in bytes.
const DETAIL_BYTES_MAX: usize = 256;

/// A peer's words, as far as they may be shown: bounded, and without what would corrupt a terminal or a log.
pub(super) fn detail(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=shown.len().min(DETAIL_BYTES_MAX)).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0);
    shown[..end].to_owned()
}

pub(super) fn join_answer(response: pb::JoinResponse) -> Result<JoinAnswer, Malformed> {
    use pb::join_response::Result as Code;
    let holder = |node: Option<pb::Node>| record(node.ok_or("a node is missing")?);
    Ok(match response.result.as_known() {
        Some(Code::RESULT_ADMITTED) => JoinAnswer::Admitted(holder(response.node.into_option())?),
        Some(Code::RESULT_YOURSELF) => JoinAnswer::Yourself,
        Some(Code::RESULT_NAME_TAKEN) => JoinAnswer::NameTaken(holder(response.node.into_option())?),
        Some(Code::RESULT_OUTDATED) => JoinAnswer::Outdated(Incarnation(response.incarnation)),
        Some(Code::RESULT_UNREACHABLE) => JoinAnswer::Unreachable(detail(&response.detail)),
        Some(Code::RESULT_BUSY) => JoinAnswer::Busy,
        Some(Code::RESULT_OTHER_MESH) => JoinAnswer::OtherMesh(response.detail.parse().map_err(malformed)?),
        Some(Code::RESULT_UNSPECIFIED) | None => return Err("the result is unknown".to_owned()),
    })
}

pub(super) fn exchange_response(response: &Response) -> Option<pb::ExchangeResponse> {
    let result = match response {
        Response::Exchange(exchange) => pb::ExchangeResult::Gossip(Box::new(gossip(exchange))),
        Response::NotAdmitted => pb::ExchangeResult::NotAdmitted(Box::default()),
        Response::NotMe(record) => pb::ExchangeResult::NotMe(Box::new(node(record))),
        Response::Join(_) | Response::Identify(_) | Response::Asked(_) | Response::Busy => return None,
    };
    Some(pb::ExchangeResponse { result: Some(result), ..Default::default() })
}

pub(super) fn exchange_answer(response: pb::ExchangeResponse) -> Result<Response, Malformed> {
    Ok(match response.result.ok_or("the result is missing")? {
        pb::ExchangeResult::Gossip(gossip) => Response::Exchange(Box::new(exchange(*gossip)?)),
        pb::ExchangeResult::NotAdmitted(_) => Response::NotAdmitted,
        pb::ExchangeResult::NotMe(node) => Response::NotMe(record(*node)?),
    })
}

pub(super) fn ask_response(answer: Answer) -> pb::AskResponse {
    use pb::ask_response::Answer as Code;
    let (code, failure) = match answer {
        Answer::Reached => (Code::ANSWER_REACHED, 0),
        Answer::Failed(failure) => (Code::ANSWER_FAILED, failure as u32 + 1),
        Answer::Unknown => (Code::ANSWER_UNKNOWN, 0),
    };
    pb::AskResponse { answer: code.into(), failure, ..Default::default() }
}

pub(super) fn answer(response: &pb::AskResponse) -> Answer {
    use pb::ask_response::Answer as Code;
    match response.answer.as_known() {
        Some(Code::ANSWER_REACHED) => Answer::Reached,
        Some(Code::ANSWER_FAILED) => {
            let failure = response.failure.checked_sub(1).and_then(|index| Failure::ALL.get(index as usize));
            failure.map_or(Answer::Unknown, |failure| Answer::Failed(*failure))
        }
        Some(Code::ANSWER_UNKNOWN | Code::ANSWER_UNSPECIFIED) | None => Answer::Unknown,
    }
}
