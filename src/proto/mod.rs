//! The languages, one folder each, and the loop the line protocols share.
//!
//! A language is one folder, one `mod` line and one line in [`PROTOCOLS`]; nothing else in the daemon names it.

mod beside;
mod bounded;
mod carry;
pub mod converse;
pub mod dialogue;
pub mod ending;
pub mod framing;
pub mod ftp;
pub mod http;
pub mod line;
pub mod pop3;
pub mod sasl;
pub mod smtp;
mod waits;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::{Handler, Tls};

/// What a language found out about itself.
pub struct Examined {
    /// What was tried, in one line.
    pub tried: String,
    /// What worked and must not.
    pub worked: Vec<String>,
}

/// One language the daemon speaks.
#[async_trait]
pub trait Protocol: Sync {
    /// Its name in `[[listen]]`, in every log line and on every metric.
    fn name(&self) -> &'static str;

    /// Its own table of the configuration with every key at its default.
    fn defaults(&self) -> toml::Table;

    /// Opens it with its own table (already merged over the defaults). A bad value fails at start or reload, never at accept.
    ///
    /// # Errors
    /// `Invalid`, naming the key, the value and the remedy.
    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>>;

    /// Tries on itself, opened with this table, what must never work (an open relay). Stores nothing.
    async fn examine(&self, _section: &Section, _tools: &Tools) -> Option<Examined> {
        None
    }
}

/// Its table of the configuration.
pub struct Section {
    /// `ftp`, `smtp`, …
    pub name: &'static str,
    /// Keys and values, defaults filled in.
    pub values: toml::Table,
}

impl Section {
    /// The table as the protocol's own `Settings`.
    ///
    /// # Errors
    /// `Invalid`, naming the key.
    pub fn settings<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let value = toml::Value::Table(self.values.clone());
        serde_path_to_error::deserialize(value).map_err(|error| {
            Error::new(Kind::Invalid, format!("[{}] {}: {}", self.name, error.path(), error.inner().message()))
        })
    }
}

/// What a language may use beside its section.
pub struct Tools {
    /// The only way to the data.
    pub hub: Hub,
    /// Live certificates.
    pub tls: Arc<Tls>,
    /// Ready to serve: store open, not draining. Health pages ask it.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Every language, in the order they are shown.
pub static PROTOCOLS: &[&dyn Protocol] = &[&http::Http, &http::admin::Admin, &ftp::Ftp, &smtp::Smtp, &pop3::Pop3];
