//! `/metrics`, `/metrics/mesh`, and their reference.

use super::*;

#[tokio::test]
async fn metrics_of_the_mesh_show_all_pairs_or_the_worst_and_zones_always() {
    let ask = async |api: &Api| {
        String::from_utf8(
            bytes(api.ask(request("/metrics/mesh").body(Body::empty()).unwrap()).await).await,
        )
        .unwrap()
    };
    let whole = ask(&Api::new()).await;
    golden_text("metrics-mesh.txt", whole.clone());
    let with = |pairs_max| Content {
        metrics: crate::Metrics { pairs_max, ..crate::Metrics::default() },
        ..Content::default()
    };
    let of_pairs = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("canary_mesh_pair_"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let zones = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("canary_mesh_zone_"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let worst = ask(&Api::showing(with(1))).await;
    let ups: Vec<_> = of_pairs(&worst)
        .into_iter()
        .filter(|line| line.starts_with("canary_mesh_pair_up"))
        .collect();
    assert_eq!(ups, ["canary_mesh_pair_up{source=\"duck\",target=\"goose\"} 0.0"]);
    assert_eq!(zones(&worst), zones(&whole));
    let pins = vec![("duck".parse().unwrap(), "owl".parse().unwrap())];
    let pinned = ask(&Api::showing(Content { pins, ..with(1) })).await;
    let lines = of_pairs(&pinned);
    assert!(
        !lines.is_empty()
            && lines.iter().all(|line| line.contains("{source=\"duck\",target=\"owl\"}")),
        "{lines:?}"
    );
    let none = ask(&Api::showing(with(0))).await;
    assert!(
        of_pairs(&none).is_empty() && zones(&none) == zones(&whole) && none.ends_with("# EOF\n")
    );
}

#[tokio::test]
async fn metrics_of_the_bot_have_the_reviewed_text() {
    let api = Api::new();
    let accept = "text/plain;version=0.0.4";
    let asked = request("/metrics").header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let text = String::from_utf8(bytes(api.ask(asked).await).await).unwrap();
    // What the system says of this very process is another value each time.
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((series, _)) if series.starts_with("process_") => format!("{series} …\n"),
        _ => format!("{line}\n"),
    };
    golden_text("metrics.txt", text.lines().map(line).collect());
}

/// The reference of metrics, from what is served: each family with its type, labels and help.
#[tokio::test]
async fn the_reference_of_metrics_is_what_is_served() {
    let (protocol, interval) = (PushProtocol::Otlp, Duration::from_secs(15));
    let receiver = "http://collector:4318/v1/metrics".parse().unwrap();
    let push =
        Push { protocol, receiver, interval, credentials: Live::default(), tls: Live::default() };
    let api = Api::showing(Content { pushes: vec![push], ..Content::default() });
    let mut text = String::from(
        "# Metrics\n\nMade from what a bot serves, by a test of `canary-api` with `UPDATE_GOLDEN=1`. What the series mean in practice, and which questions they\n\
         answer: [operate.md](operate.md). Labels are those of a small mesh; labels of nodes are added to `canary_mesh_node_info` and `canary_node_info`.\n",
    );
    for (path, about) in [
        (
            "/metrics",
            "of this bot: its own pairs, the mesh as it sees it, and itself. Scrape every bot.",
        ),
        ("/metrics/mesh", "the last values of all pairs. Scrape one bot."),
    ] {
        let served = String::from_utf8(
            bytes(api.ask(request(path).body(Body::empty()).unwrap()).await).await,
        )
        .unwrap();
        text.push_str(&format!(
            "\n## `{path}`: {about}\n\n| family | type | labels | what |\n|---|---|---|---|\n"
        ));
        for line in served.lines() {
            let Some((family, help)) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let kind = served
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# TYPE {family} ")))
                .unwrap();
            let series = served.lines().filter(|line| {
                line.starts_with(family) && line[family.len()..].starts_with(['{', '_'])
            });
            let labels: std::collections::BTreeSet<_> = series
                .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
                .flat_map(|(labels, _)| {
                    labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0))
                })
                .filter(|label| !["le", "zone", "quantile"].contains(label))
                .collect();
            let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
            text.push_str(&format!(
                "| `{family}{}` | {kind} | {} | {help} |\n",
                if kind == "counter" { "_total" } else { "" },
                labels.join(", ")
            ));
        }
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        text,
        "docs/metrics.md; UPDATE_GOLDEN=1 writes it again"
    );
}
