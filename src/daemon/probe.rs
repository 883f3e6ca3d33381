//! Trying what a configuration names, without a daemon: folders, files, certificates, the languages' own tables.
//!
//! Nothing that exists is changed, and what is tried leaves nothing in the history.

use std::path::{Path, PathBuf};

use super::preflight::{self, Findings};
use super::{data, start, volumes};
use crate::config::{Config, Loaded, Problem};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::net::{self, Tls, TlsSettings};
use crate::proto::PROTOCOLS;
use crate::proto::Tools;
use crate::store::{Batch, Catalog, CatalogSettings, Edit, EngineKind, MailEdit};

/// Everything that would keep the daemon from starting or serving, as far as it can be seen from here.
#[must_use]
pub fn all(loaded: &Loaded) -> Findings {
    let mut probe = Probe { loaded, found: preflight::look(loaded) };
    probe.running();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(probe.rooms()),
        Err(error) => probe.wrong("check", error.to_string(), "free some memory or threads"),
    }
    probe.found
}

struct Probe<'a> {
    loaded: &'a Loaded,
    found: Findings,
}

impl<'a> Probe<'a> {
    fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let place = format!("{}: {key}", self.loaded.origins.near(key));
        self.found.problems.push(Problem::new(place, what, remedy));
    }

    /// A daemon that runs with this configuration has its data folder and its ports; anybody else's are in the way.
    fn running(&mut self) {
        let config = self.config();
        match data::holder(&config.data) {
            Some(holder) if !holder.is_of(self.loaded.file.as_deref()) => {
                let what =
                    format!("another stoa (pid {}, {}) runs on {}", holder.pid, holder.name(), config.data.display());
                self.wrong("data", what, "stop it, or give this one its own `data`");
            }
            Some(holder) => {
                self.found.notes.push(format!("a daemon runs with this configuration (pid {})", holder.pid));
            }
            None => self.ports(),
        }
    }

    /// Binds what the daemon would bind, but for the sockets that systemd keeps for it.
    fn ports(&mut self) {
        for (number, listen) in self.config().listen.iter().enumerate() {
            if let Some(unit) = net::socket_unit(listen) {
                self.found.notes.push(format!("listen[{number}] {}: left to {unit}", listen.address));
            } else if let Err(error) = net::try_bind(listen) {
                self.wrong(&format!("listen[{number}].address"), error.public(), "free it, or choose another");
            }
        }
    }

    /// Opens every language, and compiles accounts and spaces, over the catalog that is there or an empty one in a folder
    /// of its own.
    async fn rooms(&mut self) {
        let Some((catalog, scratch)) = self.catalog().await else { return };
        match Hub::try_settings(self.loaded.hub(), &catalog, volumes::closed().as_ref()).await {
            Ok(problems) => {
                self.found.problems.extend(problems.iter().flat_map(|what| self.loaded.complaints(what)));
            }
            Err(error) => self.wrong("catalog", error.detail(), "see the words before"),
        }
        let opened = async {
            let hub = Hub::open_for_admin(self.loaded.hub(), catalog, volumes::closed()).await?;
            self.found.warnings.extend(start::doubts(self.loaded, &hub));
            let tls = Tls::open(&TlsSettings::default(), &scratch.0, &self.config().domain)?;
            let tools = start::tools(&hub, &tls, &std::sync::Arc::default());
            start::open_doors(self.config(), &tools)?;
            Ok::<_, Error>(tools)
        };
        match opened.await {
            Ok(tools) => self.examine(&tools).await,
            Err(error) => self.found.problems.extend(self.loaded.complaints(&error.detail())),
        }
    }

    /// Lets every listener's language try on itself what must not work.
    async fn examine(&mut self, tools: &Tools) {
        let config = self.config();
        for (number, listen) in config.listen.iter().enumerate() {
            let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.name() == listen.protocol) else { continue };
            let section = config.section_of(protocol.name(), listen);
            let Some(examined) = protocol.examine(&section, tools).await else { continue };
            self.found
                .notes
                .push(format!("listen[{number}] {} {}: {}", listen.protocol, listen.address, examined.tried));
            for what in examined.worked {
                self.wrong(
                    &format!("listen[{number}]"),
                    what,
                    "this is a fault of ours: report it, and close the port",
                );
            }
        }
    }

    /// A copy of what the configured catalog says of accounts, spaces and aliases, in a folder of its own: trials leave nothing behind.
    async fn catalog(&mut self) -> Option<(Catalog, Scratch)> {
        let config = self.config();
        let scratch = match Scratch::new() {
            Ok(scratch) => scratch,
            Err(error) => {
                self.wrong("check", error.detail(), "make room in the folder for temporary files");
                return None;
            }
        };
        let file = config.data.join("catalog.db");
        let embedded = config.catalog.engine == EngineKind::Sqlite;
        if embedded && let Err(error) = data::refuse_orphans(&config.data) {
            self.wrong("data", error.detail(), "see docs/troubleshooting.md");
            return None;
        }
        let opened = match embedded && !std::fs::metadata(&file).is_ok_and(|there| there.len() > 0) {
            true => Catalog::open(&CatalogSettings::default(), &scratch.0, "check").await,
            false => match Catalog::open(&config.catalog, &config.data, "check").await {
                Ok(real) => copy_of(&real, &scratch.0).await,
                Err(error) => Err(error),
            },
        };
        let (key, remedy) = match embedded {
            true => ("data", "run this as the owner of the data folder"),
            false => ("catalog.url", "check address, database, user and password"),
        };
        match opened {
            Ok(catalog) => Some((catalog, scratch)),
            Err(error) => {
                self.wrong(key, error.detail(), remedy);
                None
            }
        }
    }
}

/// Another catalog with the same accounts, spaces and aliases.
async fn copy_of(real: &Catalog, folder: &Path) -> Result<Catalog> {
    let copy = Catalog::open(&CatalogSettings::default(), folder, "check").await?;
    let mut edits: Vec<Edit> = real.accounts().await?.into_iter().map(Edit::PutAccount).collect();
    edits.extend(real.spaces().await?.into_iter().map(Edit::PutSpace));
    edits.extend(real.aliases().await?.into_iter().map(|row| Edit::Mail(MailEdit::PutAlias(row))));
    copy.commit(Batch { edits }).await?;
    Ok(copy)
}

/// A private folder that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| Error::internal(format!("no random numbers: {error}")))?;
        let folder = std::env::temp_dir().join(format!("stoa-check-{:016x}", u64::from_le_bytes(random)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| Error::from(error).with(format!("{} is needed for a moment", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
