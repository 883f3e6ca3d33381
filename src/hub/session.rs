//! Server-side, revocable sessions for browsers and API clients. Only the BLAKE3 of a token is stored.
//!
//! A session found valid is remembered for a few seconds, so that a page of pictures costs one query; ending it
//! here forgets it at once, ending it on another node holds when those seconds are over.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hub::recent::Recent;
use crate::hub::{Caller, Hub, now};
use crate::origin::Origin;
use crate::store::{Batch, Edit, SessionRow};

/// How long a session found valid is not looked up again.
const REMEMBER: Duration = Duration::from_secs(5);

/// Most sessions remembered.
const MOST_REMEMBERED: usize = 20_000;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A session just opened: the token leaves the server once.
pub struct Opening {
    /// 256 random bits, base64url.
    pub token: String,
    /// Seconds until it ends by itself.
    pub seconds: u64,
}

/// Sessions looked up a moment ago.
pub(crate) struct Resumed {
    state: Mutex<State>,
}

struct State {
    /// Account and its generation by hash of the token.
    recent: Recent<[u8; 32], (String, [u8; 32])>,
    /// Counts endings: what was read before one is not remembered after it.
    endings: u64,
}

impl Default for Resumed {
    fn default() -> Self {
        Self { state: Mutex::new(State { recent: Recent::new(MOST_REMEMBERED), endings: 0 }) }
    }
}

impl Resumed {
    /// The account, or the number of endings to hand to [`Resumed::keep`].
    fn find(&self, hash: &[u8; 32]) -> Result<(String, [u8; 32]), u64> {
        let mut state = self.state.lock();
        state.recent.find(hash).ok_or(state.endings)
    }

    fn keep(&self, hash: [u8; 32], owner: (String, [u8; 32]), left: Duration, endings: u64) {
        let mut state = self.state.lock();
        if state.endings == endings {
            state.recent.keep(hash, owner, left.min(REMEMBER));
        }
    }

    fn end(&self, hash: &[u8; 32]) {
        let mut state = self.state.lock();
        state.endings += 1;
        state.recent.forget(hash);
    }

    /// Forgets all sessions of an account.
    pub(crate) fn end_all_of(&self, account: &str) {
        let mut state = self.state.lock();
        state.endings += 1;
        state.recent.retain(|_, (owner, _)| owner != account);
    }
}

impl Hub {
    /// Opens a session for a signed-in caller.
    ///
    /// # Errors
    /// `Unauthenticated` for a guest.
    pub async fn open_session(&self, caller: &Caller) -> Result<Opening> {
        let Some(account) = caller.account() else {
            return Err(Error::new(Kind::Unauthenticated, "sign in first"));
        };
        caller.admitted()?;
        let mut secret = [0; TOKEN_BYTES];
        getrandom::fill(&mut secret).map_err(|error| Error::internal(error.to_string()))?;
        let token = URL_SAFE_NO_PAD.encode(secret);
        let seconds = self.view().settings.login.session.0.as_secs().max(1);
        let created = now();
        let row = SessionRow {
            token: *blake3::hash(token.as_bytes()).as_bytes(),
            account: caller.name().to_owned(),
            created,
            expires: created.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
            address: caller.origin().peer.ip().to_canonical().to_string(),
            generation: account.generation,
        };
        self.catalog().commit(Batch { edits: vec![Edit::PutSession(row)] }).await?;
        Ok(Opening { token, seconds })
    }

    /// The caller behind a token (cookie or Bearer).
    ///
    /// # Errors
    /// `Unauthenticated` when it is unknown, past its time, or its account is gone or disabled.
    pub async fn resume(&self, origin: &Origin, token: &str) -> Result<Caller> {
        let ended = || Error::new(Kind::Unauthenticated, "the session has ended; sign in again");
        if URL_SAFE_NO_PAD.decode(token).map_or(0, |bytes| bytes.len()) != TOKEN_BYTES {
            return Err(ended());
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        let owner = match self.inner.sessions.find(&hash) {
            Ok(owner) => owner,
            Err(endings) => {
                let now = now();
                let row = self.catalog().session(hash, now).await?.ok_or_else(ended)?;
                let left = u64::try_from(row.expires.saturating_sub(now)).map_err(|_| ended())?;
                let owner = (row.account, row.generation);
                self.inner.sessions.keep(hash, owner.clone(), Duration::from_micros(left), endings);
                owner
            }
        };
        self.welcome(origin, owner).ok_or_else(ended)
    }

    /// The caller behind a token that was resumed a moment ago; `None` when it must be looked up.
    #[must_use]
    pub fn resume_known(&self, origin: &Origin, token: &str) -> Option<Caller> {
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        let owner = self.inner.sessions.find(&hash).ok()?;
        self.welcome(origin, owner)
    }

    fn welcome(&self, origin: &Origin, (name, generation): (String, [u8; 32])) -> Option<Caller> {
        let account = self.view().accounts.get(&name).cloned()?;
        let known = !account.disabled && account.generation == generation;
        let welcome = known && account.may_come_from(origin.peer.ip()) && account.may_use(origin.door);
        welcome.then(|| Caller::new(self.clone(), origin.clone(), Some(account)))
    }

    /// Ends a session; fine when it is unknown.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn close_session(&self, token: &str) -> Result<()> {
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        self.inner.sessions.end(&hash);
        self.catalog().commit(Batch { edits: vec![Edit::RemoveSession(hash)] }).await?;
        // Again: a request that read the row before it was gone may have remembered it.
        self.inner.sessions.end(&hash);
        Ok(())
    }
}
