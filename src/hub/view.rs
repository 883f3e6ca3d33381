//! The compiled view of accounts, spaces and grants that every verdict is made from.
//!
//! Built from the settings and the catalog's own accounts and spaces, swapped whole: reading it takes no lock and no query.
//! A verdict is a handful of hash lookups and allocates nothing, for it is asked on every request of every door.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::error::{Error, Kind, Result};
use crate::hub::Volumes;
use crate::hub::account::Account;
use crate::hub::compile::{Draft, Plot, Problems};
use crate::hub::left::known_paths;
use crate::hub::login::Cost;
use crate::hub::mail::{Aliases, DropRules};
use crate::hub::path::TreePath;
use crate::hub::policy::{Verb, Verbs};
use crate::hub::room::Glance;
use crate::hub::settings::{Overwrite, Settings};
use crate::store::{AccountKind, Catalog, Change, LeftRow, RelPath, Volume};

/// A subtree with its own volume and rules.
pub struct Space {
    /// Where it is in the tree.
    pub path: TreePath,
    /// `path` as text: its key in the catalog.
    pub key: String,
    /// Its bytes.
    pub volume: Arc<dyn Volume>,
    /// Directory served in place; empty for one of our own.
    pub source: String,
    /// Most bytes.
    pub max_bytes: Option<u64>,
    /// Most files.
    pub max_files: Option<u64>,
    /// Rule for an upload onto an existing name.
    pub overwrite: Overwrite,
    /// Drop address.
    pub address: Option<String>,
    /// Keep messages beside their attachments.
    pub keep_message: bool,
    /// What the drop address takes.
    pub(crate) drop_rules: DropRules,
    /// Acknowledged means synced.
    pub durable: bool,
    /// Compiled grants.
    pub grants: Vec<(Principal, Verbs)>,
    /// What the space is for.
    pub role: SpaceRole,
    /// From the configuration file or made by the server itself, not from the catalog.
    pub declared: bool,
    /// File work holds it for reading; folder removal and renames hold it for writing. Shared by every rebuilt view.
    pub gate: Arc<tokio::sync::RwLock<()>>,
    /// `grants`, ready to be asked.
    pub(crate) rules: Rules,
    /// Its usage, not asked for again and again.
    pub(crate) glance: Glance,
}

/// Spaces that are made for accounts, beside the declared ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceRole {
    /// Declared or made by command.
    Shared,
    /// `/home/NAME`.
    Home,
    /// `/mail/NAME`: a Maildir. Its owner may view and delete in it; mail delivery creates in it.
    Mailbox,
    /// A device's landing folder that no other space covers.
    Landing,
    /// Left behind by a removed account or space: for administrators and the one it was handed over to.
    Left,
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Anyone, signed in or not.
    Everyone,
    /// Anyone signed in as a user.
    Users,
    /// One user.
    User(String),
    /// One device.
    Device(String),
    /// Members of a group.
    Group(String),
}

