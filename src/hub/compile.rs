//! Settings and records become a draft of the view: everything checked, nothing opened yet.
//!
//! Used to build the view and, by the operator's commands, to try a change before it is written. What is wrong with
//! the configuration stops a start or a reload; a wrong record of the catalog is left out and said in the log, so
//! that one bad row never locks everybody out.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use crate::hub::account::Account;
use crate::hub::grounds::Grounds;
use crate::hub::mail::DropRules;
use crate::hub::path::TreePath;
use crate::hub::policy::{Verb, Verbs};
use crate::hub::roster::{Roster, network_of};
use crate::hub::settings::{DropSettings, LoginSettings, Overwrite, Settings, SpaceSettings};
use crate::hub::view::{Principal, RESERVED_NAME, SpaceRole, View};
use crate::store::{AccountKind, AccountRow, SpaceRow};

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Catalog,
    Settings,
}

/// What was found wrong, each naming its key and the remedy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    /// In the configuration.
    pub(crate) declared: Vec<String>,
    /// In the catalog.
    pub(crate) recorded: Vec<String>,
}

impl Problems {
    pub(crate) fn add(&mut self, from: From, what: String) {
        match from {
            From::Catalog => self.recorded.push(what),
            From::Settings => self.declared.push(what),
        }
    }
}

/// What a server without any other space offers.
pub(crate) const FIRST_SPACE: &str = "/shared";

/// A space before its volume is opened.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) label: String,
    pub(crate) from: From,
    pub(crate) path: TreePath,
    pub(crate) source: String,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_files: Option<u64>,
    pub(crate) overwrite: Overwrite,
    pub(crate) address: Option<String>,
    pub(crate) keep_message: bool,
    pub(crate) drop_rules: DropRules,
    pub(crate) durable: bool,
    pub(crate) grants: Vec<(Principal, Verbs)>,
    pub(crate) role: SpaceRole,
    pub(crate) declared: bool,
    /// Accounts it was made for.
    pub(crate) owners: Vec<String>,
}

/// Everything the view is made from.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) accounts: HashMap<String, Arc<Account>>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) never_ban: Vec<IpNet>,
    pub(crate) plots: Vec<Plot>,
    grounds: Grounds,
}

impl Draft {
    pub(crate) fn compile(
        settings: &Settings,
        accounts: &[AccountRow],
        spaces: &[SpaceRow],
        problems: &mut Problems,
    ) -> Self {
        let roster = Roster::compile(settings, accounts, problems);
        let mut draft = Self {
            accounts: roster.accounts,
            groups: roster.groups,
            never_ban: check_login(&settings.login, problems),
            plots: Vec::new(),
            grounds: Grounds::of(settings),
        };
        let declared = settings.spaces.iter().map(Wish::from_settings);
        for wish in declared.chain(spaces.iter().map(Wish::from_row)) {
            draft.take(&wish, problems);
        }
        if settings.spaces.is_empty() && spaces.is_empty() {
            let plot = draft.first_space();
            draft.plots.push(plot);
        }
        draft.add_personal();
        draft.add_landings(problems);
        draft
    }

    /// Completes the generation of each account. One that goes on from the old view keeps its sessions.
    pub(crate) fn count_generations(&mut self, counts: &HashMap<String, i64>, old: Option<&View>) {
        for account in self.accounts.values_mut() {
            let now = Arc::make_mut(account);
            now.count_generation(counts.get(&now.name).copied().unwrap_or_default());
            if let Some(before) = old.and_then(|old| old.accounts.get(&now.name)).filter(|one| now.continues(one)) {
                now.ended = before.ended.clone();
            }
        }
    }

