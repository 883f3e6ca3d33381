//! Why a command failed, with the exit code that says so to scripts (sysexits(3)).

use std::fmt;

use crate::config::Problems;
use crate::daemon::StartError;
use crate::error::{Error, Kind};

/// The command was used wrongly.
pub const USAGE: u8 = 64;
/// An input was wrong.
pub const DATA: u8 = 65;
/// Something of ours is not there or cannot be reached.
const UNAVAILABLE: u8 = 69;
/// Nobody of that name.
pub const NO_SUCH: u8 = 67;
/// A fault of ours.
const SOFTWARE: u8 = 70;
/// An output file could not be made.
const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
const IO: u8 = 74;
/// The account may not do this.
const PERMISSION: u8 = 77;
/// The configuration is wrong.
const CONFIG: u8 = 78;

/// Words for the terminal and a code for scripts.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What, why, and what to do.
    pub words: String,
}

impl Failure {
    /// The command was used wrongly.
    pub fn usage(words: impl Into<String>) -> Self {
        Self { code: USAGE, words: words.into() }
    }

    /// Reading or writing failed.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self { code: IO, words: format!("{what}: {error}") }
    }

    /// Something could not be made.
    pub fn cannot_create(words: impl Into<String>) -> Self {
        Self { code: CANNOT_CREATE, words: words.into() }
    }

    /// The configuration is wrong.
    pub fn config(words: impl Into<String>) -> Self {
        Self { code: CONFIG, words: words.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let plural = if count == 1 { "" } else { "s" };
        Self::config(format!("{count} problem{plural} in the configuration\n{problems}"))
    }
}

impl From<Error> for Failure {
    /// An operator is shown the causes too.
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Denied | Kind::Unauthenticated => PERMISSION,
            Kind::Corrupt
            | Kind::Exists
            | Kind::Invalid
            | Kind::NotEmpty
            | Kind::NotFound
            | Kind::OverQuota
            | Kind::TooLarge
            | Kind::WrongType => DATA,
            Kind::Cancelled | Kind::Conflict | Kind::Full | Kind::Locked | Kind::Throttled | Kind::Unavailable => {
                UNAVAILABLE
            }
            Kind::Internal => SOFTWARE,
        };
        Self { code, words: error.detail() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(problems) => problems.into(),
            StartError::Other(error) if error.kind() == Kind::Invalid => Self::config(error.detail()),
            StartError::Other(error) => error.into(),
        }
    }
}
