//! Undoing a commit whose change the volume refused: a second commit that takes rows, usage and everything else back.
//!
//! The history keeps the line of the attempt and gets another one that says why it failed. What the records were before is
//! noted while an act is planned ([`Was`]); what they are now is read again, so that undoing twice does no harm.

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Planned, Sight};
use crate::hub::commit::{Committed, Promised, Who};
use crate::hub::files::{signed, usage};
use crate::hub::path::TreePath;
use crate::hub::view::Space;
use crate::hub::{Hub, now};
use crate::store::{
    Batch, Change, Edit, Expect, FileRow, HistoryLine, Node, PropertyEdit, PropertyRow, RelPath, StageId,
};

/// Times the undoing commit is tried again when another node changes the same rows.
const TRIES: u32 = 4;

/// What the records of a path were before a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Was {
    /// Its row.
    pub(crate) file: Option<FileRow>,
    /// Its properties, where the change touches them.
    pub(crate) properties: Option<Vec<PropertyRow>>,
    /// Nothing was at the path, not even a file without a row.
    pub(crate) absent: bool,
}

impl Was {
    /// Nothing was there.
    pub(crate) fn nothing() -> Self {
        Self { absent: true, ..Self::default() }
    }

    /// A file that is removed or replaced together with its properties.
    pub(crate) async fn of(sight: &Sight<'_>, space: &Space, path: &RelPath, file: Option<FileRow>) -> Result<Self> {
        let properties = Some(sight.hub.catalog().properties(&space.key, path.as_str()).await?);
        Ok(Self { file, properties, absent: false })
    }
}

impl Hub {
    /// Publishes an act's changes in order. If the volume refuses one, the act is undone and its caller gets the error.
    pub(crate) async fn complete(&self, act: Committed) -> Result<Vec<Option<Node>>> {
        let mut nodes = Vec::with_capacity(act.promised.len());
        for one in &act.promised {
            match super::commit::publish(&one.planned).await {
                Ok(node) => {
                    self.remember(&one.planned, node.as_ref());
                    nodes.push(node);
                }
                Err(error) => {
                    tracing::warn!(space = one.planned.space.key, change = ?one.planned.change, error = error.detail(),
                        "the file system refused a change; it is undone");
                    return Err(self.take_back(act, nodes.len(), error).await);
                }
            }
        }
        self.in_place(act.promised).await;
        Ok(nodes)
    }

    /// Everything is in place; the rows of removed folders follow.
    pub(crate) async fn in_place(&self, promised: Vec<Promised>) {
        let mut done = Vec::with_capacity(promised.len());
        for one in promised {
            match self.follow_up(&one.planned).await {
                Ok(()) => done.push(one),
                // The folder is gone and the intent stays: this is tried again, also at the next start.
                Err(error) => {
                    tracing::error!(change = ?one.planned.change, error = error.detail(), "the records of a removed folder could not be removed yet");
                    self.inner.pending.add_stuck(one);
                }
            }
        }
        self.inner.pending.add_done(done);
    }

    /// The rows below a folder are removed after the folder itself: too many to be restored from memory.
    pub(crate) async fn follow_up(&self, planned: &Planned) -> Result<()> {
        let Change::RemoveFolder { path, .. } = &planned.change else { return Ok(()) };
        let space = &planned.space;
        let held = self.catalog().sum_below(&space.key, path.as_str()).await?;
        let folder = Edit::RemoveFolder { space: space.key.clone(), folder: path.as_str().to_owned() };
        let edits = vec![folder, usage(space, -signed(held.bytes), -signed(held.files))];
        self.catalog().commit(Batch { edits }).await
    }

    /// Undoes an act of which the first `published` changes are in place; what its caller is told.
    async fn take_back(&self, mut act: Committed, published: usize, error: Error) -> Error {
        let mut kept = Vec::new();
        let rest = act.promised.split_off(published);
        let mut undone = Vec::with_capacity(published + rest.len());
        for one in act.promised.drain(..) {
            if self.unpublish(&one.planned).await { undone.push(one) } else { kept.push(one) }
        }
        act.unsure = error.is_transient();
        undone.extend(rest);
        self.in_place(kept).await;
        act.promised = undone;
        act.why = error.detail();
        match self.undo(&act).await {
            Ok(()) => error,
            Err(refused) => {
                tracing::error!(
                    error = refused.detail(),
                    "a refused change could not be undone yet; it is tried again"
                );
                self.inner.pending.owe(act);
                unknown().with(error)
            }
        }
    }

    /// Takes a change back from the volume: only a file that is new can be. False where the change stays.
    async fn unpublish(&self, planned: &Planned) -> bool {
        let Change::Put { path, .. } = &planned.change else { return false };
        if !planned.was.as_ref().is_some_and(|was| was.absent) {
            return false;
        }
        let removed = planned.space.volume.publish(&Change::Remove { path: path.clone() }, None).await;
        if removed.is_ok() {
            self.inner.own.left(&planned.space.key, path.as_str(), None);
        }
        removed.is_ok()
    }

