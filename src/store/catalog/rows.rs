//! The records as values: one struct per table, in the words of the design.

use bytes::Bytes;

use crate::store::Micros;

/// A file the catalog knows: the truth is on the volume, this is what was counted for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRow {
    /// Path of the space, `/scans`.
    pub space: String,
    /// Path inside the space without leading slash, `2026/a.pdf`.
    pub path: String,
    /// Bytes counted into the usage.
    pub size: u64,
    /// Modification time as last seen on the volume.
    pub modified: Micros,
    /// Counts up with each change; starts at 1.
    pub version: i64,
    /// Account that wrote it; empty when another program did.
    pub owner: String,
    /// SHA-256 where it was computed.
    pub sha256: Option<[u8; 32]>,
}

/// What a space holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of the sizes of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
}

/// A publish that was decided and may not have happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentRow {
    /// Order of the decision on this node.
    pub id: i64,
    /// Path of the space whose volume does it.
    pub space: String,
    /// The change, as `volume::Change::encode` wrote it.
    pub change: String,
    /// The bytes themselves when they are small.
    pub body: Option<Bytes>,
}

/// One line of history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryLine {
    /// Which daemon's chain; set by the engine.
    pub node: String,
    /// Place in the chain; set by the engine.
    pub seq: i64,
    /// When.
    pub at: Micros,
    /// Which door (`ftp`, `smtp`, `http`, `cli`, `outside`).
    pub door: String,
    /// Who; empty for nobody signed in.
    pub account: String,
    /// From where.
    pub address: String,
    /// What was done: `create`, `overwrite`, `delete`, `rename`, `deliver`, …
    pub verb: String,
    /// To what: a full path of the tree.
    pub path: String,
    /// How many bytes.
    pub bytes: u64,
    /// `ok`, or why not.
    pub result: String,
    /// The rest in words: where it was renamed to, message id, …
    pub detail: String,
    /// Hash of the line before; set by the engine.
    pub prev: [u8; 32],
    /// Hash of this line and `prev`; set by the engine.
    pub hash: [u8; 32],
}

impl HistoryLine {
    /// The hash this line must carry: BLAKE3 over `prev` and every other field, each text behind its length.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.prev);
        hasher.update(b"stoa history 1\n");
        for number in [self.seq, self.at, i64::try_from(self.bytes).unwrap_or(i64::MAX)] {
            hasher.update(&number.to_le_bytes());
        }
        for text in
            [&self.node, &self.door, &self.account, &self.address, &self.verb, &self.path, &self.result, &self.detail]
        {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// What to read from the history; everything empty reads the newest lines.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// Only below this path.
    pub path: Option<String>,
    /// Only by this account.
    pub account: Option<String>,
    /// Only through this door.
    pub door: Option<String>,
    /// At most this many, newest last.
    pub limit: usize,
}

/// The result of walking the history chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Lines read.
    pub lines: u64,
    /// First broken line of each broken chain: node and seq.
    pub broken: Vec<(String, i64)>,
}

/// What sort of principal an account is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountKind {
    /// A machine: one credential for every door it may use.
    Device,
    /// A set of users.
    Group,
    /// A person.
    #[default]
    User,
}

impl AccountKind {
    /// As it is written in the catalog and in grants.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Group => "group",
            Self::User => "user",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Device, Self::Group, Self::User].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An account made on the command line or over the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRow {
    /// Unique over users, devices and groups of its kind; lower case.
    pub name: String,
    /// User, device or group.
    pub kind: AccountKind,
    /// PHC string; empty: cannot sign in.
    pub password_hash: String,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Folder it is confined to.
    pub root: String,
    /// Networks it may come from; empty: any.
    pub networks: Vec<String>,
    /// Doors it may use; empty: any.
    pub protocols: Vec<String>,
    /// Landing folder of a device; empty: none.
    pub folder: String,
    /// Refuses every sign-in.
    pub disabled: bool,
}

/// A space made on the command line or over the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceRow {
    /// Where it is in the tree.
    pub path: String,
    /// Existing folder served in place; empty: under the data folder.
    pub source: String,
    /// Most bytes it may hold.
    pub max_bytes: Option<u64>,
    /// Most files it may hold.
    pub max_files: Option<u64>,
    /// `replace`, `keep-both` or `refuse`.
    pub overwrite: String,
    /// Local part of its drop address; empty: none.
    pub address: String,
    /// Acknowledged means synced to disk.
    pub durable: bool,
    /// Who may do what.
    pub grants: Vec<GrantRow>,
}

/// One grant of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantRow {
    /// `user:NAME`, `group:NAME`, `device:NAME`, `users` or `everyone`.
    pub to: String,
    /// `view`, `drop`, `edit`, `own`, or verbs separated by blanks.
    pub allow: String,
}

/// A signed-in browser or API client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRow {
    /// BLAKE3 of the token; the token itself is never stored.
    pub token: [u8; 32],
    /// Whose.
    pub account: String,
    /// When it was opened.
    pub created: Micros,
    /// When it ends by itself.
    pub expires: Micros,
    /// Where it was opened from.
    pub address: String,
    /// Generation of the account that signed in; a session of another generation is over.
    pub generation: [u8; 32],
}

/// A space whose account or record was removed. Its files stay; only administrators and the heir may see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftRow {
    /// Where it is in the tree.
    pub path: String,
    /// Existing folder served in place; empty: under the data folder.
    pub source: String,
    /// When it was removed.
    pub since: Micros,
    /// `user:NAME` it was handed over to; empty: nobody yet.
    pub heir: String,
}

/// A lock on a path, honoured by every door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRow {
    /// The lock token (RFC 4918 `opaquelocktoken:`).
    pub token: String,
    /// Full path of the tree.
    pub path: String,
    /// Everything below it too.
    pub deep: bool,
    /// Others may hold one beside it.
    pub shared: bool,
    /// Whose.
    pub account: String,
    /// What the client said of itself, XML.
    pub owner: String,
    /// When it ends by itself.
    pub expires: Micros,
}
