//! Limits: how many connections, how long, how slow; and the gate that counts them.
//!
//! The gate never queues: a connection has its place at once or is refused at once. Its maps hold one entry for each
//! address or account that has a connection open, so they are bounded by `connections` themselves.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::units::{ByteSize, Span};

/// `[limits]`: for every door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Connections of one account.
    pub connections_per_account: usize,
    /// A TLS handshake or PROXY header must be done in this time.
    pub handshake: Span,
    /// A connection that has not signed in (or sent a request) is closed after this.
    pub greeting: Span,
    /// A connection without a command is closed after this.
    pub idle: Span,
    /// A transfer that moves nothing is cut after this.
    pub stall: Span,
    /// A transfer slower than this a second, over `stall`, is cut; 0: none.
    pub slowest: ByteSize,
    /// A connection is closed after this however busy it is; 0ms: never.
    pub total: Span,
    /// Running work may finish for this long after SIGTERM.
    pub drain: Span,
    /// The same while new connections wait for the next daemon at sockets that systemd keeps.
    pub drain_waiting: Span,
    /// Our own work on one command may take this long; then its connection is closed.
    pub work: Span,
    /// A refused upload is read for this long, so that its sender sees the refusal, as nginx does (`lingering_time`).
    pub linger: Span,
    /// For how long nothing may come meanwhile (`lingering_timeout`).
    pub linger_quiet: Span,
    /// How much of it is read at most.
    pub linger_size: ByteSize,
    /// Requests under way at once on one connection of HTTP/2.
    pub streams: u32,
    /// Wrong passwords before a line protocol closes the connection.
    pub sign_ins: u32,
    /// Wrong or malformed commands before a line protocol closes the connection.
    pub errors: u32,
    /// Networks whose PROXY protocol v1/v2 header is believed.
    pub proxy_from: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_address: 64,
            connections_per_account: 256,
            handshake: Span(Duration::from_secs(15)),
            greeting: Span(Duration::from_mins(1)),
            idle: Span(Duration::from_mins(5)),
            // As long as vsftpd and Postfix wait: a database dump piped into an upload may be silent for minutes.
            stall: Span(Duration::from_mins(5)),
            slowest: ByteSize(100),
            total: Span(Duration::ZERO),
            drain: Span(Duration::from_secs(30)),
            drain_waiting: Span(Duration::from_secs(1)),
            work: Span(Duration::from_mins(10)),
            linger: Span(Duration::from_secs(30)),
            linger_quiet: Span(Duration::from_secs(5)),
            linger_size: ByteSize(256 << 20),
            streams: 100,
            sign_ins: 5,
            errors: 20,
            proxy_from: Vec::new(),
        }
    }
}

impl Limits {
    /// The networks of `proxy_from`.
    ///
    /// # Errors
    /// `Invalid`, naming the entry that is neither an address nor a network.
    pub fn proxies(&self) -> Result<Vec<IpNet>> {
        self.proxy_from.iter().map(|text| network(text)).collect()
    }
}

fn network(text: &str) -> Result<IpNet> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            format!(
                "[limits] proxy_from: `{text}` is not a network; write it like `10.0.0.0/8`, `fd00::/8` or `10.0.0.7`"
            ),
        )
    })
}

/// Why a connection got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The address has as many as one address may.
    Address,
    /// The daemon has as many as it may.
    Total,
}

impl Refusal {
    /// The word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "too many connections from this address ([limits] connections_per_address)",
            Self::Total => "too many connections ([limits] connections)",
        })
    }
}

/// What the gate holds connections to, swapped whole by a reload.
struct Rules {
    limits: Arc<Limits>,
    proxies: Vec<IpNet>,
}

/// Counts connections: in all, by address, by account. One for the whole daemon.
pub struct Gate {
    rules: ArcSwap<Rules>,
    total: AtomicUsize,
    addresses: Counts<IpAddr>,
    accounts: Counts<Box<str>>,
}

impl Gate {
    /// A gate with nobody inside.
    ///
    /// # Errors
    /// `Invalid`: an entry of `proxy_from` that is no network.
    pub fn new(limits: Limits) -> Result<Arc<Self>> {
        let rules = Rules { proxies: limits.proxies()?, limits: Arc::new(limits) };
        Ok(Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            total: AtomicUsize::new(0),
            addresses: Counts::new(),
            accounts: Counts::new(),
        }))
    }

    /// Other limits from now on; who is inside stays.
    ///
    /// # Errors
    /// `Invalid`; the old limits stay.
    pub fn change(&self, limits: Limits) -> Result<()> {
        let rules = Rules { proxies: limits.proxies()?, limits: Arc::new(limits) };
        self.rules.store(Arc::new(rules));
        Ok(())
    }

    /// The limits of today, for a new link.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.rules.load().limits)
    }

    /// A PROXY header from this address is believed, and demanded.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.rules.load().proxies.iter().any(|net| net.contains(&peer))
    }

    /// Connections inside now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// A place among all connections; its address is counted by [`Permit::address`].
    ///
    /// # Errors
    /// `Total`.
    pub fn admit(self: &Arc<Self>) -> std::result::Result<Permit, Refusal> {
        let limit = self.rules.load().limits.connections;
        let place = |open: usize| (open < limit).then_some(open + 1);
        if self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_err() {
            return Err(Refusal::Total);
        }
        Ok(Permit { gate: Some(Arc::clone(self)), address: None, account: None })
    }
}

