//! Ahead of the commit: transactions that were verified, applied and answered, and are committed together a little later.
//!
//! Only those that need not be synced first (a space with `durable = false`). Each is applied in the one transaction that is open, so its guards
//! see all that came before it and balances stay exact; what is spared is a commit of its own: pages written to the log, and a sync.
//! The commit comes with the next transaction that must be synced, with the next read, when many wait, or when the first has waited long enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::writer::{Job, Writer};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::Transaction;

/// The first one waits no longer for its commit.
const LONGEST: Duration = Duration::from_millis(100);

/// More do not wait.
const MOST: usize = 1024;

/// Other processes (the command line) get a turn to write between two long transactions.
const BREATH: Duration = Duration::from_millis(1);

/// What was answered and is not committed yet.
pub(super) struct Trail {
    /// Kept to be applied again, should somebody else's failure undo them.
    transactions: Vec<Transaction>,
    until: Option<Instant>,
    /// Tells readers that there is something they cannot see.
    ahead: Arc<AtomicBool>,
    clock: Runtime,
}

impl Trail {
    pub(super) fn new(ahead: Arc<AtomicBool>) -> Result<Self> {
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(|error| Error::new(Kind::Unavailable, "the catalog has no clock").with(error))?;
        Ok(Self { transactions: Vec::new(), until: None, ahead, clock })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// They are committed.
    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            self.take();
        }
    }

    fn push(&mut self, transaction: Transaction) {
        self.transactions.push(transaction);
        self.until.get_or_insert_with(|| Instant::now() + LONGEST);
        self.ahead.store(true, Ordering::Release);
    }

    fn take(&mut self) -> Vec<Transaction> {
        self.until = None;
        self.ahead.store(false, Ordering::Release);
        std::mem::take(&mut self.transactions)
    }
}

impl Writer {
    /// The next job; what was answered ahead is committed when its time comes, and at the end.
    pub(super) fn next_job(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        loop {
            let Some(until) = self.trail.until else { return jobs.blocking_recv() };
            let heard = match jobs.try_recv() {
                Ok(job) if Instant::now() < until => return Some(job),
                Ok(job) => Some(job),
                Err(_) => match self.trail.clock.block_on(async { timeout_at(until, jobs.recv()).await }) {
                    Ok(Some(job)) => return Some(job),
                    Ok(None) | Err(_) => None,
                },
            };
            self.settle();
            std::thread::sleep(BREATH);
            if heard.is_some() {
                return heard;
            }
        }
    }

    /// Applies and answers, and leaves the commit for later. One outcome a transaction.
    pub(super) fn ahead_of_commit(&mut self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
        let outcomes = transactions.into_iter().map(|one| self.go_ahead(one)).collect();
        if self.trail.transactions.len() >= MOST {
            self.settle();
        }
        outcomes
    }

