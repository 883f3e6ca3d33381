//! The keepers: clear synced intents, retry refused publishes, adopt outside changes, expire, follow other processes.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hub::commit::Promised;
use crate::hub::{Hub, adopt, mail, now};
use crate::store::{Batch, Edit, MailEdit, UploadEdit};

/// How long a publish may wait for its sync: many share one.
const CLEAR_EVERY: Duration = Duration::from_millis(500);

/// How soon another process's commits (the command line, another node) are seen.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How often sessions, locks and broken uploads past their time are removed.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);

pub(super) fn start(hub: &Hub, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(clear(hub.clone(), stop.clone())),
        tokio::spawn(follow(hub.clone(), stop.clone())),
        tokio::spawn(expire(hub.clone(), stop.clone())),
        tokio::spawn(adopt::run(hub.clone(), stop.clone())),
    ]
}

/// Waits one period; false when it is time to stop.
async fn tick(period: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(period) => true,
        () = stop.cancelled() => false,
    }
}

async fn clear(hub: Hub, stop: CancellationToken) {
    let mut running = true;
    while running {
        running = tokio::select! {
            running = tick(CLEAR_EVERY, &stop) => running,
            () = hub.inner.pending.wake.notified() => tick(CLEAR_EVERY / 10, &stop).await,
        };
        settle_doubtful(&hub).await;
        hub.retry_stuck().await;
        if let Err(error) = hub.clear_done().await {
            tracing::error!(
                error = error.detail(),
                "the tree could not be synced; intents are kept and it is tried again"
            );
        }
    }
}

/// Commits whose answer was lost: done after all, or never.
async fn settle_doubtful(hub: &Hub) {
    for first in hub.inner.pending.doubtful() {
        match hub.was_committed(first).await {
            Ok(true) => hub.inner.pending.was_done(first),
            Ok(false) => forget_stages(hub.inner.pending.was_not_done(first)).await,
            Err(_) => {}
        }
    }
}

async fn forget_stages(group: Vec<Promised>) {
    for one in group {
        if let Some(id) = one.planned.change.stage()
            && let Err(error) = one.planned.space.volume.discard(id).await
        {
            tracing::warn!(
                stage = id.0,
                error = error.detail(),
                "a refused upload could not be removed; the next start does it"
            );
        }
    }
}

async fn follow(hub: Hub, stop: CancellationToken) {
    let mut seen = hub.catalog().version().await.unwrap_or_default();
    while tick(FOLLOW_EVERY, &stop).await {
        let Ok(version) = hub.catalog().version().await else { continue };
        if version == seen {
            continue;
        }
        match hub.follow_catalog().await {
            Ok(()) => seen = version,
            Err(error) => tracing::error!(error = error.detail(), "accounts and spaces could not be read again"),
        }
    }
}

async fn expire(hub: Hub, stop: CancellationToken) {
    while tick(EXPIRE_EVERY, &stop).await {
        hub.expire_partials().await;
        hub.expire_uploads().await;
        let kept = i64::try_from(hub.view().settings.mail.keep_traces.0.as_micros()).unwrap_or(i64::MAX);
        let oldest = now().saturating_sub(kept);
        let forget = MailEdit::Forget { gone: oldest, message: mail::id_at(oldest) };
        let receipts = Edit::Upload(UploadEdit::Expire(now()));
        let batch = Batch { edits: vec![Edit::Expire(now()), Edit::Mail(forget), receipts] };
        if let Err(error) = hub.catalog().commit(batch).await {
            tracing::warn!(error = error.detail(), "what is past its time could not be removed");
        }
        if let Err(error) = hub.inner.locks.reload(hub.catalog(), now()).await {
            tracing::warn!(error = error.detail(), "the locks could not be read again");
        }
    }
}

impl Hub {
    /// Reads accounts, spaces and locks again after another process changed them.
    async fn follow_catalog(&self) -> crate::error::Result<()> {
        self.refresh().await?;
        self.record_left().await;
        self.inner.locks.reload(self.catalog(), now()).await
    }
}
