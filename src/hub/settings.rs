//! What the hub is told: users, devices, spaces and the limits of storage and sign-in.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::hub::mail::settings::{AliasSettings, DropSettings, MailSettings, Post, Required};
use crate::units::{ByteSize, Span};

/// Everything the hub takes from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The data folder: `tree/`, `stage/` and the embedded catalog are below it.
    pub data: PathBuf,
    /// Mail domains served; the first is ours in headers.
    pub domains: Vec<String>,
    /// Declared users.
    pub users: Vec<UserSettings>,
    /// Declared devices.
    pub devices: Vec<DeviceSettings>,
    /// Declared spaces.
    pub spaces: Vec<SpaceSettings>,
    /// Declared aliases.
    pub aliases: Vec<AliasSettings>,
    /// How recipients are found and messages followed.
    pub mail: MailSettings,
    /// Limits of sign-in.
    pub login: LoginSettings,
    /// Limits of storage.
    pub storage: StorageSettings,
    /// Limits of locks.
    pub locks: LockSettings,
    /// Limits of properties.
    pub properties: PropertySettings,
    /// Files and folders of the server's own that no space may show, beside the data folder.
    pub protected: Vec<PathBuf>,
}

/// `[[user]]`: a declared user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSettings {
    /// Sign-in name; lower case letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Argon2id PHC string, from `stoa user hash`.
    pub password_hash: String,
    /// File with the password in clear (first line), instead of `password_hash`.
    pub password_file: String,
    /// Groups the user is in.
    pub groups: Vec<String>,
    /// Confines the account to a folder, which FTP shows as `/`.
    pub root: String,
    /// Networks it may sign in from; empty: any.
    pub networks: Vec<String>,
    /// Doors it may use; empty: any.
    pub protocols: Vec<String>,
    /// May use the admin commands of the API.
    pub admin: bool,
    /// Refuses every sign-in.
    pub disabled: bool,
}

impl Default for UserSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            password_hash: String::new(),
            password_file: String::new(),
            groups: Vec::new(),
            root: "/".into(),
            networks: Vec::new(),
            protocols: Vec::new(),
            admin: false,
            disabled: false,
        }
    }
}

/// `[[device]]`: a machine's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceSettings {
    /// Sign-in name.
    pub name: String,
    /// Argon2id PHC string, from `stoa user hash`.
    pub password_hash: String,
    /// File with the password in clear (first line), instead of `password_hash`.
    pub password_file: String,
    /// Networks it may come from; empty: any.
    pub networks: Vec<String>,
    /// Doors it may use; empty: any.
    pub protocols: Vec<String>,
    /// Where it lands and may always list, create and append.
    pub folder: String,
    /// What FTP shows it as `/`, and what it is confined to; empty: FTP shows its `folder`, and its grants are its bounds.
    pub root: String,
    /// Refuses every sign-in.
    pub disabled: bool,
}

/// `[[space]]`: a subtree with its own volume and rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpaceSettings {
    /// Where it is in the tree; `/` is allowed.
    pub path: String,
    /// An existing directory served in place; empty: `data/tree/<path>`.
    pub source: String,
    /// Most bytes it may hold; 0: no limit.
    pub quota: ByteSize,
    /// Most files it may hold; 0: no limit.
    pub quota_files: u64,
    /// What happens when an upload meets an existing name.
    pub overwrite: Overwrite,
    /// Drop address: attachments sent to `<address>@domain` are filed here.
    pub address: String,
    /// Keep the whole message as `.eml` beside its attachments.
    pub keep_message: bool,
    /// What the drop address takes.
    pub mail: DropSettings,
    /// An upload is acknowledged only when it would survive a power cut.
    pub durable: bool,
    /// Who may do what.
    pub grants: Vec<GrantSettings>,
}

impl Default for SpaceSettings {
    fn default() -> Self {
        Self {
            path: String::new(),
            source: String::new(),
            quota: ByteSize(0),
            quota_files: 0,
            overwrite: Overwrite::Replace,
            address: String::new(),
            keep_message: false,
            mail: DropSettings::default(),
            durable: true,
            grants: Vec::new(),
        }
    }
}

/// What happens when an upload meets an existing name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overwrite {
    /// The new file takes another name: `a (2).pdf`.
    KeepBoth,
    /// The upload is refused.
    Refuse,
    /// The new file takes its place (needs the `overwrite` verb).
    #[default]
    Replace,
}

/// One grant: who, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantSettings {
    /// `user:NAME`, `group:NAME`, `device:NAME`, `users` (everyone signed in as a user) or `everyone`.
    pub to: String,
    /// `view`, `drop`, `edit`, `own`, or verbs separated by blanks.
    pub allow: String,
}

