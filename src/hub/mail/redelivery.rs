//! The same message sent again because its sender never heard the `250` (RFC 1047): it is stored once.
//!
//! A message is the same when account or peer, envelope, place and every byte are, and when the conversation in which it came first ended
//! before its client had shown that it read the reply: no further command, no orderly close. So a machine that says the same twice is
//! believed twice, whatever `Message-ID` and `Date` it writes.
//!
//! What was stored and not heard of is remembered in memory, which is filled from the deliveries at the start. Who brings the same message
//! while the first conversation still goes on waits for its outcome, and no longer than `[mail] redelivery_wait`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Envelope;
use super::trace::id_at;
use crate::error::Result;
use crate::hub::{Caller, Hub, now};
use crate::store::{Batch, Catalog, Edit, MailEdit, Micros};

/// Marks read at once at the start.
const PAGE: usize = 10_000;
/// How long what was heard is gathered before it is written down.
const GATHER: Duration = Duration::from_millis(50);

/// What a message is recognised by, for one recipient and place.
pub(super) type Mark = u128;

/// Gathers what a message is recognised by while it arrives.
#[derive(Default)]
pub(crate) struct Fingerprint {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Fingerprint {
    /// The next bytes of the message as the sender wrote it.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.hasher.update(chunk);
    }

    /// The message is whole: who brings it, and to whom.
    pub(crate) fn addressed(&mut self, caller: &Caller, envelope: &Envelope) {
        self.hasher.update(&self.bytes.to_le_bytes());
        match caller.account() {
            Some(account) => self.word(&account.name),
            None => self.word(&caller.origin().peer.ip().to_canonical().to_string()),
        }
        self.word(&envelope.sender);
        for recipient in &envelope.recipients {
            self.word(&recipient.address);
        }
    }

    /// The mark of the whole message for one recipient and place.
    pub(super) fn mark(&self, recipient: &str, target: &str) -> Mark {
        let mut print = Self { hasher: self.hasher.clone(), bytes: 0 };
        print.word(recipient);
        print.word(target);
        let [mark @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *print.hasher.finalize().as_bytes();
        Mark::from_be_bytes(mark)
    }

    fn word(&mut self, text: &str) {
        let text = text.to_lowercase();
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }
}

/// Messages stored within the window.
#[derive(Default)]
pub(super) struct Redeliveries {
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    stored: HashMap<Mark, Stored>,
    /// The same marks, the oldest first.
    order: VecDeque<Mark>,
    /// Messages whose conversation goes on and whose reply was not heard, with their marks and the rows that hold these.
    open: HashMap<String, Vec<(Mark, String)>>,
    /// Messages whose rows are to lose their marks.
    heard: Vec<String>,
    /// Somebody is writing that down.
    writing: bool,
    /// Being delivered now.
    busy: HashSet<Mark>,
    /// Nobody knows whether the delivery of this message was committed.
    doubtful: HashMap<Mark, String>,
}

/// A message that was stored.
#[derive(Clone, Debug)]
struct Stored {
    at: Micros,
    /// The message whose row has the mark.
    row: String,
    /// The message it came as last.
    last: String,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// Wait: it is being delivered.
    Busy,
    /// Wait: it was stored, and its conversation goes on.
    Open,
    /// Store what is not known.
    Yours(Vec<bool>),
}

impl Table {
    fn remember(&mut self, mark: Mark, stored: Stored, limits: Limits) {
        let at = stored.at;
        if let Some(open) = self.open.get_mut(&stored.last) {
            open.push((mark, stored.row.clone()));
        }
        if self.stored.insert(mark, stored).is_none() {
            self.order.push_back(mark);
        }
        let oldest = at.saturating_sub(limits.window);
        while let Some(first) = self.order.front().copied() {
            let old = self.stored.get(&first).is_none_or(|stored| stored.at < oldest);
            if !old && self.order.len() <= limits.entries {
                return;
            }
            self.order.pop_front();
            self.stored.remove(&first);
        }
    }

    /// Takes all of these, unless one of them must be waited for.
    fn take(&mut self, marks: &[Mark], oldest: Micros, patient: bool) -> Taken {
        if marks.iter().any(|mark| self.busy.contains(mark)) {
            return Taken::Busy;
        }
        let mut known = Vec::with_capacity(marks.len());
        for mark in marks {
            let stored = self.stored.get(mark).filter(|stored| stored.at >= oldest);
            let open = stored.is_some_and(|stored| self.open.contains_key(&stored.last));
            if open && patient {
                return Taken::Open;
            }
            known.push(stored.is_some() && !open);
        }
        self.busy.extend(marks.iter().zip(&known).filter(|(_, known)| !**known).map(|(mark, _)| *mark));
        Taken::Yours(known)
    }

