//! What caches and proxies between us and a client may rely on.

use crate::rest::header;
use crate::support::orders::{TestEvent, life};
use crate::support::world::World;

/// The statements of the runbook that empty a view.
fn start_over() -> &'static str {
    let page = include_str!("../../docs/operations.md");
    let (_, section) = page.split_once("### Starting again from an empty view").unwrap();
    let (_, block) = section.split_once("```sql\n").unwrap();
    block.split_once("```").unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_filled_again_under_other_rules_has_other_tags() {
    let world = World::new(1).await;
    let rate = |rate| [("STREAMVIEW_TAX__DEFAULT_RATE", rate)];
    let instance = world.start_with(&rate("0.19")).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    let before = instance.order_at("o-1", 3).await;
    let tag = header(&instance.get("/orders/o-1").await, "etag");
    instance.stop().await;

    world.sql.batch_execute(start_over()).await.unwrap();
    let instance = world.start_with(&rate("0.07")).await;
    let after = instance.order_at("o-1", 3).await;
    assert_eq!(after["lastEventId"], before["lastEventId"]);
    assert_ne!(after["totalGross"], before["totalGross"], "the same events give other totals");
    let asked = instance.http.get(instance.url("/orders/o-1")).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(asked.status(), 200, "{tag}");
    assert_ne!(header(&asked, "etag"), tag);
    // And under the same rules the same again: nobody has to fetch what he has.
    instance.stop().await;
    world.sql.batch_execute(start_over()).await.unwrap();
    let instance = world.start_with(&rate("0.19")).await;
    assert_eq!(instance.order_at("o-1", 3).await, before);
    let asked = instance.http.get(instance.url("/orders/o-1")).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(asked.status(), 304);
}
