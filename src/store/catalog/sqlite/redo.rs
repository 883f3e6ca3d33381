//! The redo log: transactions that are durable before SQLite has committed them.
//!
//! A commit of SQLite's own writes every page it touched, twice, and most of it again for the next one. A record here is the
//! transaction's statements and nothing else, one write and one sync for all that came together; SQLite commits later, many at
//! once. The file is written from its start to `LARGEST` and then anew, over blocks that are there already, so that a sync need not
//! wait for the file system's own journal.
//!
//! ```text
//! record   length u32 · crc32 u32 · log i64 · number u64 · synced u64 · payload        all little-endian
//! payload  node · statements (text or its number, guarded, parameters) · history lines
//! ```
//! Records count when their log's number is the one in the catalog's `meta` (`redo` = `LOG:NUMBER`), in one row from the first, up to the
//! first that is torn. Those behind NUMBER are applied when the catalog is next opened. Each says which was the last on the disk when it was
//! written: where one behind the end says so of the one that is missing, the log is not torn but damaged. Whoever writes holds the file's lock.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Error as IoError, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::store::catalog::rows::HistoryLine;
use crate::store::catalog::{Must, Statement, Synced, Transaction, Value};

/// A longer log is begun anew as soon as may be.
const LARGEST: u64 = 32 << 20;

/// The file grows by this.
const STEP: usize = 1 << 20;

/// Records that need not be synced are written once they come to this.
const KEPT: usize = 256 << 10;

/// Bytes before the payload, and before the log's number among them.
const HEADER: usize = 32;
const LOG_AT: usize = 8;

/// A longer record is none of ours.
const LONGEST: usize = 1 << 30;

/// How far a catalog has taken a log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub log: i64,
    pub number: u64,
}

impl Mark {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (log, number) = text.split_once(':')?;
        Some(Self { log: log.parse().ok()?, number: number.parse().ok()? })
    }

    pub(super) fn text(self) -> String {
        format!("{}:{}", self.log, self.number)
    }
}

/// One transaction as it was written down.
pub(super) struct Record {
    pub number: u64,
    /// Whose history and intents.
    pub node: String,
    pub transaction: Transaction,
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
    known: HashMap<(usize, usize), u32>,
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
        let (mark, known, unwritten) = (Mark::default(), HashMap::new(), Vec::new());
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
        self.mark = Mark { log, number: 0 };
        self.synced = 0;
        self.at = 0;
        self.known.clear();
        self.unwritten.clear();
        self.broken = false;
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

    /// Adds a transaction that was applied. It is on the disk after the next [`Redo::sync`].
    pub(super) fn note(&mut self, node: &str, transaction: &Transaction) {
        let start = self.unwritten.len();
        self.unwritten.resize(start + HEADER, 0);
        let mut payload = Payload { bytes: &mut self.unwritten, known: &mut self.known };
        payload.transaction(node, transaction);
        self.mark.number += 1;
        let place = Place { log: self.mark.log, number: self.mark.number, synced: self.synced };
        let Some((header, payload)) =
            self.unwritten.get_mut(start..).and_then(|record| record.split_at_mut_checked(HEADER))
        else {
            return;
        };
        let fields = [&length_word(payload.len())[..], &place.sum(payload).to_le_bytes(), &place.bytes()];
        for (place, byte) in header.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        if self.unwritten.len() >= KEPT && self.write().is_err() {
            self.broken = true;
        }
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
    pub(super) fn read(&self, log: i64, mut each: impl FnMut(Record) -> Result<()>) -> Result<End> {
        let mut file = &self.file;
        file.rewind().map_err(unreadable)?;
        let from = BufReader::with_capacity(STEP, file);
        let end = End { log, number: 0, at: 0 };
        let mut records = Records { from, end, payload: Vec::new(), known: Vec::new() };
        while let Some(record) = records.next().map_err(unreadable)? {
            each(record)?;
        }
        Ok(records.end)
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

/// Where the whole records of a log end.
#[derive(Clone, Copy)]
pub(super) struct End {
    log: i64,
    /// Of the last one.
    number: u64,
    /// Bytes before it.
    at: u64,
}

/// Which record it is.
#[derive(Clone, Copy)]
struct Place {
    log: i64,
    number: u64,
    synced: u64,
}

impl Place {
    fn bytes(self) -> [u8; HEADER - LOG_AT] {
        let mut bytes = [0; HEADER - LOG_AT];
        let fields = [self.log.to_le_bytes(), self.number.to_le_bytes(), self.synced.to_le_bytes()];
        bytes.iter_mut().zip(fields.iter().flatten()).for_each(|(place, byte)| *place = *byte);
        bytes
    }

    fn sum(self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.bytes());
        hasher.update(payload);
        hasher.finalize()
    }

    /// Length and sum of the payload, and the record's place; `None` where there is no header.
    fn header(bytes: &[u8]) -> Option<(usize, u32, Self)> {
        let mut fields = Fields(bytes);
        let (length, sum) = (fields.count()?, u32::from_le_bytes(fields.array()?));
        let (log, number) = (fields.number()?, u64::from_le_bytes(fields.array()?));
        Some((length, sum, Self { log, number, synced: u64::from_le_bytes(fields.array()?) }))
    }

    /// A whole record at the start of these bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (length, sum, place) = Self::header(bytes)?;
        let payload = bytes.get(HEADER..)?.get(..length)?;
        (place.sum(payload) == sum).then_some(place)
    }
}

fn length_word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Writes a payload behind what is there.
struct Payload<'a> {
    bytes: &'a mut Vec<u8>,
    known: &'a mut HashMap<(usize, usize), u32>,
}

