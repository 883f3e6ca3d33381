//! Listeners: all bound before anything is served, or passed by systemd by name.
//!
//! One socket for each address, without SO_REUSEPORT: a port that another daemon (an old instance of ours included) serves is an
//! error at start, not a silent sharing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::listen_settings::{ListenSettings, TlsMode};
use super::local::{self, Socket};
use crate::error::{Error, Kind, Result};

/// Connections the kernel keeps while all workers are busy.
const BACKLOG: i32 = 4096;

/// A silent connection is probed this often; NATs forget one after a few minutes.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Name of the sockets that wait for FTP's data connections.
const DATA_PORTS: &str = "ftp-data";

/// A socket that listens, before anything is served on it.
pub struct Bound {
    /// `ftp@0.0.0.0:21`: what logs call it.
    pub name: Arc<str>,
    /// Where it listens; the port is the real one when the configuration said 0. Of a Unix socket: loopback without a port.
    pub address: SocketAddr,
    /// Its entry in the configuration.
    pub settings: ListenSettings,
    /// The place of that entry among all `[[listen]]`, from 0.
    pub entry: usize,
    /// systemd holds the socket: it waits through restarts.
    pub passed: bool,
    pub(super) listener: Socket,
}

impl Bound {
    /// Where it listens, as people write it.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.listener {
            Socket::Tcp(_) => self.address.to_string(),
            Socket::Unix(socket) => {
                let path = socket.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
                let settings = local::path(&self.settings.address).filter(|_| !self.passed);
                let path = settings.map(Path::to_owned).or(path).unwrap_or_default();
                format!("{}{}", local::PREFIX, path.display())
            }
        }
    }
}

/// Sockets systemd passed to the process, by `FileDescriptorName=`. Read once; what is taken is gone.
#[derive(Default)]
pub struct Passed {
    sockets: Vec<(String, Socket)>,
}

impl Passed {
    /// Takes every TCP and Unix stream socket out of the environment (sd_listen_fds(3)); descriptors of other kinds are left alone.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default().to_owned();
            if let Ok(Some(listener)) = given.take_unix_listener(index) {
                sockets.push((name, Socket::Unix(listener)));
                continue;
            }
            match given.take_tcp_listener(index) {
                Ok(Some(listener)) => sockets.push((name, Socket::Tcp(listener))),
                Ok(None) => {}
                Err(error) => tracing::warn!(target: "stoa::net", %name, "a passed descriptor is not used: {error}"),
            }
        }
        Self { sockets }
    }

    /// Names nobody took, for a word in the log.
    #[must_use]
    pub fn left(&self) -> Vec<&str> {
        self.sockets.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn take(&mut self, wanted: &str) -> Vec<Socket> {
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|(name, _)| name == wanted);
        self.sockets = left;
        let taken: Vec<(String, Socket)> = taken;
        taken.into_iter().map(|(_, listener)| listener).collect()
    }
}

/// Binds every listener of the configuration, or takes the passed socket of its name. All problems are told at once.
///
/// # Errors
/// `Unavailable` or `Invalid`: each address that cannot be had, why, and what to do.
pub fn bind_all(settings: &[ListenSettings], passed: &mut Passed) -> Result<Vec<Bound>> {
    let ports = passed.take(DATA_PORTS).into_iter().filter_map(|socket| match socket {
        Socket::Tcp(port) => Some(port),
        Socket::Unix(_) => None,
    });
    super::lent::offer(ports.collect());
    let mut bound = Vec::new();
    let mut problems: Vec<Error> = Vec::new();
    // Those that name their socket choose first, so that no other takes it by its role.
    let (named, unnamed): (Vec<_>, Vec<_>) =
        settings.iter().enumerate().partition(|(_, listen)| !listen.socket.is_empty());
    for (entry, listen) in named.into_iter().chain(unnamed) {
        match open(listen, passed) {
            Ok(sockets) => bound.extend(sockets.into_iter().map(|socket| Bound { entry, ..socket })),
            Err(error) => problems.push(error),
        }
    }
    let Some(first) = problems.first() else { return Ok(bound) };
    let words: Vec<&str> = problems.iter().map(Error::public).collect();
    Err(Error::new(first.kind(), words.join("\n")))
}

