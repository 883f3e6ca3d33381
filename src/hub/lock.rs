//! Locks on paths (RFC 4918 §6, §7), honoured by every door.
//!
//! The catalog holds the truth for all nodes; this process keeps a copy so that most refusals need not ask. What the copy does not
//! know yet, the guard of each commit finds. A lock is taken by a signed-in caller who may write there, for a limited time; its
//! token is of use to that account alone.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Answer, Sight};
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::settings::LockSettings;
use crate::hub::{Caller, Hub, NodeKind, WriteOptions, now};
use crate::store::{Batch, Catalog, Edit, LockGuard, LockRow, Micros};

/// What a change does to a path, as locks see it (RFC 4918 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is there changes; its name stays.
    Content,
    /// A name comes or goes: that also changes the folder it is in.
    Member,
    /// A name comes or goes with all below it.
    Tree,
}

/// A lock that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// With all below it.
    pub deep: bool,
    /// Others may hold one beside it.
    pub shared: bool,
    /// What the client says of itself, XML.
    pub owner: String,
    /// For how long; `None`: as long as may be.
    pub seconds: Option<u64>,
}

/// The locks in force, kept equal to the catalog.
#[derive(Default)]
pub struct Locks {
    /// By path, so that what is below one stands together.
    held: parking_lot::RwLock<BTreeMap<String, Vec<LockRow>>>,
    /// One is taken at a time, so that two overlapping ones cannot both be.
    taking: tokio::sync::Mutex<()>,
}

impl Locks {
    /// Reads those in force.
    pub async fn load(catalog: &Catalog, now: Micros) -> Result<Self> {
        let locks = Self::default();
        locks.replace(catalog.locks(now).await?);
        Ok(locks)
    }

    /// Reads again what is in force.
    pub async fn reload(&self, catalog: &Catalog, now: Micros) -> Result<()> {
        let _turn = self.taking.lock().await;
        self.replace(catalog.locks(now).await?);
        Ok(())
    }

    /// May an account with these tokens do this? Whatever is locked needs one token of its own.
    ///
    /// # Errors
    /// The lock in the way.
    pub fn pass(
        &self,
        path: &TreePath,
        reach: Reach,
        account: &str,
        tokens: &[&str],
        now: Micros,
    ) -> Result<LockGuard, Box<LockRow>> {
        let held = self.held.read();
        let mine = |row: &LockRow| row.account == account && tokens.contains(&row.token.as_str());
        let mut known = Vec::new();
        let mut judge = |rows: Vec<&LockRow>| {
            if let Some(other) = rows.first().filter(|_| !rows.iter().any(|row| mine(row))) {
                return Err(Box::new((*other).clone()));
            }
            known.extend(rows.into_iter().map(|row| row.token.clone()));
            Ok(())
        };
        if !held.is_empty() {
            judge(covering(&held, path, now))?;
            if let Some(folder) = path.parent().filter(|_| reach != Reach::Content) {
                judge(covering(&held, &folder, now))?;
            }
            if reach == Reach::Tree {
                for (place, _) in below(&held, path) {
                    let place = TreePath::parse(place).unwrap_or_else(|_| path.clone());
                    judge(covering(&held, &place, now))?;
                }
            }
        }
        let (member, below) = (reach != Reach::Content, reach == Reach::Tree);
        Ok(LockGuard { path: path.to_string(), member, below, known })
    }

    /// A lock that a new one cannot be beside. Of those below it only the ones it reaches count.
    fn rival(&self, path: &TreePath, wish: &Wish, now: Micros, reaches: impl Fn(&LockRow) -> bool) -> Option<LockRow> {
        let held = self.held.read();
        let rival = |row: &&LockRow| !(wish.shared && row.shared);
        let above = covering(&held, path, now).into_iter().find(rival);
        let inside = || {
            let rows = below(&held, path).flat_map(|(_, rows)| rows).filter(|row| row.expires > now);
            rows.filter(|row| reaches(row)).find(rival)
        };
        above.or_else(|| if wish.deep { inside() } else { None }).cloned()
    }

    /// Locks whose scope this path is in.
    fn on(&self, path: &TreePath, now: Micros) -> Vec<LockRow> {
        covering(&self.held.read(), path, now).into_iter().cloned().collect()
    }

