//! Queries of an engine that the test has in its hand.
#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::catalog::{Column, DataType, Source};
use crate::engines::{
    Capabilities, Deployment, Details, Engine, Explained, Handle, Item, Observed, Refusal, RestorePoint, Row, RowKind,
    Rows, Seen, Select, StopMode, Stopped, Trouble,
};

/// Counts the queries that run in it.
#[derive(Default)]
struct Model {
    live: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
    /// Whether the last statement asked for what is there now.
    pulled: AtomicBool,
    asked: Mutex<Vec<AdHoc>>,
    feeds: Mutex<Vec<mpsc::UnboundedSender<Item>>>,
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn number(value: i64) -> Item {
    Item::Row(Row { kind: RowKind::Insert, values: vec![value.into()] })
}

impl Model {
    fn feed(&self, item: Item) {
        self.feeds.lock().unwrap().iter().for_each(|feed| drop(feed.send(item.clone())));
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Engine for Model {
    fn kind(&self) -> EngineKind {
        EngineKind::Ksqldb
    }
    async fn keeps_state(&self, _: &Select, _: &Select) -> Result<(), String> {
        Ok(())
    }
    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        unreachable!()
    }
    async fn explain(&self, _: &Select) -> Result<Explained, Trouble> {
        unreachable!()
    }
    async fn deploy(&self, _: &Deployment) -> Result<Handle, Trouble> {
        unreachable!()
    }
    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        unreachable!()
    }
    async fn details(&self, _: &str) -> Result<Details, Trouble> {
        unreachable!()
    }
    async fn stop(&self, _: &Deployment, _: &Handle, _: StopMode) -> Result<Stopped, Trouble> {
        unreachable!()
    }
    async fn resume(&self, _: &Handle) -> Result<(), Trouble> {
        unreachable!()
    }
    async fn remove(&self, _: &Handle, _: &[RestorePoint]) -> Result<(), Trouble> {
        unreachable!()
    }
    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        Ok(Vec::new())
    }

    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        match query.select.sql.as_str() {
            "REFUSED" => {
                let message = "line 1:8: SELECT column 'X' cannot be resolved.".to_owned();
                let code = "statement_error".to_owned();
                return Err(Trouble::Refused(Refusal { code, message, line: Some(1), column: Some(8) }));
            }
            "HANGS" => {
                self.live.fetch_add(1, Ordering::SeqCst);
                let _leaving = Leaving(Arc::clone(&self.live));
                std::future::pending().await
            }
            _ => {}
        }
        self.live.fetch_add(1, Ordering::SeqCst);
        let (leaving, taken) = (Leaving(Arc::clone(&self.live)), Arc::clone(&self.taken));
        let column = Column { name: "N".to_owned(), data_type: DataType::BigInt, nullable: false };
        let header = Item::Header { columns: vec![column], schema: "`N` BIGINT".to_owned() };
        let items: Pin<Box<dyn Stream<Item = Item> + Send>> = match query.select.sql.as_str() {
            "ENDLESS" => stream::iter(0..).map(number).boxed(),
            _ => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.feeds.lock().unwrap().push(sender);
                stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
            }
        };
        self.asked.lock().unwrap().push(query);
        let items = stream::iter([header]).chain(items).map(move |item| {
            let _held = &leaving;
            taken.fetch_add(1, Ordering::SeqCst);
            item
        });
        Ok(items.boxed())
    }
}

struct Gate(Arc<Model>);

#[async_trait]
impl Statements for Gate {
    async fn prepared(&self, _: Option<EngineKind>, sql: &str, pull: bool) -> Result<Prepared, Fault> {
        self.0.pulled.store(pull, Ordering::SeqCst);
        let select = Select { sql: sql.to_owned(), sources: Vec::new() };
        Ok(Prepared { engine: self.0.clone(), select, placed: Box::new(|trouble| trouble) })
    }
    async fn deployed(&self, _: &str) -> Result<(usize, usize), Fault> {
        Ok((1, 3))
    }
}

fn with_patience(model: &Arc<Model>, limits: Limits, unread: Duration) -> Queries {
    Queries::of((Arc::new(Gate(model.clone())), None, ALONE), (limits, unread), Arc::default())
}

fn queries(limits: Limits) -> (Queries, Arc<Model>) {
    let model = Arc::new(Model::default());
    (with_patience(&model, limits, Duration::from_secs(60)), model)
}

fn select(sql: &str) -> NewQuery {
    NewQuery { engine: None, sql: sql.to_owned(), from_beginning: false, pull: false }
}

