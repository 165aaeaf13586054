//! Between the core's types and the generated ones.
//!
//! What arrives becomes a type that cannot be wrong. Of gossip, each record, row, roster and list
//! is read on its own: what cannot be read is left out and counted, and the rest is taken. So a
//! later release can add to the protocol, and its bots live in one mesh with bots of this one.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use buffa::Message as _;
use canary_core::limits::{
    EXCHANGE_CELLS_MAX, LABELS_MAX, PATCHES_MAX, RECORDS_PER_EXCHANGE_MAX, ROSTER_NAMES_MAX,
    SUSPICIONS_MAX, WANTS_MAX,
};
use canary_core::{
    Answer, Exchange, Failure, Frame, Heard, Incarnation, Instance, InstanceRange, JoinAnswer,
    Labels, Lines, NodeName, Patch, Record, Response, Roster, RosterId, RowNews, Suspicion, Wall,
    pack_entries, unpack_entries,
};

use super::pb;

/// Why a message of a peer was refused; a fragment that follows "the message is malformed: ".
pub(crate) type Malformed = String;

fn malformed(error: impl std::fmt::Display) -> Malformed {
    error.to_string()
}

/// Reads the answer to a probe from its gRPC body: a five-byte prefix and the message.
pub(crate) fn decode_probe_response(
    body: &[u8],
) -> Result<(NodeName, Incarnation, Instance), Malformed> {
    let (prefix, message) = body.split_at_checked(5).ok_or("the answer has no message")?;
    if prefix[0] != 0 {
        return Err("the answer is compressed".to_owned());
    }
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if len as usize != message.len() {
        return Err("the answer is not one message".to_owned());
    }
    let answer = pb::ProbeResponse::decode_from_slice(message).map_err(malformed)?;
    Ok((
        answer.name.parse().map_err(malformed)?,
        Incarnation(answer.incarnation),
        Instance(answer.instance),
    ))
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
        labels: record
            .labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
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
        range: exchange
            .range
            .map(|range| pb::Range {
                low: range.low().0,
                high: range.high().0,
                ..Default::default()
            })
            .into(),
        entries: pack_entries(&exchange.entries),
        lines: exchange.lines.as_ref().map(Lines::pack).unwrap_or_default(),
        records: exchange
            .records
            .iter()
            .map(|heard| pb::Heard {
                node: Some(node(&heard.record)).into(),
                changed: heard.changed,
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
            .map(|(source, version)| pb::WantedRow {
                source: source.0,
                version: *version,
                ..Default::default()
            })
            .collect(),
        wants_rosters: exchange
            .wants_rosters
            .iter()
            .map(|id| id.0.to_le_bytes().to_vec())
            .collect(),
        ..Default::default()
    }
}

fn sections<'a>(sections: impl Iterator<Item = (u32, Cow<'a, [u8]>)>) -> Vec<pb::Section> {
    sections
        .map(|(kind, packed)| pb::Section {
            kind,
            packed: packed.into_owned(),
            ..Default::default()
        })
        .collect()
}

