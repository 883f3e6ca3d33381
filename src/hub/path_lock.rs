//! Locks on paths: commits and publishes on one path happen in one order.
//!
//! A lock exists while somebody holds it or waits for it. So a volume that hangs keeps only its own paths locked.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::store::RelPath;

/// Parts of the table, so that threads seldom wait for each other.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<u64, Arc<tokio::sync::Mutex<()>>>>;

/// The locks of all spaces, by the hash of space and path.
#[derive(Clone)]
pub(crate) struct PathLocks {
    shards: Arc<[Shard]>,
}

impl Default for PathLocks {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

/// One held lock; released when it is dropped.
pub(crate) struct PathGuard {
    locks: PathLocks,
    key: u64,
    guard: Option<OwnedMutexGuard<()>>,
}

impl PathLocks {
    /// Locks many paths of a space.
    pub(crate) async fn lock_many(&self, space: &str, paths: &[RelPath]) -> Vec<PathGuard> {
        self.lock_keys(&paths.iter().map(|path| key_of(space, path.as_str())).collect()).await
    }

    /// Locks keys, always in the same order so that two callers cannot wait for each other.
    pub(crate) async fn lock_keys(&self, keys: &BTreeSet<u64>) -> Vec<PathGuard> {
        let mut held = Vec::with_capacity(keys.len());
        for key in keys {
            held.push(self.lock(*key).await);
        }
        held
    }

    async fn lock(&self, key: u64) -> PathGuard {
        let mutex = self.shard(key).map(|shard| shard.lock().entry(key).or_default().clone());
        // Made before the wait: a caller that gives up waiting leaves no entry behind.
        let mut held = PathGuard { locks: self.clone(), key, guard: None };
        if let Some(mutex) = mutex {
            held.guard = Some(mutex.lock_owned().await);
        }
        held
    }

    fn shard(&self, key: u64) -> Option<&Shard> {
        self.shards.get(usize::try_from(key % SHARDS as u64).unwrap_or_default())
    }
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        self.guard = None;
        let Some(shard) = self.locks.shard(self.key) else { return };
        let mut shard = shard.lock();
        if shard.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            shard.remove(&self.key);
        }
    }
}

/// The key of a path.
pub(crate) fn key_of(space: &str, path: &str) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    (space, path).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_exclusive_and_its_entry_goes_with_its_last_user() {
        let locks = PathLocks::default();
        let entries = || locks.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        let paths = ["a", "b"].map(|path| RelPath::new(path).expect("a path"));
        let held = locks.lock_many("/s", &paths).await;
        let mut second = Box::pin(locks.lock_many("/s", &paths));
        tokio::select! {
            biased;
            _ = &mut second => panic!("it is held"),
            () = std::future::ready(()) => {}
        }
        drop(locks.lock_many("/other", &paths).await);
        assert_eq!(entries(), 2);
        drop(second);
        drop(held);
        assert_eq!(entries(), 0);
        drop(locks.lock_many("/s", &paths).await);
        assert_eq!(entries(), 0);
    }
}
