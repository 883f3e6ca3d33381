//! Staged bytes: whatever brings them, and however it ends, the disk never holds more than the quota has room for, and what was given up is
//! removed or counted.

use std::time::Duration;

use bytes::Bytes;
use stoa::error::Kind;
use stoa::hub::settings::{Settings, SpaceSettings};
use stoa::hub::{Caller, TreePath, Upload, UploadWish, WriteMode, WriteOptions};
use stoa::units::ByteSize;

use crate::world::{World, origin, space};

const MIB: u64 = 1 << 20;
const QUOTA: u64 = 10 * MIB;

/// The standard world with `/ten` (10 MiB, users edit) and `/box` (10 MiB, everyone drops).
async fn world() -> World {
    World::with(spaces).await
}

fn spaces(settings: &mut Settings) {
    let limited = |path, grants| SpaceSettings { quota: ByteSize(QUOTA), ..space(path, grants) };
    settings.spaces.push(limited("/ten", &[("users", "edit")]));
    settings.spaces.push(limited("/box", &[("everyone", "drop")]));
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn piece(size: u64) -> Bytes {
    Bytes::from(vec![7; usize::try_from(size).unwrap()])
}

/// Bytes in the staging folder.
fn staged(world: &World) -> u64 {
    let files = std::fs::read_dir(world.folder.path().join("stage")).unwrap();
    files.map(|file| file.unwrap().metadata().map_or(0, |about| about.len())).sum()
}

/// Pushes until it is refused or `most` pieces are in; why it was refused.
async fn fill(upload: &mut Upload, most: u64) -> Option<Kind> {
    for _ in 0..most {
        if let Err(error) = upload.push(piece(MIB / 2)).await {
            return Some(error.kind());
        }
    }
    None
}

async fn settled(world: &World, wanted: u64) {
    for _ in 0..500 {
        if staged(world) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} bytes are staged instead of {wanted}", staged(world));
}

async fn store(caller: &Caller, at: &str, size: u64) {
    let mut upload = caller.write(&path(at), WriteOptions::default()).await.unwrap();
    for _ in 0..size.div_ceil(MIB / 2) {
        upload.push(piece(MIB / 2)).await.unwrap();
    }
    upload.commit().await.unwrap();
}

#[tokio::test]
async fn uploads_at_the_same_time_share_the_room_that_is_left() {
    let world = world().await;
    let alice = world.caller("alice", "ftp").await;
    let mut open = Vec::new();
    for number in 0..8 {
        // None of them says how much will come.
        open.push(alice.write(&path(&format!("/ten/{number}")), WriteOptions::default()).await.unwrap());
    }
    let mut refused = 0;
    for upload in &mut open {
        refused += usize::from(fill(upload, 8).await == Some(Kind::OverQuota));
        assert!(staged(&world) <= QUOTA, "{}", staged(&world));
    }
    assert!(refused >= 5, "{refused} of 8 times 4 MiB were refused in 10 MiB");
    drop(open);
    settled(&world, 0).await;
    // All the room is there again.
    store(&alice, "/ten/all", QUOTA).await;
}

#[tokio::test]
async fn what_is_appended_to_is_copied_with_the_first_byte_and_counted() {
    let world = world().await;
    let alice = world.caller("alice", "ftp").await;
    store(&alice, "/ten/log", 4 * MIB).await;
    for mode in [WriteMode::Append, WriteMode::Resume(4 * MIB)] {
        let options = || WriteOptions { mode, ..WriteOptions::default() };
        let mut open = Vec::new();
        for _ in 0..8 {
            open.push(alice.write(&path("/ten/log"), options()).await.unwrap());
        }
        assert_eq!((staged(&world), open[0].len()), (0, 4 * MIB), "{mode:?}: nobody sent anything");
        let mut taken = 0;
        for upload in &mut open {
            taken += usize::from(upload.push(piece(1)).await.is_ok());
            assert!(staged(&world) <= QUOTA, "{mode:?}: {}", staged(&world));
        }
        assert!((1..=2).contains(&taken), "{mode:?}: {taken} copies of 4 MiB");
        drop(open);
        settled(&world, 0).await;
    }
    let options = WriteOptions { mode: WriteMode::Append, ..WriteOptions::default() };
    let mut upload = alice.write(&path("/ten/log"), options.clone()).await.unwrap();
    upload.push(Bytes::from_static(b"end")).await.unwrap();
    upload.commit().await.unwrap();
    // Nothing appended is the file as it was.
    alice.write(&path("/ten/log"), options).await.unwrap().commit().await.unwrap();
    let whole = std::fs::read(world.disk("/ten/log")).unwrap();
    assert!(
        whole.len() as u64 == 4 * MIB + 3 && whole.starts_with(&[7; 100]) && whole.ends_with(b"7end".split_at(1).1)
    );
}

#[tokio::test]
async fn broken_uploads_are_counted_until_they_are_gone_on_with_or_begun_anew() {
    let world = world().await;
    let alice = world.caller("alice", "ftp").await;
    let options = || WriteOptions { keep_partial: true, ..WriteOptions::default() };
    let mut kept = 0;
    for number in 0..8 {
        let Ok(mut upload) = alice.write(&path(&format!("/ten/{number}")), options()).await else { break };
        let _ = fill(&mut upload, 6).await;
        upload.abandon().await;
        kept = staged(&world);
        assert!(kept <= QUOTA, "{kept}");
    }
    assert!(kept >= QUOTA - 2 * MIB, "{kept}");
    // A restart knows them again.
    let first = alice.resumable(&path("/ten/0")).unwrap();
    assert_eq!(first, 3 * MIB);
    // Whoever goes on has the room of what is there; whoever begins anew does not need it.
    let resume = WriteOptions { mode: WriteMode::Resume(first), size: Some(first), ..options() };
    alice.write(&path("/ten/0"), resume).await.unwrap().commit().await.unwrap();
    let anew = WriteOptions { size: Some(3 * MIB), ..options() };
    let mut upload = alice.write(&path("/ten/1"), anew).await.unwrap();
    assert_eq!(fill(&mut upload, 6).await, None);
    upload.commit().await.unwrap();
    assert!(staged(&world) <= QUOTA - 6 * MIB, "{}", staged(&world));
}

fn wish(at: &str, length: Option<u64>, part: bool) -> UploadWish {
    UploadWish { path: path(at), length, part, folders: false, modified: None, sha256: None, note: String::new() }
}

#[tokio::test]
async fn guests_uploads_in_pieces_share_the_room_too() {
    let world = world().await;
    let guest = world.hub.guest(origin("http"));
    let mut writers = Vec::new();
    for number in 0..6 {
        let made = guest.begin_upload(&wish(&format!("/box/{number}"), None, false)).await.unwrap();
        writers.push(guest.continue_upload(&made.id).await.unwrap());
    }
    for writer in &mut writers {
        for _ in 0..8 {
            let _ = writer.push(piece(MIB / 2)).await;
        }
        assert!(staged(&world) <= QUOTA, "{}", staged(&world));
    }
}

#[tokio::test]
async fn a_part_belongs_to_a_file_once() {
    let world = world().await;
    let guest = world.hub.guest(origin("http"));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = guest.begin_upload(&wish("/box", Some(MIB), true)).await.unwrap();
        let mut writer = guest.continue_upload(&made.id).await.unwrap();
        writer.push(piece(MIB)).await.unwrap();
        writer.keep().await.unwrap();
        ids.push(made.id);
    }
    let joined = wish("/box/joined", None, false);
    let many = vec![ids[0].clone(); 300];
    assert_eq!(guest.join_uploads(&joined, &many).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(staged(&world), 2 * MIB);
    // Whoever goes away while the parts are copied leaves nothing of the copy.
    for turns in 0..40 {
        let mut joining = Box::pin(guest.join_uploads(&joined, &ids));
        let mut ended = false;
        for _ in 0..turns {
            ended |= futures_poll(joining.as_mut());
            if ended {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(joining);
        if ended {
            break;
        }
        assert!(staged(&world) <= QUOTA);
        if !world.disk("/box/joined").exists() {
            assert_eq!(guest.upload_resource(&ids[0]).await.map(|part| part.offset).ok(), Some(MIB));
        }
    }
    if !world.disk("/box/joined").exists() {
        guest.join_uploads(&joined, &ids).await.unwrap();
    }
    assert_eq!(std::fs::metadata(world.disk("/box/joined")).unwrap().len(), 2 * MIB);
    settled(&world, 0).await;
}

/// Asks a future once; true when it has ended.
fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[tokio::test]
async fn nothing_is_staged_where_the_disk_must_stay_free() {
    let mut settings = None;
    let world = World::with(|all| {
        spaces(all);
        settings = Some(all.clone());
    })
    .await;
    let alice = world.caller("alice", "ftp").await;
    let guest = world.hub.guest(origin("http"));
    store(&alice, "/ten/log", MIB).await;
    let made = guest.begin_upload(&wish("/box/piece", None, false)).await.unwrap();
    let mut open = Vec::new();
    for (at, mode) in [("/ten/new", WriteMode::Replace), ("/ten/log", WriteMode::Append)] {
        open.push(alice.write(&path(at), WriteOptions { mode, ..WriteOptions::default() }).await.unwrap());
    }
    let mut writer = guest.continue_upload(&made.id).await.unwrap();
    let mut settings = settings.unwrap();
    settings.storage.keep_free = ByteSize(u64::MAX);
    world.hub.reload(settings).await.unwrap();
    for upload in &mut open {
        assert_eq!(upload.push(piece(MIB)).await.unwrap_err().kind(), Kind::Full);
    }
    assert_eq!(writer.push(piece(MIB)).await.unwrap_err().kind(), Kind::Full);
    assert_eq!(alice.copy(&path("/ten/log"), &path("/ten/copy"), false, None).await.unwrap_err().kind(), Kind::Full);
    assert_eq!(staged(&world), 0);
}

#[tokio::test]
async fn who_sees_nothing_in_a_drop_box_is_not_told_whether_a_name_is_taken() {
    let world = world().await;
    let guest = world.hub.guest(origin("http"));
    world.put("/box/taken", b"what is there");
    let modes = [WriteMode::Replace, WriteMode::Append];
    for mode in modes {
        let mut told = Vec::new();
        for name in ["taken", "free", "other"] {
            for only_if in [None, Some(None)] {
                let options = WriteOptions { mode, only_if, ..WriteOptions::default() };
                let mut upload = guest.write(&path(&format!("/box/{name}")), options).await.unwrap();
                upload.push(Bytes::from_static(b"mine")).await.unwrap();
                let receipt = upload.commit().await.unwrap();
                told.push((receipt.path == path(&format!("/box/{name}")), receipt.created, receipt.bytes));
            }
        }
        assert!(told.iter().all(|one| *one == (true, true, 4)), "{mode:?}: {told:?}");
    }
    assert_eq!(std::fs::read(world.disk("/box/taken")).unwrap(), b"what is there");
    // The file that was there, and one for each of twelve uploads.
    assert_eq!(std::fs::read_dir(world.disk("/box")).unwrap().count(), 1 + 12);
    let ids = [wish("/box/taken", Some(4), false), wish("/box/never", Some(4), false)];
    for one in ids {
        assert!(guest.begin_upload(&one).await.is_ok(), "{}", one.path);
    }
}

#[tokio::test]
async fn broken_uploads_are_kept_as_many_as_is_said() {
    let world = World::with(|settings| settings.storage.partials_per_account = 2).await;
    let alice = world.caller("alice", "ftp").await;
    for name in ["a", "b", "c"] {
        let options = WriteOptions { keep_partial: true, ..WriteOptions::default() };
        let mut upload = alice.write(&path(&format!("/pub/{name}")), options).await.unwrap();
        upload.push(piece(MIB)).await.unwrap();
        upload.abandon().await;
    }
    settled(&world, 2 * MIB).await;
    let left = ["a", "b", "c"].map(|name| alice.resumable(&path(&format!("/pub/{name}"))));
    assert_eq!(left, [None, Some(MIB), Some(MIB)]);
}
