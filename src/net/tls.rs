//! TLS by rustls: one live configuration for every door, certificates swapped without dropping a connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Stream;

/// `[tls]`: the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM chain; empty: a self-signed pair is made under `data/tls`. `credential:NAME` reads a systemd credential.
    pub certificate: String,
    /// PEM key of it.
    pub key: String,
}

/// The TLS side of the doors. ALPN protocols differ by language, so each language has its own over the same certificates.
pub struct Tls {
    _private: (),
}

impl Tls {
    /// Reads the pair, or makes a self-signed one under `data/tls` for `names`.
    ///
    /// # Errors
    /// What is wrong with which file, in words.
    pub fn open(_settings: &TlsSettings, _data: &Path, _names: &[String]) -> crate::error::Result<Arc<Self>> {
        todo!()
    }

    /// The same certificates with these ALPN protocols.
    #[must_use]
    pub fn with_alpn(self: &Arc<Self>, _alpn: &[&[u8]]) -> Arc<Self> {
        todo!()
    }

    /// Reads the pair again; connections keep what they have.
    ///
    /// # Errors
    /// The old pair stays.
    pub fn reload(&self, _settings: &TlsSettings, _data: &Path, _names: &[String]) -> crate::error::Result<()> {
        todo!()
    }

    /// The server side of a handshake.
    ///
    /// # Errors
    /// The handshake's; `TimedOut`.
    pub async fn accept(&self, _plain: Stream, _deadline: Duration) -> std::io::Result<Stream> {
        todo!()
    }
}
