//! From one message that arrived whole to every place it goes, in one commit or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::filing::FileName;
use super::redelivery::Fingerprint;
use super::sorting::Filed;
use super::trace::{self, Refused};
use super::{Envelope, Recipient, Target, maildir};
use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Planned, Sight};
use crate::hub::path::TreePath;
use crate::hub::put::{Content, Placed, Put};
use crate::hub::settings::Overwrite;
use crate::hub::staging::{Hold, Room};
use crate::hub::transfer::{Incoming, Receipt};
use crate::hub::view::Space;
use crate::hub::{Caller, now};
use crate::store::{Batch, Change, DeliveryRow, DeliveryState, Edit, MailEdit, Micros, NodeKind, RelPath, StageId};
use crate::units::ByteSize;

/// Bytes of a message read at once while its parts are sorted.
pub(super) const PIECE: usize = 128 << 10;
/// How long a Maildir that was seen whole is taken to be.
const WHOLE_FOR: Duration = Duration::from_secs(1);

/// Delivers a message that has arrived whole: to every recipient, in one commit, or to none. Where it was stored before,
/// because its sender never heard the answer, it is not stored again.
pub(in crate::hub) async fn finish(
    caller: &Caller,
    envelope: &Envelope,
    print: Option<&Fingerprint>,
    space: &Arc<Space>,
    body: &mut Incoming,
) -> Result<Receipt> {
    attempt(caller, envelope, print, space, body, Telling::Everybody).await
}

/// Who hears that a message was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Whoever asks what became of it.
    Everybody,
    /// Nobody: it is tried in another way.
    Nobody,
}

/// See [`finish`].
pub(super) async fn attempt(
    caller: &Caller,
    envelope: &Envelope,
    print: Option<&Fingerprint>,
    space: &Arc<Space>,
    body: &mut Incoming,
    telling: Telling,
) -> Result<Receipt> {
    let mut delivery = Delivery::new(caller, envelope, space, body);
    let outcome = delivery.deliver(print).await;
    if let (Err(error), Telling::Everybody) = (&outcome, telling) {
        delivery.tell_refusal(error);
    }
    delivery.tidy(outcome.is_ok()).await;
    outcome
}

/// One message on its way to its places.
pub(super) struct Delivery<'a> {
    pub(super) caller: &'a Caller,
    envelope: &'a Envelope,
    /// Whose volume holds the message's own stage, if it has one.
    pub(super) home: &'a Arc<Space>,
    pub(super) body: &'a mut Incoming,
    pub(super) size: u64,
    pub(super) arrived: Micros,
    puts: Vec<Put>,
    /// Mailboxes it goes to.
    maildirs: Vec<TreePath>,
    /// What is recorded for each recipient.
    rows: Vec<DeliveryRow>,
    /// Its copies are one file with many names.
    link: bool,
    /// Stages made beside the message's own, for tidying up after a refusal.
    pub(super) stages: Vec<(Arc<Space>, StageId)>,
    /// Those of files that are not filed.
    left_out: Vec<(Arc<Space>, StageId)>,
    /// The message's bytes, once they are ready to be put: inline, or sealed at home.
    whole: Option<Content>,
    /// The message's own stage is the content of a put already.
    whole_used: bool,
    own_stage: Option<StageId>,
    pub(super) inline: u64,
    /// Room for what is staged beside the message itself, until all of it is committed.
    pub(super) holds: Vec<Hold>,
}

/// The drop folders of one space that the message goes to.
type Drops<'a> = (Arc<Space>, Vec<(&'a Recipient, TreePath)>);

impl<'a> Delivery<'a> {
    fn new(caller: &'a Caller, envelope: &'a Envelope, home: &'a Arc<Space>, body: &'a mut Incoming) -> Self {
        let (size, own_stage) = (body.len(), body.stage_id().cloned());
        Self {
            caller,
            envelope,
            home,
            body,
            size,
            arrived: now(),
            puts: Vec::new(),
            maildirs: Vec::new(),
            rows: Vec::new(),
            link: false,
            stages: Vec::new(),
            left_out: Vec::new(),
            whole: None,
            whole_used: false,
            own_stage,
            inline: 0,
            holds: Vec::new(),
        }
    }

