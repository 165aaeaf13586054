//! What keeps the house in shape and no lint knows: which crate may use which, and what must not
//! stand in which sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each may use. What is not listed may use none.
const ARROWS: &[(&str, &[&str])] = &[
    ("canary-core", &[]),
    ("canary-guests", &["canary-core"]),
    ("canary-insight", &["canary-core"]),
    ("canary-net", &[]),
    ("canary-node", &["canary-core", "canary-guests", "canary-net"]),
    ("canary-api", &["canary-core", "canary-insight", "canary-net"]),
    ("canary-sim", &["canary-core", "canary-guests", "canary-insight"]),
    ("canary-bot", &["canary-core", "canary-insight", "canary-net", "canary-node", "canary-api"]),
    ("xtask", &[]),
];

/// Crates that decide, and what each may stand on beside ours.
const DECIDES: &[(&str, &[&str])] = &[
    ("canary-core", &["fastrand", "thiserror", "tracing"]),
    ("canary-guests", &["tokio"]),
    ("canary-insight", &["fixedbitset", "humantime"]),
];

/// Texts that must not stand in what decides, except in files whose path contains the exception.
const BANS_FOR_WHAT_DECIDES: &[(&str, &str, &str)] = &[
    ("Instant::now", "", "time is an argument of what decides"),
    ("SystemTime", "", "time is an argument of what decides"),
    ("HashMap", "", "the order of a hash map is not deterministic"),
    ("HashSet", "", "the order of a hash set is not deterministic"),
    ("std::thread", "", "what decides has one owner and no threads"),
    ("std::fs", "", "what decides opens no files"),
    ("TcpStream", "", "what decides opens no sockets"),
    ("Mutex", "guests/src/joins.rs", "what decides has one owner and no locks"),
    ("tokio::spawn", "", "what decides starts no tasks"),
    ("tokio::task", "", "what decides starts no tasks"),
    ("tokio::time", "", "time is an argument of what decides"),
    ("tokio::net", "", "what decides opens no sockets"),
    ("async ", "guests/src/host.rs", "what decides is driven, it does not wait"),
    ("Serialize", "", "JSON shapes live in the API"),
];

/// Texts that must not stand in sources below a folder, except in files whose path contains one of
/// the exceptions.
const BANS: &[(&str, &str, &str, &str)] = &[
    ("crates/sim/src", "Instant::now", "main.rs", "simulated time is an argument"),
    (
        "crates/node/src",
        "pb::",
        "transport,/v1/",
        "generated types stop at the transport, and at the bridge to the original",
    ),
    (
        "crates/node/src",
        "connectrpc",
        "transport,/v1/",
        "the RPC library stays inside the transport and the bridge to the original",
    ),
    ("crates/api/src", "canary_node::", "", "node and api meet in bot"),
    ("crates", "process::exit", "", "only main ends the process"),
    ("crates", "#[ignore", "", "a test that does not run is no test"),
];

/// Longest source file in lines: beyond it there are two ideas in it.
const LINES_MAX: usize = 700;

/// Checks everything and tells what is wrong.
pub(crate) fn run(root: &Path) -> bool {
    let mut problems = arrows(root);
    let sources = files_below(root, &["crates", "xtask"], "rs");
    for path in &sources {
        problems.extend(source(root, path));
    }
    problems.extend(no_circles(root));
    problems.extend(crate::documents::problems(root));
    problems.extend(crate::chart::problems(root));
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    println!("tidy: {} sources, {} problems", sources.len(), problems.len());
    problems.is_empty()
}

fn arrows(root: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output();
    let metadata =
        output.ok().and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok());
    let Some(packages) = metadata.as_ref().and_then(|metadata| metadata["packages"].as_array())
    else {
        return vec!["cargo metadata gave no packages".to_owned()];
    };
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may_use)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            problems
                .push(format!("{name} has no line in xtask/src/tidy.rs that says what it may use"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let ours = ARROWS.iter().any(|(known, _)| *known == used);
            // Tests may use more: nothing stands on them.
            let in_tests = dependency["kind"].as_str() == Some("dev");
            if ours && !in_tests && !may_use.contains(&used) {
                problems.push(format!("{name} must not use {used}"));
            }
            let foreign = DECIDES.iter().find(|(decides, _)| *decides == name);
            if let Some((_, may_use)) = foreign.filter(|_| !ours && !in_tests)
                && !may_use.contains(&used)
            {
                problems.push(format!("{name} must not use {used}: of others {may_use:?} alone"));
            }
        }
    }
    problems
}

