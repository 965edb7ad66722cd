//! A producer of transactions.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::support::PATIENCE;
use crate::support::world::{TestRecord, World, encoded};

/// Writes to the world's topic.
pub struct Transactions {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Transactions {
    /// Fences every earlier producer of that id and aborts what it left open.
    pub fn new(world: &World, id: &str) -> Transactions {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &world.kafka).set("transactional.id", format!("{}-{id}", world.topic));
        let producer: ThreadedProducer<_> = config.set("linger.ms", "1").create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        Transactions { producer, topic: world.topic.clone() }
    }

    /// Opens a transaction with these records and leaves it open, all of them written.
    pub fn open(&self, records: impl IntoIterator<Item = TestRecord>) {
        self.producer.begin_transaction().unwrap();
        for record in records {
            let mut outgoing = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(encoded(&record));
            (outgoing.key, outgoing.payload) = (record.key.as_deref(), record.payload.as_deref());
            outgoing.partition = record.partition;
            self.producer.send(outgoing).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    pub fn commit(&self) {
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    pub fn abort(&self) {
        self.producer.abort_transaction(PATIENCE).unwrap();
    }
}
