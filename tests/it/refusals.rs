//! What a file system refuses: no success without effect, no effect without success, nothing left to be done later, other spaces
//! unaffected. Also volumes that always fail and volumes that hang.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use stoa::error::{Kind, Result};
use stoa::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, SetModified, Taken};
use stoa::hub::property::SetProperties;
use stoa::hub::settings::{GrantSettings, SpaceSettings, StorageSettings, UserSettings};
use stoa::hub::{Caller, Envelope, Hub, Settings, TreePath, Volumes, WriteMode, WriteOptions};
use stoa::origin::Origin;
use stoa::store::fault::volume::{FaultyVolume, VolumeBreak, VolumeFault, VolumePoint};
use stoa::store::{Catalog, CatalogSettings, Directory, FileRow, HistoryFilter, Usage, Volume};
use stoa::units::Span;
use tempfile::TempDir;

use crate::mailbox::rcpt;

/// What file systems say when they refuse, lasting and passing.
const REFUSALS: [(&str, i32); 18] = [
    ("EPERM", 1),
    ("EIO", 5),
    ("EACCES", 13),
    ("EBUSY", 16),
    ("EXDEV", 18),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("EMLINK", 31),
    ("ENAMETOOLONG", 36),
    ("ENOTEMPTY", 39),
    ("ELOOP", 40),
    ("ENETDOWN", 100),
    ("ETIMEDOUT", 110),
    ("ESTALE", 116),
    ("EDQUOT", 122),
];

/// Every change that a file or a folder can undergo.
const CHANGES: [&str; 17] = [
    "put small",
    "put large",
    "replace small",
    "replace large",
    "append",
    "copy",
    "copy over",
    "mkdir",
    "remove",
    "remove empty folder",
    "remove folder",
    "rename",
    "rename over",
    "rename folder",
    "touch",
    "properties",
    "put below new folders",
];

/// Spaces with the fault in them, and `/good` without.
const FAULTY: [&str; 2] = ["/bad", "/lax"];

struct Trees {
    folder: PathBuf,
    fault: Arc<VolumeFault>,
}

impl Volumes for Trees {
    fn open(&self, space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        let key = space.to_string();
        let root = self.folder.join("tree").join(key.trim_start_matches('/'));
        let plain: Arc<dyn Volume> = Arc::new(Directory::open(&root, &self.folder.join("stage"), true)?);
        match FAULTY.contains(&key.as_str()) || key == "/mail/alice" {
            true => Ok(Arc::new(FaultyVolume::new(plain, self.fault.clone()))),
            false => Ok(plain),
        }
    }
}

