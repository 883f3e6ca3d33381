//! The compiled view of accounts, spaces and grants that every verdict is made from.
//!
//! Built from the settings and the catalog's own accounts and spaces, swapped whole: reading it takes no lock and no query.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::hub::Volumes;
use crate::hub::account::Account;
use crate::hub::path::TreePath;
use crate::hub::policy::{Verb, Verbs};
use crate::hub::settings::{Overwrite, Settings};
use crate::store::{Catalog, RelPath, Volume};

/// A subtree with its own volume and rules.
pub struct Space {
    /// Where it is in the tree.
    pub path: TreePath,
    /// `path` as text: its key in the catalog.
    pub key: String,
    /// Its bytes.
    pub volume: Arc<dyn Volume>,
    /// Directory served in place; empty for one of our own.
    pub source: String,
    /// Most bytes.
    pub max_bytes: Option<u64>,
    /// Most files.
    pub max_files: Option<u64>,
    /// Rule for an upload onto an existing name.
    pub overwrite: Overwrite,
    /// Drop address.
    pub address: Option<String>,
    /// Keep messages beside their attachments.
    pub keep_message: bool,
    /// Acknowledged means synced.
    pub durable: bool,
    /// Compiled grants.
    pub grants: Vec<(Principal, Verbs)>,
    /// What the space is for.
    pub role: SpaceRole,
    /// File work holds it for reading; folder removal and renames hold it for writing. Shared by every rebuilt view.
    pub gate: Arc<tokio::sync::RwLock<()>>,
}

/// Spaces that are made for accounts, beside the declared ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceRole {
    /// Declared or made by command.
    Shared,
    /// `/home/NAME`.
    Home,
    /// `/mail/NAME`: a Maildir. Its owner may view and delete in it; mail delivery creates in it.
    Mailbox,
    /// A device's landing folder that no other space covers.
    Landing,
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Anyone, signed in or not.
    Everyone,
    /// Anyone signed in as a user.
    Users,
    /// One user.
    User(String),
    /// One device.
    Device(String),
    /// Members of a group.
    Group(String),
}

/// Accounts, spaces and settings at one moment.
pub struct View {
    /// As configured.
    pub settings: Settings,
    /// Users and devices by name.
    pub accounts: HashMap<String, Arc<Account>>,
    /// Spaces, the most specific first.
    pub spaces: Vec<Arc<Space>>,
}

impl View {
    /// Compiles settings and catalog; volumes (and gates) of spaces that did not change are taken over from `old`.
    ///
    /// # Errors
    /// `Invalid` with every problem found, one a line.
    pub async fn build(
        _settings: Settings,
        _catalog: &Catalog,
        _volumes: &dyn Volumes,
        _old: Option<&Self>,
    ) -> Result<Self> {
        todo!()
    }

    /// The most specific space covering a path and the path inside it.
    #[must_use]
    pub fn space_of(&self, path: &TreePath) -> Option<(&Arc<Space>, RelPath)> {
        self.spaces.iter().find_map(|space| path.below(&space.path).map(|rel| (space, rel)))
    }

    /// The space at exactly this path key.
    #[must_use]
    pub fn space(&self, key: &str) -> Option<&Arc<Space>> {
        self.spaces.iter().find(|space| space.key == key)
    }

    /// What an account (`None`: nobody signed in) may do at a path; nothing outside its root.
    #[must_use]
    pub fn verbs(&self, _account: Option<&Account>, _path: &TreePath) -> Verbs {
        todo!()
    }

    /// The verdict. `Unauthenticated` when signing in could help, `NotFound` when nothing at all is allowed there,
    /// `Denied` when something else is.
    ///
    /// # Errors
    /// As said.
    pub fn allow(&self, _account: Option<&Account>, _verb: Verb, _path: &TreePath) -> Result<()> {
        todo!()
    }

    /// Names of folders in `folder` that exist only because a space is mounted at or below them, and that the account
    /// may know of: what a listing shows beside the volume's own nodes.
    #[must_use]
    pub fn mounts_in(&self, _account: Option<&Account>, _folder: &TreePath) -> Vec<String> {
        todo!()
    }
}
