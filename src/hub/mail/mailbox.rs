//! A mailbox as its reader sees it: the messages of a folder, each with its number, to be read, flagged and removed.
//!
//! What a reader may do is judged like everything else: reading needs `read` in the mailbox, flags need `rename`,
//! removing needs `delete`.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::maildir::{self, CUR};
use super::numbering::{self, Message};
use super::octets::Octets;
use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Planned, Sight};
use crate::hub::files::forget;
use crate::hub::lock::Reach;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::Download;
use crate::hub::undo::Was;
use crate::hub::view::{Space, SpaceRole};
use crate::hub::{Caller, Hub, now};
use crate::store::{Batch, Change, DeliveryState, Edit, HistoryLine, MailEdit, RelPath};

/// Messages removed by one commit.
const REMOVED_AT_ONCE: usize = 256;
/// Bytes of a message read at once while it is counted.
const PIECE: usize = 128 << 10;
/// Rows of one message's deliveries looked at.
const DELIVERIES: usize = 1000;

/// Mailboxes that somebody has for himself (RFC 1939 §8).
#[derive(Default)]
pub(super) struct Sessions {
    held: Arc<Mutex<HashSet<String>>>,
}

/// One mailbox held for one session; given back when dropped.
struct Held {
    all: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

impl Sessions {
    fn hold(&self, key: &str) -> Result<Held> {
        match self.held.lock().insert(key.to_owned()) {
            true => Ok(Held { all: self.held.clone(), key: key.to_owned() }),
            false => Err(Error::new(Kind::Locked, "the mailbox is open in another session; try again later")),
        }
    }
}

/// A folder of the caller's mailbox, as it was when it was opened; nobody else has it open the same way.
pub struct Mailbox {
    caller: Caller,
    space: Arc<Space>,
    folder: String,
    validity: u32,
    messages: Vec<Message>,
    /// Our ids of messages that were read out and not yet recorded.
    fetched: HashSet<String>,
    _held: Held,
}

impl Caller {
    /// Opens the caller's own mailbox for one session; `folder` is a Maildir++ name, empty for the inbox.
    ///
    /// # Errors
    /// `NotFound` when the account has no mailbox, `Locked` while another session has it, `Denied`.
    pub async fn open_mailbox(&self, folder: &str) -> Result<Mailbox> {
        let space = self.mailbox()?;
        self.allow(Verb::Read, &space.path)?;
        let held = self.hub().inner.mail.sessions.hold(&format!("{}/{folder}", space.key))?;
        let numbered = numbering::look(self.hub(), &space, folder).await?;
        Ok(Mailbox {
            caller: self.clone(),
            space,
            folder: folder.to_owned(),
            validity: numbered.folder.validity,
            messages: numbered.messages,
            fetched: HashSet::new(),
            _held: held,
        })
    }

    /// The folders of the caller's own mailbox; the empty name is the inbox.
    ///
    /// # Errors
    /// `NotFound` when the account has no mailbox.
    pub async fn mail_folders(&self) -> Result<Vec<String>> {
        let space = self.mailbox()?;
        self.allow(Verb::List, &space.path)?;
        numbering::folders(self.hub(), &space).await
    }

    fn mailbox(&self) -> Result<Arc<Space>> {
        let view = self.hub().view();
        let space = view.space(&format!("/mail/{}", self.name())).filter(|space| space.role == SpaceRole::Mailbox);
        let space = space.filter(|_| !self.is_guest());
        space.cloned().ok_or_else(|| Error::new(Kind::NotFound, "this account has no mailbox"))
    }
}

impl Mailbox {
    /// Its messages by UID, as they were when it was opened.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// UIDVALIDITY: another number means that every UID is another message's.
    #[must_use]
    pub fn validity(&self) -> u32 {
        self.validity
    }

    /// Opens a message for reading. Needs `read`.
    ///
    /// # Errors
    /// `NotFound` when there is no such UID, or the message was removed by another program meanwhile.
    pub async fn open(&mut self, uid: u32) -> Result<Download> {
        self.caller.allow(Verb::Read, &self.space.path)?;
        let opened = match self.space.volume.open(&self.message(uid)?.file).await {
            // Another program has flagged it: its file has another name now.
            Err(error) if error.kind() == Kind::NotFound => {
                self.refresh().await?;
                self.space.volume.open(&self.message(uid)?.file).await?
            }
            outcome => outcome?,
        };
        Ok(Download::new(opened))
    }