    /// The locks held on this very path and on what is below it.
    fn within(&self, path: &TreePath) -> Vec<LockRow> {
        let held = self.held.read();
        let own = held.get(&path.to_string()).into_iter().flatten();
        own.chain(below(&held, path).flat_map(|(_, rows)| rows)).cloned().collect()
    }

    fn replace(&self, rows: Vec<LockRow>) {
        let mut held: BTreeMap<String, Vec<LockRow>> = BTreeMap::new();
        for row in rows {
            held.entry(row.path.clone()).or_default().push(row);
        }
        *self.held.write() = held;
    }

    fn put(&self, row: LockRow) {
        self.remove(std::slice::from_ref(&row.token));
        self.held.write().entry(row.path.clone()).or_default().push(row);
    }

    pub(super) fn remove(&self, tokens: &[String]) {
        if !tokens.is_empty() {
            self.retain(|row| !tokens.contains(&row.token));
        }
    }

    fn retain(&self, keep: impl Fn(&LockRow) -> bool) {
        self.held.write().retain(|_, rows| {
            rows.retain(&keep);
            !rows.is_empty()
        });
    }

    fn of(&self, token: &str, now: Micros) -> Option<LockRow> {
        let held = self.held.read();
        held.values().flatten().find(|row| row.token == token && row.expires > now).cloned()
    }

    /// Room for one more of this account; what is past its time is dropped on the way.
    fn room_for(&self, account: &str, limits: &LockSettings, now: Micros) -> Result<()> {
        self.retain(|row| row.expires > now);
        let held = self.held.read();
        let own = held.values().flatten().filter(|row| row.account == account).count();
        let all = held.values().map(Vec::len).sum::<usize>();
        match all >= limits.most || own >= limits.most_of_account {
            true => Err(Error::new(Kind::Throttled, "too many locks are held; give some back")),
            false => Ok(()),
        }
    }
}

/// Live locks in whose scope a path is: on itself, or deep ones above it.
fn covering<'a>(held: &'a BTreeMap<String, Vec<LockRow>>, path: &TreePath, now: Micros) -> Vec<&'a LockRow> {
    let mut found = Vec::new();
    let mut at = Some(path.clone());
    while let Some(place) = at {
        let rows = held.get(&place.to_string()).into_iter().flatten();
        found.extend(rows.filter(|row| row.expires > now && (row.deep || place == *path)));
        at = place.parent();
    }
    found
}

/// Places below a path on which locks are held, with these.
fn below<'a>(
    held: &'a BTreeMap<String, Vec<LockRow>>,
    path: &TreePath,
) -> impl Iterator<Item = (&'a String, &'a Vec<LockRow>)> {
    let folder = if path.is_root() { String::new() } else { path.to_string() };
    let itself = path.to_string();
    held.range(format!("{folder}/")..format!("{folder}0")).filter(move |(place, _)| **place != itself)
}

