//! Adoption: what other programs changed in a space is noticed and taken into usage and history.
//!
//! Each space has a follower. It hears of touched paths from the volume's watcher, waits a moment so that many touches
//! become one, and settles them; at the start, when the watcher lost count and now and then it compares everything.
//! Nothing is believed that was not looked at again under the lock that commits use, so that what Stoa itself is
//! publishing is never counted twice.

mod compare;
mod own;
mod settle;
mod verify;
mod walk;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::hub::view::{Space, View};
use crate::store::{RelPath, Touched, Volume};

pub(crate) use own::Own;
pub(crate) use settle::is_same;
pub(crate) use verify::LOST;

/// Touches within this time are settled together.
const GATHER: Duration = Duration::from_millis(500);

/// How often the watcher's queue is emptied meanwhile; it holds what a busy tree sees in this time many times over.
const SIP: Duration = Duration::from_millis(20);

/// A file that was still being written is looked at again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// How often followers are started and stopped for spaces that come and go.
const MUSTER: Duration = Duration::from_millis(500);

/// A comparison that failed is tried again after this.
const RETRY: Duration = Duration::from_mins(1);

/// The shortest time between two comparisons of everything.
const SOONEST: Duration = Duration::from_secs(1);

/// The longest; stands for never.
const NEVER: Duration = Duration::from_hours(365 * 24);

/// Touched paths gathered; beyond that everything is compared.
const TOUCHED: usize = 10_000;

/// Spaces compared at once.
const AT_ONCE: usize = 2;

/// What a comparison of a space with the disk found and mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescan {
    /// Files on the disk.
    pub files: u64,
    /// New to the records.
    pub created: u64,
    /// Changed since they were recorded.
    pub overwritten: u64,
    /// Recorded and gone.
    pub deleted: u64,
    /// The usage did not equal the files and was set right.
    pub corrected: bool,
}

impl Hub {
    /// Compares a whole space with the disk, adopting every difference, and sets its usage right.
    ///
    /// # Errors
    /// `NotFound` when there is no such space; what the disk or the catalog says.
    pub async fn rescan(&self, space: &str) -> Result<Rescan> {
        let view = self.view();
        let space =
            view.space(space).ok_or_else(|| Error::new(Kind::NotFound, format!("there is no space {space}")))?;
        compare::everything(self, space).await
    }
}

/// Follows every space until `stop`.
pub(super) async fn run(hub: Hub, stop: CancellationToken) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut followers: HashMap<String, Follower> = HashMap::new();
    let mut mustered: Option<Arc<View>> = None;
    loop {
        let view = hub.view();
        if !mustered.as_ref().is_some_and(|old| Arc::ptr_eq(old, &view)) {
            muster(&hub, &view, &stop, &turns, &mut followers);
            mustered = Some(view);
        }
        tokio::select! {
            () = tokio::time::sleep(MUSTER) => {}
            () = stop.cancelled() => break,
        }
    }
    for (_, follower) in followers {
        let _ = follower.task.await;
    }
}

