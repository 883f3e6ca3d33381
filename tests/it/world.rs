//! A world to test doors in: a hub on SQLite and plain directories with a standard set of people, machines and spaces.
//!
//! | account | password | may |
//! |---|---|---|
//! | user `alice` (group `staff`) | `wonder` | edit `/scans`, own `/vault` |
//! | user `bob` | `builder` | what every user may |
//! | user `rita` (group `staff`) | `rooted` | confined to `/scans/rita` |
//! | device `camera-3` | `shutter` | drop into `/scans`, its folder `/cameras/3` |
//!
//! | space | grants | rule |
//! |---|---|---|
//! | `/scans` (address `scans`) | staff edit, camera-3 drop, everyone view | |
//! | `/vault` | alice own | |
//! | `/pub` | users edit, everyone view | |
//! | `/inbox` (address `inbox`) | everyone drop, users view | |
//! | `/small` | users edit | 10 KiB, 3 files |
//! | `/once` | users edit | refuses to replace |
//! | `/both` | users edit | keeps both |

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use stoa::error::Result;
use stoa::hub::settings::{
    DeviceSettings, GrantSettings, LoginSettings, Overwrite, Settings, SpaceSettings, StorageSettings, UserSettings,
};
use stoa::hub::{Caller, Hub, TreePath, Volumes};
use stoa::net::{Handler, Limits, Link, Permit, Stream, Tls, TlsSettings};
use stoa::origin::{Origin, Whence};
use stoa::proto::{PROTOCOLS, Protocol, Section, Tools};
use stoa::store::{Catalog, CatalogSettings, Directory, Volume};
use stoa::units::ByteSize;
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

/// Clear passwords of the standard accounts.
pub const PASSWORDS: &[(&str, &str)] =
    &[("alice", "wonder"), ("bob", "builder"), ("rita", "rooted"), ("camera-3", "shutter")];

/// A hub over a folder that goes with it.
pub struct World {
    pub hub: Hub,
    pub folder: TempDir,
    tls: OnceLock<Arc<Tls>>,
}

/// Each space below `tree/`, as the daemon lays them out.
struct Trees(PathBuf);

impl Volumes for Trees {
    fn open(&self, space: &TreePath, source: &str) -> Result<Arc<dyn Volume>> {
        let own = self.0.join("tree").join(space.to_string().trim_start_matches('/'));
        let root = if source.is_empty() { own } else { PathBuf::from(source) };
        Ok(Arc::new(Directory::open(&root, &self.0.join("stage"), source.is_empty())?))
    }
}

/// A space with grants written `who verbs`.
pub fn space(path: &str, grants: &[(&str, &str)]) -> SpaceSettings {
    let grants = grants.iter().map(|(to, allow)| GrantSettings { to: (*to).into(), allow: (*allow).into() }).collect();
    SpaceSettings { path: path.into(), grants, ..SpaceSettings::default() }
}

