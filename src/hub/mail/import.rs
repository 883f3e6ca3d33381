//! Mail from elsewhere into a mailbox: the same commit as a delivery, many messages at once, each message once.
//!
//! A message is recognised by its bytes: one that is in the folder already, by whatever way it came, is passed over. So an
//! import that broke off is simply done again. Works beside a running daemon, as another node on the same catalog and tree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::mailbox::Mailbox;
use super::maildir::{self, CUR, FOLDERS, NEW};
use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Planned, Sight};
use crate::hub::path::TreePath;
use crate::hub::put::{Content, Placed, Put};
use crate::hub::settings::Overwrite;
use crate::hub::transfer::Incoming;
use crate::hub::view::{Space, SpaceRole};
use crate::hub::{Caller, Hub, now};
use crate::origin::Origin;
use crate::store::{Batch, Change, Micros, StageId};

/// Messages of one commit.
const TOGETHER: usize = 64;
/// Bytes kept in memory for one commit.
const TOGETHER_BYTES: u64 = 2 << 20;
/// Bytes of a message read at once while it is compared.
const PIECE: usize = 256 << 10;

/// An import into one folder of one mailbox.
pub struct Import {
    caller: Caller,
    space: Arc<Space>,
    folder: String,
    mailbox: Mailbox,
    /// What is in the folder, by size; a digest once it was needed.
    there: HashMap<u64, Vec<Known>>,
    puts: Vec<Put>,
    inline: u64,
    host: String,
}

/// A message that is in the folder, or on its way into it.
enum Known {
    Digest([u8; 32]),
    Uid(u32),
}

/// A message on its way in.
pub struct Letter {
    body: Incoming,
    hasher: blake3::Hasher,
}

/// What is known of a message beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Maildir flags.
    pub flags: String,
    /// A reader has noticed it: it goes into `cur`.
    pub noticed: bool,
    /// When it came; `None`: now.
    pub arrived: Option<Micros>,
    /// Where it comes from, for the history.
    pub from: String,
}

impl Hub {
    /// The caller of an operator's command that works in an account's mailbox.
    ///
    /// # Errors
    /// `NotFound` when there is no such account.
    pub fn on_behalf(&self, account: &str, origin: Origin) -> Result<Caller> {
        let found = self.view().accounts.get(&account.to_lowercase()).cloned();
        let found = found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no user {account}")))?;
        Ok(Caller::new(self.clone(), origin, Some(found)))
    }

    /// Puts in place what an earlier command of this node left unpublished, as the daemon does for itself at its start.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn resume_publishing(&self) -> Result<()> {
        self.replay_intents().await.map(drop)
    }

    /// Syncs everything put in place so far; a command calls it before it says that it is done.
    ///
    /// # Errors
    /// `Unavailable` when the disk refuses something that was committed: doing the command again mends it.
    pub async fn settle_all(&self) -> Result<()> {
        self.undo_owed().await;
        let mut outcome = Ok(());
        for space in self.inner.pending.spaces() {
            self.retry_stuck(&space).await;
            outcome = outcome.and(self.clear_done(&space).await);
        }
        outcome?;
        match self.inner.pending.is_anything_ahead() {
            false => Ok(()),
            true => Err(Error::new(Kind::Unavailable, "the disk did not take everything; do it again when it does")),
        }
    }
}

impl Import {
    /// Begins; `folder` is a Maildir++ name, empty for the inbox. It is made where it is missing.
    ///
    /// # Errors
    /// `NotFound` when the account has no mailbox, `Invalid` for a folder's name, `Locked` while a session has it open.
    pub async fn begin(caller: &Caller, folder: &str) -> Result<Self> {
        let view = caller.hub().view();
        let space = view.space(&format!("/mail/{}", caller.name())).filter(|space| space.role == SpaceRole::Mailbox);
        let space = space.cloned().ok_or_else(|| Error::new(Kind::NotFound, "this account has no mailbox"))?;
        let root = space.path.with(&maildir::folder_path(folder)?);
        let parts = FOLDERS.into_iter().map(|part| root.join(part)).collect::<Result<_>>()?;
        caller.perform(Lay { root, parts }).await?;
        let mailbox = caller.open_mailbox(folder).await?;
        let mut there: HashMap<u64, Vec<Known>> = HashMap::new();
        for message in mailbox.messages() {
            there.entry(message.size).or_default().push(Known::Uid(message.uid));
        }
        let host = caller.hub().mail_name().unwrap_or_else(|| "localhost".into());
        let (caller, folder) = (caller.clone(), folder.to_owned());
        Ok(Self { caller, space, folder, mailbox, there, puts: Vec::new(), inline: 0, host })
    }

    /// A message begins.
    #[must_use]
    pub fn letter(&self) -> Letter {
        let inline = self.caller.hub().view().settings.storage.inline;
        Letter { body: Incoming::new(inline).counted(), hasher: blake3::Hasher::new() }
    }

    /// The next bytes of a message.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full.
    pub async fn push(&self, letter: &mut Letter, chunk: Bytes) -> Result<()> {
        letter.hasher.update(&chunk);
        letter.body.push(chunk, &self.space).await
    }

