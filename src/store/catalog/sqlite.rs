//! SQLite: WAL, synchronous=FULL, one writer thread doing group commit.

use std::path::Path;

use async_trait::async_trait;

use super::{CatalogSettings, Engine, Row, Statement, Transaction};
use crate::error::Result;

/// The embedded engine.
pub struct Sqlite {}

impl Sqlite {
    /// Opens or makes the file and brings its schema forward.
    pub fn open(_file: &Path, _node: &str, _settings: &CatalogSettings) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Engine for Sqlite {
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
