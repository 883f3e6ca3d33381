//! Names we gave ourselves: the kernel tells the watcher of them, and nobody else needs to hear it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::RelPath;

/// Names remembered at a time; one that takes another's place makes that one be told, which does no harm.
const SLOTS: usize = 4096;

/// Files that were just made by us and that the watcher has not heard of yet.
pub(super) struct OwnNames {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl OwnNames {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    /// A file gets this name in a moment, and the kernel will tell.
    pub(super) fn expect(&self, path: &RelPath) {
        let mark = self.mark(path);
        if let Some(slot) = self.slot(mark) {
            slot.store(mark, Ordering::Release);
        }
    }

    /// Was it expected? It is not any more: whatever the kernel tells of this name next is another's.
    pub(super) fn take(&self, path: &RelPath) -> bool {
        let mark = self.mark(path);
        let taken = |slot: &AtomicU64| slot.compare_exchange(mark, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.slot(mark).is_some_and(taken)
    }

    /// Never that of an empty slot.
    fn mark(&self, path: &RelPath) -> u64 {
        self.hasher.hash_one(path.as_str()) | 1
    }

    fn slot(&self, mark: u64) -> Option<&AtomicU64> {
        // The lowest bit is the same in all.
        self.slots.get(usize::try_from((mark >> 1) % SLOTS as u64).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let (own, path) = (OwnNames::new(), RelPath::new("a/b").expect("a path"));
        assert!(!own.take(&path));
        own.expect(&path);
        assert!(!own.take(&RelPath::new("a/c").expect("a path")));
        assert!(own.take(&path) && !own.take(&path));
    }
}
