//! Counting changes by path, so that what was read can be told to be still so without asking the disk.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::store::RelPath;

/// Paths share this many counters: a change makes a few others look changed too, never one unchanged.
const SLOTS: usize = 4096;

/// The counters of one volume, fed by its watcher.
pub(super) struct Stamps {
    /// Every change to this volume is made through this kernel.
    local: bool,
    /// Watchers that tell every change: two for a moment, when a space is opened anew.
    watchers: AtomicUsize,
    /// A folder could not be watched.
    blind: AtomicBool,
    /// Changes that concern all paths.
    all: AtomicU64,
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Stamps {
    pub(super) fn new(local: bool) -> Self {
        Self {
            local,
            watchers: AtomicUsize::new(0),
            blind: AtomicBool::new(false),
            all: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// From now on every change is told.
    pub(super) fn begin(&self) {
        self.touch_all();
        self.watchers.fetch_add(1, Ordering::AcqRel);
    }

    /// One watcher less.
    pub(super) fn end(&self) {
        self.watchers.fetch_sub(1, Ordering::AcqRel);
        self.touch_all();
    }

    /// Changes are missed from here on.
    pub(super) fn give_up(&self) {
        self.blind.store(true, Ordering::Release);
    }

    pub(super) fn touch(&self, path: &RelPath) {
        if let Some(slot) = self.slot(path) {
            slot.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn touch_all(&self) {
        // Far apart, so that it is never the sum of single changes.
        self.all.fetch_add(1 << 33, Ordering::AcqRel);
    }

    /// The count of a path; `None` while changes are not told.
    pub(super) fn of(&self, path: &RelPath) -> Option<u64> {
        let known = self.watchers.load(Ordering::Acquire) > 0 && !self.blind.load(Ordering::Acquire);
        if !self.local || !known {
            return None;
        }
        let slot = self.slot(path)?.load(Ordering::Acquire);
        Some(self.all.load(Ordering::Acquire).wrapping_add(u64::from(slot)))
    }

    fn slot(&self, path: &RelPath) -> Option<&AtomicU32> {
        let hash = self.hasher.hash_one(path.as_str());
        self.slots.get(usize::try_from(hash % SLOTS as u64).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    #[test]
    fn a_change_is_counted_for_its_path_and_a_folders_for_all() {
        let stamps = Stamps::new(true);
        assert_eq!(stamps.of(&path("a")), None, "not watched yet");
        stamps.begin();
        let before = stamps.of(&path("a")).unwrap();
        stamps.touch(&path("a"));
        let after = stamps.of(&path("a")).unwrap();
        assert_ne!(before, after);
        stamps.touch_all();
        assert_ne!(stamps.of(&path("a")).unwrap(), after);
        stamps.end();
        assert_eq!(stamps.of(&path("a")), None);
    }

    #[test]
    fn what_other_machines_may_change_is_never_known() {
        let stamps = Stamps::new(false);
        stamps.begin();
        assert_eq!(stamps.of(&path("a")), None);
    }
}
