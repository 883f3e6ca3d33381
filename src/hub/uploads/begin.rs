//! Making, finding, ending and joining uploads in pieces.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::writer::UploadWriter;
use super::{About, Running, Turn, UploadResource, fresh_id, gone};
use crate::error::{Error, Kind, Result};
use crate::hub::lock::Reach;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::{Receipt, WriteOptions};
use crate::hub::view::{Space, View};
use crate::hub::{Caller, Hub, now, room, throttle};
use crate::store::{Batch, Edit, Micros, RelPath, StageId, UploadEdit, UploadKind, UploadRow};

/// Longest text a client may say of an upload.
const LONGEST_NOTE: usize = 8 << 10;

/// What is to be uploaded.
#[derive(Clone, Debug)]
pub struct UploadWish {
    /// Where it goes; the folder for a part.
    pub path: TreePath,
    /// Bytes in all; `None`: said later.
    pub length: Option<u64>,
    /// A part of a file that is put together later.
    pub part: bool,
    /// Make missing folders.
    pub folders: bool,
    /// Modification time to set.
    pub modified: Option<Micros>,
    /// SHA-256 the whole must have.
    pub sha256: Option<[u8; 32]>,
    /// What the client wants to be told again.
    pub note: String,
}

impl UploadWish {
    fn options(&self) -> WriteOptions {
        WriteOptions { size: self.length, folders: self.folders, ..WriteOptions::default() }
    }

    fn row(&self, id: String, caller: &Caller, space: &Space, expires: Micros) -> UploadRow {
        let address = || throttle::counted_as(caller.origin().peer.ip()).to_string();
        let about = About {
            note: self.note.clone(),
            modified: self.modified,
            folders: self.folders,
            sha256: self.sha256.map(|sum| hex(&sum)),
            from: caller.is_guest().then(address),
        };
        UploadRow {
            id,
            account: caller.name().to_owned(),
            kind: if self.part { UploadKind::Part } else { UploadKind::Whole },
            space: space.key.clone(),
            path: self.path.to_string(),
            length: self.length,
            received: 0,
            expires,
            about: about.write(),
        }
    }
}