struct Ground {
    hub: Hub,
    catalog: Catalog,
    fault: Arc<VolumeFault>,
    folder: TempDir,
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

impl Ground {
    async fn with(storage: StorageSettings) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let grants = vec![GrantSettings { to: "users".into(), allow: "edit".into() }];
        let space =
            |path: &str| SpaceSettings { path: path.into(), grants: grants.clone(), ..SpaceSettings::default() };
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "wonder\n").unwrap();
        let password_file = secret.display().to_string();
        let settings = Settings {
            data: folder.path().to_owned(),
            domains: vec!["example.org".into()],
            users: vec![UserSettings { name: "alice".into(), password_file, ..UserSettings::default() }],
            spaces: vec![space("/bad"), SpaceSettings { durable: false, ..space("/lax") }, space("/good")],
            storage,
            ..Settings::default()
        };
        let fault = VolumeFault::new(VolumePoint::Publish, VolumeBreak::FailBefore, Arc::new(AtomicU64::new(0)));
        let trees = Trees { folder: folder.path().to_owned(), fault: fault.clone() };
        let catalog = Catalog::open(&CatalogSettings::default(), folder.path(), "test").await.unwrap();
        let hub = Hub::open(settings, catalog.clone(), Arc::new(trees)).await.unwrap();
        Self { hub, catalog, fault, folder }
    }

    async fn new() -> Self {
        Self::with(StorageSettings::default()).await
    }

    async fn alice(&self) -> Caller {
        self.hub.login(&Origin::inside("http"), "alice", b"wonder").await.unwrap()
    }

    async fn send(&self, subject: &str) -> Result<()> {
        let caller = self.hub.recognise(&Origin::inside("smtp"));
        let recipient = self.hub.recipient(&caller, &rcpt("alice", "example.org")).await?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let envelope =
            Envelope { id, sender: "me@else.where".into(), recipients: vec![recipient], size: None, proof: None };
        let mut upload = caller.deliver(envelope).await?;
        upload.push(format!("Subject: {subject}\r\n\r\nhello\r\n").into()).await?;
        upload.commit().await.map(drop)
    }

    /// Everything that must be as before: files with their times, rows, usage, properties.
    async fn look(&self, space: &str) -> Look {
        let root = self.folder.path().join("tree").join(space.trim_start_matches('/'));
        let mut files = BTreeMap::new();
        walk(&root, &mut files);
        let rows = self.catalog.files_below(space, "", "", 1000).await.unwrap();
        let usage = self.catalog.usage(space).await.unwrap();
        let properties = self.catalog.properties(space, "a").await.unwrap();
        let properties = properties.into_iter().map(|row| (row.name, row.value)).collect();
        // A row that was restored has a newer version.
        let rows = rows.into_iter().map(|row| FileRow { version: 0, ..row }).collect();
        Look { files, rows, usage, properties }
    }

    /// Nothing waits to be done.
    async fn is_quiet(&self, story: &str) {
        self.hub.settle_all().await.unwrap_or_else(|error| panic!("{story}: {error:?}"));
        assert!(self.catalog.intents(i64::MIN, 10).await.unwrap().is_empty(), "{story}: an intent is left");
        let stages = std::fs::read_dir(self.folder.path().join("stage")).unwrap().count();
        assert_eq!(stages, 0, "{story}: a stage is left");
    }
}

#[derive(Debug, PartialEq)]
struct Look {
    files: BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)>,
    rows: Vec<FileRow>,
    usage: Usage,
    properties: Vec<(String, String)>,
}

/// Something that is there; `None` for what went since its name was read, while a change is still being settled.
fn still<T>(outcome: std::io::Result<T>) -> Option<T> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        outcome => Some(outcome.unwrap()),
    }
}

fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)>) {
    for entry in still(std::fs::read_dir(folder)).into_iter().flatten() {
        let path = entry.unwrap().path();
        let Some(meta) = still(path.metadata()) else { continue };
        if meta.is_dir() {
            // A folder's own time changes with each try that is taken back.
            files.insert(path.clone(), (None, SystemTime::UNIX_EPOCH));
            walk(&path, files);
        } else {
            let Some(bytes) = still(std::fs::read(&path)) else { continue };
            files.insert(path.clone(), (Some(bytes), meta.modified().unwrap()));
        }
    }
}

