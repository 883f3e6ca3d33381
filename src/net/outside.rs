//! The address clients are told to connect to: ours as they see it, a fixed one, or a name behind which a home or a cloud
//! moves its address.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::time::timeout;

use crate::origin::Origin;
use crate::telemetry::Seldom;

/// A name is looked up this long before it counts as unknown.
const LOOKUP: Duration = Duration::from_secs(5);
/// What a name stood for is asked again after this, while the old answer is still given.
const FRESH: Duration = Duration::from_mins(1);

static UNKNOWN: Seldom = Seldom::new(Duration::from_mins(1));

/// How an address is made known.
#[derive(Clone, Debug)]
pub enum Outside {
    /// The one the client itself connected to.
    Auto,
    /// This one.
    Fixed(Ipv4Addr),
    /// What this name stands for now.
    Name(Arc<Name>),
}

/// A name and what it stood for when it was asked last.
#[derive(Debug)]
pub struct Name {
    text: String,
    known: ArcSwapOption<(Ipv4Addr, Instant)>,
    asking: AtomicBool,
}

impl Outside {
    /// Reads `auto` (or nothing), an IPv4 address or a name.
    ///
    /// # Errors
    /// What it is instead, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => return Ok(Self::Fixed(address)),
            Ok(IpAddr::V6(_)) => {
                return Err(format!("`{text}` is an IPv6 address, and PASV knows IPv4 only; IPv6 clients use EPSV"));
            }
            Err(_) => {}
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        // Only digits and points is an address with a slip of the finger.
        if text.len() > 253 || !text.chars().all(plain) || !text.contains(|letter: char| letter.is_ascii_alphabetic()) {
            return Err(format!("`{text}` is neither `auto`, an IPv4 address nor a name"));
        }
        let (known, asking) = (ArcSwapOption::empty(), AtomicBool::new(false));
        Ok(Self::Name(Arc::new(Name { text: text.to_owned(), known, asking })))
    }

    /// The IPv4 address to tell a client. Waits only for the first answer about a name; later ones are asked for beside.
    ///
    /// # Errors
    /// When there is no IPv4 address, or the name has none.
    pub async fn address(&self, origin: &Origin) -> io::Result<Ipv4Addr> {
        match self {
            Self::Auto => match origin.local.ip().to_canonical() {
                IpAddr::V4(address) => Ok(address),
                IpAddr::V6(_) => Err(unavailable("the connection uses IPv6")),
            },
            Self::Fixed(address) => Ok(*address),
            Self::Name(name) => name.address().await,
        }
    }
}

impl Name {
    async fn address(self: &Arc<Self>) -> io::Result<Ipv4Addr> {
        let Some(known) = self.known.load_full() else { return self.ask().await };
        let (address, since) = *known;
        if since.elapsed() > FRESH && !self.asking.swap(true, Ordering::Relaxed) {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = this.ask().await
                    && let Some(times) = UNKNOWN.now()
                {
                    tracing::warn!(
                        name = this.text,
                        times,
                        "the passive address cannot be looked up, the last one stays: {error}"
                    );
                }
                this.asking.store(false, Ordering::Relaxed);
            });
        }
        Ok(address)
    }

    async fn ask(&self) -> io::Result<Ipv4Addr> {
        let looked_up = timeout(LOOKUP, tokio::net::lookup_host((self.text.as_str(), 0)));
        let mut found = looked_up.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let first = found.find_map(|address| match address.ip().to_canonical() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let address = first.ok_or_else(|| unavailable("the name has no IPv4 address"))?;
        self.known.store(Some(Arc::new((address, Instant::now()))));
        Ok(address)
    }
}

fn unavailable(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_ours_a_fixed_one_or_a_names() {
        let origin = Origin::inside("ftp");
        for (text, wanted) in [("", [127, 0, 0, 1]), ("auto", [127, 0, 0, 1]), ("203.0.113.7", [203, 0, 113, 7])] {
            assert_eq!(Outside::parse(text).unwrap().address(&origin).await.unwrap(), Ipv4Addr::from(wanted), "{text}");
        }
        let name = Outside::parse("localhost").unwrap();
        for _ in 0..2 {
            assert!(name.address(&origin).await.unwrap().is_loopback());
        }
        for wrong in ["::1", "1.2.3", "a b", "ftp://x", "300.1.1.1"] {
            assert!(Outside::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_old_answer_is_given_while_the_name_is_asked_again() {
        let Ok(Outside::Name(name)) = Outside::parse("localhost") else { panic!("a name") };
        let long_ago = Instant::now().checked_sub(FRESH * 2).unwrap();
        name.known.store(Some(Arc::new((Ipv4Addr::new(192, 0, 2, 1), long_ago))));
        assert_eq!(name.address().await.unwrap(), Ipv4Addr::new(192, 0, 2, 1));
        tokio::time::timeout(Duration::from_secs(20), async {
            while !name.address().await.unwrap().is_loopback() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
