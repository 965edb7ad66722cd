//! `streamview streams`: files under version control, applied to a running service.

use serde_json::{Value, json};
use streamview_lab::ksqldb_stand_in::{Refuse, Switches};

use crate::cli::run;
use crate::streams::{BIG, BIGGER, Service, Stage};

/// A command against the service; its exit code and all that it prints.
async fn command(service: &Service<'_>, arguments: &[&str]) -> (i32, String) {
    let url = service.instance.url("");
    let arguments = [&["streams", "--url", url.as_str()], arguments].concat();
    let (code, out, error) = run(&service.stage.world, &arguments, "").await;
    (code, format!("{out}{error}"))
}

/// The same with `--json`; its exit code and the JSON that it prints.
async fn as_json(service: &Service<'_>, arguments: &[&str]) -> (i32, Value) {
    let url = service.instance.url("");
    let arguments = [&["streams", "--json", "--url", url.as_str()], arguments].concat();
    let (code, out, error) = run(&service.stage.world, &arguments, "").await;
    let answer = serde_json::from_str(&out).unwrap_or_else(|wrong| panic!("{arguments:?}: {wrong}: {out}{error}"));
    (code, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_applied_once_and_tells_what_it_did() {
    let stage = Stage::new().await;
    let service = stage.start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "orders.source.toml",
        &format!(
            "topic = '{}'\nformat = 'json'\ncolumns = [{{ name = 'ORDER_ID', type = 'bigint' }}, {{ name = 'AMOUNT', type = 'double' }}]\n",
            stage.orders
        ),
    );
    write("big.sql", &format!("-- name: Big\n-- engine: ksqldb\n\n{BIG}\n"));
    write("later.sql", &format!("-- wanted: draft\n{BIGGER}\n"));

    // Nothing is there yet, not even what it selects from.
    let (code, told) = command(&service, &["plan", "-f", path]).await;
    let lines = [
        format!("source orders would be created: topic {}", stage.orders),
        "stream Big would be created: then running, judged once its sources are declared".to_owned(),
        "stream later would be created: then draft, judged once its sources are declared".to_owned(),
    ];
    assert_eq!((code, told), (0, lines.map(|line| format!("{line}\n")).concat()));
    write("astray.sql", "SELECT * FROM elsewhere");
    let (code, told) = command(&service, &["plan", "-f", path]).await;
    assert!(code == 1 && told.contains("stream astray failed") && told.contains("`elsewhere` is no source"), "{told}");
    std::fs::remove_file(folder.path().join("astray.sql")).unwrap();

    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert_eq!(code, 0, "{told}");
    for line in [
        "source orders created",
        "stream Big created: Big is wanted running",
        "stream later created: later is wanted draft",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert_eq!((code, told.as_str()), (0, "source orders unchanged\nstream Big unchanged\nstream later unchanged\n"));

    // A source that somebody else has changed since is not changed back unseen.
    let other =
        json!({ "topic": stage.orders, "format": "json", "columns": [{ "name": "ORDER_ID", "type": "bigint" }] });
    service.put("/api/catalog/ORDERS", other).await.must(200);
    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert!(code == 0 && told.contains("source orders changed: topic "), "{told}");
    let declared = service.get("/api/catalog/orders").await.must(200).body;
    assert_eq!(
        (&declared["name"], &declared["columns"][1]["name"]),
        (&json!("orders"), &json!("AMOUNT")),
        "{declared}"
    );

    // A dry run tells, and changes nothing.
    write("big.sql", &format!("-- name: Big\n{BIGGER}\n"));
    write("new.sql", BIG);
    for arguments in [&["apply", "-f", path, "--dry-run"][..], &["plan", "-f", path]] {
        let (code, told) = command(&service, arguments).await;
        assert!(
            code == 0 && told.contains("stream Big would be changed: ") && told.contains("stream new would be created"),
            "{told}"
        );
    }
    let (_, listed) = command(&service, &["--json", "list"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let texts: Vec<(&Value, &Value)> =
        listed["items"].as_array().unwrap().iter().map(|item| (&item["name"], &item["sqlScript"])).collect();
    assert_eq!(texts, [(&json!("later"), &json!(BIGGER)), (&json!("Big"), &json!(BIG))]);

    // One that cannot be applied is told with its line; the others are.
    write("bad.sql", "SELECT *\nFROM nowhere");
    let (code, told) = command(&service, &["apply", "-f", path, "--accept-state-loss"]).await;
    assert!(
        code == 1 && told.contains("stream bad failed: statement_refused") && told.contains("line 2"),
        "{code} {told}"
    );
    assert!(told.contains("stream Big changed") && told.contains("stream new created"), "{told}");
    std::fs::remove_file(folder.path().join("bad.sql")).unwrap();

    // Nothing is deleted unless that is asked for.
    std::fs::remove_file(folder.path().join("later.sql")).unwrap();
    let (_, told) = command(&service, &["apply", "-f", path]).await;
    assert!(!told.contains("later"), "{told}");
    let (code, told) = command(&service, &["apply", "-f", path, "--prune", "--dry-run"]).await;
    assert!(code == 0 && told.contains("stream later would be deleted"), "{told}");
    let (code, told) = command(&service, &["apply", "-f", path, "--prune"]).await;
    assert!(code == 0 && told.contains("stream later deleted"), "{told}");
    let (_, listed) = command(&service, &["list"]).await;
    assert!(listed.starts_with("NAME ") && !listed.contains("later") && listed.contains("Big"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_planned_deployed_stopped_and_deleted_by_its_name() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.create("Big", BIG).await;
    let (code, told) = command(&service, &["plan", "big"]).await;
    assert!(code == 0 && told.starts_with("Big: starts: "), "{told}");
    let (code, told) = command(&service, &["deploy", "big"]).await;
    assert!(code == 0 && told.contains("Big is wanted running"), "{told}");
    service.until_state(&path, "running").await;
    let (code, told) = command(&service, &["stop", "Big"]).await;
    assert!(code == 0 && told.contains("Big is wanted stopped"), "{told}");
    let (code, told) = command(&service, &["logs", "Big"]).await;
    assert!(code == 0 && told.lines().count() > 3 && told.contains("created by anonymous"), "{told}");
    let (code, told) = command(&service, &["delete", "Big"]).await;
    assert!(code == 0 && told.contains("The stream is deleted") && told.contains("it leaves "), "{told}");

    for (arguments, words) in [
        (&["deploy", "nobody"][..], "there is no stream `nobody`"),
        (&["delete", "nobody"], "there is no stream `nobody`"),
        (&["apply", "-f", "/nope"], "cannot read the folder /nope"),
    ] {
        let (code, told) = command(&service, arguments).await;
        assert!(code == 1 && told.contains(words), "{arguments:?}: {code} {told}");
    }
    for (url, words) in [("http://127.0.0.1:1", "does not answer"), ("127.0.0.1:1", "is no URL")] {
        let (code, told, error) = run(&stage.world, &["streams", "list", "--url", url], "").await;
        assert!(code == 1 && error.contains(words), "{url}: {code} {told}{error}");
    }
}

/// The gate and the judgement of the engine let it through, the deployment does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_engine_refuses_to_run_fails_each_time_until_it_is_deployed_again() {
    let stage = Stage::new().await;
    // As long as by default what has failed is seen as failed: until a second look.
    let service = stage.start(&[("STREAMVIEW_MANAGER__RECONCILE_INTERVAL_MS", "5000")]).await;
    service.declare_orders().await;
    let body = json!({ "@type": "statement_error", "error_code": 40001, "message": "nothing may run here" });
    let words = "/ksql CREATE STREAM VIEW".to_owned();
    let refuse = vec![Refuse { words, times: None, status: 400, body, retry_after: None }];
    stage.ksqldb.switch(&Switches { refuse, ..Switches::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("Big.sql"), BIG).unwrap();

    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert!(
        code == 1 && told.contains("stream Big failed: ") && told.contains("nothing may run here"),
        "{code} {told}"
    );
    // It is written down as its file says now, and stands failed: nobody tries it unasked.
    let words = "stream Big failed: its text could not be brought to run: nothing may run here; \
                 `streamview streams deploy 'Big'` tries it again";
    for arguments in [&["apply", "-f", path][..], &["apply", "-f", path, "--dry-run"], &["plan", "-f", path]] {
        let (code, told) = command(&service, arguments).await;
        assert!(code == 1 && told.contains(words), "{arguments:?}: {code} {told}");
    }
    let (code, told) = as_json(&service, &["apply", "-f", path]).await;
    assert_eq!((code, &told["items"][0]["outcome"]), (1, &json!("failed")), "{told}");
    let listed = service.get("/api/streams").await.must(200).body;
    let stream = &listed["items"][0];
    assert_eq!((&stream["wanted"], &stream["failedRevision"]), (&json!("running"), &json!(1)), "{stream}");
    std::fs::write(folder.path().join("Big.sql"), format!("-- wanted: draft\n{BIG}")).unwrap();
    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert_eq!((code, told.as_str()), (0, "stream Big unchanged\n"), "a draft is left as it is, whatever it does");

    // Whoever has it stopped gets what they ask for, also while it is still seen as failed.
    let (code, told) = command(&service, &["deploy", "big"]).await;
    assert!(code == 1 && told.contains("nothing may run here"), "{code} {told}");
    let (code, told) = command(&service, &["stop", "Big"]).await;
    assert!(code == 0 && told.contains("Big is wanted stopped"), "{code} {told}");

    stage.ksqldb.switch(&Switches::default()).unwrap();
    std::fs::write(folder.path().join("Big.sql"), BIG).unwrap();
    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert!(code == 0 && told.contains("stream Big changed: Big is wanted running"), "{code} {told}");
    let (code, told) = command(&service, &["apply", "-f", path]).await;
    assert_eq!((code, told.as_str()), (0, "stream Big unchanged\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_words_fails_in_json_and_tells_it_all() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    // The engine knows the source from here on, so it judges what selects from it.
    service.running("Big", BIG).await;
    service.create("Bad", "SELECT NOTHING FROM orders").await;
    let (code, told) = command(&service, &["plan", "Bad"]).await;
    assert!(code == 1 && told.contains("Bad would be refused"), "{code} {told}");
    let (code, plan) = as_json(&service, &["plan", "Bad"]).await;
    assert_eq!((code, plan["refused"].as_array().unwrap().len()), (1, 1), "{plan}");
    let (code, plan) = as_json(&service, &["plan", "Big"]).await;
    assert_eq!((code, &plan["effect"]), (0, &json!("nothing")), "{plan}");

    // No file has become anybody's stream, so nothing is pruned; what became of the files is told all the same.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("astray.sql"), "SELECT * FROM elsewhere").unwrap();
    let (code, told) = as_json(&service, &["apply", "--prune", "-f", folder.path().to_str().unwrap()]).await;
    let outcomes: Vec<(&Value, &Value)> =
        told["items"].as_array().unwrap().iter().map(|item| (&item["name"], &item["outcome"])).collect();
    assert_eq!((code, outcomes), (1, vec![(&json!("astray"), &json!("failed"))]), "{told}");
}
