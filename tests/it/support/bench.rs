//! An engine on the bench of the conformance suite: what its tests need to know of one beyond the contract.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use streamview::manager::catalog::{Column, Format, Source};
use streamview::manager::engines::{AdHoc, Deployment, Engine, Explained, Item, ObservedState, Rows, Select};
use streamview::manager::gate::{self, Dialect, Kind};
use streamview::manager::names::Names;
use streamview::manager::settings::Limits;

use crate::support::world::{TestRecord, World, records};
use crate::support::{PATIENCE, until};

/// An engine, and what differs between engines beyond the contract.
pub struct Bench {
    pub engine: Arc<dyn Engine>,
    /// Makes a source known to the engine, if it has to be told.
    pub declare: Box<dyn Fn(Source) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Whether the query with this id is over in the engine.
    pub is_over: Box<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>,
    /// Makes a running query of the world's topic fail, by whatever makes this engine's queries fail.
    pub spoil: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
    /// A text with an unknown column, and where that stands.
    pub unknown_column: (&'static str, u32, u32),
}

/// A test's own topic behind the source `orders`, and an engine.
pub struct Stand {
    pub bench: Bench,
    pub world: World,
    pub source: Source,
}

impl Stand {
    /// An engine with a source of its own. Columns: `order_id bigint, customer string, amount decimal(20, 2)`.
    pub async fn new(bench: Bench, world: World) -> Stand {
        let column = |name: &str, data_type: &str| Column {
            name: name.to_owned(),
            data_type: data_type.parse().unwrap(),
            nullable: true,
        };
        let source = Source {
            // Of its own: engines that know their sources are shared by tests.
            name: format!("orders_{}", &world.topic.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")),
            topic: world.topic.clone(),
            format: Format::Json,
            columns: vec![
                column("order_id", "bigint"),
                column("customer", "string"),
                column("amount", "decimal(20, 2)"),
            ],
            event_time: None,
            table: None,
        };
        (bench.declare)(source.clone()).await;
        Stand { bench, world, source }
    }

    pub fn engine(&self) -> &dyn Engine {
        &*self.bench.engine
    }

    /// A user's text through the gate. `orders` stands for the source.
    pub fn select(&self, sql: &str, kind: Kind) -> Select {
        let sql = sql.replace("FROM orders", &format!("FROM {}", self.source.name));
        let dialect = Dialect::of(self.engine().kind());
        let gated = gate::check(&sql, dialect, kind, &Limits::default(), &vec![self.source.clone()]);
        gated.unwrap_or_else(|faults| panic!("{sql}: {faults:?}")).select
    }

    pub fn persistent(&self, sql: &str) -> Select {
        self.select(sql, Kind::Persistent)
    }

    /// Orders of `amount`, published as they come: `("7", "a", "12.50")`.
    pub async fn publish(&self, orders: impl IntoIterator<Item = (i64, &str, &str)>) {
        let records = orders.into_iter().map(|(order_id, customer, amount)| TestRecord {
            key: Some(order_id.to_string().into_bytes()),
            payload: Some(
                format!(r#"{{"order_id": {order_id}, "customer": "{customer}", "amount": {amount}}}"#).into_bytes(),
            ),
            ..TestRecord::default()
        });
        self.world.publish(records).await;
    }

    /// A deployment that is explained and has its topic, not yet deployed.
    pub async fn plan(&self, definition: &str, revision: i32, select: Select) -> Deployment {
        let Explained { changes, .. } = self.engine().explain(&select).await.unwrap();
        let names = Names::of(definition, "High value!");
        let (definition, attempt, replaces, restore) = (definition.to_owned(), 1, false, None);
        Deployment { definition, names, revision, attempt, select, changes, replaces, restore }
    }

    /// Likewise, a new definition.
    pub async fn plan_new(&self, sql: &str) -> Deployment {
        let definition = format!("{:032x}", fastrand::u128(..));
        let deployment = self.plan(&definition, 1, self.persistent(sql)).await;
        self.world.create_topic(&deployment.names.topic(), 1, &[]).await;
        deployment
    }

    /// The values of the output topic so far, each key's name in lower case.
    pub fn output(&self, deployment: &Deployment) -> Vec<Value> {
        let records = records(&self.world.kafka, &deployment.names.topic());
        let payloads = records.iter().filter_map(|message| rdkafka::Message::payload(message));
        payloads.map(|payload| lower(serde_json::from_slice(payload).unwrap())).collect()
    }

    /// The order ids of the output topic, once there are so many rows.
    pub async fn until_output(&self, deployment: &Deployment, rows: usize) -> Vec<i64> {
        until(&format!("{rows} rows are in the output topic"), PATIENCE * 2, || async {
            let output = self.output(deployment);
            let ids = output.iter().map(|row| row["order_id"].as_i64().unwrap()).collect::<Vec<_>>();
            (ids.len() >= rows).then_some(ids)
        })
        .await
    }

    /// What the engine says of a job now.
    pub async fn observed(&self, job_id: &str) -> ObservedState {
        let observed = self.engine().observe().await.unwrap();
        observed.iter().find(|each| each.job_id == job_id).map_or(ObservedState::Absent, |each| each.state)
    }

    /// A query of somebody who looks.
    pub fn ad_hoc(&self, sql: &str, from_start: bool) -> AdHoc {
        AdHoc {
            id: format!("{:032x}", fastrand::u128(..)),
            select: self.select(sql, Kind::AdHoc { pull: false }),
            from_start,
            time_limit: Duration::from_secs(300),
        }
    }
}

fn lower(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect(),
        other => other,
    }
}

/// The next item of a query; fails where nothing comes.
pub async fn next(rows: &mut Rows) -> Item {
    let item = tokio::time::timeout(PATIENCE * 2, rows.next()).await;
    item.expect("an item comes in time").expect("a query ends with its end")
}
