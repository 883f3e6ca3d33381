//! The commit: batch → durable → publish, in commit order on each path.
//!
//! 1. The spaces an act touches are held (shared; alone when a folder moves).
//! 2. Its paths are locked in one order.
//! 3. It plans, and each volume is asked whether it would refuse ([`crate::store::Volume::check`]).
//! 4. Earlier intents that a replay must not do again are cleared ([`crate::hub::barrier`]).
//! 5. The catalog makes batch, history and intents durable together.
//! 6. The publishes are done. If a volume refuses one after all, the commit is undone ([`crate::hub::undo`]).
//! 7. The intents are handed to the keeper, who syncs the tree and clears them.
//!
//! 5 and 6 are done for many acts at once ([`crate::hub::group`]), and from there on to the end even when the caller
//! goes away. A crash after 5 is mended by [`crate::hub::replay`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::error::{Error, Kind, Result};
use crate::hub::account::Account;
use crate::hub::act::{Act, Plan, Planned, Sight};
use crate::hub::path_lock::{PathGuard, key_of};
use crate::hub::pending::places;
use crate::hub::undo::unknown;
use crate::hub::view::{Space, View, access_ended};
use crate::hub::{Caller, Hub};
use crate::origin::Origin;
use crate::store::{Batch, Change, Edit, IntentRow, Node, NodeKind, StageId, Synced};

/// Times an act is planned again when others changed the same thing meanwhile.
const ATTEMPTS: u32 = 8;

/// Times a publish is tried when the volume fails in a way that may pass.
const PUBLISH_TRIES: u32 = 3;

/// A publish with the intent that promises it.
#[derive(Clone)]
pub(crate) struct Promised {
    pub(crate) id: i64,
    pub(crate) planned: Planned,
    /// Length of the body that rides in the intent.
    pub(crate) inline: u64,
    /// The catalog has no intent of it: nobody replays it after a crash.
    pub(crate) unwritten: bool,
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

/// An act between its commit and its answer, with all that is needed to undo it.
#[derive(Clone)]
pub(crate) struct Committed {
    pub(crate) promised: Vec<Promised>,
    /// Edits that undo what belongs to no single path: receipts, uploads, deliveries, locks.
    pub(crate) undo: Vec<Edit>,
    /// Who asked for it.
    pub(crate) who: Who,
    /// Why it is undone.
    pub(crate) why: String,
    /// The first of its changes may be in place although the volume failed.
    pub(crate) unsure: bool,
}

/// Who asked, without the hub: what waits in the hub must not keep it alive.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) origin: Origin,
    pub(crate) account: Option<Arc<Account>>,
}

impl Committed {
    /// Its first intent, which stands for it.
    pub(crate) fn first(&self) -> Option<i64> {
        self.promised.first().map(|one| one.id)
    }

    /// The stages its bytes are in.
    pub(crate) fn stages(&self) -> Vec<StageId> {
        self.promised.iter().filter_map(|one| one.planned.change.stage().cloned()).collect()
    }
}

/// The keys of every path these changes touch.
pub(crate) fn keys_of(changes: &[Planned]) -> BTreeSet<u64> {
    let mut keys = BTreeSet::new();
    for one in changes {
        keys.extend(places(&one.change).into_iter().flatten().map(|path| key_of(&one.space.key, path)));
    }
    keys
}

/// The keys of the paths an act names before it plans: what it looks at there cannot change under it.
fn keys_named<A: Act>(view: &View, act: &A) -> Vec<u64> {
    let mut keys = Vec::new();
    for path in act.paths() {
        if let Some((space, rel)) = view.space_of(path) {
            keys.push(key_of(&space.key, rel.as_str()));
        }
    }
    keys
}