async fn put(caller: &Caller, path: &str, bytes: &[u8], options: WriteOptions) -> Result<()> {
    let mut upload = caller.write(&at(path), options).await?;
    for chunk in bytes.chunks(40_000) {
        upload.push(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.commit().await.map(drop)
}

async fn properties(caller: &Caller, path: &str, value: &str) -> Result<()> {
    let changes = vec![("{x}y".to_owned(), Some(format!("<y xmlns='x'>{value}</y>")))];
    caller.perform(SetProperties { path: at(path), changes, modified: Some(1_000_000) }).await
}

/// Does one of [`CHANGES`] below a space laid out by [`lay`].
async fn change(caller: &Caller, space: &str, what: &str) -> Result<()> {
    let path = |name: &str| at(&format!("{space}/{name}"));
    let text = |name: &str| format!("{space}/{name}");
    let plain = WriteOptions::default;
    let rename =
        |from: &str, to: &str| Rename { from: path(from), to: path(to), taken: Taken::AsRuled, tokens: Vec::new() };
    let remove = |name: &str, all| RemoveFolder { path: path(name), all, tokens: Vec::new() };
    match what {
        "put small" => put(caller, &text("new"), b"new", plain()).await,
        "put large" => put(caller, &text("new"), &vec![7; 200_000], plain()).await,
        "replace small" => put(caller, &text("a"), b"other", plain()).await,
        "replace large" => put(caller, &text("a"), &vec![7; 200_000], plain()).await,
        "append" => put(caller, &text("a"), b"more", WriteOptions { mode: WriteMode::Append, ..plain() }).await,
        "copy" => caller.copy(&path("a"), &path("new"), false, None).await.map(drop),
        "copy over" => caller.copy(&path("a"), &path("b"), true, None).await.map(drop),
        "mkdir" => caller.perform(MakeFolder { path: path("new") }).await,
        "remove" => caller.perform(RemoveFile { path: path("a"), tokens: Vec::new() }).await,
        "remove empty folder" => caller.perform(remove("empty", false)).await,
        "remove folder" => caller.perform(remove("full", true)).await,
        "rename" => caller.perform(rename("a", "new")).await.map(drop),
        "rename over" => caller.perform(rename("a", "b")).await.map(drop),
        "rename folder" => caller.perform(rename("full", "new")).await.map(drop),
        "touch" => caller.perform(SetModified { path: path("a"), modified: 5_000_000 }).await,
        "properties" => properties(caller, &text("a"), "other").await,
        "put below new folders" => put(caller, &text("x/y/z"), b"new", WriteOptions { folders: true, ..plain() }).await,
        other => panic!("{other}"),
    }
}

/// What the changes work on.
async fn lay(caller: &Caller, space: &str) {
    for (name, bytes) in [("a", &b"content of a"[..]), ("b", b"b"), ("full/one", b"1"), ("full/deep/two", b"22")] {
        let options = WriteOptions { digest: true, folders: true, ..WriteOptions::default() };
        put(caller, &format!("{space}/{name}"), bytes, options).await.unwrap();
    }
    caller.perform(MakeFolder { path: at(&format!("{space}/empty")) }).await.unwrap();
    properties(caller, &format!("{space}/a"), "first").await.unwrap();
}

#[tokio::test]
async fn a_refused_change_is_an_error_and_leaves_nothing() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    for space in FAULTY {
        lay(&alice, space).await;
        for (name, errno) in REFUSALS {
            for what in CHANGES {
                let story = format!("{space} {what} {name}");
                let before = ground.look(space).await;
                ground.fault.refuse(errno);
                let refused = change(&alice, space, what).await;
                put(&alice, "/good/x", b"x", WriteOptions::default()).await.expect("another space");
                ground.fault.heal();
                assert!(refused.is_err(), "{story}: acknowledged");
                assert_eq!(ground.look(space).await, before, "{story}");
                ground.is_quiet(&story).await;
                assert_eq!(ground.look(space).await, before, "{story}: done later");
            }
        }
        let lines = ground.hub.history(&HistoryFilter { limit: 10_000, ..HistoryFilter::default() }).await.unwrap();
        let failed = lines.iter().filter(|line| line.result == "failed" && line.path.starts_with(space)).count();
        assert_eq!(failed, REFUSALS.len() * CHANGES.len(), "each failure has its line");
        assert!(lines.iter().all(|line| line.result != "failed" || line.account == "alice"));
    }
    assert!(ground.hub.verify_history().await.unwrap().broken.is_empty());
    // Nothing is in the way of the same changes any more.
    for space in FAULTY {
        for what in ["replace large", "touch", "rename over", "remove folder", "remove empty folder", "put small"] {
            change(&alice, space, what).await.unwrap_or_else(|error| panic!("{space} {what}: {error:?}"));
        }
        let look = ground.look(space).await;
        assert_eq!(look.usage.files, look.rows.len() as u64);
    }
}

#[tokio::test]
async fn refused_mail_is_not_acknowledged_and_can_be_sent_again() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    ground.send("first").await.unwrap();
    for (name, errno) in REFUSALS {
        let before = ground.look("/mail/alice").await;
        ground.fault.refuse(errno);
        let refused = ground.send(name).await;
        let mut mailbox = alice.open_mailbox("").await.unwrap();
        let uids: Vec<u32> = mailbox.messages().iter().map(|message| message.uid).collect();
        let kept = mailbox.remove(&uids).await;
        drop(mailbox);
        ground.fault.heal();
        assert!(refused.is_err(), "{name}: a message was acknowledged");
        assert!(kept.is_err(), "{name}: a removal was acknowledged");
        assert_eq!(ground.look("/mail/alice").await, before, "{name}");
        ground.is_quiet(name).await;
        assert_eq!(ground.look("/mail/alice").await, before, "{name}: done later");
        ground.send(name).await.unwrap();
        assert_eq!(ground.look("/mail/alice").await.rows.len(), before.rows.len() + 1, "{name}: sent again");
    }
}

