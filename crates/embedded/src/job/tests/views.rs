//! Joins with views, whose rows are brought by a shelf in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use streamview_manager::engines::Refusal;
use tokio::sync::mpsc;

use super::*;
use crate::job::views::{Came, Viewed};
use crate::job::{runtime, tables};
use crate::log::LogError;
use crate::table::TableRows;
use crate::views::{Part, Views};

const JOIN: &str = "SELECT o.id, c.city, c.spent FROM orders o LEFT JOIN customers c ON o.customer = c.customer";

/// One view, `customers(customer, city, spent, level)`.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    rows: BTreeMap<&'static str, &'static str>,
    version: u64,
    /// What comes instead.
    fault: Option<LogError>,
    /// The end of a reading waits until it is let go.
    is_held: bool,
    held: Option<(mpsc::Sender<Part>, Part)>,
    /// The columns that were asked for last, and how often.
    asked: (Vec<String>, usize),
    /// When.
    times: Vec<Instant>,
}

fn customers() -> Source {
    let column =
        |(name, of): (&str, &str)| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
    let columns = [("customer", "string"), ("city", "string"), ("spent", "decimal(38, 4)"), ("level", "int")];
    Source {
        name: "customers".to_owned(),
        topic: String::new(),
        format: Format::View,
        columns: columns.map(column).to_vec(),
        event_time: None,
        table: Some(Table { key: vec!["customer".to_owned()], key_format: KeyFormat::Text }),
    }
}

impl Shelf {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    fn put(&self, key: &'static str, json: &'static str) {
        let mut inside = self.inside();
        inside.rows.insert(key, json);
        inside.version += 1;
    }

    fn take(&self, key: &str) {
        let mut inside = self.inside();
        inside.rows.remove(key);
        inside.version += 1;
    }

    fn fails(&self, with: Option<LogError>) {
        self.inside().fault = with;
    }
}

impl Views for Shelf {
    fn sources(&self) -> Vec<Source> {
        vec![customers()]
    }

    fn read(&self, view: &str, columns: &[String], seen: Option<&str>) -> mpsc::Receiver<Part> {
        assert_eq!(view, "customers");
        let (parts, taken) = mpsc::channel(1_024);
        let mut inside = self.inside();
        inside.asked = (columns.to_vec(), inside.asked.1 + 1);
        inside.times.push(Instant::now());
        let mark = inside.version.to_string();
        if let Some(fault) = inside.fault.clone() {
            parts.try_send(Part::Failed(fault)).unwrap();
        } else if seen == Some(mark.as_str()) {
            parts.try_send(Part::Same).unwrap();
        } else {
            for (key, json) in &inside.rows {
                parts.try_send(Part::Rows(vec![((*key).to_owned(), (*json).to_owned())])).unwrap();
            }
            match inside.is_held {
                true => inside.held = Some((parts, Part::Whole(mark))),
                false => parts.try_send(Part::Whole(mark)).unwrap(),
            }
        }
        taken
    }
}

struct Scene {
    bench: Bench,
    shelf: Shelf,
}

impl Scene {
    fn new(of: Settings) -> Scene {
        let (mut bench, shelf) = (Bench::new(1), Shelf::default());
        bench.engine = Embedded::joining(Arc::new(bench.log.clone()), None, Some(Arc::new(shelf.clone())), of);
        Scene { bench, shelf }
    }

    fn select(&self) -> Select {
        Select { sql: JOIN.to_owned(), sources: vec![customers(), source()] }
    }

    async fn deploy(&self) -> Handle {
        self.bench.deploy(&Deployment { select: self.select(), ..deployment(JOIN, 1, None) }).await
    }

    /// Orders of a customer until the last one is met with this city; `null` is none.
    async fn until_met(&self, customer: &str, city: Value) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let before = self.bench.log.values(&self.bench.output).len();
            self.bench.order(0, 7, customer, "60", 0);
            let met = self.bench.output(before + 1).await.pop().unwrap();
            if met["city"] == city {
                return;
            }
            assert!(Instant::now() < limit, "{met}");
        }
    }

    /// Why the deployed query has failed, once it has.
    async fn failed(&self) -> String {
        let failed = || {
            let observed = self.bench.engine.observe().now_or_never().expect("it is seen at once").unwrap().remove(0);
            (observed.state == ObservedState::Failed).then_some(observed.engine_state)
        };
        until(failed).await
    }

    /// How the view is shown that the query joins.
    async fn shown(&self, handle: &Handle) -> String {
        let nodes = self.bench.engine.details(&handle.job_id).await.unwrap().topology.nodes;
        nodes.into_iter().map(|node| node.label).find(|label| label.starts_with("table ")).unwrap()
    }
}

