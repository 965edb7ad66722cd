//! A disorderly load: copies, late arrivals, gaps that heal or stay, conflicts and poison, with what has to become of
//! every record, counted by a second and simpler reading of the rules of the sequence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use crate::support::orders::{TestEvent, life, oracle, stored};
use crate::support::world::{TestRecord, World, header};
use crate::support::{PATIENCE, until};

/// Records in their order of publication, and what they are.
pub struct Load {
    sent: Vec<Sent>,
}

#[derive(Debug, Clone)]
enum Sent {
    Event(TestEvent),
    /// Bytes that are no event, at a readable place of an order.
    Poison {
        order_id: String,
        sequence: i64,
    },
    /// A record without a key.
    Nobody,
}

impl Load {
    /// Lives of `orders` orders named after `prefix`, disturbed and interleaved; the same seed gives the same load.
    pub fn new(prefix: &str, orders: usize, seed: u64) -> Load {
        let mut random = Rng::with_seed(seed);
        let mut lives: Vec<VecDeque<Sent>> =
            (0..orders).map(|number| disorderly_life(&format!("{prefix}-{number}"), &mut random)).collect();
        lives.push(vec![Sent::Nobody; 2].into());
        let mut sent = Vec::new();
        while !lives.is_empty() {
            let chosen = random.usize(0..lives.len());
            match lives[chosen].pop_front() {
                Some(next) => sent.push(next),
                None => drop(lives.swap_remove(chosen)),
            }
        }
        Load { sent }
    }

    /// What to publish, in order.
    pub fn records(&self) -> Vec<TestRecord> {
        self.sent.iter().map(Sent::record).collect()
    }

