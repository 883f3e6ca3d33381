//! SPF (RFC 7208): may this address send for this domain?
//!
//! `mail-auth` takes records that are wrong, counts no lookups that find nothing, and asks for addresses of the wrong family; the rest of what
//! we know of a message is judged by it, with the result found here.

mod record;

use std::net::IpAddr;

use mail_auth::hickory_resolver::proto::rr::{Name, RData};
use mail_auth::{DnsError, Error, MessageAuthenticator, SpfResult};

use record::{Masks, Mechanism, Piece, Qualifier, Record, Spec};

/// Terms that ask the DNS, in one evaluation (§4.6.4).
const MOST_TERMS: u32 = 10;
/// Of these lookups, so many may find nothing.
const MOST_VOID: u32 = 2;
/// Names of one `mx` or `ptr`.
const MOST_NAMES: usize = 10;
/// Longest name; more is cut off in front (§7.3).
const LONGEST_NAME: usize = 253;

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: &'a str,
    /// Reverse path; empty for `<>`.
    pub mailbox: &'a str,
}

/// `check_host()` (§4) for a sender's domain, or for what it called itself where it names none.
pub async fn check(resolver: &MessageAuthenticator, sender: &Sender<'_>) -> SpfResult {
    let (local, domain) = match sender.mailbox.rsplit_once('@') {
        Some((local, domain)) => (if local.is_empty() { "postmaster" } else { local }, domain),
        None => ("postmaster", sender.helo),
    };
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned());
    if !is_name(&domain) || !domain.trim_end_matches('.').contains('.') {
        return SpfResult::None;
    }
    let address = sender.address.to_canonical();
    let mut check = Check { resolver, address, helo: sender.helo, local, sender: domain.clone(), terms: 0, void: 0 };
    check.host(&domain).await.unwrap_or_else(|stop| stop)
}

/// One evaluation. Its functions give up with the result, as `Err`.
struct Check<'a> {
    resolver: &'a MessageAuthenticator,
    address: IpAddr,
    helo: &'a str,
    local: &'a str,
    sender: String,
    terms: u32,
    void: u32,
}

type Outcome<T> = Result<T, SpfResult>;

