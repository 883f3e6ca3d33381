//! FTP (RFC 959 and its successors).

use std::sync::Arc;

use super::{Protocol, Section, Tools};
use crate::error::Result;
use crate::net::Handler;

/// The language.
pub struct Ftp;

impl Protocol for Ftp {
    fn name(&self) -> &'static str {
        "ftp"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    fn open(&self, _section: &Section, _tools: &Tools) -> Result<Arc<dyn Handler>> {
        todo!()
    }
}