    /// The client has read the reply to this message: what it was recognised by is forgotten.
    fn read(&mut self, message: &str) {
        for (mark, row) in self.open.remove(message).unwrap_or_default() {
            if self.stored.get(&mark).is_some_and(|stored| stored.last == message) {
                self.stored.remove(&mark);
            }
            self.heard.push(row);
        }
        self.heard.dedup();
    }
}

/// How long and how many.
#[derive(Clone, Copy)]
struct Limits {
    window: Micros,
    entries: usize,
}

impl Limits {
    fn of(hub: &Hub) -> Self {
        let mail = &hub.view().settings.mail;
        let window = i64::try_from(mail.redelivery.0.as_micros()).unwrap_or(i64::MAX);
        Self { window, entries: mail.redelivery_entries }
    }
}

/// Marks held while their message is being delivered. Dropped without a word, nobody knows whether it was.
pub(super) struct Claim {
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
    limits: Limits,
    message: String,
    marks: Vec<Mark>,
    known: Vec<bool>,
    settled: bool,
}

impl Claim {
    /// Was this one stored before?
    pub(super) fn knows(&self, index: usize) -> bool {
        self.known.get(index).copied().unwrap_or(false)
    }

    /// The message is stored.
    pub(super) fn stored(mut self) {
        let mut table = self.table.lock();
        for (mark, known) in self.marks.iter().zip(&self.known) {
            let before = table.stored.get(mark).filter(|_| *known).cloned();
            if !known {
                table.busy.remove(mark);
            }
            let (row, at) = before.map_or_else(|| (self.message.clone(), now()), |before| (before.row, before.at));
            table.remember(*mark, Stored { at, row, last: self.message.clone() }, self.limits);
        }
        drop(table);
        self.settled = true;
        self.changed.notify_waiters();
    }

    /// The message is certainly not stored.
    pub(super) fn released(mut self) {
        let mut table = self.table.lock();
        for (mark, _) in self.marks.iter().zip(&self.known).filter(|(_, known)| !**known) {
            table.busy.remove(mark);
        }
        drop(table);
        self.settled = true;
        self.changed.notify_waiters();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut table = self.table.lock();
        for (mark, known) in self.marks.iter().zip(&self.known) {
            if !known && table.busy.remove(mark) {
                table.doubtful.insert(*mark, self.message.clone());
            }
        }
        drop(table);
        self.changed.notify_waiters();
    }
}

/// A message whose client has not shown that it read the reply. Dropped without a word, the conversation ended so.
pub struct Unheard {
    hub: Hub,
    message: String,
}

impl Unheard {
    /// The client has read the reply.
    pub fn read(self) {
        self.hub.inner.mail.redeliveries.table.lock().read(&self.message);
        self.hub.write_heard();
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let all = &self.hub.inner.mail.redeliveries;
        all.table.lock().open.remove(&self.message);
        all.changed.notify_waiters();
    }
}

impl Redeliveries {
    /// What was heard since the last time; `None`: nothing, and nobody is writing any more.
    fn next_heard(&self) -> Option<Vec<String>> {
        let mut table = self.table.lock();
        let heard = std::mem::take(&mut table.heard);
        table.writing = !heard.is_empty();
        table.writing.then_some(heard)
    }
}

impl Hub {
    /// Takes the marks of a message for itself and says which of them were stored before; waits for whoever is
    /// delivering the same. `None` when nothing is to be recognised.
    pub(super) async fn claim(&self, message: &str, marks: Vec<Mark>) -> Result<Option<Claim>> {
        let limits = Limits::of(self);
        if limits.window == 0 || limits.entries == 0 {
            return Ok(None);
        }
        let all = &self.inner.mail.redeliveries;
        self.settle_doubts(&marks, limits).await?;
        let mut patience: Option<Instant> = None;
        loop {
            let changed = all.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let patient = patience.is_none_or(|until| Instant::now() < until);
            let taken = all.table.lock().take(&marks, now().saturating_sub(limits.window), patient);
            let known = match taken {
                Taken::Yours(known) => known,
                waits => {
                    if waits == Taken::Open {
                        patience.get_or_insert_with(|| Instant::now() + self.view().settings.mail.redelivery_wait.0);
                    }
                    // A bound, not a pace: whoever is delivering says when it is done.
                    let bound = patience.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
                    let _ = tokio::time::timeout_at(bound, changed).await;
                    continue;
                }
            };
            let (table, changed) = (all.table.clone(), all.changed.clone());
            let mut claim = Claim { table, changed, limits, message: message.to_owned(), marks, known, settled: false };
            if let Err(error) = self.ask_others(&mut claim).await {
                claim.released();
                return Err(error);
            }
            return Ok(Some(claim));
        }
    }

    /// Another node may have stored it: on a shared catalog the deliveries are asked.
    async fn ask_others(&self, claim: &mut Claim) -> Result<()> {
        if !self.catalog().is_shared() {
            return Ok(());
        }
        let since = id_at(now().saturating_sub(claim.limits.window));
        for (mark, known) in claim.marks.iter().zip(&mut claim.known) {
            if !*known && self.catalog().is_marked(mark.to_be_bytes(), &since).await? {
                *known = true;
                claim.table.lock().busy.remove(mark);
            }
        }
        claim.changed.notify_waiters();
        Ok(())
    }

