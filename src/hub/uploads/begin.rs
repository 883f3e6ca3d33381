//! Making, finding, ending and joining uploads in pieces.

use std::sync::Arc;

use super::writer::UploadWriter;
use super::{About, Running, UploadResource, fresh_id, gone};
use crate::error::{Error, Kind, Result};
use crate::hub::lock::Reach;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::{Receipt, WriteOptions};
use crate::hub::view::{Space, View};
use crate::hub::{Caller, now, room};
use crate::store::{Batch, Edit, Micros, RelPath, StageId, UploadEdit, UploadKind, UploadRow};

/// Longest text a client may say of an upload.
const LONGEST_NOTE: usize = 8 << 10;

/// Most parts of one file.
const MOST_PARTS: usize = 1_000;

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

    fn row(&self, id: String, account: &str, space: &Space, expires: Micros) -> UploadRow {
        let about = About {
            note: self.note.clone(),
            modified: self.modified,
            folders: self.folders,
            sha256: self.sha256.map(|sum| hex(&sum)),
        };
        UploadRow {
            id,
            account: account.to_owned(),
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
        let row = wish.row(fresh_id()?, self.name(), &space, self.hub().upload_expires());
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

    /// Puts complete parts together to one file and makes it durable and visible; the parts are gone then. Also says the name by which
    /// its receipt is found again.
    ///
    /// # Errors
    /// `NotFound` for a part that is not there, `Invalid` when one is not complete or of another space; as [`Caller::write`].
    pub async fn join_uploads(&self, wish: &UploadWish, parts: &[String]) -> Result<(String, Receipt)> {
        if parts.is_empty() || parts.len() > MOST_PARTS {
            return Err(Error::new(Kind::Invalid, "a file is put together of 1 to 1000 parts"));
        }
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
        let row = UploadRow { length: None, ..wish.row(fresh_id()?, self.name(), &space, self.hub().upload_expires()) };
        let id = row.id.clone();
        let running = self.hub().inner.uploads.add(row.clone(), usize::MAX, usize::MAX)?;
        self.hub().catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row))] }).await?;
        let turn = running.take_turn().await?;
        let mut writer = UploadWriter::open(self.clone(), running.clone(), turn).await?;
        let outcome = match writer.gather(&rows).await {
            Ok(()) => writer.finish_joined(&rows).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(receipt) => {
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
