//! A second build of the orders view, as a rebuild will make it: empty tables, no progress, the same decisions.

use crate::support::instance::Instance;
use crate::support::world::World;

impl World {
    /// Makes an empty build 2 the active one; whoever projects starts from the beginning of the log.
    pub async fn begin_build_2(&self) {
        for migration in ["V002__orders", "V006__compact_history", "V008__payload_as_text"] {
            let path = format!("{}/migrations/{migration}.sql", env!("CARGO_MANIFEST_DIR"));
            let schema = std::fs::read_to_string(path).unwrap();
            let schema = schema.split("insert into view_builds").next().unwrap();
            let schema = schema.replace("orders_1", "orders_2").replace("create view", "create or replace view");
            self.sql.batch_execute(&schema).await.unwrap();
        }
        self.sql
            .batch_execute(
                "update view_builds set active = false; insert into view_builds (view, build) values ('orders', 2)",
            )
            .await
            .unwrap();
    }

    /// Projects the whole log into build 2, until as much is consumed as build 1 has.
    pub async fn rebuild(&self) -> Instance {
        self.begin_build_2().await;
        let instance = self.start().await;
        let records = self.number("select sum(consumed) from projection_progress where build = 1").await;
        crate::support::until("the log is replayed", crate::support::PATIENCE, || async {
            let query = "select coalesce(sum(consumed), 0) from projection_progress where build = 2";
            (self.number(query).await >= records).then_some(())
        })
        .await;
        instance
    }
}