    /// The orders that it is about.
    pub fn orders(&self) -> Vec<String> {
        let orders = self.sent.iter().filter_map(|sent| match sent {
            Sent::Event(event) => Some(event.order_id.clone()),
            Sent::Poison { order_id, .. } => Some(order_id.clone()),
            Sent::Nobody => None,
        });
        orders.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many records there are.
    pub fn len(&self) -> i64 {
        self.sent.len() as i64
    }

    /// The good events among them, in order of publication.
    pub fn events(&self) -> impl Iterator<Item = &TestEvent> {
        self.sent.iter().filter_map(|sent| match sent {
            Sent::Event(event) => Some(event),
            _ => None,
        })
    }

    /// Consumed, applied, duplicate, late, conflict, parked, dead-lettered, once all has been consumed.
    pub fn expected_counts(&self) -> [i64; 7] {
        let mut orders: BTreeMap<&str, Known> = BTreeMap::new();
        let mut counts = [0; 7];
        for sent in &self.sent {
            counts[0] += 1;
            match sent {
                Sent::Event(event) => orders.entry(&event.order_id).or_default().take(event, &mut counts),
                Sent::Poison { .. } | Sent::Nobody => counts[6] += 1,
            }
        }
        counts
    }

    /// Waits until all of it is consumed and published to the DLQ topic, then: the views and ledger equal the oracle,
    /// every record is accounted for exactly once, every dead letter stands once in its table and once on its topic.
    pub async fn assert_settled(&self, world: &World) {
        let letters = self.assert_stored(world).await;
        assert_eq!(letters_on_topic(world), letters, "every dead letter is on its topic once");
    }

    /// The same where an instance slept: what its relay was sending, it may send when it wakes, however long ago Postgres
    /// has given its lock to another one. So the README says.
    pub async fn assert_settled_after_a_sleep(&self, world: &World) {
        let letters = self.assert_stored(world).await;
        let mut on_topic = letters_on_topic(world);
        on_topic.dedup();
        assert_eq!(on_topic, letters, "every dead letter is on its topic");
    }

    /// Gives the positions of all dead letters, in order.
    async fn assert_stored(&self, world: &World) -> Vec<(i32, i64)> {
        world.until_consumed(self.len()).await;
        world.until_published().await;
        assert_eq!(stored(world).await, oracle(self.events()), "the views equal the in-order fold");
        let expected = self.expected_counts();
        assert_eq!(world.conservation().await, expected, "every record is accounted for once");
        let parked = world.number("select count(*) from parked_events").await;
        assert_eq!(parked, expected[5], "what is parked is there");
        let letters = letters_in_table(world).await;
        assert_eq!(letters.len() as i64, expected[4] + expected[6], "every dead letter has its row");
        letters
    }
}

/// Positions of all dead letters, in order.
pub async fn letters_in_table(world: &World) -> Vec<(i32, i64)> {
    let query = "select partition, \"offset\" from dead_letters order by 1, 2";
    let rows = world.sql.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Positions of all letters on the DLQ topic, in order, as often as they are there.
pub fn letters_on_topic(world: &World) -> Vec<(i32, i64)> {
    let messages = world.dead_letters_on_topic();
    let number = |message, name| header(message, name).unwrap();
    let mut letters: Vec<(i32, i64)> = messages
        .iter()
        .map(|message| {
            let partition = number(message, "x-original-partition").parse().unwrap();
            (partition, number(message, "x-original-offset").parse().unwrap())
        })
        .collect();
    letters.sort_unstable();
    letters
}

fn disorderly_life(order_id: &str, random: &mut Rng) -> VecDeque<Sent> {
    let mut events: Vec<TestEvent> = life(order_id, random.i64(3..=8));
    if random.f32() < 0.3 {
        let late = events.remove(random.usize(0..events.len()));
        events.insert(random.usize(0..=events.len()), late);
    }
    for _ in 0..random.usize(0..=2) {
        let original = random.usize(0..events.len());
        events.insert(random.usize(original + 1..=events.len()), events[original].clone());
    }
    if random.f32() < 0.15 {
        let original = random.usize(0..events.len());
        let other = events[original].clone().with("eventId", format!("{order_id}-other").into());
        events.insert(original + 1, other);
    }
    let poisoned = if random.f32() < 0.1 { random.usize(0..events.len()) } else { usize::MAX };
    let sent = events.into_iter().enumerate().map(|(index, event)| match index == poisoned {
        true => Sent::Poison { order_id: event.order_id, sequence: event.sequence },
        false => Sent::Event(event),
    });
    sent.collect()
}

impl Sent {
    fn record(&self) -> TestRecord {
        match self {
            Sent::Event(event) => event.record(),
            Sent::Poison { order_id, sequence } => TestRecord {
                key: Some(order_id.clone().into_bytes()),
                payload: Some(b"{ this is no event".to_vec()),
                headers: vec![("x-sequence".to_owned(), sequence.to_string().into_bytes())],
                partition: None,
            },
            Sent::Nobody => TestRecord { payload: Some(b"{}".to_vec()), ..TestRecord::default() },
        }
    }
}

/// An order as far as the rules of the sequence look at it.
#[derive(Default)]
struct Known {
    last: i64,
    last_id: String,
    parked: BTreeMap<i64, String>,
    /// Ids of what was applied, and of what was refused under which number.
    known: BTreeSet<String>,
    refused: BTreeSet<(i64, String)>,
}

impl Known {
    fn take(&mut self, event: &TestEvent, counts: &mut [i64; 7]) {
        let [_, applied, duplicate, late, conflict, parked, _] = counts;
        let (sequence, id) = (event.sequence, event.event_id().to_owned());
        if sequence < self.last && (self.known.contains(&id) || self.refused.contains(&(sequence, id.clone()))) {
            *late += 1;
        } else if sequence < self.last {
            self.refused.insert((sequence, id));
            *conflict += 1;
        } else if sequence == self.last || self.parked.contains_key(&sequence) {
            let known = self.parked.get(&sequence).unwrap_or(&self.last_id);
            if *known == id {
                *duplicate += 1;
            } else {
                *conflict += 1;
                self.refused.insert((sequence, id));
            }
        } else {
            self.parked.insert(sequence, id);
            *parked += 1;
            while let Some(id) = self.parked.remove(&(self.last + 1)) {
                self.known.insert(id.clone());
                (self.last, self.last_id) = (self.last + 1, id);
                *parked -= 1;
                *applied += 1;
            }
        }
    }
}

impl World {
    /// Waits until no dead letter waits for the DLQ topic any more.
    pub async fn until_published(&self) {
        until("all dead letters are published", PATIENCE, || async {
            let waiting = self.number("select count(*) from dead_letters where published_at is null").await;
            (waiting == 0).then_some(())
        })
        .await;
    }

    /// Times that partitions have been taken over so far.
    pub async fn takeovers(&self) -> i64 {
        self.number("select coalesce(sum(owner_epoch), 0) from projection_progress").await
    }
}
