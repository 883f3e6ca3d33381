//! A volume that fails or stops at the n-th call.
//!
//! Stopping stands for a crash: the call is or is not done, and nothing after it is. Tests then open the volume again
//! without the fault and look at what is left.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Kind, Result};
use crate::store::{Change, Fingerprint, Micros, Node, Opened, RelPath, Room, Soaked, Stage, StageId, Touched, Volume};

/// Which calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumePoint {
    /// `Stage::append` and `Stage::append_file`.
    Append,
    /// `Volume::publish`.
    Publish,
    /// `Stage::seal`.
    Seal,
    /// `Volume::sync`.
    Sync,
}

impl VolumePoint {
    /// Every point, for tests that break each once.
    pub const ALL: [Self; 4] = [Self::Append, Self::Publish, Self::Seal, Self::Sync];
}

/// What happens at the n-th call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeBreak {
    /// It is done and yet reported as failed.
    FailAfter,
    /// It is not done and fails.
    FailBefore,
    /// It is done, and then everything fails as if the machine had stopped.
    StopAfter,
    /// It is not done, and everything fails from here on.
    StopBefore,
}

impl VolumeBreak {
    /// Every way to break.
    pub const ALL: [Self; 4] = [Self::FailAfter, Self::FailBefore, Self::StopAfter, Self::StopBefore];
}

/// When and how to break; shared with the test.
pub struct VolumeFault {
    point: VolumePoint,
    way: VolumeBreak,
    left: Arc<AtomicU64>,
    stopped: AtomicBool,
    /// Every publish, or every sync, fails with this error number of the kernel; 0: none.
    refusal: AtomicI32,
    sync_refusal: AtomicI32,
    /// Publishes of more bytes than this find no space.
    space: AtomicUsize,
    /// Publishes and syncs wait while this is true.
    hangs: watch::Sender<bool>,
}

impl VolumeFault {
    /// Every publish fails with this error number, until [`VolumeFault::heal`].
    pub fn refuse(&self, errno: i32) {
        self.refusal.store(errno, Ordering::SeqCst);
    }

    /// Every sync fails with this error number.
    pub fn refuse_sync(&self, errno: i32) {
        self.sync_refusal.store(errno, Ordering::SeqCst);
    }

    /// Every publish and sync waits.
    pub fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// Every publish of more inline bytes than this fails with `ENOSPC`.
    pub fn leave_space(&self, bytes: usize) {
        self.space.store(bytes, Ordering::SeqCst);
    }

    /// It works again, and does what waited.
    pub fn heal(&self) {
        self.refuse(0);
        self.refuse_sync(0);
        self.leave_space(usize::MAX);
        self.hangs.send_replace(false);
    }

    fn is_hanging(&self) -> bool {
        *self.hangs.borrow()
    }

    async fn answer(&self, refusal: &AtomicI32) -> Result<()> {
        let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
        refused(refusal)
    }

    /// Breaks at the call that takes `left` from 1 to 0; 0 is disarmed.
    #[must_use]
    pub fn new(point: VolumePoint, way: VolumeBreak, left: Arc<AtomicU64>) -> Arc<Self> {
        let (refusal, sync_refusal) = (AtomicI32::new(0), AtomicI32::new(0));
        let (stopped, hangs) = (AtomicBool::new(false), watch::Sender::new(false));
        let space = AtomicUsize::new(usize::MAX);
        Arc::new(Self { point, way, left, stopped, refusal, sync_refusal, space, hangs })
    }

    /// True once the volume has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(broken("the volume has stopped")),
            false => Ok(()),
        }
    }

    /// Counts a call; what to do with it.
    fn count(&self, point: VolumePoint) -> Result<Option<VolumeBreak>> {
        self.alive()?;
        if point != self.point {
            return Ok(None);
        }
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        Ok((before == Ok(1)).then_some(self.way))
    }

    /// Before a publish: the same, and is there space for its bytes?
    fn before_publish(&self, body: Option<&Bytes>) -> Result<Option<VolumeBreak>> {
        if body.is_some_and(|body| body.len() > self.space.load(Ordering::SeqCst)) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        }
        self.before(VolumePoint::Publish)
    }

    /// Before the call: fails it, or lets it through.
    fn before(&self, point: VolumePoint) -> Result<Option<VolumeBreak>> {
        match self.count(point)? {
            Some(VolumeBreak::StopBefore) => {
                self.stopped.store(true, Ordering::SeqCst);
                Err(broken("the volume stops here"))
            }
            Some(VolumeBreak::FailBefore) => Err(broken("the volume fails here")),
            way => Ok(way),
        }
    }

    /// After the call: passes its outcome on, or fails it.
    fn after<T>(&self, way: Option<VolumeBreak>, outcome: Result<T>) -> Result<T> {
        let Some(way) = way else { return outcome };
        if way == VolumeBreak::StopAfter {
            self.stopped.store(true, Ordering::SeqCst);
        }
        outcome.and(Err(broken("the volume fails after the work")))
    }
}

