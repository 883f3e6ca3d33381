//! The replay: what was acknowledged and not yet in place when the daemon stopped is put in place before anyone is served.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::act::Planned;
use crate::hub::adopt::{Fate, LOST};
use crate::hub::commit::{Promised, publish};
use crate::store::{Batch, Change, Edit, IntentRow, RelPath, StageId};

/// Intents read at once.
const PAGE: usize = 500;

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
        let mut count = 0_usize;
        loop {
            let page = self.catalog().intents(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            count += page.len();
            self.replay_page(page, &moved, &mut needed).await?;
        }
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
            let promised = Promised::new(row.id, Planned { space, change, body: row.body });
            if !self.still_wanted(&promised.planned, moved).await? {
                done.push(promised);
                continue;
            }
            match publish(&promised.planned).await {
                Ok(_) => done.push(promised),
                Err(error) => {
                    if let Some(fate) = self.without_bytes(&promised.planned).await? {
                        if fate == Fate::Lost {
                            let path = promised.planned.space.path.with(promised.planned.change.path());
                            tracing::error!(%path, error = error.detail(), "{LOST}");
                        }
                        done.push(promised);
                        continue;
                    }
                    tracing::error!(
                        id = promised.id,
                        error = error.detail(),
                        "a committed change cannot be put in place yet"
                    );
                    needed.extend(promised.planned.change.stage().cloned());
                    self.inner.pending.add_stuck(promised);
                }
            }
        }
        self.clear(done).await
    }

    /// A file that was put in place and has since been moved away by another program must not come back.
    async fn still_wanted(&self, planned: &Planned, moved: &HashMap<(String, RelPath), RelPath>) -> Result<bool> {
        match &planned.change {
            Change::Put { path, .. } => {
                let key = &planned.space.key;
                let path = moved.get(&(key.clone(), path.clone())).unwrap_or(path);
                Ok(self.catalog().file(key, path.as_str()).await?.is_some())
            }
            _ => Ok(true),
        }
    }

    /// Syncs everything in place and clears its intents, one at a time.
    pub(crate) async fn clear_done(&self) -> Result<()> {
        let _turn = self.inner.pending.clearing.lock().await;
        let done = self.inner.pending.take_done();
        self.clear(done).await
    }

    /// Syncs what is in place and clears its intents. What fails is tried again by the keeper.
    async fn clear(&self, done: Vec<Promised>) -> Result<()> {
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
        let mut by_space: HashMap<&str, Vec<&Promised>> = HashMap::new();
        for one in done {
            by_space.entry(one.planned.space.key.as_str()).or_default().push(one);
        }
        for group in by_space.values() {
            let changes: Vec<Change> = group.iter().map(|one| one.planned.change.clone()).collect();
            if let Some(first) = group.first() {
                first.planned.space.volume.sync(&changes).await?;
            }
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
