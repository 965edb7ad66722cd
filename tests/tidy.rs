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
    let crates = files("crates", ".rs").into_iter().filter(|path| relative(path).contains("/src/"));
    files("src", ".rs")
        .into_iter()
        .chain(crates)
        .filter(|path| !relative(path).split(['/', '.']).any(|part| part == "tests"))
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

/// The rooms of the service, each with the rooms that it may name: arrows point down. `core` is the pure crate (domain,
/// codec, engine), `manager` the crate of the stream manager, `embedded` that of its embedded engine, `*` is everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("crash", &[]),
    ("auth", &[]),
    ("ui", &[]),
    ("config", &["core", "auth"]),
    ("failure", &["core"]),
    ("status", &["core", "failure"]),
    ("telemetry", &["core", "config", "status"]),
    ("board", &["core", "status", "telemetry"]),
    ("store", &["core", "config", "crash", "failure"]),
    ("platforms", &["core", "config", "crash", "embedded", "failure", "manager"]),
    ("schemas", &["core", "config", "failure", "manager", "telemetry"]),
    ("login", &["auth", "config", "crash", "failure", "store"]),
    ("certificates", &["auth", "config", "telemetry"]),
    ("projector", &["core", "config", "crash", "failure", "platforms", "schemas", "status", "store", "telemetry"]),
    (
        "builds",
        &["core", "config", "crash", "failure", "platforms", "projector", "schemas", "status", "store", "telemetry"],
    ),
    ("feed", &["core", "board", "failure", "status", "store", "telemetry"]),
    ("repair", &["core", "builds", "config", "crash", "failure", "schemas", "status", "store", "telemetry"]),
    (
        "api",
        &[
            "core",
            "auth",
            "board",
            "certificates",
            "config",
            "failure",
            "feed",
            "login",
            "manager",
            "repair",
            "status",
            "store",
            "telemetry",
            "ui",
        ],
    ),
    (
        "streams",
        &["core", "api", "config", "crash", "embedded", "manager", "platforms", "schemas", "store", "telemetry"],
    ),
    ("views", &["core", "api", "auth", "config", "feed", "schemas", "store"]),
    ("registrations", &["*"]),
    ("steward", &["*"]),
    ("app", &["*"]),
    ("doctor", &["*"]),
    ("cli", &["*"]),
];

/// Rooms of the pure crate, which the service shows as its own.
const PURE_ROOMS: [&str; 3] = ["domain", "codec", "engine"];

/// The rooms of `crates/manager`, as above. `contract` is `engines/mod.rs`, `wires` are the folders beside it.
const MANAGER_ROOMS: &[(&str, &[&str])] = &[
    ("catalog", &[]),
    ("names", &[]),
    ("hub", &[]),
    ("ports", &["catalog"]),
    ("contract", &["catalog", "names"]),
    ("settings", &["contract"]),
    ("gate", &["catalog", "contract", "settings"]),
    ("wires", &["catalog", "names", "contract", "settings", "gate"]),
    ("definition", &["contract"]),
    ("query", &["contract"]),
    ("lifecycle", &["catalog", "contract", "definition", "names", "ports", "settings"]),
    ("store", &["catalog", "contract", "definition", "lifecycle", "names", "query"]),
    ("fault", &["catalog", "contract", "definition", "lifecycle", "ports", "store"]),
    ("queries", &["catalog", "contract", "fault", "query", "settings"]),
    ("preview", &["catalog", "fault", "hub", "ports"]),
    ("manager", &["*"]),
    ("live", &["*"]),
];

/// The room of a file of `crates/manager`.
fn manager_room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("crates/manager/src/")?;
    Some(match inside.split(['/', '.']).next()? {
        "engines" if inside == "engines/mod.rs" => "contract",
        "engines" => "wires",
        // People's calls and the reconciler share what the manager is made of.
        "reconcile" => "manager",
        room => room,
    })
}

#[test]
fn the_managers_rooms_import_downwards() {
    let mut found = Vec::new();
    for source in &sources() {
        let Some(room) = manager_room(&source.path).filter(|room| *room != "lib") else { continue };
        let Some((_, allowed)) = MANAGER_ROOMS.iter().find(|(name, _)| *name == room) else {
            found.push(format!("{}: the room {room} is not in the table", source.path));
            continue;
        };
        for (number, line) in source.lines.iter().enumerate() {
            for named in rooms_named(line.split("//").next().unwrap_or_default()) {
                let is_own = named == room || room == "wires" && named == "engines";
                let named = if named == "engines" { "contract" } else { named };
                // The contract's file declares its wires.
                if !is_own && named != room && !allowed.contains(&named) && !allowed.contains(&"*") {
                    found.push(format!("{}:{}: {room} names {named}", source.path, number + 1));
                }
            }
        }
    }
    assert_none(&found, "rooms of crates/manager name what lies below them only");
}

