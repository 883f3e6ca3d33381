//! Ahead of the commit: transactions that were verified, applied and answered, and are committed together a little later.
//!
//! Each is applied in the one transaction that is open, so its guards see all that came before it and balances stay exact. What must be on the
//! disk before it is answered is there in the redo log ([`super::redo`]); what need not (a space with `durable = false`) is noted in it too, so that
//! all can be done again in order. The commit comes with the next read, when many wait, or when the first has waited long enough.
//!
//! A transaction that fails undoes those that were answered, and they are applied again from here: guards hardly ever fail, and a savepoint
//! each would cost a copy of every page they touch.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::redo::Redo;
use super::writer::{Job, Writer, lost};
use crate::error::Result;
use crate::store::catalog::engine::copy;
use crate::store::catalog::{Synced, Transaction};

/// When a commit that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Other processes (the command line) get a turn to write between two long transactions.
const BREATH: Duration = Duration::from_millis(1);

impl Writer {
    /// The next job; what was answered ahead is committed when its time comes, and at the end.
    pub(super) fn next_job(&mut self, jobs: &mut mpsc::Receiver<Job>, clock: &Runtime) -> Option<Job> {
        loop {
            let Some(until) = self.uncommitted.until.or_else(|| self.rest_at()) else { return jobs.blocking_recv() };
            let heard = match jobs.try_recv() {
                Ok(job) if Instant::now() < until => return Some(job),
                Ok(job) => Some(job),
                Err(_) => match clock.block_on(async { timeout_at(until, jobs.recv()).await }) {
                    Ok(Some(job)) => return Some(job),
                    Ok(None) | Err(_) => None,
                },
            };
            if self.uncommitted.until.is_some_and(|until| until <= Instant::now()) {
                // Whoever must see it asks again.
                let _ = self.settle();
                std::thread::sleep(BREATH);
            }
            if heard.is_some() {
                return heard;
            }
            self.rest();
            if jobs.is_closed() && jobs.is_empty() {
                return None;
            }
        }
    }

