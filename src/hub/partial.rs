//! Broken uploads: invisible to everyone, resumable for a while by the account that began them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::hub::settings::StorageSettings;
use crate::hub::staging::Hold;
use crate::hub::transfer::{Goal, Work};
use crate::hub::view::Space;
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit, Micros, StageId, UploadEdit, UploadKind, UploadRow};

/// What came is made to survive a kill after so many bytes, or after so long.
const SAVE_EVERY: u64 = 16 << 20;
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// What a broken upload left.
pub(crate) struct Partial {
    pub(crate) space: Arc<Space>,
    pub(crate) id: StageId,
    pub(crate) len: u64,
    pub(crate) since: Micros,
    /// Its part of the quota.
    pub(crate) hold: Hold,
}

/// By account and path.
#[derive(Default)]
pub(crate) struct Partials {
    kept: Mutex<HashMap<(String, TreePath), Partial>>,
}

impl Partials {
    /// Takes one out, to be resumed.
    pub(crate) fn take(&self, account: &str, path: &TreePath) -> Option<Partial> {
        self.kept.lock().remove(&(account.to_owned(), path.clone()))
    }

    /// Length of one that could be resumed.
    pub(crate) fn len(&self, account: &str, path: &TreePath) -> Option<u64> {
        self.kept.lock().get(&(account.to_owned(), path.clone())).map(|partial| partial.len)
    }

    /// Keeps one; the oldest go where there are more than `[storage]` says.
    fn put(&self, account: &str, path: &TreePath, partial: Partial, storage: &StorageSettings) -> Vec<Partial> {
        let mut kept = self.kept.lock();
        let mut dropped = Vec::new();
        let own = kept.keys().filter(|(owner, _)| owner == account).count();
        let (most, most_of_one) = (storage.partials.max(1), storage.partials_per_account.max(1));
        if kept.len() >= most || own >= most_of_one {
            // Who has many loses one of those, not another one's.
            let mine = |key: &(String, TreePath)| own < most_of_one || key.0 == account;
            let oldest = kept.iter().filter(|(key, _)| mine(key)).min_by_key(|(_, one)| one.since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                dropped.extend(kept.remove(&oldest));
            }
        }
        dropped.extend(kept.insert((account.to_owned(), path.clone()), partial));
        dropped
    }

    /// One that was there when the daemon stopped.
    pub(crate) fn know(&self, row: &UploadRow, path: &TreePath, partial: Partial) -> Option<Partial> {
        self.kept.lock().insert((row.account.clone(), path.clone()), partial)
    }

    fn all_of(&self, account: &str) -> Vec<Partial> {
        self.kept.lock().extract_if(|(owner, _), _| owner == account).map(|(_, partial)| partial).collect()
    }

    fn older_than(&self, moment: Micros) -> Vec<Partial> {
        self.kept.lock().extract_if(|_, partial| partial.since < moment).map(|(_, partial)| partial).collect()
    }
}

impl Hub {
    /// Keeps what a broken upload left, whose bytes are safe on the disk; true when that would survive a restart.
    pub(crate) async fn keep_partial(&self, account: &str, path: &TreePath, partial: Partial) -> bool {
        let kept = self.note_partial(account, path, &partial.space, &partial.id, partial.len).await;
        let dropped = self.inner.partials.put(account, path, partial, &self.view().settings.storage);
        self.discard(dropped).await;
        kept
    }

