//! Bytes on their way in: uploads that are invisible before their commit.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
pub use crate::hub::download::Download;
use crate::hub::mail::{self, Envelope, Fingerprint, Octets, Proof};
use crate::hub::partial::Partial;
use crate::hub::path::TreePath;
use crate::hub::put::{Content, Put, PutFile};
use crate::hub::room::Ceiling;
use crate::hub::settings::Overwrite;
use crate::hub::view::Space;
use crate::hub::{Caller, now};
use crate::store::{Micros, RelPath, Soaked, Stage, StageId};
use crate::units::ByteSize;

/// How an upload meets what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// The old content and then this (FTP APPE).
    Append,
    /// Only this.
    #[default]
    Replace,
    /// The first `n` bytes of what is there (or of a broken upload kept by this account), then this (FTP REST + STOR).
    Resume(u64),
}

/// How a file is to be written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Replace, append or resume.
    pub mode: WriteMode,
    /// Size announced by the client: checked against quota and disk before a byte is taken.
    pub size: Option<u64>,
    /// Modification time to set; else now.
    pub modified: Option<Micros>,
    /// Compute the SHA-256 for the receipt.
    pub digest: bool,
    /// Refuse (`Conflict`) unless what is there has this tag; `Some(None)`: unless nothing is there.
    pub only_if: Option<Option<u64>>,
    /// A broken upload stays invisible and resumable by this account for a while.
    pub keep_partial: bool,
    /// Make missing parent folders.
    pub folders: bool,
    /// Take a free name instead of replacing, whatever the space's rule (FTP STOU).
    pub unique: bool,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// What was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The final path (another than asked for when both were kept); for mail the first place it went to.
    pub path: TreePath,
    /// Bytes now there.
    pub bytes: u64,
    /// SHA-256 when asked for.
    pub sha256: Option<[u8; 32]>,
    /// The node's tag, for an `ETag`.
    pub tag: u64,
    /// Modification time.
    pub modified: Micros,
    /// Nothing was there before.
    pub created: bool,
    /// Message id for mail; empty for files.
    pub id: String,
}

/// A write in progress: invisible before `commit`; dropping it leaves nothing (or a resumable part, when asked for).
pub struct Upload {
    work: Option<Box<Work>>,
}

/// Everything an upload needs; boxed so that an idle session stays small.
pub(super) struct Work {
    pub(super) caller: Caller,
    pub(super) space: Arc<Space>,
    pub(super) goal: Goal,
    pub(super) body: Incoming,
    /// Largest length the limits allow, and what to say beyond it.
    ceiling: Ceiling,
    hasher: Option<Sha256>,
    /// Recognises a message that is sent again.
    print: Option<Fingerprint>,
    remark: &'static str,
    /// Bytes since the disk was asked for its room.
    unchecked: u64,
}

/// A long upload asks the disk for its room again after so many bytes: others fill it too.
const ROOM_EVERY: u64 = 64 << 20;

/// What becomes of the bytes.
pub(super) enum Goal {
    File { path: TreePath, options: WriteOptions, base: Base },
    Mail(Envelope),
}

/// What an append or resume was built upon: it must still be there at the commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base {
    /// Bytes taken over.
    pub(super) len: u64,
    /// Tag of the file they came from; `Some(None)`: nothing was there.
    pub(super) tag: Option<Option<u64>>,
}

/// The bytes so far: in memory while they are few, then in a stage.
pub(crate) struct Incoming {
    buffer: BytesMut,
    /// The buffer once it was handed to a commit, which may have to be tried again.
    handed: Option<Bytes>,
    stage: Option<(StageId, Box<dyn Stage>)>,
    inline: usize,
    /// Counts what a message comes to on the wire.
    octets: Option<Octets>,
}

impl Incoming {
    pub(super) fn new(inline: ByteSize) -> Self {
        Self {
            buffer: BytesMut::new(),
            handed: None,
            stage: None,
            inline: usize::try_from(inline.0).unwrap_or(usize::MAX),
            octets: None,
        }
    }

    pub(super) fn staged(id: StageId, stage: Box<dyn Stage>) -> Self {
        Self { buffer: BytesMut::new(), handed: None, stage: Some((id, stage)), inline: 0, octets: None }
    }

    /// The same for a message, which is also counted as the network sees it.
    pub(super) fn counted(self) -> Self {
        Self { octets: Some(Octets::default()), ..self }
    }

    /// Octets of a message as the network sees it; see [`Octets`].
    pub(crate) fn octets(&self) -> u64 {
        self.octets.as_ref().map_or(0, Octets::count)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.stage.as_ref().map_or(self.in_memory().len() as u64, |(_, stage)| stage.len())
    }

    fn in_memory(&self) -> &[u8] {
        self.handed.as_deref().unwrap_or(&self.buffer)
    }

