//! The bytes of an upload on their way: in memory while they are few, then in a stage.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::mail::Octets;
use crate::hub::path::TreePath;
use crate::hub::put::Content;
use crate::hub::transfer::{Base, PIECE};
use crate::hub::view::Space;
use crate::store::{Micros, Opened, RelPath, Stage, StageId};
use crate::units::ByteSize;

/// The bytes so far: in memory while they are few, then in a stage.
pub(crate) struct Incoming {
    pub(super) buffer: BytesMut,
    /// The buffer once it was handed to a commit, which may have to be tried again.
    handed: Option<Bytes>,
    pub(super) stage: Option<(StageId, Box<dyn Stage>)>,
    inline: usize,
    /// The stage has a row in the catalog, as that of a broken upload.
    pub(super) recorded: bool,
    /// Counts what a message comes to on the wire.
    octets: Option<Octets>,
    /// A file whose first bytes come before those that are pushed; copied once there are any.
    base: Option<(Opened, u64)>,
}

impl Incoming {
    pub(super) fn new(inline: ByteSize) -> Self {
        Self {
            buffer: BytesMut::new(),
            handed: None,
            stage: None,
            inline: usize::try_from(inline.0).unwrap_or(usize::MAX),
            recorded: false,
            octets: None,
            base: None,
        }
    }

    /// What is pushed comes behind the first `len` bytes of a file.
    pub(super) fn behind(base: Opened, len: u64) -> Self {
        Self { base: Some((base, len)), ..Self::new(ByteSize(0)) }
    }

    pub(super) fn staged(id: StageId, stage: Box<dyn Stage>) -> Self {
        Self {
            buffer: BytesMut::new(),
            handed: None,
            stage: Some((id, stage)),
            inline: 0,
            recorded: false,
            octets: None,
            base: None,
        }
    }

    /// The bytes of a broken upload.
    pub(super) fn recorded(id: StageId, stage: Box<dyn Stage>) -> Self {
        Self { recorded: true, ..Self::staged(id, stage) }
    }

    /// The same for a message, which is also counted as the network sees it.
    pub(super) fn counted(self) -> Self {
        Self { octets: Some(Octets::default()), ..self }
    }

    /// Octets of a message as the network sees it; see [`Octets`].
    pub(crate) fn octets(&self) -> u64 {
        self.octets.as_ref().map_or(0, Octets::count)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        let before = self.base.as_ref().map_or(0, |(_, len)| *len);
        self.stage.as_ref().map_or(before + self.in_memory().len() as u64, |(_, stage)| stage.len())
    }

    /// So many bytes more would be on the disk, with all that came before.
    pub(super) fn would_stage(&self, more: usize) -> bool {
        self.stage.is_some() || self.base.is_some() || self.buffer.len() + more > self.inline
    }

    fn in_memory(&self) -> &[u8] {
        self.handed.as_deref().unwrap_or(&self.buffer)
    }

    /// Takes more bytes; into a stage on this space's volume once they are many.
    pub(crate) async fn push(&mut self, chunk: Bytes, space: &Space) -> Result<()> {
        if let Some(octets) = &mut self.octets {
            octets.feed(&chunk);
        }
        if let Some((_, stage)) = &mut self.stage {
            return stage.append(chunk).await;
        }
        if self.buffer.len() + chunk.len() <= self.inline {
            self.buffer.extend_from_slice(&chunk);
            return Ok(());
        }
        self.spill(space).await?;
        match &mut self.stage {
            Some((_, stage)) => stage.append(chunk).await,
            None => Ok(()),
        }
    }

    /// Moves what is in memory into a stage.
    pub(super) async fn spill(&mut self, space: &Space) -> Result<()> {
        let id = StageId(uuid::Uuid::now_v7().to_string());
        let mut stage = space.volume.stage(&id).await?;
        if let Err(error) = self.fill(stage.as_mut()).await {
            let _ = space.volume.discard(&id).await;
            return Err(error);
        }
        self.base = None;
        self.stage = Some((id, stage));
        Ok(())
    }

    async fn fill(&mut self, stage: &mut dyn Stage) -> Result<()> {
        if let Some((base, len)) = &self.base {
            stage.append_file(&base.file, *len).await?;
        }
        let buffered = std::mem::take(&mut self.buffer).freeze();
        if buffered.is_empty() { Ok(()) } else { stage.append(buffered).await }
    }

