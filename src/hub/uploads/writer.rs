//! Writing to an upload in pieces: appended in order, kept safe as it grows, finished by the commit of every other write.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::begin::hex;
use super::{About, Running, Turn, gone};
use crate::error::{Error, Kind, Result};
use crate::hub::path::TreePath;
use crate::hub::put::{Closing, Content, Put, PutFile};
use crate::hub::room::Ceiling;
use crate::hub::staging::Hold;
use crate::hub::transfer::Receipt;
use crate::hub::view::Space;
use crate::hub::{Caller, now};
use crate::store::{Batch, Edit, Micros, RelPath, Stage, StageId, UploadEdit, UploadKind, UploadRow};

/// Bytes after which what came is made safe although more is coming.
const KEEP_EVERY: u64 = 32 << 20;

/// Bytes after which the disk is asked for its room again although they were promised: others fill it too.
const ASK_EVERY: u64 = 4 << 20;

/// Bytes read at once for a digest.
const PIECE: usize = 1 << 20;

/// The next bytes of an upload. What was taken stays when it is dropped, unless it was to be checked first.
pub struct UploadWriter {
    work: Option<Box<Work>>,
}

struct Work {
    caller: Caller,
    space: Arc<Space>,
    running: Arc<Running>,
    stage: Box<dyn Stage>,
    ceiling: Ceiling,
    /// Where this writer began.
    from: u64,
    /// Bytes since the last time they were made safe.
    unkept: u64,
    /// Nothing stays unless it is kept.
    on_trial: bool,
    /// Room for bytes beyond what the upload was promised.
    hold: Hold,
    /// Bytes since the disk was asked for its room.
    unasked: u64,
    turn: Turn,
}

impl UploadWriter {
    pub(super) async fn open(caller: Caller, running: Arc<Running>, turn: Turn) -> Result<Self> {
        let row = running.row();
        let view = caller.hub().view();
        let space = view.space(&row.space).cloned();
        let space = space.ok_or_else(|| Error::new(Kind::Unavailable, "the upload's folder is not there now"))?;
        let mut stage = space.volume.stage(&StageId(row.id.clone())).await?;
        if stage.len() < row.received {
            return Err(gone());
        }
        // What came behind may not be whole after a crash, and nobody was told that it is here.
        stage.truncate(row.received).await?;
        let path = TreePath::parse(&row.path)?;
        let rel: RelPath = path.below(&space.path).unwrap_or_default();
        let own = caller.hub().inner.uploads.promised(&row.id);
        let quota = caller.check_room(&view, &space, &rel, true, None).await?.map(|left| left.saturating_add(own));
        let ceiling = Ceiling::of(&caller, &space, quota);
        let from = row.received;
        let hold = caller.hub().inner.staging.hold(&space);
        let unkept = 0;
        let work =
            Work { caller, space, running, stage, ceiling, from, unkept, on_trial: false, hold, unasked: 0, turn };
        Ok(Self { work: Some(Box::new(work)) })
    }

    fn work(&mut self) -> Result<&mut Work> {
        self.work.as_deref_mut().ok_or_else(gone)
    }

