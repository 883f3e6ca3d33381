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
use crate::net::{Tls, TlsSettings, examine_certificates};
use crate::proto::{PROTOCOLS, Tools};
use crate::store::{Catalog, CatalogSettings, EngineKind};

/// Problems, and what was tried without finding one. Problems are everything that would keep the daemon from starting or serving, as far as it can be seen from here.
#[must_use]
pub fn all(loaded: &Loaded) -> (Vec<Problem>, Vec<String>) {
    let mut probe = Probe { loaded, problems: Vec::new(), notes: Vec::new() };
    probe.data();
    probe.certificate();
    probe.sources();
    probe.passwords();
    probe.log();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(probe.rooms()),
        Err(error) => probe.wrong("check", error.to_string(), "free some memory or threads"),
    }
    (probe.problems, probe.notes)
}

struct Probe<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
    notes: Vec<String>,
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
        if unseen || (config.tls.certificate.is_empty() && config.tls.certificates.is_empty()) {
            return;
        }
        for (file, ending) in examine_certificates(&config.tls) {
            match ending {
                Ok(said) => self.notes.push(format!("certificate {file}: {said}")),
                Err(words) => self.notes.push(format!("WARNING: certificate {file}: {words}")),
            }
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

    /// Opens every language, and compiles accounts and spaces, over the catalog that is there or an empty one in a folder
    /// of its own.
    async fn rooms(&mut self) {
        let Some((catalog, scratch)) = self.catalog().await else { return };
        match Hub::try_settings(self.config().hub(), &catalog, volumes::closed().as_ref()).await {
            Ok(problems) => problems.into_iter().for_each(|what| self.wrong("accounts and spaces", what, "correct it")),
            Err(error) => self.wrong("catalog", error.detail(), "see the words before"),
        }
        let opened = async {
            let hub = Hub::open_for_admin(self.config().hub(), catalog, volumes::closed()).await?;
            let tls = Tls::open(&TlsSettings::default(), &scratch.0, &self.config().domain)?;
            let tools = super::start::tools(&hub, &tls, &std::sync::Arc::default());
            super::start::open_doors(self.config(), &tools)?;
            Ok::<_, Error>(tools)
        };
        match opened.await {
            Ok(tools) => self.examine(&tools).await,
            Err(error) => self.wrong("doors", error.detail(), "correct the value it names"),
        }
    }

    /// Lets every listener's language try on itself what must not work.
    async fn examine(&mut self, tools: &Tools) {
        let config = self.config();
        for (number, listen) in config.listen.iter().enumerate() {
            let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.name() == listen.protocol) else { continue };
            let section = config.section_of(protocol.name(), listen);
            let Some(examined) = protocol.examine(&section, tools).await else { continue };
            self.notes.push(format!("listen[{number}] {} {}: {}", listen.protocol, listen.address, examined.tried));
            for what in examined.worked {
                self.wrong(
                    &format!("listen[{number}]"),
                    what,
                    "this is a fault of ours: report it, and close the port",
                );
            }
        }
    }

    /// The configured catalog; an empty one where that would have to be made first.
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
        let opened = match embedded && !file.exists() {
            true => Catalog::open(&CatalogSettings::default(), &scratch.0, "check").await,
            false => Catalog::open(&config.catalog, &config.data, "check").await,
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
