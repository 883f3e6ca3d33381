//! Staging: invisible bytes in a folder of their own on the volume's file system.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::entries::each_name;
use super::errors::failed;
use super::lookup::file_mode;
use super::soak;
use super::stat::{Seen, times};
use super::write::{copy_range, write_at};
use crate::error::{Error, Kind, Result};
use crate::store::volume::read::read_at;
use crate::store::{Micros, Soaked, Stage, StageId};

/// Chunks from this size on are written on the pool; smaller ones are copied into the page cache at once.
const POOL_WRITE: usize = 64 << 10;

/// Longest name of a stage.
const LONGEST_ID: usize = 128;

/// How our own short-lived entries of the staging folder begin; a stage never begins so.
const OWN: &str = ".own-";

/// The staging folder.
pub(super) struct Staging {
    fd: Arc<OwnedFd>,
    /// Removed folders that are still to be erased.
    pub(super) erasing: parking_lot::Mutex<Erasing>,
}

/// Removed folders that wait, for one thread at a time.
#[derive(Default)]
pub(super) struct Erasing {
    pub(super) waiting: VecDeque<String>,
    /// A thread works on them.
    pub(super) begun: bool,
}

impl Staging {
    /// Takes the open folder and begins to remove what a crashed daemon left half done in it.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd), erasing: parking_lot::Mutex::default() }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// A name in the staging folder that nobody has; shows which process made it, so that a later one can clear it away.
    pub(super) fn own_name() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("{OWN}{:016x}-{}", process_mark(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Names that an earlier process made for itself and did not get to remove.
    pub(super) fn leftovers(&self) -> rustix::io::Result<Vec<String>> {
        let mine = format!("{OWN}{:016x}-", process_mark());
        Ok(self.names()?.into_iter().filter(|name| name.starts_with(OWN) && !name.starts_with(&mine)).collect())
    }

    /// Stages that exist.
    pub(super) fn stages(&self) -> Result<Vec<StageId>> {
        let names = self.names().map_err(failed)?;
        Ok(names.into_iter().map(StageId).filter(|id| name_of(id).is_ok()).collect())
    }

    fn names(&self) -> rustix::io::Result<Vec<String>> {
        let fd =
            rustix::fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        each_name(fd, |name, _| {
            names.extend(std::str::from_utf8(name).map(str::to_owned));
            true
        })?;
        Ok(names)
    }

    /// Opens a stage, making it when there is none.
    pub(super) fn open(&self, id: &StageId) -> Result<Staged> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name_of(id)?, flags, file_mode()).map_err(failed)?;
        let seen = Seen::of(&fd).map_err(failed)?;
        if seen.kind != FileType::RegularFile {
            return Err(Error::internal(format!("the stage {} is not a regular file", id.0)));
        }
        let folder = Some(self.fd.clone());
        Ok(Staged { file: Arc::new(File::from(fd)), len: seen.size, folder, poisoned: false, busy: None })
    }

    /// The same bytes under a second name: a hard link, or a copy where the file system has none.
    pub(super) fn fork(&self, from: &StageId, to: &StageId) -> Result<()> {
        self.fork_names(name_of(from)?, name_of(to)?)?;
        rustix::fs::fsync(&self.fd).map_err(failed)
    }

    fn fork_names(&self, from: &str, to: &str) -> Result<()> {
        match rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let same =
                    Seen::at(&self.fd, from).map_err(failed)?.inode == Seen::at(&self.fd, to).map_err(failed)?.inode;
                if same { Ok(()) } else { Err(Error::new(Kind::Exists, "the stage to fork into exists")) }
            }
            Err(Errno::MLINK | Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::XDEV) => self.copy(from, to),
            Err(error) => Err(failed(error)),
        }
    }

    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = File::from(rustix::fs::openat(&self.fd, from, reading, Mode::empty()).map_err(failed)?);
        let temporary = Self::own_name();
        let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = File::from(rustix::fs::openat(&self.fd, &temporary, writing, file_mode()).map_err(failed)?);
        let len = source.metadata()?.len();
        let outcome = copy_range(&source, &target, 0, len).and_then(|()| {
            rustix::fs::fdatasync(&target).map_err(failed)?;
            rustix::fs::renameat(&self.fd, &temporary, &self.fd, to).map_err(failed)
        });
        if outcome.is_err() {
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        outcome
    }

    /// Forgets a stage.
    pub(super) fn discard(&self, id: &StageId) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name_of(id)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Differs between processes, also when a process id is used again.
fn process_mark() -> u64 {
    static MARK: OnceLock<u64> = OnceLock::new();
    *MARK.get_or_init(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap_or_default();
        nanos ^ (u64::from(std::process::id()) << 40)
    })
}

