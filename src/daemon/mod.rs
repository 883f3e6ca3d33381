//! The daemon: assembles the rooms, handles signals, reloads, drains, speaks to systemd.
//!
//! Connections are served by the workers' own runtimes; what happens here (keepers, signals, reload, watchdog) runs on a
//! small runtime of its own, so that neither can starve the other.

mod again;
mod copies;
pub mod data;
pub mod first;
mod memory;
mod notify;
pub mod preflight;
pub mod probe;
pub mod reload;
mod reserve;
mod signal;
mod start;
mod state;
pub mod volumes;
mod watchdog;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::{self, Loaded, Problem, Problems};
use crate::error::{Error, Result};
use crate::telemetry::log;
use again::Again;
use signal::{Signal, Signals};
use state::Daemon;
pub use state::StartError;

/// Threads of the control runtime.
const CONTROL_THREADS: usize = 2;
/// How long blocking work may hold up the end.
const LEAVE: Duration = Duration::from_secs(5);
/// Beyond the drain itself: what the keepers may take to put the last publishes on the disk.
const MARGIN: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to end.
///
/// # Errors
/// Why it could not start.
pub fn run(file: Option<&Path>) -> Result<(), StartError> {
    memory::choose();
    copies::choose();
    memory::hide();
    let again = Again::at(std::env::var_os("RUNTIME_DIRECTORY").filter(|_| is_activated()));
    let loaded = patiently(file, &again).inspect_err(|_| again.failed())?;
    let _log = log::init(&loaded.config.log)?;
    let has_files = !loaded.config.log.folder.is_empty();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(Error::internal)?;
    let ended = runtime.block_on(control(file, loaded, &again));
    runtime.shutdown_timeout(LEAVE);
    if let (Err(error), true) = (&ended, has_files) {
        for line in error.lines() {
            tracing::error!("cannot start: {line}");
        }
    }
    if ended.is_err() {
        pause();
        again.failed();
    }
    ended
}

/// Reads the configuration. While clients wait at sockets that systemd keeps, it would start a daemon that ends at once again and again:
/// so a wrong configuration is read again for a while ([`Again`]), and the daemon goes on as soon as it is mended.
fn patiently(file: Option<&Path>, again: &Again) -> Result<Loaded, Problems> {
    let mut until = None;
    loop {
        let problems = match config::load(file) {
            Ok(loaded) => match preflight::look(&loaded).problems {
                problems if problems.is_empty() => return Ok(loaded),
                problems => Problems(problems),
            },
            Err(problems) => problems,
        };
        let until = *until.get_or_insert_with(|| std::time::Instant::now() + again.patience());
        if !is_activated() || std::time::Instant::now() >= until {
            return Err(problems);
        }
        let first = problems.0.first().map(Problem::line).unwrap_or_default();
        notify::status(&format!("the configuration is wrong: {first}"));
        std::thread::sleep(again::FIRST / 10);
    }
}

/// A start that failed for another reason is not tried again at once either.
fn pause() {
    if is_activated() {
        std::thread::sleep(again::FIRST);
    }
}

/// systemd keeps our sockets and starts us when somebody connects.
fn is_activated() -> bool {
    std::env::var_os("LISTEN_FDS").is_some() && std::env::var_os("NOTIFY_SOCKET").is_some()
}

async fn control(file: Option<&Path>, loaded: Loaded, again: &Again) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(Error::internal)?;
    let starting = start::start(file, loaded);
    let mut daemon = tokio::select! {
        started = starting => started?,
        // Nothing was acknowledged yet, and a start can begin again from any point.
        () = signals.end() => return Ok(()),
    };
    notify::ready(&daemon.status());
    again.started();
    let ended = daemon.serve(&mut signals).await;
    daemon.drain(&mut signals).await;
    Ok(ended?)
}

impl Daemon {
    /// The one line of `systemctl status`.
    fn status(&self) -> String {
        let doors: BTreeSet<_> = self.services.iter().map(|(_, service)| service.door).collect();
        let doors = Vec::from_iter(doors).join(", ");
        format!("serving {doors} from {}", self.config.data.display())
    }

    /// Until it is told to end.
    ///
    /// A keeper that died is a fault of ours that would show only much later, as a tree that is never synced or a change
    /// that is never noticed: the daemon ends instead, so that its supervisor starts it again.
    async fn serve(&mut self, signals: &mut Signals) -> Result<()> {
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                Some(ended) = self.keepers.join_next() => match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) | Err(error) => return Err(Error::internal(error)),
                },
            };
            match signal {
                Signal::End => return Ok(()),
                Signal::Reload => self.reload().await,
                Signal::Reopen => {
                    log::reopen();
                    tracing::info!("log files were opened again");
                }
            }
        }
    }

    /// Stops accepting, lets running work finish, ends. A second signal ends it now; so do clients that wait for the next daemon, after a while.
    async fn drain(mut self, signals: &mut Signals) {
        let limit = self.config.limits.drain.0;
        let open = self.workers.links().open();
        self.ready.store(false, Ordering::Release);
        tracing::info!(open, limit = %self.config.limits.drain, "draining");
        notify::stopping(&format!("draining {open} connections"));
        notify::patience(limit + MARGIN);
        let soon = self.config.limits.drain_waiting.0;
        let hurry = async {
            tokio::join!(tokio::time::sleep(soon), self.waiting.somebody());
        };
        let drained = {
            let draining = self.workers.drain(limit);
            tokio::pin!(draining);
            tokio::select! {
                drained = &mut draining => drained,
                () = signals.end() => {
                    tracing::warn!("told twice: ending now");
                    self.workers.links().now();
                    draining.await
                }
                () = hurry => {
                    tracing::info!("new connections wait for the next daemon: ending now");
                    self.workers.links().now();
                    draining.await
                }
            }
        };
        self.keeping.cancel();
        let ended = tokio::time::timeout(MARGIN, async { while self.keepers.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!("the keepers took too long; the next start goes on where they stopped");
        }
        data::clear_listeners(&self.config.data);
        tracing::info!(open = drained.open, cut = drained.cut, "ended");
    }
}
