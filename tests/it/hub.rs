//! The hub's promises, without a network: uploads, overwrite rules, quotas, renames, crashes and replays.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use stoa::error::{Kind, Result};
use stoa::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, SetModified, Taken};
use stoa::hub::settings::{GrantSettings, Overwrite, SpaceSettings, UserSettings};
use stoa::hub::{Caller, Hub, Receipt, Settings, TreePath, Volumes, WriteMode, WriteOptions};
use stoa::origin::Origin;
use stoa::store::catalog::sqlite::Sqlite;
use stoa::store::fault::engine::{Calls, Fault, FaultyEngine, Moment};
use stoa::store::fault::volume::{FaultyVolume, VolumeBreak, VolumeFault, VolumePoint};
use stoa::store::{Catalog, CatalogSettings, Directory, HistoryFilter, Usage, Volume};
use stoa::units::ByteSize;
use tempfile::TempDir;

/// Directories below a folder, each behind the same fault.
struct Trees {
    folder: PathBuf,
    fault: Option<Arc<VolumeFault>>,
}

impl Volumes for Trees {
    fn open(&self, space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        let root = self.folder.join("tree").join(space.to_string().trim_start_matches('/'));
        let plain: Arc<dyn Volume> = Arc::new(Directory::open(&root, &self.folder.join("stage"), true)?);
        Ok(match &self.fault {
            Some(fault) => Arc::new(FaultyVolume::new(plain, fault.clone())),
            None => plain,
        })
    }
}

struct Ground {
    hub: Hub,
    folder: TempDir,
}

fn space(path: &str, overwrite: Overwrite, quota: u64, quota_files: u64) -> SpaceSettings {
    SpaceSettings {
        path: path.into(),
        overwrite,
        quota: ByteSize(quota),
        quota_files,
        grants: vec![GrantSettings { to: "users".into(), allow: "edit".into() }],
        ..SpaceSettings::default()
    }
}

fn settings(folder: &TempDir) -> Settings {
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "wonder\n").unwrap();
    let user = |name: &str| UserSettings {
        name: name.into(),
        password_file: password_file.to_string_lossy().into_owned(),
        ..UserSettings::default()
    };
    Settings {
        data: folder.path().to_owned(),
        domains: vec!["example.org".into()],
        users: vec![user("alice"), user("bob")],
        spaces: vec![
            space("/free", Overwrite::Replace, 0, 0),
            space("/small", Overwrite::Replace, 10_000, 0),
            space("/few", Overwrite::Replace, 0, 10),
            space("/both", Overwrite::KeepBoth, 0, 0),
            space("/once", Overwrite::Refuse, 0, 0),
            SpaceSettings { durable: false, ..space("/lax", Overwrite::Replace, 1 << 30, 0) },
            SpaceSettings { durable: false, ..space("/tight", Overwrite::Replace, 0, 2600) },
        ],
        ..Settings::default()
    }
}

impl Ground {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), None, None).await.unwrap()
    }

    async fn open(folder: TempDir, volume: Option<Arc<VolumeFault>>, engine: Option<EngineFault>) -> Result<Self> {
        let sqlite = Arc::new(Sqlite::open(&folder.path().join("catalog.db"), "one", &CatalogSettings::default())?);
        let catalog = match engine {
            Some((countdown, fault, moment)) => {
                Catalog::new(Arc::new(FaultyEngine::new(sqlite, countdown, Calls::Commits, fault, moment)))
            }
            None => Catalog::new(sqlite),
        };
        let trees = Trees { folder: folder.path().to_owned(), fault: volume };
        let hub = Hub::open(settings(&folder), catalog, Arc::new(trees)).await?;
        Ok(Self { hub, folder })
    }

    /// The daemon is gone; another one starts on what it left.
    async fn again(self) -> Self {
        let Self { hub, folder } = self;
        drop(hub);
        Self::open(folder, None, None).await.unwrap()
    }

    async fn alice(&self) -> Caller {
        self.hub.login(&Origin::inside("ftp"), "alice", b"wonder").await.unwrap()
    }

    async fn usage(&self, space: &str) -> Usage {
        let spaces = self.hub.spaces().await.unwrap();
        spaces.into_iter().find(|one| one.row.path == space).unwrap().usage
    }

    /// The truth on the disk: bytes and files below a space.
    fn on_disk(&self, space: &str) -> Usage {
        let mut usage = Usage::default();
        let mut folders = vec![self.folder.path().join("tree").join(space.trim_start_matches('/'))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let data = entry.metadata().unwrap();
                if data.is_dir() {
                    folders.push(entry.path());
                } else {
                    usage.files += 1;
                    usage.bytes += data.len();
                }
            }
        }
        usage
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join("tree").join(path.trim_start_matches('/'))).ok()
    }
}

type EngineFault = (Arc<AtomicU64>, Fault, Moment);

fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

async fn put_with(caller: &Caller, path: &str, bytes: &[u8], options: WriteOptions) -> Result<Receipt> {
    let mut upload = caller.write(&at(path), options).await?;
    for chunk in bytes.chunks(40_000) {
        upload.push(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.commit().await
}

async fn put(caller: &Caller, path: &str, bytes: &[u8]) -> Result<Receipt> {
    put_with(caller, path, bytes, WriteOptions::default()).await
}

#[tokio::test]
async fn small_and_large_files_are_put_in_place_counted_and_recorded() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let large = vec![7_u8; 300_000];
    let options = WriteOptions { digest: true, ..WriteOptions::default() };
    let receipt = put_with(&alice, "/free/large.bin", &large, options).await.unwrap();
    put(&alice, "/free/small.txt", b"hello").await.unwrap();
    assert_eq!(receipt.bytes, 300_000);
    assert!(receipt.created && receipt.sha256.is_some() && receipt.tag != 0);
    assert_eq!(ground.read("/free/large.bin").unwrap(), large);
    assert_eq!(ground.read("/free/small.txt").unwrap(), b"hello");
    assert_eq!(ground.usage("/free").await, Usage { bytes: 300_005, files: 2 });

    let again = put(&alice, "/free/large.bin", b"short").await.unwrap();
    assert!(!again.created);
    assert_eq!(ground.usage("/free").await, Usage { bytes: 10, files: 2 });

    let lines = ground.hub.history(&HistoryFilter { limit: 10, ..HistoryFilter::default() }).await.unwrap();
    let told: Vec<_> =
        lines.iter().map(|line| (line.verb.as_str(), line.path.as_str(), line.account.as_str())).collect();
    assert_eq!(
        told,
        [
            ("create", "/free/large.bin", "alice"),
            ("create", "/free/small.txt", "alice"),
            ("overwrite", "/free/large.bin", "alice")
        ]
    );
    assert!(ground.hub.verify_history().await.unwrap().broken.is_empty());
}

#[tokio::test]
async fn an_upload_is_invisible_before_its_commit_and_leaves_nothing_when_dropped() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let mut upload = alice.write(&at("/free/a"), WriteOptions::default()).await.unwrap();
    upload.push(Bytes::from(vec![1; 500_000])).await.unwrap();
    assert_eq!(alice.stat(&at("/free/a")).await.unwrap_err().kind(), Kind::NotFound);
    upload.abandon().await;
    assert_eq!(ground.on_disk("/free"), Usage::default());
    assert_eq!(std::fs::read_dir(ground.folder.path().join("stage")).unwrap().count(), 0);
    assert_eq!(ground.usage("/free").await, Usage::default());
}

#[tokio::test]
async fn each_overwrite_rule_does_what_it_says() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    put(&alice, "/both/a.pdf", b"1").await.unwrap();
    let second = put(&alice, "/both/a.pdf", b"2").await.unwrap();
    assert_eq!(second.path, at("/both/a (2).pdf"));
    assert_eq!(put(&alice, "/both/a.pdf", b"3").await.unwrap().path, at("/both/a (3).pdf"));
    assert_eq!(ground.read("/both/a.pdf").unwrap(), b"1");

    put(&alice, "/once/a", b"1").await.unwrap();
    assert_eq!(put(&alice, "/once/a", b"2").await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(ground.read("/once/a").unwrap(), b"1");
}

#[tokio::test]
async fn racing_uploads_never_overspend_a_quota() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move { put(&alice, &format!("/small/{number}"), &[0; 1000]).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(receipt) => won.push(receipt.path.to_string()),
            Err(error) => assert_eq!(error.kind(), Kind::OverQuota),
        }
    }
    assert_eq!(won.len(), 10);
    assert_eq!(ground.usage("/small").await, Usage { bytes: 10_000, files: 10 });
    assert_eq!(ground.on_disk("/small"), Usage { bytes: 10_000, files: 10 });
    assert_eq!(put(&alice, &won[0], &[0; 1]).await.map(|_| ()).map_err(|error| error.kind()).err(), None, "smaller");

    for number in 0..10 {
        put(&alice, &format!("/few/{number}"), b"x").await.unwrap();
    }
    assert_eq!(put(&alice, "/few/more", b"x").await.unwrap_err().kind(), Kind::OverQuota);
    put(&alice, "/few/3", b"replaced").await.unwrap();
}

