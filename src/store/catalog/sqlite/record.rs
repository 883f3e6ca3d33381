//! A record of the redo log, byte for byte.
//!
//! ```text
//! record   length u32 · crc32 u32 · log i64 · number u64 · synced u64 · payload        all little-endian
//! payload  node · statements (text or its number, guarded, parameters) · history lines
//! ```
//! The sum is of all that follows it. In the first form a record did not have `synced`.

use std::collections::HashMap;
use std::io::Read;

use crate::error::Kind;
use crate::store::catalog::rows::HistoryLine;
use crate::store::catalog::{Must, Statement, Synced, Transaction, Value};

/// Bytes before the log's number.
pub(super) const LOG_AT: usize = 8;

/// Bytes before the payload.
const HEADER: usize = 32;

/// A longer record is none of ours.
const LONGEST: usize = 1 << 30;

/// How the records of a log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// By programs of the catalog's format 5 before the second.
    First,
    #[default]
    Second,
}

impl Form {
    /// Bytes before the payload.
    fn header(self) -> usize {
        match self {
            Self::First => HEADER - size_of::<u64>(),
            Self::Second => HEADER,
        }
    }
}

/// One transaction as it was written down.
pub(super) struct Record {
    pub number: u64,
    /// Whose history and intents.
    pub node: String,
    pub transaction: Transaction,
}

/// Where the whole records of a log end.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub log: i64,
    /// Of the last one.
    pub number: u64,
    /// Bytes before it.
    pub at: u64,
}

/// A place between two records.
#[derive(Clone, Copy)]
pub(super) struct Between {
    /// Where those before it end.
    pub end: End,
    /// Statements whose text they hold.
    pub known: usize,
}

/// Which record it is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub log: i64,
    pub number: u64,
    pub synced: u64,
}

impl Place {
    /// A whole record of the second form at the start of these bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (length, sum, place) = Self::header(bytes, Form::Second)?;
        let payload = bytes.get(HEADER..)?.get(..length)?;
        (place.sum(payload, Form::Second) == sum).then_some(place)
    }

    /// Length and sum of the payload, and the record's place; `None` where there is no header.
    fn header(bytes: &[u8], form: Form) -> Option<(usize, u32, Self)> {
        let mut fields = Fields(bytes);
        let (length, sum) = (fields.count()?, u32::from_le_bytes(fields.array()?));
        let (log, number) = (fields.number()?, u64::from_le_bytes(fields.array()?));
        let synced = match form {
            Form::First => 0,
            Form::Second => u64::from_le_bytes(fields.array()?),
        };
        Some((length, sum, Self { log, number, synced }))
    }

    fn bytes(self) -> [u8; HEADER - LOG_AT] {
        let mut bytes = [0; HEADER - LOG_AT];
        let fields = [self.log.to_le_bytes(), self.number.to_le_bytes(), self.synced.to_le_bytes()];
        bytes.iter_mut().zip(fields.iter().flatten()).for_each(|(place, byte)| *place = *byte);
        bytes
    }

    fn sum(self, payload: &[u8], form: Form) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.bytes().get(..form.header() - LOG_AT).unwrap_or_default());
        hasher.update(payload);
        hasher.finalize()
    }
}

/// Adds a record, in the second form, behind what is there.
pub(super) fn write(bytes: &mut Vec<u8>, known: &mut Known, place: Place, node: &str, transaction: &Transaction) {
    let start = bytes.len();
    bytes.resize(start + HEADER, 0);
    Payload { bytes, known }.transaction(node, transaction);
    let Some((header, payload)) = bytes.get_mut(start..).and_then(|record| record.split_at_mut_checked(HEADER)) else {
        return;
    };
    let fields = [&length_word(payload.len())[..], &place.sum(payload, Form::Second).to_le_bytes(), &place.bytes()];
    for (place, byte) in header.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
}

fn length_word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// The statements whose text is in a log already, in the order of their numbers.
#[derive(Default)]
pub(super) struct Known {
    /// By where the text is and how long.
    numbers: HashMap<(usize, usize), u32>,
    texts: Vec<&'static str>,
}

impl Known {
    /// A statement's number, and whether it is a new one.
    fn number(&mut self, sql: &'static str) -> (u32, bool) {
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry((sql.as_ptr().addr(), sql.len())).or_insert(next);
        let new = number == next;
        if new {
            self.texts.push(sql);
        }
        (number, new)
    }

    pub(super) fn count(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.texts.clear();
    }
}

/// Writes a payload behind what is there.
struct Payload<'a> {
    bytes: &'a mut Vec<u8>,
    known: &'a mut Known,
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
        let (number, new) = self.known.number(sql);
        self.bytes.extend_from_slice(&number.to_le_bytes());
        if new {
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
pub(super) struct Records<R> {
    from: R,
    form: Form,
    end: End,
    payload: Vec<u8>,
    known: Vec<&'static str>,
}

impl<R: Read> Records<R> {
    pub(super) fn new(from: R, log: i64, form: Form) -> Self {
        Self { from, form, end: End { log, number: 0, at: 0 }, payload: Vec::new(), known: Vec::new() }
    }

    /// From a place behind other records of today's form.
    pub(super) fn behind(from: R, place: Between, known: &Known) -> Self {
        let known = known.texts.iter().copied().take(place.known).collect();
        Self { end: place.end, known, ..Self::new(from, place.end.log, Form::Second) }
    }

    /// Behind the last record that was handed on.
    pub(super) fn end(&self) -> End {
        self.end
    }

    pub(super) fn next(&mut self) -> std::io::Result<Option<Record>> {
        let mut header = Vec::with_capacity(HEADER);
        self.from.by_ref().take(self.form.header() as u64).read_to_end(&mut header)?;
        let Some((length, sum, place)) = Place::header(&header, self.form) else { return Ok(None) };
        if place.log != self.end.log || place.number != self.end.number + 1 || length > LONGEST {
            return Ok(None);
        }
        self.payload.clear();
        self.from.by_ref().take(length as u64).read_to_end(&mut self.payload)?;
        if self.payload.len() != length || place.sum(&self.payload, self.form) != sum {
            return Ok(None);
        }
        self.end = End { number: place.number, at: self.end.at + (header.len() + length) as u64, ..self.end };
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
pub(super) const UNFIT: Must = Must { kind: Kind::Corrupt, public: "a record does not fit what is in the catalog" };
