//! The thread that writes: it opens the file, takes jobs in groups, and copies the log back while nobody waits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::connection::{prepare, rows, word};
use super::damage::WAYS_OUT;
use super::reader::Question;
use super::turn::Turn;
use super::uncommitted::Uncommitted;
use super::writer::{Job, Writer};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::gather::Gathered;
use crate::store::catalog::migrations;

impl Writer {
    /// Opens the file for writing and brings its schema forward; `lenient` goes on with what can be read of a damaged redo log.
    pub(super) fn open_with(file: &Path, node: &str, ahead: Arc<AtomicBool>, lenient: bool) -> Result<Self> {
        let named = |error: rusqlite::Error| {
            let error = word(error);
            let remedy = if error.kind() == Kind::Corrupt { format!(": {WAYS_OUT}") } else { String::new() };
            Error::new(error.kind(), format!("cannot open the catalog {}: {error}{remedy}", file.display())).with(error)
        };
        let connection = Connection::open(file).map_err(named)?;
        prepare(&connection).map_err(named)?;
        let mode = durable(&connection).map_err(named)?;
        if mode != "wal" {
            let text = format!(
                "the catalog {} cannot use a write-ahead log (its mode is `{mode}`): put the data folder on a local disk",
                file.display()
            );
            return Err(Error::new(Kind::Unavailable, text));
        }
        let (turn, log) = (Turn::open(&file.with_extension("turn"))?, file.with_extension("redo"));
        let (node, uncommitted) = (node.to_owned(), Uncommitted::new(ahead));
        let mut writer = Self {
            connection,
            node,
            head: None,
            uncommitted,
            turn,
            file: file.to_owned(),
            log,
            lenient,
            ending: false,
            redo: None,
            bodies: None,
            written: None,
        };
        // What an earlier daemon did comes before the schema moves on.
        writer.take_log()?;
        // What another process answered lately is committed first. If it cannot be (a full disk), the rest can be read all the same.
        let turn = writer.turn.take();
        if !migrations::is_newest(writer.format()?.as_deref()) {
            turn?;
            migrate(&mut writer.connection, &file.display().to_string())?;
        }
        writer.turn.give_back();
        Ok(writer)
    }

    /// Serves until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>, largest: usize, clock: &Runtime) {
        while let Some(job) = self.next_job(&mut jobs, clock) {
            let mut gathered = Gathered::default();
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Commit(sent) => gathered.add(sent),
                    Job::Settle(reply) => drop(reply.send(self.settle())),
                    Job::Bodies(reply) => drop(reply.send(self.show_bodies())),
                    Job::Ask(Question { statement, reply }) => {
                        drop(reply.send(self.applied().and_then(|()| rows(&self.connection, &statement))));
                    }
                    Job::Version(reply) => drop(reply.send(self.version())),
                }
                next = if gathered.transactions.len() < largest { jobs.try_recv().ok() } else { None };
            }
            if !gathered.transactions.is_empty() {
                self.written.get_or_insert_with(Instant::now);
                let outcomes = self.write(std::mem::take(&mut gathered.transactions));
                gathered.answer(outcomes);
            }
            if jobs.is_empty() {
                self.rest();
            }
        }
        // A clean end leaves everything in the catalog itself.
        let _ = self.settle().and_then(|()| self.end_log());
    }

    /// When it should have been idle for long enough.
    pub(super) fn rest_at(&self) -> Option<tokio::time::Instant> {
        self.written.map(|since| tokio::time::Instant::from_std(since + IDLE_CHECKPOINT))
    }

    /// Copies the log back while nobody waits; PASSIVE never blocks a reader, and a failure only postpones it.
    pub(super) fn rest(&mut self) {
        if self.uncommitted.is_empty() && self.written.is_some_and(|since| since.elapsed() >= IDLE_CHECKPOINT) {
            self.written = None;
            // So that the catalog's own files are whole by themselves soon after.
            let _ = self.renew_log();
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }
}

/// Sets what an acknowledged commit rests on; returns the journal mode SQLite agreed to.
fn durable(connection: &Connection) -> rusqlite::Result<String> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    Ok(mode)
}

/// Takes every missing step in one transaction: two processes that start together take them once.
fn migrate(connection: &mut Connection, place: &str) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(word)?;
    let made = transaction
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get::<_, i64>(0))
        .map_err(word)?;
    let format = match made {
        0 => None,
        _ => Some(transaction.query_row(migrations::FORMAT, [], |row| row.get::<_, String>(0)).map_err(|error| {
            let text = format!("{place} is a database, but not a catalog: its table `meta` names no format");
            Error::new(Kind::Invalid, text).with(error)
        })?),
    };
    for (number, step) in migrations::missing(format.as_deref(), place)? {
        transaction.execute_batch(step.sqlite).map_err(word)?;
        transaction.execute(migrations::SET_FORMAT, [number.to_string()]).map_err(word)?;
    }
    transaction.commit().map_err(word)
}

/// Pages of the log after which SQLite itself copies them back into the database file (128 MiB): of a page that was written many times
/// only the last is copied.
const CHECKPOINT_PAGES: i64 = 32 << 10;

/// The log file is cut back to this once its pages are copied; smaller than a log becomes, it would have to grow anew each time.
const LOG_KEPT: i64 = 160 << 20;

/// How often a writer with nothing to do copies the log back.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(5);

/// KiB of page cache of the writing connection (negative: SQLite's way to say KiB). What is written next is at the end of its table, so it
/// need not be large; and SQLite looks through all of it at the end of a transaction that split a page.
const CACHE: i64 = -8 * 1024;
