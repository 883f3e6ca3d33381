//! HTTP (RFC 9110, 9112, 9113): the tree at its own paths, our pages under `/-/`.
//!
//! hyper speaks the wire; everything a request does is a call of the caller behind it, as at every other door.

pub mod admin;
mod archive;
mod body;
mod cache;
mod change;
mod condition;
mod date;
mod download;
mod express;
mod extent;
mod form;
mod front;
mod head;
mod listing;
mod mime;
mod multipart;
mod page;
mod pulse;
mod range;
mod receipt;
mod reply;
mod route;
mod sendfile;
mod serve;
mod signin;
mod target;
mod tus;
mod upload;
mod visit;
mod wire;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Protocol, Section, Tools};
use crate::error::Result;
use crate::net::{Handler, Link};
use crate::units::ByteSize;

/// The language.
pub struct Http;

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Take Basic passwords without TLS from other machines too, for labs.
    pub basic_in_clear: bool,
    /// Memory for responses that are asked for often; 0: none are kept.
    pub cache: ByteSize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { basic_in_clear: false, cache: ByteSize(64 << 20) }
    }
}

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let settings: Settings = section.settings()?;
        let express = express::Express { cache: cache::Cache::new(settings.cache.0), hub: tools.hub.clone() };
        let site = Arc::new(route::Tree { settings, hub: tools.hub.clone(), express });
        Ok(Arc::new(Door { site }))
    }
}

/// A configured site behind hyper.
struct Door<S> {
    site: Arc<S>,
}

#[async_trait]
impl<S: serve::Site> Handler for Door<S> {
    fn alpn(&self) -> &'static [&'static [u8]] {
        serve::ALPN
    }

    async fn serve(&self, link: Link) -> io::Result<()> {
        serve::serve(self.site.clone(), link).await
    }
}
