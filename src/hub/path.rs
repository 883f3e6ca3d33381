//! Paths of the one tree: absolute, normalised, the same for every door.

use std::fmt;

use crate::error::{Error, Kind, Result};
use crate::store::RelPath;

/// An absolute path in the tree: `/`, `/scans/2026/a.pdf`. Its parts obey [`RelPath`]'s rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath {
    /// Without the leading slash.
    inner: RelPath,
}

impl TreePath {
    /// The root of the tree.
    #[must_use]
    pub fn root() -> Self {
        Self { inner: RelPath::root() }
    }

    /// Reads an absolute or relative path as a person types it, against `base`; `.` and `..` are resolved as text and
    /// `..` at the root stays there, doubled slashes fold. A trailing slash is dropped.
    ///
    /// # Errors
    /// `Invalid` for names that cannot be (NUL, reserved, too long).
    pub fn resolve(base: &Self, text: &str) -> Result<Self> {
        let mut parts: Vec<&str> = match text.starts_with('/') {
            true => Vec::new(),
            false => base.parts().collect(),
        };
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        Ok(Self { inner: RelPath::new(&parts.join("/"))? })
    }

    /// Reads an absolute path strictly: no `.`, `..` or empty parts; one trailing slash is allowed.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Error::new(Kind::Invalid, "a path starts with `/`"));
        };
        Ok(Self { inner: RelPath::new(rest.strip_suffix('/').unwrap_or(rest))? })
    }

    /// As text without the leading slash; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.inner.as_str()
    }

    /// Its names from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.inner.parts()
    }

    /// The last name; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The folder it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.inner.parent().map(|inner| Self { inner })
    }

    /// A name below it.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn join(&self, name: &str) -> Result<Self> {
        Ok(Self { inner: self.inner.join(name)? })
    }

    /// True for `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.inner.is_root()
    }

    /// True when it is `folder` or below it.
    #[must_use]
    pub fn is_in(&self, folder: &Self) -> bool {
        self.inner.is_in(&folder.inner)
    }

    /// What remains below `folder`; `None` when it is not in it.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Option<RelPath> {
        self.inner.below(&folder.inner)
    }

    /// This folder with a volume path below it.
    #[must_use]
    pub fn with(&self, rel: &RelPath) -> Self {
        Self { inner: self.inner.with(rel) }
    }

    /// As seen by an account confined to `root`: `/` there. A path outside shows as `/`.
    #[must_use]
    pub fn seen_from(&self, root: &Self) -> Self {
        self.below(root).map_or_else(Self::root, |inner| Self { inner })
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    #[test]
    fn typed_paths_never_climb_above_the_root() {
        let base = at("/a/b");
        assert_eq!(TreePath::resolve(&base, "../../../../etc").unwrap(), at("/etc"));
        assert_eq!(TreePath::resolve(&base, "c//d/.").unwrap(), at("/a/b/c/d"));
        assert_eq!(TreePath::resolve(&base, "/x/").unwrap(), at("/x"));
        assert!(TreePath::resolve(&base, ".stoa-stage").is_err());
        assert!(TreePath::resolve(&base, "a\0b").is_err());
    }

    #[test]
    fn below_and_with_are_inverse() {
        let space = at("/scans");
        let rel = at("/scans/2026/a.pdf").below(&space).unwrap();
        assert_eq!(rel.as_str(), "2026/a.pdf");
        assert_eq!(space.with(&rel), at("/scans/2026/a.pdf"));
        assert_eq!(at("/scans2/a").below(&space), None);
        assert_eq!(at("/scans").below(&TreePath::root()).unwrap().as_str(), "scans");
    }
}