impl World {
    /// The standard world.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The standard world with changes.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::within(&std::env::temp_dir(), change).await
    }

    /// The standard world in memory where the machine has such a folder: many fsyncs cost nothing there.
    pub async fn light() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::within(&place, |_| {}).await
    }

    async fn within(place: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let mut settings = standard(&folder);
        change(&mut settings);
        let catalog = Catalog::open(&CatalogSettings::default(), folder.path(), "test").await.expect("a catalog");
        let trees = Arc::new(Trees(folder.path().to_owned()));
        let hub = Hub::open(settings, catalog, trees).await.expect("a hub");
        Self { hub, folder, tls: OnceLock::new() }
    }

    /// Where a path of the tree is on the disk.
    pub fn disk(&self, path: &str) -> PathBuf {
        self.folder.path().join("tree").join(path.trim_start_matches('/'))
    }

    /// Puts a file there as another program would, with its folders.
    pub fn put(&self, path: &str, content: &[u8]) {
        let place = self.disk(path);
        std::fs::create_dir_all(place.parent().expect("a parent")).expect("a folder");
        std::fs::write(place, content).expect("a file");
    }

    /// A certificate of its own, made when first needed.
    pub fn tls(&self) -> Arc<Tls> {
        let make = || {
            let data = self.folder.path();
            Tls::open(&TlsSettings::default(), data, &["localhost".to_owned()]).expect("a certificate")
        };
        self.tls.get_or_init(make).clone()
    }

    /// A standard account, signed in by a door.
    pub async fn caller(&self, name: &str, door: &'static str) -> Caller {
        let password = PASSWORDS.iter().find(|(known, _)| *known == name).map_or("", |(_, password)| password);
        self.hub.login(&origin(door), name, password.as_bytes()).await.expect("a sign-in")
    }

    /// The handler of a door, with keys changed from their defaults.
    pub fn door(&self, name: &str, changes: &toml::Table) -> Arc<dyn Handler> {
        let protocol: &dyn Protocol = *PROTOCOLS.iter().find(|protocol| protocol.name() == name).expect("a door");
        let mut values = protocol.defaults();
        values.extend(changes.clone());
        let tools = Tools { hub: self.hub.clone(), tls: self.tls(), ready: Arc::new(|| true) };
        protocol.open(&Section { name: protocol.name(), values }, &tools).expect("an open door")
    }
}

/// A connection over a pipe whose ends pass at most `cut` bytes at once, and the client's end of it.
pub fn pipe(door: &'static str, cut: usize) -> (Link, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(cut);
    let link = Link {
        stream: Stream::Pipe(ours),
        origin: origin(door),
        stop: CancellationToken::new(),
        limits: Arc::new(Limits::default()),
        tls: None,
        permit: Permit::uncounted(),
        trusted: None,
    };
    (link, theirs)
}

/// From this machine, by this door.
pub fn origin(door: &'static str) -> Origin {
    let address = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
    Origin::from(Whence {
        door,
        listener: door.into(),
        peer: address(50_000),
        local: address(21),
        link: 1,
        secure: false,
    })
}

fn standard(folder: &TempDir) -> Settings {
    let secret = |name: &str| {
        let password = PASSWORDS.iter().find(|(known, _)| *known == name).map_or("", |(_, password)| password);
        let file = folder.path().join(format!("{name}.password"));
        std::fs::write(&file, format!("{password}\n")).expect("a password file");
        file.display().to_string()
    };
    let user = |name: &str, groups: &[&str], root: &str| UserSettings {
        name: name.into(),
        password_file: secret(name),
        groups: groups.iter().map(ToString::to_string).collect(),
        root: root.into(),
        ..UserSettings::default()
    };
    let camera = DeviceSettings {
        name: "camera-3".into(),
        password_file: secret("camera-3"),
        folder: "/cameras/3".into(),
        ..DeviceSettings::default()
    };
    let scans = [("group:staff", "edit"), ("device:camera-3", "drop"), ("everyone", "view")];
    Settings {
        data: folder.path().to_owned(),
        // What a hash costs is not what is tested.
        login: LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() },
        // Nor is the disk it runs on.
        storage: StorageSettings { keep_free: ByteSize(0), ..StorageSettings::default() },
        domains: vec!["example.org".into()],
        users: vec![user("alice", &["staff"], "/"), user("bob", &[], "/"), user("rita", &["staff"], "/scans/rita")],
        devices: vec![camera],
        spaces: vec![
            SpaceSettings { address: "scans".into(), ..space("/scans", &scans) },
            space("/vault", &[("user:alice", "own")]),
            space("/pub", &[("users", "edit"), ("everyone", "view")]),
            SpaceSettings { address: "inbox".into(), ..space("/inbox", &[("everyone", "drop"), ("users", "view")]) },
            SpaceSettings { quota: ByteSize(10 << 10), quota_files: 3, ..space("/small", &[("users", "edit")]) },
            SpaceSettings { overwrite: Overwrite::Refuse, ..space("/once", &[("users", "edit")]) },
            SpaceSettings { overwrite: Overwrite::KeepBoth, ..space("/both", &[("users", "edit")]) },
        ],
        ..Settings::default()
    }
}
