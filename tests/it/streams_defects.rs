//! Defects of the stream manager that this one follows, as far as they are seen over HTTP: each by its number in the list of what its
//! users suffer from, and none of them here.

use serde_json::{Value, json};

use crate::streams::{BIG, BIGGER, Stage};
use crate::support::{PATIENCE, until};

/// The streams that ksqlDB knows, by asking it.
async fn views_in_ksqldb(stage: &Stage) -> Vec<String> {
    let asked = reqwest::Client::new().post(format!("{}/ksql", stage.ksqldb.url()));
    let answer: Value = asked
        .json(&json!({ "ksql": "SHOW STREAMS;", "streamsProperties": {} }))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let streams = answer[0]["streams"].as_array().cloned().unwrap_or_default();
    let names = streams.iter().filter_map(|stream| stream["name"].as_str().map(str::to_uppercase));
    names.filter(|name| name.contains("VIEW_")).collect()
}

/// Statements that nobody of ours has asked for.
async fn by_hand(stage: &Stage, statement: &str) -> Value {
    let asked = reqwest::Client::new().post(format!("{}/ksql", stage.ksqldb.url()));
    let body = json!({ "ksql": statement, "streamsProperties": {} });
    asked.json(&body).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_1_a_second_statement_behind_a_semicolon_is_not_deployed() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    for text in [
        format!("{BIG}; DROP STREAM orders;"),
        format!("{BIG} EMIT CHANGES; CREATE STREAM stolen AS SELECT * FROM orders"),
        format!("{BIG} -- ;\n; DROP STREAM orders"),
    ] {
        let refused = service.post("/api/streams", json!({ "name": "One", "sqlScript": text })).await;
        assert_eq!((refused.status, refused.code()), (422, "statement_refused"), "{text}: {}", refused.body);
    }
    assert!(service.get("/api/streams").await.body["items"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_6_a_stream_that_is_stopped_and_deployed_again_is_the_same_one() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.running("One", BIG).await;
    let topic = service.get(&path).await.body["outputTopic"].clone();
    for _ in 0..2 {
        service.call("POST", &format!("{path}/stop"), None, &[]).await;
        service
            .until(&path, "it has stopped", |stream| stream["isSettled"] == true && stream["wanted"] == "stopped")
            .await;
        service.call("POST", &format!("{path}/deploy"), None, &[]).await;
        let runs = service.until_state(&path, "running").await;
        assert_eq!(runs["outputTopic"], topic);
    }
    let views = views_in_ksqldb(&stage).await;
    assert_eq!(views.len(), 1, "one stream and one topic, however often it was deployed: {views:?}");
    // Other tests have topics on the same brokers; in this engine nothing is left over, and the stream's own topic is none.
    let orphans = service.get("/api/orphans").await.must(200).body;
    let is_ours = |orphan: &Value| orphan["kind"] == "job" || orphan["id"] == topic;
    assert!(!orphans["items"].as_array().unwrap().iter().any(is_ours), "{orphans}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_7_a_running_stream_that_is_changed_runs_on_and_its_text_is_judged() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let path = service.running("One", BIG).await;
    let refused = service.put(&path, json!({ "sqlScript": "DROP STREAM orders" })).await;
    assert_eq!((refused.status, refused.code()), (422, "statement_refused"), "{}", refused.body);
    let unknown =
        service.put(&path, json!({ "sqlScript": "SELECT NOTHING FROM orders", "acceptStateLoss": true })).await;
    assert_eq!((unknown.status, unknown.code()), (422, "statement_refused"), "the engine judges it: {}", unknown.body);
    assert_eq!(service.get(&path).await.body["revision"], 1);

    let changed = service.put(&path, json!({ "sqlScript": BIGGER, "acceptStateLoss": true })).await;
    assert!(matches!(changed.status, 200 | 202), "{}", changed.body);
    let is_new =
        |stream: &Value| stream["deployedRevision"] == 2 && stream["state"] == "running" && stream["isSettled"] == true;
    let stream = service.until(&path, "the new text runs", is_new).await;
    assert_eq!((&stream["wanted"], &stream["isActive"]), (&json!("running"), &json!(true)));
    let before = stage.records(stream["outputTopic"].as_str().unwrap()).await.unwrap();
    stage.publish(&[(1, "700"), (2, "1700")]).await;
    service.until_records(stream["outputTopic"].as_str().unwrap(), before + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_8_what_is_said_to_be_active_is_what_the_engine_does() {
    let stage = Stage::new().await;
    let service = stage.start(&[("STREAMVIEW_MANAGER__HEAL_DRIFT", "false")]).await;
    service.declare_orders().await;
    let path = service.running("One", BIG).await;
    let query = service.get(&path).await.body["jobId"].as_str().unwrap().to_owned();
    by_hand(&stage, &format!("TERMINATE {query};")).await;
    let drifted = service.until(&path, "it is seen to run no more", |stream| stream["isActive"] == false).await;
    assert_eq!(drifted["wanted"], "running");
    assert!(drifted["drift"].is_string() || drifted["lastError"].is_string(), "it is told: {drifted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_9_a_deployment_that_fails_and_one_that_is_stopped_free_their_place() {
    let stage = Stage::new().await;
    let service = stage.start(&[("STREAMVIEW_MANAGER__LIMITS__STREAMS_PER_USER", "1")]).await;
    service.declare_orders().await;
    // The engine refuses it when it is deployed: the column is unknown to it.
    let bad = service.create("Bad", "SELECT NOTHING FROM orders").await;
    for _ in 0..3 {
        let refused = service.call("POST", &format!("{bad}/deploy"), None, &[]).await;
        assert_eq!((refused.status, refused.code()), (422, "statement_refused"), "{}", refused.body);
    }
    let one = service.running("One", BIG).await;
    let two = service.create("Two", BIG).await;
    let full = service.call("POST", &format!("{two}/deploy"), None, &[]).await;
    assert_eq!((full.status, full.code()), (409, "stream_limit_reached"), "{}", full.body);
    assert_eq!((&full.body["setting"], &full.body["limit"]), (&json!("manager.limits.streams_per_user"), &json!(1)));
    service.call("POST", &format!("{one}/stop"), None, &[]).await;
    service.until(&one, "it has stopped", |stream| stream["isSettled"] == true && stream["wanted"] == "stopped").await;
    let deployed = service.call("POST", &format!("{two}/deploy"), None, &[]).await;
    assert!(matches!(deployed.status, 200 | 202), "the place is free without a deletion: {}", deployed.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_10_what_the_engine_says_of_a_statement_reaches_its_author() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let tried = service.post("/api/test/query", json!({ "query": "SELECT NOTHING FROM orders" })).await;
    assert!(tried.body.to_string().to_uppercase().contains("NOTHING"), "{}", tried.body);
    assert!(tried.status == 422 || tried.body["end"] == "failed", "{}: {}", tried.status, tried.body);
    // Whoever queries has the source registered: now a check can ask the engine, too.
    let statement = json!({ "kind": "adhoc", "sqlScript": "SELECT NOTHING FROM orders" });
    let judged = service.post("/api/validate", statement).await.must(200).body;
    assert_eq!(judged["valid"], false, "{judged}");
    assert!(judged["errors"][0]["message"].as_str().unwrap().to_uppercase().contains("NOTHING"), "{judged}");

    stage.publish(&[(1, "600"), (2, "3"), (3, "700")]).await;
    let query = json!({ "query": BIG, "fromBeginning": true });
    let rows = service.post("/api/test/query", query).await.must(200).body;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2, "{rows}");
    until("no query is left", PATIENCE, || async { stage.ksqldb.live().unwrap().is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_markup_in_names_and_texts_is_text() {
    let stage = Stage::new().await;
    let service = stage.start_with_orders().await;
    let name = "<script>alert(1)</script>";
    let path = service.create(name, BIG).await;
    let read = service.get(&path).await.must(200);
    assert_eq!((read.body["name"].as_str().unwrap(), &*read.headers["content-type"]), (name, "application/json"));
    assert_eq!(&*read.headers["x-content-type-options"], "nosniff");
    assert!(read.headers["content-security-policy"].contains("default-src 'none'"));
    let topic = read.body["outputTopic"].as_str().unwrap();
    assert!(topic.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{topic}");
}
