//! What every stream engine promises: the same tests for each, against the contract and a real Kafka. `engines.rs` says which
//! engine promises what.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamview::manager::engines::{
    Changes, Deployment, End, Handle, Item, ObservedState, RowKind, StopMode, Stopped, Trouble,
};

use crate::support::bench::{Stand, next};
use crate::support::{PATIENCE, until};

const HIGH_VALUE: &str = "SELECT order_id, customer, amount FROM orders WHERE amount > 50";

pub async fn explain_tells_columns_and_whether_rows_change(stand: Stand) {
    let explained = stand.engine().explain(&stand.persistent(HIGH_VALUE)).await.unwrap();
    let columns: Vec<String> =
        explained.columns.iter().map(|c| format!("{} {}", c.name.to_lowercase(), c.data_type)).collect();
    assert_eq!(columns, ["order_id bigint", "customer string", "amount decimal(20, 2)"]);
    assert_eq!((explained.changes, explained.only_adhoc), (Changes::Append, None));
    assert!(!explained.plan.is_empty());

    let sums = "SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer";
    let explained = stand.engine().explain(&stand.persistent(sums)).await.unwrap();
    assert_eq!((explained.changes, explained.only_adhoc), (Changes::Upsert, None));
}

pub async fn a_wrong_text_is_refused_with_its_place(stand: Stand) {
    let (sql, line, column) = stand.bench.unknown_column;
    let select = stand.persistent(sql);
    let refused = stand.engine().explain(&select).await.unwrap_err();
    let Trouble::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert!(refusal.message.to_lowercase().contains("nocol"), "{refusal:?}");
    assert!(!refusal.message.contains("Exception") && !refusal.message.contains('\n'), "{refusal:?}");
    assert_eq!((refusal.line, refusal.column), (Some(line), Some(column)));
}

pub async fn what_is_deployed_writes_its_rows_once(stand: Stand) {
    stand.publish([(1, "a", "10"), (2, "b", "70.5"), (3, "a", "99.99")]).await;
    let deployment = stand.plan_new(HIGH_VALUE).await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    assert_eq!(handle.output_topic, deployment.names.topic());
    assert_eq!(stand.until_output(&deployment, 2).await, [2, 3], "from the start of the source");
    assert_eq!(stand.output(&deployment)[0]["customer"], "b");

    // The answer was lost, and it is asked again.
    assert_eq!(stand.engine().deploy(&deployment).await.unwrap(), handle);
    stand.publish([(4, "c", "51")]).await;
    assert_eq!(stand.until_output(&deployment, 3).await, [2, 3, 4], "one query, not two");

    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Running);
    let details = stand.engine().details(&handle.job_id).await.unwrap();
    assert_eq!(details.failure, None);
    assert!(!details.topology.nodes.is_empty() && details.group.is_some(), "{details:?}");
    remove(&stand, &handle).await;
}

/// Stops with state, and goes on: paused, or from its restore point as the next attempt.
async fn stop_and_go_on(
    stand: &Stand,
    deployment: &Deployment,
    handle: &Handle,
    between: &[(i64, &str, &str)],
) -> (Deployment, Handle) {
    let stopped = stand.engine().stop(deployment, handle, StopMode::KeepState).await.unwrap();
    // Its answer was lost, and it is asked again.
    assert_eq!(stand.engine().stop(deployment, handle, StopMode::KeepState).await.unwrap(), stopped);
    stand.publish(between.iter().copied()).await;
    match stopped {
        Stopped::At(point) => {
            assert!(point.savepoint, "{point:?}");
            assert_ne!(stand.observed(&handle.job_id).await, ObservedState::Running);
            let next = Deployment { attempt: deployment.attempt + 1, restore: Some(point), ..deployment.clone() };
            let handle = stand.engine().deploy(&next).await.unwrap();
            (next, handle)
        }
        Stopped::Paused => {
            assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Paused);
            stand.engine().resume(handle).await.unwrap();
            (deployment.clone(), handle.clone())
        }
        Stopped::WithoutState => panic!("its state is lost"),
    }
}