/// What a line of code names behind `crate::`.
fn rooms_named(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    })
}

#[test]
fn rooms_import_downwards() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let room = source.path["src/".len()..].split(['/', '.']).next().unwrap();
        if matches!(room, "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            found.push(format!("{}: the room {room} is not in the table", source.path));
            continue;
        };
        for (number, line) in source.lines.iter().enumerate() {
            for named in rooms_named(line.split("//").next().unwrap_or_default()) {
                let named = if PURE_ROOMS.contains(&named) { "core" } else { named };
                if named != room && !allowed.contains(&named) && !allowed.contains(&"*") {
                    found.push(format!("{}:{}: {room} names {named}", source.path, number + 1));
                }
            }
        }
    }
    // Within the pure crate: engine over codec over domain.
    for source in sources().iter().filter(|source| source.path.starts_with("crates/core/src/")) {
        let room = source.path["crates/core/src/".len()..].split(['/', '.']).next().unwrap();
        let upwards: &[&str] = match room {
            "domain" => &["codec", "engine"],
            "codec" => &["engine"],
            _ => &[],
        };
        for (number, line) in source.lines.iter().enumerate() {
            for named in rooms_named(line.split("//").next().unwrap_or_default()).filter(|name| upwards.contains(name))
            {
                found.push(format!("{}:{}: {room} names {named}", source.path, number + 1));
            }
        }
    }
    assert_none(&found, "rooms name what lies below them only");
}

/// The table itself has no circles: each room stands above all that it names.
#[test]
fn the_table_of_rooms_points_down() {
    let place = |room: &str| ROOMS.iter().position(|(name, _)| *name == room);
    for (number, (room, allowed)) in ROOMS.iter().enumerate() {
        for below in allowed.iter().filter(|below| !matches!(**below, "core" | "embedded" | "manager" | "*")) {
            assert!(place(below).is_some_and(|other| other < number), "{room} names {below}, which is not below it");
        }
    }
}

#[test]
fn pure_rooms_do_no_io() {
    let words =
        ["async ", "tokio", "rdkafka", "actix", "Timestamp::now", "SystemTime", "Instant", "std::fs", "std::net"];
    let pure = |path: &str| {
        path.starts_with("crates/core/src/")
            || path.starts_with("src/auth/")
            || path.starts_with("src/views/")
                && ["event.rs", "project.rs", "versions.rs"].iter().any(|name| path.ends_with(&format!("/{name}")))
            || path == "src/repair/rules.rs"
            || path == "src/status/conditions.rs"
    };
    let found: Vec<String> =
        mentions(&words, &[]).into_iter().filter(|hit| pure(hit.split(':').next().unwrap_or_default())).collect();
    assert_none(
        &found,
        "crates/core, auth, views/*/{event,project,versions}, conditions and the rules of decisions are pure",
    );
}

/// A crate that is not in this list could do what the pure crate must not.
#[test]
fn the_pure_crate_has_pure_dependencies() {
    let pure = [
        "apache-avro",
        "base64",
        "crc32fast",
        "fastrand",
        "foldhash",
        "jiff",
        "memchr",
        "serde",
        "serde_json",
        "thiserror",
        "twox-hash",
    ];
    let manifest: toml::Table = fs::read_to_string(root().join("crates/core/Cargo.toml")).unwrap().parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let found: Vec<String> =
        dependencies.keys().filter(|name| !pure.contains(&name.as_str())).map(Clone::clone).collect();
    assert_none(&found, "crates/core has no runtime, client or driver");
}

