//! What removed accounts and spaces left behind.
//!
//! The files of a removed account or space stay where they are. They must not become readable by the grants of a space
//! further out, and a later account or space of the same name must not inherit them. So their path stays a space of its own,
//! which only administrators may enter, until one of them hands it over or deletes it.

use std::collections::HashSet;

use crate::error::{Error, Kind, Result};
use crate::hub::admin::line;
use crate::hub::compile::{Draft, Plot, made, tree_path};
use crate::hub::path::TreePath;
use crate::hub::policy::Verbs;
use crate::hub::settings::Settings;
use crate::hub::view::{Principal, SpaceRole, View};
use crate::hub::{Hub, now};
use crate::store::{AccountKind, AccountRow, Batch, Change, Edit, LeftRow, NodeKind, RelPath, SpaceRow};

/// Entries of a folder that are removed between two looks at it.
const PAGE: usize = 256;

impl Draft {
    /// Takes the spaces that were left behind from everybody but administrators and heirs. `filled` names the spaces that
    /// hold files: one that nobody configures any more was left behind too; those are handed back.
    pub(crate) fn leave_behind(
        &mut self,
        rows: &[LeftRow],
        filled: &[String],
        known: &HashSet<String>,
    ) -> Vec<LeftRow> {
        let there: HashSet<String> = self.plots.iter().map(|plot| plot.path.to_string()).collect();
        let is_new = |path: &&String| {
            !there.contains(*path) && !known.contains(*path) && !rows.iter().any(|row| row.path == **path)
        };
        let found: Vec<LeftRow> = filled
            .iter()
            .filter(is_new)
            .map(|path| LeftRow { path: path.clone(), since: now(), ..LeftRow::default() })
            .collect();
        for row in rows.iter().chain(&found) {
            self.leave(row);
        }
        found
    }

    fn leave(&mut self, row: &LeftRow) {
        let Ok(path) = tree_path(&row.path) else { return };
        let heir = Principal::parse(&row.heir).ok().map(|heir| (heir, Verbs::OWN));
        let Some(plot) = self.plots.iter_mut().find(|plot| plot.path == path) else {
            let grants = heir.into_iter().collect();
            self.plots.push(Plot { source: row.source.clone(), grants, ..made(path, SpaceRole::Left) });
            return;
        };
        match plot.role {
            // The configuration declares it: that is an administrator's decision.
            SpaceRole::Shared => {}
            SpaceRole::Home | SpaceRole::Landing | SpaceRole::Mailbox | SpaceRole::Left => {
                let owners = std::mem::take(&mut plot.owners);
                plot.grants.retain(|(to, _)| match to {
                    Principal::Device(name) | Principal::User(name) => !owners.contains(name),
                    Principal::Everyone | Principal::Group(_) | Principal::Users => true,
                });
                plot.grants.extend(heir);
                plot.role = SpaceRole::Left;
            }
        }
    }
}

impl View {
    /// The space was left behind by a removed account or space.
    #[must_use]
    pub(crate) fn is_left(&self, key: &str) -> bool {
        self.space(key).is_some_and(|space| space.role == SpaceRole::Left)
    }

    /// Paths of the spaces an account owns: its home and mailbox, or the landing folder made for it.
    fn personal_paths(&self, name: &str) -> Vec<String> {
        self.own_spaces(name).map(|space| space.key.clone()).collect()
    }
}

impl Hub {
    /// Records what was found left behind: by an account or space that went out of the configuration.
    pub(crate) async fn record_left(&self) {
        let view = self.view();
        if view.unclaimed.is_empty() || self.catalog().is_shared() {
            return;
        }
        let mut batch = Batch::default();
        for row in &view.unclaimed {
            tracing::warn!(
                path = row.path,
                "files of a removed account or space: only administrators may see them; hand them over or delete them with `stoa space remove {} --hand-over NAME` or `--delete`",
                row.path
            );
            batch.push(Edit::PutLeft(row.clone()));
        }
        if let Err(error) = self.catalog().commit(batch).await {
            tracing::warn!(error = error.detail(), "what a removed account left could not be recorded");
        }
    }

