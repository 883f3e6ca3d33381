//! Signing in: argon2id on a bounded pool, a bounded memory of proofs, throttle and bans shared by all doors.
//!
//! Whoever fails learns nothing from the words or the time it took: an unknown name, a wrong password, a disabled
//! account, a wrong network or door all cost one hash and get one answer. Each outcome writes one line to the log
//! target `login`, with account, peer, door and result, for people and for fail2ban.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::hub::account::{Account, Secret};
use crate::hub::recent::Recent;
use crate::hub::roster::LONGEST_NAME;
use crate::hub::settings::LoginSettings;
use crate::hub::throttle::{Attempt, Begun, End, Pending, Throttle, counted_as};
use crate::hub::view::View;
use crate::hub::{Caller, Hub};
use crate::origin::Origin;
use crate::store::{Batch, Edit};
use crate::telemetry::metric;

/// Longest password that is looked at.
const LONGEST_PASSWORD: usize = 1024;

/// Sign-ins that may wait for each hasher.
const WAITING_PER_HASHER: usize = 32;

/// Rounds of a hash we make.
const ROUNDS: u32 = 2;

/// Least memory of a hash in KiB.
const LEAST_KIB: u32 = 8;

/// Counts failures, remembers proofs, hashes passwords.
pub struct Gatekeeper {
    throttle: Mutex<Throttle>,
    /// An attempt was judged: its place is free.
    ended: Notify,
    proofs: Mutex<Recent<[u8; 32], ()>>,
    /// Makes remembered proofs worthless outside this process.
    key: [u8; 32],
    hashers: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    /// Hashes computed since start.
    computed: AtomicUsize,
}

/// How a sign-in ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Busy,
    Disabled,
    Remembered,
    Right,
    Unknown,
    WrongDoor,
    WrongNetwork,
    WrongPassword,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Disabled => "disabled",
            Self::Remembered | Self::Right => "ok",
            Self::Unknown => "unknown",
            Self::WrongDoor => "wrong door",
            Self::WrongNetwork => "wrong network",
            Self::WrongPassword => "wrong password",
        }
    }
}

impl Outcome {
    fn end(self) -> End {
        match self {
            Self::Remembered | Self::Right => End::Right,
            Self::Busy => End::Unknown,
            Self::Disabled | Self::Unknown | Self::WrongDoor | Self::WrongNetwork | Self::WrongPassword => End::Wrong,
        }
    }
}

/// An attempt that is being judged. Its end is counted when this is dropped, also when the peer went away meanwhile.
struct Judged<'a> {
    keeper: &'a Gatekeeper,
    attempt: &'a Attempt,
    limits: &'a LoginSettings,
    pending: Pending,
    end: End,
}

impl Drop for Judged<'_> {
    fn drop(&mut self) {
        let waits = self.keeper.throttle.lock().end(self.attempt, &self.pending, self.end, self.limits);
        self.keeper.ended.notify_waiters();
        if let Some(what) = waits {
            let (account, peer) = (self.attempt.name.as_str(), self.attempt.address);
            tracing::warn!(target: "login", account, %peer, refused = what, "too many wrong passwords");
        }
    }
}

impl Gatekeeper {
    /// With the limits of the settings.
    #[must_use]
    pub fn new(settings: &LoginSettings) -> Self {
        let mut key = [0; 32];
        if getrandom::fill(&mut key).is_err() {
            // Without a kernel's random numbers nothing of ours is safe; a key of time and address is the least bad.
            let seed = format!("{:?}{:p}", std::time::SystemTime::now(), &raw const key);
            key = *blake3::hash(seed.as_bytes()).as_bytes();
        }
        let hashers = settings.hashers.clamp(1, 256);
        Self {
            throttle: Mutex::new(Throttle::new()),
            ended: Notify::new(),
            proofs: Mutex::new(Recent::new(settings.remember_entries)),
            key,
            hashers: Arc::new(Semaphore::new(hashers)),
            waiting: AtomicUsize::new(0),
            most_waiting: hashers.saturating_mul(WAITING_PER_HASHER),
            computed: AtomicUsize::new(0),
        }
    }

    /// Password hashes computed since start: remembered proofs need none.
    #[must_use]
    pub fn computed(&self) -> usize {
        self.computed.load(Ordering::Relaxed)
    }

