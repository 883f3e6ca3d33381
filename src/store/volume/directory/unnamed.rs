//! Files that have no name until they are whole (`O_TMPFILE`).
//!
//! Naming one changes the folder it comes to and nothing else, where moving a file out of the staging folder changes two; and a crash
//! leaves nothing behind.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, OFlags};

use super::lookup::file_mode;
use super::stage::Staging;

/// What this file system and this kernel can do.
pub(super) struct Unnamed {
    /// Such files can be made, and named by their descriptor (since Linux 6.10 by anybody, before by the privileged).
    possible: bool,
}

impl Unnamed {
    /// Finds out by doing it.
    pub(super) fn probe(staging: &Staging) -> Self {
        let name = Staging::own_name();
        let named = make(staging).and_then(|file| link(&file, staging.fd(), &name));
        let possible = named.and_then(|()| rustix::fs::unlinkat(staging.fd(), &name, AtFlags::empty())).is_ok();
        Self { possible }
    }

    /// A new one, open for writing; `None` where they are not to be had.
    pub(super) fn file(&self, staging: &Staging) -> Option<File> {
        self.possible.then(|| make(staging).ok()).flatten()
    }
}

fn make(staging: &Staging) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(staging.fd(), ".", flags, file_mode()).map(File::from)
}

/// Gives it its name, unless something has that already.
pub(super) fn link(file: &File, folder: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<()> {
    rustix::fs::linkat(file, "", folder, name, AtFlags::EMPTY_PATH)
}
