//! Bytes on their way in: uploads that are invisible before their commit.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
pub use crate::hub::download::Download;
pub(crate) use crate::hub::incoming::Incoming;
use crate::hub::mail::{self, Envelope, Fingerprint, Proof};
use crate::hub::once::OnceKey;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::put::{Closing, Put, PutFile, PutFiles};
use crate::hub::room::Ceiling;
use crate::hub::settings::Overwrite;
use crate::hub::staging::Hold;
use crate::hub::view::Space;
use crate::hub::{Caller, now};
use crate::store::{Micros, Soaked};

/// How an upload meets what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// The old content and then this (FTP APPE).
    Append,
    /// The first `n` bytes of a broken upload kept by this account, then this (HTTP PUT with `Content-Range`).
    Continue(u64),
    /// Only this.
    #[default]
    Replace,
    /// The first `n` bytes of what is there (or of a broken upload kept by this account), then this (FTP REST + STOR).
    Resume(u64),
}

impl WriteMode {
    /// What it does to a file of so many bytes: adding behind its end is less than changing it.
    pub(super) fn changes(self, size: u64) -> Verb {
        match self {
            Self::Append => Verb::Append,
            Self::Resume(from) if from == size => Verb::Append,
            Self::Continue(_) | Self::Replace | Self::Resume(_) => Verb::Overwrite,
        }
    }
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
    /// Give it a receipt with an id that is found in the history.
    pub receipt: bool,
    /// Keep the receipt under this key.
    pub once: Option<OnceKey>,
    /// It is a copy of this file: its properties become that one's.
    pub like: Option<TreePath>,
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
    /// Message id for mail; for files the id in the history's detail, empty unless a receipt was asked for.
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
    /// The door says itself what the sender wrote.
    seen: bool,
    remark: &'static str,
    /// Room for the bytes that are on the disk.
    pub(super) hold: Hold,
    /// Bytes of the quota that the commit will free.
    credit: u64,
    /// When, and at which length, it was last made to survive a kill.
    pub(super) saved: (Instant, u64),
}

