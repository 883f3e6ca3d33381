//! The end of a body that comes in: by HTTP, FTP, DATA or BDAT.
//!
//! A body is complete only when its protocol says so, and only when it has the length that was announced for it. That no more bytes come
//! proves nothing.

use crate::error::{Error, Kind, Result};

/// Why no more bytes of a body come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The protocol's own sign came: `END_STREAM`, the last chunk, the last announced octet, CRLF.CRLF, the end of an FTP data connection.
    Signalled,
    /// The connection or the stream ended without it.
    Cut,
}

/// Compares the bytes of one body with the length that was announced for it.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    announced: Option<u64>,
    came: u64,
}

impl Tally {
    /// `announced`: the length, where the protocol binds the sender to it (`Content-Length`, `BDAT`; not FTP's `ALLO`, which is a hint).
    #[must_use]
    pub fn new(announced: Option<u64>) -> Self {
        Self { announced, came: 0 }
    }

    /// Bytes so far.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// `Invalid` for more than was announced.
    pub fn count(&mut self, bytes: u64) -> Result<()> {
        self.came = self.came.saturating_add(bytes);
        match self.announced {
            Some(announced) if self.came > announced => {
                Err(Error::new(Kind::Invalid, "more bytes came than were announced; nothing was stored"))
            }
            _ => Ok(()),
        }
    }

    /// No more bytes come: is the body complete?
    ///
    /// # Errors
    /// `Cancelled` when it was cut, or is shorter than was announced.
    pub fn end(&self, end: End) -> Result<()> {
        match end {
            End::Signalled if self.announced.is_none_or(|announced| announced == self.came) => Ok(()),
            End::Signalled | End::Cut => Err(Error::new(Kind::Cancelled, "the upload broke off before its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signalled_end_of_the_announced_length_completes_a_body() {
        for (announced, came, end, whole) in [
            (None, 0, End::Signalled, true),
            (None, 7, End::Signalled, true),
            (Some(7), 7, End::Signalled, true),
            (Some(0), 0, End::Signalled, true),
            (None, 7, End::Cut, false),
            (Some(7), 7, End::Cut, false),
            (Some(7), 6, End::Signalled, false),
            (Some(7), 0, End::Signalled, false),
            (Some(7), 6, End::Cut, false),
        ] {
            let mut tally = Tally::new(announced);
            tally.count(came).expect("not too many");
            assert_eq!(tally.end(end).is_ok(), whole, "{announced:?} {came} {end:?}");
        }
        let mut tally = Tally::new(Some(7));
        assert!(tally.count(7).is_ok() && tally.count(1).is_err());
        assert!(tally.end(End::Signalled).is_err());
    }
}
