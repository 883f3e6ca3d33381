//! Following a message: one row for each recipient and target says what became of it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::hub::{Caller, Hub, now};
use crate::store::{Batch, DeliveryRow, DeliveryState, Edit, HistoryLine, MailEdit, Micros};

/// Over which time refusals are counted.
const MINUTE: Duration = Duration::from_mins(1);

/// Rows shown of one message or address.
const SHOWN: usize = 1000;

impl Hub {
    /// What became of a message, by our id of it, or of the newest messages from or to an address, or one of a name: as its sender wrote
    /// it, an alias on its way, or the mailbox it went to.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn trace(&self, of: &str) -> Result<Vec<DeliveryRow>> {
        let of = of.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
        if !of.contains('@') {
            let rows = self.catalog().deliveries(&of, SHOWN).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        let (local, domain) = of.rsplit_once('@').unwrap_or((&of, ""));
        let ways = [by_way_of(std::slice::from_ref(&of)), by_way_of(&[local.to_owned()])];
        let ours = domain.is_empty() || self.view().settings.domains.iter().any(|one| one.to_lowercase() == domain);
        self.catalog().deliveries_with(&of, if ours { local } else { &of }, &ways, SHOWN).await
    }
}

/// Refusals written down in this minute: a stranger who tries a million names must not fill the disk.
#[derive(Default)]
pub(super) struct Refusals {
    counted: Mutex<Option<(Instant, u32)>>,
}

impl Refusals {
    fn allow(&self, most: u32) -> bool {
        let mut counted = self.counted.lock();
        let (since, count) = counted.filter(|(since, _)| since.elapsed() < MINUTE).unwrap_or((Instant::now(), 0));
        *counted = Some((since, count.saturating_add(1)));
        count < most
    }
}

/// One refusal: of whom, to whom, why.
pub(super) struct Refused<'a> {
    pub(super) message: &'a str,
    pub(super) place: i64,
    pub(super) sender: &'a str,
    pub(super) recipient: &'a str,
    /// Folder it would have gone to; empty when nobody knows.
    pub(super) target: String,
    pub(super) bytes: u64,
}

/// Writes refusals down, without keeping their sender waiting; the reply is the sender's whatever becomes of this.
pub(super) fn refused(caller: &Caller, refusals: &[Refused<'_>], error: &Error) {
    let hub = caller.hub();
    let most = hub.view().settings.mail.refusals;
    let told = refusals.iter().filter(|_| hub.inner.mail.refusals.allow(most));
    let edits: Vec<Edit> = told.flat_map(|one| refusal(caller, one, error.public())).collect();
    if edits.is_empty() {
        return;
    }
    let hub = hub.clone();
    tokio::spawn(async move {
        if let Err(error) = hub.catalog().commit(Batch { edits }).await {
            tracing::warn!(error = error.detail(), "a refusal could not be written down");
        }
    });
}

fn refusal(caller: &Caller, one: &Refused<'_>, why: &str) -> [Edit; 2] {
    let (origin, at) = (caller.origin(), now());
    let row = DeliveryRow {
        message: one.message.to_owned(),
        place: one.place,
        at,
        sender: one.sender.to_owned(),
        recipient: one.recipient.to_owned(),
        target: one.target.clone(),
        bytes: one.bytes,
        state: DeliveryState::Refused,
        changed: at,
        detail: why.to_owned(),
        mark: None,
    };
    let line = HistoryLine {
        at,
        door: origin.door.to_owned(),
        account: caller.name().to_owned(),
        address: origin.peer.ip().to_canonical().to_string(),
        verb: "refuse".to_owned(),
        path: if one.target.is_empty() { "/".to_owned() } else { one.target.clone() },
        bytes: one.bytes,
        result: why.to_owned(),
        detail: format!("mail {} from <{}> to <{}>", one.message, one.sender, one.recipient),
        ..HistoryLine::default()
    };
    [Edit::Mail(MailEdit::PutDelivery(row)), Edit::History(line)]
}

/// What sorts before every id that a message gets from this time on (RFC 9562 §5.7).
pub(in crate::hub) fn id_at(at: Micros) -> String {
    format!("{:012x}", at.max(0) / 1000)
}

/// The aliases that a message followed, as its row has them.
pub(super) fn by_way_of(aliases: &[String]) -> String {
    aliases.iter().map(|alias| format!("by way of {alias};")).collect::<Vec<_>>().join(" ")
}

/// The number of a row: recipients in the envelope's order, each with its targets.
pub(super) fn place(recipient: u32, target: u32) -> i64 {
    i64::from(recipient) << 16 | i64::from(target)
}
