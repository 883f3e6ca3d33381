//! Wrong passwords, counted by address and by account, and the wait they earn. All doors share one count.
//!
//! An attempt is counted before it is judged: [`Throttle::begin`] reserves a place, and the outcome turns it into a failure or gives
//! it back. So many guesses sent at once are no more than as many sent one after the other.
//!
//! An address that failed too often is refused for a while. An account is never refused because others failed: from the addresses and
//! networks it is known to use it signs in as always, and from elsewhere it waits longer and longer between two attempts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::hub::recent::Recent;
use crate::hub::settings::LoginSettings;

/// Most addresses, known accounts and unknown names that are counted, each.
const MOST_TALLIES: usize = 65_536;

/// How long an address from which an account signed in is known as one of its own.
const TRUST: Duration = Duration::from_hours(24);

/// Most pairs of account and address that are trusted.
const MOST_TRUSTED: usize = 65_536;

/// Failures that an account takes from unknown addresses without delay, in multiples of what one address may make. More than one, so
/// that a single address is refused before it delays anybody else.
const ADDRESSES: u32 = 3;

/// The first delay of an account; it doubles with each failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Failures of one address or account.
#[derive(Default)]
struct Tally {
    failures: u32,
    /// Attempts being judged now.
    pending: u32,
    /// The first failure of an address, the last of an account.
    since: Option<Instant>,
    /// Nothing is judged before this moment.
    until: Option<Instant>,
    /// Failures of an address by account, so that a success forgives only its own.
    by_name: HashMap<String, u32>,
}

impl Tally {
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn is_idle(&self, now: Instant, window: Duration) -> bool {
        let old = self.since.is_none_or(|since| now.saturating_duration_since(since) >= window);
        self.pending == 0 && old && self.wait(now).is_none()
    }

    /// Forgets failures that are older than the window or were paid for.
    fn expire(&mut self, now: Instant, window: Duration) {
        let paid = self.until.is_some_and(|until| until <= now);
        let old = self.since.is_some_and(|since| now.saturating_duration_since(since) >= window);
        if old || (paid && !self.by_name.is_empty()) {
            *self = Self { pending: self.pending, ..Self::default() };
        }
    }
}

/// Tallies by key, never more than [`MOST_TALLIES`].
struct Tallies<K>(HashMap<K, Tally>);

impl<K: Hash + Eq + Clone> Tallies<K> {
    /// The tally of a key, made when it is missing.
    fn of(&mut self, key: &K, limits: &LoginSettings) -> &mut Tally {
        let now = Instant::now();
        if self.0.len() >= MOST_TALLIES && !self.0.contains_key(key) {
            self.make_room(now, limits);
        }
        let tally = self.0.entry(key.clone()).or_default();
        tally.expire(now, limits.window.0);
        tally
    }

    /// Drops what is over; else the oldest that is not refused, else the oldest.
    fn make_room(&mut self, now: Instant, limits: &LoginSettings) {
        self.0.retain(|_, tally| !tally.is_idle(now, limits.window.0));
        if self.0.len() >= MOST_TALLIES {
            let oldest = self.0.iter().min_by_key(|(_, tally)| (tally.pending, tally.until.is_some(), tally.since));
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&key);
            }
        }
    }
}

/// Who must wait.
pub(crate) struct Throttle {
    addresses: Tallies<IpAddr>,
    accounts: Tallies<String>,
    /// Names nobody has: kept apart, so that a flood of them cannot push out the counts of real accounts.
    strangers: Tallies<String>,
    trusted: Recent<(String, IpAddr), ()>,
}

/// One attempt, as the throttle sees it.
#[derive(Clone)]
pub(crate) struct Attempt {
    /// The name given, cut to the longest a name may be.
    pub(crate) name: String,
    /// Such an account exists.
    pub(crate) known: bool,
    /// [`counted_as`] the peer's address.
    pub(crate) address: IpAddr,
    /// Its address is never refused.
    pub(crate) spared: bool,
    /// It comes from a network that the account is bound to.
    pub(crate) at_home: bool,
}

/// May an attempt be judged?
#[derive(Debug)]
pub(crate) enum Begun {
    /// Yes; its end must be told.
    Now(Pending),
    /// As many as may fail are being judged: ask again when one of them has ended.
    Later,
}

