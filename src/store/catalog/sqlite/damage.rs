//! Damage that shows when a catalog is opened: pages that SQLite did not write, and a redo log that is missing, cut short, or another's.
//!
//! The catalog keeps three facts for this in `meta`: `running` is 1 from the first open to a clean end; `redo_kept` is how many records of
//! which log are surely on the disk; `redo_before` is the log whose records may still stand at the start of the file.

use rusqlite::OptionalExtension;

use super::connection::word;
use super::redo::{Mark, Redo};
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use crate::store::catalog::{Statement, Transaction, Value};

const GET: &str = "SELECT value FROM meta WHERE key = ?1";
const SET: &str =
    "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

const RUNNING: &str = "running";
const KEPT: &str = "redo_kept";
const BEFORE: &str = "redo_before";

/// A catalog up to this size is looked through at each start; a larger one only when the last end was not clean.
const SMALL: u64 = 16 << 20;

impl Writer {
    fn fact(&self, key: &str) -> Result<Option<String>> {
        self.connection.query_row(GET, [key], |row| row.get(0)).optional().map_err(word)
    }

    fn note(&self, key: &str, value: String) -> Result<()> {
        let params = vec![Value::text(key), Value::Text(value)];
        self.touch(&Statement { sql: SET, params, must: None }).map(drop)
    }

    fn was_running(&self) -> Result<bool> {
        Ok(self.fact(RUNNING)?.is_some_and(|value| value == "1"))
    }

    /// Looks through the pages.
    pub(super) fn check_pages(&self) -> Result<()> {
        self.look_through().map_err(|error| match error.kind() {
            Kind::Corrupt => {
                let text = format!("{} is damaged ({}): {WAYS_OUT}", self.file.display(), error.detail().trim());
                Error::new(Kind::Corrupt, text).with(error)
            }
            _ => error,
        })
    }

    fn look_through(&self) -> Result<()> {
        if self.format()?.is_none() {
            return Ok(());
        }
        let size = std::fs::metadata(&self.file).map_or(0, |there| there.len());
        if size > SMALL && !self.was_running()? {
            return Ok(());
        }
        let found = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match found.map_err(word)? {
            words if words == "ok" => Ok(()),
            words => Err(Error::new(Kind::Corrupt, words)),
        }
    }

    /// Is this the log that the catalog knows, with all that was surely in it? `last` is the number of its last whole record.
    pub(super) fn check_log(&self, redo: &Redo, mark: Mark, last: u64) -> Result<()> {
        let damaged = |what: String| Err(Error::new(Kind::Corrupt, what));
        let first = redo.first_log()?;
        if redo.is_empty() {
            return match self.was_running()? {
                true => damaged("it is missing or empty, but the last run did not end cleanly".into()),
                false => Ok(()),
            };
        }
        if let (Some(first), Some(before)) = (first, self.fact(BEFORE)?)
            && first != mark.log
            && before != first.to_string()
        {
            return damaged("it belongs to another catalog, or to an older or newer copy of this one".into());
        }
        let kept = self.fact(KEPT)?.unwrap_or_default();
        let kept = kept.split_once(':').filter(|(log, _)| *log == mark.log.to_string());
        let kept = kept.and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(0);
        match last < kept {
            true => damaged(format!("it ends at record {last}, but had {kept}")),
            false => Ok(()),
        }
    }

    /// Notes what is surely in the log.
    pub(super) fn note_kept(&self, redo: &Redo) -> Result<()> {
        self.note(KEPT, format!("{}:{}", redo.mark().log, redo.synced()))
    }

    /// Notes that the log is begun anew, and whether anybody goes on with it.
    pub(super) fn note_new_log(&self, next: Mark) -> Result<()> {
        let before = match &self.redo {
            Some(redo) => redo.first_log()?.unwrap_or(0),
            None => 0,
        };
        self.note(BEFORE, before.to_string())?;
        self.note(KEPT, format!("{}:0", next.log))?;
        self.note(RUNNING, if self.ending { "0" } else { "1" }.to_owned())
    }

    /// Applies a record of a damaged log; false where it does not fit, and so nothing behind it does.
    pub(super) fn apply_if_it_fits(&mut self, transaction: &Transaction) -> Result<bool> {
        self.run_words("SAVEPOINT record").map_err(word)?;
        let fits = self.apply(transaction).is_ok();
        if !fits {
            self.head = None;
            self.run_words("ROLLBACK TO record").map_err(word)?;
        }
        self.run_words("RELEASE record").map_err(word)?;
        Ok(fits)
    }
}

/// What an operator can do about damaged pages.
pub(super) const WAYS_OUT: &str = "restore it with catalog.redo from one backup, or run `stoa verify --adopt` to begin anew over the tree \
                        (accounts, grants, spaces and quotas made by command are lost then)";