#[test]
fn each_library_stays_in_its_room() {
    let kafka = [
        "src/platforms/",
        "crates/lab/src/seed/publish.rs",
        "crates/lab/src/servers/broker.rs",
        "crates/lab/src/ksqldb_stand_in/kafka.rs",
    ];
    assert_none(
        &mentions(&["rdkafka"], &kafka),
        "only platforms/ (and the lab's publisher, broker and stand-in) name the Kafka client",
    );
    let postgres = [
        "src/store/",
        "crates/manager/src/store/",
        "src/repair/rows/",
        "src/views/*/rows.rs",
        "src/views/*/queries.rs",
    ];
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
        &mentions(
            &registry,
            &[
                "src/schemas/",
                "src/login/provider.rs",
                "src/doctor/http.rs",
                "src/streams/engines.rs",
                "src/cli/streams/client.rs",
                "crates/manager/src/engines/",
                "src/certificates/",
                "src/store/wire.rs",
                "src/platforms/kafka/certificate.rs",
            ],
        ),
        "only schemas/, login/provider, the manager's engines and what looks at our own port name the HTTP client and the registry's crate, and certificates/, store/wire and \
         what looks at a broker's certificate TLS",
    );
    assert_none(&mentions(&["governor"], &["src/api/limits.rs"]), "only api/limits names the crate that counts calls");
    let avro = ["crates/core/src/codec/avro/", "crates/lab/src/seed/"];
    assert_none(&mentions(&["apache_avro"], &avro), "only codec/avro/ and the seed name the Avro crate");
}

/// How brokers are connected to is said once: a client made elsewhere would go without TLS, or without its login.
#[test]
fn one_function_configures_every_client_of_kafka() {
    assert_none(
        &mentions(
            &["ClientConfig::new", "ClientConfig::from", "ClientConfig::default"],
            // The stand-in knows a test's broker only.
            &["src/platforms/kafka/mod.rs", "crates/lab/src/ksqldb_stand_in/kafka.rs"],
        ),
        "platforms::kafka::base_config begins every configuration of a Kafka client, and nothing else does",
    );
}

/// `println!` panics where whoever reads from the pipe has left.
#[test]
fn commands_print_by_one_way() {
    let found = mentions(&["println!(", "print!("], &["crates/"]);
    let found = found.into_iter().filter(|hit| !hit.contains("eprint")).collect::<Vec<_>>();
    assert_none(&found, "cli::output prints, and nothing else does");
}

#[test]
fn the_repair_desk_knows_no_http() {
    let words = ["crate::api", "\"/", "href", "\"GET\"", "\"POST\"", "utoipa", "StatusCode"];
    let found = mentions(&words, &[]).into_iter().filter(|hit| hit.starts_with("src/repair/")).collect::<Vec<_>>();
    assert_none(&found, "hrefs, methods, statuses and schemas are made in api/ops/ from the desk's plain values");
}

#[test]
fn headers_are_read_by_our_own_way() {
    let found = mentions(&["message.headers()", "message::Headers"], &[]);
    let found = found.into_iter().filter(|hit| hit.starts_with("src/")).collect::<Vec<_>>();
    assert_none(
        &found,
        "the client panics at a name that is not UTF-8: `platforms::kafka::fetch::headers_of` does not",
    );
}