/// What an attempt holds while it is judged.
#[derive(Debug)]
pub(crate) struct Pending {
    address: bool,
    account: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Right,
    Wrong,
    /// It was not judged.
    Unknown,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            addresses: Tallies(HashMap::new()),
            accounts: Tallies(HashMap::new()),
            strangers: Tallies(HashMap::new()),
            trusted: Recent::new(MOST_TRUSTED),
        }
    }

    /// Reserves a place for an attempt, or says how long to wait.
    ///
    /// # Errors
    /// `Throttled`.
    pub(crate) fn begin(&mut self, attempt: &Attempt, limits: &LoginSettings) -> Result<Begun> {
        let now = Instant::now();
        let counts_account = !self.is_trusted(attempt);
        let names = if attempt.known { &mut self.accounts } else { &mut self.strangers };
        let account = counts_account.then(|| names.of(&attempt.name, limits));
        let address = (!attempt.spared).then(|| self.addresses.of(&attempt.address, limits));
        let wait = |tally: &Option<&mut Tally>| tally.as_ref().and_then(|tally| tally.wait(now));
        if let Some(left) = wait(&address).max(wait(&account)) {
            let text = format!("too many wrong passwords; try again in {}", in_words(left));
            return Err(Error::new(Kind::Throttled, text).retry_after(left));
        }
        let full = |tally: &Tally, most: u32| tally.pending > 0 && tally.failures + tally.pending >= most;
        if address.as_ref().is_some_and(|tally| full(tally, limits.attempts))
            || account.as_ref().is_some_and(|tally| full(tally, free(limits)))
        {
            return Ok(Begun::Later);
        }
        let pending = Pending { address: address.is_some(), account: account.is_some() };
        address.into_iter().chain(account).for_each(|tally| tally.pending += 1);
        Ok(Begun::Now(pending))
    }

    /// A spared address has no count of its own to stop it, so the account's must.
    fn is_trusted(&mut self, attempt: &Attempt) -> bool {
        let known = attempt.at_home || self.trusted.find(&(attempt.name.clone(), attempt.address)).is_some();
        attempt.known && !attempt.spared && known
    }

    /// Takes the outcome; says what must wait because of it.
    pub(crate) fn end(
        &mut self,
        attempt: &Attempt,
        pending: &Pending,
        end: End,
        limits: &LoginSettings,
    ) -> Option<&'static str> {
        let now = Instant::now();
        let mut forgiven = 0;
        let mut refused = false;
        if pending.address {
            let tally = self.addresses.of(&attempt.address, limits);
            tally.pending = tally.pending.saturating_sub(1);
            match end {
                End::Right => {
                    forgiven = tally.by_name.remove(&attempt.name).unwrap_or(0);
                    tally.failures = tally.failures.saturating_sub(forgiven);
                }
                End::Wrong => refused = fail_address(tally, &attempt.name, now, limits),
                End::Unknown => {}
            }
        }
        let names = if attempt.known { &mut self.accounts } else { &mut self.strangers };
        let delayed = pending.account && end_account(names.of(&attempt.name, limits), end, now, limits);
        if end == End::Right {
            if let Some(own) = names.0.get_mut(&attempt.name) {
                own.failures = own.failures.saturating_sub(forgiven);
            }
            self.trusted.keep((attempt.name.clone(), attempt.address), (), TRUST);
        }
        match (refused, delayed) {
            (true, _) => Some("address"),
            (false, true) => Some("account"),
            (false, false) => None,
        }
    }
}

/// Counts a failure of an address; true when it is refused from now on.
fn fail_address(tally: &mut Tally, name: &str, now: Instant, limits: &LoginSettings) -> bool {
    tally.failures = tally.failures.saturating_add(1);
    tally.since.get_or_insert(now);
    *tally.by_name.entry(name.to_owned()).or_default() += 1;
    let refused = tally.failures >= limits.attempts && tally.until.is_none();
    if refused {
        tally.until = now.checked_add(limits.ban.0);
    }
    refused
}

