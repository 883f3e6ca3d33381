//! Reload: everything that can fail is tried first, then all of it is swapped; a failure changes nothing and says why.
//!
//! Users, devices, spaces, limits, the languages' own tables, certificates and the log level change while sessions run on.
//! What cannot change without a restart is named and keeps its old value.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{Daemon, StartError};
use super::{data, notify, preflight, start};
use crate::config::{self, Config, Problems};
use crate::error::{Error, Kind};
use crate::hub::now;
use crate::net::{Gate, Tls, Trusted};
use crate::telemetry::{log, metric};

/// How long `stoa reload` waits for the daemon's answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// Asks the daemon of this data folder to read its configuration again, and waits for its answer.
///
/// # Errors
/// `Unavailable`: no daemon runs there, or it does not answer. `Invalid`: it refused, and goes on with the old configuration.
pub fn ask(data: &Path) -> crate::error::Result<()> {
    let Some(holder) = data::holder(data) else {
        let text =
            format!("no daemon runs on {}; start it with `stoa serve` or `systemctl start stoa`", data.display());
        return Err(Error::new(Kind::Unavailable, text));
    };
    let asked = now();
    holder.signal(rustix::process::Signal::HUP)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match data::answer(data) {
            // What began before we asked may have read the old files.
            Some((began, words)) if began >= asked => {
                return match words.trim() {
                    "" => Ok(()),
                    words => Err(Error::new(Kind::Invalid, format!("nothing was changed\n{words}"))),
                };
            }
            _ => std::thread::sleep(LOOK),
        }
    }
    let text = format!("the daemon (pid {}) did not answer within {} s; see its log", holder.pid, PATIENCE.as_secs());
    Err(Error::new(Kind::Unavailable, text))
}

impl Daemon {
    /// Answers SIGHUP.
    pub(super) async fn reload(&mut self) {
        let began = now();
        notify::reloading();
        let lines = match self.try_reload().await {
            Ok(()) => {
                metric::reload(true);
                tracing::info!("the configuration was reloaded");
                notify::ready(&self.status());
                Vec::new()
            }
            Err(error) => {
                metric::reload(false);
                let lines = error.lines();
                for line in &lines {
                    tracing::error!("reload refused, the old configuration stays: {line}");
                }
                let first = lines.first().map_or("", String::as_str);
                notify::ready(&format!("{}; reload refused: {first}", self.status()));
                lines
            }
        };
        if let Err(error) = data::write_answer(&self.config.data, began, &lines) {
            tracing::warn!(error = error.detail(), "`stoa reload` cannot be answered");
        }
    }

    async fn try_reload(&mut self) -> Result<(), StartError> {
        let mut loaded = config::load(self.file.as_deref())?;
        for what in keep_fixed(&self.config, &mut loaded.config) {
            tracing::warn!("{what} changed: takes effect at the next restart");
        }
        let found = preflight::look(&loaded);
        if !found.problems.is_empty() {
            return Err(Problems(found.problems).into());
        }
        let new = &loaded.config;
        // Tried: nothing of this is seen by anybody yet.
        Tls::open(&new.tls, &new.data, &new.domain)?;
        Gate::new(new.limits.clone())?;
        let explained = |error| start::explained(&loaded, error);
        let doors = start::open_doors(new, &start::tools(&self.hub, &self.tls, &self.ready)).map_err(explained)?;
        let trusted = new.listen.iter().map(|listen| Trusted::new(&listen.trusted));
        let trusted = trusted.collect::<crate::error::Result<Vec<_>>>()?;
        // The hub swaps its whole view or nothing; what follows was tried above.
        self.hub.reload(loaded.hub()).await.map_err(explained)?;
        self.tls.reload(&new.tls, &new.data, &new.domain)?;
        self.gate.change(new.limits.clone())?;
        log::set_level(&new.log.level)?;
        start::warn(&found.warnings);
        start::warn(&start::doubts(&loaded, &self.hub));
        for (entry, service) in &self.services {
            if let Some((_, handler)) = doors.get(*entry) {
                service.swap(Arc::clone(handler));
            }
            if let Some(trusted) = trusted.get(*entry) {
                service.trust(trusted.clone());
            }
        }
        self.config = loaded.config;
        Ok(())
    }
}

/// Puts back what only a restart can change, and names it.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut keep = |differs: bool, what: &'static str| {
        if differs {
            changed.push(what);
        }
        differs
    };
    if keep(old.data != new.data, "data") {
        new.data.clone_from(&old.data);
    }
    if keep(old.catalog != new.catalog, "[catalog]") {
        new.catalog.clone_from(&old.catalog);
    }
    let sockets = old.listen.len() == new.listen.len()
        && old.listen.iter().zip(&new.listen).all(|(old, new)| old.same_socket(new));
    if keep(!sockets, "[[listen]]") {
        new.listen.clone_from(&old.listen);
    }
    if keep(old.workers != new.workers, "workers") {
        new.workers = old.workers;
    }
    let level = std::mem::take(&mut new.log.level);
    let mut log = old.log.clone();
    log.level.clone_from(&level);
    new.log.level = level;
    if keep(log != new.log, "[log] except its level") {
        new.log = log;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_is_named() {
        let old = Config::default();
        let mut new = Config { workers: 7, domain: vec!["new.org".into()], ..Config::default() };
        new.listen.pop();
        new.log.level = "debug".into();
        new.log.keep = 3;
        assert_eq!(keep_fixed(&old, &mut new), ["[[listen]]", "workers", "[log] except its level"]);
        assert_eq!((new.workers, new.listen.len(), new.log.keep), (0, old.listen.len(), old.log.keep));
        assert_eq!(new.log.level, "debug");
        assert_eq!(new.domain, ["new.org"]);
    }

    #[test]
    fn the_options_of_a_listener_change_without_a_restart() {
        let old = Config::default();
        let mut new = Config::default();
        let options = toml::Table::from_iter([("banner".to_owned(), "hello".into())]);
        new.listen[1].options.insert("ftp".into(), options.into());
        assert_eq!(keep_fixed(&old, &mut new), Vec::<&str>::new());
        assert!(new.listen[1].overlay().is_some());
    }
}
