//! Room: what quota and disk leave for one more file, and the words a panel shows when that is not enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::view::{Space, View};
use crate::store::{RelPath, Usage};
use crate::units::ByteSize;

/// How long a space's usage is taken for what it was, where there is plenty of room: the commit counts exactly in any case.
const GLANCE: Duration = Duration::from_secs(1);
/// Plenty of room.
const PLENTY: Usage = Usage { bytes: 1 << 30, files: 10_000 };

/// A space's usage as it was seen last.
#[derive(Default)]
pub(crate) struct Glance(Mutex<Option<(Instant, Usage)>>);

impl Glance {
    fn lately(&self) -> Option<Usage> {
        self.0.lock().filter(|(seen, _)| seen.elapsed() < GLANCE).map(|(_, used)| used)
    }

    fn note(&self, used: Usage) {
        *self.0.lock() = Some((Instant::now(), used));
    }
}

/// Far from full even after a file of this size.
fn is_roomy(space: &Space, used: Usage, size: u64) -> bool {
    let bytes = used.bytes.saturating_add(size).saturating_add(PLENTY.bytes);
    space.max_bytes.is_none_or(|most| bytes <= most)
        && space.max_files.is_none_or(|most| used.files.saturating_add(PLENTY.files) <= most)
}

/// What a space holds, may hold, and can still take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceRoom {
    /// The space's path.
    pub space: TreePath,
    /// Bytes and files in it; `None` for who may only add to it.
    pub used: Option<Usage>,
    /// Most bytes.
    pub max_bytes: Option<u64>,
    /// Most files.
    pub max_files: Option<u64>,
    /// Bytes that quota and disk leave for all files together.
    pub free: u64,
    /// Bytes one more file may have: the least of what quota, disk and the limit of one file leave.
    pub left: u64,
}

impl Caller {
    /// The room at a path, for whoever may write there or see what is there.
    ///
    /// # Errors
    /// The verdict's; `WrongType` where no space is.
    pub async fn room(&self, path: &TreePath) -> Result<SpaceRoom> {
        let view = self.hub().view();
        let rights = view.verbs(self.account(), path);
        let may = [Verb::Create, Verb::Overwrite, Verb::List].into_iter().any(|verb| rights.has(verb));
        let Some((space, _)) = view.space_of(path).filter(|_| may) else {
            view.allow(self.account(), Verb::Create, path)?;
            return Err(Error::new(Kind::WrongType, "no space is here: files live in one of the folders shown"));
        };
        let used = self.hub().catalog().usage(&space.key).await?;
        let disk = space.volume.room().await?.free.saturating_sub(view.settings.storage.keep_free.0);
        let quota = match space.max_files {
            Some(most) if used.files >= most => 0,
            _ => {
                let taken = used.bytes.saturating_add(self.taken_by_uploads(space));
                space.max_bytes.map_or(u64::MAX, |most| most.saturating_sub(taken))
            }
        };
        let one_file = match view.settings.storage.file_size.0 {
            0 => u64::MAX,
            most => most,
        };
        Ok(SpaceRoom {
            space: space.path.clone(),
            used: (!view.adds_unseeing(self.account(), path)).then_some(used),
            max_bytes: space.max_bytes,
            max_files: space.max_files,
            free: disk.min(quota),
            left: disk.min(quota).min(one_file),
        })
    }

    /// Would a new file of this size fit at a path? What a door is asked before the file has a name (FTP ALLO).
    ///
    /// # Errors
    /// As [`Caller::write`] would say it: `OverQuota`, `TooLarge`, `Unavailable`. Where the caller may not write there is nothing to say.
    pub async fn fits(&self, folder: &TreePath, size: u64) -> Result<()> {
        let view = self.hub().view();
        let rights = view.verbs(self.account(), folder);
        let may = rights.has(Verb::Create) || rights.has(Verb::Overwrite);
        let Some((space, rel)) = view.space_of(folder).filter(|_| may) else { return Ok(()) };
        one_file(&view, Some(size))?;
        self.check_room(&view, space, &rel, false, Some(size)).await.map(drop)
    }

    /// Is more free on the disk than must stay free? Others fill it too.
    pub(super) async fn disk_has_room(&self, space: &Space) -> Result<()> {
        self.disk_has_room_for(space, 0).await
    }

    /// The same with so many bytes more on it.
    pub(super) async fn disk_has_room_for(&self, space: &Space, bytes: u64) -> Result<()> {
        let keep_free = self.hub().view().settings.storage.keep_free.0;
        match space.volume.room().await?.free >= keep_free.saturating_add(bytes) {
            true => Ok(()),
            false => Err(disk_full()),
        }
    }

    /// Bytes of the quota that uploads under way hold or were promised.
    fn taken_by_uploads(&self, space: &Space) -> u64 {
        let inner = &self.hub().inner;
        inner.uploads.reserved(&space.key).saturating_add(inner.staging.held(&space.key))
    }

    /// The size of the file at a path as the quota counts it; 0 where no quota is.
    pub(super) async fn counted(&self, space: &Space, rel: &RelPath) -> Result<u64> {
        if space.max_bytes.is_none() {
            return Ok(0);
        }
        Ok(self.hub().catalog().file(&space.key, rel.as_str()).await?.map_or(0, |row| row.size))
    }

