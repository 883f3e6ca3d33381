//! A message on its way in: bounded in size, checked for loops, handed on to the hub.

use async_trait::async_trait;
use bytes::Bytes;

use super::trace::Hops;
use crate::error::{Error, Kind, Result};
use crate::hub::{Receipt, Upload};
use crate::proto::dialogue::Intake;
use crate::units::ByteSize;

/// Marks the error of a message that has gone round in circles (554 5.4.6).
#[derive(Debug)]
pub(super) struct Loop;

impl std::fmt::Display for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many Received headers")
    }
}

impl std::error::Error for Loop {}

/// Takes a message's content.
pub(super) struct Letter {
    upload: Upload,
    most: u64,
    taken: u64,
    hops: Hops,
}

impl Letter {
    /// At most `most` bytes of content; 0: as many as the hub takes.
    pub(super) fn new(upload: Upload, most: ByteSize) -> Self {
        let most = if most.0 == 0 { u64::MAX } else { most.0 };
        Self { upload, most, taken: 0, hops: Hops::default() }
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
        if !self.hops.pass(&chunk) {
            return Err(Error::new(Kind::Invalid, "the message goes round in circles: too many hops").with(Loop));
        }
        self.upload.push(chunk).await
    }

    async fn commit(self: Box<Self>) -> Result<Receipt> {
        self.upload.commit().await
    }

    async fn abandon(self: Box<Self>) {
        self.upload.abandon().await;
    }
}
