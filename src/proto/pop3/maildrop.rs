//! The maildrop of one session: what was in the inbox when it was opened, held by nobody else until the session ends.
//!
//! The one place of this door that asks the hub about mail.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::hub::mail::Mailbox;
use crate::hub::{Caller, Download};

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// For UIDL: the same in every session for as long as the message is there, and never another's.
    pub unique: String,
    /// Octets as they are sent: lines ending in CRLF, the last one too, without the dots that are doubled (RFC 1939 §11).
    pub octets: u64,
    uid: u32,
}

/// An inbox opened for one session.
pub(super) struct Maildrop {
    mailbox: Mailbox,
    messages: Arc<[Message]>,
}

impl Maildrop {
    /// Opens the caller's own inbox, for nobody else until this is dropped.
    ///
    /// # Errors
    /// `Locked` while another session has it, `Denied` when the account has no mailbox.
    pub(super) async fn open(caller: &Caller) -> Result<Self> {
        let mut mailbox = caller.open_mailbox("").await.map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::Denied, "this account has no mailbox"),
            _ => error,
        })?;
        let mut messages = Vec::new();
        for message in mailbox.messages().to_vec() {
            let octets = match mailbox.octets(message.uid).await {
                // Another program took it away in this moment.
                Err(error) if error.kind() == Kind::NotFound => continue,
                outcome => outcome?,
            };
            messages.push(Message { unique: message.unique(), octets, uid: message.uid });
        }
        Ok(Self { mailbox, messages: messages.into() })
    }

    /// As they were when it was opened.
    pub(super) fn messages(&self) -> &Arc<[Message]> {
        &self.messages
    }

    /// `3 messages, 1234 octets`.
    pub(super) fn summary(&self) -> String {
        let octets: u64 = self.messages.iter().map(|message| message.octets).sum();
        format!("{} messages, {octets} octets", self.messages.len())
    }

    /// Opens a message for sending.
    ///
    /// # Errors
    /// `NotFound` when another program took it away.
    pub(super) async fn read(&mut self, index: usize) -> Result<Download> {
        let uid = self.uid(index)?;
        self.mailbox.open(uid).await.map_err(|error| match error.kind() {
            Kind::NotFound => gone(),
            _ => error,
        })
    }

    /// The client has all of it.
    pub(super) fn fetched(&mut self, index: usize) {
        if let Ok(uid) = self.uid(index) {
            self.mailbox.fetched(uid);
        }
    }

    /// Removes messages for good; those another program took away do not matter.
    ///
    /// # Errors
    /// What the store says; some may be removed already then.
    pub(super) async fn remove(&mut self, indices: &BTreeSet<usize>) -> Result<()> {
        let uids = indices.iter().map(|index| self.uid(*index)).collect::<Result<Vec<_>>>()?;
        self.mailbox.remove(&uids).await
    }

    /// Ends the session: what was fetched is written down before the client hears the last word.
    pub(super) async fn close(self) {
        self.mailbox.close().await;
    }

    fn uid(&self, index: usize) -> Result<u32> {
        self.messages.get(index).map(|message| message.uid).ok_or_else(gone)
    }
}

fn gone() -> Error {
    Error::new(Kind::NotFound, "the message is gone: another program took it away")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use crate::hub::mail::Octets;
    use crate::proto::dialogue::{Bare, Framing};
    use crate::proto::framing::{Frame, Unframe};

    proptest! {
        #[test]
        fn the_count_is_what_the_client_has_in_the_end(text in "[.a\r\n]{0,40}", cut in 1_usize..9) {
            let dots = Framing::Dots { swallow: 0, bare: Bare::Keep };
            let (mut count, mut frame, mut wire) = (Octets::default(), Frame::new(dots), BytesMut::new());
            for piece in text.as_bytes().chunks(cut) {
                count.feed(piece);
                frame.feed(piece, &mut wire);
            }
            frame.end(&mut wire);
            let (mut theirs, mut unframe) = (BytesMut::new(), Unframe::new(dots));
            let (used, ended) = unframe.feed(&wire, &mut theirs);
            prop_assert!(ended && used == wire.len(), "{:?} → {:?}", text, wire);
            prop_assert_eq!(count.count(), theirs.len() as u64, "{:?}", text);
        }
    }
}
