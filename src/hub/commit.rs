//! The commit: batch → durable → publish, in commit order on each path.
//!
//! 1. The spaces an act touches are held (shared; alone when a folder moves).
//! 2. Its paths are locked in one order.
//! 3. It plans.
//! 4. Earlier intents that a replay must not do again are cleared ([`crate::hub::barrier`]).
//! 5. The catalog makes batch, history and intents durable together.
//! 6. The publishes are done.
//! 7. The intents are handed to the keeper, who syncs the tree and clears them.
//!
//! 5 and 6 are done for many acts at once ([`crate::hub::group`]), and from there on to the end even when the caller
//! goes away. A crash after 5 is mended by [`crate::hub::replay`].

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Plan, Planned, Sight};
use crate::hub::barrier::Marks;
use crate::hub::view::{Space, View, access_ended};
use crate::hub::{Caller, Hub};
use crate::store::{Batch, Change, Edit, IntentRow, Node, NodeKind, RelPath, StageId, Synced};

/// Times an act is planned again when others changed the same thing meanwhile.
const ATTEMPTS: u32 = 8;

/// Times a publish is tried at once before the keeper takes over.
const PUBLISH_TRIES: u32 = 3;

/// Paths that can be locked at the same time without meeting by accident.
const STRIPES: usize = 4096;

/// Keeps commit and publish on one path in one order.
pub(crate) struct PathLocks {
    stripes: Vec<Arc<tokio::sync::Mutex<()>>>,
}

impl Default for PathLocks {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Arc::default()).collect() }
    }
}

impl PathLocks {
    /// Locks many paths of a space.
    pub(crate) async fn lock_many(&self, space: &str, paths: &[RelPath]) -> Vec<OwnedMutexGuard<()>> {
        self.lock_stripes(&paths.iter().map(|path| stripe(space, path.as_str())).collect()).await
    }

    /// Locks stripes, always in the same order so that two callers cannot wait for each other.
    async fn lock_stripes(&self, wanted: &BTreeSet<usize>) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::with_capacity(wanted.len());
        for index in wanted {
            if let Some(mutex) = self.stripes.get(*index) {
                held.push(mutex.clone().lock_owned().await);
            }
        }
        held
    }
}

fn stripe(space: &str, path: &str) -> usize {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    (space, path).hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default()
}

/// A publish with the intent that promises it.
pub(crate) struct Promised {
    pub(crate) id: i64,
    pub(crate) planned: Planned,
    /// Length of the body that rides in the intent.
    inline: u64,
    /// The catalog has no intent of it: it is in place before it is acknowledged, or it never was.
    unwritten: bool,
}

impl Promised {
    pub(crate) fn new(id: i64, planned: Planned) -> Self {
        let inline = planned.body.as_ref().map_or(0, |body| body.len() as u64);
        Self { id, planned, inline, unwritten: false }
    }

    /// Without an intent in the catalog.
    fn unwritten(id: i64, planned: Planned) -> Self {
        Self { unwritten: true, inline: 0, ..Self::new(id, planned) }
    }
}

/// Publishes on their way to being forgotten: done but not synced, or not even done.
#[derive(Default)]
pub(crate) struct Pending {
    /// In place; to be synced and cleared.
    done: Mutex<Vec<Promised>>,
    /// The volume refused; to be tried again, in order.
    stuck: Mutex<Vec<Promised>>,
    /// Nobody knows whether their commit happened.
    doubtful: Mutex<Vec<Vec<Promised>>>,
    /// Where publishes are in place whose intents are not cleared.
    marks: Mutex<Marks>,
    /// Held while intents are being cleared.
    pub(crate) clearing: tokio::sync::Mutex<()>,
    /// Bytes of inline bodies in either list.
    bytes: AtomicU64,
    /// Wakes the keeper early.
    pub(crate) wake: Notify,
}

impl Pending {
    /// Inline bytes that still live in the catalog.
    pub(crate) fn inline_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Their bodies are in place and need no memory any more; they only count.
    pub(crate) fn add_done(&self, mut promised: Vec<Promised>) {
        promised.retain(|one| !one.unwritten);
        if promised.is_empty() {
            return;
        }
        self.bytes.fetch_add(inline_bytes(&promised), Ordering::Relaxed);
        for one in &mut promised {
            one.planned.body = None;
        }
        self.marks.lock().add(&promised);
        self.done.lock().extend(promised);
    }