impl Check<'_> {
    /// The record of a domain, evaluated; `None` is a result too: there is none.
    async fn host(&mut self, domain: &str) -> Outcome<SpfResult> {
        let mut domain = domain.to_owned();
        loop {
            let Some(record) = self.record(&domain).await? else { return Ok(SpfResult::None) };
            for (qualifier, mechanism) in &record.directives {
                if Box::pin(self.matches(mechanism, &domain)).await? {
                    return Ok(match qualifier {
                        Qualifier::Fail => SpfResult::Fail,
                        Qualifier::Neutral => SpfResult::Neutral,
                        Qualifier::Pass => SpfResult::Pass,
                        Qualifier::SoftFail => SpfResult::SoftFail,
                    });
                }
            }
            let Some(redirect) = &record.redirect else { return Ok(SpfResult::Neutral) };
            self.count()?;
            domain = self.expand(redirect, &domain).await?;
            // §6.1: there must be one.
            if !is_name(&domain) || self.texts(&domain).await?.is_empty() {
                return Err(SpfResult::PermError);
            }
        }
    }

    async fn record(&self, domain: &str) -> Outcome<Option<Record>> {
        let texts = self.texts(domain).await?;
        match texts.as_slice() {
            [] => Ok(None),
            [text] => Record::parse(text).map(Some).ok_or(SpfResult::PermError),
            _ => Err(SpfResult::PermError),
        }
    }

    /// The texts of a name that are meant to be records.
    async fn texts(&self, domain: &str) -> Outcome<Vec<Vec<u8>>> {
        let Some(name) = name(domain) else { return Ok(Vec::new()) };
        let found = self.resolver.resolver().txt_lookup(name).await.map_err(Error::from);
        let answers = found.map(|lookup| {
            let texts = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::TXT(text) => {
                    Some(text.txt_data.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
                }
                _ => None,
            });
            texts.filter(|text| Record::is_meant(text)).collect()
        });
        or_none(answers)
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Outcome<bool> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, length) => Ok(within(self.address, IpAddr::V4(*network), *length)),
            Mechanism::Ip6(network, length) => Ok(within(self.address, IpAddr::V6(*network), *length)),
            Mechanism::A(spec, masks) => {
                self.count()?;
                let name = self.target(spec.as_ref(), domain).await?;
                self.is_address_of(&name, *masks).await
            }
            Mechanism::Mx(spec, masks) => {
                self.count()?;
                let name = self.target(spec.as_ref(), domain).await?;
                self.is_exchange_of(&name, *masks).await
            }
            Mechanism::Exists(spec) => {
                self.count()?;
                let name = self.expand(spec, domain).await?;
                Ok(!self.addresses(&name, false, true).await?.is_empty())
            }
            Mechanism::Include(spec) => {
                self.count()?;
                let name = self.expand(spec, domain).await?;
                match if is_name(&name) { self.host(&name).await? } else { SpfResult::None } {
                    SpfResult::Pass => Ok(true),
                    SpfResult::None => Err(SpfResult::PermError),
                    _ => Ok(false),
                }
            }
            Mechanism::Ptr(spec) => {
                self.count()?;
                let name = self.target(spec.as_ref(), domain).await?;
                Ok(self.validated().await.iter().any(|known| is_below(known, &name)))
            }
        }
    }

    fn count(&mut self) -> Outcome<()> {
        self.terms += 1;
        if self.terms > MOST_TERMS { Err(SpfResult::PermError) } else { Ok(()) }
    }

    async fn target(&self, spec: Option<&Spec>, domain: &str) -> Outcome<String> {
        match spec {
            Some(spec) => self.expand(spec, domain).await,
            None => Ok(domain.to_owned()),
        }
    }

    async fn is_address_of(&mut self, name: &str, masks: Masks) -> Outcome<bool> {
        let addresses = self.addresses(name, self.address.is_ipv6(), true).await?;
        let length = if self.address.is_ipv6() { masks.v6 } else { masks.v4 };
        Ok(addresses.into_iter().any(|one| within(self.address, one, length)))
    }

    async fn is_exchange_of(&mut self, domain: &str, masks: Masks) -> Outcome<bool> {
        let Some(asked) = name(domain) else { return Ok(false) };
        let found = self.resolver.resolver().mx_lookup(asked).await.map_err(Error::from);
        let names = or_none(found.map(|lookup| {
            let names = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::MX(exchange) => Some(plain(&exchange.exchange)),
                _ => None,
            });
            names.collect::<Vec<_>>()
        }))?;
        self.note_void(names.is_empty())?;
        if names.len() > MOST_NAMES {
            return Err(SpfResult::PermError);
        }
        for name in names {
            if self.is_address_of(&name, masks).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Addresses of one family. A name that cannot be has none.
    async fn addresses(&mut self, domain: &str, v6: bool, counted: bool) -> Outcome<Vec<IpAddr>> {
        let Some(asked) = name(domain) else { return Ok(Vec::new()) };
        let resolver = self.resolver.resolver();
        let found = if v6 { resolver.ipv6_lookup(asked).await } else { resolver.ipv4_lookup(asked).await };
        let addresses = or_none(found.map_err(Error::from).map(|lookup| {
            let addresses = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
            addresses.collect::<Vec<_>>()
        }))?;
        if counted {
            self.note_void(addresses.is_empty())?;
        }
        Ok(addresses)
    }

    fn note_void(&mut self, void: bool) -> Outcome<()> {
        self.void += u32::from(void);
        if self.void > MOST_VOID { Err(SpfResult::PermError) } else { Ok(()) }
    }

    /// Names of the address that lead back to it (§5.5). What fails has none.
    async fn validated(&mut self) -> Vec<String> {
        let found = self.resolver.resolver().reverse_lookup(self.address).await;
        let names = found.map(|lookup| {
            let names = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::PTR(name) => Some(plain(&name.to_lowercase())),
                _ => None,
            });
            names.take(MOST_NAMES).collect::<Vec<_>>()
        });
        let mut validated = Vec::new();
        for name in names.unwrap_or_default() {
            let own = self.addresses(&name, self.address.is_ipv6(), false).await.unwrap_or_default();
            if own.contains(&self.address) {
                validated.push(name.trim_end_matches('.').to_owned());
            }
        }
        validated
    }

    /// A domain with its macros expanded (§7.3), cut to what a name may be.
    async fn expand(&self, spec: &Spec, domain: &str) -> Outcome<String> {
        let mut text = String::new();
        for piece in &spec.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Macro { letter, escaped, keep, reverse, delimiters } => {
                    let value = self.value(*letter, domain).await;
                    let value = transformed(&value, *keep, *reverse, delimiters);
                    text.push_str(&if *escaped { url_escaped(&value) } else { value });
                }
            }
        }
        while text.trim_end_matches('.').len() > LONGEST_NAME {
            let Some((_, rest)) = text.split_once('.') else { break };
            text = rest.to_owned();
        }
        Ok(text)
    }

    async fn value(&self, letter: u8, domain: &str) -> String {
        match letter {
            b's' => format!("{}@{}", self.local, self.sender),
            b'l' => self.local.to_owned(),
            b'o' => self.sender.clone(),
            b'd' => domain.to_owned(),
            b'h' => self.helo.to_owned(),
            b'v' => if self.address.is_ipv6() { "ip6" } else { "in-addr" }.to_owned(),
            b'i' => dotted(self.address),
            b'p' => self.known_as(domain).await,
            _ => String::new(),
        }
    }

    /// The `p` macro: the domain itself, a name below it, any other, or `unknown`.
    async fn known_as(&self, domain: &str) -> String {
        let (helo, local, sender) = (self.helo, self.local, self.sender.clone());
        let mut own = Check { resolver: self.resolver, address: self.address, helo, local, sender, terms: 0, void: 0 };
        let names = own.validated().await;
        let same = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let found = same.or_else(|| names.iter().find(|name| is_below(name, domain))).or_else(|| names.first());
        found.cloned().unwrap_or_else(|| "unknown".to_owned())
    }
}

