//! A daemon that stops at any moment leaves intents behind; replaying them must never undo what came later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use stoa::error::Result;
use stoa::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, SetModified, Taken};
use stoa::hub::settings::UserSettings;
use stoa::hub::{Caller, Hub, Settings, TreePath, Volumes, WriteOptions};
use stoa::store::fault::volume::{FaultyVolume, VolumeBreak, VolumeFault, VolumePoint};
use stoa::store::{Catalog, CatalogSettings, Directory, HistoryFilter, Volume};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::world::{origin, space};

struct Trees(PathBuf, Option<Arc<VolumeFault>>);

impl Volumes for Trees {
    fn open(&self, space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        let root = self.0.join("tree").join(space.to_string().trim_start_matches('/'));
        let plain: Arc<dyn Volume> = Arc::new(Directory::open(&root, &self.0.join("stage"), true)?);
        Ok(match &self.1 {
            Some(fault) => Arc::new(FaultyVolume::new(plain, fault.clone())),
            None => plain,
        })
    }
}

/// A hub without keepers: nothing is cleared unless it must be, as if the daemon were killed right away.
async fn open(folder: &TempDir) -> (Hub, Caller) {
    open_on(folder, None).await
}

async fn open_on(folder: &TempDir, fault: Option<Arc<VolumeFault>>) -> (Hub, Caller) {
    fs::write(folder.path().join("password"), "wonder\n").unwrap();
    let user = UserSettings {
        name: "alice".into(),
        password_file: folder.path().join("password").to_string_lossy().into_owned(),
        ..UserSettings::default()
    };
    let settings = Settings {
        data: folder.path().to_owned(),
        domains: vec!["example.org".into()],
        users: vec![user],
        spaces: vec![space("/vault", &[("users", "edit")])],
        ..Settings::default()
    };
    let catalog = Catalog::open(&CatalogSettings::default(), folder.path(), "test").await.unwrap();
    let hub = Hub::open(settings, catalog, Arc::new(Trees(folder.path().to_owned(), fault))).await.unwrap();
    let alice = hub.login(&origin("ftp"), "alice", b"wonder").await.unwrap();
    (hub, alice)
}

