//! Changes on their way to being forgotten: in place but not synced, not in place yet, or not known to be committed.
//!
//! Each space has a queue of its own, so that a volume that fails or hangs delays no other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hub::act::Planned;
use crate::hub::barrier::Marks;
use crate::hub::commit::{Committed, Promised};
use crate::store::{Change, RelPath, StageId, Synced};

/// What waits in one space.
#[derive(Default)]
struct Queue {
    /// In place; to be synced and cleared.
    done: Vec<Promised>,
    /// Acknowledged before a crash and refused by the volume since: to be tried again, in order.
    stuck: Vec<Promised>,
    /// Bytes of inline bodies in both.
    bytes: u64,
    /// Held while intents are being cleared.
    clearing: Arc<tokio::sync::Mutex<()>>,
}

/// All that waits.
#[derive(Default)]
pub(crate) struct Pending {
    queues: Mutex<BTreeMap<String, Queue>>,
    /// Nobody knows whether their commit happened.
    doubtful: Mutex<Vec<Committed>>,
    /// Committed, refused by the volume, and the catalog did not take the commit that undoes them.
    owed: Mutex<Vec<Committed>>,
    /// Stages of changes that a volume has not answered in time.
    late: Mutex<HashSet<StageId>>,
    /// Where publishes are in place whose intents are not cleared.
    marks: Mutex<Marks>,
    /// Wakes the keeper early.
    pub(crate) wake: Notify,
}

impl Pending {
    /// Inline bytes of a space that still live in the catalog.
    pub(crate) fn inline_bytes(&self, space: &str) -> u64 {
        self.queues.lock().get(space).map_or(0, |queue| queue.bytes)
    }

    /// Changes of a space that are not synced.
    pub(crate) fn unsynced(&self, space: &str) -> usize {
        self.queues.lock().get(space).map_or(0, |queue| queue.done.len() + queue.stuck.len())
    }

    /// Spaces with something to sync or to try again.
    pub(crate) fn spaces(&self) -> Vec<String> {
        let queues = self.queues.lock();
        let waits = |queue: &Queue| !queue.done.is_empty() || !queue.stuck.is_empty();
        queues.iter().filter(|(_, queue)| waits(queue)).map(|(key, _)| key.clone()).collect()
    }

    /// Their bodies are in place and need no memory any more; they only count.
    pub(crate) fn add_done(&self, mut promised: Vec<Promised>) {
        promised.retain(|one| !one.unwritten);
        if promised.is_empty() {
            return;
        }
        self.marks.lock().add(&promised);
        let mut queues = self.queues.lock();
        for mut one in promised {
            one.planned.body = None;
            let queue = queue_of(&mut queues, &one);
            queue.bytes += one.inline;
            queue.done.push(one);
        }
    }

    /// Their intents are cleared.
    pub(crate) fn cleared(&self, promised: &[Promised]) {
        self.marks.lock().remove(promised);
    }

    /// Must earlier intents be cleared before these changes are committed?
    pub(crate) fn stops(&self, changes: &[Planned], synced: Synced) -> bool {
        let marks = self.marks.lock();
        changes.iter().any(|one| marks.stop(&one.space.key, &one.change, synced))
    }

    /// Changes that could be neither put in place nor undone so far.
    pub(crate) fn stuck_count(&self) -> usize {
        let stuck: usize = self.queues.lock().values().map(|queue| queue.stuck.len()).sum();
        stuck + self.owed.lock().len()
    }

    pub(crate) fn add_stuck(&self, promised: Promised) {
        let mut queues = self.queues.lock();
        let queue = queue_of(&mut queues, &promised);
        queue.bytes += promised.inline;
        queue.stuck.push(promised);
        drop(queues);
        self.wake.notify_one();
    }

    /// Everything of a space that the volume refused at the last start, in order.
    pub(crate) fn stuck(&self, space: &str) -> Vec<(i64, Planned)> {
        let queues = self.queues.lock();
        let stuck = queues.get(space).map(|queue| queue.stuck.as_slice()).unwrap_or_default();
        stuck.iter().map(|one| (one.id, one.planned.clone())).collect()
    }

    /// Takes one of them out: it is in place, or given up.
    pub(crate) fn unstick(&self, space: &str, id: i64) -> Option<Promised> {
        let mut queues = self.queues.lock();
        let queue = queues.get_mut(space)?;
        let index = queue.stuck.iter().position(|one| one.id == id)?;
        let one = queue.stuck.remove(index);
        queue.bytes = queue.bytes.saturating_sub(one.inline);
        Some(one)
    }

    /// One clears a space's intents at a time.
    pub(crate) fn clearing(&self, space: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.queues.lock().entry(space.to_owned()).or_default().clearing.clone()
    }

    /// Everything of a space that is in place; the caller syncs and clears it, or adds it again.
    pub(crate) fn take_done(&self, space: &str) -> Vec<Promised> {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(space) else { return Vec::new() };
        let taken = std::mem::take(&mut queue.done);
        queue.bytes = queue.bytes.saturating_sub(taken.iter().map(|one| one.inline).sum());
        taken
    }

    pub(crate) fn doubt(&self, act: Committed) {
        self.doubtful.lock().push(act);
    }

    /// The first intent of each act whose commit must be asked for again.
    pub(crate) fn doubtful(&self) -> Vec<i64> {
        self.doubtful.lock().iter().filter_map(Committed::first).collect()
    }

    /// A doubtful act was committed after all. Its caller heard of a failure, so it is undone. It is never out of sight.
    pub(crate) fn was_done(&self, first: i64) {
        let mut doubtful = self.doubtful.lock();
        self.owed.lock().extend(take(&mut doubtful, first));
    }

