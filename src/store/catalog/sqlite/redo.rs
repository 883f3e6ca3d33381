//! The redo log: transactions that are durable before SQLite has committed them.
//!
//! A commit of SQLite's own writes every page it touched, twice, and most of it again for the next one. A record here is the
//! transaction's statements and nothing else, one write and one sync for all that came together; SQLite commits later, many at
//! once. The file is written from its start to `LARGEST` and then anew, over blocks that are there already, so that a sync need not
//! wait for the file system's own journal.
//!
//! Records ([`super::record`]) count when their log's number is the one in the catalog's `meta` (`redo` = `LOG:NUMBER:FORM`), in one row
//! from the first, up to the first that is torn. Those behind NUMBER are applied when the catalog is next opened. Each says which was the
//! last on the disk when it was written: where one behind the end says so of the one that is missing, the log is not torn but damaged.
//! Whoever writes holds the file's lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Error as IoError, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::record::{self, Between, End, Form, Known, LOG_AT, Place, Record, Records};
use crate::error::{Error, Kind, Result};
use crate::store::catalog::Transaction;

/// A longer log is begun anew as soon as may be.
const LARGEST: u64 = 32 << 20;

/// The file grows by this.
const STEP: usize = 1 << 20;

/// What it has from the start.
const FIRST: usize = 4096;

/// Records that need not be synced are written once they come to this.
const KEPT: usize = 256 << 10;

/// How far a catalog has taken a log in, and how that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub log: i64,
    pub number: u64,
    pub form: Form,
}

impl Mark {
    /// Before the first record of a log of today's form.
    pub(super) fn first(log: i64) -> Self {
        Self { log, ..Self::default() }
    }

    /// # Errors
    /// `Invalid` where a newer program wrote the log, `Corrupt` where it is no mark.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let damaged = || Error::new(Kind::Corrupt, "the catalog's `redo` mark is damaged");
        let (log, rest) = text.split_once(':').ok_or_else(damaged)?;
        let (number, form) = rest.split_once(':').unwrap_or((rest, "1"));
        let form = match form.parse::<u32>().map_err(|_| damaged())? {
            1 => Form::First,
            2 => Form::Second,
            newer => {
                let text =
                    format!("the redo log has form {newer}, which this program does not know: run the newer one");
                return Err(Error::new(Kind::Invalid, text));
            }
        };
        let (log, number) = (log.parse().map_err(|_| damaged())?, number.parse().map_err(|_| damaged())?);
        Ok(Self { log, number, form })
    }

    pub(super) fn text(self) -> String {
        match self.form {
            Form::First => format!("{}:{}", self.log, self.number),
            Form::Second => format!("{}:{}:2", self.log, self.number),
        }
    }
}

/// The log, held by this process.
pub(super) struct Redo {
    file: File,
    /// Which log, and its last record, written or not.
    mark: Mark,
    /// Its last record that is on the disk.
    synced: u64,
    /// Where the next record goes.
    at: u64,
    /// Bytes of the file that have their blocks.
    laid: u64,
    /// Statements whose text is in the log already.
    known: Known,
    unwritten: Vec<u8>,
    /// What is in the file is not known: it takes nothing more until it is begun anew.
    broken: bool,
}

