//! Taking a row apart, column by column, in the order the query names them.

use super::engine::{Row, Value};
use crate::error::{Error, Kind, Result};

/// The columns of one row not yet taken.
pub(super) struct Columns {
    table: &'static str,
    rest: std::vec::IntoIter<Value>,
}

impl Columns {
    /// `table` names the row in the error when a column is not what it should be.
    pub(super) fn of(table: &'static str, row: Row) -> Self {
        Self { table, rest: row.into_iter() }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        match self.rest.next() {
            Some(Value::Text(text)) => Ok(text),
            other => Err(self.unreadable("text", other.as_ref())),
        }
    }

    pub(super) fn int(&mut self) -> Result<i64> {
        match self.rest.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(self.unreadable("a number", other.as_ref())),
        }
    }

    /// A number of 32 bits without sign, as IMAP's.
    pub(super) fn small(&mut self) -> Result<u32> {
        let number = self.int()?;
        u32::try_from(number).map_err(|_| self.unreadable("a number of 32 bits", Some(&Value::Int(number))))
    }

    pub(super) fn truth(&mut self) -> Result<bool> {
        Ok(self.int()? != 0)
    }

    /// A count; what another program made negative reads as zero.
    pub(super) fn unsigned(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.int()?).unwrap_or(0))
    }

    pub(super) fn unsigned_or_null(&mut self) -> Result<Option<u64>> {
        match self.rest.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Int(number)) => Ok(Some(u64::try_from(number).unwrap_or(0))),
            other => Err(self.unreadable("a number", other.as_ref())),
        }
    }

    pub(super) fn blob_or_null(&mut self) -> Result<Option<bytes::Bytes>> {
        match self.rest.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Blob(bytes)) => Ok(Some(bytes)),
            other => Err(self.unreadable("bytes", other.as_ref())),
        }
    }

    pub(super) fn hash_or_null(&mut self) -> Result<Option<[u8; 32]>> {
        match self.blob_or_null()? {
            None => Ok(None),
            Some(bytes) => match <[u8; 32]>::try_from(&bytes[..]) {
                Ok(hash) => Ok(Some(hash)),
                Err(_) => Err(self.unreadable("a hash of 32 bytes", None)),
            },
        }
    }

    pub(super) fn hash(&mut self) -> Result<[u8; 32]> {
        self.hash_or_null()?.ok_or_else(|| self.unreadable("a hash of 32 bytes", None))
    }

    /// A list kept as JSON text.
    pub(super) fn list(&mut self) -> Result<Vec<String>> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| self.unreadable("a JSON list", None).with(error))
    }

    fn unreadable(&self, wanted: &str, found: Option<&Value>) -> Error {
        let found = match found {
            None => "something else",
            Some(Value::Null) => "NULL",
            Some(Value::Int(_)) => "a number",
            Some(Value::Text(_)) => "text",
            Some(Value::Blob(_)) => "bytes",
        };
        let why = format!("a row of `{}` holds {found} where {wanted} belongs", self.table);
        Error::new(Kind::Corrupt, "a record in the catalog cannot be read, see the server's log").with(why)
    }
}