    /// Takes more bytes; into a stage on this space's volume once they are many.
    pub(crate) async fn push(&mut self, chunk: Bytes, space: &Space) -> Result<()> {
        if let Some(octets) = &mut self.octets {
            octets.feed(&chunk);
        }
        if let Some((_, stage)) = &mut self.stage {
            return stage.append(chunk).await;
        }
        if self.buffer.len() + chunk.len() <= self.inline {
            self.buffer.extend_from_slice(&chunk);
            return Ok(());
        }
        self.spill(space).await?;
        match &mut self.stage {
            Some((_, stage)) => stage.append(chunk).await,
            None => Ok(()),
        }
    }

    /// Moves what is in memory into a stage.
    async fn spill(&mut self, space: &Space) -> Result<()> {
        let id = StageId(uuid::Uuid::now_v7().to_string());
        let mut stage = space.volume.stage(&id).await?;
        let buffered = std::mem::take(&mut self.buffer).freeze();
        if !buffered.is_empty()
            && let Err(error) = stage.append(buffered).await
        {
            let _ = space.volume.discard(&id).await;
            return Err(error);
        }
        self.stage = Some((id, stage));
        Ok(())
    }

    /// Ready for the commit: inline, or sealed on the disk.
    pub(crate) async fn content(&mut self, space: &Space, backlog_full: bool) -> Result<Content> {
        if self.stage.is_none() && self.handed.is_none() && backlog_full && !self.buffer.is_empty() {
            self.spill(space).await?;
        }
        let Some((id, stage)) = &mut self.stage else {
            let handed = self.handed.get_or_insert_with(|| std::mem::take(&mut self.buffer).freeze());
            return Ok(Content::Inline(handed.clone()));
        };
        if space.durable {
            stage.seal().await?;
        }
        Ok(Content::Staged(id.clone()))
    }

    /// Bytes back, for parsing. Call before [`Incoming::content`].
    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        if let Some((_, stage)) = &self.stage {
            return stage.read_at(offset, len).await;
        }
        let held = self.in_memory();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(held.len());
        let end = start.saturating_add(len).min(held.len());
        Ok(Bytes::copy_from_slice(held.get(start..end).unwrap_or_default()))
    }

    /// Puts bytes in front of those that came.
    async fn prepend(&mut self, lines: Bytes, space: &Space) -> Result<()> {
        let Some((old_id, old)) = &mut self.stage else {
            let mut whole = BytesMut::with_capacity(lines.len() + self.buffer.len());
            whole.extend_from_slice(&lines);
            whole.extend_from_slice(&self.buffer);
            self.buffer = whole;
            return Ok(());
        };
        let id = StageId(uuid::Uuid::now_v7().to_string());
        let mut stage = space.volume.stage(&id).await?;
        let copied = match stage.append(lines).await {
            Ok(()) => stage.append_file(&old.file(), old.len()).await,
            Err(error) => Err(error),
        };
        // Whichever is not the body any more goes.
        let goes = match &copied {
            Ok(()) => {
                *old = stage;
                std::mem::replace(old_id, id)
            }
            Err(_) => id,
        };
        space.volume.discard(&goes).await?;
        copied
    }

    /// The same bytes once more.
    pub(crate) async fn copy(&self, space: &Space, inline: ByteSize) -> Result<Self> {
        let mut copy = Self::new(inline);
        loop {
            let piece = self.read_at(copy.len(), PIECE).await?;
            if piece.is_empty() {
                return Ok(copy);
            }
            if let Err(error) = copy.push(piece, space).await {
                if let Some((id, _)) = copy.stage.take() {
                    let _ = space.volume.discard(&id).await;
                }
                return Err(error);
            }
        }
    }

    /// The stage's id, when there is one.
    pub(crate) fn stage_id(&self) -> Option<&StageId> {
        self.stage.as_ref().map(|(id, _)| id)
    }
}

impl Upload {
    pub(super) fn begin(
        caller: Caller,
        space: Arc<Space>,
        goal: Goal,
        body: Incoming,
        quota_left: Option<u64>,
        digest: bool,
    ) -> Self {
        let ceiling = Ceiling::of(&caller, &space, quota_left);
        let hasher = digest.then(Sha256::new);
        let print = matches!(goal, Goal::Mail(_)).then(Fingerprint::default);
        let work = Work { caller, space, goal, body, ceiling, hasher, print, remark: "", unchecked: 0 };
        Self { work: Some(Box::new(work)) }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `OverQuota`, `TooLarge`, `Full` as soon as it is clear that the commit cannot succeed.
    pub async fn push(&mut self, chunk: Bytes) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        work.ceiling.check(work.body.len().saturating_add(chunk.len() as u64))?;
        if let Some(hasher) = &mut work.hasher {
            hasher.update(&chunk);
        }
        if let Some(print) = &mut work.print {
            print.push(&chunk);
        }
        work.unchecked += chunk.len() as u64;
        if work.unchecked >= ROOM_EVERY {
            work.unchecked = 0;
            work.disk_has_room().await?;
        }
        work.body.push(chunk, &work.space).await
    }