/// A place among the counted connections; given back on drop.
pub struct Permit {
    gate: Option<Arc<Gate>>,
    address: Option<IpAddr>,
    account: Option<Box<str>>,
}

impl Permit {
    /// A permit nobody counts, for tests over pipes.
    #[must_use]
    pub fn uncounted() -> Self {
        Self { gate: None, address: None, account: None }
    }

    /// Counts the connection for its peer's address, once it is known.
    ///
    /// # Errors
    /// `Address`.
    pub fn address(&mut self, peer: IpAddr) -> std::result::Result<(), Refusal> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let key = neighbourhood(peer);
        if let Some(old) = self.address.take() {
            gate.addresses.leave(&old);
        }
        let limit = gate.rules.load().limits.connections_per_address;
        if !gate.addresses.enter(&key, limit) {
            return Err(Refusal::Address);
        }
        self.address = Some(key);
        Ok(())
    }

    /// Counts the connection for the account that signed in on it; signing in as another one moves the count.
    ///
    /// # Errors
    /// `Throttled`: the account has as many connections as one account may. The connection then counts for no account.
    pub fn account(&mut self, name: &str) -> Result<()> {
        let Some(gate) = &self.gate else { return Ok(()) };
        if self.account.as_deref() == Some(name) {
            return Ok(());
        }
        if let Some(old) = self.account.take() {
            gate.accounts.leave(&old);
        }
        let limit = gate.rules.load().limits.connections_per_account;
        let key: Box<str> = name.into();
        if !gate.accounts.enter(&key, limit) {
            return Err(Error::new(
                Kind::Throttled,
                "this account has too many connections open; close one and try again",
            ));
        }
        self.account = Some(key);
        Ok(())
    }

    /// The connection counts for no account any more: whoever signed in is forgotten.
    pub fn no_account(&mut self) {
        if let (Some(gate), Some(old)) = (&self.gate, self.account.take()) {
            gate.accounts.leave(&old);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        if let Some(address) = self.address.take() {
            gate.addresses.leave(&address);
        }
        if let Some(account) = self.account.take() {
            gate.accounts.leave(&account);
        }
        gate.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One customer has a whole IPv6 /64, so one address there means nothing.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// Locks are held for one map operation, and spread so that cores rarely meet.
const SHARDS: usize = 16;

struct Counts<K> {
    shards: [Mutex<HashMap<K, usize>>; SHARDS],
    hasher: RandomState,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    fn shard(&self, key: &K) -> Option<&Mutex<HashMap<K, usize>>> {
        let spread = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards.get(spread)
    }

    fn enter(&self, key: &K, limit: usize) -> bool {
        let Some(shard) = self.shard(key) else { return false };
        let mut counts = shard.lock();
        match counts.get_mut(key) {
            Some(count) if *count >= limit => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if limit == 0 => false,
            None => {
                counts.insert(key.clone(), 1);
                true
            }
        }
    }

    fn leave(&self, key: &K) {
        let Some(shard) = self.shard(key) else { return };
        let mut counts = shard.lock();
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: usize, per_address: usize, per_account: usize) -> Arc<Gate> {
        Gate::new(Limits {
            connections,
            connections_per_address: per_address,
            connections_per_account: per_account,
            ..Limits::default()
        })
        .unwrap()
    }

    #[test]
    fn a_dropped_permit_gives_back_every_count() {
        let gate = gate(2, 2, 1);
        let mut first = gate.admit().unwrap();
        first.address([10, 0, 0, 1].into()).unwrap();
        first.account("alice").unwrap();
        let mut second = gate.admit().unwrap();
        assert_eq!(gate.admit().err(), Some(Refusal::Total));
        assert_eq!(second.account("alice").unwrap_err().kind(), Kind::Throttled);
        second.account("bob").unwrap();
        drop(first);
        second.account("alice").unwrap();
        drop(second);
        assert_eq!((gate.open(), gate.addresses.len(), gate.accounts.len()), (0, 0, 0));
    }

    #[test]
    fn an_address_is_a_whole_ipv6_64_and_a_mapped_ipv4_is_itself() {
        let gate = gate(9, 1, 1);
        let mut first = gate.admit().unwrap();
        first.address("2001:db8::1".parse().unwrap()).unwrap();
        let mut second = gate.admit().unwrap();
        assert_eq!(second.address("2001:db8::ffff:1".parse().unwrap()), Err(Refusal::Address));
        second.address("2001:db8:0:1::1".parse().unwrap()).unwrap();
        let mut third = gate.admit().unwrap();
        third.address("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(gate.admit().unwrap().address([10, 0, 0, 1].into()), Err(Refusal::Address));
    }

    #[test]
    fn racing_connections_never_pass_the_limit() {
        let gate = gate(50, 50, 50);
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if let Ok(permit) = gate.admit() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                            std::mem::forget(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 50);
    }

    #[test]
    fn a_bad_network_is_named_and_changes_nothing() {
        let gate = gate(1, 1, 1);
        let error = gate.change(Limits { proxy_from: vec!["10.0.0.0/99".into()], ..Limits::default() }).unwrap_err();
        assert!(error.public().contains("10.0.0.0/99"), "{error}");
        assert_eq!(gate.limits().connections, 1);
        gate.change(Limits { proxy_from: vec!["10.0.0.7".into()], ..Limits::default() }).unwrap();
        assert!(gate.trusts([10, 0, 0, 7].into()) && !gate.trusts([10, 0, 0, 8].into()));
    }
}
