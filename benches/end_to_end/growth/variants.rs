//! The variants of the backlog that growth runs.

use clap::ValueEnum;

use crate::fleet::PARTITIONS;
use crate::workload::{EVENTS_PER_ORDER, Ids, Shape, Workload};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// 2 and 3 instances in one group
    Instances,
    /// 1 and 24 partitions
    Partitions,
    /// Order ids in no order
    Scattered,
    /// The order of each event drawn by Zipf's law
    Hot,
    /// Three times the events
    Events,
    /// Three times the events, of few, some and many orders
    Orders,
    /// Ten times the events
    TenTimes,
}

/// One backlog to run.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What is different.
    pub name: String,
    /// What the topic is filled with.
    pub workload: Workload,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Instances of the service.
    pub instances: usize,
    /// What its events look like.
    pub shape: Shape,
}

impl Variant {
    fn of(name: &str, workload: Workload) -> Variant {
        Variant { name: name.to_owned(), workload, partitions: PARTITIONS, instances: 1, shape: Shape::default() }
    }

    /// Whether both read the same topic.
    pub fn has_topic_of(&self, other: &Variant) -> bool {
        (self.workload, self.partitions, self.shape) == (other.workload, other.partitions, other.shape)
    }
}

/// The base variant with so many events, then all of the series, then the base again: the difference between the two is
/// the machine's. Every series but the longest without any named.
pub fn variants(events: u64, series: Option<&[Series]>) -> Vec<Variant> {
    let every = Series::value_variants().iter().copied().filter(|one| *one != Series::TenTimes).collect();
    let mut all = vec![Variant::of(&format!("base of {events} events"), plain(events))];
    for one in series.map_or(every, <[Series]>::to_vec) {
        all.extend(of_series(one, events));
    }
    all.push(Variant::of("the base again", plain(events)));
    all
}

/// So many events in the shapes that cost differently, after the usual one.
pub fn shapes(events: u64) -> Vec<Variant> {
    let usual = Shape::default();
    let shapes = [
        ("random ids, one line, JSON", usual),
        ("no lines", Shape { lines: 0, ..usual }),
        ("3 lines an order", Shape { lines: 3, ..usual }),
        ("Avro", Shape { is_avro: true, ..usual }),
        ("ids in order", Shape { ids: Ids::Sequential, ..usual }),
    ];
    shapes.map(|(name, shape)| Variant { shape, ..Variant::of(name, plain(events)) }).into()
}

fn plain(events: u64) -> Workload {
    Workload::plain(events / EVENTS_PER_ORDER)
}

fn of_series(series: Series, events: u64) -> Vec<Variant> {
    let orders = events / EVENTS_PER_ORDER;
    match series {
        Series::Instances => {
            let with =
                |instances| Variant { instances, ..Variant::of(&format!("{instances} instances"), plain(events)) };
            vec![with(2), with(3)]
        }
        Series::Partitions => {
            let with = |name, partitions| Variant { partitions, ..Variant::of(name, plain(events)) };
            vec![with("1 partition", 1), with("24 partitions", 24)]
        }
        Series::Scattered => {
            let workload = Workload::Scattered { orders, each: EVENTS_PER_ORDER };
            vec![Variant::of("order ids in no order", workload)]
        }
        Series::Hot => vec![Variant::of("hot orders (Zipf)", Workload::Hot { orders, events })],
        Series::Events => vec![Variant::of(&format!("{} events", 3 * events), plain(3 * events))],
        Series::Orders => {
            let of = |each| {
                let orders = 3 * events / each;
                let name = format!("{} events, {orders} orders of {each}", 3 * events);
                Variant::of(&name, Workload::Ascending { orders, each })
            };
            vec![of(300), of(10), of(1)]
        }
        Series::TenTimes => vec![Variant::of(&format!("{} events", 10 * events), plain(10 * events))],
    }
}
