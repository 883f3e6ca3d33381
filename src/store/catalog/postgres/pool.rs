//! Reads: a pool of connections, as many questions at once as it has.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::NoTls;

use super::address::Address;
use super::values::{dialect, row, word};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::{Row, Statement};

/// A statement and who waits for its rows.
pub(super) struct Question {
    pub statement: Statement,
    pub reply: oneshot::Sender<Result<Vec<Row>>>,
}

/// The reading connections.
pub(super) struct Readers {
    pool: Pool,
    free: Arc<Semaphore>,
    /// Rows must come in this time: twice what a change may take, for many of them may be looked through.
    longest: Duration,
}

impl Readers {
    pub(super) fn new(address: &Address, connections: usize) -> Result<Self> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &address.tls {
            None => Manager::from_config(address.config.clone(), NoTls, recycling),
            Some(tls) => Manager::from_config(address.config.clone(), tls.clone(), recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(connections)
            .wait_timeout(Some(address.answer * 2))
            .create_timeout(Some(address.connect * 2))
            .recycle_timeout(Some(address.connect))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(Error::internal)?;
        Ok(Self { pool, free: Arc::new(Semaphore::new(connections)), longest: address.answer * 2 })
    }

    /// Answers until nobody can ask any more.
    pub(super) async fn run(self, mut questions: mpsc::Receiver<Question>) {
        while let Ok(permit) = self.free.clone().acquire_owned().await {
            let Some(Question { statement, mut reply }) = questions.recv().await else { return };
            let (pool, longest) = (self.pool.clone(), self.longest);
            tokio::spawn(async move {
                tokio::select! {
                    // The asker went away: nobody needs the rows.
                    () = reply.closed() => return,
                    rows = answer(&pool, &statement, longest) => drop(reply.send(rows)),
                }
                drop(permit);
            });
        }
    }
}

/// Asks on one connection, and once more on another: the first may have died while nobody used it.
async fn answer(pool: &Pool, statement: &Statement, longest: Duration) -> Result<Vec<Row>> {
    match ask(pool, statement, longest).await {
        Err(error) if error.kind() == Kind::Unavailable => ask(pool, statement, longest).await,
        other => other,
    }
}

async fn ask(pool: &Pool, statement: &Statement, longest: Duration) -> Result<Vec<Row>> {
    let client = pool.get().await.map_err(|error| match error {
        deadpool_postgres::PoolError::Backend(error) => {
            Error::new(Kind::Unavailable, "the catalog's PostgreSQL cannot be reached").with(error)
        }
        error => Error::new(Kind::Unavailable, "no connection to the catalog is free").with(error),
    })?;
    let rows = async {
        let prepared = client.prepare_cached(&dialect(statement.sql)).await.map_err(word)?;
        let params = statement.params.iter().map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync));
        let rows = client.query(&prepared, &params.collect::<Vec<_>>()).await.map_err(word)?;
        rows.iter().map(row).collect()
    };
    if let Ok(rows) = tokio::time::timeout(longest, rows).await {
        return rows;
    }
    // Its answer may still arrive: nobody else may take this connection.
    drop(Object::take(client));
    Err(Error::new(Kind::Unavailable, "the catalog did not answer in time"))
}