    /// Adds a space unless something is wrong with it.
    fn take(&mut self, wish: &Wish<'_>, problems: &mut Problems) {
        let mut wrong = Vec::new();
        let plot = wish.compile(&self.accounts, &mut wrong);
        if let Some(plot) = &plot {
            for other in &self.plots {
                if other.path == plot.path {
                    wrong
                        .push(format!("path: {} is already there ({}); remove one of the two", plot.path, other.label));
                }
                if plot.address.is_some() && other.address == plot.address {
                    wrong.push(format!("address: is already the drop address of {}; choose another", other.label));
                }
            }
        }
        let label = wish.label();
        if let Some(plot) = plot.as_ref().filter(|plot| wrong.is_empty() && !plot.source.is_empty()) {
            wrong.extend(self.grounds.take(&plot.label, &plot.source));
        }
        match plot {
            Some(plot) if wrong.is_empty() => self.plots.push(plot),
            _ => {
                for what in wrong {
                    problems.add(wish.from, format!("{label}: {what}"));
                }
            }
        }
    }

    /// What a server without any space offers its users.
    fn first_space(&self) -> Plot {
        let is_user = self.accounts.get("shared").is_some_and(|account| account.kind == AccountKind::User);
        Plot {
            address: (!is_user).then(|| "shared".to_owned()),
            grants: vec![(Principal::Users, Verbs::EDIT)],
            ..made(TreePath::parse(FIRST_SPACE).unwrap_or_else(|_| TreePath::root()), SpaceRole::Shared)
        }
    }

    /// `/home/NAME` and `/mail/NAME` of each user. One that is declared keeps its volume, limits and grants.
    fn add_personal(&mut self) {
        let mut names: Vec<String> =
            self.accounts.values().filter(|one| one.kind == AccountKind::User).map(|one| one.name.clone()).collect();
        names.sort_unstable();
        let mail = [Verb::List, Verb::Read, Verb::Overwrite, Verb::Delete, Verb::Rename];
        let mail = mail.into_iter().fold(Verbs::NONE, Verbs::with);
        for name in names {
            for (top, role, verbs) in [("home", SpaceRole::Home, Verbs::OWN), ("mail", SpaceRole::Mailbox, mail)] {
                let Ok(path) = TreePath::root().join(top).and_then(|top| top.join(&name)) else { continue };
                let at = self.plots.iter().position(|plot| plot.path == path).unwrap_or_else(|| {
                    self.plots.push(made(path, role));
                    self.plots.len() - 1
                });
                if let Some(plot) = self.plots.get_mut(at) {
                    plot.role = role;
                    plot.grants.push((Principal::User(name.clone()), verbs));
                    plot.owners.push(name.clone());
                }
            }
        }
    }

    /// A space for each landing folder that no other covers, the widest first.
    fn add_landings(&mut self, problems: &mut Problems) {
        let mut wanted: Vec<(TreePath, Arc<Account>)> = self
            .accounts
            .values()
            .filter_map(|account| account.folder.clone().map(|folder| (folder, account.clone())))
            .collect();
        wanted.sort_by(|a, b| (a.0.parts().count(), &a.1.name).cmp(&(b.0.parts().count(), &b.1.name)));
        for (folder, account) in wanted {
            if self.plots.iter().any(|plot| folder.is_in(&plot.path)) {
                continue; // the implied grant of the view lets the device in
            }
            if folder.is_root() {
                let (from, label) = match account.declared {
                    true => (From::Settings, format!("[[device]] {}", account.name)),
                    false => (From::Catalog, format!("device {}", account.name)),
                };
                problems.add(from, format!("{label}: folder: may not be `/` unless a space is there; name a folder"));
                continue;
            }
            let verbs = super::view::LANDING.iter().fold(Verbs::NONE, |sum, verb| sum.with(*verb));
            let mut plot = made(folder, SpaceRole::Landing);
            plot.grants.push((Principal::Device(account.name.clone()), verbs));
            plot.owners.push(account.name.clone());
            self.plots.push(plot);
        }
        let landings: Vec<_> =
            self.accounts.values().filter_map(|one| Some((one.folder.clone()?, one.name.clone()))).collect();
        for (folder, name) in landings {
            // Two devices may land in one folder: both own the space made for it.
            if let Some(plot) = self.plots.iter_mut().find(|plot| plot.path == folder)
                && !plot.owners.contains(&name)
            {
                plot.owners.push(name);
            }
        }
    }
}

