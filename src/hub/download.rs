//! Bytes on their way out, by range.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::store::{Node, Opened};

/// An open file.
#[derive(Clone)]
pub struct Download {
    opened: Opened,
}

impl Download {
    pub(crate) fn new(opened: Opened) -> Self {
        Self { opened }
    }

    /// As it was when opened.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.opened.node
    }

    /// The descriptor for `sendfile`; positioned reads only.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        self.opened.file.clone()
    }

    /// True while the file is what it was when it was opened, whatever its name is by now.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        let node = &self.opened.node;
        let modified = |meta: &std::fs::Metadata| {
            let nanos = meta.mtime().checked_mul(1_000_000_000)?.checked_add(meta.mtime_nsec())?;
            Some(nanos.div_euclid(1000))
        };
        let now = self.opened.file.metadata();
        now.is_ok_and(|meta| meta.len() == node.size && modified(&meta) == Some(node.modified))
    }

    /// Up to `len` bytes at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.opened.read_at(offset, len).await
    }
}
