//! Accounts from the configuration and from the catalog, checked and compiled.
//!
//! What is wrong is said with its key and its remedy, all of it at once. A wrong account is left out rather than
//! let in half understood.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::hub::account::{ADMIN_GROUP, Account, Secret};
use crate::hub::compile::{From, Problems, tree_path};
use crate::hub::path::TreePath;
use crate::hub::settings::{DeviceSettings, Settings, UserSettings};
use crate::store::{AccountKind, AccountRow};

/// Longest sign-in name.
pub(crate) const LONGEST_NAME: usize = 64;

/// Most of a password file that is read.
const PASSWORD_FILE: u64 = 4096;

/// Most memory in KiB a stored hash may ask of a sign-in.
const MOST_HASH_KIB: u32 = 1 << 20;

/// Accounts and groups that were understood.
#[derive(Default)]
pub(crate) struct Roster {
    pub(crate) accounts: HashMap<String, Arc<Account>>,
    pub(crate) groups: BTreeSet<String>,
}

/// An account as either source writes it.
struct Spec<'a> {
    kind: AccountKind,
    name: &'a str,
    password_hash: &'a str,
    password_file: &'a str,
    groups: &'a [String],
    root: &'a str,
    folder: &'a str,
    networks: &'a [String],
    protocols: &'a [String],
    admin: bool,
    disabled: bool,
    from: From,
}

impl<'a> Spec<'a> {
    fn user(user: &'a UserSettings) -> Self {
        Self {
            kind: AccountKind::User,
            name: &user.name,
            password_hash: &user.password_hash,
            password_file: &user.password_file,
            groups: &user.groups,
            root: &user.root,
            folder: "",
            networks: &user.networks,
            protocols: &user.protocols,
            admin: user.admin || user.groups.iter().any(|group| group == ADMIN_GROUP),
            disabled: user.disabled,
            from: From::Settings,
        }
    }

    fn device(device: &'a DeviceSettings) -> Self {
        Self {
            kind: AccountKind::Device,
            name: &device.name,
            password_hash: &device.password_hash,
            password_file: &device.password_file,
            groups: &[],
            root: &device.root,
            folder: &device.folder,
            networks: &device.networks,
            protocols: &device.protocols,
            admin: false,
            disabled: device.disabled,
            from: From::Settings,
        }
    }

    fn row(row: &'a AccountRow) -> Self {
        Self {
            kind: row.kind,
            name: &row.name,
            password_hash: &row.password_hash,
            password_file: "",
            groups: &row.groups,
            root: &row.root,
            folder: &row.folder,
            networks: &row.networks,
            protocols: &row.protocols,
            admin: row.kind == AccountKind::User && row.groups.iter().any(|group| group == ADMIN_GROUP),
            disabled: row.disabled,
            from: From::Catalog,
        }
    }

    /// How a message calls it: `[[user]] alice`, `user alice`.
    fn label(&self) -> String {
        let kind = kind_word(self.kind);
        match self.from {
            From::Settings => format!("[[{kind}]] {}", self.name),
            From::Catalog => format!("{kind} {}", self.name),
        }
    }

    fn compile(&self) -> Result<Account, Vec<String>> {
        let mut wrong = Vec::new();
        let mut note = |key: &str, what: String| wrong.push(format!("{}: {key}: {what}", self.label()));
        if let Err(what) = check_account_name(self.name) {
            note("name", what);
        }
        let secret = self.secret().unwrap_or_else(|(key, what)| {
            note(key, what);
            Secret::None
        });
        let root = match self.root {
            "" => TreePath::root(),
            root => tree_path(root).unwrap_or_else(|what| {
                note("root", what);
                TreePath::root()
            }),
        };
        let folder = match self.folder {
            "" => None,
            folder => tree_path(folder).map_err(|what| note("folder", what)).ok(),
        };
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_in(&root)) {
            note("folder", format!("{folder} is not in its root {root}, so it could not use it"));
        }
        let top = match (&folder, self.root) {
            (Some(folder), "") => folder.clone(),
            _ => root.clone(),
        };
        let mut networks = Vec::new();
        for network in self.networks {
            match network_of(network) {
                Ok(network) => networks.push(network),
                Err(what) => note("networks", what),
            }
        }
        for group in self.groups {
            if let Err(what) = check_account_name(group) {
                note("groups", what);
            }
        }
        for door in self.protocols {
            if door.is_empty() || !door.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
                note("protocols", format!("`{door}` is not a door; write it as in [[listen]], such as \"ftp\""));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let generation = self.generation(&secret);
        Ok(Account {
            name: self.name.to_owned(),
            kind: self.kind,
            secret,
            groups: self.groups.to_vec(),
            root,
            folder,
            top,
            networks,
            protocols: self.protocols.to_vec(),
            admin: self.admin,
            disabled: self.disabled,
            declared: self.from == From::Settings,
            generation,
            ended: CancellationToken::new(),
        })
    }

