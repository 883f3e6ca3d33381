//! Server-side, revocable sessions for browsers and API clients. Only the BLAKE3 of a token is stored.

use crate::error::Result;
use crate::hub::{Caller, Hub};
use crate::origin::Origin;

/// A session just opened: the token leaves the server once.
pub struct Opening {
    /// 256 random bits, base64url.
    pub token: String,
    /// Seconds until it ends by itself.
    pub seconds: u64,
}

impl Hub {
    /// Opens a session for a signed-in caller.
    ///
    /// # Errors
    /// `Unauthenticated` for a guest.
    pub async fn open_session(&self, _caller: &Caller) -> Result<Opening> {
        todo!()
    }

    /// The caller behind a token (cookie or Bearer).
    ///
    /// # Errors
    /// `Unauthenticated` when it is unknown, past its time, or its account is gone or disabled.
    pub async fn resume(&self, _origin: &Origin, _token: &str) -> Result<Caller> {
        todo!()
    }

    /// Ends a session; fine when it is unknown.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn close_session(&self, _token: &str) -> Result<()> {
        todo!()
    }
}
