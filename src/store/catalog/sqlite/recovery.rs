//! What the catalog and its redo log owe each other: what the log holds is taken in when it is found, the catalog says how far that has come,
//! and the log is begun anew when the catalog needs nothing of it.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use super::connection::word;
use super::damage::LOG_WAYS_OUT;
use super::record::{Between, Record};
use super::redo::{Mark, Redo};
use super::writer::{Writer, lost};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::sql::{CLEAR_INTENTS, INTENT};
use crate::store::catalog::{Statement, Transaction, Value};

/// How far the catalog has taken the redo log in.
const MARK: &str = "SELECT value FROM meta WHERE key = 'redo'";
const SET_MARK: &str =
    "INSERT INTO meta (key, value) VALUES ('redo', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

const PUT_BODY: &str = "UPDATE intents SET body = ?3 WHERE node = ?1 AND id = ?2 AND body IS NULL";

impl Writer {
    pub(super) fn read_mark(&self) -> Result<Option<Mark>> {
        let text = self.connection.query_row(MARK, [], |row| row.get::<_, String>(0)).optional().map_err(word)?;
        text.map(|text| Mark::parse(&text)).transpose()
    }

    pub(super) fn set_mark(&self, mark: Mark) -> Result<()> {
        self.touch(&Statement { sql: SET_MARK, params: vec![Value::Text(mark.text())], must: None }).map(drop)
    }

    /// Takes the redo log, where no other process has it, and does what it holds.
    pub(super) fn take_log(&mut self) -> Result<()> {
        self.redo = Redo::take(&self.log)?;
        if self.redo.is_some()
            && let Err(error) = self.check_pages().and_then(|()| self.recover()).and_then(|()| self.renew_log())
        {
            self.redo = None;
            return Err(error);
        }
        Ok(())
    }

    /// Does what the log holds and the catalog does not: acknowledged by a daemon that was killed.
    fn recover(&mut self) -> Result<()> {
        let Some(redo) = self.redo.take() else { return Ok(()) };
        let done = self.begin().and_then(|()| self.repeat(&redo));
        self.redo = Some(redo);
        let done = done.and_then(|()| self.run_words("COMMIT").map_err(lost));
        // Nothing but what `done` says is left to be undone.
        self.roll_back();
        done.map_err(|error| match error.kind() {
            Kind::Unavailable | Kind::Full | Kind::Invalid => error,
            kind => {
                let text = format!(
                    "{} does not fit the catalog, and acknowledged changes may be missing ({error}): {LOG_WAYS_OUT}",
                    self.log.display()
                );
                Error::new(kind, text).with(error)
            }
        })
    }

    fn repeat(&mut self, redo: &Redo) -> Result<()> {
        let Some(mark) = self.format()?.map(|_| self.read_mark()).transpose()?.flatten() else { return Ok(()) };
        let (node, mut last, mut fits) = (self.node.clone(), mark.number, true);
        let repeated = redo.read(mark, |record| {
            if record.number <= mark.number {
                return self.put_bodies(&record, |_| true);
            }
            if self.node != record.node {
                self.node.clone_from(&record.node);
                self.head = None;
            }
            if self.lenient {
                fits = fits && self.apply_if_it_fits(&record.transaction)?;
                last = if fits { record.number } else { last };
                return Ok(());
            }
            last = record.number;
            self.apply(&record.transaction)
        });
        (self.node, self.head) = (node, None);
        let end = repeated?;
        if !self.lenient {
            redo.check_end(end)?;
            self.check_log(redo, mark, end.number)?;
        }
        if last > mark.number {
            tracing::info!(
                changes = last - mark.number,
                "acknowledged changes of an earlier run were taken in from the redo log"
            );
        }
        self.set_mark(Mark { number: last, ..mark })
    }

    /// Remembers whose bodies are in the log alone, and behind which place of it.
    pub(super) fn note_bodies(&mut self, transaction: &Transaction, place: Between) {
        let Some(bodies) = &mut self.bodies else { return };
        for statement in &transaction.statements {
            match &statement.params[..] {
                [_, Value::Int(id), .., Value::Blob(_)] if statement.sql == INTENT => {
                    bodies.insert(*id, place);
                }
                [_, Value::Int(first), Value::Int(last)] if statement.sql == CLEAR_INTENTS => {
                    bodies.retain(|id, _| !(first..=last).contains(&id));
                }
                _ => {}
            }
        }
    }

    /// Puts the bodies of a record's intents into the catalog, where they are not cleared yet.
    fn put_bodies(&self, record: &Record, such: impl Fn(i64) -> bool) -> Result<()> {
        for statement in &record.transaction.statements {
            if let [node, Value::Int(id), .., body @ Value::Blob(_)] = &statement.params[..]
                && statement.sql == INTENT
                && such(*id)
            {
                let params = vec![node.clone(), Value::Int(*id), body.clone()];
                self.touch(&Statement { sql: PUT_BODY, params, must: None })?;
            }
        }
        Ok(())
    }

    /// Begins the redo log anew, once SQLite's own files hold all of it.
    pub(super) fn renew_log(&mut self) -> Result<()> {
        let ending = self.ending;
        let Some(redo) = self.redo.as_mut().filter(|redo| redo.is_used() || ending) else { return Ok(()) };
        if !self.connection.is_autocommit() || !self.uncommitted.is_empty() {
            return Ok(());
        }
        // Should it fail, nobody knows which log the catalog names.
        redo.close();
        redo.lay()?;
        if self.format()?.is_none() {
            return Ok(());
        }
        let log = Redo::next_log()?;
        self.synchronous("full")?;
        self.begin()?;
        let handed = self.hand_over(Mark::first(log)).and_then(|()| self.run_words("COMMIT").map_err(lost));
        self.roll_back();
        handed?;
        if let Some(redo) = &mut self.redo {
            redo.begin(log);
            self.bodies = Some(BTreeMap::new());
        }
        self.synchronous("normal")
    }

    /// The catalog names the next log, and needs nothing of the last.
    fn hand_over(&self, next: Mark) -> Result<()> {
        self.take_bodies_in()?;
        self.note_new_log(next)?;
        self.set_mark(next)
    }

    /// A clean end: the catalog needs nothing of the log any more, and says so.
    pub(super) fn end_log(&mut self) -> Result<()> {
        self.ending = true;
        self.renew_log()
    }

    /// Puts the bodies that are in the log alone into the catalog.
    fn take_bodies_in(&self) -> Result<()> {
        let (Some(redo), Some(bodies)) = (&self.redo, &self.bodies) else { return Ok(()) };
        // What was cleared long ago need not be read again.
        let Some(first) = bodies.values().copied().min_by_key(|place| place.end.at) else { return Ok(()) };
        redo.read_behind(first, |record| self.put_bodies(&record, |id| bodies.contains_key(&id)))
    }

    /// Lets readers see them.
    pub(super) fn show_bodies(&mut self) -> Result<()> {
        if self.bodies.as_ref().is_none_or(BTreeMap::is_empty) {
            return Ok(());
        }
        self.settle()?;
        self.begin()?;
        let shown = self.take_bodies_in().and_then(|()| self.run_words("COMMIT").map_err(lost));
        self.roll_back();
        shown?;
        self.bodies.iter_mut().for_each(BTreeMap::clear);
        Ok(())
    }

    fn synchronous(&self, level: &str) -> Result<()> {
        self.connection.pragma_update(None, "synchronous", level).map_err(word)
    }
}
