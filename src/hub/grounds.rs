//! Directories that must not lie in one another: what one space serves is not served by another, and nothing of the server's own is served.

use std::path::{Path, PathBuf};

use crate::hub::settings::Settings;

/// Who is where, with the names that symbolic links lead to.
#[derive(Default)]
pub(crate) struct Grounds {
    taken: Vec<(PathBuf, String)>,
}

impl Grounds {
    /// What the server keeps for itself.
    pub(crate) fn of(settings: &Settings) -> Self {
        let mut taken = Vec::new();
        if !settings.data.as_os_str().is_empty() {
            taken.push((real(&settings.data), "the data folder".to_owned()));
        }
        taken.extend(settings.protected.iter().map(|path| (real(path), path.display().to_string())));
        Self { taken }
    }

    /// Takes a directory for a space, or says what is in the way.
    pub(crate) fn take(&mut self, label: &str, source: &str) -> Option<String> {
        let place = real(Path::new(source));
        let clash = self.taken.iter().find(|(other, _)| place.starts_with(other) || other.starts_with(&place));
        if let Some((other, whose)) = clash {
            let how = match (place == *other, place.starts_with(other)) {
                (true, _) => "is",
                (false, true) => "lies in",
                (false, false) => "contains",
            };
            let remedy = "its files would be served by the rules of the other; name a directory apart from it";
            return Some(format!("source: {source} {how} {whose} ({}), so {remedy}", other.display()));
        }
        self.taken.push((place, label.to_owned()));
        None
    }
}

/// Without symbolic links and dots, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    for there in full.ancestors() {
        if let Ok(there) = there.canonicalize() {
            return rest.iter().rev().fold(there, |path: PathBuf, name| path.join(name));
        }
        rest.extend(there.file_name().map(std::ffi::OsStr::to_owned));
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_lie_apart_whatever_they_are_called() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["data/tree", "etc", "srv/a/b", "srv/ab"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("etc/stoa.toml"), "").unwrap();
        std::os::unix::fs::symlink(at("srv/a"), at("link")).unwrap();
        let settings = Settings {
            data: at("data").into(),
            protected: vec![at("etc/stoa.toml").into(), at("logs").into()],
            ..Settings::default()
        };
        for (source, allowed) in [
            ("/", false),
            (at("data").as_str(), false),
            (&at("data/tree/x"), false),
            (&at("data/../data"), false),
            (&at(""), false),
            (&at("etc"), false),
            (&at("logs"), false),
            (&at("logs/old"), false),
            (&at("srv/a/b"), true),
            (&at("srv/a"), true),
            (&at("link"), true),
            (&at("database"), true),
        ] {
            assert_eq!(Grounds::of(&settings).take("x", source).is_none(), allowed, "{source}");
        }
    }

    #[test]
    fn one_directory_has_one_space() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("ab")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let taken = |first: &str, second: &str| {
            let mut grounds = Grounds::default();
            assert_eq!(grounds.take("first", &at(first)), None);
            grounds.take("second", &at(second))
        };
        for (first, second) in
            [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "link"), ("link/b", "a"), ("a", "a/./b/..")]
        {
            assert!(taken(first, second).is_some_and(|what| what.contains("first")), "{first} {second}");
        }
        for (first, second) in [("a", "ab"), ("a/b", "ab"), ("a/b", "a/c"), ("link/b", "a/c")] {
            assert_eq!(taken(first, second), None, "{first} {second}");
        }
    }
}
