//! Bytes on their way out, by range.

use std::fs::File;
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

    /// Up to `len` bytes at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.opened.read_at(offset, len).await
    }
}