    async fn deliver(&mut self, print: Option<&Fingerprint>) -> Result<Receipt> {
        self.record(print)?;
        let marks = self.rows.iter().filter_map(|row| row.mark).map(u128::from_be_bytes).collect();
        let claim = self.caller.hub().claim(&self.envelope.id, marks).await?;
        for (index, row) in self.rows.iter_mut().enumerate() {
            if claim.as_ref().is_some_and(|claim| claim.knows(index)) {
                (row.state, row.mark) = (DeliveryState::Redelivered, None);
            }
        }
        let outcome = self.store().await;
        match (claim, &outcome) {
            (Some(claim), Ok(_)) => claim.stored(),
            // Whether it was stored after all is looked up when somebody brings it again.
            (Some(_), Err(error)) if is_doubtful(error) => {}
            (Some(claim), Err(_)) => claim.released(),
            (None, _) => {}
        }
        outcome
    }

    /// Stores it wherever it is not yet.
    async fn store(&mut self) -> Result<Receipt> {
        self.prepare().await?;
        let act = Deliver {
            id: self.envelope.id.clone(),
            size: self.size,
            modified: self.arrived,
            puts: std::mem::take(&mut self.puts),
            maildirs: std::mem::take(&mut self.maildirs),
            rows: self.rows.clone(),
        };
        self.caller.perform(act).await
    }

    /// One row for each recipient and target.
    fn record(&mut self, print: Option<&Fingerprint>) -> Result<()> {
        let envelope = self.envelope;
        for recipient in &envelope.recipients {
            for (number, target) in (0..).zip(&recipient.targets) {
                let folder = target.folder()?.to_string();
                let mark = print.map(|print| print.mark(&recipient.address, &folder));
                self.rows.push(DeliveryRow {
                    message: envelope.id.clone(),
                    place: trace::place(recipient.place, number),
                    at: self.arrived,
                    sender: envelope.sender.clone(),
                    recipient: recipient.address.clone(),
                    target: folder,
                    bytes: self.size,
                    state: DeliveryState::Stored,
                    changed: self.arrived,
                    detail: trace::by_way_of(&recipient.by_way_of),
                    mark: mark.map(u128::to_be_bytes),
                });
            }
        }
        Ok(())
    }

    /// Everything but the decision: bytes where they must be, one put for each file.
    async fn prepare(&mut self) -> Result<()> {
        let mut drops: HashMap<String, Drops<'_>> = HashMap::new();
        let mut seen = HashSet::new();
        let envelope = self.envelope;
        let mut stored = self.rows.iter().map(|row| row.state == DeliveryState::Stored).collect::<Vec<_>>().into_iter();
        let mut mailboxes = Vec::new();
        for recipient in &envelope.recipients {
            for target in &recipient.targets {
                let folder = target.folder()?;
                if stored.next() != Some(true) || !seen.insert(folder.clone()) {
                    continue;
                }
                let space = self.space_of(&folder)?;
                match target {
                    Target::Drop { .. } => {
                        let entry = drops.entry(space.key.clone()).or_insert_with(|| (space, Vec::new()));
                        entry.1.push((recipient, folder));
                    }
                    Target::Mailbox { .. } => mailboxes.push((space, recipient, folder)),
                }
            }
        }
        let copies = mailboxes.len() as u64;
        let inline = self.caller.hub().view().settings.storage.inline.0;
        self.link = copies > 1 && self.size.saturating_mul(copies) > inline;
        for (space, recipient, folder) in mailboxes {
            self.prepare_mailbox(&space, recipient, &folder).await?;
        }
        for (space, folders) in drops.into_values() {
            self.prepare_drops(&space, &folders).await?;
        }
        Ok(())
    }

