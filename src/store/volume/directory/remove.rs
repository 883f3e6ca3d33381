//! Removing a folder with all below it: out of sight in one step, then emptied without following anything.
//!
//! A tree is emptied by flattening: files of a subfolder are removed, its own subfolders are moved up to the top. So
//! at most two descriptors are open and no depth a peer can make costs stack or memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::entries::each_name;
use super::errors::{failed, misplaced, refused};
use super::inner::Inner;
use super::publish::file_name;
use super::stage::Staging;
use super::stat::Seen;
use crate::error::{Error, Kind, Result};
use crate::store::RelPath;

/// Entries removed before the caller gets its answer; the rest, already out of sight, goes on in the background.
const AT_ONCE: u64 = 10_000;

/// Names taken from a folder before they are worked on.
const BATCH: usize = 1024;

/// Rounds for a folder that other programs keep filling.
const ROUNDS: u32 = 16;

impl Inner {
    /// Removes a folder that has nothing in it, not even what no door shows.
    pub(super) fn remove_empty(&self, path: &RelPath) -> Result<()> {
        file_name(path)?;
        let Some((folder, name)) = self.found(path)? else { return Ok(()) };
        match rustix::fs::unlinkat(&folder, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR) => not_a_folder(&folder, &name),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(failed(Errno::NOTEMPTY)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes a folder with all below it. A file there is left alone.
    pub(super) fn remove_tree(&self, path: &RelPath) -> Result<()> {
        file_name(path)?;
        let Some((folder, name)) = self.found(path)? else { return Ok(()) };
        let aside = Staging::own_name();
        // The slash lets the kernel refuse anything but a folder in the same step.
        match rustix::fs::renameat(&folder, [&*name, b"/"].concat(), self.staging.fd(), &aside) {
            Ok(()) => self.clear_away(aside),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR) => not_a_folder(&folder, &name),
            Err(Errno::XDEV) => remove_in_place(&folder, &name),
            Err(error) => Err(misplaced(error)),
        }
    }

    /// Empties and removes a folder of the staging folder: the first part now, a long rest in the background.
    fn clear_away(&self, name: String) -> Result<()> {
        let mut budget = AT_ONCE;
        if erase(self.staging.fd(), name.as_bytes(), &mut budget).map_err(failed)? {
            return Ok(());
        }
        erase_later(&self.staging, [name]);
        Ok(())
    }
}

fn not_a_folder(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    match Seen::at(parent, name) {
        Err(Errno::NOENT) => Ok(()),
        _ => Err(Error::new(Kind::WrongType, "is not a folder")),
    }
}

/// Removes what earlier processes left half removed; in the background, for it may be long.
pub(super) fn clear_leftovers(staging: &Arc<Staging>) -> Result<()> {
    erase_later(staging, staging.leftovers().map_err(failed)?);
    Ok(())
}

/// Has folders of the staging folder erased, one after the other by one thread, however many were removed at once.
fn erase_later(staging: &Arc<Staging>, names: impl IntoIterator<Item = String>) {
    let mut erasing = staging.erasing.lock();
    erasing.waiting.extend(names);
    if erasing.begun || erasing.waiting.is_empty() {
        return;
    }
    let own = staging.clone();
    let begun = std::thread::Builder::new().name("stoa-erase".into()).spawn(move || {
        while let Some(name) = next_to_erase(&own) {
            erase_logged(&own, &name);
        }
    });
    match begun {
        Ok(_) => erasing.begun = true,
        Err(error) => {
            tracing::warn!(%error, "removed folders stay in the staging folder until the next one is removed, or until the next start");
        }
    }
}

fn next_to_erase(staging: &Staging) -> Option<String> {
    let mut erasing = staging.erasing.lock();
    let next = erasing.waiting.pop_front();
    erasing.begun = next.is_some();
    next
}

fn erase_logged(staging: &Staging, name: &str) {
    if let Err(error) = erase(staging.fd(), name.as_bytes(), &mut { u64::MAX }) {
        tracing::warn!(name, %error, "a removed folder could not be erased from the staging folder; the next start tries again");
    }
}

fn remove_in_place(folder: &OwnedFd, name: &[u8]) -> Result<()> {
    match erase(folder, name, &mut { u64::MAX }) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

/// Erases `name` in `parent`, file or folder; false when the budget ended first.
fn erase(parent: &OwnedFd, name: &[u8], budget: &mut u64) -> rustix::io::Result<bool> {
    let Some(top) = open_folder(parent, name)? else {
        return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map(|()| true);
    };
    for _ in 0..ROUNDS {
        if !flatten(&top, budget)? {
            return Ok(false);
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            outcome => return outcome.map(|()| true),
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Empties `top`.
fn flatten(top: &OwnedFd, budget: &mut u64) -> rustix::io::Result<bool> {
    let mut fresh = 0_u64;
    loop {
        let names = some_names(top)?;
        if names.is_empty() {
            return Ok(true);
        }
        let mut progress = false;
        for (name, kind) in names {
            if *budget == 0 {
                return Ok(false);
            }
            *budget -= 1;
            let below = if may_be_folder(kind) { open_folder(top, &name)? } else { None };
            let done = match &below {
                Some(below) => hoist(top, below, &mut fresh, budget)? && gone(top, &name, AtFlags::REMOVEDIR)?,
                None => gone(top, &name, AtFlags::empty())?,
            };
            if !done && *budget == 0 {
                return Ok(false);
            }
            progress |= done;
        }
        if !progress {
            return Err(Errno::NOTEMPTY);
        }
    }
}

/// Removes the files of `below` and moves its folders up to `top`.
fn hoist(top: &OwnedFd, below: &OwnedFd, fresh: &mut u64, budget: &mut u64) -> rustix::io::Result<bool> {
    loop {
        let names = some_names(below)?;
        if names.is_empty() {
            return Ok(true);
        }
        for (name, kind) in names {
            if *budget == 0 {
                return Ok(false);
            }
            *budget -= 1;
            let is_folder = may_be_folder(kind) && open_folder(below, &name)?.is_some();
            match is_folder {
                true => move_up(top, below, &name, fresh)?,
                false => {
                    gone(below, &name, AtFlags::empty())?;
                }
            }
        }
    }
}

fn move_up(top: &OwnedFd, below: &OwnedFd, name: &[u8], fresh: &mut u64) -> rustix::io::Result<()> {
    loop {
        *fresh += 1;
        let new = format!(".stoa-{fresh}");
        match rustix::fs::renameat_with(below, name, top, &new, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INVAL | Errno::NOSYS) if matches!(Seen::at(top, &new), Err(Errno::NOENT)) => {
                return rustix::fs::renameat(below, name, top, &new);
            }
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Unlinks a name; true when it is gone. A folder that was filled again meanwhile stays for the next round.
fn gone(folder: &OwnedFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

fn may_be_folder(kind: FileType) -> bool {
    matches!(kind, FileType::Directory | FileType::Unknown)
}

/// Opens a folder for reading its names; `None` when the name is not (or no longer) a folder.
fn open_folder(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first names of a folder.
fn some_names(folder: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    rustix::fs::seek(folder, rustix::fs::SeekFrom::Start(0))?;
    let mut names = Vec::new();
    each_name(folder, |name, kind| {
        names.push((name.to_owned(), kind));
        names.len() < BATCH
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasers() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "stoa-erase").count()
    }

    #[test]
    fn many_large_folders_are_erased_by_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Arc::new(Staging::new(std::fs::File::open(folder.path()).unwrap().into()));
        let names: Vec<String> = (0..20).map(|number| format!("{number}")).collect();
        for name in &names {
            for inner in 0..10 {
                std::fs::create_dir_all(folder.path().join(name).join(format!("{inner}/x/y/z"))).unwrap();
            }
        }
        let mut most = 0;
        for name in names {
            erase_later(&staging, [name]);
            most = most.max(erasers());
        }
        assert!(most <= 1, "{most} threads");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::fs::read_dir(folder.path()).unwrap().next().is_some() || staging.erasing.lock().begun {
            assert!(std::time::Instant::now() < until, "not erased");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
