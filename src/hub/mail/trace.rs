//! Following a message: one row for each recipient and target says what became of it.

use super::Envelope;
use crate::error::Result;
use crate::hub::Hub;
use crate::store::{DeliveryRow, DeliveryState, Micros};

/// Rows shown of one message or address.
const SHOWN: usize = 1000;

impl Hub {
    /// What became of a message, by our id of it, or of the newest messages from or to an address.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn trace(&self, of: &str) -> Result<Vec<DeliveryRow>> {
        let of = of.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
        match of.contains('@') {
            true => self.catalog().deliveries_with(&of, SHOWN).await,
            false => self.catalog().deliveries(&of, SHOWN).await,
        }
    }
}

/// The number of a row: recipients in the envelope's order, each with its targets.
pub(super) fn place(recipient: u32, target: u32) -> i64 {
    i64::from(recipient) << 16 | i64::from(target)
}

/// The row of a recipient whose mail goes into a folder, as it is when the message is stored there.
pub(super) fn stored(envelope: &Envelope, recipient: &str, target: String, bytes: u64, at: Micros) -> DeliveryRow {
    DeliveryRow {
        message: envelope.id.clone(),
        at,
        sender: envelope.sender.clone(),
        recipient: recipient.to_owned(),
        target,
        bytes,
        state: DeliveryState::Stored,
        changed: at,
        ..DeliveryRow::default()
    }
}
