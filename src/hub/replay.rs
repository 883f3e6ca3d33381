//! The replay: what was acknowledged and not yet in place when the daemon stopped is put in place before anyone is served.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::hub::act::Planned;
use crate::hub::adopt::{LOST, is_same};
use crate::hub::commit::{Promised, hold, keys_of, publish};
use crate::hub::pending::runs_into;
use crate::hub::{Hub, now};
use crate::store::{Batch, Change, Edit, FileRow, HistoryLine, IntentRow, Node, NodeKind, RelPath, StageId};

/// Intents read at once.
const PAGE: usize = 500;

/// What became of a change that is done again.
enum Replayed {
    /// It is in place.
    InPlace,
    /// It is in place as far as possible; its file may hold something else than its record says.
    Suspect,
    /// The volume refuses it for now, or refuses an earlier one that it would run into.
    Waits,
    /// The volume refuses it for good.
    Never(Error),
}

impl Hub {
    /// Publishes every remaining intent in order and sweeps the stages nobody needs any more.
    pub(crate) async fn replay(&self) -> Result<()> {
        let mut needed = self.replay_intents().await?;
        let uploads = self.load_uploads(&needed).await?;
        needed.extend(uploads);
        self.sweep_stages(&needed).await;
        Ok(())
    }

    /// Publishes every remaining intent of this node in order; the stages that are still needed.
    pub(crate) async fn replay_intents(&self) -> Result<HashSet<StageId>> {
        let moved = self.moved_later().await?;
        let mut after = i64::MIN;
        let mut needed = HashSet::new();
        let mut suspects = BTreeSet::new();
        let mut count = 0_usize;
        loop {
            let page = self.catalog().intents(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            count += page.len();
            self.replay_page(page, &moved, &mut needed, &mut suspects).await?;
        }
        self.report_lost(suspects).await?;
        if count > 0 {
            tracing::info!(count, "put in place what was acknowledged before the last stop");
        }
        self.inner.next_intent.fetch_max(after.saturating_add(1), std::sync::atomic::Ordering::Relaxed);
        Ok(needed)
    }

    /// Files that a remaining intent renames: their rows have the new name already. The barrier lets no chain arise.
    async fn moved_later(&self) -> Result<HashMap<(String, RelPath), RelPath>> {
        let mut moved = HashMap::new();
        let mut after = i64::MIN;
        loop {
            let page = self.catalog().intents(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(moved) };
            after = last.id;
            for row in page {
                if let Ok(Change::Rename { from, to }) = Change::decode(&row.change) {
                    moved.insert((row.space, from), to);
                }
            }
        }
    }

    async fn replay_page(
        &self,
        page: Vec<IntentRow>,
        moved: &HashMap<(String, RelPath), RelPath>,
        needed: &mut HashSet<StageId>,
        suspects: &mut BTreeSet<(String, RelPath)>,
    ) -> Result<()> {
        let view = self.view();
        let mut done = Vec::new();
        for row in page {
            let Some(space) = view.space(&row.space).cloned() else {
                tracing::warn!(space = row.space, id = row.id, "a change waits for a space that is not configured");
                needed.extend(Change::decode(&row.change).ok().and_then(|change| change.stage().cloned()));
                continue;
            };
            let change = Change::decode(&row.change)?;
            let promised = Promised::new(row.id, Planned { space, change, body: row.body, was: None });
            let planned = &promised.planned;
            let place = (row.space, path_now(planned, moved));
            let is_put = matches!(planned.change, Change::Put { .. });
            let recorded = if is_put { self.catalog().file(&place.0, place.1.as_str()).await? } else { None };
            // A file that was put in place and has since been moved away by another program must not come back.
            if is_put && recorded.is_none() {
                done.push(promised);
                continue;
            }
            match self.replay_one(planned, recorded).await? {
                Replayed::InPlace => done.push(promised),
                Replayed::Suspect => {
                    suspects.insert(place);
                    done.push(promised);
                }
                Replayed::Waits => {
                    needed.extend(promised.planned.change.stage().cloned());
                    self.inner.pending.add_stuck(promised);
                }
                Replayed::Never(error) => self.give_up(&promised, &error).await?,
            }
        }
        let spaces: BTreeSet<String> = done.iter().map(|one| one.planned.space.key.clone()).collect();
        self.inner.pending.add_done(done);
        for space in spaces {
            if let Err(error) = self.clear_done(&space).await {
                tracing::error!(space, error = error.detail(), "the tree could not be synced; it is tried again");
            }
        }
        Ok(())
    }

    /// Does one committed change again, given the record of its file.
    async fn replay_one(&self, planned: &Planned, recorded: Option<FileRow>) -> Result<Replayed> {
        // A change that waits stays before every later one that would run into it.
        if self.inner.pending.is_in_the_way(planned) {
            return Ok(Replayed::Waits);
        }
        if let Some(row) = &recorded
            && is_written(planned, row).await
        {
            return Ok(Replayed::InPlace);
        }
        if self.is_moved(planned).await? {
            return Ok(Replayed::InPlace);
        }
        let error = match self.publish_again(planned).await {
            Ok(node) if planned.change.stage().is_some() => {
                let is_recorded = recorded.zip(node).is_some_and(|(row, node)| is_same(&row, &node));
                return Ok(if is_recorded { Replayed::InPlace } else { Replayed::Suspect });
            }
            Ok(_) => return Ok(Replayed::InPlace),
            Err(error) => error,
        };
        if self.without_bytes(planned).await?.is_some() {
            return Ok(Replayed::Suspect);
        }
        if !error.is_transient() {
            return Ok(Replayed::Never(error));
        }
        tracing::error!(change = ?planned.change, error = error.detail(), "a committed change cannot be put in place yet");
        Ok(Replayed::Waits)
    }

    /// Is the file of this rename under its new name already? Then nothing may be moved there again: after a power cut an older file can be
    /// back under the old name (btrfs). Such a file has no record, and is removed.
    async fn is_moved(&self, planned: &Planned) -> Result<bool> {
        let (space, Change::Rename { from, to }) = (&planned.space, &planned.change) else { return Ok(false) };
        if !self.is_in_place(space, to).await? {
            return Ok(false);
        }
        let Ok(old) = space.volume.stat(from).await else { return Ok(true) };
        // One file with both names, or a disk that does not tell capitals from small letters: the rename itself decides.
        if space.volume.stat(to).await.is_ok_and(|new| new.tag == old.tag) {
            return Ok(false);
        }
        if old.kind == NodeKind::File && self.catalog().file(&space.key, from.as_str()).await?.is_none() {
            space.volume.publish(&Change::Remove { path: from.clone() }, None).await?;
        }
        Ok(true)
    }

    /// Tells of each file whose bytes were gone and whose place holds something else than what its record says. A later intent may have
    /// put it right, so this is looked at once all are in place.
    async fn report_lost(&self, suspects: BTreeSet<(String, RelPath)>) -> Result<()> {
        let view = self.view();
        for (key, path) in suspects {
            let Some(space) = view.space(&key) else { continue };
            let is_recorded = self.catalog().file(&key, path.as_str()).await?.is_some();
            if !is_recorded || self.inner.pending.is_awaited(&key, &path) || self.is_in_place(space, &path).await? {
                continue;
            }
            let place = space.path.with(&path).to_string();
            tracing::error!(path = place, "{LOST}");
            self.catalog().commit(Batch { edits: vec![failed("lost", place, LOST.to_owned())] }).await?;
        }
        Ok(())
    }

    async fn publish_again(&self, planned: &Planned) -> Result<Option<Node>> {
        let node = publish(planned).await?;
        self.follow_up(planned).await?;
        Ok(node)
    }

    /// The file system refuses a committed change for good. Its intent is let go, with a line of history; comparing the space with the
    /// disk makes the records right.
    async fn give_up(&self, promised: &Promised, error: &Error) -> Result<()> {
        let planned = &promised.planned;
        tracing::error!(space = planned.space.key, change = ?planned.change, error = error.detail(), "a committed change can never be put in place and is given up");
        let place = planned.space.path.with(planned.change.path()).to_string();
        let line = failed("give up", place, format!("the file system refused it: {}", error.detail()));
        let edits = vec![Edit::ClearIntents(vec![promised.id]), line];
        self.catalog().commit(Batch { edits }).await
    }

    /// Tries again what the volume refused at the last start, each with its paths to itself. One that is refused again keeps those after
    /// it waiting that would run into it.
    pub(crate) async fn retry_stuck(&self, space: &str) {
        let mut refused: Vec<Planned> = Vec::new();
        for (id, planned) in self.inner.pending.stuck(space) {
            if refused.iter().any(|earlier| runs_into(&planned, earlier)) {
                continue;
            }
            let alone = matches!(planned.change, Change::RemoveFolder { .. } | Change::Rename { .. });
            let _held = hold(vec![planned.space.clone()], alone).await;
            let _locked = self.inner.paths.lock_keys(&keys_of(std::slice::from_ref(&planned))).await;
            match self.publish_again(&planned).await {
                Ok(_) => self.inner.pending.add_done(self.inner.pending.unstick(space, id).into_iter().collect()),
                Err(error) if error.is_transient() => {
                    tracing::error!(change = ?planned.change, error = error.detail(), "still cannot be put in place");
                    refused.push(planned);
                }
                Err(error) => {
                    if self.give_up(&Promised::new(id, planned), &error).await.is_ok() {
                        self.inner.pending.unstick(space, id);
                    }
                }
            }
        }
    }

    /// Syncs everything of a space that is in place and clears its intents, one at a time. What fails is tried again by the keeper.
    pub(crate) async fn clear_done(&self, space: &str) -> Result<()> {
        let clearing = self.inner.pending.clearing(space);
        let _turn = clearing.lock().await;
        let done = self.inner.pending.take_done(space);
        if done.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.sync_and_clear(&done).await {
            self.inner.pending.add_done(done);
            return Err(error);
        }
        self.inner.pending.cleared(&done);
        Ok(())
    }

    async fn sync_and_clear(&self, done: &[Promised]) -> Result<()> {
        let changes: Vec<Change> = done.iter().map(|one| one.planned.change.clone()).collect();
        if let Some(first) = done.first() {
            first.planned.space.volume.sync(&changes).await?;
        }
        let ids = done.iter().map(|one| one.id).collect();
        self.catalog().commit(Batch { edits: vec![Edit::ClearIntents(ids)] }).await
    }

    /// Removes stages of uploads that died with the last daemon.
    async fn sweep_stages(&self, needed: &HashSet<StageId>) {
        let view = self.view();
        for space in &view.spaces {
            let Ok(stages) = space.volume.stages().await else { continue };
            for id in stages.into_iter().filter(|id| !needed.contains(id)) {
                if let Err(error) = space.volume.discard(&id).await {
                    tracing::warn!(stage = id.0, error = error.detail(), "a stale upload could not be removed");
                }
            }
        }
    }
}

/// Is the file that this put makes there already, with the bytes of its intent? Then it needs no room, which a full disk does not have.
async fn is_written(planned: &Planned, row: &FileRow) -> bool {
    let (Change::Put { path, .. }, Some(body)) = (&planned.change, &planned.body) else { return false };
    let Ok(opened) = planned.space.volume.open(path).await else { return false };
    is_same(row, &opened.node)
        && opened.node.size == body.len() as u64
        && opened.read_at(0, body.len()).await.is_ok_and(|bytes| bytes == *body)
}

/// Where the file of a put is once all intents are in place; of every other change the path it is about.
fn path_now(planned: &Planned, moved: &HashMap<(String, RelPath), RelPath>) -> RelPath {
    let path = planned.change.path();
    moved.get(&(planned.space.key.clone(), path.clone())).unwrap_or(path).clone()
}

/// A line of history about a change that will never be in place.
fn failed(verb: &str, path: String, detail: String) -> Edit {
    Edit::History(HistoryLine {
        at: now(),
        door: "replay".to_owned(),
        verb: verb.to_owned(),
        path,
        result: "failed".to_owned(),
        detail,
        ..HistoryLine::default()
    })
}
