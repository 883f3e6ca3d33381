//! TLS by rustls: one live configuration for every door, certificates swapped without dropping a connection.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Stream;
use super::kin::Kin;
use super::lasting::Lasting;
use super::table::Table;
use super::tls_settings::TlsSettings;
use crate::error::{Error, Result};
use crate::telemetry::metric;

/// Encrypted bytes that may wait for a slow peer, on each connection. Large enough that a bulk transfer fills it with one write.
const BUFFER_LIMIT: usize = 256 << 10;

/// TLS 1.3 tickets after a handshake: FTP clients use one for each data connection and ask for no new ones.
const TICKETS: usize = 4;

/// TLS 1.2 sessions remembered for clients that take no tickets.
const REMEMBERED: usize = 4096;

/// The TLS side of the doors. ALPN protocols differ by language, so each language has its own over the same certificates.
pub struct Tls {
    config: Arc<ServerConfig>,
    live: Arc<Live>,
}

/// The pairs in use; every configuration asks here at each handshake.
#[derive(Debug)]
struct Live(ArcSwap<Table>);

impl ResolvesServerCert for Live {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().find(hello.server_name()))
    }
}

/// The same for a peer that said whom it came for before TLS.
#[derive(Debug)]
struct Named {
    live: Arc<Live>,
    name: String,
}

impl ResolvesServerCert for Named {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.live.0.load().find(Some(&self.name)))
    }
}

/// The one cryptography of the process, also as rustls's default for libraries that ask for it (the PostgreSQL driver).
pub fn provider() -> Arc<CryptoProvider> {
    // Somebody was first: it can only have been us, there is no other provider in the build.
    let _ = aws_lc_rs::default_provider().install_default();
    CryptoProvider::get_default().map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone)
}

impl Tls {
    /// Reads the pair, or makes a self-signed one under `data/tls` for `names`.
    ///
    /// # Errors
    /// What is wrong with which file, in words.
    pub fn open(settings: &TlsSettings, data: &Path, names: &[String]) -> Result<Arc<Self>> {
        let provider = provider();
        let live = Arc::new(Live(ArcSwap::from_pointee(Table::load(settings, data, names, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&live) as Arc<dyn ResolvesServerCert>);
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(Error::internal)?;
        config.send_tls13_tickets = TICKETS;
        config.session_storage = ServerSessionMemoryCache::new(REMEMBERED);
        Ok(Arc::new(Self { config: Arc::new(config), live }))
    }

    /// The same certificates, tickets and reload with these ALPN protocols.
    #[must_use]
    pub fn with_alpn(self: &Arc<Self>, alpn: &[&[u8]]) -> Arc<Self> {
        if alpn.is_empty() && self.config.alpn_protocols.is_empty() {
            return Arc::clone(self);
        }
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(Self { config: Arc::new(config), live: Arc::clone(&self.live) })
    }

    /// The same with the certificate of this name, whatever the handshake says.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<Self> {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(Named { live: Arc::clone(&self.live), name: name.to_owned() });
        Arc::new(Self { config: Arc::new(config), live: Arc::clone(&self.live) })
    }

    /// Reads the pairs again; connections keep what they have.
    ///
    /// # Errors
    /// The old pairs stay.
    pub fn reload(&self, settings: &TlsSettings, data: &Path, names: &[String]) -> Result<()> {
        self.live.0.store(Arc::new(Table::load(settings, data, names, self.config.crypto_provider())?));
        Ok(())
    }

    /// The server side of a handshake. Its tickets say that they are of connection number `link`.
    ///
    /// # Errors
    /// The handshake's; `TimedOut`.
    pub async fn accept(&self, plain: Stream, deadline: Duration, link: u64) -> io::Result<Stream> {
        Ok(self.shake(plain, deadline, link, Lasting::new).await?.0)
    }

    /// The same on a side lane of connection number `link`; true when the client proved to be that connection's own by resuming its session.
    /// A client that only uploads gets its tickets when it has said everything.
    ///
    /// # Errors
    /// The handshake's; `TimedOut`.
    pub async fn accept_beside(
        &self,
        plain: Stream,
        deadline: Duration,
        link: u64,
        uploads: bool,
    ) -> io::Result<(Stream, bool)> {
        self.shake(plain, deadline, link, if uploads { Lasting::quiet } else { Lasting::new }).await
    }

    async fn shake(
        &self,
        plain: Stream,
        deadline: Duration,
        link: u64,
        below: fn(TcpStream) -> Lasting,
    ) -> io::Result<(Stream, bool)> {
        let Stream::Tcp(tcp) = plain else {
            return Err(io::Error::other("TLS starts once, on a plain TCP connection"));
        };
        let kin = Kin::of(&self.config, link);
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::clone(&kin) as Arc<dyn ProducesTickets>;
        config.session_storage = Arc::clone(&kin) as Arc<dyn StoresServerSessions>;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // Boxed: the handshake's state is large and over before the connection's long life begins.
        let handshake =
            Box::pin(acceptor.accept_with(below(tcp), |session| session.set_buffer_limit(Some(BUFFER_LIMIT))));
        let result = match tokio::time::timeout(deadline, handshake).await {
            Ok(result) => result.map_err(in_words),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        };
        match result {
            Ok(session) => {
                let resumed = session.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                Ok((Stream::Tls(Box::new(session)), resumed && kin.proved()))
            }
            Err(error) => {
                metric::tls_failed();
                Err(error)
            }
        }
    }
}

/// The commonest reason a handshake fails is that the peer was never going to speak TLS.
fn in_words(error: io::Error) -> io::Error {
    let invalid = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match invalid {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            io::Error::new(error.kind(), "the peer does not speak TLS, but this port does")
        }
        Some(rustls::Error::PeerIncompatible(why)) => io::Error::new(error.kind(), incompatible(why)),
        Some(rustls::Error::AlertReceived(alert)) => {
            io::Error::new(error.kind(), format!("the peer refused our TLS certificate or settings: {alert:?}"))
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the peer left during the TLS handshake")
        }
        _ => error,
    }
}

/// Old machines, in the words of whoever has to set them up.
fn incompatible(why: &rustls::PeerIncompatible) -> String {
    use rustls::PeerIncompatible as Why;
    match why {
        Why::Tls12NotOffered | Why::Tls12NotOfferedOrEnabled => {
            "the peer offers only TLS 1.1 or older, which nobody can trust any more; this server speaks TLS 1.2 and 1.3. Let it talk without TLS on a port for its own network only".into()
        }
        Why::NoCipherSuitesInCommon | Why::NoKxGroupsInCommon | Why::NoSignatureSchemesInCommon => {
            format!("the peer knows only encryption that is too weak for this server ({why:?})")
        }
        other => format!("the peer's TLS does not fit this server's: {other:?}"),
    }
}