impl Hub {
    /// Takes a lock on a path. Needs a verb that writes there; where nothing is, an empty file is made (RFC 4918 §7.3). Says whether
    /// that was so.
    ///
    /// # Errors
    /// The verdict's; `Locked` when another lock overlaps; `Throttled` when too many are held; those of [`Caller::write`].
    pub async fn lock(&self, caller: &Caller, path: &TreePath, wish: Wish) -> Result<(LockRow, bool)> {
        let view = self.view();
        let there = match view.space_of(path) {
            // It is answered as if nothing were there.
            _ if view.is_hidden(caller.account(), path) => None,
            // A folder that is only on the way to spaces.
            None => Some(NodeKind::Folder),
            Some((space, rel)) => match space.volume.stat(&rel).await {
                Ok(node) => Some(node.kind),
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        may_lock(caller, path, there)?;
        let row = self.take_lock(caller, path, wish).await?;
        if there.is_some() {
            return Ok((row, false));
        }
        let options = WriteOptions {
            size: Some(0),
            only_if: Some(None),
            tokens: vec![row.token.clone()],
            ..WriteOptions::default()
        };
        let made = match caller.write(path, options).await {
            Ok(upload) => upload.commit().await,
            Err(error) => Err(error),
        };
        match made {
            Ok(_) => Ok((row, true)),
            Err(error) => {
                self.end_lock(&row.token).await?;
                Err(error)
            }
        }
    }

    async fn take_lock(&self, caller: &Caller, path: &TreePath, wish: Wish) -> Result<LockRow> {
        let view = self.view();
        let limits = &view.settings.locks;
        if wish.owner.len() as u64 > limits.owner.0 {
            return Err(Error::new(
                Kind::TooLarge,
                format!("what a client says of itself is at most {}", limits.owner),
            ));
        }
        let _turn = self.inner.locks.taking.lock().await;
        let at = now();
        if let Some(other) = self.inner.locks.rival(path, &wish, at, |row| caller.may_know_of(row)) {
            return Err(match caller.may_know_of(&other) {
                true => held_by(&other),
                false => Error::new(Kind::Locked, "it is locked; try again later"),
            });
        }
        self.inner.locks.room_for(caller.name(), limits, at)?;
        let out_of_reach = self.inner.locks.within(path).into_iter().filter(|row| !caller.may_know_of(row));
        let beside = out_of_reach.map(|row| row.token).collect();
        let row = LockRow {
            token: format!("opaquelocktoken:{}", fresh_id()?),
            path: path.to_string(),
            deep: wish.deep,
            shared: wish.shared,
            account: caller.name().to_owned(),
            owner: wish.owner,
            expires: until(at, wish.seconds, limits),
        };
        let line = Sight { hub: self, view: &view, caller, again: false }.line("lock", path, 0, "");
        self.catalog().commit(Batch { edits: vec![Edit::PutLock(row.clone(), beside), line] }).await?;
        self.inner.locks.put(row.clone());
        Ok(row)
    }

    /// Prolongs a lock of the caller's own in whose scope the path is.
    ///
    /// # Errors
    /// `NotFound` when it is not there any more or not here, `Denied` when it is somebody else's.
    pub async fn refresh_lock(
        &self,
        caller: &Caller,
        path: &TreePath,
        token: &str,
        seconds: Option<u64>,
    ) -> Result<LockRow> {
        let row = self.own_lock(caller, path, token)?;
        if row.account != caller.name() {
            return Err(Error::new(Kind::Denied, "this lock is somebody else's"));
        }
        let _turn = self.inner.locks.taking.lock().await;
        let row = LockRow { expires: until(now(), seconds, &self.view().settings.locks), ..row };
        let refresh = Edit::RefreshLock { token: row.token.clone(), expires: row.expires };
        self.catalog().commit(Batch { edits: vec![refresh] }).await?;
        self.inner.locks.put(row.clone());
        Ok(row)
    }

    /// Gives a lock back in whose scope the path is. Whoever may administer the place may break another's lock.
    ///
    /// # Errors
    /// `NotFound` when it is not there any more or not here, `Denied` when it is somebody else's.
    pub async fn unlock(&self, caller: &Caller, path: &TreePath, token: &str) -> Result<()> {
        let row = self.own_lock(caller, path, token)?;
        let line = Sight { hub: self, view: &self.view(), caller, again: false }.line("unlock", path, 0, "");
        let _turn = self.inner.locks.taking.lock().await;
        self.catalog().commit(Batch { edits: vec![Edit::RemoveLock(row.token), line] }).await?;
        self.inner.locks.remove(&[token.to_owned()]);
        Ok(())
    }

    async fn end_lock(&self, token: &str) -> Result<()> {
        let _turn = self.inner.locks.taking.lock().await;
        self.catalog().commit(Batch { edits: vec![Edit::RemoveLock(token.to_owned())] }).await?;
        self.inner.locks.remove(&[token.to_owned()]);
        Ok(())
    }

    /// Locks in whose scope a path is, for clients that ask.
    #[must_use]
    pub fn locks_on(&self, path: &TreePath) -> Vec<LockRow> {
        self.inner.locks.on(path, now())
    }

    fn own_lock(&self, caller: &Caller, path: &TreePath, token: &str) -> Result<LockRow> {
        let gone = || Error::new(Kind::NotFound, "there is no such lock here any more");
        let row = self.inner.locks.of(token, now()).ok_or_else(gone)?;
        let place = TreePath::parse(&row.path).map_err(|_| gone())?;
        if *path != place && !(row.deep && path.is_in(&place)) {
            return Err(gone());
        }
        let verbs = caller.rights(&place);
        match (!caller.is_guest() && row.account == caller.name()) || verbs.has(Verb::Admin) {
            true => Ok(row),
            false if verbs.is_empty() => Err(gone()),
            false => Err(Error::new(Kind::Denied, "this lock is somebody else's")),
        }
    }
}

impl Caller {
    /// The place of the lock that keeps this caller from such a change, if one does.
    #[must_use]
    pub fn lock_in_the_way(&self, path: &TreePath, reach: Reach) -> Option<TreePath> {
        let tokens: Vec<&str> = self.tokens().iter().map(String::as_str).collect();
        let passed = self.hub().inner.locks.pass(path, reach, self.name(), &tokens, now());
        passed.err().filter(|row| self.may_know_of(row)).and_then(|row| TreePath::parse(&row.path).ok())
    }

    /// Passes locks with the tokens the caller holds and these.
    ///
    /// # Errors
    /// `Locked`.
    pub(crate) fn unlocked(&self, path: &TreePath, tokens: &[String], reach: Reach) -> Result<LockGuard> {
        let tokens: Vec<&str> = tokens.iter().chain(self.tokens()).map(String::as_str).collect();
        let passed = self.hub().inner.locks.pass(path, reach, self.name(), &tokens, now());
        passed.map_err(|row| match self.may_know_of(&row) {
            true => held_by(&row),
            false => Error::new(Kind::Locked, "it is locked, or something in it is; try again later"),
        })
    }

    /// Whose lock it is and on what is told only to those who may see that place.
    pub(crate) fn may_know_of(&self, row: &LockRow) -> bool {
        TreePath::parse(&row.path).is_ok_and(|place| !self.rights(&place).is_empty())
    }

    /// The caller holds a lock on this very path and has shown its token: an empty file there is one it means to fill.
    pub(crate) fn holds(&self, path: &TreePath, tokens: &[String]) -> bool {
        let own = |row: &LockRow| row.account == self.name() && row.path == path.to_string();
        let shown = |row: &LockRow| tokens.contains(&row.token) || self.tokens().contains(&row.token);
        self.hub().locks_on(path).iter().any(|row| own(row) && shown(row))
    }
}

impl Sight<'_> {
    /// Someone else's lock forbids it; the edit sees to it that this is still so at the commit.
    pub(crate) fn unlocked(&self, path: &TreePath, tokens: &[String], reach: Reach) -> Result<Edit> {
        self.caller.unlocked(path, tokens, reach).map(Edit::Unlocked)
    }

    /// Locks that end because what they are on goes: the edits, and the locks for [`Sight::end_locks`].
    pub(crate) fn ended_locks(&self, path: &TreePath) -> (Vec<Edit>, Vec<LockRow>) {
        let locks = self.hub.inner.locks.within(path);
        (locks.iter().map(|row| Edit::RemoveLock(row.token.clone())).collect(), locks)
    }

    /// What takes the locks again if the change is refused after the commit, and what forgets them when it is done.
    pub(crate) fn end_locks(&self, locks: Vec<LockRow>) -> (Vec<Edit>, Answer<()>) {
        let tokens = locks.iter().map(|row| row.token.clone()).collect();
        (locks.into_iter().map(|row| Edit::PutLock(row, Vec::new())).collect(), self.ending(tokens))
    }

    /// Forgets the locks that ended, once the commit is done.
    pub(crate) fn ending(&self, tokens: Vec<String>) -> Answer<()> {
        let hub = self.hub.clone();
        Box::new(move |_| hub.inner.locks.remove(&tokens))
    }
}

/// Only a signed-in caller who may change what is there, or make what is not.
fn may_lock(caller: &Caller, path: &TreePath, there: Option<NodeKind>) -> Result<()> {
    if caller.is_guest() {
        return Err(Error::new(Kind::Unauthenticated, "sign in first"));
    }
    let verbs = caller.rights(path);
    let writes = [Verb::Overwrite, Verb::Delete, Verb::Rename];
    match there {
        // An answer that depends on the name would tell that it is taken.
        None | Some(NodeKind::File | NodeKind::Special) if caller.is_unseeing(path) => {
            caller.allow(Verb::Overwrite, path)
        }
        None => caller.allow(Verb::Create, path),
        Some(_) if writes.into_iter().any(|verb| verbs.has(verb)) => Ok(()),
        Some(_) => caller.allow(Verb::Overwrite, path),
    }
}

fn held_by(lock: &LockRow) -> Error {
    let seconds = lock.expires.saturating_sub(now()).max(0) / 1_000_000;
    let account = &lock.account;
    let text = match seconds {
        ..120 => format!("locked by {account} for another {seconds} seconds, or until it is given back"),
        _ => format!("locked by {account} for another {} minutes, or until it is given back", seconds / 60),
    };
    Error::new(Kind::Locked, text)
}

/// A token nobody can guess.
fn fresh_id() -> Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn until(at: Micros, seconds: Option<u64>, limits: &LockSettings) -> Micros {
    let longest = limits.longest.0.as_secs().max(1);
    let seconds = i64::try_from(seconds.unwrap_or(longest).clamp(1, longest)).unwrap_or(1);
    at.saturating_add(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TreePath {
        TreePath::parse(text).expect(text)
    }

    fn row(token: &str, path: &str, deep: bool, shared: bool) -> LockRow {
        let (account, expires) = ("ann".into(), 10);
        LockRow { token: token.into(), path: path.into(), deep, shared, account, expires, ..LockRow::default() }
    }

    fn held(path: &str, deep: bool) -> Locks {
        let locks = Locks::default();
        locks.replace(vec![row("t", path, deep, false)]);
        locks
    }

    fn passes(locks: &Locks, path: &str, reach: Reach, tokens: &[&str]) -> bool {
        locks.pass(&at(path), reach, "ann", tokens, 1).is_ok()
    }

    #[test]
    fn a_deep_lock_covers_what_is_below_and_a_plain_one_only_itself() {
        for (path, deep, asked, reach, passed) in [
            ("/a", true, "/a/b/c", Reach::Content, false),
            ("/a", false, "/a/b", Reach::Content, true),
            ("/a", false, "/a/b", Reach::Member, false),
            ("/a", false, "/a/b/c", Reach::Member, true),
            ("/a", false, "/a", Reach::Content, false),
            ("/a", true, "/ab", Reach::Tree, true),
            ("/a/b", false, "/a", Reach::Tree, false),
            ("/a/b", false, "/a", Reach::Member, true),
            ("/", true, "/a", Reach::Content, false),
            ("/a", false, "/", Reach::Tree, false),
        ] {
            assert_eq!(passes(&held(path, deep), asked, reach, &[]), passed, "{path} {asked} {reach:?}");
            assert!(passes(&held(path, deep), asked, reach, &["t"]), "{path} {asked} {reach:?}");
        }
    }

    #[test]
    fn a_token_is_of_use_to_its_account_alone_and_for_its_time() {
        let locks = held("/a", true);
        assert!(locks.pass(&at("/a"), Reach::Content, "bob", &["t"], 1).is_err());
        assert!(locks.pass(&at("/a"), Reach::Content, "bob", &[], 10).is_ok());
    }

    #[test]
    fn one_of_several_shared_locks_is_enough_for_its_holder() {
        let locks = Locks::default();
        let theirs = LockRow { account: "bob".into(), ..row("b", "/a/x", false, true) };
        locks.replace(vec![row("a", "/a/x", false, true), theirs, row("c", "/a/y", false, true)]);
        assert!(passes(&locks, "/a/x", Reach::Content, &["a"]));
        assert!(!passes(&locks, "/a/x", Reach::Content, &["b"]));
        assert!(!passes(&locks, "/a", Reach::Tree, &["a"]), "each locked name needs a token");
        assert!(passes(&locks, "/a", Reach::Tree, &["a", "c"]));
        let rival = |path: &str, deep, shared| {
            locks.rival(&at(path), &Wish { deep, shared, ..Wish::default() }, 1, |_| true).is_some()
        };
        assert!(!rival("/a/x", false, true) && rival("/a/x", false, false));
        assert!(rival("/a", true, false) && !rival("/a", true, true) && !rival("/a", false, false));
    }

    #[test]
    fn an_account_cannot_hold_too_many() {
        let limits = LockSettings { most: 100, most_of_account: 10, ..LockSettings::default() };
        let locks = Locks::default();
        locks.replace((0..10).map(|n| row(&format!("t{n}"), &format!("/{n}"), false, false)).collect());
        assert_eq!(locks.room_for("ann", &limits, 1).unwrap_err().kind(), Kind::Throttled);
        assert!(locks.room_for("bob", &limits, 1).is_ok());
        assert!(locks.room_for("ann", &limits, 10).is_ok(), "those past their time are dropped");
    }
}
