//! The hub: the one place that decides who may do what, and the only way to the data.
//!
//! A door asks a [`Caller`]; the caller judges the [`act::Claim`] against the [`view::View`] (accounts, spaces, grants),
//! plans a batch, commits it with its history line and intents, and publishes. A door cannot pass by it: no other
//! room hands out bytes or records.

mod access;
pub mod account;
pub mod act;
pub mod admin;
mod adopt;
mod barrier;
pub mod caller;
mod commit;
mod compile;
mod copy;
mod digest;
mod doubt;
pub mod download;
pub mod files;
mod grounds;
mod group;
mod health;
pub mod held;
mod incoming;
mod left;
pub mod listing;
pub mod lock;
pub mod login;
pub mod mail;
mod once;
mod partial;
pub mod path;
mod path_lock;
mod pending;
pub mod policy;
pub mod property;
mod put;
mod recent;
mod replay;
pub mod room;
mod roster;
pub mod session;
pub mod settings;
mod staging;
mod sweep;
mod throttle;
pub mod transfer;
mod undo;
pub mod uploads;
pub mod view;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use account::Account;
pub use act::{Act, Claim};
pub use adopt::Rescan;
pub use caller::{Caller, Entry};
pub use copy::{Copied, RemoveCopied};
pub use held::{Held, Mark};
pub use listing::Listing;
pub use mail::{Envelope, Mailbox, Message, Proof, Rcpt, Recipient, Verdict};
pub use once::{OnceKey, OnceTurn};
pub use path::TreePath;
pub use policy::{Verb, Verbs};
pub use room::SpaceRoom;
pub use settings::Settings;
pub use transfer::{Download, Receipt, Upload, WriteMode, WriteOptions};
pub use uploads::{UploadResource, UploadWish, UploadWriter};

pub use crate::store::{AccountKind, LockRow, Micros, Node, NodeKind, Soaked, Then};

use crate::error::Result;
use crate::origin::Origin;
use crate::store::{Catalog, Volume};

/// Something that keeps files open for later.
pub trait LetGo: Send + Sync {
    /// Closes those that were removed or replaced: their room on the disk is free only then.
    fn let_go(&self);
}

/// Opens the volume of a space: `source` is a directory to serve in place, or empty for one of our own.
pub trait Volumes: Send + Sync + 'static {
    /// # Errors
    /// What the disk says, naming the directory.
    fn open(&self, space: &TreePath, source: &str) -> Result<Arc<dyn Volume>>;
}

/// The hub. Cheap to clone; everything behind it is shared.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) view: ArcSwap<view::View>,
    /// One view is built at a time, so that an older one never replaces a newer.
    pub(crate) rebuild: tokio::sync::Mutex<()>,
    pub(crate) gatekeeper: login::Gatekeeper,
    pub(crate) sessions: session::Resumed,
    pub(crate) locks: lock::Locks,
    pub(crate) paths: path_lock::PathLocks,
    pub(crate) groups: group::Groups,
    pub(crate) pending: pending::Pending,
    pub(crate) own: adopt::Own,
    pub(crate) partials: partial::Partials,
    pub(crate) uploads: uploads::Uploads,
    pub(crate) staging: staging::Staging,
    pub(crate) doing: once::Doing,
    pub(crate) next_intent: AtomicI64,
    pub(crate) keeps_open: parking_lot::Mutex<Vec<Weak<dyn LetGo>>>,
    pub(crate) mail: mail::Memory,
}

impl Hub {
    /// Opens the hub: builds the view, replays what a crash left unpublished, sweeps stale stages.
    ///
    /// # Errors
    /// What is wrong with the settings, the catalog or a volume.
    pub async fn open(settings: Settings, catalog: Catalog, volumes: Arc<dyn Volumes>) -> Result<Self> {
        let view = view::View::build(settings, &catalog, volumes.as_ref(), None).await?;
        let hub = Self::assemble(view, catalog, volumes).await?;
        hub.replay().await?;
        hub.load_redeliveries().await?;
        hub.end_stale_sessions().await?;
        hub.record_left().await;
        Ok(hub)
    }

