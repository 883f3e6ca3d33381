//! Listeners: bound first, or passed by systemd by name, then served by one accept loop per core.

use serde::{Deserialize, Serialize};

/// How a listener speaks TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// From the first byte.
    Implicit,
    /// Never.
    #[default]
    None,
    /// When the client asks (STARTTLS, AUTH TLS).
    Upgrade,
}

/// `[[listen]]`: one address, one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenSettings {
    /// The language: `http`, `ftp`, `smtp`, `admin`, …
    pub protocol: String,
    /// `address:port`.
    pub address: String,
    /// `none`, `upgrade` or `implicit`.
    #[serde(default)]
    pub tls: TlsMode,
    /// Name of the systemd socket (`FileDescriptorName=`) to take; empty: the protocol's own, else bind.
    #[serde(default)]
    pub socket: String,
}
