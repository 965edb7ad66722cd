//! What grows with use has an end: definitions, what a round reads of them, and what happened to them.

use super::stage::{Stage, create, deployed, settled, until};
use crate::Fault as Why;
use crate::engines::{EngineKind, ObservedState};
use crate::manager::{Change, DeleteOptions, NewDefinition};
use crate::queries::{Active, QueryInfo, Roll};
use crate::store::{Find, Store};

const TEXT: &str = "SELECT ORDER_ID FROM orders";

#[tokio::test]
async fn no_more_definitions_are_written_down_than_may_be() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    (stage.limits.definitions_per_user, stage.limits.definitions) = (2, 3);
    let running = stage.run();
    let by = async |name: &str, actor: &str| {
        let new = NewDefinition { name: name.to_owned(), sql_script: TEXT.to_owned(), engine: None };
        running.manager.create(new, actor).await
    };
    let first = by("one", "anna").await.unwrap();
    by("two", "anna").await.unwrap();
    let full = by("three", "anna").await.unwrap_err();
    assert!(matches!(full, Why::LimitReached { setting: "definitions_per_user", most: 2, in_use: 2, .. }), "{full:?}");
    assert!(full.to_string().ends_with("(`manager.limits.definitions_per_user`): delete one first"), "{full}");
    by("three", "berta").await.unwrap();
    let full = by("four", "berta").await.unwrap_err();
    assert!(matches!(full, Why::LimitReached { setting: "definitions", most: 3, in_use: 3, .. }), "{full:?}");
    // What is deleted gives its place back.
    running.manager.delete(&first.id, DeleteOptions::default(), super::stage::PATIENCE, "anna").await.unwrap();
    by("four", "berta").await.unwrap();
    running.stop().await;
}

/// The most that `manager.limits.query_characters` may be (`src/config/manager.rs`).
const MOST_CHARACTERS: usize = 65_536;

#[tokio::test]
async fn the_longest_text_that_may_be_allowed_is_kept_whole() {
    let mut stage = Stage::new(&[EngineKind::Ksqldb]).await;
    stage.limits.query_characters = MOST_CHARACTERS;
    let manager = stage.manager();
    let head = "SELECT ORDER_ID FROM orders --";
    let text = format!("{head}{}", "\u{1f4e6}".repeat(MOST_CHARACTERS - head.len()));
    let made = create(&manager, "long", &text, None).await;
    assert_eq!(manager.get(&made.id).await.unwrap().sql_script, text);
    let query = QueryInfo { sql_script: text, ..super::queries::query(1, "ada") };
    assert_eq!(manager.enter(&query, Active { of_owner: 1, in_all: 1 }).await.unwrap(), None);
    let longer =
        NewDefinition { name: "longer".to_owned(), sql_script: format!("{} ", query.sql_script), engine: None };
    assert!(
        matches!(manager.create(longer, "anna").await, Err(Why::Refused(refused)) if refused[0].code == "too_long")
    );
}

#[tokio::test]
async fn a_round_reads_no_texts_and_no_drafts_and_loses_none() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let draft = create(&running.manager, "draft", TEXT, None).await;
    let definition = deployed(&running.manager, "orders", TEXT).await;
    let read = Store::new(stage.pool.clone());
    let read = read.find(&Find { for_a_round: true, ..Find::default() }, i64::MAX).await.unwrap();
    let read: Vec<_> = read.iter().map(|record| (record.id.as_str(), record.sql_script.as_str())).collect();
    assert_eq!(read, [(definition.id.as_str(), "")]);
    // Steps write it, and its text stays as people wrote it.
    let text = "SELECT AMOUNT FROM orders";
    let change = Change { sql_script: Some(text.to_owned()), ..Change::default() };
    running.manager.update(&definition.id, change, "anna").await.unwrap();
    until(&running.manager, &definition.id, "it is updated", |now| now.deployed_revision == Some(2)).await;
    assert_eq!(settled(&running.manager, &definition.id).await.sql_script, text);
    assert_eq!(running.manager.get(&draft.id).await.unwrap().sql_script, TEXT);
    let mut counts = running.manager.by_state().await.unwrap();
    counts.sort_by_key(|(state, _)| *state == ObservedState::Absent);
    assert_eq!(counts, [(ObservedState::Running, 1), (ObservedState::Absent, 1)]);
    running.stop().await;
}

