//! A path inside a volume: checked once, then trusted.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{self, LONGEST_NAME};
use crate::error::{Error, Kind, Result};

/// A relative path of plain names joined by `/`; empty is the root of the volume.
///
/// Never holds an empty part, `.`, `..`, a NUL, a reserved name (`.stoa…`) or a part over 255 bytes. Each part is in its canonical form
/// ([`name::canonical`]), so two spellings of one name are equal here, and so is everything that is decided by paths: grants, locks, sites,
/// drop addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// Longest path on the disk, in bytes, that is accepted from anyone.
pub const LONGEST_PATH: usize = 4096;

/// Names that start so are ours and hidden on every door.
pub const RESERVED: &str = ".stoa";

impl RelPath {
    /// The root of the volume.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks each part of a path already split from its space, and puts it into its canonical form.
    ///
    /// # Errors
    /// `Invalid` with what is wrong in words.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let too_long = || Error::new(Kind::Invalid, "the path is longer than 4096 bytes");
        // An escape takes five bytes for one on the disk.
        if text.len() > 5 * LONGEST_PATH {
            return Err(too_long());
        }
        let mut path = String::with_capacity(text.len());
        for part in text.split('/') {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&checked(part)?);
        }
        if name::bytes(&path).len() > LONGEST_PATH {
            return Err(too_long());
        }
        Ok(Self(path))
    }

    /// As text, without leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the root of the volume.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last part; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(Self(self.0.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())))
    }

    /// A name below it.
    ///
    /// # Errors
    /// `Invalid` when the name is not a plain name.
    pub fn join(&self, name: &str) -> Result<Self> {
        let name = checked(name)?;
        Ok(if self.is_root() { Self(name.into_owned()) } else { Self([&self.0, "/", &name].concat()) })
    }

    /// Its names from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// What remains below `folder`; `None` when it is not in it.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Option<Self> {
        match self.0.strip_prefix(&folder.0)? {
            rest if folder.is_root() || rest.is_empty() => Some(Self(rest.to_owned())),
            rest => rest.strip_prefix('/').map(|rest| Self(rest.to_owned())),
        }
    }

    /// This folder with another path below it.
    #[must_use]
    pub fn with(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (_, true) => self.clone(),
            (true, false) => below.clone(),
            (false, false) => Self([&self.0, "/", &below.0].concat()),
        }
    }

    /// True when it is `folder` or below it.
    #[must_use]
    pub fn is_in(&self, folder: &Self) -> bool {
        folder.is_root()
            || self.0 == folder.0
            || self.0.strip_prefix(&folder.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// A single name in its canonical form, if it may appear in the tree.
fn checked(typed: &str) -> Result<Cow<'_, str>> {
    let name = name::canonical(typed);
    let wrong = match &*name {
        "" => "a name is empty",
        "." | ".." => "`.` and `..` are not names",
        text if name::bytes(text).len() > LONGEST_NAME => "a name is longer than 255 bytes",
        text if memchr::memchr2(b'/', 0, text.as_bytes()).is_some() => "a name may not contain `/` or NUL",
        text if text.starts_with(RESERVED) => "names that start with `.stoa` are reserved",
        _ => return Ok(name),
    };
    Err(Error::new(Kind::Invalid, wrong))
}

impl TryFrom<String> for RelPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
