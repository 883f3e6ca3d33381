//! One message, each recipient judged by itself: what LMTP promises (RFC 2033 §4.2).

use std::sync::Arc;

use super::deliver::{Telling, attempt, finish};
use super::{Envelope, Fingerprint};
use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::transfer::{Incoming, Receipt};
use crate::hub::view::Space;

/// Delivers to all in one commit where that can be, else to each recipient in a commit of its own; outcomes in the
/// envelope's order. A mailbox that is full refuses for itself alone.
pub(in crate::hub) async fn finish_each(
    caller: &Caller,
    envelope: &Envelope,
    print: Option<&Fingerprint>,
    space: &Arc<Space>,
    body: &mut Incoming,
) -> Vec<Result<Receipt>> {
    let [_, _, ..] = envelope.recipients.as_slice() else {
        return vec![finish(caller, envelope, print, space, body).await];
    };
    if let Ok(receipt) = attempt(caller, envelope, print, space, body, Telling::Nobody).await {
        return envelope.recipients.iter().map(|_| Ok(receipt.clone())).collect();
    }
    let mut outcomes = Vec::with_capacity(envelope.recipients.len());
    for recipient in &envelope.recipients {
        let own = Envelope { recipients: vec![recipient.clone()], ..envelope.clone() };
        outcomes.push(alone(caller, &own, print, space, body).await);
    }
    outcomes
}

async fn alone(
    caller: &Caller,
    envelope: &Envelope,
    print: Option<&Fingerprint>,
    space: &Arc<Space>,
    body: &Incoming,
) -> Result<Receipt> {
    let mut copy = body.copy(space, caller.hub().view().settings.storage.inline).await?;
    let outcome = finish(caller, envelope, print, space, &mut copy).await;
    if outcome.is_err()
        && let Some(id) = copy.stage_id()
        && !caller.hub().inner.pending.needs_stage(id)
        && let Err(error) = space.volume.discard(id).await
    {
        tracing::warn!(stage = id.0, error = error.detail(), "a stage is left over; the next start removes it");
    }
    outcome
}

/// What a second try of a message that is no message answers.
pub(in crate::hub) fn no_message() -> Error {
    Error::new(Kind::Internal, "only a message has recipients")
}
