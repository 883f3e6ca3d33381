//! The typed reads: each query once, for both engines.
//!
//! Whatever lies below a folder is a range of the primary key, never a LIKE; every read has a limit or reads a table
//! that people fill by hand.

use std::collections::HashMap;

use super::columns::Columns;
use super::engine::{Row, Value, bounds, count};
use super::handle::Catalog;
use super::rows::{
    AccountKind, AccountRow, FileRow, GrantRow, HistoryFilter, HistoryLine, IntentRow, LeftRow, SessionRow, SpaceRow,
    Usage, Verified,
};
use crate::error::{Error, Kind, Result};
use crate::store::Micros;

const FILE: &str =
    "SELECT space, path, size, modified, version, owner, sha256 FROM files WHERE space = ?1 AND path = ?2";
const FILES_FROM: &str = "SELECT space, path, size, modified, version, owner, sha256 FROM files \
     WHERE space = ?1 AND path >= ?2 AND path < ?3 ORDER BY path LIMIT ?4";
const SPACE_FILES_FROM: &str = "SELECT space, path, size, modified, version, owner, sha256 FROM files \
     WHERE space = ?1 AND path >= ?2 ORDER BY path LIMIT ?3";
const SUM_BELOW: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT), COUNT(*) FROM files \
     WHERE space = ?1 AND path >= ?2 AND path < ?3";
const SUM_SPACE: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT), COUNT(*) FROM files WHERE space = ?1";
const USAGE: &str = "SELECT bytes, files FROM usage WHERE space = ?1";
const INTENTS: &str = "SELECT id, space, change, body FROM intents WHERE node = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const HAS_INTENT: &str = "SELECT id FROM intents WHERE node = ?1 AND id = ?2";
const HISTORY: &str = "SELECT node, seq, at, door, account, address, verb, path, bytes, result, detail, prev, hash \
     FROM history WHERE (CAST(?1 AS TEXT) = '' OR path = ?1 OR (path >= ?2 AND path < ?3)) \
     AND (CAST(?4 AS TEXT) IS NULL OR account = ?4) AND (CAST(?5 AS TEXT) IS NULL OR door = ?5) \
     ORDER BY at DESC, node DESC, seq DESC LIMIT ?6";
const CHAIN: &str = "SELECT node, seq, at, door, account, address, verb, path, bytes, result, detail, prev, hash \
     FROM history WHERE node = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
const NEXT_NODE: &str = "SELECT node FROM history WHERE node > ?1 ORDER BY node LIMIT 1";
const ACCOUNTS: &str = "SELECT name, kind, password_hash, groups, root, networks, protocols, folder, disabled \
     FROM accounts ORDER BY name";
const SPACES: &str = "SELECT path, source, max_bytes, max_files, overwrite, address, durable FROM spaces ORDER BY path";
const GRANTS: &str = "SELECT space, grantee, allow FROM grants ORDER BY space, place";
const SESSION: &str =
    "SELECT token, account, created, expires, address, generation FROM sessions WHERE token = ?1 AND expires > ?2";
const SIGNED_IN: &str = "SELECT DISTINCT account FROM sessions ORDER BY account";
const GENERATIONS: &str = "SELECT account, generation FROM generations ORDER BY account";
const LEFT_BEHIND: &str = "SELECT path, source, since, heir FROM left_behind ORDER BY path";
const FILLED: &str = "SELECT space FROM usage WHERE files > 0 ORDER BY space";

/// Lines of history checked by one query.
const VERIFY_PAGE: usize = 1000;

/// Where `bytes` is in [`CHAIN`].
const BYTES_COLUMN: usize = 8;

/// Most rows one query of a listing brings.
const LISTING_PAGE: usize = 1000;

impl Catalog {
    /// The row of one file.
    pub async fn file(&self, space: &str, path: &str) -> Result<Option<FileRow>> {
        let rows = self.ask(FILE, vec![Value::text(space), Value::text(path)]).await?;
        rows.into_iter().next().map(file).transpose()
    }

    /// Rows of files below `folder` (empty: the whole space), by path, after `after`.
    pub async fn files_below(&self, space: &str, folder: &str, after: &str, limit: usize) -> Result<Vec<FileRow>> {
        self.files_from(space, folder, &following(after), limit).await
    }

