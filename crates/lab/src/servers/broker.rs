//! A Kafka for trying out: librdkafka's in-process cluster. Keeps about 5 MiB per partition, knows no topic ids, no
//! transactions and no admin requests; librdkafka clients only. Never the proof of anything.

use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};
use rdkafka::mocking::MockCluster;

/// The cluster, alive as long as this value.
pub struct PlaygroundBroker {
    bootstrap_servers: String,
    // The cluster cannot leave its thread, which ends when this is dropped.
    _stop: Sender<()>,
}

impl PlaygroundBroker {
    /// Starts a cluster with these topics and partition counts.
    pub fn start(topics: &[(&str, i32)]) -> Result<PlaygroundBroker> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (report, started) = channel();
        let (stop, stopped) = channel::<()>();
        std::thread::Builder::new().name("playground-broker".to_owned()).spawn(move || {
            let cluster = match start_cluster(&topics) {
                Ok(cluster) => cluster,
                Err(error) => return report.send(Err(error)).is_ok(),
            };
            let told = report.send(Ok(cluster.bootstrap_servers())).is_ok();
            // An error means that the other end is gone: that is the signal.
            told && stopped.recv().is_ok()
        })?;
        let bootstrap_servers = started.recv().context("the broker thread ended")??;
        Ok(PlaygroundBroker { bootstrap_servers, _stop: stop })
    }

    /// Where clients find it.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

fn start_cluster(topics: &[(String, i32)]) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(1).map_err(|error| anyhow!("cannot start the in-process Kafka: {error}"))?;
    for (name, partitions) in topics {
        cluster.create_topic(name, *partitions, 1).map_err(|error| anyhow!("cannot create topic {name}: {error}"))?;
    }
    Ok(cluster)
}