/// What an act has to itself while it runs: its spaces and its paths.
pub(crate) type Held = (Hold, Vec<PathGuard>);

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
        let mut keys = BTreeSet::new();
        loop {
            let view = self.reopened(act).await?;
            judge(&view, caller, act)?;
            keys.extend(keys_named(&view, act));
            let held = self.patiently(self.hold_for(&view, act, alone, &keys)).await?;
            let plan = act.plan(&Sight { hub: self, view: &view, caller, again }).await?;
            let needed = keys_of(&plan.changes);
            if (plan.wide && !alone) || !needed.is_subset(&keys) {
                alone |= plan.wide;
                keys.extend(needed);
                attempt += 1;
                if attempt > ATTEMPTS {
                    return Err(Error::new(Kind::Conflict, "others change the same thing all the time; try again"));
                }
                continue;
            }
            match self.settle(plan, held, caller).await {
                Err(error) if error.kind() == Kind::Conflict && attempt < ATTEMPTS => {
                    attempt += 1;
                    again = true;
                }
                outcome => return outcome,
            }
        }
    }

    /// The view, in which no space of this act has lost its folder: one that another program removed is opened anew.
    async fn reopened<A: Act>(&self, act: &A) -> Result<Arc<View>> {
        let view = self.view();
        let is_lost = |path| view.space_of(path).is_some_and(|(space, _)| space.volume.is_lost());
        if !act.paths().into_iter().any(is_lost) {
            return Ok(view);
        }
        self.refresh().await?;
        Ok(self.view())
    }

    /// Holds the spaces of an act and locks paths.
    async fn hold_for<A: Act>(&self, view: &View, act: &A, alone: bool, keys: &BTreeSet<u64>) -> Held {
        let held = hold(spaces_of(view, act), alone).await;
        (held, self.inner.paths.lock_keys(keys).await)
    }

    /// Waits for something that a volume which hangs may hold up, but not for ever.
    pub(crate) async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let patience = self.view().settings.storage.patience.0;
        tokio::time::timeout(patience, work).await.map_err(|_| {
            Error::new(
                Kind::Unavailable,
                "the storage of this folder does not answer; nothing was done, try again later",
            )
        })
    }

    /// Commits a plan and publishes it; its paths are held until then.
    async fn settle<Y>(&self, plan: Plan<Y>, held: Held, caller: &Caller) -> Result<Y> {
        let Plan { mut batch, changes, answer, undo, .. } = plan;
        self.refuse(&changes).await?;
        let synced = self.when_synced(&batch, &changes);
        self.pass_barrier(&changes, synced).await?;
        let promised = match synced {
            Synced::First => self.promise(&mut batch.edits, changes),
            Synced::Soon => changes.into_iter().map(|one| Promised::unwritten(self.next_intent(), one)).collect(),
        };
        let act = Committed { promised, undo, who: caller.who(), why: String::new(), unsure: false };
        let nodes = self.settle_together((batch, synced), act, held).await?;
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

    /// Whatever can be known before the commit: an earlier change on the path is not settled, too much waits to be synced, or the file
    /// system would refuse.
    async fn refuse(&self, changes: &[Planned]) -> Result<()> {
        let most = self.view().settings.storage.unsynced;
        for one in changes {
            if self.inner.pending.is_in_the_way(one) {
                return Err(unsettled());
            }
            let key = &one.space.key;
            let is_full = || self.inner.pending.unsynced(key) >= most;
            if is_full() && (self.clear_now(key).await.is_err() || is_full()) {
                let text =
                    "the storage of this folder does not sync what was written; it takes no changes until it does";
                return Err(Error::new(Kind::Unavailable, text));
            }
        }
        for one in changes {
            self.patiently(one.space.volume.check(&one.change)).await??;
        }
        Ok(())
    }

    /// Clears earlier intents that a replay could not do again before these changes; see [`crate::hub::barrier`].
    async fn pass_barrier(&self, changes: &[Planned], synced: Synced) -> Result<()> {
        if !self.inner.pending.stops(changes, synced) {
            return Ok(());
        }
        let spaces: BTreeSet<String> = changes.iter().map(|one| one.space.key.clone()).collect();
        for key in &spaces {
            self.clear_now(key).await?;
        }
        match self.inner.pending.stops(changes, synced) {
            true => Err(unsettled()),
            false => Ok(()),
        }
    }

    /// Syncs and clears what is in place in a space. To its end even when the caller goes away: what it took in hand must not be forgotten.
    async fn clear_now(&self, space: &str) -> Result<()> {
        let (hub, space) = (self.clone(), space.to_owned());
        let clearing = tokio::spawn(async move { hub.clear_done(&space).await });
        self.patiently(clearing).await?.unwrap_or_else(|lost| Err(Error::internal(lost)))
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

    /// A commit failed. When only its answer was lost it counts as done; when nobody can say, the keeper asks later.
    pub(crate) async fn ascertain(&self, act: Committed, error: Error) -> Result<Committed> {
        if !is_failure(&error) {
            return Err(error);
        }
        let Some(first) = act.promised.first() else { return Err(error) };
        if first.unwritten {
            return self.forget_unwritten(act, error).await;
        }
        match self.was_committed(first.id).await {
            Ok(true) => Ok(act),
            Ok(false) => Err(error),
            Err(_) => {
                self.inner.pending.doubt(act);
                Err(unknown().with(error))
            }
        }
    }

    /// A commit without an intent failed, perhaps only its answer: rows it may have left are taken back.
    async fn forget_unwritten(&self, mut act: Committed, error: Error) -> Result<Committed> {
        act.why = error.detail();
        if let Ok(()) = self.undo(&act).await {
            Err(error)
        } else {
            self.inner.pending.owe(act);
            Err(unknown().with(error))
        }
    }

    /// Is this intent in the catalog?
    pub(crate) async fn was_committed(&self, id: i64) -> Result<bool> {
        self.catalog().has_intent(id).await
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

    /// Removes stages whatever volume they are on.
    pub(crate) async fn discard_everywhere(&self, stages: &[StageId]) {
        let view = self.view();
        for id in stages {
            for space in &view.spaces {
                super::undo::discard(space, id).await;
            }
        }
    }
}

fn intent(id: i64, planned: &Planned) -> Edit {
    let (space, change) = (planned.space.key.clone(), planned.change.encode());
    Edit::Intent(IntentRow { id, space, change, body: planned.body.clone() })
}

/// The catalog failed: it may have committed all the same. Every other error is a guard's.
pub(crate) fn is_failure(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Full | Kind::Internal | Kind::Cancelled)
}

fn unsettled() -> Error {
    Error::new(Kind::Unavailable, "an earlier change to this path is still being written; try again")
}

/// Publishes; a failure that may pass is tried again at once.
pub(crate) async fn publish(planned: &Planned) -> Result<Option<Node>> {
    let mut tries = 1;
    loop {
        match planned.space.volume.publish(&planned.change, planned.body.clone()).await {
            Err(error) if error.is_transient() && tries < PUBLISH_TRIES => {
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
