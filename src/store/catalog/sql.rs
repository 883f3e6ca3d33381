//! Edits as SQL: each written once, in words both engines speak.

use super::{Batch, Transaction};

/// The statements that apply a batch.
pub(super) fn transaction(_batch: Batch) -> Transaction {
    todo!()
}