/// One step of a client.
#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, usize),
    Remove(&'static str),
    RemoveFolder(&'static str),
    MakeFolder(&'static str),
    Rename(&'static str, &'static str),
    Touch(&'static str),
    Kill,
}

/// No space left on the device.
const ENOSPC: i32 = 28;

/// Small bodies ride in the commit, large ones are staged.
const SMALL: usize = 100;
const LARGE: usize = 70_000;

fn at(path: &str) -> TreePath {
    TreePath::parse(&format!("/vault/{path}")).unwrap()
}

async fn perform(alice: &Caller, step: &Step, mark: u8) -> Result<()> {
    let tokens = Vec::new();
    match step {
        Step::Put(path, len) => {
            let options = WriteOptions { folders: true, ..WriteOptions::default() };
            let mut upload = alice.write(&at(path), options).await?;
            upload.push(Bytes::from(vec![mark; *len])).await?;
            upload.commit().await.map(|_| ())
        }
        Step::Remove(path) => alice.perform(RemoveFile { path: at(path), tokens }).await,
        Step::RemoveFolder(path) => alice.perform(RemoveFolder { path: at(path), all: true, tokens }).await,
        Step::MakeFolder(path) => alice.perform(MakeFolder { path: at(path) }).await,
        Step::Rename(from, to) => {
            alice.perform(Rename { from: at(from), to: at(to), taken: Taken::AsRuled, tokens }).await.map(drop)
        }
        Step::Touch(path) => alice.perform(SetModified { path: at(path), modified: 1_000_000 }).await,
        Step::Kill => Ok(()),
    }
}

/// Every file by its path: its length and first byte.
fn picture(folder: &Path, below: &str, into: &mut BTreeMap<String, (usize, u8)>) {
    for entry in fs::read_dir(folder).unwrap().map(std::result::Result::unwrap) {
        let path = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            into.insert(format!("{path}/"), (0, 0));
            picture(&entry.path(), &format!("{path}/"), into);
        } else {
            let content = fs::read(entry.path()).unwrap();
            into.insert(path, (content.len(), content.first().copied().unwrap_or_default()));
        }
    }
}

/// Runs the steps, kills and reopens at each `Kill` and at the end: what was there must be there again.
async fn survives(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut hub, mut alice) = open(&folder).await;
    let last = [Step::Kill];
    for (number, step) in steps.iter().chain(&last).enumerate() {
        if !matches!(step, Step::Kill) {
            let _ = perform(&alice, step, u8::try_from(number % 250).unwrap() + 1).await;
            continue;
        }
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        picture(&folder.path().join("tree/vault"), "", &mut before);
        drop((hub, alice));
        (hub, alice) = open(&folder).await;
        picture(&folder.path().join("tree/vault"), "", &mut after);
        assert_eq!(after, before, "after {:?}", steps.get(..number));
        let files: Vec<_> = after.iter().filter(|(path, _)| !path.ends_with('/')).collect();
        let usage = hub.spaces().await.unwrap().into_iter().find(|one| one.row.path == "/vault").unwrap().usage;
        let bytes: usize = files.iter().map(|(_, (len, _))| len).sum();
        assert_eq!((usage.files, usage.bytes), (files.len() as u64, bytes as u64), "after {:?}", steps.get(..number));
        let found = hub.rescan("/vault").await.unwrap();
        assert_eq!(found.created + found.overwritten + found.deleted, 0, "{found:?} after {:?}", steps.get(..number));
    }
}

#[tokio::test]
async fn a_file_put_again_after_its_removal_survives() {
    survives(&[Step::Put("a", SMALL), Step::Remove("a"), Step::Put("a", LARGE)]).await;
}

#[tokio::test]
async fn a_large_file_over_a_small_one_survives() {
    survives(&[Step::Put("a", SMALL), Step::Put("a", LARGE)]).await;
}

#[tokio::test]
async fn a_name_used_again_after_a_rename_keeps_both_files() {
    survives(&[Step::Put("a", SMALL), Step::Rename("a", "b"), Step::Put("a", LARGE)]).await;
    survives(&[Step::Put("b", SMALL), Step::Put("a", LARGE), Step::Rename("a", "b"), Step::Put("a", SMALL)]).await;
}

/// A power cut on btrfs may bring back what was under the old name before, although the rename itself survived.
#[tokio::test]
async fn an_older_file_that_is_back_under_the_old_name_does_not_replace_the_renamed_one() {
    let renamed = [Step::Put("a", LARGE), Step::Rename("a", "b")];
    let replaced = [Step::Put("b", SMALL), Step::Put("a", LARGE), Step::Rename("a", "b")];
    for (steps, older) in [(&renamed[..], SMALL), (&renamed[..], LARGE), (&replaced[..], SMALL)] {
        let folder = tempfile::tempdir().unwrap();
        let (hub, alice) = open(&folder).await;
        for (mark, step) in (1..).zip(steps) {
            perform(&alice, step, mark).await.unwrap();
        }
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        let tree = folder.path().join("tree/vault");
        picture(&tree, "", &mut before);
        drop((hub, alice));
        fs::write(tree.join("a"), vec![77; older]).unwrap();
        let (hub, _alice) = open(&folder).await;
        picture(&tree, "", &mut after);
        assert_eq!(after, before, "{steps:?}");
        let found = hub.rescan("/vault").await.unwrap();
        assert_eq!(found.created + found.overwritten + found.deleted, 0, "{found:?}");
    }
}

#[tokio::test]
async fn a_folder_filled_again_after_its_removal_survives() {
    survives(&[Step::Put("d/x", SMALL), Step::RemoveFolder("d"), Step::Put("d/x", LARGE), Step::Put("d/y", SMALL)])
        .await;
}

#[tokio::test]
async fn a_folder_moved_and_made_again_survives() {
    survives(&[Step::Put("d/x", LARGE), Step::Rename("d", "e"), Step::Put("d/x", SMALL), Step::Rename("e", "f")]).await;
}

#[tokio::test]
async fn a_folder_made_and_moved_is_not_made_again() {
    survives(&[Step::MakeFolder("d"), Step::Rename("d", "f"), Step::MakeFolder("d")]).await;
}

#[tokio::test]
async fn what_waits_for_a_failing_disk_keeps_its_order() {
    // The oldest change finds no space, the later ones would.
    let steps: [&[Step]; 3] = [
        &[Step::Put("a", 2 * SMALL), Step::Put("a", SMALL)],
        &[Step::Put("a", 2 * SMALL), Step::Remove("a"), Step::Put("a", SMALL)],
        &[Step::Put("a", 2 * SMALL), Step::Put("a", 3 * SMALL), Step::Put("a", SMALL)],
    ];
    for steps in steps {
        let folder = tempfile::tempdir().unwrap();
        let (hub, alice) = open(&folder).await;
        for (mark, step) in (1..).zip(steps) {
            perform(&alice, step, mark).await.unwrap();
        }
        let place = folder.path().join("tree/vault/a");
        let last = fs::read(&place).unwrap();
        drop((hub, alice));
        let fault = VolumeFault::new(VolumePoint::Publish, VolumeBreak::FailBefore, Arc::new(AtomicU64::new(0)));
        fault.leave_space(SMALL);
        let (hub, alice) = open_on(&folder, Some(fault.clone())).await;
        assert_eq!(hub.stuck_publishes(), steps.len(), "{steps:?}: the later ones wait for the first");
        let why = hub.troubles().await.join("; ");
        assert!(why.contains(&format!("{} changes can be neither put in place nor undone", steps.len())), "{why}");
        assert!(perform(&alice, &Step::Remove("a"), 1).await.is_err(), "and so does whoever comes now");
        fault.heal();
        let stop = CancellationToken::new();
        let keepers = hub.keep(&stop);
        let settled = async {
            while hub.stuck_publishes() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), settled).await.expect("the keeper tries again");
        assert_eq!(hub.troubles().await, Vec::<String>::new(), "ready again");
        assert!(fs::read(&place).unwrap() == last, "{steps:?}");
        assert!(!hub.rescan("/vault").await.unwrap().corrected);
        stop.cancel();
        for keeper in keepers {
            keeper.await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_in_place_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, alice) = open(&folder).await;
    perform(&alice, &Step::Put("a", SMALL), 1).await.unwrap();
    drop((hub, alice));
    let fault = VolumeFault::new(VolumePoint::Publish, VolumeBreak::FailBefore, Arc::new(AtomicU64::new(0)));
    fault.refuse(ENOSPC);
    let (hub, alice) = open_on(&folder, Some(fault.clone())).await;
    assert_eq!(hub.stuck_publishes(), 0, "the file is in place: a full disk is no reason to wait");
    fault.heal();
    perform(&alice, &Step::Remove("a"), 1).await.unwrap();
}

#[tokio::test]
async fn a_caller_who_goes_away_in_the_middle_of_a_commit_leaves_it_whole_or_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, alice) = open(&folder).await;
    for number in 0..200_u64 {
        let body = if number % 2 == 0 { SMALL } else { LARGE };
        let step = Step::Put("a", body);
        let put = perform(&alice, &step, u8::try_from(number + 1).unwrap());
        let _ = tokio::time::timeout(std::time::Duration::from_micros(number * 20), put).await;
    }
    perform(&alice, &Step::Put("a", SMALL), 250).await.unwrap();
    let place = folder.path().join("tree/vault/a");
    assert_eq!(fs::read(&place).unwrap(), [250; SMALL]);
    drop((hub, alice));
    let (hub, _alice) = open(&folder).await;
    assert_eq!(fs::read(&place).unwrap(), [250; SMALL], "nothing older was put in its place");
    assert!(!hub.rescan("/vault").await.unwrap().corrected);
}

