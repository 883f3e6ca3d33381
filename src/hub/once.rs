//! Requests that may be repeated: done once, answered alike.
//!
//! The receipt is made durable in the commit that does the work, under the request's key; so a repeated request finds it, however the
//! first one's answer was lost.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hub::path::TreePath;
use crate::hub::transfer::Receipt;
use crate::hub::{Caller, now};
use crate::store::ReceiptRow;

/// Longest key.
const LONGEST_KEY: usize = 255;

/// Names one file of a request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceKey {
    /// As the client chose it, of its account.
    pub key: String,
    /// Which file of the request.
    pub place: u32,
    /// Method and path: another request may not use the same key.
    pub request: String,
}

type Keys = Arc<Mutex<HashSet<(String, String)>>>;

/// Keys of requests that are being done; as many as there are such requests.
#[derive(Default)]
pub(crate) struct Doing(Keys);

/// The right to do a request, until it is dropped.
pub struct OnceTurn {
    doing: Keys,
    key: (String, String),
}

impl Drop for OnceTurn {
    fn drop(&mut self) {
        self.doing.lock().remove(&self.key);
    }
}

impl Caller {
    /// Begins a request under a key; ended when the answer is dropped.
    ///
    /// # Errors
    /// `Unauthenticated` for someone not signed in, `Invalid` for a key that cannot be, `Conflict` while the same request is being done.
    pub fn begin_once(&self, key: &str) -> Result<OnceTurn> {
        if self.is_guest() {
            return Err(Error::new(Kind::Unauthenticated, "sign in to use an Idempotency-Key"));
        }
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(Error::new(Kind::Invalid, "an Idempotency-Key has 1 to 255 characters"));
        }
        let doing = self.hub().inner.doing.0.clone();
        let key = (self.name().to_owned(), key.to_owned());
        if !doing.lock().insert(key.clone()) {
            return Err(Error::new(Kind::Conflict, "the request with this Idempotency-Key is still being done"));
        }
        Ok(OnceTurn { doing, key })
    }

    /// The receipt of a request done before; `None` when it is to be done.
    ///
    /// # Errors
    /// `Exists` when another request used the key.
    pub async fn done_before(&self, once: &OnceKey) -> Result<Option<Receipt>> {
        let Some(row) = self.hub().catalog().receipt(self.name(), &once.key, once.place, now()).await? else {
            return Ok(None);
        };
        if row.request != once.request {
            return Err(Error::new(Kind::Exists, "another request was made with this Idempotency-Key"));
        }
        self.recall(row).await.map(Some)
    }

    /// A receipt as it was given; its tag only while the file is what it was then.
    pub(super) async fn recall(&self, row: ReceiptRow) -> Result<Receipt> {
        let path = TreePath::parse(&row.path)?;
        let view = self.hub().view();
        let node = match view.space_of(&path) {
            Some((space, rel)) if !view.adds_unseeing(self.account(), &path) => space.volume.stat(&rel).await.ok(),
            Some(_) | None => None,
        };
        let same = node.filter(|node| node.size == row.bytes && node.modified == row.modified);
        Ok(Receipt {
            path,
            bytes: row.bytes,
            sha256: row.sha256,
            tag: same.map_or(0, |node| node.tag),
            modified: row.modified,
            created: row.created,
            id: row.id,
        })
    }
}
