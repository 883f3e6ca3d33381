//! What was read and is held in memory by a door, exact for as long as it is used.
//!
//! A volume says by its stamps whether anything may have happened to a file since it was read: a commit of ours or another
//! program's change. Time plays no part in it. The verdict is made anew for every caller.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use crate::hub::caller::Caller;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::Download;
use crate::hub::view::View;
use crate::store::{RelPath, Volume};

/// The moment before a file was opened. What is read of it afterwards may be held with [`Mark::hold`].
pub struct Mark {
    view: Weak<View>,
    volume: Arc<dyn Volume>,
    path: TreePath,
    rel: RelPath,
    stamp: u64,
}

/// Says whether what was read of a file is still what a read would give.
pub struct Held {
    mark: Mark,
}

impl Caller {
    /// Marks the moment before a file is opened; `None` where its volume cannot tell changes exactly.
    #[must_use]
    pub fn mark(&self, path: &TreePath) -> Option<Mark> {
        let view = self.hub().view();
        let (space, rel) = view.space_of(path)?;
        let stamp = space.volume.stamp(&rel)?;
        Some(Mark { view: Arc::downgrade(&view), volume: space.volume.clone(), path: path.clone(), rel, stamp })
    }
}

impl Mark {
    /// Everything wanted of the file, opened after the mark, has been read; `None` when something happened to it since the mark.
    #[must_use]
    pub fn hold(self, file: &Download) -> Option<Held> {
        // A write through another name of the same file would not be told of this one.
        let only_name = file.file().metadata().is_ok_and(|found| found.nlink() == 1);
        (only_name && self.volume.stamp(&self.rel) == Some(self.stamp)).then_some(Held { mark: self })
    }
}

impl Mark {
    /// Nothing of the file was read, there may be none: held is that nothing happens to its name.
    #[must_use]
    pub fn hold_name(self) -> Option<Held> {
        (self.volume.stamp(&self.rel) == Some(self.stamp)).then_some(Held { mark: self })
    }
}

impl Held {
    /// True when this caller, reading the file now, would get exactly what is held.
    #[must_use]
    pub fn is_for(&self, caller: &Caller) -> bool {
        let Mark { view, volume, path, rel, stamp } = &self.mark;
        let now = caller.hub().view();
        // Held by a weak reference, the old view's address is not given to another one.
        std::ptr::eq(view.as_ptr(), Arc::as_ptr(&now))
            && volume.stamp(rel) == Some(*stamp)
            && now.allow(caller.account(), Verb::Read, path).is_ok()
    }

    /// True when it can never be served again: the spaces were compiled anew, or something happened to the file.
    #[must_use]
    pub fn is_past(&self) -> bool {
        self.mark.view.strong_count() == 0
            || self.mark.volume.stamp(&self.mark.rel).is_some_and(|now| now != self.mark.stamp)
    }
}
