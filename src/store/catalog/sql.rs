//! Edits as SQL: each written once, in words both engines speak.
//!
//! A guard is part of its statement (`must`: exactly one row touched), so that no engine can apply an edit whose
//! condition was checked at another moment. Parameters whose type PostgreSQL could not infer are CAST.

use std::time::{SystemTime, UNIX_EPOCH};

use super::edit::{Batch, Edit, Expect};
use super::engine::{Must, Transaction, Value, bounds, guarded, list, plain};
use super::rows::{AccountRow, FileRow, IntentRow, LeftRow, SessionRow, SpaceRow};
use super::{chain, lock, mail, property, uploads};
use crate::error::Kind;
use crate::store::Micros;

const INSERT_FILE: &str = "INSERT INTO files (space, path, size, modified, version, owner, sha256) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (space, path) DO NOTHING";
const UPDATE_FILE: &str = "UPDATE files SET size = ?3, modified = ?4, version = ?5, owner = ?6, sha256 = ?7 \
     WHERE space = ?1 AND path = ?2 AND version = ?8";
const REMOVE_FILE: &str = "DELETE FROM files WHERE space = ?1 AND path = ?2 AND version = ?3";
const REMOVE_ROW: &str = "DELETE FROM files WHERE space = ?1 AND path = ?2";
const REMOVE_BELOW: &str = "DELETE FROM files WHERE space = ?1 AND path >= ?2 AND path < ?3";
const REMOVE_SPACE_FILES: &str = "DELETE FROM files WHERE space = ?1";
const MOVE_ROW: &str = "UPDATE files SET path = ?3 WHERE space = ?1 AND path = ?2";
const MOVE_BELOW: &str = "UPDATE files SET path = CAST(?4 AS TEXT) || substr(path, CAST(?5 AS INTEGER)) \
     WHERE space = ?1 AND path >= ?2 AND path < ?3";

// A positive change must fit below its limit, both when the row is made and when it is there. The first condition
// is implied by the second as long as a usage is never negative, which the CASE sees to.
const USAGE: &str = "INSERT INTO usage (space, bytes, files) \
     SELECT CAST(?1 AS TEXT), \
         CASE WHEN CAST(?2 AS BIGINT) < 0 THEN 0 ELSE CAST(?2 AS BIGINT) END, \
         CASE WHEN CAST(?3 AS BIGINT) < 0 THEN 0 ELSE CAST(?3 AS BIGINT) END \
     WHERE (CAST(?2 AS BIGINT) <= 0 OR CAST(?4 AS BIGINT) IS NULL OR CAST(?2 AS BIGINT) <= CAST(?4 AS BIGINT)) \
         AND (CAST(?3 AS BIGINT) <= 0 OR CAST(?5 AS BIGINT) IS NULL OR CAST(?3 AS BIGINT) <= CAST(?5 AS BIGINT)) \
     ON CONFLICT (space) DO UPDATE SET \
         bytes = CASE WHEN usage.bytes + CAST(?2 AS BIGINT) < 0 THEN 0 ELSE usage.bytes + CAST(?2 AS BIGINT) END, \
         files = CASE WHEN usage.files + CAST(?3 AS BIGINT) < 0 THEN 0 ELSE usage.files + CAST(?3 AS BIGINT) END \
     WHERE (CAST(?2 AS BIGINT) <= 0 OR CAST(?4 AS BIGINT) IS NULL \
             OR usage.bytes <= CAST(?4 AS BIGINT) - CAST(?2 AS BIGINT)) \
         AND (CAST(?3 AS BIGINT) <= 0 OR CAST(?5 AS BIGINT) IS NULL \
             OR usage.files <= CAST(?5 AS BIGINT) - CAST(?3 AS BIGINT))";
const SET_USAGE: &str = "INSERT INTO usage (space, bytes, files) VALUES (?1, ?2, ?3) \
     ON CONFLICT (space) DO UPDATE SET bytes = excluded.bytes, files = excluded.files";

pub(super) const INTENT: &str = "INSERT INTO intents (node, id, space, change, body) VALUES (?1, ?2, ?3, ?4, ?5)";
pub(super) const CLEAR_INTENTS: &str = "DELETE FROM intents WHERE node = ?1 AND id >= ?2 AND id <= ?3";

