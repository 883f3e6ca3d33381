//! What the kernel says of a name or a folder.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, Timespec, Timestamps};

use crate::store::{Fingerprint, Micros, Node, NodeKind};

/// What the kernel says of one name, as far as we care.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) kind: FileType,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: (i64, u32),
    pub(super) changed: (i64, u32),
    born: (i64, u32),
}

impl Seen {
    /// Of an open descriptor.
    pub(super) fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        Self::ask(fd, "", AtFlags::EMPTY_PATH)
    }

    /// Of a name in a folder; a link is seen as itself.
    pub(super) fn at(folder: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Self> {
        Self::ask(folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn ask(fd: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Self::from(&rustix::fs::statx(fd, name, flags | AtFlags::NO_AUTOMOUNT, wanted)?))
    }

    /// As a node.
    pub(super) fn node(&self, name: &str) -> Node {
        let kind = match self.kind {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Folder,
            _ => NodeKind::Special,
        };
        let size = if kind == NodeKind::File { self.size } else { 0 };
        Node { name: name.to_owned(), kind, size, modified: micros(self.modified), tag: self.tag() }
    }

    /// All of it that changes with the content.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let nanos = |(seconds, nanos): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let (inode, size) = (self.inode, self.size);
        Fingerprint::There { inode, size, modified: nanos(self.modified), changed: nanos(self.changed) }
    }

    /// Differs whenever the content was replaced, also when a freed inode is used again within one tick of the clock
    /// for a file that carries the same given time: the birth time tells those apart.
    fn tag(&self) -> u64 {
        let nanos = |(seconds, nanos): (i64, u32)| {
            seconds.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanos))
        };
        let size = if self.kind == FileType::RegularFile { self.size } else { 0 };
        [self.inode, nanos(self.modified), size, nanos(self.born)].into_iter().fold(0x5354_4f41, |hash: u64, part| {
            let mixed = (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            mixed ^ (mixed >> 29)
        })
    }
}

impl From<&Statx> for Seen {
    fn from(stat: &Statx) -> Self {
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            born: if born { (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) } else { (0, 0) },
        }
    }
}

fn micros((seconds, nanos): (i64, u32)) -> Micros {
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1000))
}

/// A change this shortly before reading may not have moved the folder's time: such names are not kept.
const UNSETTLED: Duration = Duration::from_millis(50);

/// The same on file systems that keep whole seconds.
const UNSETTLED_COARSE: Duration = Duration::from_secs(3);

/// Identifies one state of one folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    pub(super) fn of(folder: &OwnedFd) -> rustix::io::Result<Self> {
        let seen = Seen::of(folder)?;
        Ok(Self { inode: seen.inode, modified: seen.modified, changed: seen.changed })
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// True when the folder's clock has moved on since its last change, so that the next change will show.
    pub(super) fn settled(&self) -> bool {
        let (seconds, nanos) = self.changed.max(self.modified);
        let Ok(seconds) = u64::try_from(seconds) else { return false };
        let wait = if nanos == 0 { UNSETTLED_COARSE } else { UNSETTLED };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now > Duration::new(seconds, nanos) + wait
    }
}

pub(super) fn times(modified: Micros) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: modified.div_euclid(1_000_000),
        tv_nsec: modified.rem_euclid(1_000_000).saturating_mul(1_000),
    };
    // Both are set: libfuse 2 ignores a request that sets only one of them.
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW }, last_modification }
}