#[test]
fn unsafe_code_stays_in_named_files() {
    let kafka =
        ["fetch.rs", "topic_id.rs", "dead_member.rs", "rights.rs"].map(|file| format!("src/platforms/kafka/{file}"));
    let kafka = kafka.each_ref().map(String::as_str);
    let allowed = [
        &kafka[..],
        &["crates/lab/src/servers/process.rs", "crates/lab/src/servers/broker.rs"],
        &["src/main.rs", "src/crash.rs", "src/api/wire.rs", "tests/it/support/odd_header.rs"],
    ]
    .concat();
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
    for path in ["src", "crates", "tests"].into_iter().flat_map(|folder| files(folder, ".rs")) {
        let name = relative(&path);
        if name == "tests/tidy.rs" {
            continue;
        }
        let is_test = name.starts_with("tests/") || name.contains("/tests/");
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
fn scripts_look_for_programs_where_cargo_was_told_to_put_them() {
    let mut found = Vec::new();
    for path in ["scripts", ".ci"].into_iter().flat_map(|folder| files(folder, "")) {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            // What a script calls `$target` it has made of it.
            let line = line.replace("$target/", "");
            if line.contains("target/debug/") || line.contains("target/release/") {
                found.push(format!("{}:{}: {}", relative(&path), number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "CARGO_TARGET_DIR comes before `target`");
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

/// How names of our metrics begin.
const METRICS: [&str; 3] = ["streamview_", "kafka_consumer_", "http_requests_"];

/// The names of all metrics that are registered.
fn catalogue() -> BTreeSet<String> {
    let catalogue = fs::read_to_string(root().join("src/telemetry/metrics.rs")).unwrap();
    let code = catalogue.split("#[cfg(test)]").next().unwrap_or_default();
    let quoted = code.split('"').skip(1).step_by(2);
    let names: BTreeSet<String> =
        quoted.filter(|text| METRICS.iter().any(|start| text.starts_with(start))).map(str::to_owned).collect();
    assert!(names.len() > 15, "the catalogue was not found: {names:?}");
    names
}

/// An alert over a metric that nobody registers never fires, and nobody would notice.
#[test]
fn every_metric_of_an_alert_is_registered_and_documented() {
    let (names, alerts) = (catalogue(), fs::read_to_string(root().join("grafana/prometheus/alerts.yml")).unwrap());
    let document = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let code = alerts.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = code.flat_map(|line| line.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')));
    let used: BTreeSet<&str> = words.filter(|word| METRICS.iter().any(|start| word.starts_with(start))).collect();
    assert!(used.len() > 10, "the alerts were not understood: {used:?}");
    let is_known = |name: &str| names.contains(name) && document.contains(&format!("`{name}`"));
    let of_histogram =
        |name: &str| ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end)).any(is_known);
    let missing: Vec<String> =
        used.into_iter().filter(|name| !is_known(name) && !of_histogram(name)).map(str::to_owned).collect();
    assert_none(&missing, "every metric of an alert is in the catalogue and in docs/metrics.md");
}

#[test]
fn every_metric_is_on_a_dashboard_or_marked_internal() {
    let names = catalogue();
    let dashboards: String = files("grafana", ".json").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let internal = ["streamview_process_start_time_seconds"];
    let missing: Vec<String> =
        names.into_iter().filter(|name| !dashboards.contains(name) && !internal.contains(&name.as_str())).collect();
    assert_none(&missing, "every metric is on a dashboard or marked internal");
}

/// A long name that is not ours.
const POSTGRES_SETTING: &str = "idle_in_transaction_session_timeout";
/// Documents that name parts of the code.
const DOCUMENTS: [&str; 4] = ["ARCHITECTURE.md", "README.md", "STYLE.md", "CONTRIBUTING.md"];

/// What stands between backticks outside of code blocks, with its line.
fn quoted(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (number, line) in document.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (number + 1, text.to_owned())));
        }
    }
    found
}

/// Paths from the root that stand in a document outside of backticks, in links and in plain text, with their line.
fn paths_in_text(document: &str) -> Vec<(usize, String)> {
    let is_of_path = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
    let roots = ["src/", "crates/", "tests/", "scripts/", "docs/", "benches/", "migrations/", "schemas/", "config/"];
    let lines = document.lines().enumerate();
    lines
        .flat_map(|(number, line)| line.split('`').step_by(2).map(move |text| (number + 1, text)))
        .flat_map(|(line, text)| text.split(move |letter| !is_of_path(letter)).map(move |word| (line, word)))
        .filter(|(_, word)| roots.iter().any(|start| word.starts_with(start)))
        .map(|(line, word)| (line, word.trim_end_matches(['.', '/']).to_owned()))
        .collect()
}

/// The files that `name` may mean: a path from the root, or the end of one.
fn files_named<'a>(all: &'a [String], name: &str) -> Vec<&'a String> {
    let name = name.trim_end_matches('/');
    all.iter().filter(|path| *path == name || path.ends_with(&format!("/{name}"))).collect()
}

/// Every file and folder below the root that is ours.
fn everything() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if ["target", ".git", ".servers"].contains(&name.as_str()) {
                continue;
            }
            found.push(relative(&path));
            if path.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Paths, `file.rs::function`, and names of tests (four words and more) that stand in the documents exist.
