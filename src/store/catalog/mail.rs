//! The records of mail: folders and their messages as IMAP numbers them, what became of each message, and aliases.
//!
//! A message that is delivered costs one row here, in `deliveries`, at the end of its table. Folders and messages get
//! their rows when somebody first looks into the mailbox, many at once.

use bytes::Bytes;

use super::columns::Columns;
use super::engine::{Must, Row, Transaction, Value, count, guarded, list, plain};
use super::handle::Catalog;
use crate::error::{Kind, Result};
use crate::store::Micros;

/// A folder of a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailFolderRow {
    /// Path of the mailbox's space, `/mail/bob`.
    pub space: String,
    /// Maildir++ name, `.Sent`; empty for the inbox.
    pub folder: String,
    /// UIDVALIDITY (RFC 3501 §2.3.1.1).
    pub validity: u32,
    /// UIDNEXT.
    pub next: u32,
    /// The highest MODSEQ given (RFC 7162).
    pub modseq: i64,
}

/// A message of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRow {
    /// Path of the mailbox's space.
    pub space: String,
    /// The folder's name.
    pub folder: String,
    /// UID, unique and ascending in the folder.
    pub uid: u32,
    /// Name of its file without flags.
    pub name: String,
    /// Maildir flags in order, `RS`.
    pub flags: String,
    /// Bytes.
    pub size: u64,
    /// When it came.
    pub arrived: Micros,
    /// MODSEQ of its last change.
    pub modseq: i64,
    /// When it was found gone; 0: it is there.
    pub gone: Micros,
}

/// What became of a message for one recipient and target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Our id of the message (UUIDv7 in hexadecimal): ids sort by time.
    pub message: String,
    /// Number of this row among those of the message.
    pub place: i64,
    /// When it was accepted or refused.
    pub at: Micros,
    /// Envelope sender; empty for `<>`.
    pub sender: String,
    /// As the sender wrote it.
    pub recipient: String,
    /// Folder of the tree it goes to; empty when refused before that was known.
    pub target: String,
    /// Size of the message.
    pub bytes: u64,
    /// Where it is on its way.
    pub state: DeliveryState,
    /// When it came into this state.
    pub changed: Micros,
    /// Why it was refused, or the aliases by way of which it came.
    pub detail: String,
    /// Recognises the same message sent again.
    pub mark: Option<[u8; 16]>,
}

/// The mark of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRow {
    /// The message's id.
    pub message: String,
    /// Number of the row.
    pub place: i64,
    /// When it was accepted.
    pub at: Micros,
    /// Recognises the same message sent again.
    pub mark: [u8; 16],
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryState {
    /// The receiver has read it out.
    Fetched,
    /// It was there already: the sender had not heard that it was taken.
    Redelivered,
    /// It was not taken.
    Refused,
    /// In its folder, durable.
    #[default]
    Stored,
}

impl DeliveryState {
    /// As the catalog has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Redelivered => "redelivered",
            Self::Refused => "refused",
            Self::Stored => "stored",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Fetched, Self::Redelivered, Self::Refused, Self::Stored].into_iter().find(|one| one.as_str() == text)
    }
}

/// An address made by command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasRow {
    /// `info`, `info@example.org`, `scan-*@example.org`; lower case.
    pub address: String,
    /// Addresses, accounts and `group:NAME` it stands for.
    pub targets: Vec<String>,
    /// Who may write to it: `anyone`, `users` or `members`.
    pub post: String,
}

/// One change to the records of mail.
#[derive(Clone, Debug)]
pub enum MailEdit {
    /// Makes a folder's row (`seen` is `None`) or replaces it; `Conflict` when its MODSEQ is not the one seen.
    PutFolder {
        /// As it becomes.
        row: MailFolderRow,
        /// MODSEQ it had.
        seen: Option<i64>,
    },
    /// Forgets a folder with all its messages.
    RemoveFolder {
        /// Path of the mailbox's space.
        space: String,
        /// The folder's name.
        folder: String,
    },
    /// Makes or replaces a message's row.
    PutMessage(MessageRow),
    /// Records what became of a message.
    PutDelivery(DeliveryRow),
    /// The volume refused it after all: a `stored` delivery becomes `refused`, and the same message may come again.
    Unstored {
        /// The message's id.
        message: String,
        /// Number of the row.
        place: i64,
        /// Why.
        detail: String,
    },
    /// The receiver has read it: a `stored` delivery of this message to this target becomes `fetched`.
    Fetched {
        /// The message's id.
        message: String,
        /// The target folder.
        target: String,
        /// When.
        at: Micros,
    },
    /// The sender of this message has read that it was taken: the same bytes are another message from now on.
    Heard(String),
    /// Forgets tombstones older than `gone` and deliveries of messages whose id sorts before `message`.
    Forget {
        /// The oldest tombstone kept.
        gone: Micros,
        /// The oldest id kept.
        message: String,
    },
    /// Makes or replaces an alias.
    PutAlias(AliasRow),
    /// Removes an alias; `NotFound` when there is none.
    RemoveAlias(String),
}

