//! What becomes of the files of a removed account or space: handed over, deleted, or kept for administrators.

use std::path::Path;

use clap::Args;

use super::desk::Desk;
use super::{Failure, failure};

/// What an administrator decides about the files.
#[derive(Args)]
pub struct Fate {
    /// Give the files to this user or device.
    #[arg(long, value_name = "NAME", conflicts_with = "delete")]
    hand_over: Option<String>,
    /// Delete the files.
    #[arg(long)]
    delete: bool,
}

impl Fate {
    /// The desk for it: deleting opens the files.
    pub fn desk(&self, file: Option<&Path>) -> Result<Desk, Failure> {
        match self.delete {
            true => Desk::with_files(file),
            false => Desk::open(file),
        }
    }

    /// Refuses before anything is removed when there is nobody to hand over to.
    pub fn check(&self, desk: &Desk) -> Result<(), Failure> {
        let Some(heir) = &self.hand_over else { return Ok(()) };
        match desk.hub.accounts().iter().any(|one| one.row.name == *heir) {
            true => Ok(()),
            false => Err(Failure { code: failure::NO_SUCH, words: format!("there is no account `{heir}`") }),
        }
    }

    /// Something was decided.
    pub fn is_decided(&self) -> bool {
        self.delete || self.hand_over.is_some()
    }

    /// Does it for each of these paths, or says how to do it later.
    pub fn decide(&self, desk: &Desk, left: &[String]) -> Result<(), Failure> {
        for path in left {
            if let Some(heir) = &self.hand_over {
                desk.wait(desk.hub.hand_over(path, heir))?;
                tell!("{path} belongs to {heir} now");
            } else if self.delete {
                desk.wait(desk.hub.delete_left(path))?;
                tell!("the files of {path} were deleted");
            } else {
                tell!(
                    "the files of {path} stay; only administrators may see them. `stoa space remove {path} --hand-over NAME` gives them \
                     to somebody, `stoa space remove {path} --delete` deletes them"
                );
            }
        }
        Ok(())
    }
}
