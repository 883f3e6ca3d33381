//! Finds the file and line of a value that another room complained of.
//!
//! The rooms name a value as people do: `[[space]] /scans: grants: …`, `[smtp] role: …`, `listen[1].ftp, laid over [ftp]: …`. Here that
//! name becomes the key whose place is known, so that every problem names its file and line.

use super::{Loaded, Problem};

/// What a problem advises when its words hold no advice.
const REMEDY: &str = "correct it there";

impl Loaded {
    /// A problem from the words of another room: its place, what is wrong, and the remedy, which stands behind the last semicolon.
    #[must_use]
    pub fn complaint(&self, words: &str) -> Problem {
        let place = match self.key_of(words) {
            Some(key) => format!("{}: {key}", self.origins.near(&key)),
            None => self.name(),
        };
        let (what, remedy) = words.rsplit_once("; ").unwrap_or((words, REMEDY));
        Problem::new(place, what, remedy)
    }

    /// The same for each line.
    #[must_use]
    pub fn complaints(&self, words: &str) -> Vec<Problem> {
        words.lines().map(|line| self.complaint(line)).collect()
    }

    fn key_of(&self, words: &str) -> Option<String> {
        if let Some(rest) = words.strip_prefix("[[") {
            let (list, rest) = rest.split_once("]] ")?;
            let (name, rest) = rest.split_once(": ")?;
            let items = self.values.get(list)?.as_array()?;
            let names = |item: &toml::Value| {
                let keys = ["name", "path", "address", "host"];
                keys.iter().any(|key| item.get(key).and_then(toml::Value::as_str).is_some_and(|text| same(text, name)))
            };
            let base = format!("{list}[{}]", items.iter().position(names)?);
            return Some(self.longest(base, rest));
        }
        if let Some(rest) = words.strip_prefix('[') {
            let (section, rest) = rest.split_once("] ")?;
            return Some(self.longest(section.to_owned(), rest));
        }
        let (base, rest) = words.split_once([',', ':'])?;
        let rest = rest.split_once("]: ").map_or(rest, |(_, rest)| rest);
        (base.starts_with("listen[")).then(|| self.longest(base.to_owned(), rest))
    }

    /// The key named at the front of `rest`, where such a key has a place; else the table.
    fn longest(&self, base: String, rest: &str) -> String {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(rest, |(_, rest)| rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.[]".contains(c)).unwrap_or(rest.len());
        let key = format!("{base}.{}", rest.get(..end).unwrap_or_default());
        match self.origins.knows(&key) {
            true => key,
            false => base,
        }
    }
}

/// A path may be written with a slash at its end, an address in capital letters.
fn same(written: &str, named: &str) -> bool {
    let plain = |text: &str| text.trim().trim_end_matches('/').to_lowercase();
    plain(written) == plain(named)
}
