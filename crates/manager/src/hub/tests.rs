//! A session from end to end, without sockets: exchanges as they were recorded of the stock clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Service {
    groups: Groups,
    open: Arc<AtomicUsize>,
    left: AtomicUsize,
}

/// Counts a stream as long as it is held.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(open: &Arc<AtomicUsize>) -> Held {
        open.fetch_add(1, Ordering::SeqCst);
        Held(Arc::clone(open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl HubService for Service {
    fn method(&self, target: &str) -> Option<Method> {
        match target.to_lowercase().as_str() {
            "executeadhoc" | "flood" | "hangs" => Some(Method::Streaming),
            "getquerylimits" | "joinstreamgroup" | "leavestreamgroup" | "refuse" | "slow" => Some(Method::Plain),
            _ => None,
        }
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        let group = call.arguments.first().and_then(Value::as_str).unwrap_or_default();
        match call.target.to_lowercase().as_str() {
            "getquerylimits" => Ok(json!({ "mine": call.caller.counted_as })),
            "joinstreamgroup" => {
                self.groups.join(group, &call.client);
                Ok(Value::Null)
            }
            "leavestreamgroup" => {
                self.groups.leave(group, &call.client);
                Ok(Value::Null)
            }
            "slow" => {
                tokio::task::yield_now().await;
                Ok(json!("slow"))
            }
            _ => Err("Only readers may.".to_owned()),
        }
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        let held = Held::new(&self.open);
        let items = call.arguments.first().and_then(Value::as_u64);
        match (call.target.to_lowercase().as_str(), items) {
            ("executeadhoc", Some(items)) => {
                Ok(stream::iter((0..items).map(move |n| (&held, Ok(n.to_string())).1).collect::<Vec<_>>()).boxed())
            }
            ("executeadhoc", None) => Err("Only SELECT is allowed (line 1, column 1).".to_owned()),
            ("hangs", _) => {
                let never = stream::pending().map(move |item| (&held, item).1);
                Ok(stream::iter([Ok("header".to_owned())]).chain(never).boxed())
            }
            _ => Ok(stream::repeat_with(move || (&held, Ok("x".repeat(1_000))).1).boxed()),
        }
    }

    fn left(&self, client: &Client) {
        self.groups.leave_all(client);
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

struct Side {
    service: Arc<Service>,
    link: Link,
    outgoing: Outgoing,
    stop: CancellationToken,
    session: JoinHandle<Ending>,
    texts: std::collections::VecDeque<String>,
}

impl Side {
    fn open(times: HubTimes, polls: bool) -> Side {
        let (service, stop) = (Arc::new(Service::default()), CancellationToken::new());
        let caller = Caller { counted_as: "ada".to_owned(), ..Caller::default() };
        let (link, outgoing, session) = connect(Opening {
            id: ConnectionId("one".into()),
            caller: Arc::new(caller),
            service: Arc::clone(&service) as Arc<dyn HubService>,
            times,
            stop: stop.clone(),
            polls,
        });
        let session = tokio::spawn(session.run());
        Side { service, link, outgoing, stop, session, texts: Default::default() }
    }

    async fn shaken() -> Side {
        let mut side = Side::open(HubTimes::default(), false);
        side.say("{\"protocol\":\"json\",\"version\":1}").await;
        assert_eq!(side.hears().await, "{}");
        side
    }

    async fn say(&self, message: &str) {
        assert!(self.link.bring(Incoming::Piece(format!("{message}\u{1e}").into_bytes())).await);
    }

    /// The next message.
    async fn hears(&mut self) -> String {
        while self.texts.is_empty() {
            let frame = timeout(PATIENCE, self.outgoing.next()).await.expect("something is said").expect("it is open");
            let messages = frame.strip_suffix('\u{1e}').expect("whole messages");
            self.texts.extend(messages.split('\u{1e}').map(str::to_owned));
        }
        self.texts.pop_front().unwrap()
    }

    async fn ends(self) -> Ending {
        timeout(PATIENCE, self.session).await.expect("the session ends").unwrap()
    }

    async fn until_open(&self, streams: usize) {
        let wait = async {
            while self.service.open.load(Ordering::SeqCst) != streams {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("so many streams are open");
    }
}

#[tokio::test]
async fn calls_are_answered_once_each_even_if_they_come_with_the_handshake_or_in_pieces() {
    let mut side = Side::open(HubTimes::default(), false);
    let limits = r#"{"target":"GetQueryLimits","arguments":[],"invocationId":"0","type":1}"#;
    side.say(&format!("{{\"protocol\":\"json\",\"version\":0}}\u{1e}{limits}")).await;
    assert_eq!(side.hears().await, "{}");
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"0","result":{"mine":"ada"}}"#);
    for piece in [r#"{"target":"getQUERYlimits","arguments":"#, r#"[],"invocationId":"1","type":1}"#, "\u{1e}"] {
        assert!(side.link.bring(Incoming::Piece(piece.into())).await);
    }
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"1","result":{"mine":"ada"}}"#);
    side.say(r#"{"target":"JoinStreamGroup","arguments":["t"],"invocationId":"2","type":1}"#).await;
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"2"}"#, "nothing is no result");
    side.say(r#"{"target":"Refuse","arguments":["t"],"invocationId":"3","type":1}"#).await;
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"3","error":"Only readers may."}"#);
    side.say(r#"{"target":"Refuse","arguments":["t"],"type":1}"#).await;
    side.say(r#"{"target":"NoSuchMethod","arguments":[1],"type":1}"#).await;
    side.say(r#"{"target":"NoSuchMethod","arguments":[1],"invocationId":"4","type":1}"#).await;
    let unknown = r#"{"type":3,"invocationId":"4","error":"There is no method 'NoSuchMethod' here."}"#;
    assert_eq!(side.hears().await, unknown, "and who wants no answer got none");
    side.say(r#"{"type":7}"#).await;
    let service = Arc::clone(&side.service);
    assert_eq!(side.ends().await, Ending::Left);
    assert_eq!(service.left.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn plain_calls_are_made_one_after_the_other() {
    let mut side = Side::shaken().await;
    // All are there before the first is made.
    let calls = [
        r#"{"target":"Slow","arguments":[],"invocationId":"a","type":1}"#,
        r#"{"target":"JoinStreamGroup","arguments":["t"],"invocationId":"b","type":1}"#,
        r#"{"target":"LeaveStreamGroup","arguments":["t"],"invocationId":"c","type":1}"#,
    ];
    side.say(&calls.join("\u{1e}")).await;
    for id in ["a", "b", "c"] {
        assert!(side.hears().await.contains(&format!("\"invocationId\":\"{id}\"")));
    }
    assert_eq!(side.service.groups.size("t"), 0);
}

#[tokio::test]
async fn a_stream_is_its_items_and_one_end() {
    let mut side = Side::shaken().await;
    side.say(r#"{"target":"ExecuteAdHoc","arguments":[3],"invocationId":"0","type":4}"#).await;
    for item in 0..3 {
        assert_eq!(side.hears().await, format!(r#"{{"type":2,"invocationId":"0","item":"{item}"}}"#));
    }
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"0"}"#);
    // The id is free again, as over a reconnect of the client's counting.
    side.say(r#"{"target":"ExecuteAdHoc","arguments":["DROP"],"invocationId":"0","type":4}"#).await;
    let refused = r#"{"type":3,"invocationId":"0","error":"Only SELECT is allowed (line 1, column 1)."}"#;
    assert_eq!(side.hears().await, refused);
    for (call, error) in [
        (
            r#"{"target":"ExecuteAdHoc","arguments":[1],"invocationId":"1","type":1}"#,
            "'ExecuteAdHoc' gives a stream: ask for it with stream, not with invoke or send.",
        ),
        (
            r#"{"target":"Refuse","arguments":[1],"invocationId":"1","type":4}"#,
            "'Refuse' gives one answer: ask for it with invoke, not with stream.",
        ),
        (
            r#"{"target":"ExecuteAdHoc","arguments":[1],"invocationId":"1","streamIds":["2"],"type":4}"#,
            "'ExecuteAdHoc' takes no streams.",
        ),
        (r#"{"target":"Nope","arguments":[1],"invocationId":"1","type":4}"#, "There is no method 'Nope' here."),
    ] {
        side.say(call).await;
        let answer: Value = serde_json::from_str(&side.hears().await).unwrap();
        assert_eq!(answer, json!({ "type": 3, "invocationId": "1", "error": error }));
    }
    assert_eq!(side.service.open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_cancelled_stream_is_dropped_at_once_and_completed_once() {
    let mut side = Side::shaken().await;
    side.say(r#"{"target":"Hangs","arguments":[],"invocationId":"0","type":4}"#).await;
    assert_eq!(side.hears().await, r#"{"type":2,"invocationId":"0","item":"header"}"#);
    side.until_open(1).await;
    side.say(r#"{"invocationId":"77","type":5}"#).await;
    side.say(r#"{"invocationId":"0","type":5}"#).await;
    side.say(r#"{"invocationId":"0","type":5}"#).await;
    assert_eq!(side.hears().await, r#"{"type":3,"invocationId":"0"}"#);
    side.until_open(0).await;
    side.say(r#"{"target":"GetQueryLimits","arguments":[],"invocationId":"1","type":1}"#).await;
    assert!(side.hears().await.contains("\"invocationId\":\"1\""), "nothing more of the one that was cancelled");
}

#[tokio::test]
async fn the_loss_of_the_connection_ends_all_that_it_had_open() {
    let mut side = Side::shaken().await;
    side.say(r#"{"target":"JoinStreamGroup","arguments":["t"],"invocationId":"a","type":1}"#).await;
    side.hears().await;
    for id in 0..5 {
        side.say(&format!(r#"{{"target":"Hangs","arguments":[],"invocationId":"{id}","type":4}}"#)).await;
        side.hears().await;
    }
    side.until_open(5).await;
    side.link.lost();
    let service = Arc::clone(&side.service);
    assert_eq!(side.ends().await, Ending::Lost);
    let after = (service.open.load(Ordering::SeqCst), service.left.load(Ordering::SeqCst), service.groups.size("t"));
    assert_eq!(after, (0, 1, 0));
}

#[tokio::test]
async fn who_takes_nothing_is_closed_and_can_still_cancel() {
    let times = HubTimes { send_timeout: Duration::from_secs(2), ..HubTimes::default() };
    let mut side = Side::open(times, false);
    side.say("{\"protocol\":\"json\",\"version\":1}").await;
    side.hears().await;
    side.say(r#"{"target":"Hangs","arguments":[],"invocationId":"1","type":4}"#).await;
    side.until_open(1).await;
    side.say(r#"{"target":"Flood","arguments":[],"invocationId":"0","type":4}"#).await;
    side.until_open(2).await;
    side.say(r#"{"invocationId":"1","type":5}"#).await;
    side.until_open(1).await;
    let service = Arc::clone(&side.service);
    let began = Instant::now();
    assert!(side.outgoing.now().is_some() && side.outgoing.now().is_none(), "no more than one frame waits");
    assert_eq!(side.ends().await, Ending::TakesNothing);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(service.open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn silence_is_answered_by_pings_and_ends_in_the_end() {
    let (keep_alive, silence) = (Duration::from_millis(40), Duration::from_secs(2));
    let times = HubTimes { keep_alive, silence, ..HubTimes::default() };
    let mut side = Side::open(times.clone(), false);
    side.say("{\"protocol\":\"json\",\"version\":1}").await;
    assert_eq!(side.hears().await, "{}");
    assert_eq!(side.hears().await, r#"{"type":6}"#);
    assert_eq!(side.hears().await, r#"{"type":6}"#);
    let mut last = side.hears().await;
    while last == r#"{"type":6}"# {
        last = side.hears().await;
    }
    let farewell = r#"{"type":7,"error":"Nothing was heard of this client for too long.","allowReconnect":true}"#;
    assert_eq!(last, farewell);
    assert_eq!(side.ends().await, Ending::Silent);

    // Who polls is sent no pings, and is there as long as a poll is open.
    let mut side = Side::open(times, true);
    side.say("{\"protocol\":\"json\",\"version\":1}").await;
    let poll = side.link.poll();
    assert_eq!(side.hears().await, "{}");
    assert!(timeout(silence * 2, side.outgoing.next()).await.is_err(), "nothing is said");
    drop(poll);
    assert_eq!(side.hears().await, farewell);
}

#[tokio::test]
async fn what_is_no_conversation_is_closed_with_a_sentence() {
    let refused = |first: &'static str| async move {
        let mut side = Side::open(HubTimes::default(), false);
        side.say(first).await;
        let text = side.hears().await;
        assert!(matches!(side.ends().await, Ending::Refused(_)));
        text
    };
    assert_eq!(
        refused("{\"protocol\":\"xml\",\"version\":1}").await,
        "{\"error\":\"The protocol 'xml' is not supported; 'json' is.\"}"
    );
    assert!(refused("{\"type\":6}").await.starts_with("{\"error\":\"The first message has to be a handshake"));
    let times = HubTimes { handshake: Duration::from_millis(50), ..HubTimes::default() };
    assert_eq!(Side::open(times, false).hears().await, "{\"error\":\"No handshake came in time.\"}");

    let long = format!(r#"{{"target":"Refuse","arguments":["{}"],"type":1}}"#, "x".repeat(40_000));
    for (bad, error) in [
        (long.as_str(), "A message has more than 32768 bytes, which is as many as may be sent."),
        ("nonsense", "A message is not one of the JSON protocol."),
        (
            "{\"target\":\"Hangs\",\"arguments\":[],\"invocationId\":\"9\",\"type\":4}\u{1e}\
             {\"target\":\"Slow\",\"arguments\":[],\"invocationId\":\"9\",\"type\":1}",
            "Two calls have the same id.",
        ),
    ] {
        let mut side = Side::shaken().await;
        side.say(bad).await;
        assert_eq!(side.hears().await, format!(r#"{{"type":7,"error":"{error}"}}"#));
        let service = Arc::clone(&side.service);
        assert!(matches!(side.ends().await, Ending::Garbled(_) | Ending::IdInUse));
        assert_eq!((service.open.load(Ordering::SeqCst), service.left.load(Ordering::SeqCst)), (0, 1));
    }
}

#[tokio::test]
async fn when_the_process_stops_clients_may_come_back() {
    let mut side = Side::shaken().await;
    side.say(r#"{"target":"Hangs","arguments":[],"invocationId":"0","type":4}"#).await;
    side.hears().await;
    side.stop.cancel();
    let farewell = r#"{"type":7,"error":"The server stops. Connect again.","allowReconnect":true}"#;
    assert_eq!(side.hears().await, farewell);
    side.until_open(0).await;
    assert_eq!(side.ends().await, Ending::Stopping);
}

#[tokio::test]
async fn pushes_and_items_of_a_window_travel_in_one_frame() {
    let times = HubTimes { window: Duration::from_millis(200), ..HubTimes::default() };
    let mut side = Side::open(times, false);
    side.say("{\"protocol\":\"json\",\"version\":1}").await;
    side.say(r#"{"target":"JoinStreamGroup","arguments":["t"],"invocationId":"a","type":1}"#).await;
    side.hears().await;
    side.hears().await;
    for n in 0..100 {
        let text = PushText::new("ReceiveMessage", &n.to_string());
        assert_eq!(side.service.groups.send("t", &text), crate::hub::groups::Told { clients: 1, lost: 0 });
    }
    let mut frames = 0;
    let mut messages = 0;
    while messages < 100 {
        let frame = timeout(PATIENCE, side.outgoing.next()).await.unwrap().unwrap();
        frames += 1;
        messages += frame.matches('\u{1e}').count();
    }
    assert!(frames <= 3, "{frames} frames for {messages} messages that came at once");
}
