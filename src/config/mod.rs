//! Configuration: defaults → file → `conf.d` → environment, checked as a whole, explained with its origin.
//!
//! Every room owns its `Settings`; this room reads the layers, refuses what nobody knows, remembers where each value
//! came from, and says everything that is wrong at once. It opens nothing: what a path or an address leads to is the
//! daemon's business.

mod check;
mod complaint;
mod doubt;
pub mod explain;
mod layers;
pub mod origin;
pub mod problem;
pub mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

pub use layers::{DEFAULT_FILE, load, load_with};
pub use origin::{Origins, Place};
pub use problem::{Problem, Problems};

use crate::hub::Settings;
use crate::hub::settings::{
    AliasSettings, DeviceSettings, LockSettings, LoginSettings, MailSettings, PropertySettings, SpaceSettings,
    StorageSettings, UserSettings,
};
use crate::net::{Limits, ListenSettings, TlsMode, TlsSettings};
use crate::proto::http::SiteSettings;
use crate::proto::{PROTOCOLS, Section};
use crate::store::CatalogSettings;
use crate::telemetry::LogSettings;

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Mail domains served.
    #[serde(deserialize_with = "names")]
    pub domain: Vec<String>,
    /// Runtimes (threads that serve connections); 0: one per core.
    pub workers: usize,
    /// `[catalog]`
    pub catalog: CatalogSettings,
    /// `[tls]`
    pub tls: TlsSettings,
    /// `[[listen]]`
    pub listen: Vec<ListenSettings>,
    /// `[[site]]`
    pub site: Vec<SiteSettings>,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: LogSettings,
    /// `[login]`
    pub login: LoginSettings,
    /// `[storage]`
    pub storage: StorageSettings,
    /// `[locks]`
    pub locks: LockSettings,
    /// `[properties]`
    pub properties: PropertySettings,
    /// `[mail]`
    pub mail: MailSettings,
    /// `[[alias]]`
    pub alias: Vec<AliasSettings>,
    /// `[[user]]`
    pub user: Vec<UserSettings>,
    /// `[[device]]`
    pub device: Vec<DeviceSettings>,
    /// `[[space]]`
    pub space: Vec<SpaceSettings>,
    /// `[http]`, `[ftp]`, `[smtp]`, …: handed to the protocol of that name, merged over its defaults.
    #[serde(flatten)]
    pub protocols: BTreeMap<String, toml::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "./stoa-data".into(),
            domain: vec!["localhost".into()],
            workers: 0,
            catalog: CatalogSettings::default(),
            tls: TlsSettings::default(),
            listen: vec![
                listener("http", "127.0.0.1:8080", TlsMode::None),
                listener("ftp", "127.0.0.1:2121", TlsMode::Upgrade),
                listener("smtp", "127.0.0.1:2525", TlsMode::Upgrade),
                listener("pop3", "127.0.0.1:1110", TlsMode::Upgrade),
                listener("admin", "127.0.0.1:8081", TlsMode::None),
            ],
            site: Vec::new(),
            limits: Limits::default(),
            log: LogSettings::default(),
            login: LoginSettings::default(),
            storage: StorageSettings::default(),
            locks: LockSettings::default(),
            properties: PropertySettings::default(),
            mail: MailSettings::default(),
            alias: Vec::new(),
            user: Vec::new(),
            device: Vec::new(),
            space: Vec::new(),
            protocols: PROTOCOLS
                .iter()
                .map(|protocol| (protocol.name().to_owned(), toml::Value::Table(protocol.defaults())))
                .collect(),
        }
    }
}

impl Config {
    /// What the hub takes from it.
    #[must_use]
    pub fn hub(&self) -> Settings {
        Settings {
            data: self.data.clone(),
            domains: self.domain.clone(),
            users: self.user.clone(),
            devices: self.device.clone(),
            spaces: self.space.clone(),
            aliases: self.alias.clone(),
            mail: self.mail.clone(),
            login: self.login.clone(),
            storage: self.storage.clone(),
            locks: self.locks.clone(),
            properties: self.properties.clone(),
            protected: self.protected(),
        }
    }

    /// Files and folders of the server's own that no space may show.
    fn protected(&self) -> Vec<PathBuf> {
        let pairs = self.tls.certificates.iter().map(|pair| &pair.key);
        let files = self.user.iter().map(|user| &user.password_file);
        let files = files.chain(self.device.iter().map(|device| &device.password_file));
        let named = files.chain(pairs).chain([&self.tls.key, &self.log.folder, &self.catalog.url]);
        named
            .map(|text| text.strip_prefix("file:").unwrap_or(text))
            .filter(|text| !text.is_empty() && !text.contains("://") && !text.starts_with("credential:"))
            .map(PathBuf::from)
            .collect()
    }

    /// The table of one language, as its `open` wants it.
    #[must_use]
    pub fn section(&self, name: &'static str) -> Section {
        let mut values = self.protocols.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        if let ("http", Ok(sites)) = (name, toml::Value::try_from(&self.site)) {
            values.insert("site".to_owned(), sites);
        }
        Section { name, values }
    }

    /// The same with what one listener says otherwise laid over it.
    #[must_use]
    pub fn section_of(&self, name: &'static str, listen: &ListenSettings) -> Section {
        let mut section = self.section(name);
        if let Some(overlay) = listen.overlay() {
            lay(&mut section.values, overlay);
        }
        section
    }
}

/// A configuration with the story of how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// The merged values as they were written, for printing.
    pub values: toml::Table,
    /// Where each of them came from.
    pub origins: Origins,
    /// The main file; `None` when there is none and the defaults stand.
    pub file: Option<PathBuf>,
    /// Values that are allowed and may not be meant.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The main file as people call it.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.as_deref().map_or_else(|| "no file, the defaults".to_owned(), |file| file.display().to_string())
    }

    /// What the hub takes from it. No space may show the configuration itself.
    #[must_use]
    pub fn hub(&self) -> Settings {
        let mut settings = self.config.hub();
        settings.protected.extend(self.file.clone());
        settings
    }

    /// The folder that a relative name in the configuration is meant from: the one the daemon runs in.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.config.data
    }
}

fn listener(protocol: &str, address: &str, tls: TlsMode) -> ListenSettings {
    ListenSettings { protocol: protocol.into(), address: address.into(), tls, ..ListenSettings::default() }
}

/// Lays a table over another: tables key by key, everything else (lists too) replaced.
fn lay(below: &mut toml::Table, above: &toml::Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay(below, above),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

/// One name, a list of names, or names separated by commas.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a domain, a list of domains, or domains separated by commas")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(split(text))
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = items.next_element::<String>()? {
                all.extend(split(&text));
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(Names)
}

/// The words of a list written in one string.
fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
