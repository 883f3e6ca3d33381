//! Locks on paths, honoured by every door.

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::store::{Catalog, LockRow, Micros};

/// The locks in force, kept equal to the catalog.
#[derive(Default)]
pub struct Locks {
    held: parking_lot::RwLock<Vec<LockRow>>,
}

impl Locks {
    /// Reads those in force.
    pub async fn load(catalog: &Catalog, now: Micros) -> Result<Self> {
        Ok(Self { held: parking_lot::RwLock::new(catalog.locks(now).await?) })
    }

    /// A lock that stands in the way of changing `path`, unless its token is among `tokens`.
    pub fn obstacle(&self, path: &TreePath, tokens: &[String], now: Micros) -> Option<LockRow> {
        let path_text = path.to_string();
        self.held
            .read()
            .iter()
            .find(|lock| {
                lock.expires > now && !tokens.contains(&lock.token) && {
                    lock.path == path_text
                        || (lock.deep && TreePath::parse(&lock.path).is_ok_and(|above| path.is_in(&above)))
                }
            })
            .cloned()
    }

    /// Replaces what is held with what the catalog says.
    pub fn replace(&self, rows: Vec<LockRow>) {
        *self.held.write() = rows;
    }
}
