//! `[tls]`: which certificates there are, and how they are used.

use serde::{Deserialize, Serialize};

/// `[tls]`: the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM chain; empty: a self-signed pair is made under `data/tls`. `credential:NAME` reads a systemd credential.
    pub certificate: String,
    /// PEM key of it.
    pub key: String,
    /// More pairs, shown to who asks for a name that one of them is for.
    pub certificates: Vec<Place>,
}

/// Where one pair is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// PEM chain, or `credential:NAME`.
    pub certificate: String,
    /// PEM key of it.
    pub key: String,
}
