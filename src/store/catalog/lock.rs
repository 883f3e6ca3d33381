//! The records of locks: taken, prolonged and given back, and the guard that a commit passes only where no lock stands in its way.

use super::columns::Columns;
use super::engine::{Must, Row, Transaction, Value, guarded, plain};
use super::handle::Catalog;
use super::rows::LockRow;
use crate::error::{Kind, Result};
use crate::store::Micros;

// One statement for whatever a lock can be held on: the path and the folder it is in (?3, ?4), whatever is above them as long
// as the lock is deep (?5 to ?10), and what is below (?11, ?12). Locks in ?2 are known to the asker; ?13 asks for exclusive ones only.
// Mostly nobody holds any lock, and the first question is enough.
const UNLOCKED: &str = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM locks WHERE path >= '') \
     OR NOT EXISTS (SELECT 1 FROM locks WHERE expires > ?1 \
     AND ((path IN (?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) AND (deep OR path = ?3 OR path = ?4)) \
         OR (path >= ?11 AND path < ?12)) \
     AND CAST(?2 AS TEXT) NOT LIKE '%' || token || '%' AND (CAST(?13 AS BIGINT) = 0 OR NOT shared))";
// Commits of two daemons do not see each other's rows: those that take a lock go one after the other.
const TURN: &str = "UPDATE meta SET value = value WHERE key = 'locks'";
const INSERT: &str = "INSERT INTO locks (token, path, deep, shared, account, owner, expires) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const REFRESH: &str = "UPDATE locks SET expires = ?2 WHERE token = ?1 AND expires > ?3";
const REMOVE: &str = "DELETE FROM locks WHERE token = ?1";
const LIVE: &str = "SELECT token, path, deep, shared, account, owner, expires FROM locks WHERE expires > ?1 \
     ORDER BY path, token";

const LOCKED: Must = Must { kind: Kind::Locked, public: "someone else took a lock on it in this moment" };
const GONE: Must = Must { kind: Kind::NotFound, public: "there is no such lock any more" };

/// Folders above a path that one statement asks for.
const ABOVE: usize = 6;

/// Where no lock may be held that the asker does not know of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockGuard {
    /// Full path of the tree.
    pub path: String,
    /// A name comes or goes: the folder it is in counts too.
    pub member: bool,
    /// All below it counts too.
    pub below: bool,
    /// Tokens of the locks that are known, and do not stand in the way.
    pub known: Vec<String>,
}

impl Catalog {
    /// All locks that are not past their time.
    pub async fn locks(&self, now: Micros) -> Result<Vec<LockRow>> {
        self.ask(LIVE, vec![Value::Int(now)]).await?.into_iter().map(lock).collect()
    }
}

/// Fails the batch with `Locked` when another lock is in the way.
pub(super) fn guard(into: &mut Transaction, guard: &LockGuard, now: Micros) {
    unlocked(into, guard, now, false);
}

/// Takes a lock: an exclusive one where no other is, a shared one where no exclusive one is. Those of the tokens `beside` do not count.
pub(super) fn take(into: &mut Transaction, row: LockRow, beside: Vec<String>, now: Micros) {
    let guard = LockGuard { path: row.path.clone(), member: false, below: row.deep, known: beside };
    guarded(into, TURN, Vec::new(), LOCKED);
    unlocked(into, &guard, now, row.shared);
    let params = vec![
        Value::Text(row.token),
        Value::Text(row.path),
        Value::Int(row.deep.into()),
        Value::Int(row.shared.into()),
        Value::Text(row.account),
        Value::Text(row.owner),
        Value::Int(row.expires),
    ];
    plain(into, INSERT, params);
}

/// Prolongs a lock that is still in force.
pub(super) fn refresh(into: &mut Transaction, token: String, expires: Micros, now: Micros) {
    guarded(into, REFRESH, vec![Value::Text(token), Value::Int(expires), Value::Int(now)], GONE);
}

/// Gives a lock back.
pub(super) fn remove(into: &mut Transaction, token: String) {
    plain(into, REMOVE, vec![Value::Text(token)]);
}

fn unlocked(into: &mut Transaction, guard: &LockGuard, now: Micros, exclusive_only: bool) {
    let above = above(&guard.path);
    let folder = above.first().filter(|_| guard.member).copied().unwrap_or(&guard.path);
    let (low, high) = match guard.below {
        true => below(&guard.path),
        false => (String::new(), String::new()),
    };
    let known = guard.known.join(" ");
    let mut rest = above.chunks(ABOVE);
    let mut first = true;
    loop {
        let chunk = rest.next();
        if chunk.is_none() && !first {
            return;
        }
        let text = |text: &str| if first { Value::text(text) } else { Value::text("") };
        let mut params = vec![Value::Int(now), Value::text(&known), text(&guard.path), text(folder)];
        params.extend((0..ABOVE).map(|at| Value::text(chunk.and_then(|chunk| chunk.get(at)).copied().unwrap_or(""))));
        params.extend([text(&low), text(&high), Value::Int(exclusive_only.into())]);
        guarded(into, UNLOCKED, params, LOCKED);
        first = false;
    }
}

/// The folders above a path, the nearest first: `/a/b/c` → `/a/b`, `/a`, `/`.
fn above(path: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = path;
    while let Some((folder, name)) = rest.rsplit_once('/') {
        if folder.is_empty() {
            if !name.is_empty() {
                found.push("/");
            }
            break;
        }
        found.push(folder);
        rest = folder;
    }
    found
}

/// Paths below a folder sort from the first of these to before the second.
fn below(path: &str) -> (String, String) {
    let folder = path.trim_end_matches('/');
    (format!("{folder}/"), format!("{folder}0"))
}

fn lock(row: Row) -> Result<LockRow> {
    let mut columns = Columns::of("locks", row);
    Ok(LockRow {
        token: columns.text()?,
        path: columns.text()?,
        deep: columns.truth()?,
        shared: columns.truth()?,
        account: columns.text()?,
        owner: columns.text()?,
        expires: columns.int()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::migrations::STEPS;

    #[test]
    fn a_lock_may_be_held_on_anything_above() {
        assert_eq!(above("/a/b/c"), ["/a/b", "/a", "/"]);
        assert_eq!(above("/a"), ["/"]);
        assert!(above("/").is_empty());
        assert_eq!(below("/"), ("/".to_owned(), "0".to_owned()));
        assert_eq!(below("/a"), ("/a/".to_owned(), "/a0".to_owned()));
    }

    #[test]
    fn a_deep_path_takes_as_many_statements_as_it_needs() {
        let count = |path: &str| {
            let mut into = Transaction::default();
            guard(&mut into, &LockGuard { path: path.into(), ..LockGuard::default() }, 0);
            into.statements.len()
        };
        assert_eq!((count("/"), count("/a"), count("/1/2/3/4/5/6"), count("/1/2/3/4/5/6/7")), (1, 1, 1, 2));
    }

    #[test]
    fn the_guard_is_answered_by_an_index() {
        let database = rusqlite::Connection::open_in_memory().expect("a database");
        for step in STEPS {
            database.execute_batch(step.sqlite).expect("the schema");
        }
        let mut plan = database.prepare(&format!("EXPLAIN QUERY PLAN {UNLOCKED}")).expect("a plan");
        let none = vec![Value::Null; plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(none), |row| row.get::<_, String>(3)).expect("a plan");
        let steps = steps.collect::<Result<Vec<_>, _>>().expect("a plan").join("; ");
        assert!(steps.contains("locks_path (path=?)") && !steps.contains("SCAN locks"), "{steps}");
    }
}
