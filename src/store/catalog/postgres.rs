//! PostgreSQL: one committer per node doing group commit in pipelined transactions, and a pool for reading.
//!
//! Everything that talks to the server lives on one thread with a runtime of its own, so that no connection depends
//! on which of the daemon's runtimes opened the catalog. A lost connection fails what was under way and is made anew
//! for what comes next.

mod address;
mod committer;
mod lease;
mod link;
mod pool;
mod schema;
mod values;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::engine::copy;
use super::{CatalogSettings, Engine, Row, Statement, Transaction};
use crate::error::{Error, Kind, Result};
use address::Address;
use committer::{Committer, Job};
use pool::{Question, Readers};

/// Transactions and reads that may wait before their callers have to.
const QUEUE: usize = 1024;

/// Most connections for reading and most transactions a group, whatever the settings say.
const MOST_READERS: u32 = 256;
const LARGEST_GROUP: u32 = 4096;

/// The shared engine.
pub struct Postgres {
    node: String,
    writes: mpsc::Sender<Job>,
    reads: mpsc::Sender<Question>,
}

impl Postgres {
    /// Connects and brings its schema forward.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    pub async fn open(node: &str, settings: &CatalogSettings) -> Result<Self> {
        Self::open_as(node, settings, false).await
    }

    /// The same for a daemon: no other daemon may have this catalog, now or as long as this one is connected.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached, or another daemon has it.
    pub async fn open_alone(node: &str, settings: &CatalogSettings) -> Result<Self> {
        Self::open_as(node, settings, true).await
    }

    async fn open_as(node: &str, settings: &CatalogSettings, alone: bool) -> Result<Self> {
        let address = Address::read(settings, node)?;
        let group = settings.group.clamp(1, LARGEST_GROUP) as usize;
        let connections = settings.readers.clamp(1, MOST_READERS) as usize;
        let (writes, jobs) = mpsc::channel(QUEUE);
        let (reads, questions) = mpsc::channel(QUEUE);
        let (ready, opened) = oneshot::channel::<Result<()>>();
        let name = node.to_owned();
        let serve = async move {
            let started: Result<_> = async {
                let readers = Readers::new(&address, connections)?;
                let mut committer = Committer::new(address, &name, alone);
                committer.prepare_schema().await?;
                Ok((committer, readers))
            }
            .await;
            match started {
                Err(error) => drop(ready.send(Err(error))),
                Ok((committer, readers)) => {
                    let _ = ready.send(Ok(()));
                    tokio::join!(committer.run(jobs, group), readers.run(questions));
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        std::thread::Builder::new()
            .name("catalog-postgres".to_owned())
            .spawn(move || runtime.block_on(serve))
            .map_err(no_thread)?;
        opened.await.map_err(|_| closed())??;
        Ok(Self { node: node.to_owned(), writes, reads })
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(job(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

#[async_trait]
impl Engine for Postgres {
    fn node(&self) -> &str {
        &self.node
    }

    async fn read(&self, statement: Statement) -> Result<Vec<Row>> {
        let (reply, answer) = oneshot::channel();
        self.reads.send(Question { statement, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn commit(&self, transactions: Vec<Transaction>) -> Vec<Result<()>> {
        let count = transactions.len();
        let job = |reply: oneshot::Sender<_>| {
            Job::Commit((transactions, Box::new(move |outcomes| drop(reply.send(outcomes)))))
        };
        match self.write(job).await {
            Ok(outcomes) => outcomes,
            Err(error) => (0..count).map(|_| Err(copy(&error))).collect(),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn version(&self) -> Result<i64> {
        self.write(Job::Version).await?
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, "cannot start a thread for the catalog").with(error)
}

fn closed() -> Error {
    Error::new(Kind::Unavailable, "the catalog is closed")
}
