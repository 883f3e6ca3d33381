//! What other programs do in a space appears in its usage and history, and never counts twice.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stoa::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, Taken};
use stoa::hub::settings::SpaceSettings;
use stoa::hub::{Caller, Rescan, TreePath, WriteOptions};
use stoa::store::{HistoryFilter, HistoryLine, SpaceRow, Usage};
use stoa::units::Span;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{World, space};

/// How soon a change by another program must show.
const SOON: Duration = Duration::from_secs(5);

fn at(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

impl World {
    /// Starts the keepers, until the guard is dropped.
    fn kept(&self) -> DropGuard {
        let stop = CancellationToken::new();
        self.hub.keep(&stop);
        stop.drop_guard()
    }

    async fn counted(&self, space: &str) -> Usage {
        let spaces = self.hub.spaces().await.unwrap();
        spaces.into_iter().find(|one| one.row.path == space).unwrap().usage
    }

    /// Waits until a space counts this much.
    async fn counts(&self, space: &str, bytes: u64, files: u64) {
        let wanted = Usage { bytes, files };
        let end = Instant::now() + SOON;
        while self.counted(space).await != wanted {
            assert!(Instant::now() < end, "{space}: {:?} instead of {wanted:?}", self.counted(space).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lines about what other programs did below a path: verb, path, bytes.
    async fn outside(&self, path: &str) -> Vec<(String, String, u64)> {
        let filter = HistoryFilter {
            path: Some(path.into()),
            door: Some("outside".into()),
            limit: 10_000,
            ..HistoryFilter::default()
        };
        let told = |line: HistoryLine| (line.verb, line.path, line.bytes);
        self.hub.history(&filter).await.unwrap().into_iter().map(told).collect()
    }
}

fn held(folder: &Path) -> Usage {
    let mut usage = Usage::default();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let data = entry.metadata().unwrap();
        let inside = if data.is_dir() { held(&entry.path()) } else { Usage { bytes: data.len(), files: 1 } };
        usage = Usage { bytes: usage.bytes + inside.bytes, files: usage.files + inside.files };
    }
    usage
}

async fn put(caller: &Caller, path: &str, body: Vec<u8>) -> stoa::error::Result<u64> {
    let options = WriteOptions { folders: true, ..WriteOptions::default() };
    let mut upload = caller.write(&at(path), options).await?;
    upload.push(Bytes::from(body)).await?;
    Ok(upload.commit().await?.bytes)
}

fn one(verb: &str, path: &str, bytes: u64) -> (String, String, u64) {
    (verb.into(), path.into(), bytes)
}

#[tokio::test]
async fn files_written_changed_moved_and_removed_by_others_are_counted_and_recorded() {
    let world = World::new().await;
    let _kept = world.kept();
    world.put("/vault/old/a.txt", b"12345");
    world.counts("/vault", 5, 1).await;

    fs::OpenOptions::new().append(true).open(world.disk("/vault/old/a.txt")).unwrap().write_all(b"678").unwrap();
    world.counts("/vault", 8, 1).await;

    // As rsync does: a hidden name of its own first, then the real one.
    world.put("/vault/in/.b.txt.Xy12", b"rsync");
    fs::rename(world.disk("/vault/in/.b.txt.Xy12"), world.disk("/vault/in/b.txt")).unwrap();
    fs::hard_link(world.disk("/vault/in/b.txt"), world.disk("/vault/in/c.txt")).unwrap();
    world.counts("/vault", 18, 3).await;

    fs::rename(world.disk("/vault/in"), world.disk("/vault/moved")).unwrap();
    fs::remove_file(world.disk("/vault/old/a.txt")).unwrap();
    world.counts("/vault", 10, 2).await;
    fs::remove_dir_all(world.disk("/vault/moved")).unwrap();
    world.counts("/vault", 0, 0).await;

    let lines = world.outside("/vault").await;
    assert!(lines.contains(&one("create", "/vault/old/a.txt", 5)), "{lines:?}");
    assert!(lines.contains(&one("overwrite", "/vault/old/a.txt", 8)), "{lines:?}");
    assert!(lines.contains(&one("create", "/vault/moved/b.txt", 5)), "{lines:?}");
    assert!(lines.contains(&one("delete", "/vault/in/b.txt", 5)), "{lines:?}");
    assert!(lines.contains(&one("delete", "/vault/old/a.txt", 8)), "{lines:?}");
    assert!(world.hub.verify_history().await.unwrap().broken.is_empty());
    assert_eq!(world.hub.rescan("/vault").await.unwrap(), Rescan::default());
}

#[tokio::test]
async fn a_program_that_keeps_its_file_open_is_followed_while_it_writes() {
    let world = World::new().await;
    let _kept = world.kept();
    let mut log = fs::File::create(world.disk("/vault/log")).unwrap();
    world.counts("/vault", 0, 1).await;
    for step in 1..4 {
        log.write_all(&[b'x'; 1000]).unwrap();
        world.counts("/vault", step * 1000, 1).await;
    }
}

#[tokio::test]
async fn what_changed_while_nobody_looked_is_found_at_the_start() {
    let world = World::new().await;
    let alice = world.caller("alice", "ftp").await;
    put(&alice, "/vault/kept", b"kept".to_vec()).await.unwrap();
    put(&alice, "/vault/a", b"file".to_vec()).await.unwrap();
    put(&alice, "/vault/folder/x", b"x".to_vec()).await.unwrap();
    put(&alice, "/vault/changed", b"old".to_vec()).await.unwrap();
    // A file where a folder was and the reverse, names that sort around the slash, and folders upon folders.
    fs::remove_file(world.disk("/vault/a")).unwrap();
    fs::remove_dir_all(world.disk("/vault/folder")).unwrap();
    for path in ["/vault/a/deep/er/1", "/vault/a-b/2", "/vault/a.txt", "/vault/a0", "/vault/folder", "/vault/changed"] {
        world.put(path, b"123456");
    }
    let mut paths: Vec<String> = Vec::new();
    for number in 0..300 {
        paths.push(format!("/vault/many-{}/{}/f{number}", number % 7, number % 3));
    }
    for path in &paths {
        world.put(path, b"m");
    }

    let found = world.hub.rescan("/vault").await.unwrap();
    let wanted = Rescan { files: 307, created: 305, overwritten: 1, deleted: 2, corrected: false };
    assert_eq!(found, wanted);
    assert_eq!(world.counted("/vault").await, held(&world.disk("/vault")));
    assert_eq!(world.hub.rescan("/vault").await.unwrap(), Rescan { files: 307, ..Rescan::default() });
    let lines = world.outside("/vault").await;
    assert_eq!(lines.len(), 308);
    assert!(lines.contains(&one("overwrite", "/vault/changed", 6)));
    assert!(world.hub.rescan("/nowhere").await.is_err());
}

#[tokio::test]
async fn a_large_tree_served_in_place_is_adopted_with_a_bounded_number_of_lines() {
    let source = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        let folder = source.path().join(format!("{}", number % 10));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(number.to_string()), "xx").unwrap();
    }
    let place = source.path().to_string_lossy().into_owned();
    let world = World::with(|settings| {
        settings.spaces.push(SpaceSettings { source: place, ..space("/served", &[("users", "view")]) });
    })
    .await;
    let _kept = world.kept();
    world.counts("/served", 6000, 3000).await;
    let end = Instant::now() + SOON;
    loop {
        let lines = world.outside("/served").await;
        if lines.last().is_some_and(|(verb, ..)| verb == "adopt") {
            assert!(lines.len() < 1200, "{} lines", lines.len());
            break;
        }
        assert!(Instant::now() < end, "{} lines", lines.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_space_inside_another_counts_its_own_files_only_once() {
    let world = World::with(|settings| settings.spaces.push(space("/", &[("users", "view")]))).await;
    let _kept = world.kept();
    world.put("/top.txt", b"top");
    world.put("/vault/inner.txt", b"inner");
    world.counts("/", 3, 1).await;
    world.counts("/vault", 5, 1).await;
    assert_eq!(world.hub.rescan("/").await.unwrap(), Rescan { files: 1, ..Rescan::default() });
    assert_eq!(world.outside("/vault").await.len(), 1);
}

#[tokio::test]
async fn hidden_names_links_and_staged_bytes_are_not_counted() {
    let world = World::new().await;
    let _kept = world.kept();
    std::os::unix::fs::symlink(world.folder.path(), world.disk("/vault/out")).unwrap();
    fs::create_dir(world.disk("/vault/.stoa-x")).unwrap();
    fs::write(world.disk("/vault/.stoa-x/y"), "y").unwrap();
    let alice = world.caller("alice", "ftp").await;
    let mut upload = alice.write(&at("/vault/upload"), WriteOptions::default()).await.unwrap();
    upload.push(Bytes::from(vec![1; 200_000])).await.unwrap();
    world.put("/vault/real", b"real");
    world.counts("/vault", 4, 1).await;
    assert_eq!(world.hub.rescan("/vault").await.unwrap(), Rescan { files: 1, ..Rescan::default() });
    upload.commit().await.unwrap();
    world.counts("/vault", 200_004, 2).await;
}

#[tokio::test]
async fn what_stoa_itself_does_is_never_adopted() {
    let world = World::new().await;
    let _kept = world.kept();
    let alice = world.caller("alice", "ftp").await;
    put(&alice, "/vault/a/small", b"small".to_vec()).await.unwrap();
    put(&alice, "/vault/a/large", vec![7; 300_000]).await.unwrap();
    alice.perform(MakeFolder { path: at("/vault/made") }).await.unwrap();
    let rename =
        |from: &str, to: &str| Rename { from: at(from), to: at(to), taken: Taken::NeverReplace, tokens: Vec::new() };
    alice.perform(rename("/vault/a", "/vault/b")).await.unwrap();
    alice.perform(rename("/vault/b/small", "/vault/made/small")).await.unwrap();
    alice.perform(RemoveFile { path: at("/vault/b/large"), tokens: Vec::new() }).await.unwrap();
    world.put("/vault/mark", b"mark");
    world.counts("/vault", 9, 2).await;
    alice.perform(RemoveFolder { path: at("/vault/made"), all: true, tokens: Vec::new() }).await.unwrap();
    world.put("/vault/mark2", b"mark");
    world.counts("/vault", 8, 2).await;
    assert_eq!(world.outside("/vault").await, [one("create", "/vault/mark", 4), one("create", "/vault/mark2", 4)]);
}

#[tokio::test]
async fn what_stoa_left_is_looked_at_again_once_others_touch_it() {
    let world = World::new().await;
    let _kept = world.kept();
    let alice = world.caller("alice", "ftp").await;
    put(&alice, "/vault/a", b"ours".to_vec()).await.unwrap();
    world.put("/vault/a", b"theirs");
    world.counts("/vault", 6, 1).await;
    alice.perform(RemoveFile { path: at("/vault/a"), tokens: Vec::new() }).await.unwrap();
    world.put("/vault/a", b"back");
    world.counts("/vault", 4, 1).await;
    fs::remove_file(world.disk("/vault/a")).unwrap();
    world.counts("/vault", 0, 0).await;

    put(&alice, "/vault/d/x", b"x".to_vec()).await.unwrap();
    let rename = Rename { from: at("/vault/d"), to: at("/vault/e"), taken: Taken::NeverReplace, tokens: Vec::new() };
    alice.perform(rename).await.unwrap();
    fs::create_dir(world.disk("/vault/d")).unwrap();
    world.counts("/vault", 1, 1).await;
    fs::rename(world.disk("/vault/e/x"), world.disk("/vault/d/x")).unwrap();
    let end = Instant::now() + SOON;
    while !world.outside("/vault").await.contains(&one("create", "/vault/d/x", 1)) {
        assert!(Instant::now() < end, "{:?}", world.outside("/vault").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.counts("/vault", 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_racing_with_other_programs_do_not_drift_the_usage() {
    let world = World::with(|settings| settings.storage.rescan = Span(Duration::from_secs(1))).await;
    let _kept = world.kept();
    let alice = world.caller("alice", "ftp").await;
    let outside = tokio::task::spawn_blocking({
        let folder = world.disk("/vault");
        move || {
            let end = Instant::now() + Duration::from_secs(3);
            let mut turn = 0_usize;
            while Instant::now() < end {
                turn += 1;
                let path = folder.join(format!("f{}", turn % 20));
                let _ = match turn % 5 {
                    0 => fs::remove_file(&path),
                    1 => fs::rename(&path, folder.join(format!("f{}", (turn + 7) % 20))),
                    _ => fs::write(&path, vec![b'o'; turn % 900]),
                };
                if turn.is_multiple_of(50) {
                    let _ = fs::rename(folder.join("sub"), folder.join("bus"));
                    let _ = fs::rename(folder.join("bus"), folder.join("sub"));
                }
                std::thread::yield_now();
            }
        }
    });
    let inside = (0..4).map(|worker| {
        let alice = alice.clone();
        tokio::spawn(async move {
            for turn in 0..150_usize {
                let name = format!("f{}", (turn * 3 + worker) % 20);
                let _ = put(&alice, &format!("/vault/{name}"), vec![b'i'; turn * 10]).await;
                let _ = put(&alice, &format!("/vault/sub/{name}"), vec![b'i'; 70_000 + turn]).await;
                if turn % 4 == 0 {
                    let path = at(&format!("/vault/{name}"));
                    let _ = alice.perform(RemoveFile { path, tokens: Vec::new() }).await;
                }
                if turn % 25 == 24 {
                    let path = at("/vault/sub");
                    let _ = alice.perform(RemoveFolder { path, all: true, tokens: Vec::new() }).await;
                }
            }
        })
    });
    for worker in inside.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    outside.await.unwrap();
    let truth = held(&world.disk("/vault"));
    world.counts("/vault", truth.bytes, truth.files).await;
    let found = world.hub.rescan("/vault").await.unwrap();
    assert!(!found.corrected, "the usage drifted: {found:?}");
    assert_eq!(world.counted("/vault").await, truth);
    assert!(world.hub.verify_history().await.unwrap().broken.is_empty());
}

#[tokio::test]
async fn a_mail_program_that_files_a_message_is_followed() {
    let world = World::new().await;
    let _kept = world.kept();
    world.put("/mail/alice/new/1.host", b"message");
    world.counts("/mail/alice", 7, 1).await;
    fs::create_dir_all(world.disk("/mail/alice/cur")).unwrap();
    fs::rename(world.disk("/mail/alice/new/1.host"), world.disk("/mail/alice/cur/1.host:2,S")).unwrap();
    let end = Instant::now() + SOON;
    let moved = one("create", "/mail/alice/cur/1.host:2,S", 7);
    while !world.outside("/mail/alice").await.contains(&moved) {
        assert!(Instant::now() < end, "{:?}", world.outside("/mail/alice").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.counts("/mail/alice", 7, 1).await;
}

#[tokio::test]
async fn spaces_that_come_are_followed_and_so_is_what_a_removed_one_left_behind() {
    let world = World::new().await;
    let _kept = world.kept();
    world.hub.put_space(SpaceRow { path: "/late".into(), ..SpaceRow::default() }).await.unwrap();
    world.put("/late/a", b"a");
    world.counts("/late", 1, 1).await;
    world.hub.remove_space("/late").await.unwrap();
    world.put("/late/b", b"b");
    world.put("/vault/mark", b"mark");
    world.counts("/vault", 4, 1).await;
    // It is a space of the administrators' until they hand it over or delete it.
    assert_eq!(world.outside("/late").await.len(), 2);
}
