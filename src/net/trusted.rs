//! Proxies whose word about the peer is believed: networks, and whoever may open a Unix socket of ours.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Kind, Result};

/// Of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    networks: Vec<IpNet>,
    local: bool,
}

/// What stands for peers of a Unix socket.
const UNIX: &str = "unix";

impl Trusted {
    /// Reads networks, addresses and `unix`.
    ///
    /// # Errors
    /// `Invalid`, naming the entry.
    pub fn new(list: &[String]) -> Result<Self> {
        let mut trusted = Self { networks: Vec::new(), local: false };
        for text in list {
            let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            match network {
                Some(network) => trusted.networks.push(network),
                None if text == UNIX => trusted.local = true,
                None => {
                    let words = format!(
                        "[[listen]] trusted: `{text}` is not a network; write it like `10.0.0.0/8`, `fd00::/8`, `10.0.0.7` or `unix`"
                    );
                    return Err(Error::new(Kind::Invalid, words));
                }
            }
        }
        Ok(trusted)
    }

    /// Is this a proxy of ours?
    #[must_use]
    pub fn has(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Are peers of a Unix socket?
    #[must_use]
    pub fn has_local(&self) -> bool {
        self.local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_addresses_and_the_socket_are_read_and_nothing_else() {
        let read = |list: &[&str]| Trusted::new(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        let trusted = read(&["10.0.0.0/8", "::1", "unix"]).unwrap();
        assert!(trusted.has([10, 1, 2, 3].into()) && trusted.has("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!trusted.has([11, 1, 2, 3].into()) && trusted.has_local());
        assert!(!read(&[]).unwrap().has([127, 0, 0, 1].into()));
        assert!(read(&["proxy.example"]).unwrap_err().public().contains("proxy.example"));
    }
}
