//! Lists of orders: sorts, filters, pages, cursors, totals.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rest::link;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, status_changed};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|order| order["orderId"].as_str().unwrap().to_owned()).collect()
}

/// The pages from `path` on, following `relation`, with the path of the last one.
async fn walk(instance: &Instance, path: &str, relation: &str) -> (Vec<Vec<String>>, String) {
    let (mut pages, mut next) = (Vec::new(), path.to_owned());
    loop {
        let response = instance.get(&next).await;
        assert_eq!(response.status(), StatusCode::OK, "{next}");
        let following = link(&response, relation);
        pages.push(ids(&response.json().await.unwrap()));
        match following {
            Some(following) => next = following,
            None => return (pages, next),
        }
    }
}

/// Orders of several customers, statuses and amounts, with equal times and totals among them.
fn assortment(orders: i64) -> Vec<TestEvent> {
    let mut events = Vec::new();
    for n in 0..orders {
        let order = format!("o-{n:03}");
        let items =
            json!([{ "itemId": "i", "sku": "s", "qty": 1, "price": format!("{}.5", n % 13 - 3), "taxRate": "0.1" }]);
        let time = |n: i64| json!(format!("2026-01-{:02}T00:00:00.{:06}Z", n % 9 + 1, n % 2));
        if n % 10 == 9 {
            events.push(item_added(&order, 1).with("occurredAt", time(n))); // neither status nor customer nor currency
            continue;
        }
        let create = created(&order).with("items", items).with("customerId", format!("c {}&é", n % 4).into());
        events.push(create.with("occurredAt", time(n)));
        if n % 3 > 0 {
            let status = ["Paid", "Shipped & gone"][n as usize % 2];
            events.push(status_changed(&order, 2, status).with("occurredAt", time(n)));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_and_filter_gives_what_plain_sql_gives_on_pages_forward_and_backward() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = assortment(100);
    world.publish(events.iter().map(TestEvent::record)).await;
    world.until_consumed(events.len() as i64).await;
    let sorts = [
        ("updatedAt", "updated_at"),
        ("orderId", "order_id"),
        ("totalNet", "total_net"),
        ("totalGross", "total_gross"),
    ];
    let filters = [
        ("", "true"),
        ("status=Paid", "status = 'Paid'"),
        ("status=Paid&status=Created", "status in ('Paid', 'Created')"),
        ("status=Shipped%20%26%20gone", "status = 'Shipped & gone'"),
        ("status=Unheard", "false"),
        ("customerId=c+1%26%C3%A9", "customer_id = 'c 1&é'"),
        ("from=2026-01-03T00:00:00.000001Z", "updated_at >= '2026-01-03T00:00:00.000001Z'"),
        ("to=2026-01-03T00:00:00.000001Z", "updated_at < '2026-01-03T00:00:00.000001Z'"),
        (
            "from=2026-01-02T01:00:00%2B01:00&to=2026-01-08T00:00:00Z",
            "updated_at >= '2026-01-02Z' and updated_at < '2026-01-08Z'",
        ),
        (
            "status=Paid&customerId=c%201%26%C3%A9&from=2026-01-02T00:00:00Z",
            "status = 'Paid' and customer_id = 'c 1&é' and updated_at >= '2026-01-02Z'",
        ),
    ];
    for (sort, column) in sorts {
        for (minus, direction) in [("", "asc"), ("-", "desc")] {
            for (filter, condition) in filters {
                let query = format!(
                    "select order_id from orders_view where {condition} order by {column} {direction}, order_id {direction}"
                );
                let rows = world.sql.query(&query, &[]).await.unwrap();
                let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                let list = format!("/orders?{filter}&sort={minus}{sort}");

                let (pages, last) = walk(&instance, &format!("{list}&pageSize=17"), "next").await;
                assert_eq!(pages.concat(), expected, "{list}");
                assert!(pages.iter().rev().skip(1).all(|page| page.len() == 17), "{list}");
                let (back, first) = walk(&instance, &last, "prev").await;
                let back: Vec<String> = back.into_iter().rev().flatten().collect();
                assert_eq!(back, expected, "{list}, backward from {last}");
                let numbered = instance.json(&format!("{list}&pageSize=17&page=2")).await;
                assert_eq!(
                    ids(&numbered),
                    expected.iter().skip(17).take(17).cloned().collect::<Vec<_>>(),
                    "{list}, page 2"
                );
                assert_eq!((&numbered["total"], &numbered["totalIsEstimate"]), (&expected.len().into(), &false.into()));
                assert_eq!((&numbered["page"], &numbered["pageSize"]), (&2.into(), &17.into()));
                if first != last {
                    assert_eq!(
                        instance.json(&first).await["page"],
                        Value::Null,
                        "a page reached by a cursor has no number"
                    );
                }
            }
        }
    }
    // Without parameters: the latest first.
    assert_eq!(instance.json("/orders").await, instance.json("/orders?sort=-updatedAt&page=1&pageSize=50").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_walk_sees_each_unchanged_order_once_while_others_change() {
    let world = World::new(2).await;
    let instance = world.start().await;
    // Moving orders lie between the still ones in every sort; the first and the last are still.
    let orders: Vec<String> =
        (0..=120).map(|n| format!("o-{n:03}-{}", if n % 2 == 0 { "still" } else { "moving" })).collect();
    let price = |n: usize| match n {
        0 => -1_000_000,
        120 => 1_000_000,
        _ => n as i64,
    };
    let seeded = orders.iter().enumerate().map(|(n, order)| {
        let items = json!([{ "itemId": "i", "sku": "s", "qty": 1, "price": price(n) }]);
        created(order)
            .with("items", items)
            .with("occurredAt", format!("2026-01-01T00:{:02}:{:02}Z", n / 60, n % 60).into())
    });
    world.publish(seeded.map(|event| event.record())).await;
    world.until_consumed(121).await;
    let is_still = |order: &String| order.ends_with("still");
    let still: BTreeSet<&String> = orders.iter().filter(|order| is_still(order)).collect();
    let walking = AtomicBool::new(true);
    let writes = async {
        let moving: Vec<&String> = orders.iter().filter(|order| !is_still(order)).collect();
        for sequence in 2.. {
            let changes = moving.iter().enumerate().map(|(n, order)| {
                // Up and down in time order and totals alike.
                let event = item_added(order, sequence).with("price", ((sequence + n as i64) % 7 * 40 - 120).into());
                event.with("occurredAt", format!("2026-01-01T00:01:{:02}Z", (sequence + n as i64) % 60).into())
            });
            world.publish(changes.map(|event| event.record())).await;
            if !walking.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    let walks = async {
        for sort in ["updatedAt", "-updatedAt", "orderId", "-orderId", "totalNet", "-totalGross"] {
            // Walks on until something was written meanwhile: each walk has to be right.
            let before = world.consumed().await;
            while world.consumed().await == before {
                let (pages, last) = walk(&instance, &format!("/orders?sort={sort}&pageSize=7"), "next").await;
                let (back, _) = walk(&instance, &last, "prev").await;
                let forward: Vec<String> = pages.concat().into_iter().filter(is_still).collect();
                assert_eq!(forward.len(), still.len(), "{sort}: one was skipped or repeated");
                assert_eq!(forward.iter().collect::<BTreeSet<_>>(), still, "{sort}");
                // The page that was the last one may have got successors since: from wherever it ends, all before it.
                let backward: Vec<String> = back.into_iter().rev().flatten().filter(is_still).collect();
                assert!(backward.len() > 50, "{sort}: {backward:?}");
                assert_eq!(backward, forward[..backward.len()], "{sort}, backward");
            }
        }
        walking.store(false, Ordering::Relaxed);
    };
    tokio::join!(writes, walks);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_size_page_and_depth_work_up_to_their_limits_and_not_beyond() {
    let world = World::new(1).await;
    let settings = [
        ("STREAMVIEW_HTTP__MAX_OFFSET", "40"),
        ("STREAMVIEW_HTTP__MAX_PAGE_SIZE", "20"),
        ("STREAMVIEW_HTTP__DEFAULT_PAGE_SIZE", "10"),
    ];
    let instance = world.start_with(&settings).await;
    let orders: Vec<TestEvent> = (0..60).map(|n| created(&format!("o-{n:02}"))).collect();
    world.publish(orders.iter().map(TestEvent::record)).await;
    world.until_consumed(60).await;

    for (query, first, length) in [
        ("", "o-00", 10),
        ("&pageSize=20", "o-00", 20),
        ("&pageSize=1&page=41", "o-40", 1),
        ("&page=5", "o-40", 10),
        ("&pageSize=20&page=3", "o-40", 20),
    ] {
        let page = ids(&instance.json(&format!("/orders?sort=orderId{query}")).await);
        assert_eq!((page[0].as_str(), page.len()), (first, length), "{query}");
    }
    for (query, code, parameter, allowed) in [
        ("pageSize=21", "invalid_parameter", "pageSize", "from 1 to 20"),
        ("pageSize=0", "invalid_parameter", "pageSize", "from 1 to 20"),
        ("page=0", "invalid_parameter", "page", "from 1 to"),
        ("page=6", "offset_too_deep", "page", "from 1 to 5"),
        ("pageSize=1&page=42", "offset_too_deep", "page", "from 1 to 41"),
        ("page=18446744073709551615", "offset_too_deep", "page", "from 1 to 5"),
        ("page=18446744073709551616", "invalid_parameter", "page", "whole number"),
    ] {
        let problem = instance.refusal(&format!("/orders?{query}"), 400).await;
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["parameter"]),
            (&code.into(), &parameter.into()),
            "{query}"
        );
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(allowed), "{query}: {problem}");
    }
    // A page past the end is empty; from the deepest page the link leads on.
    let (pages, _) = walk(&instance, "/orders?sort=orderId&page=5", "next").await;
    assert_eq!(pages.concat().len(), 20);
    let history = instance.json("/orders/o-00/events?pageSize=20").await;
    assert_eq!(history["pageSize"], 20);
    assert_eq!(instance.refusal("/orders/o-00/events?pageSize=21", 400).await["code"], "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_of_very_many_is_an_estimate_of_the_last_five_seconds() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let fill = "insert into orders_1.orders
                select 'o-' || n, 1, 0, now(), 0, 0, 'Bulk', null, null, 'none', 'e-' || n, 'e-' || n, '{}'
                from generate_series(1, 60000) n";
    world.sql.batch_execute(fill).await.unwrap();
    world.sql.batch_execute("analyze orders_1.orders").await.unwrap();
    let list = "/orders?status=Bulk&pageSize=1";
    let page = instance.json(list).await;
    assert_eq!(page["totalIsEstimate"], true);
    assert!(page["total"].as_i64().unwrap() > 50_000, "{page}");

    // Up to 10,000 it is counted each time.
    world.sql.batch_execute("delete from orders_1.orders where order_id > 'o-12'").await.unwrap();
    world.sql.batch_execute("vacuum analyze orders_1.orders").await.unwrap();
    let left: i64 = world.sql.query_one("select count(*) from orders_view", &[]).await.unwrap().get(0);
    let changed = Instant::now();
    until("the total is exact", PATIENCE, || async {
        let asked = changed.elapsed();
        let page = instance.json(list).await;
        // However slow the machine: whoever asks five seconds after the last question gets no estimate of before.
        assert!(page["totalIsEstimate"] == false || asked <= Duration::from_secs(5), "{asked:?}: {page}");
        (page["totalIsEstimate"] == false).then(|| assert_eq!(page["total"], left))
    })
    .await;
    world.sql.batch_execute("delete from orders_1.orders where order_id > 'o-11'").await.unwrap();
    let left: i64 = world.sql.query_one("select count(*) from orders_view", &[]).await.unwrap().get(0);
    assert_eq!(instance.json(list).await["total"], left, "an exact total is one of now");
}
