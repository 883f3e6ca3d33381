//! Uploads in pieces: each a resource with a name, an offset that survives restarts, and a place in the quota.
//!
//! The bytes are in a stage on the volume of the space they go to, the row in the catalog says how many of them would survive a power
//! cut. One request at a time works on an upload; the next one asks the one before to let go, for it is mostly the same client
//! after a broken line.

mod begin;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

pub use begin::UploadWish;
pub use writer::UploadWriter;

use crate::error::{Error, Kind, Result};
use crate::hub::partial::Partial;
use crate::hub::path::TreePath;
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit, Micros, StageId, UploadEdit, UploadKind, UploadRow};
use crate::units::Span;

/// How long a request waits for the one before it to let go of an upload.
const LET_GO: Duration = Duration::from_secs(20);

/// Rows read at once.
const PAGE: usize = 500;

/// What an upload's row keeps beside its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    /// As the client sent it: handed back when it asks.
    pub note: String,
    /// Modification time to set.
    pub modified: Option<Micros>,
    /// Make missing folders.
    pub folders: bool,
    /// SHA-256 the whole must have, in hexadecimal.
    pub sha256: Option<String>,
    /// The address of who is not signed in: by it his uploads are counted.
    pub from: Option<String>,
}

impl About {
    fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An upload as its client may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadResource {
    /// Its name: nobody can guess it.
    pub id: String,
    /// Bytes that are safe.
    pub offset: u64,
    /// Bytes it will have, once that is known.
    pub length: Option<u64>,
    /// It is a part of a file to be put together.
    pub part: bool,
    /// What its client said of it.
    pub note: String,
    /// When it is given up.
    pub expires: Micros,
    /// It is complete and this became of it.
    pub receipt: Option<super::Receipt>,
}

/// One upload under way.
pub(crate) struct Running {
    row: Mutex<UploadRow>,
    /// By whom it is counted: an account, or an address.
    maker: String,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when somebody else wants the turn.
    holder: Mutex<CancellationToken>,
}

/// The right to work on an upload, until somebody else asks for it.
pub(crate) struct Turn {
    _guard: OwnedMutexGuard<()>,
    pub(crate) wanted: CancellationToken,
}

impl Running {
    fn new(row: UploadRow) -> Arc<Self> {
        let maker = maker(&row);
        Arc::new(Self { row: Mutex::new(row), maker, turn: Arc::default(), holder: Mutex::default() })
    }

    pub(crate) fn row(&self) -> UploadRow {
        self.row.lock().clone()
    }

    /// Waits until whoever works on it has let go.
    async fn take_turn(&self) -> Result<Turn> {
        let busy = || Error::new(Kind::Locked, "another request is still writing to this upload; try again");
        self.holder.lock().cancel();
        let guard = tokio::time::timeout(LET_GO, self.turn.clone().lock_owned()).await.map_err(|_| busy())?;
        let wanted = CancellationToken::new();
        *self.holder.lock() = wanted.clone();
        Ok(Turn { _guard: guard, wanted })
    }
}

/// Uploads in pieces of this daemon.
#[derive(Default)]
pub(crate) struct Uploads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Arc<Running>>,
    /// Bytes promised to uploads by space: other writers leave them alone.
    reserved: HashMap<String, u64>,
}

/// What an upload takes of its space's quota before it is a file: what it announced. A stranger's announcement takes nothing, only
/// what came; else anybody could fill a drop box with words.
fn claim(row: &UploadRow) -> u64 {
    let announced = row.length.filter(|_| !row.account.is_empty());
    announced.unwrap_or(row.received).max(row.received)
}

/// By whom an upload is counted. An account's name never has a blank.
fn maker(row: &UploadRow) -> String {
    match row.account.is_empty() {
        true => format!("from {}", About::read(&row.about).from.unwrap_or_default()),
        false => row.account.clone(),
    }
}

impl State {
    fn reserve(&mut self, space: &str, bytes: u64) {
        let sum = self.reserved.entry(space.to_owned()).or_default();
        *sum = sum.saturating_add(bytes);
    }

    fn release(&mut self, space: &str, bytes: u64) {
        if let Some(sum) = self.reserved.get_mut(space) {
            *sum = sum.saturating_sub(bytes);
        }
    }
}

impl Uploads {
    /// Bytes of a space promised to uploads.
    pub(crate) fn reserved(&self, space: &str) -> u64 {
        self.state.lock().reserved.get(space).copied().unwrap_or(0)
    }

    /// Bytes promised to one upload; 0 when it is not under way.
    pub(crate) fn promised(&self, id: &str) -> u64 {
        self.find(id).map_or(0, |running| claim(&running.row.lock()))
    }

    /// The row of one that is under way.
    pub(crate) fn row(&self, id: &str) -> Option<UploadRow> {
        self.find(id).map(|running| running.row())
    }

