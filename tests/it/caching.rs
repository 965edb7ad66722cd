//! What caches and proxies between us and a client may rely on.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rest::{header, link};
use crate::support::orders::{TestEvent, life};
use crate::support::world::{TestRecord, World};

/// Empties the view by hand, as the runbook told to before there were rebuilds.
const START_OVER: &str = "begin;
    truncate orders_1.orders, orders_1.order_items, orders_1.ledger;
    delete from projection_progress where view = 'orders';
    delete from held_keys where view = 'orders';
    delete from parked_events where view = 'orders';
    delete from dead_letters where view = 'orders';
    update decision_outcomes set taken_at = null, refused = null where view = 'orders';
    commit";

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_filled_again_under_other_rules_has_other_tags() {
    let world = World::new(1).await;
    let rate = |rate| [("STREAMVIEW_TAX__DEFAULT_RATE", rate)];
    let instance = world.start_with(&rate("0.19")).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    let before = instance.order_at("o-1", 3).await;
    let tag = header(&instance.get("/orders/o-1").await, "etag");
    instance.stop().await;

    world.sql.batch_execute(START_OVER).await.unwrap();
    let instance = world.start_with(&rate("0.07")).await;
    let after = instance.order_at("o-1", 3).await;
    assert_eq!(after["lastEventId"], before["lastEventId"]);
    assert_ne!(after["totalGross"], before["totalGross"], "the same events give other totals");
    let asked = instance.http.get(instance.url("/orders/o-1")).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(asked.status(), 200, "{tag}");
    assert_ne!(header(&asked, "etag"), tag);
    // And under the same rules the same again: nobody has to fetch what he has.
    instance.stop().await;
    world.sql.batch_execute(START_OVER).await.unwrap();
    let instance = world.start_with(&rate("0.19")).await;
    assert_eq!(instance.order_at("o-1", 3).await, before);
    let asked = instance.http.get(instance.url("/orders/o-1")).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(asked.status(), 304);
}

/// A proxy on a port of its own that serves what is below `/shop/streamview` from the instance, as any would that takes
/// a prefix off: what the client asks is passed on but for the prefix, what comes back as it is.
async fn prefixing_proxy(listener: TcpListener, instance: String) {
    while let Ok((mut client, _)) = listener.accept().await {
        let instance = instance.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let (method, rest) = head.split_once(' ').unwrap();
            let request = match rest.strip_prefix("/shop/streamview") {
                Some(rest) => format!("{method} {rest}").replacen("\r\n", "\r\nconnection: close\r\n", 1),
                None => {
                    return client.write_all(b"HTTP/1.1 404 Nothing here\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            };
            let mut upstream = TcpStream::connect(instance).await.unwrap();
            upstream.write_all(request.as_bytes()).await.unwrap();
            tokio::io::copy(&mut upstream, &mut client).await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_leads_through_the_prefix_of_a_proxy() {
    let world = World::new(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public_url = format!("http://{}/shop/streamview", listener.local_addr().unwrap());
    let instance = world.start_with(&[("STREAMVIEW_HTTP__PUBLIC_URL", &public_url)]).await;
    let proxy = tokio::spawn(prefixing_proxy(listener, instance.address.clone()));
    let (orders, gaps) = (["a", "b/c", "d"].map(|id| life(id, 3)), ["g-1", "g-2"].map(|id| life(id, 3)));
    let mut records: Vec<_> = orders.iter().flatten().map(TestEvent::record).collect();
    records.extend(gaps.iter().flat_map(|events| [events[0].record(), events[2].record()]));
    records.extend(["x", "y"].map(|id| TestRecord { payload: Some(b"{".to_vec()), ..life(id, 1)[0].record() }));
    world.publish(records.clone()).await;
    world.until_consumed(records.len() as i64).await;

    let client = reqwest::Client::new();
    for list in [
        "/orders?pageSize=1",
        "/orders/b%2Fc/events?pageSize=1",
        "/ops/held?pageSize=1",
        "/ops/dead-letters?pageSize=1",
    ] {
        let mut at = format!("{public_url}{list}");
        let mut pages = 0;
        loop {
            let page = client.get(&at).send().await.unwrap();
            assert_eq!(page.status(), 200, "{at}");
            pages += 1;
            for relation in ["first", "next", "prev"] {
                let target = link(&page, relation);
                assert!(target.is_none_or(|target| target.starts_with(&public_url)), "{at}: {:?}", page.headers());
            }
            let Some(next) = link(&page, "next") else { break };
            at = next;
        }
        assert!(pages > 1, "{list} has {pages} pages");
    }
    // A redirect, and the pages for people.
    let docs = client.get(format!("{public_url}/docs")).send().await.unwrap();
    assert_eq!((docs.status().as_u16(), docs.url().as_str()), (200, format!("{public_url}/docs/").as_str()));
    let script = client.get(format!("{public_url}/docs/swagger-initializer.js")).send().await.unwrap();
    assert!(script.text().await.unwrap().contains("\"../openapi.json\""), "relative to the page");
    for (page, to) in [("/problems", "problems/not_found"), ("/problems/not_found", "../problems")] {
        let page = client.get(format!("{public_url}{page}")).send().await.unwrap();
        let target = page.url().join(to).unwrap();
        assert!(page.text().await.unwrap().contains(&format!("href=\"{to}\"")));
        assert_eq!(client.get(target.clone()).send().await.unwrap().status(), 200, "{target}");
    }
    let document: Value = client.get(format!("{public_url}/openapi.json")).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["servers"], json!([{ "url": public_url }]));
    // Anybody can say where he came through: nobody is believed.
    let forged =
        [("x-forwarded-prefix", "/evil"), ("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
    let request = forged
        .iter()
        .fold(client.get(instance.url("/orders?pageSize=1")), |request, (name, value)| request.header(*name, *value));
    let links = header(&request.send().await.unwrap(), "link");
    assert!(links.contains(&public_url) && !links.contains("evil"), "{links}");
    proxy.abort();
}
