//! The records of uploads that can be gone on with, and the receipts of requests that may be repeated.

use super::columns::Columns;
use super::engine::{Must, Row, Transaction, Value, count, guarded, plain};
use super::handle::Catalog;
use crate::error::{Error, Kind, Result};
use crate::store::Micros;

/// What sort of upload a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadKind {
    /// It broke off; who asks for the same path may go on with it.
    Broken,
    /// A part of a file that is put together of several.
    Part,
    /// A file of its own, named by its id.
    #[default]
    Whole,
}

impl UploadKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Part => "part",
            Self::Whole => "whole",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Broken, Self::Part, Self::Whole].into_iter().find(|one| one.as_str() == text)
    }
}

/// An upload that can be gone on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadRow {
    /// Its name, which is its stage's too.
    pub id: String,
    /// Whose; empty for someone not signed in.
    pub account: String,
    /// What sort of upload it is.
    pub kind: UploadKind,
    /// Path of the space whose volume has its stage.
    pub space: String,
    /// Where it goes, in the tree.
    pub path: String,
    /// Bytes it will have, once that is known.
    pub length: Option<u64>,
    /// Bytes that would survive a power cut.
    pub received: u64,
    /// When it is given up.
    pub expires: Micros,
    /// JSON: what its client said of it.
    pub about: String,
}

/// What became of a request that may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Whose request.
    pub account: String,
    /// Its `Idempotency-Key`, or the id of an upload.
    pub key: String,
    /// Which file of the request.
    pub place: u32,
    /// Method and path that were asked for.
    pub request: String,
    /// As the history's detail has it.
    pub id: String,
    /// Where it went, in the tree.
    pub path: String,
    /// Bytes there.
    pub bytes: u64,
    /// Modification time it was given.
    pub modified: Micros,
    /// SHA-256 where it was computed.
    pub sha256: Option<[u8; 32]>,
    /// Nothing was there before.
    pub created: bool,
    /// When it is forgotten.
    pub expires: Micros,
}

/// One change to the records of uploads.
#[derive(Clone, Debug)]
pub enum UploadEdit {
    /// Makes or replaces an upload's row.
    Put(UploadRow),
    /// An upload becomes a file; `Conflict` when it did already.
    Close(String),
    /// Forgets an upload; fine when it is unknown.
    Forget(String),
    /// Keeps a receipt; `Conflict` when its key has one at `now`.
    Receipt {
        /// What is kept.
        row: ReceiptRow,
        /// A receipt past this time is replaced.
        now: Micros,
    },
    /// Takes a receipt back: the volume refused the file.
    #[expect(missing_docs, reason = "the fields are named as the columns")]
    Withdraw { account: String, key: String, place: u32 },
    /// Forgets receipts past their time.
    Expire(Micros),
}

const PUT: &str = "INSERT INTO uploads (id, node, account, kind, space, path, length, received, expires, about) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET length = excluded.length, \
     received = excluded.received, expires = excluded.expires, about = excluded.about";
const REMOVE: &str = "DELETE FROM uploads WHERE id = ?1";
const UPLOADS: &str = "SELECT id, account, kind, space, path, length, received, expires, about FROM uploads \
     WHERE node = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const KEEP: &str = "INSERT INTO receipts \
     (account, key, place, request, id, path, bytes, modified, sha256, created, expires) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (account, key, place) DO UPDATE SET \
     request = excluded.request, id = excluded.id, path = excluded.path, bytes = excluded.bytes, \
     modified = excluded.modified, sha256 = excluded.sha256, created = excluded.created, expires = excluded.expires \
     WHERE receipts.expires <= ?12";
const RECEIPT: &str = "SELECT account, key, place, request, id, path, bytes, modified, sha256, created, expires \
     FROM receipts WHERE account = ?1 AND key = ?2 AND place = ?3 AND expires > ?4";
const WITHDRAW: &str = "DELETE FROM receipts WHERE account = ?1 AND key = ?2 AND place = ?3";
const EXPIRE: &str = "DELETE FROM receipts WHERE expires <= ?1";

