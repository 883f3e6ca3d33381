//! Walking a tree in order, as one caller may see it, with one page of each open folder in memory.

use std::collections::VecDeque;

use super::plain;
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, Download, Entry, Listing, NodeKind, TreePath, Verb};

/// Deepest folder below the one that was asked for.
const DEEPEST: usize = 100;

/// What is next, under the name it has in the archive.
pub(super) enum Found {
    Folder { name: String, modified: i64 },
    File { name: String, download: Download },
}

/// A folder that is being walked.
struct Level {
    /// Its name in the archive.
    name: String,
    /// What follows its entries at hand; `None` for names that were chosen.
    listing: Option<Listing>,
    entries: VecDeque<Entry>,
}

/// A walk under way.
pub(super) struct Walk {
    caller: Caller,
    levels: Vec<Level>,
}

impl Walk {
    /// Everything in a folder, below `name`.
    pub(super) async fn of_folder(caller: &Caller, folder: &TreePath, name: &str) -> Result<Self> {
        let listing = caller.list(folder).await.map_err(|error| match error.kind() {
            Kind::WrongType => Error::new(Kind::NotFound, "there is no such folder"),
            _ => error,
        })?;
        let level = Level { name: plain(name), listing: Some(listing), entries: VecDeque::new() };
        Ok(Self { caller: caller.clone(), levels: vec![level] })
    }

    /// Some names, below `name`.
    pub(super) fn of_chosen(caller: &Caller, chosen: Vec<Entry>, name: &str) -> Self {
        let level = Level { name: plain(name), listing: None, entries: chosen.into() };
        Self { caller: caller.clone(), levels: vec![level] }
    }

    /// The next file or folder; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Found>> {
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.next().await? else {
                self.levels.pop();
                continue;
            };
            let name = format!("{}/{}", level.name, plain(entry.path.name()));
            match entry.node.kind {
                NodeKind::File if entry.rights.has(Verb::Read) => {
                    let download = self.caller.open(&entry.path).await?;
                    return Ok(Some(Found::File { name, download }));
                }
                NodeKind::Folder => match self.caller.list(&entry.path).await {
                    Ok(listing) => {
                        if self.levels.len() > DEEPEST {
                            return Err(Error::new(Kind::TooLarge, "the folders are nested too deeply for an archive"));
                        }
                        let entries = VecDeque::new();
                        self.levels.push(Level { name: name.clone(), listing: Some(listing), entries });
                        return Ok(Some(Found::Folder { name, modified: entry.node.modified }));
                    }
                    // What may not be listed is not for this caller.
                    Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unauthenticated) => {}
                    Err(error) => return Err(error),
                },
                NodeKind::File | NodeKind::Special => {}
            }
        }
        Ok(None)
    }
}

impl Level {
    async fn next(&mut self) -> Result<Option<Entry>> {
        if self.entries.is_empty()
            && let Some(listing) = &mut self.listing
        {
            self.entries = listing.next_page().await?.into();
        }
        Ok(self.entries.pop_front())
    }
}