#[tokio::test]
async fn a_quota_of_a_space_that_is_not_durable_is_exact() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let mut won = 0;
                for number in 0..400 {
                    match put(&alice, &format!("/tight/{task}-{number}"), b"x").await {
                        Ok(_) => won += 1,
                        Err(error) => assert_eq!(error.kind(), Kind::OverQuota),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    assert_eq!(won, 2600, "every place and no more");
    assert_eq!(ground.usage("/tight").await, Usage { bytes: 2600, files: 2600 });
    assert_eq!(ground.on_disk("/tight"), Usage { bytes: 2600, files: 2600 });
}

#[tokio::test]
async fn a_space_that_is_not_durable_records_each_change_before_its_reply() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    put(&alice, "/lax/zero", b"").await.unwrap();
    for round in 1..20_usize {
        put(&alice, "/lax/a", &vec![b'a'; round]).await.unwrap();
        assert_eq!(ground.usage("/lax").await, Usage { bytes: round as u64, files: 2 });
        assert_eq!(ground.read("/lax/a").unwrap().len(), round);
        alice
            .perform(Rename { from: at("/lax/a"), to: at("/lax/b"), taken: Taken::AsRuled, tokens: Vec::new() })
            .await
            .unwrap();
        put(&alice, "/lax/a", b"again").await.unwrap();
        alice.perform(RemoveFile { path: at("/lax/a"), tokens: Vec::new() }).await.unwrap();
        alice
            .perform(Rename { from: at("/lax/b"), to: at("/lax/a"), taken: Taken::AsRuled, tokens: Vec::new() })
            .await
            .unwrap();
    }
    let lines = ground.hub.history(&HistoryFilter { limit: 1000, ..HistoryFilter::default() }).await.unwrap();
    let of = |verb: &str| lines.iter().filter(|line| line.verb == verb).count();
    assert_eq!((of("create"), of("overwrite"), of("delete"), of("rename")), (21, 18, 19, 38));
    alice.perform(RemoveFolder { path: at("/lax/none"), all: true, tokens: Vec::new() }).await.unwrap_err();
    drop(alice);
    let ground = ground.again().await;
    assert_eq!(ground.usage("/lax").await, Usage { bytes: 19, files: 2 });
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_file_that_another_program_removed_is_taken_over() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    for _ in 0..3 {
        put(&alice, "/lax/a", b"12345").await.unwrap();
        assert_eq!(ground.usage("/lax").await, Usage { bytes: 5, files: 1 });
        std::fs::remove_file(ground.folder.path().join("tree/lax/a")).unwrap();
    }
    let longer = put(&alice, "/lax/a", b"123456789").await.unwrap();
    assert!(longer.created);
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if ground.usage("/lax").await.bytes == 9 {
            break;
        }
    }
    assert_eq!(ground.usage("/lax").await, Usage { bytes: 9, files: 1 });
    let lines = ground.hub.history(&HistoryFilter { limit: 100, ..HistoryFilter::default() }).await.unwrap();
    assert_eq!(lines.iter().filter(|line| line.account == "alice").count(), 4);
}

#[tokio::test]
async fn racing_appends_all_arrive() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let options = WriteOptions { mode: WriteMode::Append, ..WriteOptions::default() };
                put_with(&alice, "/free/log", format!("line {number}\n").as_bytes(), options).await
            })
        })
        .collect();
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += usize::from(task.await.unwrap().is_ok());
    }
    let text = String::from_utf8(ground.read("/free/log").unwrap()).unwrap();
    assert_eq!(text.lines().count(), acknowledged, "{text}");
    assert_eq!(ground.usage("/free").await, ground.on_disk("/free"));
}

#[tokio::test]
async fn a_broken_upload_is_resumed_where_it_broke() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    let whole: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    let options = WriteOptions { keep_partial: true, ..WriteOptions::default() };
    let mut upload = alice.write(&at("/free/big"), options.clone()).await.unwrap();
    upload.push(Bytes::copy_from_slice(&whole[..150_000])).await.unwrap();
    upload.abandon().await;
    assert_eq!(alice.resumable(&at("/free/big")), Some(150_000));
    assert_eq!(ground.read("/free/big"), None);

    let options = WriteOptions { mode: WriteMode::Resume(120_000), ..options };
    put_with(&alice, "/free/big", &whole[120_000..], options).await.unwrap();
    assert_eq!(ground.read("/free/big").unwrap(), whole);
    assert_eq!(ground.usage("/free").await, Usage { bytes: 200_000, files: 1 });
}

