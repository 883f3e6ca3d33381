//! Opens the catalog with the engine that the settings name.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::handle::Catalog;
use super::postgres::Postgres;
use super::settings::{CatalogSettings, EngineKind};
use super::sqlite::Sqlite;
use crate::error::Result;

impl Catalog {
    /// Opens the engine the settings name, migrating the schema forward; `data` is the data folder.
    /// `node` names this daemon's history chain.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached, `Invalid` when its schema is newer than this binary.
    pub async fn open(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        let engine: Arc<dyn Engine> = match settings.engine {
            EngineKind::Sqlite => Arc::new(Sqlite::open(&data.join("catalog.db"), node, settings)?),
            EngineKind::Postgres => Arc::new(Postgres::open(node, settings).await?),
        };
        Ok(Self::new(engine))
    }

    /// The same for a daemon: of those that share a catalog, one runs at a time.
    ///
    /// # Errors
    /// As [`Catalog::open`]; `Unavailable` when another daemon runs on it.
    pub async fn open_alone(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        match settings.engine {
            // The lock of the data folder keeps others away.
            EngineKind::Sqlite => Self::open(settings, data, node).await,
            EngineKind::Postgres => Ok(Self::new(Arc::new(Postgres::open_alone(node, settings).await?))),
        }
    }

    /// The same, going on with what can be read of a damaged redo log.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn open_damaged(settings: &CatalogSettings, data: &Path, node: &str) -> Result<Self> {
        match settings.engine {
            EngineKind::Postgres => Self::open(settings, data, node).await,
            EngineKind::Sqlite => {
                let file = data.join("catalog.db");
                Ok(Self::new(Arc::new(Sqlite::open_with(&file, node, settings, true)?)))
            }
        }
    }
}