/// Paths of which the history says that their content was lost.
async fn lost(hub: &Hub) -> Vec<String> {
    let lines = hub.history(&HistoryFilter { limit: 1000, ..HistoryFilter::default() }).await.unwrap();
    lines.into_iter().filter(|line| line.verb == "lost").map(|line| line.path).collect()
}

#[tokio::test]
async fn a_file_whose_bytes_did_not_survive_is_told_once_by_its_path() {
    // What is done, whose bytes are then spoilt, and what is left of them.
    type Case<'a> = (&'a [Step], &'a str, Option<Vec<u8>>);
    let put = || Step::Put("a", LARGE);
    let cases: [Case<'_>; 5] = [
        (&[put()], "a", Some(Vec::new())),
        (&[put()], "a", Some(vec![1; LARGE])),
        (&[put()], "a", None),
        (&[Step::Put("a", SMALL), put()], "a", Some(b"short".to_vec())),
        (&[put(), Step::Put("b", LARGE)], "b", Some(b"short".to_vec())),
    ];
    for (steps, path, left) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (hub, alice) = open(&folder).await;
        for step in steps {
            perform(&alice, step, 1).await.unwrap();
        }
        drop((hub, alice));
        let place = folder.path().join("tree/vault").join(path);
        match &left {
            Some(bytes) => fs::write(&place, bytes).unwrap(),
            None => fs::remove_file(&place).unwrap(),
        }
        for _ in 0..2 {
            let (hub, _alice) = open(&folder).await;
            assert_eq!(lost(&hub).await, [at(path).to_string()], "{steps:?} {left:?}");
            assert!(!hub.rescan("/vault").await.unwrap().corrected);
        }
    }
}

#[tokio::test]
async fn what_came_later_is_not_taken_for_a_loss() {
    let put = || Step::Put("a", LARGE);
    let cases: [&[Step]; 6] = [
        &[put()],
        &[put(), Step::Put("a", SMALL)],
        &[put(), Step::Put("a", LARGE)],
        &[put(), Step::Remove("a")],
        &[Step::MakeFolder("d"), put(), Step::Rename("a", "d/x")],
        &[put(), Step::Touch("a")],
    ];
    for steps in cases {
        let folder = tempfile::tempdir().unwrap();
        let (hub, alice) = open(&folder).await;
        for (mark, step) in (1..).zip(steps) {
            perform(&alice, step, mark).await.unwrap();
        }
        drop((hub, alice));
        let (hub, _alice) = open(&folder).await;
        assert!(lost(&hub).await.is_empty(), "{steps:?}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let file = prop::sample::select(vec!["a", "b", "d/x", "d/y", "d/e/z", "f/x"]);
    let folder = prop::sample::select(vec!["d", "d/e", "f"]);
    prop_oneof![
        4 => (file.clone(), prop::sample::select(vec![SMALL, LARGE])).prop_map(|(path, len)| Step::Put(path, len)),
        2 => file.clone().prop_map(Step::Remove),
        1 => folder.clone().prop_map(Step::RemoveFolder),
        1 => folder.clone().prop_map(Step::MakeFolder),
        2 => (file.clone(), file.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (folder.clone(), folder).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => file.prop_map(Step::Touch),
        1 => Just(Step::Kill),
    ]
}

/// `PROPTEST_CASES`, or what a run of all tests can afford: each case opens several hubs.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_survives_any_kill(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(survives(&steps));
    }
}
