//! The forms of metrics: what a scraper asks for, and how one text becomes the other.

use http::{HeaderMap, header};

/// How metrics are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.0: for scrapers that accept it, and for clients that state no preference.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus' protobuf, each family after its length: the only form that carries native
    /// histograms.
    Protobuf,
}

impl Form {
    /// What an `Accept` header (RFC 9110 section 12.5.1) likes best of them.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Text);
        let mut asked = false;
        for accept in
            headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok())
        {
            for range in accept.split(',') {
                asked = true;
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
                let parameter = |name: &str| {
                    parameters
                        .iter()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| *value)
                };
                let weight: f64 = parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
                let form = match kind.as_str() {
                    "application/openmetrics-text"
                        if parameter("version")
                            .is_none_or(|version| version == "1.0.0" || version == "0.0.1") =>
                    {
                        Self::OpenMetrics
                    }
                    "application/vnd.google.protobuf"
                        if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                            && parameter("encoding") == Some("delimited") =>
                    {
                        Self::Protobuf
                    }
                    "text/plain" | "text/*" | "*/*" => Self::Text,
                    _ => continue,
                };
                if weight > best.0 {
                    best = (weight, form);
                }
            }
        }
        if asked { best.1 } else { Self::OpenMetrics }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// Spells whole families, which come as OpenMetrics, in this form of text.
    pub(crate) fn write(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics | Self::Protobuf => openmetrics,
            Self::Text => text_of(&openmetrics),
        }
    }
}

/// Prometheus text names a counter with its `_total` in the comments as well, and has neither units
/// nor an end.
fn text_of(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        let comment = line.strip_prefix("# ").and_then(|comment| comment.split_once(' '));
        match comment {
            Some(("HELP", rest)) => help = rest.split_once(' '),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let total = if kind == "counter" { "_total" } else { "" };
                if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                    text.extend(["# HELP ", name, total, " ", words, "\n"]);
                }
                text.extend(["# TYPE ", name, total, " ", kind, "\n"]);
            }
            Some(("UNIT", _)) => {}
            None if line == "# EOF" => {}
            _ => {
                let (before, bound, after) = split_bound(line);
                text.extend([before, bound.strip_suffix(".0").unwrap_or(bound), after, "\n"]);
            }
        }
    }
    text
}

/// A line around the bound of its bucket, which OpenMetrics spells with a fraction and text
/// without: a query for `le="1"` has to find it.
fn split_bound(line: &str) -> (&str, &str, &str) {
    // Quotes in values of labels are escaped, so that this is no part of one.
    let bound = line.find("le=\"").filter(|_| line.contains("_bucket{")).map(|at| at + 4);
    let end = bound.and_then(|at| Some(at + line.get(at..)?.find('"')?));
    match bound
        .zip(end)
        .and_then(|(at, end)| Some((line.get(..at)?, line.get(at..end)?, line.get(end..)?)))
    {
        Some(parts) => parts,
        None => (line, "", ""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_likes_best() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::wanted(&headers)
        };
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::OpenMetrics);
        // Prometheus 2.42 and 3.8, curl, browsers, and the old.
        for (accept, form) in [
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Form::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
                Form::Protobuf,
            ),
            ("*/*", Form::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Text),
            ("text/plain;version=0.0.4", Form::Text),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.3", Form::Text),
            ("application/openmetrics-text; version=2.0.0, text/plain;q=0.1", Form::Text),
            ("application/json", Form::Text),
        ] {
            assert_eq!(wanted(accept), form, "{accept}");
        }
    }

    #[test]
    fn whole_bounds_are_spelled_as_text_spells_them() {
        let bucket = |bound: &str| {
            text_of(&format!("rtt_bucket{{le=\"{bound}\",to=\"le=\\\"2.0\\\"\"}} 1\n"))
        };
        for (given, spelled) in
            [("1.0", "1"), ("10.0", "10"), ("2.5", "2.5"), ("0.005", "0.005"), ("+Inf", "+Inf")]
        {
            assert_eq!(
                bucket(given),
                format!("rtt_bucket{{le=\"{spelled}\",to=\"le=\\\"2.0\\\"\"}} 1\n")
            );
        }
        assert_eq!(text_of("a{le=\"1.0\"} 1.0\n"), "a{le=\"1.0\"} 1.0\n");
    }

    #[test]
    fn counters_keep_their_name_in_text() {
        let openmetrics = "# HELP a_seconds Words.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"# EOF\"} 1\n# EOF\n";
        assert_eq!(
            text_of(openmetrics),
            "# HELP a_seconds_total Words.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# EOF\"} 1\n"
        );
    }
}
