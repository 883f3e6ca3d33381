//! The catalog: every record the hub keeps, in real columns an operator can read with `sqlite3` or `psql`.
//!
//! Reads are typed methods written once in SQL both engines speak; writes are a [`Batch`], a list of
//! edits that is applied whole and durably, or not at all. Under it sits one thin seam, [`Engine`]:
//! `sqlite` (one writer thread doing group commit) and `postgres` implement it, `store::fault` breaks it.

mod chain;
mod columns;
pub mod lock;
pub mod mail;
mod migrations;
pub mod property;
mod reads;
pub mod rows;
mod sql;
pub mod uploads;

pub mod postgres;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::units::Span;
use rows::{AccountRow, FileRow, HistoryLine, IntentRow, LeftRow, LockRow, SessionRow, SpaceRow};

/// Which engine keeps the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `PostgreSQL` (or one that speaks it): several daemons on one catalog.
    Postgres,
    /// The embedded default: one file under the data folder.
    #[default]
    Sqlite,
}

/// `[catalog]`: where the records are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogSettings {
    /// `sqlite` (embedded, one machine) or `postgres` (several machines).
    pub engine: EngineKind,
    /// `postgres://user@host/db`; `file:/path` or `credential:NAME` to read that text from there.
    pub url: String,
    /// Connections kept open for reading.
    pub readers: u32,
    /// Batches made durable by one fsync at most.
    pub group: u32,
    /// PostgreSQL: a connection must be made in this time.
    pub connect: Span,
    /// PostgreSQL: a question that is not answered in this time is given up with its connection.
    pub answer: Span,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        let (connect, answer) = (Span(Duration::from_secs(5)), Span(Duration::from_secs(30)));
        Self { engine: EngineKind::Sqlite, url: String::new(), readers: 4, group: 512, connect, answer }
    }
}

/// One value in a row or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Any integer, boolean or time.
    Int(i64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(bytes::Bytes),
}

impl Value {
    /// A count; what no engine could hold becomes the largest number it can.
    pub(crate) fn unsigned(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// Text by copy.
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A hash by copy.
    pub(crate) fn hash(hash: &[u8; 32]) -> Self {
        Self::Blob(bytes::Bytes::copy_from_slice(hash))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<bytes::Bytes> for Value {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::Blob(bytes)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::unsigned(number)
    }
}

/// One row as the engine returned it.
pub type Row = Vec<Value>;

/// One SQL statement with its parameters. Parameters are written `?1`, `?2`, … in either engine's dialect.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The text; static, so that engines can keep it prepared.
    pub sql: &'static str,
    /// Values for `?1`, `?2`, …
    pub params: Vec<Value>,
    /// How many rows it must touch, and what it means when it does not.
    pub must: Option<Must>,
}

/// A statement that does not touch exactly one row makes the whole batch fail with this.
#[derive(Clone, Copy, Debug)]
pub struct Must {
    /// The kind of the failure.
    pub kind: crate::error::Kind,
    /// The text a peer may see.
    pub public: &'static str,
}

/// What an engine applies: statements in order, then history lines chained and inserted.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Applied in order inside one savepoint.
    pub statements: Vec<Statement>,
    /// Lines for the hash chain; the engine numbers and chains them as it commits.
    pub history: Vec<HistoryLine>,
    /// When it must be on the disk.
    pub synced: Synced,
}

/// When a transaction is on the disk. In either case its guards are verified, and seen by every later one, before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synced {
    /// Before it is answered.
    #[default]
    First,
    /// Soon after, together with others: a crash in between forgets it. What PostgreSQL calls an asynchronous commit.
    Soon,
}

/// The seam below the catalog: prepared SQL in, rows out, durable group commit.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Whose history chain and intents it writes.
    fn node(&self) -> &str;

    /// Runs one reading statement on a reader connection.
    async fn read(&self, statement: Statement) -> Result<Vec<Row>>;

    /// Applies each durably or not at all, as if it were alone; all of them, and those of other callers, share one fsync.
    /// One outcome a transaction, in order.
    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<()>>;

    /// The same, and what follows at once: by an engine's own thread where it has one, which saves a way there and back.
    async fn commit_then(&self, transactions: Vec<Transaction>, then: After) {
        then(self.commit(transactions).await, On::Runtime);
    }

    /// Lets reads see the bodies of intents, should they be kept elsewhere.
    async fn show_bodies(&self) -> Result<()> {
        Ok(())
    }

    /// What is wrong with its files while they are open; `None`: nothing that shows.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// True when several daemons may write to it at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// A number that changes when another process (or node) has committed; the hub reloads its snapshots then.
    async fn version(&self) -> Result<i64>;
}

