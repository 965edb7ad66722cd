//! Who reads the topic of a definition. A page that polls must not load the brokers: one topic is asked about at a time, an answer
//! is good for a while, whoever asks meanwhile gets it or waits for it, and so is a refusal.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::Shared;
use crate::definition::Definition;
use crate::fault::Fault;
use crate::ports::{Consumers, PortError};

/// So long an answer is good.
pub const GOOD_FOR: Duration = Duration::from_secs(10);
/// Most groups of a cluster that are asked at a time.
pub const MOST_GROUPS: usize = 50;
/// Most topics of which an answer is kept.
const MOST_KEPT: usize = 200;

/// Who reads a topic, as the brokers told.
#[derive(Debug, Clone)]
pub struct Readers {
    /// The topic.
    pub topic: String,
    /// What they told, or why they did not.
    pub told: Result<Consumers, PortError>,
    /// When.
    pub at: Timestamp,
}

/// What is known of one topic, and since when.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Readers)>>>;

/// What was told lately.
pub(super) struct Cache {
    slots: Mutex<HashMap<String, Slot>>,
    turn: Arc<Semaphore>,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { slots: Mutex::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Cache {
    /// What is known of `topic`, no older than [`GOOD_FOR`]. What is asked is asked to its end, whoever goes away meanwhile: it
    /// keeps its turn.
    async fn get<F>(&self, topic: &str, now: Instant, ask: impl FnOnce() -> F) -> Readers
    where
        F: Future<Output = Result<Consumers, PortError>> + Send + 'static,
    {
        let slot = self.slot(topic);
        let mut known = slot.lock().await;
        if let Some((at, readers)) = known.as_ref()
            && now.saturating_duration_since(*at) < GOOD_FOR
        {
            return readers.clone();
        }
        let (turn, question) = (Arc::clone(&self.turn), ask());
        let asked = tokio::spawn(async move {
            let _turn = turn.acquire_owned().await;
            question.await
        });
        let told =
            asked.await.unwrap_or_else(|error| Err(PortError::Unavailable(format!("nobody could ask: {error}"))));
        let readers = Readers { topic: topic.to_owned(), told, at: Timestamp::now() };
        *known = Some((now.max(Instant::now()), readers.clone()));
        readers
    }

    fn slot(&self, topic: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_KEPT && !slots.contains_key(topic) {
            // Nobody waits for those that nobody else holds.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(topic.to_owned()).or_default())
    }
}

impl Shared {
    /// Who reads what a definition writes.
    pub(super) async fn consumers(&self, id: &str) -> Result<Readers, Fault> {
        let topic = Definition::from(self.record(id).await?).output_topic;
        let kafka = Arc::clone(&self.parts.kafka);
        let asked = topic.clone();
        let ask = move || async move { kafka.consumers(&asked, MOST_GROUPS).await };
        Ok(self.consumers.get(&topic, Instant::now(), ask).await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn look(cache: &Cache, topic: &str, now: Instant, asked: &Arc<AtomicUsize>) -> Readers {
        let asked = Arc::clone(asked);
        let ask = || async move {
            match asked.fetch_add(1, Ordering::SeqCst) {
                2 => Err(PortError::Unavailable("away".to_owned())),
                turn => Ok(Consumers { not_asked: turn, ..Consumers::default() }),
            }
        };
        cache.get(topic, now, ask).await
    }

    #[tokio::test]
    async fn pages_that_poll_have_the_brokers_asked_once_in_ten_seconds() {
        let (cache, asked) = (Cache::default(), Arc::new(AtomicUsize::new(0)));
        let now = Instant::now();
        let looks = futures_util::future::join_all((0..100).map(|_| look(&cache, "one", now, &asked))).await;
        assert!(looks.iter().all(|readers| readers.told.is_ok() && readers.at == looks[0].at));
        look(&cache, "one", now + GOOD_FOR - Duration::from_millis(1), &asked).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let later = Instant::now() + GOOD_FOR;
        assert_eq!(look(&cache, "one", later, &asked).await.told.unwrap().not_asked, 1);
        // A broker that says no is not asked any oftener.
        assert!(look(&cache, "two", later, &asked).await.told.is_err());
        assert!(look(&cache, "two", later, &asked).await.told.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn one_topic_is_asked_about_at_a_time_even_if_who_asked_has_left() {
        let (cache, at_once, most) =
            (Arc::new(Cache::default()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let question = |at_once: Arc<AtomicUsize>, most: Arc<AtomicUsize>, gate: Arc<Semaphore>| async move {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(Consumers::default())
        };
        let begin = |topic: &'static str| {
            let (cache, at_once, most, gate) =
                (Arc::clone(&cache), Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&gate));
            tokio::spawn(async move { cache.get(topic, Instant::now(), || question(at_once, most, gate)).await })
        };
        let first = begin("one");
        while at_once.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = begin("two");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        second.await.unwrap().told.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn no_more_topics_are_kept_than_may_be() {
        let (cache, asked) = (Cache::default(), Arc::new(AtomicUsize::new(10)));
        for number in 0..MOST_KEPT + 1 {
            look(&cache, &number.to_string(), Instant::now(), &asked).await;
        }
        assert_eq!(cache.slots.lock().unwrap().len(), 1);
    }
}
