//! What was read and is held in memory by a door, exact for as long as it is used.
//!
//! A volume says by its stamps whether anything may have happened to a file since it was read: a commit of ours or another
//! program's change. In the moments in which a volume takes changes in, wherever they are, the file itself is looked at. Time plays no part in
//! it, and neither does a change of anything else. The verdict is made anew for every caller.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};

use crate::hub::caller::Caller;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::Download;
use crate::hub::{Hub, now};
use crate::store::{Fingerprint, RelPath, Volume};

/// The moment before a file was opened. What is read of it afterwards may be held with [`Mark::hold`].
pub struct Mark {
    hub: Hub,
    volume: Arc<dyn Volume>,
    path: TreePath,
    rel: RelPath,
    stamp: u64,
}

/// Says whether what was read of a file is still what a read would give.
pub struct Held {
    mark: Mark,
    /// What was there, once it was left alone for long enough to be known by it.
    print: OnceLock<Fingerprint>,
}

impl Caller {
    /// Marks the moment before a file is opened; `None` where its volume cannot tell changes exactly.
    #[must_use]
    pub fn mark(&self, path: &TreePath) -> Option<Mark> {
        let view = self.hub().view();
        let (space, rel) = view.space_of(path)?;
        let stamp = space.volume.stamp(&rel)?;
        Some(Mark { hub: self.hub().clone(), volume: space.volume.clone(), path: path.clone(), rel, stamp })
    }
}

impl Mark {
    /// Everything wanted of the file, opened after the mark, has been read; `None` when something happened to it since the mark.
    #[must_use]
    pub fn hold(self, file: &Download) -> Option<Held> {
        // A write through another name of the same file would not be told of this one.
        let only_name = file.file().metadata().is_ok_and(|found| found.nlink() == 1);
        if only_name { self.hold_name() } else { None }
    }

    /// Nothing of the file was read, there may be none: held is that nothing happens to its name.
    #[must_use]
    pub fn hold_name(self) -> Option<Held> {
        let held = Held { mark: self, print: OnceLock::new() };
        held.is_unchanged().then_some(held)
    }
}

impl Held {
    /// True when this caller, reading the file now, would get exactly what is held.
    #[must_use]
    pub fn is_for(&self, caller: &Caller) -> bool {
        let (path, view) = (&self.mark.path, caller.hub().view());
        let allowed = view.is_of(path, &self.mark.volume) && view.allow(caller.account(), Verb::Read, path).is_ok();
        allowed && self.is_unchanged()
    }

    /// By the stamp; in a moment in which there is none, by what is there.
    fn is_unchanged(&self) -> bool {
        let Mark { volume, rel, stamp, .. } = &self.mark;
        if self.print.get().is_none()
            && let Some(print) = volume.fingerprint(rel).filter(|print| print.is_settled(now()))
            && volume.stamp(rel) == Some(*stamp)
        {
            // The stamp was asked for last, and says that this is still what was read.
            let _ = self.print.set(print);
            return true;
        }
        match volume.stamp(rel) {
            Some(now) => now == *stamp,
            None => self.print.get().is_some_and(|print| volume.fingerprint(rel) == Some(*print)),
        }
    }

    /// True when it can never be served again: its space is another one, or something happened to the file.
    #[must_use]
    pub fn is_past(&self) -> bool {
        let Mark { hub, volume, path, rel, stamp } = &self.mark;
        !hub.view().is_of(path, volume) || volume.stamp(rel).is_some_and(|now| now != *stamp)
    }
}
