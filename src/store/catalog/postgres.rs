//! PostgreSQL: one committer per node, batches in savepoints, pipelined.

use async_trait::async_trait;

use super::{CatalogSettings, Engine, Row, Statement, Transaction};
use crate::error::Result;

/// The shared engine.
pub struct Postgres {}

impl Postgres {
    /// Connects and brings its schema forward.
    pub async fn open(_node: &str, _settings: &CatalogSettings) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Engine for Postgres {
    fn node(&self) -> &str {
        ""
    }
    async fn read(&self, _statement: Statement) -> Result<Vec<Row>> {
        todo!()
    }
    async fn commit(&self, _transaction: Transaction) -> Result<()> {
        todo!()
    }
    async fn version(&self) -> Result<i64> {
        todo!()
    }
}