    /// Takes header lines of our own, before the first byte of a message: they are no part of what its sender wrote.
    ///
    /// # Errors
    /// As [`Upload::push`].
    pub async fn preface(&mut self, lines: Bytes) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        work.ceiling.check(work.body.len().saturating_add(lines.len() as u64))?;
        work.body.push(lines, &work.space).await
    }

    /// A detail for the history line of its commit.
    pub fn remark(&mut self, what: &'static str) {
        if let Some(work) = &mut self.work {
            work.remark = what;
        }
    }

    /// Takes what a non-blocking descriptor holds without seeing it, as far as the limits allow; `None` where the bytes must be seen, or
    /// are few: read and [`Upload::push`] them.
    ///
    /// # Errors
    /// `Unavailable`: the disk's.
    pub async fn soak(&mut self, from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        let room = work.ceiling.left(work.body.len());
        match &mut work.body.stage {
            Some((_, stage)) if room > 0 && work.hasher.is_none() => stage.soak(from, room).await,
            _ => Ok(None),
        }
    }

    /// Bytes it will hold so far, with what it resumed or appends to.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.body.len())
    }

    /// True before the first byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it durable, visible and acknowledged; nothing of it is visible when this fails.
    ///
    /// # Errors
    /// Those of the turnstile.
    pub async fn commit(mut self) -> Result<Receipt> {
        let Some(mut work) = self.work.take() else { return Err(over()) };
        let outcome = match work.goal {
            Goal::File { .. } => work.commit_file().await,
            Goal::Mail(_) => work.commit_mail().await,
        };
        if outcome.is_err() {
            work.discard().await;
        }
        outcome
    }

    /// Adds to a message that came whole what was found out about its origin: for the hub to judge by, and as header lines in
    /// front of it. What is staged already is copied behind them.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn vouch(&mut self, proof: Proof, lines: Bytes) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        if let Goal::Mail(envelope) = &mut work.goal {
            envelope.proof = Some(proof);
        }
        work.body.prepend(lines, &work.space).await
    }

    /// Like [`Upload::commit`] for a message, but each recipient is judged by itself: outcomes in the envelope's order.
    pub async fn commit_each(mut self) -> Vec<Result<Receipt>> {
        let Some(mut work) = self.work.take() else { return vec![Err(over())] };
        let outcomes = match &work.goal {
            Goal::Mail(envelope) => {
                mail::finish_each(&work.caller, envelope, work.print.as_ref(), &work.space, &mut work.body).await
            }
            Goal::File { .. } => vec![Err(mail::no_message())],
        };
        // Nothing is left of it when it was published, and what still has to be published is kept.
        work.discard().await;
        outcomes
    }

    /// Gives up; a `keep_partial` upload stays resumable, anything else leaves nothing.
    pub async fn abandon(mut self) {
        if let Some(work) = self.work.take() {
            work.give_up().await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if work.body.stage.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work.give_up());
        }
    }
}

fn over() -> Error {
    Error::new(Kind::Internal, "the upload is over")
}

impl Work {
    async fn disk_has_room(&self) -> Result<()> {
        let keep_free = self.caller.hub().view().settings.storage.keep_free.0;
        match self.space.volume.room().await?.free >= keep_free {
            true => Ok(()),
            false => Err(Error::new(Kind::Full, "the server's disk is full: tell its administrator")),
        }
    }

    async fn commit_file(&mut self) -> Result<Receipt> {
        let mut rebased = 0;
        loop {
            let put = self.put().await?;
            match self.caller.perform(PutFile(put)).await {
                Err(error) if error.kind() == Kind::Conflict && rebased < REBASES && self.appends() => {
                    rebased += 1;
                    self.rebase().await?;
                }
                outcome => return outcome,
            }
        }
    }

    async fn put(&mut self) -> Result<Put> {
        let size = self.body.len();
        let backlog_full = self.caller.hub().inline_backlog_is_full();
        let content = self.body.content(&self.space, backlog_full).await?;
        let sha256 = self.digest().await?;
        let Goal::File { path, options, base } = &self.goal else { return Err(over()) };
        Ok(Put {
            path: path.clone(),
            content,
            size,
            sha256,
            modified: options.modified.unwrap_or_else(now),
            only_if: options.only_if.or(base.tag),
            rule: match options.mode {
                _ if options.unique => Some(Overwrite::KeepBoth),
                WriteMode::Append => Some(Overwrite::Replace),
                WriteMode::Resume(_) if base.tag.is_some() => Some(Overwrite::Replace),
                WriteMode::Replace | WriteMode::Resume(_) => None,
            },
            judge: true,
            folders: options.folders,
            tokens: options.tokens.clone(),
            unheard: false,
            verb: None,
            detail: self.remark.to_owned(),
        })
    }

