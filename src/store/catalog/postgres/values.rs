//! Values, statements and errors between the house and PostgreSQL.

use std::error::Error as StdError;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::error::{Error, Kind};
use crate::store::catalog::{Row, Value};

type Boxed = Box<dyn StdError + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match (self, ty) {
            (Self::Null, _) => return Ok(IsNull::Yes),
            (Self::Int(number), &Type::BOOL) => out.put_u8(u8::from(*number != 0)),
            (Self::Int(number), &Type::INT2) => out.put_i16(i16::try_from(*number)?),
            (Self::Int(number), &Type::INT4) => out.put_i32(i32::try_from(*number)?),
            (Self::Int(number), &Type::INT8) => out.put_i64(*number),
            (Self::Text(text), &Type::TEXT | &Type::VARCHAR | &Type::BPCHAR | &Type::NAME) => {
                out.put_slice(text.as_bytes());
            }
            (Self::Blob(bytes), &Type::BYTEA) => out.put_slice(bytes),
            _ => return Err(format!("a parameter does not fit the type {ty}").into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        Ok(match *ty {
            Type::BOOL => Self::Int(i64::from(bool::from_sql(ty, raw)?)),
            Type::INT2 => Self::Int(i64::from(i16::from_sql(ty, raw)?)),
            Type::INT4 => Self::Int(i64::from(i32::from_sql(ty, raw)?)),
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => Self::Text(String::from_sql(ty, raw)?),
            Type::BYTEA => Self::Blob(Bytes::copy_from_slice(raw)),
            _ => return Err(format!("a column has the unexpected type {ty}").into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// All columns of a row.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Row, Error> {
    (0..row.len()).map(|column| row.try_get(column).map_err(word)).collect()
}

/// `?1` as PostgreSQL writes it. No statement of ours has a question mark anywhere else.
pub(super) fn dialect(sql: &str) -> String {
    sql.replace('?', "$")
}

/// Somebody else's transaction stood in the way; the same one may hold when it is run again.
pub(super) fn is_clash(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
}

/// PostgreSQL's word in the house's words.
pub(super) fn word(error: tokio_postgres::Error) -> Error {
    let Some(code) = error.code() else {
        if error.is_closed() || error.source().is_some_and(<dyn StdError>::is::<std::io::Error>) {
            return Error::new(Kind::Unavailable, "the connection to the catalog was lost").with(error);
        }
        return Error::internal(error);
    };
    let class = code.code().get(..2).unwrap_or_default();
    let (kind, public) = match (code, class) {
        (&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED, _) => {
            (Kind::Conflict, "somebody else changed the same records at the same time")
        }
        (&SqlState::UNIQUE_VIOLATION, _) => (Kind::Conflict, "the same record was changed at the same time"),
        (&SqlState::DISK_FULL, _) => (Kind::Full, "the disk of the catalog's PostgreSQL is full"),
        (&SqlState::CHARACTER_NOT_IN_REPERTOIRE | &SqlState::UNTRANSLATABLE_CHARACTER, _) => {
            (Kind::Invalid, "a name holds a character the catalog cannot keep")
        }
        (_, "54") => (Kind::Invalid, "a name is too long for the catalog"),
        // Connection, sign-in, resources, operator, system; and a server that was made read-only.
        (&SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::LOCK_NOT_AVAILABLE, _)
        | (_, "08" | "28" | "53" | "57" | "58" | "3D") => {
            (Kind::Unavailable, "the catalog cannot be written or read for now")
        }
        (_, "XX") => (Kind::Corrupt, "the catalog's PostgreSQL reports damage, see its log"),
        _ => return Error::internal(error),
    };
    Error::new(kind, public).with(error)
}
