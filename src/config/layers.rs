//! Reading the layers: the file, the pieces in `conf.d` beside it, the environment; the later one counts.
//!
//! Each file is judged by itself first, where a line and a column can still be named. Then the `config` crate lays the
//! layers over each other. Lists of tables (`[[listen]]`, `[[user]]`, `[[device]]`, `[[space]]`) are not replaced by a later
//! file but added to, so that a piece in `conf.d` can bring its own users; declared listeners replace the default ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::problem::{self, Problem, Problems};
use super::schema::{self, LISTS};
use super::{Config, Loaded, Origins, Place, check, doubt, split};
use crate::proto::PROTOCOLS;
use crate::units::{ByteSize, Span};

/// Read when no `--config` is given and it is there.
pub const DEFAULT_FILE: &str = "/etc/stoa/stoa.toml";

/// What a variable of the environment starts with.
const PREFIX: &str = "STOA__";

/// Files in `conf.d` that are read at most.
const MOST_PIECES: usize = 1000;

/// Reads the configuration of this process: `file` or the default one, its `conf.d`, and the environment.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(file: Option<&Path>) -> Result<Loaded, Problems> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load_with(file, env)
}

/// The same with an environment of the caller's choosing.
///
/// # Errors
/// As [`load`].
pub fn load_with(file: Option<&Path>, env: Vec<(String, String)>) -> Result<Loaded, Problems> {
    let mut layers = Layers::new();
    let default = Path::new(DEFAULT_FILE);
    let main = file.or_else(|| default.exists().then_some(default));
    if let Some(main) = main {
        layers.file(main);
    }
    for piece in layers.pieces(main.unwrap_or(default)) {
        layers.file(&piece);
    }
    layers.environment(env);
    layers.finish(main)
}

/// The layers read so far.
struct Layers {
    known: toml::Table,
    sources: Vec<toml::Table>,
    lists: BTreeMap<&'static str, Vec<toml::Value>>,
    origins: Origins,
    problems: Vec<Problem>,
}

/// A file being judged.
struct Text<'a> {
    path: Arc<Path>,
    name: String,
    content: &'a str,
}

impl Layers {
    fn new() -> Self {
        Self {
            known: schema::defaults(),
            sources: Vec::new(),
            lists: BTreeMap::new(),
            origins: Origins::default(),
            problems: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.text(&Text { path: path.into(), name, content: &text }),
            Err(error) => self.problems.push(Problem::new(
                name,
                format!("cannot be read: {error}"),
                "name another file with --config, or give the server's account the right to read it",
            )),
        }
    }

