//! Samples as they travel to and from guests.

use std::time::Duration;

use buffa::Message as _;
use canary_core::Wall;
use canary_guests::{PAGE_SAMPLES_MAX, Sample};

use crate::transport::original as pb;

/// Bytes of a page that is pushed to a guest, below its limit by far.
const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Reads a sample of a guest; nothing if it is of no use any more.
pub(super) fn read(
    sample: &pb::SampleView<'_>,
    timeout: Duration,
    now: Wall,
) -> Result<Option<Sample>, &'static str> {
    let measured = (sample.key, sample.value, sample.ts);
    Sample::read((sample.from, sample.to), measured, timeout, now)
}

/// A sample as a guest reads it.
pub(super) fn spell(sample: &Sample) -> pb::Sample {
    pb::Sample {
        from: sample.from().as_str().to_owned(),
        to: sample.to().as_str().to_owned(),
        key: sample.key(),
        value: sample.value(),
        ts: i64::try_from(sample.unix()).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

/// Pages that a guest can take in time.
pub(super) fn pages(samples: &[Sample]) -> Vec<pb::Samples> {
    let mut pages = vec![pb::Samples::default()];
    let mut bytes = 0;
    for sample in samples.iter().map(spell) {
        let len = sample.encoded_len() as usize + 4;
        let full = pages.last().is_some_and(|page| page.samples.len() >= PAGE_SAMPLES_MAX)
            || bytes + len > PAGE_BYTES_MAX;
        if full {
            pages.push(pb::Samples::default());
            bytes = 0;
        }
        bytes += len;
        if let Some(page) = pages.last_mut() {
            page.samples.push(sample);
        }
    }
    pages.retain(|page| !page.samples.is_empty());
    pages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages_are_what_a_guest_takes_in_time() {
        let (from, to) = ("x".repeat(253).parse().unwrap(), "y".repeat(253).parse().unwrap());
        let latency = Some((Duration::from_secs(3), Duration::from_secs(1)));
        let wall = Wall::from_unix_millis(1_700_000_000_000);
        let [total, request] = Sample::measured((&from, &to), latency, wall);
        let samples: Vec<_> = std::iter::repeat_n([total, request], 12_500).flatten().collect();
        let pages = pages(&samples);
        assert_eq!(pages.iter().map(|page| page.samples.len()).sum::<usize>(), 25_000);
        assert!(pages.iter().all(|page| page.samples.len() <= PAGE_SAMPLES_MAX
            && page.encoded_len() as usize <= PAGE_BYTES_MAX));
    }
}
