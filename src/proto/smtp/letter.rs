//! A message on its way in: bounded in size, checked for loops, its header cleaned, handed on to the hub.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::head::Head;
use super::status::Status;
use super::verify::Prover;
use crate::error::{Error, Kind, Result};
use crate::hub::{Receipt, Soaked, Upload};
use crate::proto::dialogue::Intake;
use crate::units::ByteSize;

/// RFC 3463 §3.5: routing loop detected.
const LOOP: Status = Status("5.4.6");

/// What became of a message for each of its recipients, where each has a reply of its own (LMTP).
pub(super) type Outcomes = Arc<Mutex<Vec<Result<Receipt>>>>;

/// Where a message waits between two BDAT commands.
pub(super) type Shelf = Arc<Mutex<Option<Box<Letter>>>>;

/// Takes a message's content.
pub(super) struct Letter {
    upload: Upload,
    most: u64,
    taken: u64,
    head: Head,
    each: Option<Outcomes>,
    prover: Option<Prover>,
}

impl Letter {
    /// At most `most` bytes of content; 0: as many as the hub takes.
    pub(super) fn new(upload: Upload, most: ByteSize, head: Head) -> Self {
        let most = if most.0 == 0 { u64::MAX } else { most.0 };
        Self { upload, most, taken: 0, head, each: None, prover: None }
    }

    /// What it comes with is looked up before it is delivered.
    pub(super) fn proved_by(mut self, prover: Prover) -> Self {
        self.prover = Some(prover);
        self
    }

    /// What was held back of the header section, and what is known of the message's origin.
    async fn complete(&mut self) -> Result<()> {
        let mut held = BytesMut::new();
        self.head.finish(&mut held);
        if !held.is_empty() {
            self.upload.push(held.freeze()).await?;
        }
        if let Some(prover) = self.prover.take() {
            let (proof, lines) = prover.finish().await?;
            self.upload.vouch(proof, lines.into()).await?;
        }
        Ok(())
    }

    /// Each recipient gets an outcome of its own.
    pub(super) fn one_by_one(mut self, outcomes: Outcomes) -> Self {
        self.each = Some(outcomes);
        self
    }
}

#[async_trait]
impl Intake for Letter {
    async fn push(&mut self, chunk: Bytes) -> Result<()> {
        self.taken = self.taken.saturating_add(chunk.len() as u64);
        if self.taken > self.most {
            let says = format!("the message is larger than {}, the most taken here", ByteSize(self.most));
            return Err(Error::new(Kind::TooLarge, says));
        }
        if let Some(prover) = &mut self.prover {
            prover.feed(&chunk);
        }
        self.upload.saw(&chunk);
        if self.head.is_over() {
            return self.upload.push(chunk).await;
        }
        let mut front = BytesMut::with_capacity(chunk.len().min(4096));
        let rest = self.head.pass(chunk, &mut front);
        if self.head.is_loop() {
            return Err(Error::new(Kind::Invalid, "the message goes round in circles: too many hops").with(LOOP));
        }
        for piece in [front.freeze(), rest] {
            if !piece.is_empty() {
                self.upload.push(piece).await?;
            }
        }
        Ok(())
    }

    /// A message's bytes are looked at, all of them.
    async fn soak(&mut self, _from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        Ok(None)
    }

    async fn commit(mut self: Box<Self>) -> Result<Option<Receipt>> {
        if let Err(error) = self.complete().await {
            self.upload.abandon().await;
            return Err(error);
        }
        let Some(each) = self.each else { return self.upload.commit().await.map(Some) };
        let outcomes = self.upload.commit_each().await;
        let first = outcomes.iter().find_map(|outcome| outcome.as_ref().ok().cloned());
        *each.lock() = outcomes;
        // Those that were refused are told so one by one.
        Ok(first)
    }

    async fn abandon(self: Box<Self>) {
        self.upload.abandon().await;
    }
}

/// One BDAT command's part of a message (RFC 3030 §2).
pub(super) struct Chunk {
    /// The message so far.
    pub letter: Box<Letter>,
    /// Where it goes when more follows.
    pub shelf: Shelf,
    /// It is complete with this part.
    pub last: bool,
}

#[async_trait]
impl Intake for Chunk {
    async fn push(&mut self, chunk: Bytes) -> Result<()> {
        self.letter.push(chunk).await
    }

    async fn soak(&mut self, from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        self.letter.soak(from).await
    }

    async fn commit(self: Box<Self>) -> Result<Option<Receipt>> {
        if self.last {
            return self.letter.commit().await;
        }
        *self.shelf.lock() = Some(self.letter);
        Ok(None)
    }

    async fn abandon(self: Box<Self>) {
        self.letter.abandon().await;
    }
}

/// Takes the octets behind a BDAT that is refused, so that the next command is found behind them.
pub(super) struct Refused;

#[async_trait]
impl Intake for Refused {
    async fn push(&mut self, _chunk: Bytes) -> Result<()> {
        Err(refused())
    }

    async fn soak(&mut self, _from: &Arc<OwnedFd>) -> Result<Option<Soaked>> {
        Ok(None)
    }

    async fn commit(self: Box<Self>) -> Result<Option<Receipt>> {
        Err(refused())
    }

    async fn abandon(self: Box<Self>) {}
}

fn refused() -> Error {
    Error::new(Kind::Invalid, "these octets belong to no message")
}
