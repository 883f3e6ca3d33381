//! `[catalog]`: which engine keeps the records, and where.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Which engine keeps the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `PostgreSQL` (or one that speaks it): several daemons on one catalog.
    Postgres,
    /// The embedded default: one file under the data folder.
    #[default]
    Sqlite,
}

/// `[catalog]`: where the records are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogSettings {
    /// `sqlite` (embedded, one machine) or `postgres` (several machines).
    pub engine: EngineKind,
    /// `postgres://user@host/db`; `file:/path` or `credential:NAME` to read that text from there.
    pub url: String,
    /// Connections kept open for reading.
    pub readers: u32,
    /// Batches made durable by one fsync at most.
    pub group: u32,
    /// PostgreSQL: a connection must be made in this time.
    pub connect: Span,
    /// PostgreSQL: a question that is not answered in this time is given up with its connection.
    pub answer: Span,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        let (connect, answer) = (Span(Duration::from_secs(5)), Span(Duration::from_secs(30)));
        Self { engine: EngineKind::Sqlite, url: String::new(), readers: 4, group: 512, connect, answer }
    }
}