const PUT_ACCOUNT: &str = "INSERT INTO accounts \
     (name, kind, password_hash, groups, root, networks, protocols, folder, disabled) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO UPDATE SET \
     password_hash = excluded.password_hash, groups = excluded.groups, root = excluded.root, \
     networks = excluded.networks, protocols = excluded.protocols, folder = excluded.folder, \
     disabled = excluded.disabled WHERE accounts.kind = excluded.kind";
const REMOVE_ACCOUNT: &str = "DELETE FROM accounts WHERE name = ?1";
const PUT_SPACE: &str = "INSERT INTO spaces (path, source, max_bytes, max_files, overwrite, address, durable) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (path) DO UPDATE SET source = excluded.source, \
     max_bytes = excluded.max_bytes, max_files = excluded.max_files, overwrite = excluded.overwrite, \
     address = excluded.address, durable = excluded.durable";
const REMOVE_SPACE: &str = "DELETE FROM spaces WHERE path = ?1";
const REMOVE_GRANTS: &str = "DELETE FROM grants WHERE space = ?1";
const PUT_GRANT: &str = "INSERT INTO grants (space, place, grantee, allow) VALUES (?1, ?2, ?3, ?4)";

const PUT_SESSION: &str = "INSERT INTO sessions (token, account, created, expires, address, generation) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (token) DO UPDATE SET account = excluded.account, \
     created = excluded.created, expires = excluded.expires, address = excluded.address, \
     generation = excluded.generation";
const KEEP_SESSIONS_OF: &str = "DELETE FROM sessions WHERE account = ?1 AND generation <> ?2";
const NEW_GENERATION: &str = "INSERT INTO generations (account, generation) VALUES (?1, ?2) \
     ON CONFLICT (account) DO UPDATE SET generation = CASE WHEN excluded.generation > generations.generation \
     THEN excluded.generation ELSE generations.generation + 1 END";
const REMOVE_LOCKS_OF: &str = "DELETE FROM locks WHERE account = ?1";
const REMOVE_RECEIPTS_OF: &str = "DELETE FROM receipts WHERE account = ?1";
const REMOVE_UPLOADS_OF: &str = "DELETE FROM uploads WHERE account = ?1";
const RENEW_HASH: &str = "UPDATE accounts SET password_hash = ?3 WHERE name = ?1 AND password_hash = ?2";
const PUT_LEFT: &str = "INSERT INTO left_behind (path, source, since, heir) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (path) DO UPDATE SET source = excluded.source, heir = excluded.heir";
const REMOVE_LEFT: &str = "DELETE FROM left_behind WHERE path = ?1";
const REMOVE_USAGE: &str = "DELETE FROM usage WHERE space = ?1";
const REMOVE_SESSION: &str = "DELETE FROM sessions WHERE token = ?1";
const REMOVE_SESSIONS_OF: &str = "DELETE FROM sessions WHERE account = ?1";
const EXPIRE_SESSIONS: &str = "DELETE FROM sessions WHERE expires <= ?1";
const EXPIRE_LOCKS: &str = "DELETE FROM locks WHERE expires <= ?1";

const CHANGED: Must = Must { kind: Kind::Conflict, public: "the file was changed by someone else at the same time" };
const QUOTA: Must =
    Must { kind: Kind::OverQuota, public: "this space is full: its quota is used up; remove something first" };
const NAME_TAKEN: Must =
    Must { kind: Kind::Exists, public: "the name belongs to an account of another kind (user, device or group)" };
const NO_ACCOUNT: Must = Must { kind: Kind::NotFound, public: "there is no such account in the catalog" };
const NEW_PASSWORD: Must = Must { kind: Kind::Conflict, public: "the password was changed at the same time" };
const NO_SPACE: Must = Must { kind: Kind::NotFound, public: "there is no such space in the catalog" };

/// The statements that apply a batch; `node` is the daemon whose intents these are.
pub(super) fn transaction(batch: Batch, node: &str) -> Transaction {
    let mut into = Transaction::default();
    for edit in batch.edits {
        push(&mut into, edit, node);
    }
    into
}

