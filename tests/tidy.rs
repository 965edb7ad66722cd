//! The rules of the house as tests. Each failure names the file, the line and the rule.
#![allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of code (not blank, not comment, not under `#[cfg(test)]`) in one file.
const MAX_FILE_LINES: usize = 500;
/// Most lines of one function, signature included.
const MAX_FUNCTION_LINES: usize = 80;

struct Source {
    /// Path below the repository's root, with `/`.
    path: String,
    /// Lines before the tests.
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(below), ending, &mut found);
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// The sources without their unit tests and without files that are unit tests.
fn sources() -> Vec<Source> {
    files("src", ".rs")
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").map(str::to_owned).collect();
            Source { path: relative(&path), lines }
        })
        .collect()
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// Lines of code that mention one of `words` outside the `allowed` paths.
fn mentions(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let is_allowed = allowed.iter().any(|prefix| match prefix.split_once('*') {
            Some((start, end)) => source.path.starts_with(start) && source.path.contains(end),
            None => source.path.starts_with(prefix),
        });
        if is_allowed {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| code.contains(*word)) {
                found.push(format!("{}:{}: {word}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn pure_rooms_do_no_io() {
    let words =
        ["async ", "tokio", "rdkafka", "actix", "Timestamp::now", "SystemTime", "Instant", "std::fs", "std::net"];
    let pure = |path: &str| {
        path.starts_with("src/domain/")
            || path.starts_with("src/auth/")
            || path.ends_with("/event.rs")
            || path.ends_with("/project.rs")
            || path == "src/repair/rules.rs"
            || ["fold.rs", "decode.rs", "plan.rs", "event_ids.rs"]
                .iter()
                .any(|name| path == format!("src/projector/{name}"))
    };
    let found: Vec<String> =
        mentions(&words, &[]).into_iter().filter(|hit| pure(hit.split(':').next().unwrap_or_default())).collect();
    assert_none(&found, "domain, auth, views/*/{event,project}, the fold and the rules of decisions are pure");
}

#[test]
fn each_library_stays_in_its_room() {
    let kafka = ["src/platforms/", "src/seed/publish.rs"];
    assert_none(&mentions(&["rdkafka"], &kafka), "only platforms/ (and the seed's publisher) name the Kafka client");
    let postgres = ["src/store/", "src/repair/rows/", "src/views/*/rows.rs", "src/views/*/queries.rs"];
    let drivers = ["tokio_postgres", "deadpool_postgres"];
    let pool_handles = ["src/projector/observer.rs", "src/projector/runtime.rs"];
    let allowed: Vec<&str> = postgres.iter().chain(&pool_handles).copied().collect();
    assert_none(
        &mentions(&drivers, &allowed),
        "only store/, repair/rows/ and views/*/{rows,queries} name the Postgres driver",
    );
    let web = ["src/api/", "src/views/*/api"];
    assert_none(&mentions(&["actix_web"], &web), "only api/ and views/*/api name the web framework");
    let registry = ["reqwest", "schema_registry_converter", "rustls::"];
    assert_none(
        &mentions(&registry, &["src/registry/"]),
        "only registry/ names the HTTP client and the registry's crate",
    );
    assert_none(&mentions(&["apache_avro"], &["src/codec/avro/"]), "only codec/avro/ names the Avro crate");
}

#[test]
fn the_repair_desk_knows_no_http() {
    let words = ["crate::api", "\"/", "href", "\"GET\"", "\"POST\"", "utoipa", "StatusCode"];
    let found = mentions(&words, &[]).into_iter().filter(|hit| hit.starts_with("src/repair/")).collect::<Vec<_>>();
    assert_none(&found, "hrefs, methods, statuses and schemas are made in api/ops/ from the desk's plain values");
}

#[test]
fn only_the_commit_writes_view_rows() {
    assert_none(&mentions(&["V::write("], &["src/projector/commit.rs"]), "only projector/commit.rs writes view rows");
}

#[test]
fn unsafe_code_stays_in_four_files() {
    let kafka = ["src/platforms/kafka/fetch.rs", "src/platforms/kafka/topic_id.rs"];
    let allowed = [&kafka[..], &["src/servers/process.rs", "src/memory.rs"]].concat();
    assert_none(&mentions(&["unsafe ", "allow(unsafe_code)"], &allowed), "unsafe code needs a named place");
}

#[test]
fn files_and_functions_stay_readable() {
    let mut found = Vec::new();
    for source in sources() {
        let code = source.lines.iter().filter(|line| is_code(line)).count();
        if code > MAX_FILE_LINES {
            found.push(format!("{}: {code} lines of code, at most {MAX_FILE_LINES}", source.path));
        }
        let mut start: Option<(usize, usize)> = None;
        for (number, line) in source.lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let opens = line.trim_start().split(' ').take(4).any(|word| word == "fn") && is_code(line);
            match start {
                None if opens && !line.trim_end().ends_with(';') => start = Some((number, indent)),
                Some((first, outer)) if line.trim_end() == format!("{}}}", " ".repeat(outer)) => {
                    if number - first + 1 > MAX_FUNCTION_LINES {
                        found.push(format!("{}:{}: {} lines", source.path, first + 1, number - first + 1));
                    }
                    start = None;
                }
                _ => {}
            }
        }
    }
    assert_none(&found, "files of at most 500 lines of code, functions of at most 80 lines");
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.lines.first().is_some_and(|line| line.starts_with("//!")))
        .map(|source| source.path)
        .collect();
    assert_none(&silent, "every file begins with //! saying what it does and what not");
}

#[test]
fn tests_wait_for_events_and_are_never_skipped() {
    let mut found = Vec::new();
    for path in files("src", ".rs").into_iter().chain(files("tests", ".rs")) {
        let name = relative(&path);
        if name == "tests/tidy.rs" {
            continue;
        }
        let is_test = name.starts_with("tests/");
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let sleeps = line.contains("thread::sleep") || (is_test && line.contains("time::sleep"));
            if sleeps || line.trim().starts_with("#[ignore") {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "no sleeps, no ignored tests");
}

#[test]
fn there_are_no_catch_all_rooms() {
    let names = ["utils", "util", "common", "helpers", "helper", "misc"];
    let found: Vec<String> = files("", ".rs")
        .into_iter()
        .map(|path| relative(&path))
        .filter(|path| !path.starts_with("target/"))
        .filter(|path| path.split(['/', '.']).any(|part| names.contains(&part)))
        .collect();
    assert_none(&found, "names say what is inside");
}

#[test]
fn sql_is_lower_case_and_in_files() {
    let mut found = Vec::new();
    let keywords = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "FROM ", "WHERE "];
    for path in files("src", ".sql").into_iter().chain(files("migrations", ".sql")) {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("--").next().unwrap_or_default();
            if keywords.iter().any(|keyword| code.contains(keyword)) {
                found.push(format!("{}:{}: {line}", relative(&path), number + 1));
            }
        }
    }
    assert_none(&found, "SQL keywords are lower case");
}

#[test]
fn every_metric_is_on_a_dashboard_or_marked_internal() {
    let catalogue = fs::read_to_string(root().join("src/telemetry/metrics.rs")).unwrap();
    let code = catalogue.split("#[cfg(test)]").next().unwrap_or_default();
    let names: BTreeSet<&str> = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| ["streamview_", "kafka_consumer_", "http_requests_"].iter().any(|start| text.starts_with(start)))
        .collect();
    assert!(names.len() > 15, "the catalogue was not found: {names:?}");
    let dashboards: String = files("grafana", ".json").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let internal = ["streamview_process_start_time_seconds"];
    let missing: Vec<String> = names
        .into_iter()
        .filter(|name| !dashboards.contains(name) && !internal.contains(name))
        .map(str::to_owned)
        .collect();
    assert_none(&missing, "every metric is on a dashboard or marked internal");
}