    fn go_ahead(&mut self, transaction: Transaction) -> Result<()> {
        match self.begin().and_then(|()| self.apply(&transaction)) {
            Ok(()) => {
                self.trail.push(transaction);
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    /// Commits what was answered ahead.
    pub(super) fn settle(&mut self) {
        if !self.trail.is_empty() && self.commit().is_err() {
            self.undo();
        }
    }

    /// Does again and commits what was answered already and then undone with somebody else's failure: the guards that held hold again.
    pub(super) fn retrace(&mut self) {
        let answered = self.trail.take();
        if answered.is_empty() {
            return;
        }
        if let Err(error) = self.at_once(&answered) {
            self.roll_back();
            tracing::error!(
                changes = answered.len(),
                error = error.detail(),
                "the records of changes in spaces with `durable = false` are lost; their files are in place and will be counted again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::catalog::sql::transaction;
    use crate::store::catalog::sqlite::Sqlite;
    use crate::store::catalog::{Batch, Edit, Engine, Statement, Synced, Value};
    use crate::store::{Expect, FileRow, HistoryLine};

    fn put(path: &str, synced: Synced) -> Transaction {
        let row = FileRow { space: "/s".into(), path: path.into(), ..FileRow::default() };
        let line = Edit::History(HistoryLine { path: path.into(), ..HistoryLine::default() });
        let batch = Batch { edits: vec![Edit::PutFile(row, Expect::Absent), line] };
        Transaction { synced, ..transaction(batch, "one") }
    }

    fn soon(path: &str) -> Vec<Transaction> {
        vec![put(path, Synced::Soon)]
    }

    fn writer(folder: &tempfile::TempDir) -> Writer {
        Writer::open(&folder.path().join("catalog.db"), "one", Arc::default()).expect("a catalog")
    }

    /// What any other program sees.
    fn paths(folder: &tempfile::TempDir) -> Vec<String> {
        let other = Connection::open(folder.path().join("catalog.db")).expect("another process");
        let mut listed = other.prepare("SELECT path FROM history ORDER BY seq").expect("a query");
        let paths = listed.query_map([], |row| row.get(0)).expect("rows");
        paths.collect::<rusqlite::Result<_>>().expect("paths")
    }

    #[test]
    fn the_next_synced_transaction_commits_them_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(soon("a")).iter().chain(&writer.write(soon("b"))).all(Result::is_ok));
        assert!(paths(&folder).is_empty(), "nothing is committed yet");
        assert!(writer.write(vec![put("c", Synced::First)]).iter().all(Result::is_ok));
        assert_eq!(paths(&folder), ["a", "b", "c"]);
        assert!(writer.trail.is_empty());
    }

    #[test]
    fn a_guard_sees_them_and_its_failure_undoes_none_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(soon("a")).iter().all(Result::is_ok));
        let outcomes = writer.write(vec![put("b", Synced::Soon), put("a", Synced::Soon), put("c", Synced::Soon)]);
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert!(writer.write(soon("d")).iter().all(Result::is_ok));
        let outcomes = writer.write(vec![put("d", Synced::First), put("e", Synced::First)]);
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true]);
        assert_eq!(paths(&folder), ["a", "b", "c", "d", "e"], "one chain, in order");
    }

    #[test]
    fn a_disk_that_fills_up_fails_the_next_and_later_ones_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(soon("a")).iter().all(Result::is_ok));
        writer.settle();
        let limit = |writer: &Writer, pages: u32| {
            let set = format!("PRAGMA max_page_count = {pages}");
            writer.connection.query_row(&set, [], |_| Ok(())).expect("a limit");
        };
        limit(&writer, 1);
        let long = "x".repeat(9_000);
        assert!(writer.write(soon(&long)).iter().all(Result::is_err));
        limit(&writer, 10_000);
        assert!(writer.write(soon("b")).iter().all(Result::is_ok));
        writer.settle();
        assert_eq!(paths(&folder), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_read_sees_what_was_answered_and_nobody_else_waits_long_to_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("catalog.db");
        let open = Sqlite::open(&file, "one", &crate::store::CatalogSettings::default()).expect("a catalog");
        assert!(open.commit(soon("a")).await.iter().all(Result::is_ok));
        let sql = "SELECT count(*) FROM files WHERE path = ?1";
        let count = Statement { sql, params: vec![Value::text("a")], must: None };
        assert_eq!(open.read(count).await.expect("rows"), [[Value::Int(1)]]);
        assert!(open.commit(soon("b")).await.iter().all(Result::is_ok));
        // Another process gets its turn although nobody asks the daemon for anything more.
        let other = Connection::open(&file).expect("another process");
        other.busy_timeout(Duration::from_secs(30)).expect("patience");
        other.execute_batch("BEGIN IMMEDIATE").expect("a turn");
        let seen = other.query_row("SELECT count(*) FROM files", [], |row| row.get::<_, i64>(0));
        assert_eq!(seen, Ok(2));
        other.execute_batch("ROLLBACK").expect("the end of it");
        assert!(open.commit(soon("c")).await.iter().all(Result::is_ok));
        drop(open);
        assert_eq!(paths(&folder), ["a", "b", "c"], "the last ones are committed when the daemon ends");
    }
}