    /// Writes down that it was refused, and why.
    fn tell_refusal(&self, error: &Error) {
        let refusals: Vec<Refused<'_>> = self
            .rows
            .iter()
            .map(|row| Refused {
                message: &row.message,
                place: row.place,
                sender: &row.sender,
                recipient: &row.recipient,
                target: row.target.clone(),
                bytes: row.bytes,
            })
            .collect();
        trace::refused(self.caller, &refusals, error);
    }

    fn space_of(&self, folder: &TreePath) -> Result<Arc<Space>> {
        let view = self.caller.hub().view();
        let space = view.space_of(folder).map(|(space, _)| space.clone());
        space.ok_or_else(|| Error::new(Kind::NotFound, "a recipient is gone since it was accepted"))
    }

    async fn prepare_mailbox(&mut self, space: &Arc<Space>, recipient: &Recipient, folder: &TreePath) -> Result<()> {
        let new = folder.join("new")?.join(&self.maildir_name())?;
        let content = self.whole_for(space).await?;
        self.maildirs.push(folder.clone());
        let mut put = self.put(new, content, self.size, recipient);
        // Anybody may write to a mailbox; that is what it is for.
        put.judge = false;
        put.verb = Some("deliver");
        put.unheard = true;
        self.puts.push(put);
        Ok(())
    }

