//! A second build of the orders view, as a rebuild will make it: empty tables, no progress, the same decisions.

use streamview::builds;
use streamview::config::Config;
use streamview::domain::build::BuildId;
use streamview::domain::meaning::Meaning;
use streamview::registrations;
use streamview::views::orders::TABLES;

use crate::support::instance::Instance;
use crate::support::world::World;

/// What the default settings say of orders.
pub fn meaning() -> Meaning {
    let config = Config::defaults();
    registrations::all()[0].meaning(config.rules_of(&config.views["orders"])).unwrap()
}

impl World {
    /// Makes an empty build 2 the active one; whoever projects starts from the beginning of the log.
    pub async fn begin_build_2(&self) {
        let build = BuildId::new("orders", 2);
        builds::create(&self.sql, build, &TABLES, &meaning()).await.unwrap();
        builds::publish(&self.sql, build, &TABLES).await.unwrap();
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