#[tokio::test]
async fn a_view_is_met_whole_as_of_one_moment_and_again_once_it_has_changed() {
    let scene = Scene::new(settings());
    scene.shelf.put("a", r#"{"city":"Ulm","spent":12345678901234567890.1200}"#);
    scene.shelf.put("b", r#"{"city":"Bonn","spent":null}"#);
    for (id, customer) in [(1, "a"), (2, "b"), (3, "nobody")] {
        scene.bench.order(0, id, customer, "60", 0);
    }
    let handle = scene.deploy().await;
    scene.bench.output(3).await;
    assert_eq!(
        scene.bench.log.values(&scene.bench.output),
        [
            r#"{"id":1,"city":"Ulm","spent":12345678901234567890.1200}"#,
            r#"{"id":2,"city":"Bonn","spent":null}"#,
            r#"{"id":3,"city":null,"spent":null}"#,
        ]
    );
    assert_eq!(scene.shelf.inside().asked.0, ["city", "spent"], "only what the query names, and the key anyway");
    assert!(scene.shown(&handle).await.starts_with("table customers (view): 2 rows"));

    // Half of what it is by now is not met, however long the rest takes.
    scene.shelf.inside().is_held = true;
    scene.shelf.put("a", r#"{"city":"Mainz","spent":1}"#);
    scene.shelf.take("b");
    until(|| scene.shelf.inside().held.is_some().then_some(())).await;
    let readings = scene.shelf.inside().asked.1;
    for id in 4..40 {
        let (customer, city) = if id % 2 == 0 { ("a", "Ulm") } else { ("b", "Bonn") };
        scene.bench.order(0, id, customer, "60", 0);
        let rows = scene.bench.output(id as usize).await;
        assert_eq!(rows.last().unwrap()["city"], city);
    }
    assert_eq!(scene.shelf.inside().asked.1, readings, "one reading at a time");
    let (parts, end) = scene.shelf.inside().held.take().unwrap();
    scene.shelf.inside().is_held = false;
    parts.try_send(end).unwrap();
    scene.until_met("b", Value::Null).await;
    scene.until_met("a", json!("Mainz")).await;
    assert!(scene.shown(&handle).await.starts_with("table customers (view): 1 rows"));
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_and_what_stays_wrong_fails_the_query() {
    let scene = Scene::new(settings());
    let away = || Some(LogError::Again("the database does not answer".to_owned()));
    scene.shelf.fails(away());
    scene.bench.order(0, 1, "a", "60", 0);
    // Whoever looks is told, and a deployed query begins again.
    let ad_hoc = AdHoc { select: scene.select(), ..look(JOIN, true) };
    let mut rows = scene.bench.engine.query(ad_hoc).await.unwrap();
    rows.next().await.unwrap();
    let end = rows.next().await;
    assert!(matches!(&end, Some(Item::End(End::Interrupted(why))) if why.contains("does not answer")), "{end:?}");
    let handle = scene.deploy().await;
    until(|| (scene.shelf.inside().asked.1 >= 2).then_some(())).await;
    scene.shelf.put("a", r#"{"city":"Ulm"}"#);
    scene.shelf.fails(None);
    assert_eq!(scene.bench.output(1).await[0]["city"], "Ulm", "no row was written before");

    // It has been read: what it was is met, and said to be as old as it is.
    scene.shelf.put("a", r#"{"city":"Mainz"}"#);
    scene.until_met("a", json!("Mainz")).await;
    scene.shelf.fails(away());
    scene.shelf.put("a", r#"{"city":"Bonn"}"#);
    let asked = scene.shelf.inside().asked.1;
    until(|| (scene.shelf.inside().asked.1 >= asked + 2).then_some(())).await;
    scene.until_met("a", json!("Mainz")).await;
    let age = || {
        let shown = scene.shown(&handle).now_or_never().expect("it is shown at once");
        let (_, rest) = shown.split_once("as of ").unwrap();
        rest.split_once(" ms ago").unwrap().0.parse::<u64>().unwrap()
    };
    until(|| (age() >= 300).then_some(())).await;
    scene.shelf.fails(None);
    scene.until_met("a", json!("Bonn")).await;

    scene.shelf.fails(Some(LogError::Halt("view `customers` has no column `city`".to_owned())));
    let failed = scene.failed().await;
    assert!(failed.contains("has no column `city`"), "{failed}");
}

#[tokio::test]
async fn a_view_that_cannot_be_read_at_first_is_asked_for_no_more_often_than_one_that_can() {
    let refresh = Duration::from_millis(700);
    let scene = Scene::new(Settings { table_refresh: refresh, ..settings() });
    scene.shelf.fails(Some(LogError::Again("the database is away".to_owned())));
    scene.deploy().await;
    until(|| (scene.shelf.inside().times.len() >= 4).then_some(())).await;
    let times = scene.shelf.inside().times.clone();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= refresh), "{times:?}");
}

#[test]
fn the_wait_for_ones_turn_is_no_part_of_what_a_reading_takes() {
    /// A view whose parts come by the test's own hand.
    struct ByHand(Mutex<Option<mpsc::Receiver<Part>>>);
    impl Views for ByHand {
        fn sources(&self) -> Vec<Source> {
            vec![customers()]
        }
        fn read(&self, _: &str, _: &[String], _: Option<&str>) -> mpsc::Receiver<Part> {
            self.0.lock().unwrap().take().unwrap()
        }
    }
    let waited = Duration::from_millis(50);
    let rest = |parts: &[Part]| {
        let (hand, taken) = mpsc::channel(8);
        let views = Arc::new(ByHand(Mutex::new(Some(taken))));
        let bounds = settings().table;
        let mut view = Viewed::new(0, views, (&customers(), &[true; 4]), bounds, Duration::ZERO);
        let rows = TableRows::new(&customers(), &[true; 4], bounds, None);
        let (runtime, mut table) = (runtime().unwrap(), tables::Table::new(&customers(), rows));
        let mut read = || view.read(Duration::ZERO, &runtime, &mut table).ok().unwrap();
        assert_eq!(read(), Came::Nothing);
        let begun = Instant::now();
        while begun.elapsed() < waited {
            std::thread::yield_now();
        }
        parts.iter().for_each(|part| hand.try_send(part.clone()).unwrap());
        parts.iter().for_each(|_| assert_ne!(read(), Came::Nothing));
        view.rest()
    };
    assert!(rest(&[Part::Same]) > waited * 9, "all of it was the reading");
    assert!(rest(&[Part::Begun, Part::Same]) < waited * 9, "it came at once, when it was its turn");
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_counted_and_a_view_that_is_too_large_is_named() {
    let table = TableBounds { rows: 2, ..TableBounds::default() };
    let scene = Scene::new(Settings { table, ..settings() });
    scene.shelf.put("a", r#"{"city":"Ulm","spent":0.00001}"#);
    scene.shelf.put("b", r#"{"city":"Bonn"}"#);
    scene.bench.order(0, 1, "b", "60", 0);
    let handle = scene.deploy().await;
    assert_eq!(scene.bench.output(1).await[0]["city"], "Bonn");
    let shown = scene.shown(&handle).await;
    assert!(shown.contains("1 rows") && shown.contains("1 records refused"), "{shown}");
    for key in ["c", "d"] {
        scene.shelf.put(key, r#"{"city":"Bonn"}"#);
    }
    let failed = scene.failed().await;
    let why = "limit_exceeded: view `customers` has more than 2 rows (`embedded.table_rows`): raise it";
    assert!(failed.contains(why), "{failed}");
}

#[tokio::test]
async fn a_view_is_no_stream_and_where_there_are_none_it_is_said() {
    let scene = Scene::new(settings());
    let refusal = async |sql: &str, sources: Vec<Source>| -> Refusal {
        match scene.bench.engine.explain(&Select { sql: sql.to_owned(), sources }).await {
            Err(Trouble::Refused(refusal)) => refusal,
            other => panic!("{sql}: {other:?}"),
        }
    };
    for sql in [
        "SELECT city\nFROM customers",
        "SELECT level, count(*) AS n FROM customers GROUP BY level",
        "SELECT a.city FROM customers a JOIN customers b ON a.customer = b.customer",
        "SELECT city FROM customers UNION ALL SELECT city FROM customers",
    ] {
        let refused = refusal(sql, vec![customers()]).await;
        assert_eq!(refused.code, "view_source", "{sql}: {refused:?}");
        assert!(refused.message.contains("`customers` is a view of this service: a table") && refused.line.is_some());
    }
    let full = "SELECT o.id FROM orders o FULL JOIN customers c ON o.customer = c.customer";
    assert_eq!(refusal(full, vec![customers(), source()]).await.code, "outer_stream");
    // A topic of the view's name is what it says, and why that matters is told.
    let topic = Source { name: "customers".to_owned(), topic: "c.v1".to_owned(), ..source() };
    let twice = "SELECT o.id FROM orders o JOIN customers c ON o.customer = c.customer";
    let refused = refusal(twice, vec![topic, source()]).await;
    assert_eq!(refused.code, "stream_join");
    assert!(refused.message.contains("is topic `c.v1` here, not the view of that name"), "{refused:?}");
    let two = Source { name: "others".to_owned(), topic: "c.v1".to_owned(), ..source() };
    let refused = refusal("SELECT o.id FROM orders o JOIN others c ON o.id = c.id", vec![two, source()]).await;
    assert!(refused.code == "stream_join" && !refused.message.contains("view of that name"), "{refused:?}");

    let plan = scene.bench.engine.explain(&scene.select()).await.unwrap().plan;
    assert!(plan.contains("Table customers: a view of this service, read whole before the first row"), "{plan}");
    assert_eq!(scene.bench.engine.sources().await.unwrap(), [customers()]);
    // A stored text may name a view that nobody brings any more.
    let bench = Bench::new(1);
    let mut rows = bench.engine.query(AdHoc { select: scene.select(), ..look(JOIN, true) }).await;
    let why = match &mut rows {
        Err(Trouble::Refused(refusal)) => refusal.message.clone(),
        other => panic!("{}", other.is_ok()),
    };
    assert!(why.contains("this process serves none"), "{why}");
}
