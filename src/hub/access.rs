//! The end of access: what an account signed in with stops working everywhere, and what it left unfinished goes.
//!
//! An account has a generation: a hash of what admits it (kind, secret, root, folder, networks, doors) and of a count kept in
//! the catalog. A session of any kind remembers the account that admitted it. When the generation ends, the account's
//! [`ended`](crate::hub::Account) token is cancelled, which wakes every open session and transfer; independently of that,
//! every act compares the generation with the one in the current view.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::hub::account::Account;
use crate::hub::admin::line;
use crate::hub::view::{Principal, View};
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit};

impl Hub {
    /// Puts a new view in place and wakes the sessions of accounts that do not go on; those accounts.
    pub(crate) fn show(&self, view: View) -> Vec<Arc<Account>> {
        let new = Arc::new(view);
        let old = self.inner.view.swap(new.clone());
        let mut ended = Vec::new();
        for account in old.accounts.values().filter(|account| !account.disabled) {
            if !new.accounts.get(&account.name).is_some_and(|now| now.continues(account)) {
                account.ended.cancel();
                ended.push(account.clone());
            }
        }
        ended
    }

    /// Removes what accounts that do not go on could still use: stored sessions, unfinished uploads and, where the account
    /// is gone, its locks and receipts. Every act of theirs is refused already.
    pub(crate) async fn end_access(&self, ended: Vec<Arc<Account>>) {
        for account in ended {
            self.inner.sessions.end_all_of(&account.name);
            let mut batch = Batch::default();
            batch.push(self.session_edit(&account.name));
            let gone = !self.view().accounts.contains_key(&account.name);
            batch.push(Edit::RemoveWorkOf { account: account.name.clone(), all: gone });
            let granted = match Principal::parse(&account.principal()) {
                Ok(principal) if gone => self.take_grants(&principal, &mut batch).await,
                _ => Ok(()),
            };
            if let Err(error) = granted.and(self.catalog().commit(batch).await) {
                let (account, error) = (&account.name, error.detail());
                tracing::warn!(
                    account,
                    error,
                    "records of an ended sign-in could not be removed; none of them is valid"
                );
            }
            self.drop_partials_of(&account.name).await;
            self.drop_uploads_of(&account.name);
            if gone && let Err(error) = self.inner.locks.reload(self.catalog(), now()).await {
                tracing::warn!(error = error.detail(), "the locks could not be read again");
            }
        }
    }

    /// Removes stored sessions of accounts that changed while no daemon ran.
    pub(crate) async fn end_stale_sessions(&self) -> Result<()> {
        let names = self.catalog().signed_in().await?;
        if names.is_empty() {
            return Ok(());
        }
        let edits = names.iter().map(|name| self.session_edit(name)).collect();
        self.catalog().commit(Batch { edits }).await
    }

    /// Leaves the sessions of the current generation; none, if the account is gone or disabled.
    fn session_edit(&self, name: &str) -> Edit {
        match self.view().accounts.get(name).filter(|account| !account.disabled) {
            Some(now) => Edit::KeepSessionsOf { account: name.to_owned(), generation: now.generation },
            None => Edit::RemoveSessionsOf(name.to_owned()),
        }
    }

    /// Signs an account out everywhere: all sessions end, on all doors, and nothing that is remembered of its password counts.
    /// Works for declared accounts too.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    pub async fn sign_out(&self, name: &str) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let name = name.to_ascii_lowercase();
        if !self.view().accounts.contains_key(&name) {
            return Err(Error::new(Kind::NotFound, format!("there is no account `{name}`")));
        }
        let mut batch = Batch::default();
        new_generation(&mut batch, &name);
        batch.push(line("", format!("signed out {name} everywhere")));
        self.catalog().commit(batch).await?;
        self.refresh_in_turn().await
    }
}

/// Ends all that the account signed in with, and its unfinished uploads.
pub(crate) fn new_generation(batch: &mut Batch, name: &str) {
    batch.push(Edit::NewGeneration { account: name.to_owned(), at: now() });
    batch.push(Edit::RemoveSessionsOf(name.to_owned()));
    batch.push(Edit::RemoveWorkOf { account: name.to_owned(), all: false });
}
