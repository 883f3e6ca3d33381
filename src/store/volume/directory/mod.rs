//! A volume on a plain directory of the local file system.
//!
//! What is in the kernel's memory is answered at once on the caller's thread; everything else runs on tokio's pool of
//! blocking threads, so that a slow disk never stops a core.

mod check;
mod entries;
mod errors;
mod inner;
mod list;
mod lookup;
mod own;
mod publish;
mod remove;
mod soak;
mod stage;
mod stamp;
mod stat;
mod sync;
mod tell;
mod unnamed;
mod variant;
mod watch;
mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Semaphore, mpsc};

use crate::error::{Error, Kind, Result};
use crate::store::volume::path::RelPath;
use crate::store::volume::read::{TMPFS, in_memory};
use crate::store::{Change, Fingerprint, Node, Opened, Room, Stage, StageId, Touched, Volume};

use errors::refused;
use inner::{Inner, LOOK, READ, device_of, each_failed, is_cold, opened};
use list::Listings;
pub use lookup::Lookups;
use lookup::{Root, node_of};
use own::OwnNames;
use publish::Nearby;
use stage::Staging;
use stamp::Stamps;
use stat::Seen;
use unnamed::Unnamed;

/// Where bytes are staged when the staging folder we were given is on another file system.
const STAGE_INSIDE: &str = ".stoa-stage";

/// So much room does not vanish within a [`GLANCE`].
const PLENTY: u64 = 1 << 30;

/// Threads of the pool that may wait for one volume, and how long a caller waits for its answer, unless it is said otherwise.
const PLACES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// How long plenty of room is taken for what it was.
const GLANCE: Duration = Duration::from_millis(20);

/// A directory tree; staging lies on the same file system, outside the tree where that is possible.
pub struct Directory {
    inner: Arc<Inner>,
    /// Threads of the pool that may wait for this volume.
    places: Arc<Semaphore>,
    /// How long a caller waits for its answer.
    patience: Duration,
}

impl Directory {
    /// Opens `root` (made when missing and `create`), with `staging` for invisible bytes; when `staging` is on another
    /// file system, `<root>/.stoa-stage` is used instead.
    ///
    /// # Errors
    /// What the disk says, naming the directory.
    pub fn open(root: &Path, staging: &Path, create: bool) -> Result<Self> {
        Self::open_with(root, staging, create, Lookups::Probe)
    }

    /// The same, with a say in how names are looked up.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn open_with(root: &Path, staging: &Path, create: bool, lookups: Lookups) -> Result<Self> {
        if create {
            make(root)?;
        }
        let fd = open_directory(root)?;
        let home = device_of(&fd)?;
        make(staging)?;
        let outside = open_directory(staging)?;
        let beside = device_of(&outside)? == home;
        let staging = if beside { outside } else { stage_inside(root, &fd)? };
        if let Err(error) = check::may_change(&fd) {
            tracing::warn!(folder = %root.display(), error = error.detail(), "this folder cannot be written: its space refuses every change");
        }
        let staging = Arc::new(Staging::new(staging));
        remove::clear_leftovers(&staging)?;
        let (near, memory, whole) = (is_local(&fd), in_memory(&fd), is_btrfs(&fd));
        let (stamps, listings) = (Stamps::new(near), Listings::default());
        let (root, unnamed, room) = (Root::new(fd, lookups), Unnamed::probe(&staging), Mutex::default());
        let own = OwnNames::new();
        let inner = Inner { root, staging, unnamed, listings, stamps, own, memory, near, whole, beside, room };
        Ok(Self { inner: Arc::new(inner), places: Arc::new(Semaphore::new(PLACES)), patience: PATIENCE })
    }

    /// The same with other bounds: how long a caller waits for an answer, and how many threads may.
    #[must_use]
    pub fn bounded(self, patience: Duration, threads: usize) -> Self {
        Self { patience, places: Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS))), ..self }
    }

    /// Opens what needs no disk. On a network share the kernel may ask the server even then.
    fn open_cached(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if self.inner.near { self.inner.root.open_cached(path, flags) } else { Err(Errno::AGAIN) }
    }

    /// Runs `work` on the pool. A volume that hangs keeps its own threads and no others, and its callers do not wait for ever.
    async fn on_pool<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        tokio::time::timeout(self.patience, self.to_the_end(work)).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// The same without a limit of time, for changes: whoever asked must know what became of them.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = tokio::time::timeout(self.patience, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(no_answer()) };
        let inner = self.inner.clone();
        let run = move || {
            let _place = place;
            work(&inner)
        };
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|lost| Err(Error::internal(lost)))
    }
}

