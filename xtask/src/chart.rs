//! The table of the chart's values, made from the comments in `values.yaml`.

use std::path::Path;

/// Where the chart is.
const CHART: &str = "charts/canary-bot";
/// Between these lines of its README the table stands.
const MARKS: (&str, &str) = ("<!-- values: begin -->\n", "<!-- values: end -->\n");

/// Writes the table again.
pub(crate) fn write(root: &Path) -> bool {
    match made(root) {
        Ok((_, now)) => std::fs::write(root.join(CHART).join("README.md"), now).is_ok(),
        Err(why) => {
            eprintln!("{why}");
            false
        }
    }
}

/// What is wrong with the README of the chart.
pub(crate) fn problems(root: &Path) -> Vec<String> {
    match made(root) {
        Ok((before, now)) if before == now => Vec::new(),
        Ok(_) => vec![format!(
            "{CHART}/README.md: its table is not that of values.yaml; run cargo xtask chart"
        )],
        Err(why) => vec![why],
    }
}

/// The README as it is, and as it should be.
fn made(root: &Path) -> Result<(String, String), String> {
    let read = |name: &str| {
        std::fs::read_to_string(root.join(CHART).join(name))
            .map_err(|error| format!("{CHART}/{name}: {error}"))
    };
    let (readme, values) = (read("README.md")?, read("values.yaml")?);
    let table = table(&values)?;
    let (head, rest) = readme
        .split_once(MARKS.0)
        .ok_or_else(|| format!("{CHART}/README.md: {} is missing", MARKS.0.trim()))?;
    let (_, tail) = rest
        .split_once(MARKS.1)
        .ok_or_else(|| format!("{CHART}/README.md: {} is missing", MARKS.1.trim()))?;
    let now = format!("{head}{}{table}{}{tail}", MARKS.0, MARKS.1);
    Ok((readme, now))
}

/// One row for each value with a comment; a value without one has comments on what is below it.
fn table(values: &str) -> Result<String, String> {
    let mut rows = String::from("| value | default | what |\n|---|---|---|\n");
    let (mut path, mut comment): (Vec<(usize, &str)>, Vec<&str>) = (Vec::new(), Vec::new());
    // Below a value with a comment stands its default: it has no rows of its own.
    let mut within = None;
    for line in values.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if within.is_some_and(|outer| depth > outer) || text.is_empty() {
            continue;
        }
        within = None;
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let (key, value) = text
            .split_once(':')
            .ok_or_else(|| format!("{CHART}/values.yaml: {line:?} is no value"))?;
        path.retain(|(outer, _)| *outer < depth);
        path.push((depth, key));
        let value = value.trim();
        let keys: Vec<_> = path.iter().map(|(_, key)| *key).collect();
        if comment.is_empty() {
            if !value.is_empty() {
                return Err(format!("{CHART}/values.yaml: {} has no comment", keys.join(".")));
            }
            continue;
        }
        let default = if value.is_empty() { "see values.yaml" } else { value };
        rows.push_str(&format!("| `{}` | `{default}` | {} |\n", keys.join("."), comment.join(" ")));
        comment.clear();
        within = value.is_empty().then_some(depth);
    }
    Ok(rows)
}