    /// One outcome a transaction; those that are `Ok` are on the disk, unless they need not be.
    pub(super) fn write(&mut self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
        let count = transactions.len();
        if let Err(error) = self.make_way() {
            return (0..count).map(|_| Err(copy(&error))).collect();
        }
        let answered = self.uncommitted.transactions.len();
        let wait = transactions.iter().any(|one| one.synced == Synced::First);
        let mut outcomes: Vec<_> = transactions.into_iter().map(|one| self.go_ahead(one)).collect();
        if wait && let Err(error) = self.make_durable() {
            self.uncommitted.keep(answered);
            self.undo();
            outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(copy(&error)));
        }
        if self.uncommitted.is_long() {
            // The next group says so if it cannot.
            let _ = self.settle();
        }
        outcomes
    }

    /// Before anything new is taken on: everything answered is applied, neither trail nor log has become too long.
    fn make_way(&mut self) -> Result<()> {
        if self.redo.is_none() && self.uncommitted.is_empty() {
            self.take_log()?;
        }
        if self.uncommitted.is_long() || self.redo.as_ref().is_some_and(Redo::is_over) {
            self.settle()?;
            self.renew_log()?;
        }
        self.applied()
    }

    /// All of the trail is in the transaction that is open; none is where there is none.
    pub(super) fn applied(&mut self) -> Result<()> {
        match self.connection.is_autocommit() && !self.uncommitted.is_empty() {
            true => self.retrace(),
            false => Ok(()),
        }
    }

    fn go_ahead(&mut self, transaction: Transaction) -> Result<()> {
        match self.applied().and_then(|()| self.begin()).and_then(|()| self.apply(&transaction)) {
            Ok(()) => {
                if let Some(redo) = &mut self.redo {
                    let place = redo.note(&self.node, &transaction);
                    self.note_bodies(&transaction, place);
                }
                self.uncommitted.push(transaction);
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    /// Everything applied so far is on the disk.
    fn make_durable(&mut self) -> Result<()> {
        match &mut self.redo {
            Some(redo) => redo.sync(),
            None => self.commit(),
        }
    }

    /// Commits what was answered ahead, so that readers see it.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        let committed = self.applied().and_then(|()| self.commit());
        if committed.is_err() {
            self.undo();
            self.uncommitted.due(Instant::now() + AGAIN);
        }
        committed
    }

    /// Commits what is open. With a redo log it is on the disk already and SQLite need not wait for it.
    fn commit(&mut self) -> Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        if let Some(redo) = &self.redo {
            self.set_mark(redo.mark())?;
            self.note_kept(redo)?;
        }
        self.run_words("COMMIT").map_err(lost)?;
        self.uncommitted.keep(0);
        self.end_turn();
        Ok(())
    }

    /// Undoes what is not committed, except what was answered already. That is committed soon, so that those who fail again and again
    /// cannot have it applied again and again.
    fn undo(&mut self) {
        self.roll_back();
        if let Err(error) = self.applied() {
            tracing::warn!(
                error = error.detail(),
                "the catalog cannot be written; what was acknowledged is in the redo log"
            );
        }
    }

    /// Applies again what was answered already and then undone with somebody else's failure: the guards that held hold again.
    fn retrace(&mut self) -> Result<()> {
        self.begin()?;
        let answered = std::mem::take(&mut self.uncommitted.transactions);
        let applied = answered.iter().try_for_each(|transaction| self.apply(transaction));
        self.uncommitted.transactions = answered;
        self.uncommitted.due(Instant::now());
        if applied.is_err() {
            self.roll_back();
            self.uncommitted.due(Instant::now() + AGAIN);
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rusqlite::Connection;

    use super::*;
    use crate::error::{Error, Kind};
    use crate::store::catalog::sql::transaction;
    use crate::store::catalog::sqlite::Sqlite;
    use crate::store::catalog::{Batch, Edit, Engine, Statement, Synced, Value};
    use crate::store::{Expect, FileRow, HistoryLine, IntentRow};

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
        Writer::open(&folder.path().join("catalog.db"), "one", std::sync::Arc::default()).expect("a catalog")
    }

    /// What any other program sees.
    fn paths(folder: &tempfile::TempDir) -> Vec<String> {
        let other = Connection::open(folder.path().join("catalog.db")).expect("another process");
        let mut listed = other.prepare("SELECT path FROM history ORDER BY seq").expect("a query");
        let paths = listed.query_map([], |row| row.get(0)).expect("rows");
        paths.collect::<rusqlite::Result<_>>().expect("paths")
    }

    fn first(path: &str) -> Vec<Transaction> {
        vec![put(path, Synced::First)]
    }

    fn body(id: i64) -> Transaction {
        let row = IntentRow { id, space: "/s".into(), change: "{}".into(), body: Some(vec![7; 5000].into()) };
        transaction(Batch { edits: vec![Edit::Intent(row)] }, "one")
    }

    /// The files as they are now, in another folder: what a daemon finds that starts after this one was killed.
    fn killed(folder: &tempfile::TempDir) -> tempfile::TempDir {
        let other = tempfile::tempdir().expect("a folder");
        for name in ["catalog.db", "catalog.db-wal", "catalog.redo"] {
            std::fs::copy(folder.path().join(name), other.path().join(name)).expect("a copy");
        }
        other
    }

    fn bodies(writer: &Writer) -> Vec<(i64, Option<i64>)> {
        let mut listed =
            writer.connection.prepare("SELECT id, length(body) FROM intents ORDER BY id").expect("a query");
        let rows = listed.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<rusqlite::Result<_>>().expect("intents")
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_kill_and_not_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(soon("a")).iter().chain(&writer.write(first("b"))).all(Result::is_ok));
        assert!(writer.write(soon("c")).iter().all(Result::is_ok));
        assert!(paths(&folder).is_empty(), "nothing is committed yet");
        let other = killed(&folder);
        for _ in 0..2 {
            let again = self::writer(&other);
            assert_eq!(paths(&other), ["a", "b"], "the last one need not be on the disk yet");
            assert_eq!(again.read_mark().expect("a mark").map(|mark| mark.number), Some(0), "the log is begun anew");
        }
        writer.settle().expect("a commit");
        assert_eq!(paths(&folder), ["a", "b", "c"]);
        assert!(writer.write(first("d")).iter().all(Result::is_ok));
        let other = killed(&folder);
        drop(self::writer(&other));
        assert_eq!(paths(&other), ["a", "b", "c", "d"], "only what was not committed is applied");
    }

    #[test]
    fn a_power_cut_that_takes_commits_of_sqlites_own_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(first("a")).iter().all(Result::is_ok));
        let before = killed(&folder);
        writer.settle().expect("a commit that is not synced");
        assert!(writer.write(first("b")).iter().all(Result::is_ok));
        std::fs::copy(folder.path().join("catalog.redo"), before.path().join("catalog.redo")).expect("a copy");
        drop(self::writer(&before));
        assert_eq!(paths(&before), ["a", "b"]);
    }

    #[test]
    fn a_body_is_in_the_log_and_comes_back_where_it_is_still_needed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(vec![body(1), body(2), body(3)]).iter().all(Result::is_ok));
        writer.settle().expect("a commit");
        let clear = transaction(Batch { edits: vec![Edit::ClearIntents(vec![2])] }, "one");
        assert!(writer.write(vec![body(4), clear]).iter().all(Result::is_ok));
        assert_eq!(bodies(&writer), [(1, None), (3, None), (4, None)]);
        let whole = [(1, Some(5000)), (3, Some(5000)), (4, Some(5000))];
        assert_eq!(bodies(&self::writer(&killed(&folder))), whole, "after a kill");
        writer.settle().and_then(|()| writer.renew_log()).expect("a log begun anew");
        assert_eq!(bodies(&writer), whole, "before its log goes");
        assert!(writer.bodies.as_ref().is_some_and(BTreeMap::is_empty));
    }

    #[test]
    fn a_log_that_cannot_be_written_acknowledges_nothing_and_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(first("a")).iter().all(Result::is_ok));
        let real = writer.redo.replace(Redo::take(std::path::Path::new("/dev/full")).expect("a device").expect("free"));
        writer.redo.as_mut().expect("a log").begin(1);
        let outcomes = writer.write(first("b"));
        assert_eq!(outcomes.first().and_then(|one| one.as_ref().err()).map(Error::kind), Some(Kind::Full));
        writer.redo = real;
        writer.redo.as_mut().expect("a log").close();
        assert!(writer.write(first("c")).iter().all(Result::is_ok));
        writer.settle().expect("a commit");
        assert_eq!(paths(&folder), ["a", "c"]);
    }

    #[test]
    fn beside_another_process_each_group_is_committed_before_it_is_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = writer(&folder);
        let mut beside = writer(&folder);
        assert!(beside.redo.is_none());
        assert!(beside.write(first("a")).iter().all(Result::is_ok));
        assert_eq!(paths(&folder), ["a"]);
        drop(daemon);
        assert!(beside.write(first("b")).iter().all(Result::is_ok));
        assert!(beside.redo.is_some(), "nobody has the log any more");
    }

    #[test]
    fn a_log_that_does_not_fit_is_named_and_nothing_of_it_is_applied() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(first("a")).iter().chain(&writer.write(first("b"))).all(Result::is_ok));
        let other = killed(&folder);
        let meddler = Connection::open(other.path().join("catalog.db")).expect("another program");
        let taken = "INSERT INTO files (space, path, size, modified, version, owner) VALUES ('/s', 'b', 0, 0, 1, '')";
        meddler.execute_batch(taken).expect("a row of its own");
        let refused =
            Writer::open(&other.path().join("catalog.db"), "one", std::sync::Arc::default()).err().expect("refused");
        assert!(refused.public().contains("catalog.redo") && refused.public().contains("restore both"), "{refused}");
        assert!(paths(&other).is_empty());
    }

    #[test]
    fn a_log_damaged_before_its_end_is_named_and_nothing_of_it_is_applied() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        for path in ["first", "second", "third"] {
            assert!(writer.write(first(path)).iter().all(Result::is_ok));
        }
        let other = killed(&folder);
        let log = other.path().join("catalog.redo");
        let mut bytes = std::fs::read(&log).expect("a log");
        let at = bytes.windows(6).position(|six| six == b"second").expect("the second record");
        *bytes.get_mut(at).expect("inside") ^= 1;
        std::fs::write(&log, bytes).expect("written");
        let refused =
            Writer::open(&other.path().join("catalog.db"), "one", std::sync::Arc::default()).err().expect("refused");
        assert_eq!(refused.kind(), Kind::Corrupt);
        assert!(refused.public().contains("catalog.redo") && refused.public().contains("record 2"), "{refused}");
        assert!(paths(&other).is_empty());
        let file = other.path().join("catalog.db");
        drop(Writer::open_with(&file, "one", std::sync::Arc::default(), true).expect("what can be read is taken in"));
        assert_eq!(paths(&other), ["first"]);
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
        writer.settle().expect("a commit");
        assert_eq!(paths(&folder), ["a", "b", "c", "d", "e"], "one chain, in order");
    }

    #[test]
    fn nobody_else_writes_while_something_answered_is_not_committed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        let other = std::fs::File::open(folder.path().join("catalog.turn")).expect("a file");
        let free = || other.try_lock().is_ok_and(|()| other.unlock().is_ok());
        assert!(free());
        assert!(writer.write(soon("a")).iter().all(Result::is_ok));
        assert!(writer.write(soon("a")).iter().all(Result::is_err), "undoes both, and the first is applied again");
        writer.roll_back();
        assert!(!free(), "not even between the two");
        writer.settle().expect("a commit");
        assert!(free());
        assert_eq!(paths(&folder), ["a"]);
    }

    #[test]
    fn a_disk_that_fills_up_fails_the_next_and_later_ones_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder);
        assert!(writer.write(soon("a")).iter().all(Result::is_ok));
        writer.settle().expect("a commit");
        let limit = |writer: &Writer, pages: u32| {
            let set = format!("PRAGMA max_page_count = {pages}");
            writer.connection.query_row(&set, [], |_| Ok(())).expect("a limit");
        };
        limit(&writer, 1);
        let long = "x".repeat(9_000);
        assert!(writer.write(soon(&long)).iter().all(Result::is_err));
        limit(&writer, 10_000);
        assert!(writer.write(soon("b")).iter().all(Result::is_ok));
        writer.settle().expect("a commit");
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