/// Binds it for a moment, to say what a start would say.
///
/// # Errors
/// As [`bind_all`].
pub fn try_bind(listen: &ListenSettings) -> Result<()> {
    match local::path(&listen.address) {
        // A Unix socket replaces the file of an earlier one: a trial would take it from a daemon that serves it.
        Some(_) => Ok(()),
        None => addresses(listen)?.into_iter().try_for_each(|address| bind(listen, address).map(drop)),
    }
}

/// The enabled systemd unit that keeps this listener's socket and passes it to the daemon.
#[must_use]
pub fn socket_unit(listen: &ListenSettings) -> Option<String> {
    const ENABLED: &str = "/etc/systemd/system/sockets.target.wants";
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let units = roles(listen).into_iter().map(|role| format!("stoa-{role}.socket"));
    units.into_iter().find(|unit| Path::new(ENABLED).join(unit).exists())
}

fn open(listen: &ListenSettings, passed: &mut Passed) -> Result<Vec<Bound>> {
    for role in roles(listen) {
        let sockets = passed.take(&role);
        if !sockets.is_empty() {
            return sockets.into_iter().map(|socket| adopt(listen, &role, socket)).collect();
        }
    }
    if let Some(path) = local::path(&listen.address) {
        let socket = local::bind(listen, path)?;
        return Ok(vec![made(listen, local::LOCAL, false, Socket::Unix(socket))]);
    }
    let addresses = addresses(listen)?;
    let sockets = addresses.into_iter().map(|address| bind(listen, address));
    sockets.collect()
}

/// Names a passed socket may have for this listener, the likeliest first.
fn roles(listen: &ListenSettings) -> Vec<String> {
    if !listen.socket.is_empty() {
        return vec![listen.socket.clone()];
    }
    let submission = listen.address.ends_with(":587");
    match (listen.protocol.as_str(), listen.tls) {
        ("smtp", TlsMode::Implicit) => vec!["submissions".into(), "smtps".into()],
        ("smtp", _) if submission => vec!["submission".into()],
        (protocol, TlsMode::Implicit) => vec![format!("{protocol}s")],
        (protocol, _) => vec![protocol.to_owned()],
    }
}

fn adopt(listen: &ListenSettings, role: &str, socket: Socket) -> Result<Bound> {
    let wrong = |error: io::Error| {
        Error::new(Kind::Unavailable, format!("the socket `{role}` passed by systemd cannot be used: {error}"))
    };
    let listener = match socket {
        Socket::Tcp(listener) => listener,
        Socket::Unix(listener) => {
            listener.set_nonblocking(true).map_err(wrong)?;
            return Ok(made(listen, local::LOCAL, true, Socket::Unix(listener)));
        }
    };
    let address = listener.local_addr().map_err(wrong)?;
    let ready = sockopt::socket_acceptconn(&listener).map_err(|error| wrong(error.into()))?;
    if !ready {
        return Err(wrong(io::Error::other("it does not listen; the unit needs ListenStream= and Accept=no")));
    }
    tune(&listener).map_err(wrong)?;
    if port_of(&listen.address).is_some_and(|port| port != 0 && port != address.port()) {
        tracing::warn!(
            target: "stoa::net", configured = %listen.address, passed = %address,
            "the socket `{role}` of systemd listens elsewhere than the configuration says; systemd's is used"
        );
    }
    Ok(made(listen, address, true, Socket::Tcp(listener)))
}

fn made(listen: &ListenSettings, address: SocketAddr, passed: bool, listener: Socket) -> Bound {
    let bound = Bound { name: "".into(), address, settings: listen.clone(), entry: 0, passed, listener };
    let name = format!("{}@{}", listen.protocol, bound.place()).into();
    Bound { name, ..bound }
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

fn addresses(listen: &ListenSettings) -> Result<Vec<SocketAddr>> {
    let text = listen.address.trim();
    let wrong = |why: &str| {
        Error::new(
            Kind::Invalid,
            format!(
                "[[listen]] address = `{text}` {why}; write it like `0.0.0.0:21`, `[::]:21`, `*:21`, `localhost:21` or `unix:/run/stoa/http.sock`"
            ),
        )
    };
    if let Some(port) = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')) {
        let port = port.parse().map_err(|_| wrong("has no port from 0 to 65535"))?;
        return Ok(vec![SocketAddr::from(([0_u16; 8], port))]);
    }
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    if port_of(text).is_none() {
        return Err(wrong("has no port from 0 to 65535"));
    }
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in text.to_socket_addrs().map_err(|error| wrong(&format!("names no address ({error})")))? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

fn bind(listen: &ListenSettings, address: SocketAddr) -> Result<Bound> {
    let socket = match socket(address) {
        // A machine without IPv6 still serves `[::]`, which also means every IPv4 address.
        Err(error) if error == Errno::AFNOSUPPORT && address.is_ipv6() && address.ip().is_unspecified() => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::warn!(target: "stoa::net", %address, "this machine has no IPv6; listening on IPv4 only");
            socket(address)
        }
        other => other,
    };
    let listener = TcpListener::from(socket.map_err(|error| refused(listen, address, error))?);
    let address = listener.local_addr().map_err(|error| Error::from(error).with("getsockname"))?;
    Ok(made(listen, address, false, Socket::Tcp(listener)))
}

