//! The network: accepts, secures, counts, times and drains connections; knows no language.
//!
//! A door gets a [`Link`]: one accepted connection, already limited, counted, past its PROXY header and (on an implicit
//! TLS listener) its handshake. Sockets exist only in this room.

pub mod accept;
mod certificate;
pub mod drain;
mod kin;
mod lasting;
pub mod lent;
pub mod limit;
pub mod listen;
mod listen_settings;
pub mod local;
pub mod often;
pub mod outside;
mod pair;
pub mod pour;
pub mod proxy;
pub mod rate;
mod records;
pub mod side;
mod spare;
pub mod stream;
mod table;
pub mod tls;
mod tls_settings;
mod trusted;
mod waiting;
pub mod workers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use accept::Service;
pub use drain::{Drained, Links};
pub use limit::{Gate, Limits, Permit};
pub use listen::{Bound, Passed, bind_all, socket_unit, try_bind};
pub use listen_settings::{ListenSettings, TlsMode};
pub use pair::examine as examine_certificates;
pub use stream::Stream;
pub use tls::Tls;
pub use tls_settings::{Place, TlsSettings};
pub use trusted::Trusted;
pub use waiting::Waiting;
pub use workers::Workers;

use crate::origin::Origin;

/// One accepted connection.
pub struct Link {
    /// The bytes.
    pub stream: Stream,
    /// Who and where.
    pub origin: Origin,
    /// Cancelled when the daemon drains: finish what runs, then part.
    pub stop: CancellationToken,
    /// Deadlines and rates.
    pub limits: Arc<Limits>,
    /// For STARTTLS / AUTH TLS and FTP data lanes; `None` when the listener offers no TLS.
    pub tls: Option<Arc<Tls>>,
    /// Given back when the link is dropped, panics included.
    pub permit: Permit,
    /// The peer is a proxy that may say for whom it speaks, and these are its fellows.
    pub trusted: Option<Arc<Trusted>>,
}

impl Link {
    /// Upgrades to TLS in place; the caller has flushed its reply and forgotten buffered plaintext.
    ///
    /// # Errors
    /// The handshake's, or that the listener has no TLS, or the handshake deadline.
    pub async fn secure(&mut self) -> std::io::Result<()> {
        self.secure_as(None).await
    }

    /// The same; a peer that said whom it came for (FTP's HOST) is shown the certificate of that name.
    ///
    /// # Errors
    /// As [`Link::secure`].
    pub async fn secure_as(&mut self, name: Option<&str>) -> std::io::Result<()> {
        let Some(tls) = self.tls.clone() else {
            return Err(std::io::Error::other("this listener offers no TLS"));
        };
        let tls = name.map_or(tls.clone(), |name| tls.named(name));
        let plain = std::mem::replace(&mut self.stream, Stream::Closed);
        let deadline: Duration = self.limits.handshake.0;
        self.stream = tls.accept(plain, deadline, self.origin.link).await?;
        self.origin.secure = true;
        tracing::debug!(cipher = self.stream.cipher(), "TLS is up");
        Ok(())
    }
}

/// A configured language, ready to serve accepted links. Dropping the future at any await is safe.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The ALPN protocols this language offers in a TLS handshake; empty: none.
    fn alpn(&self) -> &'static [&'static [u8]] {
        &[]
    }

    /// What a peer without TLS is told when there is no place for it (`421 busy`), CRLF included; empty: nothing.
    fn busy(&self) -> &'static [u8] {
        b""
    }

    /// Serves one connection to its end.
    async fn serve(&self, link: Link) -> std::io::Result<()>;
}