/// The storage hangs.
fn no_answer() -> Error {
    Error::new(Kind::Unavailable, "the storage of this folder does not answer; try again later")
}

/// Makes a directory with its parents, `0750` less the umask.
fn make(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|error| named(path, error))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| named(path, error.into()))
}

fn stage_inside(root: &Path, fd: &OwnedFd) -> Result<OwnedFd> {
    let path = root.join(STAGE_INSIDE);
    match rustix::fs::mkdirat(fd, STAGE_INSIDE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(named(&path, error.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(fd, STAGE_INSIDE, flags, Mode::empty()).map_err(|error| named(&path, error.into()))
}

/// The kernel's word with the directory it was said of.
fn named(path: &Path, error: std::io::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    Error::new(Error::from(error).kind(), text)
}

#[async_trait]
impl Volume for Directory {
    async fn stat(&self, path: &RelPath) -> Result<Node> {
        if self.inner.memory && path.as_str().is_ascii() {
            return self.inner.stat(path);
        }
        match self.open_cached(path, LOOK) {
            Ok(fd) => node_of(fd, path),
            Err(error) if !is_cold(error) => Err(refused(error)),
            Err(_) => {
                let path = path.clone();
                self.on_pool(move |inner| inner.stat(&path)).await
            }
        }
    }

    async fn stat_each(&self, paths: &[RelPath]) -> Vec<Result<Node>> {
        let (count, paths) = (paths.len(), paths.to_vec());
        let asked = self.on_pool(move |inner| Ok(inner.stat_each(&paths))).await;
        asked.unwrap_or_else(|error| each_failed(&error, count))
    }

    async fn list(&self, folder: &RelPath, after: Option<&str>, limit: usize) -> Result<Vec<Node>> {
        let (folder, after) = (folder.clone(), after.map(str::to_owned));
        self.on_pool(move |inner| inner.listings.page(&inner.root, &folder, after.as_deref(), limit)).await
    }

    async fn hides(&self, folder: &RelPath) -> Result<bool> {
        let folder = folder.clone();
        self.on_pool(move |inner| inner.hides(&folder)).await
    }

    async fn open(&self, path: &RelPath) -> Result<Opened> {
        if self.inner.memory && path.as_str().is_ascii() {
            return self.inner.open(path);
        }
        match self.open_cached(path, READ) {
            Ok(fd) => opened(fd, path),
            Err(error @ Errno::NOENT) => Err(refused(error)),
            Err(_) => {
                let path = path.clone();
                self.on_pool(move |inner| inner.open(&path)).await
            }
        }
    }

    async fn stage(&self, id: &StageId) -> Result<Box<dyn Stage>> {
        let id = id.clone();
        let staged = self.on_pool(move |inner| inner.staging.open(&id)).await?;
        Ok(Box::new(staged))
    }

    async fn fork(&self, from: &StageId, to: &StageId) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.on_pool(move |inner| inner.staging.fork(&from, &to)).await
    }

    async fn discard(&self, id: &StageId) -> Result<()> {
        let id = id.clone();
        self.on_pool(move |inner| inner.staging.discard(&id)).await
    }

    async fn stages(&self) -> Result<Vec<StageId>> {
        self.on_pool(|inner| inner.staging.stages()).await
    }

    async fn publish(&self, change: &Change, body: Option<Bytes>) -> Result<Option<Node>> {
        let change = change.clone();
        self.to_the_end(move |inner| inner.publish(&change, body, &mut Nearby::default())).await
    }

    fn publish_here(&self, change: &Change, body: Option<Bytes>) -> Option<Result<Option<Node>>> {
        Some(self.inner.publish(change, body, &mut Nearby::default()))
    }

    async fn check(&self, change: &Change) -> Result<()> {
        // On a disk of this machine these folders were looked up a moment ago, so that the kernel has them in memory.
        if self.inner.near && !matches!(change, Change::RemoveFolder { .. }) {
            return self.inner.check(change);
        }
        let change = change.clone();
        self.on_pool(move |inner| inner.check(&change)).await
    }

    fn is_lost(&self) -> bool {
        self.inner.near && self.inner.is_lost()
    }

    fn is_near(&self) -> bool {
        self.inner.near && self.inner.beside
    }

    async fn publish_each(&self, changes: Vec<(Change, Option<Bytes>)>) -> Vec<Result<Option<Node>>> {
        let count = changes.len();
        let work = move |inner: &Inner| {
            let mut nearby = Nearby::default();
            Ok(changes.into_iter().map(|(change, body)| inner.publish(&change, body, &mut nearby)).collect())
        };
        self.to_the_end(work).await.unwrap_or_else(|error| each_failed(&error, count))
    }

    async fn sync(&self, changes: &[Change]) -> Result<()> {
        let changes = changes.to_vec();
        self.to_the_end(move |inner| inner.sync(&changes)).await
    }

    async fn room(&self) -> Result<Room> {
        if let Some((asked, room)) = *self.inner.room.lock()
            && asked.elapsed() < GLANCE
        {
            return Ok(room);
        }
        // A file system in memory answers from memory; all others may have to be waited for.
        let room = match self.inner.memory {
            true => self.inner.ask_room()?,
            false => self.on_pool(Inner::ask_room).await?,
        };
        *self.inner.room.lock() = (room.free >= PLENTY).then(|| (Instant::now(), room));
        Ok(room)
    }

    fn watch(&self) -> Option<mpsc::Receiver<Touched>> {
        watch::start(&self.inner)
    }

    fn stamp(&self, path: &RelPath) -> Option<u64> {
        // Settled first: what is counted after it can only be newer.
        watch::is_settled().then(|| self.inner.stamps.of(path)).flatten()
    }

    fn fingerprint(&self, path: &RelPath) -> Option<Fingerprint> {
        if !self.inner.near {
            return None;
        }
        match self.inner.root.open_cached(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => Seen::of(fd).ok().map(|seen| seen.fingerprint()),
            Err(Errno::NOENT) => Some(Fingerprint::Missing),
            Err(_) => None,
        }
    }
}

/// Nobody else can change these file systems without this kernel knowing: not so with NFS, CIFS, Ceph or FUSE.
fn is_local(fd: impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| LOCAL.contains(&stat.f_type))
}

/// There a sync of a folder writes what changed to a log of its own, and after a power cut names that had been removed were seen to come back.
fn is_btrfs(fd: impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == BTRFS)
}