    /// Room under the quota (for this one file) and on the disk, checked against the announced size.
    pub(super) async fn check_room(
        &self,
        view: &View,
        space: &Space,
        rel: &RelPath,
        replaces: bool,
        size: Option<u64>,
    ) -> Result<Option<u64>> {
        let room = space.volume.room().await?;
        if room.free < view.settings.storage.keep_free.0.saturating_add(size.unwrap_or(0)) {
            return Err(disk_full());
        }
        if space.max_bytes.is_none() && space.max_files.is_none() {
            return Ok(None);
        }
        let lately = space.glance.lately().filter(|used| is_roomy(space, *used, size.unwrap_or(0)));
        let used = if let Some(used) = lately {
            used
        } else {
            let used = self.hub().catalog().usage(&space.key).await?;
            space.glance.note(used);
            used
        };
        if !replaces && space.max_files.is_some_and(|most| used.files >= most) {
            return Err(Error::new(Kind::OverQuota, full(space, used)));
        }
        let Some(most) = space.max_bytes else { return Ok(None) };
        let old = if replaces { self.counted(space, rel).await? } else { 0 };
        let taken = used.bytes.saturating_add(self.taken_by_uploads(space));
        let left = most.saturating_sub(taken).saturating_add(old);
        match size {
            Some(size) if size > left => Err(Error::new(Kind::OverQuota, does_not_fit(space, left, size))),
            _ => Ok(Some(left)),
        }
    }

    /// Bytes one file may have, where that is limited.
    #[must_use]
    pub fn largest_file(&self) -> Option<u64> {
        Some(self.hub().view().settings.storage.file_size.0).filter(|most| *most > 0)
    }

    /// The SHA-256 of a file as it is now, where the store knows it without reading. Needs `read`.
    ///
    /// # Errors
    /// The verdict's; the store's.
    pub async fn known_sha256(&self, path: &TreePath) -> Result<Option<[u8; 32]>> {
        self.allow(Verb::Read, path)?;
        let view = self.hub().view();
        let Some((space, rel)) = view.space_of(path) else { return Ok(None) };
        let (space, node): (Arc<Space>, _) = (space.clone(), space.volume.stat(&rel).await?);
        let row = self.hub().catalog().file(&space.key, rel.as_str()).await?;
        let current = row.filter(|row| row.size == node.size && row.modified == node.modified);
        Ok(current.and_then(|row| row.sha256))
    }
}

/// The largest length an upload may come to.
pub(super) struct Ceiling {
    bytes: u64,
    why: Why,
}

/// What sets it.
enum Why {
    OneFile,
    Quota(Arc<Space>),
}

impl Ceiling {
    /// One file's limit, or what the quota leaves, whichever is less.
    pub(super) fn of(caller: &Caller, space: &Arc<Space>, quota_left: Option<u64>) -> Self {
        let file_size = caller.hub().view().settings.storage.file_size.0;
        let quota = quota_left.unwrap_or(u64::MAX);
        match file_size > 0 && file_size <= quota {
            true => Self { bytes: file_size, why: Why::OneFile },
            false => Self { bytes: quota, why: Why::Quota(space.clone()) },
        }
    }

    /// Bytes that may still come behind so many.
    pub(super) fn left(&self, len: u64) -> u64 {
        self.bytes.saturating_sub(len)
    }

    /// The verdict on so many bytes.
    pub(super) fn check(&self, bytes: u64) -> Result<()> {
        match &self.why {
            _ if bytes <= self.bytes => Ok(()),
            Why::OneFile => Err(Error::new(Kind::TooLarge, too_large(self.bytes))),
            Why::Quota(space) => Err(Error::new(Kind::OverQuota, does_not_fit(space, self.bytes, 0))),
        }
    }
}

/// The space is full, as a panel shows it.
pub(crate) fn full(space: &Space, used: Usage) -> String {
    match (space.max_bytes, space.max_files) {
        (_, Some(most)) if used.files >= most => {
            format!("{} is full: {} of {most} files; remove some first", space.key, used.files)
        }
        (Some(most), _) => {
            format!(
                "{} is full: {} of {} used; remove something first",
                space.key,
                ByteSize(used.bytes),
                ByteSize(most)
            )
        }
        (None, _) => format!("{} is full; remove something first", space.key),
    }
}

/// A file larger than what is left of a quota, its size known or (0) only seen to be larger.
pub(crate) fn does_not_fit(space: &Space, left: u64, size: u64) -> String {
    let most = space.max_bytes.unwrap_or(u64::MAX);
    let used = ByteSize(most.saturating_sub(left));
    let needed = if size == 0 { String::new() } else { format!(" of {}", ByteSize(size)) };
    match left {
        0 => format!("{} is full: {used} of {} used; remove something first", space.key, ByteSize(most)),
        _ => format!("{} is too full for this file{needed}: {used} of {} used", space.key, ByteSize(most)),
    }
}

/// The verdict on the size of one file, where it is known.
pub(super) fn one_file(view: &View, size: Option<u64>) -> Result<()> {
    let most = view.settings.storage.file_size.0;
    match size {
        Some(size) if most > 0 && size > most => Err(Error::new(Kind::TooLarge, too_large(most))),
        _ => Ok(()),
    }
}

/// The disk has no room left.
fn disk_full() -> Error {
    Error::new(Kind::Full, "the server's disk is full: tell its administrator")
}

/// A file above the limit of one file.
pub(crate) fn too_large(most: u64) -> String {
    format!("larger than one file may be here: {}", ByteSize(most))
}
