//! Workers: one thread with its own runtime for each core, every one accepting on every listener.
//!
//! All workers share each listening socket (one bind, duplicated descriptors) rather than SO_REUSEPORT, so that a port can have
//! one daemon only, a second one learns it at bind, and a worker that is busy leaves the connection to one that is not.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::accept::{self, Service};
use super::drain::{Drained, Links};
use super::listen::Bound;
use super::local::{Listening, Socket};
use super::spare;
use crate::error::{Error, Result};

/// Threads of one worker for calls that may block; the room's own bound, far above what doors use.
const BLOCKING: usize = 64;
/// Each worker wakes itself so often. A timer that is set and comes before all others makes the runtime write to itself and wake up at once;
/// behind this one hardly any does.
const BEAT: Duration = Duration::from_secs(1);
/// How long a blocking call may hold up the end of a worker.
const LEAVE: Duration = Duration::from_secs(2);

/// The threads that serve connections.
pub struct Workers {
    links: Links,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One listener as a worker sees it.
struct Lane {
    listener: Socket,
    name: Arc<str>,
    service: Arc<Service>,
}

impl Workers {
    /// Starts `count` workers (0: one for each core), all accepting on all listeners, until `stop`.
    ///
    /// # Errors
    /// A descriptor or thread could not be had.
    pub fn start(count: usize, services: Vec<(Bound, Arc<Service>)>, stop: CancellationToken) -> Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        raise_descriptors();
        let links = Links::new(stop);
        let started = (0..count).map(|number| worker(number, lanes(&services)?, links.clone())).collect::<Result<_>>();
        // The workers have descriptors of their own; a port is closed when the last of them stops accepting.
        drop(services);
        match started {
            Ok(threads) => Ok(Self { links, threads: Mutex::new(threads) }),
            Err(error) => {
                links.now();
                Err(error)
            }
        }
    }

    /// Who is open, and the words to end them.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Stops accepting, lets links finish for `limit` at most, cuts the rest and ends the threads. [`Links::now`] makes it hurry.
    pub async fn drain(&self, limit: Duration) -> Drained {
        let drained = self.links.drain(limit).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let join = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker that panicked has ended the process already.
                let _ = thread.join();
            }
        });
        // Each worker bounds its own end; this is for one whose thread is stuck in a call of ours.
        if tokio::time::timeout(LEAVE * 2, join).await.is_err() {
            tracing::error!(target: "stoa::net", "a worker did not end; leaving it");
        }
        drained
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.links.now();
    }
}

/// A soft limit of 1024 descriptors is a leftover for programs that use select(2); ours is the hard one.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(target: "stoa::net", "cannot raise the limit of open files: {error}");
    }
}

/// Every listener once more, for one worker.
fn lanes(services: &[(Bound, Arc<Service>)]) -> Result<Vec<Lane>> {
    let cannot = |error: io::Error| Error::internal(format!("cannot share a listener among workers: {error}"));
    let lane = |(bound, service): &(Bound, Arc<Service>)| {
        let listener = bound.listener.try_clone().map_err(cannot)?;
        Ok(Lane { listener, name: Arc::clone(&bound.name), service: Arc::clone(service) })
    };
    services.iter().map(lane).collect()
}

/// Starts one thread and waits until it accepts, so that "started" is true when it is said.
fn worker(number: usize, lanes: Vec<Lane>, links: Links) -> Result<JoinHandle<()>> {
    let (ready, started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let alive = Alive { links: links.clone() };
            if let Err(error) = run(lanes, &links, &ready) {
                // Not started: the others leave too, and `start` fails.
                links.now();
                let _ = ready.send(Err(error));
            }
            drop(alive);
        })
        .map_err(|error| Error::internal(format!("cannot start a worker thread: {error}")))?;
    match started.recv_timeout(Duration::from_secs(10)) {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(Error::internal(format!("a worker could not start: {error}"))),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(Error::internal("a worker did not start"))
        }
    }
}

fn run(lanes: Vec<Lane>, links: &Links, ready: &mpsc::SyncSender<io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING).build()?;
    runtime.block_on(async {
        for lane in lanes {
            let listener = Listening::new(lane.listener)?;
            let accepting = accept::accept(listener, lane.name, lane.service, links.clone());
            let alive = Alive { links: links.clone() };
            tokio::spawn(async move {
                let _alive = alive;
                accepting.await;
            });
        }
        tokio::spawn(async {
            loop {
                tokio::time::sleep(BEAT).await;
                spare::expire();
            }
        });
        let _ = ready.send(Ok(()));
        links.cut().await;
        io::Result::Ok(())
    })?;
    runtime.shutdown_timeout(LEAVE);
    Ok(())
}

/// Held by a worker's thread and its accept loops: none may end before the daemon stops.
struct Alive {
    links: Links,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.links.is_stopping() {
            // A daemon that answers on some of its cores only is worse than one its supervisor starts again; nothing
            // acknowledged can be lost by it.
            tracing::error!(target: "stoa::net", "a worker died; the daemon ends so that it can be started again");
            // Past the log's writer thread, which will not run again.
            let _ = io::stderr().write_all(b"stoa: a worker died; the daemon ends so that it can be started again\n");
            std::process::abort();
        }
    }
}
