//! A tree of files and folders somewhere: here a plain directory that any program can read.
//!
//! Bytes are staged invisibly, sealed durable, and put in place by an idempotent [`Change`] that can be
//! replayed after a crash. No path given to a volume can leave its root: not by `..`, a symlink or a race.

pub mod directory;
pub mod name;
pub mod path;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::store::Micros;
use path::RelPath;

/// What an entry of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, FIFO, socket or device: it is listed, and can be renamed, moved within its space and deleted. It is never followed
    /// and never opened.
    Special,
}

/// What a volume says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The last part of its path, in its canonical form.
    pub name: String,
    /// File, folder or neither.
    pub kind: NodeKind,
    /// Bytes of a file; 0 for a folder.
    pub size: u64,
    /// Modification time.
    pub modified: Micros,
    /// Nanoseconds of the modification time and the inode: differs whenever the content was replaced.
    pub tag: u64,
}

/// An opened file, ready for ranged reads; survives its own replacement.
#[derive(Clone)]
pub struct Opened {
    /// As it was when opened.
    pub node: Node,
    /// The descriptor, lent out for `sendfile` and `splice`; positioned reads only.
    pub file: Arc<File>,
}

impl Opened {
    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        directory::read_at(self.file.clone(), offset, len).await
    }
}

/// Names a stage: chosen by the hub, unique for ever (`UUIDv7` as text).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageId(pub String);

/// Where the bytes of a `Put` are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// In the intent row itself; `publish` gets them as its `body` argument.
    Inline,
    /// In a sealed stage.
    Staged(StageId),
}

/// One publish: idempotent, so it can be replayed after a crash. Serialised into the intent row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The body appears under this path, replacing what is there, in one step. Parent folders are made.
    Put {
        /// Where.
        path: RelPath,
        /// Its bytes.
        body: Body,
        /// Modification time to set; else when it was written.
        modified: Option<Micros>,
    },
    /// A folder exists here, with its parents.
    Folder {
        /// Where.
        path: RelPath,
    },
    /// The file is gone.
    Remove {
        /// Which.
        path: RelPath,
    },
    /// The folder is gone: with `all` whatever is below it too, else only when it is empty (`NotEmpty`).
    RemoveFolder {
        /// Which; never the root.
        path: RelPath,
        /// With what is in it.
        all: bool,
    },
    /// What was `from` is `to`, replacing a file there. Already done when `from` is gone and `to` is there.
    Rename {
        /// The old path.
        from: RelPath,
        /// The new path.
        to: RelPath,
    },
    /// The file's or folder's modification time.
    SetModified {
        /// Of what.
        path: RelPath,
        /// To when.
        modified: Micros,
    },
}

impl Change {
    /// As the intent row keeps it.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The stage its bytes are in, when they are in one.
    #[must_use]
    pub fn stage(&self) -> Option<&StageId> {
        match self {
            Self::Put { body: Body::Staged(id), .. } => Some(id),
            _ => None,
        }
    }

    /// The path it is about: of a rename the new one.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Put { path, .. }
            | Self::Folder { path }
            | Self::Remove { path }
            | Self::RemoveFolder { path, .. }
            | Self::Rename { to: path, .. }
            | Self::SetModified { path, .. } => path,
        }
    }

    /// Back from the intent row.
    ///
    /// # Errors
    /// `Corrupt` when it is not what [`Change::encode`] wrote.
    pub fn decode(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::new(Kind::Corrupt, "an intent in the catalog cannot be read").with(error))
    }
}

/// Free and total bytes of the file system below a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes an unprivileged process may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What the watcher of a volume saw other programs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Something at this path (file or folder) may have been made, changed or removed.
    Path(RelPath),
    /// Events were lost: compare everything.
    Everything,
}

