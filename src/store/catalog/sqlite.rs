//! SQLite behind a redo log: one writer thread doing group commit, readers on threads of their own.
//!
//! `writer` applies transactions in order, `redo` is the file that makes them durable before SQLite commits, `trail` decides when which of
//! the two happens and what is applied again after a failure, `recovery` what after a kill.
//!
//! The file stays an ordinary SQLite database: `sqlite3`, a backup tool and our own command line may open it beside
//! the daemon. Nothing here runs on a runtime's thread; callers only wait for an answer.

mod connection;
mod damage;
mod reader;
mod record;
mod recovery;
mod redo;
mod run;
mod trail;
mod turn;
mod uncommitted;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::engine::{After, Engine, On, Row, Statement, Transaction, copy};
use super::settings::CatalogSettings;
use crate::error::{Error, Kind, Result};

/// Transactions and reads that may wait before their callers have to.
const QUEUE: usize = 1024;

/// Most reader threads and most transactions a group, whatever the settings say.
const MOST_READERS: u32 = 64;
const LARGEST_GROUP: u32 = 8192;

/// The embedded engine.
pub struct Sqlite {
    node: String,
    writes: Option<mpsc::Sender<writer::Job>>,
    reads: Option<mpsc::Sender<reader::Question>>,
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    files: Files,
    /// Something was answered that readers cannot see yet.
    ahead: Arc<AtomicBool>,
}

impl Sqlite {
    /// Opens or makes the file and brings its schema forward.
    ///
    /// # Errors
    /// `Corrupt`: its pages or its redo log are damaged; `Unavailable`.
    pub fn open(file: &Path, node: &str, settings: &CatalogSettings) -> Result<Self> {
        Self::open_with(file, node, settings, false)
    }

    /// The same; `lenient` goes on with what can be read of a damaged redo log.
    ///
    /// # Errors
    /// `Corrupt`: its pages are damaged; `Unavailable`.
    pub fn open_with(file: &Path, node: &str, settings: &CatalogSettings, lenient: bool) -> Result<Self> {
        let place = file.display().to_string();
        // The file holds password hashes; SQLite gives the same mode to the files it makes beside it.
        OpenOptions::new().create(true).append(true).mode(0o600).open(file).map_err(|error| {
            Error::new(Kind::Unavailable, format!("cannot open the catalog {place}: {error}")).with(error)
        })?;
        let group = settings.group.clamp(1, LARGEST_GROUP) as usize;
        let ahead = Arc::new(AtomicBool::new(false));
        let writer = writer::Writer::open_with(file, node, ahead.clone(), lenient)?;
        let (writes, jobs) = mpsc::channel(QUEUE);
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(|error| Error::new(Kind::Unavailable, "the catalog has no clock").with(error))?;
        let writer = thread("catalog-write", move || writer.run(jobs, group, &clock))?;
        let mut readers = Vec::new();
        let (reads, questions) = mpsc::channel(QUEUE);
        let questions = std::sync::Arc::new(parking_lot::Mutex::new(questions));
        for _ in 0..settings.readers.clamp(1, MOST_READERS) {
            let reader = reader::Reader::open(file)?;
            let questions = questions.clone();
            readers.push(thread("catalog-read", move || reader.run(&questions))?);
        }
        Ok(Self {
            node: node.to_owned(),
            writes: Some(writes),
            reads: Some(reads),
            writer: Some(writer),
            readers,
            files: Files::of(file),
            ahead,
        })
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> writer::Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or_else(closed)?;
        writes.send(job(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

impl Drop for Sqlite {
    /// Lets the threads finish what they have and close the file, so that no `-wal` stays behind.
    fn drop(&mut self) {
        // Readers first: the last connection to close copies the log back, and a reader may not.
        self.reads = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Engine for Sqlite {
    fn node(&self) -> &str {
        &self.node
    }

    async fn read(&self, statement: Statement) -> Result<Vec<Row>> {
        if self.ahead.load(Ordering::Acquire) && self.write(writer::Job::Settle).await?.is_err() {
            return self.write(|reply| writer::Job::Ask(reader::Question { statement, reply })).await?;
        }
        let (reply, answer) = oneshot::channel();
        let reads = self.reads.as_ref().ok_or_else(closed)?;
        reads.send(reader::Question { statement, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
        let count = transactions.len();
        let job = |reply: oneshot::Sender<_>| {
            writer::Job::Commit((transactions, Box::new(move |outcomes| drop(reply.send(outcomes)))))
        };
        match self.write(job).await {
            Ok(outcomes) => outcomes,
            Err(error) => (0..count).map(|_| Err(copy(&error))).collect(),
        }
    }

    async fn commit_then(&self, transactions: Vec<Transaction>, then: After) {
        let count = transactions.len();
        let then = Arc::new(parking_lot::Mutex::new(Some(then)));
        let follow = then.clone();
        let job = |reply: oneshot::Sender<()>| {
            let follow = move |outcomes| {
                let then = follow.lock().take();
                // Whatever happens there, the thread that commits for everybody goes on.
                let work = AssertUnwindSafe(|| then.map(|then| then(outcomes, On::OwnThread)));
                drop(std::panic::catch_unwind(work));
                let _ = reply.send(());
            };
            writer::Job::Commit((transactions, Box::new(follow)))
        };
        if let Err(error) = self.write(job).await
            && let Some(then) = then.lock().take()
        {
            then((0..count).map(|_| Err(copy(&error))).collect(), On::Runtime);
        }
    }

    fn trouble(&self) -> Option<String> {
        self.files.trouble()
    }

    async fn show_bodies(&self) -> Result<()> {
        self.write(writer::Job::Bodies).await?
    }

    async fn version(&self) -> Result<i64> {
        self.write(writer::Job::Version).await?
    }
}

/// The files that are open, to notice when somebody removes or replaces them: what is written to them then is lost.
struct Files(Vec<(PathBuf, u64, u64)>);

impl Files {
    fn of(file: &Path) -> Self {
        let with = |end: &str| PathBuf::from(format!("{}{end}", file.display()));
        let there = |path: PathBuf| std::fs::metadata(&path).ok().map(|there| (path, there.dev(), there.ino()));
        let all = [file.to_owned(), with("-wal"), file.with_extension("redo")];
        Self(all.into_iter().filter_map(there).collect())
    }

    fn trouble(&self) -> Option<String> {
        let is_same = |(path, device, inode): &&(PathBuf, u64, u64)| {
            std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (*device, *inode))
        };
        let (path, ..) = self.0.iter().find(|file| !is_same(file))?;
        Some(format!("{} was removed or replaced while it is in use: restart, and restore it", path.display()))
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::new(Kind::Unavailable, "cannot start a thread for the catalog").with(error))
}

fn closed() -> Error {
    Error::new(Kind::Unavailable, "the catalog is closed")
}