/// The error of the kernel with this number.
fn refused(refusal: &AtomicI32) -> Result<()> {
    match refusal.load(Ordering::SeqCst) {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno).into()),
    }
}

fn broken(text: &'static str) -> Error {
    Error::new(Kind::Unavailable, "storage fails (on purpose)").with(text)
}

/// A volume with a fault in it.
pub struct FaultyVolume {
    inner: Arc<dyn Volume>,
    fault: Arc<VolumeFault>,
}

impl FaultyVolume {
    /// Puts the fault before a volume.
    #[must_use]
    pub fn new(inner: Arc<dyn Volume>, fault: Arc<VolumeFault>) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl Volume for FaultyVolume {
    async fn stat(&self, path: &RelPath) -> Result<Node> {
        self.fault.alive()?;
        self.inner.stat(path).await
    }

    async fn list(&self, folder: &RelPath, after: Option<&str>, limit: usize) -> Result<Vec<Node>> {
        self.fault.alive()?;
        self.inner.list(folder, after, limit).await
    }

    async fn hides(&self, folder: &RelPath) -> Result<bool> {
        self.fault.alive()?;
        self.inner.hides(folder).await
    }

    async fn open(&self, path: &RelPath) -> Result<Opened> {
        self.fault.alive()?;
        self.inner.open(path).await
    }

    async fn stage(&self, id: &StageId) -> Result<Box<dyn Stage>> {
        self.fault.alive()?;
        let inner = self.inner.stage(id).await?;
        Ok(Box::new(FaultyStage { inner, fault: self.fault.clone() }))
    }

    async fn fork(&self, from: &StageId, to: &StageId) -> Result<()> {
        self.fault.alive()?;
        self.inner.fork(from, to).await
    }

    async fn discard(&self, id: &StageId) -> Result<()> {
        self.fault.alive()?;
        self.inner.discard(id).await
    }

    async fn stages(&self) -> Result<Vec<StageId>> {
        self.fault.alive()?;
        self.inner.stages().await
    }

    async fn publish(&self, change: &Change, body: Option<Bytes>) -> Result<Option<Node>> {
        self.fault.answer(&self.fault.refusal).await?;
        let way = self.fault.before_publish(body.as_ref())?;
        let outcome = self.inner.publish(change, body).await;
        self.fault.after(way, outcome)
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    fn publish_here(&self, change: &Change, body: Option<Bytes>) -> Option<Result<Option<Node>>> {
        if self.fault.is_hanging() {
            return None;
        }
        let way = match refused(&self.fault.refusal).and_then(|()| self.fault.before_publish(body.as_ref())) {
            Ok(way) => way,
            Err(error) => return Some(Err(error)),
        };
        self.inner.publish_here(change, body).map(|outcome| self.fault.after(way, outcome))
    }

    async fn check(&self, change: &Change) -> Result<()> {
        self.fault.alive()?;
        self.inner.check(change).await
    }

    fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }

    async fn sync(&self, changes: &[Change]) -> Result<()> {
        self.fault.answer(&self.fault.sync_refusal).await?;
        let way = self.fault.before(VolumePoint::Sync)?;
        let outcome = self.inner.sync(changes).await;
        self.fault.after(way, outcome)
    }

    async fn room(&self) -> Result<Room> {
        self.fault.alive()?;
        self.inner.room().await
    }

    fn watch(&self) -> Option<mpsc::Receiver<Touched>> {
        self.inner.watch()
    }

    fn stamp(&self, path: &RelPath) -> Option<u64> {
        self.inner.stamp(path)
    }

    fn fingerprint(&self, path: &RelPath) -> Option<Fingerprint> {
        self.inner.fingerprint(path)
    }
}

struct FaultyStage {
    inner: Box<dyn Stage>,
    fault: Arc<VolumeFault>,
}

#[async_trait]
impl Stage for FaultyStage {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    async fn append(&mut self, chunk: Bytes) -> Result<()> {
        let way = self.fault.before(VolumePoint::Append)?;
        let outcome = self.inner.append(chunk).await;
        self.fault.after(way, outcome)
    }

    async fn append_file(&mut self, from: &File, len: u64) -> Result<()> {
        let way = self.fault.before(VolumePoint::Append)?;
        let outcome = self.inner.append_file(from, len).await;
        self.fault.after(way, outcome)
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        self.fault.alive()?;
        self.inner.truncate(len).await
    }

    async fn seal(&mut self, modified: Option<Micros>) -> Result<()> {
        let way = self.fault.before(VolumePoint::Seal)?;
        let outcome = self.inner.seal(modified).await;
        self.fault.after(way, outcome)
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.fault.alive()?;
        self.inner.read_at(offset, len).await
    }

    fn file(&self) -> Arc<File> {
        self.inner.file()
    }

    async fn soak(&mut self, from: &Arc<OwnedFd>, most: u64) -> Result<Option<Soaked>> {
        let way = self.fault.before(VolumePoint::Append)?;
        let outcome = self.inner.soak(from, most).await;
        self.fault.after(way, outcome)
    }
}