fn told(sections: &[pb::Section]) -> impl Iterator<Item = (u32, &[u8])> {
    sections.iter().map(|section| (section.kind, &*section.packed))
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
                sections: sections(frame.sections()),
                ..Default::default()
            })
            .into(),
        patches: news
            .patches
            .iter()
            .map(|patch| pb::Patch {
                version: patch.version(),
                unix_ms: patch.wall().unix_millis(),
                sections: sections(patch.sections()),
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

/// Takes parts of gossip one by one, and counts those that cannot be read or are too many.
#[derive(Default)]
struct Reading {
    unread: u32,
}

impl Reading {
    fn each<T, U>(
        &mut self,
        parts: Vec<T>,
        max: usize,
        read: impl Fn(T) -> Result<U, Malformed>,
    ) -> Vec<U> {
        self.unread += u32::try_from(parts.len().saturating_sub(max)).unwrap_or(u32::MAX);
        let read = parts
            .into_iter()
            .take(max)
            .map(read)
            .inspect(|part| self.unread += u32::from(part.is_err()));
        read.filter_map(Result::ok).collect()
    }
}

pub(super) fn exchange(gossip: pb::Gossip) -> Exchange {
    let mut reading = Reading::default();
    let mut range = gossip
        .range
        .into_option()
        .and_then(|range| InstanceRange::new(Instance(range.low), Instance(range.high)));
    let entries = unpack_entries(&gossip.entries);
    let lines = (!gossip.lines.is_empty()).then(|| Lines::unpack(&gossip.lines)).transpose();
    if entries.is_err() || lines.is_err() {
        reading.unread += 1;
        // It is a digest still, and complete of nobody.
        range = range.map(|_| InstanceRange::NOBODY);
    }
    let (entries, lines) = (entries.unwrap_or_default(), lines.unwrap_or_default());
    let suspicion = |told: pb::Suspicion| {
        Ok(Suspicion {
            instance: Instance(told.instance),
            age: Duration::from_millis(told.age_ms),
            refused: told.refused,
        })
    };
    let cells_left = Cell::new(EXCHANGE_CELLS_MAX);
    Exchange {
        from: instance(gossip.from),
        to: instance(gossip.to),
        range,
        entries,
        lines,
        records: reading.each(gossip.records, RECORDS_PER_EXCHANGE_MAX, heard),
        rows: reading.each(gossip.rows, WANTS_MAX, |row| news(row, &cells_left)),
        rosters: reading
            .each(gossip.rosters, WANTS_MAX, |bytes| Roster::unpack(&bytes).map_err(malformed)),
        suspicions: reading.each(gossip.suspicions, SUSPICIONS_MAX, suspicion),
        wants_records: reading
            .each(gossip.wants_records, WANTS_MAX, |instance| Ok(Instance(instance))),
        wants_rows: reading
            .each(gossip.wants_rows, WANTS_MAX, |want| Ok((Instance(want.source), want.version))),
        wants_rosters: reading.each(gossip.wants_rosters, WANTS_MAX, |id| roster_id(&id)),
        unread: reading.unread,
    }
}

fn heard(heard: pb::Heard) -> Result<Heard, Malformed> {
    Ok(Heard {
        record: record(heard.node.into_option().ok_or("a node is missing")?)?,
        changed: heard.changed,
        heartbeat: heard.heartbeat,
        age: Duration::from_millis(heard.age_ms),
        left: heard.left,
    })
}

fn news(news: pb::RowNews, cells_left: &Cell<usize>) -> Result<RowNews, Malformed> {
    if news.patches.len() > PATCHES_MAX {
        return Err("a row has too many patches".to_owned());
    }
    // What could not be read was read in part.
    let spend = |cells: Option<usize>| {
        cells_left.set(cells_left.get().saturating_sub(cells.unwrap_or(ROSTER_NAMES_MAX)));
    };
    let has_room = || match cells_left.get() {
        0 => Err("the rows have too many cells".to_owned()),
        _ => Ok(()),
    };
    has_room()?;
    let frame = match news.frame.into_option() {
        Some(frame) => {
            let wall = Wall::from_unix_millis(frame.unix_ms);
            let read = Frame::from_sections(
                frame.version,
                roster_id(&frame.roster)?,
                wall,
                told(&frame.sections),
            );
            spend(read.as_ref().ok().map(Frame::cells_len));
            let read = read.map_err(malformed)?;
            Some((Arc::new(read), Duration::from_millis(frame.age_ms)))
        }
        None => None,
    };
    let patch = |patch: pb::Patch| {
        has_room()?;
        let wall = Wall::from_unix_millis(patch.unix_ms);
        let read = Patch::from_sections(patch.version, wall, told(&patch.sections));
        spend(read.as_ref().ok().map(Patch::cells_len));
        Ok::<_, Malformed>(Arc::new(read.map_err(malformed)?))
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
        JoinAnswer::Admitted(record) => {
            pb::JoinResponse { node: Some(node(record)).into(), ..response(Code::RESULT_ADMITTED) }
        }
        JoinAnswer::Yourself => response(Code::RESULT_YOURSELF),
        JoinAnswer::NameTaken(record) => pb::JoinResponse {
            node: Some(node(record)).into(),
            ..response(Code::RESULT_NAME_TAKEN)
        },
        JoinAnswer::Outdated(incarnation) => {
            pb::JoinResponse { incarnation: incarnation.0, ..response(Code::RESULT_OUTDATED) }
        }
        JoinAnswer::Unreachable(detail) => {
            pb::JoinResponse { detail: detail.clone(), ..response(Code::RESULT_UNREACHABLE) }
        }
        JoinAnswer::Busy | JoinAnswer::Stuck | JoinAnswer::InTurn | JoinAnswer::Unknown(_) => {
            response(Code::RESULT_BUSY)
        }
        JoinAnswer::OtherMesh(name) => pb::JoinResponse {
            detail: name.as_str().to_owned(),
            ..response(Code::RESULT_OTHER_MESH)
        },
    }
}

/// Longest reason of a peer that is shown to a person, in bytes.
const DETAIL_BYTES_MAX: usize = 256;

/// A peer's words, as far as they may be shown: bounded, and without what would corrupt a terminal
/// or a log.
pub(super) fn detail(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=shown.len().min(DETAIL_BYTES_MAX))
        .rev()
        .find(|end| shown.is_char_boundary(*end))
        .unwrap_or(0);
    shown[..end].to_owned()
}

pub(super) fn join_answer(response: pb::JoinResponse) -> Result<JoinAnswer, Malformed> {
    use pb::join_response::Result as Code;
    let holder = |node: Option<pb::Node>| record(node.ok_or("a node is missing")?);
    Ok(match response.result.as_known() {
        Some(Code::RESULT_ADMITTED) => JoinAnswer::Admitted(holder(response.node.into_option())?),
        Some(Code::RESULT_YOURSELF) => JoinAnswer::Yourself,
        Some(Code::RESULT_NAME_TAKEN) => {
            JoinAnswer::NameTaken(holder(response.node.into_option())?)
        }
        Some(Code::RESULT_OUTDATED) => JoinAnswer::Outdated(Incarnation(response.incarnation)),
        Some(Code::RESULT_UNREACHABLE) => JoinAnswer::Unreachable(detail(&response.detail)),
        Some(Code::RESULT_BUSY) => JoinAnswer::Busy,
        Some(Code::RESULT_OTHER_MESH) => {
            JoinAnswer::OtherMesh(response.detail.parse().map_err(malformed)?)
        }
        Some(Code::RESULT_UNSPECIFIED) | None => JoinAnswer::Unknown(response.result.to_i32()),
    })
}

pub(super) fn exchange_response(response: &Response) -> Option<pb::ExchangeResponse> {
    let result = match response {
        Response::Exchange(exchange) => pb::ExchangeResult::Gossip(Box::new(gossip(exchange))),
        Response::NotAdmitted => pb::ExchangeResult::NotAdmitted(Box::default()),
        Response::NotMe(record) => pb::ExchangeResult::NotMe(Box::new(node(record))),
        Response::Join(_)
        | Response::Identify(_)
        | Response::IndirectProbe(_)
        | Response::Busy
        | Response::Unknown => return None,
    };
    Some(pb::ExchangeResponse { result: Some(result), ..Default::default() })
}

pub(super) fn exchange_answer(response: pb::ExchangeResponse) -> Result<Response, Malformed> {
    Ok(match response.result {
        Some(pb::ExchangeResult::Gossip(gossip)) => Response::Exchange(Box::new(exchange(*gossip))),
        Some(pb::ExchangeResult::NotAdmitted(_)) => Response::NotAdmitted,
        Some(pb::ExchangeResult::NotMe(node)) => Response::NotMe(record(*node)?),
        None => Response::Unknown,
    })
}

pub(super) fn indirect_probe_response(answer: Answer) -> pb::IndirectProbeResponse {
    use pb::indirect_probe_response::Answer as Code;
    let (code, failure) = match answer {
        Answer::Reached => (Code::ANSWER_REACHED, 0),
        Answer::Failed(failure) => (Code::ANSWER_FAILED, u32::from(failure.code()) + 1),
        Answer::Unknown => (Code::ANSWER_UNKNOWN, 0),
    };
    pb::IndirectProbeResponse { answer: code.into(), failure, ..Default::default() }
}

pub(super) fn answer(response: &pb::IndirectProbeResponse) -> Answer {
    use pb::indirect_probe_response::Answer as Code;
    match response.answer.as_known() {
        Some(Code::ANSWER_REACHED) => Answer::Reached,
        Some(Code::ANSWER_FAILED) => response
            .failure
            .checked_sub(1)
            .map_or(Answer::Unknown, |code| Answer::Failed(Failure::from_code(code))),
        Some(Code::ANSWER_UNKNOWN | Code::ANSWER_UNSPECIFIED) | None => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn node_called(name: &str) -> pb::Node {
        pb::Node {
            name: name.to_owned(),
            target: format!("{name}:8081"),
            instance: 7,
            ..Default::default()
        }
    }

    fn row_of(source: u64, cells: &[u8]) -> pb::RowNews {
        let section = pb::Section { kind: 5, packed: cells.to_vec(), ..Default::default() };
        let frame = pb::Frame {
            version: 1,
            roster: vec![0; 16],
            sections: vec![section],
            ..Default::default()
        };
        pb::RowNews { source, frame: Some(frame).into(), ..Default::default() }
    }

    /// So many packed cells with this tag, and nothing else to tell of them.
    fn cells_of(tag: u8, cells: u16) -> Vec<u8> {
        [vec![1, tag, cells as u8 | 0x80, (cells >> 7) as u8], vec![0; 14]].concat()
    }

    /// A message as a later release might send it: with a field that this one does not know.
    fn with_unknown_field(message: &impl buffa::Message) -> Vec<u8> {
        // Field 99, four bytes.
        [message.encode_to_vec(), vec![0x9a, 0x06, 4, 1, 2, 3, 4]].concat()
    }

    #[test]
    fn what_cannot_be_read_of_gossip_costs_itself_alone() {
        let long_label = [("zone".to_owned(), "z".repeat(1000))].into_iter().collect();
        let told = |node| pb::Heard { node: Some(node).into(), heartbeat: 3, ..Default::default() };
        let gossip = pb::Gossip {
            from: 1,
            range: Some(pb::Range { low: 0, high: u64::MAX, ..Default::default() }).into(),
            // Cut off inside a number.
            entries: vec![1, 0, 0, 0, 0, 0, 0, 0, 0x80],
            records: vec![
                told(pb::Node { labels: long_label, ..node_called("owl") }),
                told(node_called("duck")),
                told(node_called("")),
            ],
            // A tag that no release may use.
            rows: vec![row_of(7, &cells_of(16, 1)), row_of(8, &cells_of(0, 1))],
            rosters: vec![vec![9], Roster::new(["duck".parse().unwrap()]).pack()],
            wants_rosters: vec![vec![1; 5], vec![1; 16]],
            ..Default::default()
        };
        let request = pb::ExchangeRequest { gossip: Some(gossip).into(), ..Default::default() };
        let read = pb::ExchangeRequest::decode_from_slice(&with_unknown_field(&request)).unwrap();
        let exchange = exchange(read.gossip.into_option().unwrap());
        assert_eq!(
            exchange.records.iter().map(|heard| heard.record.name.as_str()).collect::<Vec<_>>(),
            ["duck"]
        );
        assert_eq!(exchange.rows.iter().map(|news| news.source.0).collect::<Vec<_>>(), [8]);
        assert_eq!((exchange.rosters.len(), exchange.wants_rosters.len()), (1, 1));
        assert_eq!(
            exchange.range,
            Some(InstanceRange::NOBODY),
            "a digest whose entries cannot be read is complete of nobody"
        );
        assert_eq!(exchange.unread, 6);
    }

    #[test]
    fn a_digest_whose_lines_cannot_be_read_is_complete_of_nobody() {
        let of_two = [1, 2, 3, 4, 5, 6, 7, 8, 2 << 1 | 1, 1, 1, 0, 1, 1, 0];
        let read = |lines: &[u8]| {
            let range = Some(pb::Range { low: 0, high: u64::MAX, ..Default::default() });
            let lines = lines.to_vec();
            let gossip = pb::Gossip { range: range.into(), lines, ..Default::default() };
            let exchange = exchange(gossip);
            (exchange.range, exchange.lines.map(|lines| lines.count()), exchange.unread)
        };
        assert_eq!(read(&of_two), (Some(InstanceRange::ALL), Some(2), 0));
        for cut in 1..of_two.len() {
            assert_eq!(read(&of_two[..cut]), (Some(InstanceRange::NOBODY), None, 1), "{cut}");
        }
    }

    #[test]
    fn more_than_is_taken_is_left_out_and_counted() {
        let gossip = pb::Gossip { wants_records: vec![5; WANTS_MAX + 3], ..Default::default() };
        let exchange = exchange(gossip);
        assert_eq!((exchange.wants_records.len(), exchange.unread), (WANTS_MAX, 3));
    }

    #[test]
    fn rows_of_a_few_bytes_that_stand_for_very_many_cells_are_bounded() {
        let row = row_of(7, &cells_of(0, ROSTER_NAMES_MAX as u16));
        let rows_max = EXCHANGE_CELLS_MAX / ROSTER_NAMES_MAX;
        let gossip = pb::Gossip { rows: vec![row; rows_max + 5], ..Default::default() };
        let exchange = exchange(gossip);
        assert_eq!((exchange.rows.len(), exchange.unread), (rows_max, 5));
    }

    #[test]
    fn patches_of_a_few_bytes_that_stand_for_very_many_cells_are_bounded() {
        let patch = |version| pb::Patch {
            version,
            sections: row_of(7, &cells_of(3, ROSTER_NAMES_MAX as u16))
                .frame
                .into_option()
                .map_or_else(Vec::new, |frame| frame.sections),
            ..Default::default()
        };
        let patches = (1..=PATCHES_MAX as u64).map(patch).collect();
        let row = pb::RowNews { source: 7, patches, ..Default::default() };
        let gossip = pb::Gossip { rows: vec![row; 3], ..Default::default() };
        let exchange = exchange(gossip);
        let rows_max = EXCHANGE_CELLS_MAX / ROSTER_NAMES_MAX / PATCHES_MAX;
        assert_eq!((exchange.rows.len(), exchange.unread), (rows_max, 3 - rows_max as u32));
    }

    #[test]
    fn answers_of_a_later_release_are_not_taken_for_none() {
        assert!(matches!(
            exchange_answer(pb::ExchangeResponse::default()).unwrap(),
            Response::Unknown
        ));
        let joined = pb::JoinResponse { result: buffa::EnumValue::from(99), ..Default::default() };
        assert!(matches!(join_answer(joined).unwrap(), JoinAnswer::Unknown(99)));
        let failed = pb::IndirectProbeResponse {
            answer: pb::indirect_probe_response::Answer::ANSWER_FAILED.into(),
            failure: 13,
            ..Default::default()
        };
        assert_eq!(answer(&failed), Answer::Failed(Failure::Other));
    }
}
