//! Numbering: the files of a Maildir folder and the UIDs their messages have.
//!
//! A message gets its UID when somebody first looks into its folder, as any Maildir server does it, so that a delivery
//! writes nothing about folders. Whatever other programs did since then (flags, new messages, removals, whole folders)
//! is adopted by the same look: a message is its file's name up to the colon, wherever in the folder that is.

use std::collections::HashMap;

use super::maildir::{self, CUR, NEW};
use crate::error::{Error, Kind, Result};
use crate::hub::view::Space;
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit, MailEdit, MailFolderRow, MessageRow, Micros, NodeKind, RelPath};

/// Names read of a folder, and rows of messages, at once.
const PAGE: usize = 8192;
/// Rows written by one commit.
const ROWS_AT_ONCE: usize = 1000;
/// Times a look is taken again when somebody else numbers the folder at the same moment.
const TRIES: u32 = 8;

/// A message as it is in its folder now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number in the folder: ascending, never used again (RFC 3501 §2.3.1.1).
    pub uid: u32,
    /// Bytes of its file.
    pub size: u64,
    /// Maildir flags in order: D(raft) F(lagged) P(assed) R(eplied) S(een) T(rashed).
    pub flags: String,
    /// When it came.
    pub arrived: Micros,
    /// Its file: `new/…` or `cur/…`, with the folder's name before it.
    pub(super) file: RelPath,
}

impl Message {
    /// The part of its file's name that stays.
    pub(super) fn base(&self) -> &str {
        maildir::split(self.file.name()).0
    }

    /// Octets as the network sees them, when the file's name tells; see [`super::Octets`].
    pub(super) fn octets(&self) -> Option<u64> {
        maildir::octets_of(self.file.name())
    }

    /// Its file in a Maildir: `cur/1700000000.M5P7_ID.host:2,S`.
    #[must_use]
    pub fn place(&self) -> String {
        let part = self.file.parent().unwrap_or_default();
        format!("{}/{}", part.name(), self.file.name())
    }

    /// A text that means this message for ever (RFC 1939 §7, UIDL): also after a restored catalog.
    #[must_use]
    pub fn unique(&self) -> String {
        let hash = blake3::hash(self.base().as_bytes());
        hash.to_hex().chars().take(32).collect()
    }
}

/// A folder with its messages, by UID.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbered {
    pub(super) folder: MailFolderRow,
    pub(super) messages: Vec<Message>,
}

/// A file that may be a message.
struct Found {
    path: RelPath,
    flags: String,
    size: u64,
    modified: Micros,
}

/// Looks into a folder and numbers what is new.
pub(super) async fn look(hub: &Hub, space: &Space, folder: &str) -> Result<Numbered> {
    for _ in 0..TRIES {
        match once(hub, space, folder).await {
            Err(error) if error.kind() == Kind::Conflict => {}
            outcome => return outcome,
        }
    }
    Err(Error::new(Kind::Unavailable, "the mailbox is changed all the time; try again"))
}

async fn once(hub: &Hub, space: &Space, folder: &str) -> Result<Numbered> {
    // The rows first: what somebody numbers in between is then a conflict, not a second number.
    let known = hub.catalog().mail_folder(&space.key, folder).await?;
    let rows = rows(hub, space, folder).await?;
    let most = hub.view().settings.mail.mailbox_messages;
    let mut files = files(space, folder, most).await?;
    if rows.iter().any(|row| !files.contains_key(&row.name)) {
        // A file that is given another name just now may be passed over by one reading of the folder.
        for (base, found) in self::files(space, folder, most).await? {
            files.entry(base).or_insert(found);
        }
    }
    let mut sheet = Sheet::new(space, folder, known);
    for row in rows {
        sheet.keep(row, &mut files);
    }
    let mut fresh: Vec<(String, Found)> = files.into_iter().collect();
    fresh.sort_by(|(a, one), (b, two)| (one.modified, a).cmp(&(two.modified, b)));
    for (base, found) in fresh {
        sheet.number(base, found)?;
    }
    sheet.write(hub).await
}

/// A folder being brought up to date.
struct Sheet {
    seen: Option<i64>,
    folder: MailFolderRow,
    changes: Vec<MessageRow>,
    messages: Vec<Message>,
}

impl Sheet {
    fn new(space: &Space, folder: &str, known: Option<MailFolderRow>) -> Self {
        let seen = known.as_ref().map(|row| row.modseq);
        let folder = known.unwrap_or_else(|| MailFolderRow {
            space: space.key.clone(),
            folder: folder.to_owned(),
            validity: maildir::validity(),
            next: 1,
            modseq: 0,
        });
        Self { seen, folder, changes: Vec::new(), messages: Vec::new() }
    }

    /// The MODSEQ of everything found by this look.
    fn modseq(&self) -> i64 {
        self.folder.modseq.saturating_add(1)
    }

