//! Changes to a tree, which can be repeated after a crash, and the bytes they need.

use serde::{Deserialize, Serialize};

use super::path::RelPath;
use crate::error::{Error, Kind, Result};
use crate::store::Micros;

/// Names a stage: chosen by the hub, unique for ever (`UUIDv7` as text).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageId(pub String);

/// Where the bytes of a `Put` are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// In the intent row itself; `publish` gets them as its `body` argument.
    Inline,
    /// In a sealed stage.
    Staged(StageId),
}

/// One publish: idempotent, so it can be replayed after a crash. Serialised into the intent row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The body appears under this path, replacing what is there, in one step. Parent folders are made.
    Put {
        /// Where.
        path: RelPath,
        /// Its bytes.
        body: Body,
        /// Modification time to set; else when it was written.
        modified: Option<Micros>,
    },
    /// A folder exists here, with its parents.
    Folder {
        /// Where.
        path: RelPath,
    },
    /// The file is gone.
    Remove {
        /// Which.
        path: RelPath,
    },
    /// The folder is gone: with `all` whatever is below it too, else only when it is empty (`NotEmpty`).
    RemoveFolder {
        /// Which; never the root.
        path: RelPath,
        /// With what is in it.
        all: bool,
    },
    /// What was `from` is `to`, replacing a file there. Already done when `from` is gone and `to` is there.
    Rename {
        /// The old path.
        from: RelPath,
        /// The new path.
        to: RelPath,
    },
    /// The file's or folder's modification time.
    SetModified {
        /// Of what.
        path: RelPath,
        /// To when.
        modified: Micros,
    },
}

impl Change {
    /// As the intent row keeps it.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The stage its bytes are in, when they are in one.
    #[must_use]
    pub fn stage(&self) -> Option<&StageId> {
        match self {
            Self::Put { body: Body::Staged(id), .. } => Some(id),
            _ => None,
        }
    }

    /// The path it is about: of a rename the new one.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Put { path, .. }
            | Self::Folder { path }
            | Self::Remove { path }
            | Self::RemoveFolder { path, .. }
            | Self::Rename { to: path, .. }
            | Self::SetModified { path, .. } => path,
        }
    }

    /// Back from the intent row.
    ///
    /// # Errors
    /// `Corrupt` when it is not what [`Change::encode`] wrote.
    pub fn decode(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::new(Kind::Corrupt, "an intent in the catalog cannot be read").with(error))
    }
}