    /// Notes that so many bytes of an upload are safe on the disk: should the daemon be killed, the upload is a broken one. False when
    /// that cannot be written down.
    pub(crate) async fn note_partial(
        &self,
        account: &str,
        path: &TreePath,
        space: &Space,
        id: &StageId,
        len: u64,
    ) -> bool {
        let row = UploadRow {
            id: id.0.clone(),
            account: account.to_owned(),
            kind: UploadKind::Broken,
            space: space.key.clone(),
            path: path.to_string(),
            length: None,
            received: len,
            expires: now().saturating_add(self.resume_time()),
            about: String::new(),
        };
        let kept = self.catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row))] }).await;
        if let Err(error) = &kept {
            tracing::warn!(error = error.detail(), "a broken upload can be resumed only until the next stop");
        }
        kept.is_ok()
    }

    /// Forgets broken uploads that nobody resumed in time.
    pub(crate) async fn expire_partials(&self) {
        self.discard(self.inner.partials.older_than(now().saturating_sub(self.resume_time()))).await;
    }

    /// Forgets the broken uploads of an account whose access ended.
    pub(crate) async fn drop_partials_of(&self, account: &str) {
        self.discard(self.inner.partials.all_of(account)).await;
    }

    /// How long a broken upload can be resumed.
    pub(crate) fn resume_time(&self) -> Micros {
        Micros::try_from(self.view().settings.storage.resume.0.as_micros()).unwrap_or(Micros::MAX)
    }

    /// Forgets the broken upload of an account at a path; true when there was one.
    pub(crate) async fn drop_partial(&self, account: &str, path: &TreePath) -> bool {
        let Some(partial) = self.inner.partials.take(account, path) else { return false };
        self.discard(vec![partial]).await;
        true
    }

    pub(super) async fn discard(&self, partials: Vec<Partial>) {
        for partial in partials {
            let forgotten = self.forget_upload(&partial.id.0).await;
            if let Err(error) = forgotten.and(partial.space.volume.discard(&partial.id).await) {
                tracing::warn!(stage = partial.id.0, error = error.detail(), "a broken upload could not be removed");
            }
        }
    }
}

impl Work {
    /// Whoever was signed out leaves nothing to go on with.
    fn may_resume(&self) -> bool {
        !self.caller.is_guest() && !self.caller.has_ended()
    }

    /// The path at which its maker may go on with it when it breaks off.
    fn resumable_at(&self) -> Option<&TreePath> {
        match &self.goal {
            Goal::File { path, options, .. } if options.keep_partial && self.may_resume() => Some(path),
            Goal::File { .. } | Goal::Mail(_) => None,
        }
    }

    /// Now and then makes what came survive a kill, so that it can be gone on with.
    pub(super) async fn save(&mut self) -> Result<()> {
        let (at, before) = self.saved;
        let len = self.body.len();
        let due = len.saturating_sub(before) >= SAVE_EVERY || (len > before && at.elapsed() >= SAVE_AFTER);
        if !due || self.body.stage.is_none() {
            return Ok(());
        }
        let Some(path) = self.resumable_at().cloned() else { return Ok(()) };
        let Some((id, stage)) = &mut self.body.stage else { return Ok(()) };
        if self.space.durable {
            stage.seal(None).await?;
        }
        let (hub, name) = (self.caller.hub(), self.caller.name());
        self.body.recorded |= hub.note_partial(name, &path, &self.space, id, len).await;
        self.saved = (Instant::now(), len);
        Ok(())
    }

    /// True when what came is kept.
    pub(super) async fn give_up(mut self: Box<Self>) -> bool {
        let keep = self.resumable_at().cloned();
        match (keep, self.body.stage.take()) {
            (Some(path), Some((id, mut stage))) if !stage.is_empty() => {
                // What still runs ends first, and leaves nothing behind that was not counted.
                let len = stage.len();
                let cut = stage.truncate(len).await;
                let safe = match self.space.durable {
                    true => stage.seal(None).await,
                    false => Ok(()),
                };
                if cut.and(safe).is_err() {
                    self.body.stage = Some((id, stage));
                    self.discard().await;
                    return false;
                }
                let (hub, name) = (self.caller.hub().clone(), self.caller.name().to_owned());
                self.hold.shrink(len);
                let empty = hub.inner.staging.hold(&self.space);
                let hold = std::mem::replace(&mut self.hold, empty);
                let partial = Partial { space: self.space.clone(), id, len, since: now(), hold };
                let kept = hub.keep_partial(&name, &path, partial).await;
                if self.caller.has_ended() {
                    hub.drop_partials_of(&name).await;
                }
                kept
            }
            (_, stage) => {
                self.body.stage = stage;
                self.discard().await;
                false
            }
        }
    }
}
