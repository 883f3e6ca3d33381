//! Properties that WebDAV clients keep beside files and folders (RFC 4918 §4). They follow their file by whatever door it moves.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Planned, Sight};
use crate::hub::lock::Reach;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::undo::Was;
use crate::hub::view::Space;
use crate::hub::{Caller, Entry};
use crate::store::{Batch, Change, Edit, Expect, FileRow, Micros, PropertyEdit, PropertyRow, RelPath};

/// A property as a client set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// `{namespace}name`.
    pub name: String,
    /// The whole element, XML.
    pub value: String,
}

/// Sets and removes properties of a file or folder, all of them or none.
pub struct SetProperties {
    /// Of what.
    pub path: TreePath,
    /// In this order: a value to set, or nothing to remove.
    pub changes: Vec<(String, Option<String>)>,
    /// The modification time, when that is asked for too.
    pub modified: Option<Micros>,
}

/// Makes the properties of a folder those of another.
pub(super) struct CopyProperties {
    pub(super) from: TreePath,
    pub(super) to: TreePath,
}

impl Caller {
    /// The properties of what the caller sees at a path.
    ///
    /// # Errors
    /// `Unavailable`: the catalog's.
    pub async fn properties(&self, path: &TreePath) -> Result<Vec<Property>> {
        let view = self.hub().view();
        let Some((space, rel)) = view.space_of(path) else { return Ok(Vec::new()) };
        let rows = self.hub().catalog().properties(&space.key, rel.as_str()).await?;
        Ok(rows.into_iter().map(|row| Property { name: row.name, value: row.value }).collect())
    }

    /// The properties of entries that follow each other in a listing, by name of the entry.
    ///
    /// # Errors
    /// `Unavailable`: the catalog's.
    pub async fn properties_of(&self, folder: &TreePath, entries: &[Entry]) -> Result<HashMap<String, Vec<Property>>> {
        let view = self.hub().view();
        let mut found: HashMap<String, Vec<Property>> = HashMap::new();
        if let (Some((space, rel)), Some(first), Some(last)) = (view.space_of(folder), entries.first(), entries.last())
        {
            let (first, last) = (rel.join(first.path.name())?, rel.join(last.path.name())?);
            let catalog = self.hub().catalog();
            for row in catalog.properties_in(&space.key, rel.as_str(), first.as_str(), last.as_str()).await? {
                let name = row.path.rsplit('/').next().unwrap_or_default().to_owned();
                found.entry(name).or_default().push(Property { name: row.name, value: row.value });
            }
        }
        for entry in entries.iter().filter(|entry| view.space(&entry.path.to_string()).is_some()) {
            found.insert(entry.path.name().to_owned(), self.properties(&entry.path).await?);
        }
        Ok(found)
    }
}

/// The space of a path, whose root may have properties too.
fn home<'a>(sight: &'a Sight<'_>, path: &TreePath) -> Result<(&'a std::sync::Arc<Space>, RelPath)> {
    let nowhere = || Error::new(Kind::Denied, "no space is here: files live in one of the folders shown");
    sight.view.space_of(path).ok_or_else(nowhere)
}

#[async_trait]
impl Act for SetProperties {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Overwrite, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, rel) = home(sight, &self.path)?;
        let mut edits = vec![sight.unlocked(&self.path, &[], Reach::Content)?];
        let node = sight.find(space, &rel).await?;
        let undo = self.as_before(space, &rel, &self.within_limits(sight, space, &rel).await?);
        let (key, path) = (&space.key, rel.as_str());
        edits.extend(self.changes.iter().map(|(name, value)| {
            let (space, path, name) = (key.clone(), path.to_owned(), name.clone());
            Edit::Property(match value.clone() {
                Some(value) => PropertyEdit::Put { space, path, name, value },
                None => PropertyEdit::Remove { space, path, name },
            })
        }));
        let mut changes = Vec::new();
        if let Some(modified) = self.modified.filter(|_| !rel.is_root()) {
            let row = sight.hub.catalog().file(key, path).await?;
            let was = Some(Was { file: row.clone(), ..Was::default() });
            if let Some(row) = row {
                let expect = Expect::Version(row.version);
                edits.push(Edit::PutFile(FileRow { modified, ..row }, expect));
            }
            let change = Change::SetModified { path: rel, modified };
            changes.push(Planned { space: space.clone(), change, body: None, was });
        }
        edits.push(sight.line("properties", &self.path, node.size, format!("{} set or removed", self.changes.len())));
        Ok(Plan { batch: Batch { edits }, changes, wide: false, undo, answer: Box::new(|_| ()) })
    }
}

impl SetProperties {
    /// The edits that give what it changes its old value back.
    fn as_before(&self, space: &Space, rel: &RelPath, there: &[PropertyRow]) -> Vec<Edit> {
        let old = |name: &String| there.iter().find(|row| row.name == *name).map(|row| row.value.clone());
        let edit = |(name, _): &(String, Option<String>)| {
            let (space, path, name) = (space.key.clone(), rel.as_str().to_owned(), name.clone());
            Edit::Property(match old(&name) {
                Some(value) => PropertyEdit::Put { space, path, name, value },
                None => PropertyEdit::Remove { space, path, name },
            })
        };
        self.changes.iter().map(edit).collect()
    }

    /// What is there now.
    async fn within_limits(&self, sight: &Sight<'_>, space: &Space, rel: &RelPath) -> Result<Vec<PropertyRow>> {
        let limits = &sight.view.settings.properties;
        let there = sight.hub.catalog().properties(&space.key, rel.as_str()).await?;
        let mut sizes: BTreeMap<&str, usize> =
            there.iter().map(|row| (row.name.as_str(), row.name.len() + row.value.len())).collect();
        let before = sizes.values().sum::<usize>();
        for (name, value) in &self.changes {
            match value {
                Some(value) => sizes.insert(name, name.len() + value.len()),
                None => sizes.remove(name.as_str()),
            };
        }
        let size = sizes.values().sum::<usize>();
        // What lets it shrink is always welcome.
        if size > before && (sizes.len() > limits.count || size as u64 > limits.size.0) {
            let text = format!("the properties of one file are at most {}, {} together", limits.count, limits.size);
            return Err(Error::new(Kind::OverQuota, text));
        }
        Ok(there)
    }
}

#[async_trait]
impl Act for CopyProperties {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Create, path: &self.to, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (from_space, from) = home(sight, &self.from)?;
        let (space, to) = home(sight, &self.to)?;
        let from = (from_space.key.clone(), from.as_str().to_owned());
        let copy = PropertyEdit::Copy { from, to: (space.key.clone(), to.as_str().to_owned()) };
        let edits = vec![sight.unlocked(&self.to, &[], Reach::Content)?, Edit::Property(copy)];
        Ok(Plan {
            batch: Batch { edits },
            changes: Vec::new(),
            wide: false,
            undo: Vec::new(),
            answer: Box::new(|_| ()),
        })
    }
}
