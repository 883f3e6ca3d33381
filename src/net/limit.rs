//! Limits: how many connections, how long, how slow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
            greeting: Span(Duration::from_secs(60)),
            idle: Span(Duration::from_secs(300)),
            stall: Span(Duration::from_secs(60)),
            slowest: ByteSize(100),
            total: Span(Duration::ZERO),
            drain: Span(Duration::from_secs(30)),
            errors: 20,
            proxy_from: Vec::new(),
        }
    }
}

/// A place among the counted connections; given back on drop.
pub struct Permit {
    _held: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl Permit {
    /// A permit nobody counts, for tests over pipes.
    #[must_use]
    pub fn uncounted() -> Self {
        Self { _held: None }
    }
}