#[tokio::test]
async fn folders_are_made_renamed_listed_and_removed_with_their_usage() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    alice.perform(MakeFolder { path: at("/free/one") }).await.unwrap();
    assert_eq!(alice.perform(MakeFolder { path: at("/free/one") }).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(put(&alice, "/free/none/a", b"x").await.unwrap_err().kind(), Kind::NotFound);
    put(&alice, "/free/one/a", b"12345").await.unwrap();
    let rename =
        |from: &str, to: &str| Rename { from: at(from), to: at(to), taken: Taken::AsRuled, tokens: Vec::new() };
    alice.perform(rename("/free/one", "/free/two")).await.unwrap();
    alice.perform(rename("/free/two/a", "/free/two/b")).await.unwrap();
    assert_eq!(ground.read("/free/two/b").unwrap(), b"12345");
    alice.perform(SetModified { path: at("/free/two/b"), modified: 1_000_000_000_000_000 }).await.unwrap();
    assert_eq!(alice.stat(&at("/free/two/b")).await.unwrap().node.modified, 1_000_000_000_000_000);

    let mut listing = alice.list(&TreePath::root()).await.unwrap();
    let names: Vec<_> = listing.next_page().await.unwrap().into_iter().map(|entry| entry.node.name).collect();
    assert_eq!(names, ["both", "few", "free", "home", "lax", "mail", "once", "small", "tight"]);

    let remove = |all| RemoveFolder { path: at("/free/two"), all, tokens: Vec::new() };
    assert_eq!(alice.perform(remove(false)).await.unwrap_err().kind(), Kind::NotEmpty);
    alice.perform(remove(true)).await.unwrap();
    assert_eq!(ground.usage("/free").await, Usage::default());
    assert_eq!(ground.on_disk("/free"), Usage::default());
    let gone = RemoveFile { path: at("/free/two/b"), tokens: Vec::new() };
    assert_eq!(alice.perform(gone).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn every_fault_of_the_volume_loses_nothing_acknowledged_and_keeps_usage_true() {
    for point in VolumePoint::ALL {
        for way in VolumeBreak::ALL {
            for nth in 1..=3 {
                for space in ["/free", "/lax"] {
                    let fault = VolumeFault::new(point, way, Arc::new(AtomicU64::new(nth)));
                    let ground = Ground::open(tempfile::tempdir().unwrap(), Some(fault), None).await.unwrap();
                    check_after_faults(ground, space, &format!("{space} {point:?} {way:?} {nth}")).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn every_fault_of_the_catalog_loses_nothing_acknowledged_and_keeps_usage_true() {
    for moment in [Moment::Before, Moment::After] {
        for fault in [Fault::Fail(Kind::Unavailable), Fault::Stop] {
            for nth in 1..=6 {
                for space in ["/free", "/lax"] {
                    let engine = (Arc::new(AtomicU64::new(nth)), fault, moment);
                    let ground = Ground::open(tempfile::tempdir().unwrap(), None, Some(engine)).await.unwrap();
                    check_after_faults(ground, space, &format!("{space} {moment:?} {fault:?} {nth}")).await;
                }
            }
        }
    }
}

/// Uploads while something breaks, then a restart: what was acknowledged is there whole, nothing partial is. Where the records may come
/// after the answer, what a break took of them is found again by the next comparison.
async fn check_after_faults(ground: Ground, space: &str, story: &str) {
    let alice = ground.alice().await;
    let mut acknowledged = Vec::new();
    for number in 0..6_u8 {
        let size = if number % 2 == 0 { 100 } else { 100_000 };
        let path = format!("{space}/{}", number % 4);
        if put(&alice, &path, &vec![number; size]).await.is_ok() {
            acknowledged.push((path, number, size));
        }
    }
    drop(alice);
    let ground = ground.again().await;
    for (path, number, size) in &acknowledged {
        let last = acknowledged.iter().rfind(|(other, ..)| other == path).map(|(_, last, _)| last);
        if last != Some(number) {
            continue;
        }
        let found = ground.read(path).unwrap_or_else(|| panic!("{story}: {path} was acknowledged and is gone"));
        let later = found.first().is_some_and(|byte| byte > number);
        assert!(later || found == vec![*number; *size], "{story}: {path} is not what was acknowledged");
    }
    for number in 0..4 {
        if let Some(found) = ground.read(&format!("{space}/{number}")) {
            assert!(found.len() == 100 || found.len() == 100_000, "{story}: a partial file is visible");
        }
    }
    if space == "/lax" {
        ground.hub.rescan(space).await.unwrap();
    }
    assert_eq!(ground.usage(space).await, ground.on_disk(space), "{story}: usage and files differ");
    assert!(ground.hub.verify_history().await.unwrap().broken.is_empty(), "{story}: the history is broken");
    assert_eq!(std::fs::read_dir(ground.folder.path().join("stage")).unwrap().count(), 0, "{story}: a stage is left");
}

#[tokio::test]
async fn what_another_program_took_away_does_not_come_back_at_the_replay() {
    let ground = Ground::new().await;
    let alice = ground.alice().await;
    put(&alice, "/free/taken", b"x").await.unwrap();
    alice.perform(RemoveFile { path: at("/free/taken"), tokens: Vec::new() }).await.unwrap();
    put(&alice, "/free/kept", b"y").await.unwrap();
    drop(alice);
    let ground = ground.again().await;
    assert_eq!(ground.read("/free/taken"), None);
    assert_eq!(ground.read("/free/kept").unwrap(), b"y");
}