/// Bytes the kernel moves into the stage by itself are reserved so many at once.
const SOAKED: u64 = 1 << 20;

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
    /// They are all the bytes of that file.
    pub(super) is_whole: bool,
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
        let hold = caller.hub().inner.staging.hold(&space);
        let work = Work {
            caller,
            space,
            goal,
            body,
            ceiling,
            hasher,
            print,
            seen: false,
            remark: "",
            hold,
            credit: 0,
            saved: (Instant::now(), 0),
        };
        Self { work: Some(Box::new(work)) }
    }

    /// Goes on with what `hold` has room for; its commit frees `credit` bytes of the quota.
    pub(super) fn holding(mut self, hold: Option<Hold>, credit: u64) -> Self {
        if let Some(work) = &mut self.work {
            work.hold = hold.unwrap_or_else(|| work.caller.hub().inner.staging.hold(&work.space));
            work.credit = credit;
        }
        self
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `OverQuota`, `TooLarge`, `Full` as soon as it is clear that the commit cannot succeed.
    pub async fn push(&mut self, chunk: Bytes) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        work.caller.go_on()?;
        work.ceiling.check(work.body.len().saturating_add(chunk.len() as u64))?;
        if let Some(hasher) = &mut work.hasher {
            hasher.update(&chunk);
        }
        if let Some(print) = work.print.as_mut().filter(|_| !work.seen) {
            print.push(&chunk);
        }
        work.take(chunk).await?;
        work.save().await
    }

    /// What the sender of a message wrote, where its door changes that before it pushes it.
    pub fn saw(&mut self, written: &[u8]) {
        if let Some(work) = self.work.as_deref_mut()
            && let Some(print) = &mut work.print
        {
            work.seen = true;
            print.push(written);
        }
    }

    /// Takes header lines of our own, before the first byte of a message: they are no part of what its sender wrote.
    ///
    /// # Errors
    /// As [`Upload::push`].
    pub async fn preface(&mut self, lines: Bytes) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        work.ceiling.check(work.body.len().saturating_add(lines.len() as u64))?;
        work.take(lines).await
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
    /// `Unavailable`: the disk's; `Full` when others filled it meanwhile.
    pub async fn soak(&mut self, from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        let len = work.body.len();
        let room = work.ceiling.left(len);
        if work.body.stage.is_none() || room == 0 || work.hasher.is_some() || work.print.is_some() {
            return Ok(None);
        }
        work.reserve(len.saturating_add(room.min(SOAKED))).await?;
        let room = room.min(work.hold.bytes().saturating_sub(len));
        let soaked = match &mut work.body.stage {
            Some((_, stage)) => stage.soak(from, room).await?,
            None => None,
        };
        work.save().await?;
        Ok(soaked)
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

    /// The same for several files at once: all of them, or none. Those that want one name get one each.
    ///
    /// # Errors
    /// Those of the turnstile.
    pub async fn commit_all(uploads: Vec<Self>) -> Result<Vec<Receipt>> {
        let mut works: Vec<Box<Work>> = uploads.into_iter().filter_map(|mut upload| upload.work.take()).collect();
        let outcome = Work::commit_files(&mut works).await;
        for work in &mut works {
            match &outcome {
                Ok(_) => work.forget_row().await,
                Err(_) => work.discard().await,
            }
        }
        outcome
    }

    /// Moves what is in memory to the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn stage(&mut self) -> Result<()> {
        let Some(work) = self.work.as_deref_mut() else { return Err(over()) };
        match work.body.stage {
            Some(_) => Ok(()),
            None => work.spill().await,
        }
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
        if work.body.stage.is_some() {
            // For a moment both are there.
            let both = work.body.len().saturating_mul(2).saturating_add(lines.len() as u64);
            work.reserve(both).await?;
        }
        work.body.prepend(lines, &work.space).await?;
        work.hold.shrink(work.body.len());
        Ok(())
    }

    /// Like [`Upload::commit`] for a message, but each recipient is judged by itself: outcomes in the envelope's order.
    pub async fn commit_each(mut self) -> Vec<Result<Receipt>> {
        let Some(mut work) = self.work.take() else { return vec![Err(over())] };
        let outcomes = match &work.goal {
            Goal::Mail(envelope) => {
                if let Some(print) = &mut work.print {
                    print.addressed(&work.caller, envelope);
                }
                mail::finish_each(&work.caller, envelope, work.print.as_ref(), &work.space, &mut work.body).await
            }
            Goal::File { .. } => vec![Err(mail::no_message())],
        };
        // Nothing is left of it when it was published, and what still has to be published is kept.
        work.discard().await;
        outcomes
    }

    /// Keeps what came so far out of sight, for this account to go on with; how many bytes.
    ///
    /// # Errors
    /// What the disk or the catalog says; nothing is kept then.
    pub async fn set_aside(mut self) -> Result<u64> {
        let Some(mut work) = self.work.take() else { return Err(over()) };
        if work.body.stage.is_none() {
            work.spill().await?;
        }
        let len = work.body.len();
        match work.give_up().await {
            true => Ok(len),
            false => Err(Error::new(Kind::Unavailable, "what came could not be kept; begin again")),
        }
    }

    /// Gives up and leaves nothing.
    pub async fn discard(mut self) {
        if let Some(mut work) = self.work.take() {
            work.discard().await;
        }
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
    /// Reserves room on the disk and in the quota for so many bytes in all.
    async fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.caller.reserve(&self.space, &mut self.hold, bytes, self.credit).await
    }

    /// Takes bytes; those that go to the disk are reserved first.
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        if self.body.would_stage(chunk.len()) {
            self.reserve(self.body.len().saturating_add(chunk.len() as u64)).await?;
        }
        self.body.push(chunk, &self.space).await
    }

    async fn spill(&mut self) -> Result<()> {
        self.reserve(self.body.len()).await?;
        self.body.spill(&self.space).await
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
                Ok(receipt) => {
                    self.forget_row().await;
                    return Ok(receipt);
                }
                outcome => return outcome,
            }
        }
    }

    async fn commit_files(works: &mut [Box<Self>]) -> Result<Vec<Receipt>> {
        let mut puts = Vec::with_capacity(works.len());
        for work in works.iter_mut() {
            puts.push(work.put().await?);
        }
        match works.first() {
            Some(first) => first.caller.perform(PutFiles(puts)).await,
            None => Ok(Vec::new()),
        }
    }

    async fn put(&mut self) -> Result<Put> {
        let size = self.body.len();
        let backlog_full = self.caller.hub().inline_backlog_is_full(&self.space.key);
        if self.body.stage.is_none() && (backlog_full || self.body.would_stage(0)) {
            self.reserve(self.body.len()).await?;
        }
        let Goal::File { options, .. } = &self.goal else { return Err(over()) };
        let modified = options.modified.unwrap_or_else(now);
        let content = self.body.content(&self.space, backlog_full, modified).await?;
        let sha256 = self.digest().await?;
        // From here on the commit counts them.
        self.hold.shrink(0);
        let Goal::File { path, options, base } = &self.goal else { return Err(over()) };
        Ok(Put {
            path: path.clone(),
            content,
            size,
            sha256,
            modified,
            only_if: options.only_if.or(base.tag),
            rule: match options.mode {
                _ if options.unique => Some(Overwrite::KeepBoth),
                WriteMode::Append => Some(Overwrite::Replace),
                WriteMode::Resume(_) if base.tag.is_some() => Some(Overwrite::Replace),
                WriteMode::Continue(_) | WriteMode::Replace | WriteMode::Resume(_) => None,
            },
            appends: base.is_whole,
            judge: true,
            folders: options.folders,
            tokens: options.tokens.clone(),
            like: options.like.clone(),
            unheard: false,
            verb: None,
            detail: self.remark.to_owned(),
            id: if options.receipt { uuid::Uuid::now_v7().to_string() } else { String::new() },
            closing: options.once.clone().map(|once| Closing {
                key: once.key,
                place: once.place,
                request: once.request,
                upload: None,
                parts: Vec::new(),
                expires: self.caller.hub().receipt_expires(),
            }),
        })
    }

    /// A broken upload is one no more. A row that stays after all is found to be without a stage at the next start.
    async fn forget_row(&mut self) {
        if let Some(id) = self.body.stage_id().filter(|_| self.body.recorded)
            && let Err(error) = self.caller.hub().forget_upload(&id.0).await
        {
            tracing::warn!(stage = id.0, error = error.detail(), "the record of a broken upload could not be removed");
        }
        self.body.recorded = false;
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
        self.credit = self.credit.max(base.len);
        let mut old = std::mem::replace(&mut self.body, fresh);
        let mut at = tail_from;
        loop {
            let piece = old.read_at(at, PIECE).await?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            self.take(piece).await?;
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
        if let Some(print) = &mut self.print {
            print.addressed(&self.caller, envelope);
        }
        mail::finish(&self.caller, envelope, self.print.as_ref(), &self.space, &mut self.body).await
    }

    pub(super) async fn discard(&mut self) {
        self.forget_row().await;
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
}

/// Times an append is built anew on what others appended meanwhile.
const REBASES: u32 = 8;

/// Bytes read at once where an upload reads itself back.
pub(super) const PIECE: usize = 256 << 10;
