//! What an operator does: accounts, spaces, history. Used by the command line and, later, by the API.
//!
//! A change is tried against everything else first (the same checks as a start), written with its line of history
//! in one batch, and holds from then on: the view is built again before the command returns.

use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::hub::access::new_generation;
use crate::hub::account::Secret;
use crate::hub::compile::{Draft, FIRST_SPACE, Problems, overwrite_word, tree_path};
use crate::hub::login::hash_password;
use crate::hub::now;
use crate::hub::roster::{check_account_name, kind_word};
use crate::hub::view::{Principal, Space, SpaceRole, View};
use crate::store::{
    AccountKind, AccountRow, AliasRow, Batch, Edit, GrantRow, HistoryFilter, HistoryLine, MailEdit, SpaceRow, Usage,
    Verified,
};

/// An account as an operator sees it.
pub struct AccountView {
    /// Its record (hash blanked).
    pub row: AccountRow,
    /// From the configuration file.
    pub declared: bool,
}

/// A space as an operator sees it.
pub struct SpaceView {
    /// Its record.
    pub row: SpaceRow,
    /// From the configuration file or made by the server itself.
    pub declared: bool,
    /// A removed account or space left it behind.
    pub left: bool,
    /// What it holds.
    pub usage: Usage,
}

impl Hub {
    /// Builds the view again from the same settings and the catalog as it is now: a change made here or by another
    /// process takes effect.
    ///
    /// # Errors
    /// `Unavailable` when the catalog cannot be read; the old view stays.
    pub async fn refresh(&self) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        self.refresh_in_turn().await
    }

    pub(crate) async fn refresh_in_turn(&self) -> Result<()> {
        let old = self.view();
        let settings = old.settings.clone();
        let (view, problems) = View::prepare(settings, self.catalog(), self.inner.volumes.as_ref(), Some(&old)).await?;
        for problem in problems {
            tracing::warn!(problem, "a part of the configuration does not fit the catalog any more and is left out");
        }
        let ended = self.show(view);
        self.end_access(ended).await;
        Ok(())
    }

    /// Makes or changes an account; `password` in clear is hashed here. Declared accounts are refused. A change without
    /// a new password or hash keeps the old one.
    ///
    /// # Errors
    /// `Invalid`, `Exists` when `create` and it is there, `NotFound` when not `create` and it is not, `Denied` for a
    /// declared one.
    pub async fn put_account(&self, row: AccountRow, password: Option<&[u8]>, create: bool) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let mut row = AccountRow { name: row.name.to_ascii_lowercase(), ..row };
        let kind = kind_word(row.kind);
        if let Err(what) = check_account_name(&row.name) {
            return Err(Error::new(Kind::Invalid, format!("the name {what}")));
        }
        self.refuse_declared_account(&row.name)?;
        let rows = self.catalog().accounts().await?;
        let there = rows.iter().find(|other| other.name == row.name);
        match there {
            Some(other) if create || other.kind != row.kind => {
                let what = format!("there is already a {} `{}`", kind_word(other.kind), other.name);
                return Err(Error::new(Kind::Exists, what));
            }
            None if !create => return Err(Error::new(Kind::NotFound, format!("there is no {kind} `{}`", row.name))),
            _ => {}
        }
        if row.password_hash.is_empty() {
            row.password_hash = there.map(|other| other.password_hash.clone()).unwrap_or_default();
        }
        if let Some(password) = password {
            row.password_hash = self.hash(password).await?;
        }
        let mut after: Vec<AccountRow> = rows.iter().filter(|other| other.name != row.name).cloned().collect();
        after.push(row.clone());
        let spaces = self.catalog().spaces().await?;
        self.try_out((&rows, &spaces), (&after, &spaces))?;
        let mut batch = Batch::default();
        if there.is_none_or(|other| admitted_otherwise(other, &row)) {
            new_generation(&mut batch, &row.name);
        }
        let what = if there.is_some() { "changed" } else { "made" };
        let name = row.name.clone();
        batch.push(Edit::PutAccount(row));
        batch.push(line("", format!("{what} the {kind} {name}")));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await
    }

    /// Removes an account and ends its sessions; what the catalog granted to it, or to a removed group, goes with it. Its
    /// files stay for administrators alone: the paths of the spaces that hold some.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a declared one or one that the configuration grants something to.
    pub async fn remove_account(&self, name: &str) -> Result<Vec<String>> {
        let _turn = self.inner.rebuild.lock().await;
        let name = name.to_ascii_lowercase();
        self.refuse_declared_account(&name)?;
        let rows = self.catalog().accounts().await?;
        let Some(row) = rows.iter().find(|row| row.name == name) else {
            return Err(Error::new(Kind::NotFound, format!("there is no account `{name}`")));
        };
        let principal = match row.kind {
            AccountKind::Device => Principal::Device(name.clone()),
            AccountKind::Group => Principal::Group(name.clone()),
            AccountKind::User => Principal::User(name.clone()),
        };
        self.refuse_declared_grant(&principal)?;
        let mut batch = Batch::default();
        self.take_grants(&principal, &mut batch).await?;
        if row.kind == AccountKind::Group {
            for member in rows.iter().filter(|member| member.groups.contains(&name)) {
                let groups = member.groups.iter().filter(|group| **group != name).cloned().collect();
                batch.push(Edit::PutAccount(AccountRow { groups, ..member.clone() }));
            }
        }
        let left = self.leave_spaces_of(&name, &mut batch).await?;
        new_generation(&mut batch, &name);
        batch.push(Edit::RemoveWorkOf { account: name.clone(), all: true });
        batch.push(Edit::RemoveAccount(name.clone()));
        batch.push(line("", format!("removed the {} {name}", kind_word(row.kind))));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await?;
        Ok(left)
    }

    /// Takes what the catalog grants to an account or group, and its places in aliases: a later one of the name must not
    /// inherit them.
    pub(crate) async fn take_grants(&self, from: &Principal, batch: &mut Batch) -> Result<()> {
        let names_it = |grant: &GrantRow| Principal::parse(&grant.to).is_ok_and(|to| to == *from);
        for space in self.catalog().spaces().await? {
            if space.grants.iter().any(names_it) {
                let grants = space.grants.iter().filter(|grant| !names_it(grant)).cloned().collect();
                batch.push(Edit::PutSpace(SpaceRow { grants, ..space }));
            }
        }
        let target = match from {
            Principal::User(name) => name.clone(),
            Principal::Group(name) => format!("group:{name}"),
            Principal::Device(_) | Principal::Everyone | Principal::Users => return Ok(()),
        };
        for alias in self.catalog().aliases().await? {
            let targets: Vec<String> = alias.targets.iter().filter(|to| **to != target).cloned().collect();
            batch.push(Edit::Mail(match targets.len() {
                0 => MailEdit::RemoveAlias(alias.address),
                left if left == alias.targets.len() => continue,
                _ => MailEdit::PutAlias(AliasRow { targets, ..alias }),
            }));
        }
        Ok(())
    }

    /// All accounts, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountView> {
        let view = self.view();
        let groups = view.groups.iter().map(|name| AccountView {
            row: AccountRow { name: name.clone(), kind: AccountKind::Group, ..AccountRow::default() },
            declared: view.accounts.values().any(|account| account.declared && account.groups.contains(name)),
        });
        let people = view.accounts.values().map(|account| AccountView {
            row: AccountRow {
                name: account.name.clone(),
                kind: account.kind,
                password_hash: String::new(),
                groups: account.groups.clone(),
                root: if account.top == account.root { account.root.to_string() } else { String::new() },
                networks: account.networks.iter().map(ToString::to_string).collect(),
                protocols: account.protocols.clone(),
                folder: account.folder.as_ref().map(ToString::to_string).unwrap_or_default(),
                disabled: account.disabled,
            },
            declared: account.declared,
        });
        let mut all: Vec<AccountView> = people.chain(groups).collect();
        all.sort_by(|a, b| (a.row.name.as_str(), kind_word(a.row.kind)).cmp(&(&b.row.name, kind_word(b.row.kind))));
        all
    }

    /// True when the account has a password (or a file with one) to sign in with.
    #[must_use]
    pub fn has_password(&self, name: &str) -> bool {
        self.view().accounts.get(name).is_some_and(|account| !matches!(account.secret, Secret::None))
    }

    /// Makes or changes a space.
    ///
    /// # Errors
    /// `Invalid`, `Denied` for a declared one.
    pub async fn put_space(&self, row: SpaceRow) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let path = tree_path(&row.path).map_err(|what| Error::new(Kind::Invalid, format!("path: {what}")))?;
        let row = SpaceRow { path: path.to_string(), address: row.address.to_ascii_lowercase(), ..row };
        self.refuse_declared_space(&row.path)?;
        self.refuse_unknown_grants(&row)?;
        self.refuse_left(&row.path)?;
        let accounts = self.catalog().accounts().await?;
        let rows = self.catalog().spaces().await?;
        let there = rows.iter().find(|other| other.path == row.path);
        if there.is_none() {
            // An unreadable source is said now, not in the log of the next start.
            self.inner.volumes.open(&path, &row.source)?;
        }
        let mut after: Vec<SpaceRow> = rows.iter().filter(|other| other.path != row.path).cloned().collect();
        after.push(row.clone());
        let first = self.unrecorded_first_space(&rows).filter(|first| first.path != row.path);
        after.extend(first.clone());
        self.try_out((&accounts, &rows), (&accounts, &after))?;
        let what = if there.is_some() { "changed" } else { "made" };
        let mut batch = Batch::default();
        if let Some(row) = first {
            batch.push(line(&row.path, format!("made the space {}", row.path)));
            batch.push(Edit::PutSpace(row));
        }
        batch.push(line(&row.path, format!("{what} the space {}", row.path)));
        batch.push(Edit::PutSpace(row));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await
    }

    /// Records the space that a server without any offers, so that it stays when others are made or declared.
    ///
    /// # Errors
    /// `Unavailable` when the catalog cannot be written.
    pub async fn keep_first_space(&self) -> Result<()> {
        let rows = self.catalog().spaces().await?;
        match self.unrecorded_first_space(&rows) {
            Some(first) => self.put_space(first).await,
            None => Ok(()),
        }
    }

    /// The space that is offered because there is no other.
    fn unrecorded_first_space(&self, rows: &[SpaceRow]) -> Option<SpaceRow> {
        let view = self.view();
        if !rows.is_empty() || !view.settings.spaces.is_empty() {
            return None;
        }
        view.space(FIRST_SPACE).map(|space| row_of(space))
    }

    /// Removes a space. Its files stay on the disk, for administrators alone; true when it holds some.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a declared one.
    pub async fn remove_space(&self, path: &str) -> Result<bool> {
        let _turn = self.inner.rebuild.lock().await;
        let path = tree_path(path).map_err(|what| Error::new(Kind::Invalid, format!("path: {what}")))?.to_string();
        if !self.catalog().spaces().await?.iter().any(|row| row.path == path) {
            self.refuse_declared_space(&path)?;
            return Err(Error::new(Kind::NotFound, format!("there is no space {path}")));
        }
        let mut batch = Batch::default();
        batch.push(line(&path, format!("removed the space {path}")));
        let left = self.leave_space(&path, &mut batch).await?;
        batch.push(Edit::RemoveSpace(path));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await?;
        Ok(left)
    }

    /// All spaces with their usage.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn spaces(&self) -> Result<Vec<SpaceView>> {
        let view = self.view();
        let mut all = Vec::with_capacity(view.spaces.len());
        for space in &view.spaces {
            let usage = self.catalog().usage(&space.key).await?;
            let left = space.role == SpaceRole::Left;
            all.push(SpaceView { row: row_of(space), declared: space.declared, left, usage });
        }
        all.sort_by(|a, b| a.row.path.cmp(&b.row.path));
        Ok(all)
    }

    /// Lines of history.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryLine>> {
        self.catalog().history(filter).await
    }

    /// Walks the history chains.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn verify_history(&self) -> Result<Verified> {
        self.catalog().verify_history().await
    }

    async fn hash(&self, password: &[u8]) -> Result<String> {
        let (password, limits) = (password.to_vec(), self.view().settings.login.clone());
        tokio::task::spawn_blocking(move || hash_password(&password, &limits)).await.map_err(Error::internal)?
    }

    /// Compiles everything as it would be after a change; what was not wrong before is the change's fault.
    fn try_out(&self, before: (&[AccountRow], &[SpaceRow]), after: (&[AccountRow], &[SpaceRow])) -> Result<()> {
        let view = self.view();
        let problems_of = |(accounts, spaces): (&[AccountRow], &[SpaceRow])| {
            let mut problems = Problems::default();
            Draft::compile(&view.settings, accounts, spaces, &mut problems);
            problems.declared.into_iter().chain(problems.recorded).collect::<Vec<_>>()
        };
        let known = problems_of(before);
        let new: Vec<String> = problems_of(after).into_iter().filter(|problem| !known.contains(problem)).collect();
        match new.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Invalid, new.join("\n"))),
        }
    }

    fn refuse_declared_account(&self, name: &str) -> Result<()> {
        match self.view().accounts.get(name) {
            Some(account) if account.declared => Err(Error::new(
                Kind::Denied,
                format!("`{name}` is declared in the configuration file; change it there and reload"),
            )),
            _ => Ok(()),
        }
    }

    /// A declared grant to someone who is gone would stop the next start.
    fn refuse_declared_grant(&self, principal: &Principal) -> Result<()> {
        let view = self.view();
        let grants_to = |to: &str| Principal::parse(to).is_ok_and(|to| to == *principal);
        let person = matches!(principal, Principal::Device(_) | Principal::User(_));
        match view.settings.spaces.iter().find(|space| space.grants.iter().any(|grant| grants_to(&grant.to))) {
            Some(space) if person => Err(Error::new(
                Kind::Denied,
                format!(
                    "[[space]] {} in the configuration file grants something to {principal}; remove that grant first, or disable the account",
                    space.path
                ),
            )),
            _ => Ok(()),
        }
    }

    fn refuse_declared_space(&self, path: &str) -> Result<()> {
        let view = self.view();
        let in_file =
            view.settings.spaces.iter().any(|space| tree_path(&space.path).is_ok_and(|at| at.to_string() == path));
        match in_file {
            true => Err(Error::new(
                Kind::Denied,
                format!("the space {path} is declared in the configuration file; change it there and reload"),
            )),
            false => Ok(()),
        }
    }

    /// Files of a removed account or space are not given away by making another space there.
    fn refuse_left(&self, path: &str) -> Result<()> {
        match self.view().is_left(path) {
            true => Err(Error::new(
                Kind::Exists,
                format!(
                    "files of a removed account or space are at {path}; give them to somebody with `stoa space remove {path} --hand-over NAME`, or delete them with `stoa space remove {path} --delete`"
                ),
            )),
            false => Ok(()),
        }
    }

    /// The view forgives a record that names someone who is gone; a new record should not name one.
    fn refuse_unknown_grants(&self, row: &SpaceRow) -> Result<()> {
        let view = self.view();
        for grant in &row.grants {
            let (name, kind) = match Principal::parse(&grant.to)? {
                Principal::Device(name) => (name, AccountKind::Device),
                Principal::User(name) => (name, AccountKind::User),
                Principal::Everyone | Principal::Group(_) | Principal::Users => continue,
            };
            if !view.accounts.get(&name).is_some_and(|account| account.kind == kind) {
                let kind = kind_word(kind);
                let what = format!("there is no {kind} `{name}`; make it first or correct the name");
                return Err(Error::new(Kind::Invalid, what));
            }
        }
        Ok(())
    }
}

/// Sessions of the account as it was do not go on.
fn admitted_otherwise(before: &AccountRow, now: &AccountRow) -> bool {
    let of = |row: &AccountRow| {
        let AccountRow { password_hash, root, networks, protocols, folder, disabled, .. } = row.clone();
        (password_hash, root, networks, protocols, folder, disabled)
    };
    of(before) != of(now)
}

/// A space as its record would be.
fn row_of(space: &Space) -> SpaceRow {
    SpaceRow {
        path: space.key.clone(),
        source: space.source.clone(),
        max_bytes: space.max_bytes,
        max_files: space.max_files,
        overwrite: overwrite_word(space.overwrite).to_owned(),
        address: space.address.clone().unwrap_or_default(),
        durable: space.durable,
        grants: space
            .grants
            .iter()
            .map(|(to, verbs)| GrantRow { to: to.to_string(), allow: verbs.to_string() })
            .collect(),
    }
}

/// The history line of a command.
pub(crate) fn line(path: &str, detail: String) -> Edit {
    Edit::History(HistoryLine {
        at: now(),
        door: "cli".into(),
        verb: "admin".into(),
        path: path.to_owned(),
        result: "ok".into(),
        detail,
        ..HistoryLine::default()
    })
}