    /// Octets of a message as it is sent. Needs `read`.
    ///
    /// # Errors
    /// As [`Mailbox::open`].
    pub async fn octets(&mut self, uid: u32) -> Result<u64> {
        if let Some(octets) = self.message(uid)?.octets() {
            return Ok(octets);
        }
        let download = self.open(uid).await?;
        let (mut at, mut octets) = (0, Octets::default());
        while at < download.node().size {
            let piece = download.read_at(at, PIECE).await?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            octets.feed(&piece);
        }
        Ok(octets.count())
    }

    /// The receiver has this message now: its delivery becomes `fetched`, written down when the session ends.
    pub fn fetched(&mut self, uid: u32) {
        let message = self.messages.iter().find(|message| message.uid == uid);
        if let Some(id) = message.and_then(|message| maildir::id_of(message.file.name())) {
            self.fetched.insert(id.to_owned());
        }
    }

    /// Gives a message these Maildir flags, and no others. Needs `rename`.
    ///
    /// # Errors
    /// `NotFound` when it is not there any more; `Denied`.
    pub async fn flag(&mut self, uid: u32, flags: &str) -> Result<()> {
        self.refresh().await?;
        let message = self.message(uid)?;
        let to = maildir::folder_path(&self.folder)?.join(CUR)?.join(&maildir::with_flags(message.base(), flags))?;
        let (from, to) = (self.space.path.with(&message.file), self.space.path.with(&to));
        if from == to {
            return Ok(());
        }
        self.caller.perform(FlagMessage { from, to }).await?;
        self.refresh().await
    }

    /// Removes messages for good. Needs `delete`. Those that are gone already do not matter.
    ///
    /// # Errors
    /// What the store says; some may be removed already then.
    pub async fn remove(&mut self, uids: &[u32]) -> Result<()> {
        if uids.is_empty() {
            return Ok(());
        }
        self.refresh().await?;
        for some in uids.chunks(REMOVED_AT_ONCE) {
            let there = self.messages.iter().filter(|message| some.contains(&message.uid));
            let messages: Vec<TreePath> = there.map(|message| self.space.path.with(&message.file)).collect();
            if !messages.is_empty() {
                self.caller.perform(RemoveMessages { messages }).await?;
            }
        }
        self.refresh().await
    }

    /// Looks again: what other programs did is seen, what came in between is numbered.
    ///
    /// # Errors
    /// What the disk or the catalog says.
    pub async fn refresh(&mut self) -> Result<()> {
        let numbered = numbering::look(self.caller.hub(), &self.space, &self.folder).await?;
        self.messages = numbered.messages;
        self.validity = numbered.folder.validity;
        Ok(())
    }

    /// Ends the session and writes down what was fetched.
    pub async fn close(mut self) {
        let fetched = std::mem::take(&mut self.fetched);
        note_fetched(&self.caller, &self.target(), fetched).await;
    }

    /// The folder as deliveries name it.
    fn target(&self) -> String {
        let folder = maildir::folder_path(&self.folder).unwrap_or_default();
        self.space.path.with(&folder).to_string()
    }

    fn message(&self, uid: u32) -> Result<&Message> {
        let found = self.messages.binary_search_by_key(&uid, |message| message.uid).ok();
        let found = found.and_then(|at| self.messages.get(at));
        found.ok_or_else(|| Error::new(Kind::NotFound, "there is no such message"))
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let fetched = std::mem::take(&mut self.fetched);
        if fetched.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (caller, target) = (self.caller.clone(), self.target());
            runtime.spawn(async move { note_fetched(&caller, &target, fetched).await });
        }
    }
}

/// A file of a mailbox is read by its owner through any door: its delivery becomes `fetched`.
pub(in crate::hub) fn note_read(caller: &Caller, space: &Space, file: &RelPath) {
    let owner = space.path.name() == caller.name();
    let Some(id) = maildir::id_of(file.name()).filter(|_| owner) else { return };
    let folder = file.parent().and_then(|part| part.parent()).unwrap_or_default();
    let (caller, target) = (caller.clone(), space.path.with(&folder).to_string());
    let ids = HashSet::from([id.to_owned()]);
    tokio::spawn(async move { note_fetched(&caller, &target, ids).await });
}

