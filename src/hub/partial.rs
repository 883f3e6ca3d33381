//! Broken uploads: invisible to everyone, resumable for a while by the account that began them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::hub::path::TreePath;
use crate::hub::view::Space;
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit, Micros, StageId, UploadEdit, UploadKind, UploadRow};

/// Broken uploads remembered at most; the oldest goes first.
const MOST: usize = 4096;

/// Of one account.
const MOST_OF_ONE: usize = 64;

/// What a broken upload left.
pub(crate) struct Partial {
    pub(crate) space: Arc<Space>,
    pub(crate) id: StageId,
    pub(crate) len: u64,
    pub(crate) since: Micros,
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

    fn put(&self, account: &str, path: &TreePath, partial: Partial) -> Vec<Partial> {
        let mut kept = self.kept.lock();
        let mut dropped = Vec::new();
        let own = kept.keys().filter(|(owner, _)| owner == account).count();
        if kept.len() >= MOST || own >= MOST_OF_ONE {
            // Who has many loses one of those, not another one's.
            let mine = |key: &(String, TreePath)| own < MOST_OF_ONE || key.0 == account;
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
        let row = UploadRow {
            id: partial.id.0.clone(),
            account: account.to_owned(),
            kind: UploadKind::Broken,
            space: partial.space.key.clone(),
            path: path.to_string(),
            length: None,
            received: partial.len,
            expires: partial.since.saturating_add(self.resume_time()),
            about: String::new(),
        };
        let kept = self.catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row))] }).await;
        if let Err(error) = &kept {
            tracing::warn!(error = error.detail(), "a broken upload can be resumed only until the next stop");
        }
        let dropped = self.inner.partials.put(account, path, partial);
        self.discard(dropped).await;
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

    async fn discard(&self, partials: Vec<Partial>) {
        for partial in partials {
            let forgotten = self.forget_upload(&partial.id.0).await;
            if let Err(error) = forgotten.and(partial.space.volume.discard(&partial.id).await) {
                tracing::warn!(stage = partial.id.0, error = error.detail(), "a broken upload could not be removed");
            }
        }
    }
}