    /// Files beside the main one, in the order of their names.
    fn pieces(&mut self, main: &Path) -> Vec<PathBuf> {
        let folder = main.parent().unwrap_or(Path::new(".")).join("conf.d");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return Vec::new();
        };
        let mut pieces: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .take(MOST_PIECES + 1)
            .collect();
        if pieces.len() > MOST_PIECES {
            let what = format!("more than {MOST_PIECES} files");
            self.problems.push(Problem::new(folder.display().to_string(), what, "put them together"));
        }
        pieces.sort();
        pieces
    }

    /// Judges one file and takes its values.
    fn text(&mut self, file: &Text<'_>) {
        let parsed = match DeTable::parse(file.content) {
            Ok(parsed) => parsed,
            // Nobody can tell which value the text at this place belongs to: it may be a secret and is not shown.
            Err(error) => {
                let (line, column) = problem::position(file.content, error.span().unwrap_or(0..0).start);
                let place = format!("{}:{line}:{column}", file.name);
                self.problems.push(Problem::new(place, error.message().trim(), "correct this line"));
                return;
            }
        };
        let before = self.problems.len();
        let known = self.known.clone();
        self.walk(file, parsed.get_ref(), &known, "");
        match toml::from_str::<Config>(file.content) {
            Err(error) if self.problems.len() == before || !error.message().contains("unknown field") => {
                self.typed(file, &error);
            }
            _ => {}
        }
        let Ok(mut table) = toml::from_str::<toml::Table>(file.content) else {
            return;
        };
        for list in LISTS {
            if let Some(toml::Value::Array(items)) = table.remove(list) {
                self.lists.entry(list).or_default().extend(items);
            }
        }
        self.sources.push(table);
    }

    /// What the parser or a type said.
    fn typed(&mut self, file: &Text<'_>, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        let remedy = unknown_word(error.message()).unwrap_or_else(|| "correct this line".to_owned());
        self.problems.push(Problem::at(&file.name, file.content, span, problem::plain(error.message()), remedy));
    }

    /// Refuses unknown keys and remembers the line of every known one.
    fn walk(&mut self, file: &Text<'_>, table: &DeTable<'_>, known: &toml::Table, prefix: &str) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let Some(expected) = known.get(key.get_ref().as_ref()) else {
                let what = match prefix {
                    "" => format!("unknown key `{path}`"),
                    section => format!("unknown key `{}` in [{section}]", key.get_ref()),
                };
                let remedy = problem::suggestion(key.get_ref(), known.keys().map(String::as_str));
                self.problems.push(Problem::at(&file.name, file.content, key.span(), what, remedy));
                continue;
            };
            let list = LISTS.into_iter().find(|list| *list == path);
            match (list, expected, value.get_ref()) {
                (Some(list), _, DeValue::Array(items)) => {
                    let first = self.lists.get(list).map_or(0, Vec::len);
                    let known = schema::known(list);
                    for (number, item) in items.iter().enumerate() {
                        let path = format!("{list}[{}]", first + number);
                        self.note(file, path.clone(), item.span().start);
                        if let DeValue::Table(table) = item.get_ref() {
                            self.walk(file, table, &known, &path);
                        }
                    }
                }
                // An empty table within a section takes names of the operator's own.
                (None, toml::Value::Table(open), DeValue::Table(_)) if open.is_empty() && !prefix.is_empty() => {
                    self.note(file, path, key.span().start);
                }
                (None, toml::Value::Table(known), DeValue::Table(table)) => self.walk(file, table, known, &path),
                (None, expected, found) => {
                    if of_a_language(&path) && !fits(expected, found) {
                        let what = format!("`{path}` takes {}, not this", schema::kind(expected));
                        let remedy = format!("its default is `{expected}`");
                        self.problems.push(Problem::at(&file.name, file.content, value.span(), what, remedy));
                    }
                    self.note(file, path, key.span().start);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, file: &Text<'_>, path: String, at: usize) {
        self.origins.note(path, Place::File(file.path.clone(), problem::position(file.content, at).0));
    }

    /// Takes `STOA__SECTION__KEY` by the kind of the key's default.
    fn environment(&mut self, mut env: Vec<(String, String)>) {
        env.retain(|(name, _)| name.starts_with(PREFIX));
        env.sort();
        for (name, value) in env {
            let lower = name.trim_start_matches(PREFIX).to_ascii_lowercase();
            let parts: Vec<&str> = lower.split("__").collect();
            match self.variable(&parts, &value) {
                Ok(value) => {
                    self.origins.note(parts.join("."), Place::Env(name));
                    self.sources.push(nested(&parts, value));
                }
                Err((what, remedy)) => self.problems.push(Problem::new(format!("env {name}"), what, remedy)),
            }
        }
    }

    /// The value of a variable, or what is wrong and what to do.
    fn variable(&self, parts: &[&str], text: &str) -> Result<toml::Value, (String, String)> {
        if parts.first().is_some_and(|first| LISTS.contains(first)) {
            let what = "a list of tables cannot be set from the environment".to_owned();
            return Err((what, "write it into the file or a piece in conf.d".to_owned()));
        }
        let mut at = &self.known;
        let mut found = None;
        for part in parts {
            found = at.get(*part);
            match found {
                Some(toml::Value::Table(inner)) => at = inner,
                Some(_) => {}
                None => {
                    return Err((
                        format!("unknown key `{part}`"),
                        problem::suggestion(part, at.keys().map(String::as_str)),
                    ));
                }
            }
        }
        let wrong = |kind: &str| (format!("`{text}` is not {kind}"), format!("`{}` takes {kind}", parts.join(".")));
        match found {
            None | Some(toml::Value::Table(_)) => {
                Err(("names a whole table".to_owned(), format!("name one key: {PREFIX}SECTION__KEY")))
            }
            Some(toml::Value::Array(_)) => Ok(split(text).into()),
            Some(toml::Value::Boolean(_)) => text.parse().map(toml::Value::Boolean).map_err(|_| wrong("true or false")),
            Some(toml::Value::Float(_)) => text.parse().map(toml::Value::Float).map_err(|_| wrong("a number")),
            Some(toml::Value::Integer(_)) => {
                text.parse().map(toml::Value::Integer).map_err(|_| wrong("a whole number"))
            }
            Some(toml::Value::String(_) | toml::Value::Datetime(_)) => Ok(text.into()),
        }
    }

    /// Lays the layers over each other and judges the result.
    fn finish(mut self, main: Option<&Path>) -> Result<Loaded, Problems> {
        if !self.problems.is_empty() {
            return Err(Problems(self.problems));
        }
        let values = self.merge().map_err(|error| {
            Problems(vec![Problem::new(
                "configuration",
                format!("the layers do not fit together: {error}"),
                "report this",
            )])
        })?;
        let config: Config = serde_path_to_error::deserialize(toml::Value::Table(values.clone())).map_err(|error| {
            let key = error.path().to_string();
            let place = format!("{}: {key}", self.origins.near(&key));
            let remedy = unknown_word(error.inner().message()).unwrap_or_else(|| "correct it there".to_owned());
            Problems(vec![Problem::new(place, problem::plain(error.inner().message()), remedy)])
        })?;
        let file = main.map(Path::to_owned);
        let mut loaded = Loaded { config, values, origins: self.origins, file, warnings: Vec::new() };
        let problems = check::check(&loaded);
        loaded.warnings = doubt::doubts(&loaded);
        match problems.is_empty() {
            true => Ok(loaded),
            false => Err(Problems(problems)),
        }
    }

    fn merge(&mut self) -> Result<toml::Table, config::ConfigError> {
        let mut builder = config::Config::builder().add_source(layer(&self.known));
        let mut lists = toml::Table::new();
        for (list, mut items) in std::mem::take(&mut self.lists) {
            items.iter_mut().filter_map(toml::Value::as_table_mut).for_each(|item| fill(item, schema::element(list)));
            lists.insert(list.to_owned(), items.into());
        }
        self.sources.push(lists);
        for source in &self.sources {
            builder = builder.add_source(layer(source));
        }
        builder.build()?.try_deserialize()
    }
}