/// Takes the outcome of an attempt from an address the account is not known at; true when the next one must wait.
fn end_account(tally: &mut Tally, end: End, now: Instant, limits: &LoginSettings) -> bool {
    tally.pending = tally.pending.saturating_sub(1);
    if end != End::Wrong {
        return false;
    }
    tally.failures = tally.failures.saturating_add(1);
    tally.since = Some(now);
    let Some(over) = tally.failures.checked_sub(free(limits)) else { return false };
    let delay = FIRST_DELAY.saturating_mul(1 << over.min(20)).min(limits.delay.0);
    tally.until = now.checked_add(delay);
    !delay.is_zero()
}

/// Failures of an account from unknown addresses that cost nothing.
fn free(limits: &LoginSettings) -> u32 {
    limits.attempts.saturating_mul(ADDRESSES)
}

/// The address failures are counted under: a whole /64 for IPv6, where one host has as many addresses as it likes.
pub(crate) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// `40 seconds`, `9 minutes`, `2 hours`: rounded up, so that coming back then is enough.
fn in_words(left: Duration) -> String {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    let (count, unit) = match seconds {
        0..=90 => (seconds, "second"),
        91..=5400 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(name: &str, address: &str) -> Attempt {
        let address = counted_as(address.parse().unwrap());
        Attempt { name: name.into(), known: true, address, spared: false, at_home: false }
    }

    fn limits() -> LoginSettings {
        LoginSettings { attempts: 3, ..LoginSettings::default() }
    }

    /// One attempt from its begin to its end; `None` when it was refused.
    fn attempted(throttle: &mut Throttle, attempt: &Attempt, end: End) -> Option<Option<&'static str>> {
        match throttle.begin(attempt, &limits()) {
            Ok(Begun::Now(pending)) => Some(throttle.end(attempt, &pending, end, &limits())),
            Ok(Begun::Later) => panic!("nothing else is being judged"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Throttled);
                None
            }
        }
    }

    fn is_let_in(throttle: &mut Throttle, attempt: &Attempt) -> bool {
        attempted(throttle, attempt, End::Unknown).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_after_its_failures_and_is_free_afterwards() {
        let mut throttle = Throttle::new();
        for (name, banned) in [("a", None), ("b", None), ("c", Some("address"))] {
            assert_eq!(attempted(&mut throttle, &attempt(name, "192.0.2.1"), End::Wrong), Some(banned));
        }
        let error = throttle.begin(&attempt("d", "192.0.2.1"), &limits()).unwrap_err();
        assert_eq!(error.public(), "too many wrong passwords; try again in 10 minutes");
        assert_eq!(error.wait(), Some(limits().ban.0));
        assert!(is_let_in(&mut throttle, &attempt("a", "192.0.2.2")), "another address may");
        tokio::time::advance(limits().ban.0).await;
        assert_eq!(
            attempted(&mut throttle, &attempt("d", "192.0.2.1"), End::Wrong),
            Some(None),
            "the count began anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_delay_an_account_elsewhere() {
        let mut throttle = Throttle::new();
        for _ in 0..12 {
            attempted(&mut throttle, &attempt("bob", "192.0.2.1"), End::Wrong);
        }
        assert!(!is_let_in(&mut throttle, &attempt("bob", "192.0.2.1")));
        assert!(is_let_in(&mut throttle, &attempt("bob", "192.0.2.2")));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_delay_an_account_more_and_more_but_not_where_it_is_known() {
        let mut throttle = Throttle::new();
        let (known, bound) =
            (attempt("alice", "198.51.100.7"), Attempt { at_home: true, ..attempt("alice", "10.0.0.1") });
        assert!(attempted(&mut throttle, &known, End::Right).is_some());
        let mut stranger = (1..=250).map(|host| attempt("alice", &format!("192.0.2.{host}")));
        let mut fail = |throttle: &mut Throttle| attempted(throttle, &stranger.next().unwrap(), End::Wrong);
        for _ in 0..free(&limits()) - 1 {
            assert_eq!(fail(&mut throttle), Some(None));
        }
        let mut delay = FIRST_DELAY;
        for _ in 0..10 {
            assert_eq!(fail(&mut throttle), Some(Some("account")));
            let error = throttle.begin(&attempt("alice", "203.0.113.9"), &limits()).unwrap_err();
            assert_eq!(error.wait(), Some(delay.min(limits().delay.0)));
            assert!(is_let_in(&mut throttle, &known) && is_let_in(&mut throttle, &bound));
            assert!(!is_let_in(&mut throttle, &Attempt { spared: true, ..known.clone() }));
            tokio::time::advance(delay.min(limits().delay.0)).await;
            delay *= 2;
        }
        assert!(is_let_in(&mut throttle, &attempt("alice", "203.0.113.9")), "nobody is kept out for longer");
        for _ in 0..3 {
            attempted(&mut throttle, &known, End::Wrong);
        }
        assert!(!is_let_in(&mut throttle, &known), "its own failures count by address");
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_sent_at_once_are_counted_before_they_are_judged() {
        let mut throttle = Throttle::new();
        let one = attempt("bob", "192.0.2.1");
        let mut judged = Vec::new();
        for _ in 0..60 {
            if let Begun::Now(pending) = throttle.begin(&one, &limits()).unwrap() {
                judged.push(pending);
            }
        }
        assert_eq!(judged.len(), 3);
        for pending in judged {
            throttle.end(&one, &pending, End::Wrong, &limits());
        }
        assert!(throttle.begin(&one, &limits()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn right_passwords_sent_at_once_are_all_let_in() {
        let mut throttle = Throttle::new();
        let one = attempt("bob", "192.0.2.1");
        let (mut waiting, mut judged, mut right) = (60, Vec::new(), 0);
        while right < 60 {
            match throttle.begin(&one, &limits()).unwrap() {
                Begun::Now(pending) if waiting > 0 => {
                    waiting -= 1;
                    judged.push(pending);
                }
                _ => {}
            }
            if judged.len() == 3 || waiting == 0 {
                for pending in judged.drain(..) {
                    right += 1;
                    throttle.end(&one, &pending, End::Right, &limits());
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgives_the_failures_of_its_own_account_only() {
        let mut throttle = Throttle::new();
        let own = attempt("mallory", "192.0.2.1");
        let mut judged = 0;
        for round in 0..20 {
            judged += usize::from(
                attempted(&mut throttle, &attempt(&format!("user-{round}"), "192.0.2.1"), End::Wrong).is_some(),
            );
            attempted(&mut throttle, &own, End::Right);
        }
        assert_eq!(judged, 3, "one's own sign-in buys no guesses at others");
        let two = attempt("bob", "192.0.2.2");
        for _ in 0..10 {
            assert_eq!(attempted(&mut throttle, &two, End::Wrong), Some(None));
            assert_eq!(attempted(&mut throttle, &two, End::Wrong), Some(None));
            assert_eq!(attempted(&mut throttle, &two, End::Right), Some(None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_after_the_window() {
        let mut throttle = Throttle::new();
        let one = attempt("bob", "192.0.2.1");
        attempted(&mut throttle, &one, End::Wrong);
        attempted(&mut throttle, &one, End::Wrong);
        tokio::time::advance(limits().window.0).await;
        assert_eq!(attempted(&mut throttle, &one, End::Wrong), Some(None));
        assert!(is_let_in(&mut throttle, &one));
    }

    #[tokio::test(start_paused = true)]
    async fn the_counts_are_bounded_and_bans_outlive_a_flood() {
        let mut throttle = Throttle::new();
        let one = attempt("bob", "192.0.2.1");
        for _ in 0..3 {
            attempted(&mut throttle, &one, End::Wrong);
        }
        for key in 0..u32::try_from(MOST_TALLIES).unwrap() + 10 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + key));
            attempted(&mut throttle, &Attempt { address, ..attempt(&format!("x{key}"), "10.0.0.1") }, End::Wrong);
        }
        assert_eq!((throttle.addresses.0.len(), throttle.accounts.0.len()), (MOST_TALLIES, MOST_TALLIES));
        assert!(!is_let_in(&mut throttle, &one));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let one = counted_as("2001:db8:1:2::1".parse().unwrap());
        assert_eq!(one, counted_as("2001:db8:1:2:ffff::9".parse().unwrap()));
        assert_ne!(one, counted_as("2001:db8:1:3::1".parse().unwrap()));
        assert_eq!(counted_as("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn waits_are_said_in_words() {
        assert_eq!(in_words(Duration::from_millis(500)), "1 second");
        assert_eq!(in_words(Duration::from_mins(10)), "10 minutes");
        assert_eq!(in_words(Duration::from_hours(2)), "2 hours");
    }
}