impl Principal {
    /// Reads `everyone`, `users` (or `group:users`), `user:NAME`, `device:NAME`, `group:NAME`.
    ///
    /// # Errors
    /// `Invalid`, saying how it is written.
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let named = lower.split_once(':').filter(|(_, name)| !name.is_empty());
        match (lower.as_str(), named) {
            ("everyone", _) => Ok(Self::Everyone),
            ("users" | "group:users", _) => Ok(Self::Users),
            (_, Some(("user", name))) => Ok(Self::User(name.to_owned())),
            (_, Some(("device", name))) => Ok(Self::Device(name.to_owned())),
            (_, Some(("group", name))) => Ok(Self::Group(name.to_owned())),
            _ => Err(Error::new(
                Kind::Invalid,
                format!("`{text}` names nobody; write user:NAME, group:NAME, device:NAME, users or everyone"),
            )),
        }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Users => f.write_str("users"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// The grants of one space by the question asked of them.
#[derive(Default)]
pub(crate) struct Rules {
    everyone: Verbs,
    users: Verbs,
    user: HashMap<String, Verbs>,
    device: HashMap<String, Verbs>,
    group: HashMap<String, Verbs>,
}

impl Rules {
    fn new(grants: &[(Principal, Verbs)]) -> Self {
        let mut rules = Self::default();
        for (to, verbs) in grants {
            let slot = match to {
                Principal::Everyone => &mut rules.everyone,
                Principal::Users => &mut rules.users,
                Principal::User(name) => rules.user.entry(name.clone()).or_default(),
                Principal::Device(name) => rules.device.entry(name.clone()).or_default(),
                Principal::Group(name) => rules.group.entry(name.clone()).or_default(),
            };
            *slot = slot.and(*verbs);
        }
        rules
    }

    /// The union over every principal the account is.
    fn of(&self, account: Option<&Account>) -> Verbs {
        let Some(account) = account else { return self.everyone };
        let (own, class) = match account.kind {
            AccountKind::Device => (self.device.get(&account.name), Verbs::NONE),
            AccountKind::Group => (None, Verbs::NONE),
            AccountKind::User => (self.user.get(&account.name), self.users),
        };
        let base = self.everyone.and(class).and(own.copied().unwrap_or_default());
        match self.group.is_empty() {
            true => base,
            false => {
                account.groups.iter().filter_map(|name| self.group.get(name)).fold(base, |sum, more| sum.and(*more))
            }
        }
    }
}

/// Accounts, spaces and settings at one moment.
pub struct View {
    /// As configured.
    pub settings: Settings,
    /// Users and devices by name.
    pub accounts: HashMap<String, Arc<Account>>,
    /// Spaces, the most specific first.
    pub spaces: Vec<Arc<Space>>,
    /// Groups made by command or named by an account, in order.
    pub groups: Vec<String>,
    /// Addresses that stand for others.
    pub(crate) aliases: Aliases,
    /// Networks whose addresses are never banned.
    pub(crate) never_ban: Vec<IpNet>,
    /// What was wrong with records of the catalog: those are left out and said in the log.
    pub(crate) complaints: Vec<String>,
    /// Place in `spaces` by path text without leading slash.
    index: BTreeMap<String, usize>,
    /// Parts in the longest path of a space: no deeper part of a path can matter.
    deepest: usize,
    /// Places in `spaces` made for one account, by its name.
    personal: HashMap<String, Vec<usize>>,
    /// Places in `spaces` of those that others than an owner may know of.
    shared: Vec<usize>,
    /// What a refused sign-in costs.
    pub(crate) dearest: Cost,
    /// Spaces that hold files and that nobody configures any more, not recorded yet.
    pub(crate) unclaimed: Vec<LeftRow>,
    /// Folders above a space in which everyone may do something, as text without leading slash.
    public: HashSet<String>,
}

/// What a device may always do below its landing folder.
pub(crate) const LANDING: &[Verb] = &[Verb::List, Verb::Create, Verb::Append];

/// The reserved first name of a path: what is below it is not the tree (the browser's pages, the API).
pub(crate) const RESERVED_NAME: &str = "-";

/// Whom a caller's account stands for now.
enum Standing<'a> {
    Guest,
    Known(&'a Account),
    /// Of another generation than the session, or disabled.
    Gone,
}

impl View {
    /// Compiles settings and catalog; volumes (and gates) of spaces that did not change are taken over from `old`.
    ///
    /// # Errors
    /// `Invalid` with every problem found, one a line.
    pub async fn build(
        settings: Settings,
        catalog: &Catalog,
        volumes: &dyn Volumes,
        old: Option<&Self>,
    ) -> Result<Self> {
        let (view, problems) = Self::prepare(settings, catalog, volumes, old).await?;
        match problems.is_empty() {
            true => Ok(view),
            false => Err(Error::new(Kind::Invalid, problems.join("\n"))),
        }
    }

    /// As [`View::build`], but what is wrong with the settings is handed back beside a view that leaves it out: a
    /// change in the catalog must take effect even when a declared grant names an account that was just removed.
    pub(crate) async fn prepare(
        settings: Settings,
        catalog: &Catalog,
        volumes: &dyn Volumes,
        old: Option<&Self>,
    ) -> Result<(Self, Vec<String>)> {
        let mut problems = Problems::default();
        let (accounts, spaces) = (catalog.accounts().await?, catalog.spaces().await?);
        let mut draft = Draft::compile(&settings, &accounts, &spaces, &mut problems);
        draft.count_generations(&catalog.generations().await?, old);
        let known = known_paths(&settings, &accounts, &spaces);
        let unclaimed = draft.leave_behind(&catalog.left_behind().await?, &catalog.filled_spaces().await?, &known);
        let aliases = Aliases::compile(&settings, &catalog.aliases().await?, &mut problems);
        let view = Self { aliases, unclaimed, ..Self::assemble(settings, draft, volumes, old, &mut problems) };
        view.lay_folders().await;
        for complaint in &view.complaints {
            if !old.is_some_and(|old| old.complaints.contains(complaint)) {
                tracing::warn!(complaint, "a record of the catalog is left out");
            }
        }
        Ok((view, problems.declared))
    }

    /// Opens volumes and indexes everything.
    pub(crate) fn assemble(
        settings: Settings,
        draft: Draft,
        volumes: &dyn Volumes,
        old: Option<&Self>,
        problems: &mut Problems,
    ) -> Self {
        let mut plots = draft.plots;
        // Longer paths are more specific; equal depths cannot cover one another.
        plots.sort_by(|a, b| b.path.parts().count().cmp(&a.path.parts().count()).then_with(|| a.path.cmp(&b.path)));
        let dearest = Cost::dearest(&settings.login, draft.accounts.values().map(AsRef::as_ref));
        let mut view = Self {
            dearest,
            settings,
            aliases: Aliases::default(),
            accounts: draft.accounts,
            spaces: Vec::with_capacity(plots.len()),
            groups: draft.groups.into_iter().collect(),
            never_ban: draft.never_ban,
            complaints: Vec::new(),
            index: BTreeMap::new(),
            deepest: 0,
            personal: HashMap::new(),
            shared: Vec::new(),
            unclaimed: Vec::new(),
            public: HashSet::new(),
        };
        for plot in plots {
            let (label, from) = (plot.label.clone(), plot.from);
            let owners = plot.owners.clone();
            match open(plot, volumes, old) {
                Ok(space) => view.place(space, owners),
                Err(error) => problems.add(from, format!("{label}: cannot be opened: {}", error.detail())),
            }
        }
        view.complaints.clone_from(&problems.recorded);
        view
    }

    /// Does the account that a session was admitted as still admit it?
    #[must_use]
    pub(crate) fn admits(&self, account: Option<&Account>) -> bool {
        !matches!(self.standing(account), Standing::Gone)
    }

    fn place(&mut self, space: Space, owners: Vec<String>) {
        let at = self.spaces.len();
        self.deepest = self.deepest.max(space.path.parts().count());
        let others = space.grants.iter().any(|(to, _)| match to {
            Principal::Device(name) | Principal::User(name) => !owners.contains(name),
            Principal::Everyone | Principal::Group(_) | Principal::Users => true,
        });
        if others || matches!(space.role, SpaceRole::Shared | SpaceRole::Left) {
            self.shared.push(at);
        }
        for owner in owners {
            self.personal.entry(owner).or_default().push(at);
        }
        if !space.rules.everyone.is_empty() {
            let mut above = space.path.parent();
            while let Some(folder) = above {
                self.public.insert(folder.as_str().to_owned());
                above = folder.parent();
            }
        }
        self.index.insert(space.path.as_str().to_owned(), at);
        self.spaces.push(Arc::new(space));
    }

    /// Spaces made for an account.
    pub(crate) fn own_spaces(&self, name: &str) -> impl Iterator<Item = &Arc<Space>> {
        self.personal.get(name).into_iter().flatten().filter_map(|at| self.spaces.get(*at))
    }

    /// Makes landing folders and the roots of confined accounts where a space covers them, so that whoever signs in
    /// finds the place it was given. What the disk refuses shows at the first use.
    async fn lay_folders(&self) {
        let mut places: Vec<TreePath> = Vec::new();
        for account in self.accounts.values() {
            places.extend(account.folder.clone());
            places.push(account.root.clone());
        }
        for place in places {
            let Some((space, rel)) = self.space_of(&place) else { continue };
            if rel.is_root() {
                continue;
            }
            if space.volume.stat(&rel).await.is_err_and(|error| error.kind() == Kind::NotFound) {
                let laid = space.volume.publish(&Change::Folder { path: rel }, None).await;
                if let Err(error) = laid {
                    tracing::warn!(path = %place, error = %error.detail(), "cannot make an account's folder");
                }
            }
        }
    }

    /// The most specific space covering a path and the path inside it.
    #[must_use]
    pub fn space_of(&self, path: &TreePath) -> Option<(&Arc<Space>, RelPath)> {
        let space = self.covering(path)?;
        path.below(&space.path).map(|rel| (space, rel))
    }

    /// True while this volume has what is at a path.
    pub(crate) fn is_of(&self, path: &TreePath, volume: &Arc<dyn Volume>) -> bool {
        self.covering(path).is_some_and(|space| Arc::ptr_eq(&space.volume, volume))
    }

    /// The most specific space covering a path. Allocates nothing.
    fn covering(&self, path: &TreePath) -> Option<&Arc<Space>> {
        let full = path.as_str();
        let end = match self.deepest.checked_sub(1) {
            Some(slashes) => full.match_indices('/').nth(slashes).map_or(full.len(), |(at, _)| at),
            None => 0,
        };
        let mut text = full.get(..end)?;
        loop {
            if let Some(at) = self.index.get(text) {
                return self.spaces.get(*at);
            }
            if text.is_empty() {
                return None;
            }
            text = text.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    /// The space at exactly this path key.
    #[must_use]
    pub fn space(&self, key: &str) -> Option<&Arc<Space>> {
        self.index.get(key.strip_prefix('/')?).and_then(|at| self.spaces.get(*at))
    }

    /// What an account (`None`: nobody signed in) may do at a path; nothing outside its root.
    #[must_use]
    pub fn verbs(&self, account: Option<&Account>, path: &TreePath) -> Verbs {
        match self.standing(account) {
            Standing::Gone => Verbs::NONE,
            Standing::Guest => self.granted(None, path),
            Standing::Known(account) => self.granted(Some(account), path),
        }
    }

    /// The account as it is now, if the session goes on: groups and grants are those of now, and whatever ends the
    /// account's generation ends the session.
    fn standing(&self, account: Option<&Account>) -> Standing<'_> {
        let Some(account) = account else { return Standing::Guest };
        match self.accounts.get(&account.name) {
            Some(now) if now.continues(account) => Standing::Known(now),
            _ => Standing::Gone,
        }
    }

    fn granted(&self, account: Option<&Account>, path: &TreePath) -> Verbs {
        if account.is_some_and(|account| !path.is_in(&account.root)) || path.parts().next() == Some(RESERVED_NAME) {
            return Verbs::NONE;
        }
        let Some(space) = self.covering(path) else {
            return match self.leads_on(account, path) {
                true => Verbs::NONE.with(Verb::List),
                false => Verbs::NONE,
            };
        };
        Self::granted_in(space, account, path)
    }

    /// What the account may do at a path its space covers; the root is not asked.
    fn granted_in(space: &Space, account: Option<&Account>, path: &TreePath) -> Verbs {
        let granted = space.rules.of(account);
        let Some(account) = account else { return granted };
        if account.admin && matches!(space.role, SpaceRole::Shared | SpaceRole::Left) {
            return granted.and(Verbs::OWN);
        }
        match &account.folder {
            Some(folder) if path.is_in(folder) && folder.is_in(&space.path) && space.role != SpaceRole::Left => {
                LANDING.iter().fold(granted, |sum, verb| sum.with(*verb))
            }
            _ => granted,
        }
    }

    /// True when a space below `folder` is known to the account, so that the folder may be listed on the way to it.
    fn leads_on(&self, account: Option<&Account>, folder: &TreePath) -> bool {
        if self.public.contains(folder.as_str()) {
            return true;
        }
        let Some(account) = account else { return false };
        self.known_below(Some(account), folder).next().is_some()
    }

    /// Spaces strictly below `folder` at whose top the account may do something.
    fn known_below<'a>(
        &'a self,
        account: Option<&'a Account>,
        folder: &'a TreePath,
    ) -> impl Iterator<Item = &'a Arc<Space>> {
        let own = account.and_then(|account| self.personal.get(&account.name)).into_iter().flatten();
        own.chain(&self.shared).filter_map(|at| self.spaces.get(*at)).filter(move |space| {
            space.path.is_in(folder)
                && space.path != *folder
                && !Self::granted_in(space, account, &space.path).is_empty()
        })
    }

    /// The verdict. `Unauthenticated` when signing in could help, `NotFound` when nothing at all is allowed there,
    /// `Denied` when something else is. In a space in which nothing is allowed, inside one in which something is, the same as if the
    /// inner space were not there.
    ///
    /// # Errors
    /// As said.
    pub fn allow(&self, account: Option<&Account>, verb: Verb, path: &TreePath) -> Result<()> {
        let account = match self.standing(account) {
            Standing::Gone => return Err(access_ended()),
            Standing::Guest => None,
            Standing::Known(account) => Some(account),
        };
        if self.granted(account, path).has(verb) {
            return Ok(());
        }
        let apparent = self.apparent_to(account, path);
        match account {
            _ if apparent.has(verb) => Err(self.nothing_for(verb, path)),
            None => Err(Error::new(Kind::Unauthenticated, "sign in first")),
            Some(_) if apparent.is_empty() => Err(Error::new(Kind::NotFound, "no such file or folder")),
            Some(account) => Err(Error::new(Kind::Denied, format!("{} may not {} here", account.name, verb.word()))),
        }
    }

    /// What is said at a place of a hidden space, where the space around it would allow the verb. The name of the hidden space itself is taken:
    /// that cannot be kept from someone who may use any other name there.
    fn nothing_for(&self, verb: Verb, path: &TreePath) -> Error {
        let is_mount = self.covering(path).is_some_and(|space| space.path == *path);
        match verb {
            Verb::Create if is_mount => Error::new(Kind::Exists, "this name cannot be used here; choose another"),
            Verb::Create => Error::new(Kind::NotFound, "the folder does not exist"),
            _ => Error::new(Kind::NotFound, "no such file or folder"),
        }
    }

    /// What the account would be granted at a path if the spaces in which it is granted nothing were not there: replies are chosen by
    /// this, so that they do not tell of such spaces. Gives no right to anything.
    #[must_use]
    pub(crate) fn apparent(&self, account: Option<&Account>, path: &TreePath) -> Verbs {
        match self.standing(account) {
            Standing::Gone => Verbs::NONE,
            Standing::Guest => self.apparent_to(None, path),
            Standing::Known(account) => self.apparent_to(Some(account), path),
        }
    }

    fn apparent_to(&self, account: Option<&Account>, path: &TreePath) -> Verbs {
        let granted = self.granted(account, path);
        let outside = account.is_some_and(|account| !path.is_in(&account.root));
        if !granted.is_empty() || outside || path.parts().next() == Some(RESERVED_NAME) {
            return granted;
        }
        self.apparent_space(account, path).map_or(Verbs::NONE, |space| Self::granted_in(space, account, path))
    }

    /// The innermost space around a path in which the account is granted something there.
    pub(crate) fn apparent_space(&self, account: Option<&Account>, path: &TreePath) -> Option<&Arc<Space>> {
        let mut around = self.covering(path);
        while let Some(space) = around {
            if !Self::granted_in(space, account, path).is_empty() {
                return Some(space);
            }
            around = space.path.parent().and_then(|folder| self.covering(&folder));
        }
        None
    }

    /// The path is of a space in which the account is granted nothing there, inside one in which it is.
    pub(crate) fn is_hidden(&self, account: Option<&Account>, path: &TreePath) -> bool {
        self.verbs(account, path).is_empty() && !self.apparent(account, path).is_empty()
    }

    /// The account may add files here and see nothing of what is there: no answer may depend on whether a name is taken.
    #[must_use]
    pub(crate) fn adds_unseeing(&self, account: Option<&Account>, path: &TreePath) -> bool {
        let verbs = self.verbs(account, path);
        let sees = [Verb::Append, Verb::List, Verb::Overwrite, Verb::Read].into_iter().any(|verb| verbs.has(verb));
        verbs.has(Verb::Create) && !sees
    }

    /// Names of folders in `folder` that exist only because a space is mounted at or below them, and that the account
    /// may know of: what a listing shows beside the volume's own nodes.
    #[must_use]
    pub fn mounts_in(&self, account: Option<&Account>, folder: &TreePath) -> Vec<String> {
        let account = match self.standing(account) {
            Standing::Gone => return Vec::new(),
            Standing::Guest => None,
            Standing::Known(account) => Some(account),
        };
        let root = account.map_or_else(TreePath::root, |account| account.root.clone());
        let mut names: Vec<String> = self
            .known_below(account, folder)
            .filter(|space| folder.is_in(&root) && space.path.is_in(&root))
            .filter_map(|space| space.path.below(folder)?.as_str().split('/').next().map(str::to_owned))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Told to a session whose account is another by now.
pub(crate) fn access_ended() -> Error {
    Error::new(Kind::Unauthenticated, "this sign-in has ended; sign in again")
}

/// A space of a plot: its volume is the old one when place and source are the same.
fn open(plot: Plot, volumes: &dyn Volumes, old: Option<&View>) -> Result<Space> {
    let key = plot.path.to_string();
    let same =
        old.and_then(|view| view.space(&key)).filter(|space| space.source == plot.source && !space.volume.is_lost());
    let (volume, gate) = match same {
        Some(space) => (space.volume.clone(), space.gate.clone()),
        None => (volumes.open(&plot.path, &plot.source)?, Arc::default()),
    };
    Ok(Space {
        path: plot.path,
        key,
        volume,
        source: plot.source,
        max_bytes: plot.max_bytes,
        max_files: plot.max_files,
        overwrite: plot.overwrite,
        address: plot.address,
        keep_message: plot.keep_message,
        drop_rules: plot.drop_rules,
        durable: plot.durable,
        rules: Rules::new(&plot.grants),
        grants: plot.grants,
        role: plot.role,
        declared: plot.declared,
        gate,
        glance: Glance::default(),
    })
}