pub async fn what_is_stopped_goes_on_without_loss_or_double(stand: Stand) {
    stand.publish([(1, "a", "60"), (2, "b", "10")]).await;
    let deployment = stand.plan_new(HIGH_VALUE).await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    stand.until_output(&deployment, 1).await;
    let (deployment, handle) = stop_and_go_on(&stand, &deployment, &handle, &[(3, "c", "70"), (4, "d", "20")]).await;
    stand.publish([(5, "e", "80")]).await;
    assert_eq!(stand.until_output(&deployment, 3).await, [1, 3, 5]);
    remove(&stand, &handle).await;
}

pub async fn sums_are_replaced_by_key_and_go_on_after_a_stop(stand: Stand) {
    stand.publish([(1, "a", "1"), (2, "a", "1"), (3, "b", "1")]).await;
    let deployment = stand.plan_new("SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer").await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    assert_eq!(handle.changes, Changes::Upsert);
    until_counts(&stand, &deployment, &[("a", 2), ("b", 1)]).await;
    let (deployment, handle) = stop_and_go_on(&stand, &deployment, &handle, &[(4, "a", "1")]).await;
    // Counted on from 2: what was before the stop is neither lost nor counted again.
    until_counts(&stand, &deployment, &[("a", 3), ("b", 1)]).await;
    remove(&stand, &handle).await;
}

/// The last count of each customer. Where the key is not among the values it stands in the record's key.
async fn until_counts(stand: &Stand, deployment: &Deployment, expected: &[(&str, u64)]) {
    let expected: BTreeSet<(String, u64)> = expected.iter().map(|(customer, n)| ((*customer).to_owned(), *n)).collect();
    until(&format!("the counts are {expected:?}"), PATIENCE * 2, || async {
        let mut last = std::collections::BTreeMap::new();
        for message in crate::support::world::records(&stand.world.kafka, &deployment.names.topic()) {
            use rdkafka::Message;
            let key = String::from_utf8_lossy(message.key().unwrap()).into_owned();
            let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
            let value: Value = value.as_object().unwrap().iter().map(|(k, v)| (k.to_lowercase(), v.clone())).collect();
            let customer = value["customer"].as_str().map_or(key, str::to_owned);
            last.insert(customer, value["n"].as_u64().unwrap());
        }
        (last.into_iter().collect::<BTreeSet<_>>() == expected).then_some(())
    })
    .await;
}

pub async fn an_update_keeps_the_state(stand: Stand) {
    stand.publish([(1, "a", "60"), (2, "b", "90")]).await;
    let old = stand.plan_new(HIGH_VALUE).await;
    let handle = stand.engine().deploy(&old).await.unwrap();
    assert_eq!(stand.until_output(&old, 2).await, [1, 2]);

    let text = "SELECT order_id, customer, amount FROM orders WHERE amount > 80";
    let mut new = stand.plan(&old.definition, 2, stand.persistent(text)).await;
    assert_eq!(stand.engine().keeps_state(&old.select, &new.select).await, Ok(()));
    if stand.engine().capabilities().await.unwrap().replaces_in_place {
        new.replaces = true;
    } else {
        let Stopped::At(point) = stand.engine().stop(&old, &handle, StopMode::KeepState).await.unwrap() else {
            panic!()
        };
        new.restore = Some(point);
    }
    let handle = stand.engine().deploy(&new).await.unwrap();
    stand.publish([(3, "c", "70"), (4, "d", "85")]).await;
    assert_eq!(stand.until_output(&new, 3).await, [1, 2, 4], "what was read stays read");
    remove(&stand, &handle).await;
}