    /// One pass over the message for all drop folders of one space.
    async fn prepare_drops(&mut self, space: &Arc<Space>, folders: &[(&Recipient, TreePath)]) -> Result<()> {
        let rules = &space.drop_rules;
        for (recipient, _) in folders {
            rules.fits(&recipient.address, self.size)?;
            rules.proved(self.caller, self.envelope, &recipient.address)?;
        }
        let (mut files, mut sorter) = self.sort(space).await?;
        let (whole, beside) = (sorter.whole(), sorter.beside());
        let message = whole.or(beside).is_some() || space.keep_message;
        let message = message.then(|| sorter.message_name(&stamp(self.arrived)));
        match (whole, beside, files.is_empty()) {
            (Some(why), _, false) => tracing::info!(id = self.envelope.id, "a message is filed whole: {why}"),
            (None, Some(why), _) => tracing::info!(id = self.envelope.id, "a message is filed beside its files: {why}"),
            _ => {}
        }
        let mut number = 0..;
        let left_out =
            files.extract_if(.., |_| number.next().is_some_and(|number| whole.is_some() || sorter.is_shown(number)));
        let left_out: Vec<Filed> = left_out.collect();
        self.left_out.extend(left_out.into_iter().filter_map(|file| staged(space, file.content)));
        for (number, (recipient, folder)) in folders.iter().enumerate() {
            if let (Some(name), true) = (&message, whole.is_some()) {
                rules.wants(&recipient.address, name)?;
            }
            for file in &files {
                rules.wants(&recipient.address, &file.name)?;
                let content = match number {
                    0 => file.content.clone(),
                    _ => self.again(space, &file.content).await?,
                };
                self.file(folder, &file.name, content, file.size, recipient)?;
            }
            if let Some(name) = &message {
                let content = self.whole_for(space).await?;
                self.file(folder, name, content, self.size, recipient)?;
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        folder: &TreePath,
        name: &FileName,
        content: Content,
        size: u64,
        recipient: &Recipient,
    ) -> Result<()> {
        let mut put = self.put(folder.join(&name.text)?, content, size, recipient);
        put.rule = name.ours.then_some(Overwrite::KeepBoth);
        self.puts.push(put);
        Ok(())
    }

    fn put(&self, path: TreePath, content: Content, size: u64, recipient: &Recipient) -> Put {
        Put {
            path,
            content,
            size,
            sha256: None,
            modified: self.arrived,
            only_if: None,
            rule: None,
            appends: false,
            judge: true,
            folders: true,
            tokens: Vec::new(),
            like: None,
            unheard: false,
            verb: None,
            detail: format!("mail {} from <{}> to <{}>", self.envelope.id, self.envelope.sender, recipient.address),
            id: String::new(),
            closing: None,
        }
    }

    /// The whole message as content for a put in this space.
    async fn whole_for(&mut self, space: &Arc<Space>) -> Result<Content> {
        let whole = if let Some(whole) = &self.whole {
            whole.clone()
        } else {
            let full = self.link || self.caller.hub().inline_backlog_is_full(&self.home.key);
            let content = self.body.content(self.home, full, self.arrived).await?;
            self.own_stage = self.body.stage_id().cloned();
            self.whole.insert(content).clone()
        };
        match whole {
            Content::Inline(_) => Ok(whole),
            Content::Staged(_) if space.key != self.home.key => match self.again(space, &whole).await {
                // This space stages its files elsewhere.
                Err(error) if error.kind() == Kind::NotFound => self.carry_over(space).await,
                outcome => outcome,
            },
            Content::Staged(_) if self.whole_used => self.again(space, &whole).await,
            Content::Staged(_) => {
                self.whole_used = true;
                Ok(whole)
            }
        }
    }

    /// The same bytes for a second put on the same volume.
    async fn again(&mut self, space: &Arc<Space>, content: &Content) -> Result<Content> {
        let Content::Staged(from) = content else { return Ok(content.clone()) };
        let to = StageId(uuid::Uuid::now_v7().to_string());
        self.stages.push((space.clone(), to.clone()));
        space.volume.fork(from, &to).await?;
        Ok(Content::Staged(to))
    }

    /// The whole message for a put on another volume.
    async fn carry_over(&mut self, space: &Arc<Space>) -> Result<Content> {
        let mut room = Room::in_space(self.caller, space, 0);
        room.take(self.size).await?;
        self.holds.push(room.into_hold());
        let mut copy = Incoming::new(ByteSize(0));
        let mut at = 0;
        loop {
            let piece = self.body.read_at(at, PIECE).await?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            let first = copy.stage_id().is_none();
            let outcome = copy.push(piece, space).await;
            if first && let Some(id) = copy.stage_id() {
                self.stages.push((space.clone(), id.clone()));
            }
            outcome?;
        }
        copy.content(space, true, self.arrived).await
    }

    fn maildir_name(&self) -> String {
        let host = self.caller.hub().mail_name().unwrap_or_else(|| "localhost".into());
        maildir::name(&self.envelope.id, &host, (self.size, self.body.octets()), self.arrived)
    }

    /// Removes the stages nothing was made of.
    async fn tidy(self, delivered: bool) {
        let unused: Vec<_> = if delivered {
            // The upload forgets its own stage only when it fails.
            let own = self.own_stage.filter(|_| !self.whole_used).map(|id| (self.home.clone(), id));
            own.into_iter().chain(self.left_out).collect()
        } else {
            self.stages
        };
        let pending = &self.caller.hub().inner.pending;
        for (space, id) in unused.into_iter().filter(|(_, id)| !pending.needs_stage(id)) {
            if let Err(error) = space.volume.discard(&id).await {
                tracing::warn!(stage = id.0, error = error.detail(), "a stage is left over; the next start removes it");
            }
        }
    }
}

fn staged(space: &Arc<Space>, content: Content) -> Option<(Arc<Space>, StageId)> {
    match content {
        Content::Inline(_) => None,
        Content::Staged(id) => Some((space.clone(), id)),
    }
}

/// Did the commit fail in a way that leaves open whether it was made?
fn is_doubtful(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Internal | Kind::Cancelled)
}

/// When a message came, as part of a file name.
fn stamp(arrived: Micros) -> String {
    let Ok(moment) = jiff::Timestamp::from_microsecond(arrived) else { return "undated".into() };
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H.%M.%S").to_string()
}

/// Mailboxes seen whole a moment ago: thousands of messages a second need not each look again.
#[derive(Default)]
pub(in crate::hub) struct Maildirs {
    seen: Mutex<HashMap<TreePath, Instant>>,
}

impl Maildirs {
    fn is_whole(&self, mailbox: &TreePath) -> bool {
        self.seen.lock().get(mailbox).is_some_and(|seen| seen.elapsed() < WHOLE_FOR)
    }

