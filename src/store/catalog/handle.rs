//! The catalog as the hub holds it: a handle on whichever engine keeps the records.

use std::sync::Arc;

use super::engine::{Engine, Row, Statement, Value};
use crate::error::Result;

/// The records, over whichever engine keeps them. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    pub(super) engine: Arc<dyn Engine>,
}

impl Catalog {
    /// Wraps an engine whose schema is already at the current version.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// See [`Engine::trouble`].
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.engine.trouble()
    }

    /// See [`Engine::is_shared`].
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }

    /// See [`Engine::version`].
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be asked.
    pub async fn version(&self) -> Result<i64> {
        self.engine.version().await
    }

    /// Asks an engine's reader.
    pub(super) async fn ask(&self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>> {
        self.engine.read(Statement { sql, params, must: None }).await
    }
}