impl Redo {
    /// `None` while another process has it.
    pub(super) fn take(path: &Path) -> Result<Option<Self>> {
        let failed = |error: IoError| Error::new(Kind::Unavailable, format!("{}: {error}", path.display())).with(error);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let laid = file.metadata().map_err(failed)?.len();
        if laid == 0 {
            // A record in a file that has no name after a power cut would be none.
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()).map_err(failed)?;
        }
        let (mark, known, unwritten) = (Mark::default(), Known::default(), Vec::new());
        Ok(Some(Self { file, mark, synced: 0, at: 0, laid, known, unwritten, broken: true }))
    }

    /// A number for the next log that no earlier one had.
    pub(super) fn next_log() -> Result<i64> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| Error::internal(format!("no random numbers: {error}")))?;
        Ok(i64::from_le_bytes(random))
    }

    /// Starts the next log over the last, which the catalog does not need any more and does not name any more.
    pub(super) fn begin(&mut self, log: i64) {
        self.mark = Mark::first(log);
        self.synced = 0;
        self.at = 0;
        self.known.clear();
        self.unwritten.clear();
        self.broken = false;
    }

    /// The last record that is surely on the disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Was there nothing in the file when it was taken?
    pub(super) fn is_empty(&self) -> bool {
        self.laid == 0
    }

    /// The log whose record stands at the start of the file; `None` where nothing stands there.
    pub(super) fn first_log(&self) -> Result<Option<i64>> {
        let mut start = [0; LOG_AT + 8];
        match self.file.read_exact_at(&mut start, 0) {
            Ok(()) => {
                let log = start.last_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                Ok(Some(log).filter(|log| *log != 0))
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Gives the file its first bytes, so that an empty one is known for one that lost them.
    pub(super) fn lay(&mut self) -> Result<()> {
        if self.laid > 0 {
            return Ok(());
        }
        let laid = self.file.write_all_at(&[0; FIRST], 0).and_then(|()| self.file.sync_all());
        laid.map_err(|error| Error::from(error).with("the redo log cannot be begun"))?;
        self.laid = FIRST as u64;
        Ok(())
    }

    /// What the catalog has taken in once it commits all that was noted.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Must it be begun anew before it takes anything more?
    pub(super) fn is_over(&self) -> bool {
        self.broken || self.at + self.unwritten.len() as u64 >= LARGEST
    }

    /// Would a new one be any better?
    pub(super) fn is_used(&self) -> bool {
        self.broken || self.mark.number > 0
    }

    /// Takes nothing more until it is begun anew.
    pub(super) fn close(&mut self) {
        self.broken = true;
    }

    /// Adds a transaction that was applied, and says behind what. It is on the disk after the next [`Redo::sync`].
    pub(super) fn note(&mut self, node: &str, transaction: &Transaction) -> Between {
        let end = End { log: self.mark.log, number: self.mark.number, at: self.at + self.unwritten.len() as u64 };
        let behind = Between { end, known: self.known.count() };
        self.mark.number += 1;
        let place = Place { log: self.mark.log, number: self.mark.number, synced: self.synced };
        record::write(&mut self.unwritten, &mut self.known, place, node, transaction);
        if self.unwritten.len() >= KEPT && self.write().is_err() {
            self.broken = true;
        }
        behind
    }

    /// Everything noted is on the disk. After a failure nobody knows.
    pub(super) fn sync(&mut self) -> Result<()> {
        let synced = match self.broken {
            true => Err(IoError::other("an earlier write failed")),
            false => self.write().and_then(|()| self.file.sync_data()),
        };
        if synced.is_ok() {
            self.synced = self.mark.number;
        }
        synced.map_err(|error| {
            self.broken = true;
            let (kind, public) = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Kind::Full, "the server's disk is full"),
                _ => (Kind::Unavailable, "the catalog cannot be written for now"),
            };
            Error::new(kind, public).with(error)
        })
    }

    fn write(&mut self) -> std::io::Result<()> {
        let end = self.at + self.unwritten.len() as u64;
        if self.laid < end {
            let more = vec![0; STEP.max(self.unwritten.len())];
            self.file.write_all_at(&more, self.laid)?;
            self.laid += more.len() as u64;
        }
        self.file.write_all_at(&self.unwritten, self.at)?;
        self.at = end;
        self.unwritten.clear();
        // One large group does not set the measure for all that follow.
        self.unwritten.shrink_to(2 * KEPT);
        Ok(())
    }

    /// Hands on the records of a log, in order, up to the first that is torn or damaged.
    pub(super) fn read(&self, mark: Mark, mut each: impl FnMut(Record) -> Result<()>) -> Result<End> {
        let mut records = Records::new(self.reader(0)?, mark.log, mark.form);
        while let Some(record) = records.next().map_err(unreadable)? {
            each(record)?;
        }
        Ok(records.end())
    }

    /// Hands on the records that were noted behind such a place.
    pub(super) fn read_behind(&self, place: Between, mut each: impl FnMut(Record) -> Result<()>) -> Result<()> {
        let mut records = Records::behind(self.reader(place.end.at)?, place, &self.known);
        while let Some(record) = records.next().map_err(unreadable)? {
            each(record)?;
        }
        Ok(())
    }

    fn reader(&self, at: u64) -> Result<BufReader<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        Ok(BufReader::with_capacity(STEP, file))
    }

    /// What is missing at the end of a log was never acknowledged; an error where what follows says otherwise.
    pub(super) fn check_end(&self, end: End) -> Result<()> {
        let length = self.file.metadata().map_err(unreadable)?.len().saturating_sub(end.at);
        let mut rest = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut rest, end.at).map_err(unreadable)?;
        let missing = end.number + 1;
        let record = |at: usize| Place::read(rest.get(at.checked_sub(LOG_AT)?..)?);
        let denies = |at| record(at).is_some_and(|place| place.log == end.log && place.synced >= missing);
        if memchr::memmem::find_iter(&rest, &end.log.to_le_bytes()).any(denies) {
            let text = format!("record {missing}, at byte {}, is damaged, and others follow it", end.at);
            return Err(Error::new(Kind::Corrupt, text));
        }
        Ok(())
    }
}