    fn find(&self, id: &str) -> Option<Arc<Running>> {
        self.state.lock().running.get(id).cloned()
    }

    /// Takes a new one in, if there is a place for it.
    fn add(&self, row: UploadRow, most: usize, most_of_one: usize) -> Result<Arc<Running>> {
        let mut state = self.state.lock();
        let maker = maker(&row);
        let own = || state.running.values().filter(|one| one.maker == maker).count();
        if state.running.len() >= most || own() >= most_of_one {
            return Err(Error::new(
                Kind::Throttled,
                "too many uploads are under way; finish or end some of them first",
            ));
        }
        state.reserve(&row.space, claim(&row));
        let running = Running::new(row.clone());
        state.running.insert(row.id, running.clone());
        Ok(running)
    }

    /// Changes a row together with what it reserves.
    fn change(&self, running: &Running, change: impl FnOnce(&mut UploadRow)) {
        let mut state = self.state.lock();
        let mut row = running.row.lock();
        let before = claim(&row);
        change(&mut row);
        if state.running.contains_key(&row.id) {
            state.release(&row.space, before);
            state.reserve(&row.space, claim(&row));
        }
    }

    /// It is a file now, or gone.
    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.state.lock();
        if let Some(running) = state.running.remove(id) {
            let row = running.row();
            state.release(&row.space, claim(&row));
        }
    }

    fn all_of(&self, account: &str) -> Vec<Arc<Running>> {
        self.state.lock().running.values().filter(|one| one.row.lock().account == account).cloned().collect()
    }

    fn past(&self, moment: Micros) -> Vec<Arc<Running>> {
        self.state.lock().running.values().filter(|one| one.row.lock().expires < moment).cloned().collect()
    }
}

impl Hub {
    /// Knows again what was under way when the daemon stopped; says which stages are needed for that beside those of `promised`
    /// publishes. Call once, before the stages are swept.
    pub(crate) async fn load_uploads(&self, promised: &HashSet<StageId>) -> Result<HashSet<StageId>> {
        let view = self.view();
        let mut stages: HashMap<String, HashSet<StageId>> = HashMap::new();
        let mut needed = HashSet::new();
        let mut after = String::new();
        loop {
            let page = self.catalog().uploads(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(needed) };
            after.clone_from(&last.id);
            for row in page {
                let stage = StageId(row.id.clone());
                if !row.account.is_empty() && !view.accounts.contains_key(&row.account) {
                    self.forget_upload(&row.id).await?;
                    continue;
                }
                let Some(space) = view.space(&row.space) else {
                    needed.insert(stage);
                    continue;
                };
                if !stages.contains_key(&row.space) {
                    let there = space.volume.stages().await?.into_iter().collect();
                    stages.insert(row.space.clone(), there);
                }
                // Without its bytes (a restored backup, a tidied disk) it cannot be gone on with.
                let there = stages.get(&row.space).is_some_and(|there| there.contains(&stage));
                if there && !promised.contains(&stage) {
                    needed.insert(stage);
                    self.take_up(row, space).await?;
                } else if !there && row.received == 0 && row.kind != UploadKind::Broken {
                    self.take_up(row, space).await?;
                } else {
                    self.forget_upload(&row.id).await?;
                }
            }
        }
    }

    async fn take_up(&self, row: UploadRow, space: &Arc<super::view::Space>) -> Result<()> {
        if row.kind == UploadKind::Broken {
            let path = TreePath::parse(&row.path)?;
            let since = row.expires.saturating_sub(self.resume_time());
            let id = StageId(row.id.clone());
            let hold = self.inner.staging.known(space, row.received);
            let partial = Partial { space: space.clone(), id, len: row.received, since, hold };
            // Two uploads to one path ran when the daemon was killed: the rows come in the order in which the uploads began.
            let older = self.inner.partials.know(&row, &path, partial);
            self.discard(older.into_iter().collect()).await;
        } else {
            // More than the limit may be there when the limit was lowered.
            self.inner.uploads.add(row, usize::MAX, usize::MAX)?;
        }
        Ok(())
    }

    pub(crate) async fn forget_upload(&self, id: &str) -> Result<()> {
        self.catalog().commit(Batch { edits: vec![Edit::Upload(UploadEdit::Forget(id.to_owned()))] }).await
    }

    /// Gives up uploads past their time, and what they reserve.
    pub(crate) async fn expire_uploads(&self) {
        for running in self.inner.uploads.past(now()) {
            // Who works on it prolongs its time.
            let Ok(_guard) = running.turn.clone().try_lock_owned() else { continue };
            if let Err(error) = self.drop_upload(&running).await {
                tracing::warn!(upload = running.row().id, error = error.detail(), "an upload could not be given up");
            }
        }
    }