impl Payload<'_> {
    fn transaction(&mut self, node: &str, transaction: &Transaction) {
        self.text(node);
        self.count(transaction.statements.len());
        for statement in &transaction.statements {
            self.words(statement.sql);
            self.bytes.push(statement.must.is_some().into());
            self.count(statement.params.len());
            statement.params.iter().for_each(|value| self.value(value));
        }
        self.count(transaction.history.len());
        for line in &transaction.history {
            self.number(line.at);
            self.number(i64::try_from(line.bytes).unwrap_or(i64::MAX));
            for text in [&line.door, &line.account, &line.address, &line.verb, &line.path, &line.result, &line.detail] {
                self.text(text);
            }
        }
    }

    /// A statement's number in this log; its text where it comes for the first time.
    fn words(&mut self, sql: &'static str) {
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let number = *self.known.entry((sql.as_ptr().addr(), sql.len())).or_insert(next);
        self.bytes.extend_from_slice(&number.to_le_bytes());
        if number == next {
            self.text(sql);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes.push(0),
            Value::Int(number) => {
                self.bytes.push(1);
                self.number(*number);
            }
            Value::Text(text) => {
                self.bytes.push(2);
                self.text(text);
            }
            Value::Blob(bytes) => {
                self.bytes.push(3);
                self.count(bytes.len());
                self.bytes.extend_from_slice(bytes);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.bytes.extend_from_slice(&length_word(count));
    }
}

/// The records of one log, one after the other. `None` behind the last whole one.
struct Records<R> {
    from: R,
    end: End,
    payload: Vec<u8>,
    known: Vec<&'static str>,
}

impl<R: Read> Records<R> {
    fn next(&mut self) -> std::io::Result<Option<Record>> {
        let mut header = Vec::with_capacity(HEADER);
        self.from.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        let Some((length, sum, place)) = Place::header(&header) else { return Ok(None) };
        if place.log != self.end.log || place.number != self.end.number + 1 || length > LONGEST {
            return Ok(None);
        }
        self.payload.clear();
        self.from.by_ref().take(length as u64).read_to_end(&mut self.payload)?;
        if self.payload.len() != length || place.sum(&self.payload) != sum {
            return Ok(None);
        }
        self.end = End { number: place.number, at: self.end.at + (HEADER + length) as u64, ..self.end };
        let mut fields = Fields(&self.payload);
        let record = fields.text().zip(fields.transaction(&mut self.known));
        Ok(record.map(|(node, transaction)| Record { number: place.number, node, transaction }))
    }
}

/// What is left to be read. `None` where it is not as it was written.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn transaction(&mut self, known: &mut Vec<&'static str>) -> Option<Transaction> {
        let mut transaction = Transaction { synced: Synced::First, ..Transaction::default() };
        for _ in 0..self.count()? {
            let sql = self.words(known)?;
            let must = (self.byte()? == 1).then_some(UNFIT);
            let count = self.count()?;
            let params = (0..count).map(|_| self.value()).collect::<Option<_>>()?;
            transaction.statements.push(Statement { sql, params, must });
        }
        for _ in 0..self.count()? {
            let (at, bytes) = (self.number()?, self.number()?.unsigned_abs());
            let (door, account, address) = (self.text()?, self.text()?, self.text()?);
            let (verb, path, result, detail) = (self.text()?, self.text()?, self.text()?, self.text()?);
            let line =
                HistoryLine { at, door, account, address, verb, path, bytes, result, detail, ..HistoryLine::default() };
            transaction.history.push(line);
        }
        Some(transaction)
    }

    /// Statements are static everywhere else; these few live on after the one time a log is read.
    fn words(&mut self, known: &mut Vec<&'static str>) -> Option<&'static str> {
        let number = usize::try_from(u32::from_le_bytes(self.array()?)).ok()?;
        if number == known.len() {
            known.push(self.text()?.leak());
        }
        known.get(number).copied()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Null,
            1 => Value::Int(self.number()?),
            2 => Value::Text(self.text()?),
            3 => {
                let length = self.count()?;
                Value::Blob(bytes::Bytes::copy_from_slice(self.take(length)?))
            }
            _ => return None,
        })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.count()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn number(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// A guard that held when the record was written.
const UNFIT: Must = Must { kind: Kind::Corrupt, public: "a record does not fit what is in the catalog" };

#[cfg(test)]
mod tests {
    use super::*;

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
        redo.read(log, each).expect("a log");
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
        assert_eq!(redo.mark(), Mark { log: 7, number: 2 });
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
        let end = || redo.read(7, |_| Ok(())).expect("a log");
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
        let mark = Mark { log: -5, number: 9 };
        assert_eq!(Mark::parse(&mark.text()), Some(mark));
        assert_eq!(["", "1", "1:-2", "x:1"].map(Mark::parse), [None; 4]);
    }
}
