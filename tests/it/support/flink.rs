//! The Flink of a test run, started with the first call, and such as tests kill.
//!
//! `STREAMVIEW_TEST_FLINK` is not looked for: savepoints have to lie where the test can see them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use streamview::manager::engines::flink::FlinkEngine;
use streamview::manager::engines::{Engine, ObservedState};
use streamview::manager::settings::FlinkSettings;
use streamview::schemas::client::install_tls;
use streamview_lab::servers::{FlinkCluster, FlinkOptions};

use crate::support::bench::Bench;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// How often jobs of tests write their state down.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// The shared one, with room for all tests that run at once.
pub fn shared() -> &'static FlinkCluster {
    static CLUSTER: OnceLock<FlinkCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start(16))
}

/// One of its own for a test that kills it.
pub fn own(slots: u32) -> FlinkCluster {
    start(slots)
}

/// Waits until no job runs; what still does is cancelled.
pub async fn until_empty(cluster: &FlinkCluster) {
    install_tls();
    let (http, rest) = (reqwest::Client::new(), cluster.rest_url());
    until("no job runs", PATIENCE, || async {
        let jobs: Value = http.get(format!("{rest}/jobs")).send().await.ok()?.json().await.ok()?;
        let is_over = |job: &&Value| matches!(job["status"].as_str(), Some("FINISHED" | "CANCELED" | "FAILED"));
        let alive: Vec<&Value> = jobs["jobs"].as_array()?.iter().filter(|job| !is_over(job)).collect();
        for job in &alive {
            http.patch(format!("{rest}/jobs/{}?mode=cancel", job["id"].as_str()?)).send().await.ok()?;
        }
        alive.is_empty().then_some(())
    })
    .await;
}

fn start(slots: u32) -> FlinkCluster {
    let options = FlinkOptions { slots, ..FlinkOptions::default() };
    std::thread::scope(|scope| scope.spawn(|| FlinkCluster::start(options).unwrap()).join().unwrap())
}

/// The settings of a cluster for this Kafka.
pub fn settings(cluster: &FlinkCluster, kafka: &str) -> FlinkSettings {
    FlinkSettings {
        gateway_url: cluster.gateway_url(),
        rest_url: cluster.rest_url(),
        kafka_bootstrap_servers: kafka.to_owned(),
        savepoint_dir: cluster.savepoint_dir(),
        format: "json".to_owned(),
        registry_url: String::new(),
    }
}

/// The engine of a cluster for this Kafka.
pub fn engine(settings: FlinkSettings) -> Arc<FlinkEngine> {
    install_tls();
    let engine = FlinkEngine::new(settings, reqwest::Client::new());
    Arc::new(engine.with_checkpoint_interval(CHECKPOINT_INTERVAL))
}

/// The shared one on the bench of the conformance suite.
pub async fn bench(world: &World) -> Bench {
    let settings = settings(shared(), &world.kafka);
    bench_of(engine(settings))
}

/// An engine on that bench.
pub fn bench_of(engine: Arc<FlinkEngine>) -> Bench {
    let looks = Arc::clone(&engine);
    Bench {
        engine,
        declare: Box::new(|_| Box::pin(async {})),
        is_over: Box::new(move |id| {
            let looks = Arc::clone(&looks);
            Box::pin(async move {
                let observed = looks.observe().await.unwrap();
                let job = observed.iter().find(|job| job.job_id == id);
                // Stopping, Stopped, Failed: it holds nothing any more, or soon.
                job.is_none_or(|job| matches!(job.state, ObservedState::Stopped | ObservedState::Failed))
            })
        }),
        spoil: |world| {
            Box::pin(
                world.publish([TestRecord { payload: Some(b"{\"order_id\": \"no".to_vec()), ..TestRecord::default() }]),
            )
        },
        unknown_column: ("SELECT order_id,\n       nocol FROM orders", 2, 8),
    }
}
