//! What holds of documents and texts: their form, their words, and that what they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::files_below;

/// Words that readers stumble over, with what to write instead. They must not stand in documents,
/// nor in comments and texts of sources; `docs/` and comments are for people whose second language
/// is English.
const RIDDLES: &[(&str, &str)] = &[
    ("whoever", "a client that, a peer that"),
    ("for ever", "without end"),
    ("of late", "recently"),
    ("held for dead", "considered dead"),
    ("heard of", "known, learned, reported"),
    ("nobody's", "no …"),
    ("meanwhile", "in the meantime, until then"),
    ("is told", "gets, learns, is reported"),
    ("are told", "get, learn, are reported"),
    ("was told", "got, learned, was reported"),
    ("lets in", "admits"),
    ("let in", "admitted"),
    ("lets this bot in", "admits this bot"),
    ("let this bot in", "admit this bot"),
    ("lets nobody in", "admits nobody"),
    ("to be told", "to be reported"),
    ("held for gone", "considered gone"),
    ("anew", "again, from the start"),
    ("mended", "fixed, repaired"),
];

/// Where the paths begin that documents name.
const FOLDERS: &[&str] =
    &["crates/", "docs/", "proto/", "fuzz/", "xtask/", ".ci/", "examples/", "charts/", "deploy/"];

/// Flags of programs that are not ours: cargo with its tests and benchmarks, kubectl and helm,
/// systemctl, Prometheus.
const FOREIGN_FLAGS: &str = "--bench --bins --example --lib --locked --nocapture --release --show \
                             --test --workspace --from-literal --set --wait --now --web";

pub(crate) fn problems(root: &Path) -> Vec<String> {
    let mut problems = decisions_are_linked(root);
    problems.extend(decisions_have_their_form(root));
    problems.extend(documents_name_what_exists(root));
    problems.extend(documents_lead_somewhere(root));
    problems.extend(flags_and_metrics_exist(root));
    problems.extend(paths_are_listed(root));
    problems.extend(prose_is_wrapped(root));
    problems.extend(texts_are_plain(root));
    problems
}

/// A decision has its number and its title, a status with a date, and fits on a screen.
fn decisions_have_their_form(root: &Path) -> Vec<String> {
    let wrong = |path: &PathBuf| {
        let (name, text) = (path.file_name()?.to_str()?, fs::read_to_string(path).ok()?);
        let mut lines = text.lines();
        let (title, status) = (lines.next()?, lines.nth(1).unwrap_or_default());
        let is_dated = |word: &str| {
            word.len() == 10 && word.starts_with("20") && word.matches('-').count() == 2
        };
        let is_dated = status.starts_with("Status: ")
            && status.split([' ', ';', '.']).any(|word| is_dated(word.trim_matches(',')));
        let is_titled =
            name.get(..4).is_some_and(|number| title.starts_with(&format!("# {number}: ")));
        let lines = text.lines().count();
        (!is_dated || !is_titled || !(15..=40).contains(&lines)).then(|| {
            format!("docs/adr/{name}: begins with `# {}: …` and `Status: …, DATE`, and has 15 to 40 lines ({lines})", &name[..4])
        })
    };
    files_below(root, &["docs/adr"], "md").iter().filter_map(wrong).collect()
}

fn decisions_are_linked(root: &Path) -> Vec<String> {
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let decisions = files_below(root, &["docs/adr"], "md");
    let names = decisions.iter().filter_map(|path| path.file_name()?.to_str());
    names
        .filter(|name| !architecture.contains(*name))
        .map(|name| format!("ARCHITECTURE.md does not link docs/adr/{name}"))
        .collect()
}

/// Documents, sources, tests, help and manifests use the words of the field.
fn texts_are_plain(root: &Path) -> Vec<String> {
    let mut texts = documents(root);
    texts.extend(files_below(root, &["crates", "xtask"], "rs"));
    texts.extend(files_below(root, &["crates/bot/tests/golden"], "txt"));
    texts.extend(files_below(root, &["charts", "deploy", "examples"], "yaml"));
    texts.extend(files_below(root, &["charts"], "txt"));
    texts.extend(files_below(root, &["crates/api/assets/ui"], "js"));
    // It lists them.
    texts.retain(|path| !path.ends_with("xtask/src/documents.rs"));
    let mut problems = Vec::new();
    for path in texts {
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            // Names of tests are sentences, too.
            let names = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let names: Vec<_> = names
                .filter(|name| name.contains('_'))
                .map(|name| name.replace('_', " "))
                .collect();
            let has = |riddle: &str| {
                has_words(&line, riddle) || names.iter().any(|name| has_words(name, riddle))
            };
            for (riddle, instead) in RIDDLES.iter().filter(|(riddle, _)| has(riddle)) {
                problems.push(format!(
                    "{shown}:{}: instead of {riddle:?} write: {instead}",
                    number + 1
                ));
            }
        }
    }
    problems
}

