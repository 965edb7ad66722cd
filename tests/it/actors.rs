//! Whose a call is: who has logged in, whatever the body says; and that a repeated call is nobody else's.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{created, item_added, life};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// An API key of that name.
fn key_of(world: &World, name: &str, role: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let arguments = ["apikey", "create", "--name", name, "--role", role];
    let output = command.args(arguments).envs(world.environment()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Somebody who has logged in.
struct Person<'a> {
    instance: &'a Instance,
    key: String,
}

impl Person<'_> {
    /// A call, perhaps with an idempotency key; its status, whether the answer is an earlier one, and the answer.
    async fn call(&self, path: &str, body: &Value, once: Option<&str>) -> (u16, bool, Value) {
        let request = self.instance.http.post(self.instance.url(path)).bearer_auth(&self.key).json(body);
        let request = match once {
            Some(once) => request.header("Idempotency-Key", once),
            None => request,
        };
        let response = request.send().await.unwrap();
        let is_replayed = response.headers().contains_key("idempotent-replayed");
        (response.status().as_u16(), is_replayed, response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.instance.http.get(self.instance.url(path)).bearer_auth(&self.key).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }
}

/// The same call with the same idempotency key: the one who has made it gets its answer, another one does not.
async fn assert_is_of(ada: &Person<'_>, eve: &Person<'_>, (path, body): (&str, &Value), answer: &Value) {
    let (status, is_replayed, again) = ada.call(path, body, Some(path)).await;
    assert!(status < 300 && is_replayed && again == *answer, "{path}: {status} {again}");
    let (status, is_replayed, refused) = eve.call(path, body, Some(path)).await;
    assert_eq!((status, is_replayed, &refused["code"]), (422, false, &json!("idempotency_key_reused")), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_logged_in_decides_and_the_body_says_for_whom() {
    let world = World::new(1).await;
    let keys = ["ada", "eve"].map(|name| key_of(&world, name, "operator"));
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let [ada, eve] = keys.map(|key| Person { instance: &instance, key });
    world.publish([created("o-1").record(), item_added("o-1", 3).record(), created("o-2").record()]).await;
    world.until_consumed(3).await;
    let why = json!({ "reason": "lost", "actor": "night shift" });
    let of_ada = (json!("ada"), json!("night shift"));
    let who = |body: &Value| (body["actor"].clone(), body["onBehalfOf"].clone());

    // Decisions.
    let path = "/ops/held/o-1/skip";
    let (status, _, decided) = ada.call(path, &why, Some(path)).await;
    assert_eq!((status, who(&decided["decisions"][0])), (202, of_ada.clone()), "{decided}");
    assert_is_of(&ada, &eve, (path, &why), &decided).await;
    let listed = &eve.get("/ops/decisions?actor=ada").await["items"];
    assert_eq!((listed.as_array().unwrap().len(), who(&listed[0])), (1, of_ada.clone()), "{listed}");
    assert_eq!(eve.get("/ops/decisions?actor=night%20shift").await["items"], json!([]));
    until("the order goes on", PATIENCE, || async {
        (ada.get("/orders/o-1").await["lastEventSequence"] == 3).then_some(())
    })
    .await;

    // Operations: begun, asked for something, and such that change nothing.
    let (path, body) = ("/ops/verify", json!({ "reason": "to see", "actor": "night shift", "key": "o-2" }));
    let (status, _, begun) = ada.call(path, &body, Some(path)).await;
    assert_eq!((status, who(&begun)), (202, of_ada.clone()), "{begun}");
    assert_is_of(&ada, &eve, (path, &body), &begun).await;
    until_phase(&eve, &begun, "done").await;
    let (path, body) = ("/ops/views/rebuild", json!({ "reason": "new", "cutover": "manual", "actor": "night shift" }));
    let (status, _, begun) = ada.call(path, &body, Some(path)).await;
    assert_eq!((status, who(&begun), &begun["askedBy"]), (202, of_ada.clone(), &json!(null)), "{begun}");
    until_phase(&eve, &begun, "ready").await;
    let cutover = format!("{}/cutover", begun["href"].as_str().unwrap());
    assert_eq!(eve.call(&cutover, &json!({}), None).await.0, 202);
    let switched = until_phase(&ada, &begun, "done").await;
    assert_eq!((who(&switched), &switched["askedBy"]), (of_ada.clone(), &json!("eve")), "{switched}");

    // A key that is mended tells nobody whose call it was, but it is not another one's.
    let path = "/ops/orders/o-2/rebuild";
    let (status, _, mended) = ada.call(path, &why, Some(path)).await;
    assert_eq!(status, 200, "{mended}");
    assert_is_of(&ada, &eve, (path, &why), &mended).await;

    // A view stands still and goes on.
    let path = "/ops/views/orders/pause";
    let (status, _, paused) = ada.call(path, &why, Some(path)).await;
    assert_eq!((status, who(&paused["paused"])), (200, of_ada.clone()), "{paused}");
    assert_is_of(&ada, &eve, (path, &why), &paused).await;
    until("the view tells of its pause", PATIENCE, || async {
        (who(&eve.get("/ops/views").await["items"][0]["paused"]) == of_ada).then_some(())
    })
    .await;
    let back = json!({ "reason": "mended", "actor": "day shift" });
    assert_eq!(eve.call("/ops/views/orders/resume", &back, None).await.0, 200);

    for (statement, stored) in [
        ("select actor, on_behalf_of from event_decisions", "ada night shift"),
        ("select actor, on_behalf_of, asked_by from operations where kind = 'rebuild'", "ada night shift eve"),
        (
            "select actor, on_behalf_of, resumed_by, resumed_on_behalf_of from view_pauses",
            "ada night shift eve day shift",
        ),
    ] {
        let row = world.row(statement).await;
        let words: Vec<&str> = (0..row.len()).map(|column| row.get(column)).collect();
        assert_eq!(words.join(" "), stored, "{statement}");
    }
}

async fn until_phase(person: &Person<'_>, operation: &Value, phase: &str) -> Value {
    until(&format!("the operation is {phase}"), PATIENCE, || async {
        let now = person.get(operation["href"].as_str().unwrap()).await;
        assert_ne!(now["state"], "failed", "{now}");
        (now["phase"] == phase).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_given_up_by_who_has_logged_in() {
    let world = World::new(1).await;
    let keys = ["ada", "eve"].map(|name| key_of(&world, name, "operator"));
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let [ada, eve] = keys.map(|key| Person { instance: &instance, key });
    world.publish(life("o-1", 3).iter().map(|event| event.record())).await;
    world.until_consumed(3).await;
    // It stands before a record that it cannot read, says the row.
    assert_eq!(ada.call("/ops/views/orders/pause", &json!({ "reason": "to stand" }), None).await.0, 200);
    world.publish([created("o-2").record()]).await;
    let block = "insert into blocked_partitions (view, build, topic, partition, next_offset, code, detail) \
                 select view, build, topic, partition, next_offset, 'unreadable_batch', 'rotten' from projection_progress";
    world.sql.batch_execute(block).await.unwrap();
    until("the end is known", PATIENCE, || async {
        (ada.get("/ops/lags").await["partitions"][0]["highWatermark"] == 4).then_some(())
    })
    .await;
    let body = json!({ "from": 3, "to": 4, "reason": "rotten", "actor": "night shift" });
    let path = "/ops/partitions/0/skip-to";
    let (status, _, skipped) = ada.call(path, &body, Some("once")).await;
    assert_eq!(status, 200, "{skipped}");
    let (status, _, again) = ada.call(path, &body, Some("once")).await;
    assert_eq!((status, &again["id"]), (200, &skipped["id"]), "{again}");
    let (status, _, refused) = eve.call(path, &body, Some("once")).await;
    assert_eq!((status, &refused["code"]), (422, &json!("idempotency_key_reused")), "{refused}");
    let row = world.row("select actor, on_behalf_of from skipped_ranges").await;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("ada", "night shift"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_and_revoked_by_who_has_logged_in() {
    let world = World::new(1).await;
    let key = key_of(&world, "root", "admin");
    let instance = world.start_with(&[("STREAMVIEW_AUTH__API_KEYS", "true")]).await;
    let root = Person { instance: &instance, key };
    let asked = json!({ "name": "checkout", "role": "reader", "actor": "team checkout" });
    let (status, _, made) = root.call("/ops/api-keys", &asked, None).await;
    let who = (&made["createdBy"], &made["onBehalfOf"], &made["revokedBy"]);
    assert_eq!((status, who), (201, (&json!("root"), &json!("team checkout"), &json!(null))), "{made}");
    let place = instance.url(&format!("/ops/api-keys/{}", made["id"]));
    for _ in 0..2 {
        let revoked = instance.http.request(Method::DELETE, &place).bearer_auth(&root.key).send().await.unwrap();
        assert_eq!(revoked.status(), 204);
    }
    let list = root.get("/ops/api-keys").await;
    assert_eq!(
        (&list["items"][0]["revokedBy"], &list["items"][1]["createdBy"]),
        (&json!("root"), &json!("command line"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_logs_in_an_actor_is_who_the_body_names() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    let why = json!({ "reason": "lost", "actor": "night shift" });
    let decided = &instance.posted("/ops/held/o-1/skip", &why, 202).await["decisions"][0];
    assert_eq!((&decided["actor"], &decided["onBehalfOf"]), (&json!("night shift"), &json!(null)), "{decided}");
    let paused = &instance.posted("/ops/views/orders/pause", &why, 200).await["paused"];
    assert_eq!((&paused["actor"], &paused["onBehalfOf"]), (&json!("night shift"), &json!(null)), "{paused}");
    let resumed = instance.posted("/ops/views/orders/resume", &json!({ "reason": "mended" }), 200).await;
    assert_eq!(resumed["paused"], json!(null));
    let row = world.row("select resumed_by, resumed_on_behalf_of from view_pauses").await;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, Option<&str>>(1)), ("anonymous", None));
}
