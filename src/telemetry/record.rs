//! Writes the access line of an operation and counts it.

use super::access::Access;
use super::{ledger, metric};

impl Access<'_> {
    /// Writes the line and counts it.
    pub fn note(&self) {
        if !ledger::write(self) {
            self.say();
        }
        metric::operation(self.origin.door, self.result);
        if TAKES.iter().any(|verb| self.verb.eq_ignore_ascii_case(verb)) {
            metric::received(self.origin.door, self.bytes);
        } else {
            metric::sent(self.origin.door, self.bytes);
        }
    }

    /// Where no file takes the line it goes with all others, to the journal or to stderr.
    fn say(&self) {
        tracing::info!(
            target: "access",
            door = self.origin.door,
            peer = %self.origin.peer,
            link = self.origin.link,
            account = self.account,
            verb = self.verb,
            path = self.path,
            bytes = self.bytes,
            result = self.result,
            micros = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        );
    }
}

/// Words of the doors that take bytes in; all others give some out.
const TAKES: [&str; 9] = ["APPE", "BDAT", "DATA", "PATCH", "POST", "PUT", "STOR", "STOU", "upload"];