    /// A message that has its number: still there, with other flags, or gone.
    fn keep(&mut self, mut row: MessageRow, files: &mut HashMap<String, Found>) {
        let Some(found) = files.remove(&row.name) else {
            row.modseq = self.modseq();
            row.gone = now();
            self.changes.push(row);
            return;
        };
        let message =
            Message { uid: row.uid, size: found.size, flags: found.flags, arrived: row.arrived, file: found.path };
        if row.flags != message.flags || row.size != message.size {
            row.modseq = self.modseq();
            row.flags.clone_from(&message.flags);
            row.size = message.size;
            self.changes.push(row);
        }
        self.messages.push(message);
    }

    /// A message nobody has seen here.
    fn number(&mut self, base: String, found: Found) -> Result<()> {
        let uid = self.folder.next;
        self.folder.next = uid.checked_add(1).ok_or_else(|| {
            Error::new(Kind::Internal, "this mail folder has used up every number a message can have")
        })?;
        self.changes.push(MessageRow {
            space: self.folder.space.clone(),
            folder: self.folder.folder.clone(),
            uid,
            name: base,
            flags: found.flags.clone(),
            size: found.size,
            arrived: found.modified,
            modseq: self.modseq(),
            gone: 0,
        });
        let Found { path, flags, size, modified } = found;
        self.messages.push(Message { uid, size, flags, arrived: modified, file: path });
        Ok(())
    }

    /// Writes what changed. The folder's row comes with each part and guards it: two who look at once cannot both number.
    async fn write(mut self, hub: &Hub) -> Result<Numbered> {
        let mut changes = std::mem::take(&mut self.changes).into_iter().peekable();
        while changes.peek().is_some() || self.seen.is_none() {
            self.folder.modseq = self.modseq();
            // The first part takes all the numbers: what a crash keeps from being written gets others, never the same.
            let folder = MailEdit::PutFolder { row: self.folder.clone(), seen: self.seen };
            let modseq = self.folder.modseq;
            let rows =
                changes.by_ref().take(ROWS_AT_ONCE).map(|row| MailEdit::PutMessage(MessageRow { modseq, ..row }));
            let edits = std::iter::once(folder).chain(rows).map(Edit::Mail).collect();
            hub.catalog().commit(Batch { edits }).await?;
            self.seen = Some(modseq);
        }
        Ok(Numbered { folder: self.folder, messages: self.messages })
    }
}

/// Every row of a folder's messages that are there.
async fn rows(hub: &Hub, space: &Space, folder: &str) -> Result<Vec<MessageRow>> {
    let mut rows: Vec<MessageRow> = Vec::new();
    loop {
        let after = rows.last().map_or(0, |row| row.uid);
        let page = hub.catalog().messages(&space.key, folder, after, PAGE, false).await?;
        let full = page.len() == PAGE;
        rows.extend(page);
        if !full {
            return Ok(rows);
        }
    }
}

/// The files of a folder by the part of their names that stays. `new` comes first: a message on its way to `cur` is seen
/// in one of them at least, and counts where it arrives.
async fn files(space: &Space, folder: &str, most: usize) -> Result<HashMap<String, Found>> {
    let folder = maildir::folder_path(folder)?;
    let mut files = HashMap::new();
    for part in [NEW, CUR] {
        let part = folder.join(part)?;
        let mut after: Option<String> = None;
        loop {
            let page = match space.volume.list(&part, after.as_deref(), PAGE).await {
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => Vec::new(),
                page => page?,
            };
            let full = page.len() == PAGE;
            after = page.last().map(|node| node.name.clone());
            for node in page {
                let message = node.kind == NodeKind::File && !node.name.starts_with('.');
                if !message || files.len() >= most {
                    continue;
                }
                let (base, flags) = maildir::split(&node.name);
                let base = base.to_owned();
                let path = part.join(&node.name)?;
                files.insert(base, Found { path, flags, size: node.size, modified: node.modified });
            }
            if !full {
                break;
            }
        }
    }
    Ok(files)
}

/// The folders a mailbox has on the disk, the inbox first; what was numbered once and is gone is forgotten.
pub(super) async fn folders(hub: &Hub, space: &Space) -> Result<Vec<String>> {
    let mut folders = vec![String::new()];
    let mut after: Option<String> = None;
    loop {
        let page = match space.volume.list(&RelPath::root(), after.as_deref(), PAGE).await {
            Err(error) if error.kind() == Kind::NotFound => Vec::new(),
            page => page?,
        };
        let full = page.len() == PAGE;
        after = page.last().map(|node| node.name.clone());
        let named = page.into_iter().filter(|node| node.kind == NodeKind::Folder && maildir::is_folder(&node.name));
        folders.extend(named.map(|node| node.name));
        if !full {
            break;
        }
    }
    for row in hub.catalog().mail_folders(&space.key).await? {
        if !folders.contains(&row.folder) {
            let gone = MailEdit::RemoveFolder { space: row.space, folder: row.folder };
            hub.catalog().commit(Batch { edits: vec![Edit::Mail(gone)] }).await?;
        }
    }
    Ok(folders)
}