    /// The edits that leave the spaces of an account behind, as far as they hold anything; their paths.
    pub(crate) async fn leave_spaces_of(&self, name: &str, batch: &mut Batch) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for path in self.view().personal_paths(name) {
            if self.leave_space(&path, batch).await? {
                left.push(path);
            }
        }
        Ok(left)
    }

    /// The edit that leaves one space behind, if it holds anything.
    pub(crate) async fn leave_space(&self, path: &str, batch: &mut Batch) -> Result<bool> {
        let view = self.view();
        let Some(space) = view.space(path).filter(|space| space.role != SpaceRole::Left) else { return Ok(false) };
        if self.catalog().usage(path).await?.files == 0 {
            return Ok(false);
        }
        let row = LeftRow { path: path.to_owned(), source: space.source.clone(), since: now(), heir: String::new() };
        batch.push(Edit::PutLeft(row));
        Ok(true)
    }

    /// Spaces of this account name that an earlier account of the name left behind.
    #[must_use]
    pub fn left_by(&self, name: &str) -> Vec<String> {
        let view = self.view();
        let mut paths = vec![format!("/home/{name}"), format!("/mail/{name}")];
        let folder = view.accounts.get(name).and_then(|account| account.folder.as_ref());
        paths.extend(folder.map(ToString::to_string));
        paths.into_iter().filter(|path| view.is_left(path)).collect()
    }

    /// True when the space at this path was left behind.
    #[must_use]
    pub fn is_left_behind(&self, path: &str) -> bool {
        self.view().is_left(path)
    }

    /// Gives a space that was left behind to an account. Its own name's account gets it back as its home or mailbox.
    ///
    /// # Errors
    /// `NotFound` when nothing was left there or there is no such account.
    pub async fn hand_over(&self, path: &str, heir: &str) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let (row, key) = self.left_row(path).await?;
        let heir = heir.to_ascii_lowercase();
        let view = self.view();
        let account = view.accounts.get(&heir);
        let account = account.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no account `{heir}`")))?;
        let own = match account.kind {
            AccountKind::User => [format!("/home/{heir}"), format!("/mail/{heir}")].contains(&key),
            AccountKind::Device | AccountKind::Group => {
                account.folder.as_ref().is_some_and(|folder| folder.to_string() == key)
            }
        };
        let mut batch = Batch::default();
        match own {
            true => batch.push(Edit::RemoveLeft(key.clone())),
            false => batch.push(Edit::PutLeft(LeftRow { heir: account.principal(), ..row })),
        }
        batch.push(line(&key, format!("handed {key} over to {heir}")));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await
    }

    /// Deletes all files of a space that was left behind. Needs a hub whose volumes are open.
    ///
    /// # Errors
    /// `NotFound` when nothing was left there; `Denied` while another space lies inside; what the disk says.
    pub async fn delete_left(&self, path: &str) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let (_, key) = self.left_row(path).await?;
        let view = self.view();
        let space = view.space(&key).ok_or_else(|| nothing_left(&key))?;
        let inside = view.spaces.iter().find(|other| other.path != space.path && other.path.is_in(&space.path));
        if let Some(other) = inside {
            let why = format!("the space {} lies inside {key}; remove that one first", other.key);
            return Err(Error::new(Kind::Denied, why));
        }
        loop {
            let page = space.volume.list(&RelPath::default(), None, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for node in page {
                let path = RelPath::new(&node.name)?;
                let change = match node.kind {
                    NodeKind::Folder => Change::RemoveFolder { path, all: true },
                    NodeKind::File | NodeKind::Special => Change::Remove { path },
                };
                space.volume.publish(&change, None).await?;
            }
        }
        let mut batch = Batch::default();
        batch.push(Edit::ForgetSpace(key.clone()));
        batch.push(Edit::RemoveLeft(key.clone()));
        batch.push(line(&key, format!("deleted the files of {key}")));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await
    }

    async fn left_row(&self, path: &str) -> Result<(LeftRow, String)> {
        let key = tree_path(path).map_err(|what| Error::new(Kind::Invalid, format!("path: {what}")))?.to_string();
        let recorded = self.catalog().left_behind().await?.into_iter().find(|row| row.path == key);
        let found = || self.view().unclaimed.iter().find(|row| row.path == key).cloned();
        match recorded.or_else(found) {
            Some(row) => Ok((row, key)),
            None => Err(nothing_left(&key)),
        }
    }
}

fn nothing_left(key: &str) -> Error {
    Error::new(
        Kind::NotFound,
        format!("no removed account or space left files at {key}; `stoa space list` shows those"),
    )
}

/// Every path that the configuration or the catalog means to be a space, whether it could be understood or not: what is
/// left out of the view because of a mistake is not left behind.
pub(crate) fn known_paths(settings: &Settings, accounts: &[AccountRow], spaces: &[SpaceRow]) -> HashSet<String> {
    let users = settings.users.iter().map(|user| &user.name).chain(accounts.iter().map(|row| &row.name));
    let personal = users.flat_map(|name| [format!("/home/{name}"), format!("/mail/{name}")]);
    let declared = settings.spaces.iter().map(|space| &space.path).chain(spaces.iter().map(|row| &row.path));
    let folders = settings.devices.iter().map(|device| &device.folder).chain(accounts.iter().map(|row| &row.folder));
    let tidy = |path: &String| TreePath::parse(path).map_or_else(|_| path.clone(), |path| path.to_string());
    declared.chain(folders).map(tidy).chain(personal).collect()
}
