//! The same message sent again because its sender never heard the `250` (RFC 1047): it is stored once.
//!
//! A message is the same when recipient, place, envelope sender, `Message-ID` and body are; without a `Message-ID` its
//! whole header counts. A message with neither `Message-ID` nor `Date` is never the same: a machine that only says `disk
//! failing` says it again because it is so. What was stored is remembered in memory, which is filled from the deliveries at the start; who
//! brings the same message at the same moment waits for the other's outcome.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::trace::id_at;
use crate::error::Result;
use crate::hub::{Hub, now};
use crate::store::{Catalog, Micros};

/// Longest header section that is looked at for a `Message-ID`; beyond that it counts whole.
const LONGEST_HEADER: usize = 64 << 10;
/// Marks read at once at the start.
const PAGE: usize = 10_000;

/// What a message is recognised by, for one recipient and place.
pub(super) type Mark = u128;

/// Gathers what a message is recognised by while it arrives.
#[derive(Default)]
pub(crate) struct Fingerprint {
    header: Vec<u8>,
    /// The header section is over.
    over: bool,
    /// Something in the header tells this message from another with the same words.
    distinct: bool,
    hasher: blake3::Hasher,
}

impl Fingerprint {
    /// The next bytes of the message as the sender wrote it.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        if self.over {
            self.hasher.update(chunk);
            return;
        }
        let from = self.header.len().saturating_sub(3);
        self.header.extend_from_slice(chunk);
        let searched = self.header.get(from..).unwrap_or_default();
        let end = memchr::memmem::find(searched, b"\r\n\r\n").map(|at| from + at + 2);
        if let Some(end) = end {
            let body = self.header.split_off(end);
            self.begin_body();
            self.hasher.update(&body);
        } else if self.header.len() > LONGEST_HEADER {
            (self.over, self.distinct) = (true, true);
            self.hasher.update(&std::mem::take(&mut self.header));
        }
    }

    fn begin_body(&mut self) {
        self.over = true;
        let header = std::mem::take(&mut self.header);
        let id = value_of(b"message-id:", &header);
        self.distinct = id.is_some() || value_of(b"date:", &header).is_some();
        match id {
            Some(id) => self.hasher.update(b"id").update(id).update(b"\n"),
            None => self.hasher.update(&header),
        };
    }

    /// The mark of the whole message for one recipient and place; `None` when nothing makes it this one message.
    pub(super) fn mark(&self, sender: &str, recipient: &str, target: &str) -> Option<Mark> {
        if !self.distinct {
            return None;
        }
        let mut hasher = self.hasher.clone();
        for text in [sender, recipient, target] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.to_lowercase().as_bytes());
        }
        let [mark @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hasher.finalize().as_bytes();
        Some(Mark::from_be_bytes(mark))
    }
}

/// The value of the first field of a name in a header section; `None` for an empty one.
fn value_of<'a>(name: &[u8], header: &'a [u8]) -> Option<&'a [u8]> {
    let lines = header.split(|byte| *byte == b'\n');
    let mut values = lines.filter(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
    let value = values.next().and_then(|line| line.get(name.len()..)).unwrap_or_default().trim_ascii();
    Some(value).filter(|value| !value.is_empty())
}

/// Messages stored within the window.
#[derive(Default)]
pub(super) struct Redeliveries {
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    stored: HashMap<Mark, Micros>,
    /// The same marks, the oldest first.
    order: VecDeque<Mark>,
    /// Being delivered now.
    busy: HashSet<Mark>,
    /// Nobody knows whether the delivery of this message was committed.
    doubtful: HashMap<Mark, String>,
}

impl Table {
    fn remember(&mut self, mark: Mark, at: Micros, limits: Limits) {
        if self.stored.insert(mark, at).is_none() {
            self.order.push_back(mark);
        }
        let oldest = at.saturating_sub(limits.window);
        while let Some(first) = self.order.front().copied() {
            let old = self.stored.get(&first).is_none_or(|at| *at < oldest);
            if !old && self.order.len() <= limits.entries {
                return;
            }
            self.order.pop_front();
            self.stored.remove(&first);
        }
    }

