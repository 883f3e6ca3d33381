//! POP3 (RFC 1939, RFC 2449): the door mail is fetched by. It shows one account its own mailbox and nothing else.

pub mod command;
mod maildrop;
pub mod reply;
mod session;
mod show;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::converse::converse;
use super::{Protocol, Section, Tools};
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::{Handler, Limits, Link};
use crate::units::Span;

/// The least a session may be idle, RFC 1939 §3.
const LEAST_IDLE: Duration = Duration::from_mins(10);

/// The language.
pub struct Pop3;

/// `[pop3]`: how mail is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Take passwords without TLS, in networks that are trusted.
    pub auth_in_clear: bool,
    /// A session without a command ends after this, instead of `limits.idle`; nothing is deleted then.
    pub idle: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { auth_in_clear: false, idle: Span(LEAST_IDLE) }
    }
}

impl Protocol for Pop3 {
    fn name(&self) -> &'static str {
        "pop3"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::try_from(Settings::default()).unwrap_or_default()
    }

    fn open(&self, section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let settings: Settings = section.settings()?;
        if settings.idle.0 < LEAST_IDLE {
            let says = format!("[pop3] idle = {}: at least 10m (RFC 1939); write 10m or more", settings.idle);
            return Err(Error::new(Kind::Invalid, says));
        }
        Ok(Arc::new(Pop3d(Arc::new(Door { hub: tools.hub.clone(), settings }))))
    }
}

/// What all conversations share.
struct Door {
    hub: Hub,
    settings: Settings,
}

struct Pop3d(Arc<Door>);

#[async_trait]
impl Handler for Pop3d {
    fn busy(&self) -> &'static [u8] {
        b"-ERR [SYS/TEMP] too many connections; try again later\r\n"
    }

    async fn serve(&self, mut link: Link) -> std::io::Result<()> {
        link.limits = Arc::new(Limits { idle: self.0.settings.idle, ..Limits::clone(&link.limits) });
        converse(session::Session::new(self.0.clone(), &mut link), link).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_settings_say() {
        let section = Section { name: "pop3", values: Pop3.defaults() };
        assert_eq!(section.settings::<Settings>().unwrap(), Settings::default());
    }
}
