//! Configuration: defaults → file → `conf.d` → environment, checked as a whole, explained with its origin.

use std::collections::BTreeMap;

use crate::hub::settings::{DeviceSettings, LoginSettings, SpaceSettings, StorageSettings, UserSettings};
use crate::net::{Limits, ListenSettings, TlsSettings};
use crate::store::CatalogSettings;
use crate::telemetry::LogSettings;

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder.
    pub data: std::path::PathBuf,
    /// Mail domains served.
    pub domain: Vec<String>,
    /// Runtimes (threads that serve connections); 0: one per core.
    pub workers: usize,
    /// `[catalog]`
    pub catalog: CatalogSettings,
    /// `[tls]`
    pub tls: TlsSettings,
    /// `[[listen]]`
    pub listen: Vec<ListenSettings>,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: LogSettings,
    /// `[login]`
    pub login: LoginSettings,
    /// `[storage]`
    pub storage: StorageSettings,
    /// `[[user]]`
    pub user: Vec<UserSettings>,
    /// `[[device]]`
    pub device: Vec<DeviceSettings>,
    /// `[[space]]`
    pub space: Vec<SpaceSettings>,
    /// `[http]`, `[ftp]`, `[smtp]`, …: handed to the protocol of that name.
    pub protocols: BTreeMap<String, toml::Table>,
}