/// No answer is an empty one; any other failure may pass.
fn or_none<T: Default>(found: Result<T, Error>) -> Outcome<T> {
    match found {
        Ok(found) => Ok(found),
        Err(Error::Dns(DnsError::RecordNotFound(_))) => Ok(T::default()),
        Err(_) => Err(SpfResult::TempError),
    }
}

/// A name that the DNS can have.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= LONGEST_NAME && text.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// A name without the escapes of zone files; bytes that are no text match nothing.
fn plain(name: &Name) -> String {
    name.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(".")
}

fn name(text: &str) -> Option<Name> {
    // Whatever a macro has made of it: a label may hold any byte.
    let labels = text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes);
    is_name(text).then(|| Name::from_labels(labels).ok()).flatten()
}

fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    ipnet::IpNet::new(network, length).is_ok_and(|network| network.contains(&address))
}

/// Is a name this domain, or below it?
fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.trim_end_matches('.').to_ascii_lowercase());
    name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

fn transformed(value: &str, keep: usize, reverse: bool, delimiters: &str) -> String {
    let delimiters = if delimiters.is_empty() { "." } else { delimiters };
    let mut parts: Vec<&str> = value.split(|letter| delimiters.contains(letter)).collect();
    if reverse {
        parts.reverse();
    }
    let from = parts.len().saturating_sub(keep);
    parts.get(from..).unwrap_or_default().join(".")
}

/// RFC 3986 §2.3.
fn url_escaped(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => text.push(char::from(byte)),
            false => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    })
}