/// A layer as text again: `config::Config::try_from` loses empty lists and tables, which are values here.
fn layer(table: &toml::Table) -> impl config::Source + Send + Sync + use<> {
    config::File::from_str(&table.to_string(), config::FileFormat::Toml)
}

/// Adds the keys that were not written, at their defaults.
fn fill(item: &mut toml::Table, defaults: toml::Table) {
    for (key, value) in defaults {
        item.entry(key).or_insert(value);
    }
}

/// `section.key`.
fn join(prefix: &str, key: &str) -> String {
    match prefix {
        "" => key.to_owned(),
        section => format!("{section}.{key}"),
    }
}

/// Is this a language's section or inside one, its own or the one of a listener? What it holds is known to nobody's types here.
fn of_a_language(path: &str) -> bool {
    let own = path.strip_prefix("listen[").and_then(|rest| rest.split_once("].")).map_or(path, |(_, own)| own);
    PROTOCOLS.iter().any(|protocol| own.split('.').next() == Some(protocol.name()))
}

/// A table in a table … around one value.
fn nested(parts: &[&str], value: toml::Value) -> toml::Table {
    let mut value = value;
    let mut table = toml::Table::new();
    for part in parts.iter().rev() {
        table = toml::Table::from_iter([((*part).to_owned(), value)]);
        value = toml::Value::Table(table.clone());
    }
    table
}

/// May this value stand where that default stands? Sizes and spans may also be bare numbers.
fn fits(expected: &toml::Value, found: &DeValue<'_>) -> bool {
    match (expected, found) {
        (toml::Value::String(text), DeValue::Integer(_)) => {
            text.parse::<ByteSize>().is_ok() || text.parse::<Span>().is_ok()
        }
        (toml::Value::Float(_), DeValue::Integer(_)) => true,
        (expected, found) => expected.type_str() == found.type_str(),
    }
}

/// Serde's list of what it would have taken, as a suggestion.
fn unknown_word(message: &str) -> Option<String> {
    let rest = message.trim().strip_prefix("unknown ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    let known: Vec<&str> = quoted.collect();
    (!known.is_empty()).then(|| problem::suggestion(word, known.iter().copied()))
}