    /// Commits the records as they were, with a line of history about the failure.
    pub(crate) async fn undo(&self, act: &Committed) -> Result<()> {
        for _ in 1..TRIES {
            match self.undo_once(act).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                outcome => return outcome,
            }
        }
        self.undo_once(act).await
    }

    async fn undo_once(&self, act: &Committed) -> Result<()> {
        if act.unsure {
            self.is_undone(act).await?;
        }
        let mut edits = Vec::new();
        for one in act.promised.iter().rev() {
            edits.extend(self.as_before(&one.planned).await?);
            edits.push(failure(act, &one.planned));
        }
        edits.extend(act.undo.iter().cloned());
        edits.push(Edit::ClearIntents(act.promised.iter().filter(|one| !one.unwritten).map(|one| one.id).collect()));
        self.catalog().commit(Batch { edits }).await
    }

    /// A volume that fails may have done a change all the same: a new file is removed, and the volume must answer at all.
    async fn is_undone(&self, act: &Committed) -> Result<()> {
        for planned in act.promised.iter().map(|one| &one.planned) {
            let is_new =
                matches!(planned.change, Change::Put { .. }) && planned.was.as_ref().is_some_and(|was| was.absent);
            if is_new && !self.is_absent(planned).await? && !self.unpublish(planned).await {
                return Err(Error::new(Kind::Unavailable, "the volume does not say whether the file is there"));
            }
            if !is_new
                && let Err(error) = planned.space.volume.stat(&RelPath::root()).await
                && error.is_transient()
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Is nothing at the path of this change?
    async fn is_absent(&self, planned: &Planned) -> Result<bool> {
        match planned.space.volume.stat(planned.change.path()).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == Kind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The edits that make the records of a change's path what they were.
    async fn as_before(&self, planned: &Planned) -> Result<Vec<Edit>> {
        let (space, none) = (&planned.space, Was::default());
        let was = planned.was.as_ref().unwrap_or(&none);
        match &planned.change {
            Change::Folder { .. } | Change::RemoveFolder { .. } => Ok(Vec::new()),
            Change::Rename { from, to } => {
                let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
                let mut edits = vec![Edit::MoveFiles { space: space.key.clone(), from: to.clone(), to: from }];
                edits.extend(restore(space, &to, None, was));
                Ok(edits)
            }
            Change::Put { path, .. } | Change::Remove { path } | Change::SetModified { path, .. } => {
                let current = self.catalog().file(&space.key, path.as_str()).await?;
                Ok(restore(space, path.as_str(), current, was))
            }
        }
    }

    /// Tries again to undo what could not be undone at once.
    pub(crate) async fn undo_owed(&self) {
        for act in self.inner.pending.owed() {
            if let Err(error) = self.undo(&act).await {
                tracing::warn!(error = error.detail(), "a refused change still cannot be undone");
                continue;
            }
            self.inner.pending.paid(&act);
            for (space, id) in
                act.promised.iter().filter_map(|one| Some((&one.planned.space, one.planned.change.stage()?)))
            {
                discard(space, id).await;
            }
        }
    }
}

/// Removes a stage that nothing was made of.
pub(crate) async fn discard(space: &Space, id: &StageId) {
    if let Err(error) = space.volume.discard(id).await {
        tracing::warn!(
            stage = id.0,
            error = error.detail(),
            "a refused upload could not be removed; the next start does it"
        );
    }
}

/// The reply where neither the change nor its undoing is certain.
pub(crate) fn unknown() -> Error {
    Error::new(Kind::Unavailable, "the server cannot tell whether this was done; look before you try again")
}

/// Makes a path's row, its part of the usage and its properties what they were.
fn restore(space: &Space, path: &str, current: Option<FileRow>, was: &Was) -> Vec<Edit> {
    let mut edits = Vec::new();
    let size = |row: &Option<FileRow>| row.as_ref().map_or(0, |row| signed(row.size));
    let bytes = size(&was.file) - size(&current);
    let files = i64::from(was.file.is_some()) - i64::from(current.is_some());
    match (current, was.file.clone()) {
        (None, None) => {}
        (Some(row), None) => {
            edits.push(Edit::RemoveFile { space: row.space, path: row.path, version: row.version });
        }
        (None, Some(old)) => edits.push(Edit::PutFile(old, Expect::Absent)),
        (Some(row), Some(old)) if row.version == old.version => {}
        (Some(row), Some(old)) => edits.push(Edit::PutFile(old, Expect::Version(row.version))),
    }
    if (bytes, files) != (0, 0) {
        edits.push(Edit::Usage { space: space.key.clone(), bytes, files, max_bytes: None, max_files: None });
    }
    let (key, path) = (&space.key, path.to_owned());
    if let Some(properties) = &was.properties {
        edits.push(Edit::Property(PropertyEdit::Clear { space: key.clone(), path: path.clone() }));
        edits.extend(properties.iter().cloned().map(|row| {
            let PropertyRow { name, value, .. } = row;
            Edit::Property(PropertyEdit::Put { space: key.clone(), path: path.clone(), name, value })
        }));
    }
    edits
}

/// The line of history that says why a change did not happen.
fn failure(act: &Committed, planned: &Planned) -> Edit {
    let (verb, path) = match &planned.change {
        Change::Put { path, .. } => ("put", path),
        Change::Folder { path } => ("mkdir", path),
        Change::Remove { path } => ("delete", path),
        Change::RemoveFolder { path, .. } => ("rmdir", path),
        Change::Rename { from, .. } => ("rename", from),
        Change::SetModified { path, .. } => ("touch", path),
    };
    let place: TreePath = planned.space.path.with(path);
    let Who { origin, account } = &act.who;
    Edit::History(HistoryLine {
        at: now(),
        door: origin.door.to_owned(),
        account: account.as_ref().map_or_else(String::new, |account| account.name.clone()),
        address: origin.peer.ip().to_canonical().to_string(),
        verb: verb.to_owned(),
        path: place.to_string(),
        result: "failed".to_owned(),
        detail: format!("the file system refused it, and it was undone: {}", act.why),
        ..HistoryLine::default()
    })
}