    /// Ready for the commit: inline, or sealed on the disk with the modification time that its file will have.
    pub(crate) async fn content(&mut self, space: &Space, backlog_full: bool, modified: Micros) -> Result<Content> {
        let wait_on_disk = backlog_full && !self.buffer.is_empty();
        if self.stage.is_none() && self.handed.is_none() && (self.base.is_some() || wait_on_disk) {
            self.spill(space).await?;
        }
        let Some((id, stage)) = &mut self.stage else {
            let handed = self.handed.get_or_insert_with(|| std::mem::take(&mut self.buffer).freeze());
            return Ok(Content::Inline(handed.clone()));
        };
        if space.durable {
            stage.seal(Some(modified)).await?;
        }
        Ok(Content::Staged(id.clone()))
    }

    /// Bytes back, for parsing. Call before [`Incoming::content`].
    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        if let Some((_, stage)) = &self.stage {
            return stage.read_at(offset, len).await;
        }
        let held = self.in_memory();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(held.len());
        let end = start.saturating_add(len).min(held.len());
        Ok(Bytes::copy_from_slice(held.get(start..end).unwrap_or_default()))
    }

    /// Puts bytes in front of those that came.
    pub(super) async fn prepend(&mut self, lines: Bytes, space: &Space) -> Result<()> {
        let Some((old_id, old)) = &mut self.stage else {
            let mut whole = BytesMut::with_capacity(lines.len() + self.buffer.len());
            whole.extend_from_slice(&lines);
            whole.extend_from_slice(&self.buffer);
            self.buffer = whole;
            return Ok(());
        };
        let id = StageId(uuid::Uuid::now_v7().to_string());
        let mut stage = space.volume.stage(&id).await?;
        let copied = match stage.append(lines).await {
            Ok(()) => stage.append_file(&old.file(), old.len()).await,
            Err(error) => Err(error),
        };
        // Whichever is not the body any more goes.
        let goes = match &copied {
            Ok(()) => {
                *old = stage;
                std::mem::replace(old_id, id)
            }
            Err(_) => id,
        };
        space.volume.discard(&goes).await?;
        copied
    }

    /// The same bytes once more.
    pub(crate) async fn copy(&self, space: &Space, inline: ByteSize) -> Result<Self> {
        let mut copy = Self::new(inline);
        loop {
            let piece = self.read_at(copy.len(), PIECE).await?;
            if piece.is_empty() {
                return Ok(copy);
            }
            if let Err(error) = copy.push(piece, space).await {
                if let Some((id, _)) = copy.stage.take() {
                    let _ = space.volume.discard(&id).await;
                }
                return Err(error);
            }
        }
    }

    /// The stage's id, when there is one.
    pub(crate) fn stage_id(&self) -> Option<&StageId> {
        self.stage.as_ref().map(|(id, _)| id)
    }
}

impl Caller {
    /// What an append or resume starts from: the first `upto` bytes of the file (all of it when `None`).
    pub(super) async fn append_base(
        &self,
        space: &Arc<Space>,
        path: &TreePath,
        upto: Option<u64>,
    ) -> Result<(Incoming, Base)> {
        let rel: RelPath = path.below(&space.path).unwrap_or_default();
        let opened = match space.volume.open(&rel).await {
            Ok(opened) => opened,
            Err(error) if error.kind() == Kind::NotFound && upto.is_none() => {
                let inline = self.hub().view().settings.storage.inline;
                return Ok((Incoming::new(inline), Base { tag: Some(None), ..Base::default() }));
            }
            Err(error) => return Err(error),
        };
        let len = upto.unwrap_or(opened.node.size);
        if len > opened.node.size {
            let says = format!("cannot go on at {len}: only {} bytes are here", opened.node.size);
            return Err(Error::new(Kind::Invalid, says));
        }
        let base = Base { len, tag: Some(Some(opened.node.tag)), is_whole: len == opened.node.size };
        // Copied with the first byte that comes: who asks and sends nothing takes no room.
        Ok((Incoming::behind(opened, len), base))
    }
}
