//! An opened file, ready for ranged reads.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use super::node::Node;
use super::read::read_at;
use crate::error::Result;

/// An opened file, ready for ranged reads; survives its own replacement.
#[derive(Clone)]
pub struct Opened {
    /// As it was when opened.
    pub node: Node,
    /// The descriptor, lent out for `sendfile` and `splice`; positioned reads only.
    pub file: Arc<File>,
}

impl Opened {
    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        read_at(self.file.clone(), offset, len).await
    }
}