    /// Their intents are cleared.
    pub(crate) fn cleared(&self, promised: &[Promised]) {
        self.marks.lock().remove(promised);
    }

    /// Must earlier intents be cleared before these changes are committed?
    fn stops(&self, changes: &[Planned], synced: Synced) -> bool {
        let marks = self.marks.lock();
        changes.iter().any(|one| marks.stop(&one.space.key, &one.change, synced))
    }

    /// Publishes that the volume refused.
    pub(crate) fn stuck_count(&self) -> usize {
        self.stuck.lock().len()
    }

    pub(crate) fn add_stuck(&self, promised: Promised) {
        self.bytes.fetch_add(inline_bytes(std::slice::from_ref(&promised)), Ordering::Relaxed);
        self.stuck.lock().push(promised);
        self.wake.notify_one();
    }

    fn doubt(&self, promised: Vec<Promised>) {
        self.doubtful.lock().push(promised);
    }

    /// The first intent of each group whose commit must be asked for again.
    pub(crate) fn doubtful(&self) -> Vec<i64> {
        self.doubtful.lock().iter().filter_map(|group| group.first()).map(|one| one.id).collect()
    }

    /// A doubtful group was committed after all: its publishes are still to be done. It is never out of sight.
    pub(crate) fn was_done(&self, first: i64) {
        let mut doubtful = self.doubtful.lock();
        for one in take_group(&mut doubtful, first) {
            self.add_stuck(one);
        }
    }

    /// A doubtful group was never committed.
    pub(crate) fn was_not_done(&self, first: i64) -> Vec<Promised> {
        take_group(&mut self.doubtful.lock(), first)
    }

    /// May this stage be needed by a commit that nobody can decide yet?
    pub(crate) fn needs_stage(&self, id: &StageId) -> bool {
        self.doubtful.lock().iter().flatten().any(|one| one.planned.change.stage() == Some(id))
    }

    /// Everything in place; the caller syncs and clears it, or adds it again.
    pub(crate) fn take_done(&self) -> Vec<Promised> {
        self.take(&self.done)
    }

    /// Everything refused so far, in order.
    fn stuck(&self) -> Vec<(i64, Planned)> {
        let copy = |one: &Promised| (one.id, one.planned.clone());
        self.stuck.lock().iter().map(copy).collect()
    }

    /// A refused publish is in place now.
    fn unstick(&self, id: i64) {
        let mut stuck = self.stuck.lock();
        let Some(index) = stuck.iter().position(|one| one.id == id) else { return };
        let one = stuck.remove(index);
        self.bytes.fetch_sub(inline_bytes(std::slice::from_ref(&one)), Ordering::Relaxed);
        self.add_done(vec![one]);
    }

    fn take(&self, list: &Mutex<Vec<Promised>>) -> Vec<Promised> {
        let taken = std::mem::take(&mut *list.lock());
        self.bytes.fetch_sub(inline_bytes(&taken), Ordering::Relaxed);
        taken
    }

    /// May a publish at this path, or of a folder above it, still be to come?
    pub(crate) fn is_awaited(&self, space: &str, path: &RelPath) -> bool {
        let covers = |one: &Promised| {
            let mut places = places(&one.planned.change).into_iter().flatten();
            one.planned.space.key == space
                && places.any(|place| RelPath::new(place).is_ok_and(|place| path.is_in(&place)))
        };
        self.is_any_ahead(covers)
    }

    /// Is a publish still to come that this change would run into, at its paths, above or below them?
    fn is_in_the_way(&self, planned: &Planned) -> bool {
        let meets = |one: &Promised| {
            one.planned.space.key == planned.space.key
                && places(&one.planned.change)
                    .into_iter()
                    .flatten()
                    .any(|theirs| places(&planned.change).into_iter().flatten().any(|ours| overlap(ours, theirs)))
        };
        self.is_any_ahead(meets)
    }

    /// Is any publish still to come?
    pub(crate) fn is_anything_ahead(&self) -> bool {
        self.is_any_ahead(|_| true)
    }

