//! Locks on paths, honoured by every door.
//!
//! The catalog holds the truth for all nodes; this process keeps a copy so that a write need not ask. A lock is
//! taken by a signed-in caller who may write there, for a limited time, and is given back by its token.

use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::{Caller, Hub, now};
use crate::store::{Batch, Catalog, Edit, LockRow, Micros};

/// Longest time of a lock; it can be refreshed.
const LONGEST_SECONDS: u64 = 86_400;

/// Most locks in force.
const MOST_LOCKS: usize = 10_000;

/// Most locks of one account.
const MOST_OF_ONE: usize = 1_000;

/// Longest text a client may say of itself.
const LONGEST_OWNER: usize = 1_024;

/// The locks in force, kept equal to the catalog.
#[derive(Default)]
pub struct Locks {
    held: parking_lot::RwLock<Vec<Held>>,
    /// One is taken at a time, so that two overlapping ones cannot both be.
    taking: tokio::sync::Mutex<()>,
}

struct Held {
    path: TreePath,
    row: LockRow,
}

impl Locks {
    /// Reads those in force.
    pub async fn load(catalog: &Catalog, now: Micros) -> Result<Self> {
        let locks = Self::default();
        locks.replace(catalog.locks(now).await?);
        Ok(locks)
    }

    /// A lock that stands in the way of changing `path`, unless its token is among `tokens`.
    pub fn obstacle(&self, path: &TreePath, tokens: &[String], now: Micros) -> Option<LockRow> {
        self.find(tokens, now, |lock| lock.path == *path || (lock.row.deep && path.is_in(&lock.path)))
    }

    /// A lock that stands in the way of changing `path` and all below it (removing or renaming a folder).
    pub fn obstacle_in(&self, path: &TreePath, tokens: &[String], now: Micros) -> Option<LockRow> {
        self.find(tokens, now, |lock| lock.path.is_in(path) || (lock.row.deep && path.is_in(&lock.path)))
    }

    fn find(&self, tokens: &[String], now: Micros, covers: impl Fn(&Held) -> bool) -> Option<LockRow> {
        let held = self.held.read();
        let mut live = held.iter().filter(|lock| lock.row.expires > now && !tokens.contains(&lock.row.token));
        live.find(|lock| covers(lock)).map(|lock| lock.row.clone())
    }

    /// Replaces what is held with what the catalog says.
    pub fn replace(&self, rows: Vec<LockRow>) {
        let held = rows.into_iter().filter_map(|row| TreePath::parse(&row.path).ok().map(|path| Held { path, row }));
        *self.held.write() = held.collect();
    }

    fn put(&self, path: TreePath, row: LockRow) {
        let mut held = self.held.write();
        held.retain(|lock| lock.row.token != row.token);
        held.push(Held { path, row });
    }

    fn remove(&self, token: &str) {
        self.held.write().retain(|lock| lock.row.token != token);
    }

    fn of(&self, token: &str, now: Micros) -> Option<(TreePath, LockRow)> {
        let held = self.held.read();
        let found = held.iter().find(|lock| lock.row.token == token && lock.row.expires > now);
        found.map(|lock| (lock.path.clone(), lock.row.clone()))
    }

    /// Room for one more of this account; what is past its time is dropped on the way.
    fn room_for(&self, account: &str, now: Micros) -> Result<()> {
        let mut held = self.held.write();
        held.retain(|lock| lock.row.expires > now);
        let own = held.iter().filter(|lock| lock.row.account == account).count();
        match held.len() >= MOST_LOCKS || own >= MOST_OF_ONE {
            true => Err(Error::new(Kind::Throttled, "too many locks are held; give some back")),
            false => Ok(()),
        }
    }
}

impl Hub {
    /// Takes a lock on a path, with `deep` on all below it. Needs a verb that writes there.
    ///
    /// # Errors
    /// The verdict's; `Locked` when another lock overlaps; `Throttled` when too many are held.
    pub async fn lock(
        &self,
        caller: &Caller,
        path: &TreePath,
        deep: bool,
        owner: &str,
        seconds: u64,
    ) -> Result<LockRow> {
        may_lock(caller, path)?;
        let _turn = self.inner.locks.taking.lock().await;
        let at = now();
        let other = match deep {
            true => self.inner.locks.obstacle_in(path, &[], at),
            false => self.inner.locks.obstacle(path, &[], at),
        };
        if let Some(other) = other {
            return Err(held_by(&other));
        }
        self.inner.locks.room_for(caller.name(), at)?;
        let row = LockRow {
            token: format!("opaquelocktoken:{}", fresh_id()?),
            path: path.to_string(),
            deep,
            account: caller.name().to_owned(),
            owner: owner.chars().take(LONGEST_OWNER).collect(),
            expires: until(at, seconds),
        };
        self.keep_lock(path.clone(), row).await
    }

