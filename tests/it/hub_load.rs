//! What connections to the hub cost, and that one that takes nothing costs the others nothing.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use streamview::api::hub::HubSettings;
use streamview::config::Config;
use streamview::manager::hub::HubTimes;

use crate::changes::{Killed, lines_of};
use crate::hub::{Server, Stock, met, node, settings_of_hub};
use crate::support::web_socket::WebSocket;
use crate::support::{PATIENCE, until};

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}";
/// Connections that are opened and do nothing.
const IDLE: usize = 2_000;
/// What one of them may cost, in bytes of the process.
const MOST_EACH: usize = 20 * 1024;

async fn connected(server: SocketAddr) -> WebSocket {
    let mut socket = WebSocket::open(server, "/hub/stream", &[]).await.ok().unwrap();
    socket.say(HANDSHAKE).await;
    assert_eq!(socket.frame().await.as_deref(), Some("{}\u{1e}"));
    socket
}

fn bind() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn resident_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Has `test` talk to a server that is a process of its own, whose memory nobody else's work is counted in. `name` is the test's.
fn with_a_server_apart(name: &str, hub: HubSettings, test: impl AsyncFnOnce(u32, SocketAddr)) {
    const CHILD: &str = "STREAMVIEW_TEST_HUB_APART";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(CHILD).is_some() {
        return runtime.block_on(async {
            let server = Server::with(Config::defaults(), bind(), hub).await;
            println!("\naddress {}", server.address);
            // Until its parent kills it.
            std::future::pending::<()>().await;
        });
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = lines_of(child.0.stdout.take().unwrap());
    runtime.block_on(async {
        let address = loop {
            let line =
                tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().expect("the child tells its address");
            if let Some(address) = line.strip_prefix("address ") {
                break address.parse().unwrap();
            }
        };
        test(child.0.id(), address).await;
    });
}

#[test]
fn an_idle_connection_costs_at_most_twenty_kibibytes() {
    let name = "hub_load::an_idle_connection_costs_at_most_twenty_kibibytes";
    with_a_server_apart(name, settings_of_hub(), async |server, address| {
        // What is made once for all is made.
        let mut there = Vec::new();
        for _ in 0..50 {
            there.push(connected(address).await);
        }
        let before = resident_bytes(server);
        for _ in 0..IDLE {
            there.push(connected(address).await);
        }
        let each = (resident_bytes(server) - before) / IDLE;
        println!("an idle connection costs {each} bytes");
        assert!(each > 500, "{each} bytes: nothing was measured");
        assert!(each <= MOST_EACH, "{each} bytes");
    });
}

/// How many connections the server says that it has.
async fn connections(http: &reqwest::Client, server: SocketAddr) -> usize {
    let metrics = http.get(format!("http://{server}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("streamview_hub_connections "));
    line.expect("it is a metric").parse().unwrap()
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_slows_nobody() {
    const DEAF: usize = 20;
    // Nobody is closed for silence here.
    let times =
        HubTimes { send_timeout: Duration::from_secs(4), silence: Duration::from_secs(3_600), ..HubTimes::default() };
    let hub = HubSettings { times, ..settings_of_hub() };
    let name = "hub_load::a_client_that_takes_nothing_is_closed_and_slows_nobody";
    with_a_server_apart(name, hub, async |server, address| {
        streamview::schemas::client::install_tls();
        let http = reqwest::Client::new();
        let mut other = connected(address).await;
        let mut deaf = Vec::new();
        for _ in 0..DEAF {
            deaf.push(connected(address).await);
        }
        let before = resident_bytes(server);
        let flood =
            "{\"type\":4,\"target\":\"ExecuteAdHoc\",\"arguments\":[\"1000000000 rows\"],\"invocationId\":\"0\"}";
        for socket in &mut deaf {
            socket.say(flood).await;
        }
        let (mut rounds, mut most) = (Vec::new(), before);
        let closed = async {
            while connections(&http, address).await > 1 {
                let asked = Instant::now();
                other.say("{\"type\":1,\"target\":\"GetQueryLimits\",\"arguments\":[],\"invocationId\":\"1\"}").await;
                assert!(other.frame().await.unwrap().contains("\"result\""));
                rounds.push(asked.elapsed());
                most = resident_bytes(server).max(most);
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("they are closed");
        assert!(most < before + 64 * 1024 * 1024, "what waits for them is bounded: {} bytes more", most - before);
        // A machine that is busy slows down some; whoever waited for a deaf one would have waited until it was closed.
        rounds.sort();
        let (median, slowest) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
        println!("{} rounds: {median:?} in the median, {slowest:?} the slowest", rounds.len());
        assert!(median < Duration::from_millis(500), "somebody else waited {median:?} each time");
        assert!(slowest < Duration::from_secs(3), "somebody else waited {slowest:?}");
        drop(deaf);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_connections_than_may_be_and_unopened_ones_are_forgotten() {
    // Nor is one that is open closed for its silence, which would make a place, too.
    let times = HubTimes { silence: Duration::from_secs(3_600), ..HubTimes::default() };
    let hub = |max_connections_per_caller, open_within| HubSettings {
        times: times.clone(),
        max_connections_per_caller,
        open_within,
        ..HubSettings::default()
    };
    let server = Server::with(Config::defaults(), bind(), hub(3, Duration::from_millis(300))).await;
    let http = reqwest::Client::new();
    let negotiate = async |server: &Server| {
        let answer = http.post(format!("{}/negotiate?negotiateVersion=1", server.hub())).send().await;
        answer.unwrap().json::<serde_json::Value>().await.unwrap()
    };
    // Those that are open are not forgotten.
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connected(server.address).await);
    }
    let full = "You have 3 connections to the hub, which is as many as one caller may have: close one.";
    assert_eq!(negotiate(&server).await, serde_json::json!({ "error": full }));
    let refused = WebSocket::open(server.address, "/hub/stream", &[]).await.err().unwrap();
    assert_eq!((refused.status, refused.text.contains("too_many_hub_connections")), (503, true));
    drop(open.pop());
    let token = async || negotiate(&server).await["connectionToken"].is_string().then_some(());
    until("the place of one that has gone is free", PATIENCE, token).await;
    // There is a place again only by that.
    until("what was not opened is forgotten", PATIENCE, token).await;
    drop(open);
    met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
    server.stop().await;

    let patient = Server::with(Config::defaults(), bind(), hub(1, Duration::from_secs(3_600))).await;
    assert!(negotiate(&patient).await["connectionToken"].is_string());
    let full = "You have 1 connections to the hub, which is as many as one caller may have: close one.";
    assert_eq!(negotiate(&patient).await, serde_json::json!({ "error": full }), "one that is not opened yet counts");
    patient.stop().await;
}

/// Items of one stream to the stock client: those of 20 ms in one frame, and each in a frame of its own.
#[tokio::test(flavor = "multi_thread")]
async fn items_that_travel_together_arrive_sooner() {
    let Some(folder) = node() else { return };
    let windows = [Duration::from_millis(20), Duration::ZERO];
    // The fastest of many, in turn: what else the machine has to do slows down this one or that.
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..2 {
        for (window, fastest) in windows.into_iter().zip(&mut fastest) {
            let times = HubTimes { window, ..HubTimes::default() };
            let server = Server::with(Config::defaults(), bind(), HubSettings { times, ..settings_of_hub() }).await;
            let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), "WebSockets", "flood"]);
            for _ in 0..10 {
                // So few that even alone, beside much else, they are told of long before patience ends: on two cores with 24 busy
                // threads 10,000 took 40 s.
                let told = client.tells().await;
                assert_eq!(told["items"], 1_000, "{told}");
                *fastest = fastest.min(told["seconds"].as_f64().unwrap());
            }
            server.stop().await;
        }
    }
    let [together, alone] = fastest;
    println!("1,000 items: {together:.3} s together, {alone:.3} s each alone, ratio {:.1}", alone / together);
    assert!(together * 1.5 < alone, "{together} s together, {alone} s each alone");
}
