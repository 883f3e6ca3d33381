//! Reload: everything that can fail is tried first, then all of it is swapped; a failure changes nothing and says why.
//!
//! Users, devices, spaces, limits, the languages' own tables, certificates and the log level change while sessions run on.
//! What cannot change without a restart is named and keeps its old value.

use std::sync::Arc;

use super::{Daemon, StartError, notify, start};
use crate::config::{self, Config};
use crate::net::{Gate, Tls, Trusted};
use crate::telemetry::{log, metric};

impl Daemon {
    /// Answers SIGHUP.
    pub(super) async fn reload(&mut self) {
        notify::reloading();
        match self.try_reload().await {
            Ok(()) => {
                metric::reload(true);
                tracing::info!("the configuration was reloaded");
                notify::ready(&self.status());
            }
            Err(error) => {
                metric::reload(false);
                let lines = error.lines();
                for line in &lines {
                    tracing::error!("reload refused, the old configuration stays: {line}");
                }
                let first = lines.first().map_or("", String::as_str);
                notify::ready(&format!("{}; reload refused: {first}", self.status()));
            }
        }
    }

    async fn try_reload(&mut self) -> Result<(), StartError> {
        let mut new = config::load(self.file.as_deref())?.config;
        for what in keep_fixed(&self.config, &mut new) {
            tracing::warn!("{what} changed: takes effect at the next restart");
        }
        // Tried: nothing of this is seen by anybody yet.
        Tls::open(&new.tls, &new.data, &new.domain)?;
        Gate::new(new.limits.clone())?;
        let doors = start::open_doors(&new, &start::tools(&self.hub, &self.tls, &self.ready))?;
        let trusted = new.listen.iter().map(|listen| Trusted::new(&listen.trusted)).collect::<Result<Vec<_>, _>>()?;
        // The hub swaps its whole view or nothing; what follows was tried above.
        self.hub.reload(new.hub()).await?;
        self.tls.reload(&new.tls, &new.data, &new.domain)?;
        self.gate.change(new.limits.clone())?;
        log::set_level(&new.log.level)?;
        for (entry, service) in &self.services {
            if let Some((_, handler)) = doors.get(*entry) {
                service.swap(Arc::clone(handler));
            }
            if let Some(trusted) = trusted.get(*entry) {
                service.trust(trusted.clone());
            }
        }
        self.config = new;
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