/// The file name of a stage; ids come back from intent rows, so they are checked.
pub(super) fn name_of(id: &StageId) -> Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match id.0.as_str() {
        name if name.is_empty() || name.len() > LONGEST_ID || name.starts_with('.') || !name.bytes().all(plain) => {
            Err(Error::internal(format!("`{}` is not the name of a stage", name.escape_debug())))
        }
        name => Ok(name),
    }
}

/// An open stage.
pub(super) struct Staged {
    file: Arc<File>,
    len: u64,
    /// The staging folder, until the name of this stage in it is durable.
    folder: Option<Arc<OwnedFd>>,
    /// A sync failed: the kernel may have dropped bytes, nothing more may be promised.
    poisoned: bool,
    /// Work on the pool; kept so that a caller who gave up waiting cannot race with the next one.
    busy: Option<JoinHandle<Result<()>>>,
}

impl Staged {
    async fn ready(&mut self) -> Result<()> {
        if self.busy.is_some() && self.settle().await.is_err() {
            self.poisoned = true;
        }
        match self.poisoned {
            true => Err(Error::new(Kind::Unavailable, "writing to the disk failed; the upload must start again")),
            false => Ok(()),
        }
    }

    async fn on_pool(&mut self, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        self.busy = Some(tokio::task::spawn_blocking(work));
        self.settle().await
    }

    async fn settle(&mut self) -> Result<()> {
        let Some(handle) = self.busy.as_mut() else { return Ok(()) };
        let outcome = handle.await;
        self.busy = None;
        outcome.unwrap_or_else(|lost| Err(Error::internal(lost)))
    }

    /// After a failed write: what went past `len` must not be taken for content.
    fn cut_back(&self) {
        let _ = rustix::fs::ftruncate(&self.file, self.len);
    }
}

#[async_trait]
impl Stage for Staged {
    fn len(&self) -> u64 {
        self.len
    }

    async fn append(&mut self, chunk: Bytes) -> Result<()> {
        self.ready().await?;
        let (at, size) = (self.len, chunk.len() as u64);
        let outcome = if chunk.len() < POOL_WRITE {
            write_at(&self.file, &chunk, at)
        } else {
            let file = self.file.clone();
            self.on_pool(move || write_at(&file, &chunk, at)).await
        };
        match outcome {
            Ok(()) => self.len = at.saturating_add(size),
            Err(_) => self.cut_back(),
        }
        outcome
    }

    async fn append_file(&mut self, from: &File, len: u64) -> Result<()> {
        self.ready().await?;
        let (at, from, file) = (self.len, from.try_clone()?, self.file.clone());
        let outcome = self.on_pool(move || copy_range(&from, &file, at, len)).await;
        match outcome {
            Ok(()) => self.len = at.saturating_add(len),
            Err(_) => self.cut_back(),
        }
        outcome
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        self.ready().await?;
        if len > self.len {
            return Err(Error::new(Kind::Invalid, "the upload holds fewer bytes than that"));
        }
        let file = self.file.clone();
        self.on_pool(move || rustix::fs::ftruncate(&file, len).map_err(failed)).await?;
        self.len = len;
        Ok(())
    }

    async fn seal(&mut self, modified: Option<Micros>) -> Result<()> {
        self.ready().await?;
        let (file, len, folder) = (self.file.clone(), self.len, self.folder.clone());
        let outcome = self
            .on_pool(move || {
                if file.metadata()?.len() != len {
                    rustix::fs::ftruncate(&file, len).map_err(failed)?;
                }
                if let Some(at) = modified {
                    rustix::fs::futimens(&file, &times(at)).map_err(failed)?;
                }
                rustix::fs::fdatasync(&file).map_err(failed)?;
                folder.map_or(Ok(()), |folder| rustix::fs::fsync(&*folder).map_err(failed))
            })
            .await;
        self.poisoned = outcome.is_err();
        if outcome.is_ok() {
            self.folder = None;
        }
        outcome
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        read_at(self.file.clone(), offset, len.min(left)).await
    }

    fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    async fn soak(&mut self, from: &Arc<OwnedFd>, most: u64) -> Result<Option<Soaked>> {
        self.ready().await?;
        let Some(place) = soak::Place::take() else { return Ok(None) };
        let (at, from, file) = (self.len, from.clone(), self.file.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        let outcome = self
            .on_pool(move || {
                let soaked = soak::soak(&from, &file, at, most, &place)?;
                // Nobody listens when the caller gave up; the bytes past its length are cut off then.
                let _ = tell.send(soaked);
                Ok(())
            })
            .await;
        match (outcome, told.await) {
            (Ok(()), Ok(soaked)) => {
                self.len = at.saturating_add(soaked.bytes);
                Ok(Some(soaked))
            }
            (outcome, _) => {
                self.cut_back();
                outcome.and_then(|()| Err(Error::internal("a burst ended without a word")))
            }
        }
    }
}
