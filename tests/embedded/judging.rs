//! Texts that would take all of the process they are judged in are refused, and nobody else notices.

use serde_json::json;

use crate::support::world::World;

/// Queries behind FROM, each over the one before, which is called `{}`.
fn chain(next: &str, steps: usize) -> String {
    let step = |number: usize| format!(",s{number} as({})", next.replace("{}", &format!("s{}", number - 1)));
    let steps_of_it: String = (1..=steps).map(step).collect();
    format!("with s0 as(select id as x from orders){steps_of_it} select x from s{steps}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_takes_all_it_can_get_is_refused_and_ends_no_process() {
    let world = World::new(1).await;
    let instance = world.launch(&[
        ("STREAMVIEW_MANAGER__ENABLED", "true"),
        ("STREAMVIEW_MANAGER__LIMITS__QUERY_CHARACTERS", "65536"),
        ("STREAMVIEW_MANAGER__LIMITS__DEPTH", "128"),
    ]);
    instance.until_ready().await;
    let columns = json!([{ "name": "id", "type": "bigint" }, { "name": "customer", "type": "string" }]);
    let source = json!({ "topic": world.topic, "format": "json", "columns": columns });
    let put = instance.http.put(instance.url("/api/catalog/orders")).json(&source).send().await.unwrap();
    assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    let instance = &instance;
    let judged = async move |sql: &str| {
        let ask = json!({ "engine": "embedded", "kind": "persistent", "sqlScript": sql });
        let judgement = instance.posted("/api/validate", &ask, 200).await;
        assert_eq!(judgement["checkedBy"], "engine", "{judgement}");
        let fault = &judgement["errors"][0];
        [&fault["code"], &fault["message"]].map(|text| text.as_str().unwrap_or_default().to_owned())
    };
    let simplified = (0..24).fold("customer".to_owned(), |expr, _| format!("coalesce({expr}, 'a')"));
    let simplified = format!("select {simplified} as x from orders");
    let [memory, stack, time] = [
        chain("select x from {} union all select x from {}", 40),
        chain("select x from {}", 2_000),
        chain("select struct(x,x)as x from {}", 40),
    ];
    // No more at once than are judged at once.
    let takes = |what: &str| format!("the statement takes more than {what}");
    let (room, seconds) = (takes("256 MB to be judged, or is too deep"), takes("5 s of a core"));
    for (one, other) in [(&memory, &stack), (&time, &simplified)] {
        let (one, other) = tokio::join!(judged(one), judged(other));
        for [code, message] in [one, other] {
            assert_eq!(code, "limit_exceeded", "{message}");
            assert!(message.starts_with(&room) || message.starts_with(&seconds), "{message}");
        }
    }
    let fine = chain("select x + x as x from {}", 5);
    assert_eq!(judged(&fine).await, ["", ""], "their turns are free again");
    assert!(instance.exit_status().is_none(), "{}", instance.log_text());
}
