//! HTTP (RFC 9110).

pub mod admin;

use std::sync::Arc;

use super::{Protocol, Section, Tools};
use crate::error::Result;
use crate::net::Handler;

/// The language.
pub struct Http;

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    fn open(&self, _section: &Section, _tools: &Tools) -> Result<Arc<dyn Handler>> {
        todo!()
    }
}
