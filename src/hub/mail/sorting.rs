//! The files in a message, taken out of it one after the other: their bytes are in memory, or staged in room that was reserved first.

use std::sync::Arc;

use bytes::Bytes;

use super::deliver::{Delivery, PIECE};
use super::filing::{FileName, Sorted, Sorter};
use crate::error::Result;
use crate::hub::put::Content;
use crate::hub::staging::Room;
use crate::hub::transfer::Incoming;
use crate::hub::view::Space;
use crate::store::AccountKind;

/// Bytes of attachments kept in memory for one message; those beyond are staged, however small.
const INLINE_IN_ALL: u64 = 1 << 20;

/// A file found in the message, ready to be put into folders of one space.
pub(super) struct Filed {
    pub(super) name: FileName,
    pub(super) content: Content,
    pub(super) size: u64,
}

impl Delivery<'_> {
    /// Takes the message apart; the files' bytes end up inline or staged on this space's volume.
    pub(super) async fn sort(&mut self, space: &Arc<Space>) -> Result<(Vec<Filed>, Sorter)> {
        let view = self.caller.hub().view();
        let (storage, mail) = (&view.settings.storage, &view.settings.mail);
        let mut limits = mail.mime();
        // What a device writes above its scan says nothing to anybody.
        if self.caller.account().is_some_and(|account| account.kind == AccountKind::Device) {
            limits.text_words = 0;
        }
        let mut sorter = Sorter::new(storage.attachments, limits);
        // The message's own stage goes when its files are put.
        let credit = if space.key == self.home.key { self.size } else { 0 };
        let mut room = Room::in_space(self.caller, space, credit);
        let mut files: Vec<Filed> = Vec::new();
        let mut open: Option<(FileName, Incoming)> = None;
        let mut sorted = Vec::new();
        let mut at = 0;
        loop {
            let piece = self.body.read_at(at, PIECE).await?;
            at += piece.len() as u64;
            match piece.is_empty() {
                true => sorter.finish(&mut sorted),
                false => sorter.feed(&piece, &mut sorted),
            }
            for event in sorted.drain(..) {
                match event {
                    Sorted::File(name) => open = Some((name, Incoming::new(storage.inline))),
                    Sorted::Bytes(bytes) => self.collect(&mut room, &mut open, bytes).await?,
                    Sorted::End => files.extend(self.collected(&mut room, open.take()).await?),
                }
            }
            if piece.is_empty() {
                self.holds.push(room.into_hold());
                return Ok((files, sorter));
            }
        }
    }

    async fn collect(
        &mut self,
        room: &mut Room<'_>,
        open: &mut Option<(FileName, Incoming)>,
        bytes: Bytes,
    ) -> Result<()> {
        let Some((_, incoming)) = open else { return Ok(()) };
        let was_staged = incoming.stage_id().is_some();
        if incoming.would_stage(bytes.len()) {
            let before = if was_staged { 0 } else { incoming.len() };
            room.take(before.saturating_add(bytes.len() as u64)).await?;
        }
        let outcome = incoming.push(bytes, room.space()).await;
        if !was_staged && let Some(id) = incoming.stage_id() {
            self.stages.push((room.space().clone(), id.clone()));
        }
        outcome
    }

    async fn collected(&mut self, room: &mut Room<'_>, open: Option<(FileName, Incoming)>) -> Result<Option<Filed>> {
        let Some((name, mut incoming)) = open else { return Ok(None) };
        let size = incoming.len();
        let was_staged = incoming.stage_id().is_some();
        self.inline += if was_staged { 0 } else { size };
        let full = self.inline > INLINE_IN_ALL || self.caller.hub().inline_backlog_is_full(&self.home.key);
        if full && !was_staged {
            room.take(size).await?;
        }
        let content = incoming.content(room.space(), full, self.arrived).await?;
        if let (false, Content::Staged(id)) = (was_staged, &content) {
            self.stages.push((room.space().clone(), id.clone()));
        }
        Ok(Some(Filed { name, content, size }))
    }
}