/// Records the first time messages are read out, with a line of history each. A failure loses no mail: it is only said.
async fn note_fetched(caller: &Caller, target: &str, ids: HashSet<String>) {
    let outcome = match fetched_edits(caller.hub(), caller, target, ids).await {
        Ok(edits) if edits.is_empty() => Ok(()),
        Ok(edits) => caller.hub().catalog().commit(Batch { edits }).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::warn!(target, error = error.detail(), "that mail was fetched could not be written down");
    }
}

async fn fetched_edits(hub: &Hub, caller: &Caller, target: &str, ids: HashSet<String>) -> Result<Vec<Edit>> {
    let origin = caller.origin();
    let mut edits = Vec::new();
    for message in ids {
        let rows = hub.catalog().deliveries(&message, DELIVERIES).await?;
        let stored = |row: &&crate::store::DeliveryRow| row.target == target && row.state == DeliveryState::Stored;
        let Some(row) = rows.iter().find(stored) else { continue };
        edits.push(Edit::History(HistoryLine {
            at: now(),
            door: origin.door.to_owned(),
            account: caller.name().to_owned(),
            address: origin.peer.ip().to_canonical().to_string(),
            verb: "fetch".to_owned(),
            path: target.to_owned(),
            bytes: row.bytes,
            result: "ok".to_owned(),
            detail: format!("mail {message} from <{}> to <{}>", row.sender, row.recipient),
            ..HistoryLine::default()
        }));
        edits.push(Edit::Mail(MailEdit::Fetched { message, target: target.to_owned(), at: now() }));
    }
    Ok(edits)
}

/// Another name for a message's file within its folder: its flags.
struct FlagMessage {
    from: TreePath,
    to: TreePath,
}

#[async_trait]
impl Act for FlagMessage {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Rename, path: &self.from, also: None })
    }

    fn paths(&self) -> Vec<&TreePath> {
        vec![&self.from, &self.to]
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, from) = sight.place(&self.from)?;
        let (_, to) = sight.place(&self.to)?;
        let Some(node) = sight.look(&space, &from).await? else {
            return Err(Error::new(Kind::NotFound, "the message was changed by another program; look again"));
        };
        if sight.look(&space, &to).await?.is_some() {
            return Err(Error::new(Kind::Exists, "the message has these flags already"));
        }
        let (old, new) = (from.as_str().to_owned(), to.as_str().to_owned());
        let edits = vec![
            Edit::MoveFiles { space: space.key.clone(), from: old, to: new },
            sight.line("rename", &self.from, node.size, format!("to {}", self.to)),
        ];
        let changes =
            vec![Planned { space, change: Change::Rename { from, to }, body: None, was: Some(Was::nothing()) }];
        Ok(Plan { batch: Batch { edits }, changes, wide: false, undo: Vec::new(), answer: Box::new(|_| ()) })
    }
}

/// Messages gone for good, in one commit. If the file system refuses one, those before it are removed and the others stay
/// (RFC 1939 §6). Their numbers become tombstones when the folder is looked at again.
struct RemoveMessages {
    messages: Vec<TreePath>,
}

#[async_trait]
impl Act for RemoveMessages {
    type Yield = ();

    /// Each message is judged while planning.
    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        self.messages.iter().collect()
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let mut batch = Batch::default();
        let mut changes = Vec::new();
        for path in &self.messages {
            sight.view.allow(sight.caller.account(), Verb::Delete, path)?;
            batch.push(sight.unlocked(path, &[], Reach::Member)?);
            let (space, rel) = sight.place(path)?;
            // Flagged or removed by another program in this moment: it is not this file any more.
            let Some(node) = sight.look(&space, &rel).await? else { continue };
            let row = sight.hub.catalog().file(&space.key, rel.as_str()).await?;
            let was = Some(Was::of(sight, &space, &rel, row.clone()).await?);
            if let Some(row) = row {
                batch.edits.extend(forget(&space, &row));
            }
            batch.push(sight.line("delete", path, node.size, ""));
            changes.push(Planned { space, change: Change::Remove { path: rel }, body: None, was });
        }
        Ok(Plan { batch, changes, wide: false, undo: Vec::new(), answer: Box::new(|_| ()) })
    }
}
