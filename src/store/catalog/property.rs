//! Properties that clients keep beside files and folders (RFC 4918 §4: dead properties). They go where their file goes.

use super::columns::Columns;
use super::engine::{Row, Transaction, Value, bounds, plain};
use super::handle::Catalog;
use crate::error::Result;

/// What stands in `folder` for a space's root, which is in no folder of it.
const NOWHERE: &str = "/";

const PUT: &str = "INSERT INTO properties (space, path, folder, name, value) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT (space, path, name) DO UPDATE SET value = excluded.value";
const REMOVE: &str = "DELETE FROM properties WHERE space = ?1 AND path = ?2 AND name = ?3";
const CLEAR: &str = "DELETE FROM properties WHERE space = ?1 AND path = ?2";
const CLEAR_BELOW: &str = "DELETE FROM properties WHERE space = ?1 AND path >= ?2 AND path < ?3";
const CLEAR_SPACE: &str = "DELETE FROM properties WHERE space = ?1";
const COPY: &str = "INSERT INTO properties (space, path, folder, name, value) \
     SELECT CAST(?3 AS TEXT), CAST(?4 AS TEXT), CAST(?5 AS TEXT), name, value FROM properties \
     WHERE space = ?1 AND path = ?2";
const MOVE_ROW: &str = "UPDATE properties SET path = ?3, folder = ?4 WHERE space = ?1 AND path = ?2";
const MOVE_BELOW: &str = "UPDATE properties SET path = CAST(?4 AS TEXT) || substr(path, CAST(?5 AS INTEGER)), \
         folder = CAST(?4 AS TEXT) || substr(folder, CAST(?5 AS INTEGER)) \
     WHERE space = ?1 AND path >= ?2 AND path < ?3";
const OF: &str = "SELECT path, name, value FROM properties WHERE space = ?1 AND path = ?2 ORDER BY name";
const IN_FOLDER: &str = "SELECT path, name, value FROM properties \
     WHERE space = ?1 AND folder = ?2 AND path >= ?3 AND path <= ?4 ORDER BY path, name";

/// One property of a file or folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyRow {
    /// Path inside the space.
    pub path: String,
    /// `{namespace}name`.
    pub name: String,
    /// The whole element, XML.
    pub value: String,
}

/// One change to properties.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are named as the columns they change")]
pub enum PropertyEdit {
    /// Sets one.
    Put { space: String, path: String, name: String, value: String },
    /// Removes one.
    Remove { space: String, path: String, name: String },
    /// Removes all of one file or folder.
    Clear { space: String, path: String },
    /// Makes those of one place exactly those of another.
    Copy { from: (String, String), to: (String, String) },
}

impl Catalog {
    /// Those of one file or folder, by name.
    pub async fn properties(&self, space: &str, path: &str) -> Result<Vec<PropertyRow>> {
        self.ask(OF, vec![Value::text(space), Value::text(path)]).await?.into_iter().map(property).collect()
    }

    /// Those of everything directly in a folder between two paths, by path and name.
    pub async fn properties_in(&self, space: &str, folder: &str, first: &str, last: &str) -> Result<Vec<PropertyRow>> {
        let params = vec![Value::text(space), Value::text(folder), Value::text(first), Value::text(last)];
        self.ask(IN_FOLDER, params).await?.into_iter().map(property).collect()
    }
}

pub(super) fn push(into: &mut Transaction, edit: PropertyEdit) {
    match edit {
        PropertyEdit::Put { space, path, name, value } => {
            let folder = Value::text(folder_of(&path));
            plain(
                into,
                PUT,
                vec![Value::Text(space), Value::Text(path), folder, Value::Text(name), Value::Text(value)],
            );
        }
        PropertyEdit::Remove { space, path, name } => {
            plain(into, REMOVE, vec![Value::Text(space), Value::Text(path), Value::Text(name)]);
        }
        PropertyEdit::Clear { space, path } => clear(into, &space, &path),
        PropertyEdit::Copy { from: (space, path), to: (goal, to) } => {
            clear(into, &goal, &to);
            let folder = Value::text(folder_of(&to));
            plain(into, COPY, vec![Value::Text(space), Value::Text(path), Value::Text(goal), Value::Text(to), folder]);
        }
    }
}

/// Forgets those of a file or folder itself.
pub(super) fn clear(into: &mut Transaction, space: &str, path: &str) {
    plain(into, CLEAR, vec![Value::text(space), Value::text(path)]);
}

/// Forgets those of a folder and of all below it.
pub(super) fn clear_folder(into: &mut Transaction, space: &str, folder: &str) {
    if folder.is_empty() {
        return plain(into, CLEAR_SPACE, vec![Value::text(space)]);
    }
    let (low, high) = bounds(folder);
    clear(into, space, folder);
    plain(into, CLEAR_BELOW, vec![Value::text(space), Value::Text(low), Value::Text(high)]);
}

/// What was at `from` with all below it is at `to` now; `keep` is where the rest of a path begins, in characters from 1.
pub(super) fn follow(into: &mut Transaction, space: &str, from: &str, to: &str, keep: i64) {
    let (low, high) = bounds(from);
    clear(into, space, to);
    let params = vec![Value::text(space), Value::text(from), Value::text(to), Value::text(folder_of(to))];
    plain(into, MOVE_ROW, params);
    let params = vec![Value::text(space), Value::Text(low), Value::Text(high), Value::text(to), Value::Int(keep)];
    plain(into, MOVE_BELOW, params);
}

fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) => folder,
        None if path.is_empty() => NOWHERE,
        None => "",
    }
}

fn property(row: Row) -> Result<PropertyRow> {
    let mut columns = Columns::of("properties", row);
    Ok(PropertyRow { path: columns.text()?, name: columns.text()?, value: columns.text()? })
}
