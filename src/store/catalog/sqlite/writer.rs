//! The one writing connection: takes every waiting transaction, applies them in order, makes all durable at once and answers.
//!
//! How they become durable, and what becomes of the others when one of them fails: see [`super::trail`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, OptionalExtension};
use tokio::sync::oneshot;

use super::connection::{rows, word};
use super::reader::Question;
use super::record::Between;
use super::redo::Redo;
use super::turn::Turn;
use super::uncommitted::Uncommitted;
use crate::error::{Error, Kind, Result};
use crate::store::catalog::chain::{HEAD, Head};
use crate::store::catalog::gather::Sent;
use crate::store::catalog::migrations;
use crate::store::catalog::rows::HistoryLine;
use crate::store::catalog::sql::INTENT;
use crate::store::catalog::{Statement, Transaction, Value};

/// What the writer is asked for.
pub(super) enum Job {
    Commit(Sent),
    /// Let readers see everything that was answered.
    Settle(oneshot::Sender<Result<()>>),
    /// Put every body of an intent where readers see it.
    Bodies(oneshot::Sender<Result<()>>),
    /// A read that must see it although it cannot be committed.
    Ask(Question),
    Version(oneshot::Sender<Result<i64>>),
}

/// The writing connection and the head of this node's history.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) node: String,
    pub(super) head: Option<Head>,
    pub(super) uncommitted: Uncommitted,
    pub(super) turn: Turn,
    /// Where the catalog is.
    pub(super) file: PathBuf,
    /// Where the redo log is.
    pub(super) log: PathBuf,
    /// A damaged log is taken in as far as it can be read.
    pub(super) lenient: bool,
    /// This is a clean end.
    pub(super) ending: bool,
    /// `None` while another process has it: then each group is committed before it is answered.
    pub(super) redo: Option<Redo>,
    /// Intents whose bodies are in the log alone; `None`: bodies go into the catalog.
    pub(super) bodies: Option<BTreeMap<i64, Between>>,
    /// When something was written that no idle moment has copied back yet.
    pub(super) written: Option<Instant>,
}

impl Writer {
    /// Opens the file for writing and brings its schema forward.
    #[cfg(test)]
    pub(super) fn open(
        file: &std::path::Path,
        node: &str,
        ahead: std::sync::Arc<std::sync::atomic::AtomicBool>,
    ) -> Result<Self> {
        Self::open_with(file, node, ahead, false)
    }

    /// The format of the schema; `None` where there is no catalog yet, or none of ours.
    pub(super) fn format(&self) -> Result<Option<String>> {
        match self.connection.query_row(migrations::FORMAT, [], |row| row.get(0)).optional() {
            // No such table or column.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(None),
            format => format.map_err(word),
        }
    }

    pub(super) fn roll_back(&mut self) {
        self.head = None;
        if !self.connection.is_autocommit() {
            // Should even this fail, the next BEGIN says so and its group fails too.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.end_turn();
    }

    /// Others may write, unless something answered is still to be applied again.
    pub(super) fn end_turn(&mut self) {
        if self.uncommitted.is_empty() {
            self.turn.give_back();
        }
    }

    /// Opens a transaction, or goes on in the one that is open ahead of its commit.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        self.turn.take()?;
        let begun = self.run_words("BEGIN IMMEDIATE").map_err(lost);
        if begun.is_err() {
            self.end_turn();
        }
        begun
    }

    pub(super) fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        for statement in &transaction.statements {
            let touched = match self.bodies.is_some() && statement.sql == INTENT {
                // It is in the redo log and hardly ever needed again: it is spared the way through the catalog's pages.
                true => self.touch_with(statement.sql, statement.params.iter().map(but_body))?,
                false => self.touch(statement)?,
            };
            if let Some(must) = statement.must
                && touched != 1
            {
                return Err(Error::new(must.kind, must.public));
            }
        }
        transaction.history.iter().try_for_each(|line| self.append(line))
    }

    /// Chains one line. Another process may have written under this node's name since the head was read: once again then.
    fn append(&mut self, line: &HistoryLine) -> Result<()> {
        for _ in 0..2 {
            let mut head = match self.head {
                Some(head) => head,
                None => self.read_head()?,
            };
            let statement = head.append(&self.node, line);
            if self.touch(&statement)? == 1 {
                self.head = Some(head);
                return Ok(());
            }
            self.head = None;
        }
        Err(Error::new(Kind::Conflict, "another process is writing the history under this node's name"))
    }

    fn read_head(&self) -> Result<Head> {
        let statement = Statement { sql: HEAD, params: vec![Value::text(&self.node)], must: None };
        Head::from_rows(&rows(&self.connection, &statement)?)
    }

    pub(super) fn touch(&self, statement: &Statement) -> Result<usize> {
        self.touch_with(statement.sql, statement.params.iter())
    }

    fn touch_with<'a>(&self, sql: &str, params: impl Iterator<Item = &'a Value>) -> Result<usize> {
        let mut prepared = self.connection.prepare_cached(sql).map_err(word)?;
        let params = rusqlite::params_from_iter(params);
        if prepared.column_count() == 0 {
            return prepared.execute(params).map_err(word);
        }
        // A guard that changes nothing: what it finds is what it touched.
        prepared.exists(params).map(usize::from).map_err(word)
    }

    pub(super) fn run_words(&self, words: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(words)?.execute([]).map(drop)
    }

    /// On the writing connection this number changes only by what other connections commit.
    pub(super) fn version(&self) -> Result<i64> {
        self.connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(word)
    }
}