    /// A doubtful act was never committed.
    pub(crate) fn was_not_done(&self, first: i64) -> Option<Committed> {
        take(&mut self.doubtful.lock(), first)
    }

    /// The catalog did not take the commit that undoes it.
    pub(crate) fn owe(&self, act: Committed) {
        self.owed.lock().push(act);
        self.wake.notify_one();
    }

    /// Acts still to be undone.
    pub(crate) fn owed(&self) -> Vec<Committed> {
        self.owed.lock().clone()
    }

    /// One of them is undone.
    pub(crate) fn paid(&self, act: &Committed) {
        self.owed.lock().retain(|one| one.first() != act.first());
    }

    /// A volume has not answered in time: these stages may still be put in place.
    pub(crate) fn is_late(&self, stages: &[StageId]) {
        self.late.lock().extend(stages.iter().cloned());
    }

    /// It answered after all.
    pub(crate) fn was_late(&self, stages: &[StageId]) {
        self.late.lock().retain(|id| !stages.contains(id));
    }

    /// May this stage be needed by a commit that nobody can decide yet?
    pub(crate) fn needs_stage(&self, id: &StageId) -> bool {
        let needs = |act: &Committed| act.promised.iter().any(|one| one.planned.change.stage() == Some(id));
        self.late.lock().contains(id) || self.doubtful.lock().iter().any(needs) || self.owed.lock().iter().any(needs)
    }

    /// May a publish at this path, or of a folder above it, still be to come?
    pub(crate) fn is_awaited(&self, space: &str, path: &RelPath) -> bool {
        self.is_any_ahead(|one| {
            let mut places = places(&one.planned.change).into_iter().flatten();
            one.planned.space.key == space
                && places.any(|place| RelPath::new(place).is_ok_and(|place| path.is_in(&place)))
        })
    }

    /// Is a publish still to come that this change would run into, at its paths, above or below them?
    pub(crate) fn is_in_the_way(&self, planned: &Planned) -> bool {
        self.is_any_ahead(|one| runs_into(planned, &one.planned))
    }

    /// Is any publish still to come?
    pub(crate) fn is_anything_ahead(&self) -> bool {
        self.is_any_ahead(|_| true)
    }

    /// Is there such a publish still to come? In this order, for an act moves from doubtful to owed.
    fn is_any_ahead(&self, such: impl Fn(&Promised) -> bool) -> bool {
        let any = |acts: &Mutex<Vec<Committed>>| acts.lock().iter().flat_map(|act| &act.promised).any(&such);
        any(&self.doubtful) || any(&self.owed) || self.queues.lock().values().flat_map(|queue| &queue.stuck).any(&such)
    }
}

fn queue_of<'a>(queues: &'a mut BTreeMap<String, Queue>, one: &Promised) -> &'a mut Queue {
    queues.entry(one.planned.space.key.clone()).or_default()
}

fn take(acts: &mut Vec<Committed>, first: i64) -> Option<Committed> {
    let index = acts.iter().position(|act| act.first() == Some(first))?;
    Some(acts.remove(index))
}

/// Must a change wait for an earlier one that is still to be done?
pub(crate) fn runs_into(later: &Planned, earlier: &Planned) -> bool {
    later.space.key == earlier.space.key && meets(&later.change, &earlier.change)
}

/// Do two changes work at one path, or one above the other? A folder that is made only minds what happens at its path or above it.
fn meets(one: &Change, other: &Change) -> bool {
    let made = |change: &Change| matches!(change, Change::Folder { .. }).then(|| change.path().as_str().to_owned());
    let paths = |change| places(change).into_iter().flatten();
    match (made(one), made(other)) {
        (Some(_), Some(_)) => false,
        (Some(folder), None) => paths(other).any(|place| is_at_or_below(&folder, place)),
        (None, Some(folder)) => paths(one).any(|place| is_at_or_below(&folder, place)),
        (None, None) => paths(one).any(|ours| paths(other).any(|theirs| overlap(ours, theirs))),
    }
}

fn is_at_or_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Is one of them the other, or below it?
fn overlap(a: &str, b: &str) -> bool {
    is_at_or_below(a, b) || is_at_or_below(b, a)
}

/// The paths a change must have to itself; making a folder is the same however often it is done.
pub(crate) fn places(change: &Change) -> [Option<&str>; 2] {
    match change {
        Change::Folder { .. } => [None, None],
        Change::Put { path, .. }
        | Change::Remove { path }
        | Change::RemoveFolder { path, .. }
        | Change::SetModified { path, .. } => [Some(path.as_str()), None],
        Change::Rename { from, to } => [Some(from.as_str()), Some(to.as_str())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Body;

    fn at(path: &str) -> RelPath {
        RelPath::new(path).expect("a path")
    }

    #[test]
    fn a_folder_made_again_waits_for_its_removal_and_for_nothing_below() {
        let put = |path| Change::Put { path: at(path), body: Body::Inline, modified: None };
        let folder = |path| Change::Folder { path: at(path) };
        let remove = |path| Change::Remove { path: at(path) };
        let rename = |from, to| Change::Rename { from: at(from), to: at(to) };
        for (one, other, expected) in [
            (folder("d"), remove("d"), true),
            (folder("d/e"), remove("d"), true),
            (folder("d"), rename("d", "f"), true),
            (folder("d"), put("d/x"), false),
            (folder("d"), folder("d"), false),
            (folder("dd"), remove("d"), false),
            (put("d/x"), remove("d"), true),
            (put("d"), put("d/x"), true),
            (put("a"), put("b"), false),
        ] {
            assert_eq!(meets(&one, &other), expected, "{one:?} {other:?}");
            assert_eq!(meets(&other, &one), expected, "{other:?} {one:?}");
        }
    }
}