    /// Checks a name and a password, counting and logging the outcome.
    async fn admit(&self, view: &View, origin: &Origin, name: &str, password: &[u8]) -> Result<Arc<Account>> {
        let limits = &view.settings.login;
        let name = local_name(name, &view.settings.domains);
        let account = view.accounts.get(&name);
        let address = origin.peer.ip().to_canonical();
        let attempt = Attempt {
            known: account.is_some(),
            address: counted_as(address),
            spared: view.never_ban.iter().any(|network| network.contains(&address)),
            at_home: account.is_some_and(|one| !one.networks.is_empty() && one.may_come_from(origin.peer.ip())),
            name,
        };
        let mut place = match self.place(&attempt, limits).await {
            Ok(place) => place,
            Err(error) => {
                report(&attempt, origin, "throttled");
                metric::login("throttled");
                return Err(error);
            }
        };
        let outcome = self.judge(account, origin, password, (limits, view.dearest)).await?;
        report(&attempt, origin, outcome.word());
        place.end = outcome.end();
        match (outcome, account) {
            (Outcome::Remembered | Outcome::Right, Some(account)) => {
                metric::login("ok");
                Ok(account.clone())
            }
            (Outcome::Busy, _) => {
                metric::login("unavailable");
                let wait = Duration::from_secs(5);
                let text = "too many sign-ins at once; try again in a few seconds";
                Err(Error::new(Kind::Throttled, text).retry_after(wait))
            }
            _ => {
                metric::login("refused");
                Err(Error::new(Kind::Unauthenticated, "wrong name or password"))
            }
        }
    }

    /// A place among the attempts that are judged. Where as many as may fail are being judged, it comes when one of them has ended.
    async fn place<'a>(&'a self, attempt: &'a Attempt, limits: &'a LoginSettings) -> Result<Judged<'a>> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on, so that an end between the question and the wait is not missed.
            ended.as_mut().enable();
            let begun = self.throttle.lock().begin(attempt, limits)?;
            match begun {
                Begun::Now(pending) => return Ok(Judged { keeper: self, attempt, limits, pending, end: End::Unknown }),
                Begun::Later => ended.await,
            }
        }
    }

    /// What is true of a name and a password; every refusal costs one hash.
    async fn judge(
        &self,
        account: Option<&Arc<Account>>,
        origin: &Origin,
        password: &[u8],
        (limits, dearest): (&LoginSettings, Cost),
    ) -> Result<Outcome> {
        let refused = match account {
            None => Some(Outcome::Unknown),
            Some(account) if account.disabled => Some(Outcome::Disabled),
            Some(account) if !account.may_come_from(origin.peer.ip()) => Some(Outcome::WrongNetwork),
            Some(account) if !account.may_use(origin.door) => Some(Outcome::WrongDoor),
            Some(_) if password.len() > LONGEST_PASSWORD => Some(Outcome::WrongPassword),
            Some(_) => None,
        };
        let (account, secret) = match (refused, account) {
            (None, Some(account)) => (account, &account.secret),
            (refused, _) => return self.decoy(refused.unwrap_or(Outcome::Unknown), dearest).await,
        };
        let hash = match secret {
            Secret::Digest(digest) => {
                let given = blake3::hash(password);
                return match bool::from(given.as_bytes().ct_eq(digest)) {
                    true => Ok(Outcome::Right),
                    false => self.decoy(Outcome::WrongPassword, dearest).await,
                };
            }
            Secret::None => return self.decoy(Outcome::WrongPassword, dearest).await,
            Secret::Hash(hash) => hash,
        };
        let proof = Proof { hash: self.proof(&account.name, hash, password), time: limits.remember.0 };
        if self.is_proved(&proof) {
            return Ok(Outcome::Remembered);
        }
        match self.hashed(hash, password, Some(proof)).await? {
            // A cheap hash must not tell that the name exists.
            Outcome::WrongPassword => match dearest.without(Cost::of(hash)) {
                Some(rest) => self.decoy(Outcome::WrongPassword, rest).await,
                None => Ok(Outcome::WrongPassword),
            },
            outcome => Ok(outcome),
        }
    }

    fn is_proved(&self, proof: &Proof) -> bool {
        self.proofs.lock().find(&proof.hash).is_some()
    }

    /// Takes the time of a check of this cost and finds what was known before.
    async fn decoy(&self, outcome: Outcome, cost: Cost) -> Result<Outcome> {
        let found = self.hashed(&decoy_hash(cost, &self.key), b"nobody", None).await?;
        Ok(if found == Outcome::Busy { Outcome::Busy } else { outcome })
    }

    /// One hash on the bounded pool. The proof is looked for once more after the wait: another sign-in with the same
    /// password may have made it meanwhile.
    async fn hashed(&self, hash: &str, password: &[u8], proof: Option<Proof>) -> Result<Outcome> {
        let Some(_place) = Place::take(&self.waiting, self.most_waiting) else { return Ok(Outcome::Busy) };
        let permit = self.hashers.clone().acquire_owned().await.map_err(Error::internal)?;
        if proof.as_ref().is_some_and(|proof| self.is_proved(proof)) {
            return Ok(Outcome::Remembered);
        }
        self.computed.fetch_add(1, Ordering::Relaxed);
        let (hash, password) = (hash.to_owned(), Zeroizing::new(password.to_vec()));
        let work = tokio::task::spawn_blocking(move || {
            // The permit comes back with the answer: the next in line must find the proof.
            (Argon2::default().verify_password(&password, hash.as_str()).is_ok(), permit)
        });
        let (right, _permit) = work.await.map_err(Error::internal)?;
        if let Some(proof) = proof.filter(|proof| right && !proof.time.is_zero()) {
            self.proofs.lock().keep(proof.hash, (), proof.time);
        }
        Ok(if right { Outcome::Right } else { Outcome::WrongPassword })
    }

    /// What is remembered of a right password: bound to the account, its stored secret and this process.
    fn proof(&self, name: &str, secret: &str, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [name.as_bytes(), secret.as_bytes(), password] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

/// A password proved right: what stands for it, and how long it counts.
struct Proof {
    hash: [u8; 32],
    time: Duration,
}

/// A place among those waiting for a hasher; given back on drop, also when the peer went away.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let taken = waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < most).then_some(now + 1));
        taken.ok().map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What it takes to check a hash: the time grows with memory and rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// In KiB.
    memory: u32,
    rounds: u32,
}

