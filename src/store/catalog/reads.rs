//! The typed reads: each query once, for both engines.

use super::Catalog;
use super::rows::{
    AccountRow, FileRow, HistoryFilter, HistoryLine, IntentRow, LockRow, SessionRow, SpaceRow, Usage, Verified,
};
use crate::error::Result;

impl Catalog {
    /// The row of one file.
    pub async fn file(&self, _space: &str, _path: &str) -> Result<Option<FileRow>> {
        todo!()
    }

    /// Rows of files below `folder` (empty: the whole space), by path, after `after`.
    pub async fn files_below(&self, _space: &str, _folder: &str, _after: &str, _limit: usize) -> Result<Vec<FileRow>> {
        todo!()
    }

    /// Rows of the files directly in `folder`, by path, after `after`.
    pub async fn files_in(&self, _space: &str, _folder: &str, _after: &str, _limit: usize) -> Result<Vec<FileRow>> {
        todo!()
    }

    /// Sum of sizes and number of the file rows below a folder.
    pub async fn sum_below(&self, _space: &str, _folder: &str) -> Result<Usage> {
        todo!()
    }

    /// What a space is counted to hold; zero when nothing was ever stored.
    pub async fn usage(&self, _space: &str) -> Result<Usage> {
        todo!()
    }

    /// Intents of this node not yet cleared, in order of their id, after `after`.
    pub async fn intents(&self, _after: i64, _limit: usize) -> Result<Vec<IntentRow>> {
        todo!()
    }

    /// Lines of history, oldest first.
    pub async fn history(&self, _filter: &HistoryFilter) -> Result<Vec<HistoryLine>> {
        todo!()
    }

    /// Walks every chain and recomputes each hash.
    pub async fn verify_history(&self) -> Result<Verified> {
        todo!()
    }

    /// All accounts made on the command line or over the API.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>> {
        todo!()
    }

    /// All spaces made on the command line or over the API.
    pub async fn spaces(&self) -> Result<Vec<SpaceRow>> {
        todo!()
    }

    /// The session whose token has this hash, unless it is past its time.
    pub async fn session(&self, _token: [u8; 32], _now: super::super::Micros) -> Result<Option<SessionRow>> {
        todo!()
    }

    /// All locks that are not past their time.
    pub async fn locks(&self, _now: super::super::Micros) -> Result<Vec<LockRow>> {
        todo!()
    }
}
