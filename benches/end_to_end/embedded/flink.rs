//! The same queries over the same topic on a real Flink of this machine, its compiler on, and warm.

use anyhow::{Context, Result};
use streamview::manager::engines::flink::FlinkEngine;
use streamview::manager::engines::{Deployment, Engine, Select, StopMode};
use streamview::manager::names::Names;
use streamview::manager::settings::FlinkSettings;
use streamview_lab::servers::{FlinkCluster, FlinkOptions};

use super::rows::source;
use super::{TOPIC, Through, drained, groups, kafka, passing, rows};
use crate::fleet::Fleet;

/// Filter and windows over so many rows. Each is deployed twice, and the second time counts.
pub async fn run(fleet: &Fleet, input: u64) -> Result<(Through, Through)> {
    let options = FlinkOptions { slots: 4, optimise: true };
    let cluster = tokio::task::spawn_blocking(move || FlinkCluster::start(options)).await??;
    streamview::schemas::client::install_tls();
    let settings = FlinkSettings {
        gateway_url: cluster.gateway_url(),
        rest_url: cluster.rest_url(),
        kafka_bootstrap_servers: fleet.kafka.bootstrap(),
        savepoint_dir: cluster.savepoint_dir(),
        format: "json".to_owned(),
        registry_url: String::new(),
    };
    let engine = FlinkEngine::new(settings, reqwest::Client::new());
    let mut through = Vec::new();
    for (sql, rows) in [(rows::FILTER_ON_FLINK, passing(input)), (rows::WINDOWS_ON_FLINK, groups(input))] {
        for is_warm in [false, true] {
            let measured = once(fleet, &engine, &cluster, sql, (input, rows)).await?;
            if is_warm {
                through.push(measured);
            }
        }
    }
    let [filter, windows] = through[..] else { anyhow::bail!("two queries ran") };
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    Ok((filter, windows))
}

async fn once(
    fleet: &Fleet,
    engine: &FlinkEngine,
    cluster: &FlinkCluster,
    sql: &str,
    rows: (u64, u64),
) -> Result<Through> {
    let definition = format!("{:032x}", fastrand::u128(..));
    let names = Names::of(&definition, "bench");
    let output = names.topic();
    streamview_lab::seed::create_topics(&kafka(fleet), &[(output.as_str(), 1)]).await?;
    let select = Select { sql: sql.to_owned(), sources: vec![source(TOPIC)] };
    let changes = engine.explain(&select).await.with_context(|| format!("explaining {sql}"))?.changes;
    let (replaces, restore) = (false, None);
    let deployment = Deployment { definition, names, revision: 1, attempt: 1, select, changes, replaces, restore };
    let handle = engine.deploy(&deployment).await.context("deploying on Flink")?;
    let through = drained(fleet, &output, rows, &cluster.pids()).await?;
    engine.stop(&deployment, &handle, StopMode::Final).await.context("stopping on Flink")?;
    Ok(through)
}
