//! Signing in: argon2id on a bounded pool, a bounded memory of proofs, throttle and bans shared by all doors.

use crate::error::Result;
use crate::hub::settings::LoginSettings;
use crate::hub::{Caller, Hub};
use crate::origin::Origin;

/// Counts failures, remembers proofs, hashes passwords.
pub struct Gatekeeper {}

impl Gatekeeper {
    /// With the limits of the settings.
    #[must_use]
    pub fn new(_settings: &LoginSettings) -> Self {
        todo!()
    }
}

impl Hub {
    /// Signs in with name and password.
    ///
    /// # Errors
    /// `Unauthenticated` (unknown, wrong, disabled, wrong network or door: the peer cannot tell which), `Throttled`.
    pub async fn login(&self, _origin: &Origin, _name: &str, _password: &[u8]) -> Result<Caller> {
        todo!()
    }
}

/// The PHC string of a password, for `stoa user hash` and new accounts. Blocks for tens of milliseconds.
///
/// # Errors
/// `Internal` when the hasher refuses its parameters.
pub fn hash_password(_password: &[u8], _settings: &LoginSettings) -> Result<String> {
    todo!()
}