pub async fn a_refused_update_leaves_the_old_one_running(stand: Stand) {
    let old = stand.plan_new(HIGH_VALUE).await;
    let handle = stand.engine().deploy(&old).await.unwrap();
    let (wrong, ..) = stand.bench.unknown_column;
    let can_replace = stand.engine().capabilities().await.unwrap().replaces_in_place;
    let new = Deployment { revision: 2, replaces: can_replace, select: stand.persistent(wrong), ..old.clone() };
    let refused = stand.engine().deploy(&new).await.unwrap_err();
    assert!(matches!(refused, Trouble::Refused(_)), "{refused:?}");
    stand.publish([(1, "a", "60")]).await;
    assert_eq!(stand.until_output(&old, 1).await, [1]);
    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Running);
    remove(&stand, &handle).await;
}

async fn remove(stand: &Stand, handle: &Handle) {
    stand.engine().remove(handle, &[]).await.unwrap();
    let state = stand.observed(&handle.job_id).await;
    assert!(matches!(state, ObservedState::Absent | ObservedState::Stopped), "{state:?}");
    stand.engine().remove(handle, &[]).await.unwrap();
}

pub async fn a_final_stop_ends_it_and_what_is_gone_has_stopped(stand: Stand) {
    let deployment = stand.plan_new(HIGH_VALUE).await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    for _ in 0..2 {
        let stopped = stand.engine().stop(&deployment, &handle, StopMode::Final).await.unwrap();
        assert_eq!(stopped, Stopped::WithoutState);
    }
    let never = Handle { job_id: "0".repeat(32), stream_name: "VIEW_NEVER_00000000".to_owned(), ..handle.clone() };
    stand.engine().remove(&never, &[]).await.unwrap();
    remove(&stand, &handle).await;
}

pub async fn a_query_gives_its_rows_and_keeps_every_digit(stand: Stand) {
    let orders = [(9_007_199_254_740_993, "a", "123456789012345678.10"), (i64::MIN, "b", "0.01"), (7, "c", "100")];
    stand.publish(orders).await;
    let query = stand.ad_hoc("SELECT order_id, customer, amount FROM orders LIMIT 3", true);
    let mut rows = stand.engine().query(query.clone()).await.unwrap();
    let Item::Header { columns, schema } = next(&mut rows).await else { panic!("the header comes first") };
    assert_eq!(columns.len(), 3);
    let shape = schema.to_lowercase();
    assert!(
        shape.starts_with("`order_id` bigint, `customer` ") && shape.ends_with("`amount` decimal(20, 2)"),
        "{schema}"
    );
    for expected in [
        json!(["9007199254740993", "a", "123456789012345678.10"]),
        json!(["-9223372036854775808", "b", "0.01"]),
        json!([7, "c", "100.00"]),
    ] {
        let Item::Row(row) = next(&mut rows).await else { panic!("a row comes") };
        assert_eq!((row.kind, Value::from(row.values)), (RowKind::Insert, expected));
    }
    assert_eq!(next(&mut rows).await, Item::End(End::Limit));
    until_over(&stand, &query.id).await;
}

/// Waits until the query is over in the engine; how long that took, and how long the slowest look.
async fn until_over(stand: &Stand, id: &str) -> (Duration, Duration) {
    let begun = Instant::now();
    let slowest = std::cell::Cell::new(Duration::ZERO);
    until("the query is over in the engine", PATIENCE, || async {
        let looked = Instant::now();
        let is_over = (stand.bench.is_over)(id.to_owned()).await;
        slowest.set(slowest.get().max(looked.elapsed()));
        is_over.then_some(())
    })
    .await;
    (begun.elapsed(), slowest.get())
}

pub async fn a_query_is_live_and_ends_with_its_reader(stand: Stand) {
    stand.publish([(1, "a", "60")]).await;
    let query = stand.ad_hoc("SELECT order_id FROM orders", true);
    let mut rows = stand.engine().query(query.clone()).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    for order in 1..=3 {
        let Item::Row(row) = next(&mut rows).await else { panic!("a row comes") };
        assert_eq!(row.values, [Value::from(order)]);
        stand.publish([(order + 1, "a", "60")]).await;
    }
    assert!(!(stand.bench.is_over)(query.id.clone()).await);
    drop(rows);
    // Two seconds, and what a machine with much else to do is late by: ending it takes a handful of requests.
    let (took, slowest) = until_over(&stand, &query.id).await;
    assert!(took < Duration::from_secs(2) + slowest * 5, "{took:?}, a look takes {slowest:?}");
}