fn source(root: &Path, path: &Path) -> Vec<String> {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let Ok(text) = fs::read_to_string(path) else {
        return vec![format!("{shown} cannot be read")];
    };
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems
            .push(format!("{shown} has {lines} lines, more than {LINES_MAX}: split it by idea"));
    }
    let relative = shown.trim_start_matches("./").to_owned();
    let folders = DECIDES.iter().map(|(name, _)| name.replace("canary-", "crates/") + "/src");
    let of_what_decides = folders.flat_map(|folder| {
        let bans = BANS_FOR_WHAT_DECIDES.iter();
        bans.map(move |(banned, exception, reason)| (folder.clone(), *banned, *exception, *reason))
    });
    let elsewhere = BANS.iter().map(|(folder, banned, exception, reason)| {
        ((*folder).to_owned(), *banned, *exception, *reason)
    });
    for (folder, banned, exception, reason) in of_what_decides.chain(elsewhere) {
        if !relative.starts_with(&folder)
            || exception.split(',').any(|part| !part.is_empty() && relative.contains(part))
        {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(banned) {
                problems.push(format!(
                    "{shown}:{}: {banned:?} must not stand here: {reason}",
                    number + 1
                ));
            }
        }
    }
    for (number, line) in text.lines().enumerate() {
        if ["TO", "FIX", "XX"]
            .iter()
            .zip(["DO", "ME", "X"])
            .any(|(head, tail)| line.contains(&format!("{head}{tail}")))
        {
            problems.push(format!(
                "{shown}:{}: what is left open is a defect: do it, or open an issue",
                number + 1
            ));
        }
    }
    problems
}

/// Crates whose files import each other in no circle, so that each can be read before those that
/// stand on it. A parent and its children may name each other, and what a parent shows of a child
/// counts as the parent's.
const WITHOUT_CIRCLES: &[&str] = &["core", "guests", "insight", "net", "node", "api", "bot"];

fn no_circles(root: &Path) -> Vec<String> {
    let circle = |name: &&str| {
        let files = circle_in(root, &format!("crates/{name}/src"))?;
        Some(format!("files of {name} import each other in a circle, among {}", files.join(", ")))
    };
    WITHOUT_CIRCLES.iter().filter_map(circle).collect()
}

/// The files of a crate that are in a circle or between two, each with those of them that it
/// imports.
fn circle_in(root: &Path, source: &str) -> Option<Vec<String>> {
    let module = |path: &Path| {
        let path = path.strip_prefix(root.join(source)).ok()?.with_extension("");
        Some(path.to_str()?.replace('/', "::"))
    };
    let files: BTreeMap<_, _> = files_below(root, &[source], "rs")
        .into_iter()
        .filter_map(|path| Some((module(&path)?, fs::read_to_string(&path).ok()?)))
        .filter(|(module, _)| {
            !matches!(module.as_str(), "lib" | "main") && !module.contains("tests")
        })
        .collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &files {
        let code: String = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let used = named_after(&code, "crate::", "")
            .into_iter()
            .chain(named_after(&code, "super::", parent))
            .filter_map(|path| file_of(&path, &files))
            .filter(|other| {
                let below = |a: &str, b: &str| a.starts_with(&format!("{b}::"));
                other != module && !below(other, module) && !below(module, other)
            });
        imports.insert(module.clone(), used.collect());
    }
    // What imports nothing that is left is in no circle, and neither is what nothing that is left
    // imports.
    loop {
        let before = imports.len();
        let left: BTreeSet<_> = imports.keys().cloned().collect();
        imports.retain(|_, used| {
            used.retain(|other| left.contains(other));
            !used.is_empty()
        });
        let used: BTreeSet<_> = imports.values().flatten().cloned().collect();
        imports.retain(|file, _| used.contains(file));
        if imports.is_empty() {
            return None;
        }
        if imports.len() == before {
            let shown = |(file, used): (String, BTreeSet<String>)| {
                format!("{file} (of {})", used.into_iter().collect::<Vec<_>>().join(" "))
            };
            return Some(imports.into_iter().map(shown).collect());
        }
    }
}

/// The paths that follow on `start` in a source, groups in braces taken apart, each below `parent`.
fn named_after(code: &str, start: &str, parent: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let below = |path: &str| match parent {
        "" => path.to_owned(),
        parent => format!("{parent}::{path}"),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for rest in code.split(start).skip(1) {
        let path: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let Some(group) = rest[path.len()..].strip_prefix('{') else {
            paths.push(below(&path));
            continue;
        };
        // One level is enough: what is nested deeper is in the same file or below it.
        let group: String = group.chars().take_while(|c| *c != ';').collect();
        let items = group.split([',', '{', '}']).map(str::trim).filter(|item| !item.is_empty());
        paths.extend(items.map(|item| {
            let item: String = item.chars().take_while(|c| is_word(*c)).collect();
            below(&format!("{path}{item}"))
        }));
    }
    paths
}

/// The deepest file that a path leads into.
fn file_of(path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path.trim_end_matches("::");
    loop {
        if files.contains_key(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Files with this extension below these folders, in the order of their paths.
pub(crate) fn files_below(root: &Path, folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
