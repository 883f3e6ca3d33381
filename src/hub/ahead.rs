//! Answered ahead: a small file of a space with `durable = false` is in place before its records are written.
//!
//! Nothing may be dispensed that was not verified, so the room for such files is taken from the quota in advance, some megabytes at
//! a time, and counts for every other writer as if it were used. Locks are looked at in the same moment in which the file gets its
//! name. The records follow together with those of others ([`crate::store`]); until then the path is held, so that whatever comes
//! next on it finds them. Where any of this is not to be had, the file takes the ordinary way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hub::commit::{Held, Promised, hold};
use crate::hub::view::Space;
use crate::hub::{Hub, Inner};
use crate::store::{Batch, Body, Change, Edit, Expect, FileRow, HistoryLine, Node, RelPath};

/// Taken from a quota at once.
const ADVANCE: Room = Room { bytes: 8 << 20, files: 256 };

/// So much must be left beside it: where a space is nearly full, each file is counted by itself.
const LEFT: Room = Room { bytes: 64 << 20, files: 2048 };

/// A space that was nearly full is not asked again for so long.
const REFUSED: Duration = Duration::from_secs(1);

/// Times the keeper finds an advance untouched before it gives it back; its period is half a second.
const IDLE: u32 = 120;

/// Times a record that met another is written again at once.
const AT_ONCE: u32 = 3;

/// Records that could not be written are tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// An amount of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    bytes: u64,
    files: u64,
}

/// What was taken from the quota of one space and is not spent.
#[derive(Default)]
struct Advance {
    left: Room,
    /// Times the keeper looked since something was spent.
    idle: u32,
    refused: Option<Instant>,
}

/// Advances by space, and whether all is well.
#[derive(Default)]
pub(crate) struct Ahead {
    advances: Mutex<HashMap<String, Advance>>,
    /// One more is taken at a time.
    taking: tokio::sync::Mutex<()>,
    /// Records that could not be written at once; nothing more is answered ahead until they are.
    mending: Arc<AtomicUsize>,
}

/// One such record, for as long as it is tried.
struct Mending(Arc<AtomicUsize>);

impl Mending {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Mending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ahead {
    /// Spends, if so much is left.
    fn spend(&self, space: &str, room: Room) -> bool {
        let mut advances = self.advances.lock();
        let Some(advance) = advances.get_mut(space) else { return false };
        advance.idle = 0;
        let (bytes, files) = (advance.left.bytes.checked_sub(room.bytes), advance.left.files.checked_sub(room.files));
        let (Some(bytes), Some(files)) = (bytes, files) else { return false };
        advance.left = Room { bytes, files };
        true
    }

    fn has(&self, space: &str, room: Room) -> bool {
        let advances = self.advances.lock();
        advances.get(space).is_some_and(|one| one.left.bytes >= room.bytes && one.left.files >= room.files)
    }

    fn add(&self, space: &str, room: Room) {
        let mut advances = self.advances.lock();
        let advance = advances.entry(space.to_owned()).or_default();
        advance.left.bytes += room.bytes;
        advance.left.files += room.files;
    }

    fn refuse(&self, space: &str) {
        self.advances.lock().entry(space.to_owned()).or_default().refused = Some(Instant::now());
    }

    fn was_refused(&self, space: &str) -> bool {
        let advances = self.advances.lock();
        advances.get(space).and_then(|one| one.refused).is_some_and(|when| when.elapsed() < REFUSED)
    }

    /// All that is left of the advance of one space.
    fn take(&self, space: &str) -> Option<Room> {
        let mut advances = self.advances.lock();
        let advance = advances.get_mut(space)?;
        Some(std::mem::take(&mut advance.left)).filter(|left| *left != Room::default())
    }

    /// Spaces with an advance, or only those that nobody has spent from for a while.
    fn spaces(&self, all: bool) -> Vec<String> {
        let mut advances = self.advances.lock();
        let held = |advance: &mut Advance| {
            advance.idle = advance.idle.saturating_add(1);
            (all || advance.idle >= IDLE) && advance.left != Room::default()
        };
        advances.iter_mut().filter_map(|(space, advance)| held(advance).then(|| space.clone())).collect()
    }
}

/// What is still to be recorded of a file in place.
struct Record {
    space: Arc<Space>,
    row: FileRow,
    line: HistoryLine,
    /// By which the space's usage grows.
    bytes: i64,
    files: i64,
    /// The tag the file was left with.
    tag: u64,
}

impl Record {
    /// Of a plan that writes one file and records nothing out of the ordinary.
    fn of(batch: &Batch, promised: &[Promised]) -> Option<Self> {
        let [one] = promised else { return None };
        let Change::Put { body: Body::Inline, .. } = &one.planned.change else { return None };
        let space = one.planned.space.clone();
        let (mut file, mut room, mut line) = (None, (0, 0), None);
        for edit in &batch.edits {
            match edit {
                Edit::PutFile(row, _) if file.is_none() => file = Some(row.clone()),
                Edit::Usage { space: of, bytes, files, .. } if *of == space.key => room = (*bytes, *files),
                Edit::History(one) if line.is_none() => line = Some(one.clone()),
                Edit::Unlocked(_) => {}
                _ => return None,
            }
        }
        Some(Self { space, row: file?, line: line?, bytes: room.0, files: room.1, tag: 0 })
    }

