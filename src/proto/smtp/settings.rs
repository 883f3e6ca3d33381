//! `[smtp]` and what a listener lays over it: who may connect, who signs in, and what is taken from whom.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::proto::dialogue::Bare;
use crate::units::{ByteSize, Span};

/// Fewest recipients a message may be allowed, RFC 5321 §4.5.3.1.8.
const FEWEST_RECIPIENTS: usize = 100;

/// What a listener is for. None of them relays: mail goes to our own recipients or nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Development: every recipient of every domain is taken, into the box of `catch_all`; every password is right.
    Catch,
    /// Machines of the networks it names: no TLS and no sign-in needed, a password is taken in the clear.
    Device,
    /// Everybody writes to our recipients; who signs in is known to drop addresses.
    #[default]
    General,
    /// Other mail servers: nobody signs in, and nobody may talk ahead of our replies.
    Mx,
    /// Our own people (RFC 6409): nothing without a sign-in, and no sender that is somebody else.
    Submission,
}

impl Role {
    /// As it is written in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Catch => "catch",
            Self::Device => "device",
            Self::General => "general",
            Self::Mx => "mx",
            Self::Submission => "submission",
        }
    }
}

/// Whether it is looked up where messages come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Refused when the sender's domain asks for that.
    Enforce,
    /// Written into `Authentication-Results`, and told to drop addresses.
    Note,
    /// Nobody looks.
    #[default]
    Off,
}

/// `[smtp]`: how mail is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the server calls itself; empty: the first mail domain, or the machine's name.
    pub hostname: String,
    /// `general`, `device`, `submission`, `mx` or `catch`.
    pub role: Role,
    /// Networks that may connect; empty: all, which a `device` listener does not allow.
    pub networks: Vec<String>,
    /// Speaks LMTP (RFC 2033): one reply for each recipient.
    pub lmtp: bool,
    /// Account that takes mail for unknown local parts; empty: such mail is refused.
    pub catch_all: String,
    /// Largest message; 0: no limit of its own.
    pub message_size: ByteSize,
    /// Most recipients of one message.
    pub recipients: usize,
    /// Take passwords without TLS, for devices that know none in networks that are trusted.
    pub auth_in_clear: bool,
    /// Networks that are not told of STARTTLS: printers whose TLS is too old try it when they see it, and fail.
    pub no_starttls: Vec<String>,
    /// A CR or LF that stands alone in a message: `normalize`, `keep` or `refuse`.
    pub bare: Bare,
    /// Networks whose machines may send as addresses of our own domains without a sign-in; a `device` listener lets all of its own.
    pub own_senders: Vec<String>,
    /// Networks that may say for whom they speak (XCLIENT).
    pub xclient_from: Vec<String>,
    /// SPF, DKIM, DMARC and ARC: `off`, `note` or `enforce`.
    pub verify: Verify,
    /// Name servers asked for that; empty: the system's.
    pub dns: Vec<String>,
    /// All lookups for one message take no longer.
    pub verify_time: Span,
    /// Recipients that are not here before a session is closed.
    pub bad_recipients: u32,
    /// `Received:` fields of a message that goes round in circles (RFC 5321 §6.3).
    pub hops: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            role: Role::General,
            networks: Vec::new(),
            lmtp: false,
            catch_all: String::new(),
            message_size: ByteSize(50 << 20),
            recipients: 1000,
            auth_in_clear: false,
            no_starttls: Vec::new(),
            bare: Bare::Normalize,
            own_senders: vec!["127.0.0.0/8".into(), "::1".into()],
            xclient_from: Vec::new(),
            verify: Verify::Off,
            dns: Vec::new(),
            verify_time: Span(Duration::from_secs(10)),
            bad_recipients: 20,
            hops: 50,
        }
    }
}

impl Settings {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// `Invalid`, naming the key, the value and the remedy.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |says: String| Err(Error::new(Kind::Invalid, says));
        if self.recipients < FEWEST_RECIPIENTS {
            return wrong(format!(
                "[smtp] recipients = {}: at least {FEWEST_RECIPIENTS} must be taken (RFC 5321); write {FEWEST_RECIPIENTS} or more",
                self.recipients
            ));
        }
        let plain =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':' | '[' | ']');
        if !self.hostname.chars().all(plain) || self.hostname.len() > 255 {
            return wrong(format!(
                "[smtp] hostname = \"{}\": not a host name; write it like mx.example.org",
                self.hostname
            ));
        }
        let networks = Networks::read("networks", &self.networks)?;
        let everybody = networks.0.iter().any(|network| network.prefix_len() == 0);
        if self.role == Role::Device && (networks.0.is_empty() || everybody) {
            return wrong(
                "[smtp] role = \"device\" takes mail without a sign-in: name the machines' networks, such as networks = [\"10.0.5.0/24\"]".into(),
            );
        }
        if self.role == Role::Catch && self.catch_all.is_empty() {
            return wrong(
                "[smtp] role = \"catch\" needs catch_all = \"NAME\", the account whose box takes everything".into(),
            );
        }
        if Networks::read("xclient_from", &self.xclient_from)?.0.iter().any(|network| network.prefix_len() == 0) {
            return wrong("[smtp] xclient_from: everybody could say who they are; name the proxy's address".into());
        }
        Networks::read("own_senders", &self.own_senders)?;
        Networks::read("no_starttls", &self.no_starttls).map(drop)
    }
}

/// Networks of one key, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads them as they are written; an address alone is the network of that one machine.
    ///
    /// # Errors
    /// `Invalid`, naming the key and the entry.
    pub(super) fn read(key: &str, texts: &[String]) -> Result<Self> {
        let read = |text: &String| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
                let says = format!("[smtp] {key}: `{text}` is not a network; write it like 10.0.0.0/8 or 10.0.0.7");
                Error::new(Kind::Invalid, says)
            })
        };
        texts.iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// True for nobody's.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the address is in one of them.
    pub(super) fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// An address in the first of them.
    pub(super) fn example(&self) -> Option<IpAddr> {
        self.0.first().and_then(|network| network.hosts().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().map_or_else(|error| error.public().to_owned(), |()| String::new())
    }

    #[test]
    fn what_would_take_mail_from_anybody_by_mistake_is_refused() {
        assert_eq!(says(|_| {}), "");
        assert!(says(|it| it.role = Role::Device).contains("networks"));
        let device = |network: &str| {
            let network = network.to_owned();
            says(move |it| (it.role, it.networks) = (Role::Device, vec![network]))
        };
        assert!(device("0.0.0.0/0").contains("networks") && device("::/0").contains("networks"));
        assert!(device("10.0.0.0/33").contains("is not a network"));
        assert_eq!(device("10.0.0.7"), "");
        assert!(says(|it| it.role = Role::Catch).contains("catch_all"));
        assert!(says(|it| it.xclient_from = vec!["::/0".into()]).contains("xclient_from"));
        assert!(says(|it| it.recipients = 99).contains("100"));
        assert!(says(|it| it.hostname = "a b".into()).contains("hostname"));
    }
}