    /// What its sessions are bound to, but for the count in the catalog. Groups are left out: they are looked up for each act.
    fn generation(&self, secret: &Secret) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        for text in [kind_word(self.kind), self.name, self.root, self.folder] {
            add(text.as_bytes());
        }
        for list in [self.networks, self.protocols] {
            add(&(list.len() as u64).to_le_bytes());
            for text in list {
                add(text.as_bytes());
            }
        }
        match (self.from, secret) {
            // A new password in the catalog counts there, so that a stronger hash of the same one ends no session.
            (From::Catalog, _) | (From::Settings, Secret::None) => add(b""),
            (From::Settings, Secret::Hash(hash)) => add(hash.as_bytes()),
            (From::Settings, Secret::Digest(digest)) => add(digest),
        }
        *hasher.finalize().as_bytes()
    }

    fn secret(&self) -> Result<Secret, (&'static str, String)> {
        match (self.password_hash, self.password_file) {
            ("", "") => Ok(Secret::None),
            (hash, "") => {
                check_hash(hash).map_err(|what| ("password_hash", what))?;
                Ok(Secret::Hash(hash.to_owned()))
            }
            ("", file) => {
                digest_of(file).map(Secret::Digest).map_err(|what| ("password_file", format!("{file}: {what}")))
            }
            _ => Err(("password_file", "is given beside password_hash; keep one of the two".into())),
        }
    }
}

/// The word of a kind in the configuration and in messages.
pub(crate) fn kind_word(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::Device => "device",
        AccountKind::Group => "group",
        AccountKind::User => "user",
    }
}

impl Roster {
    /// Declared accounts first: a record of the same name in the catalog is left out and complained of.
    pub(crate) fn compile(settings: &Settings, rows: &[AccountRow], problems: &mut Problems) -> Self {
        let mut roster = Self::default();
        let declared = settings.users.iter().map(Spec::user).chain(settings.devices.iter().map(Spec::device));
        for spec in declared.chain(rows.iter().map(Spec::row)) {
            roster.take(&spec, problems);
        }
        roster
    }

    fn take(&mut self, spec: &Spec<'_>, problems: &mut Problems) {
        if spec.kind == AccountKind::Group {
            self.groups.insert(spec.name.to_owned());
            return;
        }
        if let Some(other) = self.accounts.get(spec.name) {
            let whose = if other.declared { "the configuration" } else { "the catalog" };
            let what = format!(
                "{}: name: is already the name of a {} in {whose}; names are unique over users and devices, rename or remove one",
                spec.label(),
                kind_word(other.kind)
            );
            problems.add(spec.from, what);
            return;
        }
        match spec.compile() {
            Ok(account) => {
                self.groups.extend(account.groups.iter().cloned());
                self.accounts.insert(account.name.clone(), Arc::new(account));
            }
            Err(wrong) => {
                for what in wrong {
                    problems.add(spec.from, what);
                }
            }
        }
    }
}

/// A name that can be an account's or a group's.
pub(crate) fn check_account_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err("is empty; give it a name".into()),
        name if name.len() > LONGEST_NAME => Err(format!("`{name}` is longer than {LONGEST_NAME} characters")),
        name if !name.bytes().all(allowed) => {
            Err(format!("`{name}` may hold only lower case letters, digits, `.`, `_` and `-`"))
        }
        // It is a folder's name in /home and /mail, and a device's in a command line.
        name if name.starts_with(['.', '-']) => Err(format!("`{name}` may not start with `.` or `-`")),
        _ => Ok(()),
    }
}

/// A network (`10.0.5.0/24`) or a single address.
pub(crate) fn network_of(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is not a network; write it like \"10.0.5.0/24\" or \"2001:db8::/32\""))
}

/// A stored hash that a sign-in can check without harm.
pub(crate) fn check_hash(hash: &str) -> Result<(), String> {
    const REMEDY: &str = "make one with `stoa user hash`";
    let parsed = PasswordHash::new(hash).map_err(|error| format!("is not a PHC string ({error}); {REMEDY}"))?;
    if parsed.algorithm.as_str() != "argon2id" {
        return Err(format!("`{}` is not argon2id; {REMEDY}", parsed.algorithm));
    }
    let params = Params::try_from(&parsed).map_err(|error| format!("has unusable parameters ({error}); {REMEDY}"))?;
    if parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(format!("lacks its salt or its hash; {REMEDY}"));
    }
    match params.m_cost() > MOST_HASH_KIB || params.t_cost() > 64 {
        true => Err(format!("asks for more than 1 GiB or 64 rounds for each sign-in; {REMEDY}")),
        false => Ok(()),
    }
}

/// BLAKE3 of the first line of a password file.
fn digest_of(file: &str) -> Result<[u8; 32], String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|opened| opened.take(PASSWORD_FILE).read_to_end(&mut bytes)).map_err(
        |error| {
            format!("cannot be read: {error}; put the password into its first line, readable for the server's account")
        },
    )?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.is_empty() {
        true => Err("its first line is empty; put the password there".into()),
        false => Ok(*blake3::hash(line).as_bytes()),
    }
}
