//! The acts on files and folders.

use crate::hub::path::TreePath;
use crate::store::Micros;

/// Makes a folder; its parent must be there. `Exists` when something is there.
pub struct MakeFolder {
    /// Where.
    pub path: TreePath,
}

/// Removes a file.
pub struct RemoveFile {
    /// Which. `WrongType` for a folder.
    pub path: TreePath,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// Removes a folder: an empty one, or with `all` everything below it.
pub struct RemoveFolder {
    /// Which. `WrongType` for a file, `NotEmpty` when something is in it and not `all`.
    pub path: TreePath,
    /// With all below it.
    pub all: bool,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// Gives a file or folder another name, in the same space.
pub struct Rename {
    /// From.
    pub from: TreePath,
    /// To; a file there is replaced when `replace` and allowed, a folder never.
    pub to: TreePath,
    /// Replace a file that is there.
    pub replace: bool,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// Copies a file (no bytes through us where the disk can).
pub struct Copy {
    /// From.
    pub from: TreePath,
    /// To.
    pub to: TreePath,
    /// Replace a file that is there.
    pub replace: bool,
}

/// Sets a modification time.
pub struct SetModified {
    /// Of what.
    pub path: TreePath,
    /// To when.
    pub modified: Micros,
}