/// statfs(2)
const BTRFS: rustix::fs::FsWord = 0x9123_683e;

/// statfs(2): btrfs, ext2 to ext4, f2fs, overlayfs, tmpfs, XFS, ZFS.
const LOCAL: [rustix::fs::FsWord; 7] = [BTRFS, 0xef53, 0xf2f5_2010, 0x794c_7630, TMPFS, 0x5846_5342, 0x2fc1_2fc1];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_that_hangs_is_waited_for_as_long_and_by_as_many_as_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = Directory::open(&folder.path().join("tree"), &folder.path().join("stage"), true).expect("a volume");
        let volume = Arc::new(open.bounded(Duration::from_millis(50), 1));
        let (free, waits) = std::sync::mpsc::sync_channel::<()>(1);
        let hanging = {
            let volume = volume.clone();
            tokio::spawn(async move { volume.on_pool(move |_| waits.recv().map_err(Error::internal)).await })
        };
        let refused = hanging.await.expect("a task").expect_err("it hangs");
        assert_eq!(refused.kind(), Kind::Unavailable);
        // Its thread hangs still, and there is no other.
        assert_eq!(volume.on_pool(|_| Ok(())).await.expect_err("no thread").kind(), Kind::Unavailable);
        free.send(()).expect("it listens");
        let mut freed = volume.on_pool(|_| Ok(())).await;
        while freed.is_err() {
            freed = volume.on_pool(|_| Ok(())).await;
        }
    }
}