struct Follower {
    volume: Arc<dyn Volume>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// One follower for each space there is, none for one there is no more.
fn muster(
    hub: &Hub,
    view: &View,
    stop: &CancellationToken,
    turns: &Arc<Semaphore>,
    followers: &mut HashMap<String, Follower>,
) {
    let spaces: HashMap<&str, &Arc<Space>> = view.spaces.iter().map(|space| (space.key.as_str(), space)).collect();
    followers.retain(|key, follower| {
        let same = |space: &&Arc<Space>| Arc::ptr_eq(&space.volume, &follower.volume);
        let kept = spaces.get(key.as_str()).is_some_and(same) && !follower.task.is_finished();
        if !kept {
            follower.stop.cancel();
        }
        kept
    });
    for (key, space) in spaces {
        if followers.contains_key(key) {
            continue;
        }
        let stop = stop.child_token();
        let task = tokio::spawn(follow(hub.clone(), space.clone(), stop.clone(), turns.clone()));
        followers.insert(key.to_owned(), Follower { volume: space.volume.clone(), stop, task });
    }
}

/// What a follower has to do next.
#[derive(Default)]
struct Work {
    touched: BTreeSet<RelPath>,
    everything: bool,
}

impl Work {
    fn add(&mut self, touched: Touched) {
        match touched {
            Touched::Path(path) if self.touched.len() < TOUCHED => {
                self.touched.insert(path);
            }
            Touched::Path(_) | Touched::Everything => self.everything = true,
        }
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.touched.is_empty()
    }
}

async fn follow(hub: Hub, space: Arc<Space>, stop: CancellationToken, turns: Arc<Semaphore>) {
    let (key, volume) = (space.key.clone(), space.volume.clone());
    drop(space);
    let mut watcher = tokio::task::spawn_blocking(move || volume.watch()).await.unwrap_or_default();
    let mut work = Work { everything: true, ..Work::default() };
    let mut again: Option<(Instant, BTreeSet<RelPath>)> = None;
    let mut due = Instant::now();
    loop {
        if !work.is_empty() {
            let outcome = tokio::select! {
                outcome = turn(&hub, &key, &turns, std::mem::take(&mut work)) => outcome,
                () = stop.cancelled() => return,
            };
            match outcome {
                Ok(done) => {
                    if done.everything {
                        due = Instant::now() + rescan_every(&hub);
                    }
                    if !done.fresh.is_empty() {
                        again.get_or_insert_with(|| (Instant::now() + AGAIN, BTreeSet::new())).1.extend(done.fresh);
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        space = key,
                        error = error.detail(),
                        "changes by other programs could not be adopted yet"
                    );
                    due = Instant::now() + RETRY;
                }
            }
        }
        let next = again.as_ref().map_or(due, |(at, _)| due.min(*at));
        tokio::select! {
            touched = next_touched(&mut watcher) => gather(touched, &mut watcher, &mut work).await,
            () = tokio::time::sleep_until(next) => {}
            () = stop.cancelled() => return,
        }
        let now = Instant::now();
        if let Some((_, paths)) = again.take_if(|(at, _)| *at <= now) {
            work.touched.extend(paths);
        }
        work.everything |= now >= due;
    }
}

/// How often everything is compared; zero is never.
fn rescan_every(hub: &Hub) -> Duration {
    match hub.view().settings.storage.rescan.0 {
        Duration::ZERO => NEVER,
        every => every.clamp(SOONEST, NEVER),
    }
}

/// Waits for a touch; for ever when nobody watches.
async fn next_touched(watcher: &mut Option<mpsc::Receiver<Touched>>) -> Touched {
    if let Some(receiver) = watcher {
        if let Some(touched) = receiver.recv().await {
            return touched;
        }
        *watcher = None;
    }
    std::future::pending().await
}

/// Takes everything touched within the next moment, many at a time: most of it is our own doing, and waking for each costs more than the
/// look that tells.
async fn gather(first: Touched, watcher: &mut Option<mpsc::Receiver<Touched>>, work: &mut Work) {
    work.add(first);
    let end = Instant::now() + GATHER;
    while Instant::now() < end {
        tokio::time::sleep(SIP).await;
        while let Some(touched) = watcher.as_mut().and_then(|receiver| receiver.try_recv().ok()) {
            work.add(touched);
        }
    }
}

/// What a turn did.
struct Done {
    everything: bool,
    /// Files that may still be being written.
    fresh: Vec<RelPath>,
}

async fn turn(hub: &Hub, key: &str, turns: &Semaphore, work: Work) -> Result<Done> {
    let view = hub.view();
    let Some(space) = view.space(key) else { return Ok(Done { everything: false, fresh: Vec::new() }) };
    if work.everything {
        let _turn = turns.acquire().await;
        compare::everything(hub, space).await?;
        return Ok(Done { everything: true, fresh: Vec::new() });
    }
    let fresh = compare::touched(hub, space, work.touched).await?;
    Ok(Done { everything: false, fresh })
}
