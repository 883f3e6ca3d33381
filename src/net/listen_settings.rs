//! `[[listen]]`: one address and the protocol that is spoken there.

use serde::{Deserialize, Serialize};

/// `[[listen]]`: one address, one language. Keys nobody knows are refused by whoever reads the files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenSettings {
    /// The language: `http`, `ftp`, `smtp`, `admin`, …
    pub protocol: String,
    /// `address:port`, or `unix:/path`.
    pub address: String,
    /// `none`, `upgrade` or `implicit`.
    #[serde(default)]
    pub tls: TlsMode,
    /// Networks of proxies that may say for whom they speak (HTTP's forwarding headers); `unix`: whoever may open the Unix socket.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// Who may open a Unix socket.
    #[serde(default = "mode")]
    pub mode: String,
    /// The group a Unix socket belongs to; empty: the daemon's own.
    #[serde(default)]
    pub group: String,
    /// Name of the systemd socket (`FileDescriptorName=`) to take; empty: the protocol's own, else bind.
    #[serde(default)]
    pub socket: String,
    /// The language's own table, `ftp = { … }`: what differs from its section for this listener alone.
    #[serde(flatten)]
    pub options: toml::Table,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            protocol: String::new(),
            address: String::new(),
            tls: TlsMode::None,
            trusted: Vec::new(),
            mode: mode(),
            group: String::new(),
            socket: String::new(),
            options: toml::Table::new(),
        }
    }
}

impl ListenSettings {
    /// What its language's section says otherwise for this listener.
    #[must_use]
    pub fn overlay(&self) -> Option<&toml::Table> {
        self.options.get(&self.protocol)?.as_table().filter(|table| !table.is_empty())
    }

    /// The same address, language and TLS: what a running daemon cannot change.
    #[must_use]
    pub fn same_socket(&self, other: &Self) -> bool {
        let names = |it: &Self| [&it.protocol, &it.address, &it.socket, &it.mode, &it.group].map(String::clone);
        let fixed = |it: &Self| (names(it), it.tls);
        fixed(self) == fixed(other)
    }
}

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

/// The daemon and its group.
fn mode() -> String {
    "0660".to_owned()
}