impl Cost {
    /// Of a stored hash.
    fn of(hash: &str) -> Self {
        let parsed = PasswordHash::new(hash).ok().and_then(|parsed| Params::try_from(&parsed).ok());
        parsed.map_or(Self { memory: 0, rounds: 1 }, |params| Self { memory: params.m_cost(), rounds: params.t_cost() })
    }

    /// The greatest of all hashes in use and of those that are made: what every refused sign-in costs.
    pub(crate) fn dearest<'a>(settings: &LoginSettings, accounts: impl Iterator<Item = &'a Account>) -> Self {
        let stored = accounts.filter_map(|account| match &account.secret {
            Secret::Hash(hash) => Some(Self::of(hash)),
            Secret::Digest(_) | Secret::None => None,
        });
        let made = Self { memory: kib(settings), rounds: ROUNDS };
        stored.fold(made, |dearest, cost| if cost.work() > dearest.work() { cost } else { dearest })
    }

    fn work(self) -> u64 {
        u64::from(self.memory) * u64::from(self.rounds)
    }

    /// What is left when a check of another cost was done; `None`: too little to be measured.
    fn without(self, done: Self) -> Option<Self> {
        let left = self.work().saturating_sub(done.work()) / u64::from(self.rounds.max(1));
        let memory = u32::try_from(left).unwrap_or(u32::MAX);
        (memory >= LEAST_KIB).then_some(Self { memory, ..self })
    }
}

fn kib(settings: &LoginSettings) -> u32 {
    u32::try_from(settings.memory.0 >> 10).unwrap_or(u32::MAX)
}

/// A hash that nothing matches and that takes as long to check as one of this cost.
fn decoy_hash(cost: Cost, key: &[u8; 32]) -> String {
    let salt = STANDARD_NO_PAD.encode(key.first_chunk::<16>().unwrap_or(&[0; 16]));
    let hash = STANDARD_NO_PAD.encode(blake3::hash(key).as_bytes());
    format!("$argon2id$v=19$m={},t={},p=1${salt}${hash}", cost.memory.max(LEAST_KIB), cost.rounds.max(1))
}

/// The line of a sign-in. The name is a stranger's text: it is cut, and the log quotes it.
fn report(attempt: &Attempt, origin: &Origin, result: &'static str) {
    let peer = origin.peer.ip().to_canonical();
    let (account, door) = (attempt.name.as_str(), origin.door);
    if result == "ok" {
        tracing::info!(target: "login", account, %peer, door, result, "signed in");
    } else {
        tracing::warn!(target: "login", account, %peer, door, result, "sign-in refused");
    }
}

/// The sign-in name meant: lower case, without one of our own domains, as mail programs like to send it. One character
/// more than a name may have is kept, so that a longer name is not somebody's.
fn local_name(text: &str, domains: &[String]) -> String {
    let text = match text.rsplit_once('@') {
        Some((local, domain)) if domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain)) => local,
        _ => text,
    };
    text.chars().take(LONGEST_NAME + 1).collect::<String>().to_ascii_lowercase()
}

