//! Previews over a Kafka that the test has in its hand.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::Instant;

use super::*;
use crate::catalog::{Column, DataType, Format};
use crate::ports::{Decoded, Place, RawRecord, Records, Schemas, Topic};

type Sender = mpsc::UnboundedSender<Result<RawRecord, PortError>>;

/// Topics whose readers are counted.
#[derive(Debug)]
struct Broker {
    opened: AtomicUsize,
    live: Arc<AtomicUsize>,
    given: Arc<AtomicUsize>,
    tails: Mutex<Vec<Sender>>,
    /// Questions that nobody has answered yet, and as many answers as there are.
    asking: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
}

impl Drop for Broker {
    /// Nobody waits for an answer any more, whatever a test has come to.
    fn drop(&mut self) {
        self.answers.close();
    }
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Broker {
    fn new() -> Broker {
        Broker {
            opened: AtomicUsize::new(0),
            live: Arc::default(),
            given: Arc::default(),
            tails: Mutex::default(),
            asking: Arc::default(),
            answers: Arc::new(Semaphore::new(0)),
        }
    }

    fn publish(&self, offsets: std::ops::Range<i64>) {
        let tails = self.tails.lock().unwrap();
        for offset in offsets {
            let value = Some(format!("{{\"N\":{offset}}}").into_bytes());
            let record = RawRecord {
                partition: 0,
                offset,
                timestamp_ms: Some(offset),
                key: None,
                value,
                headers: Default::default(),
            };
            tails.iter().for_each(|tail| drop(tail.send(Ok(record.clone()))));
        }
    }

    /// Asks as a client does that takes nothing back: its thread goes on when nobody waits for it any more.
    async fn in_silence(&self, place: Place) -> Result<Records, PortError> {
        let (asking, answers, runtime) = (Arc::clone(&self.asking), Arc::clone(&self.answers), Handle::current());
        asking.fetch_add(1, Ordering::SeqCst);
        let asked = tokio::task::spawn_blocking(move || {
            runtime.block_on(answers.acquire()).into_iter().for_each(SemaphorePermit::forget);
            asking.fetch_sub(1, Ordering::SeqCst);
            drop(place);
        });
        asked.await.unwrap();
        Err(PortError::Unavailable("nobody answers".to_owned()))
    }

    fn fail(&self, error: PortError) {
        self.tails.lock().unwrap().iter().for_each(|tail| drop(tail.send(Err(error.clone()))));
    }
}

#[async_trait]
impl Kafka for Broker {
    async fn topics(&self) -> Result<Vec<Topic>, PortError> {
        Ok(Vec::new())
    }
    async fn create_topic(&self, _: &str, _: u32) -> Result<(), PortError> {
        Ok(())
    }
    async fn delete_topic(&self, _: &str) -> Result<(), PortError> {
        Ok(())
    }
    async fn watermarks(&self, _: &str) -> Result<Vec<(i64, i64)>, PortError> {
        Ok(Vec::new())
    }
    async fn group_lag(&self, _: &str, _: &str) -> Result<Option<u64>, PortError> {
        Ok(None)
    }
    async fn consumers(&self, _: &str, _: usize) -> Result<crate::ports::Consumers, PortError> {
        Ok(crate::ports::Consumers::default())
    }
    async fn tail(&self, topic: &str, _: From, place: Place) -> Result<Records, PortError> {
        if topic == "away" {
            return Err(PortError::Unavailable("nobody answers".to_owned()));
        }
        if topic == "silent" {
            return self.in_silence(place).await;
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.live.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::unbounded_channel();
        self.tails.lock().unwrap().push(sender);
        let (leaving, given) = (Leaving(Arc::clone(&self.live)), Arc::clone(&self.given));
        let records = stream::unfold((receiver, leaving), move |(mut receiver, leaving)| {
            let given = Arc::clone(&given);
            async move {
                let item = receiver.recv().await?;
                given.fetch_add(1, Ordering::SeqCst);
                Some((item, (receiver, leaving)))
            }
        });
        Ok(records.boxed())
    }
}

/// Counts what it is asked, and knows nothing.
#[derive(Default)]
struct Nobody;

#[async_trait]
impl Schemas for Nobody {
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        let column = Column { name: "N".to_owned(), data_type: DataType::BigInt, nullable: true };
        Ok((topic == "orders").then(|| (Format::Json, vec![column])))
    }
    async fn decode(&self, _: &[u8]) -> Result<Option<Decoded>, PortError> {
        Ok(None)
    }
}

/// What `SELECT CUSTOMER, COUNT(*) AS N, SUM(AMOUNT) AS TOTAL … GROUP BY CUSTOMER` gives.
fn counts() -> Vec<Column> {
    let columns = [
        ("CUSTOMER", DataType::BigInt),
        ("N", DataType::BigInt),
        ("TOTAL", DataType::Decimal { precision: 10, scale: 2 }),
    ];
    columns.map(|(name, data_type)| Column { name: name.to_owned(), data_type, nullable: true }).to_vec()
}

/// Whose stream 1 gives amounts of another type from its second revision on.
#[derive(Default)]
struct Catalog {
    is_updated: AtomicBool,
}

impl Catalog {
    fn output(&self) -> Output {
        let mut columns = counts();
        if self.is_updated.load(Ordering::SeqCst) {
            columns[1].data_type = DataType::Decimal { precision: 10, scale: 2 };
        }
        Output { topic: "view_orders_1".to_owned(), columns, is_table: true }
    }
}

#[async_trait]
impl Watchable for Catalog {
    async fn watchable(&self, topic: &str) -> Result<Option<Output>, Fault> {
        if topic == "view_orders_1" {
            return Ok(Some(self.output()));
        }
        Ok((topic != "secret").then(|| Output { topic: topic.to_owned(), columns: Vec::new(), is_table: false }))
    }
    async fn output_of(&self, definition: &str) -> Result<Option<Output>, Fault> {
        Ok((definition == "1").then(|| self.output()))
    }
}

fn previews(limits: PreviewLimits) -> (Previews, Arc<Broker>) {
    let broker = Arc::new(Broker::new());
    (Previews::new(broker.clone(), Some(Arc::new(Nobody)), Arc::<Catalog>::default(), limits), broker)
}

/// Whoever may see everything.
fn generous() -> PreviewLimits {
    PreviewLimits { rows_per_second: 1_000_000, bytes_per_second: u32::MAX, ..PreviewLimits::default() }
}

async fn take(watcher: &mut Watcher, rows: usize) -> Vec<Arc<Shown>> {
    let mut taken = Vec::new();
    while taken.len() < rows {
        match tokio::time::timeout(Duration::from_secs(60), watcher.next()).await.expect("rows come") {
            Told::Frame(frame) => taken.extend(frame.rows),
            Told::End(why) => panic!("{why}"),
        }
    }
    taken
}

fn offset(row: &Shown) -> i64 {
    let row: serde_json::Value = serde_json::from_str(row.json()).unwrap();
    row["offset"].as_i64().unwrap()
}

async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < deadline, "it never comes");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_hundred_who_watch_one_topic_cost_one_reader_and_one_text_for_each_row() {
    let (previews, broker) = previews(generous());
    let mut watchers = Vec::new();
    for _ in 0..200 {
        watchers.push(previews.watch("orders", From::Latest, "ada").await.unwrap());
    }
    assert_eq!(previews.counts(), (1, 200));
    broker.publish(0..50);
    let mut texts = HashSet::new();
    for watcher in &mut watchers {
        let rows = take(watcher, 50).await;
        assert_eq!(rows.iter().map(|row| offset(row)).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        texts.extend(rows.iter().map(|row| row.json().as_ptr() as usize));
        assert_eq!(watcher.dropped(), 0);
    }
    assert_eq!(texts.len(), 50, "each row was written once");
    assert_eq!((broker.opened.load(Ordering::SeqCst), broker.given.load(Ordering::SeqCst)), (1, 50));

    let last = watchers.pop();
    drop(watchers);
    assert_eq!((previews.counts(), broker.live.load(Ordering::SeqCst)), ((1, 1), 1), "somebody is left");
    drop(last);
    assert_eq!(previews.counts(), (0, 0));
    until(|| broker.live.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_slow_one_loses_rows_that_are_counted_and_slows_nobody() {
    let (previews, broker) = previews(PreviewLimits { kept_rows: 100, ..generous() });
    let mut slow = previews.watch("orders", From::Latest, "ada").await.unwrap();
    let mut fast = previews.watch("orders", From::Latest, "ada").await.unwrap();
    for round in 0..20 {
        broker.publish(round * 50..(round + 1) * 50);
        let rows = take(&mut fast, 50).await;
        assert_eq!(offset(&rows[0]), round * 50, "the fast one sees all of it");
    }
    assert_eq!(fast.dropped(), 0);
    let Told::Frame(frame) = slow.next().await else { panic!("it goes on") };
    assert_eq!((frame.dropped, frame.rows.len(), offset(&frame.rows[0])), (900, 100, 900));
    assert_eq!(slow.dropped(), 900, "exactly what it was not shown");
}

#[tokio::test]
async fn rows_beyond_what_one_is_shown_in_a_second_are_dropped_and_counted() {
    let limits = PreviewLimits { rows_per_second: 10, ..PreviewLimits::default() };
    let (previews, broker) = previews(limits);
    let mut watcher = previews.watch("orders", From::Latest, "ada").await.unwrap();
    let begun = Instant::now();
    broker.publish(0..1_000);
    until(|| broker.given.load(Ordering::SeqCst) == 1_000).await;
    let rows = take(&mut watcher, 10).await;
    assert_eq!((offset(&rows[9]), watcher.dropped()), (999, 990), "the newest ones are shown");
    broker.publish(1_000..1_010);
    take(&mut watcher, 10).await;
    assert!(begun.elapsed() >= Duration::from_millis(950), "{:?}", begun.elapsed());
    assert_eq!(watcher.dropped(), 990);
}

#[tokio::test]
async fn rows_of_twenty_milliseconds_travel_together() {
    let (previews, broker) = previews(generous());
    let mut watcher = previews.watch("orders", From::Latest, "ada").await.unwrap();
    broker.publish(0..1);
    let begun = Instant::now();
    assert_eq!(take(&mut watcher, 1).await.len(), 1, "the first one at once");
    broker.publish(1..2);
    broker.publish(2..30);
    let Told::Frame(frame) = watcher.next().await else { panic!("it goes on") };
    assert_eq!(frame.rows.len(), 29);
    assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_begins_elsewhere_has_a_reader_of_its_own_that_waits_for_it() {
    let limits = PreviewLimits { kept_rows: 64, ..generous() };
    let (previews, broker) = previews(limits);
    let latest = previews.watch("orders", From::Latest, "ada").await.unwrap();
    let mut earliest = previews.watch("orders", From::Earliest, "ada").await.unwrap();
    assert_eq!(previews.counts(), (2, 2));
    drop(latest);
    until(|| broker.live.load(Ordering::SeqCst) == 1).await;
    // As many as do not make whole chunks.
    broker.publish(0..40);
    until(|| broker.given.load(Ordering::SeqCst) >= 40).await;
    broker.publish(40..10_000);
    until(|| broker.given.load(Ordering::SeqCst) >= 64).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(broker.given.load(Ordering::SeqCst) <= 2 * 64, "memory is bounded: nobody has taken anything");
    let rows = take(&mut earliest, 10_000).await;
    assert!(rows.iter().map(|row| offset(row)).eq(0..10_000));
    assert_eq!(earliest.dropped(), 0);
}

#[tokio::test]
async fn limits_refuse_by_name_and_a_seat_is_free_again() {
    let (previews, _) = previews(PreviewLimits { readers: 2, watchers: 3, ..generous() });
    let one = previews.watch("a", From::Latest, "ada").await.unwrap();
    let two = previews.watch("b", From::Offset(3), "ada").await.unwrap();
    let refused = previews.watch("c", From::Latest, "ada").await.err().unwrap();
    assert!(matches!(refused, Refused::TooManyReaders(2)), "{refused}");
    let three = previews.watch("a", From::Latest, "ada").await.unwrap();
    let refused = previews.watch("a", From::Latest, "ada").await.err().unwrap();
    assert!(matches!(refused, Refused::TooManyWatchers(3)), "{refused}");
    drop((one, two));
    previews.watch("c", From::Latest, "ada").await.unwrap();
    drop(three);
    assert_eq!(previews.counts(), (0, 0));
}

#[tokio::test]
async fn who_comes_and_goes_while_brokers_are_silent_leaves_no_more_clients_than_may_read() {
    let (previews, broker) = previews(PreviewLimits { readers: 3, ..generous() });
    for _ in 0..100 {
        let watching = previews.watch("silent", From::Latest, "ada");
        let mut watching = std::pin::pin!(watching);
        assert!(watching.as_mut().now_or_never().is_none(), "its topic is not read yet");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(broker.asking.load(Ordering::SeqCst) <= 3, "{broker:?}");
    }
    assert_eq!((broker.asking.load(Ordering::SeqCst), previews.counts()), (3, (0, 0)), "{broker:?}");
    let reading = tokio::spawn(async move { previews.watch("orders", From::Latest, "eve").await.map(drop) });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished(), "it waits until one of them has ended");
    broker.answers.add_permits(1);
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it has its turn").unwrap().unwrap();
    broker.answers.add_permits(2);
}

#[tokio::test]
async fn only_outputs_and_sources_are_watched() {
    let (previews, broker) = previews(generous());
    for topic in ["secret", "__consumer_offsets", "_schemas", "_confluent-ksql-default__command_topic"] {
        let refused = previews.watch(topic, From::Latest, "ada").await.err().unwrap();
        assert!(matches!(&refused, Refused::NotWatchable(name) if name == topic), "{refused}");
    }
    assert_eq!(previews.watch_stream("1", From::Latest, "ada").await.unwrap().topic(), "view_orders_1");
    assert!(matches!(previews.watch_stream("2", From::Latest, "ada").await, Err(Refused::NoStream(_))));
    assert_eq!(broker.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_end_is_told_by_name_and_the_next_one_begins_anew() {
    let (previews, broker) = previews(generous());
    let mut watcher = previews.watch("orders", From::Latest, "ada").await.unwrap();
    broker.publish(0..3);
    broker.fail(PortError::Refused("topic orders is not there any more".to_owned()));
    assert_eq!(take(&mut watcher, 3).await.len(), 3, "what came before is shown");
    let Told::End(why) = watcher.next().await else { panic!("it ends") };
    assert_eq!(why, "topic orders is not there any more");
    previews.watch("orders", From::Latest, "ada").await.unwrap();
    assert_eq!(broker.opened.load(Ordering::SeqCst), 2);
    let refused = previews.watch("away", From::Latest, "ada").await.err().unwrap();
    assert_eq!(refused.to_string(), "nobody answers");
    drop(watcher);
    assert_eq!(previews.counts(), (0, 0));
}

#[tokio::test]
async fn one_caller_leaves_room_for_the_others() {
    let limits =
        PreviewLimits { readers: 4, readers_per_caller: 2, watchers: 10, watchers_per_caller: 3, ..generous() };
    let (previews, _) = previews(limits);
    let mut eves = vec![previews.watch("a", From::Earliest, "eve").await.unwrap()];
    eves.push(previews.watch("a", From::Latest, "eve").await.unwrap());
    let refused = previews.watch("b", From::Latest, "eve").await.err().unwrap().to_string();
    assert_eq!(
        refused,
        "`eve` has 2 topics that nobody else watches already, and no more may be at once \
         (`manager.preview.readers_per_caller`): end one first"
    );
    let ada = previews.watch("a", From::Latest, "ada").await.unwrap();
    // What somebody else watches, too, costs nothing more.
    eves.push(previews.watch("b", From::Latest, "eve").await.unwrap());
    let refused = previews.watch("a", From::Latest, "eve").await.err().unwrap().to_string();
    assert!(refused.contains("watchers_per_caller") && refused.contains("has 3 topics"), "{refused}");
    previews.watch("c", From::Latest, "ada").await.unwrap();
    drop(eves);
    previews.watch("b", From::Latest, "eve").await.unwrap();
    drop(ada);
}

async fn shown(key: Option<&[u8]>, value: Option<&str>) -> Shown {
    let (key, value) = (key.map(<[u8]>::to_vec), value.map(|text| text.as_bytes().to_vec()));
    row::show(
        &RawRecord { partition: 0, offset: 0, timestamp_ms: None, key, value, headers: Default::default() },
        None,
        1_000,
    )
    .await
}

#[tokio::test]
async fn a_stream_is_shown_under_the_columns_of_its_text_with_those_of_its_key() {
    let (previews, _) = previews(generous());
    let watcher = previews.watch_stream("1", From::Latest, "ada").await.unwrap();
    let mut columns = previews.columns(&watcher).await;
    let header = r#"{"header":{"schema":"`CUSTOMER` BIGINT, `N` BIGINT, `TOTAL` DECIMAL(10, 2)"}}"#;
    assert_eq!(columns.header().as_deref(), Some(header), "before any row");
    let (seven, eight) = (7_i64.to_be_bytes(), 8_i64.to_be_bytes());
    // A deletion before anything else: of whom is known all the same.
    let gone = columns.lines(&shown(Some(&seven), None).await);
    assert_eq!(gone, [r#"{"kind":"delete","row":{"columns":[7,null,null],"tombstone":true}}"#]);
    let row = shown(Some(&eight), Some(r#"{"N":9007199254740993,"TOTAL":1.5}"#)).await;
    let expected = r#"{"kind":"updateAfter","row":{"columns":[8,"9007199254740993","1.50"]}}"#;
    assert_eq!(columns.lines(&row), [expected], "no new header: a type is what the text gives");
    let pushed = |row: &Shown| row.push(&mut Columns::of(watcher.output())).as_str().to_owned();
    let row = pushed(&row);
    assert!(row.contains(r#"{\"CUSTOMER\":8,\"N\":\"9007199254740993\",\"TOTAL\":\"1.50\"}"#), "{row}");
    let gone = pushed(&shown(Some(&seven), None).await);
    assert!(gone.contains(r#"{\"key\":{\"CUSTOMER\":7},\"tombstone\":true}"#), "{gone}");
}

#[tokio::test]
async fn rows_of_another_revision_stand_under_its_columns() {
    let (broker, catalog) = (Arc::new(Broker::new()), Arc::<Catalog>::default());
    let mut previews = Previews::new(broker.clone(), None, catalog.clone(), generous());
    previews.outside.look_again = Duration::ZERO;
    let mut watcher = previews.watch_stream("1", From::Latest, "ada").await.unwrap();
    let mut other = previews.watch_stream("1", From::Latest, "eve").await.unwrap();
    let mut columns = previews.columns(&watcher).await;
    columns.header();
    broker.publish(1..2);
    let row = take(&mut watcher, 1).await.remove(0);
    assert!(!watcher.turns_at(&row));
    assert_eq!(columns.lines(&row), [r#"{"kind":"updateAfter","row":{"columns":[null,1,null]}}"#]);
    catalog.is_updated.store(true, Ordering::SeqCst);
    broker.publish(2..3);
    let row = take(&mut watcher, 1).await.remove(0);
    assert!(watcher.turns_at(&row));
    columns = previews.columns(&watcher).await;
    let header = r#"{"header":{"schema":"`CUSTOMER` BIGINT, `N` DECIMAL(10, 2), `TOTAL` DECIMAL(10, 2)"}}"#;
    let lines = columns.lines(&row);
    assert_eq!(lines, [header, r#"{"kind":"updateAfter","row":{"columns":[null,"2.00",null]}}"#]);
    // Another one turns at the same row, however late it reads it.
    let rows = take(&mut other, 2).await;
    assert_eq!(rows.iter().map(|row| other.turns_at(row)).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn keys_that_are_objects_and_keys_that_say_nothing_new() {
    let output = |is_table| Output { topic: "t".to_owned(), columns: counts(), is_table };
    // Flink: keys are objects, and values have all columns.
    let mut flink = Columns::of(&output(true));
    flink.header();
    let key = br#"{"CUSTOMER":7}"#;
    let gone = flink.lines(&shown(Some(key), None).await);
    assert_eq!(gone, [r#"{"kind":"delete","row":{"columns":[7,null,null],"tombstone":true}}"#]);
    let row = shown(Some(key), Some(r#"{"CUSTOMER":7,"N":1,"TOTAL":2}"#)).await;
    assert_eq!(flink.lines(&row), [r#"{"kind":"updateAfter","row":{"columns":[7,1,"2.00"]}}"#]);
    assert!(row.push(&mut flink).as_str().contains(r#"\"TOTAL\":2}"#), "as it was written");
    // And numbers of a key are as exact as those of a value.
    let key = br#"{"CUSTOMER":9007199254740993,"TOTAL":1E+2}"#;
    let gone = flink.lines(&shown(Some(key), None).await);
    let line = r#"{"kind":"delete","row":{"columns":["9007199254740993",null,"100.00"],"tombstone":true}}"#;
    assert_eq!(gone, [line]);
    // A stream whose key is none of its columns.
    let mut append = Columns::of(&output(false));
    append.header();
    let row = shown(Some(b"k"), Some(r#"{"CUSTOMER":7,"N":1,"TOTAL":null}"#)).await;
    assert_eq!(append.lines(&row), [r#"{"row":{"columns":[7,1,null]}}"#]);
    // Nothing is known: the key is told as it is shown.
    let mut unknown = Columns::new(None);
    let gone = shown(Some(b"k"), None).await;
    assert!(gone.push(&mut unknown).as_str().contains(r#"{\"key\":\"k\",\"tombstone\":true}"#));
}

/// Reads keys: as Flink has written them behind schema 1, and schema 2 is somebody else's.
struct Keys;

#[async_trait]
impl Schemas for Keys {
    async fn columns_of(&self, _: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        Ok(None)
    }

    async fn decode(&self, key: &[u8]) -> Result<Option<Decoded>, PortError> {
        let json = match key.get(..5) {
            Some([0, 0, 0, 0, 1]) => r#"{"CUSTOMER":"9007199254740993","TOTAL":1.5,"OTHER":1}"#,
            Some([0, 0, 0, 0, 2]) => r#"{"temperature":1}"#,
            _ => return Ok(None),
        };
        Ok(Some(Decoded { format: Format::Avro, json: json.to_owned() }))
    }
}

#[tokio::test]
async fn a_deletion_by_a_key_in_avro_has_the_columns_of_its_key() {
    let output = Output { topic: "t".to_owned(), columns: counts(), is_table: true };
    let gone = async |key: &[u8]| {
        let (key, value) = (Some(key.to_vec()), None);
        let record = RawRecord { partition: 0, offset: 0, timestamp_ms: None, key, value, headers: Default::default() };
        row::show(&record, Some(&Keys), 1_000).await
    };
    let mut columns = Columns::of(&output);
    columns.header();
    let one = gone(&[0, 0, 0, 0, 1, 14]).await;
    let line = r#"{"kind":"delete","row":{"columns":["9007199254740993",null,"1.50"],"tombstone":true}}"#;
    assert_eq!(columns.lines(&one), [line]);
    let pushed = one.push(&mut columns).as_str();
    let object = r#"{\"key\":{\"CUSTOMER\":\"9007199254740993\",\"TOTAL\":\"1.50\"},\"tombstone\":true}"#;
    assert!(pushed.contains(object), "{pushed}");
    // ksqlDB's numbers of eight bytes: one seems to be a frame of a schema that has none of the columns.
    let number = (2_i64 << 24) + 7;
    assert_eq!(number.to_be_bytes()[..5], [0, 0, 0, 0, 2]);
    let line = format!(r#"{{"kind":"delete","row":{{"columns":[{number},null,null],"tombstone":true}}}}"#);
    assert_eq!(columns.lines(&gone(&number.to_be_bytes()).await), [line]);
}

#[tokio::test]
async fn rows_stand_under_the_columns_of_the_registry_and_new_ones_get_a_new_header() {
    let (previews, _) = previews(generous());
    let shown = async |value: Option<&str>| shown(None, value).await;
    let columns = async |topic: &str| {
        let watcher = previews.watch(topic, From::Latest, "ada").await.unwrap();
        previews.columns(&watcher).await
    };
    let mut known = columns("orders").await;
    assert_eq!(known.header().unwrap(), r#"{"header":{"schema":"`N` BIGINT"}}"#);
    assert_eq!(known.lines(&shown(Some(r#"{"N":1}"#)).await), [r#"{"row":{"columns":[1]}}"#]);
    let wider = known.lines(&shown(Some(r#"{"N":2,"M":"x"}"#)).await);
    assert_eq!(wider, [r#"{"header":{"schema":"`N` BIGINT, `M` STRING"}}"#, r#"{"row":{"columns":[2,"x"]}}"#]);
    let gone = known.lines(&shown(None).await);
    assert_eq!(gone, [r#"{"kind":"delete","row":{"columns":[null,null],"tombstone":true}}"#]);

    let mut unknown = columns("other").await;
    assert_eq!(unknown.header(), None);
    let text = unknown.lines(&shown(Some("no json")).await);
    assert_eq!(text, [r#"{"header":{"schema":"`VALUE` STRING"}}"#, r#"{"row":{"columns":["no json"]}}"#]);
}
