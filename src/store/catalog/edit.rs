//! Changes to the records: a batch of edits is applied whole or not at all.

use super::lock::LockGuard;
use super::mail::MailEdit;
use super::property::PropertyEdit;
use super::rows::{AccountRow, FileRow, HistoryLine, IntentRow, LeftRow, LockRow, SessionRow, SpaceRow};
use super::uploads::UploadEdit;
use crate::store::Micros;

/// What a file row must look like for an edit to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No row yet.
    Absent,
    /// Exactly this version.
    Version(i64),
}

/// One change to the records. Guards are part of the edit: an edit that does not hold fails the batch.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are named as the columns they change")]
pub enum Edit {
    /// Inserts or updates a file row; `Conflict` when `expect` no longer holds.
    PutFile(FileRow, Expect),
    /// Removes a file row and its properties; `Conflict` when the version differs.
    RemoveFile { space: String, path: String, version: i64 },
    /// Removes every file row below a folder, and the properties of all of it.
    RemoveFolder { space: String, folder: String },
    /// Renames one file's row, or every row below a folder; properties go with them.
    MoveFiles { space: String, from: String, to: String },
    /// Adds to a space's usage; `OverQuota` when a positive change would pass a limit (negative changes always hold).
    Usage { space: String, bytes: i64, files: i64, max_bytes: Option<u64>, max_files: Option<u64> },
    /// Sets a space's usage to the truth found by a full count.
    SetUsage { space: String, bytes: u64, files: u64 },
    /// A publish still to be done.
    Intent(IntentRow),
    /// Publishes that are in place and synced.
    ClearIntents(Vec<i64>),
    /// One line of history; chained by the engine.
    History(HistoryLine),
    /// Makes or replaces an account.
    PutAccount(AccountRow),
    /// Removes an account; `NotFound` when there is none.
    RemoveAccount(String),
    /// Makes or replaces a space with its grants.
    PutSpace(SpaceRow),
    /// Removes a space's record (never its files); `NotFound` when there is none.
    RemoveSpace(String),
    /// Opens a session.
    PutSession(SessionRow),
    /// Closes a session by the hash of its token.
    RemoveSession([u8; 32]),
    /// Closes every session of an account.
    RemoveSessionsOf(String),
    /// Closes the sessions of an account that are of another generation than this.
    KeepSessionsOf { account: String, generation: [u8; 32] },
    /// Gives an account another generation: all it signed in with is over.
    NewGeneration { account: String, at: Micros },
    /// Removes an account's unfinished uploads and, with `all`, its locks and receipts.
    RemoveWorkOf { account: String, all: bool },
    /// Replaces the hash of the same password by a stronger one; `Conflict` when the password changed meanwhile.
    RenewHash { account: String, old: String, new: String },
    /// A space was left behind, or was handed over.
    PutLeft(LeftRow),
    /// A space left behind is decided about.
    RemoveLeft(String),
    /// Forgets all files of a space, their properties and its usage.
    ForgetSpace(String),
    /// Removes sessions and locks past their time.
    Expire(Micros),
    /// Takes a lock; `Locked` when one is in the way that it cannot be beside. Those of these tokens are not.
    PutLock(LockRow, Vec<String>),
    /// Prolongs a lock; `NotFound` when it is not in force any more.
    RefreshLock { token: String, expires: Micros },
    /// `Locked` when a lock is held there that is not known.
    Unlocked(LockGuard),
    /// Gives a lock back.
    RemoveLock(String),
    /// One change to the records of mail.
    Mail(MailEdit),
    /// One change to the records of uploads and receipts.
    Upload(UploadEdit),
    /// One change to properties.
    Property(PropertyEdit),
}

/// A list of edits that becomes durable whole, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Applied in order.
    pub edits: Vec<Edit>,
}

impl Batch {
    /// Adds an edit.
    pub fn push(&mut self, edit: Edit) {
        self.edits.push(edit);
    }
}
