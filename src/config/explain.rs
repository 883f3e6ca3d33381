//! The effective configuration as text: valid TOML, each value with its origin, secrets masked.

use std::fmt::Write;

use super::Loaded;
use super::schema::LISTS;

/// One value with its path and origin, as `stoa check --json` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// `limits.idle`, `user[0].name`.
    pub key: String,
    /// Masked where it is a secret.
    pub value: toml::Value,
    /// `default`, `/etc/stoa/stoa.toml:12`, `env STOA__LOG__LEVEL`.
    pub origin: String,
}

/// The column the origins begin in, where the values are short enough.
const COLUMN: usize = 44;

/// Every value, in the order of the sections.
#[must_use]
pub fn values(loaded: &Loaded) -> Vec<Value> {
    let mut all = Vec::new();
    each(loaded, &mut |_, value| all.push(value));
    all
}

/// TOML that could be used as it is, but for the masked secrets.
#[must_use]
pub fn text(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut shown = String::new();
    each(loaded, &mut |header, value| {
        if shown != header {
            let _ = match header.split_once('[').map(|(list, rest)| (list, rest.split_once("]."))) {
                Some((list, None)) => writeln!(text, "\n[[{list}]]"),
                Some((list, Some((_, inner)))) => writeln!(text, "\n[{list}.{inner}]"),
                None => writeln!(text, "\n[{header}]"),
            };
            header.clone_into(&mut shown);
        }
        let key = value.key.rsplit('.').next().unwrap_or_default();
        let line = format!("{key} = {}", value.value);
        let _ = writeln!(text, "{line:COLUMN$} # {}", value.origin);
    });
    text
}

/// Calls with the header and the value of every leaf: single values first, then sections, then lists.
fn each(loaded: &Loaded, to: &mut dyn FnMut(&str, Value)) {
    let tables = |value: &toml::Value| value.is_table();
    for (key, value) in loaded.values.iter().filter(|(key, value)| !tables(value) && !LISTS.contains(&key.as_str())) {
        to("", leaf(loaded, key.clone(), key, value));
    }
    for (key, value) in &loaded.values {
        if let toml::Value::Table(table) = value {
            section(loaded, key, table, to);
        }
    }
    for list in LISTS {
        let items = loaded.values.get(list).and_then(toml::Value::as_array).into_iter().flatten();
        for (number, item) in items.enumerate() {
            if let toml::Value::Table(table) = item {
                section(loaded, &format!("{list}[{number}]"), table, to);
            }
        }
    }
}

fn section(loaded: &Loaded, header: &str, table: &toml::Table, to: &mut dyn FnMut(&str, Value)) {
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        to(header, leaf(loaded, format!("{header}.{key}"), key, value));
    }
    for (key, value) in table {
        if let toml::Value::Table(inner) = value {
            section(loaded, &format!("{header}.{key}"), inner, to);
        }
    }
}

fn leaf(loaded: &Loaded, path: String, key: &str, value: &toml::Value) -> Value {
    let origin = loaded.origins.of(&path).to_string();
    Value { value: masked(key, value), key: path, origin }
}

/// Passwords and the password inside a URL never reach a terminal or a log.
fn masked(key: &str, value: &toml::Value) -> toml::Value {
    let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
        return value.clone();
    };
    let secret = ["password", "secret", "token"].iter().any(|word| key.contains(word)) && !key.ends_with("_file");
    match (secret, key) {
        (true, _) => "***".into(),
        (false, "url") => url(text).into(),
        _ => value.clone(),
    }
}

fn url(text: &str) -> String {
    if text.to_ascii_lowercase().contains("password") {
        return "***".to_owned();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    // A password may hold `@` unescaped: the last one before the path ends it.
    let authority = rest.split('/').next().unwrap_or_default();
    let masked = authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)));
    match masked {
        Some((user, host)) => {
            format!("{scheme}://{user}:***@{host}{}", rest.get(authority.len()..).unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked() {
        assert_eq!(url("postgres://stoa:p@ss@db/stoa"), "postgres://stoa:***@db/stoa");
        assert_eq!(url("postgres://stoa@db/stoa"), "postgres://stoa@db/stoa");
        assert_eq!(url("host=db password=x"), "***");
        assert_eq!(url("file:/run/secret"), "file:/run/secret");
    }
}