    /// Is there such a publish still to come? In this order, for a group moves from doubtful to stuck.
    fn is_any_ahead(&self, such: impl Fn(&Promised) -> bool) -> bool {
        let doubtful = self.doubtful.lock().iter().flatten().any(&such);
        doubtful || self.stuck.lock().iter().any(&such)
    }
}

fn inline_bytes(promised: &[Promised]) -> u64 {
    promised.iter().map(|one| one.inline).sum()
}

fn take_group(groups: &mut Vec<Vec<Promised>>, first: i64) -> Vec<Promised> {
    let index = groups.iter().position(|group| group.first().is_some_and(|one| one.id == first));
    index.map(|index| groups.remove(index)).unwrap_or_default()
}

/// Is one of them the other, or below it?
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The paths a change must have to itself; making a folder is the same however often it is done.
fn places(change: &Change) -> [Option<&str>; 2] {
    match change {
        Change::Folder { .. } => [None, None],
        Change::Put { path, .. }
        | Change::Remove { path }
        | Change::RemoveFolder { path, .. }
        | Change::SetModified { path, .. } => [Some(path.as_str()), None],
        Change::Rename { from, to } => [Some(from.as_str()), Some(to.as_str())],
    }
}

/// The stripes of every path these changes touch.
fn stripes_of(changes: &[Planned]) -> BTreeSet<usize> {
    let mut stripes = BTreeSet::new();
    for one in changes {
        stripes.extend(places(&one.change).into_iter().flatten().map(|path| stripe(&one.space.key, path)));
    }
    stripes
}

/// The stripes of the paths an act names before it plans: what it looks at there cannot change under it.
fn stripes_named<A: Act>(view: &View, act: &A) -> Vec<usize> {
    let mut stripes = Vec::new();
    for path in act.paths() {
        if let Some((space, rel)) = view.space_of(path) {
            stripes.push(stripe(&space.key, rel.as_str()));
        }
    }
    stripes
}

/// What an act has to itself while it runs: its spaces and its paths.
pub(crate) type Held = (Hold, Vec<OwnedMutexGuard<()>>);