    fn was_whole(&self, mailbox: &TreePath) {
        let mut seen = self.seen.lock();
        seen.retain(|_, seen| seen.elapsed() < WHOLE_FOR);
        seen.insert(mailbox.clone(), Instant::now());
    }
}

/// One message into all its places.
struct Deliver {
    id: String,
    size: u64,
    modified: Micros,
    puts: Vec<Put>,
    maildirs: Vec<TreePath>,
    rows: Vec<DeliveryRow>,
}

#[async_trait]
impl Act for Deliver {
    type Yield = Receipt;

    /// Each put judges for itself while planning: mail to a mailbox is not a grant.
    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        self.puts.iter().map(|put| &put.path).collect()
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<Receipt>> {
        let mut batch = Batch::default();
        let mut changes = self.missing_folders(sight).await?;
        let mut taken = HashSet::new();
        let mut first = None;
        let mut undo = self.unstored();
        for put in &self.puts {
            let Placed { edits, undo: own, planned, path, created, .. } = put.place(sight, &taken).await?;
            batch.edits.extend(edits);
            undo.extend(own);
            changes.push(planned);
            first.get_or_insert((path.clone(), created));
            taken.insert(path);
        }
        for row in self.rows.iter().filter(|row| row.state == DeliveryState::Redelivered) {
            let path = TreePath::parse(&row.target)?;
            let detail = format!("mail {} from <{}> to <{}>: is there already", row.message, row.sender, row.recipient);
            batch.push(sight.line("redeliver", &path, row.bytes, detail));
            first.get_or_insert((path, false));
        }
        let Some((path, created)) = first else {
            return Err(Error::new(Kind::Internal, "the message goes nowhere"));
        };
        batch.edits.extend(self.rows.iter().map(|row| Edit::Mail(MailEdit::PutDelivery(row.clone()))));
        let receipt = Receipt {
            path,
            bytes: self.size,
            sha256: None,
            tag: 0,
            modified: self.modified,
            created,
            id: self.id.clone(),
        };
        Ok(Plan { batch, changes, wide: false, undo, answer: Box::new(move |_| receipt) })
    }
}

impl Deliver {
    /// What makes of its deliveries refusals, should a volume not take it.
    fn unstored(&self) -> Vec<Edit> {
        let edit = |row: &DeliveryRow| {
            let detail = "the server's file system refused it".to_owned();
            Edit::Mail(MailEdit::Unstored { message: row.message.clone(), place: row.place, detail })
        };
        self.rows.iter().map(edit).collect()
    }

    /// Folders of mailboxes that have none yet: a Maildir without them is none to other programs.
    async fn missing_folders(&self, sight: &Sight<'_>) -> Result<Vec<Planned>> {
        let mut changes = Vec::new();
        for mailbox in &self.maildirs {
            if sight.hub.inner.mail.maildirs.is_whole(mailbox) {
                continue;
            }
            let before = changes.len();
            for name in maildir::FOLDERS {
                let (space, rel): (Arc<Space>, RelPath) = sight.place(&mailbox.join(name)?)?;
                match sight.look(&space, &rel).await?.map(|node| node.kind) {
                    Some(NodeKind::Folder) => {}
                    Some(NodeKind::File | NodeKind::Special) => {
                        return Err(Error::new(Kind::WrongType, "a file is where a folder of the mailbox belongs"));
                    }
                    None => {
                        changes.push(Planned { space, change: Change::Folder { path: rel }, body: None, was: None });
                    }
                }
            }
            if changes.len() == before {
                sight.hub.inner.mail.maildirs.was_whole(mailbox);
            }
        }
        Ok(changes)
    }
}
