//! Names on the disk that are not in Unicode normalisation form C, and the names they are shown with.
//!
//! A lookup asks for the NFC form first, which is what nearly every program writes. Only when that is not there, and only for a name that
//! is not ASCII, the folder is searched for an entry that is canonically equivalent. What a search found is kept while the folder has not
//! changed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::entries::each_name;
use super::stat::{Seen, Stamp};
use crate::store::volume::name;

/// Most names in another form that one folder may show under their NFC form; further ones are shown escaped.
const VARIANTS: usize = 65_536;

/// Folders whose search is kept.
const KEPT_FOLDERS: usize = 1024;

/// Names kept of all of them.
const KEPT_NAMES: usize = 2 * VARIANTS;

/// From so many entries on a folder that keeps changing is not searched again for each lookup…
const LARGE: usize = 10_000;

/// … but after so many times the time that the last search took: searches use a twentieth of one core at most.
const SEARCH_SHARE: u32 = 20;

/// The entries of one folder whose names are in another form.
#[derive(Default)]
pub(super) struct Variants {
    /// The disk's name by the text that a lookup asks for. Of several that are equivalent, the first in byte order.
    by_text: HashMap<String, Vec<u8>>,
    /// Names looked at.
    entries: usize,
}

impl Variants {
    /// Notes a name of the folder; false when it is no variant (or one too many), so that its own text is its name.
    pub(super) fn note(&mut self, disk: &[u8]) -> bool {
        self.entries += 1;
        let Some(text) = name::equivalent(disk) else { return false };
        if self.by_text.len() >= VARIANTS && !self.by_text.contains_key(&text) {
            return false;
        }
        let first = self.by_text.entry(text).or_insert_with(|| disk.to_vec());
        if disk < first.as_slice() {
            *first = disk.to_vec();
        }
        true
    }

    /// The text a variant is shown with in this folder.
    pub(super) fn shown(&self, folder: &OwnedFd, disk: &[u8]) -> rustix::io::Result<String> {
        match name::equivalent(disk) {
            Some(text) if self.stands_for(folder, &text)? == Some(disk) => Ok(text),
            _ => Ok(name::text(disk).into_owned()),
        }
    }

    /// The entry shown under an NFC text that is not its own; `None` where an entry really has that name.
    fn stands_for(&self, folder: &OwnedFd, text: &str) -> rustix::io::Result<Option<&[u8]>> {
        match self.by_text.get(text) {
            Some(disk) if !is_there(folder, &name::bytes(text))? => Ok(Some(disk)),
            _ => Ok(None),
        }
    }
}

/// Searches that are kept, for one volume.
#[derive(Default)]
pub(super) struct Searches {
    kept: Mutex<HashMap<u64, Kept>>,
}

struct Kept {
    stamp: Stamp,
    /// The folder's clock had moved on since its last change: the next change will show in its stamp.
    settled: bool,
    at: Instant,
    took: Duration,
    found: Arc<Variants>,
}

impl Kept {
    fn holds(&self, stamp: &Stamp) -> bool {
        let recent = self.found.entries >= LARGE && self.at.elapsed() < self.took.saturating_mul(SEARCH_SHARE);
        (self.settled && self.stamp == *stamp) || recent
    }
}

impl Searches {
    /// The name on the disk that a canonical name means in a folder: where nothing is there, the one to make.
    ///
    /// # Errors
    /// `NOENT` for an alias whose entry is shown under its NFC form.
    pub(super) fn locate<'a>(&self, folder: &OwnedFd, text: &'a str) -> rustix::io::Result<Cow<'a, [u8]>> {
        let disk = name::bytes(text);
        if text.is_ascii() {
            return Ok(disk);
        }
        if let Some(nfc) = name::equivalent(&disk) {
            let shown_so = self.of(folder)?.stands_for(folder, &nfc)? == Some(&*disk);
            return if shown_so { Err(Errno::NOENT) } else { Ok(disk) };
        }
        if is_there(folder, &disk)? {
            return Ok(disk);
        }
        Ok(match self.of(folder)?.by_text.get(text) {
            Some(variant) => variant.clone().into(),
            None => disk,
        })
    }

    /// The text a name on the disk is shown with in a folder.
    pub(super) fn shown(&self, folder: &OwnedFd, disk: &[u8]) -> rustix::io::Result<String> {
        match name::equivalent(disk) {
            Some(_) => self.of(folder)?.shown(folder, disk),
            None => Ok(name::text(disk).into_owned()),
        }
    }

    fn of(&self, folder: &OwnedFd) -> rustix::io::Result<Arc<Variants>> {
        let stamp = Stamp::of(folder)?;
        if let Some(kept) = self.kept.lock().get(&stamp.inode()).filter(|kept| kept.holds(&stamp)) {
            return Ok(kept.found.clone());
        }
        let (at, settled) = (Instant::now(), stamp.settled());
        let found = Arc::new(search(folder)?);
        self.keep(Kept { stamp, settled, at, took: at.elapsed(), found: found.clone() });
        Ok(found)
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.kept.lock();
        let names: usize = kept.values().map(|kept| kept.found.by_text.len()).sum();
        if kept.len() >= KEPT_FOLDERS || names + new.found.by_text.len() > KEPT_NAMES {
            kept.clear();
        }
        kept.insert(new.stamp.inode(), new);
    }
}

/// Reads all names of a folder. One that we may enter and not read has no variants that could be found.
fn search(folder: &OwnedFd) -> rustix::io::Result<Variants> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = match rustix::fs::openat(folder, ".", flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ACCESS) => return Ok(Variants::default()),
        Err(error) => return Err(error),
    };
    let mut found = Variants::default();
    each_name(&readable, |name, _| {
        found.note(name);
        true
    })?;
    Ok(found)
}

fn is_there(folder: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
    match Seen::at(folder, name) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
