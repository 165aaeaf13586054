//! Families of this bot itself: its API port, its files, what it sends, its process.

use std::fmt;
use std::time::UNIX_EPOCH;

use canary_core::BUCKETS_SECONDS;
use canary_net::Guard;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::of_mesh::described;
use super::{Scrape, counters, gauges, histograms};
use crate::process::Process;
use crate::push::counts::Counts;

pub(super) fn bot(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    guarding(&scrape.guard, encoder)?;
    let codes: Vec<String> =
        scrape.requests.iter().map(|((_, _, code), _)| code.to_string()).collect();
    let requests = || {
        scrape.requests.iter().zip(&codes).map(|(((route, method, _), histogram), code)| {
            (
                vec![("route", route.as_str()), ("method", *method), ("code", code.as_str())],
                histogram,
            )
        })
    };
    counters(
        encoder,
        "canary_api_requests",
        "Requests to the API port.",
        requests().map(|(labels, histogram)| (labels, histogram.count())),
    )?;
    histograms(
        encoder,
        "canary_api_request_duration",
        "Time until the answer of the API began.",
        Some(&Unit::Seconds),
        &BUCKETS_SECONDS,
        requests(),
    )?;
    let info = [(vec![("version", scrape.version)], 1.0)];
    gauges(encoder, "canary_build_info", "The program that runs.", None, info)?;
    let described = described(&scrape.snapshot.me);
    let labels = described.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    gauges(
        encoder,
        "canary_node_info",
        "This node as it describes itself.",
        None,
        [(labels, 1.0)],
    )?;
    if !scrape.transport.log_lost.is_empty() {
        let lost = scrape
            .transport
            .log_lost
            .iter()
            .map(|(reason, count)| (vec![("reason", *reason)], *count));
        let help = "Log lines that were not written: nobody read them in time, or they repeated too often.";
        counters(encoder, "canary_log_lines_lost", help, lost)?;
    }
    pushed(scrape, encoder)?;
    process(&scrape.process, encoder)
}

/// What became of the metrics that are sent; no series without a receiver.
fn pushed(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    use std::sync::atomic::Ordering::Relaxed;
    let of = |counts: &Counts| vec![("protocol", counts.protocol.as_str())];
    let results = scrape.pushes.iter().flat_map(|counts| {
        let results =
            [("sent", &counts.sent), ("refused", &counts.refused), ("dropped", &counts.dropped)];
        results.map(|(result, count)| {
            (vec![("protocol", counts.protocol.as_str()), ("result", result)], count.load(Relaxed))
        })
    });
    let help = "Samples for a receiver of metrics: sent; refused by it; dropped, for it did not take them as fast as they came.";
    counters(encoder, "canary_push_samples", help, results)?;
    let failures = scrape.pushes.iter().map(|counts| (of(counts), counts.failures.load(Relaxed)));
    counters(
        encoder,
        "canary_push_failures",
        "Deliveries of metrics that failed; most are tried again.",
        failures,
    )?;
    let waiting =
        scrape.pushes.iter().map(|counts| (of(counts), counts.waiting_bytes.load(Relaxed) as f64));
    gauges(
        encoder,
        "canary_push_waiting",
        "What waits to be sent to a receiver of metrics.",
        Some(&Unit::Bytes),
        waiting,
    )?;
    let last = scrape
        .pushes
        .iter()
        .map(|counts| (counts, counts.last_success.load(Relaxed)))
        .filter(|(_, millis)| *millis > 0);
    let last = last.map(|(counts, millis)| (of(counts), millis as f64 / 1000.0));
    let help =
        "When a receiver last took metrics, since the epoch. No series before the first time.";
    gauges(encoder, "canary_push_last_success_timestamp", help, Some(&Unit::Seconds), last)
}

fn process(process: &Process, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Some(seconds) = process.cpu_seconds {
        let mut family = encoder.encode_descriptor(
            "process_cpu",
            "Processor time that the process used.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        family.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
    }
    let figures = [
        (
            "process_resident_memory",
            "Memory that the process holds.",
            Some(Unit::Bytes),
            process.resident_bytes,
        ),
        (
            "process_virtual_memory",
            "Address space of the process.",
            Some(Unit::Bytes),
            process.virtual_bytes,
        ),
        ("process_open_fds", "Open descriptors of the process.", None, process.open_fds),
        ("process_max_fds", "Descriptors that the process may open.", None, process.max_fds),
        (
            "process_start_time",
            "When the process began, since the epoch.",
            Some(Unit::Seconds),
            process.start_time_seconds,
        ),
        ("process_threads", "Threads of the process.", None, process.threads),
    ];
    for (name, help, unit, figure) in figures {
        gauges(encoder, name, help, unit.as_ref(), figure.map(|figure| (vec![], figure)))?;
    }
    Ok(())
}

/// Certificates, and what became of reading changed files again.
fn guarding(guard: &Guard, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    use std::sync::atomic::Ordering::Relaxed;
    let reloads = [("done", &guard.reloads.done), ("failed", &guard.reloads.failed)];
    let reloads = reloads.map(|(result, count)| (vec![("result", result)], count.load(Relaxed)));
    counters(
        encoder,
        "canary_reloads",
        "Times that changed certificates or tokens were read again.",
        reloads,
    )?;
    let broken = f64::from(u8::from(guard.reloads.broken.load(Relaxed)));
    gauges(
        encoder,
        "canary_reload_broken",
        "1 while the files do not work and the former contents are in force.",
        None,
        [(vec![], broken)],
    )?;
    let set = guard.tls.get();
    let expiry = set.own.iter().filter_map(|own| {
        Some((vec![], own.not_after.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()))
    });
    gauges(
        encoder,
        "canary_tls_certificate_expiry_timestamp",
        "When the certificate of this bot expires.",
        Some(&Unit::Seconds),
        expiry,
    )
}