pub async fn a_query_of_what_comes_now_leaves_out_what_was(stand: Stand) {
    stand.publish([(1, "a", "60")]).await;
    let query = stand.ad_hoc("SELECT order_id FROM orders", false);
    let mut rows = stand.engine().query(query).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    // Where it begins is where the topic ends when the engine first reads it: published until the first row is seen.
    let mut order = 1;
    let row = until("a row comes", PATIENCE, || {
        order += 1;
        let (stand, rows) = (&stand, &mut rows);
        let published = async move { stand.publish([(order, "a", "60")]).await };
        let read = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(rows));
        async move {
            published.await;
            read.flatten()
        }
    })
    .await;
    let Item::Row(row) = row else { panic!("{row:?}") };
    assert!(row.values[0].as_i64().unwrap() > 1, "{row:?}");
}

pub async fn a_query_ends_when_its_time_is_over(stand: Stand) {
    let mut query = stand.ad_hoc("SELECT order_id FROM orders", true);
    query.time_limit = Duration::from_millis(1_500);
    let mut rows = stand.engine().query(query.clone()).await.unwrap();
    let mut last = next(&mut rows).await;
    while !matches!(last, Item::End(_)) {
        last = next(&mut rows).await;
    }
    assert_eq!(last, Item::End(End::Limit));
    until_over(&stand, &query.id).await;
}

pub async fn a_query_that_fails_in_the_middle_says_why(stand: Stand) {
    stand.publish([(1, "a", "60")]).await;
    let query = stand.ad_hoc("SELECT order_id FROM orders", true);
    let mut rows = stand.engine().query(query.clone()).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    assert!(matches!(next(&mut rows).await, Item::Row(_)));
    (stand.bench.spoil)(&stand.world).await;
    let Item::End(End::Failed(why)) = next(&mut rows).await else { panic!("it fails") };
    assert!(!why.is_empty() && !why.contains('\n') && !why.contains("\tat "), "{why}");
    until_over(&stand, &query.id).await;
}

pub async fn a_wrong_query_is_refused_before_it_begins(stand: Stand) {
    let (sql, line, column) = stand.bench.unknown_column;
    let Err(refused) = stand.engine().query(stand.ad_hoc(sql, true)).await else { panic!("it begins") };
    let Trouble::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!((refusal.line, refusal.column), (Some(line), Some(column)), "{refusal:?}");
}

/// A test of each promise, for one engine.
macro_rules! conformance {
    ($engine:ident, $bench:path, [$($promise:ident),* $(,)?]) => {
        mod $engine {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    let world = crate::support::world::World::new(1).await;
                    let bench = $bench(&world).await;
                    let stand = crate::support::bench::Stand::new(bench, world).await;
                    crate::promises::$promise(stand).await;
                }
            )*
        }
    };
    ($engine:ident, $bench:path) => {
        conformance!($engine, $bench, [
            explain_tells_columns_and_whether_rows_change,
            a_wrong_text_is_refused_with_its_place,
            what_is_deployed_writes_its_rows_once,
            what_is_stopped_goes_on_without_loss_or_double,
            sums_are_replaced_by_key_and_go_on_after_a_stop,
            an_update_keeps_the_state,
            a_refused_update_leaves_the_old_one_running,
            a_final_stop_ends_it_and_what_is_gone_has_stopped,
            a_query_gives_its_rows_and_keeps_every_digit,
            a_query_is_live_and_ends_with_its_reader,
            a_query_of_what_comes_now_leaves_out_what_was,
            a_query_ends_when_its_time_is_over,
            a_query_that_fails_in_the_middle_says_why,
            a_wrong_query_is_refused_before_it_begins,
        ]);
    };
}