const FOLDERS: &str = "SELECT space, folder, validity, next, modseq FROM mail_folders WHERE space = ?1 ORDER BY folder";
const FOLDER: &str = "SELECT space, folder, validity, next, modseq FROM mail_folders WHERE space = ?1 AND folder = ?2";
const MESSAGES: &str = "SELECT space, folder, uid, name, flags, size, arrived, modseq, gone FROM messages \
     WHERE space = ?1 AND folder = ?2 AND uid > ?3 AND (gone = 0 OR CAST(?5 AS BIGINT) <> 0) ORDER BY uid LIMIT ?4";
const DELIVERIES: &str = "SELECT message, place, at, sender, recipient, target, bytes, state, changed, detail, mark \
     FROM deliveries WHERE message = ?1 ORDER BY place LIMIT ?2";
const DELIVERIES_WITH: &str = "SELECT message, place, at, sender, recipient, target, bytes, state, changed, detail, mark \
     FROM deliveries WHERE lower(recipient) = ?1 OR lower(sender) = ?1 OR target = '/mail/' || CAST(?5 AS TEXT) \
     OR substr(lower(recipient), 1, length(?1) + 1) = ?1 || '@' OR substr(lower(sender), 1, length(?1) + 1) = ?1 || '@' \
     OR detail LIKE '%' || CAST(?3 AS TEXT) || '%' OR detail LIKE '%' || CAST(?4 AS TEXT) || '%' ORDER BY message DESC, place DESC LIMIT ?2";
const MARKS: &str = "SELECT message, place, at, mark FROM deliveries WHERE message > ?1 \
     AND (message, place) < (CAST(?2 AS TEXT), CAST(?3 AS BIGINT)) AND mark IS NOT NULL \
     ORDER BY message DESC, place DESC LIMIT ?4";
const MARKED: &str = "SELECT place FROM deliveries WHERE mark = ?1 AND message > ?2 LIMIT 1";
const ALIASES: &str = "SELECT address, targets, post FROM aliases ORDER BY address";

const INSERT_FOLDER: &str = "INSERT INTO mail_folders (space, folder, validity, next, modseq) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT (space, folder) DO NOTHING";
const UPDATE_FOLDER: &str = "UPDATE mail_folders SET validity = ?3, next = ?4, modseq = ?5 \
     WHERE space = ?1 AND folder = ?2 AND modseq = ?6";
const REMOVE_FOLDER: &str = "DELETE FROM mail_folders WHERE space = ?1 AND folder = ?2";
const REMOVE_MESSAGES: &str = "DELETE FROM messages WHERE space = ?1 AND folder = ?2";
const PUT_MESSAGE: &str = "INSERT INTO messages (space, folder, uid, name, flags, size, arrived, modseq, gone) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (space, folder, uid) DO UPDATE SET name = excluded.name, \
     flags = excluded.flags, size = excluded.size, arrived = excluded.arrived, modseq = excluded.modseq, gone = excluded.gone";
const PUT_DELIVERY: &str = "INSERT INTO deliveries \
     (message, place, at, sender, recipient, target, bytes, state, changed, detail, mark) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const UNSTORED: &str = "UPDATE deliveries SET state = 'refused', detail = ?3, mark = NULL \
     WHERE message = ?1 AND place = ?2";
const FETCHED: &str = "UPDATE deliveries SET state = 'fetched', changed = ?3 \
     WHERE message = ?1 AND target = ?2 AND state = 'stored'";
const HEARD: &str = "UPDATE deliveries SET mark = NULL WHERE message = ?1 AND mark IS NOT NULL";
const FORGET_MESSAGES: &str = "DELETE FROM messages WHERE gone > 0 AND gone < ?1";
const FORGET_DELIVERIES: &str = "DELETE FROM deliveries WHERE message < ?1";
const PUT_ALIAS: &str = "INSERT INTO aliases (address, targets, post) VALUES (?1, ?2, ?3) \
     ON CONFLICT (address) DO UPDATE SET targets = excluded.targets, post = excluded.post";
const REMOVE_ALIAS: &str = "DELETE FROM aliases WHERE address = ?1";

const CHANGED: Must = Must { kind: Kind::Conflict, public: "the mailbox was changed at the same time" };
const NO_ALIAS: Must = Must { kind: Kind::NotFound, public: "there is no such alias in the catalog" };