/// A tree of files and folders. Every method may be called from many tasks at once and never blocks the caller's thread on a disk.
#[async_trait]
pub trait Volume: Send + Sync + 'static {
    /// What is at this path. `NotFound`, or `WrongType` when a parent is a file.
    async fn stat(&self, path: &RelPath) -> Result<Node>;

    /// The same of several paths, in order: cheaper, where many of them are in one folder.
    async fn stat_each(&self, paths: &[RelPath]) -> Vec<Result<Node>> {
        let mut nodes = Vec::with_capacity(paths.len());
        for path in paths {
            nodes.push(self.stat(path).await);
        }
        nodes
    }

    /// Names in a folder in byte order, after `after`, at most `limit`.
    async fn list(&self, folder: &RelPath, after: Option<&str>, limit: usize) -> Result<Vec<Node>>;

    /// Does a folder hold entries that [`Volume::list`] never shows? A folder is empty only if it lists nothing and hides nothing.
    async fn hides(&self, _folder: &RelPath) -> Result<bool> {
        Ok(false)
    }

    /// Opens a file for reading. `WrongType` for anything else.
    async fn open(&self, path: &RelPath) -> Result<Opened>;

    /// Opens a stage for appending; makes it when there is none (its length says which).
    async fn stage(&self, id: &StageId) -> Result<Box<dyn Stage>>;

    /// The same bytes under a second stage id, for one message to many mailboxes.
    async fn fork(&self, from: &StageId, to: &StageId) -> Result<()>;

    /// Forgets a stage; fine when there is none.
    async fn discard(&self, id: &StageId) -> Result<()>;

    /// Stages that exist, for the sweep at start.
    async fn stages(&self) -> Result<Vec<StageId>>;

    /// Does the change. Returns the node that is now there, for `Put`, `Rename` and `SetModified`.
    async fn publish(&self, change: &Change, body: Option<Bytes>) -> Result<Option<Node>>;

    /// Does the change on this thread, which may wait for a disk, and which others wait for; `None`: not possible here, [`Volume::publish`]
    /// it. Asked of volumes that say [`Volume::is_near`].
    fn publish_here(&self, _change: &Change, _body: Option<Bytes>) -> Option<Result<Option<Node>>> {
        None
    }

    /// Is it on a disk of this machine? One that is far away may keep its caller waiting for ever.
    fn is_near(&self) -> bool {
        false
    }

    /// Does several changes in order, each with an outcome of its own.
    async fn publish_each(&self, changes: Vec<(Change, Option<Bytes>)>) -> Vec<Result<Option<Node>>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, body) in changes {
            outcomes.push(self.publish(&change, body).await);
        }
        outcomes
    }

    /// Would the file system refuse this change? What can be known without doing it: permissions, a read-only or immutable place, something
    /// of the wrong kind in the way. A change that passes may still fail.
    async fn check(&self, _change: &Change) -> Result<()> {
        Ok(())
    }

    /// Was its own folder removed by another program? Then the volume has to be opened anew.
    fn is_lost(&self) -> bool {
        false
    }

    /// Makes earlier publishes of these paths (file content, names, folders) survive a power cut.
    async fn sync(&self, changes: &[Change]) -> Result<()>;

    /// Room on the disk.
    async fn room(&self) -> Result<Room>;

    /// Starts telling what other programs (and we) change; `None` where the platform cannot. Bounded: overflow becomes `Everything`.
    fn watch(&self) -> Option<mpsc::Receiver<Touched>>;

    /// A number that is different once the file at this path was changed, replaced, moved or removed, by whomever; what was read
    /// between two equal numbers is what a read would give now. `None` where that cannot be known: not watched, a file system that other
    /// machines write to, or changes that are just being taken in. (Writes through a shared mapping are noticed when the file is closed.)
    fn stamp(&self, _path: &RelPath) -> Option<u64> {
        None
    }

    /// What is at this path, told without the disk: the same again while the content is the same. For the moments in which
    /// [`Volume::stamp`] takes changes in. `None` where it cannot be told so.
    fn fingerprint(&self, _path: &RelPath) -> Option<Fingerprint> {
        None
    }
}

/// What the file system says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// Nothing is there.
    Missing,
    /// A file or folder, by what changes with its content.
    There {
        /// The file itself.
        inode: u64,
        /// Bytes.
        size: u64,
        /// When its content was changed, in nanoseconds.
        modified: i128,
        /// When anything of it was changed, in nanoseconds.
        changed: i128,
    },
}

impl Fingerprint {
    /// Clocks of file systems tick slowly: what was changed within the last second could be changed again without a sign.
    #[must_use]
    pub fn is_settled(&self, now: Micros) -> bool {
        const SECOND: i128 = 1_000_000_000;
        match self {
            Self::Missing => true,
            Self::There { changed, .. } => changed.saturating_add(SECOND) < i128::from(now) * 1_000,
        }
    }
}

/// Invisible bytes that can be appended to. Dropping it keeps the bytes until `Volume::discard`.
#[async_trait]
pub trait Stage: Send + Sync {
    /// How many bytes it holds.
    fn len(&self) -> u64;

    /// True before the first byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends; in the page cache on return.
    async fn append(&mut self, chunk: Bytes) -> Result<()>;

    /// Appends `len` bytes of another file, by reflink or in the kernel where it can.
    async fn append_file(&mut self, from: &File, len: u64) -> Result<()>;

    /// Cuts it back to `len` bytes.
    async fn truncate(&mut self, len: u64) -> Result<()>;

    /// Makes the bytes survive a power cut (`fdatasync`). After an error the stage must be discarded.
    async fn seal(&mut self) -> Result<()>;

    /// Reads back, for a digest or for parsing.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// The descriptor.
    fn file(&self) -> Arc<File>;

    /// Appends what a non-blocking descriptor holds, `most` bytes at most, inside the kernel; a burst of a bounded time. `None`: not here,
    /// or too many do so already; read and [`Stage::append`] instead.
    async fn soak(&mut self, _from: &Arc<OwnedFd>, _most: u64) -> Result<Option<Soaked>> {
        Ok(None)
    }
}

/// What one [`Stage::soak`] brought.
#[derive(Debug)]
pub struct Soaked {
    /// Bytes appended.
    pub bytes: u64,
    /// Why it ended.
    pub then: Then,
}

/// Why a [`Stage::soak`] ended.
#[derive(Debug)]
pub enum Then {
    /// Its time or its bytes are used up: there may be more.
    More,
    /// Nothing is there now.
    Dry,
    /// Nothing will come any more.
    End,
    /// The descriptor failed; what came before is appended.
    Broken(std::io::Error),
}