    /// A message is whole; false when it was there already. It is durable after [`Import::commit`].
    ///
    /// # Errors
    /// `OverQuota`, and what the store says. Messages before it may not be in place then: import them again.
    pub async fn add(&mut self, mut letter: Letter, about: &About) -> Result<bool> {
        let (size, digest) = (letter.body.len(), *letter.hasher.finalize().as_bytes());
        if self.is_there(size, &digest).await? {
            self.discard(letter.body.stage_id()).await;
            return Ok(false);
        }
        let arrived = about.arrived.unwrap_or_else(now);
        let content = letter.body.content(&self.space, false, arrived).await?;
        if matches!(content, Content::Inline(_)) {
            self.inline += size;
        }
        let base = maildir::name(&hex(&digest), &self.host, (size, letter.body.octets()), arrived);
        let (part, name) = match about.noticed || !about.flags.is_empty() {
            true => (CUR, maildir::with_flags(&base, &about.flags)),
            false => (NEW, base),
        };
        let path = self.space.path.with(&maildir::folder_path(&self.folder)?.join(part)?.join(&name)?);
        self.puts.push(Put {
            path,
            content,
            size,
            sha256: None,
            modified: arrived,
            only_if: None,
            rule: Some(Overwrite::KeepBoth),
            appends: false,
            judge: false,
            folders: true,
            tokens: Vec::new(),
            like: None,
            unheard: false,
            verb: Some("import"),
            detail: about.from.clone(),
            id: String::new(),
            closing: None,
        });
        self.there.entry(size).or_default().push(Known::Digest(digest));
        if self.puts.len() >= TOGETHER || self.inline >= TOGETHER_BYTES {
            self.commit().await?;
        }
        Ok(true)
    }

    /// Gives up a message that did not come whole.
    pub async fn abandon(&self, letter: Letter) {
        self.discard(letter.body.stage_id()).await;
    }

    /// Makes everything added so far durable and puts it in place.
    ///
    /// # Errors
    /// As [`Import::add`].
    pub async fn commit(&mut self) -> Result<()> {
        let puts = std::mem::take(&mut self.puts);
        self.inline = 0;
        if puts.is_empty() {
            return Ok(());
        }
        match self.caller.perform(Take { puts: puts.clone() }).await {
            Ok(()) => Ok(()),
            Err(_) => self.one_by_one(puts).await,
        }
    }

    /// What cannot go in together goes in up to the one that cannot go in at all, and that one is named.
    async fn one_by_one(&self, puts: Vec<Put>) -> Result<()> {
        let mut refused: Option<Error> = None;
        for put in puts {
            let (stage, detail) = (staged(&put.content), put.detail.clone());
            if refused.is_none() {
                match self.caller.perform(Take { puts: vec![put] }).await {
                    Ok(()) => continue,
                    Err(error) => {
                        let place = detail.strip_prefix("from ").unwrap_or(&detail).to_owned();
                        refused = Some(Error::new(error.kind(), format!("{place}: {}", error.public())).with(error));
                    }
                }
            }
            self.discard(stage.as_ref()).await;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Is a message of these bytes in the folder? Only those of its size are looked at, each once.
    async fn is_there(&mut self, size: u64, digest: &[u8; 32]) -> Result<bool> {
        let Some(known) = self.there.get_mut(&size) else { return Ok(false) };
        for one in known.iter_mut() {
            if let Known::Uid(uid) = one {
                *one = Known::Digest(digest_of(&mut self.mailbox, *uid).await?);
            }
        }
        Ok(known.iter().any(|one| matches!(one, Known::Digest(known) if known == digest)))
    }

    async fn discard(&self, stage: Option<&StageId>) {
        if let Some(id) = stage.filter(|id| !self.caller.hub().inner.pending.needs_stage(id))
            && let Err(error) = self.space.volume.discard(id).await
        {
            tracing::warn!(stage = id.0, error = error.detail(), "a stage is left over; the next start removes it");
        }
    }
}

async fn digest_of(mailbox: &mut Mailbox, uid: u32) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let download = match mailbox.open(uid).await {
        Ok(download) => download,
        // Taken away by another program: it is like nothing.
        Err(error) if error.kind() == Kind::NotFound => return Ok([0; 32]),
        Err(error) => return Err(error),
    };
    let mut at = 0;
    loop {
        let piece = download.read_at(at, PIECE).await?;
        if piece.is_empty() {
            return Ok(*hasher.finalize().as_bytes());
        }
        at += piece.len() as u64;
        hasher.update(&piece);
    }
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from(*digest).to_hex().chars().take(32).collect()
}

fn staged(content: &Content) -> Option<StageId> {
    match content {
        Content::Inline(_) => None,
        Content::Staged(id) => Some(id.clone()),
    }
}

/// Several messages into one folder.
struct Take {
    puts: Vec<Put>,
}

#[async_trait]
impl Act for Take {
    type Yield = ();

    /// The operator's command has decided.
    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        self.puts.iter().map(|put| &put.path).collect()
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let mut batch = Batch::default();
        let mut changes = Vec::with_capacity(self.puts.len());
        let mut undo = Vec::new();
        let mut taken = HashSet::new();
        for put in &self.puts {
            let Placed { edits, undo: own, planned, path, .. } = put.place(sight, &taken).await?;
            batch.edits.extend(edits);
            undo.extend(own);
            changes.push(planned);
            taken.insert(path);
        }
        Ok(Plan { batch, changes, wide: false, undo, answer: Box::new(|_| ()) })
    }
}

/// The folders of a Maildir, where they are missing.
struct Lay {
    root: TreePath,
    parts: Vec<TreePath>,
}

#[async_trait]
impl Act for Lay {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        self.parts.iter().collect()
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let mut changes = Vec::new();
        for path in std::iter::once(&self.root).chain(&self.parts) {
            let Some((space, rel)) = sight.view.space_of(path) else { continue };
            if !rel.is_root() && sight.look(space, &rel).await?.is_none() {
                changes.push(Planned {
                    space: space.clone(),
                    change: Change::Folder { path: rel },
                    body: None,
                    was: None,
                });
            }
        }
        Ok(Plan { batch: Batch::default(), changes, wide: false, undo: Vec::new(), answer: Box::new(|_| ()) })
    }
}
