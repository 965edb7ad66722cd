//! The report: a table for people, JSON with every run, and the figures that are kept for comparison.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::access::{self, Access};
use crate::announce::{self, Announced};
use crate::backlog::{self, Backlog};
use crate::ceilings::{self, Ceilings};
use crate::following::{self, Cost};
use crate::growth::{self, Grown};
use crate::idle::{self, Idle};
use crate::live::{self, Live};
use crate::load::{self, Load};
use crate::manager::{self, Managed};
use crate::pages::{self, FlatPages};
use crate::peers::{self, Peers};
use crate::preview::{self, Preview};
use crate::reads::{self, Reads};
use crate::rebuild::{self, Rebuild};
use crate::results::Results;
use crate::section::Section;
use crate::storm::{self, Storm};
use crate::waiting::{self, Pair};

/// Everything one run of the program measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Machine, servers and settings.
    pub conditions: BTreeMap<String, String>,
    /// Backlog runs.
    pub backlogs: Vec<Backlog>,
    /// Backlog runs with the ceilings measured right after each.
    pub ceilings: Vec<(Backlog, Ceilings)>,
    /// Bulk loads.
    pub loads: Vec<Load>,
    /// Backlog runs without and with waiting requests.
    pub waiting: Vec<Pair>,
    /// Backlog runs without and with clients that follow changes.
    pub following: Vec<following::Pair>,
    /// What such clients cost while little happens.
    pub costs: Vec<Cost>,
    /// How commits become known.
    pub announced: Vec<Announced>,
    /// The service after its backlog.
    pub idle: Vec<Idle>,
    /// The first, middle and last page of a list.
    pub pages: Vec<FlatPages>,
    /// Live rates.
    pub live: Vec<Live>,
    /// Rebuilds under load.
    pub rebuilds: Vec<Rebuild>,
    /// Reads by primary key.
    pub by_id: Vec<Reads>,
    /// Reads of list pages.
    pub lists: Vec<Reads>,
    /// Reads by who has logged in.
    pub access: Vec<Access>,
    /// Held orders.
    pub storm: Vec<Storm>,
    /// Rows that people watch.
    pub previews: Vec<Preview>,
    /// The stream manager with many streams.
    pub managed: Vec<Managed>,
    /// Queries of the embedded engine.
    #[cfg(feature = "embedded-engine")]
    pub embedded: Vec<crate::embedded::Embedded>,
    /// Events that say more or less.
    pub shapes: Vec<Grown>,
    /// More work, more keys, more partitions, more instances.
    pub growth: Vec<Grown>,
    /// Beside Debezium's JDBC sink.
    pub peers: Vec<Peers>,
}

impl Report {
    /// Prints the tables.
    pub fn print(&self) {
        println!("\n# conditions");
        for (name, value) in &self.conditions {
            println!("{name:<56} {value}");
        }
        for section in self.sections() {
            section.print();
        }
        following::print(&self.costs);
        announce::print(&self.announced);
        growth::print("shapes", &self.shapes);
        growth::print("growth", &self.growth);
    }

    /// What is kept and compared.
    pub fn results(&self) -> Results {
        let mut figures = BTreeMap::new();
        let grown = [("shapes", &self.shapes), ("growth", &self.growth)];
        let grown = grown.into_iter().flat_map(|(name, grown)| growth::sections(name, grown));
        for section in self.sections().into_iter().chain(grown) {
            for (name, figure) in section.figures {
                figures.insert(format!("{}: {name}", section.title), figure);
            }
        }
        Results { conditions: self.conditions.clone(), figures }
    }

    /// The sections of what was measured.
    fn sections(&self) -> Vec<Section> {
        let mut sections =
            vec![backlog::section(&self.backlogs), ceilings::section(&self.ceilings), load::section(&self.loads)];
        sections.push(waiting::section(&self.waiting));
        sections.extend(following::sections(&self.following));
        sections.extend([idle::section(&self.idle), pages::section(&self.pages)]);
        sections.extend(live::sections(&self.live));
        sections.push(rebuild::section(&self.rebuilds));
        sections.extend([reads::section("GET /orders/{id}", &self.by_id)]);
        sections.push(reads::section("GET /orders?status=, 50 a page", &self.lists));
        sections.extend([access::section(&self.access), storm::section(&self.storm)]);
        sections.extend([preview::section(&self.previews), manager::section(&self.managed)]);
        #[cfg(feature = "embedded-engine")]
        sections.push(crate::embedded::section(&self.embedded));
        sections.push(peers::section(&self.peers));
        sections.retain(|section| !section.figures.is_empty());
        sections
    }
}