/// Adds the statements of one edit.
pub(super) fn push(into: &mut Transaction, edit: MailEdit) {
    match edit {
        MailEdit::PutFolder { row, seen } => put_folder(into, row, seen),
        MailEdit::RemoveFolder { space, folder } => {
            plain(into, REMOVE_MESSAGES, vec![Value::text(&space), Value::text(&folder)]);
            plain(into, REMOVE_FOLDER, vec![Value::Text(space), Value::Text(folder)]);
        }
        MailEdit::PutMessage(row) => put_message(into, row),
        MailEdit::PutDelivery(row) => put_delivery(into, row),
        MailEdit::Unstored { message, place, detail } => {
            plain(into, UNSTORED, vec![Value::Text(message), Value::Int(place), Value::Text(detail)]);
        }
        MailEdit::Fetched { message, target, at } => {
            plain(into, FETCHED, vec![Value::Text(message), Value::Text(target), Value::Int(at)]);
        }
        MailEdit::Heard(message) => plain(into, HEARD, vec![Value::Text(message)]),
        MailEdit::Forget { gone, message } => {
            plain(into, FORGET_MESSAGES, vec![Value::Int(gone)]);
            plain(into, FORGET_DELIVERIES, vec![Value::Text(message)]);
        }
        MailEdit::PutAlias(row) => {
            plain(into, PUT_ALIAS, vec![Value::Text(row.address), list(&row.targets), Value::Text(row.post)]);
        }
        MailEdit::RemoveAlias(address) => guarded(into, REMOVE_ALIAS, vec![Value::Text(address)], NO_ALIAS),
    }
}

fn put_folder(into: &mut Transaction, row: MailFolderRow, seen: Option<i64>) {
    let mut params = vec![
        Value::Text(row.space),
        Value::Text(row.folder),
        Value::Int(row.validity.into()),
        Value::Int(row.next.into()),
        Value::Int(row.modseq),
    ];
    match seen {
        None => guarded(into, INSERT_FOLDER, params, CHANGED),
        Some(seen) => {
            params.push(Value::Int(seen));
            guarded(into, UPDATE_FOLDER, params, CHANGED);
        }
    }
}

fn put_message(into: &mut Transaction, row: MessageRow) {
    let params = vec![
        Value::Text(row.space),
        Value::Text(row.folder),
        Value::Int(row.uid.into()),
        Value::Text(row.name),
        Value::Text(row.flags),
        row.size.into(),
        Value::Int(row.arrived),
        Value::Int(row.modseq),
        Value::Int(row.gone),
    ];
    plain(into, PUT_MESSAGE, params);
}

fn put_delivery(into: &mut Transaction, row: DeliveryRow) {
    let params = vec![
        Value::Text(row.message),
        Value::Int(row.place),
        Value::Int(row.at),
        Value::Text(row.sender),
        Value::Text(row.recipient),
        Value::Text(row.target),
        row.bytes.into(),
        Value::text(row.state.as_str()),
        Value::Int(row.changed),
        Value::Text(row.detail),
        row.mark.map(|mark| Bytes::copy_from_slice(&mark)).into(),
    ];
    plain(into, PUT_DELIVERY, params);
}

impl Catalog {
    /// The folders of a mailbox that somebody has looked into, by name.
    pub async fn mail_folders(&self, space: &str) -> Result<Vec<MailFolderRow>> {
        self.ask(FOLDERS, vec![Value::text(space)]).await?.into_iter().map(folder).collect()
    }

    /// One folder of a mailbox.
    pub async fn mail_folder(&self, space: &str, name: &str) -> Result<Option<MailFolderRow>> {
        let rows = self.ask(FOLDER, vec![Value::text(space), Value::text(name)]).await?;
        rows.into_iter().next().map(folder).transpose()
    }

    /// Messages of a folder by UID, after `after`; with `gone` the tombstones too.
    pub async fn messages(
        &self,
        space: &str,
        folder: &str,
        after: u32,
        limit: usize,
        gone: bool,
    ) -> Result<Vec<MessageRow>> {
        let params = vec![
            Value::text(space),
            Value::text(folder),
            Value::Int(after.into()),
            count(limit),
            Value::Int(gone.into()),
        ];
        self.ask(MESSAGES, params).await?.into_iter().map(message).collect()
    }

    /// What became of a message.
    pub async fn deliveries(&self, message: &str, limit: usize) -> Result<Vec<DeliveryRow>> {
        let rows = self.ask(DELIVERIES, vec![Value::text(message), count(limit)]).await?;
        rows.into_iter().map(delivery).collect()
    }