    /// Rows of the files directly in `folder`, by path, after `after`.
    ///
    /// A page that ends deep inside a subfolder goes on behind that subfolder, so that what lies below is skipped
    /// rather than read.
    pub async fn files_in(&self, space: &str, folder: &str, after: &str, limit: usize) -> Result<Vec<FileRow>> {
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let page = limit.clamp(64, LISTING_PAGE);
        let mut found = Vec::new();
        let mut from = following(after);
        loop {
            let rows = self.files_from(space, folder, &from, page).await?;
            let full = rows.len() == page;
            for row in rows {
                let name = row.path.get(skip..).unwrap_or_default();
                if let Some((subfolder, _)) = name.split_once('/') {
                    from = format!("{}{subfolder}0", row.path.get(..skip).unwrap_or_default());
                    continue;
                }
                from = following(&row.path);
                found.push(row);
                if found.len() == limit {
                    return Ok(found);
                }
            }
            if !full {
                return Ok(found);
            }
        }
    }

    /// Sum of sizes and number of the file rows below a folder.
    pub async fn sum_below(&self, space: &str, folder: &str) -> Result<Usage> {
        let rows = if folder.is_empty() {
            self.ask(SUM_SPACE, vec![Value::text(space)]).await?
        } else {
            let (low, high) = bounds(folder);
            self.ask(SUM_BELOW, vec![Value::text(space), Value::Text(low), Value::Text(high)]).await?
        };
        usage(rows)
    }

    /// What a space is counted to hold; zero when nothing was ever stored.
    pub async fn usage(&self, space: &str) -> Result<Usage> {
        usage(self.ask(USAGE, vec![Value::text(space)]).await?)
    }

    /// Intents of this node not yet cleared, in order of their id, after `after`.
    pub async fn intents(&self, after: i64, limit: usize) -> Result<Vec<IntentRow>> {
        self.engine.show_bodies().await?;
        let params = vec![Value::text(self.engine.node()), Value::Int(after), count(limit)];
        let rows = self.ask(INTENTS, params).await?;
        rows.into_iter().map(intent).collect()
    }

    /// Is this node's intent there?
    pub async fn has_intent(&self, id: i64) -> Result<bool> {
        let rows = self.ask(HAS_INTENT, vec![Value::text(self.engine.node()), Value::Int(id)]).await?;
        Ok(!rows.is_empty())
    }

    /// Lines of history, oldest first.
    pub async fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryLine>> {
        let path = filter.path.as_deref().unwrap_or_default().trim_end_matches('/');
        let (low, high) = bounds(path);
        let params = vec![
            Value::text(path),
            Value::Text(low),
            Value::Text(high),
            filter.account.as_deref().map_or(Value::Null, Value::text),
            filter.door.as_deref().map_or(Value::Null, Value::text),
            count(filter.limit),
        ];
        let rows = self.ask(HISTORY, params).await?;
        rows.into_iter().rev().map(line).collect()
    }

    /// Walks every chain and recomputes each hash.
    pub async fn verify_history(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let mut node = String::new();
        loop {
            let rows = self.ask(NEXT_NODE, vec![Value::Text(node)]).await?;
            let Some(next) = rows.into_iter().next() else { return Ok(verified) };
            node = Columns::of("history", next).text()?;
            self.verify_chain(&node, &mut verified).await?;
        }
    }

