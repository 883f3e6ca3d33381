//! The entries of an open folder, as the kernel gives them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, RawDir};

use crate::store::volume::path::RESERVED;

/// Bytes of directory entries asked of the kernel at once.
pub(super) const ENTRIES: usize = 64 << 10;

/// Calls `with` for each entry of an open folder, `.` and `..` left out, until it says no.
pub(super) fn each_name(fd: impl AsFd, mut with: impl FnMut(&[u8], FileType) -> bool) -> rustix::io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if !with(name, entry.file_type()) => break,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(RESERVED.as_bytes())
}

/// Does a folder hold entries that are never listed: names that are reserved for the server?
pub(super) fn hides_entries(fd: &OwnedFd) -> rustix::io::Result<bool> {
    let mut hides = false;
    each_name(fd, |name, _| {
        hides = is_hidden(name);
        !hides
    })?;
    Ok(hides)
}