const CLOSED: Must = Must { kind: Kind::Conflict, public: "this upload is complete or gone" };
const KEPT: Must = Must { kind: Kind::Conflict, public: "this request was done already" };

/// Adds the statements of one edit; `node` is the daemon that has the stages.
pub(super) fn push(into: &mut Transaction, edit: UploadEdit, node: &str) {
    match edit {
        UploadEdit::Put(row) => put(into, row, node),
        UploadEdit::Close(id) => guarded(into, REMOVE, vec![Value::Text(id)], CLOSED),
        UploadEdit::Forget(id) => plain(into, REMOVE, vec![Value::Text(id)]),
        UploadEdit::Receipt { row, now } => keep(into, row, now),
        UploadEdit::Withdraw { account, key, place } => {
            plain(into, WITHDRAW, vec![Value::Text(account), Value::Text(key), Value::Int(place.into())]);
        }
        UploadEdit::Expire(now) => plain(into, EXPIRE, vec![Value::Int(now)]),
    }
}

fn put(into: &mut Transaction, row: UploadRow, node: &str) {
    let params = vec![
        Value::Text(row.id),
        Value::text(node),
        Value::Text(row.account),
        Value::text(row.kind.as_str()),
        Value::Text(row.space),
        Value::Text(row.path),
        row.length.into(),
        row.received.into(),
        Value::Int(row.expires),
        Value::Text(row.about),
    ];
    plain(into, PUT, params);
}

fn keep(into: &mut Transaction, row: ReceiptRow, now: Micros) {
    let params = vec![
        Value::Text(row.account),
        Value::Text(row.key),
        Value::Int(row.place.into()),
        Value::Text(row.request),
        Value::Text(row.id),
        Value::Text(row.path),
        row.bytes.into(),
        Value::Int(row.modified),
        row.sha256.as_ref().map_or(Value::Null, Value::hash),
        Value::Int(row.created.into()),
        Value::Int(row.expires),
        Value::Int(now),
    ];
    guarded(into, KEEP, params, KEPT);
}

impl Catalog {
    /// Uploads of this node by id, after `after`.
    pub async fn uploads(&self, after: &str, limit: usize) -> Result<Vec<UploadRow>> {
        let params = vec![Value::text(self.engine.node()), Value::text(after), count(limit)];
        self.ask(UPLOADS, params).await?.into_iter().map(upload).collect()
    }

    /// The receipt of one file of a request, unless its time is over.
    pub async fn receipt(&self, account: &str, key: &str, place: u32, now: Micros) -> Result<Option<ReceiptRow>> {
        let params = vec![Value::text(account), Value::text(key), Value::Int(place.into()), Value::Int(now)];
        self.ask(RECEIPT, params).await?.into_iter().next().map(receipt).transpose()
    }
}

fn upload(row: Row) -> Result<UploadRow> {
    let mut columns = Columns::of("uploads", row);
    let (id, account, kind) = (columns.text()?, columns.text()?, columns.text()?);
    let unknown = || Error::new(Kind::Corrupt, format!("the upload {id} in the catalog has the unknown kind `{kind}`"));
    Ok(UploadRow {
        account,
        kind: UploadKind::parse(&kind).ok_or_else(unknown)?,
        id,
        space: columns.text()?,
        path: columns.text()?,
        length: columns.unsigned_or_null()?,
        received: columns.unsigned()?,
        expires: columns.int()?,
        about: columns.text()?,
    })
}

fn receipt(row: Row) -> Result<ReceiptRow> {
    let mut columns = Columns::of("receipts", row);
    Ok(ReceiptRow {
        account: columns.text()?,
        key: columns.text()?,
        place: columns.small()?,
        request: columns.text()?,
        id: columns.text()?,
        path: columns.text()?,
        bytes: columns.unsigned()?,
        modified: columns.int()?,
        sha256: columns.hash_or_null()?,
        created: columns.truth()?,
        expires: columns.int()?,
    })
}
