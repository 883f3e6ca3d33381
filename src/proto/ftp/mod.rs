//! FTP (RFC 959, 1123, 2228, 2389, 2428, 3659, 4217): the door that scanners, cameras and file managers know.
//!
//! Plain and secured, passive and (when allowed) active. The dialogue is in `session`; paths it is given are always
//! resolved below the account's root, which the client sees as `/`.

mod command;
mod data;
mod files;
mod listing;
mod reply;
mod session;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::converse::converse;
use super::{Protocol, Section, Tools};
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::{Handler, Link};
use session::Session;

/// The language.
pub struct Ftp;

/// `[ftp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Text of the first reply.
    pub banner: String,
    /// Ports for data connections, `40000-40999`; `0`: any free port.
    pub passive_ports: String,
    /// IPv4 address or name that PASV tells clients, for a server behind NAT; empty: the address they connected to.
    pub passive_address: String,
    /// Let clients ask for connections to themselves (PORT, EPRT): only to their own address and ports from 1024.
    pub active: bool,
    /// In TYPE A: `keep` the bytes of files as they are, or `convert` line ends.
    pub ascii: Ascii,
    /// Refuse to sign in, and to move data, without TLS.
    pub require_tls: bool,
    /// Networks that may go without TLS although it is required, such as that of old cameras.
    pub plain_from: Vec<String>,
    /// Let `anonymous` and `ftp` in as someone not signed in: what is granted to `everyone`.
    pub anonymous: bool,
    /// A broken upload stays invisible and can be resumed for a while.
    pub keep_partial: bool,
}

/// What TYPE A does to file contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ascii {
    /// CRLF on the wire, LF in the file.
    Convert,
    /// Nothing: a photo sent in the wrong type survives.
    #[default]
    Keep,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            banner: "Stoa ready".into(),
            passive_ports: "0".into(),
            passive_address: String::new(),
            active: false,
            ascii: Ascii::Keep,
            require_tls: false,
            plain_from: Vec::new(),
            anonymous: true,
            keep_partial: true,
        }
    }
}

impl Protocol for Ftp {
    fn name(&self) -> &'static str {
        "ftp"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let settings: Settings = section.settings()?;
        Ok(Arc::new(Handle(Arc::new(Door::new(settings, tools.hub.clone())?))))
    }
}

/// The open door: settings read once, shared by all sessions.
struct Door {
    hub: Hub,
    settings: Settings,
    ports: RangeInclusive<u16>,
    plain_from: Vec<IpNet>,
}

struct Handle(Arc<Door>);

#[async_trait]
impl Handler for Handle {
    fn busy(&self) -> &'static [u8] {
        b"421 too many connections, come back soon\r\n"
    }

    async fn serve(&self, mut link: Link) -> std::io::Result<()> {
        converse(Session::new(self.0.clone(), &mut link), link).await
    }
}

impl Door {
    fn new(settings: Settings, hub: Hub) -> Result<Self> {
        let ports = ports(&settings.passive_ports)?;
        let plain_from = settings.plain_from.iter().map(|text| network(text)).collect::<Result<_>>()?;
        if settings.banner.contains(['\r', '\n']) {
            return Err(Error::new(Kind::Invalid, "[ftp] banner: must be one line"));
        }
        Ok(Self { hub, settings, ports, plain_from })
    }

    /// May this peer go without TLS?
    fn plain_is_fine(&self, peer: IpAddr) -> bool {
        !self.settings.require_tls || self.plain_from.iter().any(|network| network.contains(&peer.to_canonical()))
    }
}

/// `0`, `50000` or `40000-40999`.
fn ports(text: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(Error::new(
            Kind::Invalid,
            format!("[ftp] passive_ports: `{text}` is no range of ports; write it like `40000-40999`, or `0` for any"),
        )),
    }
}

fn network(text: &str) -> Result<IpNet> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        let words = format!("[ftp] plain_from: `{text}` is no network; write it like `10.0.5.0/24`");
        Error::new(Kind::Invalid, words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_are_checked_at_start() {
        assert_eq!(ports("0").unwrap(), 0..=0);
        assert_eq!(ports("40000 - 40999").unwrap(), 40_000..=40_999);
        for wrong in ["", "x", "2-1", "1-70000", "-"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_defaults_are_what_settings_say() {
        let values = Ftp.defaults();
        let section = Section { name: "ftp", values };
        assert_eq!(section.settings::<Settings>().unwrap(), Settings::default());
    }
}