    /// Takes all of these, unless one of them is being delivered.
    fn take(&mut self, marks: &[Mark], oldest: Micros) -> Option<Vec<bool>> {
        if marks.iter().any(|mark| self.busy.contains(mark)) {
            return None;
        }
        let known: Vec<bool> = marks.iter().map(|mark| self.stored.get(mark).is_some_and(|at| *at >= oldest)).collect();
        self.busy.extend(marks.iter().zip(&known).filter(|(_, known)| !**known).map(|(mark, _)| *mark));
        Some(known)
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
            table.busy.remove(mark);
            if !known {
                table.remember(*mark, now(), self.limits);
            }
        }
        drop(table);
        self.settled = true;
        self.changed.notify_waiters();
    }

    /// The message is certainly not stored.
    pub(super) fn released(mut self) {
        let mut table = self.table.lock();
        for mark in &self.marks {
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
        loop {
            let changed = all.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = all.table.lock().take(&marks, now().saturating_sub(limits.window));
            let Some(known) = taken else {
                // A bound, not a pace: whoever is delivering says when it is done.
                let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
                continue;
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
                table.remember(*mark, row.at, limits);
            }
        }
        Ok(())
    }

    /// Remembers what was stored before the start.
    pub(in crate::hub) async fn load_redeliveries(&self) -> Result<()> {
        let limits = Limits::of(self);
        let since = id_at(now().saturating_sub(limits.window));
        let marks = newest_marks(self.catalog(), &since, limits.entries).await?;
        let mut table = self.inner.mail.redeliveries.table.lock();
        for (mark, at) in marks.into_iter().rev() {
            table.remember(Mark::from_be_bytes(mark), at, limits);
        }
        Ok(())
    }
}

async fn newest_marks(catalog: &Catalog, since: &str, most: usize) -> Result<Vec<([u8; 16], Micros)>> {
    let mut marks = Vec::new();
    let mut before = ("~".to_owned(), 0);
    while marks.len() < most {
        let page = catalog.marks(since, (&before.0, before.1), PAGE.min(most - marks.len())).await?;
        let Some(last) = page.last() else { break };
        before = (last.message.clone(), last.place);
        marks.extend(page.into_iter().map(|row| (row.mark, row.at)));
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(message: &str, cut: usize) -> Option<Mark> {
        let mut print = Fingerprint::default();
        message.as_bytes().chunks(cut.max(1)).for_each(|chunk| print.push(chunk));
        print.mark("me@a", "bob@b", "/mail/bob")
    }

    #[test]
    fn a_message_is_known_by_its_id_and_body_however_it_is_cut() {
        let first = "Date: 1\r\nMessage-Id: <x@y>\r\nA: b\r\n\r\nbody\r\n\r\nmore";
        for cut in [1, 2, 3, 5, 1000] {
            assert_eq!(mark(first, cut), mark(first, 7));
            assert_eq!(mark(&first.replace("Date: 1", "Date: 22"), cut), mark(first, 7), "the same, sent again");
        }
        for other in [
            first.replace("<x@y>", "<z@y>"),
            first.replace("more", "less"),
            first.replace("Message-Id: <x@y>\r\n", ""),
            first.replace("Message-Id: <x@y>", "Message-Id: "),
        ] {
            assert_ne!(mark(&other, 7), mark(first, 7), "{other}");
        }
        let nameless = "Date: 1\r\n\r\nmotion";
        assert_eq!(mark(nameless, 3), mark(nameless, 1));
        assert_ne!(mark(nameless, 3), mark("Date: 2\r\n\r\nmotion", 3), "another alarm");
        for said_again in ["no header", "Subject: disk failing\r\n\r\nsda", ""] {
            assert_eq!(mark(said_again, 3), None);
        }
        let long = format!("A: {}\r\n\r\nx", "y".repeat(LONGEST_HEADER));
        assert_eq!(mark(&long, 1000), mark(&long, 4096));
    }

    #[test]
    fn what_is_too_old_or_too_much_is_forgotten() {
        let mut table = Table::default();
        let limits = Limits { window: 100, entries: 3 };
        for (mark, at) in [(1, 1000), (2, 1001), (3, 1002), (4, 1003)] {
            table.remember(mark, at, limits);
        }
        assert_eq!(table.stored.len(), 3);
        assert_eq!(table.take(&[1, 4], 0), Some(vec![false, true]));
        assert_eq!(table.take(&[1], 0), None, "somebody delivers it");
        table.remember(5, 1103, limits);
        assert_eq!((table.order.len(), table.stored.len()), (2, 2));
        assert_eq!(table.take(&[5], 1104), Some(vec![false]), "just too old");
    }
}
