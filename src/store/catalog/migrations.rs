//! The schema's versions: one file per step and engine, and the word that refuses a catalog from the future.

use crate::error::{Error, Kind, Result};

/// One step of the schema; its number is its place in [`STEPS`], from 1.
pub(super) struct Step {
    /// For `SQLite`.
    pub sqlite: &'static str,
    /// For `PostgreSQL`.
    pub postgres: &'static str,
}

/// Every step ever released, oldest first. Never edit one: add the next.
pub(super) const STEPS: &[Step] = &[
    Step { sqlite: include_str!("migrations/001.sqlite.sql"), postgres: include_str!("migrations/001.postgres.sql") },
    Step { sqlite: include_str!("migrations/002.sqlite.sql"), postgres: include_str!("migrations/002.postgres.sql") },
    Step { sqlite: include_str!("migrations/003.sqlite.sql"), postgres: include_str!("migrations/003.postgres.sql") },
    Step { sqlite: include_str!("migrations/004.sqlite.sql"), postgres: include_str!("migrations/004.postgres.sql") },
    Step { sqlite: include_str!("migrations/005.sqlite.sql"), postgres: include_str!("migrations/005.postgres.sql") },
    Step { sqlite: include_str!("migrations/006.sqlite.sql"), postgres: include_str!("migrations/006.postgres.sql") },
    Step { sqlite: include_str!("migrations/007.sqlite.sql"), postgres: include_str!("migrations/007.postgres.sql") },
    Step { sqlite: include_str!("migrations/008.sqlite.sql"), postgres: include_str!("migrations/008.postgres.sql") },
];

/// Keeps the format a catalog has arrived at.
pub(super) const SET_FORMAT: &str =
    "INSERT INTO meta (key, value) VALUES ('format', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// Reads the format a catalog has.
pub(super) const FORMAT: &str = "SELECT value FROM meta WHERE key = 'format'";

/// Is there nothing to be done to a catalog of this format?
pub(super) fn is_newest(format: Option<&str>) -> bool {
    format.and_then(|text| text.parse().ok()) == Some(STEPS.len())
}

/// The steps still to be taken from `format` (`None`: an empty database), each with its number.
///
/// # Errors
/// `Invalid` when the catalog is newer than this binary, or its format is no number.
pub(super) fn missing(format: Option<&str>, place: &str) -> Result<impl Iterator<Item = (usize, &'static Step)>> {
    let newest = STEPS.len();
    let current = match format {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| {
            Error::new(Kind::Invalid, format!("the catalog {place} names its format `{text}`, which is not a number"))
        })?,
    };
    if current > newest {
        let text = format!(
            "the catalog {place} has format {current}, this program knows formats up to {newest}: \
             run the newer version that wrote it, or restore a backup made before the upgrade"
        );
        return Err(Error::new(Kind::Invalid, text));
    }
    Ok(STEPS.iter().enumerate().map(|(at, step)| (at + 1, step)).skip(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_with_a_remedy() {
        let refused = missing(Some("999"), "catalog.db").err().expect("newer");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.public().contains("format 999") && refused.public().contains("restore a backup"));
        assert!(missing(Some("one"), "catalog.db").is_err());
    }

    #[test]
    fn an_empty_database_takes_every_step_and_a_current_one_none() {
        assert_eq!(missing(None, "x").expect("empty").count(), STEPS.len());
        assert_eq!(missing(Some(&STEPS.len().to_string()), "x").expect("current").count(), 0);
    }

    #[test]
    fn both_engines_have_the_same_tables_and_columns() {
        for step in STEPS {
            let sqlite = columns(step.sqlite);
            let mut postgres = columns(step.postgres);
            postgres.retain(|name| !name.starts_with("nodes."));
            assert_eq!(sqlite, postgres);
        }
    }

    fn columns(sql: &str) -> Vec<String> {
        let mut table = String::new();
        let mut found = Vec::new();
        for line in sql.lines() {
            if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
                table = rest.split(' ').next().unwrap_or_default().to_owned();
            } else if line.starts_with("    ") && !line.trim_start().starts_with("PRIMARY") {
                found.push(format!("{table}.{}", line.split_whitespace().next().unwrap_or_default()));
            }
        }
        found
    }
}