fn push(into: &mut Transaction, edit: Edit, node: &str) {
    match edit {
        Edit::PutFile(row, expect) => put_file(into, row, expect),
        Edit::RemoveFile { space, path, version } => {
            property::clear(into, &space, &path);
            guarded(into, REMOVE_FILE, vec![Value::Text(space), Value::Text(path), Value::Int(version)], CHANGED);
        }
        Edit::RemoveFolder { space, folder } => remove_folder(into, space, &folder),
        Edit::MoveFiles { space, from, to } => move_files(into, &space, &from, &to),
        Edit::Usage { space, bytes, files, max_bytes, max_files } => {
            let params =
                vec![Value::Text(space), Value::Int(bytes), Value::Int(files), max_bytes.into(), max_files.into()];
            guarded(into, USAGE, params, QUOTA);
        }
        Edit::SetUsage { space, bytes, files } => {
            plain(into, SET_USAGE, vec![Value::Text(space), bytes.into(), files.into()]);
        }
        Edit::Intent(row) => put_intent(into, row, node),
        Edit::ClearIntents(ids) => clear_intents(into, ids, node),
        Edit::History(line) => into.history.push(chain::writable(line)),
        Edit::PutAccount(row) => put_account(into, row),
        Edit::RemoveAccount(name) => guarded(into, REMOVE_ACCOUNT, vec![Value::Text(name)], NO_ACCOUNT),
        Edit::PutSpace(row) => put_space(into, row),
        Edit::RemoveSpace(path) => {
            plain(into, REMOVE_GRANTS, vec![Value::text(&path)]);
            guarded(into, REMOVE_SPACE, vec![Value::Text(path)], NO_SPACE);
        }
        Edit::PutSession(row) => put_session(into, row),
        Edit::RemoveSession(token) => plain(into, REMOVE_SESSION, vec![Value::hash(&token)]),
        Edit::RemoveSessionsOf(account) => plain(into, REMOVE_SESSIONS_OF, vec![Value::Text(account)]),
        Edit::KeepSessionsOf { account, generation } => {
            plain(into, KEEP_SESSIONS_OF, vec![Value::Text(account), Value::hash(&generation)]);
        }
        Edit::NewGeneration { account, at } => plain(into, NEW_GENERATION, vec![Value::Text(account), Value::Int(at)]),
        Edit::RemoveWorkOf { account, all } => {
            plain(into, REMOVE_UPLOADS_OF, vec![Value::text(&account)]);
            for sql in [REMOVE_LOCKS_OF, REMOVE_RECEIPTS_OF].into_iter().filter(|_| all) {
                plain(into, sql, vec![Value::text(&account)]);
            }
        }
        Edit::RenewHash { account, old, new } => {
            guarded(into, RENEW_HASH, vec![Value::Text(account), Value::Text(old), Value::Text(new)], NEW_PASSWORD);
        }
        Edit::PutLeft(row) => put_left(into, row),
        Edit::RemoveLeft(path) => plain(into, REMOVE_LEFT, vec![Value::Text(path)]),
        Edit::ForgetSpace(space) => {
            plain(into, REMOVE_USAGE, vec![Value::text(&space)]);
            remove_folder(into, space, "");
        }
        Edit::Expire(now) => {
            plain(into, EXPIRE_SESSIONS, vec![Value::Int(now)]);
            plain(into, EXPIRE_LOCKS, vec![Value::Int(now)]);
        }
        Edit::PutLock(row, beside) => lock::take(into, row, beside, now()),
        Edit::RefreshLock { token, expires } => lock::refresh(into, token, expires, now()),
        Edit::RemoveLock(token) => lock::remove(into, token),
        Edit::Unlocked(guard) => lock::guard(into, &guard, now()),
        Edit::Mail(edit) => mail::push(into, edit),
        Edit::Upload(edit) => uploads::push(into, edit, node),
        Edit::Property(edit) => property::push(into, edit),
    }
}