async fn next(rows: &mut QueryRows) -> Line {
    tokio::time::timeout(Duration::from_secs(60), rows.next()).await.expect("something comes").expect("there is more")
}

async fn rest(mut rows: QueryRows) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(line) = tokio::time::timeout(Duration::from_secs(60), rows.next()).await.expect("it ends") {
        texts.push(line.text().to_owned());
    }
    texts
}

#[tokio::test]
async fn rows_come_as_the_seeds_clients_read_them() {
    let (queries, model) = queries(Limits::default());
    let mut rows = queries.run(select("SELECT"), "ada").await.unwrap();
    let Line::Header { text, schema } = next(&mut rows).await else { panic!("the header first") };
    let header: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((header["header"]["schema"].as_str(), schema.as_str()), (Some("`N` BIGINT"), "`N` BIGINT"));
    model.feed(number(1));
    model.feed(Item::Row(Row { kind: RowKind::Delete, values: vec![2.into()] }));
    model.feed(Item::End(End::Complete));
    let expected = [
        r#"{"row":{"columns":[1]}}"#,
        r#"{"row":{"columns":[2],"tombstone":true},"kind":"delete"}"#,
        r#"{"end":"complete","finalMessage":"Query Completed"}"#,
    ];
    assert_eq!(rest(rows).await, expected);
    assert_eq!((queries.active("ada").in_all, model.live()), (0, 0));
}

#[tokio::test]
async fn whoever_drops_its_rows_ends_the_query_in_the_engine_at_once() {
    let (queries, model) = queries(Limits::default());
    let mut rows = queries.run(select("SELECT"), "ada").await.unwrap();
    next(&mut rows).await;
    assert_eq!((model.live(), queries.active("ada").of_owner), (1, 1));
    drop(rows);
    assert_eq!((model.live(), queries.active("ada").of_owner), (0, 0), "no time has passed");
}

#[tokio::test]
async fn a_kill_ends_a_query_even_if_its_reader_does_not_read() {
    let (queries, model) = queries(Limits::default());
    let rows = queries.run(select("ENDLESS"), "ada").await.unwrap();
    let id = rows.id().to_owned();
    queries.kill(&id, "eve").unwrap();
    assert_eq!((model.live(), queries.list(None).len()), (0, 0), "the reader has not been polled since");
    let texts = rest(rows).await;
    let expected = r#"{"end":"cancelled","finalMessage":"Query Cancelled","reason":"ended by `eve`"}"#;
    assert_eq!(texts, [expected]);
    assert!(matches!(queries.kill(&id, "eve"), Err(Refused::NotFound(_))));

    // And one whose reader waits.
    let mut rows = queries.run(select("SELECT"), "ada").await.unwrap();
    next(&mut rows).await;
    let id = rows.id().to_owned();
    let waiting = tokio::spawn(rest(rows));
    tokio::task::yield_now().await;
    queries.kill(&id, "eve").unwrap();
    assert_eq!(waiting.await.unwrap(), [expected]);
}

