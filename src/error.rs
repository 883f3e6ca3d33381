//! What went wrong, in the house's own words.
//!
//! No protocol's code appears here: each door translates a [`Kind`] once, in its `reply.rs`,
//! without a catch-all arm, so that a new kind stops the build at every door.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// `Result` with the house's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// The kinds of failure a caller may have to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The asker went away or the work was stopped.
    Cancelled,
    /// Somebody else changed the same thing at the same time; planning again may succeed.
    Conflict,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The caller is known and may not do this.
    Denied,
    /// The name is taken and the rule says not to replace it.
    Exists,
    /// The server's disk has no room for now.
    Full,
    /// A fault of ours.
    Internal,
    /// The request itself makes no sense.
    Invalid,
    /// Someone holds a lock on it.
    Locked,
    /// The folder still has something in it.
    NotEmpty,
    /// There is no such thing, as far as this caller may know.
    NotFound,
    /// A quota is used up.
    OverQuota,
    /// Too many tries; come back later.
    Throttled,
    /// One item is larger than the limit for one item.
    TooLarge,
    /// The caller must sign in (or gave a wrong password).
    Unauthenticated,
    /// A resource is missing for now: database gone, shutting down.
    Unavailable,
    /// A folder where a file was meant, or the reverse.
    WrongType,
}

/// A failure with two texts: `Display` is safe to show a peer, `source` is for the log.
pub struct Error {
    kind: Kind,
    public: Cow<'static, str>,
    source: Option<Source>,
    wait: Option<Duration>,
}

impl Error {
    /// An error whose text may be shown to the peer.
    pub fn new(kind: Kind, public: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, public: public.into(), source: None, wait: None }
    }

    /// The same error with its cause, which only the log sees.
    #[must_use]
    pub fn with(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the time after which the request may be repeated.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// A fault of ours: the peer learns nothing but that it happened.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(Kind::Internal, "internal error, see the server's log").with(source)
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text that is safe to show a peer.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The same request may succeed later without being changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use Kind::{Cancelled, Conflict, Full, Locked, Throttled, Unavailable};
        matches!(self.kind, Cancelled | Conflict | Full | Locked | Throttled | Unavailable)
    }

    /// When the request may be repeated, where that is known.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// The server's own file system said so: whoever asked is not at fault.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        self.source.as_deref().is_some_and(
            <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<std::io::Error>,
        )
    }

    /// Text for the log: the public text and every cause below it that says something more.
    #[must_use]
    pub fn detail(&self) -> String {
        let mut text = self.public.to_string();
        let mut next = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = next {
            let cause = error.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.detail())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// EMFILE, ENFILE: the limit and where it is set. Nothing else tells an operator what to raise.
#[must_use]
pub fn out_of_descriptors(error: &std::io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)? {
        rustix::io::Errno::MFILE => Some(
            "the server has no file descriptors left; its limit (LimitNOFILE= of the unit, ulimit -n) is too small",
        ),
        rustix::io::Errno::NFILE => Some("the server's machine has no file descriptors left (fs.file-max)"),
        _ => None,
    }
}

const ELOOP: i32 = 40;

/// What a file system may do better later, beside a full disk: EIO, EAGAIN, ENOMEM, ENODEV, ENONET, ENOLINK, ECOMM, ENETDOWN,
/// ENETUNREACH, ENETRESET, ECONNABORTED, ECONNRESET, ENOTCONN, ETIMEDOUT, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, ESTALE, EREMOTEIO.
/// Everything else is a refusal that lasts.
const PASSING: [i32; 19] = [5, 11, 12, 19, 64, 67, 70, 100, 101, 102, 103, 104, 107, 110, 111, 112, 113, 116, 121];

impl From<std::io::Error> for Error {
    /// The file system's word in the house's words; the path is the caller's to add.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        if let Some(words) = out_of_descriptors(&error) {
            return Self::new(Kind::Unavailable, words).with(error);
        }
        let (kind, public) = match error.kind() {
            Io::NotFound => (Kind::NotFound, "no such file or folder"),
            Io::AlreadyExists => (Kind::Exists, "the name is taken"),
            Io::PermissionDenied => (Kind::Denied, "the server's own account may not do this"),
            Io::ReadOnlyFilesystem => (Kind::Denied, "the server's disk is read-only"),
            Io::ResourceBusy | Io::ExecutableFileBusy => (Kind::Denied, "the server's system is using this"),
            Io::DirectoryNotEmpty => (Kind::NotEmpty, "the folder is not empty"),
            Io::NotADirectory => (Kind::WrongType, "not a folder"),
            Io::IsADirectory => (Kind::WrongType, "is a folder"),
            Io::StorageFull => (Kind::Full, "the server's disk is full"),
            Io::QuotaExceeded => (Kind::Full, "the disk quota of the server is used up"),
            Io::InvalidFilename => (Kind::Invalid, "the name is not allowed here"),
            Io::CrossesDevices => (Kind::Invalid, "the two folders lie on different disks of the server"),
            Io::TooManyLinks => (Kind::Invalid, "the server's disk takes no more folders here"),
            Io::FileTooLarge => (Kind::TooLarge, "the file is too large for the server's disk"),
            _ => match error.raw_os_error() {
                Some(number) if PASSING.contains(&number) => (Kind::Unavailable, "the server's disk fails for now"),
                Some(ELOOP) => (Kind::WrongType, "a link is in the way"),
                _ => (Kind::Internal, "internal error, see the server's log"),
            },
        };
        Self::new(kind, public).with(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_descriptors_are_said_with_the_name_of_the_limit() {
        let error = Error::from(std::io::Error::from_raw_os_error(24));
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.public().contains("LimitNOFILE="), "{error}");
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::from_raw_os_error(2);
        let error = Error::new(Kind::NotFound, format!("/a: cannot be read: {}", cause())).with(cause());
        assert_eq!(error.detail(), "/a: cannot be read: No such file or directory (os error 2)");
        let other = Error::new(Kind::NotFound, "/a: cannot be read").with(cause());
        assert_eq!(other.detail(), error.detail());
    }
}
