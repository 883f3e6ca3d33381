//! Properties the server itself knows (RFC 4918 §15, RFC 4331).

use std::fmt::Write as _;

use crate::hub::TreePath;
use crate::hub::{Caller, Entry, LockRow, NodeKind, SpaceRoom, now};
use crate::proto::http::base::Base;
use crate::proto::http::dav::xml::{self, Name};
use crate::proto::http::settings::Types;
use crate::proto::http::{condition, date};

/// A live property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    ContentLength,
    ContentType,
    CreationDate,
    DisplayName,
    Etag,
    LastModified,
    LockDiscovery,
    QuotaAvailable,
    QuotaUsed,
    ResourceType,
    SupportedLock,
}

/// All of them by name; the first nine are what `allprop` is (RFC 4918 §14.2).
const ALL: [(&str, Live); 11] = [
    ("creationdate", Live::CreationDate),
    ("displayname", Live::DisplayName),
    ("getcontentlength", Live::ContentLength),
    ("getcontenttype", Live::ContentType),
    ("getetag", Live::Etag),
    ("getlastmodified", Live::LastModified),
    ("lockdiscovery", Live::LockDiscovery),
    ("resourcetype", Live::ResourceType),
    ("supportedlock", Live::SupportedLock),
    ("quota-available-bytes", Live::QuotaAvailable),
    ("quota-used-bytes", Live::QuotaUsed),
];

const SUPPORTED_LOCK: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
     <D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

impl Live {
    /// The property of this name.
    pub fn of(name: &Name) -> Option<Self> {
        let local = name.in_dav()?;
        ALL.iter().find(|(known, _)| *known == local).map(|(_, live)| *live)
    }

    /// What `allprop` asks for.
    pub fn usual() -> impl Iterator<Item = (&'static str, Self)> {
        ALL.into_iter().filter(|(_, live)| !live.is_quota())
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = (&'static str, Self)> {
        ALL.into_iter()
    }

    /// Answered by the space rather than by what is there.
    pub fn is_quota(self) -> bool {
        matches!(self, Self::QuotaAvailable | Self::QuotaUsed)
    }

    /// Its value as XML; `None` where it has none. `room` is that of a folder's space.
    pub fn value(
        self,
        entry: &Entry,
        caller: &Caller,
        (base, types): (&Base, &Types),
        room: Option<&SpaceRoom>,
    ) -> Option<String> {
        let node = &entry.node;
        let (file, folder) = (node.kind == NodeKind::File, node.kind == NodeKind::Folder);
        let timed = !entry.is_virtual();
        match self {
            Self::ContentLength => (!folder).then(|| node.size.to_string()),
            Self::ContentType => file.then(|| xml::text(types.of(entry.path.name()))),
            Self::CreationDate => timed.then(|| date::rfc3339(node.modified)),
            Self::DisplayName => Some(xml::text(if entry.path.is_root() { "Stoa" } else { entry.path.name() })),
            Self::Etag => file.then(|| xml::text(&condition::etag(node.tag))),
            Self::LastModified => {
                if timed {
                    date::imf(node.modified)
                } else {
                    None
                }
            }
            Self::LockDiscovery => Some(active(caller, base, &entry.path)),
            Self::QuotaAvailable => folder.then_some(room?.free.to_string()),
            Self::QuotaUsed => folder.then_some(room?.used.as_ref()?.bytes.to_string()),
            Self::ResourceType => Some(if folder { "<D:collection/>".to_owned() } else { String::new() }),
            Self::SupportedLock => Some(SUPPORTED_LOCK.to_owned()),
        }
    }

    /// True where it has a value at all: for `propname`.
    pub fn is_of(self, entry: &Entry) -> bool {
        let (file, folder) = (entry.node.kind == NodeKind::File, entry.node.kind == NodeKind::Folder);
        match self {
            Self::ContentLength => !folder,
            Self::ContentType | Self::Etag => file,
            Self::CreationDate | Self::LastModified => !entry.is_virtual(),
            Self::QuotaAvailable | Self::QuotaUsed => folder,
            Self::DisplayName | Self::LockDiscovery | Self::ResourceType | Self::SupportedLock => true,
        }
    }
}

/// The locks in whose scope a path is, of those that the caller may know of.
pub fn active(caller: &Caller, base: &Base, path: &TreePath) -> String {
    caller
        .hub()
        .locks_on(path)
        .iter()
        .filter(|row| caller.may_know_of(row))
        .map(|row| active_lock(row, caller, base))
        .collect()
}

/// One lock as `activelock` (RFC 4918 §14.1). Its token is shown to its holder alone.
fn active_lock(row: &LockRow, caller: &Caller, base: &Base) -> String {
    let scope = if row.shared { "shared" } else { "exclusive" };
    let depth = if row.deep { "infinity" } else { "0" };
    let seconds = row.expires.saturating_sub(now()).max(0) / 1_000_000;
    let mut out = format!(
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
    );
    if !row.owner.is_empty() {
        let _ = write!(out, "<D:owner>{}</D:owner>", row.owner);
    }
    let _ = write!(out, "<D:timeout>Second-{seconds}</D:timeout>");
    if row.account == caller.name() {
        let _ = write!(out, "<D:locktoken><D:href>{}</D:href></D:locktoken>", xml::text(&row.token));
    }
    let root = TreePath::parse(&row.path).map(|path| base.url(&path, false)).unwrap_or_default();
    let _ = write!(out, "<D:lockroot><D:href>{root}</D:href></D:lockroot></D:activelock>");
    out
}
