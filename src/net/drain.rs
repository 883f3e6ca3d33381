//! Draining: stop accepting, let running work finish, then end.
//!
//! [`Links`] is what accept loops, links and the daemon share: who is open, and the two words said to them, *stop* (finish what
//! runs, then part) and *now* (whatever still runs is dropped, which every door survives).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The open links of the daemon and how they are told to end.
#[derive(Clone)]
pub struct Links {
    stop: CancellationToken,
    now: CancellationToken,
    open: TaskTracker,
    /// Links that ended by themselves, ever: a link that is cut ends as well, so that `open` alone cannot tell the two apart.
    parted: Arc<AtomicUsize>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Links that were open when it began.
    pub open: usize,
    /// Links that had to be cut.
    pub cut: usize,
}

/// Held by one link's task.
pub(super) struct Parting(Arc<AtomicUsize>);

impl Parting {
    /// The link ended by itself; one that is dropped without this word was cut.
    pub(super) fn done(self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Links {
    /// No links yet; `stop` is the daemon's word that it drains.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, now: CancellationToken::new(), open: TaskTracker::new(), parted: Arc::default() }
    }

    /// Links open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Runs a link's task, counted until it ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.open.spawn(task);
    }

    /// What a link's task marks when it ends by itself.
    pub(super) fn parting(&self) -> Parting {
        Parting(Arc::clone(&self.parted))
    }

    /// The stop word for one link: cancelled with all others and, where it must be possible, `alone`.
    pub(super) fn part(&self, alone: bool) -> CancellationToken {
        if alone { self.stop.child_token() } else { self.stop.clone() }
    }

    /// Waits for the word to stop.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The word to stop was said.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the word to leave everything.
    pub(super) async fn cut(&self) {
        self.now.cancelled().await;
    }

    /// Says *now*: a drain that waits ends at once.
    pub fn now(&self) {
        self.stop.cancel();
        self.now.cancel();
    }

    /// Says *stop*, waits for the links to end, `limit` at most, then says *now*.
    pub async fn drain(&self, limit: std::time::Duration) -> Drained {
        let (open, before) = (self.open.len(), self.parted.load(Ordering::Relaxed));
        self.stop.cancel();
        self.open.close();
        tokio::select! {
            () = self.open.wait() => {}
            () = tokio::time::sleep(limit) => {}
            () = self.now.cancelled() => {}
        }
        self.now.cancel();
        let parted = self.parted.load(Ordering::Relaxed) - before;
        Drained { open, cut: open.saturating_sub(parted) }
    }
}
