//! A bounded memory of what was seen lately: proofs of passwords, resumed sessions, trusted addresses.
//!
//! Two generations: when the young one is full it becomes the old one and what was old is forgotten. Everything is
//! O(1), and what is used stays, whatever strangers pour in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Values by key, each until its time, at most about `most` of them.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, (V, Instant)>,
    old: HashMap<K, (V, Instant)>,
    half: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (most / 2).max(1) }
    }

    /// The value, unless its time is over. It is kept among the young ones; its time stays as it was.
    pub(crate) fn find(&mut self, key: &K) -> Option<V> {
        let now = Instant::now();
        if let Some((value, until)) = self.young.get(key) {
            return (*until > now).then(|| value.clone());
        }
        let (value, until) = self.old.remove(key)?;
        if until <= now {
            return None;
        }
        self.insert(key.clone(), value.clone(), until);
        Some(value)
    }

    /// Remembers for a time.
    pub(crate) fn keep(&mut self, key: K, value: V, time: Duration) {
        if let Some(until) = Instant::now().checked_add(time) {
            self.insert(key, value, until);
        }
    }

    fn insert(&mut self, key: K, value: V, until: Instant) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, (value, until));
    }

    /// Forgets one.
    pub(crate) fn forget(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets those that do not hold.
    pub(crate) fn retain(&mut self, mut holds: impl FnMut(&K, &V) -> bool) {
        self.young.retain(|key, (value, _)| holds(key, value));
        self.old.retain(|key, (value, _)| holds(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_forgets_by_time_and_by_number_but_keeps_what_is_used() {
        let mut recent = Recent::new(8);
        recent.keep("camera".to_owned(), 1, Duration::from_mins(1));
        for round in 0..100 {
            recent.keep(format!("stranger-{round}"), 2, Duration::from_mins(1));
            assert_eq!(recent.find(&"camera".to_owned()), Some(1), "used in each round, so it stays");
        }
        assert!(recent.young.len() + recent.old.len() <= 8);
        assert_eq!(recent.find(&"stranger-0".to_owned()), None);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(recent.find(&"camera".to_owned()), None, "using it does not prolong it");
    }
}