/// Spaces held while an act runs.
pub(crate) enum Hold {
    Shared(#[expect(dead_code, reason = "held for its drop")] Vec<OwnedRwLockReadGuard<()>>),
    Alone(#[expect(dead_code, reason = "held for its drop")] Vec<OwnedRwLockWriteGuard<()>>),
}

pub(crate) async fn hold(spaces: Vec<Arc<Space>>, alone: bool) -> Hold {
    if alone {
        let mut guards = Vec::with_capacity(spaces.len());
        for space in spaces {
            guards.push(space.gate.clone().write_owned().await);
        }
        return Hold::Alone(guards);
    }
    let mut guards = Vec::with_capacity(spaces.len());
    for space in spaces {
        guards.push(space.gate.clone().read_owned().await);
    }
    Hold::Shared(guards)
}

impl Hub {
    /// Does one act for a caller, whole or not at all.
    pub(crate) async fn carry<A: Act>(&self, caller: &Caller, act: &A) -> Result<A::Yield> {
        let (mut alone, mut again) = (false, false);
        let mut attempt = 0;
        let mut stripes = BTreeSet::new();
        loop {
            let view = self.view();
            judge(&view, caller, act)?;
            let held = hold(spaces_of(&view, act), alone).await;
            stripes.extend(stripes_named(&view, act));
            let locked = self.inner.paths.lock_stripes(&stripes).await;
            let plan = act.plan(&Sight { hub: self, view: &view, caller, again }).await?;
            let needed = stripes_of(&plan.changes);
            if (plan.wide && !alone) || !needed.is_subset(&stripes) {
                alone |= plan.wide;
                stripes.extend(needed);
                attempt += 1;
                if attempt > ATTEMPTS {
                    return Err(Error::new(Kind::Conflict, "others change the same thing all the time; try again"));
                }
                continue;
            }
            match self.settle(plan, (held, locked)).await {
                Err(error) if error.kind() == Kind::Conflict && attempt < ATTEMPTS => {
                    attempt += 1;
                    again = true;
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits a plan and publishes it; its paths are held until then.
    async fn settle<Y>(&self, plan: Plan<Y>, held: Held) -> Result<Y> {
        let Plan { mut batch, changes, answer, .. } = plan;
        self.refuse_stuck(&changes)?;
        let synced = self.when_synced(&batch, &changes);
        self.pass_barrier(&changes, synced).await?;
        let promised = match synced {
            Synced::First => self.promise(&mut batch.edits, changes),
            Synced::Soon => changes.into_iter().map(|one| Promised::unwritten(self.next_intent(), one)).collect(),
        };
        let nodes = self.settle_together((batch, synced), promised, held).await?;
        Ok(answer(&nodes))
    }

    /// A file of a space with `durable = false` is in place before it is acknowledged, and its records follow soon. Nobody replays it
    /// after a crash, so it needs no intent; adoption finds what the records miss. Receipts and mail are promises of their own.
    fn when_synced(&self, batch: &Batch, changes: &[Planned]) -> Synced {
        let is_lax = |one: &Planned| !one.space.durable && matches!(one.change, Change::Put { .. });
        let is_promise = |edit: &Edit| matches!(edit, Edit::Upload(_) | Edit::Mail(_));
        match !changes.is_empty()
            && changes.iter().all(is_lax)
            && !batch.edits.iter().any(is_promise)
            && !self.catalog().is_shared()
        {
            true => Synced::Soon,
            false => Synced::First,
        }
    }

    /// A publish that the disk still refuses must come before any other on its path.
    fn refuse_stuck(&self, changes: &[Planned]) -> Result<()> {
        let stuck = changes.iter().any(|one| self.inner.pending.is_in_the_way(one));
        if stuck { Err(unsettled()) } else { Ok(()) }
    }

    /// Clears earlier intents that a replay could not do again before these changes; see [`crate::hub::barrier`].
    async fn pass_barrier(&self, changes: &[Planned], synced: Synced) -> Result<()> {
        if !self.inner.pending.stops(changes, synced) {
            return Ok(());
        }
        // To its end even when the caller goes away: what it took in hand must not be forgotten.
        let hub = self.clone();
        let cleared = tokio::spawn(async move { hub.clear_done().await }).await;
        cleared.unwrap_or_else(|lost| Err(Error::internal(lost)))?;
        match self.inner.pending.stops(changes, synced) {
            true => Err(unsettled()),
            false => Ok(()),
        }
    }

    /// Gives each change its intent, numbered in the order of commits on its path.
    fn promise(&self, edits: &mut Vec<Edit>, changes: Vec<Planned>) -> Vec<Promised> {
        changes
            .into_iter()
            .map(|planned| {
                let id = self.next_intent();
                edits.push(intent(id, &planned));
                Promised::new(id, planned)
            })
            .collect()
    }

    fn next_intent(&self) -> i64 {
        self.inner.next_intent.fetch_add(1, Ordering::Relaxed)
    }

    /// What could not be put in place at once gets its intent after all, so that a crash does not forget it.
    async fn write_down(&self, one: Promised) -> Promised {
        if !one.unwritten {
            return one;
        }
        match self.catalog().commit(Batch { edits: vec![intent(one.id, &one.planned)] }).await {
            Ok(()) => Promised::new(one.id, one.planned),
            Err(error) => {
                tracing::error!(
                    id = one.id,
                    error = error.detail(),
                    "a change that waits to be put in place has no intent"
                );
                one
            }
        }
    }

    /// A commit failed. When only its answer was lost it counts as done; when nobody can say, the keeper asks later.
    pub(crate) async fn ascertain(&self, promised: Vec<Promised>, error: Error) -> Result<Vec<Promised>> {
        if !matches!(error.kind(), Kind::Unavailable | Kind::Full | Kind::Internal | Kind::Cancelled) {
            return Err(error);
        }
        let Some(first) = promised.first().filter(|one| !one.unwritten).map(|one| one.id) else { return Err(error) };
        match self.was_committed(first).await {
            Ok(true) => Ok(promised),
            Ok(false) => Err(error),
            Err(_) => {
                self.inner.pending.doubt(promised);
                Err(error)
            }
        }
    }

    /// Is this intent in the catalog?
    pub(crate) async fn was_committed(&self, id: i64) -> Result<bool> {
        self.catalog().has_intent(id).await
    }

    /// Tries again what the volume refused, each with its paths to itself.
    pub(crate) async fn retry_stuck(&self) {
        for (id, planned) in self.inner.pending.stuck() {
            let alone = matches!(planned.change, Change::RemoveFolder { .. } | Change::Rename { .. });
            let _held = hold(vec![planned.space.clone()], alone).await;
            let _locked = self.inner.paths.lock_stripes(&stripes_of(std::slice::from_ref(&planned))).await;
            match publish(&planned).await {
                Ok(_) => self.inner.pending.unstick(id),
                Err(error) => {
                    tracing::error!(change = ?planned.change, error = error.detail(), "still cannot be put in place");
                }
            }
        }
    }

    /// So that our own publish is not taken for another program's.
    pub(crate) fn remember(&self, planned: &Planned, node: Option<&Node>) {
        let (key, tag) = (planned.space.key.as_str(), node.map(|node| node.tag));
        match &planned.change {
            Change::Put { path, .. } | Change::SetModified { path, .. } => self.inner.own.left(key, path.as_str(), tag),
            Change::Remove { path } => self.inner.own.left(key, path.as_str(), None),
            Change::Rename { from, to } if node.is_some_and(|node| node.kind == NodeKind::File) => {
                self.inner.own.left(key, from.as_str(), None);
                self.inner.own.left(key, to.as_str(), tag);
            }
            Change::Rename { .. } | Change::RemoveFolder { .. } => self.inner.own.forget(),
            Change::Folder { .. } => {}
        }
    }

    /// Puts everything in place; what the volume refuses even now is durable all the same and goes to the keeper.
    pub(crate) async fn publish_all(&self, promised: Vec<Promised>) -> Vec<Option<Node>> {
        let mut nodes = Vec::with_capacity(promised.len());
        let mut done = Vec::with_capacity(promised.len());
        for one in promised {
            match publish(&one.planned).await {
                Ok(node) => {
                    self.remember(&one.planned, node.as_ref());
                    nodes.push(node);
                    done.push(one);
                }
                Err(error) => {
                    tracing::error!(space = one.planned.space.key, change = ?one.planned.change, error = error.detail(),
                        "a committed change could not be put in place; it will be tried again");
                    nodes.push(None);
                    self.inner.pending.add_stuck(self.write_down(one).await);
                }
            }
        }
        self.inner.pending.add_done(done);
        nodes
    }
}

fn intent(id: i64, planned: &Planned) -> Edit {
    let (space, change) = (planned.space.key.clone(), planned.change.encode());
    Edit::Intent(IntentRow { id, space, change, body: planned.body.clone() })
}

fn unsettled() -> Error {
    Error::new(Kind::Unavailable, "an earlier change to this path is still being written; try again")
}

/// Publishes, trying again at once when the volume stumbles.
pub(crate) async fn publish(planned: &Planned) -> Result<Option<Node>> {
    let mut tries = 1;
    loop {
        match planned.space.volume.publish(&planned.change, planned.body.clone()).await {
            Err(_) if tries < PUBLISH_TRIES => {
                tokio::time::sleep(Duration::from_millis(5 * u64::from(tries))).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

fn judge<A: Act>(view: &View, caller: &Caller, act: &A) -> Result<()> {
    if !view.admits(caller.account()) {
        return Err(access_ended());
    }
    let Some(claim) = act.claim() else { return Ok(()) };
    view.allow(caller.account(), claim.verb, claim.path)?;
    match claim.also {
        Some((verb, path)) => view.allow(caller.account(), verb, path),
        None => Ok(()),
    }
}

/// The spaces an act touches, each once, always in the same order.
fn spaces_of<A: Act>(view: &View, act: &A) -> Vec<Arc<Space>> {
    let mut spaces: Vec<_> =
        act.paths().into_iter().filter_map(|path| view.space_of(path)).map(|(space, _)| space.clone()).collect();
    spaces.sort_by(|a, b| a.key.cmp(&b.key));
    spaces.dedup_by(|a, b| a.key == b.key);
    spaces
}
