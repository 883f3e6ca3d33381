//! Assembling: data folder, catalog, hub, certificates, sockets, languages, workers; in that order, ready at the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::reserve::Reserve;
use super::state::{Daemon, StartError};
use super::volumes::Directories;
use super::{data, first, notify, preflight, watchdog};
use crate::config::{Config, Loaded, Problem, Problems};
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::net::{Bound, Gate, Handler, Passed, Service, Tls, Trusted, Waiting, Workers, bind_all};
use crate::proto::{PROTOCOLS, Tools};
use crate::store::Catalog;
use crate::telemetry::conversation;

/// What recovery after a crash or a migration may take before systemd loses patience.
const RECOVERY: Duration = Duration::from_mins(10);

/// Starts everything, or nothing. An administrator is made last: whatever is wrong is said before a password is.
pub(super) async fn start(file: Option<&Path>, loaded: Loaded) -> std::result::Result<Daemon, StartError> {
    let found = preflight::look(&loaded);
    warn(&found.warnings);
    if !found.problems.is_empty() {
        return Err(Problems(found.problems).into());
    }
    let config = &loaded.config;
    data::prepare(&config.data)?;
    let lock = data::lock(&config.data, file)?;
    data::clear_listeners(&config.data);
    let reserve = Reserve::at_start(&config.data, config.storage.reserve.0);
    notify::patience(RECOVERY);
    notify::status("opening the store");
    let node = data::open_node(&config.data, config.catalog.engine)?;
    data::lay(&config.data)?;
    let catalog = Catalog::open_alone(&config.catalog, &config.data, &node).await?;
    let volumes = Directories::new(config.data.clone(), &config.storage);
    let hub = Hub::open(loaded.hub(), catalog.clone(), volumes).await.map_err(|error| explained(&loaded, error))?;
    warn(&doubts(&loaded, &hub));
    let tls = Tls::open(&config.tls, &config.data, &config.domain)?;
    let ready = Arc::new(AtomicBool::new(false));
    let gate = Gate::new(config.limits.clone())?;
    let handlers = open_doors(config, &tools(&hub, &tls, &ready)).map_err(|error| explained(&loaded, error))?;
    let bound = sockets(config)?;
    first::administrator(&hub, &config.data).await?;
    first::space(&hub).await?;

    if let Err(error) = conversation::keep(&config.data) {
        tracing::warn!("failed conversations will not be remembered: {error}");
    }
    let waiting = Waiting::at(&bound);
    let mut services = Vec::with_capacity(bound.len());
    let mut lanes = Vec::with_capacity(bound.len());
    let mut addresses = Vec::with_capacity(bound.len());
    for bound in bound {
        let Some((door, handler)) = handlers.get(bound.entry) else { continue };
        let service = Service::new(door, Arc::clone(handler), bound.settings.tls, &tls, &gate);
        service.trust(Trusted::new(&bound.settings.trusted)?);
        services.push((bound.entry, Arc::clone(&service)));
        tracing::info!(door, address = %bound.place(), tls = ?bound.settings.tls, passed = bound.passed, "listening");
        addresses.push(((*door).to_owned(), bound.place()));
        lanes.push((bound, service));
    }
    let workers = Workers::start(config.workers, lanes, CancellationToken::new())?;
    let keeping = CancellationToken::new();
    let mut keepers = hub.keep(&keeping);
    keepers.push(reserve.keep(keeping.clone()));
    if let Some(period) = notify::watchdog() {
        tokio::spawn(watchdog::run(catalog, period, keeping.clone()));
    }
    data::write_listeners(&config.data, &addresses)?;
    ready.store(true, Ordering::Release);
    let file = file.map(Path::to_owned);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %node, data = %config.data.display(), "ready");
    let config = loaded.config;
    Ok(Daemon {
        file,
        config,
        hub,
        tls,
        gate,
        services,
        workers,
        waiting,
        keepers: keepers.into_iter().collect(),
        keeping,
        ready,
        _lock: lock,
    })
}

/// Says what may not be meant.
pub(super) fn warn(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{}", warning.line());
    }
}

/// A value that is refused, with its file and line; anything else as it is.
pub(super) fn explained(loaded: &Loaded, error: Error) -> StartError {
    match error.kind() {
        Kind::Invalid => Problems(loaded.complaints(&error.detail())).into(),
        _ => error.into(),
    }
}

/// Names in the configuration that lead to nobody. They may be meant: whom they name can still be made by command.
pub(super) fn doubts(loaded: &Loaded, hub: &Hub) -> Vec<Problem> {
    let mut words = hub.doubts();
    for (number, listen) in loaded.config.listen.iter().enumerate().filter(|(_, listen)| listen.protocol == "smtp") {
        let section = loaded.config.section_of("smtp", listen);
        let catch_all = section.values.get("catch_all").and_then(toml::Value::as_str).unwrap_or_default();
        if !catch_all.is_empty() && !hub.has_mailbox(catch_all) {
            let key = if listen.overlay().is_some_and(|own| own.contains_key("catch_all")) {
                format!("listen[{number}].smtp: catch_all")
            } else {
                "[smtp] catch_all".to_owned()
            };
            words.push(format!("{key}: there is no user `{catch_all}`, so mail for unknown names is refused; make it, or correct the name"));
        }
    }
    words.dedup();
    words.iter().map(|words| loaded.complaint(words)).collect()
}

fn sockets(config: &Config) -> Result<Vec<Bound>> {
    let mut passed = Passed::from_environment();
    let bound = bind_all(&config.listen, &mut passed)?;
    for name in passed.left() {
        tracing::warn!(name, "systemd passed a socket that no [[listen]] takes; it stays unserved");
    }
    Ok(bound)
}

/// What the languages may use.
pub(super) fn tools(hub: &Hub, tls: &Arc<Tls>, ready: &Arc<AtomicBool>) -> Tools {
    let ready = Arc::clone(ready);
    let ready = Arc::new(move || ready.load(Ordering::Acquire));
    Tools { hub: hub.clone(), tls: Arc::clone(tls), ready }
}

/// A language's name and who serves it.
pub(super) type Door = (&'static str, Arc<dyn Handler>);

/// Opens the language of every listener, in their order; all problems at once. Listeners without options of their own share one handler.
pub(super) fn open_doors(config: &Config, tools: &Tools) -> Result<Vec<Door>> {
    let mut shared: BTreeMap<&'static str, Option<Arc<dyn Handler>>> = BTreeMap::new();
    let mut doors = Vec::with_capacity(config.listen.len());
    let mut problems = Vec::new();
    for (number, listen) in config.listen.iter().enumerate() {
        let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.name() == listen.protocol) else {
            problems.push(format!("listen[{number}]: unknown protocol `{}`", listen.protocol));
            continue;
        };
        let name = protocol.name();
        let own = listen.overlay().is_some();
        if let (false, Some(opened)) = (own, shared.get(name)) {
            doors.extend(opened.clone().map(|handler| (name, handler)));
            continue;
        }
        let opened = protocol.open(&config.section_of(name, listen), tools);
        let opened = opened.map_err(|error| match own {
            true => problems.push(format!("listen[{number}].{name}, laid over [{name}]: {}", error.detail())),
            false => problems.push(error.detail()),
        });
        doors.extend(opened.clone().map(|handler| (name, handler)));
        if !own {
            shared.insert(name, opened.ok());
        }
    }
    match problems.is_empty() {
        true => Ok(doors),
        false => Err(Error::new(Kind::Invalid, problems.join("\n"))),
    }
}
