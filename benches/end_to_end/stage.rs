//! What the stream manager is measured on: a service that has one, and the stand-in for ksqlDB as its engine, or its own. The
//! stand-in's own CPU is not the service's.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options};

use crate::fleet::{Fleet, Service};
use crate::http::Connection;

/// The service, its engine and its database.
pub struct Stage {
    /// The service.
    pub service: Service,
    database: &'static str,
    _engine: Option<KsqldbStandIn>,
}

impl Stage {
    /// Starts them on a topic that is there. `idle`: the engine's persistent queries read nothing.
    pub async fn start(
        fleet: &Fleet,
        (database, topic): (&'static str, &str),
        idle: bool,
        settings: &[(&'static str, &str)],
    ) -> Result<Stage> {
        let bootstrap_servers = fleet.kafka.bootstrap();
        let engine = KsqldbStandIn::start(Options { bootstrap_servers, idle, ..Options::default() }, &[])?;
        let engine_url = [("STREAMVIEW_KSQLDB__URL", engine.url())];
        let stage = Stage::of(fleet, (database, topic), &engine_url, Some(engine), settings).await?;
        let columns = json!([{ "name": "ORDERID", "type": "string" }, { "name": "STATUS", "type": "string" }]);
        let source = json!({ "topic": topic, "format": "json", "columns": columns });
        stage.call("PUT", "/api/catalog/orders", &source).await?;
        Ok(stage)
    }

    /// A service whose queries run in itself.
    #[cfg(feature = "embedded-engine")]
    pub async fn embedded(
        fleet: &Fleet,
        place: (&'static str, &str),
        settings: &[(&'static str, &str)],
    ) -> Result<Stage> {
        Stage::of(fleet, place, &[], None, settings).await
    }

    async fn of(
        fleet: &Fleet,
        (database, topic): (&'static str, &str),
        engine_url: &[(&'static str, String)],
        engine: Option<KsqldbStandIn>,
        settings: &[(&'static str, &str)],
    ) -> Result<Stage> {
        fleet.create_database(database).await?;
        let own = [
            ("STREAMVIEW_MANAGER__ENABLED", "true".to_owned()),
            ("STREAMVIEW_MANAGER__PREVIEW__WATCHERS_PER_CALLER", "1000".to_owned()),
            ("STREAMVIEW_MANAGER__LIMITS__QUERIES_PER_USER", "1000".to_owned()),
            ("STREAMVIEW_MANAGER__LIMITS__STREAMS", "1000".to_owned()),
            ("STREAMVIEW_MANAGER__LIMITS__STREAMS_PER_USER", "1000".to_owned()),
            ("STREAMVIEW_HTTP__MAX_HUB_CONNECTIONS_PER_CALLER", "5000".to_owned()),
        ];
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings: Vec<_> = own.into_iter().chain(engine_url.iter().cloned()).chain(settings).collect();
        let mut service = fleet.serve_only_api_with((database, topic, database), &settings)?;
        service.wait_for_http()?;
        Ok(Stage { service, database, _engine: engine })
    }

    /// A call that has to succeed; without a body where that is null.
    pub async fn call(&self, method: &str, target: &str, body: &Value) -> Result<Value> {
        let mut connection = Connection::open(self.service.port).await?;
        let answer = match body {
            Value::Null => connection.get(target).await?,
            body => connection.call(method, target, &body.to_string()).await?,
        };
        let text = String::from_utf8_lossy(answer.body).into_owned();
        ensure!((200..300).contains(&answer.status), "{method} {target}: {} {text}", answer.status);
        serde_json::from_str(&text).with_context(|| format!("{method} {target}: {text}"))
    }

    /// Ends them.
    pub async fn end(self, fleet: &Fleet) -> Result<()> {
        self.service.stop()?;
        fleet.drop_database(self.database).await
    }
}
