//! Queries of people who look, on several instances over one Postgres.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::stage::Stage;
use crate::engines::{EngineKind, LeftOut, TableSeen};
use crate::queries::{Active, QueryInfo, Roll};

pub fn query(instance: usize, owner: &str) -> QueryInfo {
    QueryInfo {
        id: format!("{:032x}", fastrand::u128(..)),
        instance: format!("instance-{instance}"),
        engine: EngineKind::Ksqldb,
        owner: owner.to_owned(),
        sql_script: "SELECT * FROM orders".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        ends_at: Timestamp::UNIX_EPOCH,
        is_read: false,
        rows: 0,
        bytes: 0,
        left_out: LeftOut::default(),
        tables: Vec::new(),
    }
}

/// None of its own yet, where so many may run.
fn room(of_owner: usize, in_all: usize) -> Active {
    Active { of_owner: of_owner - 1, in_all: in_all - 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_instances_that_all_begin_one_at_once_so_many_do_and_not_one_more() {
    let stage = Stage::new(&[EngineKind::Ksqldb]).await;
    let manager = stage.manager();
    let begin = |owner: &'static str, instances: std::ops::Range<usize>, room: Active| {
        let manager = &manager;
        join_all(instances.map(move |number| async move { manager.enter(&query(number, owner), room).await.unwrap() }))
    };
    let begun = begin("ada", 0..8, room(3, 20)).await;
    assert_eq!(begun.iter().filter(|refused| refused.is_none()).count(), 3, "{begun:?}");
    assert!(begun.iter().flatten().all(|run| (run.of_owner, run.in_all) == (3, 3)), "{begun:?}");
    // Others have their own, up to as many as may be in all.
    let begun = begin("eve", 8..16, room(20, 5)).await;
    assert_eq!(begun.iter().filter(|refused| refused.is_none()).count(), 2, "{begun:?}");
    assert_eq!(manager.elsewhere("nobody").await.unwrap().len(), 5);
}

#[tokio::test]
async fn an_instance_tells_what_runs_in_it_and_only_that_of_its_own_has_ended() {
    let stage = Stage::new(&[EngineKind::Ksqldb]).await;
    let manager = stage.manager();
    let (mine, other) = (query(1, "ada"), query(2, "ada"));
    for begun in [&mine, &other] {
        assert_eq!(manager.enter(begun, room(5, 5)).await.unwrap(), None);
    }
    assert_eq!(manager.elsewhere("instance-1").await.unwrap(), std::slice::from_ref(&other));
    let left_out = LeftOut { refused: 3, why: Some("no number".to_owned()), ..LeftOut::default() };
    let (name, refreshed_at) = ("customers".to_owned(), TableSeen::moment(1_700_000_000_000));
    let table = TableSeen { name, rows: 2, bytes: 90, refused: 1, refreshed_at, refresh_ms: 5_000 };
    let read = QueryInfo { is_read: true, rows: 7, bytes: 70, left_out, tables: vec![table], ..mine.clone() };
    manager.tell("instance-1", std::slice::from_ref(&read), std::slice::from_ref(&other.id)).await.unwrap();
    assert_eq!(manager.elsewhere("instance-2").await.unwrap(), std::slice::from_ref(&read), "as it was told last");
    assert_eq!(manager.elsewhere("instance-1").await.unwrap().len(), 1, "nobody ends the queries of others");

    // Forgotten, as Postgres has lost what nobody logs: told again, it is there again.
    stage.pool.get().await.unwrap().execute("truncate stream_queries", &[]).await.unwrap();
    manager.tell("instance-1", std::slice::from_ref(&read), &[]).await.unwrap();
    assert_eq!(manager.elsewhere("instance-2").await.unwrap(), std::slice::from_ref(&read));
    manager.tell("instance-1", &[], std::slice::from_ref(&read.id)).await.unwrap();
    assert!(manager.elsewhere("instance-2").await.unwrap().is_empty());
}