    /// Gives up the uploads of an account whose access ended. Whoever still writes to one is asked to let go.
    pub(crate) fn drop_uploads_of(&self, account: &str) {
        for running in self.inner.uploads.all_of(account) {
            let hub = self.clone();
            tokio::spawn(async move {
                let Ok(_turn) = running.take_turn().await else { return };
                if let Err(error) = hub.drop_upload(&running).await {
                    tracing::warn!(
                        upload = running.row().id,
                        error = error.detail(),
                        "an upload could not be given up"
                    );
                }
            });
        }
    }

    /// Removes an upload with its bytes. Who calls holds its turn.
    async fn drop_upload(&self, running: &Running) -> Result<()> {
        let row = running.row();
        let stage = StageId(row.id.clone());
        if self.inner.pending.needs_stage(&stage) {
            return Ok(());
        }
        self.forget_upload(&row.id).await?;
        self.inner.uploads.remove(&row.id);
        match self.view().space(&row.space) {
            Some(space) => space.volume.discard(&stage).await,
            None => Ok(()),
        }
    }

    fn upload_expires(&self) -> Micros {
        now().saturating_add(self.resume_time())
    }

    /// When an upload is given up to which no byte came.
    fn empty_upload_expires(&self) -> Micros {
        let empty = micros(self.view().settings.storage.uploads_empty);
        now().saturating_add(self.resume_time().min(empty))
    }

    pub(crate) fn receipt_expires(&self) -> Micros {
        now().saturating_add(micros(self.view().settings.storage.receipts))
    }
}

fn micros(span: Span) -> Micros {
    Micros::try_from(span.0.as_micros()).unwrap_or(Micros::MAX)
}

/// 128 random bits in hexadecimal.
fn fresh_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().simple().to_string())
}

fn gone() -> Error {
    Error::new(Kind::NotFound, "there is no such upload, or its time is over; begin again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, account: &str, length: Option<u64>, received: u64) -> UploadRow {
        let (id, account) = (id.to_owned(), account.to_owned());
        UploadRow { id, account, space: "/a".into(), length, received, ..UploadRow::default() }
    }

    #[test]
    fn what_is_promised_is_reserved_until_the_upload_ends() {
        let uploads = Uploads::default();
        uploads.add(row("1", "eve", Some(100), 10), 9, 9).expect("a place");
        let open = uploads.add(row("2", "eve", None, 5), 9, 9).expect("a place");
        assert_eq!(uploads.reserved("/a"), 105);
        uploads.change(&open, |row| row.received = 50);
        assert_eq!((uploads.reserved("/a"), uploads.promised("2")), (150, 50));
        uploads.change(&open, |row| row.length = Some(60));
        uploads.remove("1");
        uploads.remove("1");
        assert_eq!((uploads.reserved("/a"), uploads.promised("1")), (60, 0));
        uploads.add(row("3", "", Some(1 << 40), 5), 9, 9).expect("a place");
        assert_eq!(uploads.reserved("/a"), 65, "a stranger's words reserve nothing");
    }

    #[test]
    fn there_is_a_place_for_so_many_and_no_more() {
        let uploads = Uploads::default();
        assert!(uploads.add(row("1", "eve", None, 0), 3, 2).is_ok());
        assert!(uploads.add(row("2", "eve", None, 0), 3, 2).is_ok());
        assert_eq!(uploads.add(row("3", "eve", None, 0), 3, 2).err().map(|error| error.kind()), Some(Kind::Throttled));
        assert!(uploads.add(row("3", "bob", None, 0), 3, 2).is_ok());
        let guest = |id: &str, from: &str| {
            let about = About { from: Some(from.into()), ..About::default() }.write();
            UploadRow { about, ..row(id, "", None, 0) }
        };
        assert!(
            uploads.add(guest("g", "192.0.2.1"), 9, 2).is_ok() && uploads.add(guest("h", "192.0.2.1"), 9, 2).is_ok()
        );
        assert!(uploads.add(guest("i", "192.0.2.1"), 9, 2).is_err(), "one guest has as many as one account");
        assert!(uploads.add(guest("i", "192.0.2.2"), 9, 2).is_ok(), "another guest has its own");
        for id in ["g", "h", "i"] {
            uploads.remove(id);
        }
        assert!(uploads.add(row("4", "ann", None, 0), 3, 2).is_err());
    }

    #[tokio::test]
    async fn who_comes_later_gets_the_turn() {
        let running = Running::new(row("1", "eve", None, 0));
        let first = running.take_turn().await.expect("a turn");
        let (one, other) = (running.clone(), first.wanted.clone());
        let second = tokio::spawn(async move { one.take_turn().await.is_ok() });
        other.cancelled().await;
        drop(first);
        assert!(second.await.expect("a task"));
    }
}