/// What follows a commit: is told the outcomes, and where it runs.
pub type After = Box<dyn FnOnce(Vec<Result<()>>, On) + Send>;

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// A thread that may wait for a disk, a little: every other commit waits meanwhile.
    OwnThread,
    /// A runtime's thread, which may not.
    Runtime,
}

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
    NewGeneration { account: String, at: super::Micros },
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
    Expire(super::Micros),
    /// Takes a lock; `Locked` when one is in the way that it cannot be beside.
    PutLock(LockRow),
    /// Prolongs a lock; `NotFound` when it is not in force any more.
    RefreshLock { token: String, expires: super::Micros },
    /// `Locked` when a lock is held there that is not known.
    Unlocked(lock::LockGuard),
    /// Gives a lock back.
    RemoveLock(String),
    /// One change to the records of mail.
    Mail(mail::MailEdit),
    /// One change to the records of uploads and receipts.
    Upload(uploads::UploadEdit),
    /// One change to properties.
    Property(property::PropertyEdit),
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

/// The records, over whichever engine keeps them. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    engine: Arc<dyn Engine>,
}

impl Catalog {
    /// Wraps an engine whose schema is already at the current version.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// Opens the engine the settings name, migrating the schema forward; `data` is the data folder.
    /// `node` names this daemon's history chain.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached, `Invalid` when its schema is newer than this binary.
    pub async fn open(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        let engine: Arc<dyn Engine> = match settings.engine {
            EngineKind::Sqlite => Arc::new(sqlite::Sqlite::open(&data.join("catalog.db"), node, settings)?),
            EngineKind::Postgres => Arc::new(postgres::Postgres::open(node, settings).await?),
        };
        Ok(Self::new(engine))
    }

    /// The same for a daemon: of those that share a catalog, one runs at a time.
    ///
    /// # Errors
    /// As [`Catalog::open`]; `Unavailable` when another daemon runs on it.
    pub async fn open_alone(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        match settings.engine {
            // The lock of the data folder keeps others away.
            EngineKind::Sqlite => Self::open(settings, data, node).await,
            EngineKind::Postgres => Ok(Self::new(Arc::new(postgres::Postgres::open_alone(node, settings).await?))),
        }
    }

    /// The same, going on with what can be read of a damaged redo log.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn open_damaged(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        match settings.engine {
            EngineKind::Postgres => Self::open(settings, data, node).await,
            EngineKind::Sqlite => {
                let file = data.join("catalog.db");
                Ok(Self::new(Arc::new(sqlite::Sqlite::open_with(&file, node, settings, true)?)))
            }
        }
    }

    /// See [`Engine::trouble`].
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.engine.trouble()
    }

    /// Asks one short question, of a reader and of the writer.
    ///
    /// # Errors
    /// `Unavailable` when either cannot answer.
    pub async fn ask_for_life(&self) -> Result<()> {
        self.usage("").await?;
        self.engine.version().await.map(drop)
    }

    /// Makes a batch durable, or fails leaving nothing.
    ///
    /// # Errors
    /// The first guard's kind; `Unavailable` when the engine cannot write (disk full, connection lost).
    pub async fn commit(&self, batch: Batch) -> Result<()> {
        let outcome = self.commit_each(vec![batch]).await.pop();
        outcome.unwrap_or_else(|| Err(Error::internal("the engine did not say what became of a commit")))
    }

    /// Makes several batches durable together, each whole or not at all; one outcome a batch, in order.
    pub async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<()>> {
        let node = self.engine.node();
        self.engine.commit(batches.into_iter().map(|batch| sql::transaction(batch, node)).collect()).await
    }

    /// See [`Engine::commit_then`].
    pub async fn commit_then(&self, batches: Vec<(Batch, Synced)>, then: After) {
        let node = self.engine.node();
        let transaction = |(batch, synced)| Transaction { synced, ..sql::transaction(batch, node) };
        let transactions = batches.into_iter().map(transaction).collect();
        self.engine.commit_then(transactions, then).await;
    }

    /// See [`Engine::is_shared`].
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }

    /// See [`Engine::version`].
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be asked.
    pub async fn version(&self) -> Result<i64> {
        self.engine.version().await
    }
}

/// What is left of transactions sent to an engine's thread, with the way to say what became of each.
type Sent = (Vec<Transaction>, Reply);

/// Takes the outcomes.
type Reply = Box<dyn FnOnce(Vec<Result<()>>) + Send>;

/// Several senders' transactions put together for one group, and taken apart again for the answers.
#[derive(Default)]
struct Gathered {
    transactions: Vec<Transaction>,
    waiting: Vec<(usize, Reply)>,
}

impl Gathered {
    fn add(&mut self, (transactions, reply): Sent) {
        self.waiting.push((transactions.len(), reply));
        self.transactions.extend(transactions);
    }

    /// Tells each sender the outcomes of its own. Whoever stopped waiting still has durable transactions; that is
    /// theirs to find out.
    fn answer(self, outcomes: Vec<Result<()>>) {
        let mut outcomes = outcomes.into_iter();
        for (count, reply) in self.waiting {
            reply(outcomes.by_ref().take(count).collect());
        }
    }
}

/// The same word for each of a group: every caller of a lost commit gets an error of its own.
fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.public().to_owned());
    match std::error::Error::source(error) {
        Some(cause) => copy.with(cause.to_string()),
        None => copy,
    }
}