impl Hub {
    /// Signs in with name and password.
    ///
    /// # Errors
    /// `Unauthenticated` (unknown, wrong, disabled, wrong network or door: the peer cannot tell which), `Throttled`.
    pub async fn login(&self, origin: &Origin, name: &str, password: &[u8]) -> Result<Caller> {
        let view = self.view();
        let account = self.inner.gatekeeper.admit(&view, origin, name, password).await?;
        let caller = Caller::new(self.clone(), origin.clone(), Some(account));
        // The account may have changed while the password was looked at.
        caller.admitted()?;
        self.renew_hash(&caller, password);
        Ok(caller)
    }

    /// Hashes the password of a recorded account again where its hash was made with other parameters than new ones are. No
    /// session ends by it.
    fn renew_hash(&self, caller: &Caller, password: &[u8]) {
        let limits = &self.view().settings.login;
        let Some(account) = caller.account().filter(|account| !account.declared) else { return };
        let Secret::Hash(old) = &account.secret else { return };
        let wanted = Cost { memory: kib(limits), rounds: ROUNDS };
        if Cost::of(old) == wanted {
            return;
        }
        let (hub, name, old, limits) = (self.clone(), account.name.clone(), old.clone(), limits.clone());
        let password = Zeroizing::new(password.to_vec());
        tokio::spawn(async move {
            let renewed = async {
                let _permit = hub.inner.gatekeeper.hashers.clone().acquire_owned().await.map_err(Error::internal)?;
                let work = tokio::task::spawn_blocking(move || hash_password(&password, &limits));
                let new = work.await.map_err(Error::internal)??;
                let edit = Edit::RenewHash { account: name.clone(), old, new };
                hub.catalog().commit(Batch { edits: vec![edit] }).await?;
                hub.refresh().await
            };
            match renewed.await {
                Ok(()) => tracing::info!(target: "login", account = name, "the stored password hash was renewed"),
                // Another sign-in renewed it, or the password changed.
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => tracing::warn!(account = name, error = error.detail(), "a password hash was not renewed"),
            }
        });
    }

    /// Counts and limits of sign-in.
    #[must_use]
    pub fn gatekeeper(&self) -> &Gatekeeper {
        &self.inner.gatekeeper
    }
}

/// The PHC string of a password, for `stoa user hash` and new accounts. Blocks for tens of milliseconds.
///
/// # Errors
/// `Invalid` for an empty or overlong password, `Internal` when the hasher refuses its parameters.
pub fn hash_password(password: &[u8], settings: &LoginSettings) -> Result<String> {
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Err(Error::new(Kind::Invalid, format!("a password has 1 to {LONGEST_PASSWORD} bytes")));
    }
    let params = Params::new(kib(settings), ROUNDS, 1, None).map_err(|error| Error::internal(error.to_string()))?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password(password).map_err(|error| Error::internal(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoy_is_a_hash_that_can_be_checked_and_never_matches() {
        let limits = LoginSettings::default();
        let decoy = decoy_hash(Cost::dearest(&limits, std::iter::empty()), &[7; 32]);
        let parsed = PasswordHash::new(&decoy).unwrap();
        let made = hash_password(b"x", &limits).unwrap();
        let made = PasswordHash::new(&made).unwrap();
        assert_eq!((&parsed.params, parsed.hash.unwrap().len()), (&made.params, made.hash.unwrap().len()));
        assert_eq!(
            Argon2::default().verify_password(b"nobody", decoy.as_str()),
            Err(argon2::password_hash::Error::PasswordInvalid)
        );
    }

    #[test]
    fn a_wrong_password_costs_the_same_whatever_the_hash() {
        let dear = Cost { memory: 64 << 10, rounds: 3 };
        for (memory, rounds) in [(8, 1), (19 << 10, 2), (32 << 10, 3), (64 << 10, 2)] {
            let cheap = Cost { memory, rounds };
            let rest = dear.without(cheap).unwrap();
            let off = dear.work().abs_diff(cheap.work() + rest.work());
            assert!(off <= u64::from(dear.rounds), "{cheap:?} and {rest:?} are not {dear:?}");
            assert!(Argon2::default().verify_password(b"x", decoy_hash(rest, &[7; 32]).as_str()).is_err());
        }
        assert_eq!(dear.without(dear), None);
        assert_eq!(Cost::of(&decoy_hash(dear, &[7; 32])), dear);
    }

    #[test]
    fn a_mail_address_of_ours_is_a_sign_in_name() {
        let ours = ["example.org".to_owned()];
        assert_eq!(local_name("Alice@EXAMPLE.org", &ours), "alice");
        assert_eq!(local_name("alice@example.com", &ours), "alice@example.com");
        assert_eq!(local_name(&"x".repeat(500), &ours).len(), LONGEST_NAME + 1);
    }
}