    /// Is this its row?
    fn is(&self, row: &FileRow) -> bool {
        (row.size, row.modified, &row.owner) == (self.row.size, self.row.modified, &self.row.owner)
    }

    /// What it takes from the advance.
    fn spent(&self) -> Room {
        Room { bytes: u64::try_from(self.bytes).unwrap_or(0), files: u64::try_from(self.files).unwrap_or(0) }
    }

    /// What its plan records, once everything it guards against was verified and its room was spent.
    fn follow(&self, mut batch: Batch) -> Batch {
        let Room { bytes: promised_bytes, files: promised_files } = self.spent();
        batch.edits.retain(|edit| !matches!(edit, Edit::Unlocked(_)));
        for edit in &mut batch.edits {
            if matches!(edit, Edit::Usage { .. }) {
                let (space, bytes, files) = (self.space.key.clone(), self.bytes, self.files);
                *edit = Edit::SpendAhead { space, bytes, files, promised_bytes, promised_files };
            }
        }
        batch
    }
}

/// A plan with what it has to itself.
pub(crate) type Whole = (Batch, Vec<Promised>, Held);

/// What became of a plan.
pub(crate) enum Way {
    /// It is in place, and recorded soon.
    Done(Option<Node>),
    /// It takes the ordinary way.
    Ordinary(Whole),
}

impl Hub {
    /// Puts one small file in place and leaves its records to follow, where that may be. `seen` is [`super::lock::Locks::seen`] from
    /// before it was planned.
    pub(crate) async fn put_ahead(&self, whole: Whole, seen: u64) -> Result<Way> {
        let Some(record) = Record::of(&whole.0, &whole.1) else { return Ok(Way::Ordinary(whole)) };
        let (ahead, catalog) = (&self.inner.ahead, self.catalog());
        let ready = ahead.mending.load(Ordering::Relaxed) == 0 && record.space.volume.is_near();
        if !(ready && catalog.takes_later() && self.has_advance(&record).await) {
            return Ok(Way::Ordinary(whole));
        }
        let (Some(fence), Some(planned)) = (self.inner.locks.fence(seen), whole.1.first().map(|one| &one.planned))
        else {
            ahead.add(&record.space.key, record.spent());
            return Ok(Way::Ordinary(whole));
        };
        if let Some(outcome) = planned.space.volume.publish_now(&planned.change, planned.body.clone()) {
            return Ok(self.go_on(outcome, record, whole));
        }
        // To its end even when the caller goes away: what is in place must be recorded.
        let (hub, planned) = (self.clone(), planned.clone());
        let work = async move {
            let outcome = planned.space.volume.publish(&planned.change, planned.body).await;
            drop(fence);
            hub.go_on(outcome, record, whole)
        };
        tokio::spawn(work).await.map_err(Error::internal)
    }

    /// It is in place, or the volume stumbled.
    fn go_on(&self, outcome: Result<Option<Node>>, record: Record, whole: Whole) -> Way {
        let Ok(node) = outcome else {
            self.inner.ahead.add(&record.space.key, record.spent());
            return Way::Ordinary(whole);
        };
        let (batch, promised, held) = whole;
        for one in &promised {
            self.remember(&one.planned, node.as_ref());
        }
        self.record_later(Record { tag: node.as_ref().map_or(0, |node| node.tag), ..record }, batch, held);
        Way::Done(node)
    }

    /// Spends from the advance of its space, taking another one when that is over.
    async fn has_advance(&self, record: &Record) -> bool {
        let (ahead, room) = (&self.inner.ahead, record.spent());
        if ahead.spend(&record.space.key, room) {
            return true;
        }
        if room.bytes > ADVANCE.bytes || ahead.was_refused(&record.space.key) {
            return false;
        }
        // To its end even when the caller goes away: what was taken must not be forgotten.
        let (hub, space) = (self.clone(), record.space.clone());
        let taken = tokio::spawn(async move { hub.take_advance(&space, room).await }).await;
        taken.unwrap_or(false) && ahead.spend(&record.space.key, room)
    }

    /// Takes another advance, unless somebody else did meanwhile.
    async fn take_advance(&self, space: &Space, wanted: Room) -> bool {
        let ahead = &self.inner.ahead;
        let _turn = ahead.taking.lock().await;
        if ahead.has(&space.key, wanted) {
            return true;
        }
        let kept = LEFT.bytes.saturating_add(self.inner.uploads.reserved(&space.key));
        let take = Edit::TakeAhead {
            space: space.key.clone(),
            bytes: ADVANCE.bytes,
            files: ADVANCE.files,
            max_bytes: space.max_bytes.map(|most| most.saturating_sub(kept)),
            max_files: space.max_files.map(|most| most.saturating_sub(LEFT.files)),
        };
        let taken = self.catalog().commit(Batch { edits: vec![take] }).await;
        match &taken {
            Ok(()) => ahead.add(&space.key, ADVANCE),
            Err(_) => ahead.refuse(&space.key),
        }
        taken.is_ok()
    }

