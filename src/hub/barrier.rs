//! The barrier: what keeps a replay after a crash from undoing what came later.
//!
//! Intents are replayed in order, and some of them may be in place already. Doing a change again is harmless alone, but
//! not before a later change on the same path that cannot be done again: the bytes of a staged put have left the
//! stage, a renamed file is no longer where it was. "Remove a; put a" replayed would remove the new `a` for good.
//! So such a change first waits until the earlier intents on its path are synced and cleared.

use std::collections::BTreeMap;

use crate::hub::commit::Promised;
use crate::store::{Body, Change, Synced};

/// Publishes in place whose intents are not cleared yet, by space and path.
#[derive(Default)]
pub(crate) struct Marks {
    places: BTreeMap<String, Vec<Mark>>,
}

#[derive(Clone, Copy)]
struct Mark {
    id: i64,
    kind: Kind,
}

/// What a replay would do at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Makes a folder; nothing happens where there is one.
    Folder,
    /// Writes the bytes from the intent, over and over.
    Inline,
    Remove,
    RemoveFolder,
    RenameFrom,
    RenameTo,
    /// Moves the stage in place, once.
    Staged,
    Touch,
}

/// Where a change works, and as what.
fn places(change: &Change) -> impl Iterator<Item = (&str, Kind)> {
    let (first, second) = match change {
        Change::Put { path, body: Body::Inline, .. } => (Some((path.as_str(), Kind::Inline)), None),
        Change::Put { path, body: Body::Staged(_), .. } => (Some((path.as_str(), Kind::Staged)), None),
        Change::Folder { path } => (Some((path.as_str(), Kind::Folder)), None),
        Change::Remove { path } => (Some((path.as_str(), Kind::Remove)), None),
        Change::RemoveFolder { path, .. } => (Some((path.as_str(), Kind::RemoveFolder)), None),
        Change::Rename { from, to } => (Some((from.as_str(), Kind::RenameFrom)), Some((to.as_str(), Kind::RenameTo))),
        Change::SetModified { path, .. } => (Some((path.as_str(), Kind::Touch)), None),
    };
    first.into_iter().chain(second)
}

/// May `new` follow an uncleared `old` on exactly the same path? Replaying both in order must end as they did, whichever of the two the
/// file system kept: after a power cut it need not be the earlier one, and a name that was replaced may be back.
///
/// A staged put and a rename move bytes that are there once, so a replay cannot do them again on top of something else: nothing that
/// cannot be written again from its intent may come before them.
fn may_follow(new: Kind, old: Kind) -> bool {
    let written = matches!(old, Kind::Inline | Kind::Staged);
    match new {
        Kind::Inline | Kind::Remove => written || matches!(old, Kind::Remove | Kind::Touch),
        Kind::Folder => matches!(old, Kind::Folder | Kind::Remove | Kind::RemoveFolder),
        Kind::RemoveFolder => old == Kind::Folder,
        // A file written under another name and then moved into place: the replay writes and moves it again.
        Kind::RenameFrom => old == Kind::Inline,
        Kind::RenameTo | Kind::Staged => false,
        Kind::Touch => written || old == Kind::Touch,
    }
}

/// Takes whole folders with it.
fn is_wide(kind: Kind) -> bool {
    matches!(kind, Kind::RemoveFolder | Kind::RenameFrom | Kind::RenameTo)
}

fn key(space: &str, path: &str) -> String {
    [space, "\0", path].concat()
}

impl Marks {
    /// These are in place; their intents are not cleared.
    pub(crate) fn add(&mut self, promised: &[Promised]) {
        for one in promised {
            for (path, kind) in places(&one.planned.change) {
                let marks = self.places.entry(key(&one.planned.space.key, path)).or_default();
                if !marks.iter().any(|mark| mark.id == one.id) {
                    marks.push(Mark { id: one.id, kind });
                }
            }
        }
    }

    /// Their intents are cleared.
    pub(crate) fn remove(&mut self, promised: &[Promised]) {
        for one in promised {
            for (path, _) in places(&one.planned.change) {
                let key = key(&one.planned.space.key, path);
                if let Some(marks) = self.places.get_mut(&key) {
                    marks.retain(|mark| mark.id != one.id);
                    if marks.is_empty() {
                        self.places.remove(&key);
                    }
                }
            }
        }
    }

    /// Must the earlier intents be cleared before this change is committed? One without an intent of its own is never done again, so
    /// nothing may be done again before it.
    pub(crate) fn stop(&self, space: &str, change: &Change, synced: Synced) -> bool {
        places(change).any(|(path, kind)| {
            self.at(space, path).any(|old| synced == Synced::Soon || !may_follow(kind, old))
                || above(path).any(|folder| self.at(space, folder).any(is_wide))
                || (is_wide(kind) && self.has_below(space, path))
        })
    }

    fn at(&self, space: &str, path: &str) -> impl Iterator<Item = Kind> {
        self.places.get(&key(space, path)).into_iter().flatten().map(|mark| mark.kind)
    }

    fn has_below(&self, space: &str, path: &str) -> bool {
        let key = key(space, path);
        self.places.range(format!("{key}/")..format!("{key}0")).next().is_some()
    }
}

/// The folders above a path, the nearest first.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(folder, _)| folder), |folder| {
        folder.rsplit_once('/').map(|(folder, _)| folder)
    })
}
