//! The keepers: sync and clear what is in place, undo what could not be undone at once, adopt outside changes, expire, follow other processes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, adopt, mail, now, undo};
use crate::store::{Batch, Edit, MailEdit, UploadEdit};

/// How long a publish may wait for its sync: many share one.
const CLEAR_EVERY: Duration = Duration::from_millis(500);

/// How long the last sync before the end may take.
const LAST: Duration = Duration::from_secs(10);

/// How soon another process's commits (the command line, another node) are seen.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How often files that were removed or replaced are closed.
const LET_GO_EVERY: Duration = Duration::from_secs(1);

/// How often sessions, locks and broken uploads past their time are removed.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);

pub(super) fn start(hub: &Hub, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(clear(hub.clone(), stop.clone())),
        tokio::spawn(follow(hub.clone(), stop.clone())),
        tokio::spawn(expire(hub.clone(), stop.clone())),
        tokio::spawn(let_go(hub.clone(), stop.clone())),
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

/// Syncs and clears what is in place, each space in a task of its own: a volume that hangs holds up no other.
async fn clear(hub: Hub, stop: CancellationToken) {
    let mut running = true;
    let mut tending: HashMap<String, JoinHandle<()>> = HashMap::new();
    while running {
        running = tokio::select! {
            running = tick(CLEAR_EVERY, &stop) => running,
            () = hub.inner.pending.wake.notified() => tick(CLEAR_EVERY / 10, &stop).await,
        };
        settle_doubtful(&hub).await;
        hub.undo_owed().await;
        tending.retain(|_, task| !task.is_finished());
        for space in hub.inner.pending.spaces() {
            let new = || tokio::spawn(tend(hub.clone(), space.clone()));
            tending.entry(space.clone()).or_insert_with(new);
        }
    }
    let last = async {
        for task in tending.into_values() {
            let _ = task.await;
        }
        for space in hub.inner.pending.spaces() {
            tend(hub.clone(), space).await;
        }
    };
    if tokio::time::timeout(LAST, last).await.is_err() {
        tracing::warn!("a volume did not sync in time; its changes are put in place again at the next start");
    }
}

async fn tend(hub: Hub, space: String) {
    hub.retry_stuck(&space).await;
    if let Err(error) = hub.clear_done(&space).await {
        tracing::error!(
            space,
            error = error.detail(),
            "the tree could not be synced; intents are kept and it is tried again"
        );
    }
}

/// Commits whose answer was lost: done after all, or never.
async fn settle_doubtful(hub: &Hub) {
    for first in hub.inner.pending.doubtful() {
        match hub.was_committed(first).await {
            Ok(true) => hub.inner.pending.was_done(first),
            Ok(false) => {
                for one in hub.inner.pending.was_not_done(first).into_iter().flat_map(|act| act.promised) {
                    if let Some(id) = one.planned.change.stage() {
                        undo::discard(&one.planned.space, id).await;
                    }
                }
            }
            Err(_) => {}
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

async fn let_go(hub: Hub, stop: CancellationToken) {
    while tick(LET_GO_EVERY, &stop).await {
        let mut keepers = Vec::new();
        hub.inner.keeps_open.lock().retain(|keeper| {
            let there = keeper.upgrade();
            keepers.extend(there.clone());
            there.is_some()
        });
        for keeper in &keepers {
            keeper.let_go();
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