fn unreadable(error: IoError) -> Error {
    Error::new(Kind::Unavailable, format!("the redo log cannot be read: {error}")).with(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::rows::HistoryLine;
    use crate::store::catalog::sqlite::record::UNFIT;
    use crate::store::catalog::{Statement, Synced, Value};

    fn log(folder: &tempfile::TempDir) -> Redo {
        let mut redo = Redo::take(&folder.path().join("redo")).expect("a file").expect("nobody has it");
        redo.begin(7);
        redo
    }

    fn transaction(name: &str) -> Transaction {
        let params = vec![Value::Null, Value::Int(-3), Value::text(name), Value::Blob(vec![0; 3].into())];
        let statement = |sql, must| Statement { sql, params: params.clone(), must };
        let history =
            vec![HistoryLine { at: 5, bytes: 6, path: name.into(), detail: "d".into(), ..HistoryLine::default() }];
        Transaction {
            statements: vec![statement("one", Some(UNFIT)), statement("two", None)],
            history,
            synced: Synced::First,
        }
    }

    fn read(redo: &Redo, log: i64) -> Vec<(u64, String, Transaction)> {
        let mut found = Vec::new();
        let each = |one: Record| {
            found.push((one.number, one.node, one.transaction));
            Ok(())
        };
        redo.read(Mark::first(log), each).expect("a log");
        found
    }

    fn names(redo: &Redo, log: i64) -> Vec<String> {
        read(redo, log)
            .into_iter()
            .filter_map(|(_, _, one)| one.history.first().map(|line| line.path.clone()))
            .collect()
    }

    #[test]
    fn records_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redo = log(&folder);
        redo.note("n", &transaction("a"));
        redo.note("m", &transaction("b"));
        assert!(read(&redo, 7).is_empty(), "not written yet");
        redo.sync().expect("a disk");
        assert_eq!(redo.mark(), Mark { number: 2, ..Mark::first(7) });
        let found = read(&redo, 7);
        for ((number, node, found), (expected, name)) in found.iter().zip([(1, "a"), (2, "b")]) {
            let wanted = transaction(name);
            assert_eq!((*number, node.as_str()), (expected, if expected == 1 { "n" } else { "m" }));
            assert_eq!(found.history, wanted.history);
            for (found, wanted) in found.statements.iter().zip(&wanted.statements) {
                assert_eq!((found.sql, &found.params), (wanted.sql, &wanted.params));
                assert_eq!(found.must.is_some(), wanted.must.is_some());
            }
        }
        assert_eq!((found.len(), read(&redo, 8).len()), (2, 0), "another log's do not count");
    }

    #[test]
    fn records_are_read_from_where_they_were_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redo = log(&folder);
        let mut places = Vec::new();
        for name in ["a", "b", "c", "d"] {
            places.push(redo.note("n", &transaction(name)));
            if name == "b" {
                redo.sync().expect("a disk");
            }
        }
        redo.sync().expect("a disk");
        for (skipped, place) in places.into_iter().enumerate() {
            let mut found = Vec::new();
            let each = |one: Record| {
                let sql: Vec<_> = one.transaction.statements.iter().map(|statement| statement.sql).collect();
                found.push((one.transaction.history[0].path.clone(), sql));
                Ok(())
            };
            redo.read_behind(place, each).expect("a log");
            let wanted = ["a", "b", "c", "d"].into_iter().skip(skipped);
            assert!(found.iter().map(|(name, _)| name.as_str()).eq(wanted), "{found:?}");
            assert!(found.iter().all(|(_, sql)| sql == &["one", "two"]), "{found:?}");
        }
    }

    #[test]
    fn a_log_ends_before_what_is_torn_and_before_an_older_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redo = log(&folder);
        for name in ["a", "b", "c"] {
            redo.note("n", &transaction(name));
        }
        redo.sync().expect("a disk");
        let (file, end) = (folder.path().join("redo"), usize::try_from(redo.at).expect("short"));
        let whole = std::fs::read(&file).expect("bytes");
        for cut in 0..end {
            for fill in [0, 0xff] {
                let mut torn = whole.clone();
                torn.get_mut(cut..end).expect("inside").fill(fill);
                if torn == whole {
                    continue;
                }
                std::fs::write(&file, &torn).expect("written");
                let found = names(&redo, 7);
                assert!(
                    ["a", "b", "c"].starts_with(&found.iter().map(String::as_str).collect::<Vec<_>>()),
                    "{cut}: {found:?}"
                );
                assert!(found.len() < 3, "{cut}");
            }
        }
        std::fs::write(&file, &whole).expect("written");
        redo.begin(8);
        redo.note("n", &transaction("d"));
        redo.sync().expect("a disk");
        assert_eq!((names(&redo, 8), names(&redo, 7)), (vec!["d".to_owned()], Vec::new()));
    }

    #[test]
    fn damage_in_what_was_acknowledged_is_not_taken_for_a_torn_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redo = log(&folder);
        let mut ends = Vec::new();
        for names in [["a", "b"], ["c", "d"]] {
            for name in names {
                redo.note("n", &transaction(name));
            }
            redo.sync().expect("a disk");
            ends.push(usize::try_from(redo.at).expect("short"));
        }
        let file = folder.path().join("redo");
        let whole = std::fs::read(&file).expect("bytes");
        let [first, last] = ends[..] else { panic!("two groups") };
        let end = || redo.read(Mark::first(7), |_| Ok(())).expect("a log");
        redo.check_end(end()).expect("nothing is missing");
        for at in 0..last {
            let mut damaged = whole.clone();
            *damaged.get_mut(at).expect("inside") ^= 1;
            std::fs::write(&file, &damaged).expect("written");
            let checked = redo.check_end(end()).map_err(|error| error.kind());
            // Of the last group nobody knows whether it was on the disk: a power cut leaves it like that too.
            assert_eq!(checked, if at < first { Err(Kind::Corrupt) } else { Ok(()) }, "{at}");
        }
    }

    #[test]
    fn one_process_has_it_and_a_full_disk_closes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = log(&folder);
        assert!(Redo::take(&folder.path().join("redo")).expect("a file").is_none());
        drop(first);
        let mut redo = log(&folder);
        redo.note("n", &transaction("a"));
        redo.sync().expect("a disk");
        let mut full = Redo::take(Path::new("/dev/full")).expect("a device").expect("nobody has it");
        full.begin(1);
        full.note("n", &transaction("a"));
        assert_eq!(full.sync().expect_err("no room").kind(), Kind::Full);
        assert!(full.is_over() && full.sync().is_err());
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for form in [Form::First, Form::Second] {
            let mark = Mark { log: -5, number: 9, form };
            assert_eq!(Mark::parse(&mark.text()).expect("a mark"), mark);
        }
        for (text, kind) in
            [("", Kind::Corrupt), ("1", Kind::Corrupt), ("1:-2", Kind::Corrupt), ("1:2:3", Kind::Invalid)]
        {
            assert_eq!(Mark::parse(text).expect_err("no mark").kind(), kind, "{text}");
        }
    }

    #[test]
    fn a_log_of_the_first_form_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redo = log(&folder);
        redo.note("n", &transaction("a"));
        redo.note("n", &transaction("b"));
        redo.sync().expect("a disk");
        let file = folder.path().join("redo");
        let whole = std::fs::read(&file).expect("bytes");
        std::fs::write(&file, in_first_form(&whole)).expect("written");
        let mut found = Vec::new();
        let mark = Mark { form: Form::First, ..Mark::first(7) };
        let each = |one: Record| {
            found.push((one.number, one.transaction.history));
            Ok(())
        };
        let end = redo.read(mark, each).expect("a log");
        redo.check_end(end).expect("nothing says that more was there");
        assert_eq!(found, [(1, transaction("a").history), (2, transaction("b").history)]);
        assert!(read(&redo, 7).is_empty(), "it is none of the second form");
    }

    /// The same records without their third number, and with a sum of what is left.
    fn in_first_form(mut bytes: &[u8]) -> Vec<u8> {
        let mut first = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk().filter(|(length, _)| **length != [0; 4]) {
            let (header, rest) = rest.split_at(28);
            let (payload, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            let summed = [&header[4..20], payload].concat();
            first.extend([&length[..], &crc32fast::hash(&summed).to_le_bytes(), &summed].concat());
            bytes = rest;
        }
        first
    }
}
