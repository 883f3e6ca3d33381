//! What can be said of a configuration before anything is opened: whether the folders, certificates and files that it names are there
//! and can be used. `check`, `serve` and a reload ask the same, so their verdict is the same. Nothing is changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Loaded, Problem};
use crate::hub::Verbs;
use crate::hub::settings::SpaceSettings;
use crate::net::{Tls, examine_certificates};

/// What was found.
#[derive(Default)]
pub struct Findings {
    /// The daemon would not start, or could not serve.
    pub problems: Vec<Problem>,
    /// Allowed, and perhaps not meant.
    pub warnings: Vec<Problem>,
    /// Tried without finding anything.
    pub notes: Vec<String>,
}

/// Looks at everything the configuration names.
#[must_use]
pub fn look(loaded: &Loaded) -> Findings {
    let found = Findings { warnings: loaded.warnings.clone(), ..Findings::default() };
    let mut look = Look { loaded, found };
    look.folders();
    look.certificate();
    look.sources();
    look.secrets();
    look.account();
    look.found
}

struct Look<'a> {
    loaded: &'a Loaded,
    found: Findings,
}

impl<'a> Look<'a> {
    fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    fn problem(&self, key: &str, what: impl Into<String>, remedy: &str) -> Problem {
        Problem::new(format!("{}: {key}", self.loaded.origins.near(key)), what, remedy)
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let problem = self.problem(key, what, remedy);
        self.found.problems.push(problem);
    }

    fn warn(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let problem = self.problem(key, what, remedy);
        self.found.warnings.push(problem);
    }

    fn folders(&mut self) {
        let config = self.config();
        if let Err((what, remedy)) = try_folder(&config.data) {
            self.wrong("data", what, remedy);
        }
        if !config.log.folder.is_empty()
            && let Err((what, remedy)) = try_folder(Path::new(&config.log.folder))
        {
            self.wrong("log.folder", what, remedy);
        }
    }

    fn certificate(&mut self) {
        let config = self.config();
        let unseen =
            config.tls.certificate.starts_with("credential:") && std::env::var_os("CREDENTIALS_DIRECTORY").is_none();
        if unseen || (config.tls.certificate.is_empty() && config.tls.certificates.is_empty()) {
            return;
        }
        for (file, ending) in examine_certificates(&config.tls) {
            match ending {
                Ok(said) => self.found.notes.push(format!("certificate {file}: {said}")),
                Err(words) => {
                    self.warn("tls.certificate", format!("{file}: {words}"), "put the new one in its place and reload");
                }
            }
        }
        // Without a pair of its own the server makes one, and a check makes nothing.
        if !config.tls.certificate.is_empty()
            && let Err(error) = Tls::open(&config.tls, &config.data, &config.domain)
        {
            self.wrong("tls.certificate", error.detail(), "put a PEM chain and its key there, or leave both out");
        }
    }

    fn sources(&mut self) {
        for (number, space) in self.config().space.iter().enumerate() {
            let key = format!("space[{number}].source");
            let source = Path::new(&space.source);
            if space.source.is_empty() {
                continue;
            }
            if !source.is_dir() {
                self.wrong(&key, format!("`{}` is no directory", space.source), "make it, or name one that is there");
            } else if may_be_changed(space)
                && let Err(error) = try_write(source)
            {
                let what = format!("{} cannot be written ({error}); {} refuses uploads", space.source, space.path);
                let remedy = "give the server's account the right to; under systemd name it in ReadWritePaths= \
                              (20-spaces.conf.example)";
                self.warn(&key, what, remedy);
            }
        }
    }

    /// Files with passwords and keys.
    fn secrets(&mut self) {
        let config = self.config();
        let users = config.user.iter().map(|user| user.password_file.as_str());
        let devices = config.device.iter().map(|device| device.password_file.as_str());
        let keyed = users.enumerate().map(|(n, file)| (format!("user[{n}].password_file"), file));
        let keyed = keyed.chain(devices.enumerate().map(|(n, file)| (format!("device[{n}].password_file"), file)));
        for (key, file) in keyed {
            let file = file.strip_prefix("file:").unwrap_or(file);
            if file.is_empty() || file.starts_with("credential:") {
                continue;
            }
            // One that cannot be read is named where the accounts are read.
            if std::fs::File::open(file).is_ok() {
                self.private(&key, Path::new(file));
            }
        }
        let pairs = config.tls.certificates.iter().map(|pair| pair.key.as_str()).enumerate();
        let pairs = pairs.map(|(n, file)| (format!("tls.certificates[{n}]"), file));
        for (key, file) in pairs.chain([("tls.key".to_owned(), config.tls.key.as_str())]) {
            if !file.is_empty() && !file.starts_with("credential:") {
                self.private(&key, Path::new(file));
            }
        }
        if let Some(file) = config.catalog.url.strip_prefix("file:") {
            self.private("catalog.url", Path::new(file));
        }
        let holds = config.user.iter().any(|user| !user.password_hash.is_empty())
            || config.device.iter().any(|device| !device.password_hash.is_empty())
            || config.catalog.url.contains("://");
        if let (true, Some(file)) = (holds, self.loaded.file.as_deref()) {
            self.private("configuration", file);
        }
    }

    fn private(&mut self, key: &str, file: &Path) {
        let Ok(there) = std::fs::metadata(file) else { return };
        if there.mode() & 0o007 != 0 {
            let what = format!("{} can be read by every account of this machine", file.display());
            self.warn(key, what, "chmod o= it, and give it the group of the server's account");
        }
    }

    fn account(&mut self) {
        if rustix::process::geteuid().is_root() {
            let what = "runs as root: a fault of the server would be a fault of the whole machine";
            self.warn("serve", what, "run it as an account of its own: systemd/stoa.service does");
        }
    }
}

/// Does anybody have a right to change something there? A directory that is only looked at need not be written.
fn may_be_changed(space: &SpaceSettings) -> bool {
    let looks = Verbs::parse("view").unwrap_or(Verbs::NONE);
    let changes = |allow: &str| Verbs::parse(allow).is_ok_and(|verbs| verbs.and(looks) != looks);
    space.grants.iter().any(|grant| changes(&grant.allow))
}

/// The folder can be written, or made; else what is wrong, and what to do.
fn try_folder(folder: &Path) -> Result<(), (String, &'static str)> {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = full.ancestors().find(|folder| folder.exists()) else { return Ok(()) };
    if !there.is_dir() {
        return Err((format!("{} is not a folder", there.display()), "name a folder"));
    }
    try_write(there).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => {
                "mount it for writing (systemd: ReadWritePaths=), or name another"
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "make room there, or name another",
            _ => "give the server's account the right to write there, or name another folder",
        };
        (format!("{} cannot be written: {error}", there.display()), remedy)
    })
}

/// Makes a file that no door shows, and removes it.
fn try_write(folder: &Path) -> std::io::Result<()> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let file: PathBuf = folder.join(format!(".stoa-check-{:016x}", u64::from_le_bytes(random)));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&file)?;
    std::fs::remove_file(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_by_writing_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(try_folder(&folder.path().join("a/b")), Ok(()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(try_folder(&folder.path().join("file/b")).is_err_and(|(what, _)| what.contains("is not a folder")));
        assert!(try_folder(Path::new("/proc/stoa")).is_err_and(|(what, _)| what.contains("cannot be written")));
    }
}
