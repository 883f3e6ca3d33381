//! Mail: who a recipient is, and how one message becomes Maildir files and filed attachments in one commit.
//!
//! A message is a file like any other: it goes through the same verdict, quota, history and commit as an upload. Nothing
//! here speaks SMTP, and nothing here ever sends mail elsewhere.

mod alias;
mod charset;
mod decode;
mod deliver;
mod each;
mod fields;
mod filing;
mod import;
mod mailbox;
mod maildir;
mod mime;
mod name;
mod numbering;
mod octets;
mod parameters;
mod pattern;
mod proof;
mod recipient;
mod redelivery;
mod rules;
mod sender;
pub mod settings;
mod sorting;
mod text;
mod trace;
mod words;

pub use alias::AliasView;
pub use import::{About, Import, Letter};
pub use mailbox::Mailbox;
pub use numbering::Message;
pub use octets::Octets;
pub use proof::{Proof, Verdict};
pub use recipient::Rcpt;

pub(crate) use alias::Aliases;
pub(super) use deliver::finish;
pub(super) use each::{finish_each, no_message};
pub use filing::dissect;
pub(super) use mailbox::note_read;
pub(crate) use recipient::leads_somewhere;
pub(crate) use redelivery::Fingerprint;
pub use redelivery::Unheard;
pub(crate) use rules::DropRules;
pub(super) use trace::id_at;

/// What the hub remembers about mail while it runs.
#[derive(Default)]
pub(crate) struct Memory {
    maildirs: deliver::Maildirs,
    rooms: recipient::Rooms,
    sessions: mailbox::Sessions,
    redeliveries: redelivery::Redeliveries,
    refusals: trace::Refusals,
}

use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::path::TreePath;
use crate::hub::transfer::{Goal, Incoming, Upload};

/// Where a recipient's mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Attachments are filed into this folder of a space.
    Drop {
        /// The folder: the space's path, with `+sub` below it.
        folder: TreePath,
    },
    /// The Maildir `/mail/NAME`.
    Mailbox {
        /// Whose.
        account: String,
        /// A folder in it, `.Lists`; empty for the inbox.
        folder: String,
    },
}

impl Target {
    /// The folder the mail goes to.
    ///
    /// # Errors
    /// `Invalid` when the account's name is no plain name.
    pub fn folder(&self) -> Result<TreePath> {
        match self {
            Self::Drop { folder } => Ok(folder.clone()),
            Self::Mailbox { account, folder } if folder.is_empty() => TreePath::parse(&["/mail/", account].concat()),
            Self::Mailbox { account, folder } => TreePath::parse(&format!("/mail/{account}/{folder}")),
        }
    }
}

/// A recipient that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// As the sender wrote it.
    pub address: String,
    /// Aliases that lead there.
    pub by_way_of: Vec<String>,
    /// Where it goes: more than one place for an alias.
    pub targets: Vec<Target>,
    /// Its number in the envelope, set by [`Caller::deliver`].
    pub place: u32,
}

/// A message about to arrive.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Our id of it (UUIDv7), shown in the reply and in the history.
    pub id: String,
    /// Reverse path; empty for `<>`.
    pub sender: String,
    /// Accepted recipients.
    pub recipients: Vec<Recipient>,
    /// Declared size.
    pub size: Option<u64>,
    /// What is known about where it really comes from; `None`: nobody looked. See [`crate::hub::Upload::vouch`].
    pub proof: Option<Proof>,
}

impl Caller {
    /// Begins taking a message in; `commit` of the upload delivers it to every recipient or to none.
    ///
    /// # Errors
    /// `Invalid` without recipients, `NotFound` when the first one's folder is gone since it was accepted.
    #[expect(clippy::unused_async, reason = "every other way to begin an upload has to ask the store first")]
    pub async fn deliver(&self, mut envelope: Envelope) -> Result<Upload> {
        for (place, recipient) in (0..).zip(&mut envelope.recipients) {
            recipient.place = place;
        }
        let Some(first) = envelope.recipients.iter().find_map(|recipient| recipient.targets.first()) else {
            return Err(Error::new(Kind::Invalid, "a message needs a recipient"));
        };
        let view = self.hub().view();
        let folder = first.folder()?;
        let Some((space, _)) = view.space_of(&folder) else {
            return Err(Error::new(Kind::NotFound, "the recipient is gone"));
        };
        let body = Incoming::new(view.settings.storage.inline).counted();
        Ok(Upload::begin(self.clone(), space.clone(), Goal::Mail(envelope), body, None, false))
    }
}
