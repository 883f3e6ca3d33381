//! The lane for later: transactions whose callers were answered already and wait for nothing.
//!
//! Applied one by one, each would cost its way to the writer's thread; a moment's worth of them shares it. Whatever else is asked for
//! comes after them, so nobody can see that they wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::writer::Writer;
use crate::store::catalog::{Gathered, Sent};

/// The first one waits no longer for others.
const GATHER: Duration = Duration::from_millis(10);

/// More do not wait.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Lane {
    waiting: Mutex<Vec<Sent>>,
    /// Those not applied yet.
    count: AtomicUsize,
}

impl Lane {
    pub(super) fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds one; true when the writer has to be told.
    pub(super) fn push(&self, sent: Sent) -> bool {
        let mut waiting = self.waiting.lock();
        self.count.fetch_add(1, Ordering::AcqRel);
        waiting.push(sent);
        waiting.len() == 1
    }
}

impl Writer {
    /// Somebody left something: it is applied soon.
    pub(super) fn gather(&mut self) {
        self.lane_due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Applies what was left so far.
    pub(super) fn clear_lane(&mut self) {
        self.lane_due = None;
        let waiting = std::mem::take(&mut *self.lane.waiting.lock());
        if waiting.is_empty() {
            return;
        }
        let count = waiting.len();
        let mut gathered = Gathered::default();
        for sent in waiting {
            gathered.add(sent);
        }
        self.written.get_or_insert_with(std::time::Instant::now);
        let outcomes = self.write(std::mem::take(&mut gathered.transactions));
        // From here on the trail tells readers.
        self.lane.count.fetch_sub(count, Ordering::AcqRel);
        gathered.answer(outcomes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Result;
    use crate::store::catalog::sql::transaction;
    use crate::store::catalog::sqlite::Sqlite;
    use crate::store::catalog::{Batch, Edit, Engine, On, Statement, Synced, Transaction, Value};
    use crate::store::{CatalogSettings, Expect, FileRow};

    fn put(path: &str) -> Transaction {
        let row = FileRow { space: "/s".into(), path: path.into(), ..FileRow::default() };
        let batch = Batch { edits: vec![Edit::PutFile(row, Expect::Absent)] };
        Transaction { synced: Synced::Soon, ..transaction(batch, "one") }
    }

    fn open(folder: &tempfile::TempDir) -> Sqlite {
        Sqlite::open(&folder.path().join("catalog.db"), "one", &CatalogSettings::default()).expect("a catalog")
    }

    async fn count(open: &Sqlite) -> Value {
        let count = Statement { sql: "SELECT count(*) FROM files", params: Vec::new(), must: None };
        open.read(count).await.expect("rows").remove(0).remove(0)
    }

    /// Leaves one and gives what became of it.
    fn leave(open: &Sqlite, path: &str) -> tokio::sync::oneshot::Receiver<Result<()>> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let then = move |mut outcomes: Vec<Result<()>>, on| {
            assert_eq!(on, On::OwnThread);
            let _ = tell.send(outcomes.remove(0));
        };
        open.commit_later(put(path), Box::new(then));
        told
    }

    #[tokio::test]
    async fn whoever_reads_or_writes_comes_after_what_was_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = open(&folder);
        for round in 0..50_i64 {
            let told = leave(&open, &format!("{round}"));
            if round % 2 == 0 {
                assert_eq!(count(&open).await, Value::Int(round + 1));
            } else {
                let same = open.commit(vec![put(&format!("{round}"))]).await;
                assert!(same.iter().all(Result::is_err), "what was left is there already");
            }
            told.await.expect("an answer").expect("recorded");
        }
    }

    #[tokio::test]
    async fn it_is_applied_soon_although_nobody_asks_and_one_that_fails_fails_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = open(&folder);
        let told = ["a", "b", "a", "c"].map(|path| leave(&open, path));
        let mut outcomes = Vec::new();
        for one in told {
            outcomes.push(one.await.expect("an answer").is_ok());
        }
        assert_eq!(outcomes, [true, true, false, true]);
        assert_eq!(count(&open).await, Value::Int(3));
    }

    #[tokio::test]
    async fn what_is_left_when_it_closes_is_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = open(&folder);
        let told = leave(&first, "a");
        drop(first);
        told.await.expect("an answer").expect("recorded");
        assert_eq!(count(&open(&folder)).await, Value::Int(1));
    }

    #[test]
    fn a_full_lane_takes_no_more_and_only_the_first_wakes_the_writer() {
        let lane = Arc::new(Lane::default());
        let told: Vec<bool> = (0..MOST).map(|_| lane.push((Vec::new(), Box::new(|_| {})))).collect();
        assert!(told.first() == Some(&true) && told.iter().skip(1).all(|told| !told));
        assert!(!lane.has_room() && !lane.is_empty());
    }
}
