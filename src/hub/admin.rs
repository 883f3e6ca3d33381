//! What an operator does: accounts, spaces, history. Used by the command line and, later, by the API.

use crate::error::Result;
use crate::hub::Hub;
use crate::store::{AccountRow, HistoryFilter, HistoryLine, SpaceRow, Usage, Verified};

/// An account as an operator sees it.
pub struct AccountView {
    /// Its record (hash blanked).
    pub row: AccountRow,
    /// From the configuration file.
    pub declared: bool,
}

/// A space as an operator sees it.
pub struct SpaceView {
    /// Its record.
    pub row: SpaceRow,
    /// From the configuration file or made by the server itself.
    pub declared: bool,
    /// What it holds.
    pub usage: Usage,
}

impl Hub {
    /// Makes or changes an account; `password` in clear is hashed here. Declared accounts are refused.
    ///
    /// # Errors
    /// `Invalid`, `Exists` when `create` and it is there, `Denied` for a declared one.
    pub async fn put_account(&self, _row: AccountRow, _password: Option<&[u8]>, _create: bool) -> Result<()> {
        todo!()
    }

    /// Removes an account (its files stay) and ends its sessions.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a declared one.
    pub async fn remove_account(&self, _name: &str) -> Result<()> {
        todo!()
    }

    /// All accounts, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountView> {
        todo!()
    }

    /// Makes or changes a space.
    ///
    /// # Errors
    /// `Invalid`, `Denied` for a declared one.
    pub async fn put_space(&self, _row: SpaceRow) -> Result<()> {
        todo!()
    }

    /// Removes a space from the tree; its files stay on the disk.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a declared one.
    pub async fn remove_space(&self, _path: &str) -> Result<()> {
        todo!()
    }

    /// All spaces with their usage.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn spaces(&self) -> Result<Vec<SpaceView>> {
        todo!()
    }

    /// Lines of history.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryLine>> {
        self.catalog().history(filter).await
    }

    /// Walks the history chains.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn verify_history(&self) -> Result<Verified> {
        self.catalog().verify_history().await
    }
}
