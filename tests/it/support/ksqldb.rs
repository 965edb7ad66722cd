//! ksqlDB's stand-in on the bench of the conformance suite: a process of its own for each test, with the run's Kafka.

use std::sync::Arc;

use streamview::manager::engines::ksqldb::{Ksqldb, Patience};
use streamview::manager::engines::{Engine, Select};
use streamview::manager::settings::KsqldbSettings;
use streamview::schemas::client::install_tls;
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, POISON, run_if_asked};

use crate::support::bench::Bench;
use crate::support::world::{TestRecord, World};

/// Not a test by itself: the process that the others start as the server.
#[test]
fn stand_in_process() {
    run_if_asked().unwrap();
}

/// A stand-in of this test's own.
pub fn start(kafka: &str) -> KsqldbStandIn {
    start_with(kafka, None)
}

/// One that lets in who gives this name and password.
pub fn start_with(kafka: &str, login: Option<(String, String)>) -> KsqldbStandIn {
    let options = Options { bootstrap_servers: kafka.to_owned(), login, ..Options::default() };
    KsqldbStandIn::start(options, &["--exact", "support::ksqldb::stand_in_process", "--nocapture"]).unwrap()
}

/// One on the bench of the conformance suite.
pub async fn bench(world: &World) -> Bench {
    install_tls();
    let server = Arc::new(start(&world.kafka));
    let settings = KsqldbSettings { url: server.url(), username: String::new(), password: String::new() };
    let engine = Arc::new(Ksqldb::new(settings, Patience::default()).unwrap());
    let told = Arc::clone(&engine);
    Bench {
        engine,
        // As whoever deploys or queries does: who only has it explained registers nothing.
        declare: Box::new(move |source| {
            let told = Arc::clone(&told);
            Box::pin(async move {
                let select = Select { sql: String::new(), sources: vec![source] };
                told.prepare(&select).await.unwrap();
            })
        }),
        // It gives queries ids of its own, and has this test's only.
        is_over: Box::new(move |_| {
            let over = server.live().unwrap().is_empty();
            Box::pin(async move { over })
        }),
        spoil: |world| {
            Box::pin(world.publish([TestRecord { payload: Some(POISON.as_bytes().to_vec()), ..TestRecord::default() }]))
        },
        unknown_column: ("SELECT order_id,\n       nocol FROM orders", 2, 8),
    }
}