/// A parameter of an intent's statement, whose only bytes are the body.
fn but_body(value: &Value) -> &Value {
    static NONE: Value = Value::Null;
    if let Value::Blob(_) = value { &NONE } else { value }
}

/// A group that could not begin or commit is nobody's fault: whatever it was, it may work later.
pub(super) fn lost(error: rusqlite::Error) -> Error {
    let error = word(error);
    match error.kind() {
        Kind::Corrupt | Kind::Full | Kind::Unavailable => error,
        _ => Error::new(Kind::Unavailable, "the catalog could not be written").with(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::sql::transaction;
    use crate::store::catalog::sqlite::Sqlite;
    use crate::store::catalog::{Batch, Edit, Engine as _, On};
    use crate::store::{Expect, FileRow, IntentRow};

    fn writer(folder: &tempfile::TempDir) -> Writer {
        Writer::open(&folder.path().join("catalog.db"), "one", std::sync::Arc::default()).expect("a catalog")
    }

    fn put(path: &str) -> Transaction {
        let row = FileRow { space: "/s".into(), path: path.into(), ..FileRow::default() };
        let line = Edit::History(HistoryLine { path: path.into(), ..HistoryLine::default() });
        transaction(Batch { edits: vec![Edit::PutFile(row, Expect::Absent), line] }, "one")
    }

    fn large(id: i64) -> Transaction {
        let row = IntentRow { id, space: "/s".into(), change: "x".repeat(256 * 1024), body: None };
        transaction(Batch { edits: vec![Edit::Intent(row)] }, "one")
    }

    fn limit_pages(writer: &Writer, pages: i64) {
        let set = format!("PRAGMA max_page_count = {pages}");
        writer.connection.query_row(&set, [], |_| Ok(())).expect("a limit");
    }

    #[test]
    fn a_full_disk_fails_what_it_must_and_the_next_group_works() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(vec![put("a"), put("b")]).iter().all(Result::is_ok));
        limit_pages(&writer, 1);
        let outcomes = writer.write(vec![put("c"), large(1), put("d")]);
        let refused = outcomes.get(1).and_then(|outcome| outcome.as_ref().err()).expect("no room");
        assert_eq!(refused.kind(), Kind::Full);
        limit_pages(&writer, 1_000_000);
        assert!(writer.write(vec![large(1), put("e")]).iter().all(Result::is_ok));
        writer.settle().expect("a commit");
        let head = writer.read_head().expect("a head");
        assert_eq!(writer.head, Some(head), "the remembered head is the one on the disk");
        // What was acknowledged is there, and nothing else.
        for (path, outcome) in ["c", "-", "d"].iter().zip(&outcomes) {
            let sql = "SELECT count(*) FROM files WHERE path = ?1";
            let there: i64 = writer.connection.query_row(sql, [path], |row| row.get(0)).expect("a count");
            assert_eq!(there == 1, outcome.is_ok() && *path != "-");
        }
    }

    #[tokio::test]
    async fn what_follows_a_commit_may_break_and_the_next_commit_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = crate::store::CatalogSettings::default();
        let open = Sqlite::open(&folder.path().join("catalog.db"), "one", &settings).expect("a catalog");
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let then = move |outcomes: Vec<Result<()>>, on| {
            let _ = tell.send((outcomes.iter().all(Result::is_ok), on));
            panic!("on purpose");
        };
        open.commit_then(vec![put("a")], Box::new(then)).await;
        assert_eq!(told.recv(), Ok((true, On::OwnThread)));
        assert!(open.commit(vec![put("b")]).await.iter().all(Result::is_ok));
    }

    #[test]
    fn a_group_that_cannot_begin_fails_whole_and_the_next_works() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        let other = Connection::open(folder.path().join("catalog.db")).expect("another process");
        writer.connection.busy_timeout(std::time::Duration::ZERO).expect("no waiting");
        other.execute_batch("BEGIN IMMEDIATE").expect("the other writes");
        for outcome in writer.write(vec![put("a"), put("b")]) {
            assert_eq!(outcome.expect_err("busy").kind(), Kind::Unavailable);
        }
        other.execute_batch("ROLLBACK").expect("the other ends");
        assert!(writer.write(vec![put("a"), put("b")]).iter().all(Result::is_ok));
    }

    #[test]
    fn a_database_of_someone_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("catalog.db");
        let other = Connection::open(&file).expect("a database");
        other.execute_batch("CREATE TABLE meta (key TEXT, value TEXT)").expect("a table of theirs");
        assert_eq!(Writer::open(&file, "one", std::sync::Arc::default()).err().expect("refused").kind(), Kind::Invalid);
        std::fs::write(folder.path().join("text"), "not a database at all, but long enough to be one").expect("a file");
        let refused =
            Writer::open(&folder.path().join("text"), "one", std::sync::Arc::default()).err().expect("refused");
        assert_eq!(refused.kind(), Kind::Corrupt);
        assert!(refused.public().contains("text"), "{refused}");
    }

    #[test]
    fn the_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("catalog.db");
        let settings = crate::store::CatalogSettings::default();
        let open = Sqlite::open(&file, "one", &settings).expect("a catalog");
        for name in ["catalog.db", "catalog.db-wal"] {
            let mode = folder.path().join(name).metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        drop(open);
        assert!(!folder.path().join("catalog.db-wal").exists(), "a clean close leaves one file");
    }
}