fn socket(address: SocketAddr) -> std::result::Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // Only lets us bind while old connections of the port are still closing; a port that listens stays taken.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    tune_descriptor(&socket)?;
    Ok(socket)
}

fn tune(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    Ok(tune_descriptor(listener)?)
}

/// Accepted connections inherit all: small replies leave at once, a peer that vanished is noticed, and a NAT does not forget a connection
/// that says nothing while a long transfer runs beside it.
fn tune_descriptor(socket: impl std::os::fd::AsFd) -> std::result::Result<(), Errno> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE)
}

fn refused(listen: &ListenSettings, address: SocketAddr, error: Errno) -> Error {
    let protocol = &listen.protocol;
    let words = match error {
        Errno::ADDRINUSE => format!(
            "cannot listen on {address} for {protocol}: another program has this port; stop it (`ss -ltnp 'sport = :{}'` names it) or change the address in [[listen]]",
            address.port()
        ),
        Errno::ACCESS | Errno::PERM if address.port() < 1024 => format!(
            "cannot listen on {address} for {protocol}: ports below 1024 need the right to bind them; let systemd pass the socket, give the service CAP_NET_BIND_SERVICE, or choose a port from 1024"
        ),
        Errno::ADDRNOTAVAIL => format!(
            "cannot listen on {address} for {protocol}: this machine does not have that address; use one that `ip address` shows, or 0.0.0.0"
        ),
        other => format!("cannot listen on {address} for {protocol}: {other}"),
    };
    Error::new(Kind::Unavailable, words).with(io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(protocol: &str, address: &str) -> ListenSettings {
        ListenSettings { protocol: protocol.into(), address: address.into(), ..ListenSettings::default() }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_remedy_and_every_problem_is_told() {
        let first = bind_all(&[listen("ftp", "127.0.0.1:0")], &mut Passed::default()).unwrap();
        let taken = first[0].address.to_string();
        let settings = [listen("ftp", &taken), listen("smtp", "nowhere"), listen("http", "127.0.0.1:0")];
        let error = bind_all(&settings, &mut Passed::default()).err().unwrap();
        assert!(error.public().contains(&taken) && error.public().contains("another program"), "{error}");
        assert!(error.public().contains("nowhere") && error.public().contains("has no port"), "{error}");
    }

    #[test]
    fn the_star_is_every_address_of_both_families() {
        let bound = bind_all(&[listen("http", "*:0")], &mut Passed::default()).unwrap();
        let port = bound[0].address.port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_silent_connection_is_kept_alive_through_a_nat() {
        let bound = bind_all(&[listen("ftp", "127.0.0.1:0")], &mut Passed::default()).unwrap();
        let Socket::Tcp(listener) = &bound[0].listener else { panic!("not TCP") };
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(bound[0].address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE);
    }

    #[test]
    fn passed_sockets_go_to_the_listener_of_their_role_and_a_name_comes_first() {
        let socket = || Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        let mut passed = Passed {
            sockets: vec![
                ("https".into(), socket()),
                ("smtp".into(), socket()),
                ("smtp".into(), socket()),
                ("odd".into(), socket()),
            ],
        };
        let mut https = listen("http", "127.0.0.1:0");
        https.tls = TlsMode::Implicit;
        let mut named = listen("smtp", "127.0.0.1:0");
        named.socket = "smtp".into();
        let bound = bind_all(&[https, listen("smtp", "127.0.0.1:0"), named], &mut passed).unwrap();
        let taken: Vec<_> = bound.iter().map(|one| (one.settings.socket.as_str(), one.passed)).collect();
        assert_eq!(taken, [("smtp", true), ("smtp", true), ("", true), ("", false)]);
        assert_eq!(passed.left(), ["odd"]);
    }
}