    fn record_later(&self, record: Record, batch: Batch, held: Held) {
        let (batch, hub) = (record.follow(batch), Arc::downgrade(&self.inner));
        let runtime = tokio::runtime::Handle::current();
        let then = move |mut outcomes: Vec<Result<()>>, _| {
            if let Some(Err(error)) = outcomes.pop() {
                runtime.spawn(mend(hub, record, error, held));
            }
        };
        self.catalog().commit_later(batch, Box::new(then));
    }

    /// What an earlier daemon took and did not give back.
    pub(crate) async fn forget_advances(&self) {
        if self.catalog().is_shared() {
            return;
        }
        let forgotten = match self.catalog().has_advances().await {
            Ok(true) => self.catalog().commit(Batch { edits: vec![Edit::ForgetAhead] }).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            tracing::warn!(error = error.detail(), "what was taken from quotas in advance is still counted");
        }
    }

    /// Gives back what is left of advances that nobody needs at the moment, or of all.
    pub(crate) async fn give_back_advances(&self, all: bool) {
        for space in self.inner.ahead.spaces(all) {
            self.give_back(&space).await;
        }
    }

    /// Gives back what is left of one advance; false where there is none.
    pub(crate) async fn give_back(&self, space: &str) -> bool {
        let Some(left) = self.inner.ahead.take(space) else { return false };
        self.inner.ahead.refuse(space);
        let (promised_bytes, promised_files) = (left.bytes, left.files);
        let back = Edit::SpendAhead { space: space.to_owned(), bytes: 0, files: 0, promised_bytes, promised_files };
        let given = self.catalog().commit(Batch { edits: vec![back] }).await;
        if given.is_err() {
            // It is still promised.
            self.inner.ahead.add(space, left);
        }
        given.is_ok()
    }

    /// What a record has to itself while it is written.
    async fn hold_for(&self, record: &Record) -> Result<Held> {
        let path = RelPath::new(&record.row.path)?;
        let hold = hold(vec![record.space.clone()], false).await;
        Ok((hold, self.inner.paths.lock_many(&record.space.key, std::slice::from_ref(&path)).await))
    }

    /// Writes down after all what could not be written at once, as things are now.
    async fn write_record(&self, record: &mut Record, _held: Held) -> Result<()> {
        let space = record.space.clone();
        let path = RelPath::new(&record.row.path)?;
        let there = match space.volume.stat(&path).await {
            Ok(node) => Some(node.tag),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => None,
            Err(error) => return Err(error),
        };
        let promised = record.spent();
        let mut edits = vec![Edit::History(record.line.clone())];
        let (mut bytes, mut files) = (0, 0);
        if there == Some(record.tag) {
            let old = self.catalog().file(&space.key, &record.row.path).await?;
            if old.as_ref().is_some_and(|row| record.is(row)) {
                // Only the answer was lost.
                return Ok(());
            }
            let size = |row: &FileRow| i64::try_from(row.size).unwrap_or(i64::MAX);
            bytes = size(&record.row).saturating_sub(old.as_ref().map_or(0, size));
            files = i64::from(old.is_none());
            let expect = old.as_ref().map_or(Expect::Absent, |row| Expect::Version(row.version));
            record.row.version = old.map_or(1, |row| row.version);
            edits.push(Edit::PutFile(record.row.clone(), expect));
        }
        let (promised_bytes, promised_files) = (promised.bytes, promised.files);
        edits.push(Edit::SpendAhead { space: space.key.clone(), bytes, files, promised_bytes, promised_files });
        self.catalog().commit(Batch { edits }).await
    }
}

/// Another program took the file a moment before, or the catalog cannot be written: tried until it can, for as long as the hub is there.
async fn mend(hub: Weak<Inner>, mut record: Record, first: Error, held: Held) {
    let Some(_mending) = hub.upgrade().map(|inner| Mending::begin(&inner.ahead.mending)) else { return };
    let (mut error, mut held) = (first, Some(held));
    for tries in 1_u32.. {
        if error.kind() != Kind::Conflict || tries > AT_ONCE {
            tracing::warn!(
                path = record.line.path,
                error = error.detail(),
                "a file in place could not be recorded; it is tried again"
            );
            // Whoever wants the path meanwhile finds the file, and is recorded before it.
            held = None;
            tokio::time::sleep(AGAIN).await;
        }
        let Some(inner) = hub.upgrade() else { return };
        let hub = Hub { inner };
        let own = match held.take() {
            Some(held) => Ok(held),
            None => hub.hold_for(&record).await,
        };
        match own {
            Ok(own) => match hub.write_record(&mut record, own).await {
                Ok(()) => return,
                Err(again) => error = again,
            },
            Err(again) => error = again,
        }
    }
}