    /// Prolongs a lock of the caller's own.
    ///
    /// # Errors
    /// `NotFound` when it is not there any more, `Denied` when it is somebody else's.
    pub async fn refresh_lock(&self, caller: &Caller, token: &str, seconds: u64) -> Result<LockRow> {
        let (path, row) = self.own_lock(caller, token)?;
        may_lock(caller, &path)?;
        let _turn = self.inner.locks.taking.lock().await;
        self.keep_lock(path, LockRow { expires: until(now(), seconds), ..row }).await
    }

    /// Gives a lock back. Whoever may administer the place may break another's lock.
    ///
    /// # Errors
    /// `NotFound` when it is not there any more, `Denied` when it is somebody else's.
    pub async fn unlock(&self, caller: &Caller, token: &str) -> Result<()> {
        self.own_lock(caller, token)?;
        self.catalog().commit(Batch { edits: vec![Edit::RemoveLock(token.to_owned())] }).await?;
        self.inner.locks.remove(token);
        Ok(())
    }

    /// Locks that cover a path, for clients that ask.
    #[must_use]
    pub fn locks_on(&self, path: &TreePath) -> Vec<LockRow> {
        let at = now();
        let held = self.inner.locks.held.read();
        let covers =
            |lock: &&Held| lock.row.expires > at && (lock.path == *path || (lock.row.deep && path.is_in(&lock.path)));
        held.iter().filter(covers).map(|lock| lock.row.clone()).collect()
    }

    async fn keep_lock(&self, path: TreePath, row: LockRow) -> Result<LockRow> {
        self.catalog().commit(Batch { edits: vec![Edit::PutLock(row.clone())] }).await?;
        self.inner.locks.put(path, row.clone());
        Ok(row)
    }

    fn own_lock(&self, caller: &Caller, token: &str) -> Result<(TreePath, LockRow)> {
        let gone = || Error::new(Kind::NotFound, "there is no such lock any more");
        let (path, row) = self.inner.locks.of(token, now()).ok_or_else(gone)?;
        let verbs = caller.rights(&path);
        match (!caller.is_guest() && row.account == caller.name()) || verbs.has(Verb::Admin) {
            true => Ok((path, row)),
            false if verbs.is_empty() => Err(gone()),
            false => Err(Error::new(Kind::Denied, "this lock is somebody else's")),
        }
    }
}

/// Only a signed-in caller who may change something there.
fn may_lock(caller: &Caller, path: &TreePath) -> Result<()> {
    let verbs = caller.rights(path);
    if caller.is_guest() {
        return Err(Error::new(Kind::Unauthenticated, "sign in first"));
    }
    let writes = [Verb::Overwrite, Verb::Create, Verb::Delete, Verb::Rename];
    match writes.into_iter().any(|verb| verbs.has(verb)) {
        true => Ok(()),
        false => caller.allow(Verb::Overwrite, path),
    }
}

fn held_by(lock: &LockRow) -> Error {
    Error::new(Kind::Locked, format!("locked by {}", lock.account))
}

/// A token nobody can guess.
fn fresh_id() -> Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn until(at: Micros, seconds: u64) -> Micros {
    let seconds = i64::try_from(seconds.clamp(1, LONGEST_SECONDS)).unwrap_or(1);
    at.saturating_add(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    fn held(path: &str, deep: bool, expires: Micros) -> Locks {
        let locks = Locks::default();
        locks.replace(vec![LockRow { token: "t".into(), path: path.into(), deep, expires, ..LockRow::default() }]);
        locks
    }

    #[test]
    fn a_deep_lock_covers_what_is_below_and_a_plain_one_only_itself() {
        let none: [String; 0] = [];
        assert!(held("/a", true, 10).obstacle(&at("/a/b/c"), &none, 1).is_some());
        assert!(held("/a", false, 10).obstacle(&at("/a/b"), &none, 1).is_none());
        assert!(held("/a", false, 10).obstacle(&at("/a"), &none, 1).is_some());
        assert!(held("/a", true, 10).obstacle(&at("/ab"), &none, 1).is_none());
        assert!(held("/a/b", false, 10).obstacle_in(&at("/a"), &none, 1).is_some());
        assert!(held("/a/b", false, 10).obstacle(&at("/a"), &none, 1).is_none());
    }

    #[test]
    fn its_token_or_its_time_lets_one_pass() {
        assert!(held("/a", true, 10).obstacle(&at("/a"), &["t".to_owned()], 1).is_none());
        assert!(held("/a", true, 10).obstacle(&at("/a"), &[], 10).is_none());
    }

    #[test]
    fn an_account_cannot_hold_too_many() {
        let locks = Locks::default();
        let row = |n: usize| LockRow {
            token: format!("t{n}"),
            path: format!("/{n}"),
            account: "eve".into(),
            expires: 10,
            ..LockRow::default()
        };
        locks.replace((0..MOST_OF_ONE).map(row).collect());
        assert_eq!(locks.room_for("eve", 1).unwrap_err().kind(), Kind::Throttled);
        assert!(locks.room_for("bob", 1).is_ok());
        assert!(locks.room_for("eve", 10).is_ok(), "those past their time are dropped");
    }
}