    /// Deliveries from or to an address or name in lower case, into a mailbox, or with one of these texts in their detail, newest first. Reads all there
    /// are: for people.
    pub async fn deliveries_with(
        &self,
        address: &str,
        mailbox: &str,
        details: &[String; 2],
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        let [first, second] = details;
        let params =
            vec![Value::text(address), count(limit), Value::text(first), Value::text(second), Value::text(mailbox)];
        let rows = self.ask(DELIVERIES_WITH, params).await?;
        rows.into_iter().map(delivery).collect()
    }

    /// Marks of messages whose id sorts behind `since`, newest first, older than the row of `before`.
    pub async fn marks(&self, since: &str, before: (&str, i64), limit: usize) -> Result<Vec<MarkRow>> {
        let (message, place) = before;
        let params = vec![Value::text(since), Value::text(message), Value::Int(place), count(limit)];
        self.ask(MARKS, params).await?.into_iter().map(marked).collect()
    }

    /// True when a delivery has this mark whose message's id sorts behind `since`. Only a shared catalog has an index
    /// for it.
    pub async fn is_marked(&self, mark: [u8; 16], since: &str) -> Result<bool> {
        let mark = Value::Blob(Bytes::copy_from_slice(&mark));
        Ok(!self.ask(MARKED, vec![mark, Value::text(since)]).await?.is_empty())
    }

    /// All aliases made by command.
    pub async fn aliases(&self) -> Result<Vec<AliasRow>> {
        self.ask(ALIASES, Vec::new()).await?.into_iter().map(alias).collect()
    }
}

fn folder(row: Row) -> Result<MailFolderRow> {
    let mut columns = Columns::of("mail_folders", row);
    Ok(MailFolderRow {
        space: columns.text()?,
        folder: columns.text()?,
        validity: columns.small()?,
        next: columns.small()?,
        modseq: columns.int()?,
    })
}

fn message(row: Row) -> Result<MessageRow> {
    let mut columns = Columns::of("messages", row);
    Ok(MessageRow {
        space: columns.text()?,
        folder: columns.text()?,
        uid: columns.small()?,
        name: columns.text()?,
        flags: columns.text()?,
        size: columns.unsigned()?,
        arrived: columns.int()?,
        modseq: columns.int()?,
        gone: columns.int()?,
    })
}

fn delivery(row: Row) -> Result<DeliveryRow> {
    let mut columns = Columns::of("deliveries", row);
    Ok(DeliveryRow {
        message: columns.text()?,
        place: columns.int()?,
        at: columns.int()?,
        sender: columns.text()?,
        recipient: columns.text()?,
        target: columns.text()?,
        bytes: columns.unsigned()?,
        // A word from a newer program: it was at least taken.
        state: DeliveryState::parse(&columns.text()?).unwrap_or_default(),
        changed: columns.int()?,
        detail: columns.text()?,
        mark: columns.blob_or_null()?.and_then(|bytes| <[u8; 16]>::try_from(&bytes[..]).ok()),
    })
}

fn marked(row: Row) -> Result<MarkRow> {
    let mut columns = Columns::of("deliveries", row);
    Ok(MarkRow {
        message: columns.text()?,
        place: columns.int()?,
        at: columns.int()?,
        mark: columns.blob_or_null()?.and_then(|bytes| <[u8; 16]>::try_from(&bytes[..]).ok()).unwrap_or_default(),
    })
}

fn alias(row: Row) -> Result<AliasRow> {
    let mut columns = Columns::of("aliases", row);
    Ok(AliasRow { address: columns.text()?, targets: columns.list()?, post: columns.text()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::migrations::STEPS;

    #[test]
    fn what_a_door_waits_for_is_found_by_an_index() {
        let database = rusqlite::Connection::open_in_memory().expect("a database");
        for step in STEPS {
            database.execute_batch(step.sqlite).expect("the schema");
        }
        for (sql, index) in [
            (FOLDERS, "(space=?)"),
            (FOLDER, "(space=? AND folder=?)"),
            (MESSAGES, "(space=? AND folder=? AND uid>?)"),
            (DELIVERIES, "(message=?)"),
            (MARKS, "message"),
            (FETCHED, "(message=?)"),
            (FORGET_MESSAGES, "messages_gone"),
            (FORGET_DELIVERIES, "(message<?)"),
        ] {
            let mut plan = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
            let none = vec![Value::Null; plan.parameter_count()];
            let steps = plan.query_map(rusqlite::params_from_iter(none), |row| row.get::<_, String>(3)).expect(sql);
            let steps = steps.collect::<std::result::Result<Vec<_>, _>>().expect(sql).join("; ");
            assert!(steps.contains(index), "{sql}: {steps}");
            assert!(!steps.contains("TEMP B-TREE"), "{sql}: {steps}");
        }
    }
}