    /// The digest of everything, also of bytes taken over from before.
    async fn digest(&mut self) -> Result<Option<[u8; 32]>> {
        let Some(hasher) = self.hasher.clone() else { return Ok(None) };
        let Goal::File { base: Base { len: 1.., .. }, .. } = &self.goal else {
            return Ok(Some(hasher.finalize().into()));
        };
        let mut whole = Sha256::new();
        let mut at = 0;
        loop {
            let piece = self.body.read_at(at, PIECE).await?;
            if piece.is_empty() {
                return Ok(Some(whole.finalize().into()));
            }
            at += piece.len() as u64;
            whole.update(&piece);
        }
    }

    fn appends(&self) -> bool {
        matches!(&self.goal, Goal::File { options: WriteOptions { mode: WriteMode::Append, only_if: None, .. }, .. })
    }

    /// Someone else changed the file an append was built upon: what is there now, then our bytes.
    async fn rebase(&mut self) -> Result<()> {
        let Goal::File { path, base, .. } = &self.goal else { return Err(over()) };
        let tail_from = base.len;
        let (fresh, base) = self.caller.append_base(&self.space, path, None).await?;
        let mut old = std::mem::replace(&mut self.body, fresh);
        let mut at = tail_from;
        loop {
            let piece = old.read_at(at, PIECE).await?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            self.body.push(piece, &self.space).await?;
        }
        if let Goal::File { base: held, .. } = &mut self.goal {
            *held = base;
        }
        if let Some((id, _)) = old.stage.take() {
            self.space.volume.discard(&id).await?;
        }
        Ok(())
    }

    async fn commit_mail(&mut self) -> Result<Receipt> {
        let Goal::Mail(envelope) = &self.goal else { return Err(over()) };
        mail::finish(&self.caller, envelope, self.print.as_ref(), &self.space, &mut self.body).await
    }

    async fn discard(&mut self) {
        if let Some((id, _)) = self.body.stage.take()
            && !self.caller.hub().inner.pending.needs_stage(&id)
            && let Err(error) = self.space.volume.discard(&id).await
        {
            tracing::warn!(
                stage = id.0,
                error = error.detail(),
                "a refused upload could not be removed; the next start does it"
            );
        }
    }

    async fn give_up(mut self: Box<Self>) {
        let keep = match &self.goal {
            Goal::File { path, options, .. } if options.keep_partial && !self.caller.is_guest() => Some(path.clone()),
            Goal::File { .. } | Goal::Mail(_) => None,
        };
        match (keep, self.body.stage.take()) {
            (Some(path), Some((id, mut stage))) if !stage.is_empty() => {
                // What still runs ends first, and leaves nothing behind that was not counted.
                let len = stage.len();
                if stage.truncate(len).await.is_err() {
                    self.body.stage = Some((id, stage));
                    return self.discard().await;
                }
                let partial = Partial { space: self.space.clone(), id, len: stage.len(), since: now() };
                self.caller.hub().keep_partial(self.caller.name(), &path, partial).await;
            }
            (_, stage) => {
                self.body.stage = stage;
                self.discard().await;
            }
        }
    }
}

impl Caller {
    /// What an append or resume starts from: the first `upto` bytes of the file (all of it when `None`).
    pub(super) async fn append_base(
        &self,
        space: &Arc<Space>,
        path: &TreePath,
        upto: Option<u64>,
    ) -> Result<(Incoming, Base)> {
        let rel: RelPath = path.below(&space.path).unwrap_or_default();
        let opened = match space.volume.open(&rel).await {
            Ok(opened) => opened,
            Err(error) if error.kind() == Kind::NotFound && upto.is_none() => {
                let inline = self.hub().view().settings.storage.inline;
                return Ok((Incoming::new(inline), Base { len: 0, tag: Some(None) }));
            }
            Err(error) => return Err(error),
        };
        let len = upto.unwrap_or(opened.node.size);
        if len > opened.node.size {
            let says = format!("cannot go on at {len}: only {} bytes are here", opened.node.size);
            return Err(Error::new(Kind::Invalid, says));
        }
        let id = StageId(uuid::Uuid::now_v7().to_string());
        let mut stage = space.volume.stage(&id).await?;
        if let Err(error) = stage.append_file(&opened.file, len).await {
            let _ = space.volume.discard(&id).await;
            return Err(error);
        }
        Ok((Incoming::staged(id, stage), Base { len, tag: Some(Some(opened.node.tag)) }))
    }
}

/// Times an append is built anew on what others appended meanwhile.
const REBASES: u32 = 8;

/// Bytes read at once where an upload reads itself back.
const PIECE: usize = 256 << 10;