#[tokio::test]
async fn what_a_query_leaves_out_is_shown_while_it_runs_and_at_its_end() {
    let (queries, model) = queries(Limits::default());
    let mut rows = queries.run(select("SELECT 1"), "anna").await.unwrap();
    next(&mut rows).await;
    assert!(queries.list(None)[0].left_out.is_nothing());
    for refused in [1, 2] {
        let left_out = LeftOut { refused, ..LeftOut::default() };
        model.feed(Item::Seen(Seen { left_out, tables: Vec::new() }));
    }
    model.feed(number(1));
    // It is no line: the row is the next one.
    assert_eq!(next(&mut rows).await.text(), r#"{"row":{"columns":[1]}}"#);
    assert_eq!(queries.list(None)[0].left_out.refused, 2);
    queries.kill(queries.list(None)[0].id.as_str(), "anna").unwrap();
    let last = next(&mut rows).await;
    assert!(last.text().contains(r#""leftOut":{"failedGroups":0,"future":0,"late":0,"refused":2}"#), "{}", last.text());

    // The first rows say so, too, without an end of the engine's.
    let (running, feeding) = (queries.clone(), Arc::clone(&model));
    let first =
        tokio::spawn(async move { running.first_rows(select("SELECT 1"), "anna", 1, Duration::from_secs(60)).await });
    while feeding.live() == 0 {
        tokio::task::yield_now().await;
    }
    model.feed(Item::Seen(Seen { left_out: LeftOut { late: 7, ..LeftOut::default() }, tables: Vec::new() }));
    model.feed(number(1));
    assert_eq!(first.await.unwrap().unwrap().left_out.late, 7);
}

#[tokio::test]
async fn limits_refuse_by_name_and_value_and_only_what_is_beyond_them() {
    let limits = Limits { queries_per_user: 2, queries: 3, ..Limits::default() };
    let (queries, _) = queries(limits);
    let one = queries.run(select("SELECT"), "ada").await.unwrap();
    queries.start(select("SELECT"), "ada").await.unwrap();
    let refused = queries.start(select("SELECT"), "ada").await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "2 queries of `ada` run already, and no more than 2 may (`manager.limits.queries_per_user`): end one first"
    );
    let third = queries.run(select("SELECT"), "eve").await.unwrap();
    let refused = queries.start(select("SELECT"), "bob").await.unwrap_err().to_string();
    assert!(
        refused.starts_with("3 queries in all run already") && refused.contains("manager.limits.queries`"),
        "{refused}"
    );
    drop(one);
    queries.start(select("SELECT"), "ada").await.unwrap();
    assert_eq!(queries.active("ada"), Active { of_owner: 2, in_all: 3 });
    assert_eq!((queries.list(Some("eve")).len(), queries.list(None).len()), (1, 3));
    drop(third);
}

/// The roll of several instances, of which the first query is held up on its way.
#[derive(Default)]
struct Hall {
    entered: Mutex<Vec<QueryInfo>>,
    is_first_under_way: AtomicBool,
    go: Notify,
}

#[async_trait]
impl Roll for Hall {
    async fn enter(&self, query: &QueryInfo, others: Active) -> Result<Option<Active>, Fault> {
        if !self.is_first_under_way.swap(true, Ordering::SeqCst) {
            self.go.notified().await;
        }
        let mut entered = self.entered.lock().unwrap();
        let elsewhere: Vec<&QueryInfo> = entered.iter().filter(|other| other.instance != query.instance).collect();
        let of_owner = elsewhere.iter().filter(|other| other.owner == query.owner).count();
        let run = Active { of_owner, in_all: elsewhere.len() };
        if run.of_owner > others.of_owner || run.in_all > others.in_all {
            return Ok(Some(run));
        }
        entered.push(query.clone());
        Ok(None)
    }

    async fn tell(&self, _: &str, _: &[QueryInfo], _: &[String]) -> Result<(), Fault> {
        Ok(())
    }

    async fn elsewhere(&self, _: &str) -> Result<Vec<QueryInfo>, Fault> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn limits_hold_over_instances_in_whatever_order_their_queries_come() {
    let (hall, model) = (Arc::new(Hall::default()), Arc::new(Model::default()));
    let instance = |name| {
        let limits = Limits { queries_per_user: 2, ..Limits::default() };
        Queries::among(Arc::new(Gate(model.clone())), limits, hall.clone(), name)
    };
    let (one, two) = (instance("one"), instance("two"));
    let begin = |queries: &Queries| {
        let queries = queries.clone();
        tokio::spawn(async move { queries.start(select("SELECT"), "ada").await.map(drop) })
    };
    let first = begin(&one);
    while !hall.is_first_under_way.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let overtaking = begin(&one);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let other = begin(&two).await.unwrap();
    hall.go.notify_one();
    let begun = [first.await.unwrap(), overtaking.await.unwrap(), other];
    let refused: Vec<&Refused> = begun.iter().filter_map(|begun| begun.as_ref().err()).collect();
    assert!(matches!(refused[..], [Refused::TooMany { most: 2, in_use: 2, .. }]), "{begun:?}");
    assert_eq!(model.live(), 2);
}

#[tokio::test]
async fn too_many_within_a_minute_are_refused_whatever_became_of_them() {
    let (queries, _) = queries(Limits { queries_per_minute: 2, ..Limits::default() });
    queries.start(select("REFUSED"), "ada").await.unwrap_err();
    drop(queries.run(select("SELECT"), "ada").await.unwrap());
    let refused = queries.start(select("SELECT"), "ada").await.unwrap_err();
    assert!(matches!(refused, Refused::TooOften { most: 2, .. }), "{refused}");
}

#[tokio::test]
async fn defect_9_a_query_that_fails_or_is_given_up_leaves_no_place_taken() {
    let (queries, _) = queries(Limits { queries_per_user: 1, ..Limits::default() });
    queries.start(select("REFUSED"), "ada").await.unwrap_err();
    assert!(queries.start(select("HANGS"), "ada").now_or_never().is_none(), "the caller has gone meanwhile");
    assert_eq!(queries.active("ada").in_all, 0);
    queries.start(select("SELECT"), "ada").await.unwrap();
}

/// One whose engine is about to begin it.
async fn beginning(queries: &Queries, model: &Model) -> String {
    while model.live() == 0 {
        tokio::task::yield_now().await;
    }
    queries.list(None)[0].id.clone()
}

#[tokio::test]
async fn a_query_that_is_still_beginning_ends_in_the_engine_too_and_whoever_began_it_hears_so() {
    let (queries, model) = queries(Limits::default());
    let beginner = queries.clone();
    let start = tokio::spawn(async move { beginner.start(select("HANGS"), "ada").await });
    let id = beginning(&queries, &model).await;
    queries.kill(&id, "eve").unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(60), start).await.expect("at once").unwrap().unwrap_err();
    assert_eq!(refused.to_string(), format!("query `{id}` has ended before its engine had begun it: ended by `eve`"));
    assert_eq!((model.live(), queries.active("ada").in_all), (0, 0), "the engine is no longer asked");

    // Whoever tries one is answered as if it had begun.
    let beginner = queries.clone();
    let trial =
        tokio::spawn(async move { beginner.first_rows(select("HANGS"), "ada", 1, Duration::from_secs(600)).await });
    let id = beginning(&queries, &model).await;
    queries.kill(&id, "eve").unwrap();
    let first = tokio::time::timeout(Duration::from_secs(60), trial).await.expect("at once").unwrap().unwrap();
    assert_eq!((first.end.as_str(), first.reason.as_deref()), ("cancelled", Some("ended by `eve`")));
    assert_eq!(model.live(), 0);
    let first = queries.first_rows(select("HANGS"), "ada", 1, Duration::from_millis(20)).await.unwrap();
    assert!(first.reason.as_deref().unwrap().ends_with("before the engine had begun it: ask again"), "{first:?}");
}

#[tokio::test]
async fn time_ends_a_query_even_if_its_engine_does_not_begin_it() {
    let (queries, model) = queries(Limits { query_time: Duration::from_millis(50), ..Limits::default() });
    let start = tokio::time::timeout(Duration::from_secs(60), queries.start(select("HANGS"), "ada"));
    let refused = start.await.expect("its time is over").unwrap_err();
    assert!(matches!(&refused, Refused::Ended { end: End::Limit, .. }), "{refused}");
    assert!(refused.to_string().contains("manager.limits.query_seconds"), "{refused}");
    assert_eq!((model.live(), queries.active("ada").in_all), (0, 0));
}

#[tokio::test]
async fn defect_10_what_the_engine_says_of_a_statement_comes_to_its_author() {
    let (queries, _) = queries(Limits::default());
    let refused = queries.start(select("REFUSED"), "ada").await.unwrap_err();
    let Refused::Fault(Fault::Refused(refusals)) = refused else { panic!("{refused}") };
    assert_eq!(refusals[0].message, "line 1:8: SELECT column 'X' cannot be resolved.");
    assert_eq!((refusals[0].line, refusals[0].column), (Some(1), Some(8)));
}

#[tokio::test]
async fn rows_and_bytes_end_a_query_at_their_limit_and_not_before() {
    let (queries, model) = queries(Limits { query_rows: 5, ..Limits::default() });
    let texts = rest(queries.run(select("ENDLESS"), "ada").await.unwrap()).await;
    assert_eq!(texts.len(), 1 + 5 + 1);
    assert_eq!(texts[5], r#"{"row":{"columns":[4]}}"#);
    assert!(texts[6].contains(r#""end":"limit""#) && texts[6].contains("manager.limits.query_rows"), "{}", texts[6]);
    assert_eq!(model.live(), 0);

    let one = r#"{"row":{"columns":[0]}}"#.len() as u64;
    let (queries, _) = self::queries(Limits { query_bytes: 3 * one, ..Limits::default() });
    let texts = rest(queries.run(select("ENDLESS"), "ada").await.unwrap()).await;
    assert_eq!(texts.len(), 1 + 3 + 1);
    assert!(texts[4].contains("manager.limits.query_bytes"), "{}", texts[4]);
}

#[tokio::test]
async fn time_ends_a_query_even_if_its_reader_does_not_read() {
    let (queries, model) = queries(Limits { query_time: Duration::from_millis(50), ..Limits::default() });
    let rows = queries.run(select("SELECT"), "ada").await.unwrap();
    assert_eq!(model.asked.lock().unwrap()[0].time_limit, Duration::from_millis(50), "the engine is told");
    while model.live() > 0 {
        tokio::task::yield_now().await;
    }
    let texts = rest(rows).await;
    assert!(texts[0].contains(r#""end":"limit""#) && texts[0].contains("manager.limits.query_seconds"), "{}", texts[0]);
}

#[tokio::test]
async fn a_query_that_nobody_reads_is_ended_and_each_is_read_once() {
    let model = Arc::new(Model::default());
    let queries = with_patience(&model, Limits::default(), Duration::from_millis(50));
    let unread = queries.start(select("SELECT"), "ada").await.unwrap();
    let read = queries.start(select("SELECT"), "ada").await.unwrap();
    let mut rows = queries.read(&read.id).unwrap();
    assert!(matches!(queries.read(&read.id), Err(Refused::AlreadyRead(_))));
    while model.live() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(queries.read(&unread.id), Err(Refused::NotFound(_))));
    next(&mut rows).await;
    assert_eq!(queries.list(None).len(), 1, "the one that is read goes on");
    assert!(queries.find(&read.id).await.unwrap().is_read);
}

#[tokio::test]
async fn what_was_cut_is_never_complete() {
    let (queries, model) = queries(Limits::default());
    let rows = queries.run(select("SELECT"), "ada").await.unwrap();
    model.feeds.lock().unwrap().clear();
    let texts = rest(rows).await;
    assert!(texts[1].contains(r#""end":"interrupted""#) && texts[1].contains("errorMessage"), "{}", texts[1]);
    let rows = queries.run(select("SELECT"), "ada").await.unwrap();
    model.feed(Item::End(End::Failed("out of memory".to_owned())));
    assert_eq!(rest(rows).await[1], r#"{"end":"failed","errorMessage":{"message":"out of memory"}}"#);
    // Whoever tries a query hears why, too.
    let (running, feeding) = (queries.clone(), Arc::clone(&model));
    let first =
        tokio::spawn(async move { running.first_rows(select("SELECT"), "ada", 1, Duration::from_secs(60)).await });
    while feeding.live() == 0 {
        tokio::task::yield_now().await;
    }
    model.feed(Item::End(End::Failed("out of memory".to_owned())));
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.end.as_str(), first.reason.as_deref()), ("failed", Some("out of memory")));
}

#[tokio::test]
async fn a_reader_that_reads_slowly_has_nothing_read_ahead_for_it() {
    let (queries, model) = queries(Limits::default());
    let mut rows = queries.run(select("ENDLESS"), "ada").await.unwrap();
    for _ in 0..10 {
        next(&mut rows).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(model.taken.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn defect_15_a_query_goes_on_until_somebody_ends_it_and_from_where_it_is_told() {
    let (queries, model) = queries(Limits::default());
    let mut rows = queries.run(NewQuery { from_beginning: true, ..select("SELECT") }, "ada").await.unwrap();
    next(&mut rows).await;
    assert!(rows.next().now_or_never().is_none(), "nothing is there, and it does not end");
    model.feed(number(1));
    assert_eq!(next(&mut rows).await.text(), r#"{"row":{"columns":[1]}}"#);
    drop(queries.run(select("SELECT"), "ada").await.unwrap());
    let asked: Vec<bool> = model.asked.lock().unwrap().iter().map(|query| query.from_start).collect();
    assert_eq!(asked, [true, false]);
    assert!(!model.pulled.load(Ordering::SeqCst), "changes, unless somebody wants what is there now");
    drop(queries.run(NewQuery { pull: true, ..select("SELECT") }, "ada").await.unwrap());
    assert!(model.pulled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn the_first_rows_come_within_a_time() {
    let (queries, model) = queries(Limits::default());
    let first = queries.first_rows(select("ENDLESS"), "ada", 10, Duration::from_secs(60)).await.unwrap();
    assert_eq!((first.rows.len(), first.schema.as_deref(), first.end.as_str()), (10, Some("`N` BIGINT"), "limit"));
    assert_eq!(first.rows[9]["row"]["columns"][0], 9);
    let none = queries.first_rows(select("SELECT"), "ada", 10, Duration::from_millis(20)).await.unwrap();
    assert_eq!((none.rows.len(), none.schema.is_some(), none.end.as_str()), (0, true, "limit"));
    assert_eq!((model.live(), queries.active("ada").in_all), (0, 0));
}
