//! The admin listener: health and metrics, never on a public address.

use std::sync::Arc;

use crate::error::Result;
use crate::net::Handler;
use crate::proto::{Protocol, Section, Tools};

/// The language.
pub struct Admin;

impl Protocol for Admin {
    fn name(&self) -> &'static str {
        "admin"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    fn open(&self, _section: &Section, _tools: &Tools) -> Result<Arc<dyn Handler>> {
        todo!()
    }
}
