//! One line per operation: door, peer, account, verb, path, bytes, result, duration.

use std::time::Duration;

use crate::origin::Origin;

/// An operation that ended.
pub struct Access<'a> {
    /// Who and where.
    pub origin: &'a Origin,
    /// Account name; empty for a guest.
    pub account: &'a str,
    /// `GET`, `STOR`, `DATA`, `login`, …: the door's own word.
    pub verb: &'a str,
    /// Path or recipient.
    pub path: &'a str,
    /// Bytes moved.
    pub bytes: u64,
    /// The door's reply code or `ok`.
    pub result: &'a str,
    /// How long it took.
    pub took: Duration,
}
