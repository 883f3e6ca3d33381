//! SMTP (RFC 5321): the door mail comes in by. It takes mail for our own domains and relays nothing, ever.

pub mod address;
pub mod command;
mod letter;
pub mod reply;
mod session;
mod trace;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::converse::converse;
use super::{Protocol, Section, Tools};
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::{Handler, Link};
use crate::units::ByteSize;

/// Fewest recipients a message may be allowed, RFC 5321 §4.5.3.1.8.
const FEWEST_RECIPIENTS: usize = 100;

/// The language.
pub struct Smtp;

/// Who is asked to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignIn {
    /// Nobody can: a port for other mail servers.
    Never,
    /// Who wants to can; grants decide what others may do.
    #[default]
    Offered,
    /// Nobody sends without it: a port for our own people and devices.
    Required,
}

/// `[smtp]`: how mail is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the server calls itself; empty: the first mail domain, or the machine's name.
    pub hostname: String,
    /// Account that takes mail for unknown local parts; empty: such mail is refused.
    pub catch_all: String,
    /// Largest message; 0: no limit of its own.
    pub message_size: ByteSize,
    /// Most recipients of one message.
    pub recipients: usize,
    /// `never`, `offered` or `required`.
    pub sign_in: SignIn,
    /// Take passwords without TLS, for devices that know none in networks that are trusted.
    pub auth_in_clear: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            catch_all: String::new(),
            message_size: ByteSize(50 << 20),
            recipients: 1000,
            sign_in: SignIn::Offered,
            auth_in_clear: false,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        if self.recipients < FEWEST_RECIPIENTS {
            let says = format!(
                "[smtp] recipients = {}: at least {FEWEST_RECIPIENTS} must be taken (RFC 5321); write {FEWEST_RECIPIENTS} or more",
                self.recipients
            );
            return Err(Error::new(Kind::Invalid, says));
        }
        let plain =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':' | '[' | ']');
        if !self.hostname.chars().all(plain) || self.hostname.len() > 255 {
            let says =
                format!("[smtp] hostname = \"{}\": not a host name; write it like mx.example.org", self.hostname);
            return Err(Error::new(Kind::Invalid, says));
        }
        Ok(())
    }
}

impl Protocol for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let settings: Settings = section.settings()?;
        settings.check()?;
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Arc::new(Smtpd(Arc::new(Door { hub: tools.hub.clone(), settings, machine }))))
    }
}

/// What all conversations share.
struct Door {
    hub: Hub,
    settings: Settings,
    machine: String,
}

impl Door {
    /// What the server calls itself.
    fn host(&self) -> String {
        if !self.settings.hostname.is_empty() {
            return self.settings.hostname.clone();
        }
        self.hub.mail_name().filter(|name| !name.is_empty()).unwrap_or_else(|| self.machine.clone())
    }
}

struct Smtpd(Arc<Door>);

#[async_trait]
impl Handler for Smtpd {
    fn busy(&self) -> &'static [u8] {
        b"421 4.3.2 too many connections; try again later\r\n"
    }

    async fn serve(&self, mut link: Link) -> std::io::Result<()> {
        converse(session::Session::new(self.0.clone(), &mut link), link).await
    }
}
