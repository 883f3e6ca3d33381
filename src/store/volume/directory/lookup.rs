//! Looking names up below a directory, without ever leaving it.
//!
//! The kernel does the work (`openat2` with `RESOLVE_BENEATH` and no links of any kind), so that neither `..` nor a
//! symlink swapped in by a racing program can lead out. Where a seccomp filter hides `openat2`, names are walked one
//! at a time with `O_NOFOLLOW`, which holds the same promise more slowly.
//!
//! Paths are canonical text; [`super::variant`] tells which name on the disk one means.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::variant::Searches;
use crate::error::{Error, Kind};
use crate::store::volume::name;
use crate::store::{Fingerprint, Micros, Node, NodeKind, RelPath};

/// Times a lookup is tried again when the kernel says that a racing rename confused it.
const LOOKUP_TRIES: u32 = 16;

/// A directory that every lookup starts from.
pub(super) struct Root {
    fd: OwnedFd,
    /// The kernel (and its filter) lets us use `openat2`.
    beneath: bool,
    /// … and `RESOLVE_CACHED` with it.
    cached: bool,
    searches: Searches,
}

/// How names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookups {
    /// In one `openat2` where the kernel has it.
    Probe,
    /// One name at a time.
    Walk,
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Takes an open directory and finds out what the kernel can do with it.
    pub(super) fn new(fd: OwnedFd, lookups: Lookups) -> Self {
        let mut root = Self { fd, beneath: false, cached: false, searches: Searches::default() };
        if lookups == Lookups::Probe {
            root.beneath = root.openat2(b".", PLACE, ResolveFlags::empty()).is_ok();
            root.cached =
                root.beneath && matches!(root.openat2(b".", PLACE, ResolveFlags::CACHED), Ok(_) | Err(Errno::AGAIN));
        }
        root
    }

    /// The directory itself.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens what is at `path`, from the disk if need be.
    pub(super) fn open(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.as_str().is_ascii() {
            return self.open_exact(path, flags);
        }
        if !has_alias(path) {
            match self.open_exact(path, flags) {
                Err(Errno::NOENT) => {}
                outcome => return outcome,
            }
        }
        self.walk(path, flags)
    }

    /// Opens the names as they are in the path.
    fn open_exact(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if !self.beneath {
            return self.walk(path, flags);
        }
        let disk = disk_path(path);
        let mut tries = 0;
        loop {
            match self.openat2(&disk, flags, ResolveFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) if tries < LOOKUP_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Opens what is at `path` only if that needs no disk; `Errno::AGAIN` otherwise.
    pub(super) fn open_cached(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if !self.cached || has_alias(path) {
            return Err(Errno::AGAIN);
        }
        match self.openat2(&disk_path(path), flags, ResolveFlags::CACHED) {
            Err(Errno::NOENT) if !path.as_str().is_ascii() => Err(Errno::AGAIN),
            outcome => outcome,
        }
    }

    /// The name on the disk that the last part of a path means in its folder: where nothing is there, the one to make.
    pub(super) fn locate<'a>(&self, folder: &OwnedFd, name: &'a str) -> rustix::io::Result<Cow<'a, [u8]>> {
        self.searches.locate(folder, name)
    }

    /// The name with which an entry of a folder is shown.
    pub(super) fn shown(&self, folder: &OwnedFd, disk: &[u8]) -> rustix::io::Result<String> {
        self.searches.shown(folder, disk)
    }

    /// Opens a folder as a place to look names up from.
    pub(super) fn folder(&self, path: &RelPath) -> rustix::io::Result<OwnedFd> {
        self.open(path, PLACE)
    }

    fn openat2(&self, path: &[u8], flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | more;
        rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn walk(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at = None;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let from = at.as_ref().unwrap_or(&self.fd);
            let flags = if parts.peek().is_some() { PLACE } else { flags };
            at = Some(step(from, &self.locate(from, part)?, flags)?);
        }
        at.map_or_else(|| step(&self.fd, b".", flags), Ok)
    }

    /// Opens a folder, making it and its parents where they are missing. Never through a link.
    pub(super) fn make_folder(&self, path: &RelPath) -> rustix::io::Result<OwnedFd> {
        match self.folder(path) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        let mut at = rustix::fs::openat(&self.fd, ".", PLACE, Mode::empty())?;
        for part in path.parts() {
            let name = self.locate(&at, part)?;
            at = make_step(&at, &name)?;
        }
        Ok(at)
    }
}

/// One name down, never through a link. Opening with `O_DIRECTORY` says `ENOTDIR` of a link too: tell them apart.
fn step(from: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(from, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOTDIR) => {
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Err(if FileType::from_raw_mode(stat.st_mode).is_symlink() { Errno::LOOP } else { Errno::NOTDIR })
        }
        outcome => outcome,
    }
}

fn make_step(from: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match step(from, name, PLACE) {
            Err(Errno::NOENT) if tries < LOOKUP_TRIES => tries += 1,
            outcome => return outcome,
        }
        match rustix::fs::mkdirat(from, name, folder_mode()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

/// `0750`, less what the umask takes.
pub(super) fn folder_mode() -> Mode {
    Mode::RWXU | Mode::RGRP | Mode::XGRP
}

/// `0640`, less what the umask takes.
pub(super) fn file_mode() -> Mode {
    Mode::RUSR | Mode::WUSR | Mode::RGRP
}

fn disk_path(path: &RelPath) -> Cow<'_, [u8]> {
    if path.is_root() { b".".into() } else { name::bytes(path.as_str()) }
}

fn has_alias(path: &RelPath) -> bool {
    !path.as_str().is_ascii() && path.parts().any(name::is_alias)
}

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

/// The node behind a descriptor, under the name it was asked for.
pub(super) fn node_of(fd: impl AsFd, path: &RelPath) -> Result<Node, Error> {
    Ok(Seen::of(fd).map_err(refused)?.node(path.name()))
}

/// Turns a descriptor into a file for reading; only a regular file may be one.
pub(super) fn readable(fd: OwnedFd, path: &RelPath) -> Result<(Node, File), Error> {
    let node = node_of(&fd, path)?;
    match node.kind {
        NodeKind::File => Ok((node, File::from(fd))),
        NodeKind::Folder => Err(Error::new(Kind::WrongType, "is a folder")),
        NodeKind::Special => Err(special()),
    }
}

/// A link, a FIFO, a socket or a device has no content here.
pub(super) fn special() -> Error {
    Error::new(Kind::WrongType, "is a link or a special file on the server's disk; it is never followed or opened")
}

fn hidden() -> Error {
    Error::new(Kind::NotFound, "no such file or folder")
}

/// What a failed lookup means: behind a link, a socket or a device nothing is there.
pub(super) fn refused(errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NODEV => hidden().with(std::io::Error::from(errno)),
        _ => std::io::Error::from(errno).into(),
    }
}
