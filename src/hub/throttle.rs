//! Wrong passwords counted by address and by account, and the wait they earn; one count for all doors.

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

/// An address from which an account signed in is not kept out by strangers' failures for so long.
const TRUST: Duration = Duration::from_hours(24);

/// Most pairs of account and address that are trusted.
const MOST_TRUSTED: usize = 65_536;

/// Failures of one address or account.
struct Tally {
    failures: u32,
    since: Instant,
    banned: Option<Instant>,
}

/// Tallies by key, never more than [`MOST_TALLIES`].
struct Tallies<K>(HashMap<K, Tally>);

impl<K: Hash + Eq + Clone> Tallies<K> {
    /// How long it must still wait.
    fn wait(&self, key: &K) -> Option<Duration> {
        let until = self.0.get(key)?.banned?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Counts a failure; true when it earned a ban.
    fn fail(&mut self, key: K, limits: &LoginSettings) -> bool {
        let now = Instant::now();
        if self.0.len() >= MOST_TALLIES && !self.0.contains_key(&key) {
            self.make_room(now, limits);
        }
        let tally = self.0.entry(key).or_insert(Tally { failures: 0, since: now, banned: None });
        let over = |at: Instant, time: Duration| now.saturating_duration_since(at) >= time;
        if over(tally.since, limits.window.0) || tally.banned.is_some_and(|until| until <= now) {
            *tally = Tally { failures: 0, since: now, banned: None };
        }
        tally.failures = tally.failures.saturating_add(1);
        if tally.failures >= limits.attempts && tally.banned.is_none() {
            tally.banned = now.checked_add(limits.ban.0);
            return true;
        }
        false
    }

    /// Drops what is over; else the oldest that is not banned, else the oldest.
    fn make_room(&mut self, now: Instant, limits: &LoginSettings) {
        self.0.retain(|_, tally| {
            tally.banned.is_some_and(|until| until > now)
                || now.saturating_duration_since(tally.since) < limits.window.0
        });
        if self.0.len() >= MOST_TALLIES {
            let oldest = self.0.iter().min_by_key(|(_, tally)| (tally.banned.is_some(), tally.since));
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
    /// Its address is never banned.
    pub(crate) spared: bool,
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

    /// Lets an attempt through or says how long to wait.
    pub(crate) fn check(&mut self, attempt: &Attempt) -> Result<()> {
        let by_address = match attempt.spared {
            true => None,
            false => self.addresses.wait(&attempt.address),
        };
        let by_account = match self.is_trusted(attempt) {
            true => None,
            false if attempt.known => self.accounts.wait(&attempt.name),
            false => self.strangers.wait(&attempt.name),
        };
        match by_address.max(by_account) {
            None => Ok(()),
            Some(left) => {
                Err(Error::new(Kind::Throttled, format!("too many wrong passwords; try again in {}", in_words(left))))
            }
        }
    }

    /// A spared address has no count of its own to stop it, so the account's must.
    fn is_trusted(&mut self, attempt: &Attempt) -> bool {
        attempt.known && !attempt.spared && self.trusted.find(&(attempt.name.clone(), attempt.address)).is_some()
    }

    /// Counts a wrong password; says what was banned by it.
    pub(crate) fn fail(&mut self, attempt: &Attempt, limits: &LoginSettings) -> Option<&'static str> {
        let address = !attempt.spared && self.addresses.fail(attempt.address, limits);
        let trusted = self.is_trusted(attempt);
        let names = if attempt.known { &mut self.accounts } else { &mut self.strangers };
        let account = !trusted && names.fail(attempt.name.clone(), limits);
        match (address, account) {
            (true, _) => Some("address"),
            (false, true) => Some("account"),
            (false, false) => None,
        }
    }

    /// A right password: what was counted against the pair is forgiven.
    pub(crate) fn succeed(&mut self, attempt: &Attempt) {
        self.addresses.0.remove(&attempt.address);
        self.accounts.0.remove(&attempt.name);
        self.trusted.keep((attempt.name.clone(), attempt.address), (), TRUST);
    }
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
        Attempt { name: name.into(), known: true, address: counted_as(address.parse().unwrap()), spared: false }
    }

    fn limits() -> LoginSettings {
        LoginSettings { attempts: 3, ..LoginSettings::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_after_its_failures_and_is_free_afterwards() {
        let mut throttle = Throttle::new();
        let limits = limits();
        for name in ["a", "b", "c"] {
            assert!(throttle.check(&attempt(name, "192.0.2.1")).is_ok());
            throttle.fail(&attempt(name, "192.0.2.1"), &limits);
        }
        let error = throttle.check(&attempt("d", "192.0.2.1")).unwrap_err();
        assert_eq!(error.kind(), Kind::Throttled);
        assert_eq!(error.public(), "too many wrong passwords; try again in 10 minutes");
        assert!(throttle.check(&attempt("a", "192.0.2.2")).is_ok(), "another address may");
        tokio::time::advance(limits.ban.0).await;
        assert!(throttle.check(&attempt("d", "192.0.2.1")).is_ok());
        assert_eq!(throttle.fail(&attempt("d", "192.0.2.1"), &limits), None, "the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_waits_after_failures_from_many_addresses_but_not_where_it_was_right() {
        let mut throttle = Throttle::new();
        let limits = limits();
        throttle.succeed(&attempt("alice", "198.51.100.7"));
        for host in 1..=3 {
            throttle.fail(&attempt("alice", &format!("192.0.2.{host}")), &limits);
        }
        assert!(throttle.check(&attempt("alice", "203.0.113.9")).is_err());
        assert!(throttle.check(&attempt("alice", "198.51.100.7")).is_ok(), "strangers cannot lock her out");
        assert!(throttle.check(&Attempt { spared: true, ..attempt("alice", "198.51.100.7") }).is_err());
        for _ in 0..3 {
            throttle.fail(&attempt("alice", "198.51.100.7"), &limits);
        }
        assert!(throttle.check(&attempt("alice", "198.51.100.7")).is_err(), "its own failures count by address");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_after_the_window_and_by_a_right_password() {
        let mut throttle = Throttle::new();
        let limits = limits();
        let one = attempt("bob", "192.0.2.1");
        throttle.fail(&one, &limits);
        throttle.fail(&one, &limits);
        tokio::time::advance(limits.window.0).await;
        assert_eq!(throttle.fail(&one, &limits), None);
        throttle.fail(&one, &limits);
        throttle.succeed(&one);
        assert_eq!(throttle.fail(&one, &limits), None);
        assert!(throttle.check(&one).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_counts_are_bounded_and_bans_outlive_a_flood() {
        let mut tallies = Tallies(HashMap::new());
        let limits = limits();
        for _ in 0..3 {
            tallies.fail(u64::MAX, &limits);
        }
        for key in 0..MOST_TALLIES as u64 + 10 {
            tallies.fail(key, &limits);
        }
        assert_eq!(tallies.0.len(), MOST_TALLIES);
        assert!(tallies.wait(&u64::MAX).is_some());
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