/// Lower case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Caller {
    /// Begins an upload in pieces: judged as a write is, with its room reserved. Its name is safe when this returns.
    ///
    /// # Errors
    /// As [`Caller::write`]; `Throttled` when too many are under way.
    pub async fn begin_upload(&self, wish: &UploadWish) -> Result<UploadResource> {
        let running = self.open_resource(wish).await?;
        Ok(resource(&running))
    }

    async fn open_resource(&self, wish: &UploadWish) -> Result<Arc<Running>> {
        if wish.note.len() > LONGEST_NOTE {
            return Err(Error::new(Kind::TooLarge, "what is said of the upload is longer than 8 KiB"));
        }
        let view = self.hub().view();
        let space = self.judge_upload(&view, wish).await?;
        let storage = &view.settings.storage;
        let row = wish.row(fresh_id()?, self, &space, self.hub().empty_upload_expires());
        let uploads = &self.hub().inner.uploads;
        let running = uploads.add(row.clone(), storage.uploads, storage.uploads_per_account)?;
        let kept = self.hub().catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row.clone()))] }).await;
        if kept.is_err() {
            uploads.remove(&row.id);
        }
        kept.map(|()| running)
    }

    async fn judge_upload(&self, view: &View, wish: &UploadWish) -> Result<Arc<Space>> {
        let Some((space, rel)) = view.space_of(&wish.path) else {
            view.allow(self.account(), Verb::Create, &wish.path)?;
            return Err(Error::new(Kind::Denied, "no space is here: files live in one of the folders shown"));
        };
        let replaces = if wish.part {
            view.allow(self.account(), Verb::Create, &wish.path)?;
            false
        } else {
            self.precheck(view, space, &rel, &wish.path, &wish.options()).await?.is_some()
        };
        room::one_file(view, wish.length)?;
        self.check_room(view, space, &rel, replaces, wish.length).await?;
        Ok(space.clone())
    }

    /// An upload of this caller's own. Whoever writes to it is asked to let go first, so that the offset stands still.
    ///
    /// # Errors
    /// `NotFound` when it is not there, not this caller's, or past its time.
    pub async fn upload_resource(&self, id: &str) -> Result<UploadResource> {
        if let Some(running) = self.own_upload(id) {
            let _turn = running.take_turn().await?;
            if self.own_upload(id).is_some() {
                return Ok(resource(&running));
            }
        }
        let row = self.hub().catalog().receipt(self.name(), id, 0, now()).await?.ok_or_else(gone)?;
        let (offset, length, expires) = (row.bytes, Some(row.bytes), row.expires);
        let (id, note) = (id.to_owned(), row.request.clone());
        let receipt = Some(self.recall(row).await?);
        Ok(UploadResource { id, offset, length, part: false, note, expires, receipt })
    }

    /// What became of an upload that is complete.
    pub(super) async fn upload_receipt(&self, id: &str) -> Result<Option<Receipt>> {
        let row = self.hub().catalog().receipt(self.name(), id, 0, now()).await?;
        match row {
            Some(row) => self.recall(row).await.map(Some),
            None => Ok(None),
        }
    }

    fn own_upload(&self, id: &str) -> Option<Arc<Running>> {
        let running = self.hub().inner.uploads.find(id)?;
        let row = running.row();
        (row.account == self.name() && row.expires > now()).then_some(running)
    }

    /// The file that an upload of this caller's own goes to; `None` for a part, which goes to none by itself.
    #[must_use]
    pub fn upload_goal(&self, id: &str) -> Option<TreePath> {
        let row = self.own_upload(id)?.row();
        TreePath::parse(&row.path).ok().filter(|_| row.kind == UploadKind::Whole)
    }

    /// Opens an upload for its next bytes; whoever wrote to it lets go.
    ///
    /// # Errors
    /// `NotFound`; `Locked` when the file it goes to is, or when the writer before does not let go; `Unavailable` when its space is not
    /// there.
    pub async fn continue_upload(&self, id: &str) -> Result<UploadWriter> {
        let running = self.own_upload(id).ok_or_else(gone)?;
        if let Some(goal) = self.upload_goal(id) {
            // The commit asks once more, for all that a new name changes; here no bytes are taken in vain.
            let unseen = goal.parent().filter(|_| self.is_unseeing(&goal));
            self.unlocked(unseen.as_ref().unwrap_or(&goal), &[], Reach::Content)?;
        }
        let turn = running.take_turn().await?;
        if self.own_upload(id).is_none() {
            return Err(gone());
        }
        UploadWriter::open(self.clone(), running, turn).await
    }

    /// Ends an upload and forgets its bytes.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn end_upload(&self, id: &str) -> Result<()> {
        let running = self.own_upload(id).ok_or_else(gone)?;
        let _turn = running.take_turn().await?;
        self.hub().drop_upload(&running).await
    }

    /// The turns of parts that are to be joined: nobody else writes to them or joins them meanwhile.
    async fn take_parts(&self, parts: &[String]) -> Result<Vec<Turn>> {
        // In one order, so that two requests never wait for each other.
        let ids: BTreeSet<&String> = parts.iter().collect();
        if ids.len() < parts.len() {
            return Err(Error::new(Kind::Invalid, "a part is named twice; each part belongs to the file once"));
        }
        let mut turns = Vec::with_capacity(ids.len());
        for id in ids {
            turns.push(self.own_upload(id).ok_or_else(gone)?.take_turn().await?);
        }
        Ok(turns)
    }

    /// Puts complete parts together to one file and makes it durable and visible; the parts are gone then. Also says the name by which
    /// its receipt is found again.
    ///
    /// # Errors
    /// `NotFound` for a part that is not there, `Invalid` when one is not complete or of another space; as [`Caller::write`].
    pub async fn join_uploads(&self, wish: &UploadWish, parts: &[String]) -> Result<(String, Receipt)> {
        let most = self.hub().view().settings.storage.upload_parts;
        if parts.is_empty() || parts.len() > most {
            let says = format!("a file is put together of 1 to {most} parts (storage.upload_parts)");
            return Err(Error::new(Kind::Invalid, says));
        }
        let turns = self.take_parts(parts).await?;
        let rows =
            parts.iter().map(|id| Ok(self.own_upload(id).ok_or_else(gone)?.row())).collect::<Result<Vec<_>>>()?;
        let length = rows.iter().map(|row| row.received).fold(0, u64::saturating_add);
        let wish = UploadWish { length: Some(length), part: false, ..wish.clone() };
        let view = self.hub().view();
        let space = view.space_of(&wish.path).map(|(space, _)| space.clone()).ok_or_else(gone)?;
        for row in &rows {
            let complete = row.kind == UploadKind::Part && row.length == Some(row.received);
            if !complete || row.space != space.key {
                let text = "each part must be complete, made as a part, and in the space the file goes to";
                return Err(Error::new(Kind::Invalid, text));
            }
        }
        // The parts' own reservations are taken over: there is room for the whole as long as it is not counted twice.
        let rel: RelPath = wish.path.below(&space.path).unwrap_or_default();
        self.precheck(&view, &space, &rel, &wish.path, &wish.options()).await?;
        room::one_file(&view, wish.length)?;
        let row = UploadRow { length: None, ..wish.row(fresh_id()?, self, &space, self.hub().upload_expires()) };
        let id = row.id.clone();
        let running = self.hub().inner.uploads.add(row.clone(), usize::MAX, usize::MAX)?;
        // When the client goes away while the parts are copied, nothing of the copy stays.
        let unfinished = Unfinished { hub: self.hub().clone(), running: Some(running.clone()) };
        self.hub().catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row))] }).await?;
        let turn = running.take_turn().await?;
        let mut writer = UploadWriter::open(self.clone(), running.clone(), turn).await?;
        writer.on_trial();
        let gathered = writer.gather(&rows).await;
        unfinished.disarm();
        let outcome = match gathered {
            Ok(()) => writer.finish_joined(&rows).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(receipt) => {
                drop(turns);
                for row in rows {
                    self.hub().inner.uploads.remove(&row.id);
                    space.volume.discard(&StageId(row.id)).await?;
                }
                Ok((id, receipt))
            }
            Err(error) => {
                self.hub().drop_upload(&running).await?;
                Err(error)
            }
        }
    }
}

/// A file that is being put together: dropped before it is finished, it leaves nothing.
struct Unfinished {
    hub: Hub,
    running: Option<Arc<Running>>,
}

impl Unfinished {
    fn disarm(mut self) {
        self.running = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        let hub = self.hub.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Its writer lets go first.
                let _turn = running.take_turn().await;
                if let Err(error) = hub.drop_upload(&running).await {
                    tracing::warn!(error = error.detail(), "a file that was not put together could not be removed");
                }
            });
        }
    }
}

fn resource(running: &Running) -> UploadResource {
    let row = running.row();
    UploadResource {
        id: row.id,
        offset: row.received,
        length: row.length,
        part: row.kind == UploadKind::Part,
        note: About::read(&row.about).note,
        expires: row.expires,
        receipt: None,
    }
}
