//! What may be written: every key with its default, as one table to compare with.

use crate::config::Config;
use crate::hub::settings::{AliasSettings, DeviceSettings, SpaceSettings, UserSettings};
use crate::proto::PROTOCOLS;
use crate::proto::http::SiteSettings;

/// Lists of tables, which files add to and the environment cannot reach.
pub const LISTS: [&str; 6] = ["listen", "site", "alias", "user", "device", "space"];

/// Every key at its default; the lists are empty or hold the default listeners.
#[must_use]
pub fn defaults() -> toml::Table {
    toml::Table::try_from(Config::default()).unwrap_or_default()
}

/// One element of a list with every key it may have, at its default.
#[must_use]
pub fn element(list: &str) -> toml::Table {
    let filled = match list {
        "alias" => toml::Table::try_from(AliasSettings::default()),
        "device" => toml::Table::try_from(DeviceSettings::default()),
        "listen" => return listen(),
        "site" => toml::Table::try_from(SiteSettings::default()),
        "space" => toml::Table::try_from(SpaceSettings::default()),
        _ => toml::Table::try_from(UserSettings::default()),
    };
    filled.unwrap_or_default()
}

/// What an element of a list may hold: its keys, and for a listener the table of each language.
#[must_use]
pub fn known(list: &str) -> toml::Table {
    let mut known = element(list);
    if list == "listen" {
        known.extend(PROTOCOLS.iter().map(|protocol| (protocol.name().to_owned(), protocol.defaults().into())));
    }
    known
}

fn listen() -> toml::Table {
    let keys = [("protocol", ""), ("address", ""), ("tls", "none"), ("socket", ""), ("mode", "0660"), ("group", "")];
    let mut keys: toml::Table = keys.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    keys.insert("trusted".to_owned(), toml::Value::Array(Vec::new()));
    keys
}

/// What kind of value a key takes, in words.
#[must_use]
pub fn kind(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::Array(_) => "a list",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Float(_) => "a number",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::String(_) => "text in quotes",
        toml::Value::Table(_) => "a table",
    }
}