#[tokio::test]
async fn what_happened_is_kept_for_a_time_and_in_a_number() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let definition = create(&stage.manager(), "orders", TEXT, None).await;
    let client = stage.pool.get().await.unwrap();
    let insert = "insert into stream_events (definition_id, name, at, what)
                  select coalesce($1::text::uuid, gen_random_uuid()), 'x', now() - make_interval(days => $2), 'x'
                  from generate_series(1, $3)";
    let gone: Option<&str> = None;
    client.execute(insert, &[&gone, &91_i32, &6_000_i32]).await.unwrap();
    client.execute(insert, &[&gone, &89_i32, &1_i32]).await.unwrap();
    client.execute(insert, &[&definition.id, &0_i32, &600_i32]).await.unwrap();
    // Of two that are gone: of one it is known yet that it was there.
    let gone = "with gone as (select gen_random_uuid() as id from generate_series(1, 2)),
                told as (insert into stream_events (definition_id, name, what) select id, 'gone', 'deleted' from gone limit 1)
                insert into stream_revisions (definition_id, revision, sql_script, author)
                select id, revision, 'gone', 'anna' from gone, generate_series(1, 3) revision";
    client.execute(gone, &[]).await.unwrap();
    let running = stage.run();
    let count = async |which: &str| -> i64 {
        let count = format!("select count(*) from stream_events where {which}");
        client.query_one(&count, &[]).await.unwrap().try_get(0).unwrap()
    };
    let begin = std::time::Instant::now();
    while count("at < now() - interval '90 days'").await > 0 {
        assert!(begin.elapsed() < super::stage::PATIENCE, "old events are kept");
        tokio::task::yield_now().await;
    }
    assert_eq!(count("at < now() - interval '1 day'").await, 1, "what is not that old is kept");
    let texts = async || -> i64 {
        client.query_one("select count(*) from stream_revisions", &[]).await.unwrap().try_get(0).unwrap()
    };
    while texts().await > 1 + 3 {
        assert!(begin.elapsed() < super::stage::PATIENCE, "texts of what is gone are kept");
        tokio::task::yield_now().await;
    }
    assert_eq!(texts().await, 1 + 3, "those of which something is told yet are kept");
    // What the reconciler writes is bounded like the words of people.
    let redeployed = Default::default();
    running.manager.deploy(&definition.id, redeployed, super::stage::PATIENCE, "anna").await.unwrap();
    settled(&running.manager, &definition.id).await;
    assert!(count("at > now() - interval '1 day' and name <> 'gone'").await <= 500);
    running.stop().await;
}

#[tokio::test]
async fn texts_are_kept_in_a_number_and_read_in_pages() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let manager = stage.manager();
    let definition = create(&manager, "orders", TEXT, None).await;
    let client = stage.pool.get().await.unwrap();
    // As written by the version before, which kept all; some of them are gone back to.
    let many = "insert into stream_revisions (definition_id, revision, sql_script, author)
                select $1::text::uuid, revision, 'SELECT ' || revision, 'anna' from generate_series(2, 1200) revision";
    client.execute(many, &[&definition.id]).await.unwrap();
    let needed = "update stream_definitions
                  set revision = 1200, deployed_revision = 3, previous_revision = 4, failed_revision = 5, fresh_revision = 6,
                      restore_path = 'x', restore_savepoint = true, restore_revision = 7,
                      tries = 1, call = '{\"do\": \"deploy\", \"revision\": 8, \"attempt\": 1, \"replaces\": false, \"restore\": null}'
                  where id = $1::text::uuid";
    client.execute(needed, &[&definition.id]).await.unwrap();
    for number in 1..=8 {
        let change = Change { sql_script: Some(format!("{TEXT} WHERE ORDER_ID > {number}")), ..Change::default() };
        manager.update(&definition.id, change, "anna").await.unwrap();
    }
    let (mut kept, mut before) = (Vec::new(), None);
    loop {
        let page = manager.revisions(&definition.id, before, 200).await.unwrap();
        assert!(page.len() <= 200);
        let Some(last) = page.last() else { break };
        before = Some(last.revision);
        kept.extend(page.iter().map(|revision| revision.revision));
    }
    assert_eq!(kept, (709..=1208).rev().chain((3..=8).rev()).collect::<Vec<_>>());
    let two = manager.these_revisions(&definition.id, [3, 1208]).await.unwrap();
    let texts: Vec<_> = two.iter().map(|revision| revision.sql_script.as_str()).collect();
    assert_eq!(texts, ["SELECT ORDER_ID FROM orders WHERE ORDER_ID > 8", "SELECT 3"]);
    assert_eq!(manager.these_revisions(&definition.id, [2, 3]).await.unwrap().len(), 1);
}
