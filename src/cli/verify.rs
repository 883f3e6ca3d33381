//! `stoa verify`: are tree, records, usage, intents, history and mail numbering of one mind?

use std::path::Path;

use clap::Args;

use super::Failure;
use super::desk::Desk;
use super::failure::DATA;
use crate::config;
use crate::daemon::data;

/// What to do about differences.
#[derive(Args)]
pub struct VerifyArgs {
    /// Make the records equal what is on the disk, let go of what cannot be put in place any more, and go on with what can be read of a
    /// damaged redo log. The daemon must be stopped.
    #[arg(long)]
    repair: bool,
    /// Set a missing or damaged catalog aside and begin anew over the files that are there. Accounts, grants, spaces and quotas made by
    /// command are lost. The daemon must be stopped.
    #[arg(long, conflicts_with = "repair")]
    adopt: bool,
}

/// Runs `stoa verify`.
pub fn run(file: Option<&Path>, args: &VerifyArgs) -> Result<(), Failure> {
    let loaded = config::load(file)?;
    let _lock = match args.repair || args.adopt {
        true => Some(data::lock(loaded.data(), file)?),
        false => None,
    };
    if args.adopt {
        for path in data::set_catalog_aside(loaded.data())? {
            tell!("set aside: {}", path.display());
        }
    }
    let desk = Desk::for_verify(&loaded, args.repair || args.adopt)?;
    let repair = args.repair || args.adopt;
    let mut tell = |line: String| {
        if !args.adopt {
            say!("{line}");
        }
    };
    let found = desk.wait(desk.hub.verify(repair, &mut tell))?;
    let files = found.files;
    match (repair, found.differences, found.beyond_repair) {
        (_, 0, 0) => tell!("{files} files: tree, records, usage, history and mail numbering agree"),
        (true, differences, 0) if args.adopt => tell!("began anew over {differences} files; start the daemon"),
        (true, differences, 0) => tell!("{files} files: {differences} differences were mended"),
        (_, differences, beyond) => {
            let remedy =
                if repair { "what is left needs a backup" } else { "stop the daemon and run `stoa verify --repair`" };
            let words =
                format!("{files} files: {differences} differences, {beyond} that a repair cannot mend; {remedy}");
            return Err(Failure { code: DATA, words });
        }
    }
    Ok(())
}