#[tokio::test]
async fn a_volume_that_never_syncs_takes_no_more_than_its_limit() {
    let ground = Ground::with(StorageSettings { unsynced: 5, ..StorageSettings::default() }).await;
    let alice = ground.alice().await;
    ground.fault.refuse_sync(5);
    let mut taken = 0;
    for number in 0..20 {
        match put(&alice, &format!("/bad/{number}"), b"x", WriteOptions::default()).await {
            Ok(()) => taken += 1,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
        }
        put(&alice, &format!("/good/{number}"), b"x", WriteOptions::default()).await.unwrap();
        let _ = ground.hub.settle_all().await;
    }
    assert_eq!(taken, 5);
    ground.fault.heal();
    ground.is_quiet("healed").await;
    put(&alice, "/bad/more", b"x", WriteOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_hangs_delays_no_other_and_is_settled_when_it_answers() {
    let patience = Span(Duration::from_millis(300));
    let ground = Ground::with(StorageSettings { patience, ..StorageSettings::default() }).await;
    let alice = ground.alice().await;
    lay(&alice, "/bad").await;
    ground.fault.hang();
    let mut hung = Vec::new();
    for what in ["put small", "put large", "replace small", "remove", "rename folder"] {
        let alice = alice.clone();
        hung.push(tokio::spawn(async move { (what, change(&alice, "/bad", what).await) }));
    }
    let start = Instant::now();
    for number in 0..50 {
        put(&alice, &format!("/good/{number}"), b"x", WriteOptions::default()).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for task in hung {
        let (what, outcome) = tokio::time::timeout(Duration::from_secs(10), task).await.expect("an answer").unwrap();
        assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable, "{what}");
    }
    ground.fault.heal();
    let agree = async {
        loop {
            let look = ground.look("/bad").await;
            let mut files: Vec<u64> =
                look.files.values().filter_map(|(bytes, _)| Some(bytes.as_ref()?.len() as u64)).collect();
            let mut rows: Vec<u64> = look.rows.iter().map(|row| row.size).collect();
            files.sort_unstable();
            rows.sort_unstable();
            if files == rows && put(&alice, "/bad/a", b"x", WriteOptions::default()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), agree).await.expect("records and files agree");
    ground.is_quiet("healed").await;
}

#[tokio::test]
async fn a_space_folder_that_was_removed_is_made_again() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    put(&alice, "/good/old", b"x", WriteOptions::default()).await.unwrap();
    ground.hub.settle_all().await.unwrap();
    std::fs::remove_dir_all(ground.folder.path().join("tree/good")).unwrap();
    for number in 0..3 {
        put(&alice, &format!("/good/{number}"), b"y", WriteOptions::default()).await.unwrap();
        let there = std::fs::read(ground.folder.path().join(format!("tree/good/{number}"))).unwrap();
        assert_eq!(there, b"y");
        alice.open(&at(&format!("/good/{number}"))).await.unwrap();
    }
}
