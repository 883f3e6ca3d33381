//! Where each value came from: the default, a line of a file, or a variable of the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where one value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    Default,
    /// A variable of the environment.
    Env(String),
    /// A line of a file, counted from 1.
    File(Arc<Path>, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(file, line) => write!(f, "{}:{line}", file.display()),
        }
    }
}

/// The place of every value that was set, by its path: `limits.idle`, `user[0].name`.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    places: BTreeMap<String, Place>,
}

impl Origins {
    /// Where the value at this path came from.
    #[must_use]
    pub fn of(&self, key: &str) -> &Place {
        self.places.get(key).unwrap_or(&Place::Default)
    }

    /// The same, or else the first place below it: a table has no line of its own that counts.
    #[must_use]
    pub fn near(&self, key: &str) -> &Place {
        let below = || {
            let next = self.places.range(key.to_owned()..).next()?;
            next.0.strip_prefix(key).filter(|rest| rest.starts_with(['.', '['])).map(|_| next.1)
        };
        self.places.get(key).or_else(below).unwrap_or(&Place::Default)
    }

    /// Was this value, or one inside it, set by anybody?
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        *self.near(key) != Place::Default
    }

    /// Remembers; the last to say so counts.
    pub fn note(&mut self, key: String, place: Place) {
        self.places.insert(key, place);
    }
}
