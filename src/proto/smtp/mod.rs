//! SMTP (RFC 5321): the door mail comes in by. It takes mail for our own domains and relays nothing, ever.

pub mod address;
pub mod command;
pub mod reply;

use std::sync::Arc;

use super::{Protocol, Section, Tools};
use crate::error::Result;
use crate::net::Handler;

/// The language.
pub struct Smtp;

impl Protocol for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    fn open(&self, _section: &Section, _tools: &Tools) -> Result<Arc<dyn Handler>> {
        todo!()
    }
}