    async fn verify_chain(&self, node: &str, verified: &mut Verified) -> Result<()> {
        let (mut seq, mut prev) = (0_i64, [0_u8; 32]);
        loop {
            let rows = self.ask(CHAIN, vec![Value::text(node), Value::Int(seq), count(VERIFY_PAGE)]).await?;
            let full = rows.len() == VERIFY_PAGE;
            for row in rows {
                verified.lines += 1;
                // What cannot even be read was changed by hand; so was a negative count, which reads as zero.
                let negative = matches!(row.get(BYTES_COLUMN), Some(Value::Int(..0)));
                let good = line(row)
                    .ok()
                    .filter(|_| !negative)
                    .filter(|line| line.seq == seq.saturating_add(1) && line.prev == prev)
                    .filter(|line| line.hash == line.digest());
                let Some(good) = good else {
                    verified.broken.push((node.to_owned(), seq.saturating_add(1)));
                    return Ok(());
                };
                (seq, prev) = (good.seq, good.hash);
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// All accounts made on the command line or over the API.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>> {
        self.ask(ACCOUNTS, Vec::new()).await?.into_iter().map(account).collect()
    }

    /// All spaces made on the command line or over the API.
    pub async fn spaces(&self) -> Result<Vec<SpaceRow>> {
        let rows = self.ask(SPACES, Vec::new()).await?;
        let mut spaces = rows.into_iter().map(space).collect::<Result<Vec<_>>>()?;
        for row in self.ask(GRANTS, Vec::new()).await? {
            let mut columns = Columns::of("grants", row);
            let path = columns.text()?;
            let grant = GrantRow { to: columns.text()?, allow: columns.text()? };
            if let Ok(at) = spaces.binary_search_by(|space| space.path.cmp(&path))
                && let Some(space) = spaces.get_mut(at)
            {
                space.grants.push(grant);
            }
        }
        Ok(spaces)
    }

    /// The session whose token has this hash, unless it is past its time.
    pub async fn session(&self, token: [u8; 32], now: Micros) -> Result<Option<SessionRow>> {
        let rows = self.ask(SESSION, vec![Value::hash(&token), Value::Int(now)]).await?;
        rows.into_iter().next().map(session).transpose()
    }

    /// Accounts that have sessions.
    pub async fn signed_in(&self) -> Result<Vec<String>> {
        self.ask(SIGNED_IN, Vec::new()).await?.into_iter().map(|row| Columns::of("sessions", row).text()).collect()
    }

    /// How often the sessions of an account were ended, as a number that grows; absent: never.
    pub async fn generations(&self) -> Result<HashMap<String, i64>> {
        let rows = self.ask(GENERATIONS, Vec::new()).await?;
        let read = |row| {
            let mut columns = Columns::of("generations", row);
            Ok((columns.text()?, columns.int()?))
        };
        rows.into_iter().map(read).collect()
    }

    /// Spaces that were removed and are not decided about.
    pub async fn left_behind(&self) -> Result<Vec<LeftRow>> {
        self.ask(LEFT_BEHIND, Vec::new()).await?.into_iter().map(left).collect()
    }

    /// Paths of the spaces that hold files, whether they are configured or not.
    pub async fn filled_spaces(&self) -> Result<Vec<String>> {
        self.ask(FILLED, Vec::new()).await?.into_iter().map(|row| Columns::of("usage", row).text()).collect()
    }

    /// Rows below `folder` whose path is `from` or sorts after it.
    async fn files_from(&self, space: &str, folder: &str, from: &str, limit: usize) -> Result<Vec<FileRow>> {
        let rows = if folder.is_empty() {
            self.ask(SPACE_FILES_FROM, vec![Value::text(space), Value::text(from), count(limit)]).await?
        } else {
            let (low, high) = bounds(folder);
            let from = if from > low.as_str() { from } else { &low };
            let params = vec![Value::text(space), Value::text(from), Value::text(&high), count(limit)];
            self.ask(FILES_FROM, params).await?
        };
        rows.into_iter().map(file).collect()
    }
}

/// The first path that can sort after this one: no path holds a NUL.
fn following(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}\u{1}") }
}

fn file(row: Row) -> Result<FileRow> {
    let mut columns = Columns::of("files", row);
    Ok(FileRow {
        space: columns.text()?,
        path: columns.text()?,
        size: columns.unsigned()?,
        modified: columns.int()?,
        version: columns.int()?,
        owner: columns.text()?,
        sha256: columns.hash_or_null()?,
    })
}

fn usage(rows: Vec<Row>) -> Result<Usage> {
    let Some(row) = rows.into_iter().next() else { return Ok(Usage::default()) };
    let mut columns = Columns::of("usage", row);
    Ok(Usage { bytes: columns.unsigned()?, files: columns.unsigned()? })
}

fn intent(row: Row) -> Result<IntentRow> {
    let mut columns = Columns::of("intents", row);
    Ok(IntentRow { id: columns.int()?, space: columns.text()?, change: columns.text()?, body: columns.blob_or_null()? })
}

fn line(row: Row) -> Result<HistoryLine> {
    let mut columns = Columns::of("history", row);
    Ok(HistoryLine {
        node: columns.text()?,
        seq: columns.int()?,
        at: columns.int()?,
        door: columns.text()?,
        account: columns.text()?,
        address: columns.text()?,
        verb: columns.text()?,
        path: columns.text()?,
        bytes: columns.unsigned()?,
        result: columns.text()?,
        detail: columns.text()?,
        prev: columns.hash()?,
        hash: columns.hash()?,
    })
}

fn account(row: Row) -> Result<AccountRow> {
    let mut columns = Columns::of("accounts", row);
    let name = columns.text()?;
    let kind = columns.text()?;
    let kind = AccountKind::parse(&kind).ok_or_else(|| {
        let text = format!("the account `{name}` in the catalog has the unknown kind `{kind}`");
        Error::new(Kind::Corrupt, text)
    })?;
    Ok(AccountRow {
        name,
        kind,
        password_hash: columns.text()?,
        groups: columns.list()?,
        root: columns.text()?,
        networks: columns.list()?,
        protocols: columns.list()?,
        folder: columns.text()?,
        disabled: columns.truth()?,
    })
}

fn space(row: Row) -> Result<SpaceRow> {
    let mut columns = Columns::of("spaces", row);
    Ok(SpaceRow {
        path: columns.text()?,
        source: columns.text()?,
        max_bytes: columns.unsigned_or_null()?,
        max_files: columns.unsigned_or_null()?,
        overwrite: columns.text()?,
        address: columns.text()?,
        durable: columns.truth()?,
        grants: Vec::new(),
    })
}

fn session(row: Row) -> Result<SessionRow> {
    let mut columns = Columns::of("sessions", row);
    Ok(SessionRow {
        token: columns.hash()?,
        account: columns.text()?,
        created: columns.int()?,
        expires: columns.int()?,
        address: columns.text()?,
        // A session from before generations were kept has none, and is over.
        generation: columns.blob_or_null()?.and_then(|bytes| bytes[..].try_into().ok()).unwrap_or_default(),
    })
}

fn left(row: Row) -> Result<LeftRow> {
    let mut columns = Columns::of("left_behind", row);
    Ok(LeftRow { path: columns.text()?, source: columns.text()?, since: columns.int()?, heir: columns.text()? })
}

impl Catalog {
    /// Asks one short question, of a reader and of the writer.
    ///
    /// # Errors
    /// `Unavailable` when either cannot answer.
    pub async fn ask_for_life(&self) -> Result<()> {
        self.usage("").await?;
        self.engine.version().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::migrations::STEPS;

    #[test]
    fn what_people_wait_for_is_found_by_an_index() {
        let database = rusqlite::Connection::open_in_memory().expect("a database");
        for step in STEPS {
            database.execute_batch(step.sqlite).expect("the schema");
        }
        let below = "(space=? AND path>? AND path<?)";
        for (sql, index) in [
            (FILE, "(space=? AND path=?)"),
            (FILES_FROM, below),
            (SUM_BELOW, below),
            (SPACE_FILES_FROM, "(space=? AND path>?)"),
            (USAGE, "(space=?)"),
            (INTENTS, "(node=? AND id>?)"),
            (HAS_INTENT, "(node=? AND id=?)"),
            (CHAIN, "(node=? AND seq>?)"),
            (NEXT_NODE, "(node>?)"),
            (SESSION, "(token=?)"),
            (HISTORY, "history_at"),
        ] {
            let mut plan = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
            let none = vec![Value::Null; plan.parameter_count()];
            let steps = plan.query_map(rusqlite::params_from_iter(none), |row| row.get::<_, String>(3)).expect(sql);
            let steps = steps.collect::<Result<Vec<_>, _>>().expect(sql).join("; ");
            assert!(steps.contains(index), "{sql}: {steps}");
            assert!(!steps.contains("TEMP B-TREE"), "{sql}: {steps}");
        }
    }
}
