//! What connections to the hub cost, and that one that takes nothing costs the others nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use streamview::api::hub::HubSettings;
use streamview::config::Config;
use streamview::manager::hub::HubTimes;

use crate::changes::{Killed, lines_of};
use crate::hub::{Server, Stock, met, node, settings_of_hub};
use crate::support::PATIENCE;
use crate::support::web_socket::WebSocket;

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}";
/// Connections that are opened and do nothing.
const IDLE: usize = 2_000;
/// What one of them may cost, in bytes of the process.
const MOST_EACH: usize = 20 * 1024;

async fn connected(server: std::net::SocketAddr) -> WebSocket {
    let mut socket = WebSocket::open(server, "/hub/stream", &[]).await.ok().unwrap();
    socket.say(HANDSHAKE).await;
    assert_eq!(socket.frame().await.as_deref(), Some("{}\u{1e}"));
    socket
}

fn bind() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn resident_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// The server is a process of its own, so that nothing of its clients is counted.
#[test]
fn an_idle_connection_costs_at_most_twenty_kibibytes() {
    const CHILD: &str = "STREAMVIEW_TEST_HUB_IDLE";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(CHILD).is_some() {
        return runtime.block_on(async {
            let server = Server::start().await;
            println!("\naddress {}", server.address);
            // Until its parent kills it.
            std::future::pending::<()>().await;
        });
    }
    let name = "hub_load::an_idle_connection_costs_at_most_twenty_kibibytes";
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
        // What is made once for all is made.
        let mut there = Vec::new();
        for _ in 0..50 {
            there.push(connected(address).await);
        }
        let before = resident_bytes(child.0.id());
        for _ in 0..IDLE {
            there.push(connected(address).await);
        }
        let each = (resident_bytes(child.0.id()) - before) / IDLE;
        println!("an idle connection costs {each} bytes");
        assert!(each > 500, "{each} bytes: nothing was measured");
        assert!(each <= MOST_EACH, "{each} bytes");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed_and_slows_nobody() {
    let times = HubTimes { send_timeout: Duration::from_secs(2), ..HubTimes::default() };
    let server = Server::with(Config::defaults(), bind(), HubSettings { times, ..settings_of_hub() }).await;
    let flood = "{\"type\":4,\"target\":\"ExecuteAdHoc\",\"arguments\":[\"1000000000 rows\"],\"invocationId\":\"0\"}";
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut socket = connected(server.address).await;
        socket.say(flood).await;
        deaf.push(socket);
    }
    server.service.until_open(20).await;
    let before = resident_bytes(std::process::id());
    let mut other = connected(server.address).await;
    let (mut slowest, began) = (Duration::ZERO, Instant::now());
    while server.service.open.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        let asked = Instant::now();
        other.say("{\"type\":1,\"target\":\"GetQueryLimits\",\"arguments\":[],\"invocationId\":\"1\"}").await;
        assert!(other.frame().await.unwrap().contains("\"result\""));
        slowest = slowest.max(asked.elapsed());
        assert!(resident_bytes(std::process::id()) < before + 64 * 1024 * 1024, "what waits for them is bounded");
    }
    // Sooner than for their silence.
    assert!(began.elapsed() < Duration::from_secs(20), "they were closed after {:?}", began.elapsed());
    assert!(slowest < Duration::from_secs(1), "somebody else waited {slowest:?}");
    drop(deaf);
    drop(other);
    met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_connections_than_may_be_and_unopened_ones_are_forgotten() {
    let settings = HubSettings {
        max_connections_per_caller: 3,
        open_within: Duration::from_millis(300),
        ..HubSettings::default()
    };
    let server = Server::with(Config::defaults(), bind(), settings).await;
    let negotiate = async || {
        let answer = reqwest::Client::new().post(format!("{}/negotiate?negotiateVersion=1", server.hub())).send().await;
        answer.unwrap().json::<serde_json::Value>().await.unwrap()
    };
    let open = connected(server.address).await;
    assert!(negotiate().await["connectionToken"].is_string() && negotiate().await["connectionToken"].is_string());
    let full = "You have 3 connections to the hub, which is as many as one caller may have: close one.";
    assert_eq!(negotiate().await, serde_json::json!({ "error": full }));
    let refused = WebSocket::open(server.address, "/hub/stream", &[]).await.err().unwrap();
    assert_eq!((refused.status, refused.text.contains("too_many_hub_connections")), (503, true));
    let forgotten = async || negotiate().await["connectionToken"].is_string().then_some(());
    crate::support::until("what was not opened is forgotten", PATIENCE, forgotten).await;
    drop(open);
    met("nobody is there", || server.metrics.hub_connections.get() == 0).await;
    server.stop().await;
}

/// Items of one stream to the stock client: those of 20 ms in one frame, and each in a frame of its own.
#[tokio::test(flavor = "multi_thread")]
async fn items_that_travel_together_arrive_sooner() {
    let Some(folder) = node() else { return };
    let mut seconds = Vec::new();
    for window in [Duration::from_millis(20), Duration::ZERO] {
        let times = HubTimes { window, ..HubTimes::default() };
        let server = Server::with(Config::defaults(), bind(), HubSettings { times, ..settings_of_hub() }).await;
        let mut client = Stock::node(&folder, "hub.mjs", &[&server.hub(), "WebSockets", "flood"]);
        let told = client.tells().await;
        assert_eq!(told["items"], 30_000, "{told}");
        seconds.push(told["seconds"].as_f64().unwrap());
        server.stop().await;
    }
    let [together, alone] = seconds[..] else { unreachable!("two runs") };
    println!("30,000 items: {together:.2} s together, {alone:.2} s each alone, ratio {:.1}", alone / together);
    assert!(together * 1.5 < alone, "{together} s together, {alone} s each alone");
}
