//! SMTP (RFC 5321) and LMTP (RFC 2033): the door mail comes in by. It takes mail for our own domains and relays nothing, ever.

pub mod address;
pub mod command;
mod dmarc;
mod head;
mod letter;
mod relay;
pub mod reply;
mod session;
mod settings;
mod sign_in;
pub mod spf;
mod status;
mod trace;
mod transaction;
mod verify;
pub mod xclient;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

pub use settings::{Role, Settings, Verify};

use super::converse::converse;
use super::{Examined, Protocol, Section, Tools};
use crate::error::Result;
use crate::hub::Hub;
use crate::net::{Handler, Link};
use settings::Networks;
use verify::Checker;

/// The language.
pub struct Smtp;

#[async_trait]
impl Protocol for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        Ok(Arc::new(Smtpd(Arc::new(Door::open(section, tools)?))))
    }

    async fn examine(&self, section: &Section, tools: &Tools) -> Option<Examined> {
        Some(relay::examine(Arc::new(Door::open(section, tools).ok()?)).await)
    }
}

/// What all conversations on a listener share.
struct Door {
    hub: Hub,
    settings: Settings,
    machine: String,
    networks: Networks,
    no_starttls: Networks,
    own_senders: Networks,
    xclient_from: Networks,
    checker: Option<Arc<Checker>>,
}

impl Door {
    fn open(section: &Section, tools: &Tools) -> Result<Self> {
        let settings: Settings = section.settings()?;
        settings.check()?;
        Ok(Self {
            hub: tools.hub.clone(),
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            networks: Networks::read("networks", &settings.networks)?,
            no_starttls: Networks::read("no_starttls", &settings.no_starttls)?,
            own_senders: Networks::read("own_senders", &settings.own_senders)?,
            xclient_from: Networks::read("xclient_from", &settings.xclient_from)?,
            checker: Checker::open(settings.verify, &settings.dns, settings.verify_time.0)?,
            settings,
        })
    }

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

    // Not an `async fn`: the link would stay in the future beside the driver it was moved into.
    fn serve<'a, 'b>(&'a self, mut link: Link) -> Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(converse(session::Session::new(self.0.clone(), &mut link), link))
    }
}
