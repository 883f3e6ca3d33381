//! Someone allowed to ask: every door's only handle on the data.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::hub::account::Account;
use crate::hub::act::Act;
use crate::hub::path::TreePath;
use crate::hub::policy::{Verb, Verbs};
use crate::hub::transfer::{Download, Upload, WriteOptions};
use crate::origin::Origin;
use crate::store::Node;

/// A principal at an origin. Made only by [`Hub::login`], [`Hub::resume`] and [`Hub::guest`]; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    hub: Hub,
    origin: Origin,
    account: Option<Arc<Account>>,
}

/// One name of the tree, as this caller may see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// File or folder, size, time, tag.
    pub node: Node,
    /// What the caller may do with it.
    pub rights: Verbs,
}

/// A folder's entries, page by page in byte order of the names.
pub struct Listing {
    caller: Caller,
    folder: TreePath,
    after: Option<String>,
    done: bool,
}

impl Listing {
    /// The next entries; empty at the end. Memory stays bounded however large the folder is.
    ///
    /// # Errors
    /// What the volume says.
    pub async fn next_page(&mut self) -> Result<Vec<Entry>> {
        let _ = (&self.caller, &self.folder, &self.after, self.done);
        todo!()
    }
}

impl Caller {
    pub(crate) fn new(hub: Hub, origin: Origin, account: Option<Arc<Account>>) -> Self {
        Self { hub, origin, account }
    }

    /// Sign-in name; empty for a guest.
    #[must_use]
    pub fn name(&self) -> &str {
        self.account.as_deref().map_or("", |account| account.name.as_str())
    }

    /// Not signed in.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.account.is_none()
    }

    /// The account, unless a guest.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    /// Where it asks from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The hub behind it.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The folder it is confined to; `/` for most.
    #[must_use]
    pub fn root(&self) -> TreePath {
        self.account.as_deref().map_or_else(TreePath::root, |account| account.root.clone())
    }

    /// Where FTP starts: a device's landing folder, else the root.
    #[must_use]
    pub fn start(&self) -> TreePath {
        self.account.as_deref().map_or_else(TreePath::root, Account::start)
    }

    /// What it may do at a path.
    #[must_use]
    pub fn rights(&self, path: &TreePath) -> Verbs {
        self.hub.view().verbs(self.account(), path)
    }

    /// The verdict on one verb at one path; see [`crate::hub::view::View::allow`].
    ///
    /// # Errors
    /// `Unauthenticated`, `NotFound` or `Denied`.
    pub fn allow(&self, verb: Verb, path: &TreePath) -> Result<()> {
        self.hub.view().allow(self.account(), verb, path)
    }

    /// What is at a path. Needs `list` on its folder or any verb on itself.
    ///
    /// # Errors
    /// `NotFound` when it is not there or not for this caller.
    pub async fn stat(&self, _path: &TreePath) -> Result<Entry> {
        todo!()
    }

    /// Begins listing a folder. Needs `list`.
    ///
    /// # Errors
    /// `WrongType` for a file.
    pub async fn list(&self, _folder: &TreePath) -> Result<Listing> {
        todo!()
    }

    /// Opens a file for reading. Needs `read`.
    ///
    /// # Errors
    /// `WrongType` for a folder.
    pub async fn open(&self, _path: &TreePath) -> Result<Download> {
        todo!()
    }

    /// Begins writing a file. Needs `create` or, where something is there, `overwrite` (unless the space keeps both).
    ///
    /// # Errors
    /// `NotFound` when its folder is missing, `OverQuota`, `TooLarge`, `Exists` when the space refuses to replace, `WrongType`.
    pub async fn write(&self, _path: &TreePath, _options: WriteOptions) -> Result<Upload> {
        todo!()
    }

    /// The turnstile: allow, plan, commit with history and intents, publish; plans again on conflict.
    ///
    /// # Errors
    /// The verdict's, the plan's, the store's.
    pub async fn perform<A: Act>(&self, _act: A) -> Result<A::Yield> {
        Err(Error::new(Kind::Internal, "not built yet"))
    }
}
