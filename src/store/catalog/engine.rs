//! The seam below the catalog: what every engine takes and gives back.

use async_trait::async_trait;

use super::rows::HistoryLine;
use crate::error::{Error, Kind, Result};

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
    pub kind: Kind,
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

/// The same error again: each caller of a lost commit gets one of its own.
pub(super) fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.public().to_owned());
    match std::error::Error::source(error) {
        Some(cause) => copy.with(cause.to_string()),
        None => copy,
    }
}

pub(super) fn plain(into: &mut Transaction, sql: &'static str, params: Vec<Value>) {
    into.statements.push(Statement { sql, params, must: None });
}

pub(super) fn guarded(into: &mut Transaction, sql: &'static str, params: Vec<Value>, must: Must) {
    into.statements.push(Statement { sql, params, must: Some(must) });
}

pub(super) fn list(items: &[String]) -> Value {
    Value::Text(serde_json::Value::from(items).to_string())
}

/// Rows below a folder are those from the first of these to before the second: `/` sorts just before `0`.
pub(super) fn bounds(folder: &str) -> (String, String) {
    (format!("{folder}/"), format!("{folder}0"))
}

pub(super) fn count(limit: usize) -> Value {
    Value::Int(i64::try_from(limit).unwrap_or(i64::MAX))
}