#[test]
fn what_the_documents_name_exists() {
    let all = everything();
    let code: Vec<(String, String)> = all
        .iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap()))
        .collect();
    let defines = |text: &str, name: &str| {
        [format!("fn {name}("), format!("fn {name}<"), format!("const {name}:")].iter().any(|form| text.contains(form))
    };
    let mut found = Vec::new();
    let mut checked = 0;
    for document in DOCUMENTS {
        let contents = fs::read_to_string(root().join(document)).unwrap();
        for (line, path) in paths_in_text(&contents) {
            checked += 1;
            if !all.contains(&path) {
                found.push(format!("{document}:{line}: {path}"));
            }
        }
        for (line, text) in quoted(&contents) {
            let (path, function) = text.split_once("::").unwrap_or((&text, ""));
            let is_file = [".rs", ".sql", ".md", ".toml", ".yml"].iter().any(|ending| path.ends_with(ending));
            let is_path = is_file || path.ends_with('/') && !path.starts_with('/') && !path.contains([' ', '<', '*']);
            let exists = if is_path && !path.contains(['*', '{', '<', ' ']) {
                checked += 1;
                let files = files_named(&all, path);
                !files.is_empty()
                    && (!is_identifier(function)
                        || code.iter().any(|(name, text)| files.contains(&name) && defines(text, function)))
            } else if is_identifier(&text)
                && text != POSTGRES_SETTING
                && text.matches('_').count() >= 4
                && !text.starts_with("streamview_")
            {
                checked += 1;
                code.iter().any(|(_, code)| defines(code, &text) || code.contains(&format!("\"{text}\"")))
                    || all.iter().any(|path| path.ends_with(&format!("/{text}.sql")))
            } else {
                true
            };
            if !exists {
                found.push(format!("{document}:{line}: {text}"));
            }
        }
    }
    assert!(checked > 100, "only {checked} names were found");
    assert_none(&found, "what a document names exists");
}

/// The console that the binary holds is whole, and nothing else lies there: each file that `index.html` or another file names is
/// there, and each file that is there is named. (That it is what `web/src` makes, `scripts/check-web` sees.)
#[test]
fn the_console_is_whole() {
    let dist = root().join("web/dist");
    let names: BTreeSet<String> =
        fs::read_dir(&dist).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let mut named: BTreeSet<String> = ["index.html", "THIRD-PARTY.txt"].map(str::to_owned).into();
    let mut found = Vec::new();
    for name in names.iter().filter(|name| [".html", ".js", ".css"].iter().any(|ending| name.ends_with(ending))) {
        let text = fs::read_to_string(dist.join(name)).unwrap();
        for quoted in text.split(['"', '\'', '`']).filter_map(|part| part.strip_prefix("./")) {
            let is_file = quoted.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
            if is_file && [".js", ".css", ".svg"].iter().any(|ending| quoted.ends_with(ending)) {
                if !names.contains(quoted) {
                    found.push(format!("web/dist/{name} names {quoted}, which is not there"));
                }
                named.insert(quoted.to_owned());
            }
        }
    }
    found.extend(names.difference(&named).map(|name| format!("web/dist/{name} is named nowhere")));
    assert!(named.len() > 4, "index.html was not understood: {named:?}");
    assert_none(&found, "web/dist is whole; run `make web` and commit");
}

/// What npm brought into the binary comes with its licence, and that is one of those that may be given to anybody.
#[test]
fn packages_of_the_console_are_named_with_their_licences() {
    let deny: toml::Table = fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let allowed: Vec<&str> =
        deny["licenses"]["allow"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    let notices = fs::read_to_string(root().join("web/dist/THIRD-PARTY.txt")).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(root().join("web/package.json")).unwrap()).unwrap();
    let lock: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(root().join("web/package-lock.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    for (name, version) in
        ["dependencies", "devDependencies"].iter().flat_map(|kind| manifest[kind].as_object().unwrap())
    {
        if !version.as_str().unwrap().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            found.push(format!("web/package.json: {name} is {version}, not one exact version"));
        }
    }
    let parts: Vec<&str> = notices.split(&"-".repeat(80)).collect();
    for (number, part) in parts.iter().enumerate() {
        let head =
            part.trim_start().lines().find(|line| line.ends_with(')') && line.contains(" (")).unwrap_or_default();
        let (package, licence) = head.trim_end_matches(')').rsplit_once(" (").unwrap_or_default();
        let (name, version) = package.rsplit_once(' ').unwrap_or_default();
        if !allowed.contains(&licence) || part.len() < 500 {
            found
                .push(format!("web/dist/THIRD-PARTY.txt, part {}: {head}: licence or its text is missing", number + 1));
        }
        if lock["packages"][format!("node_modules/{name}")]["version"] != version {
            found.push(format!("{name} {version} is not what web/package-lock.json has"));
        }
    }
    assert!(parts.len() >= 2, "no package was found");
    assert_none(&found, "packages of the console have exact versions and allowed licences, with their texts");
}
