//! FTP (RFC 959, 1123, 2228, 2389, 2428, 3659, 4217): the door that scanners, cameras and file managers know.
//!
//! Plain and secured, passive and (when allowed) active. The dialogue is in `session`; paths it is given are always
//! resolved below the account's root, which the client sees as `/`.

mod argument;
mod checksum;
pub mod command;
mod data;
mod files;
pub mod glob;
mod help;
mod hint;
mod listing;
mod page;
mod policy;
mod reply;
mod session;
mod sign_in;
mod site;
mod trouble;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::converse::converse;
use super::{Protocol, Section, Tools};
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::outside::Outside;
use crate::net::side::{Peer, Reuse};
use crate::net::{Handler, Link};
use crate::origin::Origin;
use crate::units::{ByteSize, Span};
use policy::{AccountSettings, Policies};
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
    /// What PASV tells clients: `auto` (the address they connected to), or an IPv4 address or a name, for a server behind NAT.
    pub passive_address: String,
    /// The same for clients of some networks, the narrowest that holds the client first.
    pub passive_addresses: Vec<AddressFor>,
    /// From where a data connection is taken: `same`, `network` or `any`.
    pub data_peer: Peer,
    /// How long a data connection is waited for.
    pub data_wait: Span,
    /// Let clients ask for connections to themselves (PORT, EPRT): only to their own address and ports from 1024.
    pub active: bool,
    /// In TYPE A: `keep` the bytes of files as they are, or `convert` line ends.
    pub ascii: Ascii,
    /// Refuse to sign in, and to move data, without TLS.
    pub require_tls: bool,
    /// Networks that may go without TLS although it is required, such as that of old cameras.
    pub plain_from: Vec<String>,
    /// Must a data connection resume the TLS session of its control connection? `off`, `prefer` or `require`.
    pub require_reuse: Reuse,
    /// An upload under TLS whose end was not said by close_notify: `lenient` takes it, `strict` refuses it.
    pub close_notify: CloseNotify,
    /// Code page of names, until the client asks for UTF-8.
    pub encoding: String,
    /// Bytes a second that all uploads here share; 0: no limit.
    pub upload_rate: ByteSize,
    /// Bytes a second that all downloads here share; 0: no limit.
    pub download_rate: ByteSize,
    /// What differs for some accounts.
    pub accounts: Vec<AccountSettings>,
    /// Let `anonymous` and `ftp` in as someone not signed in: what is granted to `everyone`.
    pub anonymous: bool,
    /// A broken upload stays invisible and can be resumed for a while.
    pub keep_partial: bool,
    /// What becomes of an upload whose client hung up without waiting for the reply.
    pub hangup: Hangup,
    /// Names a client may ask for with HOST; empty: any.
    pub hosts: Vec<String>,
    /// Checksums of files (HASH, XCRC, …) computed at once; 0: none.
    pub checksums: usize,
}

/// What an upload is worth whose data connection ended in good order and whose client then hung up at once: it may be whole and its sender
/// rude, or its sender was killed. The network shows no difference (docs/decisions/0002-hang-up.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hangup {
    /// Devices are rude, programs of people are killed.
    #[default]
    Devices,
    /// It is not shown; it can be resumed.
    Keep,
    /// It is published.
    Publish,
}

/// What PASV tells the clients of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressFor {
    /// Where the client is.
    pub network: String,
    /// `auto`, an IPv4 address or a name.
    pub address: String,
}

/// What becomes of an upload under TLS that ends without close_notify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloseNotify {
    /// It is taken, and the history says so: many devices simply close.
    #[default]
    Lenient,
    /// It is refused: somebody may have cut the line.
    Strict,
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
            passive_address: "auto".into(),
            passive_addresses: Vec::new(),
            data_peer: Peer::Same,
            data_wait: Span(Duration::from_secs(30)),
            active: false,
            ascii: Ascii::Keep,
            require_tls: false,
            plain_from: Vec::new(),
            require_reuse: Reuse::Prefer,
            close_notify: CloseNotify::Lenient,
            encoding: "utf-8".into(),
            upload_rate: ByteSize(0),
            download_rate: ByteSize(0),
            accounts: Vec::new(),
            anonymous: true,
            keep_partial: true,
            hangup: Hangup::Devices,
            hosts: Vec::new(),
            checksums: 2,
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
    outside: Outside,
    /// Narrowest first.
    outsides: Vec<(IpNet, Outside)>,
    policies: Policies,
    checksums: Semaphore,
}

struct Handle(Arc<Door>);

#[async_trait]
impl Handler for Handle {
    fn busy(&self) -> &'static [u8] {
        b"421 too many connections, come back soon\r\n"
    }

    // Not an `async fn`: the link would stay in the future beside the driver it was moved into.
    fn serve<'a, 'b>(&'a self, mut link: Link) -> Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        link.stream.take_urgent_inline();
        Box::pin(converse(Session::new(self.0.clone(), &mut link), link))
    }
}

impl Door {
    fn new(settings: Settings, hub: Hub) -> Result<Self> {
        let ports = ports(&settings.passive_ports)?;
        let policies = Policies::new(&settings)?;
        let outside = outside("passive_address", &settings.passive_address)?;
        let mut outsides = Vec::with_capacity(settings.passive_addresses.len());
        for (number, one) in settings.passive_addresses.iter().enumerate() {
            let key = format!("passive_addresses[{number}]");
            let network = network(&format!("{key}.network"), &one.network)?;
            outsides.push((network, self::outside(&format!("{key}.address"), &one.address)?));
        }
        outsides.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        if settings.data_wait.0.is_zero() {
            return Err(Error::new(Kind::Invalid, "[ftp] data_wait: no time at all; write a span such as 30s"));
        }
        if settings.banner.contains(['\r', '\n']) {
            return Err(Error::new(Kind::Invalid, "[ftp] banner: must be one line"));
        }
        let checksums = Semaphore::new(settings.checksums.min(Semaphore::MAX_PERMITS));
        Ok(Self { hub, settings, ports, outside, outsides, policies, checksums })
    }

    /// What PASV tells this client. One on this very machine needs no way around a NAT.
    fn outside(&self, origin: &Origin) -> &Outside {
        let peer = origin.peer.ip().to_canonical();
        match self.outsides.iter().find(|(network, _)| network.contains(&peer)) {
            Some((_, outside)) => outside,
            None if peer.is_loopback() => &Outside::Auto,
            None => &self.outside,
        }
    }
}

fn outside(key: &str, text: &str) -> Result<Outside> {
    Outside::parse(text).map_err(|words| Error::new(Kind::Invalid, format!("[ftp] {key}: {words}")))
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

fn network(key: &str, text: &str) -> Result<IpNet> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        let words = format!("[ftp] {key}: `{text}` is no network; write it like `10.0.5.0/24`");
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
