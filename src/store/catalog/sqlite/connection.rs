//! What both kinds of connection to the file have in common: their settings, values, rows and errors.

use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};

use crate::error::{Error, Kind, Result};
use crate::store::catalog::engine::{Row, Statement, Value};

/// How long one process waits for another that holds the file (the command line beside the daemon).
pub(super) const BUSY: Duration = Duration::from_secs(10);

/// Prepared statements kept by each connection: more than there are queries.
const PREPARED: usize = 96;

/// Sets what every connection needs.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "temp_store", "memory")
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// All rows of a statement.
pub(super) fn rows(connection: &Connection, statement: &Statement) -> Result<Vec<Row>> {
    let mut prepared = connection.prepare_cached(statement.sql).map_err(word)?;
    let width = prepared.column_count();
    let mut cursor = prepared.query(rusqlite::params_from_iter(&statement.params)).map_err(word)?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().map_err(word)? {
        let columns = (0..width).map(|column| row.get_ref(column).map_err(word).and_then(value));
        rows.push(columns.collect::<Result<Row>>()?);
    }
    Ok(rows)
}

fn value(value: ValueRef<'_>) -> Result<Value> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Int(number)),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::text(text)),
            Err(error) => Err(Error::new(Kind::Corrupt, "a text in the catalog is not UTF-8").with(error)),
        },
        ValueRef::Blob(bytes) => Ok(Value::Blob(bytes::Bytes::copy_from_slice(bytes))),
        ValueRef::Real(_) => Err(Error::new(Kind::Corrupt, "the catalog holds a fraction where none belongs")),
    }
}

/// SQLite's error as one of ours.
pub(super) fn word(error: rusqlite::Error) -> Error {
    let (kind, public) = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => (Kind::Conflict, "the same record was changed at the same time"),
        Some(ErrorCode::DiskFull) => (Kind::Full, "the server's disk is full"),
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationAborted
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => (Kind::Unavailable, "the catalog cannot be written or read for now"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (Kind::Corrupt, "the catalog file is damaged"),
        Some(ErrorCode::TooBig) => (Kind::TooLarge, "a record is too large for the catalog"),
        _ => return Error::internal(error),
    };
    Error::new(kind, public).with(error)
}
