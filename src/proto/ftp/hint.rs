//! Words for the log when a data connection does not come to be: what happened, why that usually is, and which setting helps.
//!
//! It is the commonest trouble with FTP, and the client shows only "timeout". One line a minute at most.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Door;
use crate::error::out_of_descriptors;
use crate::origin::Origin;
use crate::telemetry::Seldom;

const SELDOM: Duration = Duration::from_mins(1);
/// A client that gives up earlier changed its mind; later it met a wall.
const MET_A_WALL: Duration = Duration::from_secs(2);

static PASSIVE: Seldom = Seldom::new(SELDOM);
static ACTIVE: Seldom = Seldom::new(SELDOM);
static PORTS: Seldom = Seldom::new(SELDOM);
static ADDRESS: Seldom = Seldom::new(SELDOM);
static BOUNCE: Seldom = Seldom::new(SELDOM);

/// What a client was told, or told us, about a data connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// To come to this port, at this address if PASV was asked.
    Passive(Option<Ipv4Addr>, u16),
    /// We are to come there.
    Active(SocketAddr),
}

/// A transfer was begun and its data connection did not come to be.
pub(super) fn failed(door: &Door, origin: &Origin, told: Told, error: &std::io::Error) {
    match told {
        Told::Passive(address, port) if error.kind() == std::io::ErrorKind::TimedOut => {
            nobody(door, origin, address, port);
        }
        Told::Passive(..) => {
            tracing::info!(peer = %origin.peer, link = origin.link, "ftp: no data connection: {error}");
        }
        Told::Active(to) => {
            let Some(times) = ACTIVE.now() else { return };
            tracing::warn!(
                peer = %origin.peer, link = origin.link, times,
                "ftp: the client asked us to connect to {to} (PORT), and that failed: {error}. Usually its firewall or NAT lets nobody in: \
                 let the client use passive mode. If this service is sealed (systemd), it may not open connections at all: see active \
                 mode in docs/operations.md"
            );
        }
    }
}

/// A port was asked for and nobody came to it, not even for a transfer.
pub(super) fn in_vain(door: &Door, origin: &Origin, told: Told, waited: Duration) {
    if let (Told::Passive(address, port), true) = (told, waited >= MET_A_WALL) {
        nobody(door, origin, address, port);
    }
}

fn nobody(door: &Door, origin: &Origin, address: Option<Ipv4Addr>, port: u16) {
    let Some(times) = PASSIVE.now() else { return };
    let settings = &door.settings;
    let place = address
        .map_or_else(|| format!("port {port} of the address it uses already (EPSV)"), |ip| format!("{ip}:{port}"));
    let ports = match *door.ports.start() {
        0 => {
            "passive_ports = \"0\" takes any port, which no firewall lets through: name a range, and open or publish it"
                .to_owned()
        }
        _ => format!(
            "are the ports of passive_ports = \"{}\" open in the firewall, or published by the container?",
            settings.passive_ports
        ),
    };
    let address = match address {
        Some(told) if is_inside(told) && !is_within(origin.peer.ip()) => format!(
            "{told} is a private address and the client is not: set passive_address (now \"{}\") to the address or name clients use",
            settings.passive_address
        ),
        Some(_) => format!("can the client reach that address? passive_address = \"{}\"", settings.passive_address),
        None => String::new(),
    };
    tracing::warn!(
        peer = %origin.peer, link = origin.link, times,
        "ftp: a client was told to open its data connection to {place} and never came. In [ftp]: {ports} {address}"
    );
}

/// Every port is taken.
pub(super) fn no_port(door: &Door, origin: &Origin, error: &std::io::Error) {
    let Some(times) = PORTS.now() else { return };
    if let Some(words) = out_of_descriptors(error) {
        tracing::warn!(peer = %origin.peer, times, "ftp: no data connection: {words}");
        return;
    }
    tracing::warn!(
        peer = %origin.peer, times,
        "ftp: no port for a data connection ({error}); widen [ftp] passive_ports = \"{}\", or hand in more sockets",
        door.settings.passive_ports
    );
}

/// PASV has no address to tell.
pub(super) fn no_address(door: &Door, origin: &Origin, error: &std::io::Error) {
    if let Some(times) = ADDRESS.now() {
        tracing::warn!(
            peer = %origin.peer, times,
            "ftp: no IPv4 address for PASV ({error}); [ftp] passive_address = \"{}\"", door.settings.passive_address
        );
    }
}

/// A client named another machine, or a service's port.
pub(super) fn bounce(origin: &Origin, asked: SocketAddr) {
    if let Some(times) = BOUNCE.now() {
        tracing::warn!(
            peer = %origin.peer, %asked, link = origin.link, times,
            "ftp: PORT to another machine or a service refused (bounce)"
        );
    }
}

fn is_inside(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_link_local() || address.is_loopback()
}

fn is_within(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_inside(address),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local() || address.is_loopback(),
    }
}