    /// A delivery whose outcome nobody heard is looked up.
    async fn settle_doubts(&self, marks: &[Mark], limits: Limits) -> Result<()> {
        let all = &self.inner.mail.redeliveries;
        for mark in marks {
            let Some(message) = all.table.lock().doubtful.get(mark).cloned() else { continue };
            let rows = self.catalog().deliveries(&message, usize::MAX).await?;
            let there = rows.iter().find(|row| row.mark == Some(mark.to_be_bytes()));
            let mut table = all.table.lock();
            table.doubtful.remove(mark);
            if let Some(row) = there {
                let stored = Stored { at: row.at, row: row.message.clone(), last: row.message.clone() };
                table.remember(*mark, stored, limits);
            }
        }
        Ok(())
    }

    /// A conversation waits for the reply to a message with this id: until what is returned says otherwise, nobody knows whether its
    /// client has read it.
    #[must_use]
    pub fn unheard(&self, message: &str) -> Unheard {
        self.inner.mail.redeliveries.table.lock().open.insert(message.to_owned(), Vec::new());
        Unheard { hub: self.clone(), message: message.to_owned() }
    }

    /// Writes down what was heard, many messages at once, without keeping anybody waiting.
    fn write_heard(&self) {
        let mut table = self.inner.mail.redeliveries.table.lock();
        if table.heard.is_empty() || std::mem::replace(&mut table.writing, true) {
            return;
        }
        drop(table);
        // Who waits here must not keep a catalog open that is to be closed.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            let Some(inner) = inner.upgrade() else { return };
            let hub = Self { inner };
            while let Some(heard) = hub.inner.mail.redeliveries.next_heard() {
                let edits = heard.into_iter().map(|message| Edit::Mail(MailEdit::Heard(message))).collect();
                if let Err(error) = hub.catalog().commit(Batch { edits }).await {
                    tracing::warn!(error = error.detail(), "what was heard of could not be written down");
                }
            }
        });
    }

    /// Remembers what was stored before the start.
    pub(in crate::hub) async fn load_redeliveries(&self) -> Result<()> {
        let limits = Limits::of(self);
        let since = id_at(now().saturating_sub(limits.window));
        let marks = newest_marks(self.catalog(), &since, limits.entries).await?;
        let mut table = self.inner.mail.redeliveries.table.lock();
        for (mark, at, row) in marks.into_iter().rev() {
            table.remember(Mark::from_be_bytes(mark), Stored { at, last: row.clone(), row }, limits);
        }
        Ok(())
    }
}

async fn newest_marks(catalog: &Catalog, since: &str, most: usize) -> Result<Vec<([u8; 16], Micros, String)>> {
    let mut marks = Vec::new();
    let mut before = ("~".to_owned(), 0);
    while marks.len() < most {
        let page = catalog.marks(since, (&before.0, before.1), PAGE.min(most - marks.len())).await?;
        let Some(last) = page.last() else { break };
        before = (last.message.clone(), last.place);
        marks.extend(page.into_iter().map(|row| (row.mark, row.at, row.message)));
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(message: &str, cut: usize) -> Mark {
        let mut print = Fingerprint::default();
        message.as_bytes().chunks(cut.max(1)).for_each(|chunk| print.push(chunk));
        print.mark("bob@b", "/mail/bob")
    }

    #[test]
    fn a_message_is_known_by_every_byte_however_it_is_cut() {
        let first = "Date: 1\r\nMessage-Id: <x@y>\r\n\r\nbody";
        for cut in [1, 2, 3, 1000] {
            assert_eq!(mark(first, cut), mark(first, 7));
        }
        for other in [first.replace("Date: 1", "Date: 2"), first.replace("x@y", "z@y"), first.replace("body", "bodY")] {
            assert_ne!(mark(&other, 7), mark(first, 7), "{other}");
        }
    }

    #[test]
    fn what_is_too_old_or_too_much_is_forgotten() {
        let mut table = Table::default();
        let limits = Limits { window: 100, entries: 3 };
        let stored = |at: Micros| Stored { at, row: "a".into(), last: "a".into() };
        for (mark, at) in [(1, 1000), (2, 1001), (3, 1002), (4, 1003)] {
            table.remember(mark, stored(at), limits);
        }
        assert_eq!(table.stored.len(), 3);
        assert_eq!(table.take(&[1, 4], 0, true), Taken::Yours(vec![false, true]));
        assert_eq!(table.take(&[1], 0, true), Taken::Busy, "somebody delivers it");
        table.remember(5, stored(1103), limits);
        assert_eq!((table.order.len(), table.stored.len()), (2, 2));
        assert_eq!(table.take(&[5], 1104, true), Taken::Yours(vec![false]), "just too old");
    }

    #[test]
    fn what_was_heard_is_new_again() {
        let (mut table, limits) = (Table::default(), Limits { window: 100, entries: 9 });
        table.open.insert("m".into(), Vec::new());
        table.remember(1, Stored { at: 5, row: "r".into(), last: "m".into() }, limits);
        assert_eq!(table.take(&[1], 0, true), Taken::Open);
        table.read("m");
        assert_eq!(table.heard, ["r"]);
        assert_eq!(table.take(&[1], 0, true), Taken::Yours(vec![false]));
    }
}