/// Whether a line has these words, and not as a part of longer ones.
fn has_words(line: &str, words: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(words).any(|(at, _)| {
        !line[..at].ends_with(is_letter) && !line[at + words.len()..].starts_with(is_letter)
    })
}

/// All that is written for readers.
fn documents(root: &Path) -> Vec<PathBuf> {
    let mut documents = files_below(root, &["docs", "charts", "deploy", "examples"], "md");
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    documents.extend(names.map(|name| root.join(name)));
    documents
}

/// The words of a text that begin with `start` and go on with letters of `more`.
fn words_with<'a>(text: &'a str, start: &str, more: fn(char) -> bool) -> BTreeSet<&'a str> {
    let begins = text.match_indices(start).map(|(at, _)| at);
    let begins = begins.filter(|at| !text[..*at].ends_with(|c| more(c) || c == '-'));
    let word = |at: usize| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c| !more(c)).unwrap_or(rest.len());
        &text[at..at + start.len() + end]
    };
    begins.map(word).filter(|word| word.len() > start.len()).collect()
}

/// Prose is wrapped at about 100 columns; what cannot be broken may be somewhat longer. Tables, code
/// and what is generated are as long as they are.
fn prose_is_wrapped(root: &Path) -> Vec<String> {
    const COLUMNS_MAX: usize = 120;
    let mut problems = Vec::new();
    for document in documents(root) {
        let shown = document.strip_prefix(root).unwrap_or(&document).display().to_string();
        if shown == "docs/metrics.md" {
            continue;
        }
        let mut is_code = false;
        for (number, line) in fs::read_to_string(&document).unwrap_or_default().lines().enumerate()
        {
            is_code ^= line.trim_start().starts_with("```");
            if !is_code && !line.starts_with('|') && line.chars().count() > COLUMNS_MAX {
                problems.push(format!("{shown}:{}: wrap it at 100 columns", number + 1));
            }
        }
    }
    problems
}

/// Every path that a bot serves is in docs/look.md.
fn paths_are_listed(root: &Path) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (served, document) = (read("crates/api/tests/golden/words.txt"), read("docs/look.md"));
    let paths = served.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let method = words.next()?;
        words.next().filter(|_| method == "GET" || method == "POST")
    });
    let paths: Vec<_> = paths.collect();
    if paths.is_empty() {
        return vec!["crates/api/tests/golden/words.txt lists no paths".to_owned()];
    }
    let missing = paths.iter().filter(|path| !document.contains(&format!("`{path}`")));
    missing.map(|path| format!("docs/look.md does not list {path}")).collect()
}

/// Flags that a document names are of some help text or of a program that is not ours; families of
/// metrics that it, a rule or a dashboard names are served.
fn flags_and_metrics_exist(root: &Path) -> Vec<String> {
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let of_flag = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let of_metric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let told: String = files_below(root, &["crates/bot/tests/golden"], "txt")
        .iter()
        .filter(|path| path.to_string_lossy().contains("help"))
        .chain(&files_below(root, &["crates/sim/tests/golden"], "txt"))
        .map(read)
        .collect();
    let mut flags = words_with(&told, "--", of_flag);
    flags.extend(FOREIGN_FLAGS.split(' '));
    let reference = read(&root.join("docs/metrics.md"));
    let families = words_with(&reference, "canary_", of_metric);
    let is_served = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        // A pattern such as `canary_mesh_*` ends before the name does.
        let is_pattern = name.ends_with('_');
        families.contains(name)
            || family.is_some_and(|family| families.contains(family))
            || is_pattern && families.iter().any(|known| known.starts_with(name))
    };
    let is_crate = |name: &str| root.join("crates").join(&name["canary_".len()..]).exists();
    let mut problems = Vec::new();
    let mut texts = documents(root);
    let documents = texts.len();
    texts.extend(files_below(root, &["charts"], "json"));
    texts.extend(files_below(root, &["charts", "deploy", "examples"], "yaml"));
    for (index, path) in texts.iter().enumerate() {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        for (number, line) in read(path).lines().enumerate() {
            let mut missing = |what: &str, name: &str| {
                problems.push(format!("{shown}:{}: there is no {what} {name}", number + 1));
            };
            let named = words_with(line, "--", of_flag);
            named
                .iter()
                .filter(|flag| index < documents && !flags.contains(**flag))
                .filter(|flag| flag.chars().any(|c| c.is_ascii_lowercase()))
                .for_each(|flag| missing("flag", flag));
            words_with(line, "canary_", of_metric)
                .into_iter()
                .filter(|name| !is_served(name) && !is_crate(name))
                .for_each(|name| missing("metric", name));
        }
    }
    problems
}