    /// Opens the hub for an operator's command beside a daemon that may run: nothing is replayed or swept, and what does
    /// not fit in the settings is left out, so that a command can put it right.
    ///
    /// # Errors
    /// `Unavailable` when the catalog cannot be read.
    pub async fn open_for_admin(settings: Settings, catalog: Catalog, volumes: Arc<dyn Volumes>) -> Result<Self> {
        let (view, _) = view::View::prepare(settings, &catalog, volumes.as_ref(), None).await?;
        Self::assemble(view, catalog, volumes).await
    }

    /// What of these settings would keep [`Hub::open`] from opening over this catalog, one problem an entry. Volumes are
    /// opened by `volumes` as always.
    ///
    /// # Errors
    /// `Unavailable` when the catalog cannot be read.
    pub async fn try_settings(settings: Settings, catalog: &Catalog, volumes: &dyn Volumes) -> Result<Vec<String>> {
        Ok(view::View::prepare(settings, catalog, volumes, None).await?.1)
    }

    async fn assemble(view: view::View, catalog: Catalog, volumes: Arc<dyn Volumes>) -> Result<Self> {
        let locks = lock::Locks::load(&catalog, now()).await?;
        let gatekeeper = login::Gatekeeper::new(&view.settings.login);
        Ok(Self {
            inner: Arc::new(Inner {
                catalog,
                volumes,
                view: ArcSwap::from_pointee(view),
                rebuild: tokio::sync::Mutex::default(),
                gatekeeper,
                sessions: session::Resumed::default(),
                locks,
                paths: path_lock::PathLocks::default(),
                groups: group::Groups::default(),
                pending: pending::Pending::default(),
                own: adopt::Own::default(),
                partials: partial::Partials::default(),
                uploads: uploads::Uploads::default(),
                staging: staging::Staging::default(),
                doing: once::Doing::default(),
                next_intent: AtomicI64::new(now()),
                keeps_open: parking_lot::Mutex::default(),
                mail: mail::Memory::default(),
            }),
        })
    }

    /// Starts the keepers (intent clearing, adoption of outside changes, expiry, following other processes' commits);
    /// they end when `stop` is cancelled. Call once, inside a tokio runtime.
    pub fn keep(&self, stop: &CancellationToken) -> Vec<tokio::task::JoinHandle<()>> {
        sweep::start(self, stop)
    }

    /// Takes new settings: users, devices, spaces, limits. Sessions and transfers go on; a failure changes nothing.
    ///
    /// # Errors
    /// As [`Hub::open`].
    pub async fn reload(&self, settings: Settings) -> Result<()> {
        let _turn = self.inner.rebuild.lock().await;
        let old = self.view();
        let new = view::View::build(settings, &self.inner.catalog, self.inner.volumes.as_ref(), Some(&old)).await?;
        let ended = self.show(new);
        self.end_access(ended).await;
        self.record_left().await;
        Ok(())
    }

    /// Asks this once a second to close what was removed or replaced, for as long as it lives.
    pub fn keeps_open(&self, keeper: Weak<dyn LetGo>) {
        self.inner.keeps_open.lock().push(keeper);
    }

    /// A caller who is not signed in.
    #[must_use]
    pub fn guest(&self, origin: Origin) -> Caller {
        Caller::new(self.clone(), origin, None)
    }

    /// The current view of accounts and spaces.
    pub(crate) fn view(&self) -> Arc<view::View> {
        self.inner.view.load_full()
    }

    /// Too many small bodies live only in the catalog: let the tree catch up.
    pub(crate) fn inline_backlog_is_full(&self, space: &str) -> bool {
        self.inner.pending.inline_bytes(space) > self.view().settings.storage.inline_backlog.0
    }

    /// The records.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }
}

/// Now, in the store's form of time.
#[must_use]
pub fn now() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
