//! Unix sockets: a listener that is a file, for a proxy on the same machine; and what both kinds of listener have in common.
//!
//! The file is made aside, given its mode and group, and put in place in one step: nobody gets in between, and what a daemon
//! that was killed left behind is replaced. A socket that somebody serves, and anything that is no socket, is left alone.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::Stream;
use super::listen_settings::ListenSettings;
use crate::error::{Error, Kind, Result};

/// What the address of a Unix socket begins with.
pub const PREFIX: &str = "unix:";

/// unix(7): longest path of a socket.
const LONGEST: usize = 107;

/// Whoever may open the socket is on this machine; more is not known of a peer.
pub(super) const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening socket of either kind.
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl Socket {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Another descriptor of it.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(match self.try_clone()? {
            Self::Tcp(socket) => socket.into(),
            Self::Unix(socket) => socket.into(),
        })
    }
}

/// The same in a worker's runtime.
pub(super) enum Listening {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listening {
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Socket::Unix(socket) => Self::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    /// The next connection and its peer; `None` for a peer of a Unix socket.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(tcp, peer)| (Stream::Tcp(tcp), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(unix, _)| (Stream::Unix(unix), None)),
        }
    }
}

/// The path of an address that is a Unix socket.
pub fn path(address: &str) -> Option<&Path> {
    address.trim().strip_prefix(PREFIX).map(Path::new)
}

/// What is wrong with a listener that is a Unix socket, in words.
#[must_use]
pub fn wrong(settings: &ListenSettings) -> Option<String> {
    let path = path(&settings.address)?;
    if !path.is_absolute() || path.as_os_str().len() > LONGEST {
        return Some(format!("`{}` is not an absolute path of at most {LONGEST} bytes", path.display()));
    }
    mode(&settings.mode).err()
}

/// `0660` as bits.
fn mode(text: &str) -> std::result::Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| format!("`{text}` is not a mode such as 0660"))
}

/// Makes the socket, or says why not.
pub(super) fn bind(settings: &ListenSettings, path: &Path) -> Result<UnixListener> {
    let cannot = |why: String| {
        let words = format!("cannot listen on {} for {}: {why}", path.display(), settings.protocol);
        Error::new(Kind::Unavailable, words)
    };
    if let Some(words) = wrong(settings) {
        return Err(cannot(words));
    }
    free(path).map_err(&cannot)?;
    let aside = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let made = || -> io::Result<UnixListener> {
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        listener.set_nonblocking(true)?;
        let bits = mode(&settings.mode).map_err(io::Error::other)?;
        if let Some(group) = group(&settings.group)? {
            chown(&aside, None, Some(group))?;
        }
        fs::set_permissions(&aside, fs::Permissions::from_mode(bits))?;
        fs::rename(&aside, path)?;
        Ok(listener)
    };
    made().map_err(|error| {
        let _ = fs::remove_file(&aside);
        cannot(format!("{error}; its folder must be there and be writable, and the group one of this account's"))
    })
}

/// Nothing is there, or a socket that nobody serves any more.
fn free(path: &Path) -> std::result::Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(found) if !found.file_type().is_socket() => Err("something that is no socket is there; move it away".into()),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) => Err("another program serves this socket; stop it, or choose another path".into()),
            Err(error) => Err(format!("a socket is there that cannot be asked whether it is served: {error}")),
        },
    }
}

/// The number of a group by its number or its name in the local list.
fn group(text: &str) -> io::Result<Option<u32>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = text.parse() {
        return Ok(Some(number));
    }
    let list = fs::read_to_string("/etc/group")?;
    let number = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.map(Some).ok_or_else(|| io::Error::other(format!("this machine has no group `{text}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: &Path) -> ListenSettings {
        let address = format!("{PREFIX}{}", path.display());
        ListenSettings { protocol: "http".into(), address, mode: "0600".into(), ..ListenSettings::default() }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_and_a_file_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&settings(&path), &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bind(&settings(&path), &path).unwrap_err();
        assert!(error.public().contains("another program serves"), "{error}");
        drop(first);
        drop(bind(&settings(&path), &path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = bind(&settings(&path), &path).unwrap_err();
        assert!(error.public().contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn what_is_no_socket_of_ours_is_said_in_words() {
        let with = |address: &str, mode: &str| {
            let (address, mode) = (address.to_owned(), mode.to_owned());
            wrong(&ListenSettings { address, mode, ..ListenSettings::default() })
        };
        assert_eq!(with("unix:/run/stoa/http.sock", "0660"), None);
        assert_eq!(with("127.0.0.1:80", "nonsense"), None);
        assert!(with("unix:here", "0660").unwrap().contains("absolute"));
        assert!(with(&format!("unix:/{}", "a".repeat(200)), "0660").is_some());
        assert!(with("unix:/a", "9999").unwrap().contains("9999"));
        assert!(group("no-such-group-here").is_err());
        assert_eq!(group("7").unwrap(), Some(7));
    }
}
