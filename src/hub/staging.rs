//! Staged bytes: what uploads hold on a disk before they are files.
//!
//! Every byte is reserved here before it is written: against the quota of its space, together with what other uploads hold and were promised,
//! and against the disk space that must stay free (`storage.keep_free`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::room::does_not_fit;
use crate::hub::view::Space;

/// Bytes reserved at once at least: whoever sends many asks seldom.
const STEP: u64 = 1 << 20;
/// Bytes reserved at once at most.
const LONGEST_STEP: u64 = 16 << 20;

/// Bytes held by space.
#[derive(Default)]
pub(crate) struct Staging {
    held: Arc<Mutex<HashMap<String, u64>>>,
}

impl Staging {
    /// Bytes that uploads hold in a space.
    pub(crate) fn held(&self, space: &str) -> u64 {
        self.held.lock().get(space).copied().unwrap_or(0)
    }

    /// An empty hold in a space.
    pub(crate) fn hold(&self, space: &Space) -> Hold {
        Hold { held: self.held.clone(), space: space.key.clone(), bytes: 0 }
    }

    /// Bytes that are on the disk already, from before a restart.
    pub(crate) fn known(&self, space: &Space, bytes: u64) -> Hold {
        let mut hold = self.hold(space);
        hold.grow(bytes, u64::MAX);
        hold
    }
}

/// What one upload holds. Dropping it gives the room back.
pub(crate) struct Hold {
    held: Arc<Mutex<HashMap<String, u64>>>,
    space: String,
    bytes: u64,
}

impl Hold {
    /// Bytes reserved.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more if all holds of the space together stay within `most`.
    fn grow(&mut self, more: u64, most: u64) -> bool {
        let mut held = self.held.lock();
        let sum = held.entry(self.space.clone()).or_default();
        let after = sum.saturating_add(more);
        if after > most {
            return false;
        }
        *sum = after;
        self.bytes = self.bytes.saturating_add(more);
        true
    }

    /// Gives back what is above `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        if back == 0 {
            return;
        }
        self.bytes -= back;
        let mut held = self.held.lock();
        if let Some(sum) = held.get_mut(&self.space) {
            *sum = sum.saturating_sub(back);
            if *sum == 0 {
                held.remove(&self.space);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Room in one space for several bodies that are staged one after the other; given back when it is dropped.
pub(super) struct Room<'a> {
    caller: &'a Caller,
    space: &'a Arc<Space>,
    hold: Hold,
    bytes: u64,
    credit: u64,
}

impl<'a> Room<'a> {
    /// Nothing yet; `credit` as in [`Caller::reserve`].
    pub(super) fn in_space(caller: &'a Caller, space: &'a Arc<Space>, credit: u64) -> Self {
        Self { caller, space, hold: caller.hub().inner.staging.hold(space), bytes: 0, credit }
    }

    /// What is reserved stays so until this is dropped.
    pub(super) fn into_hold(self) -> Hold {
        self.hold
    }

    pub(super) fn space(&self) -> &'a Arc<Space> {
        self.space
    }

    /// Reserves so many bytes more.
    ///
    /// # Errors
    /// As [`Caller::reserve`].
    pub(super) async fn take(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.caller.reserve(self.space, &mut self.hold, self.bytes, self.credit).await
    }
}

impl Caller {
    /// Reserves room until `hold` covers `bytes`. `credit`: bytes that the quota counts and the commit will free (a file that is
    /// replaced, parts that are joined).
    ///
    /// # Errors
    /// `OverQuota`; `Full` when the disk would have less room than must stay free.
    pub(super) async fn reserve(&self, space: &Arc<Space>, hold: &mut Hold, bytes: u64, credit: u64) -> Result<()> {
        let Some(needed) = bytes.checked_sub(hold.bytes()).filter(|needed| *needed > 0) else { return Ok(()) };
        let ahead = needed.max((hold.bytes() / 4).clamp(STEP, LONGEST_STEP));
        self.disk_has_room_for(space, needed).await?;
        let Some(most) = space.max_bytes else {
            hold.grow(ahead, u64::MAX);
            return Ok(());
        };
        let used = self.hub().catalog().usage(&space.key).await?.bytes;
        let taken = used.saturating_add(self.hub().inner.uploads.reserved(&space.key));
        let left = most.saturating_add(credit).saturating_sub(taken);
        match hold.grow(ahead, left) || hold.grow(needed, left) {
            true => Ok(()),
            false => Err(Error::new(Kind::OverQuota, does_not_fit(space, left.min(most), 0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_of_one_space_share_its_room_and_give_it_back() {
        let held = Arc::default();
        let fresh = |space: &str| Hold { held: Arc::clone(&held), space: space.into(), bytes: 0 };
        let (mut one, mut two, mut elsewhere) = (fresh("/a"), fresh("/a"), fresh("/b"));
        assert!(one.grow(60, 100) && !two.grow(50, 100) && two.grow(40, 100) && elsewhere.grow(50, 100));
        one.shrink(10);
        assert!((one.bytes(), two.bytes()) == (10, 40) && two.grow(50, 100));
        drop(one);
        assert_eq!(held.lock().get("/a"), Some(&90));
        drop((two, elsewhere));
        assert!(held.lock().is_empty());
    }
}
