//! What the source of a pair alone knows of it, between the core's type and the generated one.

use std::time::Duration;

use canary_core::{Detail, Failure, KernelTiming, Timing, Wall};

use super::pb;

fn span(duration: Duration) -> pb::Span {
    pb::Span { ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), ..Default::default() }
}

fn time_of(span: Option<pb::Span>) -> Option<Duration> {
    span.map(|span| Duration::from_nanos(span.ns))
}

/// As it travels.
pub(super) fn pack(detail: &Detail) -> pb::DescribeResponse {
    let optional = |duration: Option<Duration>| duration.map(span).into();
    let latest = detail.latest.map(|timing| pb::Timing {
        resolve: Some(span(timing.resolve)).into(),
        connect: Some(span(timing.connect)).into(),
        tls: optional(timing.tls),
        first_request: Some(span(timing.first_request)).into(),
        request: optional(timing.request),
        kernel_rtt: optional(timing.kernel.map(|kernel| kernel.rtt)),
        kernel_retransmissions: timing.kernel.map_or(0, |kernel| kernel.retransmissions),
        kernel_segments: timing.kernel.map_or(0, |kernel| kernel.segments),
        ..Default::default()
    });
    let counted = |kind: &Failure| {
        Some((u32::from(kind.code()), *detail.failures.get(usize::from(kind.code()))?))
    };
    pb::DescribeResponse {
        latest: latest.into(),
        failing: optional(detail.failing_for),
        last_success_unix_ms: detail.last_success.map_or(0, Wall::unix_millis),
        successes: detail.successes,
        failures: Failure::ALL.iter().filter_map(counted).filter(|(_, count)| *count > 0).collect(),
        segments: detail.segments,
        retransmissions: detail.retransmissions,
        ..Default::default()
    }
}

/// As it arrived. Kinds of failure of a later release are left out: nothing but their number is
/// known.
pub(super) fn read(described: pb::DescribeResponse) -> Detail {
    let latest = described.latest.into_option().map(|timing| {
        let kernel = time_of(timing.kernel_rtt.into_option()).map(|rtt| KernelTiming {
            rtt,
            retransmissions: timing.kernel_retransmissions,
            segments: timing.kernel_segments,
        });
        let spent = |span: Option<pb::Span>| time_of(span).unwrap_or_default();
        Timing {
            resolve: spent(timing.resolve.into_option()),
            connect: spent(timing.connect.into_option()),
            tls: time_of(timing.tls.into_option()),
            first_request: spent(timing.first_request.into_option()),
            request: time_of(timing.request.into_option()),
            kernel,
        }
    });
    let mut failures = [0; Failure::ALL.len()];
    for (kind, count) in described.failures {
        if let Some(counted) = usize::try_from(kind).ok().and_then(|kind| failures.get_mut(kind)) {
            *counted = count;
        }
    }
    let last_success = Some(described.last_success_unix_ms)
        .filter(|millis| *millis > 0)
        .map(Wall::from_unix_millis);
    Detail {
        latest,
        failing_for: time_of(described.failing.into_option()),
        last_success,
        successes: described.successes,
        failures,
        segments: described.segments,
        retransmissions: described.retransmissions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_pair_travels_whole_and_what_is_not_stays_unknown() {
        let kernel =
            Some(KernelTiming { rtt: Duration::from_nanos(7), retransmissions: 1, segments: 9 });
        let spent = Duration::from_micros;
        let timing = Timing {
            resolve: spent(0),
            connect: spent(3),
            tls: Some(spent(0)),
            first_request: spent(5),
            request: None,
            kernel,
        };
        let mut full = Detail {
            latest: Some(timing),
            last_success: Some(Wall::from_unix_millis(5)),
            ..Detail::default()
        };
        full.failures[3] = 4;
        (full.successes, full.segments, full.retransmissions) = (u64::MAX, 2, 1);
        let failing = Detail { failing_for: Some(Duration::from_secs(3)), ..Detail::default() };
        for detail in [full, failing, Detail::default()] {
            assert_eq!(read(pack(&detail)), detail);
        }
        let later = pb::DescribeResponse {
            failures: [(11, 1), (u32::MAX, 2)].into_iter().collect(),
            ..Default::default()
        };
        assert_eq!(read(later), Detail::default());
    }
}
