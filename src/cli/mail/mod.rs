//! `stoa mail …`: mail from elsewhere into mailboxes, and out of them, as mbox, Maildir or single files.
//!
//! Works beside a running daemon. A command that broke off is done again: nothing arrives twice.

mod args;
mod export;
mod import;
mod mbox;
mod open;
mod status;

use std::path::Path;

use clap::Subcommand;

use super::Failure;
use args::{ExportArgs, ImportArgs};

/// Mail in and out.
#[derive(Subcommand)]
pub enum MailCommand {
    /// Put messages from an mbox file, a Maildir or .eml files into a user's mailbox.
    Import(ImportArgs),
    /// Write a user's mailbox to an mbox file, a Maildir or .eml files.
    Export(ExportArgs),
}

/// Runs `stoa mail …`.
pub fn run(file: Option<&Path>, command: MailCommand) -> Result<(), Failure> {
    match command {
        MailCommand::Import(args) => import::run(file, &args),
        MailCommand::Export(args) => export::run(file, &args),
    }
}
