//! Sessions of browsers. Whoever has shown a credential once gets a random word for it, which a browser keeps where no script
//! reads it; here stands what it was got for, and that is judged at each call as if it were shown again, so a revoked key ends its
//! sessions. They are this process's: a restart ends them, and several instances need a balancer that keeps to one.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use ring::rand::{SecureRandom, SystemRandom};

use super::Kept;
use crate::auth::api_key::{KeyHash, RANDOM_BYTES, hash_of, key_of};

/// Sessions at once; the one that was not used for longest ends.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than none");
/// Those of one principal; then the one of theirs that was not used for longest ends, and nobody else's.
const MOST_OF_ONE: usize = 100;
/// How long one lasts, whatever is done in it: a working day.
pub const LASTS: Duration = Duration::from_secs(12 * 60 * 60);

/// The sessions.
pub(super) struct Sessions(Mutex<LruCache<KeyHash, Session>>);

struct Session {
    kept: Kept,
    /// Of the principal's name.
    of: KeyHash,
    until: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions(Mutex::new(LruCache::new(MOST)))
    }
}

impl Sessions {
    /// A new one of the principal of this name; gives its word, or nothing if the system has no random numbers.
    pub(super) fn begin(&self, kept: Kept, name: &str, now: Instant) -> Option<String> {
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).ok()?;
        let word = key_of(&random).replacen("svk_", "svs_", 1);
        let of = hash_of(name.as_bytes());
        let mut all = self.all();
        // The latest come first.
        let one_too_many = all.iter().filter(|(_, session)| session.of == of).nth(MOST_OF_ONE - 1);
        if let Some(word) = one_too_many.map(|(word, _)| *word) {
            all.pop(&word);
        }
        all.put(hash_of(word.as_bytes()), Session { kept, of, until: now + LASTS });
        Some(word)
    }

    /// What the session of this word was got for.
    pub(super) fn find(&self, word: &[u8], now: Instant) -> Option<Kept> {
        let hash = hash_of(word);
        let mut all = self.all();
        let (kept, is_over) = all.get(&hash).map(|session| (session.kept.clone(), session.until <= now))?;
        if is_over {
            all.pop(&hash);
            return None;
        }
        Some(kept)
    }

    /// Ends it.
    pub(super) fn end(&self, word: &[u8]) {
        self.all().pop(&hash_of(word));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, LruCache<KeyHash, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_in_again_and_again_ends_sessions_of_their_own() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin = |name: &str| sessions.begin(Kept::ApiKey(name.as_bytes().to_vec()), name, now).unwrap();
        let is_there = |word: &String| sessions.find(word.as_bytes(), now).is_some();
        let other = begin("other");
        let mine: Vec<String> = (0..MOST_OF_ONE).map(|_| begin("mine")).collect();
        assert!(is_there(&mine[0]), "as many as may be");
        begin("mine");
        assert!(
            is_there(&mine[0]) && !is_there(&mine[1]) && is_there(&mine[2]),
            "the one that was not used for longest"
        );
        for _ in 0..MOST.get() {
            begin("mine");
        }
        assert!(is_there(&other));
        assert_eq!(sessions.all().len(), MOST_OF_ONE + 1);
    }

    #[test]
    fn a_session_is_found_by_its_word_until_it_is_over_or_ended() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin = |key: &str| sessions.begin(Kept::ApiKey(key.as_bytes().to_vec()), key, now).unwrap();
        let (one, other) = (begin("svk_one"), begin("svk_other"));
        let found = |word: &str, at| match sessions.find(word.as_bytes(), at) {
            Some(Kept::ApiKey(key)) => Some(String::from_utf8(key).unwrap()),
            _ => None,
        };
        assert_ne!(one, other);
        assert!(one.starts_with("svs_") && one.len() == 47);
        assert_eq!(found(&one, now).as_deref(), Some("svk_one"));
        assert_eq!(found(&other, now + LASTS - Duration::from_secs(1)).as_deref(), Some("svk_other"));
        assert_eq!(found("svs_nobody's", now), None);
        sessions.end(one.as_bytes());
        assert_eq!(found(&one, now), None);
        assert_eq!(found(&other, now + LASTS), None);
        assert_eq!(found(&other, now), None, "what is over does not come back");
    }
}
