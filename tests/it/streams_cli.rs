//! `streamview streams`: files under version control, applied to a running service.

use serde_json::{Value, json};

use crate::cli::run;
use crate::streams::{BIG, BIGGER, Service, Stage};

/// A command against the service; its exit code and all that it prints.
async fn command(service: &Service<'_>, arguments: &[&str]) -> (i32, String) {
    let url = service.instance.url("");
    let arguments = [&["streams", "--url", url.as_str()], arguments].concat();
    let (code, out, error) = run(&service.stage.world, &arguments, "").await;
    (code, format!("{out}{error}"))
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