/// Files, scenarios and limits that a document names have to be there.
fn documents_name_what_exists(root: &Path) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (scenarios, limits) =
        (read("crates/sim/src/scenario.rs"), read("crates/core/src/limits.rs"));
    let mut problems = Vec::new();
    for document in documents(root) {
        let shown = document.strip_prefix(root).unwrap_or(&document).display().to_string();
        let text = fs::read_to_string(&document).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            let mut missing = |what: &str, name: &str| {
                problems.push(format!("{shown}:{}: there is no {what} {name}", number + 1));
            };
            // What stands between backticks is every second part.
            for name in line.split('`').skip(1).step_by(2) {
                let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder))
                    && !name.contains([' ', '*', '…', '<']);
                if is_path && !root.join(name.split(':').next().unwrap_or(name)).exists() {
                    missing("file", name);
                }
                let is_limit = shown.ends_with("detector.md")
                    && name.len() > 3
                    && name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
                if is_limit && !limits.contains(&format!("pub const {name}:")) {
                    missing("limit", name);
                }
            }
            let named = line
                .split("sim: ")
                .nth(1)
                .unwrap_or_default()
                .split(" |")
                .next()
                .unwrap_or_default();
            for name in named.split('`').skip(1).step_by(2) {
                if !scenarios.contains(&format!("name: \"{name}\"")) {
                    missing("scenario", name);
                }
            }
        }
    }
    problems
}

/// Links have to lead to files and headings, and commands that a document names have to be there.
fn documents_lead_somewhere(root: &Path) -> Vec<String> {
    let help =
        fs::read_to_string(root.join("crates/bot/tests/golden/help.txt")).unwrap_or_default();
    let commands: Vec<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split("  ").next())
        .filter(|name| !name.starts_with('-'))
        .collect();
    let mut problems = Vec::new();
    for document in documents(root) {
        let shown = document.strip_prefix(root).unwrap_or(&document).display().to_string();
        let text = fs::read_to_string(&document).unwrap_or_default();
        let mut is_shell = false;
        for (number, line) in text.lines().enumerate() {
            for link in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .filter(|link| !link.contains("://"))
            {
                let (path, anchor) = link
                    .split_once('#')
                    .map_or((link, None), |(path, anchor)| (path, Some(anchor)));
                let file = if path.is_empty() {
                    document.clone()
                } else {
                    document.parent().unwrap_or(root).join(path)
                };
                let headings = || fs::read_to_string(&file).unwrap_or_default();
                if !file.exists()
                    || anchor.is_some_and(|anchor| {
                        !headings()
                            .lines()
                            .any(|line| line.starts_with('#') && anchor_of(line) == anchor)
                    })
                {
                    problems.push(format!("{shown}:{}: {link} leads nowhere", number + 1));
                }
            }
            if line.trim_start().starts_with("```") {
                is_shell = !is_shell;
            }
            let inline: Vec<_> = line.split('`').skip(1).step_by(2).collect();
            let codes = if is_shell { vec![line] } else { inline };
            for code in codes {
                let words: Vec<_> = code.split_whitespace().collect();
                let missing = words.windows(3).filter_map(|words| no_such(root, &commands, words));
                problems.extend(
                    missing.map(|what| format!("{shown}:{}: there is no {what}", number + 1)),
                );
                if let [.., before, last] = words.as_slice() {
                    let what = no_such(root, &commands, &[before, last, ""]);
                    problems.extend(
                        what.map(|what| format!("{shown}:{}: there is no {what}", number + 1)),
                    );
                }
            }
        }
    }
    problems
}

/// What three words of a shell name that is not there: a command of ours, or of one of those that
/// have commands of their own, or a test, a benchmark or an example.
fn no_such(root: &Path, commands: &[&str], words: &[&str]) -> Option<String> {
    let [program, first, second] = words else { return None };
    let is_word = |word: &str| word.len() > 2 && word.bytes().all(|c| c.is_ascii_lowercase());
    if *program == "canary-bot" || program.ends_with("/canary-bot") {
        if is_word(first) && !commands.contains(first) {
            return Some(format!("command {first}"));
        }
        let help = root.join(format!("crates/bot/tests/golden/help-{first}.txt"));
        let help = fs::read_to_string(help).unwrap_or_default();
        let below = help.split_once("Commands:\n").map(|(_, rest)| rest)?;
        let knows = below.lines().any(|line| line.split_whitespace().next() == Some(second));
        return (is_word(second) && !knows).then(|| format!("command {first} {second}"));
    }
    let folder = match *program {
        "--test" => "tests",
        "--bench" => "benches",
        "--example" => "examples",
        _ => return None,
    };
    let is_there = fs::read_dir(root.join("crates"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|found| found.path().join(folder))
        .chain([root.join(folder)])
        .any(|folder| folder.join(format!("{first}.rs")).exists());
    let is_name = first.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    (is_name && !is_there).then(|| format!("{folder} {first}"))
}

/// What a heading is linked by.
fn anchor_of(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