/// A space the server makes by itself.
pub(crate) fn made(path: TreePath, role: SpaceRole) -> Plot {
    Plot {
        label: format!("the space {path}"),
        from: From::Settings,
        path,
        source: String::new(),
        max_bytes: None,
        max_files: None,
        overwrite: Overwrite::Replace,
        address: None,
        keep_message: false,
        drop_rules: DropRules::default(),
        durable: true,
        grants: Vec::new(),
        role,
        declared: true,
        owners: Vec::new(),
    }
}

/// A space as either source writes it.
struct Wish<'a> {
    from: From,
    path: &'a str,
    source: &'a str,
    max_bytes: Option<u64>,
    max_files: Option<u64>,
    overwrite: Result<Overwrite, String>,
    address: &'a str,
    keep_message: bool,
    mail: Option<&'a DropSettings>,
    durable: bool,
    grants: Vec<(&'a str, &'a str)>,
}

impl<'a> Wish<'a> {
    fn from_settings(space: &'a SpaceSettings) -> Self {
        Self {
            from: From::Settings,
            path: &space.path,
            source: &space.source,
            max_bytes: Some(space.quota.0).filter(|most| *most > 0),
            max_files: Some(space.quota_files).filter(|most| *most > 0),
            overwrite: Ok(space.overwrite),
            address: &space.address,
            keep_message: space.keep_message,
            mail: Some(&space.mail),
            durable: space.durable,
            grants: space.grants.iter().map(|grant| (grant.to.as_str(), grant.allow.as_str())).collect(),
        }
    }

    fn from_row(row: &'a SpaceRow) -> Self {
        Self {
            from: From::Catalog,
            path: &row.path,
            source: &row.source,
            max_bytes: row.max_bytes,
            max_files: row.max_files,
            overwrite: overwrite_of(&row.overwrite),
            address: &row.address,
            keep_message: false,
            mail: None,
            durable: row.durable,
            grants: row.grants.iter().map(|grant| (grant.to.as_str(), grant.allow.as_str())).collect(),
        }
    }

    /// How a message calls it.
    fn label(&self) -> String {
        match self.from {
            From::Settings => format!("[[space]] {}", self.path),
            From::Catalog => format!("space {}", self.path),
        }
    }

    fn compile(&self, accounts: &HashMap<String, Arc<Account>>, wrong: &mut Vec<String>) -> Option<Plot> {
        let path = tree_path(self.path).map_err(|what| wrong.push(format!("path: {what}"))).ok();
        if !self.source.is_empty() && !Path::new(self.source).is_absolute() {
            wrong.push(format!("source: `{}` is not absolute; write the whole path of the directory", self.source));
        }
        let overwrite = self.overwrite.clone().map_err(|what| wrong.push(format!("overwrite: {what}"))).ok();
        let address = self.address.to_ascii_lowercase();
        if let Err(what) = check_address(&address, accounts) {
            wrong.push(format!("address: {what}"));
        }
        let drop_rules = self.mail.map(|mail| DropRules::compile(mail, wrong)).unwrap_or_default();
        let mut grants = Vec::new();
        for (to, allow) in &self.grants {
            match grant_of(to, allow, accounts) {
                Ok(grant) => grants.push(grant),
                // A grant of the catalog to someone who is gone grants nothing and harms nobody.
                Err(GrantError::Unknown(_)) if self.from == From::Catalog => {}
                Err(GrantError::Unknown(what) | GrantError::Wrong(what)) => wrong.push(format!("grants: {what}")),
            }
        }
        Some(Plot {
            label: self.label(),
            from: self.from,
            path: path?,
            source: match self.source.trim_end_matches('/') {
                "" if !self.source.is_empty() => "/".to_owned(),
                source => source.to_owned(),
            },
            max_bytes: self.max_bytes,
            max_files: self.max_files,
            overwrite: overwrite?,
            address: Some(address).filter(|address| !address.is_empty()),
            keep_message: self.keep_message,
            drop_rules,
            durable: self.durable,
            grants,
            role: SpaceRole::Shared,
            declared: self.from == From::Settings,
            owners: Vec::new(),
        })
    }
}