/// `[login]`: sign-in for all doors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSettings {
    /// A password proved right is not hashed again for this long.
    pub remember: Span,
    /// Most proofs remembered.
    pub remember_entries: usize,
    /// Wrong passwords from one address before it must wait; three times as many from unknown addresses delay an account.
    pub attempts: u32,
    /// Time over which they are counted.
    pub window: Span,
    /// How long an address must wait.
    pub ban: Span,
    /// Longest wait between two sign-ins to an account from unknown addresses, after many of them failed.
    pub delay: Span,
    /// Networks that are never banned by address.
    pub never_ban: Vec<String>,
    /// Password hashes computed at once (each takes `memory`).
    pub hashers: usize,
    /// Memory of one argon2id hash.
    pub memory: ByteSize,
    /// Life of a browser session.
    pub session: Span,
}

impl Default for LoginSettings {
    fn default() -> Self {
        Self {
            remember: Span(Duration::from_mins(5)),
            remember_entries: 10_000,
            attempts: 10,
            window: Span(Duration::from_mins(10)),
            ban: Span(Duration::from_mins(10)),
            delay: Span(Duration::from_mins(1)),
            never_ban: Vec::new(),
            hashers: 2,
            memory: ByteSize(19 << 20),
            session: Span(Duration::from_hours(7 * 24)),
        }
    }
}

/// `[storage]`: limits of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// Bodies up to this size ride inside the commit.
    pub inline: ByteSize,
    /// Inline bytes not yet synced to the tree, before bodies are staged instead.
    pub inline_backlog: ByteSize,
    /// Largest single file; 0: no limit.
    pub file_size: ByteSize,
    /// Uploads are refused when the disk has less room than this.
    pub keep_free: ByteSize,
    /// Room on the disk of the data folder that is set aside for a start on a full disk; 0: none.
    pub reserve: ByteSize,
    /// How long a broken upload can be resumed.
    pub resume: Span,
    /// Uploads in pieces under way at most.
    pub uploads: usize,
    /// Of one account, or of one address of those who are not signed in.
    pub uploads_per_account: usize,
    /// How long an upload in pieces is kept to which no byte came.
    pub uploads_empty: Span,
    /// How long a repeated request is recognised and answered alike.
    pub receipts: Span,
    /// How often everything is compared with the disk, beside the watcher.
    pub rescan: Span,
    /// Attachments filed from one message at most.
    pub attachments: usize,
    /// Changes of one space that are in place and not synced yet; with more it takes no changes.
    pub unsynced: usize,
    /// How long a request waits for storage that does not answer.
    pub patience: Span,
    /// Threads that may wait for the storage of one space.
    pub threads: usize,
    /// Broken uploads kept to be resumed, other than those in pieces.
    pub partials: usize,
    /// Of one account.
    pub partials_per_account: usize,
    /// Uploads that are put together to one file at most.
    pub upload_parts: usize,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            inline: ByteSize(64 << 10),
            inline_backlog: ByteSize(64 << 20),
            file_size: ByteSize(0),
            keep_free: ByteSize(64 << 20),
            reserve: ByteSize(16 << 20),
            resume: Span(Duration::from_hours(24)),
            uploads: 4096,
            uploads_per_account: 512,
            uploads_empty: Span(Duration::from_mins(10)),
            receipts: Span(Duration::from_hours(24)),
            rescan: Span(Duration::from_hours(1)),
            attachments: 200,
            unsynced: 100_000,
            patience: Span(Duration::from_secs(30)),
            threads: 64,
            partials: 4096,
            partials_per_account: 64,
            upload_parts: 1000,
        }
    }
}

/// `[locks]`: WebDAV locks, which every door honours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockSettings {
    /// Longest time of a lock; it can be refreshed.
    pub longest: Span,
    /// Most locks in force.
    pub most: usize,
    /// Most locks of one account.
    pub most_of_account: usize,
    /// Longest text a client may say of itself.
    pub owner: ByteSize,
}

impl Default for LockSettings {
    fn default() -> Self {
        Self { longest: Span(Duration::from_hours(24)), most: 10_000, most_of_account: 1_000, owner: ByteSize(2 << 10) }
    }
}

/// `[properties]`: what WebDAV clients keep beside a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PropertySettings {
    /// Most properties of one file or folder.
    pub count: usize,
    /// Their names and values together.
    pub size: ByteSize,
}

impl Default for PropertySettings {
    fn default() -> Self {
        Self { count: 100, size: ByteSize(16 << 10) }
    }
}
