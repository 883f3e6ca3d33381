//! Mail: who a recipient is, and how one message becomes Maildir files and filed attachments in one commit.

mod decode;
mod filing;
mod mime;
mod name;

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::hub::transfer::Upload;
use crate::hub::{Caller, Hub};

/// Where a recipient's mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Attachments are filed into this folder of a space.
    Drop {
        /// The folder: the space's path, with `+sub` below it.
        folder: TreePath,
    },
    /// The Maildir `/mail/NAME`.
    Mailbox {
        /// Whose.
        account: String,
    },
}

/// A recipient that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// As the sender wrote it.
    pub address: String,
    /// Where it goes.
    pub target: Target,
}

/// A message about to arrive.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Our id of it (UUIDv7), shown in the reply and in the history.
    pub id: String,
    /// Reverse path; empty for `<>`.
    pub sender: String,
    /// Accepted recipients.
    pub recipients: Vec<Recipient>,
    /// Declared size.
    pub size: Option<u64>,
}

impl Hub {
    /// True when the domain is one of ours.
    #[must_use]
    pub fn serves_domain(&self, _domain: &str) -> bool {
        todo!()
    }

    /// Says at RCPT whether mail from this caller to this address will be taken: `NotFound` (550), `Denied`,
    /// `OverQuota` (452 when it may fit later, with `Unavailable` for a full disk).
    ///
    /// # Errors
    /// As said.
    pub async fn recipient(
        &self,
        _caller: &Caller,
        _local: &str,
        _domain: &str,
        _catch_all: Option<&str>,
        _size: Option<u64>,
    ) -> Result<Recipient> {
        todo!()
    }
}

impl Caller {
    /// Begins taking a message in; `commit` of the upload delivers it to every recipient or to none.
    ///
    /// # Errors
    /// `Unavailable`, `OverQuota`.
    pub async fn deliver(&self, _envelope: Envelope) -> Result<Upload> {
        todo!()
    }
}

/// Delivers a message that has arrived whole: to every recipient, in one commit, or to none.
pub(super) async fn finish(
    _caller: &Caller,
    _envelope: &Envelope,
    _space: &std::sync::Arc<crate::hub::view::Space>,
    _body: &mut crate::hub::transfer::Incoming,
) -> Result<crate::hub::Receipt> {
    todo!()
}
