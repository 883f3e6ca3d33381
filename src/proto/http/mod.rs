//! HTTP (RFC 9110, 9112, 9113): the tree at its own paths, our pages under `/-/`.
//!
//! hyper speaks the wire; everything a request does is a call of the caller behind it, as at every other door.

pub mod admin;
mod admit;
mod archive;
mod base;
mod body;
mod cache;
mod change;
mod coding;
mod compress;
mod condition;
mod connect;
mod cors;
mod date;
mod dav;
mod disposition;
mod download;
mod extent;
mod failed;
mod fast_path;
mod file_answer;
mod form;
mod forwarded;
mod front;
mod head;
mod listing;
mod mime;
mod multipart;
mod natural;
mod page;
mod pager;
mod pattern;
mod pulse;
mod range;
mod receipt;
mod reply;
mod route;
mod save_as;
mod second;
mod sendfile;
mod serve;
mod settings;
mod shown;
mod sibling;
mod signin;
mod sites;
mod target;
mod tus;
mod unsent;
mod upload;
mod visit;
mod wire;

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use super::{Protocol, Section, Tools};
use crate::error::Result;
use crate::hub::LetGo;
use crate::net::{Handler, Link};

use settings::Rules;
pub use settings::Settings;
pub use sites::SiteSettings;

/// The language.
pub struct Http;

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let rules = Arc::new(Rules::new(section.settings()?)?);
        let cache = Arc::new(cache::Cache::new(rules.settings.cache.0));
        let keeper: Arc<dyn LetGo> = cache.clone();
        tools.hub.keeps_open(Arc::downgrade(&keeper));
        let fast_path = fast_path::FastPath { cache, hub: tools.hub.clone(), rules: rules.clone() };
        let site = Arc::new(route::Tree { rules, hub: tools.hub.clone(), fast_path });
        Ok(Arc::new(Door { site }))
    }
}

/// A configured site behind hyper.
struct Door<S> {
    site: Arc<S>,
}

impl<S: serve::Site> Handler for Door<S> {
    fn alpn(&self) -> &'static [&'static [u8]] {
        serve::ALPN
    }

    /// As `async_trait` would write it, but that the link is not kept beside what is made of it.
    fn serve<'a, 'b>(&'a self, link: Link) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(serve::serve(self.site.clone(), link))
    }
}
