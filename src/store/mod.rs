//! The only room that knows engines: records in a catalog, bytes in a volume.
//!
//! [`Catalog`] holds what Stoa knows (accounts, files, usage, history, intents) in SQL that SQLite and
//! PostgreSQL both speak; a [`Volume`] holds the bytes, here a plain directory tree that other programs can
//! read. Nothing above this room names SQL, a table, a file descriptor's path or an engine.

pub mod catalog;
pub mod fault;
pub mod volume;

pub use catalog::lock::LockGuard;
pub use catalog::mail::{AliasRow, DeliveryRow, DeliveryState, MailEdit, MailFolderRow, MessageRow};
pub use catalog::property::{PropertyEdit, PropertyRow};
pub use catalog::rows::{
    AccountKind, AccountRow, FileRow, GrantRow, HistoryFilter, HistoryLine, IntentRow, LeftRow, LockRow, SessionRow,
    SpaceRow, Usage, Verified,
};
pub use catalog::uploads::{ReceiptRow, UploadEdit, UploadKind, UploadRow};
pub use catalog::{After, Batch, Catalog, CatalogSettings, Edit, Engine, EngineKind, Expect, On, Synced};
pub use volume::directory::Directory;
pub use volume::path::RelPath;
pub use volume::{
    Body, Change, Fingerprint, Node, NodeKind, Opened, Room, Soaked, Stage, StageId, Then, Touched, Volume,
};

/// Microseconds since the Unix epoch: the one form in which the store keeps time.
pub type Micros = i64;
