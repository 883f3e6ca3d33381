//! What a volume says of one name.

use crate::store::Micros;

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
