//! Accounts: declared in the configuration or made by command; one view of both.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::hub::path::TreePath;
use crate::store::AccountKind;

/// Users in this group administer, declared or not.
pub const ADMIN_GROUP: &str = "admin";

/// Someone who can sign in (user, device), compiled from settings or a catalog row.
#[derive(Clone, Debug)]
pub struct Account {
    /// Sign-in name, lower case.
    pub name: String,
    /// User or device.
    pub kind: AccountKind,
    /// PHC string, or the clear password from a `password_file`.
    pub(crate) secret: Secret,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Folder it is confined to.
    pub root: TreePath,
    /// Landing folder of a device.
    pub folder: Option<TreePath>,
    /// What FTP shows it as `/`: its root; a device's folder, unless its `root` is set.
    pub top: TreePath,
    /// Networks it may come from; empty: any.
    pub networks: Vec<IpNet>,
    /// Doors it may use; empty: any.
    pub protocols: Vec<String>,
    /// May administer.
    pub admin: bool,
    /// Refuses every sign-in.
    pub disabled: bool,
    /// From the configuration file, not from the catalog.
    pub declared: bool,
    /// What admits its sessions. A session that was admitted by another generation is over.
    pub(crate) generation: [u8; 32],
    /// Cancelled when this generation ends: the account is disabled, removed or has another generation.
    pub(crate) ended: CancellationToken,
}

/// How a password is checked.
#[derive(Clone)]
pub(crate) enum Secret {
    /// Nobody can sign in with a password.
    None,
    /// Argon2id PHC string.
    Hash(String),
    /// BLAKE3 of the clear text from `password_file`, compared in constant time.
    Digest([u8; 32]),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Account {
    /// `user:alice`, `device:camera-3`: as grants and history name it.
    #[must_use]
    pub fn principal(&self) -> String {
        match self.kind {
            AccountKind::Device => format!("device:{}", self.name),
            AccountKind::Group => format!("group:{}", self.name),
            AccountKind::User => format!("user:{}", self.name),
        }
    }

    /// Binds the account to a count kept in the catalog: a greater count is another generation.
    pub(crate) fn count_generation(&mut self, count: i64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.generation).update(&count.to_le_bytes());
        self.generation = *hasher.finalize().as_bytes();
    }

    /// True when a session that was admitted as `other` goes on as this account.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        self.kind == other.kind && !self.disabled && self.generation == other.generation
    }

    /// Where it starts after signing in: a device's landing folder, else its root.
    #[must_use]
    pub fn start(&self) -> TreePath {
        self.folder.clone().unwrap_or_else(|| self.root.clone())
    }

    /// Nobody can sign in as it with a password: it is known by where it comes from, or not at all.
    #[must_use]
    pub fn has_no_password(&self) -> bool {
        matches!(self.secret, Secret::None)
    }

    /// May it come from this address?
    #[must_use]
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// May it use this door?
    #[must_use]
    pub fn may_use(&self, door: &str) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|name| name == door)
    }
}
