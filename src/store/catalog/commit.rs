//! Commits of batches: edits become SQL, and the engine makes them durable.

use super::edit::Batch;
use super::engine::{After, Synced, Transaction};
use super::handle::Catalog;
use super::sql;
use crate::error::{Error, Result};

impl Catalog {
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
}
