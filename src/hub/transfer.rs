//! Bytes on their way in and out: uploads that are invisible before their commit, downloads by range.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::store::{Micros, Node, Opened};

/// How an upload meets what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// The old content and then this (FTP APPE).
    Append,
    /// Only this.
    #[default]
    Replace,
    /// The first `n` bytes of what is there (or of a broken upload kept by this account), then this (FTP REST + STOR).
    Resume(u64),
}

/// How a file is to be written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Replace, append or resume.
    pub mode: WriteMode,
    /// Size announced by the client: checked against quota and disk before a byte is taken.
    pub size: Option<u64>,
    /// Modification time to set; else now.
    pub modified: Option<Micros>,
    /// Compute the SHA-256 for the receipt.
    pub digest: bool,
    /// Refuse (`Conflict`) unless what is there has this tag; `Some(None)`: unless nothing is there.
    pub only_if: Option<Option<u64>>,
    /// A broken upload stays invisible and resumable by this account for a while.
    pub keep_partial: bool,
    /// Make missing parent folders.
    pub folders: bool,
    /// Take a free name instead of replacing, whatever the space's rule (FTP STOU).
    pub unique: bool,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// What was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The final path (another than asked for when both were kept); for mail the first place it went to.
    pub path: TreePath,
    /// Bytes now there.
    pub bytes: u64,
    /// SHA-256 when asked for.
    pub sha256: Option<[u8; 32]>,
    /// The node's tag, for an `ETag`.
    pub tag: u64,
    /// Modification time.
    pub modified: Micros,
    /// Nothing was there before.
    pub created: bool,
    /// Message id for mail; empty for files.
    pub id: String,
}

/// A write in progress: invisible before `commit`; dropping it leaves nothing (or a resumable part, when asked for).
pub struct Upload {
    _private: (),
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `OverQuota`, `TooLarge`, `Unavailable` as soon as it is clear that the commit cannot succeed.
    pub async fn push(&mut self, _chunk: Bytes) -> Result<()> {
        todo!()
    }

    /// Bytes it will hold so far, with what it resumed or appends to.
    #[must_use]
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// True before the first byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it durable, visible and acknowledged; nothing of it is visible when this fails.
    ///
    /// # Errors
    /// Those of the turnstile.
    pub async fn commit(self) -> Result<Receipt> {
        todo!()
    }

    /// Gives up; a `keep_partial` upload stays resumable, anything else leaves nothing.
    pub async fn abandon(self) {
        todo!()
    }
}

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

/// Broken uploads that can be resumed.
#[derive(Default)]
pub(crate) struct Partials {}