fn put_file(into: &mut Transaction, row: FileRow, expect: Expect) {
    let version = match expect {
        Expect::Absent => row.version.max(1),
        Expect::Version(version) => version.saturating_add(1),
    };
    let mut params = vec![
        Value::Text(row.space),
        Value::Text(row.path),
        row.size.into(),
        Value::Int(row.modified),
        Value::Int(version),
        Value::Text(row.owner),
        row.sha256.as_ref().map_or(Value::Null, Value::hash),
    ];
    match expect {
        Expect::Absent => guarded(into, INSERT_FILE, params, CHANGED),
        Expect::Version(version) => {
            params.push(Value::Int(version));
            guarded(into, UPDATE_FILE, params, CHANGED);
        }
    }
}

fn remove_folder(into: &mut Transaction, space: String, folder: &str) {
    property::clear_folder(into, &space, folder);
    if folder.is_empty() {
        return plain(into, REMOVE_SPACE_FILES, vec![Value::Text(space)]);
    }
    let (low, high) = bounds(folder);
    plain(into, REMOVE_BELOW, vec![Value::Text(space), Value::Text(low), Value::Text(high)]);
}

fn move_files(into: &mut Transaction, space: &str, from: &str, to: &str) {
    if from == to {
        return;
    }
    let (low, high) = bounds(from);
    // substr counts characters from 1 in both engines; what is kept starts with the slash after `from`.
    let keep = i64::try_from(from.chars().count()).unwrap_or(i64::MAX).saturating_add(1);
    plain(into, REMOVE_ROW, vec![Value::text(space), Value::text(to)]);
    plain(into, MOVE_ROW, vec![Value::text(space), Value::text(from), Value::text(to)]);
    let params = vec![Value::text(space), Value::Text(low), Value::Text(high), Value::text(to), Value::Int(keep)];
    plain(into, MOVE_BELOW, params);
    property::follow(into, space, from, to, keep);
}

fn put_intent(into: &mut Transaction, row: IntentRow, node: &str) {
    let params = vec![
        Value::text(node),
        Value::Int(row.id),
        Value::Text(row.space),
        Value::Text(row.change),
        row.body.map_or(Value::Null, Value::Blob),
    ];
    plain(into, INTENT, params);
}

/// One statement for each run of numbers without a gap: what lies between two of them is exactly what was named.
fn clear_intents(into: &mut Transaction, mut ids: Vec<i64>, node: &str) {
    ids.sort_unstable();
    for run in ids.chunk_by(|one, next| next.saturating_sub(*one) <= 1) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            plain(into, CLEAR_INTENTS, vec![Value::text(node), Value::Int(*first), Value::Int(*last)]);
        }
    }
}

fn put_account(into: &mut Transaction, row: AccountRow) {
    let params = vec![
        Value::Text(row.name),
        Value::text(row.kind.as_str()),
        Value::Text(row.password_hash),
        list(&row.groups),
        Value::Text(row.root),
        list(&row.networks),
        list(&row.protocols),
        Value::Text(row.folder),
        Value::Int(row.disabled.into()),
    ];
    guarded(into, PUT_ACCOUNT, params, NAME_TAKEN);
}

fn put_space(into: &mut Transaction, row: SpaceRow) {
    plain(into, REMOVE_GRANTS, vec![Value::text(&row.path)]);
    for (place, grant) in (0_i64..).zip(row.grants) {
        let params = vec![Value::text(&row.path), Value::Int(place), Value::Text(grant.to), Value::Text(grant.allow)];
        plain(into, PUT_GRANT, params);
    }
    let params = vec![
        Value::Text(row.path),
        Value::Text(row.source),
        row.max_bytes.into(),
        row.max_files.into(),
        Value::Text(row.overwrite),
        Value::Text(row.address),
        Value::Int(row.durable.into()),
    ];
    plain(into, PUT_SPACE, params);
}

fn put_session(into: &mut Transaction, row: SessionRow) {
    let params = vec![
        Value::hash(&row.token),
        Value::Text(row.account),
        Value::Int(row.created),
        Value::Int(row.expires),
        Value::Text(row.address),
        Value::hash(&row.generation),
    ];
    plain(into, PUT_SESSION, params);
}

fn put_left(into: &mut Transaction, row: LeftRow) {
    let params = vec![Value::Text(row.path), Value::Text(row.source), Value::Int(row.since), Value::Text(row.heir)];
    plain(into, PUT_LEFT, params);
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
