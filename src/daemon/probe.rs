//! Trying what a configuration names, without a daemon: folders, files, certificates, the languages' own tables.
//!
//! Nothing that exists is changed. What only a running system can answer (a port that is taken, a password that is wrong)
//! is left to the start.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::volumes;
use crate::config::{Config, Loaded, Problem};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::net::{Tls, TlsSettings};
use crate::store::{Catalog, CatalogSettings, EngineKind};

/// Everything that would keep the daemon from starting or serving, as far as it can be seen from here.
#[must_use]
pub fn all(loaded: &Loaded) -> Vec<Problem> {
    let mut probe = Probe { loaded, problems: Vec::new() };
    probe.data();
    probe.certificate();
    probe.sources();
    probe.passwords();
    probe.log();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            probe.languages().await;
            probe.catalog().await;
        }),
        Err(error) => probe.wrong("check", error.to_string(), "free some memory or threads"),
    }
    probe.problems
}

struct Probe<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl<'a> Probe<'a> {
    fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let place = format!("{}: {key}", self.loaded.origins.near(key));
        self.problems.push(Problem::new(place, what, remedy));
    }

    /// Writable, or it can be made.
    fn writable(&mut self, key: &str, folder: &Path) {
        let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let Some(there) = full.ancestors().find(|folder| folder.exists()) else { return };
        if !there.is_dir() {
            return self.wrong(key, format!("{} is not a folder", there.display()), "name a folder");
        }
        if rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let what = format!("this account may not write to {}", there.display());
            self.wrong(key, what, "give the server's account the right to, or name another folder");
        }
    }

    fn data(&mut self) {
        self.writable("data", &self.config().data);
    }

    fn log(&mut self) {
        let folder = &self.config().log.folder;
        if !folder.is_empty() {
            self.writable("log.folder", Path::new(folder));
        }
    }

    fn certificate(&mut self) {
        let config = self.config();
        let unseen =
            config.tls.certificate.starts_with("credential:") && std::env::var_os("CREDENTIALS_DIRECTORY").is_none();
        if config.tls.certificate.is_empty() || unseen {
            return;
        }
        if let Err(error) = Tls::open(&config.tls, &config.data, &config.domain) {
            self.wrong("tls.certificate", error.detail(), "put a PEM chain and its key there, or leave both out");
        }
    }

    fn sources(&mut self) {
        for (number, space) in self.config().space.iter().enumerate() {
            let key = format!("space[{number}].source");
            if !space.source.is_empty() && !Path::new(&space.source).is_dir() {
                self.wrong(&key, format!("`{}` is no directory", space.source), "make it, or name one that is there");
            }
        }
    }

    fn passwords(&mut self) {
        let config = self.config();
        let users = config.user.iter().map(|user| user.password_file.as_str());
        let devices = config.device.iter().map(|device| device.password_file.as_str());
        let keyed = users.enumerate().map(|(n, file)| (format!("user[{n}].password_file"), file));
        let keyed = keyed.chain(devices.enumerate().map(|(n, file)| (format!("device[{n}].password_file"), file)));
        for (key, file) in keyed {
            let file = file.strip_prefix("file:").unwrap_or(file);
            if file.is_empty() || file.starts_with("credential:") {
                continue;
            }
            if let Err(error) = std::fs::File::open(file) {
                self.wrong(&key, format!("`{file}` cannot be read: {error}"), "put the password into its first line");
            }
        }
    }

    /// Opens every language over an empty store in a folder of its own.
    async fn languages(&mut self) {
        let opened = async {
            let scratch = Scratch::new()?;
            let catalog = Catalog::open(&CatalogSettings::default(), &scratch.0, "check").await?;
            let hub = Hub::open_for_admin(self.config().hub(), catalog, volumes::closed()).await?;
            let tls = Tls::open(&TlsSettings::default(), &scratch.0, &self.config().domain)?;
            super::start::open_doors(self.config(), &super::start::tools(&hub, &tls, &std::sync::Arc::default()))
        };
        if let Err(error) = opened.await {
            self.wrong("listen", error.detail(), "correct the value it names");
        }
    }

    /// Reaches the catalog, unless that would make it.
    async fn catalog(&mut self) {
        let config = self.config();
        match config.catalog.engine {
            EngineKind::Sqlite => {
                let file = config.data.join("catalog.db");
                let free = !file.exists() || rustix::fs::access(&file, Access::READ_OK | Access::WRITE_OK).is_ok();
                if !free {
                    let what = format!("this account may not read and write {}", file.display());
                    self.wrong("catalog.engine", what, "run as the owner of the data folder");
                }
            }
            EngineKind::Postgres => {
                if let Err(error) = Catalog::open(&config.catalog, &config.data, "check").await {
                    self.wrong("catalog.url", error.detail(), "check address, database, user and password");
                }
            }
        }
    }
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
