//! Opens the mailbox that a command is about.

use std::path::Path;

use crate::cli::Failure;
use crate::cli::desk::Desk;
use crate::hub::Caller;
use crate::origin::Origin;

/// The hub with its files, and the caller whose mailbox it is.
pub(super) fn open(file: Option<&Path>, user: &str) -> Result<(Desk, Caller), Failure> {
    let desk = Desk::with_files(file)?;
    let caller = desk.hub.on_behalf(user, Origin::inside("cli"))?;
    Ok((desk, caller))
}

/// Messages between two lines that say how far a command is.
pub(super) const TELL_EVERY: u64 = 1000;