/// What an operator can do about a damaged log.
pub(super) const LOG_WAYS_OUT: &str = "restore both from one backup, or run `stoa verify --repair` to go on with what can be read: \
                                       it lists what is lost";

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::store::catalog::sql::transaction;
    use crate::store::catalog::sqlite::Sqlite;
    use crate::store::catalog::{Batch, CatalogSettings, Edit, Engine as _};
    use crate::store::{Expect, FileRow, HistoryLine};

    fn put(path: &str) -> Vec<Transaction> {
        let row = FileRow { space: "/s".into(), path: path.into(), ..FileRow::default() };
        let line = Edit::History(HistoryLine { path: path.into(), ..HistoryLine::default() });
        vec![transaction(Batch { edits: vec![Edit::PutFile(row, Expect::Absent), line] }, "one")]
    }

    fn open(folder: &Path, lenient: bool) -> Result<Writer> {
        Writer::open_with(&folder.join("catalog.db"), "one", Arc::default(), lenient)
    }

    fn paths(folder: &Path) -> Vec<String> {
        let other = rusqlite::Connection::open(folder.join("catalog.db")).expect("another process");
        let mut listed = other.prepare("SELECT path FROM history ORDER BY seq").expect("a query");
        let paths = listed.query_map([], |row| row.get(0)).expect("rows");
        paths.collect::<rusqlite::Result<_>>().expect("paths")
    }

    /// A catalog whose daemon was killed: `a` and `b` are committed, `c` and `d` are in the redo log alone.
    fn killed() -> tempfile::TempDir {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let mut writer = open(folder.path(), false).expect("a catalog");
        for path in ["a", "b"] {
            assert!(writer.write(put(path)).iter().all(Result::is_ok));
        }
        writer.settle().expect("a commit");
        for path in ["c", "d"] {
            assert!(writer.write(put(path)).iter().all(Result::is_ok));
        }
        for name in ["catalog.db", "catalog.db-wal", "catalog.redo"] {
            std::fs::copy(folder.path().join(name), other.path().join(name)).expect("a copy");
        }
        other
    }

    type Harm = Box<dyn Fn(&Path)>;

    #[test]
    fn a_log_that_is_not_the_one_is_refused_and_can_be_gone_on_without() {
        let foreign = std::fs::read(killed().path().join("catalog.redo")).expect("a log");
        let at = |bytes: &[u8], name: &[u8]| memchr::memmem::find(bytes, name).expect("a record");
        let change = |how: fn(Vec<u8>) -> Vec<u8>| -> Harm {
            Box::new(move |log| std::fs::write(log, how(std::fs::read(log).expect("a log"))).expect("written"))
        };
        let harms: Vec<(&str, Harm, &[&str])> = vec![
            ("missing", Box::new(|log| std::fs::remove_file(log).expect("there")), &["a", "b"]),
            ("missing or empty", change(|_| Vec::new()), &["a", "b"]),
            ("ends at record 1", change(|bytes| bytes.into_iter().take(250).collect()), &["a", "b"]),
            ("another catalog", Box::new(move |log| std::fs::write(log, &foreign).expect("written")), &["a", "b"]),
            ("another catalog", change(|bytes| vec![b'x'; bytes.len()]), &["a", "b"]),
            (
                "record 3",
                Box::new(move |log| {
                    let mut bytes = std::fs::read(log).expect("a log");
                    let third = at(&bytes, b"c");
                    bytes.get_mut(third..=third).expect("inside").fill(b'?');
                    std::fs::write(log, bytes).expect("written");
                }),
                &["a", "b"],
            ),
        ];
        for (words, harm, left) in harms {
            let folder = killed();
            harm(&folder.path().join("catalog.redo"));
            let refused = open(folder.path(), false).err().unwrap_or_else(|| panic!("{words}: taken"));
            assert_eq!(refused.kind(), Kind::Corrupt, "{words}");
            assert!(
                refused.public().contains("catalog.redo") && refused.public().contains("verify --repair"),
                "{refused}"
            );
            drop(open(folder.path(), true).unwrap_or_else(|error| panic!("{words}: {error}")));
            assert_eq!(paths(folder.path()), left, "{words}");
            drop(open(folder.path(), false).unwrap_or_else(|error| panic!("{words}: {error}")));
        }
    }

    #[test]
    fn an_older_catalog_is_not_taken_with_a_newer_log() {
        let folder = killed();
        let older = std::fs::read(folder.path().join("catalog.db")).expect("a catalog");
        let wal = std::fs::read(folder.path().join("catalog.db-wal")).expect("a log");
        for round in 0..2 {
            let mut writer = open(folder.path(), false).expect("a catalog");
            assert!(writer.write(put(&format!("later {round}"))).iter().all(Result::is_ok));
        }
        std::fs::write(folder.path().join("catalog.db"), older).expect("restored");
        std::fs::write(folder.path().join("catalog.db-wal"), wal).expect("restored");
        let _ = std::fs::remove_file(folder.path().join("catalog.db-shm"));
        assert_eq!(open(folder.path(), false).err().map(|error| error.kind()), Some(Kind::Corrupt));
    }

    #[tokio::test]
    async fn after_a_clean_end_the_log_is_not_needed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("catalog.db");
        let catalog = Sqlite::open(&file, "one", &CatalogSettings::default()).expect("a catalog");
        assert!(catalog.commit(put("a")).await.iter().all(Result::is_ok));
        drop(catalog);
        std::fs::remove_file(folder.path().join("catalog.redo")).expect("there");
        drop(open(folder.path(), false).expect("a catalog"));
        assert_eq!(paths(folder.path()), ["a"]);
    }

    #[test]
    fn damaged_pages_are_found_at_the_start() {
        let folder = killed();
        drop(open(folder.path(), false).expect("a catalog"));
        let file = folder.path().join("catalog.db");
        let _ = rusqlite::Connection::open(&file)
            .and_then(|it| it.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        let mut bytes = std::fs::read(&file).expect("a catalog");
        let quarter = bytes.len() / 4;
        bytes.get_mut(quarter..3 * quarter).expect("inside").fill(0xa5);
        std::fs::write(&file, bytes).expect("written");
        let refused = open(folder.path(), false).err().expect("refused");
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
        assert!(refused.public().contains("catalog.db") && refused.public().contains("--adopt"), "{refused}");
    }
}