    /// Bytes it holds, safe or not.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.stage.len())
    }

    /// Bytes it will have, once that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.work.as_ref().and_then(|work| work.running.row.lock().length)
    }

    /// It is a part of a file to be put together.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.running.row.lock().kind == UploadKind::Part)
    }

    /// Says how many bytes it will have, where that was left open.
    ///
    /// # Errors
    /// `Invalid` when something else was said before or more is here already; `OverQuota`, `TooLarge` when there is no room for it.
    pub async fn set_length(&mut self, length: u64) -> Result<()> {
        let work = self.work()?;
        let row = work.running.row();
        if row.length.is_some_and(|known| known != length) || length < row.received {
            return Err(Error::new(Kind::Invalid, "the length of this upload is another"));
        }
        work.ceiling.check(length)?;
        work.caller.hub().inner.uploads.change(&work.running, |row| row.length = Some(length));
        work.keep(None).await
    }

    /// From now on nothing stays unless [`UploadWriter::keep`] is called: it is to be checked first.
    pub fn on_trial(&mut self) {
        if let Some(work) = &mut self.work {
            work.on_trial = true;
        }
    }

    /// Waits until another request asks for this upload.
    pub async fn wanted_elsewhere(&self) {
        match &self.work {
            Some(work) => work.turn.wanted.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `TooLarge` beyond what was announced; `OverQuota`, `Full`.
    pub async fn push(&mut self, chunk: Bytes) -> Result<()> {
        let work = self.work()?;
        work.caller.go_on()?;
        let size = chunk.len() as u64;
        let after = work.stage.len().saturating_add(size);
        if work.running.row.lock().length.is_some_and(|length| after > length) {
            return Err(Error::new(Kind::TooLarge, "more bytes came than were announced for this upload"));
        }
        work.ceiling.check(after)?;
        work.reserve(after, 0).await?;
        work.stage.append(chunk).await?;
        work.unkept += size;
        match work.unkept >= KEEP_EVERY && !work.on_trial {
            true => work.keep(None).await,
            false => Ok(()),
        }
    }

    /// Makes what came safe; the offset that may be told.
    ///
    /// # Errors
    /// `Unavailable`: the disk's or the catalog's.
    pub async fn keep(&mut self) -> Result<u64> {
        let work = self.work()?;
        work.on_trial = false;
        work.keep(None).await?;
        Ok(work.stage.len())
    }

    /// Forgets what this writer brought and was not kept.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn rewind(&mut self) -> Result<()> {
        let work = self.work()?;
        let from = work.from;
        work.unkept = 0;
        work.stage.truncate(from).await
    }

    /// Makes a file of it: durable, visible, acknowledged, once. It stays as it is when that is refused.
    ///
    /// # Errors
    /// Those of the turnstile; `Corrupt` when the bytes are not what was announced.
    pub async fn finish(&mut self) -> Result<Receipt> {
        self.finish_with(Vec::new()).await
    }

    /// The same; the parts it was made of are gone with the same commit.
    pub(super) async fn finish_joined(&mut self, parts: &[UploadRow]) -> Result<Receipt> {
        self.finish_with(parts.iter().map(|part| part.id.clone()).collect()).await
    }

    async fn finish_with(&mut self, parts: Vec<String>) -> Result<Receipt> {
        let work = self.work()?;
        let about = About::read(&work.running.row().about);
        let modified = about.modified.unwrap_or_else(now);
        if work.unkept > 0 {
            work.keep(Some(modified)).await?;
        } else if work.space.durable {
            work.stage.seal(Some(modified)).await?;
        }
        let row = work.running.row();
        let sha256 = match &about.sha256 {
            Some(announced) => Some(work.checked(announced).await?),
            None => None,
        };
        let closing = Closing {
            key: row.id.clone(),
            place: 0,
            request: if parts.is_empty() { format!("upload {}", row.path) } else { about.note.clone() },
            upload: Some(row.id.clone()),
            parts,
            expires: work.caller.hub().receipt_expires(),
        };
        let put = Put {
            path: TreePath::parse(&row.path)?,
            content: Content::Staged(StageId(row.id.clone())),
            size: work.stage.len(),
            sha256,
            modified,
            only_if: None,
            rule: None,
            appends: false,
            judge: true,
            folders: about.folders,
            tokens: Vec::new(),
            like: None,
            unheard: false,
            verb: None,
            detail: String::new(),
            id: uuid::Uuid::now_v7().to_string(),
            closing: Some(closing),
        };
        let outcome = match work.caller.perform(PutFile(put)).await {
            // Its answer was lost and it is asked for again: it is done.
            Err(error) if error.kind() == Kind::Conflict => work.caller.upload_receipt(&row.id).await?.ok_or(error),
            outcome => outcome,
        };
        if outcome.is_ok() {
            work.caller.hub().inner.uploads.remove(&row.id);
            self.work = None;
        }
        outcome
    }

    /// Takes the bytes of parts, in order.
    pub(super) async fn gather(&mut self, parts: &[UploadRow]) -> Result<()> {
        let work = self.work()?;
        for part in parts {
            let mut stage = work.space.volume.stage(&StageId(part.id.clone())).await?;
            stage.truncate(part.received).await?;
            // What the part takes of the quota goes with it.
            let after = work.stage.len().saturating_add(part.received);
            work.reserve(after, after).await?;
            work.stage.append_file(&stage.file(), part.received).await?;
            work.unkept += part.received;
        }
        Ok(())
    }
}

impl Work {
    /// Reserves room for so many bytes in all, of which the commit will free `credit`.
    async fn reserve(&mut self, bytes: u64, credit: u64) -> Result<()> {
        // `promised` locks the row too.
        let id = self.running.row().id;
        let promised = self.caller.hub().inner.uploads.promised(&id);
        let beyond = bytes.saturating_sub(promised);
        if beyond > self.hold.bytes() {
            return self.caller.reserve(&self.space, &mut self.hold, beyond, credit).await;
        }
        let more = bytes.saturating_sub(self.stage.len());
        self.unasked = self.unasked.saturating_add(more);
        if self.unasked < ASK_EVERY {
            return Ok(());
        }
        self.unasked = 0;
        self.caller.disk_has_room_for(&self.space, more).await
    }

    async fn keep(&mut self, modified: Option<Micros>) -> Result<()> {
        if self.space.durable {
            self.stage.seal(modified).await?;
        }
        let (received, expires) = (self.stage.len(), self.caller.hub().upload_expires());
        let row = UploadRow { received, expires, ..self.running.row() };
        self.caller.hub().catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Put(row))] }).await?;
        self.caller.hub().inner.uploads.change(&self.running, |row| {
            row.received = received;
            row.expires = expires;
        });
        self.unkept = 0;
        self.hold.shrink(0);
        self.caller.disk_has_room(&self.space).await
    }

    /// The SHA-256 of all of it, which must be the one announced.
    async fn checked(&self, announced: &str) -> Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < self.stage.len() {
            let piece = self.stage.read_at(at, PIECE).await?;
            at += piece.len() as u64;
            hasher.update(&piece);
        }
        let found: [u8; 32] = hasher.finalize().into();
        match hex(&found) == announced {
            true => Ok(found),
            false => Err(Error::new(Kind::Corrupt, "the file is not what its SHA-256 says; nothing was stored")),
        }
    }

    /// The request that brought bytes is gone: what came so far stays, unless it was to be checked.
    async fn leave(mut self: Box<Self>) {
        if self.unkept == 0 {
            return;
        }
        let outcome = match self.on_trial {
            true => self.stage.truncate(self.from).await,
            false => self.keep(None).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(
                upload = self.running.row().id,
                error = error.detail(),
                "the last bytes of an upload are lost"
            );
        }
    }
}

impl Drop for UploadWriter {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work.leave());
        }
    }
}