enum GrantError {
    /// A user or device that is not there.
    Unknown(String),
    /// Cannot be read.
    Wrong(String),
}

fn grant_of(to: &str, allow: &str, accounts: &HashMap<String, Arc<Account>>) -> Result<(Principal, Verbs), GrantError> {
    let principal = Principal::parse(to).map_err(|error| GrantError::Wrong(error.to_string()))?;
    let verbs = Verbs::parse(allow).map_err(|error| GrantError::Wrong(error.to_string()))?;
    if verbs.is_empty() {
        return Err(GrantError::Wrong(format!("{to}: allows nothing; name verbs such as \"view\" or \"edit\"")));
    }
    let there = |name: &str, kind| accounts.get(name).is_some_and(|account| account.kind == kind);
    match &principal {
        Principal::User(name) if !there(name, AccountKind::User) => {
            Err(GrantError::Unknown(format!("there is no user `{name}`; make it first or correct the name")))
        }
        Principal::Device(name) if !there(name, AccountKind::Device) => {
            Err(GrantError::Unknown(format!("there is no device `{name}`; make it first or correct the name")))
        }
        _ => Ok((principal, verbs)),
    }
}

/// Reads the overwrite rule of a space's record.
pub(crate) fn overwrite_of(text: &str) -> Result<Overwrite, String> {
    match text {
        "" | "replace" => Ok(Overwrite::Replace),
        "keep-both" => Ok(Overwrite::KeepBoth),
        "refuse" => Ok(Overwrite::Refuse),
        other => Err(format!("`{other}` is not a rule; use replace, keep-both or refuse")),
    }
}

/// The word of an overwrite rule.
pub(crate) fn overwrite_word(rule: Overwrite) -> &'static str {
    match rule {
        Overwrite::KeepBoth => "keep-both",
        Overwrite::Refuse => "refuse",
        Overwrite::Replace => "replace",
    }
}

/// An absolute path of the tree that a space, a root or a landing folder may have.
pub(crate) fn tree_path(text: &str) -> Result<TreePath, String> {
    let path = TreePath::parse(text)
        .map_err(|error| format!("`{text}` is not a path of the tree: {error}; write it like \"/scans\""))?;
    let reserved = path.parts().next() == Some(RESERVED_NAME);
    match reserved {
        true => Err(format!("`{text}` is below `/-`, which is reserved; choose another name")),
        false => Ok(path),
    }
}

/// A drop address: the part before `@`, without the `+` that names a folder.
fn check_address(address: &str, accounts: &HashMap<String, Arc<Account>>) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if address.is_empty() {
        return Ok(());
    }
    if address.len() > 64 || !address.bytes().all(allowed) || address.starts_with('.') || address.ends_with('.') {
        return Err(format!(
            "`{address}` may hold only letters, digits, `.`, `_` and `-`, at most 64; leave out `@domain`"
        ));
    }
    match accounts.get(address) {
        Some(account) if account.kind == AccountKind::User => {
            Err(format!("`{address}` is the mailbox of the user {address}; choose another"))
        }
        _ => Ok(()),
    }
}

/// Limits of sign-in that cannot work; gives the networks that are never banned.
fn check_login(login: &LoginSettings, problems: &mut Problems) -> Vec<IpNet> {
    let mut note = |key: &str, what: &str| problems.add(From::Settings, format!("[login] {key}: {what}"));
    if login.hashers == 0 || login.hashers > 256 {
        note("hashers", "must be from 1 to 256; the number of cores is a good value");
    }
    if login.attempts == 0 {
        note("attempts", "must be at least 1; 10 is the default");
    }
    if login.memory.0 < (8 << 10) || login.memory.0 > (1 << 30) {
        note("memory", "must be from 8 KiB to 1 GiB; \"19 MiB\" is the default");
    }
    if login.session.0.is_zero() {
        note("session", "must be longer than 0s; \"7d\" is the default");
    }
    let mut networks = Vec::new();
    for network in &login.never_ban {
        match network_of(network) {
            Ok(network) => networks.push(network),
            Err(what) => note("never_ban", &what),
        }
    }
    networks
}
